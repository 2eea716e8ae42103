//! The times of the end: the deadline, and how long each step may take.

use std::time::Duration;

use super::link::Doubt;
use super::send::InFlight;
use super::{Machine, Stage};
use crate::observation::Sidecar;
use crate::outbox::Kind;

/// How long a native sidecar waits for final states after SIGTERM. The event that shows the task's
/// end comes within some 10 ms of SIGTERM (docs/kubernetes-facts.md, fact 2). One second is ample,
/// and it is half of what is left if the grace period has run out.
const NATIVE_SETTLE: Duration = Duration::from_secs(1);

/// The time that the kubelet leaves a native sidecar after the grace period has run out, and the
/// least that it leaves any container (docs/kubernetes-facts.md, fact 3; kubelet
/// `minimumGracePeriodInSeconds`).
const LATE_GRACE: Duration = Duration::from_secs(2);

/// The time reserved for the end of the process: the last log lines, and the journal (at most a
/// quarter of a second). The kubelet's grace period starts before SIGTERM arrives. A process that
/// sends until the grace period ends is killed while it sends, and no log says that the last
/// heartbeat was not accepted.
const FAREWELL: Duration = Duration::from_millis(300);

/// The grace period of a pod that podbeat never saw: Kubernetes' default.
const UNKNOWN_GRACE: Duration = Duration::from_secs(30);

/// The longest time that the look before the last heartbeat may take.
const LOOK: Duration = Duration::from_secs(1);

/// The same for a native sidecar. Together with [`NATIVE_SETTLE`] it leaves time to send the last
/// heartbeat within the kubelet's two seconds, also if podbeat cannot know that these are all.
const NATIVE_LOOK: Duration = Duration::from_millis(500);

/// The shortest useful attempt: a TLS handshake and an answer across a region take less.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(200);

/// The same for the last heartbeat if the kubelet may leave no time for another attempt: a distant
/// or slow service has this long to answer.
const SHORTEST_LAST_ATTEMPT: Duration = Duration::from_millis(500);

/// How long podbeat retries the last heartbeat if nothing else sets a deadline (a plain sidecar
/// whose task ended, or a pod that is gone). It outlasts a service's restart or failover. A longer
/// time would keep a finished Job active.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The grace period that leaves time for this many whole attempts of the last heartbeat, each with
/// this timeout. With less, podbeat shortens the attempts.
#[must_use]
pub fn grace_for(attempts: u32, timeout: Duration) -> Duration {
    let until_sent = NATIVE_SETTLE + NATIVE_LOOK;
    timeout
        .saturating_mul(attempts)
        .saturating_add(until_sent)
        .saturating_add(FAREWELL)
}

impl Machine {
    /// When the pod's grace period or [`PATIENCE`] ends. `None` if there is no deadline.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let Some(signalled) = self.ending.signalled else {
            return match self.stage {
                // The kubelet will send SIGTERM: a native sidecar needs no deadline of its own.
                Stage::Final { .. } | Stage::Barrier { .. }
                    if self.pod.sidecar() == Sidecar::Native && !self.pod.gone =>
                {
                    None
                }
                Stage::Final { since } | Stage::Barrier { since, .. } => {
                    Some(since.saturating_add(PATIENCE))
                }
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
        let grace = self.pod.seen.as_ref().map_or(UNKNOWN_GRACE, |pod| {
            let given = pod.deletion.and_then(|deletion| deletion.grace);
            given.unwrap_or(pod.termination_grace)
        });
        let grace_ends = signalled.saturating_add(grace);
        // By the API server's clock, which may differ from this node's: it can shorten the time,
        // but never extend it.
        let ends = self
            .pod
            .deletion_ends
            .map_or(grace_ends, |deletion_ends| deletion_ends.min(grace_ends));
        let least = match self.pod.sidecar() {
            // SIGTERM comes after the task's containers are dead; if the grace period has run out,
            // this much is left.
            Sidecar::Native => LATE_GRACE.saturating_sub(FAREWELL),
            Sidecar::Plain | Sidecar::Elsewhere => LATE_GRACE / 2,
        };
        Some(
            ends.saturating_sub(FAREWELL)
                .max(signalled.saturating_add(least)),
        )
    }

    /// The deadline to plan for. After SIGTERM podbeat may have only the kubelet's two seconds: if
    /// its pod is gone from the API (a forced deletion), if podbeat never saw the pod, or if a
    /// native sidecar saw neither the end of the task nor the beginning of a deletion (the grace
    /// period may have run out). After these two seconds, the whole grace period is available.
    pub(super) fn pressing_deadline(&self, now: Duration) -> Option<Duration> {
        let deadline = self.deadline()?;
        let explained = self.pod.deletion_witnessed || self.pod.is_finished();
        let presses = match self.pod.sidecar() {
            _ if self.pod.seen.is_none() => true,
            Sidecar::Native => self.pod.gone || !explained,
            Sidecar::Plain => self.pod.gone,
            Sidecar::Elsewhere => false,
        };
        match self.ending.signalled {
            Some(signalled) if presses && now < signalled.saturating_add(LATE_GRACE) => {
                let least = LATE_GRACE.saturating_sub(FAREWELL);
                Some(deadline.min(signalled.saturating_add(least)))
            }
            Some(_) | None => Some(deadline),
        }
    }

