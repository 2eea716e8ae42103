//! The rules for verdicts, and what a pod shows according to them.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::completion::is_finished;
use podbeat_heartbeat::observation::{Observation, Role, State};
use podbeat_heartbeat::report::Report;
use podbeat_interface::indexed::run_id;
use podbeat_interface::setting::{
    IGNORED_CONTAINERS, JOB_COMPLETION_INDEX, JOB_RETRY_COUNT, Row, TASK_CONTAINERS, TASK_RUN_ID,
};
use podbeat_kubernetes::listed::Listed;
use podbeat_kubernetes::resource::ContainerStatus;
use podbeat_kubernetes::status::{observe_with, own_is_over};
use podbeat_kubernetes::tasks::Tasks;

/// The rules for verdicts.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The name of podbeat's container.
    pub container_name: String,
    /// The regular containers of the task, if a pod itself does not specify them.
    pub tasks: Tasks,
    /// The containers to report.
    pub report: Report,
    /// Skip pods that ended more recently than this, because the Job may be about to start another
    /// pod.
    pub older_than: Duration,
    /// The nonce that the service issued, if any. Otherwise the nonce is derived from the pod's
    /// UID.
    pub nonce: Option<String>,
}

impl Rules {
    /// The value of a setting of the pod's podbeat container, if the pod's spec shows it.
    pub(crate) fn setting<'pod>(&self, pod: &'pod Listed, setting: &Row) -> Option<&'pod str> {
        pod.setting(&self.container_name, setting.variable)
    }

    /// Observes a pod like its own podbeat: by its annotations, then its settings, then these
    /// rules.
    pub fn observe(&self, pod: &Listed) -> Observation {
        let own = Tasks::read(
            self.setting(pod, &TASK_CONTAINERS.row),
            self.setting(pod, &IGNORED_CONTAINERS.row),
        );
        let tasks = own.as_ref().unwrap_or(&self.tasks);
        observe_with(&pod.pod, &self.container_name, tasks)
    }

    /// Returns the run of this pod according to its settings, if they show it. `Err` is a pattern
    /// that needs an index where there is none.
    pub(crate) fn run_of(&self, pod: &Listed) -> Option<Result<String, String>> {
        let pattern = self.setting(pod, &TASK_RUN_ID.row);
        let pattern = pattern.or_else(|| pod.annotated_run())?;
        let index = self.setting(pod, &JOB_COMPLETION_INDEX.row);
        let index = index.or_else(|| pod.annotated_index());
        let index = index.and_then(|text| text.trim().parse().ok());
        Some(run_id(pattern.trim(), index).ok_or_else(|| pattern.to_owned()))
    }

    /// The number of the Job's retries before this pod, if the pod's settings have it.
    pub(crate) fn job_retry_count(&self, pod: &Listed) -> Option<i32> {
        let text = self.setting(pod, &JOB_RETRY_COUNT.row)?;
        text.trim().parse().ok().filter(|count| *count >= 0)
    }

    /// Whether no container of the task or of podbeat runs any more, or will restart. Until then
    /// podbeat may still send the last heartbeat itself.
    pub fn is_over(&self, pod: &Listed, seen: &Observation) -> bool {
        let is_left_to_others = || is_finished(seen) && own_is_over(&pod.pod, &self.container_name);
        pod.phase_is_terminal || is_left_to_others()
    }

    /// The exit code of the pod's podbeat container, if it ended.
    pub(crate) fn own_exit_code(&self, pod: &Listed) -> Option<i32> {
        self.own_status(pod)?.state.terminated.as_ref()?.exit_code
    }

    /// Whether a podbeat that ended with 0 reported the end of the task: its container ran once,
    /// and ended after all task containers. podbeat also ends with 0 in these cases:
    ///
    /// - Only its container was stopped. Its last heartbeat then reports a task that runs, and a
    ///   restarted process may have nothing to send.
    /// - All containers of the pod are to be restarted (KEP-5532). podbeat then sends no last
    ///   heartbeat.
    pub(crate) fn proves_the_end(&self, pod: &Listed, seen: &Observation) -> bool {
        let Some(own) = self.own_status(pod) else {
            return false;
        };
        let ran_once = own.restart_count == 0 && own.last_state.terminated.is_none();
        let exit = own.state.terminated.as_ref();
        let Some(ended_at) = exit.and_then(|exit| exit.finished_at) else {
            return false;
        };
        let to_be_restarted = seen.all_restarting
            || seen.containers.iter().any(|container| {
                let exit = container.state.as_ref().and_then(State::exit);
                exit.is_some_and(|exit| container.restart.restarts_all(exit.exit_code))
            });
        let mut tasks = seen.containers.iter().filter(|it| it.role == Role::Task);
        let after_all = tasks.all(|task| match &task.state {
            Some(State::Terminated(exit)) => exit.finished_at.is_some_and(|at| at <= ended_at),
            Some(State::Running { .. }) => false,
            // A container that never ran has nothing to report.
            Some(State::Waiting { .. }) | None => {
                task.restart_count == 0 && task.last_exit.is_none()
            }
        });
        ran_once && !to_be_restarted && after_all
    }

    fn own_status<'pod>(&self, pod: &'pod Listed) -> Option<&'pod ContainerStatus> {
        all_statuses(pod).find(|status| status.name == self.container_name)
    }
}

/// Returns when the last container ended, as far as the API shows it.
pub(crate) fn ended_at(pod: &Listed) -> Option<Timestamp> {
    let exits = all_statuses(pod).filter_map(|status| status.state.terminated.as_ref());
    exits
        .filter_map(|exit| exit.finished_at)
        .max()
        .or(pod.created_at)
}

fn all_statuses(pod: &Listed) -> impl Iterator<Item = &ContainerStatus> {
    let status = &pod.pod.status;
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
}
