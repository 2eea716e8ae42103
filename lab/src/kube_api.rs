//! A stand-in for the Kubernetes API. It answers get, list and watch of pods, and questions about
//! the API server itself, as kube-apiserver does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fault::{Faults, Place, RetryAfter, What};
use crate::pki::Authority;
use crate::serve::{
    self, Body, Bound, CutOff, Handler, Outcome, Server, json as json_answer, whole,
};
use crate::{Error, io};

/// The stand-in's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bearer token that it accepts.
    pub token: String,
    /// The time between bookmarks in a watch that asks for them. kube-apiserver: a minute.
    pub bookmarks: Duration,
    /// The number of events from which a watch can resume. Older versions are answered with 410.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: "kube-token".to_owned(),
            bookmarks: Duration::from_secs(60),
            history: 100,
        }
    }
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it arrived, since the start.
    pub at: Duration,
    /// `get`, `list` or `watch`.
    pub verb: &'static str,
    /// The query, unchanged.
    pub query: String,
    /// The HTTP status of the answer; `None` if there was no answer.
    pub status: Option<u16>,
}

/// The stand-in. It ends when dropped.
#[derive(Debug)]
pub struct KubeApi {
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Debug)]
struct Shared {
    faults: Faults,
    started: Instant,
    state: Mutex<State>,
    /// Counts the changes, for waiting callers.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    options: Options,
    denied: bool,
    /// Verbs that no Role allows.
    denied_verbs: BTreeSet<String>,
    clock_ahead: i64,
    version: u64,
    pods: BTreeMap<(String, String), Value>,
    history: VecDeque<Arc<Event>>,
    /// The history by pod, for watches of one pod. Thousands of them must not each search the whole
    /// history.
    of_pods: HashMap<(String, String), VecDeque<Arc<Event>>>,
    /// `trimmed` by pod.
    trimmed_of: HashMap<(String, String), u64>,
    /// Wakes the watches of one pod.
    wakes: HashMap<(String, String), watch::Sender<u64>>,
    /// The oldest version from which a watch can start.
    forgotten: u64,
    /// The newest event that was removed from the history. An open watch that hasn't sent it yet
    /// has a gap.
    trimmed: u64,
    seen: Vec<Seen>,
    open_watches: usize,
}

#[derive(Clone, Debug)]
struct Event {
    version: u64,
    kind: &'static str,
    object: Value,
}

