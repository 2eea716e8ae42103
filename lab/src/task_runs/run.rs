//! One task run: what was asked for, where it stands, and which way it may go from there.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most attempts of a run whose times and nonces are kept: a Job is retried six times by default.
const MOST_ATTEMPTS: usize = 16;

/// Where a run stands. The contract names four more (`CheckedOut`, `Runnable`, `Finalizing`, `FailedRestartable`), to
/// which none of its five operations leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    /// Created; no heartbeat yet.
    Pending,
    /// Heartbeats come.
    Running,
    /// Ended, and every exit code that the last heartbeat told is 0.
    Completed,
    /// Ended, and an exit code isn't 0, or none was told.
    Failed,
    /// Aborted by a client.
    Aborted,
    /// Its heartbeats stopped.
    TimedOut,
}

impl Status {
    /// All of them, in the order of a run's life.
    pub(crate) const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Aborted,
        Self::TimedOut,
    ];

    /// The word on the wire.
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

    /// Whether a later attempt of the Job takes the run up again.
    pub(crate) fn may_be_retried(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a client asks for when it creates a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) acl: Option<Vec<String>>,
    /// `Execution`, as it came, but without credentials.
    pub(crate) execution: Option<Value>,
}

impl Wanted {
    /// What it takes in memory, about, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let acl: usize = self.acl.iter().flatten().map(|entry| entry.len() + ENTRY).sum();
        let execution = self
            .execution
            .as_ref()
            .map_or(0, |execution| execution.to_string().len() * JSON);
        text(&self.name) + text(&self.description) + acl + execution
    }
}

/// What a text takes beside its bytes.
const ENTRY: usize = 24;

/// How much larger JSON is in memory than as text, at worst about.
const JSON: usize = 8;

/// One attempt at a run (`TaskRunLogs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// When its first heartbeat came.
    pub(crate) began: Timestamp,
    /// When it ended, and with which error.
    pub(crate) ended: Option<Timestamp>,
    pub(crate) error: Option<String>,
}

/// A task run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: String,
    /// The order of creation.
    pub(crate) number: u64,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) acl: Option<Vec<String>>,
    pub(crate) execution: Option<Value>,
    pub(crate) status: Status,
    pub(crate) details: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    /// Whether its agent was the last to change it, rather than a client.
    pub(crate) modified_by_agent: bool,
    /// The highest jobRetryCount that was told.
    pub(crate) retry_count: Option<i32>,
    /// The nonce of each attempt, by its jobRetryCount, where nonces are checked.
    pub(crate) nonces: BTreeMap<i32, String>,
    /// The nonce of the last heartbeat, empty if that had none; absent if no last heartbeat ended the run.
    pub(crate) last_nonce: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
    /// What it counts for in memory, in bytes.
    pub(crate) weight: usize,
}

impl Run {
    pub(crate) fn new(id: String, number: u64, wanted: Wanted, weight: usize, now: Timestamp) -> Self {
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

    /// An attempt begins: the first, or a later one of the Job.
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

    /// The attempt ends, and the run with it.
    pub(crate) fn end(&mut self, status: Status, details: Option<String>, by_agent: bool, now: Timestamp) {
        self.status = status;
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended = Some(now);
            attempt.error = details.clone();
        }
        self.details = details;
        self.touch(now, by_agent);
    }

    /// Fixes an attempt's nonce.
    pub(crate) fn fix_nonce(&mut self, retry_count: i32, nonce: &str) {
        self.nonces.insert(retry_count, nonce.to_owned());
        if self.nonces.len() > MOST_ATTEMPTS {
            self.nonces.pop_first();
        }
    }

    /// The attempt that a heartbeat without jobRetryCount belongs to.
    pub(crate) fn attempt(&self) -> i32 {
        self.retry_count.unwrap_or(0)
    }

    fn touch(&mut self, now: Timestamp, by_agent: bool) {
        self.modified = now;
        self.modified_by_agent = by_agent;
    }
}
