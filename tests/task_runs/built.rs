//! Every valid model fits the contract and reads back unchanged; an invalid one is detected before
//! it is sent.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use podbeat_lab::contract::Contract;
use podbeat_lab::hostile;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, CreateTaskRunRequest, Credentials, DateTime, Environment, ErrorResponse,
    Execution, HeartbeatTaskRunRequest, Image, InputMountMappingWithCreds, InputStreamSettings,
    Location, MountMappingWithCreds, Number, Resources, SystemFiles, TaskRun, TaskRunHeartbeat,
    TaskRunLogs, TaskRunStatus, TaskRunSummary, TaskRunSummaryPagedItems, TaskVersionSummary,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::harness::cases;

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::load().expect("the contract"));

/// A strategy for a model: each member is absent or drawn. It does not compile if a member is
/// missing here.
macro_rules! built {
    ($model:ident { $($member:ident: $strategy:expr,)* }) => {{
        let $model { $($member: _,)* } = $model::default();
        let built = Just($model::default()).boxed();
        $(let built = (built, prop::option::of($strategy))
            .prop_map(|(mut built, drawn)| { built.$member = drawn; built })
            .boxed();)*
        built
    }};
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![hostile::TEXT, "[a-z]{0,8}"].boxed()
}

fn texts() -> BoxedStrategy<Vec<String>> {
    prop::collection::vec(text(), 0..3).boxed()
}

fn secret() -> BoxedStrategy<Secret> {
    text().prop_map(Secret::new).boxed()
}

fn secrets() -> BoxedStrategy<BTreeMap<String, Secret>> {
    prop::collection::btree_map(text(), secret(), 0..3).boxed()
}

fn location() -> BoxedStrategy<Location> {
    prop_oneof![hostile::TEXT, "[a-z]{0,3}://[a-z@/?#&=]{0,12}"]
        .prop_map(Location::new)
        .boxed()
}

fn number() -> BoxedStrategy<Number> {
    let fraction = any::<f64>().prop_filter_map("finite", Number::from_f64);
    prop_oneof![fraction, any::<i64>().prop_map(Number::from)].boxed()
}

/// From year 1 to 9999: RFC 3339 has no form for other years.
fn timestamp() -> BoxedStrategy<Timestamp> {
    (-62_135_596_800_i64..=253_370_000_000, 0_i32..1_000_000_000)
        .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).expect("in range"))
        .boxed()
}

fn time() -> BoxedStrategy<DateTime> {
    timestamp().prop_map(DateTime::from).boxed()
}

fn status() -> BoxedStrategy<TaskRunStatus> {
    let known = prop::sample::select(TaskRunStatus::KNOWN.to_vec());
    prop_oneof![known, text().prop_map(TaskRunStatus::from)].boxed()
}

/// A number whose allowed range the contract states: in the range, or at most 2 outside if
/// `may_be_outside`.
fn bounded(least: i32, most: i32, may_be_outside: bool) -> BoxedStrategy<i32> {
    let inside = least..=most;
    if !may_be_outside {
        return inside.boxed();
    }
    let near = |bound: i32| bound.saturating_sub(2)..=bound.saturating_add(2);
    prop_oneof![8 => inside, 1 => near(least), 1 => near(most)].boxed()
}

/// The same for a number that may have a fraction.
fn bounded_number(least: i32, most: i32, may_be_outside: bool) -> BoxedStrategy<Number> {
    let whole = bounded(least, most, may_be_outside);
    let fraction = whole.clone().prop_map(move |whole| {
        let half = if whole == most && !may_be_outside {
            -0.5
        } else {
            0.5
        };
        Number::from_f64(f64::from(whole) + half).expect("finite")
    });
    prop_oneof![whole.prop_map(Number::from), fraction].boxed()
}

/// A text of a bounded length, usually short; otherwise about as long as allowed.
fn bounded_text(most: usize, may_be_longer: bool) -> BoxedStrategy<String> {
    let longest = if may_be_longer { most + 2 } else { most };
    let long = (most - 3..=longest).prop_map(|length| "ü".repeat(length));
    prop_oneof![4 => text(), 1 => long].boxed()
}

