//! What the metrics show, as it happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use podbeat_interface::messages::{Outage, Over};
use podbeat_interface::throttle::{Chain, Throttle};
use podbeat_launch::launcher::{Deed, Launcher};
use prometheus_client::metrics::histogram::Histogram;

use super::messages::Message;
use super::traces::Traces;
use crate::api::Answered;
use crate::store::{self, Error, Kind};

/// The bounds of the histograms, in seconds: around the targets of 10 ms for a heartbeat and of a
/// second for a client that waits.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// The statuses of answers. Others count as `other`.
pub const STATUSES: &[&str] = &[
    "200", "201", "400", "401", "403", "404", "405", "406", "408", "409", "413", "415", "429",
    "500", "503", OTHER,
];

const OTHER: &str = "other";

/// Counts and times, from the start of the process.
#[derive(Debug)]
pub struct Readings {
    /// Requests, by operation and status.
    requests: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    request_durations: Histogram,
    store_durations: Histogram,
    store_operations: AtomicUsize,
    store_failures: AtomicU64,
    store_outages: [Outages; Kind::COUNT],
    /// `None` if there is no collector.
    traces: Option<Traces>,
    launches: Launches,
}

/// What the launcher did.
#[derive(Debug, Default)]
struct Launches {
    /// Not set if the server launches no runs.
    launcher: OnceLock<Weak<Launcher>>,
    created: AtomicU64,
    found: AtomicU64,
    deleted: AtomicU64,
    failures: AtomicU64,
    outages: Outages,
}

/// The failures of the store's operations of one kind.
#[derive(Debug, Default)]
struct Outages {
    throttle: Mutex<Throttle>,
    fails: AtomicBool,
}

