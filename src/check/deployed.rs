//! Checks whether podbeat can work in a pod, by what the API server shows of it. Pure.

use std::time::Duration;

use podbeat_heartbeat::machine::grace_for;
use podbeat_heartbeat::observation::{Role, Sidecar};
use podbeat_kubernetes::resource::{ContainerSpec, Pod};
use podbeat_kubernetes::status;
use podbeat_kubernetes::status::JOB_INDEX_FAILURE_COUNT;
use podbeat_kubernetes::tasks::{Tasks, runs_on};

use super::in_words;
use crate::config::Config;
use podbeat_interface::finding::Finding;

pub(super) const UID: &str = "kubernetes.uid";
const CONTAINER: &str = "pod.container";
const SIDECAR: &str = "pod.sidecar";
const GRACE: &str = "pod.grace";
const RESTART: &str = "pod.restart";
const TASKS: &str = "pod.tasks";
pub(super) const RETRIES: &str = "pod.retries";

/// Skips all these checks, because there is no pod.
pub(super) fn because(other: &str) -> Vec<Finding> {
    [UID, CONTAINER, SIDECAR, GRACE, RESTART, TASKS, RETRIES]
        .iter()
        .map(|id| Finding::because(id, other))
        .collect()
}

/// The expected values, from the settings.
pub(super) struct Expected<'config> {
    pub(super) uid: Option<&'config str>,
    /// `None` if the setting is invalid; another check reports that.
    pub(super) container: Option<&'config str>,
    pub(super) tasks: Tasks,
    pub(super) timeout: Duration,
}

impl<'config> Expected<'config> {
    pub(super) fn of(config: &'config Config, container_is_known: bool) -> Self {
        Self {
            uid: config.pod_uid.as_deref(),
            tasks: config.reporting.tasks(),
            container: container_is_known.then_some(config.reporting.container_name.as_str()),
            timeout: config.timeout,
        }
    }
}

/// Checks the deployed pod. `native_sidecars`: whether the API server supports them (Kubernetes
/// 1.29 and later), if known.
pub(super) fn judge(
    pod: &Pod,
    expected: &Expected<'_>,
    native_sidecars: Option<bool>,
) -> Vec<Finding> {
    let mut found = vec![uid(pod, expected.uid)];
    let Some(name) = expected.container else {
        let other = "settings.PODBEAT_CONTAINER_NAME";
        found.extend([CONTAINER, SIDECAR].map(|id| Finding::because(id, other)));
        found.push(grace(pod, expected.timeout));
        found.extend([RESTART, TASKS].map(|id| Finding::because(id, other)));
        return found;
    };
    let sidecar = status::observe(pod, name).sidecar;
    found.push(container(pod, name, sidecar));
    if sidecar == Sidecar::Elsewhere {
        found.push(Finding::because(SIDECAR, CONTAINER));
        found.push(grace(pod, expected.timeout));
        found.extend([RESTART, TASKS].map(|id| Finding::because(id, CONTAINER)));
        return found;
    }
    found.push(kind(pod, name, sidecar, native_sidecars));
    found.push(grace(pod, expected.timeout));
    found.push(restart(pod, sidecar));
    found.push(tasks(pod, name, &expected.tasks));
    found
}

fn uid(pod: &Pod, expected: Option<&str>) -> Finding {
    match (pod.metadata.uid.as_deref(), expected) {
        (Some(uid), Some(expected)) if uid == expected => {
            Finding::ok(UID, format!("{uid}, as in POD_UID"))
        }
        (Some(uid), None) => Finding::ok(
            UID,
            format!("{uid}; POD_UID is not set, so podbeat uses the UID of the pod"),
        ),
        (uid, Some(expected)) => Finding::failed(
            UID,
            format!(
                "POD_UID is {expected}, but the UID of the pod is {}",
                uid.unwrap_or("none")
            ),
            "podbeat would assume that its pod was deleted. Set POD_UID from the downward API (fieldRef: {fieldPath: metadata.uid}), as \
             POD_NAME and POD_NAMESPACE. Or this is another pod, created again with the same name.",
        ),
        (None, None) => Finding::skipped(UID, "the API server shows no UID"),
    }
}

