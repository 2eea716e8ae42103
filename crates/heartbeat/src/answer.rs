//! The results of attempts, by what podbeat does about them.

use std::time::Duration;

/// The result of one attempt to send a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 2xx.
    Accepted,
    /// The service refuses this body (400, 422, 3xx, and every 4xx not named below). podbeat never
    /// sends it again.
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// 401.
    Unauthorized,
    /// 403; also 407 and 421: the request did not reach the service.
    Forbidden,
    /// 404, 409 or 410: the run does not exist, or no longer belongs to this pod.
    Disowned {
        /// The HTTP status.
        status: u16,
    },
    /// 408, 425, 429 or 5xx: a later attempt may succeed.
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// How long the service asked to wait before the next attempt.
        retry_after: Option<Duration>,
    },
    /// Not sent: no connection, or no token. It cannot have arrived.
    NotSent,
    /// Timed out or broke off: it may have arrived, or may still arrive.
    Ambiguous,
}

/// What an answer means for a last heartbeat, to the agent and to `podbeat reap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAnswer {
    /// The service knows the end of the run.
    Accepted,
    /// The service may refuse only the container states: send the heartbeat once without them. An
    /// end without states is better than none.
    WithoutStates,
    /// The service refuses it, also without states.
    Refused,
    /// The service says that the run does not exist, or no longer belongs to this pod.
    NotOurs,
    /// A later attempt may succeed.
    TryAgain,
}

impl Answer {
    /// What this answer to a last heartbeat means. `stripped` says whether the heartbeat went
    /// without states, `may_have_arrived` whether an earlier attempt without an answer may have
    /// reached the service, and ended the run.
    #[must_use]
    pub fn of_last_heartbeat(&self, stripped: bool, may_have_arrived: bool) -> LastAnswer {
        match self {
            Self::Accepted => LastAnswer::Accepted,
            Self::Disowned { .. } if may_have_arrived => LastAnswer::Accepted,
            Self::Disowned { .. } => LastAnswer::NotOurs,
            Self::Refused { .. } if stripped => LastAnswer::Refused,
            Self::Refused { .. } => LastAnswer::WithoutStates,
            Self::Unauthorized
            | Self::Forbidden
            | Self::Unavailable { .. }
            | Self::NotSent
            | Self::Ambiguous => LastAnswer::TryAgain,
        }
    }

    /// The answer of an HTTP status.
    #[must_use]
    pub fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Accepted,
            401 => Self::Unauthorized,
            // A proxy that requires its own password (407), or a server other than the service
            // (421): neither forwarded the request (RFC 9110, 15.5.8 and 15.5.20).
            403 | 407 | 421 => Self::Forbidden,
            404 | 409 | 410 => Self::Disowned { status },
            408 | 425 | 429 => Self::Unavailable {
                status,
                retry_after,
            },
            // A 1xx cannot end an exchange. If a client reports one, the service decided nothing.
            0..=199 | 500.. => Self::Unavailable {
                status,
                retry_after,
            },
            300..=499 => Self::Refused { status },
        }
    }

    /// Whether the request may have arrived, or may still arrive: there was no answer, or only a
    /// gateway answered (502 and 504; RFC 9110, 15.6.3 and 15.6.5), which does not know what the
    /// service did.
    #[must_use]
    pub fn leaves_in_doubt(&self) -> bool {
        match self {
            Self::Ambiguous => true,
            Self::Unavailable { status, .. } => matches!(status, 502 | 504),
            Self::Accepted
            | Self::Refused { .. }
            | Self::Unauthorized
            | Self::Forbidden
            | Self::Disowned { .. }
            | Self::NotSent => false,
        }
    }

    /// How long the service asked to wait before the next attempt, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Accepted
            | Self::Refused { .. }
            | Self::Unauthorized
            | Self::Forbidden
            | Self::Disowned { .. }
            | Self::NotSent
            | Self::Ambiguous => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_to_a_last_heartbeat_has_its_meaning() {
        use LastAnswer::{Accepted, NotOurs, Refused, TryAgain, WithoutStates};
        let meanings = |answer: &Answer| {
            let of = |stripped, in_doubt| answer.of_last_heartbeat(stripped, in_doubt);
            [of(false, false), of(true, false), of(false, true)]
        };
        for (statuses, with_states, stripped, in_doubt) in [
            (&[200, 204][..], Accepted, Accepted, Accepted),
            (&[301, 400, 413, 422], WithoutStates, Refused, WithoutStates),
            (&[404, 409, 410], NotOurs, NotOurs, Accepted),
            (
                &[401, 403, 407, 421, 429, 503],
                TryAgain,
                TryAgain,
                TryAgain,
            ),
        ] {
            for status in statuses {
                let answer = Answer::from_status(*status, None);
                let expected = [with_states, stripped, in_doubt];
                assert_eq!(meanings(&answer), expected, "{status}");
            }
        }
        for answer in [Answer::NotSent, Answer::Ambiguous] {
            assert_eq!(meanings(&answer), [TryAgain; 3]);
        }
    }

    #[test]
    fn every_status_of_the_table_is_sorted() {
        let later = |status| Answer::Unavailable {
            status,
            retry_after: None,
        };
        for (status, answer) in [
            (200, Answer::Accepted),
            (204, Answer::Accepted),
            (301, Answer::Refused { status: 301 }),
            (307, Answer::Refused { status: 307 }),
            (400, Answer::Refused { status: 400 }),
            (401, Answer::Unauthorized),
            (403, Answer::Forbidden),
            (407, Answer::Forbidden),
            (421, Answer::Forbidden),
            (404, Answer::Disowned { status: 404 }),
            (408, later(408)),
            (409, Answer::Disowned { status: 409 }),
            (410, Answer::Disowned { status: 410 }),
            (413, Answer::Refused { status: 413 }),
            (422, Answer::Refused { status: 422 }),
            (425, later(425)),
            (429, later(429)),
            (500, later(500)),
            (503, later(503)),
            (599, later(599)),
        ] {
            assert_eq!(Answer::from_status(status, None), answer, "{status}");
        }
    }
}
