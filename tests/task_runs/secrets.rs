//! Puts a secret into every member that can contain one, and checks that none is shown.

use podbeat_lab::contract::Contract;
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRun, TaskRunHeartbeat};
use serde_json::{Value, json};

use super::contract::{definition, full};

/// No output may contain this text.
pub(crate) const SECRET: &str = "hunter2";

/// A value with a secret in every member that can contain one: members with such a name, the values
/// of every map, and every URL.
fn planted(schema: &str) -> Value {
    let contract = Contract::load().expect("the contract");
    let mut value = full(&contract, definition(&contract, schema));
    plant(&mut value);
    value
}

fn plant(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    // Each map has one member, from `full`.
                    "key" | "password" | "jwt" | "executionRawJson" => *member = json!(SECRET),
                    "url" | "serviceUrl" | "stdout" | "stderr" => {
                        *member = json!(format!(
                            "https://user:{SECRET}@host/path?a=b&signature={SECRET}#{SECRET}"
                        ));
                    }
                    _ => plant(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plant),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A request with a secret in every member that can contain one.
pub(crate) fn request() -> CreateTaskRunRequest {
    serde_json::from_value(planted("CreateTaskRunRequest")).expect("a request")
}

#[test]
fn debug_shows_no_secret() {
    let run: TaskRun = serde_json::from_value(planted("TaskRun")).expect("a run");
    let answer: TaskRunHeartbeat =
        serde_json::from_value(planted("TaskRunHeartbeat")).expect("an answer");
    let count = |value: &Value| value.to_string().matches(SECRET).count();
    // A password, a variable, and three maps of credentials; four URLs and two logs with three
    // secrets each; the raw execution.
    assert_eq!(count(&planted("CreateTaskRunRequest")), 5 + 4 * 3);
    assert_eq!(count(&planted("TaskRun")), 5 + 4 * 3 + 1 + 2 * 3);
    for shown in [
        format!("{run:?} {run:#?}"),
        format!("{answer:?}"),
        format!("{:?}", request()),
    ] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    // Names and places are not secret.
    let shown = format!("{run:?}");
    assert!(
        shown.contains("\"key\": [redacted]") && shown.contains("@host/path?[redacted]"),
        "{shown}"
    );
}

#[test]
fn requests_are_complete_and_redacted_values_contain_no_secret() {
    let mut request = request();
    let sent = serde_json::to_value(&request).expect("json");
    assert_eq!(sent, planted("CreateTaskRunRequest"));
    request.redact();
    let shown = serde_json::to_string(&request).expect("json");
    assert!(
        !shown.contains(SECRET) && shown.contains("[redacted]@host/path?[redacted]"),
        "{shown}"
    );

    let mut run: TaskRun = serde_json::from_value(planted("TaskRun")).expect("a run");
    run.redact();
    let shown = serde_json::to_string(&run).expect("json");
    assert!(!shown.contains(SECRET), "{shown}");
}
