//! The end: from a signal, a finished task or a missing pod to the last heartbeat, and to the end
//! of the process.

use std::time::Duration;

use super::{Action, Cause, DropCause, End, Machine, Note, Stage};
use crate::observation::Sidecar;
use crate::outbox::Kind;
use crate::saved::LastHeartbeat;

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) last_heartbeat: LastHeartbeat,
    /// Why the last heartbeat is due, if it is.
    pub(super) cause: Option<Cause>,
    /// When the first signal came.
    pub(super) signalled: Option<Duration>,
    /// Whether a second signal came: podbeat waits for no fresher states.
    pub(super) hurried: bool,
    /// Whether an earlier process left a last heartbeat that the service has not accepted yet.
    pub(super) resumed_final: bool,
}

impl Ending {
    /// A signal came. Returns whether it is not the first.
    fn signal(&mut self, now: Duration) -> bool {
        let again = self.signalled.is_some();
        self.hurried = again;
        self.signalled.get_or_insert(now);
        again
    }
}

impl Machine {
    pub(super) fn signal(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let again = self.ending.signal(now);
        actions.push(Action::Note(Note::Signal { again }));
        if !again {
            actions.push(Action::HurryWatch);
        }
        match self.stage {
            Stage::Running | Stage::New => self.stage = Stage::Settling,
            Stage::Reconsidering { .. } => self.uphold(now, actions),
            // The deadline is known now: a heartbeat must not wait out a backoff.
            Stage::Final { .. } | Stage::Barrier { .. } => self.cut_wait_short(now),
            Stage::Settling
            | Stage::Looking { .. }
            | Stage::Quiet
            | Stage::Refused
            | Stage::Orphaned
            | Stage::Over => {}
        }
    }

