//! The machine: [`Machine::on`] takes an event and the time, and says what to do.
//!
//! The shell carries the actions out and brings their results back as events. It decides nothing: which heartbeat goes
//! when, what an answer means, when to look at the pod once more, when to give up and how to end is all here.

use std::time::Duration;

use super::Now;
use super::answer::{Answer, RetryAfter};
use super::backoff::Backoff;
use super::completion::is_finished;
use super::outbox::{Beat, Kind, Outbox, shows_new_exit};
use super::request::{self, Identity, Report};
use crate::pod::status::{Exit, Observation, Sidecar};
use crate::task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};

/// Changes that follow a send within this time are collected into one heartbeat (design §5).
const COLLECT: Duration = Duration::from_millis(250);

/// A native sidecar's SIGTERM and the event that shows the task's end come within some 10 ms of one another (design
/// fact 2). A second is ample, and half of what is left if the grace has run out.
const NATIVE_SETTLE: Duration = Duration::from_secs(1);

/// What the kubelet leaves a native sidecar once the grace is used up, and at least leaves any container (design fact
/// 3; kubelet `minimumGracePeriodInSeconds`).
const LATE_GRACE: Duration = Duration::from_secs(2);

/// The most that the look before the last heartbeat may take.
const LOOK: Duration = Duration::from_secs(1);

/// The shortest attempt that is worth making: a TLS handshake and an answer across a region take less.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(200);

/// The shortest wait between two attempts when a deadline presses.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// How long the last heartbeat is tried where nothing else sets an end (a plain sidecar whose task is done, a pod
/// object that is gone). It outlasts a service's restart or failover; longer would hold a finished Job open.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A service that asks for more than this in Retry-After is asked again all the same: the run would time out.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(5 * 60);

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
    /// Container states that the API hasn't confirmed for longer are left out of a periodic heartbeat.
    pub max_status_age: Duration,
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
    /// Send [`Event::Woke`] at this time (since the start), replacing the last such order. Comes last.
    WakeAt(Option<Duration>),
    /// The pod need not be watched any longer.
    StopWatching,
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
    /// Whether the token was refused, so that it is to be read afresh.
    pub reread_token: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The last heartbeat was accepted.
    Delivered,
    /// The service said that the run isn't ours; nothing was sent after that.
    Orphaned,
    /// The last heartbeat was not accepted in time.
    Undelivered(Box<HeartbeatTaskRunRequest>),
}

