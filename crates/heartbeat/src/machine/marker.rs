//! Exit markers: the second source of an exit, for the time in which the API withholds it.
//!
//! While a pod is being stopped, the kubelet reports no exit until all its containers are dead,
//! podbeat's too (docs/kubernetes-facts.md, fact 1; kubernetes/kubernetes#106896). So while the
//! machine ends, and only then, it reads markers and uses a valid one as the `terminated` that the
//! API would show. An exit that the API shows always has priority.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::ContainerStatus;

use super::{Action, Machine, Note, Stage};
use crate::completion::is_finished;
use crate::marker::Found;
use crate::observation::{Container, Exit, Observation, Role, State};
use crate::report;

/// Between two reads of the directory while an exit is missing. A read takes less than a
/// millisecond, and the reads stop when the process ends.
const EVERY: Duration = Duration::from_millis(250);

/// How long the last heartbeat waits for the result of the first read.
pub(super) const FIRST_READ: Duration = Duration::from_millis(250);

/// The most markers that notes name: of those without a container, and of those that supply an
/// exit. A program that can write to the directory could create any number.
const NOTED: usize = 64;

/// The markers that the machine knows.
#[derive(Debug, Default)]
pub(super) struct Markers {
    found: Vec<Found>,
    /// When the machine first ordered a read, and when it last did.
    asked: Option<(Duration, Duration)>,
    /// Whether a read is in progress.
    under_way: bool,
    /// Whether a read ever returned.
    answered: bool,
    /// The containers of which a note said that a marker supplies the exit, and the exit code.
    noted: Vec<(String, i32)>,
    unknown: Vec<String>,
}