fn container(pod: &Pod, name: &str, sidecar: Sidecar) -> Finding {
    let place = match sidecar {
        Sidecar::Native => "an init container",
        Sidecar::Plain => "a regular container",
        Sidecar::Elsewhere => {
            let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
            let names: Vec<&str> = all.map(|container| container.name.as_str()).collect();
            return Finding::failed(
                CONTAINER,
                format!(
                    "the pod has no container {name}; it has {}",
                    names.join(", ")
                ),
                "Set PODBEAT_CONTAINER_NAME to the name of podbeat's container in the pod. Otherwise podbeat treats itself as part of the \
                 task, and waits for its own end. If the pod has no podbeat container, add one (README: Deploy).",
            );
        }
    };
    Finding::ok(CONTAINER, format!("{name} is {place} of the pod"))
}

fn is_native(container: &ContainerSpec) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn kind(pod: &Pod, name: &str, sidecar: Sidecar, native_sidecars: Option<bool>) -> Finding {
    if sidecar == Sidecar::Plain {
        let seen = "plain sidecar: a regular container beside the task";
        return match native_sidecars {
            Some(true) => Finding::warning(
                SIDECAR,
                seen,
                "This works, but the cluster supports native sidecars. As the first of the initContainers, with restartPolicy: Always, \
                 podbeat starts before the task, stops after it, and sees how it ends (deploy/manifests/job-native-sidecar.yaml).",
            ),
            Some(false) | None => Finding::ok(SIDECAR, seen),
        };
    }
    let mut before = Vec::new();
    for container in &pod.spec.init_containers {
        if container.name == name {
            if !is_native(container) {
                return Finding::failed(
                    SIDECAR,
                    "ordinary init container: the task does not start until podbeat has ended",
                    "Set restartPolicy: Always for podbeat's container (Kubernetes 1.29 or later), or make it a regular container.",
                );
            }
            break;
        }
        before.push(container.name.as_str());
    }
    if before.is_empty() {
        return Finding::ok(SIDECAR, "native sidecar, and the first init container");
    }
    Finding::warning(
        SIDECAR,
        format!("native sidecar, but after {}", before.join(", ")),
        "Make podbeat the first of the initContainers. In its present place it starts only after these containers, and sidecars \
         before it stop after it.",
    )
}

fn grace(pod: &Pod, timeout: Duration) -> Finding {
    let grace = status::observe(pod, "").termination_grace;
    let (one, two) = (grace_for(1, timeout), grace_for(2, timeout));
    let seen = format!(
        "grace period {}; timeout of one attempt {}",
        in_words(grace),
        in_words(timeout)
    );
    let whole_seconds =
        |duration: Duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let remedy = format!(
        "Set the pod's terminationGracePeriodSeconds to at least {}, so that the last heartbeat has time for an attempt and a retry. \
         Or set PODBEAT_TIMEOUT to {} or less.",
        whole_seconds(two),
        match grace.saturating_sub(grace_for(0, timeout)) / 2 {
            least if least < Duration::from_millis(500) => "less".to_owned(),
            most => in_words(Duration::from_millis(
                most.as_millis().try_into().unwrap_or(u64::MAX)
            )),
        }
    );
    if grace < one {
        return Finding::failed(GRACE, format!("{seen}: too short for one attempt"), remedy);
    }
    if grace < two {
        return Finding::warning(GRACE, format!("{seen}: too short for a retry"), remedy);
    }
    Finding::ok(GRACE, seen)
}

fn restart(pod: &Pod, sidecar: Sidecar) -> Finding {
    let policy = pod.spec.restart_policy.as_deref().unwrap_or("Always");
    let seen = format!("the pod's restartPolicy is {policy}");
    match (policy, sidecar) {
        ("Always", Sidecar::Plain) => Finding::warning(
            RESTART,
            format!("{seen}: Kubernetes restarts a plain sidecar that has ended"),
            "Use restartPolicy: Never or OnFailure, as Jobs do, or make podbeat a native sidecar. podbeat ends with the task, but with \
             this policy the task never ends.",
        ),
        ("Always", Sidecar::Native | Sidecar::Elsewhere) => Finding::warning(
            RESTART,
            format!(
                "{seen}: the task never ends, because Kubernetes restarts it after any exit code"
            ),
            "Use restartPolicy: Never or OnFailure, as Jobs do. podbeat sends the last heartbeat when the task cannot restart any more; \
             with this policy, that is when the pod is deleted.",
        ),
        (_, _) => Finding::ok(RESTART, seen),
    }
}

