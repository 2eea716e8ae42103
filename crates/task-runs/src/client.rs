//! The client of the task-run service. It keeps one connection, sends one request at a time, and
//! does not retry.
//!
//! The caller decides about retries. This client reports exactly what happened to one request.

mod certificates;
#[cfg(fuzzing)]
mod fuzzing;
mod pages;
mod redaction;
mod reply;

use std::time::Duration;

use futures_util::stream::BoxStream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use podbeat_http_client::route::Route;
use podbeat_http_client::tls::{Encryption, Means, Unfit};
use podbeat_http_client::{self, Seen};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::Secret;
use super::error::{Error, Operation, TimedOut};
use super::model::{
    CreateTaskRunRequest, ErrorResponse, Execution, HeartbeatTaskRunRequest, ListTaskRunsQuery,
    TaskRun, TaskRunStatus, TaskRunSummary, TaskRunSummaryPagedItems,
};
use super::trace::TraceParent;
pub use certificates::{Identity, Tls};
#[cfg(fuzzing)]
pub use fuzzing::read_answer;
pub use reply::Accepted;
use reply::{
    BROKEN_OFF, Largest, PAGE, RUN, Reply, SMALL, accepted, decoded, is_success, object, read_body,
    retry_after,
};

/// How long an idle connection is kept: longer than three default intervals, shorter than the idle
/// timeout of common load balancers (240 s).
const IDLE: Duration = Duration::from_secs(100);

/// Run IDs and queries are encoded except for the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A client for one service. It is cheap to clone, and clones share the connection.
///
/// Each operation sends one request with its own timeout and does not retry it. An error contains
/// the operation, the run, the service's explanation and advice: see [`Error`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use podbeat_task_runs::Secret;
/// use podbeat_task_runs::client::{Client, Tls};
/// use podbeat_task_runs::error::Error;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let timeout = Duration::from_secs(10);
/// let url = "https://use1.platform.illumina.com".parse()?;
/// let client = Client::new(url, &Tls::default(), timeout)?;
/// let token = Secret::new("token");
/// match client.get("trn.1", &token, timeout).await {
///     Ok(run) => println!("{:?}", run.status),
///     Err(Error::Status { status: 404, .. }) => println!("there is no such run"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    http: podbeat_http_client::Client,
    base: Url,
    trace: Option<TraceParent>,
}

impl Client {
    /// Creates a client without opening a connection. A path in the route's URL is kept, with or
    /// without a final slash.
    ///
    /// A route that is parsed from a URL uses no proxy, and sends plain HTTP only to loopback
    /// addresses. For other routes, see [`podbeat_http_client::route::Proxies`].
    ///
    /// `timeout` is also a limit for the operating system: it gives up data that the peer has not
    /// acknowledged within this time (on Linux; other systems have their own limits). So even in a
    /// network that loses all packets, an abandoned request can't arrive later than one more
    /// `timeout`. Pass the longest timeout of all later requests.
    ///
    /// # Errors
    /// A file of `tls` can't be read, or contains no certificate or key.
    pub fn new(route: Route, tls: &Tls, timeout: Duration) -> Result<Self, Error> {
        let roots = tls.roots()?;
        let identity = tls.own()?;
        let means = || Means::new(roots.clone(), identity).and_then(Means::config);
        let extra = roots.as_deref().unwrap_or_default();
        let tls = Encryption::new(&route, means, extra)
            .map_err(|error: Unfit| Error::Setup(error.into()))?;
        Ok(Self {
            base: route.url().clone(),
            http: podbeat_http_client::Client::new(podbeat_http_client::Settings {
                route,
                tls,
                idle: IDLE,
                silent: None,
                // Linux continues to send the remaining data of a closed connection for up to this
                // time. The last heartbeat is repeated after requests that may arrive late, so that
                // delay must be known.
                unacknowledged: Some(timeout),
            }),
            trace: None,
        })
    }

