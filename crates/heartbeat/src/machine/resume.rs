//! The start, afresh or where an earlier process was; and what is kept for the next one.

use std::time::Duration;

#[cfg(test)]
use super::Broken;
use super::{Action, Cause, Confirmed, Doubt, Machine, Note, Settings, Stage};
use crate::Now;
use crate::completion::is_finished;
use crate::observation::{BACKS_OFF, Container, Observation, Role, State};
use crate::outbox::{Beat, Kind};
use crate::saved::{LastHeartbeat, Saved, SavedBeat};

/// What becomes of a last heartbeat that went out for a signal alone.
pub(super) enum Reconsidered {
    /// The task goes on, or ended otherwise than was told: it is taken back.
    GoesOn,
    /// The pod is at its end: it stands.
    Over,
    /// The pod doesn't show it yet.
    Unknown,
}

impl Machine {
    /// A machine that goes on where an earlier process of the same pod was. It hasn't started either.
    #[must_use]
    pub fn resume(settings: Settings, seed: u64, saved: Saved, now: Now) -> Self {
        let mut machine = Self::new(settings, seed);
        let restored = |beat: SavedBeat| Beat {
            number: beat.number,
            kind: beat.kind,
            request: beat.request,
            tells_exit: beat.tells_exit,
            queued_at: now.elapsed,
            older_by: now.since(beat.queued_at),
            hold_until: now.elapsed,
            // Attempted, for all that is known: nothing is collected into it any more.
            attempts: 1,
            may_have_arrived: beat.may_have_arrived,
            stripped: beat.stripped,
        };
        for beat in saved.outbox.into_iter().map(restored) {
            // A journal holds no more than the outbox did.
            let _ = machine.outbox.push(beat);
        }
        machine.beats = saved.beats;
        machine.settings.identity.take_over(saved.identity);
        machine.was_seen = saved.was_seen;
        machine.statuses = saved.statuses;
        machine.exits = saved.exits;
        machine.late_exits = saved.late_exits;
        machine.earlier_why = saved.why;
        machine.deletion_at = saved.deletion_at;
        machine.remembered_sidecar = saved.sidecar;
        machine.last_heartbeat = saved.last_heartbeat;
        machine.cause = saved.cause;
        machine.confirmed = saved.confirmed_at.map(|at| Confirmed {
            at: now.elapsed,
            older_by: now.since(at),
        });
        // What the earlier process had in flight when it ended may still arrive.
        machine.doubt = Doubt::Open;
        machine.resumed = true;
        machine
    }

    pub(super) fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stage != Stage::New {
            return;
        }
        if self.resumed {
            actions.push(Action::Note(Note::Resumed {
                waiting: self.outbox.len(),
                last_heartbeat: self.last_heartbeat,
            }));
        }
        self.stage = Stage::Reconsidering { since: now };
        let for_signal = matches!(self.cause, Some(Cause::Signal | Cause::Marked));
        #[cfg(test)]
        let for_signal = for_signal && self.broken != Some(Broken::Alone);
        let is_final = |beat: &Beat| beat.kind == Kind::Final;
        let is_open = match self.last_heartbeat {
            LastHeartbeat::Open => self.outbox.iter().any(is_final),
            LastHeartbeat::Accepted | LastHeartbeat::Refused => true,
            LastHeartbeat::Orphaned => false,
        };
        if !(for_signal && is_open) {
            self.uphold(now, actions);
        }
    }

    /// What the pod shows of a task whose last heartbeat went out for a signal alone. The kubelet has started podbeat's container again
    /// since, which it does in no pod that it is stopping.
    pub(super) fn reconsidered(&self, pod: &Observation) -> Reconsidered {
        if pod.deletion.is_some() || pod.phase_is_terminal {
            return Reconsidered::Over;
        }
        if is_finished(pod) {
            // A marker told the end; or the heartbeat is still to be sent, and tells it.
            let is_told = self.cause == Some(Cause::Marked) || self.last_heartbeat == LastHeartbeat::Open;
            return if is_told {
                Reconsidered::Over
            } else {
                Reconsidered::GoesOn
            };
        }
        let goes_on = |container: &Container| match &container.state {
            _ if container.role == Role::Sidecar => false,
            Some(State::Running { .. }) => true,
            Some(State::Waiting { reason, .. }) => reason.as_deref() == Some(BACKS_OFF),
            Some(State::Terminated(exit)) => container.restart.follows(exit.exit_code),
            None => false,
        };
        if pod.restarts_all() || pod.containers.iter().any(goes_on) {
            Reconsidered::GoesOn
        } else {
            Reconsidered::Unknown
        }
    }

    /// Takes the last heartbeat of an earlier process back, and goes on.
    pub(super) fn reopen(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Note::Reopened(self.last_heartbeat)));
        self.withdraw_final();
        self.last_heartbeat = LastHeartbeat::Open;
        // What was seen since then may not have been told: all of it is news again.
        self.late_exits.clear();
        self.statuses.clear();
        self.stage = Stage::Running;
    }

    /// Stands by what an earlier process left, and goes on from there.
    pub(super) fn uphold(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let due = self.outbox.iter().any(|beat| beat.kind == Kind::Final);
        match self.last_heartbeat {
            LastHeartbeat::Open if due => {
                self.stage = Stage::Final { since: now };
                // An exit in it may be a marker's, and what is sent is put together anew.
                self.resumed_final = true;
                self.ask_for_markers(now, actions);
                self.hold_for_markers(now);
            }
            LastHeartbeat::Open => {
                self.stage = Stage::Running;
                if self.outbox.is_empty() {
                    self.queue(Kind::First, None, false, now, actions);
                }
            }
            LastHeartbeat::Accepted => {
                actions.push(Action::StopWatching);
                if due {
                    self.stage = Stage::Barrier { since: now, tries: 0 };
                } else {
                    self.delivered(actions);
                }
            }
            LastHeartbeat::Refused => self.final_refused(actions),
            LastHeartbeat::Orphaned => self.stage = Stage::Orphaned,
        }
    }

    /// What a journal is to keep.
    pub(super) fn saved(&self, now: Now) -> Saved {
        let in_flight = |beat: &Beat| {
            self.in_flight.is_some() && self.outbox.head().is_some_and(|head| head.number == beat.number)
        };
        Saved {
            beats: self.beats,
            outbox: self
                .outbox
                .iter()
                .filter(|beat| beat.kind.brings_news())
                .map(|beat| SavedBeat::of(beat, in_flight(beat), now.wall_before(beat.age(now.elapsed))))
                .collect(),
            last_heartbeat: self.last_heartbeat,
            cause: self.cause,
            identity: self.settings.identity.clone(),
            was_seen: self.was_seen,
            statuses: self.statuses.clone(),
            confirmed_at: self
                .confirmed
                .map(|confirmed| now.wall_before(confirmed.age(now.elapsed))),
            exits: self.exits.clone(),
            late_exits: self.late_exits.clone(),
            why: self.reasons(),
            deletion_at: self.deletion_at,
            sidecar: self.sidecar(),
        }
    }
}
