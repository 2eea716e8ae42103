//! Sending: which heartbeat goes next and when, and what is dropped instead.

use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;

use super::marker::FIRST_READ;
use super::{Action, Attempt, COLLECT, DropCause, Losses, Machine, Note, Stage};
use crate::outbox::{Beat, Kind, Outbox, exits_only};

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) attempt: u64,
    pub(super) kind: Kind,
    pub(super) started: Duration,
    pub(super) timeout: Duration,
}

/// The heartbeats that wait, and the one in flight.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pub(super) outbox: Outbox,
    /// How many heartbeats of this pod there were.
    pub(super) beats: u64,
    /// How many attempts of this process there were.
    attempts: u64,
    pub(super) in_flight: Option<InFlight>,
    last_sent: Option<Duration>,
    next_periodic: Duration,
    pub(super) losses: Losses,
}

impl Sending {
    pub(super) fn final_is_due(&self) -> bool {
        self.outbox.iter().any(|beat| beat.kind == Kind::Final)
    }

    pub(super) fn final_is_unsent(&self) -> bool {
        let unsent = |beat: &Beat| beat.kind == Kind::Final && beat.attempts == 0;
        self.outbox.iter().any(unsent)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.outbox.is_empty()
    }

    /// The attempt of which this is the answer, if it is the one in flight, is over.
    pub(super) fn answered(&mut self, attempt: u64) -> bool {
        self.in_flight
            .take_if(|in_flight| in_flight.attempt == attempt)
            .is_some()
    }

    pub(super) fn abort(&mut self, actions: &mut Vec<Action>) {
        if self.in_flight.take().is_some() {
            actions.push(Action::Abort);
        }
    }

    /// Orders an attempt of the heartbeat at the head.
    fn attempt_head(
        &mut self,
        timeout: Duration,
        token_was_refused: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(head) = self.outbox.head_mut() else {
            return;
        };
        self.attempts += 1;
        let attempt = Attempt {
            number: self.attempts,
            beat: (head.number, head.kind),
            retries: head.attempts,
            request: head.request.clone(),
            timeout,
            token_was_refused,
        };
        head.attempts = head.attempts.saturating_add(1);
        self.in_flight = Some(InFlight {
            attempt: attempt.number,
            kind: head.kind,
            started: now,
            timeout,
        });
        self.last_sent = Some(now);
        actions.push(Action::Send(attempt));
    }
}

