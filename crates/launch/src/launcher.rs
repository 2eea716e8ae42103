//! Brings the cluster in line with the rows, run by run, and tells the rows what the cluster shows.
//!
//! A pass looks at one run: its row, and what the watches showed. It makes the next change, and says
//! when to look again. A pass that is repeated, or that ends anywhere, does no harm: the row is
//! committed first, the names of the objects follow from it, and an end that cannot be taken back is
//! only told after a direct question to the API server.

mod evidence;
mod objects;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use podbeat_runs::{Event, Moment, Rules, Run, Status};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::state::{Object, State};
use crate::cluster::{Change, Cluster, Failure};
use crate::limiter::doubled;
use crate::order::Order;
use crate::seen::JobSeen;
use crate::settings::Settings;

/// The number of runs with which the launcher is busy at the same time. Each makes one request at a
/// time.
const WORKERS: usize = 16;

/// How often runs that wait for a free attempt are looked at, and how often attempts are counted.
const SECOND: Duration = Duration::from_secs(1);

/// How often Secrets are listed, to delete those whose run has ended.
const SWEEP: Duration = Duration::from_secs(600);

/// The shortest and the longest wait after a request that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The shortest and the longest wait before a refused object is tried again: a quota, a missing Role,
/// a foreign Job. Thousands of runs may wait for a quota.
const REFUSED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));

/// A row of the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The run's ID.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The place in the order of creation.
    pub place: u64,
    /// Its life.
    pub run: Run,
}

/// Why a row did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// The run refuses the event, because it changed meanwhile.
    #[error("the run does not accept this any more")]
    Refused,
    /// The store can't be used now.
    #[error("the store is not available")]
    Unavailable,
}

/// The rows of the service, for a launcher. A change is committed when the call returns.
pub trait Runs: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;
    /// A row. `None` if there is none that the service launches.
    fn row<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Row>, Unchanged>>;
    /// Applies an event.
    fn apply<'a>(&'a self, id: &'a str, event: Event) -> BoxFuture<'a, Result<Row, Unchanged>>;
    /// What the current attempt executes. `Err` with a text if it can never be known.
    fn order<'a>(&'a self, row: &'a Row)
    -> BoxFuture<'a, Result<Result<Order, String>, Unchanged>>;
    /// A new nonce. `None` if the system has no random bytes now.
    fn nonce(&self) -> Option<String>;
    /// The runs that have not ended and that the service launches, in the order of creation.
    fn unfinished(&self) -> Vec<String>;
    /// The number of attempts that are launched and have not ended.
    fn attempts(&self) -> usize;
}

/// What a launcher did, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed<'a> {
    /// It created the Job of an attempt.
    Created(&'a JobSeen),
    /// The Job of an attempt existed already.
    Adopted(&'a JobSeen),
    /// It deleted the Job of an attempt that is over.
    Deleted {
        /// The run.
        run: &'a str,
        /// The namespace.
        namespace: &'a str,
        /// The name of the Job.
        job: &'a str,
    },
    /// A request failed and will be repeated.
    Failed {
        /// The run, if the request was about one.
        run: Option<&'a str>,
        /// What was attempted.
        doing: &'static str,
        /// The reason.
        failure: &'a Failure,
    },
}

/// Learns what a launcher does.
pub trait Observer: Send + Sync + 'static {
    /// Something was done.
    fn done(&self, deed: Deed<'_>);
}

/// Launches runs.
pub struct Launcher {
    cluster: Arc<dyn Cluster>,
    runs: Arc<dyn Runs>,
    observer: Arc<dyn Observer>,
    settings: Settings,
    rules: Rules,
    state: Mutex<State>,
    wake: Notify,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher").finish_non_exhaustive()
    }
}

/// Why a pass over a run ended early.
#[derive(Debug)]
enum Stop {
    /// A request failed.
    Failed(&'static str, Failure),
    /// The row did not change. The store logs why.
    Row,
}

impl From<Unchanged> for Stop {
    fn from(_: Unchanged) -> Self {
        Self::Row
    }
}

/// When to look at a run again, as time since the start of the process. `None`: when it changes.
type Again = Option<Duration>;

/// Adds what was attempted to a failure.
fn doing(what: &'static str) -> impl FnOnce(Failure) -> Stop {
    move |failure| Stop::Failed(what, failure)
}

impl Launcher {
    /// A launcher. It does nothing until [`Self::run`]. `seed` is for jitter.
    #[must_use]
    pub fn new(
        cluster: Arc<dyn Cluster>,
        runs: Arc<dyn Runs>,
        observer: Arc<dyn Observer>,
        (settings, rules): (Settings, Rules),
        seed: u64,
    ) -> Self {
        let limits = settings.limits;
        Self {
            cluster,
            runs,
            observer,
            settings,
            rules,
            state: Mutex::new(State::new(limits, seed)),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.runs.now().elapsed
    }

    /// Looks at a run soon, because its row changed.
    pub fn changed(&self, id: &str) {
        let now = self.now();
        self.state().queue.add(id, now);
        self.wake.notify_one();
    }

    /// The number of runs that are being looked at, or will be.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.state().queue.len()
    }

