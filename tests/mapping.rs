//! From a pod's JSON to the reported states: no panic, no invented state, and no changed order.

use std::sync::LazyLock;

use podbeat_heartbeat::completion::is_finished;
use podbeat_heartbeat::observation::Observation;
use podbeat_heartbeat::report::{self, Report};
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::status;
use podbeat_lab::capture::Capture;
use podbeat_lab::hostile;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::cases;

/// Any JSON.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        hostile::TEXT.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Usually names that have a meaning.
fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "metadata", "spec", "status", "containers", "initContainers", "containerStatuses", "initContainerStatuses",
            "name", "state", "lastState", "waiting", "running", "terminated", "exitCode", "restartPolicy",
            "restartPolicyRules", "exitCodes", "operator", "values", "restartCount", "startedAt", "finishedAt", "phase",
            "deletionTimestamp", "deletionGracePeriodSeconds", "terminationGracePeriodSeconds", "uid", "annotations",
            "resources", "limits", "nodeSelector", "affinity", "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", "matchExpressions", "key",
            "resourceClaims", "resourceClaimStatuses", "resourceClaimName", "allocatedResourcesStatus", "resourceID",
            "health", "conditions", "type", "status", "reason", "message",
        ])
        .prop_map(str::to_owned),
        1 => hostile::TEXT,
    ]
}

fn time() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("0001-01-01T00:00:00Z")),
        Just(json!("1970-01-01T00:00:00Z")),
        (0_u32..28, 0_u32..24)
            .prop_map(|(day, hour)| json!(format!("2026-11-{:02}T{hour:02}:00:01Z", day + 1))),
        hostile::TEXT.prop_map(Value::from),
    ]
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), hostile::TEXT.prop_map(Value::from)]
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        present
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn state() -> impl Strategy<Value = Value> {
    let waiting = (text(), text()).prop_map(|(reason, message)| {
        object([(
            "waiting",
            object([("reason", reason), ("message", message)]),
        )])
    });
    let running =
        time().prop_map(|started| object([("running", object([("startedAt", started)]))]));
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
    prop_oneof![
        Just(json!({})),
        Just(Value::Null),
        waiting,
        running,
        terminated
    ]
}

/// A pod, and the name of podbeat's container in it.
#[derive(Clone, Debug)]
struct Seen {
    pod: Value,
    own: &'static str,
}

/// The pod of every event of every capture.
static CAPTURED: LazyLock<Vec<Seen>> = LazyLock::new(|| {
    let names = Capture::names().expect("listed");
    names
        .iter()
        .flat_map(|name| {
            let capture = Capture::named(name).expect("a capture");
            let own = capture.sidecar();
            let pods: Vec<Value> = capture.pods().cloned().collect();
            pods.into_iter().map(move |pod| Seen { pod, own })
        })
        .collect()
});

/// What happens to a container's status.
#[derive(Clone, Debug)]
enum Change {
    Kept,
    Gone,
    State(Value),
    LastState(Value),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Kept),
        1 => Just(Change::Gone),
        3 => state().prop_map(Change::State),
        1 => state().prop_map(Change::LastState),
    ]
}

/// The list at this place, created if it is missing.
fn list<'pod>(pod: &'pod mut Value, room: &str, name: &str) -> &'pod mut Vec<Value> {
    let list = pod[room]
        .as_object_mut()
        .expect("an object")
        .entry(name)
        .or_insert_with(|| json!([]));
    list.as_array_mut().expect("a list")
}

/// Containers that are declared in addition to the pod's own. Their statuses can be for these, for
/// others or for none.
const MORE: [&str; 6] = ["a", "b", "c", "f", "g", "z"];

