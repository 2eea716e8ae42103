//! What the web page shows in addition to the API: the life of a run, its newest heartbeats, and
//! whether anything has changed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::TaskRunHeartbeat;

use super::problem::Problem;
use super::{AGENT_ONLY, Caller, Service, may_change};
use crate::received::{Bounds, Received};
use crate::store::{Entry, StoredRun};
use podbeat_runs::Status;

/// The bounds of the kept heartbeats: enough of each run to see what it does. A heartbeat of the
/// agent takes about 700 bytes with its overhead, so 700 runs have 50 heartbeats each. With these
/// bounds, a server with 10,000 live runs has less than 100 MiB.
const BOUNDS: Bounds = Bounds {
    of_run: 50,
    all: 36_000,
    bytes: 24 << 20,
};

/// The number of bytes that are kept of a heartbeat's body. The agent's have less than 4 KiB.
const BODY: usize = 64 << 10;

/// The memory of a kept heartbeat in addition to its body, in bytes, with its places in the record.
const OWN_WEIGHT: usize = 320;

/// A heartbeat that arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Beat {
    /// When it was answered, with microseconds.
    pub at: Timestamp,
    /// The body, or its beginning. It contains a nonce, which is a secret.
    pub body: Box<[u8]>,
    /// The size of the whole body, in bytes.
    pub size: usize,
    /// Whether the run accepted it.
    pub accepted: bool,
    /// The trace ID of the request.
    pub trace_id: Option<String>,
}

impl fmt::Debug for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Beat({}, {} bytes, accepted: {})",
            self.at, self.size, self.accepted
        )
    }
}

/// A run with its past.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The run.
    pub run: StoredRun,
    /// Its timeline, oldest first.
    pub timeline: Vec<Entry>,
    /// Its newest heartbeats, newest first, each with its number.
    pub heartbeats: Vec<(u64, Arc<Beat>)>,
    /// Whether the caller may change it, and why not.
    pub may_change: Result<(), Problem>,
}

/// The newest heartbeats of each run, and the number of changes of runs.
#[derive(Debug, Default)]
pub(super) struct Record {
    heartbeats: Mutex<Received<Arc<Beat>>>,
    changes: AtomicU64,
}

impl Record {
    fn heartbeats(&self) -> MutexGuard<'_, Received<Arc<Beat>>> {
        self.heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a run in a list has changed.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Drops the heartbeats of runs that were removed.
    pub(super) fn forget(&self, runs: &[String]) {
        if runs.is_empty() {
            return;
        }
        let mut heartbeats = self.heartbeats();
        for run in runs {
            heartbeats.forget_run(run);
        }
        drop(heartbeats);
        self.changed();
    }
}

impl Service {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.live.now().wall
    }

    /// The base URL of the API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// A running run without a heartbeat for this long is TimedOut.
    #[must_use]
    pub fn heartbeat_timeout(&self) -> Duration {
        self.options.rules.heartbeat_timeout
    }

    /// Increases with every change of a run that a list shows.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.record.changes.load(Ordering::Acquire)
    }

    /// The number of the newest heartbeat of a run, if one is kept.
    #[must_use]
    pub fn newest_heartbeat(&self, id: &str) -> Option<u64> {
        let heartbeats = self.record.heartbeats();
        let newest = heartbeats.of_run(id).next();
        newest.map(|(number, _)| number)
    }

    /// Keeps a heartbeat in memory, to be shown. Only if a run accepted or refused it: for other
    /// answers, the run may not exist, or the caller may not change it.
    pub fn keep(
        &self,
        id: &str,
        body: &[u8],
        trace_id: Option<String>,
        answer: &Result<TaskRunHeartbeat, Problem>,
    ) {
        let accepted = match answer {
            Ok(_) => true,
            Err(Problem::Conflict(_)) => false,
            Err(
                Problem::BadRequest { .. }
                | Problem::Unauthorized
                | Problem::Forbidden(_)
                | Problem::NotFound
                | Problem::TooMany { .. }
                | Problem::Unavailable { .. },
            ) => return,
        };
        // Created before the lock, because all other heartbeats wait for it.
        let beat = Beat {
            at: self.now(),
            body: body.get(..BODY).unwrap_or(body).into(),
            size: body.len(),
            accepted,
            trace_id,
        };
        let weight = beat.body.len() + OWN_WEIGHT;
        let beat = Arc::new(beat);
        self.record.heartbeats().keep(id, beat, weight, BOUNDS);
    }

    pub(super) async fn seen_by(&self, caller: &Caller, id: &str) -> Result<StoredRun, Problem> {
        let viewer = caller.viewer().ok_or(Problem::Forbidden(AGENT_ONLY))?;
        let run = self.store.run(id.to_owned()).await?;
        run.filter(|run| viewer.sees(run)).ok_or(Problem::NotFound)
    }

    /// A run with its past.
    ///
    /// # Errors
    /// There is no such run that the caller may see.
    pub async fn detail(&self, caller: &Caller, id: &str) -> Result<Detail, Problem> {
        let run = self.seen_by(caller, id).await?;
        let timeline = self.store.timeline(run.number).await?;
        let heartbeats = self.record.heartbeats();
        let of_run = heartbeats.of_run(id);
        Ok(Detail {
            timeline,
            heartbeats: of_run
                .map(|(number, beat)| (number, Arc::clone(beat)))
                .collect(),
            may_change: may_change(caller, &run),
            run,
        })
    }

    /// What a run executes, as JSON without secrets. `None` if the run has no execution.
    ///
    /// # Errors
    /// There is no such run that the caller may see.
    pub async fn execution(&self, caller: &Caller, id: &str) -> Result<Option<String>, Problem> {
        let run = self.seen_by(caller, id).await?;
        let execution = self.store.execution(run.number).await?;
        Ok(execution.map(|execution| execution.public))
    }

    /// A heartbeat of a run. `None` if it is not kept.
    ///
    /// # Errors
    /// There is no such run that the caller may see.
    pub async fn kept_heartbeat(
        &self,
        caller: &Caller,
        id: &str,
        number: u64,
    ) -> Result<Option<Arc<Beat>>, Problem> {
        self.seen_by(caller, id).await?;
        let heartbeats = self.record.heartbeats();
        let mut of_run = heartbeats.of_run(id);
        let found = of_run.find(|(other, _)| *other == number);
        Ok(found.map(|(_, beat)| Arc::clone(beat)))
    }

    /// The number of runs with each status. `None` if the caller does not see all runs: the runs
    /// that other tenants share are in no counter.
    ///
    /// # Errors
    /// The store fails.
    pub async fn counts(&self, caller: &Caller) -> Result<Option<Vec<(Status, u64)>>, Problem> {
        use crate::store::Viewer;
        match caller.viewer() {
            Some(Viewer::All) => Ok(Some(self.store.counts().await?)),
            Some(Viewer::Member { .. }) | None => Ok(None),
        }
    }
}
