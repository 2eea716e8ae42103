//! The machine: [`Machine::on`] takes an event and the time, and returns what to do.
//!
//! The shell carries out the actions and returns their results as events. It decides nothing: which
//! heartbeat to send and when, what an answer means, when to get the pod again, when to give up and
//! how to end is decided here.
//!
//! # Stages
//!
//! | Stage | Event | Next | Reason |
//! |---|---|---|---|
//! | New | start, no journal | Running | first heartbeat |
//! | New | start, journal | as saved | an earlier process ended there |
//! | New | start, last heartbeat for a signal alone | Reconsidering | the task may continue |
//! | New, Running | signal | Settling | final states may follow |
//! | Reconsidering | the task continues | Running | the last heartbeat is withdrawn |
//! | Reconsidering | the task is over, signal, time up | as saved | the last heartbeat was right |
//! | Running | task over, pod gone | Final | the last heartbeat is due |
//! | Settling | task over (also by markers, if deleted), pod gone | Final | no state will follow |
//! | Settling | time up | Looking | the watch may be behind |
//! | Looking | answer, time up | Final | no newer state is known |
//! | Looking | answer: plain sidecar, grace left | Settling | final states may follow |
//! | Settling, Looking | all containers restart | Over | not an end (KEP-5532) |
//! | Final, no attempt yet | all containers restart | Settling | not an end (KEP-5532) |
//! | Final | accepted | Quiet, Over | the service knows the end |
//! | Final | accepted, an earlier request in doubt | Barrier | the last one must come last |
//! | Final | refused, also without states | Refused, Over | never accepted |
//! | Final | deadline | Over | undelivered |
//! | Barrier | answered, time up | Quiet, Over | the service knows the end |
//! | Running to Final | disowned, 3 times in 30 s | Orphaned | nothing more is sent |
//! | Quiet, Refused | signal | Over | the pod is being stopped |
//! | Orphaned | signal, pod gone, task over (plain sidecar) | Over | nothing is left to do |
//!
//! Quiet and Refused are for native sidecars, which idle until SIGTERM: the kubelet restarts one
//! that ends earlier. A plain sidecar goes to Over at once.

mod action;
mod answer;
mod deadline;
mod ending;
mod link;
mod marker;
mod observe;
mod pod;
mod reasons;
mod resume;
mod send;
mod snapshot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Now;
use super::answer::Answer;
use super::report::{Identity, Report};
use crate::marker::Found;
use crate::observation::Observation;
pub use action::{Action, Attempt, Cause, DropCause, End, Losses, Note};
pub use deadline::grace_for;
use ending::Ending;
use link::Link;
use marker::Markers;
use pod::Pod;
use send::Sending;
pub use snapshot::Snapshot;

/// One heartbeat collects the changes within this time after the previous heartbeat.
const COLLECT: Duration = Duration::from_millis(250);

/// The machine's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What each heartbeat says about the pod.
    pub identity: Identity,
    /// The service's nonce, for every heartbeat; without it each heartbeat gets a random one.
    pub nonce: Option<String>,
    /// The time between heartbeats if nothing changes.
    pub interval: Duration,
    /// The longest time that one attempt may take.
    pub timeout: Duration,
    /// Which containers are reported.
    pub report: Report,
    /// Container states that the API has not confirmed for this long are omitted.
    pub max_status_age: Duration,
    /// Whether a journal exists.
    pub journaled: bool,
    /// Whether a directory of exit markers exists.
    pub markers: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process runs, and its signal handlers are set.
    Started,
    /// The watch shows the pod.
    Observed(Observation),
    /// The API confirmed that nothing changed.
    Confirmed,
    /// The pod is gone, or another one has its name; its last states, if the API reported them.
    Gone(Option<Observation>),
    /// The result of [`Action::LookAtPod`].
    Looked(Look),
    /// The result of an attempt.
    Answered {
        /// The attempt's number.
        attempt: u64,
        /// Its result.
        answer: Answer,
    },
    /// The result of [`Action::CountRetries`]: how many pods of the Job failed before this one;
    /// `None` if that cannot be known.
    Retries(Option<i32>),
    /// The result of [`Action::ReadMarkers`], or of an earlier read if the directory cannot be read
    /// now.
    Markers(Vec<Found>),
    /// SIGTERM or SIGINT.
    Signal,
    /// The time of [`Action::WakeAt`] has come.
    Woke,
}