    /// A run that is due. The caller has to [`Self::work`] on it.
    pub(crate) fn due(&self) -> Option<String> {
        let now = self.now();
        self.state().queue.take(now)
    }

    /// Launches runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        for id in self.runs.unfinished() {
            self.changed(&id);
        }
        let mut changes = self.cluster.watch();
        let mut workers = JoinSet::new();
        // The runs with which they are busy.
        let mut busy = HashMap::new();
        let mut seconds = tokio::time::interval(SECOND);
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            while workers.len() < WORKERS {
                let Some(id) = self.due() else { break };
                let launcher = Arc::clone(&self);
                let run = id.clone();
                let worker = workers.spawn(async move { launcher.work(&run).await });
                busy.insert(worker.id(), id);
            }
            let next = self.state().queue.next();
            let is_full = workers.len() >= WORKERS;
            let wait = next.map(|at| at.saturating_sub(self.now()));
            let due = async {
                match wait.filter(|_| !is_full) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(change) = changes.next() => self.take(change),
                Some(ended) = workers.join_next_with_id() => {
                    let (worker, is_done) = match ended {
                        Ok((worker, ())) => (worker, true),
                        Err(error) => (error.id(), false),
                    };
                    // A worker that panicked has not given its run back.
                    if let Some(run) = busy.remove(&worker).filter(|_| !is_done) {
                        let again = self.now() + RETRY.1;
                        self.state().queue.done(&run, Some(again));
                    }
                }
                _ = seconds.tick() => self.unpark(),
                _ = sweeps.tick() => {
                    let launcher = Arc::clone(&self);
                    workers.spawn(async move { launcher.sweep().await });
                }
                () = self.wake.notified() => {}
                () = due => {}
            }
        }
    }

    /// Looks at a run, and notes when to do so again.
    pub(crate) async fn work(&self, id: &str) {
        let passed = self.pass(id).await;
        let again = match passed {
            Ok(again) => {
                self.state().failures.remove(id);
                again
            }
            Err(stop) => Some(self.later(id, &stop)),
        };
        self.state().queue.done(id, again);
        self.wake.notify_one();
    }

    /// When to repeat a pass that ended early.
    fn later(&self, id: &str, stop: &Stop) -> Duration {
        if let Stop::Failed(doing, failure) = stop {
            self.observer.done(Deed::Failed {
                run: Some(id),
                doing,
                failure,
            });
        }
        let now = self.now();
        let mut state = self.state();
        let failures = state.failures.entry(id.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        let wait = doubled(RETRY, *failures);
        let asked = match stop {
            Stop::Failed(_, Failure::Unavailable { after, .. }) => after.unwrap_or_default(),
            Stop::Failed(
                _,
                Failure::Exists | Failure::Changed | Failure::Invalid(_) | Failure::Refused(_),
            )
            | Stop::Row => Duration::ZERO,
        };
        if !asked.is_zero() {
            state.limiter.pause(now + asked);
        }
        // Equal waits would come back together.
        let jitter = wait.mul_f64(state.random.f64() / 2.0);
        now + asked.max(wait / 2 + jitter)
    }

    /// Notes what a watch showed.
    pub(crate) fn take(&self, change: Change) {
        let now = self.now();
        let mut state = self.state();
        match change {
            Change::Job(job) => {
                state.queue.add(&job.run, now);
                let seen = state.of(&job.run, job.attempt);
                seen.job = Some(job);
            }
            Change::JobGone(job) => {
                if let Some(seen) = state.known_mut(&job.run, job.attempt) {
                    seen.job = seen.job.take().filter(|known| known.uid != job.uid);
                    state.queue.add(&job.run, now);
                }
            }
            Change::Pod(pod) => {
                state.queue.add(&pod.run, now);
                let seen = state.of(&pod.run, pod.attempt);
                seen.pods.insert(pod.name.clone(), pod);
            }
            Change::PodGone(pod) => {
                if let Some(seen) = state.known_mut(&pod.run, pod.attempt) {
                    seen.pods.retain(|_, known| known.uid != pod.uid);
                    let run = pod.run.clone();
                    seen.gone = Some(pod);
                    state.queue.add(&run, now);
                }
            }
            Change::Listed {
                namespace,
                jobs,
                pods,
            } => state.list(&namespace, jobs, pods, now),
            Change::Failed(failure) => {
                drop(state);
                self.observer.done(Deed::Failed {
                    run: None,
                    doing: "watching Jobs and pods",
                    failure: &failure,
                });
                return;
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Lets runs continue for which there is an attempt now.
    pub(crate) fn unpark(&self) {
        let now = self.now();
        if self.state().parked.is_empty() {
            return;
        }
        let used = self.count(now);
        let mut state = self.state();
        let mut free = self.settings.limits.attempts.saturating_sub(used);
        while free > 0
            && let Some((_, id)) = state.parked.pop_first()
        {
            state.queue.add(&id, now);
            free -= 1;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The number of attempts, with those that are about to begin. They are counted at most once a
    /// second.
    fn count(&self, now: Duration) -> usize {
        let known = self.state().attempts;
        if known.is_none_or(|(at, _)| now >= at + SECOND) {
            let attempts = self.runs.attempts();
            self.state().attempts = Some((now, attempts));
        }
        self.state().used()
    }

    /// Brings one run further.
    async fn pass(&self, id: &str) -> Result<Again, Stop> {
        let Some(mut row) = self.runs.row(id).await? else {
            // A run that this store does not know. Perhaps the store is an older copy, so its
            // objects stay.
            self.state().forget(id);
            return Ok(None);
        };
        if let Some(again) = self.clean(&row).await? {
            return Ok(Some(again));
        }
        if row.run.status().is_final() {
            self.state().forget(id);
            return Ok(None);
        }
        if row.run.current_attempt().is_none() {
            row = match self.launch(&row).await? {
                Ok(launched) => launched,
                Err(again) => return Ok(again),
            };
        }
        match row.run.current_attempt() {
            None => Ok(Some(self.now())),
            Some(attempt) if attempt.job.is_none() => self.place(&row, attempt).await,
            Some(attempt) => self.examine(&row, attempt).await,
        }
    }

    /// Begins the next attempt in the row, if it is time. Otherwise says when it will be.
    async fn launch(&self, row: &Row) -> Result<Result<Row, Again>, Stop> {
        let now = self.now();
        let last = row.run.attempts().last();
        if row.run.status() == Status::FailedRestartable {
            let backoff = self.settings.backoff(row.run.ended_attempts());
            let due = row.run.waits_since().saturating_add(backoff);
            if now < due {
                return Ok(Err(Some(due)));
            }
        }
        let used = self.count(now);
        {
            let mut state = self.state();
            let due = match state.reserved.get(&row.id) {
                Some(due) => *due,
                None if used >= self.settings.limits.attempts => {
                    state.parked.insert(row.place, row.id.clone());
                    return Ok(Err(None));
                }
                None => state.reserve(&row.id, now),
            };
            if now < due {
                return Ok(Err(Some(due)));
            }
        }
        let Some(nonce) = self.runs.nonce() else {
            return Ok(Err(Some(now + SECOND)));
        };
        let number = last.map_or(0, |attempt| attempt.number.saturating_add(1));
        let launched = Event::Launched { number, nonce };
        let row = self.runs.apply(&row.id, launched).await?;
        self.state().began(&row.id);
        Ok(Ok(row))
    }

    /// Tells a row something, unless it already says so.
    async fn tell(&self, row: &Row, event: Event) -> Result<Again, Stop> {
        let told = match &event {
            Event::Waiting { reason, .. } | Event::Suspended { reason, .. } => {
                row.run.details() == Some(reason.as_str()) && row.run.status() != Status::Finalizing
            }
            _ => false,
        };
        if told {
            return Ok(row.run.asks_at(&self.rules));
        }
        match self.runs.apply(&row.id, event).await {
            Ok(row) => Ok(match row.run.current_attempt() {
                None => Some(self.now()),
                Some(_) => row.run.asks_at(&self.rules),
            }),
            // The row changed meanwhile. The next pass reads it.
            Err(Unchanged::Refused) => Ok(Some(self.now() + SECOND)),
            Err(unchanged) => Err(unchanged.into()),
        }
    }
}
