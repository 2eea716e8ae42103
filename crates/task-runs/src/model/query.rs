//! Selects and sorts task runs for a list.

use std::fmt;

use super::{SortOrder, TaskRunStatus};

/// The parameters of `ListTaskRuns`: which task runs are listed, in which order, and how many per
/// page.
///
/// According to the contract, each filter is a text without a defined form. podbeat sends it
/// unchanged.
///
/// ```
/// use podbeat_task_runs::model::{ListTaskRunsQuery, PageSize, SortField, TaskRunStatus};
///
/// let query = ListTaskRunsQuery {
///     sort: Some(SortField::TimeCreated.descending().into()),
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
    /// The number of runs per page. The service's default is [`PageSize::DEFAULT`].
    pub page_size: Option<PageSize>,
    /// A token from an earlier page. It selects the first, next, previous or last page.
    pub page_token: Option<String>,
    /// The order.
    pub sort: Option<SortOrder>,
    /// The status of the runs.
    pub status: Option<TaskRunStatus>,
    /// Versions of tasks.
    pub versions: Option<String>,
}

impl ListTaskRunsQuery {
    /// Returns the names and values for the wire, not encoded. Absent parameters are omitted.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let value = |parameter| match parameter {
            QueryParameter::Sort => self.sort.as_ref().map(SortOrder::to_string),
            QueryParameter::Names => self.names.clone(),
            QueryParameter::Status => self.status.clone().map(String::from),
            QueryParameter::Versions => self.versions.clone(),
            QueryParameter::Acls => self.acls.clone(),
            QueryParameter::PageSize => self.page_size.map(|size| size.get().to_string()),
            QueryParameter::PageToken => self.page_token.clone(),
        };
        let pairs = QueryParameter::ALL.into_iter();
        pairs
            .filter_map(|parameter| Some((parameter.as_str(), value(parameter)?)))
            .collect()
    }
}

/// A parameter of `ListTaskRuns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryParameter {
    /// The order.
    Sort,
    /// Names of runs.
    Names,
    /// The status of the runs.
    Status,
    /// Versions of tasks.
    Versions,
    /// Entries of access control lists.
    Acls,
    /// The number of runs per page.
    PageSize,
    /// A token from an earlier page.
    PageToken,
}

impl QueryParameter {
    /// All parameters of the contract, in its order.
    pub const ALL: [Self; 7] = [
        Self::Sort,
        Self::Names,
        Self::Status,
        Self::Versions,
        Self::Acls,
        Self::PageSize,
        Self::PageToken,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sort => "sort",
            Self::Names => "names",
            Self::Status => "status",
            Self::Versions => "versions",
            Self::Acls => "acls",
            Self::PageSize => "pageSize",
            Self::PageToken => "pageToken",
        }
    }
}

impl fmt::Display for QueryParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of runs per page: 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageSize(u16);

impl PageSize {
    /// The smallest page size that the contract allows.
    pub const LEAST: u16 = 1;

    /// The largest page size that the contract allows.
    pub const MOST: u16 = 1000;

    /// The service's default.
    pub const DEFAULT: Self = Self(10);

    /// The largest page.
    pub const LARGEST: Self = Self(Self::MOST);

    /// Returns `None` for 0 and for more than 1000.
    #[must_use]
    pub fn new(size: u16) -> Option<Self> {
        (Self::LEAST..=Self::MOST)
            .contains(&size)
            .then_some(Self(size))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}
