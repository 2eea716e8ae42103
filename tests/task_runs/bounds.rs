//! The defaults and bounds of the contract are those of the library.

use std::collections::BTreeMap;
use std::ops::RangeFrom;

use podbeat_task_runs::model::{
    CreateTaskRunRequest, Execution, InputMountMappingWithCreds, InputStreamSettings, PageSize,
    Resources, TaskRun, TaskRunStatus, TaskVersionSummary,
};
use serde_json::{Value, json};

const CONTRACT: &str = include_str!("../../contract/task-runs.openapi.yaml");

/// Each default and each bound of the contract, by its place, such as `Execution.retryLimit`.
fn of_the_contract() -> BTreeMap<(String, &'static str), Value> {
    let contract: Value = serde_saphyr::from_str(CONTRACT).expect("YAML");
    let mut found = BTreeMap::new();
    let schemas = contract["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for (name, schema) in schemas {
        collect(schema, name, &mut found);
    }
    for (path, operations) in contract["paths"].as_object().expect("paths") {
        for operation in operations.as_object().expect("operations").values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or(path);
                collect(&parameter["schema"], name, &mut found);
            }
        }
    }
    found
}

fn collect(schema: &Value, place: &str, found: &mut BTreeMap<(String, &'static str), Value>) {
    for keyword in ["default", "minimum", "maximum", "maxLength", "minLength"] {
        if let Some(value) = schema.get(keyword) {
            // A fraction of zero does not matter.
            let number = value.as_f64().map(|number| json!(number));
            let value = number.unwrap_or_else(|| value.clone());
            found.insert((place.to_owned(), keyword), value);
        }
    }
    for (name, member) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        collect(member, &format!("{place}.{name}"), found);
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(nested) {
            collect(schema, &format!("{place}.{nested}"), found);
        }
    }
}

/// The same from the library's constants.
fn of_the_library() -> BTreeMap<(String, &'static str), Value> {
    let mut found = BTreeMap::new();
    let mut add = |place: &str, keyword, value: Value| {
        let value = value.as_f64().map_or(value, |number| json!(number));
        found.insert((place.to_owned(), keyword), value);
    };
    let name = CreateTaskRunRequest::LONGEST_NAME;
    let description = CreateTaskRunRequest::LONGEST_DESCRIPTION;
    let resource = Resources::LONGEST_NAME;
    add("CreateTaskRunRequest.name", "maxLength", json!(name));
    add(
        "CreateTaskRunRequest.description",
        "maxLength",
        json!(description),
    );
    for run in ["TaskRun", "TaskRunSummary"] {
        let mut longest = |member, most| add(&format!("{run}.{member}"), "maxLength", json!(most));
        longest("name", name);
        longest("description", description);
        longest("statusDetails", TaskRun::LONGEST_STATUS_DETAILS);
        for member in ["sizeOfResource", "tierOfResource", "typeOfResource"] {
            longest(member, resource);
        }
        let status = TaskRunStatus::DEFAULT;
        add(&format!("{run}.status"), "default", json!(status));
    }
    let version = TaskVersionSummary::LONGEST_VERSION;
    add("TaskVersionSummary.version", "maxLength", json!(version));
    add(
        "TaskVersionSummary.description",
        "maxLength",
        json!(TaskVersionSummary::LONGEST_DESCRIPTION),
    );
    for member in ["size", "tier", "type"] {
        add(&format!("Resources.{member}"), "maxLength", json!(resource));
    }
    let RangeFrom { start } = Resources::CPU_CORES;
    add("Resources.cpuCores", "minimum", json!(start));
    let RangeFrom { start } = Resources::MEMORY_GB;
    add("Resources.memoryGb", "minimum", json!(start));
    let RangeFrom { start } = Execution::RETRY_COUNTS;
    add("Execution.retryCount", "minimum", json!(start));
    let RangeFrom { start } = Execution::RETRY_LIMITS;
    add("Execution.retryLimit", "minimum", json!(start));
    add(
        "Execution.retryCount",
        "default",
        json!(Execution::DEFAULT_RETRY_COUNT),
    );
    add(
        "Execution.retryLimit",
        "default",
        json!(Execution::DEFAULT_RETRY_LIMIT),
    );
    add(
        "InputMountMappingWithCreds.type",
        "default",
        json!(InputMountMappingWithCreds::DEFAULT_TYPE),
    );
    let streams = |member: &str| format!("InputStreamSettings.{member}");
    add(
        &streams("accessPattern"),
        "default",
        json!(InputStreamSettings::DEFAULT_ACCESS_PATTERN),
    );
    let mut range = |place: &str, default: Value, (least, most): (Value, Value)| {
        add(place, "default", default);
        add(place, "minimum", least);
        add(place, "maximum", most);
    };
    let (least, most) = InputStreamSettings::CACHE_SIZES_GB.into_inner();
    range(
        &streams("cacheSizeGB"),
        json!(InputStreamSettings::DEFAULT_CACHE_SIZE_GB),
        (json!(least), json!(most)),
    );
    let (least, most) = InputStreamSettings::BLOCK_SIZES_MB.into_inner();
    range(
        &streams("blockSizeMB"),
        json!(InputStreamSettings::DEFAULT_BLOCK_SIZE_MB),
        (json!(least), json!(most)),
    );
    let (least, most) = InputStreamSettings::PREFETCH_BLOCKS.into_inner();
    range(
        &streams("prefetchBlocks"),
        json!(InputStreamSettings::DEFAULT_PREFETCH_BLOCKS),
        (json!(least), json!(most)),
    );
    range(
        "pageSize",
        json!(PageSize::DEFAULT.get()),
        (json!(PageSize::LEAST), json!(PageSize::MOST)),
    );
    // `problems()` has no constant for this one: the name must not be empty.
    add("Image.name", "minLength", json!(1));
    found
}

#[test]
fn the_contract_and_the_library_have_the_same_defaults_and_bounds() {
    let (contract, library) = (of_the_contract(), of_the_library());
    assert!(contract.len() > 30, "{contract:?}");
    assert_eq!(contract, library);
}
