//! Why a command failed, and how the process then ends.

use std::io;
use std::time::Duration;

use podbeat_interface::exit::Ending;
use podbeat_interface::service;
use podbeat_task_runs::error;

use super::known::TooMany;
use super::wait_condition::WaitCondition;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A request to the service failed, or could not be sent.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// A file cannot be read.
    #[error("cannot read the request from {from}")]
    Read {
        /// The file, or standard input.
        from: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The text is not a valid request.
    #[error("{from}: invalid request:\n  {}", problems.join("\n  "))]
    Malformed {
        /// The source of the text.
        from: String,
        /// What is wrong, each with its place.
        problems: Vec<String>,
    },
    /// The run ended in another status.
    #[error("task run {run} has ended with status {status}; it cannot become {condition}")]
    Unmet {
        /// The run's ID.
        run: String,
        /// The run's status.
        status: String,
        /// The status that the command waited for.
        condition: WaitCondition,
    },
    /// The time to wait is over.
    #[error(
        "timed out after {} waiting for task run {run} to be {condition}: {seen}",
        humantime::format_duration(*timeout)
    )]
    Overdue {
        /// The run's ID.
        run: String,
        /// The status that the command waited for.
        condition: WaitCondition,
        /// The time to wait.
        timeout: Duration,
        /// The last known status of the run.
        seen: String,
    },
    /// More runs match than podbeat can watch.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    /// How the process ends with this error.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Service(error) => service::ending(error),
            Self::Read { .. } => Ending::Unread,
            Self::Malformed { .. } | Self::TooMany(_) => Ending::Refused,
            Self::Unmet { .. } => Ending::Unmet,
            Self::Overdue { .. } => Ending::Overdue,
            Self::Write(_) => Ending::Unwritten,
        }
    }
}
