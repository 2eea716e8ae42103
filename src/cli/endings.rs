//! How each command can end, and what that means for it. The help texts, the manual pages and docs/
//! are generated from it.
//!
//! `podbeat` alone runs the agent. A command that a signal ends has 128 and the signal's number, as
//! usual.

use std::process::ExitCode;

#[cfg(feature = "laptop")]
use podbeat_interface::exit::WRONG_COMMAND_LINE;
use podbeat_interface::exit::{
    Ending, Endings, Meaning, NO_OUTPUT, NOT_STARTED, ODD_ANSWER, WRONG_SETTINGS,
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
            WRONG_CHECK,
            NOT_STARTED,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat reap",
        &[
            (
                Ending::Done,
                "every missing last heartbeat was sent, or none was missing",
            ),
            WRONG_SETTINGS,
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
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
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
            WRONG_COMMAND_LINE,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat version",
        &[
            (Ending::Done, "the version was printed"),
            WRONG_COMMAND_LINE,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat man",
        &[
            (Ending::Done, "the pages were written"),
            WRONG_COMMAND_LINE,
            (Ending::Unwritten, "a page cannot be written"),
        ],
    ),
];

const AGENT: Endings = &[
    (Ending::Done, "the service accepted the last heartbeat"),
    (
        Ending::Orphaned,
        "the service does not know the run, or another pod has taken it over",
    ),
    (
        Ending::Restarting,
        "all containers of the pod are restarting; the next podbeat process continues",
    ),
    WRONG_SETTINGS,
    NOT_STARTED,
    (
        Ending::Undelivered,
        "the service did not accept the last heartbeat in time",
    ),
];

#[cfg(feature = "laptop")]
const WRONG_CHECK: Meaning = (
    Ending::Usage,
    "the command line or the file with profiles is invalid",
);
#[cfg(not(feature = "laptop"))]
const WRONG_CHECK: Meaning = podbeat_interface::exit::WRONG_COMMAND_LINE;

/// Every command, and how it can end.
pub fn all() -> impl Iterator<Item = (&'static str, Endings)> {
    let all = ENDINGS.iter();
    #[cfg(feature = "laptop")]
    let all = all.chain(podbeat_laptop::cli::ENDINGS).chain(OF_ITSELF);
    all.copied()
}

/// How a command can end. `called` is the command as it is typed, without flags.
#[must_use]
pub fn endings(called: &str) -> Endings {
    let known = all().find(|(command, _)| *command == called);
    known.map_or(&[], |(_, endings)| endings)
}

/// The exit code of a command. In builds for development an ending that its help text leaves out is
/// a panic, so that every test which runs the binary holds the table against what commands do.
#[must_use]
pub fn code(called: &str, ending: Ending) -> ExitCode {
    debug_assert!(
        endings(called).iter().any(|(listed, _)| *listed == ending),
        "{called} ended with {ending:?}, which its help text does not list"
    );
    ending.into()
}