/// The result of getting the pod.
#[derive(Clone, Debug)]
pub enum Look {
    /// The pod.
    Found(Observation),
    /// No pod has this name, or another one does.
    Gone,
    /// No answer in time, or an error.
    Failed,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Running,
    Reconsidering { since: Duration },
    Settling,
    Looking { until: Duration },
    Final { since: Duration },
    Barrier { since: Duration, tries: u32 },
    Quiet,
    Refused,
    Orphaned,
    Over,
}

/// The core. One per process.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    rng: fastrand::Rng,
    stage: Stage,
    pod: Pod,
    sending: Sending,
    link: Link,
    ending: Ending,
    markers: Markers,
    /// Whether an earlier process of this pod left a journal.
    resumed: bool,
    /// Whether something in [`Saved`](crate::saved::Saved) changed since the last
    /// [`Action::Persist`].
    unsaved: bool,
}

impl Machine {
    /// A machine that has not started. Draw the seed from the system's entropy: nonces and jitter
    /// follow from it.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            stage: Stage::New,
            pod: Pod::default(),
            sending: Sending::default(),
            link: Link::default(),
            ending: Ending::default(),
            markers: Markers::default(),
            resumed: false,
            unsaved: false,
        }
    }

    /// Takes one event and returns what to do. After [`Action::End`] it returns nothing more.
    pub fn on(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stage == Stage::Over {
            return actions;
        }
        match event {
            Event::Started => self.start(now.elapsed, &mut actions),
            Event::Observed(pod) => self.observe(pod, now, &mut actions),
            Event::Confirmed => self.pod.confirm(now.elapsed),
            Event::Gone(last) => self.pod_gone(last, now, &mut actions),
            Event::Looked(look) => self.looked(look, now, &mut actions),
            Event::Answered { attempt, answer } => {
                self.answered(attempt, &answer, now, &mut actions)
            }
            Event::Retries(count) => self.count_retries(count),
            Event::Markers(found) => self.markers_read(found, now.elapsed, &mut actions),
            Event::Signal => self.signal(now.elapsed, &mut actions),
            Event::Woke => {}
        }
        self.give_up_slow_attempt(now, &mut actions);
        self.ask_for_markers(now.elapsed, &mut actions);
        self.step(now.elapsed, &mut actions);
        self.send_due(now.elapsed, &mut actions);
        if self.stage != Stage::Over {
            actions.push(Action::WakeAt(self.next_wake()));
        }
        if std::mem::take(&mut self.unsaved) && self.settings.journaled {
            // Before all other actions: the next process must know what this one sent, also after a
            // crash.
            actions.insert(0, Action::Persist(Box::new(self.saved(now))));
        }
        actions
    }

    fn next_wake(&self) -> Option<Duration> {
        let stage = match self.stage {
            Stage::Settling | Stage::Looking { .. } if self.is_restarting() => self.restarts_at(),
            Stage::Settling => self.settled_at(),
            Stage::Looking { until } => Some(until),
            Stage::Final { .. } => earliest(self.deadline(), self.skips_to_final_at()),
            Stage::Barrier { .. } => self.deadline(),
            Stage::Running => None,
            Stage::Reconsidering { since } => return self.reconsiders_until(since),
            // Nothing is sent any more, or not yet.
            Stage::New | Stage::Quiet | Stage::Refused | Stage::Orphaned | Stage::Over => {
                return None;
            }
        };
        earliest(earliest(self.next_send(), stage), self.markers_due())
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
