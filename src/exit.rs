//! How podbeat ends, and the exit codes, in one table.
//!
//! The numbers are those of sysexits.h where it has one, so that they are told apart from a shell's (126 and up) and
//! from a panic's (101).

use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The service accepted the last heartbeat, or a command succeeded.
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
            Self::Delivered => "the service accepted the last heartbeat, or the command succeeded",
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

/// How each command can end, and what that means for it. The help texts, the manual pages and docs/ are generated from it.
///
/// `podbeat` alone runs the agent. A command that a signal ends has 128 and the signal's number, as usual.
pub const ENDINGS: &[(&str, &[(Ending, &str)])] = &[
    ("podbeat", AGENT),
    ("podbeat agent", AGENT),
    (
        "podbeat exec",
        &[
            (
                Ending::Usage,
                "the command line or a setting is invalid; the command was not started",
            ),
            (Ending::Unwritten, "with --install: podbeat cannot be copied"),
        ],
    ),
    (
        "podbeat check",
        &[
            (Ending::Delivered, "no check failed"),
            (Ending::Unmet, "a check failed"),
            (Ending::Usage, WRONG_CHECK),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    (
        "podbeat reap",
        &[
            (
                Ending::Delivered,
                "every missing last heartbeat was sent, or none was missing",
            ),
            (Ending::Usage, WRONG_SETTINGS),
            (
                Ending::Refused,
                "the service or the Kubernetes API rejected a request, or too many pods match",
            ),
            (Ending::Unread, "the journal cannot be read"),
            (Ending::NoSuchPod, "the pod does not exist"),
            (
                Ending::Unavailable,
                "the service or the Kubernetes API cannot be reached, does not answer in time, or fails",
            ),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, "the service or the Kubernetes API denies access"),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat observe",
        &[
            (
                Ending::Delivered,
                "the run is over, and the agent would have sent its last heartbeat; or q was pressed",
            ),
            (
                Ending::Usage,
                "the command line, a setting or the kubeconfig is invalid",
            ),
            (Ending::Refused, "the Kubernetes API rejected a request"),
            (Ending::NoSuchPod, "the pod does not exist"),
            (
                Ending::Unavailable,
                "the Kubernetes API cannot be reached or does not answer, and podbeat never saw the pod",
            ),
            (Ending::Internal, NOT_STARTED),
            (
                Ending::Unwritten,
                "the record or standard output cannot be written",
            ),
            (
                Ending::Denied,
                "the Kubernetes API denies access; podbeat shows the missing Role",
            ),
        ],
    ),
    #[cfg(feature = "laptop")]
    ("podbeat runs", &[(Ending::Usage, "the command is missing")]),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs create",
        &[
            (Ending::Delivered, "every run was created"),
            (Ending::Usage, WRONG_SETTINGS),
            (
                Ending::Refused,
                "the request violates the contract and was not sent, or the service rejected it",
            ),
            (Ending::Unread, "the file cannot be read"),
            (Ending::Unavailable, UNAVAILABLE),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs get",
        &[
            (Ending::Delivered, "every run was shown"),
            (Ending::Usage, WRONG_SETTINGS),
            (Ending::Refused, REFUSED),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Unavailable, UNAVAILABLE),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs list",
        &[
            (
                Ending::Delivered,
                "the whole list was shown, or as many runs as --limit allows",
            ),
            (Ending::Usage, WRONG_SETTINGS),
            (Ending::Refused, REFUSED),
            (Ending::Unavailable, UNAVAILABLE),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs abort",
        &[
            (Ending::Delivered, "every run was aborted"),
            (Ending::Usage, WRONG_SETTINGS),
            (
                Ending::Refused,
                "the run is neither Pending nor Running, or the service rejected the request",
            ),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Unavailable, UNAVAILABLE),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs heartbeat",
        &[
            (Ending::Delivered, "the service accepted the heartbeat"),
            (Ending::Usage, WRONG_SETTINGS),
            (
                Ending::Refused,
                "the request violates the contract and was not sent, or the service rejected it",
            ),
            (Ending::Unread, "the file cannot be read"),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Unavailable, UNAVAILABLE),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs wait",
        &[
            (Ending::Delivered, "every run has the status"),
            (Ending::Unmet, "a run ended in another status"),
            (Ending::Usage, WRONG_SETTINGS),
            (Ending::Refused, REFUSED),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (
                Ending::Overdue,
                "the time to wait is over; the service may have been unavailable",
            ),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat runs watch",
        &[
            (Ending::Delivered, "the run has ended, in any status"),
            (Ending::Usage, WRONG_SETTINGS),
            (Ending::Refused, REFUSED),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat explain",
        &[
            (
                Ending::Delivered,
                "the input was explained, however the run ended",
            ),
            (Ending::Usage, "the command line is invalid"),
            (
                Ending::Refused,
                "the input is neither podbeat's log, nor a recorded watch, nor a journal",
            ),
            (Ending::Unread, "the file cannot be read"),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat completion",
        &[
            (Ending::Delivered, "the script was printed"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat version",
        &[
            (Ending::Delivered, "the version was printed"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    #[cfg(feature = "laptop")]
    (
        "podbeat man",
        &[
            (Ending::Delivered, "the pages were written"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, "a page cannot be written"),
        ],
    ),
];

const AGENT: &[(Ending, &str)] = &[
    (Ending::Delivered, "the service accepted the last heartbeat"),
    (
        Ending::Orphaned,
        "the service does not know the run, or another pod has taken it over",
    ),
    (
        Ending::Restarting,
        "all containers of the pod are restarting; the next podbeat process continues",
    ),
    (Ending::Usage, WRONG_SETTINGS),
    (Ending::Internal, NOT_STARTED),
    (
        Ending::Undelivered,
        "the service did not accept the last heartbeat in time",
    ),
];

#[cfg(feature = "laptop")]
const WRONG_CHECK: &str = "the command line or the file with profiles is invalid";
#[cfg(not(feature = "laptop"))]
const WRONG_CHECK: &str = "the command line is invalid";
const WRONG_SETTINGS: &str = "the command line or a setting is invalid; nothing was sent";
const NOT_STARTED: &str = "podbeat could not start, for example because it ran out of file descriptors";
const NO_OUTPUT: &str = "standard output cannot be written";
const ODD_ANSWER: &str = "podbeat does not understand the service's answer";
#[cfg(feature = "laptop")]
const REFUSED: &str = "the service rejected the request, or the run's ID is not valid";
#[cfg(feature = "laptop")]
const NO_SUCH_RUN: &str = "the run does not exist";
#[cfg(feature = "laptop")]
const UNAVAILABLE: &str = "the service cannot be reached, does not answer in time, or fails";
#[cfg(feature = "laptop")]
const DENIED: &str = "the token is invalid or lacks permission";

/// How a command can end. `called` is the command as it is typed, without flags.
#[must_use]
pub fn endings(called: &str) -> &'static [(Ending, &'static str)] {
    let known = ENDINGS.iter().find(|(command, _)| *command == called);
    known.map_or(&[], |(_, endings)| endings)
}

/// The exit code of a command. In builds for development an ending that its help text leaves out is a panic, so that every
/// test which runs the binary holds the table against what commands do.
#[must_use]
pub fn code(called: &str, ending: Ending) -> ExitCode {
    debug_assert!(
        endings(called).iter().any(|(listed, _)| *listed == ending),
        "{called} ended with {ending:?}, which ENDINGS does not list for it"
    );
    ending.into()
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
