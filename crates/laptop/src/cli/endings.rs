//! How the commands of this crate can end.

use podbeat_interface::exit::{
    Ending, Endings, NO_OUTPUT, NOT_STARTED, ODD_ANSWER, WRONG_SETTINGS,
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
    ("podbeat runs", &[(Ending::Usage, "the command is missing")]),
    (
        "podbeat runs create",
        &[
            (Ending::Done, "every run was created"),
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
    (
        "podbeat runs get",
        &[
            (Ending::Done, "every run was shown"),
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
    (
        "podbeat runs list",
        &[
            (
                Ending::Done,
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
    (
        "podbeat runs abort",
        &[
            (Ending::Done, "every run was aborted"),
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
    (
        "podbeat runs heartbeat",
        &[
            (Ending::Done, "the service accepted the heartbeat"),
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
    (
        "podbeat runs wait",
        &[
            (Ending::Done, "every run has the status"),
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
    (
        "podbeat runs watch",
        &[
            (Ending::Done, "the run has ended, in any status"),
            (Ending::Usage, WRONG_SETTINGS),
            (Ending::Refused, REFUSED),
            (Ending::NoSuchRun, NO_SUCH_RUN),
            (Ending::Internal, NOT_STARTED),
            (Ending::Unwritten, NO_OUTPUT),
            (Ending::Misunderstood, ODD_ANSWER),
            (Ending::Denied, DENIED),
        ],
    ),
    (
        "podbeat explain",
        &[
            (
                Ending::Done,
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
];

const REFUSED: &str = "the service rejected the request, or the run's ID is not valid";
const NO_SUCH_RUN: &str = "the run does not exist";
const UNAVAILABLE: &str = "the service cannot be reached, does not answer in time, or fails";
const DENIED: &str = "the token is invalid or lacks permission";
