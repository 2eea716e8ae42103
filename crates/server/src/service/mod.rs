//! The operations of the API. They connect the machine of a run with the store: an event changes a
//! copy of the run, the store commits it, and only then the run has changed and the caller gets an
//! answer. If the commit fails, the run is read from the store again before its next event.

mod clock_steps;
mod inspect;
mod known_tokens;
mod launched;
mod live;
mod problem;
mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_launch::cluster::Cluster;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    CreateTaskRunRequest, HeartbeatTaskRunRequest, TaskRun, TaskRunHeartbeat, TaskRunSummary,
};

use self::clock_steps::ClockSteps;
use self::inspect::Record;
pub use self::inspect::{Beat, Detail};
use self::known_tokens::KnownTokens;
pub use self::launched::{Log, listener};
use self::live::Live;
pub use self::live::{Clock, Listener, ProcessClock};
pub use self::problem::{Problem, UNAVAILABLE};
pub(crate) use self::wire::encoded;
use crate::keys::{Keys, random_hex};
use crate::store::{
    Created, Execution, Facts, Idempotency, Limits, NewRun, Page, Query, Role, Store, StoredRun,
    Token, Viewer,
};
use crate::telemetry::messages::Message;
use crate::tokens::{self, OfRun, later};
use podbeat_runs::{Event, Rules};

/// How long an idempotency key is kept.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);

/// The maximum length of an idempotency key, in bytes.
const LONGEST_KEY: usize = 255;

/// The time over which the limit of creates counts, and the time between removals of ended runs.
const MINUTE: Duration = Duration::from_secs(60);

/// The number of ended runs that are removed in one transaction, so that others wait little.
const FORGOTTEN: u32 = 500;

/// The settings of the service.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules of runs.
    pub rules: Rules,
    /// The base URL of the API, for the addresses of runs.
    pub url: String,
    /// The lifetime of a run's token. The service renews it after half of that.
    pub token_lifetime: Duration,
    /// The maximum number of runs of a tenant that have not ended.
    pub live_runs: u64,
    /// The maximum number of runs that a tenant creates in a minute.
    pub creates_per_minute: u64,
    /// How long ended runs are kept.
    pub retention: Duration,
    /// The maximum number of runs. Above it, the oldest ended runs are removed.
    pub retained_runs: u64,
    /// How runs are launched. `None`: others create the pods.
    pub launch: Option<podbeat_launch::settings::Settings>,
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user, with a token from the store.
    User {
        /// The tenant.
        tenant: String,
        /// The user.
        user: String,
        /// What the token allows.
        role: Role,
    },
    /// The agent of a run, with a token that this service issued.
    Agent(OfRun),
}

impl Caller {
    fn viewer(&self) -> Option<Viewer> {
        match self {
            Self::User {
                role: Role::Admin, ..
            } => Some(Viewer::All),
            Self::User { tenant, user, .. } => Some(Viewer::Member {
                tenant: tenant.clone(),
                user: user.clone(),
            }),
            Self::Agent(_) => None,
        }
    }

    /// The role, for audit messages.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self {
            Self::User { role, .. } => role.name(),
            Self::Agent(_) => "agent",
        }
    }

    /// The name for `createdBy` and `modifiedBy`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User { user, .. } => user,
            Self::Agent(_) => "podbeat",
        }
    }
}

/// The name for `modifiedBy` if the service itself changes a run.
const SERVER: &str = "podbeat-server";

const AGENT_ONLY: &str = "this token is valid only for heartbeats of its run and to get that run";
const READ_ONLY: &str = "this token has the role read, which allows only to get and list runs";
const SHARED: &str = "this run belongs to another tenant; it is shared only to be read";

