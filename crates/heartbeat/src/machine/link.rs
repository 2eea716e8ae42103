//! The link to the service: when podbeat may send again, and what earlier answers leave open.

use std::time::Duration;

use crate::answer::Answer;
use crate::backoff::{self, Backoff};

/// The longest time to which podbeat limits a Retry-After: the run would time out.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(5 * 60);

/// podbeat concludes that the run no longer belongs to this pod after this many answers that say
/// so …
const DISOWNED_ANSWERS: u32 = 3;
/// … over at least this time (docs/protocol.md).
const DISOWNED_FOR: Duration = Duration::from_secs(30);

/// The shortest wait between two attempts when a deadline is near.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Whether an earlier heartbeat that got no answer, or only a gateway's, may still arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doubt {
    /// No such heartbeat exists.
    #[default]
    None,
    /// The network or the service may still hold it: no heartbeat was accepted since.
    Open,
    /// One was accepted since, so the way is free: the earlier one arrives within the time of one
    /// attempt, until then.
    Until(Duration),
}

#[derive(Debug, Default)]
pub(super) struct Link {
    backoff: Backoff,
    not_before: Duration,
    /// Whether Retry-After asked for the wait, so that only a deadline shortens it.
    wait_is_asked: bool,
    /// Whether the last answer refused the token.
    token_refused: bool,
    /// Whether podbeat tried another token at once since the service last accepted a heartbeat.
    tried_another_token: bool,
    /// How many answers said that the run belongs to no pod or to another, and when the first came.
    disowned: Option<(u32, Duration)>,
    doubt: Doubt,
}

impl Link {
    /// The earliest time of the next attempt.
    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }

    pub(super) fn doubt(&self) -> Doubt {
        self.doubt
    }

    /// An attempt may still arrive, for example one of an earlier process.
    pub(super) fn may_still_deliver(&mut self) {
        self.doubt = Doubt::Open;
    }

    /// An answer came, whatever it says.
    pub(super) fn answered(&mut self, answer: &Answer) {
        self.token_refused = *answer == Answer::Unauthorized;
    }

    /// Whether the last answer refused the token. Says so once.
    pub(super) fn take_token_refused(&mut self) -> bool {
        std::mem::take(&mut self.token_refused)
    }

    pub(super) fn accepted(&mut self, now: Duration, timeout: Duration) {
        self.backoff.reset();
        self.not_before = now;
        self.wait_is_asked = false;
        self.tried_another_token = false;
        self.disowned = None;
        if self.doubt == Doubt::Open {
            self.doubt = Doubt::Until(now.saturating_add(timeout));
        }
    }

    pub(super) fn retry_now(&mut self, now: Duration) {
        self.not_before = now;
    }

    /// The service refused the token. Whether another one is worth an attempt at once: the first
    /// time, then a refusal is a failure like any other.
    pub(super) fn tries_another_token(&mut self) -> bool {
        !std::mem::replace(&mut self.tried_another_token, true)
    }

    /// Counts one more answer that says that the run belongs to no pod or to another. Returns
    /// whether podbeat concludes that this is so.
    pub(super) fn disowned(&mut self, now: Duration) -> bool {
        let (count, since) = self.disowned.unwrap_or((0, now));
        let count = count.saturating_add(1);
        self.disowned = Some((count, since));
        count >= DISOWNED_ANSWERS && now.saturating_sub(since) >= DISOWNED_FOR
    }

    /// Draws the wait after a failure, and returns the time of the next attempt. If a deadline is
    /// near, the wait is at most a third of what is left, so that some attempts fit.
    pub(super) fn wait_after_failure(
        &mut self,
        answer: &Answer,
        deadline: Option<Duration>,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        let asked = answer.retry_after();
        let mut wait = self.backoff.after_failure(rng);
        self.wait_is_asked = asked.is_some();
        if let Some(asked) = asked {
            let asked = asked.min(RETRY_AFTER_CAP);
            // Some time on top: the service asked many clients, and they must not return together.
            let apart = (asked / 2).min(backoff::CAP).mul_f64(rng.f64());
            wait = asked + wait.max(apart);
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_sub(now);
            wait = wait.min((left / 3).max(SHORTEST_WAIT));
        }
        self.not_before = now.saturating_add(wait);
        self.not_before
    }

    /// Ends the wait now. A wait that Retry-After asked for takes at most a third of the time that
    /// is left before a deadline.
    pub(super) fn cut_wait_short(&mut self, deadline: Option<Duration>, now: Duration) {
        if !self.wait_is_asked {
            self.backoff.reset();
            self.not_before = self.not_before.min(now);
        } else if let Some(deadline) = deadline {
            let left = deadline.saturating_sub(now);
            self.not_before = self.not_before.min(now.saturating_add(left / 3));
        }
    }
}
