//! The judge: decides whether a life keeps the guarantees (docs/protocol.md), from what the API
//! showed and what the service received. It knows nothing about how the machine works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};

use super::life::{Death, File, Life, Shown};
use super::run::Request;
use crate::answer::Answer;
use crate::machine::{Attempt, Cause, End, Losses, Note, Settings};
use crate::marker::Found;
use crate::observation::{Container, Exit, Observation, Role, Sidecar, State};
use crate::outbox::Kind;
use crate::report::{self, Report};

/// One heartbeat combines the changes within this time (docs/protocol.md, "When podbeat sends
/// heartbeats").
const COLLECT: Duration = Duration::from_millis(250);

/// The journal may not contain an observation that came this shortly before a crash.
const JOURNAL: Duration = Duration::from_millis(60);

/// During an ending, podbeat must have read every exit marker that has existed for this long: a
/// quarter of a second between two reads, and the time of one read.
const READ: Duration = Duration::from_millis(280);

/// The files in the directory of exit markers, and since when each one exists.
pub(super) type Files = BTreeMap<String, (Duration, File)>;

/// A heartbeat that the service accepted.
pub(super) struct Accepted {
    at: Duration,
    process: u32,
    beat: (u64, Kind),
    request: HeartbeatTaskRunRequest,
    late: bool,
}

impl Accepted {
    pub(super) fn of(request: &Request, at: Duration) -> Self {
        Self {
            at,
            process: request.process,
            beat: request.attempt.beat,
            request: request.attempt.request.clone(),
            late: request.late,
        }
    }

    fn is_final(&self) -> bool {
        self.beat.1 == Kind::Final
    }
}

struct Seen {
    at: Duration,
    statuses: Vec<ContainerStatus>,
}

struct SeenExit {
    at: Duration,
    container: String,
    exit: Exit,
}

struct Sent {
    at: Duration,
    process: u32,
    kind: Kind,
}

/// Records what happened.
pub(super) struct Judge {
    report: Report,
    interval: Duration,
    timeout: Duration,
    journaled: bool,
    seen: Vec<Seen>,
    exits: Vec<SeenExit>,
    /// Every state and every exit that the API ever showed.
    shown: Vec<ContainerStatus>,
    last_shown: Vec<ContainerStatus>,
    /// The pod as the API last showed it, if the current process can know it.
    last_pod: Option<(Duration, Observation)>,
    /// Whether the API showed it to the current process.
    shown_now: bool,
    /// Whether reads of the markers return at once in this life.
    prompt_reads: bool,
    markers: bool,
    /// Every marker that podbeat read.
    markers_read: Vec<File>,
    /// Since when the current process knows that the pod ends.
    ending: Option<Duration>,
    /// Whether that began with a signal for podbeat alone, or for a restart of all containers.
    stopping: bool,
    /// Whether the service ever refused a body.
    refused: bool,
    sent: Vec<Sent>,
    accepted: Vec<Accepted>,
    begins: Vec<Duration>,
    crashes: Vec<Duration>,
    losses: Vec<(u32, Losses)>,
    final_due: Option<Duration>,
    final_cause: Option<Cause>,
    /// The numbers of the last heartbeats that podbeat sent, and of those that it withdrew.
    finals: Vec<u64>,
    withdrawn: Vec<u64>,
    /// Since when the current process should have withdrawn an earlier process's last heartbeat.
    must_reopen: Option<Duration>,
    /// The times from when a last heartbeat was due until podbeat withdrew it.
    undecided: Vec<(Duration, Duration)>,
    /// When podbeat most recently withdrew a last heartbeat.
    reopened: Option<Duration>,
    /// The last heartbeat as podbeat sent it before it knew of an acceptance.
    final_sent: Option<HeartbeatTaskRunRequest>,
    /// When podbeat learned that the service accepted the last heartbeat.
    final_known: Option<Duration>,
    finished: bool,
    is_gone: bool,
    signal: Option<Duration>,
    barrier_cut: bool,
    orphaned: bool,
    /// Whether the service ever answered that the run is not ours. podbeat then treats a last
    /// heartbeat that may have arrived as accepted.
    closed: bool,
    faults: Vec<Duration>,
    /// When the watch or a look first showed that the pod is being deleted or is gone.
    death_seen: Option<Duration>,
    ended: Option<(Duration, Option<End>)>,
    left_dead: bool,
    complaints: Vec<String>,
}

