//! Why the page refuses a request, and what it says to the reader. It never says whether a run
//! exists that the reader may not see.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::html;
use super::view::Reader;
use super::{HTML, whole};
use crate::service::{Problem, UNAVAILABLE};

/// Why the page refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The address has other methods.
    Method(&'static str),
    /// There is no session. The reader may sign in, and gets the page then.
    SignedOut,
    /// Another site's page made the request.
    Elsewhere,
    /// A form is not from the reader's session.
    Form,
    /// The form is too large.
    TooLarge,
    /// The address is not one that the page makes.
    Address,
    /// The heartbeat is not kept.
    NoHeartbeat,
    /// Too many pages are updated.
    Busy,
    /// The service refuses it.
    Problem(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Refusal {
    /// The status, the title and the text.
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let (status, title, text) = match self {
            Self::Method(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "This page has other methods.",
            ),
            Self::SignedOut => (
                StatusCode::UNAUTHORIZED,
                "You are signed out",
                "Sign in again.",
            ),
            Self::Elsewhere => (
                StatusCode::FORBIDDEN,
                "Request from another site",
                "Only pages of this service can make this request.",
            ),
            Self::Form => (
                StatusCode::FORBIDDEN,
                "The form is outdated",
                "The form belongs to another session. Go back, reload the page, and try again.",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The form is too large",
                "Shorten what you entered.",
            ),
            Self::Address => (
                StatusCode::BAD_REQUEST,
                "Invalid address",
                "A part of this address is damaged or unknown.",
            ),
            Self::NoHeartbeat => (
                StatusCode::NOT_FOUND,
                "Heartbeat not found",
                "The service keeps only the newest heartbeats of each run, and only until it restarts.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many pages are open",
                "The number of live pages is limited. Close another page, or reload this page by hand.",
            ),
            Self::Problem(problem) => return of_problem(problem),
        };
        (status, title, text.to_owned())
    }

    /// The time after which the request may succeed.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(UNAVAILABLE),
            Self::Problem(
                Problem::Unavailable { retry_after, .. } | Problem::TooMany { retry_after, .. },
            ) => Some(*retry_after),
            _ => None,
        }
    }

    /// The answer. `reader` is the one who is signed in, if known.
    pub(super) fn response(&self, reader: Option<&Reader>, up: &str) -> Response<Body> {
        let (status, title, text) = self.parts();
        let page = html::refusal(title, &text, reader, up);
        let mut response = whole(status, HTML, page);
        let headers = response.headers_mut();
        if let Self::Method(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs().max(1)),
            );
        }
        response
    }
}

fn of_problem(problem: &Problem) -> (StatusCode, &'static str, String) {
    let (status, title) = match problem {
        Problem::NotFound => {
            let text = "The run never existed, you may not see it, or the service removed it after its end.";
            return (StatusCode::NOT_FOUND, "Run not found", text.to_owned());
        }
        Problem::BadRequest { .. } => (StatusCode::BAD_REQUEST, "Invalid request"),
        Problem::Unauthorized => (StatusCode::UNAUTHORIZED, "You are signed out"),
        Problem::Forbidden(_) => (StatusCode::FORBIDDEN, "Not allowed"),
        Problem::Conflict(_) => (StatusCode::CONFLICT, "Not possible"),
        Problem::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        Problem::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "Not available now"),
    };
    (status, title, sentence(&problem.to_string()))
}

/// The text of an error as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence: String = first.chain(letters).collect();
    sentence.push('.');
    sentence
}
