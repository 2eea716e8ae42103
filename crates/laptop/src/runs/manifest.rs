//! Reads requests from files: JSON or YAML, one or several documents, checked strictly against the
//! contract.
//!
//! The types of requests ignore unknown members, because answers may be newer than podbeat. In a
//! hand-written file, an unknown member is probably a typo, and its value would be lost. So it is
//! an error here. No error shows a value, because the value can be a misplaced password.

use std::fmt;

use podbeat_files::trimmed;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The maximum size of a file in bytes: larger than any request that a service accepts, but small
/// enough to reject a mistake such as a disk image.
pub(super) const LARGEST: u64 = 8 << 20;

/// Converts a file's content to text.
///
/// # Errors
/// The content is not valid UTF-8.
pub(super) fn text(bytes: Vec<u8>) -> std::io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "not valid UTF-8"))
}

/// The requests in a text.
///
/// # Errors
/// Everything that is wrong with the first invalid document, with its place.
pub(super) fn requests<T: DeserializeOwned + Serialize>(text: &str) -> Result<Vec<T>, Vec<String>> {
    let documents = documents(text).map_err(|problem| vec![problem])?;
    if documents.is_empty() {
        return Err(vec!["it contains no request".to_owned()]);
    }
    let many = documents.len() > 1;
    let numbered = |nth: usize, problem: String| match many {
        true => format!("document {}: {problem}", nth + 1),
        false => problem,
    };
    let mut requests = Vec::new();
    for (nth, document) in documents.iter().enumerate() {
        let request = request(document);
        requests.push(request.map_err(|problems| {
            let numbered = |problem| numbered(nth, problem);
            problems.into_iter().map(numbered).collect::<Vec<_>>()
        })?);
    }
    Ok(requests)
}

/// The request in a document. Also reads other objects of the contract, such as credentials.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub(super) fn request<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, Vec<String>> {
    // serde would also accept an array for an object, in the order of its members.
    if !document.is_object() {
        return Err(vec![format!("expected an object, not {}", kind(document))]);
    }
    let request: T = serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        let text = error.inner().to_string();
        let expected = text
            .rsplit_once(", expected ")
            .map(|(_, expected)| plain(expected));
        vec![match expected {
            Some(expected) => format!("{path}: expected {expected}"),
            None => format!("{path}: not a value that the contract allows"),
        }]
    })?;
    let known = serde_json::to_value(&request).unwrap_or_default();
    let mut unknown = Vec::new();
    lost(document, &known, "", &mut unknown);
    if unknown.is_empty() {
        return Ok(request);
    }
    let told = |path| format!("{path}: unknown member; the contract does not define it");
    Err(unknown.into_iter().map(told).collect())
}