impl Judge {
    pub(super) fn new(settings: &Settings, prompt_reads: bool) -> Self {
        Self {
            report: settings.report,
            interval: settings.interval,
            timeout: settings.timeout,
            journaled: settings.journaled,
            seen: vec![],
            exits: vec![],
            shown: vec![],
            last_shown: vec![],
            last_pod: None,
            shown_now: false,
            prompt_reads,
            markers: settings.markers,
            markers_read: vec![],
            ending: None,
            stopping: false,
            refused: false,
            sent: vec![],
            accepted: vec![],
            begins: vec![],
            crashes: vec![],
            losses: vec![],
            final_due: None,
            final_cause: None,
            finals: vec![],
            withdrawn: vec![],
            must_reopen: None,
            undecided: vec![],
            reopened: None,
            final_sent: None,
            final_known: None,
            finished: false,
            is_gone: false,
            signal: None,
            barrier_cut: false,
            orphaned: false,
            closed: false,
            faults: vec![],
            death_seen: None,
            ended: None,
            left_dead: false,
            complaints: vec![],
        }
    }

    pub(super) fn complain(&mut self, what: impl Into<String>) {
        if self.complaints.len() < 20 {
            self.complaints.push(what.into());
        }
    }

    // ---- what happened ----

    pub(super) fn process_begins(&mut self, at: Duration) {
        self.begins.push(at);
        self.shown_now = false;
        self.ending = None;
        self.stopping = false;
        // A new process has not seen yet what an earlier one saw.
        self.death_seen = None;
    }

    /// A signal stops podbeat's container, but not its pod.
    pub(super) fn stopping(&mut self, at: Duration) {
        self.stands_no_more();
        self.ending.get_or_insert(at);
        self.stopping = true;
    }

    /// The process that got this signal has ended.
    pub(super) fn stopped(&mut self, at: Duration, end: Option<&End>) {
        if end == Some(&End::Restarting) {
            self.final_due = None;
            self.final_cause = None;
        }
        self.crashed(at);
    }

    /// G2: if podbeat sent a last heartbeat only because of a signal, it withdraws it as soon as
    /// the pod shows that its task continues.
    fn stands_no_more(&mut self) {
        if let Some(at) = self.must_reopen.take() {
            let at = at.as_secs_f64();
            self.complain(format!(
                "G2: at {at:.3} the task continues, but the final of an earlier process was not canceled"
            ));
        }
    }

    fn reopened(&mut self, at: Duration) {
        self.undecided.extend(self.final_due.map(|due| (due, at)));
        self.must_reopen = None;
        let goes_on = self
            .last_pod
            .as_ref()
            .is_some_and(|(_, pod)| pod.deletion.is_none() && !pod.phase_is_terminal);
        // A process that crashed right after it withdrew the last heartbeat may not have recorded
        // that.
        let again = self.reopened.is_some_and(|earlier| self.is_unsure(earlier));
        if !goes_on || !(self.final_was_for_signal() || again) {
            self.complain("G3: a final is canceled without a reason");
        }
        self.reopened = Some(at);
        self.final_due = None;
        self.final_cause = None;
        self.final_known = None;
        self.final_sent = None;
        self.withdrawn.append(&mut self.finals);
    }

    fn final_was_for_signal(&self) -> bool {
        matches!(self.final_cause, Some(Cause::Signal | Cause::Marked))
    }

    pub(super) fn crashed(&mut self, at: Duration) {
        self.crashes.push(at);
        self.last_pod
            .take_if(|(shown, _)| !self.journaled || at - *shown <= JOURNAL);
        if !self.journaled {
            // After a crash without a journal, the next process knows nothing of the time before,
            // so the judge expects nothing of it.
            self.final_known = None;
            self.final_due = None;
            self.final_cause = None;
        }
    }

    pub(super) fn never_restarted(&mut self) {
        self.left_dead = true;
    }

    pub(super) fn signalled(&mut self, at: Duration) {
        self.stands_no_more();
        self.signal.get_or_insert(at);
        self.ending.get_or_insert(at);
    }

