//! The second witness: exit markers, where the API withholds how a container ended.
//!
//! While a pod is being stopped the kubelet tells no exit until all its containers are dead, ours included (design fact 1;
//! kubernetes/kubernetes#106896). So in an ending, and only then, the machine asks for markers, and lets a valid one stand
//! for the `terminated` that the API would show. The API's own word always comes first.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerState, ContainerStatus};

use super::{Action, Machine, Note, Stage};
use crate::completion::is_finished;
use crate::marker::Found;
use crate::observation::{Container, Exit, Observation, Role, State};
use crate::request;

/// Between two reads of the directory while an exit is missing. A read takes less than a millisecond, and what is read so
/// often goes on for no longer than an ending does.
const EVERY: Duration = Duration::from_millis(250);

/// How long the last heartbeat waits for the first read to come back.
pub(super) const FIRST_READ: Duration = Duration::from_millis(250);

/// Of how many markers that are no container's is told, and of how many that fill in an exit: whoever can write in the
/// directory could make more of them without end.
const TOLD: usize = 64;

/// What is known of markers.
#[derive(Debug, Default)]
pub(super) struct Witness {
    found: Vec<Found>,
    /// When a read was first asked for, and last.
    asked: Option<(Duration, Duration)>,
    /// Whether a read has been asked for and hasn't come back.
    under_way: bool,
    /// Whether one ever came back.
    answered: bool,
    /// Whose exits were told by a marker: the code.
    told: Vec<(String, i32)>,
    unknown: Vec<String>,
}

