//! The head of a request: which operation it asks for, its token, and its forms. Without answers, so
//! that every service of the API can use it.

use std::borrow::Cow;
use std::str::Utf8Error;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::percent_decode_str;

/// The maximum length of a run's ID, in bytes. No run has a longer one.
pub const LONGEST_ID: usize = 256;

/// The operations of the contract, with the IDs of their runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `CreateTaskRun`.
    Create,
    /// `ListTaskRuns`.
    List,
    /// `GetTaskRun`.
    Get(String),
    /// `HeartbeatTaskRun`.
    Heartbeat(String),
    /// `AbortTaskRun`.
    Abort(String),
}

/// The names of operations in metrics. The last one is for requests that ask for none.
pub const NAMES: &[&str] = &["create", "list", "get", "heartbeat", "abort", NONE];

/// See [`NAMES`].
pub(super) const NONE: &str = "other";

/// Why a request asks for no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOperation {
    /// The path is unknown.
    #[error("unknown operation")]
    Unknown,
    /// The path does not have this method, but these.
    #[error("method not allowed; use {0}")]
    Method(&'static str),
    /// The ID of the run is not UTF-8.
    #[error("the run ID is not UTF-8")]
    NotUtf8,
    /// The ID of the run is empty.
    #[error("the run ID is empty")]
    Empty,
}

impl Operation {
    /// The operation of a request. `base` is the path before `/v1`.
    ///
    /// # Errors
    /// There is none with this method and path.
    pub fn of(base: &str, method: &Method, path: &str) -> Result<Self, NoOperation> {
        let rest = path
            .strip_prefix(base)
            .and_then(|path| path.strip_prefix("/v1/tasks/runs"))
            .ok_or(NoOperation::Unknown)?;
        let only = |wanted: Method, allowed: &'static str| match *method == wanted {
            true => Ok(()),
            false => Err(NoOperation::Method(allowed)),
        };
        if rest.is_empty() {
            return match *method {
                Method::GET => Ok(Self::List),
                _ => only(Method::POST, "GET, POST").map(|()| Self::Create),
            };
        }
        let rest = rest
            .strip_prefix('/')
            .filter(|rest| !rest.contains('/'))
            .ok_or(NoOperation::Unknown)?;
        // An encoded colon belongs to the ID.
        if let Some(run) = rest.strip_suffix(":heartbeat") {
            only(Method::POST, "POST")?;
            return run_id(run).map(Self::Heartbeat);
        }
        if let Some(run) = rest.strip_suffix(":abort") {
            only(Method::PUT, "PUT")?;
            return run_id(run).map(Self::Abort);
        }
        only(Method::GET, "GET")?;
        run_id(rest).map(Self::Get)
    }

    /// The name in metrics, one of [`NAMES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Get(_) => "get",
            Self::Heartbeat(_) => "heartbeat",
            Self::Abort(_) => "abort",
        }
    }

    /// The ID of its run, if it has one.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::Create | Self::List => None,
            Self::Get(run) | Self::Heartbeat(run) | Self::Abort(run) => Some(run),
        }
    }
}

fn run_id(encoded: &str) -> Result<String, NoOperation> {
    let id = percent_decode_str(encoded).decode_utf8();
    match id.map_err(|_| NoOperation::NotUtf8)?.into_owned() {
        id if id.is_empty() => Err(NoOperation::Empty),
        id => Ok(id),
    }
}

/// The bearer token of a request.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Whether the client accepts JSON, the contract's only form of answers (RFC 9110, 12.5.1).
#[must_use]
pub fn accepts_json(headers: &HeaderMap) -> bool {
    let mut best: Option<(u8, bool)> = None;
    let mut is_asked = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range
                .split(';')
                .map(|part| part.trim().to_ascii_lowercase());
            let precision = match parts.next().unwrap_or_default().as_str() {
                "" => continue,
                "application/json" => Some(2),
                "application/*" => Some(1),
                "*/*" => Some(0),
                _ => None,
            };
            is_asked = true;
            let is_refused = parts
                .filter_map(|part| part.strip_prefix("q=").map(str::parse::<f32>))
                .any(|quality| quality.is_ok_and(|quality| quality <= 0.0));
            if let Some(precision) = precision
                && best.is_none_or(|(other, _)| precision >= other)
            {
                best = Some((precision, !is_refused));
            }
        }
    }
    best.map_or(!is_asked, |(_, is_accepted)| is_accepted)
}

/// Whether the body has one of the contract's types: `application/json`, `text/json`,
/// `application/*+json` (including `application/json-patch+json`, which here is a plain object and
/// no patch).
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let mut parts = value
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let is_listed = essence == "application/json"
        || essence == "text/json"
        || essence
            .strip_prefix("application/")
            .and_then(|subtype| subtype.strip_suffix("+json"))
            .is_some_and(|tree| !tree.is_empty());
    let is_utf8 = parts
        .filter_map(|part| {
            part.strip_prefix("charset=")
                .map(|set| set.trim_matches('"').to_owned())
        })
        .all(|set| set == "utf-8" || set == "us-ascii");
    is_listed && is_utf8
}

/// The parameters of a query string, in the encoding of forms.
///
/// # Errors
/// A name or a value is not UTF-8.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, Utf8Error> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().map(Cow::into_owned)
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}