    pub(super) fn gone(&mut self, at: Duration) {
        self.is_gone = true;
        self.death_seen.get_or_insert(at);
        self.ending.get_or_insert(at);
    }

    pub(super) fn markers_read(&mut self, files: Vec<File>) {
        for file in files {
            if !self.markers_read.contains(&file) {
                self.markers_read.push(file);
            }
        }
    }

    pub(super) fn service_fault(&mut self, at: Duration) {
        self.faults.push(at);
    }

    pub(super) fn losses(&mut self, process: u32, losses: Losses) {
        match self.losses.iter_mut().find(|(known, _)| *known == process) {
            Some((_, known)) => *known = losses,
            None => self.losses.push((process, losses)),
        }
    }

    pub(super) fn observed(&mut self, at: Duration, pod: &Observation) {
        self.stands_no_more();
        if self.is_gone {
            return;
        }
        let runs = |container: &Container| {
            container.role == Role::Task && matches!(container.state, Some(State::Running { .. }))
        };
        // The journal may not contain what an earlier process decided in its last moment.
        let earlier = self.begins.last().is_some_and(|begin| {
            self.final_due
                .is_some_and(|due| due < *begin && !self.is_unsure(due))
        });
        if earlier
            && self.final_was_for_signal()
            && self.ending.is_none()
            && !self.orphaned
            && pod.deletion.is_none()
            && !pod.phase_is_terminal
            && pod.containers.iter().any(runs)
        {
            self.must_reopen = Some(at);
        }
        if pod.deletion.is_some() {
            self.death_seen.get_or_insert(at);
        }
        self.finished |= crate::completion::is_finished(pod);
        let statuses = report::statuses(pod, self.report);
        for status in &statuses {
            if !self.shown.contains(status) {
                self.shown.push(status.clone());
            }
        }
        self.last_shown.clone_from(&statuses);
        self.last_pod = Some((at, pod.clone()));
        self.shown_now = true;
        for container in pod
            .containers
            .iter()
            .filter(|container| self.report.includes(container.role))
        {
            let current = container.state.as_ref().and_then(State::exit);
            for exit in [container.last_exit.as_ref(), current]
                .into_iter()
                .flatten()
            {
                let told = report::status(container, &State::Terminated(exit.clone()));
                if !self.shown.contains(&told) {
                    self.shown.push(told);
                }
                let known = self
                    .exits
                    .iter()
                    .any(|seen| seen.container == container.name && seen.exit.is_same_as(exit));
                if !known {
                    self.exits.push(SeenExit {
                        at,
                        container: container.name.clone(),
                        exit: exit.clone(),
                    });
                }
            }
        }
        if self
            .seen
            .last()
            .is_none_or(|seen| seen.statuses != statuses)
        {
            self.seen.push(Seen { at, statuses });
        }
    }

    pub(super) fn noted(&mut self, at: Duration, note: &Note, files: &Files) {
        match note {
            Note::Final(cause) => {
                self.final_due.get_or_insert(at);
                self.final_cause = Some(*cause);
                let restarts = self
                    .last_pod
                    .as_ref()
                    .is_some_and(|(_, pod)| pod.restarts_all());
                if restarts && self.shown_now && *cause != Cause::Gone {
                    self.complain("G7: an end, while all containers are being restarted");
                }
                let ended = |container: &Container| {
                    let shown = container.state.as_ref().and_then(State::exit).is_some();
                    shown || container.role != Role::Task || files.contains_key(&container.name)
                };
                // In a pod that is being deleted, no task starts after an init container failed.
                let init_failed = |container: &Container| {
                    let file = files.get(&container.name);
                    container.role == Role::Init
                        && file.is_some_and(|(_, file)| file.found.marker.exit_code != 0)
                };
                let all_ended = self.last_pod.as_ref().is_some_and(|(_, pod)| {
                    pod.containers.iter().all(ended) || pod.containers.iter().any(init_failed)
                });
                if *cause == Cause::Marked && !all_ended && !self.stopping {
                    self.complain("G7: an end without a marker");
                }
                if let Some(told) = self.markers_told_the_end(files)
                    && at > told + READ
                {
                    let (told, at) = (told.as_secs_f64(), at.as_secs_f64());
                    self.complain(format!(
                        "G7: markers showed the end of a deleted pod at {told:.3}, but the final was due at {at:.3}"
                    ));
                }
                if *cause == Cause::Completed && !self.finished {
                    self.complain("G7: an end that neither the API nor a marker showed");
                }
            }
            Note::Accepted(_, Kind::Final) => {
                self.final_known.get_or_insert(at);
            }
            Note::Reopened(_) => self.reopened(at),
            Note::BarrierFailed => self.barrier_cut = true,
            Note::Orphaned => self.orphaned = true,
            _ => {}
        }
    }

