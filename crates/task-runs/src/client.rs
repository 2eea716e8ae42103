//! The client of the task-run service: one connection kept alive, one request at a time, nothing retried.
//!
//! Retries, their waits and their meaning belong to the caller; this client says exactly what happened to one request.

mod pages;
mod redaction;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::BoxStream;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use podbeat_files::{regular_file, trimmed};
use podbeat_http_client::route::Route;
use podbeat_http_client::tls::{Encryption, Means, Unfit};
use podbeat_http_client::{self, Answer, Seen};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::error::{Error, Operation, TimedOut};
use super::model::{
    CreateTaskRunRequest, ErrorResponse, Execution, HeartbeatTaskRunRequest, ListTaskRunsQuery, TaskRun,
    TaskRunHeartbeat, TaskRunStatus, TaskRunSummary, TaskRunSummaryPagedItems,
};
use super::trace::TraceParent;
use super::{Secret, http_date};

/// The most that is read of an answer's body.
#[derive(Clone, Copy)]
struct Largest {
    bytes: usize,
    exceeded: &'static str,
}

/// Errors, and answers that hold a token at most.
const SMALL: Largest = Largest {
    bytes: 64 * 1024,
    exceeded: "larger than 64 KiB",
};

/// One run, with its execution twice and its logs. A thousand environment variables of a kilobyte fit four times.
const RUN: Largest = Largest {
    bytes: 8 * 1024 * 1024,
    exceeded: "larger than 8 MiB",
};

/// A page of 1000 runs, 64 KiB each. Of a run that takes two descriptions of 4096 characters, its own and its task
/// version's: 48 KiB if every character is escaped as `\uXXXX`. The rest is short. A page of ordinary runs is 1.5 MiB.
const PAGE: Largest = Largest {
    bytes: 64 * 1024 * 1024,
    exceeded: "larger than 64 MiB; ask for smaller pages",
};

/// Kept alive for longer than three default intervals, below the idle time-outs of common load balancers (240 s).
const IDLE: Duration = Duration::from_secs(100);

/// All but the unreserved characters of RFC 3986 is encoded in run ids and in the query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How the service's certificate is checked, and ours shown.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Roots in PEM, in place of the system's, which cost each copy a quarter of a megabyte and are not read then.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain and key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Speaks to one service. Cheap to clone: the clones share the connection.
///
/// Every operation is one request with a time-out of its own, and is never tried again here. Errors say what was being done,
/// to which run, what the service said of it and what to try: see [`Error`].
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
/// let client = Client::new("https://use1.platform.illumina.com".parse()?, &Tls::default(), timeout)?;
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

/// What an accepted heartbeat brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// A fresh token.
    pub jwt: Option<Secret>,
    /// Why the body could not be read, though the heartbeat was accepted.
    pub unreadable: Option<&'static str>,
}

impl Client {
    /// Sets the client up; connects to nothing yet. A path in the route's URL stays, with or without a slash at its end.
    ///
    /// A route that is parsed from a URL goes by no proxy, and with plain HTTP to loopback addresses alone;
    /// [`podbeat_http_client::route::Proxies`] makes others.
    ///
    /// What the other side hasn't acknowledged within `timeout`, the system gives up, too: a request that is given up in a
    /// network that loses everything doesn't come out of it later than one more time-out (Linux; elsewhere that is up to the
    /// system). Take the longest time-out of the requests to come.
    ///
    /// # Errors
    /// A file of `tls` is unreadable or holds no certificate or key.
    pub fn new(route: Route, tls: &Tls, timeout: Duration) -> Result<Self, Error> {
        let roots = tls.ca_file.as_deref().map(certificates).transpose()?;
        let identity = tls.identity.as_ref().map(identity).transpose()?;
        let means = || Means::new(roots.clone(), identity).and_then(Means::config);
        let extra = roots.as_deref().unwrap_or_default();
        let tls = Encryption::new(&route, means, extra).map_err(|error: Unfit| Error::Setup(error.into()))?;
        Ok(Self {
            base: route.url().clone(),
            http: podbeat_http_client::Client::new(podbeat_http_client::Settings {
                route,
                tls,
                idle: IDLE,
                silent: None,
                // Linux sends on what a closed connection has not yet sent, for as long as this: the last heartbeat is repeated
                // behind what may arrive late, and must know how late that is.
                unacknowledged: Some(timeout),
            }),
            trace: None,
        })
    }

