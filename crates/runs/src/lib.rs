//! A run's life: its status, its attempts, and the messages that it accepts. Pure: an event and the
//! time come in, and the run changes or refuses the event.
//!
//! | status | the next statuses, and their reasons |
//! |---|---|
//! | Pending | Running (a heartbeat) |
//! | CheckedOut | Runnable (the pod waits in Kubernetes), Running |
//! | Runnable | Running (a heartbeat, or the pod runs) |
//! | Running | Runnable (its Job is suspended), TimedOut (no heartbeat) |
//! | Finalizing | Running (another pod continues the attempt), Runnable (its Job is suspended) |
//! | FailedRestartable | Running (the next attempt), Failed (there was none in time) |
//! | any of these | CheckedOut (the service launched an attempt), Finalizing (the attempt's end is known in part), Completed, Aborted, and those of a failed attempt |
//! | Completed, Failed, Aborted, TimedOut | none |
//!
//! A failed attempt leads to FailedRestartable while the retry limit allows another attempt, and to
//! Failed after that. A disruption, such as an eviction, does not count toward the limit, but has a
//! limit of its own.
//!
//! How an attempt ended is decided from evidence. The last heartbeat is the primary evidence, and
//! Kubernetes the secondary. Their order does not matter. If the service launches the attempts of a
//! run ([`Run::to_launch`]), both are expected: while one of them is missing, the run is Finalizing,
//! and only a success in the last heartbeat needs no other evidence. Such a run ends as Failed or
//! TimedOut only after the API server was asked, so an outage of it ends no run. For other runs,
//! there is no evidence except heartbeats.

mod attempt;
mod event;
mod evidence;
mod rules;
mod status;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use attempt::{Attempt, Pod};
pub use event::{Event, Heartbeat, Refusal};
pub use evidence::{Exit, PodEnd, exits};
pub use rules::{ExitCodes, Moment, Rules};
pub use status::Status;

use podbeat_task_runs::model::ContainerStatus;

/// The number of attempts that a run remembers. If there are more, it forgets the oldest.
pub const REMEMBERED_ATTEMPTS: usize = 32;

/// The maximum length of the details, in characters (`maxLength` of `statusDetails` in the
/// contract).
const LONGEST_DETAILS: usize = 4096;

/// A run's life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    status: Status,
    details: Option<String>,
    /// Whether the service launches the attempts.
    #[serde(default)]
    is_launched: bool,
    /// How many failed attempts may be followed by another one.
    retry_limit: u32,
    /// The number of failed attempts that count toward the limit.
    failures: u32,
    /// The number of disrupted attempts that do not count toward it.
    #[serde(default)]
    disruptions: u32,
    /// Oldest first.
    attempts: Vec<Attempt>,
    /// When the current wait began, as time since the start of the process. It is not stored: see
    /// [`Self::waits_from`].
    #[serde(skip)]
    since: Duration,
}

impl Run {
    /// A new run.
    #[must_use]
    pub fn new(retry_limit: u32) -> Self {
        Self {
            status: Status::Pending,
            details: None,
            is_launched: false,
            retry_limit,
            failures: 0,
            disruptions: 0,
            attempts: Vec::new(),
            since: Duration::ZERO,
        }
    }

    /// A new run whose attempts the service launches.
    #[must_use]
    pub fn to_launch(retry_limit: u32) -> Self {
        Self {
            is_launched: true,
            ..Self::new(retry_limit)
        }
    }

    /// Whether the service launches the attempts.
    #[must_use]
    pub fn is_launched(&self) -> bool {
        self.is_launched
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Details of the status, for people: at most 4096 characters.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }

    /// The attempts, oldest first: at most [`REMEMBERED_ATTEMPTS`].
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The latest attempt, if it has not ended.
    #[must_use]
    pub fn current_attempt(&self) -> Option<&Attempt> {
        let latest = self.attempts.last();
        latest.filter(|attempt| attempt.ended.is_none())
    }

    /// The number of failed attempts that count toward the retry limit.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The number of failed and disrupted attempts.
    #[must_use]
    pub fn ended_attempts(&self) -> u32 {
        self.failures.saturating_add(self.disruptions)
    }

    /// When the current wait began, as time since the start of the process: of a running run, when
    /// its last heartbeat arrived, or when the process read it from the store.
    #[must_use]
    pub fn waits_since(&self) -> Duration {
        self.since
    }

    /// Begins the current wait now, because the run was read from the store. What happened before is
    /// not known, for example heartbeats that the store did not take.
    pub fn waits_from(&mut self, now: Moment) {
        self.since = now.elapsed;
    }

