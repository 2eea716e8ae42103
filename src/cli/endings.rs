//! How each command can end, and the meaning of each ending for that command. The help texts, the
//! manual pages and docs/ are generated from this table.
//!
//! `podbeat` alone runs the agent. If a signal ends a command, the exit code is 128 plus the
//! signal's number, as usual.

use std::process::ExitCode;

use podbeat_interface::exit::{
    Ending, Endings, NO_OUTPUT, NOT_STARTED, ODD_ANSWER, WRONG_SETTINGS,
};

const ENDINGS: &[(&str, Endings)] = &[
    ("podbeat", AGENT),
    ("podbeat agent", AGENT),
    (
        "podbeat exec",
        &[
            (
                Ending::Usage,
                "the command line or a setting is invalid; the command was not started",
            ),
            (
                Ending::Unwritten,
                "with --install: podbeat cannot be copied",
            ),
        ],
    ),
    (
        "podbeat check",
        &[
            (Ending::Done, "no check failed"),
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
                Ending::Done,
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
            (
                Ending::Denied,
                "the service or the Kubernetes API denies access",
            ),
        ],
    ),
];

/// The commands that describe the command line itself.
#[cfg(feature = "laptop")]
const OF_ITSELF: &[(&str, Endings)] = &[
    (
        "podbeat completion",
        &[
            (Ending::Done, "the script was printed"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    (
        "podbeat version",
        &[
            (Ending::Done, "the version was printed"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, NO_OUTPUT),
        ],
    ),
    (
        "podbeat man",
        &[
            (Ending::Done, "the pages were written"),
            (Ending::Usage, "the command line is invalid"),
            (Ending::Unwritten, "a page cannot be written"),
        ],
    ),
];

const AGENT: &[(Ending, &str)] = &[
    (Ending::Done, "the service accepted the last heartbeat"),
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

/// Every command and its endings.
pub fn all() -> impl Iterator<Item = (&'static str, Endings)> {
    let all = ENDINGS.iter();
    #[cfg(feature = "laptop")]
    let all = all.chain(podbeat_laptop::cli::ENDINGS).chain(OF_ITSELF);
    all.copied()
}

/// The endings of a command. `called` is the command as a user types it, without flags.
#[must_use]
pub fn endings(called: &str) -> Endings {
    let known = all().find(|(command, _)| *command == called);
    known.map_or(&[], |(_, endings)| endings)
}

/// The exit code of a command. A debug build panics if the help text does not list the ending, so
/// every test that runs the binary compares the table with the command's behavior.
#[must_use]
pub fn code(called: &str, ending: Ending) -> ExitCode {
    debug_assert!(
        endings(called).iter().any(|(listed, _)| *listed == ending),
        "{called} ended with {ending:?}, which its help text does not list"
    );
    ending.into()
}
