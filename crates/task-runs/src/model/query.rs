//! Which task runs are listed, and how.

use std::fmt;

use super::TaskRunStatus;

/// Which task runs are listed, in which order, and how many at a time: the parameters of `ListTaskRuns`.
///
/// The contract says of each filter that it is a text, and no more; each goes to the service as it is.
///
/// ```
/// use podbeat_task_runs::model::{ListTaskRunsQuery, PageSize, SortField, TaskRunStatus};
///
/// let query = ListTaskRunsQuery {
///     sort: Some(SortField::TimeCreated.descending()),
///     status: Some(TaskRunStatus::Failed),
///     page_size: PageSize::new(100),
///     ..ListTaskRunsQuery::default()
/// };
/// # assert!(query.page_size.is_some());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTaskRunsQuery {
    /// Entries of access control lists.
    pub acls: Option<String>,
    /// Names of runs.
    pub names: Option<String>,
    /// How many runs are on a page; the service's default is 10.
    pub page_size: Option<PageSize>,
    /// A token from an earlier page: the first, next, previous or last page is wanted.
    pub page_token: Option<String>,
    /// The order.
    pub sort: Option<Sort>,
    /// Where the runs stand.
    pub status: Option<TaskRunStatus>,
    /// Versions of tasks.
    pub versions: Option<String>,
}

impl ListTaskRunsQuery {
    /// Names and values on the wire, not yet encoded; none for what is absent.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        [
            ("sort", self.sort.map(|sort| sort.to_string())),
            ("names", self.names.clone()),
            ("status", self.status.clone().map(String::from)),
            ("versions", self.versions.clone()),
            ("acls", self.acls.clone()),
            ("pageSize", self.page_size.map(|size| size.get().to_string())),
            ("pageToken", self.page_token.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}

/// How many runs are on a page: 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageSize(u16);

impl PageSize {
    /// The most that the contract lets be asked for.
    pub const MOST: u16 = 1000;

    /// The largest page.
    pub const LARGEST: Self = Self(Self::MOST);

    /// `None` for 0 and for more than 1000.
    #[must_use]
    pub fn new(size: u16) -> Option<Self> {
        (1..=Self::MOST).contains(&size).then_some(Self(size))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

/// The order of a list; on the wire the field, and behind a space the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub field: SortField,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// What a list can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortField {
    /// The run's name.
    Name,
    /// Where it stands.
    Status,
    /// When it was created.
    TimeCreated,
    /// When it was changed last.
    TimeModified,
}

impl SortField {
    /// All that the contract names.
    pub const ALL: [Self; 4] = [Self::Name, Self::Status, Self::TimeCreated, Self::TimeModified];

    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Status => "status",
            Self::TimeCreated => "timeCreated",
            Self::TimeModified => "timeModified",
        }
    }

    /// The least first.
    #[must_use]
    pub fn ascending(self) -> Sort {
        Sort {
            field: self,
            descending: false,
        }
    }

    /// The greatest first.
    #[must_use]
    pub fn descending(self) -> Sort {
        Sort {
            field: self,
            descending: true,
        }
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { "desc" } else { "asc" };
        write!(f, "{} {direction}", self.field.as_str())
    }
}