    /// When the run changes without another event, as time since the start of the process.
    #[must_use]
    pub fn deadline(&self, rules: &Rules) -> Option<Duration> {
        let wait = match self.status {
            Status::Running if !self.is_launched => rules.heartbeat_timeout,
            Status::Finalizing if !self.needs_evidence() => rules.evidence_wait,
            Status::FailedRestartable if !self.is_launched => rules.retry_wait,
            Status::Running
            | Status::Finalizing
            | Status::FailedRestartable
            | Status::Pending
            | Status::CheckedOut
            | Status::Runnable
            | Status::Completed
            | Status::Failed
            | Status::Aborted
            | Status::TimedOut => return None,
        };
        Some(self.since.saturating_add(wait))
    }

    /// When the API server should be asked about the pod, as time since the start of the process:
    /// the heartbeats stopped, or the attempt ended and Kubernetes has not said how. Only for runs
    /// that the service launches. [`Event::PodEnded`], [`Event::PodLives`] and [`Event::Suspended`]
    /// are the possible answers.
    #[must_use]
    pub fn asks_at(&self, rules: &Rules) -> Option<Duration> {
        let wait = match self.status {
            Status::Running if self.is_launched => rules.heartbeat_timeout,
            Status::Finalizing if self.needs_evidence() => rules.evidence_wait,
            _ => return None,
        };
        Some(self.since.saturating_add(wait))
    }

    /// Whether only the API server can tell how the attempt ended.
    fn needs_evidence(&self) -> bool {
        let pod_end = self
            .attempts
            .last()
            .and_then(|attempt| attempt.pod_end.as_ref());
        self.is_launched && pod_end.is_none()
    }