/// `name` is drawn for the only member that a schema requires.
fn execution(
    name: BoxedStrategy<Option<String>>,
    may_be_outside: bool,
) -> BoxedStrategy<Execution> {
    let count = || bounded(0, i32::MAX, may_be_outside);
    let amount = || bounded_number(0, i32::MAX, may_be_outside);
    let resource = || bounded_text(255, may_be_outside);
    let credentials = || {
        built!(Credentials {
            password: secret(),
            username: text(),
        })
    };
    let image = built!(Image {
        credentials: credentials(),
        digest: text(),
        name: text(),
        tag: text(),
    });
    let image = (image, name)
        .prop_map(|(image, name)| Image { name, ..image })
        .boxed();
    let streams = built!(InputStreamSettings {
        access_pattern: text(),
        block_size_mb: bounded_number(0, 1024, may_be_outside),
        cache_size_gb: bounded(50, 10_000, may_be_outside),
        prefetch_blocks: bounded(0, 64, may_be_outside),
    });
    let resources = built!(Resources {
        cpu_cores: amount(),
        hardware: texts(),
        memory_gb: amount(),
        size: resource(),
        tier: resource(),
        r#type: resource(),
    });
    let environment = built!(Environment {
        input_stream_settings: streams.clone(),
        resources: resources.clone(),
        variables: secrets(),
    });
    let input = built!(InputMountMappingWithCreds {
        credentials: secrets(),
        mode: text(),
        path: text(),
        storage_provider: text(),
        r#type: text(),
        url: location(),
        urn: text(),
    });
    let output = built!(MountMappingWithCreds {
        credentials: secrets(),
        path: text(),
        service_url: location(),
        storage_provider: text(),
        r#type: text(),
        url: location(),
        urn: text(),
    });
    let files = built!(SystemFiles {
        credentials: secrets(),
        storage_provider: text(),
        url: location(),
        urn: text(),
    });
    built!(Execution {
        args: texts(),
        command: text(),
        environment: environment.clone(),
        image: image.clone(),
        inputs: prop::collection::vec(input.clone(), 0..3),
        outputs: prop::collection::vec(output.clone(), 0..3),
        retry_count: count(),
        retry_limit: count(),
        system_files: files.clone(),
        working_directory: text(),
    })
}

fn create() -> BoxedStrategy<CreateTaskRunRequest> {
    let name = prop_oneof![8 => "[a-z]{1,8}".prop_map(Some), 1 => Just(Some(String::new())), 1 => Just(None)];
    built!(CreateTaskRunRequest {
        acl: texts(),
        description: bounded_text(4096, true),
        execution: execution(name.clone().boxed(), true),
        name: bounded_text(255, true),
    })
}

fn version() -> BoxedStrategy<TaskVersionSummary> {
    built!(TaskVersionSummary {
        acl: texts(),
        created_by: text(),
        description: text(),
        href: text(),
        id: text(),
        modified_by: text(),
        sub_tenant_id: text(),
        tenant_id: text(),
        time_created: time(),
        time_modified: time(),
        urn: text(),
        version: text(),
    })
}

fn summary() -> BoxedStrategy<TaskRunSummary> {
    built!(TaskRunSummary {
        acl: texts(),
        created_by: text(),
        description: text(),
        href: text(),
        id: text(),
        modified_by: text(),
        name: text(),
        size_of_resource: text(),
        status: status(),
        status_details: text(),
        sub_tenant_id: text(),
        task_version_summary: version(),
        tenant_id: text(),
        tier_of_resource: text(),
        time_created: time(),
        time_modified: time(),
        type_of_resource: text(),
        urn: text(),
    })
}

fn run() -> BoxedStrategy<TaskRun> {
    let log = built!(TaskRunLogs {
        end_time: time(),
        error: text(),
        error_details: text(),
        start_time: time(),
        stderr: location(),
        stdout: location(),
    });
    built!(TaskRun {
        acl: texts(),
        created_by: text(),
        description: text(),
        execution: execution("[a-z]{1,8}".prop_map(Some).boxed(), false),
        execution_raw_json: secret(),
        href: text(),
        id: text(),
        logs: prop::collection::vec(log.clone(), 0..3),
        modified_by: text(),
        name: text(),
        size_of_resource: text(),
        status: status(),
        status_details: text(),
        sub_tenant_id: text(),
        task_version_summary: version(),
        tenant_id: text(),
        tier_of_resource: text(),
        time_created: time(),
        time_modified: time(),
        type_of_resource: text(),
        urn: text(),
    })
}