impl KubeApi {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// There is no free port, or no certificate.
    pub async fn start(
        authority: &Authority,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            faults,
            started: Instant::now(),
            state: Mutex::new(State {
                options,
                denied: false,
                denied_verbs: BTreeSet::new(),
                clock_ahead: 0,
                version: 100,
                pods: BTreeMap::new(),
                history: VecDeque::new(),
                of_pods: HashMap::new(),
                trimmed_of: HashMap::new(),
                wakes: HashMap::new(),
                forgotten: 100,
                trimmed: 0,
                seen: Vec::new(),
                open_watches: 0,
            }),
            changes: watch::Sender::new(0),
        });
        let tls = authority
            .issue(&["127.0.0.1", "localhost", "0.0.0.0"])?
            .server_config(None)?;
        let bound = Bound::to((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let server = bound.serve(Some(tls), Arc::clone(&shared));
        Ok(Self { shared, server })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// Creates or changes a pod. The stand-in sets the resourceVersion; and the namespace, UID and
    /// creation time if they are missing.
    pub fn apply(&self, pod: Value) {
        let mut state = self.shared.state();
        let key = key(&pod);
        let kind = if state.pods.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.record(kind, pod);
        drop(state);
        self.shared.changed();
    }

    /// Changes an existing pod. Does nothing if it doesn't exist.
    pub fn change(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let found = self
            .shared
            .state()
            .pods
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned();
        if let Some(mut pod) = found {
            change(&mut pod);
            self.apply(pod);
        }
    }

    /// Removes a pod. Does nothing if it doesn't exist.
    pub fn delete(&self, namespace: &str, name: &str) {
        let mut state = self.shared.state();
        if let Some(pod) = state
            .pods
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
        {
            state.record("DELETED", pod);
        }
        drop(state);
        self.shared.changed();
    }

    /// Plays one line of a captured watch stream: its object, as an event of its type.
    pub fn replay(&self, event: &Value) {
        let object = event.get("object").cloned().unwrap_or_default();
        let kind = match event.get("type").and_then(Value::as_str) {
            Some("ADDED") => "ADDED",
            Some("MODIFIED") => "MODIFIED",
            Some("DELETED") => "DELETED",
            Some(_) | None => return,
        };
        self.shared.state().record(kind, object);
        self.shared.changed();
    }

    /// Discards the history: the stand-in answers every watch from an older resourceVersion with
    /// 410.
    pub fn compact(&self) {
        let mut state = self.shared.state();
        // As if something else changed in the cluster, so that no client knows the newest version.
        state.version += 10;
        if let Some(newest) = state.history.back().map(|event| event.version) {
            state.trimmed = newest;
        }
        state.history.clear();
        for (pod, events) in std::mem::take(&mut state.of_pods) {
            if let Some(newest) = events.back() {
                state.trimmed_of.insert(pod, newest.version);
            }
        }
        state.forgotten = state.version;
    }

    /// Refuses everything with 403, as without the Role, or allows it again.
    pub fn deny(&self, denied: bool) {
        self.shared.state().denied = denied;
    }

    /// Refuses only these verbs, as if the Role lacked them.
    pub fn deny_verbs(&self, verbs: &[&str]) {
        self.shared.state().denied_verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    }

    /// Sets the `Date` of the answers this many seconds ahead, or behind if negative.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.state().clock_ahead = seconds;
    }

    /// Accepts only this token from now on.
    pub fn set_token(&self, token: &str) {
        self.shared.state().options.token = token.to_owned();
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many watches are open.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        self.shared.state().open_watches
    }

    /// Waits until the stand-in has a state.
    ///
    /// # Errors
    /// The state is not reached within `limit`.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&Self) -> bool,
    ) -> Result<(), Error> {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while !reached(self) {
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_| Error::InVain {
                what: what.to_owned(),
                waited: limit,
                seen: format!(
                    "{} open watches, requests {:?}",
                    self.open_watches(),
                    self.seen()
                ),
            })
    }

    /// Writes a kubeconfig with a token.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_kubeconfig(
        &self,
        authority: &Authority,
        token: &str,
        path: &Path,
    ) -> Result<(), Error> {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": self.url(), "certificate-authority-data": BASE64_STANDARD.encode(authority.pem())}}],
            "users": [{"name": "lab", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "lab"}}],
        });
        std::fs::write(path, kubeconfig.to_string())
            .map_err(io(format!("writing {}", path.display())))
    }

    /// Writes the files of a pod's service account directory.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write_service_account(
        authority: &Authority,
        token: &str,
        dir: &Path,
    ) -> Result<(), Error> {
        std::fs::create_dir_all(dir).map_err(io(format!("creating {}", dir.display())))?;
        authority.write_to(&dir.join("ca.crt"))?;
        let path = dir.join("token");
        std::fs::write(&path, token).map_err(io(format!("writing {}", path.display())))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn saw(&self, verb: &'static str, query: &str, status: Option<u16>) {
        let at = self.started.elapsed();
        self.state().seen.push(Seen {
            at,
            verb,
            query: query.to_owned(),
            status,
        });
        self.changed();
    }
}

impl State {
    /// The pods among which a request selects.
    fn candidates(&self, asked: &Asked) -> impl Iterator<Item = &Value> {
        let one = asked.one();
        let all = one.is_none().then(|| self.pods.values());
        let one = one.and_then(|pod| self.pods.get(&pod));
        one.into_iter().chain(all.into_iter().flatten())
    }