impl Machine {
    /// Whether the machine ends in a way in which the API may withhold an exit.
    fn may_be_withheld(&self) -> bool {
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. } | Stage::Final { .. }
        );
        let ends = self.ending.signalled.is_some() || self.pod.gone || self.ending.resumed_final;
        self.settings.markers && open && ends
    }

    /// Whether every task container has an exit, from the API or a marker: then no read is needed.
    fn every_exit_is_known(&self) -> bool {
        self.pod.seen.as_ref().is_some_and(|pod| {
            pod.containers
                .iter()
                .filter(|container| container.role == Role::Task)
                .all(|container| {
                    let shown = container.state.as_ref().and_then(State::exit).is_some();
                    shown || self.marked_exit(container).is_some()
                })
        })
    }

    /// When the next read is due, if one is.
    pub(super) fn markers_due(&self) -> Option<Duration> {
        if !self.may_be_withheld() || self.markers.under_way || self.every_exit_is_known() {
            return None;
        }
        Some(
            self.markers
                .asked
                .map_or(Duration::ZERO, |(_, last)| last.saturating_add(EVERY)),
        )
    }

    pub(super) fn ask_for_markers(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.markers_due().is_none_or(|due| due > now) {
            return;
        }
        let first = self.markers.asked.map_or(now, |(first, _)| first);
        self.markers.asked = Some((first, now));
        self.markers.under_way = true;
        actions.push(Action::ReadMarkers);
    }

    /// A read returned.
    pub(super) fn markers_read(
        &mut self,
        found: Vec<Found>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        self.markers.under_way = false;
        self.markers.answered = true;
        self.markers.found = found;
        self.sending.outbox.hold_final(now);
        let Some(pod) = &self.pod.seen else { return };
        let markers = &mut self.markers;
        for found in &markers.found {
            let name = &found.container;
            let known = pod
                .containers
                .iter()
                .any(|container| container.name == *name);
            if !known && !markers.unknown.contains(name) && markers.unknown.len() < NOTED {
                markers.unknown.push(name.clone());
                actions.push(Action::Note(Note::UnknownMarker(name.clone())));
            }
        }
    }

    /// Lets the last heartbeat, just queued or resumed, wait for the first read, which was ordered
    /// when the end began. It waits only for a moment, and for less if a deadline is near.
    pub(super) fn hold_for_markers(&mut self, now: Duration) {
        let Some((first, _)) = self.markers.asked else {
            return;
        };
        if self.markers.answered || !self.may_be_withheld() || self.every_exit_is_known() {
            return;
        }
        let read = first.saturating_add(FIRST_READ);
        let until = self.pressing_deadline(now).map_or(read, |deadline| {
            read.min(now.saturating_add(deadline.saturating_sub(now) / 4))
        });
        self.sending.outbox.hold_final(until.max(now));
    }

    /// Whether the task is over by the exits from API and markers together, but not by the API
    /// alone.
    pub(super) fn is_marked_finished(&self) -> bool {
        if self.markers.found.is_empty() {
            return false;
        }
        self.pod.seen.as_ref().is_some_and(|pod| {
            let marked = self.marked(pod);
            marked != *pod && is_finished(&marked)
        })
    }

    /// Whether the exits that markers report restart all containers.
    pub(super) fn is_marked_restarting(&self, pod: &Observation) -> bool {
        !self.markers.found.is_empty() && self.marked(pod).restarts_all()
    }

    /// The pod as the API would show it with the exits from markers.
    fn marked(&self, pod: &Observation) -> Observation {
        let mut marked = pod.clone();
        for container in &mut marked.containers {
            if let Some(exit) = self.marked_exit(container) {
                container.state = Some(State::Terminated(exit));
            }
        }
        marked
    }

    /// The exit of a container from its marker, if the container is reported and the API shows no
    /// exit.
    fn marked_exit(&self, container: &Container) -> Option<Exit> {
        if !self.settings.report.includes(container.role) {
            return None;
        }
        let started = match &container.state {
            Some(State::Terminated(_)) => return None,
            Some(State::Running { started_at }) => *started_at,
            Some(State::Waiting { .. }) | None => None,
        };
        self.valid(&container.name, started, container.last_exit.as_ref())
    }

    /// The exit from a valid marker of this container. A marker of an earlier run is not valid: it
    /// must not be older than the start of the run that the API shows, and it must be newer than
    /// every known exit. Times are compared in whole seconds, because Kubernetes' times have no
    /// fractions. If Kubernetes gives no time for an exit, the run after it must have started.
    fn valid(
        &self,
        container: &str,
        started: Option<Timestamp>,
        last_exit: Option<&Exit>,
    ) -> Option<Exit> {
        let known = || self.pod.known_exits(container).chain(last_exit);
        let is_of_this_run = |found: &&Found| {
            let finished = found.finished().as_second();
            let since_start = started.is_none_or(|started| finished >= started.as_second());
            let is_news = |exit: &Exit| match exit.finished_at {
                Some(known) => finished > known.as_second(),
                // The kubelet gives no times for the exit of a container that it has lost: the
                // run after it must have started.
                None => {
                    started.is_some()
                        || known().any(|later| later.finished_at.is_some() && later.run > exit.run)
                }
            };
            since_start && known().all(is_news)
        };
        let of_container = |found: &&Found| found.container == container;
        let mut found = self.markers.found.iter().filter(of_container);
        found.find(is_of_this_run).map(exit)
    }

    /// The states for the last heartbeat: these, and for each container whose exit the API
    /// withholds the exit from its marker.
    pub(super) fn with_markers(
        &self,
        statuses: Option<Vec<ContainerStatus>>,
    ) -> Option<Vec<ContainerStatus>> {
        if !self.may_be_withheld() || self.markers.found.is_empty() {
            return statuses;
        }
        let known = statuses.unwrap_or_default();
        let or_known = |name: &str, exit: Option<Exit>| match exit {
            Some(exit) => Some(report::ended(name, &exit)),
            None => known
                .iter()
                .find(|status| status.name.as_deref() == Some(name))
                .cloned(),
        };
        let statuses: Vec<ContainerStatus> = match &self.pod.seen {
            // In the order of the spec.
            Some(pod) => pod
                .containers
                .iter()
                .filter_map(|container| or_known(&container.name, self.marked_exit(container)))
                .collect(),
            // Only an earlier process saw the pod: each container as that one knew it.
            None if self.pod.was_seen => self
                .pod
                .statuses
                .iter()
                .filter_map(|status| {
                    let name = status.name.as_deref()?;
                    let state = status.state.as_ref()?;
                    let exit = match (&state.terminated, &state.running) {
                        (Some(_), _) => None,
                        (None, Some(running)) => self.valid(name, running.started_at, None),
                        (None, None) => self.valid(name, None, None),
                    };
                    or_known(name, exit)
                })
                .collect(),
            // No process ever saw the pod: the markers alone, sorted by name.
            None => {
                let found = self.markers.found.iter();
                let mut names = BTreeSet::new();
                names.extend(found.map(|found| found.container.as_str()));
                let valid = |name| or_known(name, self.valid(name, None, None));
                names.into_iter().filter_map(valid).collect()
            }
        };
        (!statuses.is_empty()).then_some(statuses)
    }

    /// Notes, once for each exit, that a marker supplies it.
    pub(super) fn note_marked(&mut self, sent: &[ContainerStatus], actions: &mut Vec<Action>) {
        for status in sent
            .iter()
            .filter(|status| !self.pod.statuses.contains(status))
        {
            let (Some(container), Some(exit)) = (&status.name, status.terminated()) else {
                continue;
            };
            let exit = (container.clone(), exit.exit_code.unwrap_or_default());
            if !self.markers.noted.contains(&exit) && self.markers.noted.len() < NOTED {
                actions.push(Action::Note(Note::Marked {
                    container: exit.0.clone(),
                    exit_code: exit.1,
                }));
                self.markers.noted.push(exit);
            }
        }
    }
}

/// The exit of a marker, which knows neither the container's ID nor a reason.
fn exit(found: &Found) -> Exit {
    let marker = &found.marker;
    Exit {
        exit_code: Some(marker.exit_code),
        signal: marker.signal,
        started_at: marker.started_at,
        finished_at: marker.finished_at,
        ..Exit::default()
    }
}