    /// Until when podbeat waits for final states after SIGTERM.
    pub(super) fn settled_at(&self) -> Option<Duration> {
        let signalled = self.ending.signalled?;
        if self.ending.hurried {
            return Some(signalled);
        }
        let settled = match self.pod.sidecar() {
            Sidecar::Native => signalled.saturating_add(NATIVE_SETTLE),
            // Only an earlier process saw the pod: get it.
            Sidecar::Plain if self.pod.seen.is_none() => signalled,
            Sidecar::Plain => {
                // Leaves time for an attempt and a retry, but at most half of the time.
                let deadline = self.deadline()?;
                let room = deadline.saturating_sub(signalled) / 2;
                deadline.saturating_sub(room.min(self.settings.timeout * 2))
            }
            // Outside the pod (Ctrl-C), or podbeat never saw the pod: no state will follow.
            Sidecar::Elsewhere => signalled,
        };
        // By its markers the task is over. If the API will show this at all, then within this time.
        let enough = signalled.saturating_add(NATIVE_SETTLE);
        Some(if self.is_marked_finished() {
            settled.min(enough)
        } else {
            settled
        })
    }

    /// Until when podbeat waits for the API to show whether a last heartbeat was right. A native
    /// sidecar needs no deadline.
    pub(super) fn reconsiders_until(&self, since: Duration) -> Option<Duration> {
        (self.pod.sidecar() != Sidecar::Native).then(|| since.saturating_add(PATIENCE))
    }

    /// When the kubelet kills podbeat after SIGTERM to restart all containers: it leaves the
    /// shortest grace period.
    pub(super) fn restarts_at(&self) -> Option<Duration> {
        let least = LATE_GRACE.saturating_sub(FAREWELL);
        Some(self.ending.signalled?.saturating_add(least))
    }

    /// When half of the time since the last heartbeat was due has passed: podbeat then drops the
    /// heartbeats that wait before it.
    pub(super) fn skips_to_final_at(&self) -> Option<Duration> {
        let Stage::Final { since } = self.stage else {
            return None;
        };
        if !self.sending.outbox.holds_transitions() {
            return None;
        }
        let from = since.max(self.ending.signalled.unwrap_or(since));
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

    /// When the attempt in flight times out. If a deadline is near, an attempt of the last
    /// heartbeat gets at most half of the time left, and one before it at most a quarter, but never
    /// less than the shortest useful attempt.
    pub(super) fn gives_up_at(&self, in_flight: InFlight) -> Duration {
        let timeout = in_flight.started.saturating_add(in_flight.timeout);
        let Stage::Final { since } = self.stage else {
            return timeout;
        };
        let from = since
            .max(self.ending.signalled.unwrap_or(since))
            .max(in_flight.started);
        let Some(deadline) = self.pressing_deadline(from) else {
            return timeout;
        };
        let left = deadline.saturating_sub(from);
        let share = match in_flight.kind {
            Kind::Final => (left / 2).max(SHORTEST_LAST_ATTEMPT),
            Kind::First | Kind::Periodic | Kind::Change | Kind::LostExit => {
                (left / 4).max(SHORTEST_ATTEMPT)
            }
        };
        timeout.min(from.saturating_add(share))
    }

    /// How long the look before the last heartbeat may take at this time.
    pub(super) fn look_limit(&self, now: Duration) -> Duration {
        let most = match self.pod.sidecar() {
            Sidecar::Native => NATIVE_LOOK,
            Sidecar::Plain | Sidecar::Elsewhere => LOOK,
        };
        self.pressing_deadline(now)
            .map_or(most, |deadline| most.min(deadline.saturating_sub(now) / 4))
    }

    /// When podbeat repeats an accepted last heartbeat: as soon as no earlier request can arrive,
    /// or when half of the time left has passed.
    pub(super) fn barrier_at(&self, since: Duration) -> Duration {
        let at = match self.link.doubt() {
            Doubt::Until(until) => until,
            // Accepted by an earlier process, at an unknown time.
            Doubt::Open => since.saturating_add(self.settings.timeout),
            Doubt::None => since,
        };
        match (self.deadline(), self.ending.signalled) {
            (Some(deadline), Some(signalled)) => {
                let from = since.max(signalled);
                at.min(from.saturating_add(deadline.saturating_sub(from) / 2))
            }
            (Some(_) | None, _) => at,
        }
    }
}