    fn record(&mut self, kind: &'static str, mut object: Value) {
        self.version += 1;
        let version = self.version;
        let key = key(&object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(version.to_string()));
            metadata.entry("namespace").or_insert(json!(key.0));
            metadata
                .entry("uid")
                .or_insert_with(|| json!(format!("uid-{version}")));
            metadata
                .entry("creationTimestamp")
                .or_insert(json!("2026-01-01T00:00:00Z"));
        }
        if kind == "DELETED" {
            self.pods.remove(&key);
        } else {
            self.pods.insert(key.clone(), object.clone());
        }
        let event = Arc::new(Event {
            version,
            kind,
            object,
        });
        if let Some(wake) = self.wakes.get(&key) {
            wake.send_modify(|count| *count += 1);
        }
        self.of_pods
            .entry(key)
            .or_default()
            .push_back(Arc::clone(&event));
        self.history.push_back(event);
        if self.history.len() > self.options.history
            && let Some(old) = self.history.pop_front()
        {
            self.forgotten = old.version;
            self.trimmed = old.version;
            // It is the oldest event of its pod.
            let pod = self::key(&old.object);
            if let Some(of_pod) = self.of_pods.get_mut(&pod) {
                of_pod.pop_front();
            }
            self.trimmed_of.insert(pod, old.version);
        }
    }
}

fn key(pod: &Value) -> (String, String) {
    let member = |name: &str| {
        pod.pointer(&format!("/metadata/{name}"))
            .and_then(Value::as_str)
    };
    (
        member("namespace").unwrap_or("lab").to_owned(),
        member("name").unwrap_or_default().to_owned(),
    )
}

/// A parsed request.
struct Asked {
    /// `None` for all namespaces.
    namespace: Option<String>,
    name: Option<String>,
    query: BTreeMap<String, String>,
    raw_query: String,
}

