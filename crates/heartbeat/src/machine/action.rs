//! What the machine orders: its actions, and the notes for a reader of the log.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::observation::{JobPod, Why};
use crate::outbox::Kind;
use crate::saved::{LastHeartbeat, Saved};

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this heartbeat and return its answer.
    Send(Attempt),
    /// Cancel the attempt in flight. The machine ignores its answer.
    Abort,
    /// Get the pod from the API server, within this time.
    LookAtPod(Duration),
    /// Count the pods of this Job that failed before this one. Ordered once.
    CountRetries(Box<JobPod>),
    /// Read the directory of exit markers. Ignore the order while a read is in progress.
    ReadMarkers,
    /// Send [`Event::Woke`](super::Event::Woke) at this time (since the start). It replaces the
    /// previous order and is the last action of a list.
    WakeAt(Option<Duration>),
    /// New states of the pod are urgent: the watch must skip every wait that only spares the API
    /// server. Ordered with the first signal, and so before every [`Action::LookAtPod`].
    HurryWatch,
    /// Stop watching the pod.
    StopWatching,
    /// Write this to disk before the attempt of the same list begins. If the write takes long, the
    /// attempt begins without it.
    Persist(Box<Saved>),
    /// Something for a reader of the log.
    Note(Note),
    /// Nothing more will be sent: end the process.
    End(End),
}

/// One attempt to send a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Identifies this attempt in its answer. Counts all attempts of the process, from 1.
    pub number: u64,
    /// The heartbeat's number and kind.
    pub beat: (u64, Kind),
    /// How many attempts of this heartbeat came before.
    pub retries: u32,
    /// The body.
    pub request: HeartbeatTaskRunRequest,
    /// The longest time that the attempt may take.
    pub timeout: Duration,
    /// Whether the service refused the token of the previous attempt, so that this attempt needs
    /// another one: read from the file again, or the one that was not tried.
    pub token_was_refused: bool,
}

/// How podbeat's process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The service accepted the last heartbeat.
    Delivered,
    /// The service said that the run does not belong to this pod. Nothing was sent after that.
    Orphaned,
    /// Every container of the pod is restarting (KEP-5532), podbeat's too. The next process
    /// continues, from the journal if there is one. No last heartbeat was sent.
    Restarting,
    /// The service did not accept the last heartbeat in time.
    Undelivered(Box<HeartbeatTaskRunRequest>),
}

impl End {
    /// The name in the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Orphaned => "Orphaned",
            Self::Restarting => "Restarting",
            Self::Undelivered(_) => "Undelivered",
        }
    }
}

/// Why the last heartbeat is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Every task container ended.
    Completed,
    /// The pod object is gone.
    Gone,
    /// SIGTERM came, and the API shows no end of the task.
    Signal,
    /// SIGTERM came, and exit markers show the end that the API withholds.
    Marked,
}

/// Why a heartbeat was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// The outbox was full.
    Overflow,
    /// The service refused it.
    Refused,
    /// The deadline of the last heartbeat came first.
    Deadline,
    /// Its states are older than the settings allow, and it has no exit.
    Expired,
    /// A newer heartbeat contains everything in it.
    Superseded,
    /// The run does not belong to this pod.
    Orphaned,
}

/// How many heartbeats with news the service never accepted, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The outbox was full.
    pub overflowed: u64,
    /// Their states were too old to send.
    pub expired: u64,
    /// The service refused them.
    pub refused: u64,
    /// The deadline of the last heartbeat came first.
    pub too_late: u64,
    /// The run no longer belonged to this pod.
    pub orphaned: u64,
}

impl Losses {
    pub(super) fn count(&mut self, cause: DropCause) {
        let count = match cause {
            DropCause::Overflow => &mut self.overflowed,
            DropCause::Expired => &mut self.expired,
            DropCause::Refused => &mut self.refused,
            DropCause::Deadline => &mut self.too_late,
            DropCause::Orphaned => &mut self.orphaned,
            DropCause::Superseded => return,
        };
        *count += 1;
    }
}

/// Something for a reader of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A reported container changed.
    Transition {
        /// The container.
        container: String,
        /// Its state before, if it had one.
        from: Option<&'static str>,
        /// Its state now, as reported.
        to: Box<ContainerStatus>,
        /// How often it restarted, by the API.
        restart_count: i32,
    },
    /// The pod is being deleted; the time at which its grace period ends.
    Deletion(Timestamp),
    /// The API gives a reason for the pod's end, or for its failure to start.
    Why(Box<Why>),
    /// Another pod, with this UID, has this pod's name. Its states are not reported.
    OtherPod(Option<String>),
    /// No pod has this name, and podbeat never saw it: the name is probably wrong. Heartbeats
    /// continue.
    NeverSeen,
    /// The service accepted a heartbeat.
    Accepted(u64, Kind),
    /// An attempt failed.
    Failed {
        /// The heartbeat's number and kind.
        beat: (u64, Kind),
        /// The answer.
        answer: Answer,
        /// The time of the next attempt, since the start; `None` if podbeat never sends this body
        /// again.
        retry_at: Option<Duration>,
    },
    /// A heartbeat was dropped: its number and kind, the reason, and the states that it had.
    Dropped(u64, Kind, DropCause, Vec<ContainerStatus>),
    /// A signal came.
    Signal {
        /// Whether it was not the first.
        again: bool,
    },
    /// The last heartbeat is due.
    Final(Cause),
    /// The last heartbeat has an exit from an exit marker, because the API withholds it.
    Marked {
        /// The container.
        container: String,
        /// Its exit code.
        exit_code: i32,
    },
    /// An exit marker names a container that the pod does not have.
    UnknownMarker(String),
    /// The service accepted the last heartbeat, but an earlier request may arrive after it: podbeat
    /// sends it once more, not before this time.
    Barrier {
        /// Since the start.
        until: Duration,
    },
    /// The repetition failed. The service had accepted the last heartbeat before.
    BarrierFailed,
    /// This process continues where an earlier one ended.
    Resumed {
        /// Heartbeats that wait.
        waiting: usize,
        /// How far the last heartbeat had come.
        last_heartbeat: LastHeartbeat,
    },
    /// The last heartbeat of an earlier process was wrong: it was sent for a signal that stopped
    /// only podbeat's container, and the task continues. So do heartbeats.
    Reopened(
        /// How far that last heartbeat had come. If it was accepted, the service may regard the run
        /// as ended.
        LastHeartbeat,
    ),
    /// podbeat concludes that the run no longer belongs to this pod.
    Orphaned,
}
