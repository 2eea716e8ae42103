//! The objects of an attempt: creates them, and deletes them when the attempt is over.

use std::time::Duration;

use podbeat_runs::{Attempt, Event, PodEnd};

use super::{Again, Deed, Launcher, Object, REFUSED, Row, SECOND, Stop, doing};
use crate::cluster::{Failure, Found};
use crate::limiter::doubled;
use crate::manifests::{Error, Manifests, manifests, name, spec_hash};
use crate::seen::JobSeen;

/// The time until an object that was deleted is looked for again.
const GONE: Duration = Duration::from_millis(500);

const CREATING_JOB: &str = "creating a Job";
const CREATING_SECRET: &str = "creating a Secret";

impl Launcher {
    /// Creates the Job and the Secret of an attempt, or finds those that an earlier pass created, and
    /// notes the Job in the row.
    pub(super) async fn place(&self, row: &Row, attempt: &Attempt) -> Result<Again, Stop> {
        let number = attempt.number;
        let namespace = self.settings.namespace_of(&row.tenant);
        let name = name(&row.id, number);
        // Heartbeats arrived, so there was a Job. It must not run twice.
        if attempt.started.is_some() {
            let found = self.cluster.job(namespace, &name).await;
            return match found.map_err(doing("getting a Job"))? {
                Found::Ours(job) => self.record(row, &job).await,
                Found::Nothing | Found::Foreign => self.vanished(row, attempt).await,
            };
        }
        if let Some(due) = self.grant(&row.id) {
            return Ok(Some(due));
        }
        let order = match self.runs.order(row).await? {
            Ok(order) => order,
            Err(reason) => return self.tell(row, Event::CannotStart { number, reason }).await,
        };
        let manifests = match manifests(&order, &self.settings) {
            Ok(manifests) => manifests,
            Err(error @ Error::NoImage) => {
                let reason = error.to_string();
                return self.tell(row, Event::CannotStart { number, reason }).await;
            }
            // The operator changed the launch file, and can change it back.
            Err(error @ (Error::Placement(_) | Error::Settings(_))) => {
                return self.refused(row, number, &error.to_string()).await;
            }
        };
        let job = match self.cluster.create_job(&manifests.job).await {
            Ok(job) => {
                self.observer.done(Deed::Created(&job));
                job
            }
            Err(Failure::Exists) => {
                let found = self.cluster.job(namespace, &name).await;
                match found.map_err(doing("getting a Job"))? {
                    // It was deleted in this moment.
                    Found::Nothing => return Ok(Some(self.now() + SECOND)),
                    Found::Ours(job) if job.is_deleted => return Ok(Some(self.now() + SECOND)),
                    Found::Ours(job)
                        if job.run == row.id
                            && job.attempt == number
                            && job.spec_hash.as_deref() == Some(&spec_hash(&order)) =>
                    {
                        self.observer.done(Deed::Adopted(&job));
                        job
                    }
                    Found::Ours(_) | Found::Foreign => {
                        let reason = format!(
                            "a Job {name} that is not of this attempt exists in namespace {namespace}"
                        );
                        return self.refused(row, number, &reason).await;
                    }
                }
            }
            Err(Failure::Invalid(why)) => {
                let reason = format!("cannot create Job {name}: {why}");
                return self.tell(row, Event::CannotStart { number, reason }).await;
            }
            Err(Failure::Refused(why)) => {
                let reason = format!("cannot create Job {name}: {why}");
                return self.refused(row, number, &reason).await;
            }
            Err(failure @ (Failure::Changed | Failure::Unavailable { .. })) => {
                return Err(doing(CREATING_JOB)(failure));
            }
        };
        self.state().created(&row.id);
        if let Some(again) = self.place_secret(row, number, &manifests, &job).await? {
            return Ok(Some(again));
        }
        self.record(row, &job).await
    }

    /// The time at which this run may create a Job, if that is not now.
    fn grant(&self, id: &str) -> Option<Duration> {
        let now = self.now();
        let due = self.state().grant(id, now);
        (now < due).then_some(due)
    }

