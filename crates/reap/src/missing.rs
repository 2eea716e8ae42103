//! A last heartbeat that is missing: what it contains, and whether the service still waits for it.

use podbeat_heartbeat::observation::{JobPod, Observation};
use podbeat_heartbeat::report::{Identity, Report, statuses, texts};
use podbeat_interface::setting::{NONCE, POD_HARDWARE_DETAILS, REPORT};
use podbeat_kubernetes::listed::Listed;
use podbeat_kubernetes::retries::job_pod;
use podbeat_task_runs::model::{HeartbeatTaskRunRequest, TaskRunStatus};

use super::rules::Rules;

/// The memory for a pod's place in its Job, in bytes: a namespace, two UIDs, an index and a
/// version.
const PLACE: usize = 512;

/// The memory for a container's state in a heartbeat in addition to its texts, in bytes.
const STATE: usize = 256;

/// A last heartbeat that was not sent, or not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// The run.
    pub run: String,
    /// The content of the heartbeat.
    pub request: HeartbeatTaskRunRequest,
    /// What podbeat itself reported about it.
    pub own_word: OwnWord,
    /// The Job's pod, if `request` has no retry count and podbeat must count the Job's failed pods.
    pub uncounted: Option<Uncounted>,
}

/// A pod whose retry count is the number of its Job's pods that failed before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uncounted {
    /// Its namespace.
    pub namespace: String,
    /// The pod, and its Job.
    pub pod: JobPod,
}

/// What podbeat itself reported about its last heartbeat, with its exit code or its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnWord {
    /// The service did not accept it.
    Undelivered,
    /// The service accepted one, which may not report the end of the task.
    Delivered,
    /// Nothing.
    Nothing,
}

impl Missing {
    /// The last heartbeat of a pod that ended.
    pub(super) fn of(
        pod: &Listed,
        seen: &Observation,
        rules: &Rules,
        run: String,
        own_word: OwnWord,
    ) -> Self {
        let request = last_heartbeat(pod, seen, rules);
        Self {
            run,
            uncounted: Uncounted::of(pod).filter(|_| request.job_retry_count.is_none()),
            request,
            own_word,
        }
    }

    /// Estimates the memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let states = self.request.container_status.as_ref().map_or(0, Vec::len);
        let texts = texts(&self.request).map(String::len);
        PLACE + STATE * states + texts.sum::<usize>()
    }
}

impl Uncounted {
    fn of(pod: &Listed) -> Option<Self> {
        Some(Self {
            namespace: pod.pod.metadata.namespace.clone()?,
            pod: job_pod(&pod.pod)?,
        })
    }
}

/// Builds the heartbeat that podbeat would have sent: the last states that the API shows, and
/// nothing else.
#[must_use]
pub fn last_heartbeat(pod: &Listed, seen: &Observation, rules: &Rules) -> HeartbeatTaskRunRequest {
    let hardware = rules.setting(pod, &POD_HARDWARE_DETAILS.row);
    let mut identity = Identity {
        pod_name: pod.pod.metadata.name.clone().unwrap_or_default(),
        job_retry_count: rules.job_retry_count(pod),
        pod_hardware_details: hardware.map(str::to_owned),
        ..Identity::default()
    };
    identity.learn(seen);
    let nonce = rules.setting(pod, &NONCE.row).map(str::to_owned);
    // The nonce is always the same, so that the service can recognize a repetition.
    let nonce = nonce
        .or_else(|| rules.nonce.clone())
        .unwrap_or_else(|| format!("reap-{}", identity.pod_uid.as_deref().unwrap_or_default()));
    let report = rules.setting(pod, &REPORT.row).and_then(Report::named);
    let told = statuses(seen, report.unwrap_or(rules.report));
    let mut request = identity.request(nonce, (!told.is_empty()).then_some(told));
    request.last_heartbeat = Some(true);
    request
}

/// Whether a run with this status still waits for its last heartbeat. `None` if podbeat does not
/// know the status; it then sends nothing.
pub fn waits(status: &TaskRunStatus) -> Option<bool> {
    match status {
        TaskRunStatus::Pending
        | TaskRunStatus::CheckedOut
        | TaskRunStatus::Runnable
        | TaskRunStatus::Running => Some(true),
        TaskRunStatus::Finalizing
        | TaskRunStatus::Completed
        | TaskRunStatus::FailedRestartable
        | TaskRunStatus::Failed
        | TaskRunStatus::Aborted
        | TaskRunStatus::TimedOut => Some(false),
        TaskRunStatus::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_have_ended_wait_for_nothing() {
        let waiting: Vec<Option<bool>> = TaskRunStatus::KNOWN.iter().map(waits).collect();
        let expected = [
            true, true, true, true, false, false, false, false, false, false,
        ]
        .map(Some);
        assert_eq!(waiting, expected);
        assert_eq!(waits(&"Hibernating".into()), None);
    }
}
