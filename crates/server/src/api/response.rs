//! Responses, and the errors of requests as `ErrorResponse`.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use podbeat_task_runs::model::ErrorResponse;
use serde::Serialize;

use super::LARGEST_BODY;
use crate::service::Problem;

/// The maximum number of details in an error.
const DETAILS: usize = 20;

/// The maximum length of the message and of a detail, in characters. They can contain names of
/// members.
const LONGEST: usize = 500;

/// Why a request fails.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
    details: Vec<String>,
    header: Option<Header>,
}

/// A header of an error.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Header {
    /// The methods that the resource has.
    Allow(&'static str),
    /// When the request may succeed.
    RetryAfter(Duration),
    /// How to authenticate.
    Authenticate,
}

impl Header {
    fn parts(self) -> (HeaderName, HeaderValue) {
        match self {
            Self::Allow(methods) => (header::ALLOW, HeaderValue::from_static(methods)),
            Self::RetryAfter(wait) => (
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs().max(1)),
            ),
            Self::Authenticate => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        }
    }
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            details: Vec::new(),
            header: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A method that the resource does not have.
    pub(super) fn method(message: String, allowed: &'static str) -> Self {
        Self {
            header: Some(Header::Allow(allowed)),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }

    pub(super) fn slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timed out while waiting for the body",
        )
    }

    /// A body that is too large, or broke off.
    pub(super) fn of_body(error: &axum::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                return Self::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {LARGEST_BODY} bytes"),
                );
            }
            cause = error.source();
        }
        Self::bad_request("the body broke off")
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "cannot write the response; report this",
        )
    }

    /// The status's name without spaces, as in the public API.
    fn code(&self) -> String {
        let name = self.status.canonical_reason().unwrap_or("Unknown");
        name.chars().filter(|letter| *letter != ' ').collect()
    }

    pub(super) fn response(self) -> Response<Body> {
        let cut = |text: &String| text.chars().take(LONGEST).collect::<String>();
        let body = ErrorResponse {
            code: Some(self.code()),
            details: Some(
                self.details
                    .iter()
                    .take(DETAILS)
                    .map(|detail| cut(detail).into())
                    .collect(),
            ),
            message: Some(cut(&self.message)),
        };
        // A text can always be written as JSON.
        let mut response = json(self.status, &body).unwrap_or_default();
        if let Some((name, value)) = self.header.map(Header::parts) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let message = problem.to_string();
        match problem {
            Problem::BadRequest { details, .. } => Self {
                details,
                ..Self::bad_request(message)
            },
            Problem::Unauthorized => Self {
                header: Some(Header::Authenticate),
                ..Self::new(StatusCode::UNAUTHORIZED, message)
            },
            Problem::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, message),
            Problem::NotFound => Self::new(StatusCode::NOT_FOUND, message),
            Problem::Conflict(_) => Self::new(StatusCode::CONFLICT, message),
            Problem::TooMany {
                retry_after: wait, ..
            } => Self {
                header: Some(Header::RetryAfter(wait)),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
            },
            Problem::Unavailable {
                retry_after: wait, ..
            } => Self {
                header: Some(Header::RetryAfter(wait)),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
        }
    }
}

/// A response with a JSON body. `None` if the body can't be written.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Option<Response<Body>> {
    let body = serde_json::to_vec(body).ok()?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}
