//! The runs that the service launches, for the launcher.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use podbeat_launch::launcher::{Row, Runs, Unchanged};
use podbeat_launch::order::Order;
use podbeat_runs::{Event, Moment};
use podbeat_task_runs::Secret;

use super::live::Listener;
use super::{Problem, SERVER, Service};
use crate::keys::random_hex;
use crate::store::StoredRun;
use crate::tokens;

/// The bytes of a nonce.
const NONCE: usize = 16;

impl Service {
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
