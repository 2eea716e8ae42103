//! The start, afresh or where an earlier process was; and what is kept for the next one.

use std::time::Duration;

use super::{Action, Confirmed, Doubt, Machine, Note, Settings, Stage};
use crate::heartbeat::Now;
use crate::heartbeat::outbox::{Beat, Kind};
use crate::heartbeat::saved::{LastHeartbeat, Saved, SavedBeat};

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
        machine.remembered_sidecar = saved.sidecar;
        machine.last_heartbeat = saved.last_heartbeat;
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
            identity: self.settings.identity.clone(),
            was_seen: self.was_seen,
            statuses: self.statuses.clone(),
            confirmed_at: self
                .confirmed
                .map(|confirmed| now.wall_before(confirmed.age(now.elapsed))),
            exits: self.exits.clone(),
            sidecar: self.sidecar(),
        }
    }
}
