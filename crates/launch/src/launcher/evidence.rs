//! What the cluster shows about an attempt that has a Job, told to its row.

use std::time::Duration;

use podbeat_runs::{Attempt, Event, PodEnd, Status};

use super::{Again, Launcher, Object, Row, Stop, doing};
use crate::cluster::Found;
use crate::manifests::name;
use crate::seen::{Finding, Kind, Seen, Waiting};

/// How long a Job usually takes to get its pod. After that, its events say why.
const FIRST_POD: Duration = Duration::from_secs(10);

/// How often the events of a Job without a pod are asked for: after as long as it has none, between
/// these limits. Thousands of Jobs may wait for a quota.
const COMPLAINTS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

impl Launcher {
    /// Compares what the watches showed with the row. Before an end, it asks the API server.
    pub(super) async fn examine(&self, row: &Row, attempt: &Attempt) -> Result<Again, Stop> {
        let now = self.now();
        let asks_at = row.run.asks_at(&self.rules);
        let shown = self.shown(row, attempt);
        let Some(finding) = shown else {
            // Not all Jobs and pods are known yet. If there is nothing of this run, no watch will
            // say so.
            return Ok(Some(now + super::SECOND));
        };
        let is_due = asks_at.is_some_and(|at| now >= at);
        match &finding {
            Finding::Runs(_) if !is_due => {
                self.state().waits.remove(&row.id);
                self.runs_now(row, attempt).await
            }
            Finding::Waiting(waiting) if !is_due => self.waits(row, attempt, waiting).await,
            Finding::NoPod if !is_due => self.has_no_pod(row, attempt).await,
            Finding::Runs(_)
            | Finding::Waiting(_)
            | Finding::NoPod
            | Finding::NoJob
            | Finding::Suspended
            | Finding::Ended(_) => {
                let told = matches!(finding, Finding::Suspended)
                    && row.run.details() == Some(suspended(self, row).as_str());
                if told && !is_due && row.run.status() == Status::Runnable {
                    return Ok(None);
                }
                let seen = self.look(row, attempt).await?;
                self.conclude(row, attempt, seen.finding()).await
            }
        }
    }

    /// What the watches showed. `None` if they have not shown everything yet.
    fn shown(&self, row: &Row, attempt: &Attempt) -> Option<Finding> {
        let is_listed = self.is_listed(row, Object::Job) && self.is_listed(row, Object::Pod);
        let state = self.state();
        let seen = state.known(&row.id, attempt.number);
        let finding = seen.map_or(Finding::NoJob, Seen::finding);
        match finding {
            // A watch is behind the answer to the request that created the Job.
            Finding::NoJob | Finding::NoPod if !is_listed => None,
            finding => Some(finding),
        }
    }

    /// Asks the API server for the Job and its pods.
    async fn look(&self, row: &Row, attempt: &Attempt) -> Result<Seen, Stop> {
        let namespace = self.settings.namespace_of(&row.tenant);
        let name = name(&row.id, attempt.number);
        let found = self.cluster.job(namespace, &name).await;
        let job = match found.map_err(doing("getting a Job"))? {
            Found::Ours(job) if job.run == row.id && job.attempt == attempt.number => Some(job),
            Found::Ours(_) | Found::Foreign | Found::Nothing => None,
        };
        let uid = job.as_ref().map(|job| job.uid.as_str());
        let pods = match uid.or(attempt.job.as_deref()) {
            Some(uid) => {
                let pods = self.cluster.pods(namespace, uid).await;
                pods.map_err(doing("listing the pods of a Job"))?
            }
            None => Vec::new(),
        };
        Ok(Seen {
            job,
            gone: None,
            pods: pods
                .into_iter()
                .map(|pod| (pod.name.clone(), pod))
                .collect(),
        })
    }

    /// Tells the row what the API server answered.
    async fn conclude(
        &self,
        row: &Row,
        attempt: &Attempt,
        finding: Finding,
    ) -> Result<Again, Stop> {
        let number = attempt.number;
        match finding {
            Finding::NoJob => self.vanished(row, attempt).await,
            Finding::Suspended => {
                let reason = suspended(self, row);
                self.tell(row, Event::Suspended { number, reason }).await
            }
            Finding::Ended(end) => {
                let end = self.with_gone(row, attempt, end);
                self.tell(row, Event::PodEnded { number, end }).await
            }
            Finding::Runs(containers) => {
                self.tell(row, Event::PodLives { number, containers }).await
            }
            Finding::NoPod | Finding::Waiting(_) => {
                let reported = row.run.status() == Status::Running && attempt.pod.uid.is_some();
                let is_new = match finding {
                    Finding::Waiting(_) => !self.has_pod(row, attempt),
                    _ => true,
                };
                let event = match finding {
                    // Another pod replaces the one that reported.
                    _ if reported && is_new => Event::Suspended {
                        number,
                        reason: "the Job starts another pod".to_owned(),
                    },
                    _ => Event::PodLives {
                        number,
                        containers: Vec::new(),
                    },
                };
                self.tell(row, event).await
            }
        }
    }