/// Why the last heartbeat goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Every task container is finished.
    Completed,
    /// The pod object is gone.
    Gone,
    /// SIGTERM, and the API shows no end.
    Signal,
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
    /// A newer one says all that it says.
    Superseded,
    /// The run isn't ours.
    Orphaned,
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
    },
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
    /// A heartbeat was dropped.
    Dropped(u64, Kind, DropCause),
    /// A signal came; whether it wasn't the first.
    Signal {
        /// Whether one had come before.
        again: bool,
    },
    /// The last heartbeat is due.
    Final(Cause),
    /// The run is held to be no longer ours.
    Orphaned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not yet started.
    New,
    /// Heartbeats by interval and on change.
    Running,
    /// After SIGTERM, waiting for fresher states.
    Settling,
    /// The direct look is under way.
    Looking { until: Duration },
    /// The last heartbeat waits in the outbox or is in flight, since then.
    Final { since: Duration },
    /// It was accepted; a native sidecar idles until SIGTERM.
    Quiet,
    /// The run isn't ours.
    Orphaned,
    /// The process ends.
    Over,
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
    confirmed_at: Duration,
    statuses: Vec<ContainerStatus>,
    exits: Vec<(String, Exit)>,
    gone: bool,
    /// Whether a pod that is missing or another's was told of: once is enough for a wrong name.
    told_stranger: bool,
    deletion_ends: Option<Duration>,

    // What is to be sent.
    outbox: Outbox,
    beats: u64,
    attempts: u64,
    in_flight: Option<InFlight>,
    last_sent: Option<Duration>,
    next_periodic: Duration,

    // How the service answers.
    backoff: Backoff,
    not_before: Duration,
    /// Whether the wait was asked for by Retry-After, so that nothing but a deadline cuts it short.
    wait_is_asked: bool,
    reread_token: bool,
    disowned: Option<(u32, Duration)>,

    // How it ends.
    signalled: Option<Duration>,
    hurried: bool,
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
            confirmed_at: Duration::ZERO,
            statuses: Vec::new(),
            exits: Vec::new(),
            gone: false,
            told_stranger: false,
            deletion_ends: None,
            outbox: Outbox::default(),
            beats: 0,
            attempts: 0,
            in_flight: None,
            last_sent: None,
            next_periodic: Duration::ZERO,
            backoff: Backoff::default(),
            not_before: Duration::ZERO,
            wait_is_asked: false,
            reread_token: false,
            disowned: None,
            signalled: None,
            hurried: false,
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
            Event::Confirmed => self.confirmed_at = now.elapsed,
            Event::Gone(last) => self.pod_gone(last, now, &mut actions),
            Event::Looked(look) => self.looked(look, now, &mut actions),
            Event::Answered { attempt, answer } => self.answered(attempt, &answer, now, &mut actions),
            Event::Signal => self.signal(now.elapsed, &mut actions),
            Event::Woke => {}
        }
        self.advance(now, &mut actions);
        actions
    }

    /// How many heartbeats wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    // ---- events -------------------------------------------------------------------------------------------------

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stage == Stage::New {
            self.stage = Stage::Running;
            self.queue(Kind::First, None, false, now, actions);
        }
    }

    fn observe(&mut self, pod: Observation, now: Now, actions: &mut Vec<Action>) {
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
            self.gone = self.seen.is_some();
            return;
        }
        self.settings.identity.learn(&pod);
        self.confirmed_at = now.elapsed;
        self.deletion_ends = match (
            pod.deletion,
            self.seen.as_ref().and_then(|before| before.deletion),
        ) {
            // Reckoned once for each deletionTimestamp, so that a step of the wall clock doesn't move it.
            (Some(deletion), before) if before != Some(deletion) => Some(now.elapsed_at(deletion.at)),
            (Some(_), _) => self.deletion_ends,
            (None, _) => None,
        };
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. }
        );
        if open {
            self.queue_lost_exits(&pod, now.elapsed, actions);
        }
        let statuses = request::statuses(&pod, self.settings.report);
        if statuses != self.statuses {
            note_transitions(&self.statuses, &statuses, actions);
            let new_exit = shows_new_exit(&self.statuses, &statuses);
            // What completes the task goes out with the last heartbeat itself: one request, and no wait between them.
            if open && !is_finished(&pod) {
                self.queue_change(&statuses, new_exit, now.elapsed, actions);
            }
            self.statuses = statuses;
        }
        for container in &pod.containers {
            if let Some(exit) = container.state.as_ref().and_then(|state| state.exit()) {
                remember_exit(&mut self.exits, &container.name, exit);
            }
        }
        self.seen = Some(pod);
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
            let current = container.state.as_ref().and_then(|state| state.exit());
            if known || current.is_some_and(|exit| exit.is_same_as(lost)) {
                continue;
            }
            remember_exit(&mut self.exits, &container.name, lost);
            let told = request::status(container, &crate::pod::status::State::Terminated(lost.clone()));
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
            note_transitions(&self.statuses, &statuses, actions);
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
        if self.seen.is_some() {
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
        match self.stage {
            Stage::Running | Stage::New => self.stage = Stage::Settling,
            // The deadline is known now: what waits out a back-off must not wait it out.
            Stage::Final { .. } => self.cut_wait_short(now),
            Stage::Settling | Stage::Looking { .. } | Stage::Quiet | Stage::Orphaned | Stage::Over => {}
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
        let Some(head) = self.outbox.head_mut() else {
            return;
        };
        let beat = (head.number, head.kind);
        let is_final = head.kind == Kind::Final;
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
                    let retry_at = self.wait_after_failure(None, now);
                    actions.push(Action::Note(Note::Failed {
                        beat,
                        answer: answer.clone(),
                        retry_at: Some(retry_at),
                    }));
                }
            }
            Answer::Unauthorized if !self.reread_token => {
                // Once at once with the token read afresh, then as any other failure.
                self.reread_token = true;
                self.not_before = now.elapsed;
                fail(Some(now.elapsed));
            }
            Answer::Unauthorized | Answer::Forbidden | Answer::NotSent => {
                let retry_at = self.wait_after_failure(None, now);
                actions.push(Action::Note(Note::Failed {
                    beat,
                    answer: answer.clone(),
                    retry_at: Some(retry_at),
                }));
            }
            Answer::Unavailable { retry_after, .. } => {
                let retry_at = self.wait_after_failure(*retry_after, now);
                actions.push(Action::Note(Note::Failed {
                    beat,
                    answer: answer.clone(),
                    retry_at: Some(retry_at),
                }));
            }
            Answer::Ambiguous => {
                head.may_have_arrived = true;
                let retry_at = self.wait_after_failure(None, now);
                actions.push(Action::Note(Note::Failed {
                    beat,
                    answer: answer.clone(),
                    retry_at: Some(retry_at),
                }));
            }
        }
    }

    fn accepted(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.backoff.reset();
        self.not_before = now;
        self.wait_is_asked = false;
        self.reread_token = false;
        self.disowned = None;
        let Some(beat) = self.outbox.pop() else { return };
        actions.push(Action::Note(Note::Accepted(beat.number, beat.kind)));
        if beat.kind != Kind::Final {
            return;
        }
        let idles = self.sidecar() == Sidecar::Native && self.signalled.is_none() && !self.gone;
        if idles {
            self.stage = Stage::Quiet;
            actions.push(Action::StopWatching);
        } else {
            self.end(End::Delivered, actions);
        }
    }

    /// Draws the wait after a failure. Where a deadline presses, at most a third of what is left: some attempts fit.
    fn wait_after_failure(&mut self, asked: Option<RetryAfter>, now: Now) -> Duration {
        let mut wait = self.backoff.after_failure(&mut self.rng);
        self.wait_is_asked = asked.is_some();
        if let Some(asked) = asked {
            let asked = match asked {
                RetryAfter::Delay(delay) => delay,
                RetryAfter::At(date) => now.elapsed_at(date).saturating_sub(now.elapsed),
            };
            wait = wait.max(asked.min(RETRY_AFTER_CAP));
        }
        if let Some(deadline) = self.deadline() {
            let left = deadline.saturating_sub(now.elapsed);
            wait = wait.min((left / 3).max(SHORTEST_WAIT));
        }
        self.not_before = now.elapsed.saturating_add(wait);
        self.not_before
    }

    fn cut_wait_short(&mut self, now: Duration) {
        if !self.wait_is_asked {
            self.backoff.reset();
            self.not_before = self.not_before.min(now);
        } else if let Some(deadline) = self.deadline() {
            let left = deadline.saturating_sub(now);
            self.not_before = self.not_before.min(now.saturating_add(left / 3));
        }
    }

    fn give_up_head(&mut self, cause: DropCause, actions: &mut Vec<Action>) {
        let Some(beat) = self.outbox.pop() else { return };
        actions.push(Action::Note(Note::Dropped(beat.number, beat.kind, cause)));
        if beat.kind == Kind::Final {
            self.end(End::Undelivered(Box::new(beat.request)), actions);
        }
    }

    fn orphan(&mut self, actions: &mut Vec<Action>) {
        for beat in self.outbox.take_if(|_| true) {
            actions.push(Action::Note(Note::Dropped(
                beat.number,
                beat.kind,
                DropCause::Orphaned,
            )));
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
        let finished = self.seen.as_ref().is_some_and(is_finished);
        let cause = if self.gone {
            Some(Cause::Gone)
        } else {
            finished.then_some(Cause::Completed)
        };
        match self.stage {
            Stage::Running => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                }
            }
            Stage::Settling => {
                if let Some(cause) = cause {
                    self.begin_final(cause, now, actions);
                } else if self.settled_at().is_none_or(|settled| settled <= now) {
                    let left = self
                        .deadline()
                        .map_or(LOOK, |deadline| deadline.saturating_sub(now) / 4);
                    let look = left.min(LOOK);
                    self.stage = Stage::Looking {
                        until: now.saturating_add(look),
                    };
                    actions.push(Action::LookAtPod(look));
                }
            }
            Stage::Looking { until } => {
                if cause.is_some() || until <= now {
                    self.begin_final(cause.unwrap_or(Cause::Signal), now, actions);
                }
            }
            Stage::Final { .. } => {
                if self.skips_to_final_at().is_some_and(|at| at <= now) {
                    self.skip_to_final(actions);
                }
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    if self.in_flight.take().is_some() {
                        actions.push(Action::Abort);
                    }
                    self.give_up_head(DropCause::Deadline, actions);
                }
            }
            Stage::Quiet => {
                if self.signalled.is_some() {
                    self.end(End::Delivered, actions);
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

    fn begin_final(&mut self, cause: Cause, now: Duration, actions: &mut Vec<Action>) {
        actions.push(Action::Note(Note::Final(cause)));
        let attempted = self
            .in_flight
            .map(|_| self.outbox.head().map_or(0, |head| head.number));
        let superseded = self
            .outbox
            .take_if(|beat| beat.kind == Kind::Periodic && Some(beat.number) != attempted);
        for beat in superseded {
            actions.push(Action::Note(Note::Dropped(
                beat.number,
                beat.kind,
                DropCause::Superseded,
            )));
        }
        self.stage = Stage::Final { since: now };
        let statuses = (!self.statuses.is_empty()).then(|| self.statuses.clone());
        self.queue(Kind::Final, statuses, false, now, actions);
        self.cut_wait_short(now);
    }

    fn skip_to_final(&mut self, actions: &mut Vec<Action>) {
        if self
            .in_flight
            .is_some_and(|in_flight| in_flight.kind != Kind::Final)
        {
            self.in_flight = None;
            actions.push(Action::Abort);
        }
        for beat in self.outbox.take_if(|beat| beat.kind != Kind::Final) {
            actions.push(Action::Note(Note::Dropped(
                beat.number,
                beat.kind,
                DropCause::Deadline,
            )));
        }
    }

    fn send_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let sends = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. } | Stage::Final { .. }
        );
        if !sends || self.in_flight.is_some() || now < self.not_before {
            return;
        }
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
        let current = matches!(self.stage, Stage::Final { .. }).then(|| self.statuses.clone());
        let Some(head) = self.outbox.head_mut() else {
            return;
        };
        if now < head.hold_until {
            return;
        }
        // The last word is the latest known, also when the pod showed more while an earlier attempt failed.
        if let Some(current) = current
            && head.kind == Kind::Final
            && !head.stripped
        {
            head.request.container_status = (!current.is_empty()).then_some(current);
        }
        self.attempts += 1;
        let attempt = Attempt {
            number: self.attempts,
            beat: (head.number, head.kind),
            retries: head.attempts,
            request: head.request.clone(),
            timeout,
            reread_token: self.reread_token,
        };
        head.attempts = head.attempts.saturating_add(1);
        self.in_flight = Some(InFlight {
            attempt: attempt.number,
            kind: head.kind,
            started: now,
            timeout,
        });
        self.last_sent = Some(now);
        self.next_periodic = now.saturating_add(self.jittered_interval());
        actions.push(Action::Send(attempt));
    }

    /// A periodic heartbeat that could not be sent says nothing that a newer one, or a change behind it, doesn't.
    fn renew_stale_periodic(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(head) = self.outbox.head() else { return };
        let overtaken = self.outbox.len() > 1;
        let old = now.saturating_sub(head.queued_at) >= self.settings.interval;
        if head.kind != Kind::Periodic || !(overtaken || old) {
            return;
        }
        if let Some(beat) = self.outbox.pop() {
            actions.push(Action::Note(Note::Dropped(
                beat.number,
                beat.kind,
                DropCause::Superseded,
            )));
        }
        if !overtaken {
            let statuses = self.fresh_statuses(now);
            self.queue(Kind::Periodic, statuses, false, now, actions);
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let sending = match (self.in_flight, self.outbox.head()) {
            (Some(in_flight), _) => Some(self.gives_up_at(in_flight)),
            (None, Some(head)) => Some(head.hold_until.max(self.not_before)),
            (None, None) => Some(self.next_periodic.max(self.not_before)),
        };
        let stage = match self.stage {
            Stage::Settling => self.settled_at(),
            Stage::Looking { until } => Some(until),
            Stage::Final { .. } => earliest(self.deadline(), self.skips_to_final_at()),
            Stage::Running => None,
            // Nothing is sent any more, or not yet.
            Stage::New | Stage::Quiet | Stage::Orphaned | Stage::Over => return None,
        };
        earliest(sending, stage)
    }

    // ---- deadlines ----------------------------------------------------------------------------------------------

    /// When what is left of the pod's grace ends, or our own patience. `None` while nothing presses.
    fn deadline(&self) -> Option<Duration> {
        let Some(signalled) = self.signalled else {
            return match self.stage {
                // The kubelet will send SIGTERM: a native sidecar need not set an end of its own.
                Stage::Final { .. } if self.sidecar() == Sidecar::Native && !self.gone => None,
                Stage::Final { since } => Some(since.saturating_add(PATIENCE)),
                Stage::New
                | Stage::Running
                | Stage::Settling
                | Stage::Looking { .. }
                | Stage::Quiet
                | Stage::Orphaned
                | Stage::Over => None,
            };
        };
        let grace = self
            .seen
            .as_ref()
            .map_or(Duration::from_secs(30), |pod| pod.termination_grace);
        let grace_ends = signalled.saturating_add(grace);
        let least = signalled.saturating_add(LATE_GRACE);
        Some(match (self.sidecar(), self.deletion_ends) {
            // A native sidecar gets SIGTERM after the task's containers are dead: the deletion's own end counts,
            // or 2 s if that has passed.
            (Sidecar::Native, Some(deletion_ends)) => deletion_ends.max(least),
            (Sidecar::Native, None) => grace_ends.max(least),
            (Sidecar::Plain | Sidecar::Elsewhere, Some(deletion_ends)) => deletion_ends
                .min(grace_ends)
                .max(signalled.saturating_add(LATE_GRACE / 2)),
            (Sidecar::Plain | Sidecar::Elsewhere, None) => grace_ends,
        })
    }

    /// Until when, after SIGTERM, fresher states are awaited.
    fn settled_at(&self) -> Option<Duration> {
        let signalled = self.signalled?;
        if self.hurried {
            return Some(signalled);
        }
        Some(match self.sidecar() {
            Sidecar::Native => signalled.saturating_add(NATIVE_SETTLE),
            Sidecar::Plain => {
                // Room for one attempt and a retry, but never more than half of what there is.
                let deadline = self.deadline()?;
                let room = deadline.saturating_sub(signalled) / 2;
                deadline.saturating_sub(room.min(self.settings.timeout * 2))
            }
            // Run from outside (Ctrl-C), or never saw the pod: there is nothing to wait for.
            Sidecar::Elsewhere => signalled,
        })
    }

    /// When, of what is left since the last heartbeat was due, half is gone: what waits before it is left out then.
    fn skips_to_final_at(&self) -> Option<Duration> {
        let Stage::Final { since } = self.stage else {
            return None;
        };
        if !self.outbox.holds_transitions() {
            return None;
        }
        let from = since.max(self.signalled.unwrap_or(since));
        let deadline = self.deadline()?;
        Some(from.saturating_add(deadline.saturating_sub(from) / 2))
    }

    fn attempt_timeout(&self, now: Duration) -> Duration {
        let Some(deadline) = self.deadline() else {
            return self.settings.timeout;
        };
        let left = deadline.saturating_sub(now);
        self.settings.timeout.min((left / 2).max(SHORTEST_ATTEMPT))
    }

    /// An attempt gets its time-out; one that stands in the way of the last heartbeat gets a quarter of what is left.
    fn gives_up_at(&self, in_flight: InFlight) -> Duration {
        let timeout = in_flight.started.saturating_add(in_flight.timeout);
        let Stage::Final { since } = self.stage else {
            return timeout;
        };
        match self.deadline() {
            Some(deadline) if in_flight.kind != Kind::Final => {
                let from = since.max(self.signalled.unwrap_or(since)).max(in_flight.started);
                timeout.min(from.saturating_add(deadline.saturating_sub(from) / 4))
            }
            Some(_) | None => timeout,
        }
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
            hold_until: if kind == Kind::Change && !tells_exit {
                collected.max(now)
            } else {
                now
            },
            attempts: 0,
            may_have_arrived: false,
            stripped: false,
        };
        if let Some(dropped) = self.outbox.push(beat) {
            actions.push(Action::Note(Note::Dropped(
                dropped.number,
                dropped.kind,
                DropCause::Overflow,
            )));
        }
    }

    /// The states to report in a periodic heartbeat, if the API has confirmed them lately.
    fn fresh_statuses(&self, now: Duration) -> Option<Vec<ContainerStatus>> {
        let fresh = now.saturating_sub(self.confirmed_at) <= self.settings.max_status_age;
        (fresh && !self.statuses.is_empty()).then(|| self.statuses.clone())
    }

    /// ±10 %, so that copies that started together drift apart; but never more than one attempt may take, so that the
    /// gap between two heartbeats stays within interval and time-out.
    fn jittered_interval(&mut self) -> Duration {
        let span = (self.settings.interval / 10).min(self.settings.timeout);
        self.settings
            .interval
            .saturating_sub(span)
            .saturating_add(span.mul_f64(2.0 * self.rng.f64()))
    }

    fn sidecar(&self) -> Sidecar {
        self.seen.as_ref().map_or(Sidecar::Elsewhere, |pod| pod.sidecar)
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn remember_exit(exits: &mut Vec<(String, Exit)>, container: &str, exit: &Exit) {
    match exits.iter_mut().find(|(name, _)| name == container) {
        Some((_, known)) => known.clone_from(exit),
        None => exits.push((container.to_owned(), exit.clone())),
    }
}

fn note_transitions(before: &[ContainerStatus], now: &[ContainerStatus], actions: &mut Vec<Action>) {
    for status in now.iter().filter(|status| !before.contains(status)) {
        let earlier = before.iter().find(|earlier| earlier.name == status.name);
        actions.push(Action::Note(Note::Transition {
            container: status.name.clone().unwrap_or_default(),
            from: earlier
                .and_then(|earlier| earlier.state.as_ref())
                .map(|state| state.name()),
            to: Box::new(status.clone()),
        }));
    }
}

#[cfg(test)]
mod tests;
