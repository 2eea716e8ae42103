//! How the commands of this crate can end.

use podbeat_interface::exit::{
    Ending, Endings, Meaning, NO_FILE, NO_OUTPUT, NOT_STARTED, ODD_ANSWER, WRONG_COMMAND_LINE,
    WRONG_SETTINGS,
};

/// Each command, and how it can end.
pub const ENDINGS: &[(&str, Endings)] = &[
    (
        "podbeat observe",
        &[
            (
                Ending::Done,
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
            NOT_STARTED,
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
    ("podbeat runs", &[(Ending::Usage, "the command is missing")]),
    (
        "podbeat runs create",
        &[
            (Ending::Done, "every run was created"),
            WRONG_SETTINGS,
            INVALID,
            NO_FILE,
            UNAVAILABLE,
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat runs get",
        &[
            (Ending::Done, "every run was shown"),
            WRONG_SETTINGS,
            REFUSED,
            NO_SUCH_RUN,
            UNAVAILABLE,
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat runs list",
        &[
            (
                Ending::Done,
                "the whole list was shown, or as many runs as --limit allows",
            ),
            WRONG_SETTINGS,
            REFUSED,
            UNAVAILABLE,
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat runs abort",
        &[
            (Ending::Done, "every run was aborted"),
            WRONG_SETTINGS,
            (
                Ending::Refused,
                "the run is neither Pending nor Running, or the service rejected the request",
            ),
            NO_SUCH_RUN,
            UNAVAILABLE,
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat runs heartbeat",
        &[
            (Ending::Done, "the service accepted the heartbeat"),
            WRONG_SETTINGS,
            INVALID,
            NO_FILE,
            NO_SUCH_RUN,
            UNAVAILABLE,
            NOT_STARTED,
            NO_OUTPUT,
            DENIED,
        ],
    ),
    (
        "podbeat runs wait",
        &[
            (Ending::Done, "every run has the status"),
            (Ending::Unmet, "a run ended in another status"),
            WRONG_SETTINGS,
            REFUSED,
            NO_SUCH_RUN,
            NOT_STARTED,
            NO_OUTPUT,
            (
                Ending::Overdue,
                "the time to wait is over; the service may have been unavailable",
            ),
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat runs watch",
        &[
            (Ending::Done, "the run has ended, in any status"),
            WRONG_SETTINGS,
            REFUSED,
            NO_SUCH_RUN,
            NOT_STARTED,
            NO_OUTPUT,
            ODD_ANSWER,
            DENIED,
        ],
    ),
    (
        "podbeat explain",
        &[
            (
                Ending::Done,
                "the input was explained, however the run ended",
            ),
            WRONG_COMMAND_LINE,
            (
                Ending::Refused,
                "the input is neither podbeat's log, nor a recorded watch, nor a journal",
            ),
            NO_FILE,
            NO_OUTPUT,
        ],
    ),
];

const INVALID: Meaning = (
    Ending::Refused,
    "the request violates the contract and was not sent, or the service rejected it",
);
const REFUSED: Meaning = (
    Ending::Refused,
    "the service rejected the request, or the run's ID is not valid",
);
const NO_SUCH_RUN: Meaning = (Ending::NoSuchRun, "the run does not exist");
const UNAVAILABLE: Meaning = (
    Ending::Unavailable,
    "the service cannot be reached, does not answer in time, or fails",
);
const DENIED: Meaning = (Ending::Denied, "the token is invalid or lacks permission");
