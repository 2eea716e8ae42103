//! The arithmetic of the end: until when, and how long for each step on the way.

use std::time::Duration;

use super::{Doubt, InFlight, Machine, Stage};
use crate::completion::is_finished;
use crate::observation::Sidecar;
use crate::outbox::Kind;

/// A native sidecar's SIGTERM and the event that shows the task's end come within some 10 ms of one another (design
/// fact 2). A second is ample, and half of what is left if the grace has run out.
const NATIVE_SETTLE: Duration = Duration::from_secs(1);

/// What the kubelet leaves a native sidecar once the grace is used up, and at least leaves any container (design fact
/// 3; kubelet `minimumGracePeriodInSeconds`).
const LATE_GRACE: Duration = Duration::from_secs(2);

/// What is kept back of the grace for the end itself: the last words in the log, and the journal (a quarter of a second at
/// most). The kubelet counts the grace from before the SIGTERM arrives, so that whoever tries on until it is over is killed in
/// trying, and nobody learns that the last heartbeat was not accepted.
const FAREWELL: Duration = Duration::from_millis(300);

/// What is taken for the grace before the pod was seen: Kubernetes' default.
const UNKNOWN_GRACE: Duration = Duration::from_secs(30);

/// The most that the look before the last heartbeat may take.
const LOOK: Duration = Duration::from_secs(1);

/// The same for a native sidecar: with the second before it, the last heartbeat is on its way before the kubelet's two
/// seconds are over, also where nothing tells that these two are all.
const NATIVE_LOOK: Duration = Duration::from_millis(500);

/// The shortest attempt that is worth making: a TLS handshake and an answer across a region take less.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(200);

/// The same for the last heartbeat where the kubelet may leave no time for another: a service far away or slow has this
/// long to answer.
const SHORTEST_LAST_ATTEMPT: Duration = Duration::from_millis(500);

/// The shortest wait between two attempts when a deadline presses.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// How long the last heartbeat is tried where nothing else sets an end (a plain sidecar whose task is done, a pod
/// object that is gone). It outlasts a service's restart or failover; longer would hold a finished Job open.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How much grace lets a last heartbeat have so many whole attempts, each of this time-out. With less, attempts are cut short.
#[must_use]
pub fn grace_for(attempts: u32, timeout: Duration) -> Duration {
    let until_sent = NATIVE_SETTLE + NATIVE_LOOK;
    timeout
        .saturating_mul(attempts)
        .saturating_add(until_sent)
        .saturating_add(FAREWELL)
}

