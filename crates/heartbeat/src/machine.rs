//! The machine: [`Machine::on`] takes an event and the time, and says what to do.
//!
//! The shell carries the actions out and brings their results back as events. It decides nothing: which heartbeat goes
//! when, what an answer means, when to look at the pod once more, when to give up and how to end is all here.

mod deadline;
mod reasons;
mod resume;
mod standing;
#[cfg(test)]
mod tests;
mod witness;

use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::{Deserialize, Serialize};

use super::Now;
use super::answer::Answer;
use super::backoff::{self, Backoff};
use super::completion::is_finished;
use super::outbox::{Beat, Kind, Outbox, exits_only, shows_new_exit};
use super::request::{self, Identity, Report};
use super::saved::{LastHeartbeat, Saved};
use crate::marker::Found;
use crate::observation::JobPod;
use crate::observation::Why;
use crate::observation::{BACKS_OFF, Exit, Observation, Sidecar, State};
pub use deadline::grace_for;
use resume::Reconsidered;
pub use standing::Standing;
use witness::Witness;

/// Changes that follow a send within this time are collected into one heartbeat (design §5).
const COLLECT: Duration = Duration::from_millis(250);

/// A service that asks for more than this in Retry-After is asked again all the same: the run would time out.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(5 * 60);

/// How often the last heartbeat is tried once more, after it was accepted, behind an earlier request that may arrive
/// late.
const REPEATS: u32 = 3;

/// The run is believed to be no longer ours after this many answers that say so (design §6) …
const DISOWNED_ANSWERS: u32 = 3;
/// … spread over at least this time.
const DISOWNED_FOR: Duration = Duration::from_secs(30);

/// What the machine is told at the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What each heartbeat says of the pod.
    pub identity: Identity,
    /// The service's nonce to echo; without it each heartbeat gets one of its own.
    pub nonce: Option<String>,
    /// Between heartbeats when nothing changes.
    pub interval: Duration,
    /// The longest that one attempt may take.
    pub timeout: Duration,
    /// Which containers are reported.
    pub report: Report,
    /// Container states that the API hasn't confirmed for longer are left out.
    pub max_status_age: Duration,
    /// Whether there is a journal to persist to.
    pub journaled: bool,
    /// Whether there is a directory of exit markers to read.
    pub markers: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The process is up, its signal handlers are set.
    Started,
    /// The watch shows the pod as it is.
    Observed(Observation),
    /// The API confirmed that nothing has changed.
    Confirmed,
    /// The pod of that name is gone or another one; what it last showed, where the API told.
    Gone(Option<Observation>),
    /// The look that [`Action::LookAtPod`] asked for.
    Looked(Look),
    /// What came of an attempt.
    Answered {
        /// The attempt's number.
        attempt: u64,
        /// Its outcome.
        answer: Answer,
    },
    /// How many pods of the Job failed before this one, which [`Action::CountRetries`] asked for; `None` if that can't be known.
    Retries(Option<i32>),
    /// What [`Action::ReadMarkers`] found, or what an earlier read did if the directory can't be read now.
    Markers(Vec<Found>),
    /// SIGTERM or SIGINT.
    Signal,
    /// The time that [`Action::WakeAt`] named has come.
    Woke,
}

/// What a direct look at the pod brought.
#[derive(Clone, Debug)]
pub enum Look {
    /// The pod as it is.
    Found(Observation),
    /// No pod of that name, or another one.
    Gone,
    /// No answer in time, or an error.
    Failed,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this, and report its answer.
    Send(Attempt),
    /// Stop the attempt in flight; its answer isn't awaited any more.
    Abort,
    /// Ask the API server for the pod itself, for at most this long.
    LookAtPod(Duration),
    /// Find out how many pods of this Job failed before this one. Ordered once.
    CountRetries(Box<JobPod>),
    /// Read the directory of exit markers. An order while a read is still under way means nothing.
    ReadMarkers,
    /// Send [`Event::Woke`] at this time (since the start), replacing the last such order. Comes last.
    WakeAt(Option<Duration>),
    /// News of the pod has become urgent: the watch must wait for nothing that only spares the API server. Comes with the first
    /// signal, and so before every [`Action::LookAtPod`].
    HurryWatch,
    /// The pod need not be watched any longer.
    StopWatching,
    /// Write this down, durably, before the attempt that is ordered with it begins; but never hold that up for long.
    Persist(Box<Saved>),
    /// Something that a reader of the log wants to know.
    Note(Note),
    /// Nothing more will be sent: end the process.
    End(End),
}

/// One attempt to send a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Names this attempt in the answer; counts all attempts of the process, from 1.
    pub number: u64,
    /// The heartbeat's number and kind.
    pub beat: (u64, Kind),
    /// How many attempts of this heartbeat came before.
    pub retries: u32,
    /// The body.
    pub request: HeartbeatTaskRunRequest,
    /// The longest it may take.
    pub timeout: Duration,
    /// Whether the answer before refused the token, so that it is to be read afresh, or the other one tried.
    pub reread_token: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The last heartbeat was accepted.
    Delivered,
    /// The service said that the run isn't ours; nothing was sent after that.
    Orphaned,
    /// Every container of the pod is being restarted (KEP-5532), podbeat's too. The next process continues, from the journal if there is
    /// one, and no last heartbeat was sent.
    Restarting,
    /// The last heartbeat was not accepted in time.
    Undelivered(Box<HeartbeatTaskRunRequest>),
}

/// Why the last heartbeat goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Every task container is finished.
    Completed,
    /// The pod object is gone.
    Gone,
    /// SIGTERM, and the API shows no end.
    Signal,
    /// SIGTERM, and exit markers tell the end that the API withholds.
    Marked,
}

/// Why a heartbeat was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// The outbox was full.
    Overflow,
    /// The service refused it.
    Refused,
    /// The deadline of the last heartbeat came first.
    Deadline,
    /// It told what was observed longer ago than the settings allow, and told of no exit.
    Expired,
    /// A newer one says all that it says.
    Superseded,
    /// The run isn't ours.
    Orphaned,
}