fn tasks(pod: &Pod, own_container: &str, settings: &Tasks) -> Finding {
    let seen = status::observe_with(pod, own_container, settings);
    let tasks = seen
        .containers
        .iter()
        .filter(|container| container.role == Role::Task);
    let names: Vec<&str> = tasks.map(|container| container.name.as_str()).collect();
    let told = format!("task containers: {}", names.join(", "));
    let strangers = settings.strangers(pod);
    if !strangers.is_empty() {
        return Finding::warning(
            TASKS,
            format!(
                "{told}; the pod has no regular container {}",
                strangers.join(", ")
            ),
            "Correct the names in PODBEAT_TASK_CONTAINERS or PODBEAT_IGNORED_CONTAINERS, or in the pod's annotations \
             podbeat.dev/task-containers or podbeat.dev/ignored-containers.",
        );
    }
    let run_on: Vec<&str> = names.into_iter().filter(|name| runs_on(name)).collect();
    if run_on.is_empty() {
        return Finding::ok(TASKS, told);
    }
    let run_on = run_on.join(",");
    Finding::warning(
        TASKS,
        format!("{told}; {run_on} usually runs as long as its pod"),
        format!(
            "The last heartbeat waits for every task container. Set PODBEAT_IGNORED_CONTAINERS={run_on}, or the pod's annotation \
             podbeat.dev/ignored-containers: \"{run_on}\". Or make {run_on} a native sidecar."
        ),
    )
}

