//! Why the service refuses a request.

use std::time::Duration;

use crate::store;
use podbeat_runs::Refusal;

/// The wait that a client is asked for while the service can't answer.
pub const UNAVAILABLE: Duration = Duration::from_secs(5);

/// Why the service refuses a request. The text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The request is wrong.
    #[error("{message}")]
    BadRequest {
        /// What is wrong.
        message: String,
        /// Each part that is wrong.
        details: Vec<String>,
    },
    /// There is no valid token.
    #[error("the bearer token is missing, unknown, expired or revoked")]
    Unauthorized,
    /// The token does not allow this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such run, or the caller may not see it.
    #[error("there is no run with this ID")]
    NotFound,
    /// The run does not accept this.
    #[error("{0}")]
    Conflict(String),
    /// The tenant is at a limit.
    #[error("{message}")]
    TooMany {
        /// Which limit.
        message: &'static str,
        /// When the request may succeed.
        retry_after: Duration,
    },
    /// The service can't answer now.
    #[error("{message}; try again")]
    Unavailable {
        /// Why.
        message: &'static str,
        /// When the request may succeed.
        retry_after: Duration,
    },
}

impl Problem {
    /// A request that is wrong in one way.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest {
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The service can't answer now.
    #[must_use]
    pub fn unavailable(message: &'static str) -> Self {
        Self::Unavailable {
            message,
            retry_after: UNAVAILABLE,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Conflict(refusal.to_string())
    }
}

/// An error of the store is never an answer about a run: the client must try again.
impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::unavailable(match error {
            store::Error::Busy => "the service has too much to do",
            store::Error::File { .. }
            | store::Error::Newer { .. }
            | store::Error::Failed { .. }
            | store::Error::Unreadable { .. }
            | store::Error::Exists(_)
            | store::Error::Stale(_)
            | store::Error::Closed => "the service cannot use its store",
        })
    }
}

impl From<crate::keys::Error> for Problem {
    fn from(_: crate::keys::Error) -> Self {
        Self::unavailable("the service cannot use its key")
    }
}
