//! The heartbeats that are still to be accepted: ordered, bounded, one at the head.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::task_runs::model::{ContainerState, ContainerStatus, HeartbeatTaskRunRequest};

/// How many heartbeats may wait. One with a `terminated` doesn't count until [`EXITS`] of those wait as well.
pub const CAPACITY: usize = 64;

/// How many heartbeats with a `terminated` may wait: a container that crashes as fast as Kubernetes restarts it (every
/// five minutes once backed off) fills this in a day's outage.
pub const EXITS: usize = 256;

/// Why a heartbeat exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The first of this process.
    First,
    /// The interval passed.
    Periodic,
    /// What is reported has changed.
    Change,
    /// An exit that only `lastState` still showed.
    LostExit,
    /// The last one.
    Final,
}

impl Kind {
    /// The word for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Periodic => "periodic",
            Self::Change => "change",
            Self::LostExit => "lost_exit",
            Self::Final => "final",
        }
    }

    /// Whether a heartbeat of this kind brings news. One that brings none is not kept over a crash: the first
    /// heartbeat of the next process says all that it says.
    #[must_use]
    pub fn brings_news(self) -> bool {
        match self {
            Self::Change | Self::LostExit | Self::Final => true,
            Self::First | Self::Periodic => false,
        }
    }
}

/// One logical heartbeat: the same nonce through all its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts the heartbeats of this pod, from 1; a journal carries the count over a restart.
    pub number: u64,
    /// Why it exists.
    pub kind: Kind,
    /// The body.
    pub request: HeartbeatTaskRunRequest,
    /// Whether it is the first to tell of an exit. Such a beat never waits and is the last to be dropped.
    pub tells_exit: bool,
    /// When it was decided.
    pub queued_at: Duration,
    /// How old it was already when this process began, if an earlier one decided it.
    pub older_by: Duration,
    /// Not to be sent before: changes that follow within the window are collected into it.
    pub hold_until: Duration,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether an attempt may have arrived without our knowing.
    pub may_have_arrived: bool,
    /// Whether the service refused it once, and it goes without containerStatus now. Only for the final.
    pub stripped: bool,
}

impl Beat {
    /// How long ago it was decided.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.queued_at).saturating_add(self.older_by)
    }

    /// Leaves out the states of containers that haven't ended: they grow old, an exit doesn't. Says whether there were
    /// any.
    pub fn keep_exits_only(&mut self) -> bool {
        let Some(all) = self.request.container_status.take() else {
            return false;
        };
        let before = all.len();
        self.request.container_status = exits_only(all);
        self.request.container_status.as_ref().map_or(0, Vec::len) < before
    }
}

/// The containers that ended; `None` if there are none.
#[must_use]
pub fn exits_only(statuses: Vec<ContainerStatus>) -> Option<Vec<ContainerStatus>> {
    let ended: Vec<_> = statuses
        .into_iter()
        .filter(|status| matches!(status.state, Some(ContainerState::Terminated(_))))
        .collect();
    (!ended.is_empty()).then_some(ended)
}

/// The waiting heartbeats, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    beats: VecDeque<Beat>,
}

impl Outbox {
    /// Adds a heartbeat at the end and returns what had to go for it.
    ///
    /// What goes is the oldest that tells no exit and is neither the first heartbeat, nor the newest, nor one that
    /// has been attempted (it may be in flight).
    #[must_use = "what was dropped must be counted"]
    pub fn push(&mut self, beat: Beat) -> Option<Beat> {
        self.beats.push_back(beat);
        let exits = self.beats.iter().filter(|beat| beat.tells_exit).count();
        let over = if self.beats.len() - exits > CAPACITY {
            |beat: &Beat| !beat.tells_exit
        } else if exits > EXITS {
            |beat: &Beat| beat.tells_exit
        } else {
            return None;
        };
        let newest = self.beats.len().saturating_sub(1);
        let victim = self.beats.iter().enumerate().position(|(at, beat)| {
            over(beat)
                && at != newest
                && beat.attempts == 0
                && !matches!(beat.kind, Kind::First | Kind::Final)
        })?;
        self.beats.remove(victim)
    }

    /// All that wait, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Beat> {
        self.beats.iter()
    }

    /// The one to be sent next.
    #[must_use]
    pub fn head(&self) -> Option<&Beat> {
        self.beats.front()
    }

    /// The one to be sent next, to be changed.
    pub fn head_mut(&mut self) -> Option<&mut Beat> {
        self.beats.front_mut()
    }

    /// The newest.
    pub fn tail_mut(&mut self) -> Option<&mut Beat> {
        self.beats.back_mut()
    }

    /// Keeps the last heartbeat, if it waits, from being sent before then.
    pub fn hold_final(&mut self, until: Duration) {
        for beat in self.beats.iter_mut().filter(|beat| beat.kind == Kind::Final) {
            beat.hold_until = until;
        }
    }

    /// Takes the head out.
    pub fn pop(&mut self) -> Option<Beat> {
        self.beats.pop_front()
    }

    /// Takes out all that `gone` says yes to, oldest first.
    pub fn take_if(&mut self, gone: impl Fn(&Beat) -> bool) -> Vec<Beat> {
        let (taken, kept) = std::mem::take(&mut self.beats).into_iter().partition(gone);
        self.beats = kept;
        taken.into_iter().collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.beats.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.beats.is_empty()
    }

    /// Whether any waits that isn't the final.
    #[must_use]
    pub fn holds_transitions(&self) -> bool {
        self.beats.iter().any(|beat| beat.kind != Kind::Final)
    }
}

/// Whether `now` shows an exit that `before` doesn't.
#[must_use]
pub fn shows_new_exit(before: &[ContainerStatus], now: &[ContainerStatus]) -> bool {
    now.iter()
        .any(|status| matches!(status.state, Some(ContainerState::Terminated(_))) && !before.contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat(number: u64, kind: Kind, tells_exit: bool) -> Beat {
        Beat {
            number,
            kind,
            request: HeartbeatTaskRunRequest::default(),
            tells_exit,
            queued_at: Duration::ZERO,
            older_by: Duration::ZERO,
            hold_until: Duration::ZERO,
            attempts: 0,
            may_have_arrived: false,
            stripped: false,
        }
    }

    proptest! {
        #[test]
        fn on_overflow_the_first_the_newest_and_every_exit_stay(exits in proptest::collection::vec(any::<bool>(), 1..400)) {
            let mut outbox = Outbox::default();
            prop_assert_eq!(outbox.push(beat(0, Kind::First, false)), None);
            let mut number = 0;
            let mut told = vec![];
            for tells_exit in exits {
                number += 1;
                if tells_exit { told.push(number); }
                let dropped = outbox.push(beat(number, Kind::Change, tells_exit));
                if told.len() <= EXITS {
                    prop_assert!(dropped.is_none_or(|beat| !beat.tells_exit));
                }
                prop_assert!(outbox.len() <= CAPACITY + EXITS);
            }
            let kept: Vec<u64> = outbox.beats.iter().map(|beat| beat.number).collect();
            prop_assert_eq!(kept.first(), Some(&0));
            prop_assert_eq!(kept.last(), Some(&number));
            prop_assert!(kept.is_sorted());
            if told.len() <= EXITS {
                prop_assert!(told.iter().all(|number| kept.contains(number)));
            }
        }
    }
}
