//! From a pod's JSON to what is reported: nothing panics, nothing is invented, nothing is put in another order.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use podbeat::heartbeat::completion::is_finished;
use podbeat::heartbeat::request::{self, Report};
use podbeat::pod::resource::Pod;
use podbeat::pod::status::Observation;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Any JSON at all.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Names that mean something, mostly.
fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "metadata", "spec", "status", "containers", "initContainers", "containerStatuses", "initContainerStatuses",
            "name", "state", "lastState", "waiting", "running", "terminated", "exitCode", "restartPolicy",
            "restartPolicyRules", "exitCodes", "operator", "values", "restartCount", "startedAt", "finishedAt", "phase",
            "deletionTimestamp", "deletionGracePeriodSeconds", "terminationGracePeriodSeconds", "uid", "annotations",
            "resources", "limits", "nodeSelector",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn time() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("0001-01-01T00:00:00Z")),
        Just(json!("1970-01-01T00:00:00Z")),
        (0_u32..28, 0_u32..24)
            .prop_map(|(day, hour)| json!(format!("2026-11-{:02}T{hour:02}:00:01Z", day + 1))),
        any::<String>().prop_map(Value::from),
    ]
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<String>().prop_map(Value::from)]
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn state() -> impl Strategy<Value = Value> {
    let waiting = (text(), text()).prop_map(|(reason, message)| {
        object([("waiting", object([("reason", reason), ("message", message)]))])
    });
    let running = time().prop_map(|started| object([("running", object([("startedAt", started)]))]));
    let code = prop_oneof![any::<i32>().prop_map(Value::from), Just(Value::Null)];
    let terminated = (code.clone(), code, text(), text(), time(), time(), text()).prop_map(
        |(exit, signal, reason, message, from, to, id)| {
            object([(
                "terminated",
                object([
                    ("exitCode", exit),
                    ("signal", signal),
                    ("reason", reason),
                    ("message", message),
                    ("startedAt", from),
                    ("finishedAt", to),
                    ("containerID", id),
                ]),
            )])
        },
    );
    prop_oneof![Just(json!({})), Just(Value::Null), waiting, running, terminated]
}

prop_compose! {
    /// A pod as the API server might show it, with statuses that are missing, in another order, or of nobody.
    fn pod()(
        task in prop::collection::btree_set("[a-e]", 0..5),
        init in prop::collection::btree_set("[f-h]", 0..3),
        order in any::<prop::sample::Index>(),
        states in prop::collection::vec((state(), state()), 10),
        known in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d", "e", "f", "g", "h", "z"]), 0..9),
        phase in prop::sample::select(vec!["Pending", "Running", "Failed", "Succeeded", "Unknown", "Later"]),
        policy in prop::sample::select(vec!["Never", "OnFailure", "Always", "Later"]),
    ) -> Value {
        let mut task: Vec<Value> = task.into_iter().map(|name| json!({"name": name})).collect();
        if !task.is_empty() {
            let at = order.index(task.len());
            task.rotate_left(at);
        }
        task.push(json!({"name": "podbeat"}));
        let init: Vec<Value> = init.into_iter().map(|name| json!({"name": name})).collect();
        let mut statuses: Vec<Value> = known
            .iter()
            .zip(states)
            .map(|(name, (state, last))| json!({"name": name, "state": state, "lastState": last}))
            .collect();
        // A list has each name once, by the API's own rule.
        statuses.sort_by_key(|status| status["name"].to_string());
        statuses.dedup_by_key(|status| status["name"].to_string());
        statuses.reverse();
        let (init_statuses, regular): (Vec<Value>, Vec<Value>) =
            statuses.into_iter().partition(|status| status["name"].as_str() >= Some("f") && status["name"] != "z");
        json!({
            "spec": {"restartPolicy": policy, "containers": task, "initContainers": init},
            "status": {"phase": phase, "containerStatuses": regular, "initContainerStatuses": init_statuses},
        })
    }
}

fn observe(pod: &Value) -> Observation {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    Observation::of(&pod, "podbeat")
}

fn reported(pod: &Value) -> Vec<Value> {
    let statuses = request::statuses(&observe(pod), Report::All);
    match serde_json::to_value(statuses).expect("JSON") {
        Value::Array(statuses) => statuses,
        other => panic!("no list: {other}"),
    }
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let list = pod
        .pointer(list)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    list.iter()
        .filter_map(|item| item["name"].as_str().map(str::to_owned))
        .collect()
}

/// A time as it is written again: what can't be read is left out.
fn rewritten(time: &Value) -> Option<Value> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(json!(time.to_string()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_json_at_all_is_an_error_or_a_pod_and_never_a_panic(json in anything()) {
        if let Ok(pod) = serde_json::from_value::<Pod>(json) {
            let seen = Observation::of(&pod, "podbeat");
            let _ = (is_finished(&seen), request::statuses(&seen, Report::All));
        }
    }

    #[test]
    fn bytes_are_an_error_or_a_pod_and_never_a_panic(bytes: Vec<u8>) {
        let _ = serde_json::from_slice::<Pod>(&bytes);
    }

    #[test]
    fn what_is_reported_is_what_the_api_says_and_no_more(pod in pod()) {
        for status in reported(&pod) {
            let name = status["name"].as_str().expect("a name");
            let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
            let said = lists
                .iter()
                .filter_map(|list| pod.pointer(list)?.as_array())
                .flatten()
                .find(|said| said["name"] == name)
                .expect("the API speaks of it");
            let state = status["state"].as_object().expect("a state");
            prop_assert_eq!(state.len(), 1);
            let (kind, members) = state.iter().next().expect("one");
            let said = said["state"][kind].as_object().cloned().unwrap_or_else(Map::new);
            prop_assert!(pod.to_string().contains(kind.as_str()));
            for (member, value) in members.as_object().expect("members") {
                let original = said.get(member).expect("the API said so");
                if member.ends_with("At") {
                    prop_assert_eq!(Some(value.clone()), rewritten(original));
                } else {
                    // A message keeps all of its characters.
                    prop_assert_eq!(value, original);
                }
            }
            // And nothing that the API said and the wire can carry is left out.
            for (member, original) in &said {
                let readable = !member.ends_with("At") || rewritten(original).is_some();
                prop_assert_eq!(members.get(member).is_some(), readable && !original.is_null(), "{}", member);
            }
        }
    }

    #[test]
    fn the_order_is_the_specs(pod in pod()) {
        let mut declared = names(&pod, "/spec/initContainers");
        declared.extend(names(&pod, "/spec/containers"));
        let told: Vec<String> = reported(&pod)
            .iter()
            .map(|status| status["name"].as_str().expect("a name").to_owned())
            .collect();
        let mut rest = declared.iter();
        prop_assert!(told.iter().all(|name| rest.any(|declared| declared == name)), "{:?} of {:?}", told, declared);
        prop_assert!(!told.contains(&"podbeat".to_owned()));
    }

    #[test]
    fn no_end_without_an_exit_or_a_terminal_phase(pod in pod()) {
        let text = pod["status"].to_string();
        let finished = is_finished(&observe(&pod));
        prop_assert!(!finished || text.contains("terminated") || text.contains("Failed") || text.contains("Succeeded"));
    }
}
