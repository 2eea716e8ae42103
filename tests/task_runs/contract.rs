//! Every model against the contract: the examples of the contract page, and every member of every
//! schema.

use std::collections::BTreeSet;

use podbeat_lab::contract::Contract;
use podbeat_task_runs::model::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, CreateTaskRunRequest, Credentials, Environment, ErrorResponse, Execution,
    HeartbeatTaskRunRequest, Image, InputMountMappingWithCreds, InputStreamSettings,
    ListTaskRunsQuery, MountMappingWithCreds, PageSize, Resources, SortField, SystemFiles, TaskRun,
    TaskRunHeartbeat, TaskRunLogs, TaskRunStatus, TaskRunSummary, TaskRunSummaryPagedItems,
    TaskVersionSummary,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Reads a value as the model of a schema, and writes it again. `None` if there is no such model.
pub(crate) fn through_the_model(schema: &str, value: &Value) -> Option<Result<Value, String>> {
    fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
        // As text, like on the wire.
        let read: T =
            serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())?;
        let written = serde_json::to_string(&read).map_err(|error| error.to_string())?;
        serde_json::from_str(&written).map_err(|error| error.to_string())
    }
    macro_rules! models {
        ($($model:ident)*) => {
            match schema {
                $(stringify!($model) => Some(through::<$model>(value)),)*
                _ => None,
            }
        };
    }
    models! {
        ContainerState ContainerStateRunning ContainerStateTerminated ContainerStateWaiting ContainerStatus
        CreateTaskRunRequest Credentials Environment ErrorResponse Execution HeartbeatTaskRunRequest Image
        InputMountMappingWithCreds InputStreamSettings MountMappingWithCreds Resources SystemFiles TaskRun TaskRunHeartbeat
        TaskRunLogs TaskRunSummary TaskRunSummaryPagedItems TaskVersionSummary
    }
}

/// A value with every member that the schema names, at all levels.
pub(crate) fn full(contract: &Contract, schema: &Value) -> Value {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().expect("a name");
        return full(contract, definition(contract, name));
    }
    if let Some(members) = schema.get("properties").and_then(Value::as_object) {
        let full = members
            .iter()
            .map(|(name, member)| (name.clone(), full(contract, member)));
        return Value::Object(full.collect());
    }
    let kind = schema.get("type").and_then(Value::as_str);
    match (kind, schema.get("format").and_then(Value::as_str)) {
        (Some("string"), Some("date-time")) => json!("2026-11-24T01:52:44.25Z"),
        (Some("string"), _) => json!("ü text"),
        (Some("integer"), Some("int64")) => json!(i64::MAX),
        (Some("integer"), _) => json!(schema["minimum"].as_i64().unwrap_or(i32::MIN.into())),
        (Some("number"), _) => json!(2.5),
        (Some("boolean"), _) => json!(true),
        (Some("array"), _) => json!([full(contract, &schema["items"])]),
        (Some("object"), _) => json!({"key": full(contract, &schema["additionalProperties"])}),
        (None, _) => json!({"anything": [1, null]}),
        (Some(other), _) => panic!("a new type in the contract: {other}"),
    }
}

pub(crate) fn definition<'contract>(contract: &'contract Contract, name: &str) -> &'contract Value {
    let found = contract
        .schemas()
        .into_iter()
        .find(|(other, _)| *other == name);
    found.expect("the contract has it").1
}

fn contract() -> Contract {
    Contract::load().expect("the contract")
}

