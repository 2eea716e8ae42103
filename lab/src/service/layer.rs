//! The layer in front of a service. A request passes the faults and the check against the contract,
//! then the service behind the layer answers it, and then the faults can change the answer.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use podbeat_server::api::LARGEST_BODY;
use podbeat_server::api::head::{LONGEST_ID, Operation, bearer, is_json};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::received::{Bounds, Heartbeat, Received};
use super::{Count, Limits};
use crate::contract::Contract;
use crate::fault::{Faults, Place, RetryAfter, What};
use crate::serve::{self, Body, CutOff, Handler, Outcome, json as json_answer, whole};

/// How long a request's body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// The service behind the layer.
pub(crate) trait Behind: Send + Sync + 'static {
    /// Executes an operation.
    fn act(&self, asked: &Asked) -> impl Future<Output = Outcome> + Send;
    /// Answers any other request, or one whose body is too large.
    fn ask(&self, head: &Parts, body: axum::body::Body) -> impl Future<Output = Outcome> + Send;
}

/// The layer, and the service behind it.
pub(crate) struct Layer<B> {
    pub(crate) behind: B,
    contract: Contract,
    faults: Faults,
    pub(crate) started: Instant,
    base_path: String,
    limits: Limits,
    state: Mutex<State>,
    pub(super) changes: watch::Sender<u64>,
}

pub(crate) struct State {
    pub(crate) received: Received<Heartbeat>,
    pub(super) counts: HashMap<String, Count>,
    in_flight: BTreeMap<String, usize>,
    pub(super) most_in_flight: usize,
    pub(super) clock_ahead: i64,
}

impl<B> fmt::Debug for Layer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").finish_non_exhaustive()
    }
}

/// A request with an operation.
pub(crate) struct Asked {
    pub(crate) head: Parts,
    pub(crate) operation: Operation,
    pub(crate) raw: Bytes,
    /// The body as JSON, if the operation has one. Null if it is not JSON.
    pub(super) body: Value,
    /// Its violations of the contract.
    pub(super) violations: Vec<String>,
    at: Duration,
}

impl<B: Behind> Layer<B> {
    pub(crate) fn new(
        behind: B,
        contract: Contract,
        faults: Faults,
        base_path: &str,
        limits: Limits,
    ) -> Self {
        Self {
            behind,
            contract,
            faults,
            started: Instant::now(),
            base_path: base_path.to_owned(),
            limits,
            state: Mutex::new(State {
                received: Received::default(),
                counts: HashMap::new(),
                in_flight: BTreeMap::new(),
                most_in_flight: 0,
                clock_ahead: 0,
            }),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Records a heartbeat with its answer, if there was one.
    fn record(&self, asked: Asked, answer: Option<&Response<Body>>, accepted: bool) {
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
            status: answer.map(|answer| answer.status().as_u16()),
            retry_after: answer.and_then(retry_after),
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
                self.record(asked, Some(&response), false);
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
        let response = match self.behind.act(&asked).await {
            Ok(response) => response,
            Err(cut_off) => {
                self.record(asked, None, false);
                return Err(cut_off);
            }
        };
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
        self.record(asked, Some(&response), is_accepted);
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

/// The time in Retry-After, if it has seconds.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// The schema of the operation's body, if it has one.
pub(super) fn schema(operation: &Operation) -> Option<&'static str> {
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

/// Counts a heartbeat of a run while it is in progress.
struct UnderWay<B: Behind> {
    layer: Arc<Layer<B>>,
    run_id: String,
}

impl<B: Behind> UnderWay<B> {
    fn new(layer: &Arc<Layer<B>>, run_id: &str) -> Self {
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

impl<B: Behind> Drop for UnderWay<B> {
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

impl<B: Behind> Handler for Layer<B> {
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
                return self.behind.ask(&head, body).await;
            }
            Ok(Err(_)) | Err(_) => return Err(CutOff),
        };
        match operation {
            Some(operation) => self.answer(self.asked(head, operation, raw)).await,
            None => self.behind.ask(&head, raw.into()).await,
        }
    }
}