impl Machine {
    pub(super) fn send_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let sends = match self.stage {
            Stage::Running | Stage::Settling | Stage::Looking { .. } | Stage::Final { .. } => true,
            Stage::Barrier { since, .. } => self.barrier_at(since) <= now,
            Stage::New
            | Stage::Reconsidering { .. }
            | Stage::Quiet
            | Stage::Refused
            | Stage::Orphaned
            | Stage::Over => false,
        };
        if !sends || self.sending.in_flight.is_some() || now < self.link.not_before() {
            return;
        }
        self.drop_expired(now, actions);
        if self.sending.outbox.is_empty() {
            if now < self.sending.next_periodic {
                return;
            }
            let statuses = self.fresh_statuses(now);
            self.queue(Kind::Periodic, statuses, false, now, actions);
        } else {
            self.renew_stale_periodic(now, actions);
        }
        let timeout = self.attempt_timeout(now);
        let last_statuses =
            matches!(self.stage, Stage::Final { .. }).then(|| self.last_statuses(now));
        let Some(head) = self.sending.outbox.head_mut() else {
            return;
        };
        if now < head.hold_until {
            return;
        }
        // The last heartbeat has the latest states, also if the pod showed more while an earlier
        // attempt failed.
        let mut sent = None;
        if let Some(statuses) = last_statuses
            && head.kind == Kind::Final
            && !head.stripped
        {
            sent.clone_from(&statuses);
            head.request.container_status = statuses;
        }
        // It may have become known since the heartbeat was queued. A retry of a request that may
        // have arrived has the same body, byte by byte.
        if !head.may_have_arrived && head.request.job_retry_count.is_none() {
            head.request.job_retry_count = self.settings.identity.job_retry_count;
        }
        self.unsaved |= head.kind.brings_news();
        self.sending.next_periodic = now.saturating_add(self.jittered_interval());
        self.note_marked(&sent.unwrap_or_default(), actions);
        let token_was_refused = self.link.take_token_refused();
        self.sending
            .attempt_head(timeout, token_was_refused, now, actions);
    }

    /// Drops states that are too old to be news. An exit stays news, but without the states of the
    /// other containers at that time.
    fn drop_expired(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let fresh = self.pod.is_fresh(self.settings.max_status_age, now);
        loop {
            let news = |beat: &&Beat| matches!(beat.kind, Kind::Change | Kind::LostExit);
            let outbox = &mut self.sending.outbox;
            let newest = outbox.iter().filter(news).last().map(|beat| beat.number);
            let Some(head) = outbox.head_mut() else {
                return;
            };
            let old = head.age(now) > self.settings.max_status_age;
            if !old || !matches!(head.kind, Kind::Change | Kind::LostExit) {
                return;
            }
            if head.tells_exit {
                // A retry of a request that may have arrived has the same body, byte by byte.
                if !head.may_have_arrived && head.keep_exits_only() {
                    self.sending.losses.expired += 1;
                }
                return;
            }
            let current = head.request.container_status.as_ref() == Some(&self.pod.statuses);
            if fresh && current && newest == Some(head.number) {
                return;
            }
            self.give_up_head(DropCause::Expired, actions);
        }
    }

    /// A newer periodic heartbeat, or a change behind it, contains everything that a delayed
    /// periodic heartbeat does.
    fn renew_stale_periodic(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(head) = self.sending.outbox.head() else {
            return;
        };
        let overtaken = self.sending.outbox.len() > 1;
        let old = now.saturating_sub(head.queued_at) >= self.settings.interval;
        if head.kind != Kind::Periodic || !(overtaken || old) {
            return;
        }
        self.give_up_head(DropCause::Superseded, actions);
        if !overtaken {
            let statuses = self.fresh_statuses(now);
            self.queue(Kind::Periodic, statuses, false, now, actions);
        }
    }

    pub(super) fn queue(
        &mut self,
        kind: Kind,
        statuses: Option<Vec<ContainerStatus>>,
        tells_exit: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let nonce = match &self.settings.nonce {
            Some(nonce) => nonce.clone(),
            None => format!("{:032x}", self.rng.u128(..)),
        };
        let mut request = self.settings.identity.request(nonce, statuses);
        request.last_heartbeat = (kind == Kind::Final).then_some(true);
        let last_sent = self.sending.last_sent;
        let collected = last_sent.map_or(now, |sent| sent.saturating_add(COLLECT));
        self.sending.beats += 1;
        let beat = Beat {
            number: self.sending.beats,
            kind,
            request,
            tells_exit,
            queued_at: now,
            older_by: Duration::ZERO,
            hold_until: if kind == Kind::Change && !tells_exit {
                collected.max(now)
            } else {
                now
            },
            attempts: 0,
            may_have_arrived: false,
            stripped: false,
        };
        self.unsaved |= kind.brings_news();
        for dropped in self.sending.outbox.push(beat) {
            self.lost(&dropped, DropCause::Overflow, actions);
        }
    }

    pub(super) fn give_up_head(&mut self, cause: DropCause, actions: &mut Vec<Action>) {
        if let Some(beat) = self.sending.outbox.pop() {
            self.lost(&beat, cause, actions);
        }
    }

    /// Logs and counts a heartbeat that the service will never accept.
    pub(super) fn lost(&mut self, beat: &Beat, cause: DropCause, actions: &mut Vec<Action>) {
        let kind = beat.kind;
        let statuses = beat.request.container_status.clone().unwrap_or_default();
        actions.push(Action::Note(Note::Dropped(
            beat.number,
            kind,
            cause,
            statuses,
        )));
        if kind.brings_news() {
            self.unsaved = true;
            self.sending.losses.count(cause);
        }
    }

    /// The states for a periodic heartbeat, if the API confirmed them recently.
    fn fresh_statuses(&self, now: Duration) -> Option<Vec<ContainerStatus>> {
        let fresh = self.pod.is_fresh(self.settings.max_status_age, now);
        (fresh && !self.pod.statuses.is_empty()).then(|| self.pod.statuses.clone())
    }

    /// The states for the last heartbeat: the last known ones, without those that are too old to be
    /// news. An exit never is, and if the API withholds one, an exit marker supplies it.
    pub(super) fn last_statuses(&self, now: Duration) -> Option<Vec<ContainerStatus>> {
        let statuses = self
            .fresh_statuses(now)
            .or_else(|| exits_only(self.pod.statuses.clone()));
        self.with_markers(statuses)
    }

    /// ±10 %, so that copies that started together drift apart. The spread is at most the time of
    /// one attempt, so that the gap between two heartbeats is at most interval and timeout, also if
    /// the last one waits for exit markers.
    fn jittered_interval(&mut self) -> Duration {
        let timeout = self.settings.timeout;
        let most = timeout.saturating_sub(FIRST_READ).max(timeout / 2);
        let span = (self.settings.interval / 10).min(most);
        self.settings
            .interval
            .saturating_sub(span)
            .saturating_add(span.mul_f64(2.0 * self.rng.f64()))
    }

    /// When sending goes on by itself: the attempt in flight times out, or the next one is due.
    pub(super) fn next_send(&self) -> Option<Duration> {
        let begins = match self.stage {
            Stage::Barrier { since, .. } => self.barrier_at(since),
            _ => Duration::ZERO,
        };
        let not_before = self.link.not_before();
        match (self.sending.in_flight, self.sending.outbox.head()) {
            (Some(in_flight), _) => Some(self.gives_up_at(in_flight)),
            (None, Some(head)) => Some(head.hold_until.max(not_before).max(begins)),
            (None, None) => Some(self.sending.next_periodic.max(not_before)),
        }
    }
}
