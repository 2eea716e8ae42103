//! Which operation a request asks for, and its parts.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use podbeat_task_runs::model::{CreateTaskRunRequest, HeartbeatTaskRunRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::response::Failure;

/// The maximum length of a run's ID, in bytes.
const LONGEST_ID: usize = 256;

/// The operations of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    List,
    Get(String),
    Heartbeat(String),
    Abort(String),
}

/// The operation of a request. `base` is the path before `/v1`.
pub(super) fn operation(base: &str, method: &Method, path: &str) -> Result<Operation, Failure> {
    let unknown = || Failure::new(StatusCode::NOT_FOUND, "unknown operation");
    let rest = path
        .strip_prefix(base)
        .and_then(|path| path.strip_prefix("/v1/tasks/runs"))
        .ok_or_else(unknown)?;
    let only = |wanted: Method, allowed: &'static str| match *method == wanted {
        true => Ok(()),
        false => Err(Failure::method(allowed)),
    };
    if rest.is_empty() {
        return match *method {
            Method::GET => Ok(Operation::List),
            _ => only(Method::POST, "GET, POST").map(|()| Operation::Create),
        };
    }
    let rest = rest
        .strip_prefix('/')
        .filter(|rest| !rest.contains('/'))
        .ok_or_else(unknown)?;
    // An encoded colon belongs to the ID.
    if let Some(run) = rest.strip_suffix(":heartbeat") {
        only(Method::POST, "POST")?;
        return run_id(run).map(Operation::Heartbeat);
    }
    if let Some(run) = rest.strip_suffix(":abort") {
        only(Method::PUT, "PUT")?;
        return run_id(run).map(Operation::Abort);
    }
    only(Method::GET, "GET")?;
    run_id(rest).map(Operation::Get)
}

fn run_id(encoded: &str) -> Result<String, Failure> {
    let id = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| Failure::bad_request("the run ID is not UTF-8"))?;
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "there is no run with this ID",
        ));
    }
    Ok(id.into_owned())
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// The value of a header, if there is one.
pub(super) fn header<'head>(
    headers: &'head HeaderMap,
    name: &'static str,
) -> Result<Option<&'head str>, Failure> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(|value| Some(value.trim()))
            .map_err(|_| Failure::bad_request(format!("the header {name} is not ASCII"))),
        (Some(_), Some(_)) => Err(Failure::bad_request(format!(
            "the header {name} is given twice"
        ))),
    }
}

/// Checks that the client accepts JSON, the contract's only form of answers (RFC 9110, 12.5.1).
pub(super) fn accepts_json(headers: &HeaderMap) -> Result<(), Failure> {
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
    match best {
        Some((_, true)) => Ok(()),
        None if !is_asked => Ok(()),
        Some((_, false)) | None => Err(Failure::new(
            StatusCode::NOT_ACCEPTABLE,
            "answers are application/json, but Accept does not include it",
        )),
    }
}

/// Whether the body has one of the contract's types: `application/json`, `text/json`,
/// `application/*+json` (including `application/json-patch+json`, which here is a plain object and
/// no patch).
fn is_json(headers: &HeaderMap) -> bool {
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

/// The body. An absent one is an empty object, because neither a member nor the body is required.
fn parsed<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Failure> {
    let body = match body {
        [] => b"{}",
        body if is_json(headers) => body,
        _ => {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/json, text/json or application/*+json, in UTF-8",
            ));
        }
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem = without_values(error.inner());
        match path.as_str() {
            "." => Failure::bad_request(format!("the body is wrong: {problem}")),
            path => Failure::bad_request(format!("the body is wrong at {path}: {problem}")),
        }
    })?;
    json.end()
        .map_err(|_| Failure::bad_request("the body has something behind the JSON"))?;
    Ok(read)
}

/// A parser's error without the value that it repeats, which may be a misplaced secret.
fn without_values(error: &serde_json::Error) -> String {
    if error.is_data() {
        let text = error.to_string();
        let expected = text.rsplit_once("expected ").map(|(_, expected)| expected);
        let expected = expected.map(|text| text.split(" at line ").next().unwrap_or(text));
        return match expected {
            Some(expected) => format!("it must be {expected}"),
            None => format!("line {}, column {}", error.line(), error.column()),
        };
    }
    format!(
        "it is not JSON (line {}, column {})",
        error.line(),
        error.column()
    )
}

/// The body of a request to create a run. Unknown members are refused, because they may be
/// misspelt.
pub(super) fn create(headers: &HeaderMap, body: &[u8]) -> Result<CreateTaskRunRequest, Failure> {
    let request = parsed(headers, body)?;
    let unknown = differences(body, &request)?;
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        return Err(Failure::bad_request(format!(
            "unknown members, which the contract does not define: {names}"
        )));
    }
    Ok(request)
}

/// The body of a heartbeat. Unknown members are skipped, because the agent may be newer than the
/// service.
pub(super) fn heartbeat(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<HeartbeatTaskRunRequest, Failure> {
    let request = parsed(headers, body)?;
    differences(body, &request)?;
    Ok(request)
}

/// The maximum number of unknown members that are named.
const NAMED: usize = 5;

/// The maximum length of a name that is shown, in characters.
const LONGEST_NAME: usize = 100;

/// The members of a body that its model does not have, as paths. An array in place of an object is
/// an error: the parser would take its items for members.
fn differences(body: &[u8], read: &impl Serialize) -> Result<Vec<String>, Failure> {
    let given: Value = serde_json::from_slice(body).unwrap_or_default();
    let known = serde_json::to_value(read).unwrap_or_default();
    let mut unknown = Vec::new();
    compare(&given, &known, "", &mut unknown)?;
    unknown.truncate(NAMED);
    Ok(unknown)
}

fn compare(
    given: &Value,
    known: &Value,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), Failure> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let short: String = name.chars().take(LONGEST_NAME).collect();
                let path = match path {
                    "" => short,
                    path => format!("{path}.{short}"),
                };
                match known.get(name) {
                    Some(known) => compare(value, known, &path, unknown)?,
                    None => unknown.push(path),
                }
            }
            Ok(())
        }
        (Value::Array(given), Value::Array(known)) => {
            let items = given.iter().zip(known).enumerate();
            for (place, (given, known)) in items {
                compare(given, known, &format!("{path}[{place}]"), unknown)?;
            }
            Ok(())
        }
        (Value::Array(_), Value::Object(_)) => Err(Failure::bad_request(match path {
            "" => "the body is wrong: it must be an object".to_owned(),
            path => format!("the body is wrong at {path}: it must be an object"),
        })),
        _ => Ok(()),
    }
}