    pub(super) fn sent(
        &mut self,
        at: Duration,
        process: u32,
        attempt: &Attempt,
        busy: bool,
        files: &Files,
    ) {
        if busy {
            self.complain("G4: two requests in flight");
        }
        let kind = attempt.beat.1;
        if self.final_known.is_some() && kind != Kind::Final {
            self.complain(format!(
                "G3: a {} heartbeat after an accepted final",
                kind.name()
            ));
        }
        if attempt.request.last_heartbeat != (kind == Kind::Final).then_some(true) {
            self.complain("G2: lastHeartbeat does not match the kind of the heartbeat");
        }
        if kind == Kind::Final && self.final_known.is_some() {
            // podbeat repeats an accepted last heartbeat unchanged, whatever the API has shown
            // since.
            if self.final_sent.as_ref() != Some(&attempt.request) {
                self.complain("G3: a last heartbeat that differs from the accepted one");
            }
        } else {
            for status in attempt.request.container_status.iter().flatten() {
                let marked = kind == Kind::Final && self.tells_a_marker(status);
                if !self.shown.contains(status) && !marked {
                    self.complain(format!(
                        "G7: neither the API nor a marker showed {status:?}"
                    ));
                }
            }
            if kind == Kind::Final {
                if !self.finals.contains(&attempt.beat.0) {
                    self.finals.push(attempt.beat.0);
                }
                self.withheld_exits_are_told(at, attempt, files);
                self.final_sent = Some(attempt.request.clone());
            }
        }
        let surely_known = self
            .seen
            .last()
            .is_some_and(|seen| !self.is_unsure(seen.at));
        if kind == Kind::Final && attempt.retries == 0 && surely_known {
            // The last heartbeat reports a container that has not ended as the API last showed it,
            // and never in an older state.
            for status in attempt.request.container_status.iter().flatten() {
                let ended = status.terminated().is_some();
                if !ended && !self.last_shown.contains(status) && !self.last_shown.is_empty() {
                    self.complain(format!("G7: the final has an outdated state: {status:?}"));
                }
            }
        }
        self.sent.push(Sent { at, process, kind });
    }

    pub(super) fn answered(&mut self, at: Duration, answer: &Answer) {
        if *answer != Answer::Accepted {
            self.faults.push(at);
        }
        self.closed |= matches!(answer, Answer::Disowned { .. });
        self.refused |= matches!(answer, Answer::Refused { .. });
    }

    pub(super) fn accepted(&mut self, accepted: Accepted) {
        self.accepted.push(accepted);
    }

    pub(super) fn has_accepted_final(&self) -> bool {
        self.accepted.iter().any(Accepted::is_final)
    }

    pub(super) fn knows(&self, request: &Request) -> bool {
        self.accepted.iter().any(|accepted| {
            accepted.request.nonce == request.attempt.request.nonce && accepted.is_final()
        }) && request.attempt.beat.1 == Kind::Final
    }

    pub(super) fn ended(&mut self, at: Duration, end: Option<End>) {
        self.ended = Some((at, end));
    }

    // ---- what it means ----

    pub(super) fn verdict(mut self, life: &Life, alive: bool) -> Vec<String> {
        self.stands_no_more();
        self.every_transition_arrived();
        self.each_lost_exit_arrived();
        self.in_order();
        self.one_final(life, alive);
        self.last_word(life);
        self.no_gap();
        self.no_early_end();
        self.complaints
    }