    /// Returns this client, on the same connection, with a `traceparent` for its requests: for one
    /// request, or for several that belong together.
    /// ```no_run
    /// # async fn example(
    /// #     client: podbeat_task_runs::client::Client,
    /// #     token: podbeat_task_runs::Secret,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
    /// let timeout = std::time::Duration::from_secs(10);
    /// let run = client.traced(parent).get("trn.1", &token, timeout).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn traced(&self, parent: TraceParent) -> Self {
        Self {
            trace: Some(parent),
            ..self.clone()
        }
    }

    /// Creates a task run and launches it.
    ///
    /// # Errors
    /// - [`Error::Unfit`]: the request breaks the contract. Nothing was sent.
    /// - [`Error::Connect`]: nothing was sent.
    /// - [`Error::Ambiguous`]: the run may have been created, so a retry may create a second one.
    /// - [`Error::Status`]: the status is not 2xx.
    /// - [`Error::Unreadable`]: the run was created, but the response is not a task run.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection is closed. The run may have been created.
    pub async fn create(
        &self,
        request: &CreateTaskRunRequest,
        token: &Secret,
        timeout: Duration,
    ) -> Result<TaskRun, Error> {
        let operation = Operation::Create {
            name: request.name.clone(),
        };
        let problems = request.problems();
        if !problems.is_empty() {
            return Err(Error::Unfit {
                operation,
                problems,
            });
        }
        let execution = request.execution.as_ref();
        let secrets = execution.map(Execution::secrets).unwrap_or_default();
        let call = Call {
            method: Method::POST,
            url: self.url(""),
            body: Some(serde_json::to_vec(request)),
            secrets,
            largest: RUN,
        };
        decoded(
            &operation,
            self.exchange(&operation, call, token, timeout).await?,
        )
    }

    /// Gets the status of a task run, if it has one. Discards the rest of the response.
    ///
    /// # Errors
    /// Those of [`Client::get`].
    pub async fn status(
        &self,
        run_id: &str,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Option<TaskRunStatus>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Stands {
            status: Option<TaskRunStatus>,
        }
        let stands: Stands = self.get_as(run_id, token, timeout).await?;
        Ok(stands.status)
    }

    /// Gets a task run.
    ///
    /// # Errors
    /// - [`Error::Unfit`]: the run ID can't be part of a path.
    /// - [`Error::Connect`]: nothing was sent.
    /// - [`Error::Ambiguous`]: no complete response arrived.
    /// - [`Error::Status`]: the status is not 2xx.
    /// - [`Error::Unreadable`]: the response is not a task run.
    pub async fn get(
        &self,
        run_id: &str,
        token: &Secret,
        timeout: Duration,
    ) -> Result<TaskRun, Error> {
        self.get_as(run_id, token, timeout).await
    }

    async fn get_as<T: DeserializeOwned>(
        &self,
        run_id: &str,
        token: &Secret,
        timeout: Duration,
    ) -> Result<T, Error> {
        let operation = Operation::Get {
            run_id: run_id.to_owned(),
        };
        let call = Call {
            method: Method::GET,
            url: self.run_url(&operation, run_id, "")?,
            body: None,
            secrets: Vec::new(),
            largest: RUN,
        };
        decoded(
            &operation,
            self.exchange(&operation, call, token, timeout).await?,
        )
    }

    /// Gets one page of a list of task runs. [`Client::list_all`] also gets the pages after it.
    ///
    /// # Errors
    /// - [`Error::Connect`]: nothing was sent.
    /// - [`Error::Ambiguous`]: no complete response arrived.
    /// - [`Error::Status`]: the status is not 2xx.
    /// - [`Error::Unreadable`]: the response is not a page.
    pub async fn list(
        &self,
        query: &ListTaskRunsQuery,
        token: &Secret,
        timeout: Duration,
    ) -> Result<TaskRunSummaryPagedItems, Error> {
        let operation = Operation::List;
        let mut url = self.url("");
        let pairs = query.pairs();
        if !pairs.is_empty() {
            let encoded = |text| utf8_percent_encode(text, ENCODED);
            let ours = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", encoded(value)));
            let all: Vec<String> = url
                .query()
                .map(str::to_owned)
                .into_iter()
                .chain(ours)
                .collect();
            url.set_query(Some(&all.join("&")));
        }
        let call = Call {
            method: Method::GET,
            url,
            body: None,
            secrets: Vec::new(),
            largest: PAGE,
        };
        decoded(
            &operation,
            self.exchange(&operation, call, token, timeout).await?,
        )
    }

    /// Returns a stream of all task runs that match the query, beginning with the query's page.
    /// Each page is requested when the stream reaches it.
    ///
    /// If the query has no page size, the pages have the largest size. `timeout` applies to each
    /// page.
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use futures_util::TryStreamExt;
    /// use podbeat_task_runs::Secret;
    /// use podbeat_task_runs::client::{Client, Tls};
    /// use podbeat_task_runs::model::{ListTaskRunsQuery, TaskRunStatus};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let url = "https://use1.platform.illumina.com".parse()?;
    /// let client = Client::new(url, &Tls::default(), Duration::from_secs(10))?;
    /// let query = ListTaskRunsQuery {
    ///     status: Some(TaskRunStatus::Running),
    ///     ..ListTaskRunsQuery::default()
    /// };
    /// let mut runs = client.list_all(query, &Secret::new("token"), Duration::from_secs(30));
    /// while let Some(run) = runs.try_next().await? {
    ///     println!("{:?} {:?}", run.id, run.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Client::list`]. [`Error::Endless`] if the page tokens repeat or do not end. The
    /// stream returns the runs before the error, then the error, and then ends.
    #[must_use]
    pub fn list_all(
        &self,
        query: ListTaskRunsQuery,
        token: &Secret,
        timeout: Duration,
    ) -> BoxStream<'static, Result<TaskRunSummary, Error>> {
        pages::all(self.clone(), query, token.clone(), timeout)
    }

    /// Aborts a task run, which must be Pending or Running.
    ///
    /// # Errors
    /// - [`Error::Unfit`]: the run ID can't be part of a path.
    /// - [`Error::Connect`]: nothing was sent.
    /// - [`Error::Ambiguous`]: the request may have arrived.
    /// - [`Error::Status`]: the status is not 2xx.
    /// - [`Error::Unreadable`]: the run was aborted, but the response is not a task run.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection is closed. The run may have been aborted.
    pub async fn abort(
        &self,
        run_id: &str,
        token: &Secret,
        timeout: Duration,
    ) -> Result<TaskRunSummary, Error> {
        let operation = Operation::Abort {
            run_id: run_id.to_owned(),
        };
        let call = Call {
            method: Method::PUT,
            url: self.run_url(&operation, run_id, ":abort")?,
            body: None,
            secrets: Vec::new(),
            largest: RUN,
        };
        decoded(
            &operation,
            self.exchange(&operation, call, token, timeout).await?,
        )
    }

    /// Sends one heartbeat, once.
    ///
    /// # Errors
    /// - [`Error::Unfit`]: the run ID can't be part of a path.
    /// - [`Error::Connect`]: nothing was sent.
    /// - [`Error::Ambiguous`]: the heartbeat may have arrived.
    /// - [`Error::Status`]: the status is not 2xx.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection is closed. The heartbeat may have arrived.
    pub async fn heartbeat(
        &self,
        run_id: &str,
        request: &HeartbeatTaskRunRequest,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Accepted, Error> {
        let operation = Operation::Heartbeat {
            run_id: run_id.to_owned(),
        };
        let call = Call {
            method: Method::POST,
            url: self.run_url(&operation, run_id, ":heartbeat")?,
            body: Some(serde_json::to_vec(request)),
            secrets: request.nonce.as_deref().into_iter().collect(),
            largest: SMALL,
        };
        let reply = self.exchange(&operation, call, token, timeout).await?;
        Ok(accepted(reply.body))
    }

    /// Sends a request and classifies its response. All operations use this function.
    async fn exchange(
        &self,
        operation: &Operation,
        call: Call<'_>,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let request = self.request(operation, call.method, &call.url, call.body, token)?;
        let seen = Seen::default();
        let exchange = async {
            let sent = self.http.send(request, &seen).await;
            let mut response = sent.map_err(|error| sorted(operation, error))?;
            let status = response.status().as_u16();
            let success = is_success(status);
            let retry_after = retry_after(response.headers(), Timestamp::now());
            let largest = if success { call.largest } else { SMALL };
            let body = read_body(response.body_mut(), largest).await;
            if success {
                return Ok(Reply { status, body });
            }
            let mut secrets = call.secrets;
            secrets.push(token.expose());
            // The status decides, even if the body can't be read.
            let response = body
                .ok()
                .and_then(|body| object::<ErrorResponse>(&body).ok())
                .map(|response| Box::new(response.without(&secrets)));
            Err(Error::Status {
                operation: operation.clone(),
                status,
                response,
                retry_after,
            })
        };
        let outcome = match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ambiguous(operation, Box::new(TimedOut(timeout)))),
        };
        let changes = !matches!(operation, Operation::Get { .. } | Operation::List);
        match (outcome, seen.status()) {
            // The service reported success, even if the rest of its response is missing.
            (Err(Error::Ambiguous { .. }), Some(status)) if changes && is_success(status) => {
                Ok(Reply {
                    status,
                    body: Err(BROKEN_OFF),
                })
            }
            (outcome, _) => outcome,
        }
    }

    fn request(
        &self,
        operation: &Operation,
        method: Method,
        url: &Url,
        body: Option<serde_json::Result<Vec<u8>>>,
        token: &Secret,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let unfit = |problem: String| Error::Unfit {
            operation: operation.clone(),
            problems: vec![problem],
        };
        *request.uri_mut() = path
            .parse()
            .map_err(|error| unfit(format!("its URL can't be sent: {error}")))?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer(token)?);
        headers.insert(ACCEPT, JSON);
        // The value contains only hexadecimal digits and dashes, so it is always a valid header
        // value.
        if let Some(parent) = self
            .trace
            .and_then(|parent| parent.to_string().try_into().ok())
        {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(body) = body {
            let body =
                body.map_err(|error| unfit(format!("it can't be written as JSON: {error}")))?;
            headers.insert(CONTENT_TYPE, JSON);
            *request.body_mut() = Full::from(body);
        }
        Ok(request)
    }

    /// `{base}/v1/tasks/runs/{runId}{verb}`. The run ID is encoded, the colon of the verb is not.
    fn run_url(&self, operation: &Operation, run_id: &str, verb: &str) -> Result<Url, Error> {
        // An empty ID would give the path of all runs. `.` and `..` give another path, encoded or
        // not (RFC 3986, 5.2.4).
        if matches!(run_id, "" | "." | "..") {
            return Err(Error::Unfit {
                operation: operation.clone(),
                problems: vec![format!("{run_id:?} is not a run ID")],
            });
        }
        Ok(self.url(&format!("/{}{verb}", utf8_percent_encode(run_id, ENCODED))))
    }

    /// `{base}/v1/tasks/runs{below}`.
    fn url(&self, below: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/v1/tasks/runs{below}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The parts in which requests differ.
struct Call<'secrets> {
    method: Method,
    url: Url,
    body: Option<serde_json::Result<Vec<u8>>>,
    /// Secrets of the request in addition to the token, in case the service repeats them.
    secrets: Vec<&'secrets str>,
    largest: Largest,
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let unfit = |_| {
        Error::Token(super::credentials::Error::Unfit {
            problem: "not valid in a header",
        })
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Before the connection is open, nothing can have arrived. After that, everything may have
/// arrived.
fn sorted(operation: &Operation, error: podbeat_http_client::Error) -> Error {
    match error {
        podbeat_http_client::Error::Connect(source) => Error::Connect {
            operation: operation.clone(),
            source: source.into(),
        },
        broken @ podbeat_http_client::Error::Broken(_) => ambiguous(operation, broken.into()),
    }
}

fn ambiguous(operation: &Operation, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let operation = operation.clone();
    Error::Ambiguous { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, run_id: &str) -> String {
        let client = Client::new(
            base.parse().expect("a URL"),
            &Tls::default(),
            Duration::from_secs(1),
        )
        .expect("a client");
        client
            .run_url(&Operation::List, run_id, ":heartbeat")
            .expect("a run id")
            .to_string()
    }

    #[test]
    fn base_urls_with_and_without_path_or_slash() {
        let expected = "https://ica.example/v1/tasks/runs/trn.1:heartbeat";
        assert_eq!(url("https://ica.example", "trn.1"), expected);
        assert_eq!(url("https://ica.example/", "trn.1"), expected);
        let under = "https://ica.example/a/b/v1/tasks/runs/trn.1:heartbeat";
        assert_eq!(url("https://ica.example/a/b", "trn.1"), under);
        assert_eq!(url("https://ica.example/a/b/", "trn.1"), under);
        assert_eq!(
            url("https://ica.example:8443//", "r"),
            "https://ica.example:8443/v1/tasks/runs/r:heartbeat"
        );
    }

    #[test]
    fn the_run_id_is_encoded_and_the_colon_is_not() {
        let encoded = "https://h/v1/tasks/runs/a%2Fb%3Fc%23d%25%3A%20%C3%BC:heartbeat";
        assert_eq!(url("https://h", "a/b?c#d%: ü"), encoded);
        assert_eq!(
            url("https://h", "..."),
            "https://h/v1/tasks/runs/...:heartbeat"
        );
    }
}
