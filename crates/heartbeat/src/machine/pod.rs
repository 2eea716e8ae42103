//! The pod as known to this process, and to earlier ones: what the API last showed, and what of it
//! a heartbeat has reported.

use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;

use super::reasons::Reasons;
use crate::Now;
use crate::completion::is_finished;
use crate::observation::{BACKS_OFF, Exit, Observation, Sidecar, State};

/// When the API last showed or confirmed the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmed {
    pub(super) at: Duration,
    /// How old that was when this process began.
    pub(super) older_by: Duration,
}

impl Confirmed {
    pub(super) fn age(self, now: Duration) -> Duration {
        now.saturating_sub(self.at).saturating_add(self.older_by)
    }
}

#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) seen: Option<Observation>,
    pub(super) confirmed: Option<Confirmed>,
    /// Whether this process or an earlier one ever saw this pod.
    pub(super) was_seen: bool,
    /// How podbeat's container is declared, as an earlier process saw it.
    pub(super) remembered_sidecar: Sidecar,
    /// The states that the API last showed, as reported.
    pub(super) statuses: Vec<ContainerStatus>,
    /// The last exits of each container that a heartbeat reports.
    pub(super) exits: Vec<(String, Exit)>,
    /// Those seen since the last heartbeat was due, which only that one can report.
    pub(super) late_exits: Vec<(String, Exit)>,
    pub(super) reasons: Reasons,
    /// Whether the pod is gone, or another one has its name.
    pub(super) gone: bool,
    /// Whether a note said that the pod is missing or another's: one is enough for a wrong name.
    noted_missing: bool,
    /// Whether the retries of the Job were asked for.
    counts_retries: bool,
    /// When the deletion's grace period ends.
    pub(super) deletion_ends: Option<Duration>,
    /// Whether this process saw the deletion begin, so that its own clock measures the time since.
    pub(super) deletion_witnessed: bool,
}

impl Pod {
    pub(super) fn confirm(&mut self, now: Duration) {
        self.confirmed = Some(Confirmed {
            at: now,
            older_by: Duration::ZERO,
        });
    }

    /// Whether the API showed or confirmed the states within this age.
    pub(super) fn is_fresh(&self, age: Duration, now: Duration) -> bool {
        self.confirmed
            .is_some_and(|confirmed| confirmed.age(now) <= age)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.seen.as_ref().is_some_and(is_finished)
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.seen.as_ref().is_some_and(|pod| pod.deletion.is_some())
    }

    pub(super) fn sidecar(&self) -> Sidecar {
        self.seen
            .as_ref()
            .map_or(self.remembered_sidecar, |pod| pod.sidecar)
    }

