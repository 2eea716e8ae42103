//! One task run: its request, its status, and its status changes.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most attempts of a run whose times and nonces are kept. By default a Job is retried six
/// times.
const MOST_ATTEMPTS: usize = 16;

/// A run's status. The contract has four more (`CheckedOut`, `Runnable`, `Finalizing`,
/// `FailedRestartable`), which none of its five operations sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    /// Created; no heartbeat yet.
    Pending,
    /// It received a heartbeat.
    Running,
    /// Ended; every exit code in the last heartbeat is 0.
    Completed,
    /// Ended; an exit code isn't 0, or the last heartbeat has none.
    Failed,
    /// Aborted by a client.
    Aborted,
    /// Its heartbeats stopped.
    TimedOut,
}

impl Status {
    /// All statuses, in the order of a run's life.
    pub(crate) const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Aborted,
        Self::TimedOut,
    ];

    /// The status as on the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
            Self::TimedOut => "TimedOut",
        }
    }

    /// Whether the run has ended.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Completed | Self::Failed | Self::Aborted | Self::TimedOut => true,
        }
    }

    /// Whether a later attempt of the Job resumes the run.
    pub(crate) fn may_be_retried(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A client's request to create a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) acl: Option<Vec<String>>,
    /// `Execution`, unchanged except for removed credentials.
    pub(crate) execution: Option<Value>,
}

impl Wanted {
    /// The approximate memory that it uses, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let acl: usize = self
            .acl
            .iter()
            .flatten()
            .map(|entry| entry.len() + ENTRY)
            .sum();
        let execution = self
            .execution
            .as_ref()
            .map_or(0, |execution| execution.to_string().len() * JSON);
        text(&self.name) + text(&self.description) + acl + execution
    }
}

/// The memory of a text in addition to its bytes.
const ENTRY: usize = 24;

/// Roughly the largest ratio of JSON in memory to its text.
const JSON: usize = 8;

/// One attempt at a run (`TaskRunLogs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// When its first heartbeat arrived.
    pub(crate) began: Timestamp,
    /// When it ended, and its error.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) error: Option<String>,
}

/// A task run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: String,
    /// The position in the order of creation.
    pub(crate) number: u64,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) acl: Option<Vec<String>>,
    pub(crate) execution: Option<Value>,
    pub(crate) status: Status,
    pub(crate) details: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    /// Whether the last change came from its agent and not from a client.
    pub(crate) modified_by_agent: bool,
    /// The highest reported jobRetryCount.
    pub(crate) retry_count: Option<i32>,
    /// The nonce of each attempt by its jobRetryCount, if nonces are checked.
    pub(crate) nonces: BTreeMap<i32, String>,
    /// The nonce of the last heartbeat, empty if it had none. `None` if no last heartbeat ended the
    /// run.
    pub(crate) last_nonce: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
    /// The memory that it counts for, in bytes.
    pub(crate) weight: usize,
}

impl Run {
    pub(crate) fn new(
        id: String,
        number: u64,
        wanted: Wanted,
        weight: usize,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            number,
            name: wanted.name,
            description: wanted.description,
            acl: wanted.acl,
            execution: wanted.execution,
            status: Status::Pending,
            details: None,
            created: now,
            modified: now,
            modified_by_agent: false,
            retry_count: None,
            nonces: BTreeMap::new(),
            last_nonce: None,
            attempts: Vec::new(),
            weight,
        }
    }

    /// Begins an attempt: the first, or a later one of the Job.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.status = Status::Running;
        self.details = None;
        self.last_nonce = None;
        self.attempts.push(Attempt {
            began: now,
            ended: None,
            error: None,
        });
        if self.attempts.len() > MOST_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.touch(now, true);
    }

    /// Ends the attempt, and the run with it.
    pub(crate) fn end(
        &mut self,
        status: Status,
        details: Option<String>,
        by_agent: bool,
        now: Timestamp,
    ) {
        self.status = status;
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended = Some(now);
            attempt.error = details.clone();
        }
        self.details = details;
        self.touch(now, by_agent);
    }

    /// Sets an attempt's nonce.
    pub(crate) fn fix_nonce(&mut self, retry_count: i32, nonce: &str) {
        self.nonces.insert(retry_count, nonce.to_owned());
        if self.nonces.len() > MOST_ATTEMPTS {
            self.nonces.pop_first();
        }
    }

    /// The attempt of a heartbeat without jobRetryCount.
    pub(crate) fn attempt(&self) -> i32 {
        self.retry_count.unwrap_or(0)
    }

    fn touch(&mut self, now: Timestamp, by_agent: bool) {
        self.modified = now;
        self.modified_by_agent = by_agent;
    }
}