    /// Adds what the watches showed of a pod that is gone.
    fn with_gone(&self, row: &Row, attempt: &Attempt, end: PodEnd) -> PodEnd {
        let state = self.state();
        let seen = state.known(&row.id, attempt.number);
        match seen {
            Some(seen) => seen.with_gone(end),
            None => end,
        }
    }

    /// Whether the pod that reported is still there.
    fn has_pod(&self, row: &Row, attempt: &Attempt) -> bool {
        let state = self.state();
        let seen = state.known(&row.id, attempt.number);
        let uid = attempt.pod.uid.as_deref();
        seen.is_some_and(|seen| seen.pods.values().any(|pod| Some(pod.uid.as_str()) == uid))
    }

    async fn runs_now(&self, row: &Row, attempt: &Attempt) -> Result<Again, Stop> {
        let starts = matches!(row.run.status(), Status::CheckedOut | Status::Runnable);
        let waited = row.run.status() == Status::Running && row.run.details().is_some();
        if starts || waited {
            let number = attempt.number;
            return self.tell(row, Event::PodRuns { number }).await;
        }
        Ok(row.run.asks_at(&self.rules))
    }

    /// The pod does not start. The row shows why, and the attempt fails after some time.
    async fn waits(&self, row: &Row, attempt: &Attempt, waiting: &Waiting) -> Result<Again, Stop> {
        let number = attempt.number;
        let limit = waiting.kind.limit(&self.settings.pending);
        let since = self.waits_since(row, attempt, waiting.kind);
        let ends_at = limit.map(|limit| since.saturating_add(limit));
        if ends_at.is_some_and(|at| self.now() >= at) {
            let finding = self.look(row, attempt).await?.finding();
            return match finding {
                Finding::Waiting(still) if still.kind == waiting.kind => {
                    let reason = still.reason;
                    self.tell(row, Event::CannotStart { number, reason }).await
                }
                finding => self.conclude(row, attempt, finding).await,
            };
        }
        let again = match waiting.kind {
            Kind::Ordinary if row.run.status() == Status::Running => row.run.asks_at(&self.rules),
            Kind::Ordinary | Kind::Node | Kind::Image | Kind::Hopeless => {
                let reason = waiting.reason.clone();
                self.tell(row, Event::Waiting { number, reason }).await?
            }
        };
        Ok(again.into_iter().chain(ends_at).min())
    }

    /// Since when the pod waits for a reason of this kind.
    fn waits_since(&self, row: &Row, attempt: &Attempt, kind: Kind) -> Duration {
        let now = self.now();
        let mut state = self.state();
        let job = attempt.job.clone().unwrap_or_default();
        let known = state.waits.get(&row.id);
        match known.filter(|(of, known, _)| *of == job && *known == kind) {
            Some((_, _, since)) => *since,
            None => {
                state.waits.insert(row.id.clone(), (job, kind, now));
                now
            }
        }
    }

    /// The Job has no pod. Its events say why, for example that a quota is exceeded.
    async fn has_no_pod(&self, row: &Row, attempt: &Attempt) -> Result<Again, Stop> {
        let since = self.waits_since(row, attempt, Kind::Ordinary);
        let first = since.saturating_add(FIRST_POD);
        if self.now() < first {
            return Ok(Some(first));
        }
        let namespace = self.settings.namespace_of(&row.tenant);
        let uid = attempt.job.as_deref().unwrap_or_default();
        let complaint = self.cluster.complaint(namespace, uid).await;
        let complaint = complaint.map_err(doing("listing the events of a Job"))?;
        let number = attempt.number;
        let reason = complaint.unwrap_or_else(|| "the Job has no pod yet".to_owned());
        self.tell(row, Event::Waiting { number, reason }).await?;
        let now = self.now();
        let age = now.saturating_sub(since);
        Ok(Some(now + age.clamp(COMPLAINTS.0, COMPLAINTS.1)))
    }
}

/// Why a suspended Job waits.
fn suspended(launcher: &Launcher, row: &Row) -> String {
    match launcher.settings.queue_of(&row.tenant) {
        Some(queue) => format!("the Job is suspended, and waits in the queue {queue}"),
        None => "the Job is suspended".to_owned(),
    }
}
