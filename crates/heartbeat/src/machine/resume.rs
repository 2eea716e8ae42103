//! The start, without a journal or with the one of an earlier process; and what the journal keeps.

use std::time::Duration;

use super::pod::Confirmed;
use super::{Action, Cause, Machine, Note, Settings, Stage};
use crate::Now;
use crate::completion::is_finished;
use crate::observation::{BACKS_OFF, Container, Observation, Role, State};
use crate::outbox::{Beat, Kind};
use crate::saved::{LastHeartbeat, Saved, SavedBeat};

/// What the pod says about a last heartbeat that was due only for a signal.
pub(super) enum Reconsidered {
    /// The task continues, or ended in another way than reported: withdraw it.
    Continues,
    /// The pod is at its end: the last heartbeat was right.
    Over,
    /// The pod does not show it yet.
    Unknown,
}

impl Machine {
    /// A machine that continues where an earlier process of the same pod ended. It has not started.
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
            // It may have been attempted: it collects no further changes.
            attempts: 1,
            may_have_arrived: beat.may_have_arrived,
            stripped: beat.stripped,
        };
        for beat in saved.outbox.into_iter().map(restored) {
            // The outbox of the earlier process had the same bounds.
            let _ = machine.sending.outbox.push(beat);
        }
        machine.sending.beats = saved.beats;
        machine.settings.identity.take_over(saved.identity);
        machine.pod.was_seen = saved.was_seen;
        machine.pod.statuses = saved.statuses;
        machine.pod.exits = saved.exits;
        machine.pod.late_exits = saved.late_exits;
        machine.pod.reasons.earlier = saved.why;
        machine.pod.reasons.deletion_at = saved.deletion_at;
        machine.pod.remembered_sidecar = saved.sidecar;
        machine.ending.last_heartbeat = saved.last_heartbeat;
        machine.ending.cause = saved.cause;
        machine.pod.confirmed = saved.confirmed_at.map(|at| Confirmed {
            at: now.elapsed,
            older_by: now.since(at),
        });
        // The earlier process's last request may still arrive.
        machine.link.may_still_deliver();
        machine.resumed = true;
        machine
    }

    pub(super) fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stage != Stage::New {
            return;
        }
        if self.resumed {
            actions.push(Action::Note(Note::Resumed {
                waiting: self.sending.outbox.len(),
                last_heartbeat: self.ending.last_heartbeat,
            }));
        }
        self.stage = Stage::Reconsidering { since: now };
        let for_signal = matches!(self.ending.cause, Some(Cause::Signal | Cause::Marked));
        let is_open = match self.ending.last_heartbeat {
            LastHeartbeat::Open => self.sending.final_is_due(),
            LastHeartbeat::Accepted | LastHeartbeat::Refused => true,
            LastHeartbeat::Orphaned => false,
        };
        if !(for_signal && is_open) {
            self.uphold(now, actions);
        }
    }

    /// Compares the pod with a last heartbeat that was due only for a signal. Since then the
    /// kubelet restarted podbeat's container, which it never does in a pod that it is stopping.
    pub(super) fn reconsidered(&self, pod: &Observation) -> Reconsidered {
        if pod.deletion.is_some() || pod.phase_is_terminal {
            return Reconsidered::Over;
        }
        if is_finished(pod) {
            // A marker showed the end; or the heartbeat is not sent yet, and will show it.
            let is_reported = self.ending.cause == Some(Cause::Marked)
                || self.ending.last_heartbeat == LastHeartbeat::Open;
            return if is_reported {
                Reconsidered::Over
            } else {
                Reconsidered::Continues
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
            Reconsidered::Continues
        } else {
            Reconsidered::Unknown
        }
    }

    /// Withdraws the last heartbeat of an earlier process, and continues.
    pub(super) fn reopen(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Note::Reopened(self.ending.last_heartbeat)));
        self.withdraw_final();
        self.ending.last_heartbeat = LastHeartbeat::Open;
        // Changes since then may not have been reported: all states are news again.
        self.pod.late_exits.clear();
        self.pod.statuses.clear();
        self.stage = Stage::Running;
    }

    /// Continues from the earlier process's last heartbeat, or without one.
    pub(super) fn uphold(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let due = self.sending.final_is_due();
        match self.ending.last_heartbeat {
            LastHeartbeat::Open if due => {
                self.stage = Stage::Final { since: now };
                // Its exits may be from markers, and each attempt collects the states again.
                self.ending.resumed_final = true;
                self.ask_for_markers(now, actions);
                self.hold_for_markers(now);
            }
            LastHeartbeat::Open => {
                self.stage = Stage::Running;
                if self.sending.outbox.is_empty() {
                    self.queue(Kind::First, None, false, now, actions);
                }
            }
            LastHeartbeat::Accepted => {
                actions.push(Action::StopWatching);
                if due {
                    self.stage = Stage::Barrier {
                        since: now,
                        tries: 0,
                    };
                } else {
                    self.delivered(actions);
                }
            }
            LastHeartbeat::Refused => self.final_refused(actions),
            LastHeartbeat::Orphaned => self.stage = Stage::Orphaned,
        }
    }

    /// What the journal must keep.
    pub(super) fn saved(&self, now: Now) -> Saved {
        let in_flight = |beat: &Beat| {
            self.sending.in_flight.is_some()
                && self
                    .sending
                    .outbox
                    .head()
                    .is_some_and(|head| head.number == beat.number)
        };
        Saved {
            beats: self.sending.beats,
            outbox: self
                .sending
                .outbox
                .iter()
                .filter(|beat| beat.kind.brings_news())
                .map(|beat| {
                    SavedBeat::of(
                        beat,
                        in_flight(beat),
                        now.wall_before(beat.age(now.elapsed)),
                    )
                })
                .collect(),
            last_heartbeat: self.ending.last_heartbeat,
            cause: self.ending.cause,
            identity: self.settings.identity.clone(),
            was_seen: self.pod.was_seen,
            statuses: self.pod.statuses.clone(),
            confirmed_at: self
                .pod
                .confirmed
                .map(|confirmed| now.wall_before(confirmed.age(now.elapsed))),
            exits: self.pod.exits.clone(),
            late_exits: self.pod.late_exits.clone(),
            why: self.pod.reasons.kept(),
            deletion_at: self.pod.reasons.deletion_at,
            sidecar: self.pod.sidecar(),
        }
    }
}