    /// G7: whether this is an exit from a marker. The marker must not be from an earlier run than
    /// the API has shown.
    fn tells_a_marker(&self, status: &ContainerStatus) -> bool {
        self.markers_read.iter().any(|file| {
            let same = *status == report::ended(&file.found.container, &exit_of(&file.found));
            same && self.may_be_told(file)
        })
    }

    fn may_be_told(&self, file: &File) -> bool {
        let Some((_, pod)) = &self.last_pod else {
            return true;
        };
        let named = |container: &&Container| container.name == file.found.container;
        pod.containers.iter().find(named).is_some_and(|container| {
            let earliest = match (&container.state, &container.last_exit) {
                (Some(State::Terminated(_)), _) => return false,
                (Some(State::Running { .. }), _) => container.restart_count,
                (Some(State::Waiting { .. }) | None, Some(exit)) => {
                    exit.run.unwrap_or(container.restart_count) + 1
                }
                (Some(State::Waiting { .. }) | None, None) => -1,
            };
            self.report.includes(container.role) && file.run >= earliest
        })
    }

    /// If markers show that every task of a pod that is being deleted has ended: since when podbeat
    /// can know this.
    fn markers_told_the_end(&self, files: &Files) -> Option<Duration> {
        if !self.markers || !self.prompt_reads || !self.shown_now {
            return None;
        }
        let pod = self.last_pod.as_ref().map(|(_, pod)| pod)?;
        pod.deletion?;
        let mut told = self.ending?.max(self.death_seen?);
        for container in pod
            .containers
            .iter()
            .filter(|container| container.role == Role::Task)
        {
            if container.state.as_ref().and_then(State::exit).is_none() {
                let (since, file) = files.get(&container.name)?;
                let certain =
                    file.by_exec && self.may_be_told(file) && !is_doubtful(container, file);
                told = told.max(certain.then_some(*since)?);
            }
        }
        Some(told)
    }

    /// G7, in the other direction: if the API withholds an exit and a marker reports it, the last
    /// heartbeat contains it.
    fn withheld_exits_are_told(&mut self, at: Duration, attempt: &Attempt, files: &Files) {
        let Some(ending) = self.ending.filter(|_| self.markers && self.prompt_reads) else {
            return;
        };
        let Some((_, pod)) = self
            .last_pod
            .as_ref()
            .filter(|_| self.shown_now && !self.refused)
        else {
            return;
        };
        let mut silent = vec![];
        for container in pod
            .containers
            .iter()
            .filter(|container| container.role == Role::Task)
        {
            let Some((since, file)) = files.get(&container.name) else {
                continue;
            };
            // If podbeat alone is stopped, a task may end after podbeat seemed to know every exit.
            let readable = *since <= ending || (!self.stopping && *since + READ <= at);
            let told = report::ended(&container.name, &exit_of(&file.found));
            let tells = attempt
                .request
                .container_status
                .iter()
                .flatten()
                .any(|status| *status == told);
            if file.by_exec
                && readable
                && !is_doubtful(container, file)
                && self.may_be_told(file)
                && !tells
            {
                silent.push(told);
            }
        }
        for told in silent {
            self.complain(format!(
                "G7: a marker reports an exit that the last heartbeat lacks: {told:?}"
            ));
        }
    }

    /// Whether a process crashed without a journal, so that the next one knows nothing of it.
    fn amnesia(&self) -> bool {
        !self.journaled && !self.crashes.is_empty()
    }

    fn lost(&self) -> u64 {
        self.losses
            .iter()
            .map(|(_, losses)| {
                losses.overflowed
                    + losses.refused
                    + losses.too_late
                    + losses.orphaned
                    + losses.expired
            })
            .sum()
    }