impl Machine {
    /// When what is left of the pod's grace ends, or our own patience. `None` while nothing presses.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let Some(signalled) = self.signalled else {
            return match self.stage {
                // The kubelet will send SIGTERM: a native sidecar need not set an end of its own.
                Stage::Final { .. } | Stage::Barrier { .. }
                    if self.sidecar() == Sidecar::Native && !self.gone =>
                {
                    None
                }
                Stage::Final { since } | Stage::Barrier { since, .. } => Some(since.saturating_add(PATIENCE)),
                Stage::New
                | Stage::Running
                | Stage::Reconsidering { .. }
                | Stage::Settling
                | Stage::Looking { .. }
                | Stage::Quiet
                | Stage::Refused
                | Stage::Orphaned
                | Stage::Over => None,
            };
        };
        let grace = self.seen.as_ref().map_or(UNKNOWN_GRACE, |pod| {
            let given = pod.deletion.and_then(|deletion| deletion.grace);
            given.unwrap_or(pod.termination_grace)
        });
        let grace_ends = signalled.saturating_add(grace);
        // By the API server's clock, which may not be ours: it can bring the end nearer, never put it off.
        let ends = self
            .deletion_ends
            .map_or(grace_ends, |deletion_ends| deletion_ends.min(grace_ends));
        let least = match self.sidecar() {
            // SIGTERM comes after the task's containers are dead; if the grace is used up, this much is left.
            Sidecar::Native => LATE_GRACE.saturating_sub(FAREWELL),
            Sidecar::Plain | Sidecar::Elsewhere => LATE_GRACE / 2,
        };
        Some(ends.saturating_sub(FAREWELL).max(signalled.saturating_add(least)))
    }

    /// The deadline to plan by: after SIGTERM podbeat may have no more than the least that the kubelet leaves, if its pod
    /// is gone from the API (a forced deletion), if it was never seen, or if a native sidecar sees neither an end of the
    /// task nor the beginning of a deletion (the grace may be used up).
    /// Whoever outlives these two seconds has the whole grace.
    pub(super) fn pressing_deadline(&self, now: Duration) -> Option<Duration> {
        let deadline = self.deadline()?;
        let explained = self.deletion_witnessed || self.seen.as_ref().is_some_and(is_finished);
        let presses = match self.sidecar() {
            _ if self.seen.is_none() => true,
            Sidecar::Native => self.gone || !explained,
            Sidecar::Plain => self.gone,
            Sidecar::Elsewhere => false,
        };
        match self.signalled {
            Some(signalled) if presses && now < signalled.saturating_add(LATE_GRACE) => {
                let least = LATE_GRACE.saturating_sub(FAREWELL);
                Some(deadline.min(signalled.saturating_add(least)))
            }
            Some(_) | None => Some(deadline),
        }
    }

    /// Until when, after SIGTERM, fresher states are awaited.
    pub(super) fn settled_at(&self) -> Option<Duration> {
        let signalled = self.signalled?;
        if self.hurried {
            return Some(signalled);
        }
        let settled = match self.sidecar() {
            Sidecar::Native => signalled.saturating_add(NATIVE_SETTLE),
            // An earlier process knew the pod, and this one nothing yet of its end: ask.
            Sidecar::Plain if self.seen.is_none() => signalled,
            Sidecar::Plain => {
                // Room for one attempt and a retry, but never more than half of what there is.
                let deadline = self.deadline()?;
                let room = deadline.saturating_sub(signalled) / 2;
                deadline.saturating_sub(room.min(self.settings.timeout * 2))
            }
            // Run from outside (Ctrl-C), or never saw the pod: there is nothing to wait for.
            Sidecar::Elsewhere => signalled,
        };
        // By its markers the task is over, and if the API is going to tell so, it does it within this time.
        let enough = signalled.saturating_add(NATIVE_SETTLE);
        Some(if self.is_marked_finished() {
            settled.min(enough)
        } else {
            settled
        })
    }

    /// Until when the API is asked whether a last heartbeat stands. A native sidecar need not set an end.
    pub(super) fn reconsiders_until(&self, since: Duration) -> Option<Duration> {
        (self.sidecar() != Sidecar::Native).then(|| since.saturating_add(PATIENCE))
    }

    /// When, after SIGTERM, the kubelet kills podbeat to restart all containers: it leaves the least grace.
    pub(super) fn restarts_at(&self) -> Option<Duration> {
        let least = LATE_GRACE.saturating_sub(FAREWELL);
        Some(self.signalled?.saturating_add(least))
    }

    /// When, of what is left since the last heartbeat was due, half is gone: what waits before it is left out then.
    pub(super) fn skips_to_final_at(&self) -> Option<Duration> {
        let Stage::Final { since } = self.stage else {
            return None;
        };
        if !self.outbox.holds_transitions() {
            return None;
        }
        let from = since.max(self.signalled.unwrap_or(since));
        let deadline = self.pressing_deadline(from)?;
        Some(from.saturating_add(deadline.saturating_sub(from) / 2))
    }

    pub(super) fn attempt_timeout(&self, now: Duration) -> Duration {
        let Some(deadline) = self.deadline() else {
            return self.settings.timeout;
        };
        let left = deadline.saturating_sub(now);
        self.settings.timeout.min((left / 2).max(SHORTEST_ATTEMPT))
    }

    /// An attempt gets its time-out; but of what is left before a deadline, one of the last heartbeat gets no more than
    /// half, and one that stands in its way no more than a quarter; each with what is worth an attempt at all.
    pub(super) fn gives_up_at(&self, in_flight: InFlight) -> Duration {
        let timeout = in_flight.started.saturating_add(in_flight.timeout);
        let Stage::Final { since } = self.stage else {
            return timeout;
        };
        let from = since.max(self.signalled.unwrap_or(since)).max(in_flight.started);
        let Some(deadline) = self.pressing_deadline(from) else {
            return timeout;
        };
        let left = deadline.saturating_sub(from);
        let share = match in_flight.kind {
            Kind::Final => (left / 2).max(SHORTEST_LAST_ATTEMPT),
            Kind::First | Kind::Periodic | Kind::Change | Kind::LostExit => (left / 4).max(SHORTEST_ATTEMPT),
        };
        timeout.min(from.saturating_add(share))
    }

    /// How long the look before the last heartbeat may take.
    pub(super) fn look_limit(&self, now: Duration) -> Duration {
        let most = match self.sidecar() {
            Sidecar::Native => NATIVE_LOOK,
            Sidecar::Plain | Sidecar::Elsewhere => LOOK,
        };
        self.pressing_deadline(now)
            .map_or(most, |deadline| most.min(deadline.saturating_sub(now) / 4))
    }

    /// When an accepted last heartbeat goes once more: as soon as no earlier request can arrive any more, or when half of
    /// what is left has passed.
    pub(super) fn barrier_at(&self, since: Duration) -> Duration {
        let at = match self.doubt {
            Doubt::Until(until) => until,
            // An earlier process had it accepted, and left no word of how long ago.
            Doubt::Open => since.saturating_add(self.settings.timeout),
            Doubt::None => since,
        };
        match (self.deadline(), self.signalled) {
            (Some(deadline), Some(signalled)) => {
                let from = since.max(signalled);
                at.min(from.saturating_add(deadline.saturating_sub(from) / 2))
            }
            (Some(_) | None, _) => at,
        }
    }
}
