//! The runs that the service launches, for the launcher.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use podbeat_launch::cluster::Cluster;
use podbeat_launch::launcher::{Row, Runs, Unchanged};
use podbeat_launch::order::Order;
use podbeat_runs::{Event, Moment};
use podbeat_task_runs::Secret;

use super::live::Listener;
use super::{Caller, Problem, SERVER, Service};
use crate::keys::random_hex;
use crate::store::StoredRun;
use crate::tokens;

/// The bytes of a nonce.
const NONCE: usize = 16;

/// The most bytes of a log that are shown.
const LOG: usize = 64 << 10;

/// The log of a run's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the latest pod, if one is known.
    pub pod: Option<String>,
    /// The end of its log. `None` if there is none now: the task has not started, or the pod is gone.
    pub text: Option<String>,
}

impl Service {
    /// From now on, logs come from this cluster. Only the first one counts.
    pub fn reads_logs_of(&self, cluster: Arc<dyn Cluster>) {
        let _ = self.cluster.set(cluster);
    }

    /// The end of the log of a run's pod. `None` if the service does not launch the run.
    ///
    /// # Errors
    /// There is no such run that the caller may see, or the API server does not answer.
    pub async fn log(&self, caller: &Caller, id: &str) -> Result<Option<Log>, Problem> {
        let run = self.seen_by(caller, id).await?;
        let (Some(cluster), Some(settings)) = (self.cluster.get(), &self.options.launch) else {
            return Ok(None);
        };
        if !run.run.is_launched() {
            return Ok(None);
        }
        let namespace = settings.namespace_of(&run.facts.tenant).to_owned();
        let latest = run.run.attempts().last();
        let known = latest.and_then(|attempt| attempt.pod.name.clone());
        let live = run.run.current_attempt();
        let Some(job) = live.and_then(|attempt| attempt.job.clone()) else {
            return Ok(Some(Log {
                namespace,
                pod: known,
                text: None,
            }));
        };
        let away = |_| Problem::unavailable("the Kubernetes API does not answer");
        let pods = cluster.pods(&namespace, &job).await.map_err(away)?;
        let newest = pods
            .into_iter()
            .max_by_key(|pod| (pod.end.is_none(), pod.created));
        let pod = newest.map(|pod| pod.name).or(known);
        let text = match &pod {
            Some(pod) => cluster.log_tail(&namespace, pod, LOG).await.map_err(away)?,
            None => None,
        };
        Ok(Some(Log {
            namespace,
            pod,
            text,
        }))
    }

    /// Calls `listener` after each change of a run that the service launches. Only the first one
    /// counts.
    pub fn tell(&self, listener: Listener) {
        self.live.tell(listener);
    }

    /// The current attempt of a run, with its token and its secrets.
    async fn order_of(&self, row: &Row) -> Result<Result<Order, String>, Problem> {
        let Some(attempt) = row.run.attempts().last() else {
            return Ok(Err("the run has no attempt".to_owned()));
        };
        let Some(execution) = self.store.execution(row.place).await? else {
            return Ok(Err("the run has no execution".to_owned()));
        };
        let text = match &execution.sealed {
            Some(sealed) => self.keys.open(&row.id, sealed)?,
            None => execution.public.into_bytes(),
        };
        let Ok(execution) = serde_json::from_slice(&text) else {
            return Ok(Err("the stored execution is unreadable".to_owned()));
        };
        let now = self.live.now().wall;
        let lifetime = self.options.token_lifetime;
        let token = tokens::issue(&self.keys, &row.id, attempt.serial, now, lifetime)?;
        Ok(Ok(Order {
            run: row.id.clone(),
            tenant: row.tenant.clone(),
            attempt: attempt.number,
            nonce: Secret::new(attempt.nonce.clone().unwrap_or_default()),
            token: Secret::new(token),
            execution,
        }))
    }
}

fn row(run: StoredRun) -> Row {
    Row {
        id: run.facts.id,
        tenant: run.facts.tenant,
        place: run.number,
        run: run.run,
    }
}

impl Runs for Service {
    fn now(&self) -> Moment {
        self.live.now()
    }

    fn row<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Row>, Unchanged>> {
        async move {
            let found = self.live.look(id).await;
            let found = found.map_err(|_| Unchanged::Unavailable)?;
            Ok(found.filter(|run| run.run.is_launched()).map(row))
        }
        .boxed()
    }

    fn apply<'a>(&'a self, id: &'a str, event: Event) -> BoxFuture<'a, Result<Row, Unchanged>> {
        async move {
            let allowed = |_: &StoredRun| Ok(());
            let applied = self.live.apply(id, allowed, SERVER, &event).await;
            match applied {
                Ok(run) => Ok(row(run)),
                Err(Problem::Conflict(_) | Problem::NotFound) => Err(Unchanged::Refused),
                Err(
                    Problem::BadRequest { .. }
                    | Problem::Unauthorized
                    | Problem::Forbidden(_)
                    | Problem::TooMany { .. }
                    | Problem::Unavailable { .. },
                ) => Err(Unchanged::Unavailable),
            }
        }
        .boxed()
    }

    fn order<'a>(
        &'a self,
        row: &'a Row,
    ) -> BoxFuture<'a, Result<Result<Order, String>, Unchanged>> {
        async move {
            let order = self.order_of(row).await;
            order.map_err(|_| Unchanged::Unavailable)
        }
        .boxed()
    }

    fn nonce(&self) -> Option<String> {
        random_hex::<NONCE>().ok()
    }

    fn unfinished(&self) -> Vec<String> {
        self.live.launched()
    }

    fn attempts(&self) -> usize {
        self.live.attempts()
    }
}

/// A listener that wakes the launcher of a run, as long as there is one.
#[must_use]
pub fn listener(launcher: &Arc<podbeat_launch::launcher::Launcher>) -> Listener {
    let launcher = Arc::downgrade(launcher);
    Arc::new(move |id| {
        if let Some(launcher) = launcher.upgrade() {
            launcher.changed(id);
        }
    })
}