impl Machine {
    /// Whether it ends in a way in which the API may withhold an exit.
    fn may_be_withheld(&self) -> bool {
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. } | Stage::Final { .. }
        );
        #[cfg(test)]
        if self.broken == Some(super::Broken::Silent) {
            return false;
        }
        let ends = self.signalled.is_some() || self.gone || self.resumed_final;
        self.settings.markers && open && ends
    }

    /// Whether every task container has an exit, the API's or a marker's: then there is nothing to ask for.
    fn every_exit_is_known(&self) -> bool {
        self.seen.as_ref().is_some_and(|pod| {
            pod.containers
                .iter()
                .filter(|container| container.role == Role::Task)
                .all(|container| {
                    let told = container.state.as_ref().and_then(State::exit).is_some();
                    told || self.marked_exit(container).is_some()
                })
        })
    }

    /// When the next read is to be asked for, if one is.
    pub(super) fn markers_due(&self) -> Option<Duration> {
        if !self.may_be_withheld() || self.witness.under_way || self.every_exit_is_known() {
            return None;
        }
        Some(
            self.witness
                .asked
                .map_or(Duration::ZERO, |(_, last)| last.saturating_add(EVERY)),
        )
    }

    pub(super) fn ask_for_markers(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.markers_due().is_none_or(|due| due > now) {
            return;
        }
        let first = self.witness.asked.map_or(now, |(first, _)| first);
        self.witness.asked = Some((first, now));
        self.witness.under_way = true;
        actions.push(Action::ReadMarkers);
    }

    /// A read came back.
    pub(super) fn markers_read(&mut self, found: Vec<Found>, now: Duration, actions: &mut Vec<Action>) {
        self.witness.under_way = false;
        self.witness.answered = true;
        self.witness.found = found;
        self.outbox.hold_final(now);
        let Some(pod) = &self.seen else { return };
        let witness = &mut self.witness;
        for found in &witness.found {
            let name = &found.container;
            let known = pod.containers.iter().any(|container| container.name == *name);
            if !known && !witness.unknown.contains(name) && witness.unknown.len() < TOLD {
                witness.unknown.push(name.clone());
                actions.push(Action::Note(Note::UnknownMarker(name.clone())));
            }
        }
    }

    /// The last heartbeat, just queued or taken up again, waits for the first read, which was asked for when the ending
    /// began. Only for a moment, and for less where a deadline is near.
    pub(super) fn hold_for_markers(&mut self, now: Duration) {
        let Some((first, _)) = self.witness.asked else {
            return;
        };
        if self.witness.answered || !self.may_be_withheld() || self.every_exit_is_known() {
            return;
        }
        let read = first.saturating_add(FIRST_READ);
        let until = self.pressing_deadline(now).map_or(read, |deadline| {
            read.min(now.saturating_add(deadline.saturating_sub(now) / 4))
        });
        self.outbox.hold_final(until.max(now));
    }

    /// Whether the task is over by what API and markers tell together, and by the API alone it isn't.
    pub(super) fn is_marked_finished(&self) -> bool {
        if self.witness.found.is_empty() {
            return false;
        }
        self.seen.as_ref().is_some_and(|pod| {
            let marked = self.marked(pod);
            marked != *pod && is_finished(&marked)
        })
    }

    /// Whether the exits that markers report restart all containers.
    pub(super) fn is_marked_restarting(&self, pod: &Observation) -> bool {
        !self.witness.found.is_empty() && self.marked(pod).restarts_all()
    }

    /// The pod as it would be seen if the API told of the exits that markers tell.
    fn marked(&self, pod: &Observation) -> Observation {
        let mut marked = pod.clone();
        for container in &mut marked.containers {
            if let Some(exit) = self.marked_exit(container) {
                container.state = Some(State::Terminated(exit));
            }
        }
        marked
    }

    /// The exit of a container by its marker: only of one that is reported, and of which the API tells no exit itself.
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

    /// The exit that a valid marker of this container tells. A marker of an earlier run is not valid: it must not have been
    /// left before the run that the API shows began, and it must be later than every exit that is known already. Both in
    /// whole seconds, which is all that Kubernetes tells. Where it doesn't tell when an exit was, the run must have begun.
    fn valid(&self, container: &str, started: Option<Timestamp>, last_exit: Option<&Exit>) -> Option<Exit> {
        let known = || self.known_exits(container).chain(last_exit);
        let is_of_this_run = |found: &&Found| {
            #[cfg(test)]
            if self.broken == Some(super::Broken::Stale) {
                return true;
            }
            let finished = found.finished().as_second();
            let since_start = started.is_none_or(|started| finished >= started.as_second());
            let is_news = |exit: &Exit| match exit.finished_at {
                Some(known) => finished > known.as_second(),
                // Of a container that it has lost, the kubelet tells no times: the run after it must be known to have begun.
                None => {
                    started.is_some()
                        || known().any(|later| later.finished_at.is_some() && later.run > exit.run)
                }
            };
            since_start && known().all(is_news)
        };
        let of_container = |found: &&Found| found.container == container;
        let mut found = self.witness.found.iter().filter(of_container);
        found.find(is_of_this_run).map(exit)
    }

    /// What the last heartbeat says: these states, but for each container whose exit the API withholds, its marker's.
    pub(super) fn with_markers(
        &self,
        statuses: Option<Vec<ContainerStatus>>,
    ) -> Option<Vec<ContainerStatus>> {
        if !self.may_be_withheld() || self.witness.found.is_empty() {
            return statuses;
        }
        let told = statuses.unwrap_or_default();
        let or_told = |name: &str, exit: Option<Exit>| match exit {
            Some(exit) => Some(request::ended(name, &exit)),
            None => told
                .iter()
                .find(|status| status.name.as_deref() == Some(name))
                .cloned(),
        };
        let statuses: Vec<ContainerStatus> = match &self.seen {
            // In the order of the spec.
            Some(pod) => pod
                .containers
                .iter()
                .filter_map(|container| or_told(&container.name, self.marked_exit(container)))
                .collect(),
            // An earlier process saw it: what that one knew of each container is all that is known of it.
            None if self.was_seen => self
                .statuses
                .iter()
                .filter_map(|status| {
                    let name = status.name.as_deref()?;
                    let exit = match status.state.as_ref()? {
                        ContainerState::Terminated(_) => None,
                        ContainerState::Running(running) => self.valid(name, running.started_at, None),
                        ContainerState::Waiting(_) => self.valid(name, None, None),
                    };
                    or_told(name, exit)
                })
                .collect(),
            // Nobody ever saw it: the markers alone, sorted by name.
            None => {
                let names: BTreeSet<&str> = self
                    .witness
                    .found
                    .iter()
                    .map(|found| found.container.as_str())
                    .collect();
                let valid = |name| or_told(name, self.valid(name, None, None));
                names.into_iter().filter_map(valid).collect()
            }
        };
        (!statuses.is_empty()).then_some(statuses)
    }

    /// Tells a reader of the log, once, whose exit a marker fills in.
    pub(super) fn note_marked(&mut self, sent: &[ContainerStatus], actions: &mut Vec<Action>) {
        for status in sent.iter().filter(|status| !self.statuses.contains(status)) {
            let (Some(container), Some(ContainerState::Terminated(exit))) = (&status.name, &status.state)
            else {
                continue;
            };
            let told = (container.clone(), exit.exit_code.unwrap_or_default());
            if !self.witness.told.contains(&told) && self.witness.told.len() < TOLD {
                actions.push(Action::Note(Note::Marked {
                    container: told.0.clone(),
                    exit_code: told.1,
                }));
                self.witness.told.push(told);
            }
        }
    }
}

/// What a marker says, and no more: it knows neither the runtime's id of the container nor a reason.
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