    /// Whether the run differs in anything that is stored.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let Self {
            status,
            details,
            is_launched,
            retry_limit,
            failures,
            disruptions,
            attempts,
            since: _,
        } = self;
        *status != other.status
            || *details != other.details
            || *is_launched != other.is_launched
            || *retry_limit != other.retry_limit
            || *failures != other.failures
            || *disruptions != other.disruptions
            || *attempts != other.attempts
    }

    /// Applies an event.
    ///
    /// # Errors
    /// The run refuses the event, and has not changed.
    pub fn apply(&mut self, event: &Event, now: Moment, rules: &Rules) -> Result<(), Refusal> {
        match event {
            Event::Heartbeat(heartbeat) => self.heartbeat(heartbeat, now, rules)?,
            Event::Abort { by } => {
                self.not_over()?;
                self.end(Status::Aborted, Some(format!("aborted by {by}")), now);
            }
            Event::Launched { number, nonce } => self.launched(*number, nonce, now)?,
            Event::Created { number, job } => {
                self.launched_attempt(*number)?
                    .job
                    .get_or_insert_with(|| job.clone());
            }
            Event::Waiting { number, reason } => {
                let has_job = self.current(*number)?.job.is_some();
                // The reports of Kubernetes may come late.
                if matches!(self.status, Status::CheckedOut | Status::Runnable) {
                    let status = match has_job || !self.is_launched {
                        true => Status::Runnable,
                        false => Status::CheckedOut,
                    };
                    self.change(status, Some(reason.clone()), now);
                } else if self.status == Status::Running && self.is_launched {
                    // podbeat runs, and the task can't start yet.
                    self.details = Some(details(reason.clone()));
                }
            }
            Event::PodRuns { number } => {
                self.launched_attempt(*number)?;
                match self.status {
                    Status::CheckedOut | Status::Runnable => {
                        self.change(Status::Running, None, now);
                    }
                    Status::Running => self.details = None,
                    _ => {}
                }
            }
            Event::Suspended { number, reason } => {
                self.launched_attempt(*number)?.forget_its_end();
                self.change(Status::Runnable, Some(reason.clone()), now);
            }
            Event::PodLives { number, containers } => {
                self.launched_attempt(*number)?;
                self.pod_lives(containers, now, rules);
            }
            Event::PodEnded { number, end } => {
                let attempt = self.current(*number)?;
                if end
                    .uid
                    .as_deref()
                    .is_some_and(|uid| attempt.was_replaced(uid))
                {
                    return Err(Refusal::ReplacedPod);
                }
                attempt.pod_end.get_or_insert_with(|| end.clone());
                self.conclude(now, rules);
            }
            Event::CannotStart { number, reason } => {
                self.current(*number)?;
                self.end(Status::Failed, Some(reason.clone()), now);
            }
            Event::Tick => self.tick(now, rules),
        }
        Ok(())
    }

    fn not_over(&self) -> Result<(), Refusal> {
        if self.status.is_final() {
            return Err(Refusal::Over(self.status));
        }
        Ok(())
    }

    /// The current attempt, if it has this number and has not ended.
    fn current(&mut self, number: u32) -> Result<&mut Attempt, Refusal> {
        self.not_over()?;
        let status = self.status;
        match self.attempts.last_mut() {
            Some(attempt) if attempt.number == number && attempt.ended.is_none() => Ok(attempt),
            Some(attempt) if attempt.number == number => Err(Refusal::Ended(status)),
            other => Err(Refusal::EarlierAttempt {
                number,
                current: other.map_or(0, |attempt| attempt.number),
            }),
        }
    }

    /// The current attempt, if the service launched it.
    fn launched_attempt(&mut self, number: u32) -> Result<&mut Attempt, Refusal> {
        if !self.is_launched {
            return Err(Refusal::NotLaunched);
        }
        self.current(number)
    }

    fn launched(&mut self, number: u32, nonce: &str, now: Moment) -> Result<(), Refusal> {
        self.not_over()?;
        if let Some(attempt) = self.attempts.last() {
            // The same launch again, after a crash of the server.
            if attempt.number == number && attempt.nonce.as_deref() == Some(nonce) {
                return Ok(());
            }
            if attempt.number >= number {
                return Err(Refusal::EarlierAttempt {
                    number,
                    current: attempt.number,
                });
            }
        }
        self.begin(number, now);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.nonce = Some(nonce.to_owned());
        }
        self.change(Status::CheckedOut, None, now);
        Ok(())
    }

    fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        now: Moment,
        rules: &Rules,
    ) -> Result<(), Refusal> {
        if self.repeats_the_last(heartbeat) {
            return Ok(());
        }
        self.not_over()?;
        let status = self.status;
        let attempt = self.attempt_of(heartbeat, now)?;
        let is_replaced = attempt.see(heartbeat, now.wall);
        self.since = now.elapsed;
        if status != Status::Running && (status != Status::Finalizing || is_replaced) {
            self.change(Status::Running, None, now);
        }
        if heartbeat.last {
            self.conclude(now, rules);
        }
        Ok(())
    }

    /// Whether the run already accepted this last heartbeat. The response to it was lost, so the
    /// agent sends it again.
    fn repeats_the_last(&self, heartbeat: &Heartbeat) -> bool {
        let accepted = self
            .attempts
            .iter()
            .filter(|attempt| attempt.ended.is_some());
        let mut last = accepted.filter_map(|attempt| attempt.last.as_ref());
        heartbeat.last && last.any(|last| last.is(heartbeat))
    }

    /// The attempt of a heartbeat. If it is not the current one, it begins now.
    fn attempt_of(&mut self, heartbeat: &Heartbeat, now: Moment) -> Result<&mut Attempt, Refusal> {
        let (token_of, told) = (heartbeat.token_of, heartbeat.retry_count);
        let next = match self.attempts.split_last_mut() {
            None if self.is_launched => return Err(Refusal::NotLaunched),
            None => Some(told.unwrap_or(0)),
            Some((current, earlier)) => {
                if token_of.is_some_and(|serial| serial != current.serial) {
                    return Err(Refusal::EarlierToken);
                }
                let is_issued = current.nonce.is_some();
                let number = told.unwrap_or(current.number);
                let uid = heartbeat.pod.uid.as_deref();
                let had = |attempt: &Attempt| attempt.pod.uid.as_deref() == uid;
                let is_current_pod = uid.is_some() && had(current);
                let is_old_pod = uid.is_some_and(|uid| {
                    let was_replaced = |attempt: &Attempt| attempt.was_replaced(uid);
                    was_replaced(current)
                        || earlier
                            .iter()
                            .any(|attempt| had(attempt) || was_replaced(attempt))
                });
                if is_old_pod {
                    return Err(Refusal::ReplacedPod);
                } else if is_current_pod && !is_issued {
                    // The agent learns the retry count only after its first heartbeat.
                    if current.ended.is_none() {
                        current.number = current.number.max(number);
                    }
                    None
                } else if number < current.number || (is_issued && number > current.number) {
                    return Err(Refusal::EarlierAttempt {
                        number,
                        current: current.number,
                    });
                } else if number > current.number {
                    Some(number)
                } else {
                    // A Job with a pod failure policy can replace a failed pod without counting a
                    // retry, and a pod without a Job has no count.
                    (!is_issued && current.ended.is_some() && uid.is_some()).then_some(number)
                }
            }
        };
        if let Some(number) = next {
            // A token of an attempt does not begin another one.
            if token_of.is_some() {
                return Err(Refusal::EarlierToken);
            }
            self.begin(number, now);
        }
        let status = self.status;
        match self.attempts.last_mut() {
            Some(attempt) if attempt.ended.is_some() => Err(Refusal::Ended(status)),
            Some(attempt) if attempt.nonce.is_some() && attempt.nonce != heartbeat.nonce => {
                Err(Refusal::WrongNonce)
            }
            Some(attempt) => Ok(attempt),
            None => Err(Refusal::Ended(status)),
        }
    }

    /// Begins an attempt. An earlier one that has not ended is superseded.
    fn begin(&mut self, number: u32, now: Moment) {
        if let Some(earlier) = self.attempts.last_mut() {
            earlier.end(now.wall, Some("a later attempt replaced it".to_owned()));
        }
        if !self.is_launched {
            self.failures = self.failures.max(number);
        }
        let serial = self.attempts.last().map_or(0, |last| last.serial + 1);
        self.attempts.push(Attempt::new(serial, number));
        if self.attempts.len() > REMEMBERED_ATTEMPTS {
            self.attempts.remove(0);
        }
    }

    /// Decides how the attempt ended, if the evidence is enough.
    fn conclude(&mut self, now: Moment, rules: &Rules) {
        let Some(attempt) = self.attempts.last() else {
            return;
        };
        if attempt.is_decided(self.is_launched) {
            self.settle(now, rules);
        } else if self.status != Status::Finalizing {
            self.change(Status::Finalizing, None, now);
        }
    }

    /// Ends the attempt according to the evidence that there is.
    fn settle(&mut self, now: Moment, rules: &Rules) {
        let Some(attempt) = self.attempts.last() else {
            return;
        };
        match attempt.verdict() {
            Ok(()) => self.end(Status::Completed, None, now),
            Err(details) => self.fail(details, now, rules),
        }
    }

    /// The API server was asked because a wait was over, and the pod has not ended.
    fn pod_lives(&mut self, containers: &[ContainerStatus], now: Moment, rules: &Rules) {
        let is_due = self.asks_at(rules).is_some_and(|at| now.elapsed >= at);
        match self.status {
            Status::Running if is_due => {
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.see_exits(containers);
                }
                self.time_out(now, rules);
            }
            // The last heartbeat came long ago, and something else than the task keeps the pod.
            Status::Finalizing if is_due => self.settle(now, rules),
            _ => {}
        }
    }

    fn time_out(&mut self, now: Moment, rules: &Rules) {
        let silence = jiff::SignedDuration::try_from(rules.heartbeat_timeout);
        let silence = silence.unwrap_or(jiff::SignedDuration::MAX);
        let details = format!("no heartbeat for {silence:#}");
        self.end(Status::TimedOut, Some(details), now);
    }

    fn tick(&mut self, now: Moment, rules: &Rules) {
        let is_due = self
            .deadline(rules)
            .is_some_and(|deadline| now.elapsed >= deadline);
        if !is_due {
            return;
        }
        match self.status {
            Status::Running => self.time_out(now, rules),
            Status::Finalizing => self.settle(now, rules),
            Status::FailedRestartable => {
                let details = self.details.take();
                self.change(Status::Failed, details, now);
            }
            // They have no deadline.
            Status::Pending
            | Status::CheckedOut
            | Status::Runnable
            | Status::Completed
            | Status::Failed
            | Status::Aborted
            | Status::TimedOut => {}
        }
    }

    /// Ends the attempt as failed.
    fn fail(&mut self, details: String, now: Moment, rules: &Rules) {
        let Some(attempt) = self.attempts.last() else {
            return;
        };
        let may_restart = if self.is_launched && attempt.is_disrupted() {
            self.disruptions = self.disruptions.saturating_add(1);
            self.disruptions <= rules.disruptions
        } else {
            let may_restart = !attempt.has_exit_of(&rules.final_exit_codes);
            if !self.is_launched {
                self.failures = self.failures.max(attempt.number);
            }
            self.failures = self.failures.saturating_add(1);
            self.failures <= self.retry_limit && (may_restart || !self.is_launched)
        };
        let status = match may_restart {
            true => Status::FailedRestartable,
            false => Status::Failed,
        };
        self.end(status, Some(details), now);
    }

    /// Ends the attempt.
    fn end(&mut self, status: Status, details: Option<String>, now: Moment) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.end(now.wall, details.clone());
        }
        self.change(status, details, now);
    }

    fn change(&mut self, status: Status, details: Option<String>, now: Moment) {
        self.since = now.elapsed;
        self.status = status;
        self.details = details.map(self::details);
    }
}

fn details(text: String) -> String {
    match text.char_indices().nth(LONGEST_DETAILS) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