/// The service.
pub struct Service {
    store: Arc<dyn Store>,
    keys: Keys,
    options: Options,
    known_tokens: KnownTokens,
    live: Live,
    record: Arc<Record>,
    /// Where the pods of launched runs are.
    cluster: OnceLock<Arc<dyn Cluster>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Reads the live runs. Their timeouts start now.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(
        store: Arc<dyn Store>,
        keys: Keys,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, crate::store::Error> {
        let record = Arc::<Record>::default();
        let shared = (Arc::clone(&store), Arc::clone(&record));
        let live = Live::start(shared, clock, options.rules).await?;
        Ok(Self {
            store,
            keys,
            options,
            known_tokens: KnownTokens::default(),
            live,
            record,
            cluster: OnceLock::new(),
        })
    }

    /// Ends runs whose time is up, stores the times of heartbeats, and removes old runs. Runs until
    /// it is dropped.
    pub async fn keep_time(&self) {
        let forgetting = async {
            let mut clock = ClockSteps::new(self.live.now());
            loop {
                tokio::time::sleep(MINUTE).await;
                let by_age = clock.look(self.live.now());
                // If the store fails, the next time is soon enough.
                if let Ok(runs @ 1..) = self.forget(by_age).await {
                    Message::RunsRemoved { runs }.emit();
                }
            }
        };
        tokio::join!(self.live.keep_time(), forgetting);
    }

    /// Removes ended runs that are too many, and with `by_age` also those that are too old. Returns
    /// how many.
    ///
    /// # Errors
    /// The store fails.
    pub async fn forget(&self, by_age: bool) -> Result<u64, crate::store::Error> {
        let now = self.live.now().wall;
        let before = now.checked_sub(self.options.retention).ok();
        let before = before.filter(|_| by_age).unwrap_or(Timestamp::MIN);
        let mut total = 0;
        loop {
            let most = self.options.retained_runs;
            let gone = self.store.forget(before, most, FORGOTTEN).await?;
            self.record.forget(&gone);
            let count = gone.len() as u64;
            total += count;
            if count < u64::from(FORGOTTEN) {
                return Ok(total);
            }
        }
    }

    /// Stores the times of heartbeats that are not stored yet.
    pub async fn flush(&self) {
        self.live.flush().await;
    }

    /// The keys.
    #[must_use]
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The number of runs in memory, which have not ended.
    #[must_use]
    pub fn live_runs(&self) -> usize {
        self.live.len()
    }

    /// The time since the last heartbeat of the running run that was silent for longest.
    #[must_use]
    pub fn longest_silence(&self) -> Option<Duration> {
        self.live.longest_silence()
    }

    /// Who has this bearer token. A revocation has an effect within five seconds.
    ///
    /// # Errors
    /// [`Problem::Unauthorized`] if nobody has.
    pub async fn caller(&self, token: &str) -> Result<Caller, Problem> {
        if !tokens::is_of_a_user(token) {
            let of_run = tokens::of_run(&self.keys, token);
            return of_run.map(Caller::Agent).ok_or(Problem::Unauthorized);
        }
        let now = self.live.now();
        let hash = tokens::hash(token);
        let known = self.known_tokens.get(&hash, now.elapsed);
        let found = match known {
            Some(token) => Some(token),
            None => {
                let found = self.store.token(hash).await?;
                if let Some(token) = &found {
                    self.known_tokens.add(token, now.elapsed);
                }
                found
            }
        };
        self.user(found)
    }

    /// The user whose token has this hash. It is read from the store, so that a revocation has an
    /// effect at once.
    ///
    /// # Errors
    /// [`Problem::Unauthorized`] if there is no such token that is valid.
    pub async fn caller_with(&self, hash: [u8; 32]) -> Result<Caller, Problem> {
        self.user(self.store.token(hash).await?)
    }

    /// The user of a token, if it is valid now.
    fn user(&self, token: Option<Token>) -> Result<Caller, Problem> {
        let now = self.live.now().wall;
        let is_valid = |token: &Token| {
            token.revoked.is_none() && token.expires.is_none_or(|expires| now < expires)
        };
        let token = token.filter(is_valid).ok_or(Problem::Unauthorized)?;
        Ok(Caller::User {
            tenant: token.tenant,
            user: token.user,
            role: token.role,
        })
    }

    /// Creates a run.
    ///
    /// # Errors
    /// The caller may not, the request is wrong, or the tenant is at a limit.
    pub async fn create(
        &self,
        caller: &Caller,
        request: CreateTaskRunRequest,
        idempotency_key: Option<&str>,
    ) -> Result<TaskRun, Problem> {
        let (tenant, user) = match caller {
            Caller::Agent(_) => return Err(Problem::Forbidden(AGENT_ONLY)),
            Caller::User {
                role: Role::Read, ..
            } => return Err(Problem::Forbidden(READ_ONLY)),
            Caller::User { tenant, user, .. } => (tenant.clone(), user.clone()),
        };
        let now = self.live.now().wall;
        let id = format!("trn.{}", random_hex::<16>()?);
        let key = self.idempotency(idempotency_key, &request, now)?;
        let facts = Facts {
            id: id.clone(),
            tenant,
            created_by: user,
            created: now,
            ..Facts::default()
        };
        let requested = wire::requested(request, facts, self.options.launch.as_ref())?;
        let execution = match requested.execution {
            Some((secret, public)) => Some(Execution {
                sealed: (secret != public)
                    .then(|| self.keys.seal(&id, secret.as_bytes()))
                    .transpose()?,
                public,
            }),
            None => None,
        };
        let new = NewRun {
            facts: requested.facts,
            run: requested.run,
            execution,
            idempotency: key,
            limits: Limits {
                live: self.options.live_runs,
                creates: self.options.creates_per_minute,
                since: now.checked_sub(MINUTE).unwrap_or(Timestamp::MIN),
            },
        };
        let public = new
            .execution
            .as_ref()
            .map(|execution| execution.public.clone());
        match self.store.create(new).await? {
            Created::New(run) => {
                let shown = wire::task_run(&run, public.as_deref(), &self.options.url);
                Message::RunCreated {
                    run: &id,
                    tenant: &run.facts.tenant,
                    user: caller.name(),
                    role: caller.role(),
                }
                .emit();
                self.live.add(run);
                Ok(shown)
            }
            Created::Before(run) => self.shown(&run).await,
            Created::OtherRequest => Err(Problem::Conflict(
                "another request had this Idempotency-Key".to_owned(),
            )),
            Created::TooManyLive => Err(Problem::TooMany {
                message: "the tenant has too many runs that have not ended",
                retry_after: MINUTE,
            }),
            Created::TooManyCreates => Err(Problem::TooMany {
                message: "the tenant created too many runs in the last minute",
                retry_after: MINUTE / 4,
            }),
        }
    }

    fn idempotency(
        &self,
        key: Option<&str>,
        request: &CreateTaskRunRequest,
        now: Timestamp,
    ) -> Result<Option<Idempotency>, Problem> {
        let Some(key) = key else { return Ok(None) };
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(Problem::bad_request(format!(
                "Idempotency-Key must have 1 to {LONGEST_KEY} bytes"
            )));
        }
        // Signed and not only hashed, because the request may contain a short password.
        let text = serde_json::to_vec(request).unwrap_or_default();
        let request = self.keys.sign(&text).try_into().unwrap_or_default();
        Ok(Some(Idempotency {
            key: key.to_owned(),
            request,
            until: later(now, IDEMPOTENCY),
        }))
    }