impl Asked {
    fn read(request: &Request<Incoming>) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let path = request.uri().path();
        let (namespace, name) = if path == "/api/v1/pods" {
            (None, None)
        } else {
            let mut parts = path.strip_prefix("/api/v1/namespaces/")?.splitn(3, '/');
            let namespace = decode(parts.next()?);
            if parts.next() != Some("pods") {
                return None;
            }
            (Some(namespace), parts.next().map(decode))
        };
        let raw_query = request.uri().query().unwrap_or_default().to_owned();
        // A parameter without a value has an empty value, as in Go's queries.
        let pairs = raw_query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs
            .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
            .collect();
        Some(Self {
            namespace,
            name,
            query,
            raw_query,
        })
    }

    fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Parses a boolean as apimachinery does (pkg/runtime/conversion.go,
    /// `Convert_Slice_string_To_bool`): only an absent value, `0`, and `false` in any case are
    /// false. `True` and an empty value are true.
    fn is_true(&self, name: &str) -> bool {
        let value = self.query.get(name);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// The pod, if the request names exactly one: as a resource, or by a field selector.
    fn one(&self) -> Option<(String, String)> {
        let selected = || {
            let fields = self.get("fieldSelector");
            let name = fields
                .strip_prefix("metadata.name=")?
                .trim_start_matches('=');
            (!name.contains(',')).then(|| name.to_owned())
        };
        Some((
            self.namespace.clone()?,
            self.name.clone().or_else(selected)?,
        ))
    }

    fn verb(&self) -> (&'static str, Place) {
        match (&self.name, self.is_true("watch")) {
            (Some(_), _) => ("get", Place::Get),
            (None, true) => ("watch", Place::Watch),
            (None, false) => ("list", Place::List),
        }
    }

    /// A filter for the namespace, the field selector and the label selector (only by equality).
    fn selector(&self) -> Result<impl Fn(&Value) -> bool + Send + use<>, String> {
        let mut wanted: Vec<(&str, String)> = Vec::new();
        wanted.extend(
            self.namespace
                .clone()
                .map(|name| ("/metadata/namespace", name)),
        );
        let labels = self.labels()?;
        for term in self
            .get("fieldSelector")
            .split(',')
            .filter(|term| !term.is_empty())
        {
            let (field, value) = term
                .split_once("==")
                .or_else(|| term.split_once('='))
                .unwrap_or((term, ""));
            let path = match field {
                "metadata.name" => "/metadata/name",
                "metadata.namespace" => "/metadata/namespace",
                "spec.nodeName" => "/spec/nodeName",
                _ => return Err(format!("field label not supported: {field}")),
            };
            wanted.push((path, value.to_owned()));
        }
        Ok(move |pod: &Value| {
            let label = |name: &str| pod.pointer("/metadata/labels")?.get(name)?.as_str();
            wanted
                .iter()
                .all(|(path, value)| pod.pointer(path).and_then(Value::as_str) == Some(value))
                && labels
                    .iter()
                    .all(|(name, value, is_wanted)| (label(name) == Some(value)) == *is_wanted)
        })
    }

    /// Labels that pods must have, or must not have.
    fn labels(&self) -> Result<Vec<(String, String, bool)>, String> {
        let terms = self
            .get("labelSelector")
            .split(',')
            .filter(|term| !term.is_empty());
        terms
            .map(|term| {
                let (name, value, is_wanted) = if let Some((name, value)) = term.split_once("!=") {
                    (name, value, false)
                } else if let Some((name, value)) = term.split_once('=') {
                    (name, value.trim_start_matches('='), true)
                } else {
                    return Err(format!("unable to parse requirement: {term:?}"));
                };
                Ok((name.trim().to_owned(), value.trim().to_owned(), is_wanted))
            })
            .collect()
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    json_answer(code, &status(code, reason, message))
}

impl Handler for Shared {
    fn refuses(&self) -> bool {
        self.faults
            .refuses(&[Place::Get, Place::List, Place::Watch])
    }

    fn clock_ahead(&self) -> i64 {
        self.state().clock_ahead
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        if let Some(question) = Question::read(&request) {
            let outcome = self.answer_question(question, request).await;
            let status = outcome
                .as_ref()
                .ok()
                .map(|response| response.status().as_u16());
            self.saw(question.verb(), "", status);
            return outcome;
        }
        let Some(asked) = Asked::read(&request) else {
            return Ok(refusal(
                404,
                "NotFound",
                "the server could not find the requested resource",
            ));
        };
        let (verb, place) = asked.verb();
        let outcome = self.answer(&asked, &request, place).await;
        let status = outcome
            .as_ref()
            .ok()
            .map(|response| response.status().as_u16());
        self.saw(verb, &asked.raw_query, status);
        outcome
    }
}

/// A question about the API server itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Version,
    WhoAmI,
    MayI,
}

impl Question {
    fn read(request: &Request<Incoming>) -> Option<Self> {
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/version") => Some(Self::Version),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews") => Some(Self::WhoAmI),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => Some(Self::MayI),
            _ => None,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::WhoAmI => "who-am-i",
            Self::MayI => "may-i",
        }
    }
}

/// Applies a fault to any kind of request. `None` if the request is still to be answered. `giant`
/// is the size of a giant answer, in bytes.
async fn scripted(
    what: What,
    place: Place,
    giant: usize,
) -> Result<Option<Response<Body>>, CutOff> {
    Ok(Some(match what {
        What::Status(code, retry_after) => {
            let mut response = refusal(code, "Scripted", "scripted fault");
            if let Some(value) = retry_after.and_then(RetryAfter::header) {
                response
                    .headers_mut()
                    .insert(http::header::RETRY_AFTER, value);
            }
            response
        }
        What::Refuse | What::Drop | What::Lose | What::Cut => return Err(CutOff),
        What::Hang | What::HangLost => std::future::pending().await,
        What::Delay(delay) => {
            tokio::time::sleep(delay).await;
            return Ok(None);
        }
        What::Garbage => whole(200, "application/json", "{\"kind\": oops"),
        What::Giant => whole(200, "application/json", vec![b' '; giant]),
        What::Flood => serve::flood(match place {
            Place::List => "{\"metadata\":{},\"items\":[{\"metadata\":{\"annotations\":{\"a\":\"",
            Place::Watch => {
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"annotations\":{\"a\":\""
            }
            Place::Get | Place::Heartbeat | Place::Any => {
                "{\"metadata\":{\"annotations\":{\"a\":\""
            }
        }),
        What::Redirect(url) => {
            let mut response = whole(307, "text/plain", "");
            if let Ok(url) = url.parse() {
                response.headers_mut().insert(http::header::LOCATION, url);
            }
            response
        }
        // These faults are for heartbeats and watches only.
        What::Jwt(_) | What::Gone | What::End | What::Silent => return Ok(None),
    }))
}

