//! Which operation a request asks for, and its parts.

use axum::http::{HeaderMap, Method, StatusCode};
use podbeat_task_runs::model::{CreateTaskRunRequest, HeartbeatTaskRunRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::head::{self, NoOperation, Operation};
use super::response::Failure;
use crate::service::Problem;

/// The operation of a request. `base` is the path before `/v1`.
pub(super) fn operation(base: &str, method: &Method, path: &str) -> Result<Operation, Failure> {
    let missing = || Failure::new(StatusCode::NOT_FOUND, Problem::NotFound.to_string());
    let operation = Operation::of(base, method, path).map_err(|error| match error {
        NoOperation::Unknown => Failure::new(StatusCode::NOT_FOUND, error.to_string()),
        NoOperation::Method(allowed) => Failure::method(error.to_string(), allowed),
        NoOperation::NotUtf8 => Failure::bad_request(error.to_string()),
        NoOperation::Empty => missing(),
    })?;
    let is_long = |id: &str| id.len() > head::LONGEST_ID;
    match operation.run().is_some_and(is_long) {
        true => Err(missing()),
        false => Ok(operation),
    }
}

/// Checks that the client accepts JSON.
pub(super) fn accepts_json(headers: &HeaderMap) -> Result<(), Failure> {
    match head::accepts_json(headers) {
        true => Ok(()),
        false => Err(Failure::new(
            StatusCode::NOT_ACCEPTABLE,
            "answers are application/json, but Accept does not include it",
        )),
    }
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

/// The body. An absent one is an empty object, because neither a member nor the body is required.
fn parsed<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Failure> {
    let body = match body {
        [] => b"{}",
        body if head::is_json(headers) => body,
        _ => {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/json, text/json or application/*+json, in UTF-8",
            ));
        }
    };
    // A parser that knows the place of an error is slower, so only a wrong body gets it.
    serde_json::from_slice(body).or_else(|_| located(body))
}

/// The body, or where it is wrong.
fn located<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
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
            Some(expected) if expected.starts_with("struct ") => "it must be an object".to_owned(),
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
    let request: HeartbeatTaskRunRequest = parsed(headers, body)?;
    // Only with another array than the list of containers, one can be in place of an object.
    let arrays = body.iter().filter(|byte| **byte == b'[').count();
    if arrays > usize::from(request.container_status.is_some()) {
        differences(body, &request)?;
    }
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
