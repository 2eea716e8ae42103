//! What the client reads of a response: its bounded body, parsed, and Retry-After.

use std::time::Duration;

use http::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use http_body_util::BodyExt;
use jiff::Timestamp;
use podbeat_files::trimmed;
use podbeat_http_client::Answer;
use serde::de::DeserializeOwned;

use crate::error::{Error, Operation};
use crate::model::TaskRunHeartbeat;
use crate::{Secret, http_date};

/// Limit for the body of a response.
#[derive(Clone, Copy)]
pub(super) struct Largest {
    bytes: usize,
    exceeded: &'static str,
}

/// For errors, and for responses that contain at most a token.
pub(super) const SMALL: Largest = Largest {
    bytes: 64 * 1024,
    exceeded: "larger than 64 KiB",
};

/// For one run, which contains its execution twice, and its logs. A thousand environment variables
/// of 1 KiB fit four times.
pub(super) const RUN: Largest = Largest {
    bytes: 8 * 1024 * 1024,
    exceeded: "larger than 8 MiB",
};

/// For a page of 1000 runs of 64 KiB each. Most of that is for two descriptions of 4096 characters:
/// the run's own and that of its task version. If every character is escaped as `\uXXXX`, they take
/// 48 KiB. The other members are short. A page of ordinary runs takes 1.5 MiB.
pub(super) const PAGE: Largest = Largest {
    bytes: 64 * 1024 * 1024,
    exceeded: "larger than 64 MiB; ask for smaller pages",
};

/// The response to an accepted heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// A renewed token.
    pub jwt: Option<Secret>,
    /// Why the body can't be read. The heartbeat was accepted nevertheless.
    pub unreadable: Option<&'static str>,
}

/// A response with a status of 2xx.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Result<Vec<u8>, &'static str>,
}

/// Parses an object. serde would also accept an array, in the order of the members, and an empty
/// array as an empty object.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = trimmed::bytes(body);
    if body.starts_with(b"[") {
        return Err(serde::de::Error::custom("an array"));
    }
    serde_json::from_slice(body)
}

pub(super) fn decoded<T: DeserializeOwned>(
    operation: &Operation,
    reply: Reply,
) -> Result<T, Error> {
    let unreadable = |problem: String| Error::Unreadable {
        operation: operation.clone(),
        status: reply.status,
        problem,
    };
    let body = reply
        .body
        .map_err(|problem| unreadable(problem.to_owned()))?;
    if trimmed::bytes(&body).is_empty() {
        return Err(unreadable("empty".to_owned()));
    }
    // The text of serde_json's error would repeat a part of the body.
    object(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let at = match line {
            0 => String::new(),
            _ => format!(", at line {line} column {column}"),
        };
        unreadable(format!("not the contract's JSON{at}"))
    })
}

pub(super) fn accepted(body: Result<Vec<u8>, &'static str>) -> Accepted {
    let body = match body {
        Ok(body) => body,
        Err(unreadable) => {
            return Accepted {
                jwt: None,
                unreadable: Some(unreadable),
            };
        }
    };
    if trimmed::bytes(&body).is_empty() {
        return Accepted::default();
    }
    match object::<TaskRunHeartbeat>(&body) {
        Ok(answer) => Accepted {
            // A service that reads its tokens from files may include surrounding white space or a
            // byte order mark.
            jwt: answer
                .jwt
                .map(|jwt| Secret::new(trimmed::text(jwt.expose()))),
            unreadable: None,
        },
        Err(_) => Accepted {
            jwt: None,
            unreadable: Some("not the contract's JSON"),
        },
    }
}

/// The end of the response is missing.
pub(super) const BROKEN_OFF: &str = "broken off";

pub(super) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

pub(super) async fn read_body(
    answer: &mut Answer,
    largest: Largest,
) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        // Trailers are ignored.
        let chunk = match answer.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            None => return Ok(body),
            Some(Err(_)) => return Err(BROKEN_OFF),
        };
        if body.len() + chunk.len() > largest.bytes {
            return Err(largest.exceeded);
        }
        body.extend_from_slice(&chunk);
    }
}

pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    http_date::retry_after(text(RETRY_AFTER)?, text(DATE), now)
}