    async fn shown(&self, run: &StoredRun) -> Result<TaskRun, Problem> {
        let execution = self.store.execution(run.number).await?;
        let execution = execution.map(|execution| execution.public);
        Ok(wire::task_run(run, execution.as_deref(), &self.options.url))
    }

    /// A run.
    ///
    /// # Errors
    /// There is no such run that the caller may see.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<TaskRun, Problem> {
        if let Caller::Agent(token) = caller
            && token.run != id
        {
            return Err(Problem::Forbidden(AGENT_ONLY));
        }
        let run = self.store.run(id.to_owned()).await?;
        if run.is_none() && self.live.has(id) {
            // The index of a damaged file may miss a run.
            return Err(Problem::unavailable("the service cannot use its store"));
        }
        let run = run.filter(|run| caller.viewer().is_none_or(|viewer| viewer.sees(run)));
        let run = run.ok_or(Problem::NotFound)?;
        if let Caller::Agent(token) = caller
            && run.run.status().is_final()
            && token.expires <= self.live.now().wall
        {
            return Err(Problem::Unauthorized);
        }
        self.shown(&run).await
    }

    /// A page of runs. `query` makes the query for the caller.
    ///
    /// # Errors
    /// The caller may not list runs.
    pub async fn list(
        &self,
        caller: &Caller,
        query: impl FnOnce(Viewer) -> Query,
    ) -> Result<(Query, Page), Problem> {
        let viewer = caller.viewer().ok_or(Problem::Forbidden(AGENT_ONLY))?;
        let query = query(viewer);
        let page = self.store.list(query.clone()).await?;
        Ok((query, page))
    }

    /// The runs of a page, as the API shows them.
    #[must_use]
    pub fn summaries(&self, page: &Page) -> Vec<TaskRunSummary> {
        let runs = page.runs.iter();
        runs.map(|run| wire::listed(run, &self.options.url))
            .collect()
    }

    /// Accepts a heartbeat.
    ///
    /// # Errors
    /// There is no such run, the caller may not, or the run does not accept it.
    pub async fn heartbeat(
        &self,
        caller: &Caller,
        id: &str,
        request: HeartbeatTaskRunRequest,
        trace_id: Option<String>,
    ) -> Result<TaskRunHeartbeat, Problem> {
        let token_of = match caller {
            Caller::Agent(token) if token.run != id => {
                return Err(Problem::Forbidden(AGENT_ONLY));
            }
            Caller::Agent(token) => Some(token.attempt),
            Caller::User { .. } => None,
        };
        let heartbeat = wire::heartbeat(request, token_of, trace_id);
        let is_last = heartbeat.last;
        let event = Event::Heartbeat(Box::new(heartbeat));
        let allowed = |run: &StoredRun| may_change(caller, run);
        let run = self.live.apply(id, allowed, caller.name(), &event).await?;
        let now = self.live.now().wall;
        let needs_token = match caller {
            Caller::Agent(token) => token.is_old(now),
            Caller::User { .. } => true,
        };
        let attempt = run
            .run
            .attempts()
            .last()
            .filter(|_| needs_token && !is_last);
        let jwt = attempt.map(|attempt| {
            tokens::issue(
                &self.keys,
                id,
                attempt.serial,
                now,
                self.options.token_lifetime,
            )
        });
        Ok(TaskRunHeartbeat {
            jwt: jwt.transpose()?.map(Secret::new),
        })
    }

    /// Records that an attempt of a run was launched, with its number and its nonce. From now on,
    /// only heartbeats with this nonce are accepted.
    ///
    /// # Errors
    /// There is no such run, or it does not accept the attempt.
    pub async fn launched(&self, id: &str, number: u32, nonce: &str) -> Result<(), Problem> {
        let nonce = nonce.to_owned();
        let event = Event::Launched { number, nonce };
        let allowed = |_: &StoredRun| Ok(());
        self.live.apply(id, allowed, SERVER, &event).await?;
        Ok(())
    }

    /// Aborts a run.
    ///
    /// # Errors
    /// There is no such run, the caller may not, or the run has ended.
    pub async fn abort(&self, caller: &Caller, id: &str) -> Result<TaskRunSummary, Problem> {
        let Caller::User { user, .. } = caller else {
            return Err(Problem::Forbidden(AGENT_ONLY));
        };
        let event = Event::Abort { by: user.clone() };
        let allowed = |run: &StoredRun| may_change(caller, run);
        let run = self.live.apply(id, allowed, user, &event).await?;
        Message::RunAborted {
            run: id,
            tenant: &run.facts.tenant,
            user,
            role: caller.role(),
        }
        .emit();
        Ok(wire::summary(&run, &self.options.url))
    }
}

/// Whether a caller may change a run. A run that the caller may not see does not exist for it.
fn may_change(caller: &Caller, run: &StoredRun) -> Result<(), Problem> {
    match (caller, caller.viewer()) {
        (_, Some(viewer)) if !viewer.sees(run) => Err(Problem::NotFound),
        (
            Caller::User {
                role: Role::Read, ..
            },
            _,
        ) => Err(Problem::Forbidden(READ_ONLY)),
        (Caller::User { tenant, role, .. }, _)
            if *role != Role::Admin && *tenant != run.facts.tenant =>
        {
            Err(Problem::Forbidden(SHARED))
        }
        (Caller::User { .. } | Caller::Agent(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
