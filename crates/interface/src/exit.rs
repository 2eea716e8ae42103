//! How podbeat ends, and its exit codes.
//!
//! podbeat uses the codes of sysexits.h where one fits. So they differ from a shell's codes (126
//! and up) and from a panic's (101).

use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The service accepted the last heartbeat, or a command succeeded.
    Done,
    /// The service said that the run isn't this pod's; nothing was left to send. Not a failure of
    /// the pod.
    Orphaned,
    /// All containers of the pod are restarting, and the next podbeat process continues.
    Restarting,
    /// A run ended in a status other than the expected one, or a check failed.
    Unmet,
    /// Settings are missing or malformed (EX_USAGE). podbeat sent nothing.
    Usage,
    /// The service or the Kubernetes API rejected the request, or podbeat did not send a request
    /// because it violates the contract (EX_DATAERR).
    Refused,
    /// A file that the user named cannot be read (EX_NOINPUT).
    Unread,
    /// The run does not exist (EX_NOUSER).
    NoSuchRun,
    /// The pod does not exist (EX_NOUSER).
    NoSuchPod,
    /// The service or the Kubernetes API cannot be reached, does not answer in time, or fails
    /// (EX_UNAVAILABLE).
    Unavailable,
    /// podbeat itself failed before its first heartbeat (EX_SOFTWARE).
    Internal,
    /// A command whose only result is a file could not write it (EX_CANTCREAT).
    Unwritten,
    /// The service did not accept the last heartbeat in time (EX_TEMPFAIL). It does not know how
    /// the run ended.
    Undelivered,
    /// The time to wait is over (EX_TEMPFAIL).
    Overdue,
    /// The service's answer violates the contract (EX_PROTOCOL).
    Misunderstood,
    /// The token is invalid or lacks permission, or the Kubernetes API denies the user access
    /// (EX_NOPERM).
    Denied,
}

impl Ending {
    /// All endings, for documents and tests.
    pub const ALL: [Self; 16] = [
        Self::Done,
        Self::Orphaned,
        Self::Restarting,
        Self::Unmet,
        Self::Usage,
        Self::Refused,
        Self::Unread,
        Self::NoSuchRun,
        Self::NoSuchPod,
        Self::Unavailable,
        Self::Internal,
        Self::Unwritten,
        Self::Undelivered,
        Self::Overdue,
        Self::Misunderstood,
        Self::Denied,
    ];

    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done | Self::Orphaned | Self::Restarting => 0,
            Self::Unmet => 1,
            Self::Usage => 64,
            Self::Refused => 65,
            Self::Unread => 66,
            Self::NoSuchRun | Self::NoSuchPod => 67,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Unwritten => 73,
            Self::Undelivered | Self::Overdue => 75,
            Self::Misunderstood => 76,
            Self::Denied => 77,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "the service accepted the last heartbeat, or the command succeeded",
            Self::Orphaned => "the service says that the run does not belong to this pod",
            Self::Restarting => {
                "all containers of the pod are restarting; the next podbeat process continues"
            }
            Self::Unmet => "a run ended in a status other than the expected one, or a check failed",
            Self::Usage => "a setting or the command line is missing or invalid",
            Self::Refused => {
                "the service or the Kubernetes API rejected the request, or the request violates the contract"
            }
            Self::Unread => "a file cannot be read",
            Self::NoSuchRun => "the task run does not exist",
            Self::NoSuchPod => "the pod does not exist",
            Self::Unavailable => {
                "the service or the Kubernetes API cannot be reached, does not answer in time, or fails"
            }
            Self::Internal => "podbeat could not start",
            Self::Unwritten => "a file cannot be written",
            Self::Undelivered => "the service did not accept the last heartbeat in time",
            Self::Overdue => "the time to wait is over",
            Self::Misunderstood => "podbeat does not understand the service's answer",
            Self::Denied => "the token is invalid or lacks permission, or the Kubernetes API denies access",
        })
    }
}

/// One way in which a command can end, and what it means for that command.
pub type Meaning = (Ending, &'static str);

/// How a command can end, ordered by exit code.
pub type Endings = &'static [Meaning];

/// Of a command that sends something.
pub const WRONG_SETTINGS: Meaning = (
    Ending::Usage,
    "the command line or a setting is invalid; nothing was sent",
);
/// Of a command that needs a runtime.
pub const NOT_STARTED: Meaning = (
    Ending::Internal,
    "podbeat could not start, for example because it ran out of file descriptors",
);
/// Of a command that prints something.
pub const NO_OUTPUT: Meaning = (Ending::Unwritten, "standard output cannot be written");
/// Of a command that asks the service.
pub const ODD_ANSWER: Meaning = (
    Ending::Misunderstood,
    "podbeat does not understand the service's answer",
);
/// Of a command that reads a file.
pub const NO_FILE: Meaning = (Ending::Unread, "the file cannot be read");
/// Of a command without settings.
pub const WRONG_COMMAND_LINE: Meaning = (Ending::Usage, "the command line is invalid");

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

/// An error with all its causes on one line, as a process shows it before it ends.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_design() {
        let codes: Vec<u8> = Ending::ALL.iter().map(|ending| ending.code()).collect();
        assert_eq!(
            codes,
            [0, 0, 0, 1, 64, 65, 66, 67, 67, 69, 70, 73, 75, 75, 76, 77]
        );
    }
}
