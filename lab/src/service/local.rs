//! The service in this process: podbeat-server's router with a store of its own. It accepts tokens
//! of any form, can create the run of a heartbeat, and refuses bodies that violate the contract.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use podbeat_runs::Run;
use podbeat_server::api::Api;
use podbeat_server::api::head::{LONGEST_ID, Operation, bearer, is_json};
use podbeat_server::service::{Clock, ProcessClock, Service};
use podbeat_server::store::{self, Created, Facts, Limits as Most, NewRun, Role, Store};
use podbeat_server::tokens;
use podbeat_task_runs::model::Execution;
use serde_json::json;
use tower_service::Service as _;

use super::Options;
use super::layer::{Asked, Behind, schema};
use crate::Error;
use crate::contract::Contract;
use crate::serve::{Body, Outcome, json as json_answer};

/// The only tenant, and its only user.
const TENANT: &str = "lab";
const USER: &str = "lab-client";

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

/// Creates the token of the stand-in's user, as a header. It takes the place of the tokens that the
/// stand-in accepts, because the service does not accept tokens of any form.
pub(super) async fn token(store: &dyn Store, now: Timestamp) -> Result<HeaderValue, Error> {
    let created = tokens::create(TENANT, USER, Role::User, now, None)?;
    store.add_token(created.token).await?;
    let header = format!("Bearer {}", created.text.expose());
    // The text is in base64.
    Ok(HeaderValue::try_from(header).unwrap_or_else(|_| HeaderValue::from_static("")))
}

/// The service, and what the stand-in adds to it.
pub(super) struct Local {
    pub(super) service: Arc<Service>,
    clock: Arc<ProcessClock>,
    router: Router,
    /// The token of the stand-in's user.
    token: HeaderValue,
    contract: Contract,
    /// The accepted tokens.
    tokens: Mutex<BTreeSet<String>>,
    /// The maximum number of runs.
    runs: u64,
    /// Whether the first heartbeat of an unknown run creates it.
    adopts: bool,
    /// Whether answers to heartbeats may have a new token.
    renews: bool,
}

impl Local {
    pub(super) fn new(
        service: Arc<Service>,
        clock: Arc<ProcessClock>,
        token: HeaderValue,
        contract: Contract,
        options: &Options,
    ) -> Self {
        let api = Arc::new(Api::new(&options.base_path));
        api.serve(Arc::clone(&service));
        Self {
            service,
            clock,
            router: api.router(),
            token,
            contract,
            tokens: Mutex::new(options.tokens.clone()),
            runs: options.limits.runs.into(),
            adopts: options.runs.is_none(),
            renews: options.renew_tokens.is_some(),
        }
    }

    /// Accepts only these tokens from now on.
    pub(super) fn set_tokens(&self, tokens: BTreeSet<String>) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    fn accepts(&self, token: &str) -> bool {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.contains(token)
    }

    /// Creates the run of a heartbeat.
    async fn adopt(&self, run: &str) -> bool {
        let now = self.clock.now().wall;
        let created = create(self.service.store(), run, self.runs, now);
        run.len() <= LONGEST_ID && created.await.is_ok_and(|exists| exists)
    }

    /// The violations of the contract for which the stand-in refuses a request. The service itself
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
}

impl Behind for Local {
    async fn act(&self, asked: &Asked) -> Outcome {
        let broken = self.broken(asked).await;
        if !broken.is_empty() {
            return Ok(violates(&broken));
        }
        let ask = || self.ask(&asked.head, asked.raw.clone().into());
        let response = ask().await?;
        let Operation::Heartbeat(run) = &asked.operation else {
            return Ok(response);
        };
        let is_unknown = response.status() == StatusCode::NOT_FOUND;
        let response = match self.adopts && is_unknown && self.adopt(run).await {
            true => ask().await?,
            false => response,
        };
        Ok(match response.status() {
            // The service has a new token for every user, and not every client of the stand-in
            // wants one.
            StatusCode::OK if !self.renews => json_answer(200, &json!({})),
            _ => response,
        })
    }

    async fn ask(&self, head: &Parts, body: axum::body::Body) -> Outcome {
        let mut head = head.clone();
        if bearer(&head.headers).is_some_and(|token| self.accepts(token)) {
            let token = self.token.clone();
            head.headers.insert(header::AUTHORIZATION, token);
        }
        let mut router = self.router.clone();
        let answered = router.call(Request::from_parts(head, body)).await;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        Ok(response.map(|body| body.map_err(io::Error::other).boxed_unsync()))
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
