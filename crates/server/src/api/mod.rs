//! The API over HTTP: from a request to an operation, and from its result to a response.

pub mod head;
pub(crate) mod query;
mod request;
mod response;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use podbeat_task_runs::model::TaskRunSummaryPagedItems;
use podbeat_task_runs::trace::TraceParent;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use self::head::Operation;
use self::response::Failure;
use crate::service::{Caller, Problem, Service};
use crate::store::Place;

/// The maximum size of a body, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// The limit for the answer to a request whose body has arrived.
const ANSWER: Duration = Duration::from_secs(30);

/// An answered request.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'request> {
    /// The operation, one of [`head::NAMES`].
    pub operation: &'static str,
    /// The ID of the run that the request is about, if it is about one.
    pub run: Option<&'request str>,
    /// The method.
    pub method: &'request str,
    /// The status of the answer.
    pub status: u16,
    /// The time from the end of the head to the answer.
    pub took: Duration,
    /// The trace of the request.
    pub parent: Option<TraceParent>,
}

/// Learns about the answers of the API.
pub trait Observer: Send + Sync + 'static {
    /// A request was answered.
    fn answered(&self, answered: &Answered<'_>);
}

/// The API. It answers 503 until the service is set.
#[derive(Default)]
pub struct Api {
    service: OnceLock<Arc<Service>>,
    observer: Option<Arc<dyn Observer>>,
    /// The path before `/v1`, such as `/ica`. Empty or with a slash at its beginning only.
    base_path: String,
    /// Whether the streams of the web page must end.
    ending: watch::Sender<bool>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// An API without a service, below a path.
    #[must_use]
    pub fn new(base_path: &str) -> Self {
        Self {
            service: OnceLock::new(),
            observer: None,
            base_path: base_path.trim_end_matches('/').to_owned(),
            ending: watch::Sender::new(false),
        }
    }

    /// The same API, whose answers are observed.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn Observer>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// The service, if it is ready.
    #[must_use]
    pub fn service(&self) -> Option<&Arc<Service>> {
        self.service.get()
    }

    /// Sets the service, once it is ready.
    pub fn serve(&self, service: Arc<Service>) {
        // A second service would be a mistake of the caller, and the first stays.
        let _ = self.service.set(service);
    }

    /// Ends the streams of the web page, which otherwise end only with their connections. For a
    /// shutdown that waits for requests in progress.
    pub fn end_streams(&self) {
        self.ending.send_replace(true);
    }

    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The routes. One handler has all operations, because axum can't split `{runId}:verb`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(handle).with_state(self)
    }

    /// The path before `/v1`: empty, or with a slash at its beginning only.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    async fn answer(
        &self,
        operation: &Operation,
        head: &Parts,
        parent: Option<TraceParent>,
        body: Body,
    ) -> Result<Response<Body>, Failure> {
        request::accepts_json(&head.headers)?;
        let starting = Problem::unavailable("the service is starting");
        let service = self.service.get().ok_or(starting)?;
        let token = self::head::bearer(&head.headers).ok_or(Problem::Unauthorized)?;
        let caller = service.caller(token).await?;
        let body = tokio::time::timeout(BODY, to_bytes(body, LARGEST_BODY)).await;
        let body = body.map_err(|_| Failure::slow())?;
        let body = body.map_err(|error| Failure::of_body(&error))?;
        let answer = operate(service, &caller, operation, head, parent, &body);
        let answer = tokio::time::timeout(ANSWER, answer);
        let timeout = Problem::unavailable("the request took too long");
        answer.await.unwrap_or(Err(timeout.into()))
    }
}

async fn handle(State(api): State<Arc<Api>>, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let parent = parent(&head.headers);
    let operation = request::operation(&api.base_path, &head.method, head.uri.path());
    let answer = match &operation {
        Ok(operation) => api.answer(operation, &head, parent, body).await,
        Err(failure) => Err(failure.clone()),
    };
    let response = answer.unwrap_or_else(Failure::response);
    let operation = operation.ok();
    let name = operation.as_ref().map_or(head::NONE, Operation::name);
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    if let Some(observer) = &api.observer {
        observer.answered(&Answered {
            operation: name,
            run: operation.as_ref().and_then(Operation::run),
            method: head.method.as_str(),
            status,
            took,
            parent,
        });
    }
    debug!(
        method = %head.method,
        operation = name,
        status,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

async fn operate(
    service: &Service,
    caller: &Caller,
    operation: &Operation,
    head: &Parts,
    parent: Option<TraceParent>,
    body: &[u8],
) -> Result<Response<Body>, Failure> {
    match operation {
        Operation::Create => {
            let run = request::create(&head.headers, body)?;
            let key = request::header(&head.headers, "idempotency-key")?;
            let run = service.create(caller, run, key).await?;
            answered(StatusCode::CREATED, &run)
        }
        Operation::Get(id) => answered(StatusCode::OK, &service.get(caller, id).await?),
        Operation::Heartbeat(id) => {
            let beat = request::heartbeat(&head.headers, body)?;
            let trace = parent.map(|parent| parent.trace_id.to_string());
            let answer = service.heartbeat(caller, id, beat, trace.clone()).await;
            service.keep(id, body, trace, &answer);
            answered(StatusCode::OK, &answer?)
        }
        Operation::Abort(id) => answered(StatusCode::OK, &service.abort(caller, id).await?),
        Operation::List => {
            let listed = query::parse(head.uri.query().unwrap_or_default())?;
            let make = |viewer| listed.query(viewer);
            let (query, page) = service.list(caller, make).await?;
            let token = |place| listed.token(place);
            let first = page.runs.first().map(|run| query.cursor(run));
            let last = page.runs.last().map(|run| query.cursor(run));
            let items = service.summaries(&page);
            let has_runs = page.total > 0;
            let size = u64::from(listed.size().get());
            let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            answered(
                StatusCode::OK,
                &TaskRunSummaryPagedItems {
                    item_count: i32::try_from(items.len()).ok(),
                    items: Some(items),
                    first_page_token: has_runs.then(|| token(Place::First)),
                    last_page_token: has_runs.then(|| token(Place::Last)),
                    next_page_token: page.has_next.then(|| token(query::after(last))),
                    prev_page_token: page.has_previous.then(|| token(query::before(first))),
                    total_item_count: Some(count(page.total)),
                    total_page_count: Some(count(page.total.div_ceil(size))),
                },
            )
        }
    }
}

fn answered(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>, Failure> {
    response::json(status, body).ok_or_else(Failure::internal)
}

/// The trace of the request.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
