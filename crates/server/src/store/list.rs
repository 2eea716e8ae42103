//! Which runs a list has, and in which order.

use jiff::Timestamp;
use podbeat_task_runs::model::{Sort, SortField};
use serde::{Deserialize, Serialize};

use super::StoredRun;
use podbeat_runs::Status;

/// Who looks at a list: which runs it can contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// All runs.
    All,
    /// The runs of a tenant, and those whose access control list names the tenant or the user.
    Member {
        /// The tenant.
        tenant: String,
        /// The user in the tenant.
        user: String,
    },
}

impl Viewer {
    /// The entries of an access control list that name the viewer.
    pub(super) fn entries(&self) -> Vec<String> {
        match self {
            Self::All => Vec::new(),
            Self::Member { tenant, user } => {
                vec![format!("tid:{tenant}"), format!("uid:{tenant}/{user}")]
            }
        }
    }

    /// Whether the viewer may see this run.
    #[must_use]
    pub fn sees(&self, run: &StoredRun) -> bool {
        match self {
            Self::All => true,
            Self::Member { tenant, .. } => {
                let acl = run.facts.acl.as_deref().unwrap_or_default();
                run.facts.tenant == *tenant
                    || self.entries().iter().any(|entry| acl.contains(entry))
            }
        }
    }
}

/// Selects runs. An empty list selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Runs with one of these names.
    pub names: Vec<String>,
    /// Runs with one of these statuses.
    pub statuses: Vec<Status>,
    /// Runs with one of these entries in their access control list.
    pub acls: Vec<String>,
    /// Runs whose name or ID begins with this text.
    pub search: Option<String>,
    /// No run at all.
    pub none: bool,
}

/// A list, and a page of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Who looks.
    pub viewer: Viewer,
    /// Which runs.
    pub filter: Filter,
    /// The order: at most one entry for each field. Runs that are equal in all fields are in the
    /// order of their creation, or in the reverse order if the first entry is descending.
    pub sort: Vec<Sort>,
    /// Which page.
    pub place: Place,
    /// The maximum number of runs on the page.
    pub size: usize,
}

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The first page.
    First,
    /// The page after a run.
    After(Cursor),
    /// The page before a run.
    Before(Cursor),
    /// The last page.
    Last,
}

/// A run's place in a list. It is valid even if the run no longer exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The values of the fields of the order.
    pub keys: Vec<Key>,
    /// The run's number.
    pub number: u64,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// A text.
    Text(String),
    /// A time.
    Time(Timestamp),
}

/// The number up to which the results of a search are counted.
pub const COUNTED: u64 = 10_000;

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The runs.
    pub runs: Vec<Listed>,
    /// The number of runs on all pages. With a search, at most [`COUNTED`].
    pub total: u64,
    /// Whether there are runs before this page.
    pub has_previous: bool,
    /// Whether there are runs after this page.
    pub has_next: bool,
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The run's number.
    pub number: u64,
    /// What its creator determined.
    pub facts: super::Facts,
    /// Its status.
    pub status: Status,
    /// Details of the status.
    pub details: Option<String>,
    /// Who changed it last.
    pub modified_by: String,
    /// When it changed last.
    pub modified: Timestamp,
    /// When its last heartbeat arrived.
    pub seen: Option<Timestamp>,
}

impl Query {
    /// Whether runs that are equal in all fields are in the reverse order of their creation.
    #[must_use]
    pub fn newest_first(&self) -> bool {
        self.sort.first().is_some_and(|sort| sort.descending)
    }

    /// The place of a run in this list.
    #[must_use]
    pub fn cursor(&self, run: &Listed) -> Cursor {
        let key = |sort: &Sort| match sort.field {
            SortField::Name => Key::Text(run.facts.name.clone().unwrap_or_default()),
            SortField::Status => Key::Text(run.status.to_string()),
            SortField::TimeCreated => Key::Time(run.facts.created),
            SortField::TimeModified => Key::Time(run.modified),
        };
        Cursor {
            keys: self.sort.iter().map(key).collect(),
            number: run.number,
        }
    }
}
