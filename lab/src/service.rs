//! A stand-in of the task-run service: takes heartbeats, records them, and checks every body against the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Error;
use crate::contract::Contract;
use crate::fault::{Faults, Place, RetryAfter, What};
use crate::pki::Authority;
use crate::serve::{Body, CutOff, Handler, Outcome, Server, json as json_answer, whole};

/// How the stand-in behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bearer tokens that are accepted.
    pub tokens: BTreeSet<String>,
    /// A path before `/v1`, such as `/ica`.
    pub base_path: String,
    /// The runs that are known; `None` for any.
    pub runs: Option<BTreeSet<String>>,
    /// Whether clients must show a certificate of the authority.
    pub mutual_tls: bool,
    /// Where it answers and under which name; `None` for `localhost`.
    pub place: Option<(IpAddr, String)>,
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

/// One heartbeat as it came.
#[derive(Clone, PartialEq)]
pub struct Heartbeat {
    /// When, since the start.
    pub at: Duration,
    /// The run, decoded.
    pub run_id: String,
    /// The path, as it came.
    pub path: String,
    /// The body; null if it isn't JSON.
    pub body: Value,
    /// The token that it came with. Not shown by Debug.
    pub token: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The HTTP status; `None` if it was not answered.
    pub status: Option<u16>,
    /// Whether the service acted on it.
    pub accepted: bool,
    /// What the contract has against it.
    pub violations: Vec<String>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self
            .status
            .map_or("no answer".to_owned(), |status| status.to_string());
        write!(
            f,
            "{:?} {} {status} {} {:?}",
            self.at, self.run_id, self.body, self.violations
        )
    }
}

impl Heartbeat {
    /// Whether it is a last one.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.body.get("lastHeartbeat") == Some(&Value::Bool(true))
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        self.body.get("nonce").and_then(Value::as_str).unwrap_or_default()
    }

    /// The state of a container: its name on the wire, and its members.
    #[must_use]
    pub fn state(&self, container: &str) -> Option<(&str, &Value)> {
        let statuses = self.body.get("containerStatus")?.as_array()?;
        let status = statuses
            .iter()
            .find(|status| status.get("name").and_then(Value::as_str) == Some(container))?;
        status
            .get("state")?
            .as_object()?
            .iter()
            .next()
            .map(|(name, members)| (name.as_str(), members))
    }

    /// The exit code of a container that terminated.
    #[must_use]
    pub fn exit_code(&self, container: &str) -> Option<i64> {
        match self.state(container)? {
            ("terminated", members) => members.get("exitCode")?.as_i64(),
            _ => None,
        }
    }
}

/// The stand-in. Ends when dropped.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    server: Server,
    host: String,
}

struct Shared {
    contract: Contract,
    faults: Faults,
    started: Instant,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    options: Options,
    heartbeats: Vec<Heartbeat>,
    in_flight: BTreeMap<String, usize>,
    most_in_flight: usize,
    /// Runs that got their final, by its nonce.
    finals: BTreeMap<String, String>,
}

impl Service {
    /// Starts it on a free port, of loopback unless the options say otherwise.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(
        authority: &Authority,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let mutual_tls = options.mutual_tls;
        let loopback = || (IpAddr::from(Ipv4Addr::LOCALHOST), "localhost".to_owned());
        let (address, host) = options.place.clone().unwrap_or_else(loopback);
        let shared = Arc::new(Shared {
            contract,
            faults,
            started: Instant::now(),
            state: Mutex::new(State {
                options,
                ..State::default()
            }),
            changes: watch::Sender::new(0),
        });
        let clients = mutual_tls.then_some(authority);
        let server = Server::start(
            authority
                .issue(&[&address.to_string(), &host])?
                .server_config(clients)?,
            Arc::clone(&shared),
            address,
        )
        .await?;
        Ok(Self { shared, server, host })
    }

    /// The base URL, with the base path.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "https://{}:{}{}",
            self.host,
            self.server.address().port(),
            self.shared.state().options.base_path
        )
    }

    /// Every heartbeat that came, in order.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.shared.state().heartbeats.clone()
    }

    /// Those that the service acted on.
    #[must_use]
    pub fn accepted(&self) -> Vec<Heartbeat> {
        self.heartbeats()
            .into_iter()
            .filter(|heartbeat| heartbeat.accepted)
            .collect()
    }

    /// What the contract had against bodies that came.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.heartbeats()
            .into_iter()
            .flat_map(|heartbeat| heartbeat.violations)
            .collect()
    }

    /// The most requests of one run that were ever under way at once.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.shared.state().most_in_flight
    }

    /// Accepts these tokens from now on, and no others.
    pub fn set_tokens(&self, tokens: &[&str]) {
        self.shared.state().options.tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// Counts heartbeats as they come, for those who want to see each at once.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Waits until the heartbeats that came are as wanted, and returns them.
    ///
    /// # Errors
    /// They weren't within `limit`.
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

    /// What the service would answer, and whether it acts on the heartbeat.
    fn judge(&self, heartbeat: &Heartbeat) -> (u16, Value) {
        let refusal = |status, code: &str, message: &str| {
            (status, json!({"code": code, "message": message, "details": []}))
        };
        let mut state = self.state();
        if !heartbeat
            .token
            .as_ref()
            .is_some_and(|token| state.options.tokens.contains(token))
        {
            return refusal(401, "Unauthorized", "the bearer token is missing or unknown");
        }
        if !heartbeat.violations.is_empty() {
            let details: Vec<&String> = heartbeat.violations.iter().collect();
            return (
                400,
                json!({"code": "BadRequest", "message": "the body breaks the contract", "details": details}),
            );
        }
        if state
            .options
            .runs
            .as_ref()
            .is_some_and(|runs| !runs.contains(&heartbeat.run_id))
        {
            return refusal(404, "NotFound", "no such run");
        }
        match state.finals.get(&heartbeat.run_id) {
            Some(nonce) if nonce != heartbeat.nonce() => {
                return refusal(409, "Conflict", "the run has ended");
            }
            Some(_) | None => {}
        }
        if heartbeat.is_final() {
            let nonce = heartbeat.nonce().to_owned();
            state.finals.insert(heartbeat.run_id.clone(), nonce);
        }
        (200, json!({}))
    }

    fn record(&self, heartbeat: Heartbeat) {
        self.state().heartbeats.push(heartbeat);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Counts a request while it is under way.
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
        if let Some(count) = self.shared.state().in_flight.get_mut(&self.run_id) {
            *count -= 1;
        }
    }
}

