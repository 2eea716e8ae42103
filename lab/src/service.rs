//! A stand-in for the task-run service. It has the five operations of the contract. For tests, it
//! also has faults and a record of the received heartbeats with their contract violations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::contract::Contract;
use crate::fault::{Faults, Place, RetryAfter, What};
use crate::page::view::{Detail, Entry, Overview};
use crate::page::{self, Page, Source};
use crate::pki::Authority;
use crate::serve::{self, Body, CutOff, Handler, Outcome, Server, json as json_answer, whole};
use crate::task_runs::clock::Clock;
use crate::task_runs::data::Data;
use crate::task_runs::http::{self, Operation, Problem};
use crate::task_runs::jwt::{self, Issuer};
pub use crate::task_runs::received::Heartbeat;
use crate::task_runs::received::{Bounds, Received};
use crate::task_runs::run::{Status, Wanted};
use crate::task_runs::store::{Rules, Store};

/// How long a request's body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// Generates a token for development from the system's random bytes.
///
/// # Errors
/// The system has no random bytes.
pub fn made_up_token() -> Result<String, Error> {
    Ok(format!("lab-{}", jwt::random_hex(16)?))
}

/// The stand-in's options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bearer tokens that it accepts.
    pub tokens: BTreeSet<String>,
    /// A path before `/v1`, such as `/ica`.
    pub base_path: String,
    /// The known runs; `None` for any run.
    pub runs: Option<BTreeSet<String>>,
    /// Whether clients must present a certificate of the authority.
    pub mutual_tls: bool,
    /// Its address and host name; `None` for `localhost`.
    pub place: Option<(IpAddr, String)>,
    /// The first and the last day of its certificate; `None` for a long time.
    pub certificate_holds: Option<(Date, Date)>,
    /// After this long without a heartbeat, a running run is TimedOut; `None` for never.
    pub heartbeat_timeout: Option<Duration>,
    /// Answers each accepted heartbeat with a new token for its run, valid for this long. Such a
    /// token is accepted for the run's heartbeats, and to get the run.
    pub renew_tokens: Option<Duration>,
    /// Whether all heartbeats of an attempt (with the same jobRetryCount) must have the same nonce:
    /// the one issued for it ([`Service::issue_nonce`]), or else that of its first heartbeat.
    pub check_nonces: bool,
    /// The file that stores runs across restarts; `None` for memory only.
    pub data: Option<PathBuf>,
    /// The clock that it uses.
    pub clock: Clock,
    /// Its limits.
    pub limits: Limits,
    /// The web page of the runs; `None` for no page.
    pub page: Option<page::Options>,
}

/// The stand-in's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The number of runs. At the limit, a new run replaces the run that ended first. If none has
    /// ended, the new one is refused.
    pub runs: usize,
    /// The size of the create requests of all runs together, in bytes.
    pub run_bytes: usize,
    /// The recorded heartbeats of one run; the newest are kept.
    pub heartbeats_of_run: usize,
    /// The recorded heartbeats of all runs.
    pub heartbeats: usize,
    /// The bodies of the recorded heartbeats, in bytes.
    pub heartbeat_bytes: usize,
    /// The body of one request, in bytes.
    pub body: usize,
}

impl Default for Limits {
    /// Enough for twice the ten thousand pods of a large fleet, and for a test that inspects every
    /// heartbeat of a long life.
    fn default() -> Self {
        Self {
            runs: 20_000,
            run_bytes: 128 << 20,
            heartbeats_of_run: 10_000,
            heartbeats: 100_000,
            heartbeat_bytes: 256 << 20,
            body: 1 << 20,
        }
    }
}

impl Options {
    /// Accepts one token, for any run.
    #[must_use]
    pub fn with_token(token: &str) -> Self {
        Self {
            tokens: BTreeSet::from([token.to_owned()]),
            ..Self::default()
        }
    }
}

/// How many heartbeats of a run were received since the start, including those that are no longer
/// kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All heartbeats.
    pub received: u64,
    /// The accepted heartbeats.
    pub accepted: u64,
}

/// The stand-in. It ends when dropped.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    _server: Server,
}

