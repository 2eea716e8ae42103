//! What outlives the process: the part of the machine that a journal keeps, in a form that can be
//! written down.
//!
//! A heartbeat is in it before its first attempt begins, so that whoever comes after a crash sends
//! it with the same nonce. Periodic heartbeats are not: they bring no news, and so a pod at rest
//! writes nothing.

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::{Deserialize, Serialize};

use super::machine::Cause;
use super::outbox::{Beat, Kind};
use super::request::Identity;
use crate::observation::Why;
use crate::observation::{Exit, Sidecar};

/// Everything that the machine needs to go on where an earlier process was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// How many heartbeats were decided so far.
    pub beats: u64,
    /// What waits, oldest first, the last heartbeat included.
    pub outbox: Vec<SavedBeat>,
    /// How far the last heartbeat has come.
    pub last_heartbeat: LastHeartbeat,
    /// Why it is due; absent if it isn't, and in what earlier versions wrote down.
    pub cause: Option<Cause>,
    /// What the pod showed of itself, for the members that settings leave open.
    pub identity: Identity,
    /// Whether the pod was ever seen: only then can it be gone.
    pub was_seen: bool,
    /// What was last seen of each reported container.
    pub statuses: Vec<ContainerStatus>,
    /// When the API last showed or confirmed it.
    pub confirmed_at: Option<Timestamp>,
    /// The last exits of each container that were told of.
    pub exits: Vec<(String, Exit)>,
    /// Those seen since the last heartbeat was due.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late_exits: Vec<(String, Exit)>,
    /// What the API said of why the pod ends or can't begin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Why>,
    /// `metadata.deletionTimestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_at: Option<Timestamp>,
    /// How podbeat's own container is declared.
    pub sidecar: Sidecar,
}

/// One heartbeat that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedBeat {
    /// Its number in this pod.
    pub number: u64,
    /// Why it exists.
    pub kind: Kind,
    /// Its body, nonce included.
    pub request: HeartbeatTaskRunRequest,
    /// Whether it is the first to tell of an exit.
    pub tells_exit: bool,
    /// When it was decided.
    pub queued_at: Timestamp,
    /// Whether an attempt may have arrived, one in flight included.
    pub may_have_arrived: bool,
    /// Whether it goes without containerStatus because the service refused it.
    pub stripped: bool,
}

impl Saved {
    /// Whether the last heartbeat was due for a signal and nothing else, so that it may not have
    /// told the task's end.
    #[must_use]
    pub fn is_by_signal_alone(&self) -> bool {
        self.cause == Some(Cause::Signal)
    }
}

/// How far the last heartbeat has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LastHeartbeat {
    /// Not accepted; if it is due, it waits in the outbox.
    #[default]
    Open,
    /// Accepted. If it is still in the outbox, it is to be sent again behind an earlier request
    /// that may arrive late.
    Accepted,
    /// Refused, also without containerStatus. It stays in the outbox as a witness and is not sent
    /// any more.
    Refused,
    /// The service disowned the run.
    Orphaned,
}

impl SavedBeat {
    pub(super) fn of(beat: &Beat, in_flight: bool, queued_at: Timestamp) -> Self {
        Self {
            number: beat.number,
            kind: beat.kind,
            request: beat.request.clone(),
            tells_exit: beat.tells_exit,
            queued_at,
            may_have_arrived: beat.may_have_arrived || in_flight,
            stripped: beat.stripped,
        }
    }
}