    /// G1: the service accepted every observed state that lasted long enough to be reported, or
    /// podbeat counted its loss.
    fn every_transition_arrived(&mut self) {
        // Without an accepted last heartbeat, the life is not over, and changes may still be
        // delivered.
        if self.amnesia() || !self.has_lasting_final() || self.orphaned {
            return;
        }
        let due = self.final_due.unwrap_or(Duration::MAX);
        let unsure = |at| self.is_unsure(at);
        let mut missing = vec![];
        let mut missing_states = vec![];
        for (nth, seen) in self.seen.iter().enumerate() {
            let next = self.seen.get(nth + 1);
            let stood = next.is_none_or(|next| next.at > seen.at + COLLECT) && seen.at < due;
            if !stood || seen.statuses.is_empty() || unsure(seen.at) {
                continue;
            }
            let told = self
                .accepted
                .iter()
                .any(|accepted| accepted.request.container_status.as_ref() == Some(&seen.statuses));
            if !told {
                missing.push(format!(
                    "what was seen at {:.3}: {:?}",
                    seen.at.as_secs_f64(),
                    seen.statuses
                ));
                missing_states.extend(seen.statuses.iter());
            }
        }
        for seen in self
            .exits
            .iter()
            .filter(|seen| seen.at < due && !unsure(seen.at))
        {
            let tells = |status: &ContainerStatus| {
                status.name.as_deref() == Some(&seen.container)
                    && status
                        .terminated()
                        .is_some_and(|exit| exit.container_id == seen.exit.container_id)
            };
            let told = self.accepted.iter().any(|accepted| {
                accepted
                    .request
                    .container_status
                    .iter()
                    .flatten()
                    .any(tells)
            });
            // One heartbeat reports both a state and the exit in it, so they are missing together.
            if !told && !missing_states.iter().any(|status| tells(status)) {
                missing.push(format!(
                    "the exit {:?} of {}",
                    seen.exit.container_id, seen.container
                ));
            }
        }
        let lost = self.lost();
        if u64::try_from(missing.len()).unwrap_or(u64::MAX) > lost {
            self.complain(format!(
                "G1: {} never arrived and {lost} losses were counted: {}",
                missing.len(),
                missing.join("; ")
            ));
        }
    }

    /// Whether this is a last heartbeat that podbeat did not withdraw.
    fn is_lasting(&self, accepted: &Accepted) -> bool {
        accepted.is_final() && !self.withdrawn.contains(&accepted.beat.0)
    }

    fn has_lasting_final(&self) -> bool {
        self.accepted
            .iter()
            .any(|accepted| self.is_lasting(accepted))
    }

    /// G1: exits without an ID look the same, but podbeat reports each one.
    fn each_lost_exit_arrived(&mut self) {
        if self.amnesia() || !self.has_lasting_final() || self.orphaned {
            return;
        }
        let due = self.final_due.unwrap_or(Duration::MAX);
        let (mut missing, mut names) = (0, vec![]);
        for container in self.exits.iter().map(|seen| &seen.container) {
            if names.contains(container) {
                continue;
            }
            names.push(container.clone());
            let seen = self.exits.iter().filter(|seen| {
                let is_lost = seen.exit.container_id.is_none() && seen.container == *container;
                is_lost && seen.at < due && !self.is_unsure(seen.at)
            });
            let tells = |status: &ContainerStatus| {
                status.name.as_ref() == Some(container)
                    && status
                        .terminated()
                        .is_some_and(|exit| exit.container_id.is_none())
            };
            let told: BTreeSet<u64> = self
                .accepted
                .iter()
                .filter(|accepted| accepted.beat.1.brings_news())
                .filter(|accepted| {
                    accepted
                        .request
                        .container_status
                        .iter()
                        .flatten()
                        .any(tells)
                })
                .map(|accepted| accepted.beat.0)
                .collect();
            missing += seen.count().saturating_sub(told.len());
        }
        let lost = self.lost();
        if u64::try_from(missing).unwrap_or(u64::MAX) > lost {
            self.complain(format!(
                "G1: {missing} exits without an ID never arrived and {lost} losses were counted"
            ));
        }
    }

    /// Whether a crash came so soon after this time that the journal may not contain it, or podbeat
    /// sent nothing then because a last heartbeat was due that it later withdrew.
    fn is_unsure(&self, at: Duration) -> bool {
        let crashed = |crash: &Duration| at <= *crash && *crash - at <= JOURNAL;
        let undecided = |(from, until): &(Duration, Duration)| *from <= at && at < *until;
        self.crashes.iter().any(crashed) || self.undecided.iter().any(undecided)
    }

