//! Lists of runs: filter, order and pages. Pure.
//!
//! A page begins after a run, not at a count, so new runs don't move a run to a second page. Only
//! an order by a changing member (status, timeModified) can show a run twice or never, if the run
//! changes between two pages.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use podbeat_task_runs::model::{PageSize, Sort, SortField, SortOrder};
use serde::{Deserialize, Serialize};

use super::run::Run;

/// A filter, an order, and a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// The sort order. Runs that are equal in it are in the order of creation.
    pub(crate) sort: Option<SortOrder>,
    pub(crate) filter: Filter,
    pub(crate) size: u16,
    pub(crate) place: Place,
}

/// The filter. An empty list accepts all runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) names: Vec<String>,
    /// The contract's words, in any case.
    pub(crate) statuses: Vec<String>,
    /// Task versions. A run that is created on its own has none, so a version filter accepts no
    /// run.
    pub(crate) versions: Vec<String>,
    pub(crate) acls: Vec<String>,
}

/// The position of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Place {
    First,
    After(Cursor),
    Before(Cursor),
    Last,
}

/// A run's position in the order, even if the run no longer exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    keys: Vec<Key>,
    number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Text(String),
    Time(Timestamp),
}

/// One page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page {
    pub(crate) runs: Vec<Run>,
    /// The number of runs on all pages.
    pub(crate) total: usize,
    pub(crate) first: Option<Place>,
    pub(crate) next: Option<Place>,
    pub(crate) previous: Option<Place>,
    pub(crate) last: Option<Place>,
}

impl Query {
    /// The token of another page of the same list.
    pub(crate) fn token(&self, place: Place) -> String {
        let query = Self {
            place,
            ..self.clone()
        };
        // Every value in it can be written as JSON.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&query).unwrap_or_default())
    }

    /// Parses a token; `None` if it isn't one of ours.
    pub(crate) fn of_token(token: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(token).ok()?;
        let query: Self = serde_json::from_slice(&json).ok()?;
        let keys = match &query.place {
            Place::First | Place::Last => query.fields().len(),
            Place::After(cursor) | Place::Before(cursor) => cursor.keys.len(),
        };
        let size = PageSize::new(query.size);
        (size.is_some() && keys == query.fields().len()).then_some(query)
    }

    fn fields(&self) -> &[Sort] {
        self.sort
            .as_ref()
            .map(SortOrder::fields)
            .unwrap_or_default()
    }

    fn cursor(&self, run: &Run) -> Cursor {
        Cursor {
            keys: self
                .fields()
                .iter()
                .map(|sort| key(run, sort.field))
                .collect(),
            number: run.number,
        }
    }

    fn compare(&self, one: &Cursor, other: &Cursor) -> Ordering {
        let keys = one.keys.iter().zip(&other.keys);
        self.fields()
            .iter()
            .zip(keys)
            .map(|(sort, (one, other))| match sort.descending {
                false => one.cmp(other),
                true => other.cmp(one),
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| one.number.cmp(&other.number))
    }
}

fn key(run: &Run, field: SortField) -> Key {
    match field {
        SortField::Name => Key::Text(run.name.clone().unwrap_or_default()),
        SortField::Status => Key::Text(run.status.word().to_owned()),
        SortField::TimeCreated => Key::Time(run.created),
        SortField::TimeModified => Key::Time(run.modified),
    }
}

impl Filter {
    fn passes(&self, run: &Run) -> bool {
        let acl = run.acl.as_deref().unwrap_or_default();
        let name = run.name.as_deref();
        (self.names.is_empty() || self.names.iter().any(|wanted| name == Some(wanted)))
            && (self.statuses.is_empty()
                || self
                    .statuses
                    .iter()
                    .any(|wanted| wanted.eq_ignore_ascii_case(run.status.word())))
            && (self.acls.is_empty() || self.acls.iter().any(|wanted| acl.contains(wanted)))
            && self.versions.is_empty()
    }
}

/// The page of a query.
pub(crate) fn page<'a>(runs: impl Iterator<Item = &'a Run>, query: &Query) -> Page {
    let mut all: Vec<(Cursor, &Run)> = runs
        .filter(|run| query.filter.passes(run))
        .map(|run| (query.cursor(run), run))
        .collect();
    all.sort_by(|(one, _), (other, _)| query.compare(one, other));
    let total = all.len();
    let size = usize::from(query.size);
    let (begin, end) = match &query.place {
        Place::First => (0, size),
        Place::After(cursor) => {
            let begin = all.partition_point(|(run, _)| query.compare(run, cursor).is_le());
            (begin, begin.saturating_add(size))
        }
        Place::Before(cursor) => {
            let end = all.partition_point(|(run, _)| query.compare(run, cursor).is_lt());
            (end.saturating_sub(size), end)
        }
        Place::Last => {
            let begin = total.saturating_sub(1) / size.max(1) * size;
            (begin, total)
        }
    };
    let end = end.min(total);
    let shown = all.get(begin..end).unwrap_or_default();
    // A page that has become empty still links back.
    let next = match shown.last() {
        Some((cursor, _)) => (end < total).then(|| Place::After(cursor.clone())),
        None => (begin < total).then_some(Place::First),
    };
    let previous = match shown.first() {
        Some((cursor, _)) => (begin > 0).then(|| Place::Before(cursor.clone())),
        None => (begin > 0).then_some(Place::Last),
    };
    Page {
        runs: shown.iter().map(|(_, run)| (*run).clone()).collect(),
        total,
        first: (total > 0).then_some(Place::First),
        next,
        previous,
        last: (total > 0).then_some(Place::Last),
    }
}