fn page() -> BoxedStrategy<TaskRunSummaryPagedItems> {
    built!(TaskRunSummaryPagedItems {
        first_page_token: text(),
        item_count: any::<i32>(),
        items: prop::collection::vec(summary(), 0..3),
        last_page_token: text(),
        next_page_token: text(),
        prev_page_token: text(),
        total_item_count: any::<i64>(),
        total_page_count: any::<i64>(),
    })
}

fn heartbeat() -> BoxedStrategy<HeartbeatTaskRunRequest> {
    let running = built!(ContainerStateRunning {
        started_at: timestamp(),
    });
    let waiting = built!(ContainerStateWaiting {
        message: text(),
        reason: text(),
    });
    let terminated = built!(ContainerStateTerminated {
        container_id: text(),
        exit_code: any::<i32>(),
        finished_at: timestamp(),
        message: text(),
        reason: text(),
        signal: any::<i32>(),
        started_at: timestamp(),
    });
    let state = built!(ContainerState {
        running: running.clone(),
        terminated: terminated.clone(),
        waiting: waiting.clone(),
    });
    let container = built!(ContainerStatus {
        name: text(),
        state: state.clone(),
    });
    built!(HeartbeatTaskRunRequest {
        container_status: prop::collection::vec(container.clone(), 0..3),
        job_retry_count: any::<i32>(),
        last_heartbeat: any::<bool>(),
        nonce: text(),
        pod_hardware_details: text(),
        pod_name: text(),
        pod_uid: text(),
    })
}

fn error() -> BoxedStrategy<ErrorResponse> {
    let detail = prop_oneof![
        Just(serde_json::Value::Null),
        text().prop_map(serde_json::Value::from),
        texts().prop_map(serde_json::Value::from),
        number().prop_map(serde_json::Value::from),
    ];
    built!(ErrorResponse {
        code: text(),
        details: prop::collection::vec(detail.clone(), 0..3),
        message: text(),
    })
}

/// The violations of the contract. In any case, the value must read back unchanged.
fn wrong<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    schema: &str,
    built: &T,
) -> Vec<String> {
    let text = serde_json::to_string(built).expect("json");
    let read: T = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(&read, built);
    CONTRACT.check(schema, &serde_json::from_str(&text).expect("json"))
}

proptest! {
    #![proptest_config(cases(150, "tests/proptest-regressions/built.txt"))]

    #[test]
    fn a_request_is_invalid_exactly_if_it_violates_the_contract(request in create()) {
        let against = wrong("CreateTaskRunRequest", &request);
        prop_assert_eq!(request.problems().is_empty(), against.is_empty(), "{:?} {:?}", request.problems(), against);
    }

    #[test]
    fn a_run_matches_the_contract(run in run()) {
        prop_assert_eq!(wrong("TaskRun", &run), Vec::<String>::new());
    }

    #[test]
    fn a_page_matches_the_contract(page in page()) {
        prop_assert_eq!(wrong("TaskRunSummaryPagedItems", &page), Vec::<String>::new());
    }

    #[test]
    fn a_heartbeat_matches_the_contract(heartbeat in heartbeat()) {
        prop_assert_eq!(wrong("HeartbeatTaskRunRequest", &heartbeat), Vec::<String>::new());
    }

    #[test]
    fn an_answer_to_a_heartbeat_matches_the_contract(jwt in prop::option::of(secret())) {
        prop_assert_eq!(wrong("TaskRunHeartbeat", &TaskRunHeartbeat { jwt }), Vec::<String>::new());
    }

    #[test]
    fn an_error_matches_the_contract(error in error()) {
        prop_assert_eq!(wrong("ErrorResponse", &error), Vec::<String>::new());
    }

    #[test]
    fn redacted_values_still_match_the_contract(mut run in run()) {
        run.redact();
        prop_assert_eq!(wrong("TaskRun", &run), Vec::<String>::new());
    }
}