prop_compose! {
    /// A pod as a real API server showed it, with more or fewer containers and statuses, and in
    /// another order.
    fn pod()(
        captured in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 8),
        task in prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c"]), 0..3),
        init in prop::collection::btree_map(prop::sample::select(vec!["f", "g"]), any::<bool>(), 0..3),
        more in prop::collection::btree_map(prop::sample::select(MORE.to_vec()), (state(), state()), 0..5),
        order in any::<prop::sample::Index>(),
        turned in any::<bool>(),
        shows_hardware in any::<bool>(),
        phase in prop::option::of(prop::sample::select(vec!["Pending", "Running", "Failed", "Succeeded", "Unknown", "Later"])),
        policy in prop::option::of(prop::sample::select(vec!["Never", "OnFailure", "Always", "Later"])),
    ) -> Seen {
        let Seen { mut pod, own } = captured.get(CAPTURED.as_slice()).clone();
        let mut changes = changes.into_iter();
        for name in ["containerStatuses", "initContainerStatuses"] {
            let statuses = list(&mut pod, "status", name);
            for mut status in std::mem::take(statuses) {
                match changes.next().unwrap_or(Change::Kept) {
                    Change::Kept => {}
                    Change::Gone => continue,
                    Change::State(state) => status["state"] = state,
                    Change::LastState(state) => status["lastState"] = state,
                }
                statuses.push(status);
            }
        }
        for (name, (state, last)) in more {
            let list_of = if name < "f" || name == "z" { "containerStatuses" } else { "initContainerStatuses" };
            let status = json!({"name": name, "state": state, "lastState": last});
            list(&mut pod, "status", list_of).push(status);
        }
        let declared = list(&mut pod, "spec", "containers");
        declared.extend(task.into_iter().map(|name| json!({"name": name})));
        let first = order.index(declared.len());
        declared.rotate_left(first);
        let declared = list(&mut pod, "spec", "initContainers");
        declared.extend(init.into_iter().map(|(name, is_sidecar)| {
            if is_sidecar { json!({"name": name, "restartPolicy": "Always"}) } else { json!({"name": name}) }
        }));
        if turned {
            declared.reverse();
            list(&mut pod, "status", "containerStatuses").reverse();
            list(&mut pod, "status", "initContainerStatuses").reverse();
        }
        if shows_hardware {
            let terms = json!([{"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A100"]}]}]);
            pod["spec"]["affinity"] = json!({"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
            pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "shared"}]);
            pod["status"]["resourceClaimStatuses"] = json!([{"name": "one", "resourceClaimName": "made"}]);
            for status in list(&mut pod, "status", "containerStatuses") {
                status["allocatedResourcesStatus"] = json!([{"name": "nvidia.com/gpu", "resources":
                    [{"resourceID": "GPU-1", "health": "Unhealthy"}]}]);
            }
        }
        if let Some(phase) = phase {
            pod["status"]["phase"] = json!(phase);
        }
        if let Some(policy) = policy {
            pod["spec"]["restartPolicy"] = json!(policy);
        }
        Seen { pod, own }
    }
}

fn observe(Seen { pod, own }: &Seen) -> Observation {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    status::observe(&pod, own)
}

fn reported(seen: &Seen, report: Report) -> Vec<Value> {
    let statuses = report::statuses(&observe(seen), report);
    match serde_json::to_value(statuses).expect("JSON") {
        Value::Array(statuses) => statuses,
        other => panic!("no list: {other}"),
    }
}

/// The items of a list; none if the list is missing.
fn items<'pod>(pod: &'pod Value, list: &str) -> impl Iterator<Item = &'pod Value> {
    pod.pointer(list)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The number of objects in a value, itself included.