/// The user whom the token identifies.
const USER: &str = "system:serviceaccount:lab:podbeat";

impl Shared {
    async fn answer_question(
        self: &Arc<Self>,
        question: Question,
        request: Request<Incoming>,
    ) -> Outcome {
        if let Some(what) = self.faults.strike(Place::Any, false)
            && let Some(answer) = scripted(what, Place::Any, 8 << 20).await?
        {
            return Ok(answer);
        }
        if !self.is_known(&request) {
            return Ok(refusal(401, "Unauthorized", "Unauthorized"));
        }
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(|_| CutOff)?
            .to_bytes();
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(match question {
            Question::Version => json_answer(
                200,
                &json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"}),
            ),
            Question::WhoAmI => json_answer(
                201,
                &json!({"kind": "SelfSubjectReview", "status": {"userInfo": {"username": USER}}}),
            ),
            Question::MayI => {
                let attribute = |name: &str| {
                    let asked = asked.pointer(&format!("/spec/resourceAttributes/{name}"))?;
                    asked.as_str().map(str::to_owned)
                };
                let verb = attribute("verb").unwrap_or_default();
                let state = self.state();
                // Like a Role for the pods of one namespace.
                let allowed = !state.denied
                    && !state.denied_verbs.contains(&verb)
                    && matches!(verb.as_str(), "get" | "list" | "watch")
                    && attribute("resource").as_deref() == Some("pods")
                    && attribute("namespace").as_deref() == Some("lab");
                let status = json!({"allowed": allowed, "reason": "scripted fault"});
                json_answer(
                    201,
                    &json!({"kind": "SelfSubjectAccessReview", "status": status}),
                )
            }
        })
    }

    /// Whether the token is accepted. The scheme may have any case, as for kube-apiserver (and in
    /// RFC 9110, 11.1): Python's client writes `bearer`.
    fn is_known(&self, request: &Request<Incoming>) -> bool {
        let header = request.headers().get(http::header::AUTHORIZATION);
        let mut words = header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .split_ascii_whitespace();
        let is_bearer = words
            .next()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer"));
        is_bearer && words.next() == Some(self.state().options.token.as_str())
    }