    async fn place_secret(
        &self,
        row: &Row,
        number: u32,
        manifests: &Manifests,
        job: &JobSeen,
    ) -> Result<Option<Duration>, Stop> {
        let secret = manifests.owned_secret(&job.uid);
        match self.cluster.create_secret(&secret).await {
            Ok(uid) => {
                let mut state = self.state();
                state.secrets.insert(row.id.clone(), (number, uid));
                Ok(None)
            }
            Err(Failure::Exists) => {
                let found = self.cluster.secret(&job.namespace, &job.name).await;
                match found.map_err(doing("getting a Secret"))? {
                    Some(secret) if secret.run == row.id && secret.attempt == number => {
                        if secret.owner.as_deref() == Some(&job.uid) {
                            return Ok(None);
                        }
                        // Kubernetes is about to delete it with the earlier Job that owns it.
                        let deleted = self
                            .cluster
                            .delete_secret(&secret.namespace, &secret.name, &secret.uid)
                            .await;
                        deleted.map_err(doing("deleting a Secret"))?;
                        Ok(Some(self.now() + GONE))
                    }
                    Some(_) | None => {
                        let reason = format!(
                            "a Secret {} that is not of this attempt exists in namespace {}",
                            job.name, job.namespace
                        );
                        self.refused(row, number, &reason).await
                    }
                }
            }
            Err(Failure::Invalid(why)) => {
                let reason = format!("cannot create Secret {}: {why}", job.name);
                self.tell(row, Event::CannotStart { number, reason }).await
            }
            Err(Failure::Refused(why)) => {
                let reason = format!("cannot create Secret {}: {why}", job.name);
                self.refused(row, number, &reason).await
            }
            Err(failure @ (Failure::Changed | Failure::Unavailable { .. })) => {
                Err(doing(CREATING_SECRET)(failure))
            }
        }
    }

    /// Notes the Job in the row. From now on, it is never created again.
    async fn record(&self, row: &Row, job: &JobSeen) -> Result<Again, Stop> {
        let created = Event::Created {
            number: job.attempt,
            job: job.uid.clone(),
        };
        self.tell(row, created).await?;
        Ok(Some(self.now()))
    }

    /// The row shows why the attempt does not start, and it is tried again later.
    async fn refused(&self, row: &Row, number: u32, reason: &str) -> Result<Again, Stop> {
        let reason = reason.chars().take(1024).collect();
        self.tell(row, Event::Waiting { number, reason }).await?;
        let refusals = self.state().refused(&row.id);
        Ok(Some(self.now() + doubled(REFUSED, refusals)))
    }

    /// There is no Job any more, although there was one.
    pub(super) async fn vanished(&self, row: &Row, attempt: &Attempt) -> Result<Again, Stop> {
        let ended = Event::PodEnded {
            number: attempt.number,
            end: PodEnd {
                uid: attempt.pod.uid.clone(),
                reason: Some("its Job was deleted".to_owned()),
                ..PodEnd::default()
            },
        };
        self.tell(row, ended).await
    }

    /// Deletes the objects of attempts that are over. Returns when to look again; `None` if there are
    /// none any more.
    pub(super) async fn clean(&self, row: &Row) -> Result<Option<Duration>, Stop> {
        let keeps = row.run.current_attempt().map(|attempt| attempt.number);
        let namespace = self.settings.namespace_of(&row.tenant);
        let mut over: Vec<(u32, Option<JobSeen>)> = {
            let state = self.state();
            let seen = state.seen.get(&row.id).into_iter().flatten();
            seen.filter(|(number, _)| Some(**number) != keeps)
                .filter_map(|(number, seen)| Some((*number, Some(seen.job.clone()?))))
                .collect()
        };
        // The latest attempt that is over may have objects that no watch has shown.
        let latest = row.run.attempts().last();
        let latest = latest.filter(|attempt| attempt.ended.is_some());
        if let Some(attempt) = latest
            && !self.is_clean(&row.id, attempt.number)
            && over.iter().all(|(number, _)| *number != attempt.number)
        {
            over.push((attempt.number, None));
        }
        let mut again = None;
        for (number, job) in over {
            if !self.remove(row, namespace, number, job).await? {
                again = Some(self.now() + GONE);
            }
        }
        Ok(again)
    }

