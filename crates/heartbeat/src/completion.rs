//! Whether the task is over: a terminated container that its policy starts again is not.

use crate::observation::{Container, Observation, Role};

/// Whether every task container is finished for good.
///
/// - A container is finished if it terminated and neither its rules nor its policy start it again
///   (design fact 4); in a pod that is being deleted nothing is started again.
/// - An init container that failed for good keeps the task's containers from ever starting: that is
///   an end, too.
/// - While all containers are about to be restarted (KEP-5532), no exit is the end.
/// - A terminal phase (evicted, rejected, deadline) says the same of the whole pod. It is never
///   waited for: the kubelet holds it back until all containers are dead, ours included
///   (kubernetes/kubernetes#128103).
/// - Native sidecars never hold the end back, and a pod without any task container never ends by
///   itself.
#[must_use]
pub fn is_finished(pod: &Observation) -> bool {
    let is_over = |container: &Container| {
        container
            .state
            .as_ref()
            .and_then(|state| state.exit())
            .is_some_and(|exit| pod.deletion.is_some() || !container.restart.follows(exit.exit_code))
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
