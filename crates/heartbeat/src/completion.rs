//! Whether the task is over. A terminated container that its policy restarts is not finished.

use crate::observation::{Container, Observation, Role};

/// Whether every task container is finished and never restarts.
///
/// - A container is finished if it terminated and neither its rules nor its policy restart it
///   (docs/kubernetes-facts.md, fact 4). In a pod that is being deleted, nothing restarts.
/// - An init container that failed and does not restart keeps the task's containers from starting.
///   That is an end, too.
/// - While all containers are about to restart (KEP-5532), no exit is the end.
/// - A terminal phase (evicted, rejected, deadline exceeded) ends the whole pod. podbeat never
///   waits for it, because the kubelet sets it only when all containers are dead, podbeat's too
///   (kubernetes/kubernetes#128103).
/// - Native sidecars never delay the end, and a pod without task containers never ends by itself.
#[must_use]
pub fn is_finished(pod: &Observation) -> bool {
    let is_over = |container: &Container| {
        container
            .state
            .as_ref()
            .and_then(|state| state.exit())
            .is_some_and(|exit| {
                pod.deletion.is_some() || !container.restart.follows(exit.exit_code)
            })
    };
    let failed = |container: &Container| {
        let exit_code = container
            .state
            .as_ref()
            .and_then(|state| state.exit())
            .and_then(|exit| exit.exit_code);
        exit_code.is_some_and(|code| code != 0)
    };
    let tasks = || {
        pod.containers
            .iter()
            .filter(|container| container.role == Role::Task)
    };
    let init_failed = pod
        .containers
        .iter()
        .filter(|container| container.role == Role::Init)
        .any(|container| failed(container) && is_over(container));
    let tasks_over = tasks().next().is_some() && tasks().all(is_over);
    !pod.restarts_all() && (pod.phase_is_terminal || init_failed || tasks_over)
}
