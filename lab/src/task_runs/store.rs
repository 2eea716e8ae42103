//! The runs and their changes. Pure: a request comes in, an answer goes out, and `now` is an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::clock::later;
use super::list::{self, Page, Query};
use super::run::{Run, Status, Wanted};

/// A run's weight in addition to its request: its own members, and its entries in the store's maps,
/// in bytes.
const OWN_WEIGHT: usize = 1024;

/// The store's rules.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Whether a heartbeat of an unknown run creates the run.
    pub(crate) adopts: bool,
    /// After this long without a heartbeat, a running run is TimedOut.
    pub(crate) heartbeat_timeout: Option<Duration>,
    /// Whether an attempt's heartbeats must have the same nonce: the one issued for it, or else
    /// that of its first heartbeat.
    pub(crate) checks_nonces: bool,
    /// The most runs.
    pub(crate) most_runs: usize,
    /// The largest total weight of the runs, in bytes.
    pub(crate) most_bytes: usize,
}

/// The parts of a heartbeat that the store uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Beat {
    pub(crate) retry_count: Option<i32>,
    pub(crate) nonce: Option<String>,
    pub(crate) last: bool,
    /// Its exit codes by container name.
    pub(crate) exits: Vec<(String, i64)>,
}

/// Why the store refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no such run")]
    Unknown,
    #[error("the run has ended: it is {0}")]
    Over(Status),
    #[error("jobRetryCount {told} is lower than {seen}: the Job has started a later attempt")]
    Fenced { told: i32, seen: i32 },
    #[error("the nonce does not belong to this attempt")]
    WrongNonce,
    #[error("the run is already {0}")]
    NotAbortable(Status),
    #[error("the limit of runs is reached, and no ended run can be removed")]
    Full,
}

/// A change to save.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// A run was created or changed.
    Put(Box<Run>),
    /// A run was removed.
    Gone(u64),
}

#[derive(Debug)]
struct Kept {
    run: Run,
    /// When its last heartbeat arrived, or else when its timeout began.
    received: Timestamp,
    /// When its last heartbeat was accepted, if one was since the service started.
    beat: Option<Timestamp>,
}

/// The runs.
#[derive(Debug)]
pub(crate) struct Store {
    rules: Rules,
    runs: BTreeMap<u64, Kept>,
    numbers: BTreeMap<String, u64>,
    next: u64,
    bytes: usize,
    /// Running runs by the time of their last heartbeat.
    running: BTreeSet<(Timestamp, u64)>,
    /// Ended runs by the time of their end.
    over: BTreeSet<(Timestamp, u64)>,
    /// All runs by status.
    by_status: BTreeMap<Status, BTreeSet<u64>>,
    changed: BTreeSet<u64>,
    version: u64,
}

impl Store {
    /// A store that continues with `runs`. The timeout of running ones starts `now`, because they
    /// had no chance to send heartbeats while the service was away.
    pub(crate) fn new(rules: Rules, runs: Vec<Run>, now: Timestamp) -> Self {
        let mut store = Self {
            rules,
            runs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 0,
            bytes: 0,
            running: BTreeSet::new(),
            over: BTreeSet::new(),
            by_status: BTreeMap::new(),
            changed: BTreeSet::new(),
            version: 0,
        };
        for run in runs {
            store.next = store.next.max(run.number.saturating_add(1));
            store.insert(run, now, None);
        }
        // Remove runs that exceed the bounds, in case the bounds became narrower.
        while !store.fits(0) && store.forget_oldest_ended() {}
        store
    }