    /// Changes the stage if what is known, or the time, requires it.
    pub(super) fn step(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let restarting = self.is_restarting();
        if restarting && matches!(self.stage, Stage::Final { .. }) && self.sending.final_is_unsent()
        {
            // It was due only for the signal, and now the reason for the signal is known.
            self.withdraw_final();
            self.stage = Stage::Settling;
        }
        let finished = self.pod.is_finished();
        let cause = if self.pod.gone {
            Some(Cause::Gone)
        } else {
            finished.then_some(Cause::Completed)
        };
        let marked = self.is_marked_finished();
        // While podbeat lives, the API shows no exit of a pod that is being deleted: waiting for
        // one is useless.
        let waits_in_vain = marked && self.pod.is_deleted();
        match self.stage {
            Stage::Running => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                }
            }
            Stage::Reconsidering { since } => {
                if self.pod.gone
                    || self
                        .reconsiders_until(since)
                        .is_some_and(|until| until <= now)
                {
                    self.uphold(now, actions);
                }
            }
            Stage::Settling | Stage::Looking { .. } if restarting => {
                self.leave_for_restart(now, actions)
            }
            Stage::Settling => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                } else if waits_in_vain {
                    self.begin_final(Cause::Marked, now, actions);
                } else if self.settled_at().is_none_or(|settled| settled <= now) {
                    let look = self.look_limit(now);
                    self.stage = Stage::Looking {
                        until: now.saturating_add(look),
                    };
                    actions.push(Action::LookAtPod(look));
                }
            }
            Stage::Looking { until } => {
                if cause.is_some() || until <= now || waits_in_vain {
                    let of_signal = if marked { Cause::Marked } else { Cause::Signal };
                    self.begin_final(cause.unwrap_or(of_signal), now, actions);
                }
            }
            Stage::Final { .. } => {
                if self.skips_to_final_at().is_some_and(|at| at <= now) {
                    self.skip_to_final(now, actions);
                }
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.sending.abort(actions);
                    self.skip_to_final(now, actions);
                    self.undelivered(DropCause::Deadline, actions);
                }
            }
            Stage::Barrier { .. } => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.sending.abort(actions);
                    actions.push(Action::Note(Note::BarrierFailed));
                    self.delivered(actions);
                }
            }
            Stage::Quiet => {
                if self.ending.signalled.is_some() {
                    self.end(End::Delivered, actions);
                }
            }
            Stage::Refused => {
                if self.ending.signalled.is_some() {
                    self.undelivered(DropCause::Refused, actions);
                }
            }
            Stage::Orphaned => {
                let leaves = self.pod.sidecar() != Sidecar::Native && finished;
                if self.ending.signalled.is_some() || self.pod.gone || leaves {
                    self.end(End::Orphaned, actions);
                }
            }
            Stage::New | Stage::Over => {}
        }
    }

    /// Whether the API or exit markers show that all containers are about to restart.
    pub(super) fn is_restarting(&self) -> bool {
        !self.pod.gone
            && self
                .pod
                .seen
                .as_ref()
                .is_some_and(|pod| pod.restarts_all() || self.is_marked_restarting(pod))
    }

    /// Ends without a last heartbeat, once the outbox is empty or the time is up. The journal, if
    /// there is one, keeps the rest.
    fn leave_for_restart(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.sending.is_idle() || self.restarts_at().is_none_or(|at| at <= now) {
            self.sending.abort(actions);
            self.end(End::Restarting, actions);
        }
    }

    fn begin_final(&mut self, cause: Cause, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Note::Final(cause)));
        self.ending.cause = Some(cause);
        let outbox = &mut self.sending.outbox;
        let attempted = self
            .sending
            .in_flight
            .map(|_| outbox.head().map_or(0, |head| head.number));
        let superseded =
            outbox.take_if(|beat| beat.kind == Kind::Periodic && Some(beat.number) != attempted);
        for beat in superseded {
            self.lost(&beat, DropCause::Superseded, actions);
        }
        self.stage = Stage::Final { since: now };
        let statuses = self.last_statuses(now);
        self.queue(Kind::Final, statuses, false, now, actions);
        self.hold_for_markers(now);
        self.cut_wait_short(now);
    }

    pub(super) fn withdraw_final(&mut self) {
        let _ = self.sending.outbox.take_if(|beat| beat.kind == Kind::Final);
        self.ending.cause = None;
        self.unsaved = true;
    }

    fn skip_to_final(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let in_flight = self.sending.in_flight;
        if in_flight.is_some_and(|in_flight| in_flight.kind != Kind::Final) {
            self.sending.abort(actions);
            self.link.may_still_deliver();
        }
        for beat in self.sending.outbox.take_if(|beat| beat.kind != Kind::Final) {
            self.lost(&beat, DropCause::Deadline, actions);
        }
        // The last heartbeat must not wait as long as the others did.
        self.cut_wait_short(now);
    }

    fn cut_wait_short(&mut self, now: Duration) {
        let deadline = self.pressing_deadline(now);
        self.link.cut_wait_short(deadline, now);
    }

    /// Whether podbeat stays until SIGTERM: the kubelet restarts a native sidecar that ends
    /// earlier.
    pub(super) fn idles_until_signal(&self) -> bool {
        self.pod.sidecar() == Sidecar::Native && self.ending.signalled.is_none() && !self.pod.gone
    }

    /// Ends without an accepted last heartbeat. It stays in the outbox, so that a journal shows it.
    pub(super) fn undelivered(&mut self, cause: DropCause, actions: &mut Vec<Action>) {
        let last = self
            .sending
            .outbox
            .iter()
            .find(|beat| beat.kind == Kind::Final);
        let Some(last) = last.cloned() else {
            return;
        };
        self.lost(&last, cause, actions);
        self.end(End::Undelivered(Box::new(last.request)), actions);
    }

    pub(super) fn end(&mut self, end: End, actions: &mut Vec<Action>) {
        self.stage = Stage::Over;
        actions.push(Action::End(end));
    }
}
