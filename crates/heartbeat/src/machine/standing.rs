//! Where the machine stands, for those who show it to people. Reading it changes nothing.

use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;

use super::{Losses, Machine};
use crate::outbox::Kind;
use crate::saved::LastHeartbeat;

/// Where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many heartbeats wait to be accepted. A last one that goes once more behind a late request waits no longer.
    pub backlog: usize,
    /// What was never accepted so far.
    pub losses: Losses,
    /// How long ago the API last showed or confirmed the pod, to an earlier process perhaps; `None` if never.
    pub status_age: Option<Duration>,
    /// Whether our pod is gone, so that there is nothing to watch.
    pub gone: bool,
    /// Whether the last heartbeat is due and not accepted. One that was refused for good stays so.
    pub final_is_due: bool,
    /// How far the last heartbeat has come.
    pub last_heartbeat: LastHeartbeat,
    /// Whether there is a journal.
    pub journaled: bool,
}

impl Machine {
    /// Where it stands at this time since the start.
    #[must_use]
    pub fn standing(&self, now: Duration) -> Standing {
        let accepted = self.last_heartbeat == LastHeartbeat::Accepted;
        Standing {
            backlog: if accepted { 0 } else { self.backlog() },
            losses: self.losses,
            status_age: self.confirmed.map(|confirmed| confirmed.age(now)),
            gone: self.gone,
            final_is_due: !accepted && self.outbox.iter().any(|beat| beat.kind == Kind::Final),
            last_heartbeat: self.last_heartbeat,
            journaled: self.settings.journaled,
        }
    }

    /// What was last seen of each reported container, by an earlier process perhaps.
    #[must_use]
    pub fn last_seen(&self) -> &[ContainerStatus] {
        &self.statuses
    }

    /// The pod's UID, as it was given or learned.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.settings.identity.pod_uid.as_deref()
    }
}