    /// Whether a run is known.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.numbers.contains_key(id)
    }

    /// Creates a run. `weight` is the size of the request, in bytes.
    pub(crate) fn create(
        &mut self,
        id: &str,
        wanted: Wanted,
        weight: usize,
        now: Timestamp,
    ) -> Result<Run, Refusal> {
        self.expire(now);
        let weight = weight.saturating_add(id.len()).saturating_add(OWN_WEIGHT);
        while !self.fits(weight) {
            if !self.forget_oldest_ended() {
                return Err(Refusal::Full);
            }
        }
        let run = Run::new(id.to_owned(), self.next, wanted, weight, now);
        self.next += 1;
        self.changed.insert(run.number);
        self.insert(run.clone(), now, None);
        Ok(run)
    }

    pub(crate) fn get(&mut self, id: &str, now: Timestamp) -> Result<Run, Refusal> {
        self.expire(now);
        let number = self.numbers.get(id).ok_or(Refusal::Unknown)?;
        let kept = self.runs.get(number).ok_or(Refusal::Unknown)?;
        Ok(kept.run.clone())
    }

    pub(crate) fn list(&mut self, query: &Query, now: Timestamp) -> Page {
        self.expire(now);
        list::page(self.runs.values().map(|kept| &kept.run), query)
    }

    pub(crate) fn abort(&mut self, id: &str, now: Timestamp) -> Result<Run, Refusal> {
        let mut run = self.get(id, now)?;
        if run.status.is_over() {
            return Err(Refusal::NotAbortable(run.status));
        }
        let details = "aborted by a client".to_owned();
        run.end(Status::Aborted, Some(details), false, now);
        self.replace(run.clone(), now);
        Ok(run)
    }

    /// Issues a nonce for an attempt. If nonces are checked, its heartbeats must have it from now
    /// on.
    pub(crate) fn issue_nonce(
        &mut self,
        id: &str,
        retry_count: i32,
        nonce: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut run = self.get(id, now)?;
        run.fix_nonce(retry_count, nonce);
        let received = self.received(run.number).unwrap_or(now);
        self.replace(run, received);
        Ok(())
    }

    pub(crate) fn heartbeat(
        &mut self,
        id: &str,
        beat: &Beat,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut run = match self.get(id, now) {
            Err(Refusal::Unknown) if self.rules.adopts => {
                let wanted = Wanted {
                    name: Some(id.to_owned()),
                    ..Wanted::default()
                };
                self.create(id, wanted, id.len(), now)?
            }
            other => other?,
        };
        let before = run.clone();
        if let (Some(told), Some(seen)) = (beat.retry_count, run.retry_count)
            && told < seen
        {
            return Err(Refusal::Fenced { told, seen });
        }
        let attempt = beat.retry_count.unwrap_or(run.attempt());
        let is_later = run.status != Status::Pending && attempt > run.attempt();
        if self.rules.checks_nonces {
            let nonce = beat.nonce.as_deref().ok_or(Refusal::WrongNonce)?;
            match run.nonces.get(&attempt) {
                Some(issued) if issued != nonce => return Err(Refusal::WrongNonce),
                Some(_) => {}
                None => run.fix_nonce(attempt, nonce),
            }
        }
        let nonce = beat.nonce.as_deref().unwrap_or_default();
        if run.status.is_over() && !(is_later && run.status.may_be_retried()) {
            // The last heartbeat arrives again because its answer was lost: accept it and change
            // nothing.
            let is_repeated = beat.last && !is_later && run.last_nonce.as_deref() == Some(nonce);
            return if is_repeated {
                Ok(())
            } else {
                Err(Refusal::Over(run.status))
            };
        }
        if run.status != Status::Running || is_later {
            run.begin(now);
        }
        run.retry_count = beat.retry_count.or(run.retry_count);
        if beat.last {
            let (status, details) = judge(&beat.exits);
            run.end(status, details, true, now);
            run.last_nonce = Some(nonce.to_owned());
        }
        let number = run.number;
        if run == before {
            self.hear(number, now);
        } else {
            self.replace(run, now);
        }
        if let Some(kept) = self.runs.get_mut(&number) {
            kept.beat = Some(now);
        }
        Ok(())
    }

    /// Increases with every visible change of the runs.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The number of runs with a status.
    pub(crate) fn count(&self, status: Status) -> usize {
        self.by_status.get(&status).map_or(0, BTreeSet::len)
    }

    /// The runs with a status, or all, newest first. Each has the time of its last accepted
    /// heartbeat.
    pub(crate) fn newest(
        &self,
        status: Option<Status>,
    ) -> impl Iterator<Item = (&Run, Option<Timestamp>)> {
        let numbers_of_status = status.and_then(|status| self.by_status.get(&status));
        let all = status.is_none().then(|| self.runs.keys().rev());
        let numbers = numbers_of_status.into_iter().flatten().rev();
        numbers
            .chain(all.into_iter().flatten())
            .filter_map(|number| self.look(*number))
    }

    /// A run, and the time of its last accepted heartbeat.
    pub(crate) fn find(&self, id: &str) -> Option<(&Run, Option<Timestamp>)> {
        self.look(*self.numbers.get(id)?)
    }

    fn look(&self, number: u64) -> Option<(&Run, Option<Timestamp>)> {
        self.runs.get(&number).map(|kept| (&kept.run, kept.beat))
    }

    /// The changes since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|number| match self.runs.get(&number) {
                Some(kept) => Change::Put(Box::new(kept.run.clone())),
                None => Change::Gone(number),
            })
            .collect()
    }

    /// Returns changes that could not be written. The next call of [`Self::take_changes`] includes
    /// them.
    pub(crate) fn changed_still(&mut self, changes: &[Change]) {
        self.changed
            .extend(changes.iter().map(|change| match change {
                Change::Put(run) => run.number,
                Change::Gone(number) => *number,
            }));
    }

    /// Ends the runs that were silent for too long, each at the time of its timeout. Every request
    /// does so first.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let Some(timeout) = self.rules.heartbeat_timeout else {
            return;
        };
        while let Some(&(received, number)) = self.running.first() {
            let silent = later(received, timeout);
            if silent >= now {
                return;
            }
            let Some(mut run) = self.runs.get(&number).map(|kept| kept.run.clone()) else {
                self.running.remove(&(received, number));
                continue;
            };
            let details = format!("no heartbeat for {}", humantime::format_duration(timeout));
            run.end(Status::TimedOut, Some(details), false, silent);
            self.replace(run, received);
        }
    }

    fn fits(&self, weight: usize) -> bool {
        let runs = self.runs.len() + usize::from(weight > 0);
        runs <= self.rules.most_runs && self.bytes.saturating_add(weight) <= self.rules.most_bytes
    }

    fn forget_oldest_ended(&mut self) -> bool {
        let Some(&(_, number)) = self.over.first() else {
            return false;
        };
        self.remove(number);
        self.changed.insert(number);
        true
    }

    fn received(&self, number: u64) -> Option<Timestamp> {
        self.runs.get(&number).map(|kept| kept.received)
    }

    fn hear(&mut self, number: u64, now: Timestamp) {
        if let Some(kept) = self.runs.get_mut(&number) {
            if self.running.remove(&(kept.received, number)) {
                self.running.insert((now, number));
            }
            kept.received = now;
            self.version += 1;
        }
    }

    fn replace(&mut self, run: Run, received: Timestamp) {
        self.changed.insert(run.number);
        let beat = self.runs.get(&run.number).and_then(|kept| kept.beat);
        self.remove(run.number);
        self.insert(run, received, beat);
    }

    fn insert(&mut self, run: Run, received: Timestamp, beat: Option<Timestamp>) {
        self.version += 1;
        self.by_status
            .entry(run.status)
            .or_default()
            .insert(run.number);
        self.numbers.insert(run.id.clone(), run.number);
        self.bytes = self.bytes.saturating_add(run.weight);
        if run.status == Status::Running {
            self.running.insert((received, run.number));
        } else if run.status.is_over() {
            self.over.insert((run.modified, run.number));
        }
        self.runs.insert(
            run.number,
            Kept {
                run,
                received,
                beat,
            },
        );
    }

    fn remove(&mut self, number: u64) {
        if let Some(Kept { run, received, .. }) = self.runs.remove(&number) {
            self.version += 1;
            if let Some(numbers_of_status) = self.by_status.get_mut(&run.status) {
                numbers_of_status.remove(&number);
            }
            self.numbers.remove(&run.id);
            self.bytes = self.bytes.saturating_sub(run.weight);
            self.running.remove(&(received, number));
            self.over.remove(&(run.modified, number));
        }
    }
}

/// How a run ended, by the exit codes in its last heartbeat.
fn judge(exits: &[(String, i64)]) -> (Status, Option<String>) {
    /// The most containers that the details name.
    const MOST_NAMED: usize = 5;
    let failed: Vec<String> = exits
        .iter()
        .filter(|(_, code)| *code != 0)
        .map(|(container, code)| format!("{container} ended with exit code {code}"))
        .take(MOST_NAMED)
        .collect();
    if exits.is_empty() {
        let details = "the last heartbeat has no exit code".to_owned();
        (Status::Failed, Some(details))
    } else if failed.is_empty() {
        (Status::Completed, None)
    } else {
        (Status::Failed, Some(failed.join("; ")))
    }
}

#[cfg(test)]
mod tests;