struct Shared {
    contract: Contract,
    faults: Faults,
    clock: Clock,
    started: Instant,
    /// Its URL with the base path; set once it listens.
    url: OnceLock<String>,
    issuer: Issuer,
    page: Option<Page>,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

struct State {
    options: Options,
    store: Store,
    data: Option<Data>,
    received: Received<Heartbeat>,
    /// For runs that are, or were, in the store.
    counts: HashMap<String, Count>,
    /// The heartbeats that the page shows; empty without a page.
    shown: Received<Arc<Entry>>,
    in_flight: BTreeMap<String, usize>,
    most_in_flight: usize,
    clock_ahead: i64,
}

impl Service {
    /// Starts it over TLS on a free port, on loopback unless the options differ.
    ///
    /// # Errors
    /// There is no free port, no certificate, or the data file can't be used.
    pub async fn start(
        authority: &Authority,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let loopback = || (IpAddr::from(Ipv4Addr::LOCALHOST), "localhost".to_owned());
        let (address, host) = options.place.clone().unwrap_or_else(loopback);
        let clients = options.mutual_tls.then_some(authority);
        let tls = authority
            .issue_for(
                &[&address.to_string(), &host, "0.0.0.0"],
                options.certificate_holds,
            )?
            .server_config(clients)?;
        let shared = Arc::new(Shared::new(contract, faults, options)?);
        let server = Server::start(Some(tls), Arc::clone(&shared), (address, 0).into()).await?;
        let url = format!("https://{host}:{}", server.address().port());
        Ok(Self::at(&url, shared, server))
    }

    /// Starts it over plain HTTP, for development only.
    ///
    /// # Errors
    /// The address is in use, or the data file can't be used.
    pub async fn start_plain(
        listen: SocketAddr,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(contract, faults, options)?);
        let server = Server::start(None, Arc::clone(&shared), listen).await?;
        let url = format!("http://{}", server.address());
        Ok(Self::at(&url, shared, server))
    }

    fn at(url: &str, shared: Arc<Shared>, server: Server) -> Self {
        let base_path = shared.state().options.base_path.clone();
        let _ = shared.url.set(format!("{url}{base_path}"));
        if let Some(page) = &shared.page {
            page.served_at(server.address());
        }
        Self {
            shared,
            _server: server,
        }
    }