/// Reports the retry count in the heartbeats: from the setting, from the pod's annotation, or else
/// from `counted`. `counted` is the number of the Job's pods that failed before this one, or why
/// podbeat could not count them. It is `None` if podbeat did not ask, for example because no Job
/// owns the pod.
pub(super) fn retries(
    setting: Option<i32>,
    annotated: Option<i32>,
    counted: Option<Result<Option<i32>, String>>,
) -> Finding {
    if let Some(count) = setting {
        return Finding::ok(RETRIES, format!("{count}, from JOB_RETRY_COUNT"));
    }
    if let Some(count) = annotated {
        let seen = format!("{count}, from the annotation {JOB_INDEX_FAILURE_COUNT}");
        return Finding::ok(RETRIES, seen);
    }
    match counted {
        None => Finding::ok(RETRIES, "none: no Job controller created the pod"),
        Some(Ok(Some(count))) => {
            let seen = format!("{count}, the number of the Job's pods that failed before this one");
            Finding::ok(RETRIES, seen)
        }
        Some(Ok(None)) => Finding::warning(
            RETRIES,
            "none: the Job runs several pods without a completion index, so podbeat cannot find out which pod this one retries",
            "Without a retry count, the service may refuse the heartbeats of a second attempt. Use completionMode: Indexed, with a run \
             for each index (`{index}` in TASK_RUN_ID), or one Job for each run. Or set JOB_RETRY_COUNT.",
        ),
        Some(Err(why)) => Finding::warning(
            RETRIES,
            why,
            "podbeat sends no retry count, because it cannot list the Job's pods. The service may refuse the heartbeats of a second \
             attempt. Allow list for the pods of the namespace (deploy/manifests/podbeat.yaml), or set JOB_RETRY_COUNT.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use podbeat_interface::finding::State;

    fn judged(spec: &Value, name: &str, uid: Option<&str>) -> Vec<(String, State, String)> {
        let pod = json!({"metadata": {"name": "p", "uid": "u1"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let expected = Expected {
            uid,
            container: Some(name),
            tasks: Tasks::All,
            timeout: Duration::from_secs(10),
        };
        let found = judge(&pod, &expected, Some(true));
        assert!(found.iter().all(|finding| finding.remedy.is_some()
            != (finding.state == State::Ok || finding.state == State::Skipped)));
        found
            .into_iter()
            .map(|finding| (finding.id, finding.state, finding.seen))
            .collect()
    }

    fn states(found: &[(String, State, String)]) -> Vec<State> {
        found.iter().map(|(_, state, _)| *state).collect()
    }

    fn native(grace: i64) -> Value {
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": grace,
               "initContainers": [{"name": "podbeat", "restartPolicy": "Always"}], "containers": [{"name": "main"}]})
    }

    #[test]
    fn as_the_manifests_deploy_it_all_holds() {
        use State::Ok as Holds;
        let found = judged(&native(30), "podbeat", Some("u1"));
        assert_eq!(states(&found), [Holds; 6], "{found:?}");
        let ids: Vec<&str> = found.iter().map(|(id, _, _)| id.as_str()).collect();
        assert_eq!(ids, [UID, CONTAINER, SIDECAR, GRACE, RESTART, TASKS]);
    }

    #[test]
    fn a_container_that_never_ends_is_told_with_the_setting_for_it() {
        let mut spec = native(30);
        spec["containers"] = json!([{"name": "main"}, {"name": "istio-proxy"}]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        let found = tasks(&pod, "podbeat", &Tasks::All);
        assert_eq!(found.state, State::Warning);
        let remedy = found.remedy.expect("a remedy");
        assert!(
            remedy.contains("PODBEAT_IGNORED_CONTAINERS=istio-proxy"),
            "{remedy}"
        );
        let ignored = Tasks::AllBut(vec!["istio-proxy".to_owned()]);
        assert_eq!(tasks(&pod, "podbeat", &ignored).state, State::Ok);
        let unknown = Tasks::Only(vec!["main".to_owned(), "mian".to_owned()]);
        let found = tasks(&pod, "podbeat", &unknown);
        assert_eq!(
            (found.state, found.seen.ends_with("container mian")),
            (State::Warning, true),
            "{found:?}"
        );
    }

    #[test]
    fn another_uid_and_none() {
        assert_eq!(
            judged(&native(30), "podbeat", Some("u2"))[0].1,
            State::Failed
        );
        assert_eq!(judged(&native(30), "podbeat", None)[0].1, State::Ok);
    }

    #[test]
    fn a_container_that_is_not_there_is_told_with_those_that_are() {
        let found = judged(&native(30), "hb", None);
        assert_eq!(
            states(&found),
            [
                State::Ok,
                State::Failed,
                State::Skipped,
                State::Ok,
                State::Skipped,
                State::Skipped
            ]
        );
        assert!(found[1].2.ends_with("it has podbeat, main"), "{found:?}");
    }

    #[test]
    fn grace_for_an_attempt_and_a_retry() {
        for (grace, state) in [
            (30, State::Ok),
            (22, State::Ok),
            (21, State::Warning),
            (12, State::Warning),
            (11, State::Failed),
            (0, State::Failed),
        ] {
            assert_eq!(
                judged(&native(grace), "podbeat", None)[3].1,
                state,
                "{grace} s"
            );
        }
    }

    #[test]
    fn sidecars_of_every_kind() {
        let kind = |init: &Value, regular: &Value, policy: &str| {
            let spec =
                json!({"restartPolicy": policy, "initContainers": init, "containers": regular});
            let found = judged(&spec, "podbeat", None);
            (found[2].1, found[4].1)
        };
        let (podbeat, main) = (json!({"name": "podbeat"}), json!({"name": "main"}));
        let native = json!({"name": "podbeat", "restartPolicy": "Always"});
        let behind = kind(&json!([{"name": "init"}, native]), &json!([main]), "Never");
        assert_eq!(behind, (State::Warning, State::Ok));
        assert_eq!(
            kind(&json!([podbeat]), &json!([main]), "Never").0,
            State::Failed
        );
        let plain = kind(&json!([]), &json!([main, podbeat]), "OnFailure");
        assert_eq!(plain, (State::Warning, State::Ok));
        assert_eq!(
            kind(&json!([native]), &json!([main]), "Always").1,
            State::Warning
        );
        assert_eq!(
            kind(&json!([]), &json!([main, podbeat]), "Always").1,
            State::Warning
        );
    }
}
