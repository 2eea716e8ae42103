//! The statuses of a run.

use std::fmt;

use podbeat_task_runs::model::TaskRunStatus;
use serde::{Deserialize, Serialize};

/// A run's status, one of the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It was created.
    Pending,
    /// An attempt was launched.
    CheckedOut,
    /// The attempt's pod exists, and waits for a node or an image.
    Runnable,
    /// Heartbeats arrive.
    Running,
    /// The attempt ended. The run waits for the rest of the evidence.
    Finalizing,
    /// It ended: every exit code is 0.
    Completed,
    /// An attempt failed, and there may be another.
    FailedRestartable,
    /// It ended: an exit code is not 0, or there is none.
    Failed,
    /// A client aborted it.
    Aborted,
    /// Its heartbeats stopped.
    TimedOut,
}

impl Status {
    /// All statuses, in the contract's order.
    pub const ALL: [Self; 10] = [
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

    /// Whether the run has ended. Such a status never changes.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Aborted | Self::TimedOut => true,
            Self::Pending
            | Self::CheckedOut
            | Self::Runnable
            | Self::Running
            | Self::Finalizing
            | Self::FailedRestartable => false,
        }
    }

    /// The contract's name.
    #[must_use]
    pub fn name(self) -> &'static str {
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
        }
    }

    /// The status with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The status on the wire.
    #[must_use]
    pub fn wire(self) -> TaskRunStatus {
        TaskRunStatus::from(self.name())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