    /// G1: in order. A request that podbeat gave up may arrive late; it is no news then.
    fn in_order(&mut self) {
        if self.amnesia() {
            return;
        }
        let mut highest = 0;
        let mut known = vec![];
        let mut wrong = None;
        for accepted in &self.accepted {
            let number = accepted.beat.0;
            // The journal has no periodic heartbeats, so their numbers can occur twice after a
            // crash.
            if accepted.late || known.contains(&number) || !accepted.beat.1.brings_news() {
                continue;
            }
            known.push(number);
            if number < highest {
                wrong = Some((number, highest));
            }
            highest = highest.max(number);
        }
        if let Some((number, highest)) = wrong {
            self.complain(format!("G1: heartbeat {number} arrived after {highest}"));
        }
    }

    /// G2: the service accepts exactly one last heartbeat, or the process reports that it did not.
    fn one_final(&mut self, life: &Life, alive: bool) {
        let amnesia = self.amnesia();
        let mut finals: Vec<_> = self
            .accepted
            .iter()
            .filter(|accepted| self.is_lasting(accepted))
            .map(|accepted| (accepted.beat.0, accepted.request.nonce.clone()))
            .collect();
        finals.dedup();
        if finals.len() > 1 && !amnesia {
            self.complain(format!("G2: {} finals", finals.len()));
        }
        match &self.ended {
            Some((at, Some(End::Delivered))) if finals.is_empty() && !amnesia && !self.closed => {
                let at = at.as_secs_f64();
                self.complain(format!(
                    "G2: ended at {at:.3} as delivered, but no final was accepted"
                ));
            }
            Some((_, Some(_))) => {}
            // SIGKILL ended the process. In the next arm, it crashed, and the kubelet did not
            // restart it.
            Some((at, None)) => self.killed(life, *at, finals.is_empty()),
            None if self.left_dead => {}
            None => self.still_there(life, alive, finals.is_empty()),
        }
    }

    /// SIGKILL before the last heartbeat is podbeat's fault if it had enough time and the service
    /// answered.
    fn killed(&mut self, life: &Life, at: Duration, undelivered: bool) {
        let Some(signal) = self.signal else { return };
        let begun = self.begins.last().copied().unwrap_or_default();
        let since = self
            .faults
            .last()
            .map_or(signal, |fault| (*fault).max(signal))
            .max(begun);
        let grace = life.timeline.iter().find_map(|(_, shown)| match shown {
            Shown::Pod(pod) => Some(pod.termination_grace),
            Shown::Gone | Shown::Other(_) => None,
        });
        // A plain sidecar may use the pod's grace period to wait for newer states, unless it sees a
        // shorter one in time.
        let told = self
            .death_seen
            .is_some_and(|seen| at.saturating_sub(seen) >= Duration::from_millis(900));
        if life.sidecar == Sidecar::Plain && !told && grace.is_some_and(|grace| at - signal < grace)
        {
            return;
        }
        let faulty = life
            .service_outages
            .iter()
            .any(|outage| outage.until >= signal && outage.from <= at);
        let enough = match life.sidecar {
            Sidecar::Native => Duration::from_millis(1950),
            Sidecar::Plain | Sidecar::Elsewhere => Duration::from_millis(1000),
        };
        // A service that has closed the run accepts no other last heartbeat.
        let faulty = faulty || (self.closed && !self.withdrawn.is_empty());
        if undelivered && !faulty && at.saturating_sub(since) >= enough && !self.orphaned {
            self.complain(format!(
                "G2: killed {:.3} s after the signal without a final, though the service answered",
                at.saturating_sub(since).as_secs_f64()
            ));
        }
    }

    /// The simulation is over and the process still runs. This is right for a native sidecar that
    /// idles, or if the task continues.
    fn still_there(&mut self, life: &Life, alive: bool, undelivered: bool) {
        if !alive {
            return;
        }
        let over =
            life.completed.is_some() || matches!(life.death, Death::Forced | Death::Replaced);
        // podbeat notices that a pod is gone only if it saw the pod, and only if the process knows
        // what an earlier one saw.
        let known = self.seen.iter().any(|seen| !self.is_unsure(seen.at));
        let seen_over = self.finished || (self.is_gone && known && !self.amnesia());
        if over && seen_over && !self.orphaned {
            let faulty = life
                .service_outages
                .iter()
                .any(|outage| outage.until + Duration::from_secs(1200) >= life.horizon);
            let idles = life.sidecar == Sidecar::Native && self.signal.is_none();
            if undelivered && !faulty {
                self.complain(
                    "G2: the task has ended and the service answers, but there is no final",
                );
            } else if !undelivered && !idles {
                self.complain("G2: hangs after its final");
            }
        }
    }

