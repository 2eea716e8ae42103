//! Why a pod ends or can't start: what the API reports about the pod as a whole, and about
//! containers that keep the task from starting.
//!
//! These are facts about the pod. They are never reported as states of a container.

use podbeat_heartbeat::observation::{Container, Role, State, Why};

use super::resource::{Condition, ContainerStatus, Pod, PodStatus};

/// The condition for a pod that is ended from outside: by the scheduler, the eviction API, the
/// taint manager, the garbage collector or the kubelet.
pub const DISRUPTION: &str = "DisruptionTarget";

/// The condition that is False while the pod has no node.
pub const SCHEDULED: &str = "PodScheduled";

/// The condition that is False when the pod is about to fail.
pub const READY: &str = "Ready";

/// The reason of [`READY`] in that case.
const FAILED: &str = "PodFailed";

/// Reasons for which a container waits although nothing is wrong.
const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Whether this reason of a waiting container is a problem.
#[must_use]
pub fn is_trouble(reason: &str) -> bool {
    !ORDINARY.contains(&reason)
}

/// Returns all reasons that the API gives for the end of the pod, or for why it can't start. The
/// pod's own reason is first.
pub(super) fn of(pod: &Pod, containers: &[Container]) -> Vec<Why> {
    let status = &pod.status;
    let own = Why {
        reason: filled(&status.reason),
        message: filled(&status.message),
        ..Why::default()
    };
    let own = Some(own).filter(|own| own.reason.is_some() || own.message.is_some());
    let conditions = status.conditions.iter().filter(|condition| {
        match (condition.kind.as_str(), condition.status.as_str()) {
            (DISRUPTION, "True") | (SCHEDULED, "False") => true,
            // A failed container's own status has more details.
            (READY, "False") => condition.reason.as_deref() == Some(FAILED) && !has_failed(status),
            _ => false,
        }
    });
    let is_init = |name: &str| {
        pod.spec
            .init_containers
            .iter()
            .any(|spec| spec.name == name)
    };
    // After the task has begun, no other container keeps it from starting.
    let others = if containers.iter().any(has_begun) {
        &[]
    } else {
        containers
    };
    own.into_iter()
        .chain(conditions.map(of_condition))
        .chain(
            others
                .iter()
                .filter(|it| is_init(&it.name))
                .filter_map(of_container),
        )
        .collect()
}

fn of_condition(condition: &Condition) -> Why {
    Why {
        condition: Some(condition.kind.clone()),
        reason: filled(&condition.reason),
        message: filled(&condition.message),
        ..Why::default()
    }
}

/// The state of an init container or native sidecar that keeps the task's containers from starting.
fn of_container(container: &Container) -> Option<Why> {
    let (exit_code, reason, message) = match (container.role, container.state.as_ref()?) {
        (Role::Init | Role::Sidecar, State::Waiting { reason, message })
            if reason.as_deref().is_some_and(is_trouble) =>
        {
            (None, reason, message)
        }
        (Role::Init, State::Terminated(exit)) if exit.exit_code.is_some_and(|code| code != 0) => {
            (exit.exit_code, &exit.reason, &exit.message)
        }
        _ => return None,
    };
    Some(Why {
        container: Some(container.name.clone()),
        exit_code,
        reason: filled(reason),
        message: filled(message),
        ..Why::default()
    })
}

fn filled(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.trim().is_empty())
}

/// Whether this is a task container that has run.
fn has_begun(container: &Container) -> bool {
    let state = container.state.as_ref();
    let waits = state.is_none_or(|state| matches!(state, State::Waiting { .. }));
    container.role == Role::Task && (!waits || container.last_exit.is_some())
}

