//! The machine's state for metrics, probes and people. Reading it changes nothing.

use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;

use super::{Losses, Machine};
use crate::saved::LastHeartbeat;

/// The machine's state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many heartbeats wait to be accepted. A repetition of the last heartbeat does not count.
    pub backlog: usize,
    /// What the service never accepted so far.
    pub losses: Losses,
    /// How long ago the API last showed or confirmed the pod, also to an earlier process; `None` if
    /// never.
    pub status_age: Option<Duration>,
    /// Whether the pod is gone, so that there is nothing to watch.
    pub gone: bool,
    /// Whether the last heartbeat is due and not accepted. One that the service refused stays so.
    pub final_is_due: bool,
    /// How far the last heartbeat has come.
    pub last_heartbeat: LastHeartbeat,
    /// Whether a journal exists.
    pub journaled: bool,
}

impl Machine {
    /// How many heartbeats wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.sending.outbox.len()
    }

    /// What the service never accepted so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.sending.losses
    }

    /// The state at this time since the start.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let accepted = self.ending.last_heartbeat == LastHeartbeat::Accepted;
        Snapshot {
            backlog: if accepted { 0 } else { self.backlog() },
            losses: self.sending.losses,
            status_age: self.pod.confirmed.map(|confirmed| confirmed.age(now)),
            gone: self.pod.gone,
            final_is_due: !accepted && self.sending.final_is_due(),
            last_heartbeat: self.ending.last_heartbeat,
            journaled: self.settings.journaled,
        }
    }

    /// The last known state of each reported container, also from an earlier process.
    #[must_use]
    pub fn last_seen(&self) -> &[ContainerStatus] {
        &self.pod.statuses
    }

    /// The pod's UID, from the settings or the pod.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.settings.identity.pod_uid.as_deref()
    }
}