    async fn answer(
        self: &Arc<Self>,
        asked: &Asked,
        request: &Request<Incoming>,
        place: Place,
    ) -> Outcome {
        match self.faults.strike(place, false) {
            // These faults affect the open watch, so the request itself succeeds.
            Some(what @ (What::Gone | What::End | What::Silent)) => {
                return Ok(self.stream(asked, Vec::new(), 0, Some(what)));
            }
            Some(what) => {
                if let Some(answer) = scripted(what, place, 2 << 20).await? {
                    return Ok(answer);
                }
            }
            None => {}
        }
        if !self.is_known(request) {
            return Ok(refusal(401, "Unauthorized", "Unauthorized"));
        }
        let is_denied = {
            let state = self.state();
            state.denied || state.denied_verbs.contains(asked.verb().0)
        };
        if is_denied {
            let message = format!(
                "pods {:?} is forbidden: User \"{USER}\" cannot {} resource \"pods\" in API \
                 group \"\" in the namespace {:?}",
                asked.name.as_deref().unwrap_or_default(),
                asked.verb().0,
                asked.namespace.as_deref().unwrap_or_default()
            );
            return Ok(refusal(403, "Forbidden", &message));
        }
        let selects = match asked.selector() {
            Ok(selects) => selects,
            Err(message) => return Ok(refusal(400, "BadRequest", &message)),
        };
        if place == Place::Watch {
            return Ok(self.watch(asked, selects));
        }
        let state = self.state();
        if let Some(name) = &asked.name {
            let namespace = asked.namespace.clone().unwrap_or_default();
            let found = state.pods.get(&(namespace, name.clone()));
            return Ok(match found {
                Some(pod) => json_answer(200, pod),
                None => refusal(404, "NotFound", &format!("pods {name:?} not found")),
            });
        }
        // A page starts after the pod whose index is in the token.
        let after: usize = asked.get("continue").parse().unwrap_or(0);
        let limit: usize = asked.get("limit").parse().unwrap_or(usize::MAX);
        let mut chosen = state
            .candidates(asked)
            .filter(|pod| selects(pod))
            .skip(after);
        let items: Vec<&Value> = chosen.by_ref().take(limit).collect();
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if chosen.next().is_some()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.insert("continue".to_owned(), json!((after + limit).to_string()));
        }
        Ok(json_answer(
            200,
            &json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}),
        ))
    }

    fn watch(self: &Arc<Self>, asked: &Asked, selects: impl Fn(&Value) -> bool) -> Response<Body> {
        let state = self.state();
        let asked_version = asked.get("resourceVersion");
        let initial = asked.is_true("sendInitialEvents");
        if initial && asked.get("resourceVersionMatch") != "NotOlderThan" {
            drop(state);
            return refusal(
                422,
                "Invalid",
                "sendInitialEvents requires resourceVersionMatch NotOlderThan",
            );
        }
        let mut first = Vec::new();
        let mut cursor = state.version;
        if initial || matches!(asked_version, "" | "0") {
            first.extend(
                state
                    .candidates(asked)
                    .filter(|pod| selects(pod))
                    .map(|pod| line("ADDED", pod)),
            );
            if initial {
                first.push(bookmark(cursor, true));
            }
        } else {
            match asked_version.parse::<u64>() {
                Ok(version) if version < state.forgotten => {
                    let message =
                        format!("too old resource version: {version} ({})", state.forgotten);
                    first.push(line("ERROR", &status(410, "Expired", &message)));
                    drop(state);
                    return self.stream(asked, first, cursor, Some(What::End));
                }
                Ok(version) => cursor = version,
                Err(_) => {
                    drop(state);
                    return refusal(400, "BadRequest", "invalid resource version");
                }
            }
        }
        drop(state);
        self.stream(asked, first, cursor, None)
    }

    fn stream(
        self: &Arc<Self>,
        asked: &Asked,
        first: Vec<String>,
        cursor: u64,
        then: Option<What>,
    ) -> Response<Body> {
        let timeout = asked.get("timeoutSeconds").parse().unwrap_or(1800);
        let now = Instant::now();
        let one = asked.one();
        let changes = {
            let mut state = self.state();
            state.open_watches += 1;
            match &one {
                Some(pod) => state
                    .wakes
                    .entry(pod.clone())
                    .or_insert_with(|| watch::Sender::new(0))
                    .subscribe(),
                None => self.changes.subscribe(),
            }
        };
        // For callers that wait for an open watch.
        self.changed();
        let watch = OpenWatch {
            one,
            selects: asked
                .selector()
                .ok()
                .map(|selects| Box::new(selects) as Selector),
            ready: first.into(),
            cursor,
            sent: 0,
            then,
            ends: now + Duration::from_secs(timeout),
            bookmarks: asked.is_true("allowWatchBookmarks"),
            next_bookmark: now + self.state().options.bookmarks,
            changes,
            faults: self.faults.changes(),
            shared: Arc::clone(self),
        };
        let lines = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Next::Line(line) => Some((Ok(Bytes::from(line)), Some(watch))),
                Next::Break => Some((
                    Err(std::io::Error::other(
                        "connection closed by a scripted fault",
                    )),
                    None,
                )),
                Next::End => None,
            }
        });
        serve::stream("application/json", lines)
    }
}

