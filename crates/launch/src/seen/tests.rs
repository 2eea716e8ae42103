//! What objects of a real API server mean. The pods are captures of real kubelets where there is one
//! for the case.

#![expect(
    clippy::needless_pass_by_value,
    reason = "values of json! are written in place"
)]

use serde_json::{Value, json};

use super::*;
use crate::manifests::selector;

fn settings() -> Settings {
    Settings::default()
}

fn labels() -> Value {
    json!({"app.kubernetes.io/managed-by": "podbeat-server", "podbeat.dev/server": "podbeat-server",
           "podbeat.dev/run": "trn.1", "podbeat.dev/attempt": "0"})
}

fn job(spec: Value, conditions: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "trn-1-0", "namespace": "n", "uid": "j", "labels": labels(), "annotations": {SPEC_HASH: "h"}},
        "spec": {"template": {}}, "status": {"conditions": conditions}
    });
    if let Some(spec) = spec.as_object() {
        for (name, value) in spec {
            job["spec"][name] = value.clone();
        }
    }
    serde_json::from_value(job).expect("a Job")
}

fn job_seen(spec: Value, conditions: Value) -> JobSeen {
    JobSeen::of(&job(spec, conditions), &settings()).expect("ours")
}

/// A pod with podbeat and a main container in this state.
fn pod(phase: &str, state: Value) -> Value {
    json!({
        "metadata": {"name": "trn-1-0-x", "namespace": "n", "uid": "p", "labels": labels(), "creationTimestamp": "2026-11-24T00:00:00Z"},
        "spec": {"restartPolicy": "Never", "initContainers": [{"name": "podbeat", "restartPolicy": "Always"}], "containers": [{"name": "main"}]},
        "status": {"phase": phase,
                   "initContainerStatuses": [{"name": "podbeat", "state": {"running": {}}}],
                   "containerStatuses": [{"name": "main", "state": state}]}
    })
}

fn with(mut pod: Value, path: &str, value: Value) -> Value {
    *pod.pointer_mut(path).expect("the member") = value;
    pod
}

fn seen(pod: &Value) -> PodSeen {
    let listed = Listed::read(pod.to_string().as_bytes()).expect("a pod");
    let metadata: ObjectMeta = serde_json::from_value(pod["metadata"].clone()).expect("metadata");
    PodSeen::of(&metadata, &listed, &settings()).expect("ours")
}

fn finding(job: Option<JobSeen>, pods: &[Value]) -> Finding {
    let pods = pods.iter().map(seen);
    let pods = pods.map(|pod| (pod.uid.clone(), pod)).collect();
    let gone = None;
    Seen { job, pods, gone }.finding()
}

#[test]
fn objects_of_others_are_not_seen() {
    assert!(selector(&settings()).contains("podbeat.dev/server=podbeat-server"));
    for (label, value) in [
        ("app.kubernetes.io/managed-by", json!("helm")),
        ("podbeat.dev/server", json!("another")),
        ("podbeat.dev/attempt", json!("x")),
    ] {
        let mut labels = labels();
        labels[label] = value;
        let metadata: ObjectMeta =
            serde_json::from_value(json!({"name": "a", "labels": labels})).expect("metadata");
        assert_eq!(owned(&metadata, &settings()), None, "{label}");
    }
    assert_eq!(owned(&ObjectMeta::default(), &settings()), None);
}

#[test]
fn a_job_is_suspended_or_ended() {
    let none = job_seen(json!({}), json!([]));
    assert_eq!(
        (
            none.is_suspended,
            none.end.as_ref(),
            none.spec_hash.as_deref()
        ),
        (false, None, Some("h"))
    );
    assert!(job_seen(json!({"suspend": true}), json!([])).is_suspended);
    let failed = json!([{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]);
    let reason = "BackoffLimitExceeded".to_owned();
    assert_eq!(
        job_seen(json!({}), failed).end,
        Some(JobEnd::Failed { reason })
    );
    let policy = json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]);
    assert_eq!(job_seen(json!({}), policy).end, Some(JobEnd::Disrupted));
    let complete = json!([{"type": "Complete", "status": "True"}]);
    assert_eq!(job_seen(json!({}), complete).end, Some(JobEnd::Complete));
}

