//! The layer around the service's router. A request passes the faults and the check against the
//! contract, then the service answers it, and then the faults can change the answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use podbeat_server::api::head::{LONGEST_ID, Operation, bearer, is_json};
use podbeat_server::api::{Api, LARGEST_BODY};
use podbeat_server::runs::Run;
use podbeat_server::service::{Clock, ProcessClock, Service};
use podbeat_server::store::{self, Created, Facts, Limits as Most, NewRun, Role, Store};
use podbeat_server::tokens;
use podbeat_task_runs::model::Execution;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tower_service::Service as _;

use super::received::{Bounds, Heartbeat, Received};
use super::{Count, Limits, Options};
use crate::Error;
use crate::contract::Contract;
use crate::fault::{Faults, Place, RetryAfter, What};
use crate::serve::{self, Body, CutOff, Handler, Outcome, json as json_answer, whole};

/// The only tenant, and its only user.
const TENANT: &str = "lab";
const USER: &str = "lab-client";

/// How long a request's body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// The maximum number of violations in an answer, and of their characters: each repeats the wrong
/// value, which can be a megabyte.
const DETAILS: usize = 20;
const LONGEST_DETAIL: usize = 500;

/// Creates a run with this ID, unless it exists or the tenant has too many. Returns whether it
/// exists now.
pub(super) async fn create(
    store: &dyn Store,
    id: &str,
    most: u64,
    now: Timestamp,
) -> Result<bool, store::Error> {
    let limit = u32::try_from(Execution::DEFAULT_RETRY_LIMIT).unwrap_or(0);
    let run = NewRun {
        facts: Facts {
            id: id.to_owned(),
            tenant: TENANT.to_owned(),
            created_by: USER.to_owned(),
            name: Some(id.to_owned()),
            created: now,
            ..Facts::default()
        },
        run: Run::new(limit),
        execution: None,
        idempotency: None,
        limits: Most {
            live: most,
            creates: u64::MAX,
            since: now,
        },
    };
    match store.create(run).await {
        Ok(Created::New(_)) | Err(store::Error::Exists(_)) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates the token of the layer's user, as a header. It takes the place of the tokens that the
/// stand-in accepts, because the service does not accept tokens of any form.
pub(super) async fn token(store: &dyn Store, now: Timestamp) -> Result<HeaderValue, Error> {
    let created = tokens::create(TENANT, USER, Role::User, now, None)?;
    store.add_token(created.token).await?;
    let header = format!("Bearer {}", created.text.expose());
    // The text is in base64.
    Ok(HeaderValue::try_from(header).unwrap_or_else(|_| HeaderValue::from_static("")))
}

/// The layer, and the service in it.
pub(super) struct Layer {
    pub(super) service: Arc<Service>,
    clock: Arc<ProcessClock>,
    router: Router,
    token: HeaderValue,
    contract: Contract,
    faults: Faults,
    pub(super) started: Instant,
    base_path: String,
    limits: Limits,
    /// Whether the first heartbeat of an unknown run creates it.
    adopts: bool,
    /// Whether answers to heartbeats may have a new token.
    renews: bool,
    state: Mutex<State>,
    pub(super) changes: watch::Sender<u64>,
}

pub(super) struct State {
    /// The accepted tokens.
    pub(super) tokens: BTreeSet<String>,
    pub(super) received: Received<Heartbeat>,
    pub(super) counts: HashMap<String, Count>,
    in_flight: BTreeMap<String, usize>,
    pub(super) most_in_flight: usize,
    pub(super) clock_ahead: i64,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").finish_non_exhaustive()
    }
}

/// A request with an operation.
struct Asked {
    head: Parts,
    operation: Operation,
    raw: Bytes,
    /// The body as JSON, if the operation has one. Null if it is not JSON.
    body: Value,
    /// Its violations of the contract.
    violations: Vec<String>,
    at: Duration,
}

impl Layer {
    pub(super) fn new(
        service: Arc<Service>,
        clock: Arc<ProcessClock>,
        token: HeaderValue,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Self {
        let api = Arc::new(Api::new(&options.base_path));
        api.serve(Arc::clone(&service));
        Self {
            service,
            clock,
            router: api.router(),
            token,
            contract,
            faults,
            started: Instant::now(),
            base_path: options.base_path,
            limits: options.limits,
            adopts: options.runs.is_none(),
            renews: options.renew_tokens.is_some(),
            state: Mutex::new(State {
                tokens: options.tokens,
                received: Received::default(),
                counts: HashMap::new(),
                in_flight: BTreeMap::new(),
                most_in_flight: 0,
                clock_ahead: 0,
            }),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepts(&self, token: &str) -> bool {
        self.state().tokens.contains(token)
    }

    /// Sends a request to the service.
    async fn ask(&self, head: &Parts, body: axum::body::Body) -> Response<Body> {
        let mut head = head.clone();
        if bearer(&head.headers).is_some_and(|token| self.accepts(token)) {
            let token = self.token.clone();
            head.headers.insert(header::AUTHORIZATION, token);
        }
        let mut router = self.router.clone();
        let answered = router.call(Request::from_parts(head, body)).await;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        response.map(|body| body.map_err(io::Error::other).boxed_unsync())
    }

    /// Executes a request.
    async fn act(&self, asked: &Asked) -> Response<Body> {
        let broken = self.broken(asked).await;
        if !broken.is_empty() {
            return violates(&broken);
        }
        let ask = || self.ask(&asked.head, asked.raw.clone().into());
        let response = ask().await;
        let Operation::Heartbeat(run) = &asked.operation else {
            return response;
        };
        let is_unknown = response.status() == StatusCode::NOT_FOUND;
        let response = match self.adopts && is_unknown && self.adopt(run).await {
            true => ask().await,
            false => response,
        };
        match response.status() {
            // The service has a new token for every user, and not every client of the stand-in
            // wants one.
            StatusCode::OK if !self.renews => json_answer(200, &json!({})),
            _ => response,
        }
    }

    /// Creates the run of a heartbeat.
    async fn adopt(&self, run: &str) -> bool {
        let most = self.limits.runs.into();
        let now = self.clock.now().wall;
        let created = create(self.service.store(), run, most, now);
        run.len() <= LONGEST_ID && created.await.is_ok_and(|exists| exists)
    }

    /// The violations of the contract for which the layer refuses a request. The service itself
    /// refuses requests without a valid token and bodies that are not JSON.
    async fn broken(&self, asked: &Asked) -> Vec<String> {
        let headers = &asked.head.headers;
        let is_json = !asked.body.is_null() && (asked.raw.is_empty() || is_json(headers));
        let has_violations = is_json && !asked.violations.is_empty();
        let Some(schema) = schema(&asked.operation).filter(|_| has_violations) else {
            return Vec::new();
        };
        let token = bearer(headers).unwrap_or_default();
        if !self.accepts(token) && self.service.caller(token).await.is_err() {
            return Vec::new();
        }
        // podbeat sends no null, and only times in UTC; other clients may.
        let mut body = asked.body.clone();
        self.contract.omit_nulls(schema, &mut body);
        self.contract.broken(schema, &body)
    }

    fn asked(&self, head: Parts, operation: Operation, raw: Bytes) -> Asked {
        // Taken before the body is parsed, because parsing is the stand-in's time.
        let at = self.started.elapsed();
        let (mut body, mut violations) = (Value::Null, Vec::new());
        if let Some(schema) = schema(&operation) {
            body = match raw.is_empty() {
                true => json!({}),
                // Checked against the contract even if its Content-Type is wrong.
                false => serde_json::from_slice(&raw).unwrap_or_default(),
            };
            violations = self.contract.check(schema, &body);
            if !raw.is_empty() && !is_json(&head.headers) {
                let content_type = head.headers.get(header::CONTENT_TYPE);
                violations.push(format!(
                    "the contract does not allow the Content-Type {content_type:?}"
                ));
            }
        }
        Asked {
            head,
            operation,
            raw,
            body,
            violations,
            at,
        }
    }

    /// Records a heartbeat with the status of its answer, if there was one.
    fn record(&self, asked: Asked, status: Option<StatusCode>, accepted: bool) {
        let Operation::Heartbeat(run_id) = asked.operation else {
            return;
        };
        if self.limits.heartbeats == 0 || run_id.len() > LONGEST_ID {
            return;
        }
        let headers = &asked.head.headers;
        let header = |name| {
            let value = headers.get(name)?;
            HeaderValue::to_str(value).ok().map(str::to_owned)
        };
        let heartbeat = Heartbeat {
            at: asked.at,
            path: asked.head.uri.path().to_owned(),
            token: bearer(headers).map(str::to_owned),
            content_type: header(header::CONTENT_TYPE),
            user_agent: header(header::USER_AGENT),
            traceparent: header(header::HeaderName::from_static("traceparent")),
            run_id,
            body: asked.body,
            status: status.map(|status| status.as_u16()),
            accepted,
            violations: asked.violations,
        };
        let run_id = heartbeat.run_id.clone();
        let bounds = Bounds {
            of_run: self.limits.heartbeats_of_run,
            all: self.limits.heartbeats,
            bytes: self.limits.heartbeat_bytes,
        };
        let mut state = self.state();
        let has_room = state.counts.len() < self.limits.runs as usize;
        if has_room || state.counts.contains_key(&run_id) {
            let count = state.counts.entry(run_id.clone()).or_default();
            count.received += 1;
            count.accepted += u64::from(accepted);
        }
        state
            .received
            .keep(&run_id, heartbeat, asked.raw.len(), bounds);
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Answers a request, subject to the faults in force.
    async fn answer(&self, asked: Asked) -> Outcome {
        let is_heartbeat = matches!(asked.operation, Operation::Heartbeat(_));
        let is_last = asked.body.get("lastHeartbeat") == Some(&Value::Bool(true));
        let fault = match is_heartbeat {
            true => self.faults.strike(Place::Heartbeat, is_last),
            false => self.faults.strike(Place::Any, false),
        };
        match &fault {
            Some(What::Status(..) | What::Redirect(_)) => {
                let response = fault.as_ref().and_then(scripted).ok_or(CutOff)?;
                self.record(asked, Some(response.status()), false);
                return Ok(response);
            }
            Some(What::Lose | What::Refuse | What::Cut) => {
                self.record(asked, None, false);
                return Err(CutOff);
            }
            Some(What::HangLost) => {
                self.record(asked, None, false);
                return std::future::pending().await;
            }
            Some(What::Delay(delay)) => tokio::time::sleep(*delay).await,
            // The other faults affect the answer, or don't apply to this service.
            Some(_) | None => {}
        }
        let response = self.act(&asked).await;
        let status = response.status();
        let is_accepted = status.is_success();
        match &fault {
            Some(What::Drop) => {
                self.record(asked, None, is_accepted);
                return Err(CutOff);
            }
            Some(What::Hang) => {
                self.record(asked, None, is_accepted);
                return std::future::pending().await;
            }
            _ => {}
        }
        self.record(asked, Some(status), is_accepted);
        let garbled = fault.filter(|_| is_accepted);
        Ok(match garbled {
            Some(What::Garbage) => whole(status.as_u16(), "application/json", "<html>oops"),
            Some(What::Flood) => serve::flood("{\"jwt\":\""),
            Some(What::Giant) => whole(status.as_u16(), "application/json", vec![b' '; 2 << 20]),
            Some(What::Jwt(token)) if is_heartbeat => {
                json_answer(status.as_u16(), &json!({"jwt": token}))
            }
            _ => response,
        })
    }
}

/// The schema of the operation's body, if it has one.
fn schema(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Create => Some("CreateTaskRunRequest"),
        Operation::Heartbeat(_) => Some("HeartbeatTaskRunRequest"),
        Operation::List | Operation::Get(_) | Operation::Abort(_) => None,
    }
}

/// The answer of a fault without the service.
fn scripted(fault: &What) -> Option<Response<Body>> {
    match fault {
        What::Status(status, retry_after) => {
            let error = json!({"code": "Scripted", "message": "scripted fault", "details": []});
            let mut response = json_answer(*status, &error);
            if let Some(value) = retry_after.and_then(RetryAfter::header) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            Some(response)
        }
        What::Redirect(url) => {
            let mut response = whole(307, "text/plain", "");
            response
                .headers_mut()
                .insert(header::LOCATION, url.parse().ok()?);
            Some(response)
        }
        _ => None,
    }
}

/// The answer to a body that violates the contract.
fn violates(violations: &[String]) -> Response<Body> {
    let short = |detail: &String| detail.chars().take(LONGEST_DETAIL).collect::<String>();
    let details: Vec<String> = violations.iter().take(DETAILS).map(short).collect();
    let message = "the body violates the contract";
    json_answer(
        400,
        &json!({"code": "BadRequest", "message": message, "details": details}),
    )
}

/// Counts a heartbeat of a run while it is in progress.
struct UnderWay {
    layer: Arc<Layer>,
    run_id: String,
}

impl UnderWay {
    fn new(layer: &Arc<Layer>, run_id: &str) -> Self {
        let mut state = layer.state();
        let count = state.in_flight.entry(run_id.to_owned()).or_default();
        *count += 1;
        let count = *count;
        state.most_in_flight = state.most_in_flight.max(count);
        drop(state);
        Self {
            layer: Arc::clone(layer),
            run_id: run_id.to_owned(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.layer.state();
        if let Some(count) = state.in_flight.get_mut(&self.run_id) {
            *count -= 1;
            if *count == 0 {
                state.in_flight.remove(&self.run_id);
            }
        }
    }
}

impl Handler for Layer {
    fn refuses(&self) -> bool {
        self.faults.refuses(&[Place::Heartbeat])
    }

    fn clock_ahead(&self) -> i64 {
        self.state().clock_ahead
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        let operation = Operation::of(&self.base_path, &head.method, head.uri.path()).ok();
        let _under_way = match &operation {
            Some(Operation::Heartbeat(run)) => Some(UnderWay::new(&self, run)),
            _ => None,
        };
        let body = tokio::time::timeout(BODY, Limited::new(body, LARGEST_BODY).collect()).await;
        let raw = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                // The service says so.
                let too_large = stream::iter([Err::<Bytes, _>(error)]);
                let body = axum::body::Body::from_stream(too_large);
                return Ok(self.ask(&head, body).await);
            }
            Ok(Err(_)) | Err(_) => return Err(CutOff),
        };
        match operation {
            Some(operation) => self.answer(self.asked(head, operation, raw)).await,
            None => Ok(self.ask(&head, raw.into()).await),
        }
    }
}