/// serde's name of a type in plain words.
fn plain(expected: &str) -> &str {
    match expected {
        "i32" | "i64" | "u16" => "a whole number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Finds the members of `given` that are not in `known`. A null counts as absent.
fn lost(given: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match known.get(name) {
                    Some(known) => lost(value, known, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (nth, (given, known)) in given.iter().zip(known).enumerate() {
                lost(given, known, &format!("{path}[{nth}]"), found);
            }
        }
        _ => {}
    }
}

/// The documents in a text, without empty ones. A text that begins with `{` is first read as JSON.
///
/// # Errors
/// The text is neither JSON nor YAML, or has a duplicate member. The error contains no value.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let text = trimmed::unmarked(text);
    let documents: Vec<Strict> = if text.trim_start().starts_with('{') {
        match serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect()
        {
            Ok(documents) => documents,
            // A YAML flow mapping begins with `{`, too. If the text is neither, the error of JSON
            // is clearer.
            Err(error) => yaml(text).map_err(|_| json_problem(&error))?,
        }
    } else {
        yaml(text)?
    };
    let values = documents.into_iter().map(|Strict(value)| value);
    Ok(values.filter(|value| !value.is_null()).collect())
}

fn json_problem(error: &serde_json::Error) -> String {
    // A syntax error says what serde expected. A data error says what it found, which can be a
    // secret. The only possible data error here is a duplicate member.
    match error.classify() {
        serde_json::error::Category::Data => format!(
            "line {} column {}: duplicate member",
            error.line(),
            error.column()
        ),
        _ => format!("not valid JSON: {error}"),
    }
}

fn yaml(text: &str) -> Result<Vec<Strict>, String> {
    serde_saphyr::from_multiple(text).map_err(|error| {
        // The YAML error's own text repeats the input.
        match error.location() {
            Some(at) => format!(
                "not valid JSON or YAML, or a duplicate member, at line {} column {}",
                at.line(),
                at.column()
            ),
            None => "not valid JSON or YAML".to_owned(),
        }
    })
}

/// Any value without duplicate members. With duplicates, nobody can know which value is meant.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }

            fn visit_none<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Strict, D::Error> {
                deserializer.deserialize_any(self)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Strict, E> {
                let number = serde_json::Number::from_f64(value);
                let number = number.ok_or_else(|| E::custom("a number that is not finite"))?;
                Ok(Strict(Value::Number(number)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
                let mut all = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    all.push(item);
                }
                Ok(Strict(Value::Array(all)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
                let mut all = Map::new();
                while let Some(name) = members.next_key::<String>()? {
                    let Strict(value) = members.next_value()?;
                    if all.insert(name, value).is_some() {
                        return Err(A::Error::custom("duplicate member"));
                    }
                }
                Ok(Strict(Value::Object(all)))
            }
        }

        deserializer.deserialize_any(Values)
    }
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::*;
    use podbeat_task_runs::model::{CreateTaskRunRequest, HeartbeatTaskRunRequest};

    fn read(text: &str) -> Result<Vec<CreateTaskRunRequest>, Vec<String>> {
        requests(text)
    }

    fn problem(text: &str) -> String {
        read(text).expect_err(text).join("; ")
    }

    #[test]
    fn the_same_request_in_json_and_in_yaml() {
        let json = r#"{"name": "é \ud83d\ude00", "description": null, "execution": {"image": {"name": "i"}, "args": ["1", "no"],
            "environment": {"variables": {"A": "hunter2"}, "resources": {"cpuCores": 0.5, "memoryGb": 4}}, "retryLimit": 3}}"#;
        let yaml = "---\n# a comment\nname: 'é 😀'\nexecution:\n  image: {name: i}\n  args: ['1', \"no\"]\n  environment:\n    \
                    variables:\n      A: hunter2\n    resources: {cpuCores: 0.5, memoryGb: 4}\n  retryLimit: 3\n";
        let read_json = read(json).expect("JSON");
        assert_eq!(read_json, read(yaml).expect("YAML"));
        assert_eq!(
            read_json,
            read(&format!("\u{feff}{json}")).expect("with a mark")
        );
        let body = serde_json::to_string(&read_json[0]).expect("JSON");
        assert!(body.contains(r#""cpuCores":0.5,"memoryGb":4}"#), "{body}");
    }

    #[test]
    fn several_documents_and_empty_ones() {
        let names = |text: &str| {
            let requests = read(text).expect(text);
            requests
                .into_iter()
                .map(|request| request.name.expect("a name"))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("name: a\n---\nname: b\n---\n"), ["a", "b"]);
        assert_eq!(names("{\"name\":\"a\"}\n{\"name\":\"b\"}"), ["a", "b"]);
        assert_eq!(names("{name: a}"), ["a"]);
        assert_eq!(read("{}").expect("all is optional").len(), 1);
        for empty in ["", " \n", "---\n", "null", "# nothing\n"] {
            assert_eq!(problem(empty), "it contains no request", "{empty:?}");
        }
    }

    #[test]
    fn typos_are_reported_with_their_position_and_without_values() {
        for (text, expected) in [
            (
                "nmae: hunter2",
                "nmae: unknown member; the contract does not define it",
            ),
            (
                "name: a\nexecution:\n  enviroment: {variables: {A: hunter2}}\n  inputs: [{path: p}, {pth: hunter2}]\n",
                "execution.enviroment: unknown member; the contract does not define it; \
                 execution.inputs[1].pth: unknown member; the contract does not define it",
            ),
            (
                "execution: {retryCount: hunter2}",
                "execution.retryCount: expected a whole number",
            ),
            (
                "execution: {retryCount: 1.5}",
                "execution.retryCount: expected a whole number",
            ),
            (
                "execution: {args: hunter2}",
                "execution.args: expected a list",
            ),
            ("execution: hunter2", "execution: expected an object"),
            (
                "execution: {environment: {variables: {A: 1}}}",
                "execution.environment.variables.A: expected a string",
            ),
            ("- hunter2", "expected an object, not a list"),
            ("hunter2", "expected an object, not a text"),
            (
                "name: a\n---\nhunter2: x",
                "document 2: hunter2: unknown member; the contract does not define it",
            ),
            (
                r#"{"name": "a", "name": "hunter2"}"#,
                "line 1 column 32: duplicate member",
            ),
            (
                r#"{"name": "hunter2""#,
                "not valid JSON: EOF while parsing an object at line 1 column 18",
            ),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        for twice in [
            "name: a\nname: hunter2",
            "name: [hunter2",
            "name: *hunter2",
            "a: !x hunter2\n b: c",
        ] {
            let problem = problem(twice);
            assert!(
                problem.contains("not valid JSON or YAML") && !problem.contains("hunter2"),
                "{problem}"
            );
        }
    }

    #[test]
    fn heartbeats_are_read_alike() {
        let yaml = "lastHeartbeat: true\ncontainerStatus:\n- name: main\n  state: {terminated: {exitCode: 0}}\n";
        let read: Vec<HeartbeatTaskRunRequest> = requests(yaml).expect("right");
        assert_eq!(read[0].last_heartbeat, Some(true));
        let wrong = yaml.replace("terminated", "finished");
        let problem = requests::<HeartbeatTaskRunRequest>(&wrong)
            .expect_err("no such state")
            .join("");
        assert!(problem.starts_with("containerStatus[0].state"), "{problem}");
        let wrong = yaml.replace("exitCode", "exit");
        let problem = requests::<HeartbeatTaskRunRequest>(&wrong)
            .expect_err("no such member")
            .join("");
        assert_eq!(
            problem,
            "containerStatus[0].state.terminated.exit: unknown member; the contract does not define it"
        );
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "[\\[\\]{}\"',:a-z0-9 \n#&*!|>-]{0,80}", any in hostile::TEXT) {
            for text in [text, any] {
                let _ = read(&text);
                let _ = requests::<HeartbeatTaskRunRequest>(&text);
            }
        }
    }

    #[test]
    fn files_that_are_not_text_are_refused() {
        assert!(text(b"\xff".to_vec()).is_err());
        assert_eq!(text(b"a: b".to_vec()).expect("a text"), "a: b");
    }
}
