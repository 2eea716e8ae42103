//! The endings of podbeat and their exit codes, one table.
//!
//! The numbers are those of sysexits.h where it has one, so that they are told apart from a shell's (126 and up) and
//! from a panic's (101).

use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last heartbeat was accepted, or a command did what it was asked.
    Delivered,
    /// The service said that the run isn't this pod's; nothing was left to send. Not a failure of the pod.
    Orphaned,
    /// Every container of the pod is being restarted, and the next process continues.
    Restarting,
    /// The answer is no: a run that was waited for has ended otherwise, or something does not hold that was checked.
    Unmet,
    /// Settings are missing or malformed (EX_USAGE). Nothing was sent.
    Usage,
    /// The service, or the Kubernetes API, refuses what was asked, or a request breaks the contract and was not sent
    /// (EX_DATAERR).
    Refused,
    /// A file that was named can't be read (EX_NOINPUT).
    Unread,
    /// The service knows no such run (EX_NOUSER).
    NoSuchRun,
    /// Kubernetes knows no such pod (EX_NOUSER).
    NoSuchPod,
    /// The service, or the Kubernetes API, can't be reached, gives no answer in time, or fails (EX_UNAVAILABLE).
    Unavailable,
    /// podbeat itself failed before its first heartbeat (EX_SOFTWARE).
    Internal,
    /// A file could not be written where that was all there was to do (EX_CANTCREAT).
    Unwritten,
    /// The last heartbeat was not accepted in time (EX_TEMPFAIL): the service doesn't know how the run ended.
    Undelivered,
    /// What was waited for did not come in time (EX_TEMPFAIL).
    Overdue,
    /// What the service answers is not what the contract names (EX_PROTOCOL).
    Misunderstood,
    /// The service takes the token for none, or for none that may do this; or the Kubernetes API the user (EX_NOPERM).
    Denied,
}

impl Ending {
    /// Every ending, for documents and tests.
    pub const ALL: [Self; 16] = [
        Self::Delivered,
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
            Self::Delivered | Self::Orphaned | Self::Restarting => 0,
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
            Self::Delivered => "the last heartbeat was accepted; or a command did what it was asked",
            Self::Orphaned => "the service disowned the run",
            Self::Restarting => "every container of the pod is being restarted; the next process continues",
            Self::Unmet => "a run that was waited for has ended in another status; or a check failed",
            Self::Usage => "settings are missing or malformed",
            Self::Refused => {
                "the service, or the Kubernetes API, refuses what was asked, or the request breaks the contract"
            }
            Self::Unread => "a file that was named can't be read",
            Self::NoSuchRun => "there is no such task run",
            Self::NoSuchPod => "there is no such pod",
            Self::Unavailable => "the service, or the Kubernetes API, can't be reached, is silent, or fails",
            Self::Internal => "podbeat could not begin",
            Self::Unwritten => "a file could not be written",
            Self::Undelivered => "the last heartbeat was not accepted in time",
            Self::Overdue => "what was waited for did not come in time",
            Self::Misunderstood => "the service's answer can't be understood",
            Self::Denied => {
                "the service takes the token for none, or for none that may do this; or the Kubernetes API the user"
            }
        })
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

/// An error with all its causes, as it is told where a process ends with it.
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