#[test]
fn reasons_of_waiting_pods() {
    let waits = |reason: &str, message: &str| {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        seen(&pod("Pending", state)).waiting.expect("it waits")
    };
    for (reason, message, kind) in [
        ("InvalidImageName", "bad", Kind::Hopeless),
        ("ErrImageNeverPull", "", Kind::Hopeless),
        (
            "CreateContainerConfigError",
            "configmap \"podbeat\" not found",
            Kind::Hopeless,
        ),
        (
            "CreateContainerConfigError",
            "failed to sync configmap cache",
            Kind::Image,
        ),
        ("ImagePullBackOff", "Back-off", Kind::Image),
        ("ErrImagePull", "", Kind::Image),
        ("PodInitializing", "", Kind::Ordinary),
    ] {
        assert_eq!(waits(reason, message).kind, kind, "{reason}: {message}");
    }
    assert_eq!(
        waits("ImagePullBackOff", "Back-off pulling").reason,
        "main: ImagePullBackOff: Back-off pulling"
    );
    let mut unscheduled = pod("Pending", json!({}));
    unscheduled["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]);
    let waiting = seen(&unscheduled).waiting.expect("it waits");
    assert_eq!(
        (waiting.kind, waiting.reason.as_str()),
        (Kind::Node, "Unschedulable: 0/1 nodes")
    );
    // podbeat's own container counts, too.
    let own = with(
        pod("Pending", json!({})),
        "/status/initContainerStatuses/0/state",
        json!({"waiting": {"reason": "InvalidImageName"}}),
    );
    assert_eq!(
        seen(&own).waiting.expect("it waits").reason,
        "podbeat: InvalidImageName"
    );
}

#[test]
fn ends_with_exit_codes_and_causes() {
    let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error", "finishedAt": "2026-11-24T00:01:00Z"}});
    let running = pod("Running", json!({"running": {}}));
    assert!(matches!(
        finding(None, std::slice::from_ref(&running)),
        Finding::Runs(_)
    ));
    let running = seen(&running);
    assert_eq!((running.end, running.waiting), (None, None));
    // Until podbeat has ended too, it may report the end itself.
    assert_eq!(seen(&pod("Running", ended(3))).end, None);
    let end = seen(&pod("Failed", ended(3))).end.expect("ended");
    assert_eq!(
        (end.exits[0].code, end.disrupted, end.reason),
        (3, false, None)
    );
    for (member, value, disrupted, reason) in [
        ("reason", json!("Evicted"), true, "Evicted"),
        ("reason", json!("OutOfcpu"), true, "OutOfcpu"),
        (
            "reason",
            json!("DeadlineExceeded"),
            false,
            "DeadlineExceeded",
        ),
        (
            "conditions",
            json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]),
            true,
            "PreemptionByScheduler",
        ),
    ] {
        let mut pod = pod("Failed", ended(137));
        pod["status"][member] = value;
        let end = seen(&pod).end.expect("ended");
        assert_eq!(
            (end.disrupted, end.reason.as_deref()),
            (disrupted, Some(reason))
        );
    }
    let mut deleted = pod("Failed", ended(143));
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:01:00Z");
    assert_eq!(
        seen(&deleted).end.expect("ended").reason.as_deref(),
        Some("the pod was deleted")
    );
}

#[test]
fn objects_together_mean_one_thing() {
    let lives = || Some(job_seen(json!({}), json!([])));
    let suspended = || Some(job_seen(json!({"suspend": true}), json!([])));
    let failed = || {
        let conditions =
            json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]);
        Some(job_seen(json!({}), conditions))
    };
    let runs = pod("Running", json!({"running": {}}));
    let ended = pod("Failed", json!({"terminated": {"exitCode": 1}}));
    assert_eq!(finding(None, &[]), Finding::NoJob);
    assert_eq!(finding(lives(), &[]), Finding::NoPod);
    assert_eq!(finding(suspended(), &[]), Finding::Suspended);
    assert_eq!(
        finding(suspended(), std::slice::from_ref(&ended)),
        Finding::Suspended
    );
    assert!(matches!(
        finding(lives(), std::slice::from_ref(&runs)),
        Finding::Runs(_)
    ));
    assert!(matches!(
        finding(failed(), std::slice::from_ref(&ended)),
        Finding::Ended(_)
    ));
    // A pod that goes on replaces one that ended.
    let replaced = with(ended, "/metadata/uid", json!("earlier"));
    assert!(matches!(
        finding(lives(), &[replaced, runs]),
        Finding::Runs(_)
    ));
    let Finding::Ended(end) = finding(failed(), &[]) else {
        panic!("the Job has ended");
    };
    assert_eq!(
        end.reason.as_deref(),
        Some("its pod is gone, and the Job failed: BackoffLimitExceeded")
    );
    let complete = job_seen(json!({}), json!([{"type": "Complete", "status": "True"}]));
    let Finding::Ended(end) = finding(Some(complete), &[]) else {
        panic!("the Job has ended");
    };
    assert_eq!(end.exits[0].code, 0);
}

#[test]
fn a_pod_that_is_gone_was_disrupted_if_anybody_saw_it() {
    let policy = json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]);
    let failed = json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]);
    let mut evicted = pod("Running", json!({"running": {}}));
    evicted["status"]["conditions"] =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
    let evicted = seen(&evicted);
    assert_eq!(evicted.end, None);
    for (conditions, gone, disrupted, reason) in [
        (&policy, None, true, "DisruptionTarget"),
        (&policy, Some(&evicted), true, "EvictionByEvictionAPI"),
        (&failed, Some(&evicted), true, "EvictionByEvictionAPI"),
        (
            &failed,
            None,
            false,
            "its pod is gone, and the Job failed: BackoffLimitExceeded",
        ),
    ] {
        let seen = Seen {
            job: Some(job_seen(json!({}), conditions.clone())),
            gone: gone.cloned(),
            ..Seen::default()
        };
        let Finding::Ended(end) = seen.finding() else {
            panic!("the Job has ended");
        };
        let end = seen.with_gone(end);
        assert_eq!(
            (end.disrupted, end.reason.as_deref()),
            (disrupted, Some(reason))
        );
    }
}
