//! The status of a task run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a task run, from the contract's `x-task-run-statuses`. This enum is open: it keeps
/// unknown values.
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
    /// The run is new.
    Pending,
    /// An agent has taken the run.
    CheckedOut,
    /// The run is ready to run.
    Runnable,
    /// The run is running.
    Running,
    /// The task has ended, and the service is finishing the run.
    Finalizing,
    /// The run has completed.
    Completed,
    /// The run failed, and can be restarted.
    FailedRestartable,
    /// The run failed.
    Failed,
    /// Somebody aborted the run.
    Aborted,
    /// The run exceeded its time limit.
    TimedOut,
    /// A status that this version does not know.
    Unknown(UnknownStatus),
}

/// A status that this version does not know.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UnknownStatus(String);

impl TaskRunStatus {
    /// The statuses of the contract, in its order.
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

    /// The status of a new run, and the contract's default.
    pub const DEFAULT: Self = Self::Pending;

    /// The name on the wire.
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

    /// Whether the run has ended. `false` for a failed run that can be restarted, and for an
    /// unknown status.
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