    /// Whether the kubelet leaves so much time after the last heartbeat that half of it is enough
    /// for requests that arrive late.
    fn has_time_for_late_ones(&self, life: &Life) -> bool {
        let (Some(known), Some(signal), Some(kill)) = (self.final_known, self.signal, life.kill)
        else {
            return false;
        };
        let from = known.max(signal);
        let half = kill
            .saturating_sub(Duration::from_millis(300))
            .saturating_sub(from)
            / 2;
        life.death == Death::Natural && known + self.timeout <= from + half
    }

    /// G3: the last heartbeat is the service's final information, even if an earlier request
    /// arrives late.
    fn last_word(&mut self, life: &Life) {
        // A service that disowns the run but still accepts its heartbeats has no final information.
        if self.amnesia() || self.barrier_cut || self.closed {
            return;
        }
        // A process cannot wait for late requests if it ends at its deadline, is killed, crashes
        // and is not restarted, or has less than two timeouts of its grace period left.
        let cut = match &self.ended {
            Some((at, end)) => {
                let signalled = self.signal.is_some_and(|signal| signal <= *at);
                *end != Some(End::Delivered) || (signalled && !self.has_time_for_late_ones(life))
            }
            None => self.left_dead,
        };
        let Some(last) = self.accepted.last() else {
            return;
        };
        let has_final = self.has_lasting_final();
        if self.final_known.is_some() && has_final && !self.is_lasting(last) && !cut {
            let at = last.at.as_secs_f64();
            self.complain(format!(
                "G3: the last request, at {at:.3}, is a {} heartbeat of process {}",
                last.beat.1.name(),
                last.process
            ));
        }
    }

    /// G5: while the service answers, the time between two heartbeats is at most the interval plus
    /// the timeout.
    fn no_gap(&mut self) {
        let most = self.interval + self.timeout;
        let mut worst = None;
        for pair in self.sent.windows(2) {
            let [one, two] = pair else { continue };
            let quiet = one.process == two.process && one.kind != Kind::Final;
            let gap = two.at - one.at;
            if quiet && gap > most && self.no_fault_between(one.at, two.at) {
                worst = Some(gap);
            }
        }
        if let Some(gap) = worst {
            self.complain(format!(
                "G5: {:.3} s between two heartbeats; the limit is {:.3} s",
                gap.as_secs_f64(),
                most.as_secs_f64()
            ));
        }
    }

    fn no_fault_between(&self, from: Duration, to: Duration) -> bool {
        !self
            .faults
            .iter()
            .any(|fault| from <= *fault && *fault <= to)
    }

    /// G8: only the end of its task or pod, or a signal, ends the process.
    fn no_early_end(&mut self) {
        if let Some((at, Some(end))) = &self.ended
            && !self.finished
            && !self.is_gone
            && self.signal.is_none()
            && !self.final_was_for_signal()
        {
            let at = at.as_secs_f64();
            self.complain(format!("G8: ended at {at:.3} without a reason: {end:?}"));
        }
    }
}

/// The exit that a marker reports.
fn exit_of(found: &Found) -> Exit {
    Exit {
        exit_code: Some(found.marker.exit_code),
        signal: found.marker.signal,
        started_at: found.marker.started_at,
        finished_at: found.marker.finished_at,
        ..Exit::default()
    }
}

/// Whether it is unclear which run a marker belongs to: two runs ended in the same second, or it is
/// unknown when the previous run ended and the API shows no new run yet.
fn is_doubtful(container: &Container, file: &File) -> bool {
    let last = container.last_exit.as_ref();
    let runs = matches!(container.state, Some(State::Running { .. }));
    last.is_some_and(|exit| match exit.finished_at {
        Some(at) => at >= file.found.finished(),
        None => !runs,
    })
}
