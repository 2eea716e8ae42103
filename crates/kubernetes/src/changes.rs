//! What newer versions of Kubernetes show in a pod (docs/kubernetes-facts.md, "Changes in
//! Kubernetes that concern podbeat").

use serde_json::{Value, json};

use crate::captured::{Captured, Observe};

/// A real pod whose task runs.
fn pod() -> Captured {
    Captured::when("e2e/fail-plain", "main", "running")
}

fn with_all(pod: Captured, members: Vec<(&str, Value)>) -> Captured {
    members
        .into_iter()
        .fold(pod, |pod, (path, value)| pod.with(path, value))
}

/// The pod's own conditions and one more.
fn with_condition(pod: Captured, kind: &str, status: &str, reason: &str) -> Captured {
    let mut conditions = pod.said("/status/conditions").clone();
    let condition = json!({"type": kind, "status": status, "reason": reason, "observedGeneration": 2, "message": "m"});
    conditions.as_array_mut().expect("a list").push(condition);
    pod.with("/status/conditions", conditions)
}

#[test]
fn members_that_describe_no_state_change_nothing() {
    let main = "/status/containerStatuses/0";
    let of_main = |member: &str| format!("{main}/{member}");
    let resources = json!({"limits": {"cpu": "2", "memory": "64Mi"}, "requests": {"cpu": "1"}});
    let quantities = json!({"cpu": "1", "memory": "64Mi"});
    let claim =
        json!([{"name": "dra.example/cpu", "resourceClaimName": "c", "containers": ["main"]}]);
    let mapped = json!({"resourceClaimName": "c", "requestMappings": [
        {"containerName": "main", "resourceName": "a.com/gpu", "requestName": "r"}]});
    let certificate = json!([{"name": "certificate", "projected": {"sources": [
        {"podCertificate": {"signerName": "a.com/b", "keyType": "ED25519"}}]}}]);
    let mounts = json!([{"name": "model", "mountPath": "/model", "volumeStatus": {"image": {"imageRef": "sha256:0"}}}]);
    for (kep, members) in [
        (
            "1287",
            vec![
                ("/status/resize", json!("InProgress")),
                (&*of_main("resources"), resources.clone()),
                (&*of_main("allocatedResources"), quantities.clone()),
            ],
        ),
        (
            "2837 and 5419",
            vec![
                ("/spec/resources", resources.clone()),
                ("/status/resources", resources),
                ("/status/allocatedResources", quantities),
            ],
        ),
        (
            "4639 and 5365",
            vec![
                (
                    "/spec/volumes",
                    json!([{"name": "model", "image": {"reference": "a.com/model:1"}}]),
                ),
                (&*of_main("volumeMounts"), mounts),
            ],
        ),
        ("4317", vec![("/spec/volumes", certificate)]),
        ("127", vec![("/spec/hostUsers", json!(false))]),
        (
            "3619",
            vec![(
                &*of_main("user"),
                json!({"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}}),
            )],
        ),
        (
            "4960",
            vec![
                (
                    "/spec/containers/0/lifecycle",
                    json!({"stopSignal": "SIGUSR1"}),
                ),
                (&*of_main("stopSignal"), json!("SIGUSR1")),
            ],
        ),
        (
            "5067",
            vec![
                ("/metadata/generation", json!(2)),
                ("/status/observedGeneration", json!(1)),
                ("/status/conditions/0/observedGeneration", json!(1)),
            ],
        ),
        (
            "4563",
            vec![(
                "/spec/evictionResponders",
                json!([{"name": "a.com/b", "priority": 1}]),
            )],
        ),
        (
            "4671",
            vec![("/spec/schedulingGroup", json!({"podGroupName": "g"}))],
        ),
        (
            "5004",
            vec![("/status/extendedResourceClaimStatus", mapped)],
        ),
        (
            "5517",
            vec![("/status/nodeAllocatableResourceClaimStatuses", claim)],
        ),
        ("5278", vec![("/status/nominatedNodeName", json!("other"))]),
    ] {
        let changed = with_all(pod(), members);
        assert_eq!(changed.observe(), pod().observe(), "KEP-{kep}");
    }
}

#[test]
fn conditions_that_explain_no_end_are_no_reasons() {
    for (kind, status, reason) in [
        // KEP-1287 and KEP-5419.
        ("PodResizePending", "True", "Infeasible"),
        ("PodResizePending", "True", "Deferred"),
        ("PodResizeInProgress", "True", "Error"),
        // KEP-3085.
        ("PodReadyToStartContainers", "False", ""),
        // KEP-5532: this pod's rules could restart all containers, but do not.
        ("AllContainersRestarting", "False", ""),
    ] {
        let changed = with_condition(pod(), kind, status, reason);
        assert_eq!(changed.observe(), pod().observe(), "{kind}");
    }
}

#[test]
fn new_reasons_for_a_disruption_or_a_wait_are_reported_as_they_are() {
    for (kind, status, reason) in [
        // KEP-5055, KEP-5710.
        ("DisruptionTarget", "True", "DeletionByDeviceTaintManager"),
        ("DisruptionTarget", "True", "PreemptionByScheduler"),
        // KEP-3521, KEP-5501.
        ("PodScheduled", "False", "SchedulingGated"),
        ("PodScheduled", "False", "NotReadyForScheduling"),
    ] {
        let why = with_condition(pod(), kind, status, reason).observe().why;
        assert_eq!(
            json!(why),
            json!([{"condition": kind, "reason": reason, "message": "m"}])
        );
    }
}

#[test]
fn a_restart_of_all_containers_is_known_by_its_condition() {
    let restarting = |pod| {
        with_condition(
            pod,
            "AllContainersRestarting",
            "True",
            "RestartAllContainersStarted",
        )
    };
    assert!(restarting(pod()).observe().restarts_all());
    let deleted = pod().with("/metadata/deletionTimestamp", json!("2026-01-01T00:00:30Z"));
    assert!(!restarting(deleted).observe().restarts_all());
}

#[test]
fn an_action_of_restart_rules_that_is_not_known_yet_restarts_the_container() {
    // KEP-5307 and KEP-5532 have two actions. A new one may do more than a restart, so podbeat does
    // not call the task over.
    let rules = json!([{"action": "Later", "exitCodes": {"operator": "In", "values": [3]}}]);
    let pod = Captured::when("e2e/fail-plain", "main", "terminated");
    assert!(podbeat_heartbeat::completion::is_finished(&pod.observe()));
    let pod = pod
        .with("/spec/containers/0/restartPolicy", json!("Never"))
        .with("/spec/containers/0/restartPolicyRules", rules);
    assert!(!podbeat_heartbeat::completion::is_finished(&pod.observe()));
}