/// How many heartbeats with news were never accepted, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The outbox was full.
    pub overflowed: u64,
    /// Their news was too old to be sent.
    pub expired: u64,
    /// The service refused them.
    pub refused: u64,
    /// The deadline of the last heartbeat came first.
    pub too_late: u64,
    /// The run wasn't ours any more.
    pub orphaned: u64,
}

/// What a reader of the log wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A reported container has changed: its name, the state before, the state now.
    Transition {
        /// The container.
        container: String,
        /// The state before, if there was one.
        from: Option<&'static str>,
        /// The state now, as it is reported.
        to: Box<ContainerStatus>,
        /// How often the API says that it was started again.
        restart_count: i32,
    },
    /// The pod is being deleted; when its grace ends.
    Deletion(Timestamp),
    /// The API says why the pod ends, or can't begin.
    Why(Box<Why>),
    /// The pod looked at isn't ours: another UID under the same name. Its states are not reported.
    OtherPod(Option<String>),
    /// No such pod, though it was never seen: most likely a wrong name. Heartbeats go on.
    NeverSeen,
    /// A heartbeat was accepted.
    Accepted(u64, Kind),
    /// An attempt failed. Says when the next one is due, since the start.
    Failed {
        /// The heartbeat's number and kind.
        beat: (u64, Kind),
        /// What came back.
        answer: Answer,
        /// When it is tried again; `None` if this body never is.
        retry_at: Option<Duration>,
    },
    /// A heartbeat was dropped: its number and kind, why, and the states that it would have told.
    Dropped(u64, Kind, DropCause, Vec<ContainerStatus>),
    /// A signal came; whether it wasn't the first.
    Signal {
        /// Whether one had come before.
        again: bool,
    },
    /// The last heartbeat is due.
    Final(Cause),
    /// An exit marker tells in the last heartbeat what the API withholds.
    Marked {
        /// The container.
        container: String,
        /// Its exit code.
        exit_code: i32,
    },
    /// An exit marker names a container that the pod doesn't have.
    UnknownMarker(String),
    /// It was accepted, but an earlier request may arrive after it: it goes once more, not before this time.
    Barrier {
        /// Since the start.
        until: Duration,
    },
    /// The repetition was not answered as hoped. The last heartbeat was accepted all the same.
    BarrierFailed,
    /// What an earlier process left is taken up.
    Resumed {
        /// Heartbeats that wait.
        waiting: usize,
        /// How far the last heartbeat had come.
        last_heartbeat: LastHeartbeat,
    },
    /// The last heartbeat of an earlier process was wrong: it went out for a signal that stopped podbeat's container alone, and the
    /// task goes on. Heartbeats go on, too.
    Reopened(
        /// How far that last heartbeat had come. If it was accepted, the service may hold the run for over.
        LastHeartbeat,
    ),
    /// The run is held to be no longer ours.
    Orphaned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not yet started.
    New,
    /// Heartbeats by interval and on change.
    Running,
    /// An earlier process sent its last heartbeat, or was about to, for a signal alone. Nothing is sent until the API shows whether the
    /// task is over.
    Reconsidering { since: Duration },
    /// After SIGTERM, waiting for fresher states.
    Settling,
    /// The direct look is under way.
    Looking { until: Duration },
    /// The last heartbeat waits in the outbox or is in flight, since then.
    Final { since: Duration },
    /// It was accepted, and goes once more behind an earlier request that may arrive late.
    Barrier { since: Duration, tries: u32 },
    /// It was accepted; a native sidecar idles until SIGTERM.
    Quiet,
    /// It was refused for good; a native sidecar idles until SIGTERM.
    Refused,
    /// The run isn't ours.
    Orphaned,
    /// The process ends.
    Over,
}

/// When the API last showed or confirmed the pod.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    at: Duration,
    /// How old that was already when this process began.
    older_by: Duration,
}

impl Confirmed {
    fn age(self, now: Duration) -> Duration {
        now.saturating_sub(self.at).saturating_add(self.older_by)
    }
}

/// Whether an earlier heartbeat that got no answer, or a gateway's, may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// There is none.
    None,
    /// What held it up, be it the network or the service, may hold it still: no heartbeat was accepted since.
    Open,
    /// One was, so that the way is free: what was held up comes within the time of one attempt, until then.
    Until(Duration),
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    attempt: u64,
    kind: Kind,
    started: Duration,
    timeout: Duration,
}

/// The core. One per process.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    rng: fastrand::Rng,
    stage: Stage,

    // What is known of the pod.
    seen: Option<Observation>,
    confirmed: Option<Confirmed>,
    /// Whether our pod was ever seen, by an earlier process perhaps.
    was_seen: bool,
    /// How our container is declared, by what an earlier process saw.
    remembered_sidecar: Sidecar,
    statuses: Vec<ContainerStatus>,
    /// The last exits of each container that were told of.
    exits: Vec<(String, Exit)>,
    /// Those seen since the last heartbeat was due, which nothing tells but that one.
    late_exits: Vec<(String, Exit)>,
    /// What the API said of why the pod ends or can't begin, and whether a journal keeps it.
    why: Vec<(Why, bool)>,
    /// What an earlier process saw of that, and this one didn't.
    earlier_why: Vec<Why>,
    /// `metadata.deletionTimestamp`, by what an earlier process saw, too.
    deletion_at: Option<Timestamp>,
    gone: bool,
    /// Whether a pod that is missing or another's was told of: once is enough for a wrong name.
    told_stranger: bool,
    /// Whether the retries of the Job were asked for.
    counts_retries: bool,
    deletion_ends: Option<Duration>,
    /// Whether this process saw the deletion begin, so that it knows the time that has passed since by its own clock.
    deletion_witnessed: bool,

    // What is to be sent.
    outbox: Outbox,
    beats: u64,
    attempts: u64,
    in_flight: Option<InFlight>,
    last_sent: Option<Duration>,
    next_periodic: Duration,
    losses: Losses,

    // How the service answers.
    backoff: Backoff,
    not_before: Duration,
    /// Whether the wait was asked for by Retry-After, so that nothing but a deadline cuts it short.
    wait_is_asked: bool,
    /// Whether a refused token was read again and the heartbeat tried at once, since one was last accepted.
    reread_token: bool,
    /// Whether the last answer refused the token.
    token_refused: bool,
    disowned: Option<(u32, Duration)>,
    doubt: Doubt,

    // How it ends.
    last_heartbeat: LastHeartbeat,
    /// Why it is due, if it is.
    cause: Option<Cause>,
    signalled: Option<Duration>,
    hurried: bool,
    witness: Witness,

    /// Whether an earlier process of this pod left something to go on from.
    resumed: bool,
    /// Whether that was a last heartbeat which is still to be accepted.
    resumed_final: bool,
    /// Whether what is to be saved has changed since it was last persisted.
    unsaved: bool,

    /// A fault planted by the simulation's own test.
    #[cfg(test)]
    pub(super) broken: Option<Broken>,
}

