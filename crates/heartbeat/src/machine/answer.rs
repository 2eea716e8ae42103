//! The service's answers: what each means for the heartbeat, the run and the next attempt.

use std::time::Duration;

use super::link::Doubt;
use super::{Action, DropCause, End, Machine, Note, Stage};
use crate::Now;
use crate::answer::{Answer, LastAnswer};
use crate::outbox::Kind;
use crate::saved::LastHeartbeat;

/// How often podbeat tries to repeat the last heartbeat after the service accepted it, because an
/// earlier request may arrive late.
const REPEATS: u32 = 3;

impl Machine {
    pub(super) fn give_up_slow_attempt(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Some(in_flight) = self.sending.in_flight
            && self.gives_up_at(in_flight) <= now.elapsed
        {
            actions.push(Action::Abort);
            self.answered(in_flight.attempt, &Answer::Ambiguous, now, actions);
        }
    }

    pub(super) fn answered(
        &mut self,
        attempt: u64,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !self.sending.answered(attempt) {
            return;
        }
        self.link.answered(answer);
        if let Stage::Barrier { since, tries } = self.stage {
            self.barrier_answered(since, tries, answer, now, actions);
            return;
        }
        let Some(head) = self.sending.outbox.head_mut() else {
            return;
        };
        self.unsaved |= head.kind.brings_news();
        let beat = (head.number, head.kind);
        let is_final = head.kind == Kind::Final;
        let mut failed = |retry_at| {
            actions.push(Action::Note(Note::Failed {
                beat,
                answer: answer.clone(),
                retry_at,
            }));
        };
        if is_final {
            match answer.of_last_heartbeat(head.stripped, head.may_have_arrived) {
                LastAnswer::Accepted => return self.accepted(now.elapsed, actions),
                LastAnswer::WithoutStates => {
                    head.stripped = true;
                    head.request.container_status = None;
                    failed(Some(now.elapsed));
                    return self.link.retry_now(now.elapsed);
                }
                LastAnswer::Refused => {
                    failed(None);
                    self.ending.last_heartbeat = LastHeartbeat::Refused;
                    return self.final_refused(actions);
                }
                LastAnswer::NotOurs | LastAnswer::TryAgain => {}
            }
        }
        match answer {
            Answer::Accepted => self.accepted(now.elapsed, actions),
            Answer::Refused { .. } => {
                failed(None);
                self.give_up_head(DropCause::Refused, actions);
            }
            Answer::Disowned { .. } if self.link.disowned(now.elapsed) => {
                failed(None);
                self.orphan(actions);
            }
            Answer::Unauthorized if self.link.tries_another_token() => {
                failed(Some(now.elapsed));
                self.link.retry_now(now.elapsed);
            }
            Answer::Disowned { .. }
            | Answer::Unauthorized
            | Answer::Forbidden
            | Answer::NotSent
            | Answer::Unavailable { .. }
            | Answer::Ambiguous => {
                if answer.leaves_in_doubt() {
                    head.may_have_arrived = true;
                    if !is_final {
                        self.link.may_still_deliver();
                    }
                }
                failed(Some(self.wait_after_failure(answer, now.elapsed)));
            }
        }
    }

    fn accepted(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.link.accepted(now, self.settings.timeout);
        let Some(head) = self.sending.outbox.head() else {
            return;
        };
        actions.push(Action::Note(Note::Accepted(head.number, head.kind)));
        if head.kind != Kind::Final {
            self.sending.outbox.pop();
            return;
        }
        self.ending.last_heartbeat = LastHeartbeat::Accepted;
        actions.push(Action::StopWatching);
        match self.link.doubt() {
            Doubt::Until(until) if until > now => {
                actions.push(Action::Note(Note::Barrier { until }));
                self.stage = Stage::Barrier {
                    since: now,
                    tries: 0,
                };
            }
            Doubt::Until(_) | Doubt::Open | Doubt::None => self.delivered(actions),
        }
    }

    /// The answer to the repetition of an accepted last heartbeat. The service has the run's end,
    /// whatever the answer.
    fn barrier_answered(
        &mut self,
        since: Duration,
        tries: u32,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let tries = tries.saturating_add(1);
        match answer {
            Answer::Accepted => {
                if let Some(head) = self.sending.outbox.head() {
                    actions.push(Action::Note(Note::Accepted(head.number, head.kind)));
                }
                self.delivered(actions);
            }
            // The run is closed to every request, also to a late one.
            Answer::Disowned { .. } => self.delivered(actions),
            Answer::Unavailable { .. }
            | Answer::Unauthorized
            | Answer::Forbidden
            | Answer::NotSent
            | Answer::Ambiguous
                if tries < REPEATS =>
            {
                self.stage = Stage::Barrier { since, tries };
                self.wait_after_failure(answer, now.elapsed);
            }
            Answer::Refused { .. }
            | Answer::Unavailable { .. }
            | Answer::Unauthorized
            | Answer::Forbidden
            | Answer::NotSent
            | Answer::Ambiguous => {
                actions.push(Action::Note(Note::BarrierFailed));
                self.delivered(actions);
            }
        }
    }

    /// The last heartbeat is the last request that the service got.
    pub(super) fn delivered(&mut self, actions: &mut Vec<Action>) {
        self.unsaved = true;
        self.sending.outbox.pop();
        if self.idles_until_signal() {
            self.stage = Stage::Quiet;
        } else {
            self.end(End::Delivered, actions);
        }
    }

    /// The service refuses the last heartbeat, with and without states. It stays in the outbox, so
    /// that a journal shows it.
    pub(super) fn final_refused(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::StopWatching);
        if self.idles_until_signal() {
            self.stage = Stage::Refused;
        } else {
            self.undelivered(DropCause::Refused, actions);
        }
    }

    fn orphan(&mut self, actions: &mut Vec<Action>) {
        self.unsaved = true;
        self.ending.last_heartbeat = LastHeartbeat::Orphaned;
        for beat in self.sending.outbox.take_if(|_| true) {
            self.lost(&beat, DropCause::Orphaned, actions);
        }
        actions.push(Action::Note(Note::Orphaned));
        self.stage = Stage::Orphaned;
    }

    fn wait_after_failure(&mut self, answer: &Answer, now: Duration) -> Duration {
        let deadline = self.pressing_deadline(now);
        self.link
            .wait_after_failure(answer, deadline, now, &mut self.rng)
    }
}
