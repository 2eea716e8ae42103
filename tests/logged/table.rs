//! Compares lines of the log with the definitions of crates/interface/src/messages.rs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use podbeat_interface::messages::{Described, EVERYWHERE, Form, Id, Message, Presence};
use serde_json::{Value, json};

fn has_form(value: &Value, form: Form) -> bool {
    match form {
        Form::Text => value.is_string(),
        Form::Number => value.is_u64() || value.is_i64(),
        Form::Seconds => value.as_f64().is_some_and(|seconds| seconds >= 0.0),
        Form::Time => value
            .as_str()
            .is_some_and(|time| time.parse::<Timestamp>().is_ok()),
        Form::Flag => value.is_boolean(),
    }
}

/// The differences between a line at info or above and its message's definition.
fn problems(line: &Value) -> Vec<String> {
    let object = line.as_object().expect("an object");
    let text = object["message"].as_str().unwrap_or_default();
    let Some(message) = described(text) else {
        return vec![format!("the message {text:?} isn't listed")];
    };
    let mut problems = vec![];
    if object["level"] != message.level.as_str() {
        problems.push(format!(
            "its level is {}, and {} listed",
            object["level"], message.level
        ));
    }
    for field in message.fields {
        if field.presence == Presence::Always && !object.contains_key(field.name) {
            problems.push(format!("{} is missing", field.name));
        }
    }
    let everywhere = EVERYWHERE.iter().map(|(field, form)| (field.name, *form));
    let own = message.fields.iter().map(|field| (field.name, field.form));
    let forms: BTreeMap<&str, Form> = everywhere.chain(own).collect();
    for (name, value) in object {
        match forms.get(name.as_str()) {
            Some(form) if has_form(value, *form) => {}
            Some(form) => problems.push(format!("{name} isn't {}: {value}", form.name())),
            None => problems.push(format!("the field {name} isn't listed")),
        }
    }
    problems
}

fn described(text: &str) -> Option<&'static Described> {
    let id = Id::of(text)?;
    Message::ALL.iter().find(|message| message.id == id)
}

/// Fails if a line at info or above is not as defined. Returns the messages that occur.
pub(crate) fn check(lines: &[Value]) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    for line in lines {
        assert!(
            EVERYWHERE
                .iter()
                .all(|(field, _)| line.get(field.name).is_some()),
            "{line}"
        );
        // Skip debug and trace lines, and lines of libraries.
        let ours = line["target"]
            .as_str()
            .is_some_and(|target| target.starts_with("podbeat"));
        if !ours || matches!(line["level"].as_str(), Some("DEBUG" | "TRACE")) {
            continue;
        }
        let problems = problems(line);
        assert!(problems.is_empty(), "{problems:?}: {line}");
        let text = line["message"].as_str().unwrap_or_default();
        seen.extend(described(text).map(|message| message.text));
    }
    seen
}

#[test]
fn an_unlisted_line_is_detected() {
    let good = json!({"timestamp": "2026-01-01T00:00:00.000Z", "level": "INFO", "target": "podbeat::agent::report",
                      "message": "the last heartbeat is due", "cause": "why"});
    assert_eq!(problems(&good), Vec::<String>::new());
    for (member, value) in [
        ("message", json!("the last heartbeat was due")),
        ("level", json!("WARN")),
        ("cause", json!(3)),
        ("cause", Value::Null),
        ("why", json!("why")),
        ("timestamp", json!("today")),
    ] {
        let mut bad = good.clone();
        if value.is_null() {
            bad.as_object_mut().expect("an object").remove(member);
        } else {
            bad[member] = value;
        }
        assert!(!problems(&bad).is_empty(), "{bad}");
    }
}
