//! Checks bodies against the wire contract. The check is strict, so it also finds misspelled
//! members.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::Error;

const OPENAPI: &str = include_str!("../../contract/task-runs.openapi.yaml");

/// The OpenAPI contract. Cheap to clone.
#[derive(Clone)]
pub struct Contract {
    validators: Arc<BTreeMap<String, Validator>>,
    document: Arc<Value>,
}

impl Contract {
    /// Reads the contract that is built into this package.
    ///
    /// # Errors
    /// The contract isn't YAML, or one of its schemas is unusable.
    pub fn load() -> Result<Self, Error> {
        let document: Value = serde_saphyr::from_str(OPENAPI)?;
        let mut schemas = document
            .pointer("/components/schemas")
            .cloned()
            .unwrap_or_default();
        strict(&mut schemas);
        let names: Vec<String> = schemas
            .as_object()
            .map(|all| all.keys().cloned().collect())
            .unwrap_or_default();
        let mut validators = BTreeMap::new();
        for name in names {
            let schema = json!({
                "$ref": format!("#/components/schemas/{name}"),
                "components": { "schemas": schemas },
            });
            let validator = jsonschema::options()
                .should_validate_formats(true)
                .build(&schema)
                .map_err(|problem| Error::Schema {
                    name: name.clone(),
                    problem: problem.to_string(),
                })?;
            validators.insert(name, validator);
        }
        Ok(Self {
            validators: Arc::new(validators),
            document: Arc::new(document),
        })
    }