impl Handler for Shared {
    fn refuses(&self) -> bool {
        self.faults.refuses(&[Place::Heartbeat])
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        const LARGEST: usize = 1 << 20;
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let base = self.state().options.base_path.clone();
        let run_id = path
            .strip_prefix(&base)
            .and_then(|path| path.strip_prefix("/v1/tasks/runs/"))
            .and_then(|rest| rest.strip_suffix(":heartbeat"))
            .filter(|run_id| !run_id.contains('/'));
        let (Some(run_id), &http::Method::POST) = (run_id, &head.method) else {
            return Ok(json_answer(
                404,
                &json!({"code": "NotFound", "message": "no such operation"}),
            ));
        };
        let run_id = percent_decode_str(run_id).decode_utf8_lossy().into_owned();
        let _under_way = UnderWay::new(&self, &run_id);
        let Ok(body) = Limited::new(body, LARGEST).collect().await else {
            return Err(CutOff);
        };
        let raw = body.to_bytes();
        let header = |name| {
            head.headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        let body: Value = serde_json::from_slice(&raw).unwrap_or_default();
        let mut violations = self.contract.check("HeartbeatTaskRunRequest", &body);
        let content_type = header(http::header::CONTENT_TYPE).map(str::to_owned);
        if content_type.as_deref() != Some("application/json") {
            violations.push(format!("Content-Type is {content_type:?}, not application/json"));
        }
        let heartbeat = Heartbeat {
            at: self.started.elapsed(),
            run_id,
            path,
            body,
            token: header(http::header::AUTHORIZATION)
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::to_owned),
            content_type,
            user_agent: header(http::header::USER_AGENT).map(str::to_owned),
            status: None,
            accepted: false,
            violations,
        };
        self.answer(heartbeat).await
    }
}

impl Shared {
    async fn answer(&self, mut heartbeat: Heartbeat) -> Outcome {
        let fault = self.faults.strike(Place::Heartbeat, heartbeat.is_final());
        let scripted = |heartbeat: Heartbeat, response: Response<Body>| {
            let status = Some(response.status().as_u16());
            self.record(Heartbeat { status, ..heartbeat });
            Ok(response)
        };
        match &fault {
            Some(What::Status(status, retry_after)) => {
                let error = json!({"code": "Scripted", "message": "as the script demands", "details": []});
                let mut response = json_answer(*status, &error);
                if let Some(value) = retry_after.and_then(retry_after_header) {
                    response.headers_mut().insert(http::header::RETRY_AFTER, value);
                }
                return scripted(heartbeat, response);
            }
            Some(What::Redirect(url)) => {
                let mut response = whole(307, "text/plain", "");
                if let Ok(url) = url.parse() {
                    response.headers_mut().insert(http::header::LOCATION, url);
                }
                return scripted(heartbeat, response);
            }
            Some(What::Lose | What::Refuse | What::Cut) => {
                self.record(heartbeat);
                return Err(CutOff);
            }
            Some(What::HangLost) => {
                self.record(heartbeat);
                return std::future::pending().await;
            }
            Some(What::Delay(delay)) => tokio::time::sleep(*delay).await,
            // The rest is about the answer, or not about heartbeats.
            Some(_) | None => {}
        }
        let (status, body) = self.judge(&heartbeat);
        heartbeat.accepted = status == 200;
        match fault {
            Some(What::Drop) => {
                self.record(heartbeat);
                return Err(CutOff);
            }
            Some(What::Hang) => {
                self.record(heartbeat);
                return std::future::pending().await;
            }
            _ => {}
        }
        heartbeat.status = Some(status);
        let response = match fault {
            Some(What::Garbage) if status == 200 => whole(200, "application/json", "<html>oops"),
            Some(What::Giant) if status == 200 => whole(200, "application/json", vec![b' '; 2 << 20]),
            Some(What::Jwt(token)) if status == 200 => json_answer(200, &json!({"jwt": token})),
            _ => json_answer(status, &body),
        };
        self.record(heartbeat);
        Ok(response)
    }
}

fn retry_after_header(retry_after: RetryAfter) -> Option<http::HeaderValue> {
    let text = match retry_after {
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::Date(ahead) => {
            let date = jiff::Timestamp::now()
                .checked_add(Duration::from_secs(ahead))
                .ok()?;
            jiff::fmt::rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&date)
                .ok()?
        }
    };
    text.parse().ok()
}