enum Next {
    Line(String),
    Break,
    End,
}

/// Whether a pod is selected.
type Selector = Box<dyn Fn(&Value) -> bool + Send>;

/// One open watch. It is counted while it exists.
struct OpenWatch {
    /// The pod, if the watch is for one pod.
    one: Option<(String, String)>,
    selects: Option<Selector>,
    ready: VecDeque<String>,
    cursor: u64,
    sent: usize,
    then: Option<What>,
    ends: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    changes: watch::Receiver<u64>,
    faults: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.shared.state().open_watches -= 1;
        self.shared.changed();
    }
}

impl OpenWatch {
    async fn next(&mut self) -> Next {
        loop {
            self.changes.borrow_and_update();
            self.faults.borrow_and_update();
            if let Some(line) = self.ready.pop_front() {
                self.sent += 1;
                return Next::Line(line);
            }
            match self
                .then
                .take()
                .or_else(|| self.shared.faults.strike_watch(self.sent))
            {
                Some(What::Cut) => {
                    // Pending once, so that hyper flushes the sent data before the connection
                    // breaks.
                    tokio::task::yield_now().await;
                    return Next::Break;
                }
                Some(What::End) => return Next::End,
                Some(What::Silent) => std::future::pending().await,
                Some(What::Garbage) => return Next::Line("{\"type\": oops\n".to_owned()),
                Some(What::Flood) => {
                    self.then = Some(What::Flood);
                    return Next::Line("x".repeat(64 << 10));
                }
                Some(What::Gone) => {
                    self.then = Some(What::End);
                    return Next::Line(line(
                        "ERROR",
                        &status(410, "Expired", "too old resource version"),
                    ));
                }
                // These faults are not for open watches.
                Some(_) | None => {}
            }
            self.collect();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.faults.changed() => {}
                () = tokio::time::sleep_until(self.ends) => return Next::End,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    // First, so that the bookmark comes after all earlier events.
                    self.collect();
                    self.ready.push_back(bookmark(self.cursor, false));
                    self.next_bookmark = Instant::now() + self.shared.state().options.bookmarks;
                }
            }
        }
    }

    /// Takes the events since the cursor.
    fn collect(&mut self) {
        let state = self.shared.state();
        let Some(selects) = &self.selects else { return };
        let trimmed = match &self.one {
            Some(pod) => state.trimmed_of.get(pod).copied().unwrap_or(0),
            None => state.trimmed,
        };
        if self.cursor < trimmed {
            // The client is too slow: the history no longer has the next event.
            let message = format!("too old resource version: {} ({trimmed})", self.cursor);
            self.ready
                .push_back(line("ERROR", &status(410, "Expired", &message)));
            self.then = Some(What::End);
            self.cursor = state.version;
            return;
        }
        let none = VecDeque::new();
        let events = match &self.one {
            Some(pod) => state.of_pods.get(pod).unwrap_or(&none),
            None => &state.history,
        };
        // Versions only increase.
        let told = events.partition_point(|event| event.version <= self.cursor);
        for event in events.range(told..) {
            if selects(&event.object) {
                self.ready.push_back(line(event.kind, &event.object));
            }
        }
        self.cursor = self.cursor.max(state.version);
    }
}

fn line(kind: &str, object: &Value) -> String {
    // Formatted by hand, so that `type` comes first, as in kube-apiserver's output.
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut()
        && kind != "ERROR"
    {
        members.entry("kind").or_insert(json!("Pod"));
        members.entry("apiVersion").or_insert(json!("v1"));
    }
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u64, initial_events_end: bool) -> String {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial_events_end && let Some(members) = metadata.as_object_mut() {
        members.insert(
            "annotations".to_owned(),
            json!({"k8s.io/initial-events-end": "true"}),
        );
    }
    line(
        "BOOKMARK",
        &json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}),
    )
}
