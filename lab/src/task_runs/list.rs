//! Lists of runs: filter, order and pages. Pure.
//!
//! A page begins after a run, not at a count, so new runs don't move a run to a second page. Only
//! an order by a changing member (status, timeModified) can show a run twice or never, if the run
//! changes between two pages.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::Run;

/// The contract's range for pageSize.
pub(crate) const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1..=1000;

/// The contract's default for pageSize.
pub(crate) const PAGE_SIZE: usize = 10;

/// A member that lists can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Field {
    Name,
    Status,
    TimeCreated,
    TimeModified,
}

/// The direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    Asc,
    Desc,
}

/// A filter, an order, and a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// The sort order. Runs that are equal in it are in the order of creation.
    pub(crate) sort: Vec<(Field, Order)>,
    pub(crate) filter: Filter,
    pub(crate) size: usize,
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

/// A text that isn't a valid sort.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid sort at {0:?}: use a list of name, status, timeCreated and timeModified, each at most once, optionally followed by asc or desc, such as `timeCreated desc, name`"
)]
pub(crate) struct Unsortable(String);

/// Parses a sort.
pub(crate) fn sort(text: &str) -> Result<Vec<(Field, Order)>, Unsortable> {
    let mut sort = Vec::new();
    if text.trim().is_empty() {
        return Ok(sort);
    }
    for part in text.split(',') {
        let unsortable = || Unsortable(part.chars().take(100).collect());
        let mut words = part.split_whitespace();
        let field = match words.next() {
            Some("name") => Field::Name,
            Some("status") => Field::Status,
            Some("timeCreated") => Field::TimeCreated,
            Some("timeModified") => Field::TimeModified,
            Some(_) | None => return Err(unsortable()),
        };
        let order = match words.next() {
            Some("asc") | None => Order::Asc,
            Some("desc") => Order::Desc,
            Some(_) => return Err(unsortable()),
        };
        if words.next().is_some() || sort.iter().any(|&(other, _)| other == field) {
            return Err(unsortable());
        }
        sort.push((field, order));
    }
    Ok(sort)
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
            Place::First | Place::Last => query.sort.len(),
            Place::After(cursor) | Place::Before(cursor) => cursor.keys.len(),
        };
        (PAGE_SIZES.contains(&query.size) && keys == query.sort.len()).then_some(query)
    }

    fn cursor(&self, run: &Run) -> Cursor {
        Cursor {
            keys: self
                .sort
                .iter()
                .map(|&(field, _)| key(run, field))
                .collect(),
            number: run.number,
        }
    }

    fn compare(&self, one: &Cursor, other: &Cursor) -> Ordering {
        let keys = one.keys.iter().zip(&other.keys);
        self.sort
            .iter()
            .zip(keys)
            .map(|(&(_, order), (one, other))| match order {
                Order::Asc => one.cmp(other),
                Order::Desc => other.cmp(one),
            })
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| one.number.cmp(&other.number))
    }
}

fn key(run: &Run, field: Field) -> Key {
    match field {
        Field::Name => Key::Text(run.name.clone().unwrap_or_default()),
        Field::Status => Key::Text(run.status.word().to_owned()),
        Field::TimeCreated => Key::Time(run.created),
        Field::TimeModified => Key::Time(run.modified),
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
    let (begin, end) = match &query.place {
        Place::First => (0, query.size),
        Place::After(cursor) => {
            let begin = all.partition_point(|(run, _)| query.compare(run, cursor).is_le());
            (begin, begin.saturating_add(query.size))
        }
        Place::Before(cursor) => {
            let end = all.partition_point(|(run, _)| query.compare(run, cursor).is_lt());
            (end.saturating_sub(query.size), end)
        }
        Place::Last => {
            let begin = total.saturating_sub(1) / query.size.max(1) * query.size;
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