fn objects(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(objects).sum::<usize>(),
        Value::Array(items) => items.iter().map(objects).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Adds a member to one of these objects. `nth` counts down.
fn add_to_nth(value: &mut Value, nth: &mut usize, name: &str, member: &Value) {
    match value {
        Value::Object(members) => {
            let is_this = *nth == 0;
            *nth = nth.wrapping_sub(1);
            for value in members.values_mut() {
                add_to_nth(value, nth, name, member);
            }
            if is_this {
                members.insert(name.to_owned(), member.clone());
            }
        }
        Value::Array(items) => {
            for item in items {
                add_to_nth(item, nth, name, member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    items(pod, list)
        .filter_map(|item| item["name"].as_str().map(str::to_owned))
        .collect()
}

/// A time as podbeat writes it again. A time that it cannot read is omitted.
fn rewritten(time: &Value) -> Option<Value> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(json!(time.to_string()))
}

proptest! {
    #![proptest_config(cases(1000, "tests/proptest-regressions/mapping.txt"))]

    #[test]
    fn any_json_at_all_is_an_error_or_a_pod_and_never_a_panic(json in anything()) {
        if let Ok(pod) = serde_json::from_value::<Pod>(json) {
            let seen = status::observe(&pod, "podbeat");
            let _ = (is_finished(&seen), report::statuses(&seen, Report::All));
        }
    }

    #[test]
    fn bytes_are_an_error_or_a_pod_and_never_a_panic(bytes: Vec<u8>) {
        let _ = serde_json::from_slice::<Pod>(&bytes);
    }

    #[test]
    fn only_the_states_of_the_api_are_reported(seen in pod()) {
        let pod = &seen.pod;
        for status in reported(&seen, Report::All) {
            let name = status["name"].as_str().expect("a name");
            let said = items(pod, "/status/containerStatuses")
                .chain(items(pod, "/status/initContainerStatuses"))
                .find(|said| said["name"] == name)
                .expect("the API shows it");
            let state = status["state"].as_object().expect("a state");
            prop_assert_eq!(state.len(), 1);
            let (kind, members) = state.iter().next().expect("one");
            prop_assert!(said["state"].get(kind).is_some());
            let said = said["state"][kind].as_object().cloned().unwrap_or_else(Map::new);
            for (member, value) in members.as_object().expect("members") {
                let original = said.get(member).expect("the API showed it");
                if member.ends_with("At") {
                    prop_assert_eq!(Some(value.clone()), rewritten(original));
                } else {
                    // A message keeps all of its characters.
                    prop_assert_eq!(value, original);
                }
            }
            // Nothing is omitted that the API shows and the wire format has.
            for (member, original) in &said {
                let readable = !member.ends_with("At") || rewritten(original).is_some();
                prop_assert_eq!(members.get(member).is_some(), readable && !original.is_null(), "{}", member);
            }
        }
    }

    #[test]
    fn members_of_a_later_version_change_nothing(
        seen in pod(),
        news in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..8),
    ) {
        let mut later = seen.clone();
        for (nth, (place, value)) in news.into_iter().enumerate() {
            // Not a name with a domain, because such a name among the limits is a device.
            let mut place = place.index(objects(&later.pod));
            add_to_nth(&mut later.pod, &mut place, &format!("later{nth}"), &value);
        }
        prop_assert_eq!(observe(&later), observe(&seen));
    }

    #[test]
    fn the_order_is_the_specs(seen in pod()) {
        let mut declared = names(&seen.pod, "/spec/initContainers");
        declared.extend(names(&seen.pod, "/spec/containers"));
        let told: Vec<String> = reported(&seen, Report::All)
            .iter()
            .map(|status| status["name"].as_str().expect("a name").to_owned())
            .collect();
        let mut rest = declared.iter();
        prop_assert!(told.iter().all(|name| rest.any(|declared| declared == name)), "{:?} of {:?}", told, declared);
        prop_assert!(!told.contains(&seen.own.to_owned()));
    }

    #[test]
    fn no_end_without_an_exit_or_a_terminal_phase(seen in pod()) {
        let pod = &seen.pod;
        let exited = items(pod, "/status/containerStatuses")
            .chain(items(pod, "/status/initContainerStatuses"))
            // Our own exit does not belong to the task.
            .any(|status| status["name"] != seen.own && status["state"].get("terminated").is_some());
        let terminal = ["Failed", "Succeeded"].iter().any(|phase| pod["status"]["phase"] == *phase);
        prop_assert!(!is_finished(&observe(&seen)) || exited || terminal);
    }
}

/// A state in the API's spelling, without members that are null.
fn without_nulls(state: &Value) -> Value {
    let mut state = state.clone();
    for members in state.as_object_mut().into_iter().flatten() {
        if let Some(members) = members.1.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
    }
    state
}

#[test]
fn every_event_of_every_capture_is_reported_member_for_member() {
    let (mut events, mut told) = (0, 0);
    for seen in CAPTURED.iter() {
        let pod = &seen.pod;
        let said = |kind: &str, statuses: &str| -> Vec<Value> {
            items(pod, &format!("/spec/{kind}"))
                .filter(|declared| declared["name"] != seen.own)
                .filter_map(|declared| {
                    items(pod, &format!("/status/{statuses}"))
                        .find(|status| status["name"] == declared["name"])
                })
                .map(|status| json!({"name": status["name"], "state": without_nulls(&status["state"])}))
                .collect()
        };
        let task = said("containers", "containerStatuses");
        let all = [
            said("initContainers", "initContainerStatuses"),
            task.clone(),
        ]
        .concat();
        assert_eq!(reported(seen, Report::Task), task, "{pod}");
        assert_eq!(reported(seen, Report::All), all, "{pod}");
        let observed = observe(seen);
        assert_eq!(json!(observed.uid), pod["metadata"]["uid"]);
        assert_eq!(
            observed.deletion.is_some(),
            pod["metadata"].get("deletionTimestamp").is_some()
        );
        for container in &observed.containers {
            let status = items(pod, "/status/containerStatuses")
                .chain(items(pod, "/status/initContainerStatuses"))
                .find(|status| status["name"] == container.name);
            let Some(status) = status else { continue };
            assert_eq!(container.restart_count, status["restartCount"]);
            let last = status["lastState"]
                .get("terminated")
                .map(|exit| exit["containerID"].clone());
            let seen = container
                .last_exit
                .as_ref()
                .map(|exit| json!(exit.container_id));
            assert_eq!(seen, last);
        }
        events += 1;
        told += all.len();
    }
    assert!(
        events > 250 && told > events,
        "{events} events, {told} statuses"
    );
}