#[test]
fn every_member_of_every_schema_is_read_and_written_again() {
    let contract = contract();
    let schemas = contract.schemas();
    assert_eq!(schemas.len(), 23, "{schemas:?}");
    for (name, schema) in schemas {
        let value = full(&contract, schema);
        assert_eq!(contract.check(name, &value), Vec::<String>::new());
        let written = through_the_model(name, &value)
            .unwrap_or_else(|| panic!("there is no model of {name}"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(written, value, "{name}");
    }
}

#[test]
fn single_members_are_kept_null_is_absent_and_unknown_members_are_skipped() {
    let contract = contract();
    for (name, schema) in contract.schemas() {
        assert_eq!(
            through_the_model(name, &json!({})),
            Some(Ok(json!({}))),
            "{name}"
        );
        let Value::Object(members) = full(&contract, schema) else {
            panic!("{name} is an object");
        };
        for (member, value) in members {
            let alone = json!({&member: value});
            assert_eq!(
                through_the_model(name, &alone),
                Some(Ok(alone.clone())),
                "{name}"
            );
            let null = json!({&member: null});
            assert_eq!(
                through_the_model(name, &null),
                Some(Ok(json!({}))),
                "{name}/{member}"
            );
            let more = json!({&member: value, "inTheFuture": {"more": [1]}});
            assert_eq!(
                through_the_model(name, &more),
                Some(Ok(alone)),
                "{name}/{member}"
            );
        }
    }
}

#[test]
fn empty_lists_and_maps_are_not_absent() {
    let run = json!({"acl": [], "logs": [], "execution": {"args": [], "inputs": [{"credentials": {}}], "environment": {"variables": {}}}});
    assert_eq!(through_the_model("TaskRun", &run), Some(Ok(run.clone())));
}

#[test]
fn the_statuses_and_no_others_are_known() {
    let contract = contract();
    let known: Vec<String> = TaskRunStatus::KNOWN
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(known, contract.statuses());
    for status in contract.statuses() {
        assert!(
            !matches!(TaskRunStatus::from(status), TaskRunStatus::Unknown(_)),
            "{status}"
        );
    }
    let later: TaskRun = serde_json::from_value(json!({"status": "Paused"})).expect("a run");
    assert!(
        matches!(&later.status, Some(status @ TaskRunStatus::Unknown(_)) if status.as_str() == "Paused")
    );
    assert_eq!(
        serde_json::to_value(&later).expect("json"),
        json!({"status": "Paused"})
    );
}

#[test]
fn the_query_has_every_parameter_and_no_other() {
    let text = || Some("text".to_owned());
    let query = ListTaskRunsQuery {
        acls: text(),
        names: text(),
        page_size: PageSize::new(1000),
        page_token: text(),
        sort: Some(SortField::TimeCreated.descending().into()),
        status: Some(TaskRunStatus::Failed),
        versions: text(),
    };
    let names: BTreeSet<&str> = query.pairs().iter().map(|(name, _)| *name).collect();
    let contract = contract();
    let parameters: BTreeSet<&str> = contract
        .query_parameters("get", "/v1/tasks/runs")
        .into_iter()
        .collect();
    assert_eq!(names, parameters);
    assert_eq!(ListTaskRunsQuery::default().pairs(), []);
    assert_eq!(PageSize::new(0), None);
    assert_eq!(PageSize::new(1001), None);
    assert_eq!(PageSize::new(1).map(PageSize::get), Some(1));
    let sorts: Vec<String> = SortField::ALL
        .iter()
        .flat_map(|field| {
            [
                field.ascending().to_string(),
                field.descending().to_string(),
            ]
        })
        .collect();
    // The fields and directions are those of the contract page.
    let page = include_str!("../../contract/TaskRunsApi.md");
    assert!(page.contains(
        "Valid fields include: name, status, timeCreated, timeModified.  The sort can be specified as asc or desc."
    ));
    assert_eq!(
        sorts,
        [
            "name asc",
            "name desc",
            "status asc",
            "status desc",
            "timeCreated asc",
            "timeCreated desc",
            "timeModified asc",
            "timeModified desc"
        ]
    );
}

/// A request body of the contract page, from its Python: arguments become members with the schema's
/// names.
fn example(contract: &Contract, schema: &str) -> Value {
    let page = include_str!("../../contract/TaskRunsApi.md");
    let (_, body) = page
        .split_once(&format!("body = {schema}("))
        .expect("an example on the page");
    let body = format!("{schema}({body}");
    python(contract, &mut body.as_str())
}

/// Reads one Python value from the start of the text, and removes it.
fn python(contract: &Contract, text: &mut &str) -> Value {
    *text = text.trim_start();
    let take = |text: &mut &str, mark: &str| {
        let rest = text.trim_start().strip_prefix(mark);
        if let Some(rest) = rest {
            *text = rest;
        }
        rest.is_some()
    };
    if take(text, "[") {
        let mut items = Vec::new();
        while !take(text, "]") {
            items.push(python(contract, text));
            take(text, ",");
        }
        return Value::Array(items);
    }
    if take(text, "{") {
        let mut members = Map::new();
        while !take(text, "}") {
            let name = python(contract, text);
            assert!(take(text, ":"));
            members.insert(
                name.as_str().expect("a name").to_owned(),
                python(contract, text),
            );
            take(text, ",");
        }
        return Value::Object(members);
    }
    if take(text, "dateutil_parser('") {
        let (time, rest) = text.split_once("')").expect("a time");
        *text = rest;
        return json!(time);
    }
    if take(text, "\"") {
        let (word, rest) = text.split_once('"').expect("a text");
        *text = rest;
        return json!(word);
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '.' && c != '_')
        .expect("an end");
    let (word, rest) = text.split_at(end);
    *text = rest;
    if !take(text, "(") {
        return match word {
            "True" => json!(true),
            number => serde_json::from_str(number).expect("a number"),
        };
    }
    let properties = &definition(contract, word)["properties"];
    let mut members = Map::new();
    while !take(text, ")") {
        *text = text.trim_start();
        let (argument, rest) = text.split_once('=').expect("an argument");
        *text = rest;
        let flat = |name: &str| name.replace('_', "").to_lowercase();
        let (name, _) = properties
            .as_object()
            .expect("members")
            .iter()
            .find(|(name, _)| flat(name) == flat(argument))
            .unwrap_or_else(|| panic!("{word} has no {argument}"));
        members.insert(name.clone(), python(contract, text));
        take(text, ",");
    }
    Value::Object(members)
}

#[test]
fn the_pages_examples_are_read_and_written_again() {
    let contract = contract();
    let create = example(&contract, "CreateTaskRunRequest");
    assert_eq!(
        create["execution"]["environment"]["inputStreamSettings"],
        json!({"accessPattern": "sequential", "cacheSizeGB": 50, "blockSizeMB": 32.0, "prefetchBlocks": 32})
    );
    assert_eq!(
        contract.check("CreateTaskRunRequest", &create),
        Vec::<String>::new()
    );
    assert_eq!(
        through_the_model("CreateTaskRunRequest", &create),
        Some(Ok(create.clone()))
    );

    let heartbeat = example(&contract, "HeartbeatTaskRunRequest");
    assert_eq!(heartbeat["podUID"], json!("pod_uid_example"));
    let state = heartbeat["containerStatus"][0]["state"].as_object();
    assert_eq!(state.map(Map::len), Some(3));
    assert_eq!(
        contract.check("HeartbeatTaskRunRequest", &heartbeat),
        Vec::<String>::new()
    );
    let mut written = through_the_model("HeartbeatTaskRunRequest", &heartbeat)
        .expect("a model")
        .expect("a heartbeat");
    // podbeat writes no fraction of a second that is zero.
    let shown = written.to_string().replace("00:00:00Z", "00:00:00.00Z");
    written = serde_json::from_str(&shown).expect("json");
    assert_eq!(written, heartbeat);
}

#[test]
fn one_unreadable_time_leaves_the_rest_of_a_list_readable() {
    let page = json!({"items": [
        {"id": "a", "timeCreated": "0000-00-00", "timeModified": "2026-11-24T01:52:44.1234567Z"},
        {"id": "b", "timeCreated": 1_764_035_564},
        {"id": "c", "taskVersionSummary": {"timeCreated": {"seconds": 1}}}]});
    let read: TaskRunSummaryPagedItems = serde_json::from_value(page.clone()).expect("a page");
    assert_eq!(serde_json::to_value(&read).expect("json"), page);
    let first = &read.items.expect("runs")[0];
    let created = first.time_created.as_ref().expect("a time");
    assert_eq!(
        (created.timestamp(), &*created.text()),
        (None, "0000-00-00")
    );
    let modified = first
        .time_modified
        .as_ref()
        .and_then(|time| time.timestamp())
        .expect("a time");
    assert_eq!(modified.to_string(), "2026-11-24T01:52:44.1234567Z");
}

#[test]
fn a_page_has_at_most_a_thousand_runs() {
    let page = |runs: usize| json!({"items": vec![json!({}); runs]});
    let read = |runs| serde_json::from_value::<TaskRunSummaryPagedItems>(page(runs));
    assert_eq!(
        read(1000).expect("a page").items.map(|items| items.len()),
        Some(1000)
    );
    assert!(read(1001).is_err());
}