    /// The contract's schemas by name.
    #[must_use]
    pub fn schemas(&self) -> Vec<(&str, &Value)> {
        let schemas = self
            .document
            .pointer("/components/schemas")
            .and_then(Value::as_object);
        schemas
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str(), schema))
            .collect()
    }

    /// The statuses of a task run that the contract lists.
    #[must_use]
    pub fn statuses(&self) -> Vec<&str> {
        let statuses = self
            .document
            .get("x-task-run-statuses")
            .and_then(Value::as_array);
        statuses
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// The names of an operation's query parameters. The operation is, for example,
    /// `get /v1/tasks/runs`.
    #[must_use]
    pub fn query_parameters(&self, method: &str, path: &str) -> Vec<&str> {
        let operation = self
            .document
            .get("paths")
            .and_then(|paths| paths.get(path)?.get(method));
        let parameters = operation.and_then(|operation| operation.get("parameters")?.as_array());
        parameters
            .into_iter()
            .flatten()
            .filter(|parameter| parameter.get("in").and_then(Value::as_str) == Some("query"))
            .filter_map(|parameter| parameter.get("name").and_then(Value::as_str))
            .collect()
    }

    /// The violations of the named schema in a body that podbeat sent. Empty if there are none.
    #[must_use]
    pub fn check(&self, schema: &str, body: &Value) -> Vec<String> {
        let mut wrong = self.broken(schema, body);
        times_in_utc(body, "", &mut wrong);
        wrong
    }

    /// Removes explicit nulls from the members that the schema defines: an explicit null means that
    /// the member is absent. Elsewhere (in a list, in a map such as the variables, in an unknown
    /// member) null stays, and is a violation.
    pub fn omit_nulls(&self, schema: &str, body: &mut Value) {
        let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
        self.omit(&schema, body);
    }

    fn omit(&self, schema: &Value, value: &mut Value) {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let found = reference.and_then(|path| self.document.pointer(path.trim_start_matches('#')));
        let schema = found.unwrap_or(schema);
        match value {
            Value::Object(members) => {
                let known = schema.get("properties");
                let of = |name: &str| known.and_then(|known| known.get(name));
                members.retain(|name, member| !member.is_null() || of(name).is_none());
                for (name, member) in members {
                    if let Some(schema) = of(name) {
                        self.omit(schema, member);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    items.iter_mut().for_each(|item| self.omit(schema, item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The violations in a body of any client. Other clients may write times with any offset (RFC
    /// 3339).
    #[must_use]
    pub fn broken(&self, schema: &str, body: &Value) -> Vec<String> {
        let Some(validator) = self.validators.get(schema) else {
            return vec![format!("the contract has no schema {schema}")];
        };
        let told =
            |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        validator.iter_errors(body).map(told).collect()
    }
}

/// OpenAPI 3.0 allows unnamed members in objects, and defines ranges only by format. This check
/// rejects unnamed members and enforces the ranges.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            int_range(members, "int32", i64::from(i32::MIN), i64::from(i32::MAX));
            int_range(members, "int64", i64::MIN, i64::MAX);
            members.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn int_range(members: &mut Map<String, Value>, format: &str, least: i64, most: i64) {
    if members.get("format").and_then(Value::as_str) == Some(format) {
        members.remove("format");
        members.entry("minimum").or_insert(json!(least));
        members.entry("maximum").or_insert(json!(most));
    }
}

/// The schema requires date-time; podbeat writes UTC.
fn times_in_utc(value: &Value, path: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                if name.ends_with("At")
                    && let Some(time) = member.as_str()
                    && !time.ends_with('Z')
                {
                    wrong.push(format!("{path}: {time:?} is not in UTC (no Z at its end)"));
                }
                times_in_utc(member, &path, wrong);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                times_in_utc(item, &format!("{path}/{at}"), wrong);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(body: &Value) -> Vec<String> {
        Contract::load()
            .expect("the contract")
            .check("HeartbeatTaskRunRequest", body)
    }

    fn terminated(members: &Value) -> Value {
        json!({"containerStatus": [{"name": "main", "state": {"terminated": members}}]})
    }

    #[test]
    fn a_full_body_passes() {
        let full = json!({
            "containerStatus": [
                {"name": "a", "state": {"terminated": {"containerID": "c", "exitCode": 3, "signal": 9, "reason": "Error",
                    "message": "m", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "0001-01-01T00:00:00Z"}}},
                {"name": "b", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
                {"name": "c", "state": {"waiting": {"reason": "r", "message": "m"}}}],
            "jobRetryCount": 0, "lastHeartbeat": true, "nonce": "n", "podHardwareDetails": "h", "podName": "p", "podUID": "u"});
        assert_eq!(wrong(&full), Vec::<String>::new());
        assert_eq!(wrong(&json!({})), Vec::<String>::new());
    }

    #[test]
    fn an_explicit_null_is_an_absent_member_at_every_level() {
        let contract = Contract::load().expect("the contract");
        let without = |schema: &str, mut body: Value| {
            contract.omit_nulls(schema, &mut body);
            (contract.broken(schema, &body).is_empty(), body)
        };
        let heartbeat = json!({"nonce": null, "lastHeartbeat": true, "containerStatus": [
            {"name": null, "state": {"waiting": null, "running": {"startedAt": null}}},
            {"name": "b", "state": null}]});
        assert_eq!(
            without("HeartbeatTaskRunRequest", heartbeat),
            (
                true,
                json!({"lastHeartbeat": true, "containerStatus": [{"state": {"running": {}}}, {"name": "b"}]})
            )
        );
        let create = json!({"acl": null, "execution": {"image": {"name": "i", "credentials": null},
            "inputs": [{"url": null, "credentials": {"key": "k"}}], "environment": {"variables": null}}});
        assert_eq!(
            without("CreateTaskRunRequest", create),
            (
                true,
                json!({"execution": {"image": {"name": "i"}, "inputs": [{"credentials": {"key": "k"}}], "environment": {}}})
            )
        );
        for refused in [
            json!({"nmae": null}),
            json!({"acl": [null]}),
            json!({"execution": {"environment": {"variables": {"A": null}}}}),
            json!({"execution": {"image": {"name": null}}}),
        ] {
            assert!(
                !without("CreateTaskRunRequest", refused.clone()).0,
                "{refused}"
            );
        }
    }

    #[test]
    fn violations_of_the_contract_are_found() {
        for body in [
            json!({"podUid": "u"}),
            json!({"nonce": null}),
            json!({"more": 1}),
            json!({"containerStatus": {"name": "a"}}),
            json!({"jobRetryCount": 2_147_483_648_u64}),
            json!({"jobRetryCount": "1"}),
            json!({"lastHeartbeat": "true"}),
            terminated(&json!({"containerId": "c"})),
            terminated(&json!({"exitCode": 3.5})),
            terminated(&json!({"finishedAt": "yesterday"})),
            terminated(&json!({"finishedAt": "2026-01-01T01:00:00+01:00"})),
            terminated(&json!({"startedAt": null})),
            json!([]),
        ] {
            assert!(!wrong(&body).is_empty(), "{body}");
        }
    }
}