impl Outages {
    /// Counts a failure. Returns an outage if it is to be logged.
    fn failed<'error>(
        &self,
        kind: &str,
        error: &'error dyn fmt::Display,
    ) -> Option<Outage<'error>> {
        self.fails.store(true, Ordering::Relaxed);
        lock(&self.throttle).failed(kind, error)
    }

    /// Something succeeded. Returns the end of an outage if it is to be logged.
    fn succeeded(&self) -> Option<Over> {
        // The lock is only for the first success.
        let failed = self.fails.swap(false, Ordering::Relaxed);
        failed.then(|| lock(&self.throttle).over()).flatten()
    }
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            request_durations: Histogram::new(BOUNDS),
            store_durations: Histogram::new(BOUNDS),
            store_operations: AtomicUsize::new(0),
            store_failures: AtomicU64::new(0),
            store_outages: Default::default(),
            traces: None,
            launches: Launches::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readings {
    /// Readings that also send spans to a collector.
    #[must_use]
    pub fn with_traces(traces: Option<Traces>) -> Self {
        Self {
            traces,
            ..Self::default()
        }
    }

    /// Sends the last spans.
    pub async fn close(&self) {
        if let Some(traces) = &self.traces {
            traces.close().await;
        }
    }

    /// The requests by operation and status.
    #[must_use]
    pub fn requests(&self) -> Vec<((&'static str, &'static str), u64)> {
        let requests = lock(&self.requests);
        requests.iter().map(|(key, count)| (*key, *count)).collect()
    }

    /// The durations of requests. Cheap to clone.
    #[must_use]
    pub fn request_durations(&self) -> Histogram {
        self.request_durations.clone()
    }

    /// The durations of the store's operations. Cheap to clone.
    #[must_use]
    pub fn store_durations(&self) -> Histogram {
        self.store_durations.clone()
    }

    /// The number of the store's operations in progress, including those that wait.
    #[must_use]
    pub fn store_operations(&self) -> usize {
        self.store_operations.load(Ordering::Relaxed)
    }

    /// From now on, the metrics show what this launcher does.
    pub fn launches(&self, launcher: &Arc<Launcher>) {
        // There is one launcher in a process.
        let _ = self.launches.launcher.set(Arc::downgrade(launcher));
    }

    /// The number of runs that the launcher looks at, or will. `None` if the server launches no runs.
    #[must_use]
    pub fn launch_queue(&self) -> Option<usize> {
        let launcher = self.launches.launcher.get()?;
        launcher.upgrade().map(|launcher| launcher.queued())
    }

    /// Jobs that were created, found and deleted.
    #[must_use]
    pub fn jobs(&self) -> [(&'static str, u64); 3] {
        let launches = &self.launches;
        [
            ("created", &launches.created),
            ("found", &launches.found),
            ("deleted", &launches.deleted),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// The number of requests to the API server that failed.
    #[must_use]
    pub fn cluster_failures(&self) -> u64 {
        self.launches.failures.load(Ordering::Relaxed)
    }

    /// The number of the store's operations that failed.
    #[must_use]
    pub fn store_failures(&self) -> u64 {
        self.store_failures.load(Ordering::Relaxed)
    }
}

impl crate::api::Observer for Readings {
    fn answered(&self, answered: &Answered<'_>) {
        let status = STATUSES
            .iter()
            .find(|known| known.parse() == Ok(answered.status))
            .copied();
        *lock(&self.requests)
            .entry((answered.operation, status.unwrap_or(OTHER)))
            .or_default() += 1;
        self.request_durations.observe(answered.took.as_secs_f64());
        if let Some(traces) = &self.traces {
            traces.add(answered);
        }
    }
}

impl podbeat_launch::launcher::Observer for Readings {
    fn done(&self, deed: Deed<'_>) {
        let launches = &self.launches;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match deed {
            Deed::Created(job) => {
                count(&launches.created);
                Message::JobCreated {
                    run: &job.run,
                    attempt: job.attempt,
                    namespace: &job.namespace,
                    job: &job.name,
                }
                .emit();
            }
            Deed::Adopted(job) => {
                count(&launches.found);
                Message::JobFound {
                    run: &job.run,
                    attempt: job.attempt,
                    namespace: &job.namespace,
                    job: &job.name,
                }
                .emit();
            }
            Deed::Deleted {
                run,
                namespace,
                job,
            } => {
                count(&launches.deleted);
                Message::JobDeleted {
                    run,
                    namespace,
                    job,
                }
                .emit();
            }
            Deed::Failed {
                run,
                doing,
                failure,
            } => {
                count(&launches.failures);
                if let Some(outage) = &launches.outages.failed(doing, failure) {
                    Message::ClusterFailed {
                        run,
                        operation: doing,
                        outage,
                    }
                    .emit();
                }
                return;
            }
        }
        if let Some(over) = &launches.outages.succeeded() {
            Message::ClusterRecovered { over }.emit();
        }
    }
}

impl store::Observer for Readings {
    fn begun(&self) {
        self.store_operations.fetch_add(1, Ordering::Relaxed);
    }

    fn left(&self) {
        self.store_operations.fetch_sub(1, Ordering::Relaxed);
    }

    fn ended(&self, operation: &'static str, kind: Kind, took: Duration, failure: Option<&Error>) {
        self.store_durations.observe(took.as_secs_f64());
        let Some(outages) = self.store_outages.get(kind as usize) else {
            return;
        };
        match failure {
            Some(error) => {
                self.store_failures.fetch_add(1, Ordering::Relaxed);
                let chain = Chain(error);
                if let Some(outage) = &outages.failed(&error.to_string(), &chain) {
                    Message::StoreFailed { operation, outage }.emit();
                }
            }
            None => {
                if let Some(over) = &outages.succeeded() {
                    Message::StoreRecovered { over }.emit();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use podbeat_interface::log::{Form, Log};

    use super::*;
    use crate::api::Observer as _;
    use crate::store::Observer as _;

    #[test]
    fn requests_are_counted_by_operation_and_status() {
        let readings = Readings::default();
        for status in [200, 200, 503, 418] {
            readings.answered(&Answered {
                operation: "get",
                run: None,
                method: "GET",
                status,
                took: Duration::from_millis(3),
                parent: None,
            });
        }
        assert_eq!(
            readings.requests(),
            [
                (("get", "200"), 2),
                (("get", "503"), 1),
                (("get", "other"), 1)
            ]
        );
    }

    #[tokio::test]
    async fn a_failing_store_is_logged_with_its_cause_until_it_works_again() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let write = move |line: &str| kept.lock().expect("not poisoned").push(line.to_owned());
        let filter = "info".parse().expect("a filter");
        let log = Log::new(&filter, Form::Json, write);
        tracing::subscriber::with_default(log, || {
            let readings = Readings::default();
            let error = || Error::Failed {
                doing: "committing",
                source: Box::new(std::io::Error::other("disk full")),
            };
            for _ in 0..3 {
                readings.ended("change", Kind::Write, Duration::ZERO, Some(&error()));
            }
            for (other, kind) in [
                ("run", Kind::Read),
                ("check", Kind::Maintain),
                ("change", Kind::Write),
                ("change", Kind::Write),
            ] {
                readings.ended(other, kind, Duration::ZERO, None);
                assert_eq!(
                    lines.lock().expect("not poisoned").len() == 3,
                    other == "change"
                );
            }
            assert_eq!(readings.store_failures(), 3);
        });
        let lines = lines.lock().expect("not poisoned").clone();
        let all = lines.concat();
        assert_eq!(lines.len(), 3, "{all}");
        assert!(
            lines[0].contains("the store failed while committing: disk full"),
            "{all}"
        );
        assert!(lines[1].contains("\"repeats\":2"), "{all}");
        assert!(lines[2].contains("the store works again"), "{all}");
        assert!(lines[2].contains("\"failures\":3"), "{all}");
    }
}
