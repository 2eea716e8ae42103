//! Where a task run stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task run stands, by the contract's `x-task-run-statuses`. Open: one that this version doesn't know is kept.
///
/// ```
/// use podbeat_task_runs::model::TaskRunStatus;
///
/// assert_eq!(TaskRunStatus::from("TimedOut"), TaskRunStatus::TimedOut);
/// assert_eq!(TaskRunStatus::from("Paused").as_str(), "Paused");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TaskRunStatus {
    /// New.
    Pending,
    /// An agent has taken it.
    CheckedOut,
    /// Could run.
    Runnable,
    /// Runs.
    Running,
    /// Has run, and is being wound up.
    Finalizing,
    /// Done.
    Completed,
    /// Failed, and can be started again.
    FailedRestartable,
    /// Failed.
    Failed,
    /// Somebody ended it.
    Aborted,
    /// Took too long.
    TimedOut,
    /// None of these.
    Unknown(UnknownStatus),
}

/// A status that is none of those that this version knows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UnknownStatus(String);

impl TaskRunStatus {
    /// Those that the contract names, in its order.
    pub const KNOWN: [Self; 10] = [
        Self::Pending,
        Self::CheckedOut,
        Self::Runnable,
        Self::Running,
        Self::Finalizing,
        Self::Completed,
        Self::FailedRestartable,
        Self::Failed,
        Self::Aborted,
        Self::TimedOut,
    ];

    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "Pending",
            Self::CheckedOut => "CheckedOut",
            Self::Runnable => "Runnable",
            Self::Running => "Running",
            Self::Finalizing => "Finalizing",
            Self::Completed => "Completed",
            Self::FailedRestartable => "FailedRestartable",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::TimedOut => "TimedOut",
            Self::Unknown(UnknownStatus(text)) => text,
        }
    }

    /// Whether the run has ended. One that has failed and can be started again has not, and of a status that is unknown nobody
    /// knows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Aborted | Self::TimedOut => true,
            Self::Pending
            | Self::CheckedOut
            | Self::Runnable
            | Self::Running
            | Self::Finalizing
            | Self::FailedRestartable
            | Self::Unknown(_) => false,
        }
    }
}

impl From<String> for TaskRunStatus {
    fn from(text: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == text);
        known.unwrap_or(Self::Unknown(UnknownStatus(text)))
    }
}

impl From<&str> for TaskRunStatus {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<TaskRunStatus> for String {
    fn from(status: TaskRunStatus) -> Self {
        match status {
            TaskRunStatus::Unknown(UnknownStatus(text)) => text,
            known => known.as_str().to_owned(),
        }
    }
}

impl fmt::Display for TaskRunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