    /// The same client, over the same connection, whose requests carry this `traceparent`: for one request, or for some that
    /// belong together.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     client: podbeat_task_runs::client::Client,
    /// #     token: podbeat_task_runs::Secret,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
    /// let run = client.traced(parent).get("trn.1", &token, std::time::Duration::from_secs(10)).await?;
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
    /// [`Error::Unfit`] if the contract has something against the request; [`Error::Connect`] if nothing was sent;
    /// [`Error::Ambiguous`] if the run may have been created all the same: a second try may make a second run;
    /// [`Error::Status`] for any answer but 2xx; [`Error::Unreadable`] if the run is created, but the answer isn't one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the run may have been created.
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
            return Err(Error::Unfit { operation, problems });
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
        decoded(&operation, self.exchange(&operation, call, token, timeout).await?)
    }

    /// Gets a task run's status, if it has one. Nothing else of the answer is kept, however much
    /// there is of it.
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
    /// [`Error::Unfit`] for a run id that no path can carry, [`Error::Connect`] if nothing was sent, [`Error::Ambiguous`] if
    /// no whole answer came, [`Error::Status`] for any answer but 2xx, [`Error::Unreadable`] if it isn't a task run.
    pub async fn get(&self, run_id: &str, token: &Secret, timeout: Duration) -> Result<TaskRun, Error> {
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
        decoded(&operation, self.exchange(&operation, call, token, timeout).await?)
    }

    /// Gets one page of a list of task runs. [`Client::list_all`] goes on to the pages behind it.
    ///
    /// # Errors
    /// [`Error::Connect`] if nothing was sent, [`Error::Ambiguous`] if no whole answer came, [`Error::Status`] for any answer
    /// but 2xx, [`Error::Unreadable`] if it isn't a page.
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
            let all: Vec<String> = url.query().map(str::to_owned).into_iter().chain(ours).collect();
            url.set_query(Some(&all.join("&")));
        }
        let call = Call {
            method: Method::GET,
            url,
            body: None,
            secrets: Vec::new(),
            largest: PAGE,
        };
        decoded(&operation, self.exchange(&operation, call, token, timeout).await?)
    }

    /// Gets all task runs that the query asks for, from its page on, as a stream: page after page, each when it is reached.
    ///
    /// Without a page size in the query the largest pages are asked for. `timeout` is that of each page.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use futures_util::TryStreamExt;
    /// use podbeat_task_runs::Secret;
    /// use podbeat_task_runs::client::{Client, Tls};
    /// use podbeat_task_runs::model::{ListTaskRunsQuery, TaskRunStatus};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("https://use1.platform.illumina.com".parse()?, &Tls::default(), Duration::from_secs(10))?;
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
    /// Those of [`Client::list`]; [`Error::Endless`] if the service leads in a circle, or on and on. The runs before an error
    /// come first, and nothing comes behind it.
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
    /// [`Error::Unfit`] for a run id that no path can carry, [`Error::Connect`] if nothing was sent, [`Error::Ambiguous`] if it
    /// may have arrived, [`Error::Status`] for any answer but 2xx, [`Error::Unreadable`] if the run is aborted, but the answer
    /// isn't one.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the run may have been aborted.
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
        decoded(&operation, self.exchange(&operation, call, token, timeout).await?)
    }

    /// Sends one heartbeat, once.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a run id that no path can carry, [`Error::Connect`] if nothing was sent, [`Error::Ambiguous`] if it
    /// may have arrived, [`Error::Status`] for any answer but 2xx.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the heartbeat may have arrived.
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

    /// The one place where requests are made and answers sorted.
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
            // Whatever became of the body, the status is the answer.
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
            // The service did what was asked for, and said so, whatever became of the rest of its answer.
            (Err(Error::Ambiguous { .. }), Some(status)) if changes && is_success(status) => Ok(Reply {
                status,
                body: Err(BROKEN_OFF),
            }),
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
        // Digits and dashes, which every header can carry.
        if let Some(parent) = self.trace.and_then(|parent| parent.to_string().try_into().ok()) {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(body) = body {
            let body = body.map_err(|error| unfit(format!("it can't be written as JSON: {error}")))?;
            headers.insert(CONTENT_TYPE, JSON);
            *request.body_mut() = Full::from(body);
        }
        Ok(request)
    }

    /// `{base}/v1/tasks/runs/{runId}{verb}`: the run id encoded, the verb's colon as it is.
    fn run_url(&self, operation: &Operation, run_id: &str, verb: &str) -> Result<Url, Error> {
        // Without a name the path would be that of all runs; and these two lead elsewhere, encoded or not (RFC 3986, 5.2.4).
        if matches!(run_id, "" | "." | "..") {
            return Err(Error::Unfit {
                operation: operation.clone(),
                problems: vec![format!("{run_id:?} is no task run's id")],
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

/// One request, but for what is the same in all.
struct Call<'secrets> {
    method: Method,
    url: Url,
    body: Option<serde_json::Result<Vec<u8>>>,
    /// What else than the token must not be repeated, should the service do so; the longest first.
    secrets: Vec<&'secrets str>,
    largest: Largest,
}

/// A 2xx answer.
struct Reply {
    status: u16,
    body: Result<Vec<u8>, &'static str>,
}

/// Reads an object. serde takes an array for one, too, by the order of its members, and an empty one for an empty one.
fn object<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = trimmed::bytes(body);
    if body.starts_with(b"[") {
        return Err(serde::de::Error::custom("an array"));
    }
    serde_json::from_slice(body)
}

fn decoded<T: DeserializeOwned>(operation: &Operation, reply: Reply) -> Result<T, Error> {
    let unreadable = |problem: String| Error::Unreadable {
        operation: operation.clone(),
        status: reply.status,
        problem,
    };
    let body = reply.body.map_err(|problem| unreadable(problem.to_owned()))?;
    if trimmed::bytes(&body).is_empty() {
        return Err(unreadable("nothing at all".to_owned()));
    }
    // What serde_json says of it would repeat a part of it.
    object(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let at = match line {
            0 => String::new(),
            _ => format!(", at line {line} column {column}"),
        };
        unreadable(format!("not the JSON that the contract names{at}"))
    })
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let unfit = |_| {
        Error::Token(super::credentials::Error::Unfit {
            problem: "not fit for a header",
        })
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

fn accepted(body: Result<Vec<u8>, &'static str>) -> Accepted {
    let body = match body {
        Ok(body) => body,
        Err(unreadable) => {
            return Accepted {
                jwt: None,
                unreadable: Some(unreadable),
            };
        }
    };
    if trimmed::bytes(&body).is_empty() {
        return Accepted::default();
    }
    match object::<TaskRunHeartbeat>(&body) {
        Ok(answer) => Accepted {
            // A service that reads its tokens from files may send what is around them.
            jwt: answer.jwt.map(|jwt| Secret::new(trimmed::text(jwt.expose()))),
            unreadable: None,
        },
        Err(_) => Accepted {
            jwt: None,
            unreadable: Some("not the JSON that the contract names"),
        },
    }
}

/// Reads an answer's parts as if they had come from the service, for the fuzzer.
#[cfg(fuzzing)]
pub fn read_answer(retry_after_header: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after_header) {
        headers.insert(RETRY_AFTER, value);
    }
    let response = object::<ErrorResponse>(body).ok();
    let operation = Operation::Get {
        run_id: String::from_utf8_lossy(retry_after_header).into_owned(),
    };
    let error = Error::Status {
        operation: operation.clone(),
        status: 400,
        response: response.map(|response| Box::new(response.without(&["token"]))),
        retry_after: retry_after(&headers, Timestamp::UNIX_EPOCH),
    };
    let accepted = accepted(Ok(body.to_vec()));
    if let Some(token) = &accepted.jwt {
        let _ = super::credentials::expires_at(token);
        let _ = bearer(token);
    }
    let _ = (error.to_string(), format!("{accepted:?}"));
    fn read<T: DeserializeOwned + serde::Serialize + std::fmt::Debug>(
        operation: &Operation,
        body: &[u8],
    ) -> Option<T> {
        let reply = Reply {
            status: 200,
            body: Ok(body.to_vec()),
        };
        match decoded::<T>(operation, reply) {
            Ok(answer) => {
                let _ = (serde_json::to_vec(&answer), format!("{answer:?}"));
                Some(answer)
            }
            Err(error) => {
                let _ = error.to_string();
                None
            }
        }
    }
    if let Some(mut run) = read::<TaskRun>(&operation, body) {
        run.redact();
    }
    let _ = read::<TaskRunSummaryPagedItems>(&operation, body);
}

/// An answer whose end did not come.
const BROKEN_OFF: &str = "broken off";

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

async fn read_body(answer: &mut Answer, largest: Largest) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        // Trailers are no part of it.
        let chunk = match answer.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            None => return Ok(body),
            Some(Err(_)) => return Err(BROKEN_OFF),
        };
        if body.len() + chunk.len() > largest.bytes {
            return Err(largest.exceeded);
        }
        body.extend_from_slice(&chunk);
    }
}

/// Before the connection stood, nothing can have arrived; after that, anything may have.
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

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    http_date::retry_after(text(RETRY_AFTER)?, text(DATE), now)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let pem = regular_file::read(path, regular_file::PEM).map_err(|source| Error::File {
        what,
        path: path.to_owned(),
        source,
    })?;
    Ok(trimmed::pem(&pem))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read("CA certificates", path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| Error::Setup(error.into()))?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// Certificate chain and key, whichever of the files has them.
fn identity(
    (certificate, key): &(PathBuf, PathBuf),
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let mut pem = read("the client certificate", certificate)?;
    pem.push(b'\n');
    pem.extend(read("the client key", key)?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| Error::Setup(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| Error::Setup(error.into()))?;
    Ok((chain, key))
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
        assert_eq!(url("https://h", "..."), "https://h/v1/tasks/runs/...:heartbeat");
    }
}