/// A machine that breaks one guarantee, to show that the simulation notices.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Forgets a heartbeat that got no answer.
    G1,
    /// Takes a last heartbeat that got no answer for accepted.
    G2,
    /// Goes on after the last heartbeat was accepted.
    G3,
    /// Waits for a late request from when it was given up, and not from when the way was free again (G3).
    Early,
    /// Sends while a request is in flight.
    G4,
    /// Waits three intervals.
    G5,
    /// Makes an end of a container that still runs.
    G7,
    /// Takes the marker of an earlier run for this one's (G7).
    Stale,
    /// Never asks for markers (G7).
    Silent,
    /// Waits for the API in a pod that is being deleted, though markers have told the end (G7).
    Patient,
    /// Takes a signal that restarts all containers for the end (G7).
    Restart,
    /// Holds exits without an ID for one, whichever run they end (G1).
    Alike,
    /// Stands by a last heartbeat that went out because podbeat alone was stopped (G2).
    Alone,
}

impl Machine {
    /// A machine that hasn't started. The seed should be drawn from the system's entropy: nonces and jitter follow
    /// from it.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            stage: Stage::New,
            seen: None,
            confirmed: None,
            was_seen: false,
            remembered_sidecar: Sidecar::default(),
            statuses: Vec::new(),
            exits: Vec::new(),
            late_exits: Vec::new(),
            why: Vec::new(),
            earlier_why: Vec::new(),
            deletion_at: None,
            gone: false,
            told_stranger: false,
            counts_retries: false,
            deletion_ends: None,
            deletion_witnessed: false,
            outbox: Outbox::default(),
            beats: 0,
            attempts: 0,
            in_flight: None,
            last_sent: None,
            next_periodic: Duration::ZERO,
            losses: Losses::default(),
            backoff: Backoff::default(),
            not_before: Duration::ZERO,
            wait_is_asked: false,
            reread_token: false,
            token_refused: false,
            disowned: None,
            doubt: Doubt::None,
            last_heartbeat: LastHeartbeat::Open,
            cause: None,
            signalled: None,
            hurried: false,
            witness: Witness::default(),
            resumed: false,
            resumed_final: false,
            unsaved: false,
            #[cfg(test)]
            broken: None,
        }
    }

    /// Takes one event and says what to do. After [`Action::End`] it says nothing more.
    pub fn on(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stage == Stage::Over {
            return actions;
        }
        match event {
            Event::Started => self.start(now.elapsed, &mut actions),
            Event::Observed(pod) => self.observe(pod, now, &mut actions),
            Event::Confirmed => self.confirm(now.elapsed),
            Event::Gone(last) => self.pod_gone(last, now, &mut actions),
            Event::Looked(look) => self.looked(look, now, &mut actions),
            Event::Answered { attempt, answer } => self.answered(attempt, &answer, now, &mut actions),
            Event::Retries(count) => self.count_retries(count),
            Event::Markers(found) => self.markers_read(found, now.elapsed, &mut actions),
            Event::Signal => self.signal(now.elapsed, &mut actions),
            Event::Woke => {}
        }
        self.advance(now, &mut actions);
        if std::mem::take(&mut self.unsaved) && self.settings.journaled {
            // First of all actions: what is sent must be known to whoever comes after a crash.
            actions.insert(0, Action::Persist(Box::new(self.saved(now))));
        }
        actions
    }

    /// How many heartbeats wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    /// What was never accepted so far.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    // ---- events -------------------------------------------------------------------------------------------------

    fn observe(&mut self, mut pod: Observation, now: Now, actions: &mut Vec<Action>) {
        if self.gone {
            return;
        }
        let ours = self.settings.identity.pod_uid.as_ref();
        if ours.is_some() && ours != pod.uid.as_ref() {
            if !std::mem::replace(&mut self.told_stranger, true) {
                actions.push(Action::Note(Note::OtherPod(pod.uid)));
            }
            // Once ours was seen, another one under its name means that ours is gone. Before that, the UID in the
            // settings may simply be wrong, and a run must not end for a typing error.
            self.gone = self.was_seen;
            return;
        }
        self.settings.identity.learn(&pod);
        if self.settings.identity.job_retry_count.is_none()
            && let Some(job) = &pod.job
            && !std::mem::replace(&mut self.counts_retries, true)
        {
            actions.push(Action::CountRetries(job.clone()));
        }
        self.confirm(now.elapsed);
        self.keep_known_exits(&mut pod);
        if matches!(self.stage, Stage::Reconsidering { .. }) {
            match self.reconsidered(&pod) {
                Reconsidered::GoesOn => self.reopen(actions),
                Reconsidered::Over => self.uphold(now.elapsed, actions),
                Reconsidered::Unknown => {
                    // No exit of it counts as told, so that none is missing once heartbeats go on.
                    self.statuses = request::statuses(&pod, self.settings.report);
                    self.seen = Some(pod);
                    return;
                }
            }
        }
        let undeleted_before = self.seen.as_ref().is_some_and(|seen| seen.deletion.is_none());
        // What is first seen after SIGTERM may have begun long before: the watch was behind.
        let begins = undeleted_before && self.signalled.is_none();
        self.deletion_witnessed = pod.deletion.is_some() && (self.deletion_witnessed || begins);
        self.deletion_ends = match (
            pod.deletion,
            self.seen.as_ref().and_then(|before| before.deletion),
        ) {
            // Reckoned once for each deletionTimestamp, so that a step of the wall clock doesn't move it. The grace
            // began before it could be seen, whatever the clocks say.
            (Some(deletion), before) if before != Some(deletion) => {
                let by_wall = now.elapsed_at(deletion.at);
                let by_grace = deletion.grace.map(|grace| now.elapsed.saturating_add(grace));
                Some(by_grace.map_or(by_wall, |by_grace| by_wall.min(by_grace)))
            }
            (Some(_), _) => self.deletion_ends,
            (None, _) => None,
        };
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. }
        );
        self.note_reasons(&pod, open, actions);
        if open {
            self.queue_lost_exits(&pod, now.elapsed, actions);
        }
        let statuses = request::statuses(&pod, self.settings.report);
        if statuses != self.statuses {
            self.unsaved = true;
            note_transitions(&self.statuses, &statuses, &pod, actions);
            let new_exit = shows_new_exit(&self.statuses, &statuses);
            // What completes the task goes out with the last heartbeat itself: one request, and no wait between them.
            if open && !is_finished(&pod) {
                self.queue_change(&statuses, new_exit, now.elapsed, actions);
            }
            self.statuses = statuses;
        }
        for container in &pod.containers {
            let exit = container.state.as_ref().and_then(|state| state.exit());
            if open {
                exit.inspect(|exit| remember_exit(&mut self.exits, &container.name, exit));
                continue;
            }
            // Also the exit in `lastState`: its marker is not news to a later process that never
            // sees the pod.
            for exit in container.last_exit.iter().chain(exit) {
                if !self
                    .known_exits(&container.name)
                    .any(|known| known.is_same_as(exit))
                {
                    self.unsaved = true;
                }
                remember_exit(&mut self.late_exits, &container.name, exit);
            }
        }
        self.unsaved |= !std::mem::replace(&mut self.was_seen, true);
        self.seen = Some(pod);
    }

    fn count_retries(&mut self, count: Option<i32>) {
        let known = &mut self.settings.identity.job_retry_count;
        *known = known.or(count);
        self.unsaved |= count.is_some();
    }

    fn confirm(&mut self, now: Duration) {
        self.confirmed = Some(Confirmed {
            at: now,
            older_by: Duration::ZERO,
        });
    }

    /// The exits of a container that were seen.
    fn known_exits<'a>(&'a self, container: &'a str) -> impl Iterator<Item = &'a Exit> + Clone {
        let seen = self.exits.iter().chain(&self.late_exits);
        seen.filter(move |(name, _)| name == container)
            .map(|(_, exit)| exit)
    }

    /// Puts back the exit that was seen of the run that the API shows, where the API no longer shows it: a kubelet that has lost the
    /// container reports `waiting`, or an exit of its own (137, ContainerStatusUnknown).
    fn keep_known_exits(&self, pod: &mut Observation) {
        // In other pods, a container that waits is about to be started again. So may be one that backs off, until the kubelet sees the
        // deletion.
        let is_over = pod.deletion.is_some() || pod.phase_is_terminal;
        for container in &mut pod.containers {
            let forgotten = match &container.state {
                Some(State::Waiting { reason, .. }) => is_over && reason.as_deref() != Some(BACKS_OFF),
                None => is_over,
                Some(State::Terminated(exit)) => exit.container_id.is_none(),
                Some(State::Running { .. }) => false,
            };
            let seen = self
                .known_exits(&container.name)
                .find(|exit| exit.run == Some(container.restart_count) && exit.container_id.is_some());
            if let Some(exit) = seen.filter(|_| forgotten) {
                container.state = Some(State::Terminated(exit.clone()));
            }
        }
    }

    /// Exits that `state` no longer shows and that were never reported, each as a heartbeat of its own (fact 5).
    fn queue_lost_exits(&mut self, pod: &Observation, now: Duration, actions: &mut Vec<Action>) {
        let report = self.settings.report;
        for container in pod
            .containers
            .iter()
            .filter(|container| report.includes(container.role))
        {
            let Some(lost) = &container.last_exit else {
                continue;
            };
            let known = self
                .exits
                .iter()
                .any(|(name, exit)| *name == container.name && exit.is_same_as(lost));
            #[cfg(test)]
            let known = known
                || self.broken == Some(Broken::Alike)
                    && lost.container_id.is_none()
                    && self
                        .exits
                        .iter()
                        .any(|(name, exit)| *name == container.name && exit.container_id.is_none());
            let current = container.state.as_ref().and_then(|state| state.exit());
            if known || current.is_some_and(|exit| exit.is_same_as(lost)) {
                continue;
            }
            remember_exit(&mut self.exits, &container.name, lost);
            let told = request::status(container, &State::Terminated(lost.clone()));
            // The others as they were last reported: that was the world in which this exit happened.
            let mut statuses = request::statuses(pod, report);
            for status in &mut statuses {
                if status.name == told.name {
                    *status = told.clone();
                } else if let Some(before) = self.statuses.iter().find(|before| before.name == status.name) {
                    *status = before.clone();
                }
            }
            if !statuses.contains(&told) {
                statuses.push(told);
            }
            note_transitions(&self.statuses, &statuses, pod, actions);
            self.statuses.clone_from(&statuses);
            self.queue(Kind::LostExit, Some(statuses), true, now, actions);
        }
    }

    fn queue_change(
        &mut self,
        statuses: &[ContainerStatus],
        new_exit: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if let Some(tail) = self.outbox.tail_mut()
            && tail.kind == Kind::Change
            && tail.attempts == 0
            && !tail.tells_exit
            && now < tail.hold_until.max(tail.queued_at + COLLECT)
        {
            tail.request.container_status = Some(statuses.to_vec());
            self.unsaved = true;
            if new_exit {
                tail.tells_exit = true;
                tail.hold_until = now;
            }
            return;
        }
        self.queue(Kind::Change, Some(statuses.to_vec()), new_exit, now, actions);
    }

    fn pod_gone(&mut self, last: Option<Observation>, now: Now, actions: &mut Vec<Action>) {
        if let Some(last) = last {
            self.observe(last, now, actions);
        }
        if self.was_seen {
            self.gone = true;
        } else if !std::mem::replace(&mut self.told_stranger, true) {
            actions.push(Action::Note(Note::NeverSeen));
        }
    }

    fn looked(&mut self, look: Look, now: Now, actions: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Looking { .. }) {
            return;
        }
        let first_look = self.seen.is_none();
        match look {
            Look::Found(pod) => self.observe(pod, now, actions),
            Look::Gone => self.pod_gone(None, now, actions),
            Look::Failed => {}
        }
        // Whatever it brought, the look is over; but if only now podbeat learns that it is a plain sidecar, whose
        // SIGTERM comes together with the task's, there may be grace left to wait for fresher states.
        let waits = first_look && self.sidecar() == Sidecar::Plain && self.settled_at() > Some(now.elapsed);
        self.stage = if waits {
            Stage::Settling
        } else {
            Stage::Looking { until: now.elapsed }
        };
    }

    fn signal(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let again = self.signalled.is_some();
        actions.push(Action::Note(Note::Signal { again }));
        self.hurried = again;
        self.signalled.get_or_insert(now);
        if !again {
            actions.push(Action::HurryWatch);
        }
        match self.stage {
            Stage::Running | Stage::New => self.stage = Stage::Settling,
            Stage::Reconsidering { .. } => self.uphold(now, actions),
            // The deadline is known now: what waits out a back-off must not wait it out.
            Stage::Final { .. } | Stage::Barrier { .. } => self.cut_wait_short(now),
            Stage::Settling
            | Stage::Looking { .. }
            | Stage::Quiet
            | Stage::Refused
            | Stage::Orphaned
            | Stage::Over => {}
        }
    }

    fn answered(&mut self, attempt: u64, answer: &Answer, now: Now, actions: &mut Vec<Action>) {
        if self
            .in_flight
            .is_none_or(|in_flight| in_flight.attempt != attempt)
        {
            return;
        }
        self.in_flight = None;
        self.token_refused = *answer == Answer::Unauthorized;
        if let Stage::Barrier { since, tries } = self.stage {
            self.barrier_answered(since, tries, answer, now, actions);
            return;
        }
        let Some(head) = self.outbox.head_mut() else {
            return;
        };
        self.unsaved |= head.kind.brings_news();
        let beat = (head.number, head.kind);
        let is_final = head.kind == Kind::Final;
        #[cfg(test)]
        match (self.broken, answer) {
            (Some(Broken::G1), Answer::Ambiguous) if !is_final => {
                self.outbox.pop();
                return;
            }
            (Some(Broken::G2), Answer::Ambiguous) if is_final => {
                self.accepted(now.elapsed, actions);
                return;
            }
            _ => {}
        }
        let mut fail = |retry_at| {
            actions.push(Action::Note(Note::Failed {
                beat,
                answer: answer.clone(),
                retry_at,
            }))
        };
        match answer {
            Answer::Accepted => self.accepted(now.elapsed, actions),
            Answer::Refused { .. } if is_final && !head.stripped => {
                head.stripped = true;
                head.request.container_status = None;
                fail(Some(now.elapsed));
                self.not_before = now.elapsed;
            }
            Answer::Refused { .. } if is_final => {
                fail(None);
                self.last_heartbeat = LastHeartbeat::Refused;
                self.final_refused(actions);
            }
            Answer::Refused { .. } => {
                fail(None);
                self.give_up_head(DropCause::Refused, actions);
            }
            Answer::Disowned { .. } if is_final && head.may_have_arrived => {
                // It did arrive, and closed the run: that is what the service says.
                self.accepted(now.elapsed, actions);
            }
            Answer::Disowned { .. } => {
                let (count, since) = self.disowned.unwrap_or((0, now.elapsed));
                let count = count.saturating_add(1);
                self.disowned = Some((count, since));
                if count >= DISOWNED_ANSWERS && now.elapsed.saturating_sub(since) >= DISOWNED_FOR {
                    fail(None);
                    self.orphan(actions);
                } else {
                    self.try_again(beat, answer, now, actions);
                }
            }
            Answer::Unauthorized if !self.reread_token => {
                // Once at once with the token read afresh, then as any other failure.
                self.reread_token = true;
                self.not_before = now.elapsed;
                fail(Some(now.elapsed));
            }
            Answer::Unauthorized
            | Answer::Forbidden
            | Answer::NotSent
            | Answer::Unavailable { .. }
            | Answer::Ambiguous => {
                if answer.leaves_in_doubt() {
                    head.may_have_arrived = true;
                    if !is_final {
                        self.doubt = Doubt::Open;
                        #[cfg(test)]
                        if self.broken == Some(Broken::Early) {
                            self.doubt = Doubt::Until(now.elapsed.saturating_add(self.settings.timeout));
                        }
                    }
                }
                self.try_again(beat, answer, now, actions);
            }
        }
    }

    fn accepted(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.backoff.reset();
        self.not_before = now;
        self.wait_is_asked = false;
        self.reread_token = false;
        self.disowned = None;
        if self.doubt == Doubt::Open {
            self.doubt = Doubt::Until(now.saturating_add(self.settings.timeout));
        }
        let Some(head) = self.outbox.head() else { return };
        actions.push(Action::Note(Note::Accepted(head.number, head.kind)));
        if head.kind != Kind::Final {
            self.outbox.pop();
            return;
        }
        self.last_heartbeat = LastHeartbeat::Accepted;
        actions.push(Action::StopWatching);
        match self.doubt {
            Doubt::Until(until) if until > now => {
                actions.push(Action::Note(Note::Barrier { until }));
                self.stage = Stage::Barrier { since: now, tries: 0 };
            }
            Doubt::Until(_) | Doubt::Open | Doubt::None => self.delivered(actions),
        }
    }

    /// The service's last word is the last heartbeat.
    fn delivered(&mut self, actions: &mut Vec<Action>) {
        self.unsaved = true;
        self.outbox.pop();
        if self.idles_until_signal() {
            self.stage = Stage::Quiet;
        } else {
            self.end(End::Delivered, actions);
        }
    }

    /// The kubelet would start a native sidecar that ends too early again.
    fn idles_until_signal(&self) -> bool {
        self.sidecar() == Sidecar::Native && self.signalled.is_none() && !self.gone
    }

    /// What the repetition of an accepted last heartbeat brought. Whatever it is, the run has been told its end.
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
                if let Some(head) = self.outbox.head() {
                    actions.push(Action::Note(Note::Accepted(head.number, head.kind)));
                }
                self.delivered(actions);
            }
            // The run is closed to any request, a late one too.
            Answer::Disowned { .. } => self.delivered(actions),
            Answer::Unavailable { .. }
            | Answer::Unauthorized
            | Answer::Forbidden
            | Answer::NotSent
            | Answer::Ambiguous
                if tries < REPEATS =>
            {
                self.stage = Stage::Barrier { since, tries };
                self.wait_after_failure(answer, now);
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

    /// The service won't have the last heartbeat, with states or without. It stays in the outbox as a witness.
    fn final_refused(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::StopWatching);
        if self.idles_until_signal() {
            self.stage = Stage::Refused;
        } else {
            self.undelivered(DropCause::Refused, actions);
        }
    }

    /// Ends without an accepted last heartbeat. It stays in the outbox, so that a journal shows it.
    fn undelivered(&mut self, cause: DropCause, actions: &mut Vec<Action>) {
        let Some(last) = self.outbox.iter().find(|beat| beat.kind == Kind::Final).cloned() else {
            return;
        };
        self.lost(&last, cause, actions);
        self.end(End::Undelivered(Box::new(last.request)), actions);
    }

    /// The same heartbeat again, after a wait.
    fn try_again(&mut self, beat: (u64, Kind), answer: &Answer, now: Now, actions: &mut Vec<Action>) {
        let retry_at = self.wait_after_failure(answer, now);
        actions.push(Action::Note(Note::Failed {
            beat,
            answer: answer.clone(),
            retry_at: Some(retry_at),
        }));
    }

    /// Draws the wait after a failure. Where a deadline presses, at most a third of what is left: some attempts fit.
    fn wait_after_failure(&mut self, answer: &Answer, now: Now) -> Duration {
        let asked = answer.retry_after();
        let mut wait = self.backoff.after_failure(&mut self.rng);
        self.wait_is_asked = asked.is_some();
        if let Some(asked) = asked {
            let asked = asked.min(RETRY_AFTER_CAP);
            // Some time on top: many were told the same, and must not come back as one.
            let apart = (asked / 2).min(backoff::CAP).mul_f64(self.rng.f64());
            wait = asked + wait.max(apart);
        }
        if let Some(deadline) = self.pressing_deadline(now.elapsed) {
            let left = deadline.saturating_sub(now.elapsed);
            wait = wait.min((left / 3).max(deadline::SHORTEST_WAIT));
        }
        self.not_before = now.elapsed.saturating_add(wait);
        self.not_before
    }

    fn cut_wait_short(&mut self, now: Duration) {
        if !self.wait_is_asked {
            self.backoff.reset();
            self.not_before = self.not_before.min(now);
        } else if let Some(deadline) = self.pressing_deadline(now) {
            let left = deadline.saturating_sub(now);
            self.not_before = self.not_before.min(now.saturating_add(left / 3));
        }
    }

    fn give_up_head(&mut self, cause: DropCause, actions: &mut Vec<Action>) {
        if let Some(beat) = self.outbox.pop() {
            self.lost(&beat, cause, actions);
        }
    }

    /// Tells and counts what won't be accepted.
    fn lost(&mut self, beat: &Beat, cause: DropCause, actions: &mut Vec<Action>) {
        let kind = beat.kind;
        let told = beat.request.container_status.clone().unwrap_or_default();
        actions.push(Action::Note(Note::Dropped(beat.number, kind, cause, told)));
        if !kind.brings_news() {
            return;
        }
        self.unsaved = true;
        let count = match cause {
            DropCause::Overflow => &mut self.losses.overflowed,
            DropCause::Expired => &mut self.losses.expired,
            DropCause::Refused => &mut self.losses.refused,
            DropCause::Deadline => &mut self.losses.too_late,
            DropCause::Orphaned => &mut self.losses.orphaned,
            DropCause::Superseded => return,
        };
        *count += 1;
    }

    fn orphan(&mut self, actions: &mut Vec<Action>) {
        self.unsaved = true;
        self.last_heartbeat = LastHeartbeat::Orphaned;
        for beat in self.outbox.take_if(|_| true) {
            self.lost(&beat, DropCause::Orphaned, actions);
        }
        actions.push(Action::Note(Note::Orphaned));
        self.stage = Stage::Orphaned;
    }

    fn end(&mut self, end: End, actions: &mut Vec<Action>) {
        self.stage = Stage::Over;
        actions.push(Action::End(end));
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    fn advance(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.give_up_slow_attempt(now, actions);
        self.ask_for_markers(now.elapsed, actions);
        self.step(now.elapsed, actions);
        self.send_due(now.elapsed, actions);
        if self.stage != Stage::Over {
            actions.push(Action::WakeAt(self.next_wake()));
        }
    }

    fn give_up_slow_attempt(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Some(in_flight) = self.in_flight
            && self.gives_up_at(in_flight) <= now.elapsed
        {
            actions.push(Action::Abort);
            self.answered(in_flight.attempt, &Answer::Ambiguous, now, actions);
        }
    }

    fn step(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let restarting = self.is_restarting();
        if restarting && matches!(self.stage, Stage::Final { .. }) && self.final_is_unsent() {
            // It was due for the signal alone, and now it is known what the signal is for.
            self.withdraw_final();
            self.stage = Stage::Settling;
        }
        let finished = self.seen.as_ref().is_some_and(is_finished);
        let cause = if self.gone {
            Some(Cause::Gone)
        } else {
            finished.then_some(Cause::Completed)
        };
        let deleted = self.seen.as_ref().is_some_and(|pod| pod.deletion.is_some());
        let marked = self.is_marked_finished();
        #[cfg(test)]
        let deleted = deleted && self.broken != Some(Broken::Patient);
        match self.stage {
            Stage::Running => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                }
            }
            Stage::Reconsidering { since } => {
                if self.gone || self.reconsiders_until(since).is_some_and(|until| until <= now) {
                    self.uphold(now, actions);
                }
            }
            Stage::Settling | Stage::Looking { .. } if restarting => self.leave_for_restart(now, actions),
            Stage::Settling => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                } else if marked && deleted {
                    // Nothing is gained by waiting: such a pod's API tells no exit while podbeat lives.
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
                if cause.is_some() || until <= now || (marked && deleted) {
                    let of_signal = if marked { Cause::Marked } else { Cause::Signal };
                    self.begin_final(cause.unwrap_or(of_signal), now, actions);
                }
            }
            Stage::Final { .. } => {
                if self.skips_to_final_at().is_some_and(|at| at <= now) {
                    self.skip_to_final(now, actions);
                }
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.abort(actions);
                    self.skip_to_final(now, actions);
                    self.undelivered(DropCause::Deadline, actions);
                }
            }
            Stage::Barrier { .. } => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.abort(actions);
                    actions.push(Action::Note(Note::BarrierFailed));
                    self.delivered(actions);
                }
            }
            Stage::Quiet => {
                if self.signalled.is_some() {
                    self.end(End::Delivered, actions);
                }
            }
            Stage::Refused => {
                if self.signalled.is_some() {
                    self.undelivered(DropCause::Refused, actions);
                }
            }
            Stage::Orphaned => {
                let leaves = self.sidecar() != Sidecar::Native && finished;
                if self.signalled.is_some() || self.gone || leaves {
                    self.end(End::Orphaned, actions);
                }
            }
            Stage::New | Stage::Over => {}
        }
    }

    /// Whether the API or exit markers show that all containers are about to be restarted.
    fn is_restarting(&self) -> bool {
        #[cfg(test)]
        if self.broken == Some(Broken::Restart) {
            return false;
        }
        !self.gone
            && self
                .seen
                .as_ref()
                .is_some_and(|pod| pod.restarts_all() || self.is_marked_restarting(pod))
    }

    fn withdraw_final(&mut self) {
        let _ = self.outbox.take_if(|beat| beat.kind == Kind::Final);
        self.cause = None;
        self.unsaved = true;
    }

    fn final_is_unsent(&self) -> bool {
        let unsent = |beat: &Beat| beat.kind == Kind::Final && beat.attempts == 0;
        self.outbox.iter().any(unsent)
    }

    /// Ends without a last heartbeat, once what waits was accepted or the time is up. The journal, if there is one, keeps the rest.
    fn leave_for_restart(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let idle = self.in_flight.is_none() && self.outbox.is_empty();
        if idle || self.restarts_at().is_none_or(|at| at <= now) {
            self.abort(actions);
            self.end(End::Restarting, actions);
        }
    }

    fn begin_final(&mut self, cause: Cause, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Note::Final(cause)));
        self.cause = Some(cause);
        let attempted = self
            .in_flight
            .map(|_| self.outbox.head().map_or(0, |head| head.number));
        let superseded = self
            .outbox
            .take_if(|beat| beat.kind == Kind::Periodic && Some(beat.number) != attempted);
        for beat in superseded {
            self.lost(&beat, DropCause::Superseded, actions);
        }
        self.stage = Stage::Final { since: now };
        let statuses = self.last_statuses(now);
        self.queue(Kind::Final, statuses, false, now, actions);
        self.hold_for_markers(now);
        self.cut_wait_short(now);
    }

    fn abort(&mut self, actions: &mut Vec<Action>) {
        if self.in_flight.take().is_some() {
            actions.push(Action::Abort);
        }
    }

    fn skip_to_final(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self
            .in_flight
            .is_some_and(|in_flight| in_flight.kind != Kind::Final)
        {
            self.in_flight = None;
            self.doubt = Doubt::Open;
            actions.push(Action::Abort);
        }
        for beat in self.outbox.take_if(|beat| beat.kind != Kind::Final) {
            self.lost(&beat, DropCause::Deadline, actions);
        }
        // What kept the others waiting must not keep the last one waiting as long.
        self.cut_wait_short(now);
    }

    fn send_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
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
        let busy = self.in_flight.is_some();
        #[cfg(test)]
        let (sends, busy) = (
            sends || (self.broken == Some(Broken::G3) && self.stage == Stage::Quiet),
            busy && self.broken != Some(Broken::G4),
        );
        if !sends || busy || now < self.not_before {
            return;
        }
        self.drop_expired(now, actions);
        if self.outbox.is_empty() {
            if now < self.next_periodic {
                return;
            }
            let statuses = self.fresh_statuses(now);
            self.queue(Kind::Periodic, statuses, false, now, actions);
        } else {
            self.renew_stale_periodic(now, actions);
        }
        let timeout = self.attempt_timeout(now);
        let last_statuses = matches!(self.stage, Stage::Final { .. }).then(|| self.last_statuses(now));
        let Some(head) = self.outbox.head_mut() else {
            return;
        };
        if now < head.hold_until {
            return;
        }
        // The last word is the latest known, also when the pod showed more while an earlier attempt failed.
        let mut sent = None;
        if let Some(statuses) = last_statuses
            && head.kind == Kind::Final
            && !head.stripped
        {
            sent.clone_from(&statuses);
            head.request.container_status = statuses;
        }
        // It may have become known since the heartbeat was decided. A retry of what may have arrived is the same to the letter.
        if !head.may_have_arrived && head.request.job_retry_count.is_none() {
            head.request.job_retry_count = self.settings.identity.job_retry_count;
        }
        self.attempts += 1;
        let attempt = Attempt {
            number: self.attempts,
            beat: (head.number, head.kind),
            retries: head.attempts,
            request: head.request.clone(),
            timeout,
            reread_token: std::mem::take(&mut self.token_refused),
        };
        head.attempts = head.attempts.saturating_add(1);
        self.unsaved |= head.kind.brings_news();
        self.in_flight = Some(InFlight {
            attempt: attempt.number,
            kind: head.kind,
            started: now,
            timeout,
        });
        self.last_sent = Some(now);
        self.next_periodic = now.saturating_add(self.jittered_interval());
        self.note_marked(&sent.unwrap_or_default(), actions);
        actions.push(Action::Send(attempt));
    }

    /// What was observed too long ago is no news. An exit stays one, without the states that stood beside it then.
    fn drop_expired(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let fresh = self.is_fresh(now);
        loop {
            let news = |beat: &&Beat| matches!(beat.kind, Kind::Change | Kind::LostExit);
            let newest = self.outbox.iter().filter(news).last().map(|beat| beat.number);
            let Some(head) = self.outbox.head_mut() else {
                return;
            };
            let old = head.age(now) > self.settings.max_status_age;
            if !old || !matches!(head.kind, Kind::Change | Kind::LostExit) {
                return;
            }
            if head.tells_exit {
                // A retry of what may have arrived is the same to the letter.
                if !head.may_have_arrived && head.keep_exits_only() {
                    self.losses.expired += 1;
                }
                return;
            }
            let current = head.request.container_status.as_ref() == Some(&self.statuses);
            if fresh && current && newest == Some(head.number) {
                return;
            }
            self.give_up_head(DropCause::Expired, actions);
        }
    }

    /// A periodic heartbeat that could not be sent says nothing that a newer one, or a change behind it, doesn't.
    fn renew_stale_periodic(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(head) = self.outbox.head() else { return };
        let overtaken = self.outbox.len() > 1;
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

    fn next_wake(&self) -> Option<Duration> {
        let begins = match self.stage {
            Stage::Barrier { since, .. } => self.barrier_at(since),
            _ => Duration::ZERO,
        };
        let sending = match (self.in_flight, self.outbox.head()) {
            (Some(in_flight), _) => Some(self.gives_up_at(in_flight)),
            (None, Some(head)) => Some(head.hold_until.max(self.not_before).max(begins)),
            (None, None) => Some(self.next_periodic.max(self.not_before)),
        };
        let stage = match self.stage {
            Stage::Settling | Stage::Looking { .. } if self.is_restarting() => self.restarts_at(),
            Stage::Settling => self.settled_at(),
            Stage::Looking { until } => Some(until),
            Stage::Final { .. } => earliest(self.deadline(), self.skips_to_final_at()),
            Stage::Barrier { .. } => self.deadline(),
            Stage::Running => None,
            Stage::Reconsidering { since } => return self.reconsiders_until(since),
            #[cfg(test)]
            Stage::Quiet if self.broken == Some(Broken::G3) => None,
            // Nothing is sent any more, or not yet.
            Stage::New | Stage::Quiet | Stage::Refused | Stage::Orphaned | Stage::Over => return None,
        };
        earliest(earliest(sending, stage), self.markers_due())
    }

    // ---- parts --------------------------------------------------------------------------------------------------

    fn queue(
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
        let collected = self.last_sent.map_or(now, |sent| sent.saturating_add(COLLECT));
        self.beats += 1;
        let beat = Beat {
            number: self.beats,
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
        for dropped in self.outbox.push(beat) {
            self.lost(&dropped, DropCause::Overflow, actions);
        }
    }

    /// The states to report in a periodic heartbeat, if the API has confirmed them lately.
    fn fresh_statuses(&self, now: Duration) -> Option<Vec<ContainerStatus>> {
        (self.is_fresh(now) && !self.statuses.is_empty()).then(|| self.statuses.clone())
    }

    /// The states to report in the last heartbeat: the last that are known, but none that has grown too old to be
    /// told as news. An exit doesn't grow old, and where the API withholds one, an exit marker tells it.
    fn last_statuses(&self, now: Duration) -> Option<Vec<ContainerStatus>> {
        let statuses = self
            .fresh_statuses(now)
            .or_else(|| exits_only(self.statuses.clone()));
        let statuses = self.with_markers(statuses);
        #[cfg(test)]
        let mut statuses = statuses;
        #[cfg(test)]
        if self.broken == Some(Broken::G7) {
            statuses.iter_mut().flatten().for_each(|status| {
                status.state = Some(podbeat_task_runs::model::ContainerState::Terminated(
                    podbeat_task_runs::model::ContainerStateTerminated {
                        exit_code: Some(143),
                        ..Default::default()
                    },
                ));
            });
        }
        statuses
    }

    fn is_fresh(&self, now: Duration) -> bool {
        self.confirmed
            .is_some_and(|confirmed| confirmed.age(now) <= self.settings.max_status_age)
    }

    /// ±10 %, so that copies that started together drift apart; but never more than one attempt may take, so that the
    /// gap between two heartbeats stays within interval and time-out, also where the last one waits for exit markers.
    fn jittered_interval(&mut self) -> Duration {
        let timeout = self.settings.timeout;
        let most = timeout.saturating_sub(witness::FIRST_READ).max(timeout / 2);
        let span = (self.settings.interval / 10).min(most);
        #[cfg(test)]
        if self.broken == Some(Broken::G5) {
            return self.settings.interval * 3;
        }
        self.settings
            .interval
            .saturating_sub(span)
            .saturating_add(span.mul_f64(2.0 * self.rng.f64()))
    }

    fn sidecar(&self) -> Sidecar {
        self.seen
            .as_ref()
            .map_or(self.remembered_sidecar, |pod| pod.sidecar)
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Remembers an exit as told. Of each container the last two are kept, because `state` and `lastState` show as many.
fn remember_exit(exits: &mut Vec<(String, Exit)>, container: &str, exit: &Exit) {
    let of_container = |(name, _): &(String, Exit)| name == container;
    let same = |(name, told): &(String, Exit)| name == container && told.is_same_as(exit);
    if let Some((_, known)) = exits.iter_mut().find(|told| same(told)) {
        // The kubelet knows more of an exit whose container it has not lost.
        if exit.container_id.is_some() || known.container_id.is_none() {
            known.clone_from(exit);
        }
        return;
    }
    if exits.iter().filter(|told| of_container(told)).count() >= 2
        && let Some(oldest) = exits.iter().position(of_container)
    {
        exits.remove(oldest);
    }
    exits.push((container.to_owned(), exit.clone()));
}

fn note_transitions(
    before: &[ContainerStatus],
    now: &[ContainerStatus],
    seen: &Observation,
    actions: &mut Vec<Action>,
) {
    for status in now.iter().filter(|status| !before.contains(status)) {
        let earlier = before.iter().find(|earlier| earlier.name == status.name);
        actions.push(Action::Note(Note::Transition {
            container: status.name.clone().unwrap_or_default(),
            from: earlier
                .and_then(|earlier| earlier.state.as_ref())
                .map(|state| state.name()),
            to: Box::new(status.clone()),
            restart_count: seen
                .containers
                .iter()
                .find(|container| Some(&container.name) == status.name.as_ref())
                .map_or(0, |container| container.restart_count),
        }));
    }
}