/// Whether any container ended with an exit code other than 0.
fn has_failed(status: &PodStatus) -> bool {
    let failed = |status: &ContainerStatus| {
        let exit_code = status
            .state
            .terminated
            .as_ref()
            .and_then(|exit| exit.exit_code);
        exit_code.is_some_and(|code| code != 0)
    };
    let (init, regular) = (&status.init_container_statuses, &status.container_statuses);
    init.iter().chain(regular).any(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::captured::{Captured, Observe};

    /// The reported reasons as JSON, without messages.
    fn said(pod: &Captured) -> Value {
        let mut said = pod.observe().why;
        for why in &mut said {
            why.message = None;
        }
        json!(said)
    }

    #[test]
    fn recorded_reasons_of_real_kubelets() {
        let pod = Captured::last("e2e/deadline-native");
        assert_eq!(said(&pod), json!([{"reason": "DeadlineExceeded"}]));
        let message = "Pod was active on the node longer than the specified deadline";
        assert_eq!(pod.observe().why[0].message.as_deref(), Some(message));
        // Before that, the kubelet has failed the pod while its containers still run.
        let pod = Captured::when("e2e/deadline-native", "main", "running");
        assert_eq!(said(&pod), json!([]));
        let conditions = Captured::last("l-deadline")
            .said("/status/conditions")
            .clone();
        assert_eq!(
            said(&pod.with("/status/conditions", conditions)),
            json!([{"condition": "Ready", "reason": "PodFailed"}])
        );
        let pod = Captured::last("e2e/evict-plain");
        assert_eq!(
            said(&pod),
            json!([{"condition": "DisruptionTarget", "reason": "EvictionByEvictionAPI"}])
        );
        let pod = Captured::when("e2e/failed-init", "setup", "terminated");
        assert_eq!(
            said(&pod),
            json!([{"container": "setup", "exitCode": 5, "reason": "Error"}])
        );
        // A failed task needs no other reason, nor does a success.
        for name in [
            "e2e/fail-plain",
            "a-complete",
            "e2e/restarts-native",
            "g-oom",
            "i-badcmd",
        ] {
            assert_eq!(said(&Captured::last(name)), json!([]), "{name}");
        }
    }

    #[test]
    fn of_other_containers_only_reasons_that_block_the_task_are_reported() {
        let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": "m"}});
        let setup = |state: Value| {
            let pod = Captured::when("e2e/failed-init", "setup", "running");
            said(&pod.with("/status/initContainerStatuses/1/state", state))
        };
        assert_eq!(
            setup(waits("ImagePullBackOff")),
            json!([{"container": "setup", "reason": "ImagePullBackOff"}])
        );
        for state in [
            waits("PodInitializing"),
            json!({"waiting": {}}),
            json!({"terminated": {"exitCode": 0}}),
        ] {
            assert_eq!(setup(state.clone()), json!([]), "{state}");
        }
        // A failing sidecar beside a running task ends nothing.
        let pod = Captured::when("a-complete", "main", "running");
        assert_eq!(*pod.said("/status/initContainerStatuses/1/name"), "side2");
        let pod = pod.with(
            "/status/initContainerStatuses/1/state",
            waits("CrashLoopBackOff"),
        );
        assert_eq!(said(&pod), json!([]));
        let begins = pod.with(
            "/status/containerStatuses/0/state",
            waits("PodInitializing"),
        );
        assert_eq!(
            said(&begins),
            json!([{"container": "side2", "reason": "CrashLoopBackOff"}])
        );
        // A task container is reported itself.
        assert_eq!(said(&Captured::last("h-noimage")), json!([]));
    }

    #[test]
    fn the_pods_own_reason_is_first_and_empty_reasons_are_ignored() {
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Any"});
        let pod = Captured::new("e2e/evict-plain")
            .with("/status/reason", json!("Evicted"))
            .with(
                "/status/conditions",
                json!([
                    condition("DisruptionTarget", "True"),
                    condition("DisruptionTarget", "False"),
                    condition("PodScheduled", "False"),
                    condition("PodScheduled", "True"),
                    condition("Initialized", "False"),
                ]),
            );
        assert_eq!(
            said(&pod),
            json!([
                {"reason": "Evicted"},
                {"condition": "DisruptionTarget", "reason": "Any"},
                {"condition": "PodScheduled", "reason": "Any"},
            ])
        );
        let pod = pod.with("/status/conditions", Value::Null);
        for empty in [Value::Null, json!(""), json!(" ")] {
            assert_eq!(said(&pod.clone().with("/status/reason", empty)), json!([]));
        }
    }
}