    fn is_clean(&self, id: &str, attempt: u32) -> bool {
        self.state().clean.get(id) == Some(&attempt)
    }

    /// Deletes the objects of one attempt. Returns whether none is left.
    async fn remove(
        &self,
        row: &Row,
        namespace: &str,
        number: u32,
        known: Option<JobSeen>,
    ) -> Result<bool, Stop> {
        let name = name(&row.id, number);
        let job = match known.filter(|job| !job.is_deleted) {
            Some(job) => Found::Ours(job),
            None => {
                let found = self.cluster.job(namespace, &name).await;
                found.map_err(doing("getting a Job"))?
            }
        };
        if let Found::Ours(job) = job
            && job.run == row.id
        {
            if !job.is_deleted {
                let deleted = self
                    .cluster
                    .delete_job(&job.namespace, &job.name, &job.uid)
                    .await;
                match deleted {
                    // Another Job has the name now, or the watch is behind.
                    Ok(()) | Err(Failure::Changed) => {}
                    Err(failure) => return Err(doing("deleting a Job")(failure)),
                }
                self.observer.done(Deed::Deleted {
                    run: &row.id,
                    namespace: &job.namespace,
                    job: &job.name,
                });
            }
            // The watch, or the next question, says when it is gone.
            let mut state = self.state();
            if let Some(attempts) = state.seen.get_mut(&row.id)
                && let Some(seen) = attempts.get_mut(&number)
            {
                seen.job = None;
            }
            return Ok(false);
        }
        let own = self.state().secrets.get(&row.id).cloned();
        let uid = match own.filter(|(of, _)| *of == number) {
            Some((_, uid)) => Some(uid),
            None => {
                let found = self.cluster.secret(namespace, &name).await;
                let found = found.map_err(doing("getting a Secret"))?;
                found
                    .filter(|secret| secret.run == row.id)
                    .map(|secret| secret.uid)
            }
        };
        if let Some(uid) = uid {
            let deleted = self.cluster.delete_secret(namespace, &name, &uid).await;
            match deleted {
                Ok(()) | Err(Failure::Changed) => {}
                Err(failure) => return Err(doing("deleting a Secret")(failure)),
            }
        }
        let mut state = self.state();
        state.secrets.remove(&row.id);
        state.clean.insert(row.id.clone(), number);
        Ok(true)
    }

    /// Deletes Secrets whose run has ended, or whose attempt is over: those of Jobs that never
    /// existed, because a request arrived late.
    pub(crate) async fn sweep(&self) {
        for namespace in self.settings.namespaces() {
            let secrets = match self.cluster.secrets(namespace).await {
                Ok(secrets) => secrets,
                Err(failure) => {
                    self.observer.done(Deed::Failed {
                        run: None,
                        doing: "listing Secrets",
                        failure: &failure,
                    });
                    continue;
                }
            };
            for secret in secrets {
                let Ok(Some(row)) = self.runs.row(&secret.run).await else {
                    continue;
                };
                let is_over = match row.run.attempts().last() {
                    Some(last) => {
                        secret.attempt < last.number
                            || (secret.attempt == last.number && last.ended.is_some())
                    }
                    None => row.run.status().is_final(),
                };
                if is_over {
                    // The next sweep tries again.
                    let _ = self
                        .cluster
                        .delete_secret(&secret.namespace, &secret.name, &secret.uid)
                        .await;
                }
            }
        }
    }

    /// Whether all objects of this kind in the namespace of a run were listed.
    pub(super) fn is_listed(&self, row: &Row, object: Object) -> bool {
        let namespace = self.settings.namespace_of(&row.tenant).to_owned();
        self.state().listed.contains(&(namespace, object))
    }
}