    /// The base URL with the base path.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.url().to_owned()
    }

    /// The page's URL with the key that opens it; `None` if there is no page.
    #[must_use]
    pub fn page_url(&self) -> Option<String> {
        let page = self.shared.page.as_ref()?;
        Some(format!("{}/?key={}", self.shared.url(), page.key()))
    }

    /// Every received heartbeat that is kept, in order.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.shared.state().received.iter().cloned().collect()
    }

    /// Removes and returns every kept heartbeat, in order. For callers that read thousands and keep
    /// only what they need.
    #[must_use]
    pub fn take_heartbeats(&self) -> Vec<Heartbeat> {
        self.shared.state().received.take()
    }

    /// The time since the start, which is the time base of heartbeats.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Issues a nonce for an attempt of a run, as the service does when the run is checked out.
    ///
    /// # Errors
    /// There is no such run.
    pub fn issue_nonce(
        &self,
        run_id: &str,
        job_retry_count: i32,
        nonce: &str,
    ) -> Result<(), Error> {
        let mut state = self.shared.state();
        let now = state.options.clock.now();
        state
            .store
            .issue_nonce(run_id, job_retry_count, nonce, now)
            .map_err(|_| Error::NoSuchRun(run_id.to_owned()))?;
        state.save()
    }

    /// The kept heartbeats that were accepted.
    #[must_use]
    pub fn accepted(&self) -> Vec<Heartbeat> {
        self.heartbeats()
            .into_iter()
            .filter(|heartbeat| heartbeat.accepted)
            .collect()
    }

    /// A run's status as on the wire; `None` if there is no such run.
    #[must_use]
    pub fn status(&self, run_id: &str) -> Option<&'static str> {
        let mut state = self.shared.state();
        let now = state.options.clock.now();
        state
            .store
            .get(run_id, now)
            .ok()
            .map(|run| run.status.word())
    }

    /// How many heartbeats of a run were received. The cost is constant.
    #[must_use]
    pub fn count(&self, run_id: &str) -> Count {
        self.shared
            .state()
            .counts
            .get(run_id)
            .copied()
            .unwrap_or_default()
    }

    /// When the first accepted heartbeat arrived that is as wanted and arrived at `since` or later,
    /// if it is still kept. Both times are since [`Self::started`]. Copies nothing, and reads
    /// nothing older than `since`.
    #[must_use]
    pub fn first_accepted(
        &self,
        run_id: &str,
        since: Duration,
        wanted: impl Fn(&Heartbeat) -> bool,
    ) -> Option<Duration> {
        let state = self.shared.state();
        let newer = state
            .received
            .of_run(run_id)
            .map(|(_, heartbeat)| heartbeat);
        newer
            .take_while(|heartbeat| heartbeat.at >= since)
            .filter(|heartbeat| heartbeat.accepted && wanted(heartbeat))
            .last()
            .map(|heartbeat| heartbeat.at)
    }

    /// The start of its heartbeats' time base.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// The contract violations in received bodies.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.heartbeats()
            .into_iter()
            .flat_map(|heartbeat| heartbeat.violations)
            .collect()
    }

    /// The largest number of concurrent requests of one run.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.shared.state().most_in_flight
    }

    /// Accepts only these tokens from now on.
    pub fn set_tokens(&self, tokens: &[&str]) {
        self.shared.state().options.tokens =
            tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// Sets the `Date` of the answers this many seconds ahead, or behind if negative.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.state().clock_ahead = seconds;
    }

    /// Counts heartbeats as they arrive, for callers that wait for each one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until the received heartbeats are as wanted, and returns them.
    ///
    /// # Errors
    /// They are not as wanted within `limit`.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&[Heartbeat]) -> bool,
    ) -> Result<Vec<Heartbeat>, Error> {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let heartbeats = self.heartbeats();
                if reached(&heartbeats) {
                    return heartbeats;
                }
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_| Error::InVain {
                what: what.to_owned(),
                waited: limit,
                seen: format!("{:#?}", self.heartbeats()),
            })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(contract: Contract, faults: Faults, options: Options) -> Result<Self, Error> {
        let data = options.data.as_deref().map(Data::open).transpose()?;
        let (runs, key) = match &data {
            Some(data) => (data.runs()?, data.key()?),
            None => (Vec::new(), jwt::random(jwt::KEY_BYTES)?),
        };
        let now = options.clock.now();
        let rules = Rules {
            adopts: options.runs.is_none(),
            heartbeat_timeout: options.heartbeat_timeout,
            checks_nonces: options.check_nonces,
            most_runs: options.limits.runs,
            most_bytes: options.limits.run_bytes,
        };
        let mut store = Store::new(rules, runs, now);
        for run in options.runs.iter().flatten() {
            if !store.knows(run) {
                let named = Wanted {
                    name: Some(run.clone()),
                    ..Wanted::default()
                };
                store
                    .create(run, named, run.len(), now)
                    .map_err(|_| Error::TooManyRuns)?;
            }
        }
        let mut state = State {
            options,
            store,
            data,
            received: Received::default(),
            counts: HashMap::new(),
            shown: Received::default(),
            in_flight: BTreeMap::new(),
            most_in_flight: 0,
            clock_ahead: 0,
        };
        state.save()?;
        let page = match &state.options.page {
            Some(options) => Some(Page::new(options.clone(), &state.options.base_path, &key)?),
            None => None,
        };
        Ok(Self {
            page,
            clock: state.options.clock.clone(),
            contract,
            faults,
            started: Instant::now(),
            url: OnceLock::new(),
            issuer: Issuer::new(&key),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        })
    }

    fn url(&self) -> &str {
        self.url.get().map_or("", String::as_str)
    }

    /// Checks that the request's token allows the operation.
    fn authorize(&self, head: &Parts, operation: &Operation) -> Result<(), Problem> {
        let token = http::bearer(&head.headers).ok_or_else(Problem::unauthorized)?;
        let state = self.state();
        if state.options.tokens.contains(token) {
            return Ok(());
        }
        let run = self.issuer.run(token, state.options.clock.now());
        let run = run.ok_or_else(Problem::unauthorized)?;
        match operation {
            Operation::Heartbeat(own) | Operation::Get(own) if *own == run => Ok(()),
            _ => Err(Problem::forbidden()),
        }
    }

    /// The request's body, if the operation has one and the body satisfies the contract.
    fn read(&self, head: &Parts, operation: &Operation, raw: &[u8]) -> Result<Value, Problem> {
        let Some(schema) = http::schema(operation) else {
            return Ok(Value::Null);
        };
        let mut body = http::body(&head.headers, raw)?;
        self.contract.omit_nulls(schema, &mut body);
        let broken = self.contract.broken(schema, &body);
        if broken.is_empty() {
            Ok(body)
        } else {
            Err(Problem::breaks_contract(&broken))
        }
    }

    /// Executes a request.
    fn act(
        &self,
        head: &Parts,
        operation: &Operation,
        raw: &[u8],
    ) -> Result<(u16, Value), Problem> {
        http::accepts_json(&head.headers)?;
        self.authorize(head, operation)?;
        // Before the lock, because a large body takes time.
        let body = self.read(head, operation, raw)?;
        let mut state = self.state();
        let now = state.options.clock.now();
        let answer = match operation {
            Operation::Create => {
                let id = format!(
                    "trn.{}",
                    jwt::random_hex(16).map_err(|error| internal(&error))?
                );
                let wanted = http::wanted(&body);
                let weight = wanted.weight();
                let run = state.store.create(&id, wanted, weight, now)?;
                (201, http::task_run(&run, self.url()))
            }
            Operation::List => {
                let query = http::query(head.uri.query())?;
                let page = state.store.list(&query, now);
                (200, http::paged_items(&page, &query, self.url()))
            }
            Operation::Get(run) => {
                let run = state.store.get(run, now)?;
                (200, http::task_run(&run, self.url()))
            }
            Operation::Abort(run) => {
                let run = state.store.abort(run, now)?;
                (200, http::summary(&run, self.url()))
            }
            Operation::Heartbeat(run) => {
                state.store.heartbeat(run, &http::beat(&body), now)?;
                let renewed = state
                    .options
                    .renew_tokens
                    .map(|lifetime| self.issuer.issue(run, now, lifetime))
                    .transpose()
                    .map_err(|error| internal(&error))?;
                (200, http::task_run_heartbeat(renewed.as_deref()))
            }
        };
        // Saved before the answer, because a result that a client received must survive the
        // process.
        state.save().map_err(|error| internal(&error))?;
        Ok(answer)
    }

    fn record(&self, heartbeat: Option<Recorded>, raw: &[u8], fault: Option<&What>) {
        let Some(Recorded { heartbeat, size }) = heartbeat else {
            return;
        };
        // Created before the lock, because all other requests wait for the lock.
        let entry = self.page.as_ref().map(|_| {
            let (status, fault) = (heartbeat.status, fault.map(What::kind));
            let entry = Entry::new(self.clock.now(), raw, status, fault, &heartbeat.violations);
            (entry.weight(), Arc::new(entry))
        });
        let run_id = heartbeat.run_id.clone();
        let mut state = self.state();
        // Only for existing runs, because anyone can invent ids.
        if let Some((weight, entry)) = entry
            && state.store.knows(&run_id)
        {
            state.shown.keep(&run_id, entry, weight, page::BOUNDS);
        }
        if state.counts.contains_key(&run_id)
            || (state.counts.len() < state.options.limits.runs && state.store.knows(&run_id))
        {
            let count = state.counts.entry(run_id.clone()).or_default();
            count.received += 1;
            count.accepted += u64::from(heartbeat.accepted);
        }
        let limits = &state.options.limits;
        let bounds = Bounds {
            of_run: limits.heartbeats_of_run,
            all: limits.heartbeats,
            bytes: limits.heartbeat_bytes,
        };
        if bounds.all > 0 {
            state.received.keep(&run_id, heartbeat, size, bounds);
        }
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Source for Shared {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn version(&self) -> u64 {
        let mut state = self.state();
        let now = state.options.clock.now();
        state.store.expire(now);
        // As for a request: a time-out that was seen must outlive the process. What can't be
        // written is tried again.
        let _ = state.save();
        state.store.version().wrapping_add(state.shown.count())
    }

    fn overview(&self, status: Option<Status>) -> Overview {
        let mut state = self.state();
        let now = state.options.clock.now();
        state.store.expire(now);
        Overview::of(&state.store, status)
    }

    fn detail(&self, id: &str) -> Option<Detail> {
        let mut state = self.state();
        let now = state.options.clock.now();
        state.store.expire(now);
        Detail::of(
            &state.store,
            &state.shown,
            state.options.heartbeat_timeout,
            id,
        )
    }
}

impl State {
    /// Writes what has changed to the data file, if there is one. What can't be written is tried
    /// again with the next change.
    fn save(&mut self) -> Result<(), Error> {
        let changes = self.store.take_changes();
        let Some(data) = &mut self.data else {
            return Ok(());
        };
        data.write(&changes)
            .inspect_err(|_| self.store.changed_still(&changes))
    }
}

/// A heartbeat and the size of its body.
struct Recorded {
    heartbeat: Heartbeat,
    size: usize,
}

fn internal(error: &Error) -> Problem {
    Problem::internal(crate::chain(error))
}

/// Counts a request while it is in progress.
struct UnderWay {
    shared: Arc<Shared>,
    run_id: String,
}

impl UnderWay {
    fn new(shared: &Arc<Shared>, run_id: &str) -> Self {
        let mut state = shared.state();
        let count = state.in_flight.entry(run_id.to_owned()).or_default();
        *count += 1;
        let count = *count;
        state.most_in_flight = state.most_in_flight.max(count);
        drop(state);
        Self {
            shared: Arc::clone(shared),
            run_id: run_id.to_owned(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(count) = state.in_flight.get_mut(&self.run_id) {
            *count -= 1;
            if *count == 0 {
                state.in_flight.remove(&self.run_id);
            }
        }
    }
}

impl Handler for Shared {
    fn refuses(&self) -> bool {
        self.faults.refuses(&[Place::Heartbeat])
    }

    fn clock_ahead(&self) -> i64 {
        self.state().clock_ahead
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        let (base, largest) = {
            let state = self.state();
            (state.options.base_path.clone(), state.options.limits.body)
        };
        if let Some(page) = &self.page
            && let Some(place) = page::Place::of(&base, head.uri.path())
        {
            return Ok(page.answer(&self, place, &head));
        }
        let operation = match http::route(&base, &head) {
            Ok(operation) => operation,
            Err(problem) => return Ok(problem.response()),
        };
        let _under_way = match &operation {
            Operation::Heartbeat(run_id) => Some(UnderWay::new(&self, run_id)),
            _ => None,
        };
        let raw = match tokio::time::timeout(BODY, Limited::new(body, largest).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Ok(last_on_connection(&Problem::too_large(largest)));
            }
            Ok(Err(_)) => return Err(CutOff),
            Err(_) => return Ok(last_on_connection(&Problem::too_slow())),
        };
        let heartbeat = match &operation {
            Operation::Heartbeat(run_id) => Some(self.recorded(&head, run_id, &raw)),
            _ => None,
        };
        self.answer(&head, &operation, &raw, heartbeat).await
    }
}

impl Shared {
    /// Records a heartbeat as received, before it is processed.
    fn recorded(&self, head: &Parts, run_id: &str, raw: &Bytes) -> Recorded {
        // Taken before the body is parsed, because parsing is the stand-in's time.
        let at = self.started.elapsed();
        let header = |name| {
            let value = head.headers.get(name)?;
            HeaderValue::to_str(value).ok().map(str::to_owned)
        };
        // Checked against the contract even if its Content-Type is wrong.
        let body = if raw.is_empty() {
            json!({})
        } else {
            serde_json::from_slice(raw).unwrap_or_default()
        };
        let mut violations = self.contract.check("HeartbeatTaskRunRequest", &body);
        let content_type = header(header::CONTENT_TYPE);
        if !raw.is_empty() && !http::is_json(&head.headers) {
            violations.push(format!(
                "the contract does not allow the Content-Type {content_type:?}"
            ));
        }
        let heartbeat = Heartbeat {
            at,
            run_id: run_id.to_owned(),
            path: head.uri.path().to_owned(),
            body,
            token: http::bearer(&head.headers).map(str::to_owned),
            content_type,
            user_agent: header(header::USER_AGENT),
            traceparent: header(header::HeaderName::from_static("traceparent")),
            status: None,
            accepted: false,
            violations,
        };
        Recorded {
            heartbeat,
            size: raw.len(),
        }
    }

    /// Answers a request, subject to the faults in force. `heartbeat` is its record.
    async fn answer(
        &self,
        head: &Parts,
        operation: &Operation,
        raw: &Bytes,
        mut heartbeat: Option<Recorded>,
    ) -> Outcome {
        let fault = match &heartbeat {
            Some(recorded) => self
                .faults
                .strike(Place::Heartbeat, recorded.heartbeat.is_final()),
            None => self.faults.strike(Place::Any, false),
        };
        let scripted = |mut heartbeat: Option<Recorded>, response: Response<Body>| {
            if let Some(recorded) = &mut heartbeat {
                recorded.heartbeat.status = Some(response.status().as_u16());
            }
            self.record(heartbeat, raw, fault.as_ref());
            Ok(response)
        };
        match &fault {
            Some(What::Status(status, retry_after)) => {
                let error = json!({"code": "Scripted", "message": "scripted fault", "details": []});
                let mut response = json_answer(*status, &error);
                if let Some(value) = retry_after.and_then(RetryAfter::header) {
                    response.headers_mut().insert(header::RETRY_AFTER, value);
                }
                return scripted(heartbeat, response);
            }
            Some(What::Redirect(url)) => {
                let mut response = whole(307, "text/plain", "");
                if let Ok(url) = url.parse() {
                    response.headers_mut().insert(header::LOCATION, url);
                }
                return scripted(heartbeat, response);
            }
            Some(What::Lose | What::Refuse | What::Cut) => {
                self.record(heartbeat, raw, fault.as_ref());
                return Err(CutOff);
            }
            Some(What::HangLost) => {
                self.record(heartbeat, raw, fault.as_ref());
                return std::future::pending().await;
            }
            Some(What::Delay(delay)) => tokio::time::sleep(*delay).await,
            // The other faults affect the answer, or don't apply to this service.
            Some(_) | None => {}
        }
        let done = self.act(head, operation, raw);
        if let Some(recorded) = &mut heartbeat {
            recorded.heartbeat.accepted = done.is_ok();
        }
        match &fault {
            Some(What::Drop) => {
                self.record(heartbeat, raw, fault.as_ref());
                return Err(CutOff);
            }
            Some(What::Hang) => {
                self.record(heartbeat, raw, fault.as_ref());
                return std::future::pending().await;
            }
            _ => {}
        }
        let response = match (done, &fault) {
            (Err(problem), _) => problem.response(),
            (Ok((status, _)), Some(What::Garbage)) => {
                whole(status, "application/json", "<html>oops")
            }
            (Ok(_), Some(What::Flood)) => serve::flood("{\"jwt\":\""),
            (Ok((status, _)), Some(What::Giant)) => {
                whole(status, "application/json", vec![b' '; 2 << 20])
            }
            (Ok((status, _)), Some(What::Jwt(token))) if heartbeat.is_some() => {
                json_answer(status, &json!({"jwt": token}))
            }
            (Ok((status, body)), _) => json_answer(status, &body),
        };
        scripted(heartbeat, response)
    }
}

/// Closes the connection after this answer, because the rest of the request is not read.
fn last_on_connection(problem: &Problem) -> Response<Body> {
    let mut response = problem.response();
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