    /// Another pod has this pod's name, or none has. If this pod was seen before, it is gone. If
    /// not, a name or UID in the settings may be wrong, and a run must not end for that. Returns
    /// whether to log it: the first time.
    pub(super) fn replaced(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.noted_missing, true);
        self.gone = self.was_seen;
        first
    }

    /// The API has no pod of this name. Returns whether to log it: the first time, if the pod was
    /// never seen.
    pub(super) fn missing(&mut self) -> bool {
        if self.was_seen {
            self.gone = true;
            return false;
        }
        !std::mem::replace(&mut self.noted_missing, true)
    }

    /// Returns whether to count the retries now: the first time.
    pub(super) fn begins_counting_retries(&mut self) -> bool {
        !std::mem::replace(&mut self.counts_retries, true)
    }

    /// Works out when the grace period of a deletion ends.
    pub(super) fn observe_deletion(&mut self, pod: &Observation, signalled: bool, now: Now) {
        let undeleted_before = self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.deletion.is_none());
        // A deletion first seen after SIGTERM may have begun long before: the watch was behind.
        let begins = undeleted_before && !signalled;
        self.deletion_witnessed = pod.deletion.is_some() && (self.deletion_witnessed || begins);
        self.deletion_ends = match (
            pod.deletion,
            self.seen.as_ref().and_then(|before| before.deletion),
        ) {
            // Computed once for each deletionTimestamp, so that a step of the wall clock does not
            // move it. The grace period began before podbeat saw it, whatever the clocks say.
            (Some(deletion), before) if before != Some(deletion) => {
                let by_wall = now.elapsed_at(deletion.at);
                let by_grace = deletion
                    .grace
                    .map(|grace| now.elapsed.saturating_add(grace));
                Some(by_grace.map_or(by_wall, |by_grace| by_wall.min(by_grace)))
            }
            (Some(_), _) => self.deletion_ends,
            (None, _) => None,
        };
    }

    /// The exits of a container that were seen.
    pub(super) fn known_exits<'a>(
        &'a self,
        container: &'a str,
    ) -> impl Iterator<Item = &'a Exit> + Clone {
        let seen = self.exits.iter().chain(&self.late_exits);
        seen.filter(move |(name, _)| name == container)
            .map(|(_, exit)| exit)
    }

    /// Restores a known exit of the run that the API shows, if the API no longer shows it: a
    /// kubelet that has lost the container reports `waiting`, or an exit of its own (137,
    /// ContainerStatusUnknown).
    pub(super) fn restore_known_exits(&self, pod: &mut Observation) {
        // In other pods, a waiting container is about to start again. One that backs off may be,
        // too, until the kubelet sees the deletion.
        let is_over = pod.deletion.is_some() || pod.phase_is_terminal;
        for container in &mut pod.containers {
            let forgotten = match &container.state {
                Some(State::Waiting { reason, .. }) => {
                    is_over && reason.as_deref() != Some(BACKS_OFF)
                }
                None => is_over,
                Some(State::Terminated(exit)) => exit.container_id.is_none(),
                Some(State::Running { .. }) => false,
            };
            let seen = self.known_exits(&container.name).find(|exit| {
                exit.run == Some(container.restart_count) && exit.container_id.is_some()
            });
            if let Some(exit) = seen.filter(|_| forgotten) {
                container.state = Some(State::Terminated(exit.clone()));
            }
        }
    }

    /// Whether a heartbeat reports this exit already.
    pub(super) fn is_reported(&self, container: &str, exit: &Exit) -> bool {
        let same = |(name, known): &(String, Exit)| name == container && known.is_same_as(exit);
        self.exits.iter().any(same)
    }

    pub(super) fn report_exit(&mut self, container: &str, exit: &Exit) {
        remember_exit(&mut self.exits, container, exit);
    }

    /// Takes up this observation. While the last heartbeat is not due (`open`), heartbeats report
    /// its exits; after that only the last one can. Returns whether a journal must record it.
    pub(super) fn observed(&mut self, pod: Observation, open: bool) -> bool {
        let mut unsaved = !std::mem::replace(&mut self.was_seen, true);
        for container in &pod.containers {
            let exit = container.state.as_ref().and_then(|state| state.exit());
            if open {
                exit.inspect(|exit| remember_exit(&mut self.exits, &container.name, exit));
                continue;
            }
            // Also the exit in `lastState`: its marker is not news to a later process that never
            // sees the pod.
            for exit in container.last_exit.iter().chain(exit) {
                let is_same = |known: &Exit| known.is_same_as(exit);
                unsaved |= !self.known_exits(&container.name).any(is_same);
                remember_exit(&mut self.late_exits, &container.name, exit);
            }
        }
        self.seen = Some(pod);
        unsaved
    }
}

/// Adds an exit. Of each container the last two are kept, because `state` and `lastState` show two.
fn remember_exit(exits: &mut Vec<(String, Exit)>, container: &str, exit: &Exit) {
    let of_container = |(name, _): &(String, Exit)| name == container;
    let same = |(name, known): &(String, Exit)| name == container && known.is_same_as(exit);
    if let Some((_, known)) = exits.iter_mut().find(|known| same(known)) {
        // The kubelet knows more of an exit if it has not lost the container.
        if exit.container_id.is_some() || known.container_id.is_none() {
            known.clone_from(exit);
        }
        return;
    }
    if exits.iter().filter(|known| of_container(known)).count() >= 2
        && let Some(oldest) = exits.iter().position(of_container)
    {
        exits.remove(oldest);
    }
    exits.push((container.to_owned(), exit.clone()));
}
