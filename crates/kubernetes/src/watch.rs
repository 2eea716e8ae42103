//! The watch of one pod, on kube's client: list, watch, resume, list again; and the direct look.
//!
//! With `listed`, `ask`, `transport` and `kubeconfig` the only importer of kube's client. The loop is our own rather than kube's watcher, because it must tell a silent
//! watch from a quiet one by the server's bookmarks, tell absence from a stale cache, and spread its reconnects.

#[cfg(test)]
mod outage;
mod patience;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use kube::Client;
use kube::api::{GetParams, ListParams, VersionMatch, WatchParams};
use kube::core::Request;
use patience::{Patience, SPREAD};
use podbeat_heartbeat::machine::Event;
use podbeat_heartbeat::observation::JobPod;
use podbeat_http_client::route::{self, PlainHttp, Proxies, Route};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use url::Url;

use super::answer;
use super::listed;
use super::resource::Pod;
use super::role::{self, Account};
use super::status;
use super::tasks::Tasks;
use super::transport::{self, Transport};

/// One request to the API server that answers at once, or the head of a watch's answer.
const REQUEST: Duration = Duration::from_secs(15);

/// After this long without news the pod is asked for directly: a watch can go silent without an error, because load
/// balancers drop idle connections (at 240 s, many of them) and say nothing. Together with [`SAFETY_LOOK`] a dead watch
/// is found out within a minute and a half.
///
/// Longer than between two bookmarks, so that a quiet watch that lives is not asked about: kube-apiserver sends one a minute after the
/// one before, by a clock of whole seconds that it reads every 1 to 1.25 s, so 59 to 61.25 s later
/// (k8s.io/apiserver v0.37.2, `storage/cacher/cacher.go`).
const SILENCE: Duration = Duration::from_secs(75);

/// How long that question may take. Any cache may answer it: it costs the API server next to nothing.
const SAFETY_LOOK: Duration = Duration::from_secs(10);

/// An API server that asks for more patience than this (429 with retryAfterSeconds) is asked again all the same.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(60);

/// The server is asked to end a watch after a time drawn from this range (seconds), so that copies that started
/// together don't reconnect together. kube refuses 295 and more.
const WATCH_SECONDS: std::ops::Range<u32> = 230..290;

/// A watch that was open for less than this does not make up for what failed before it.
const SHORT_WATCH: Duration = Duration::from_secs(5);

/// By how much the API server's clock may be faster than ours over one watch.
const CLOCKS: Duration = Duration::from_secs(1);

/// How the API server is reached.
#[derive(Clone, Debug)]
pub enum Access {
    /// As a pod does: the address from the environment, token and CA from a directory that is read again as it
    /// changes.
    InCluster {
        /// `KUBERNETES_SERVICE_HOST`.
        host: String,
        /// `KUBERNETES_SERVICE_PORT`.
        port: u16,
        /// Holds `token` and `ca.crt`.
        service_account_dir: PathBuf,
        /// The proxies of the environment.
        proxies: Proxies,
    },
    /// As kubectl does; only in the build for a laptop.
    Kubeconfig {
        /// A file; `None` for `~/.kube/config`.
        path: Option<PathBuf>,
        /// A context other than the current one.
        context: Option<String>,
        /// The proxies of the environment.
        proxies: Proxies,
    },
}

/// What the watch brings.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The pod as it is.
    Seen(Box<Pod>),
    /// Nothing has changed, says the API server.
    Confirmed,
    /// The pod is gone, or another one bears its name. What it last showed, where the server told.
    Gone(Option<Box<Pod>>),
}

impl Sighting {
    /// What it is to the core. `own_container` is the name of podbeat's container, `tasks` says which are the task's.
    #[must_use]
    pub fn event(&self, own_container: &str, tasks: &Tasks) -> Event {
        let observe = |pod: &Pod| status::observe_with(pod, own_container, tasks);
        match self {
            Self::Seen(pod) => Event::Observed(observe(pod)),
            Self::Confirmed => Event::Confirmed,
            Self::Gone(last) => Event::Gone(last.as_deref().map(observe)),
        }
    }
}

/// Why the Kubernetes API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be used.
    #[cfg(feature = "kubeconfig")]
    #[error(transparent)]
    Kubeconfig(#[from] super::kubeconfig::Error),
    /// This build goes by no kubeconfig.
    #[cfg(not(feature = "kubeconfig"))]
    #[error(
        "this build of podbeat reads no kubeconfig: run it in a pod, or take the one for a laptop (cargo feature `laptop`)"
    )]
    NoKubeconfig,
    /// The address isn't one.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT don't make an address")]
    Address(#[source] url::ParseError),
    /// The proxy on the way can't be used.
    #[error("the way to the Kubernetes API")]
    Route(#[source] route::Error),
    /// The service account's token or the cluster's CA can't be used.
    #[error(transparent)]
    ServiceAccount(#[from] transport::Error),
    /// The API server refused or failed.
    #[error("{verb} of pod {namespace}/{name}: {hint}")]
    Api {
        /// get, list or watch.
        verb: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// What to do about it.
        hint: &'static str,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The answer is longer than what is read of one.
    #[error(
        "{verb} of pod {namespace}/{name}: the API server sends more than {} MiB for it; heartbeats go on without states",
        answer::LARGEST >> 20
    )]
    TooLarge {
        /// get, list or watch.
        verb: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
    /// No answer in time.
    #[error("{verb} of pod {namespace}/{name}: no answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// get, list or watch.
        verb: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The limit.
        after: Duration,
    },
}

impl Error {
    /// The HTTP status of the API server's refusal, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|(status, _)| status.code)
    }

    /// The Role and RoleBinding that would allow what was forbidden, ready for `kubectl apply`. `None` for any other
    /// error.
    #[must_use]
    pub fn missing_role(&self) -> Option<String> {
        let (status, namespace) = self.refusal().filter(|(status, _)| status.code == 403)?;
        let account = Account::forbidden(&status.message);
        let account = account.unwrap_or_else(|| Account::ServiceAccount {
            namespace: namespace.to_owned(),
            name: "default".to_owned(),
        });
        Some(role::missing(namespace, &account))
    }

    /// The same for a person, who may be no service account. One whose name isn't told, or is an odd one, has it to fill in.
    #[cfg(feature = "kubeconfig")]
    #[must_use]
    pub fn missing_role_of_a_person(&self) -> Option<String> {
        let (status, namespace) = self.refusal().filter(|(status, _)| status.code == 403)?;
        let account = Account::forbidden(&status.message).unwrap_or_else(|| {
            let user = forbidden_user(&status.message).unwrap_or("YOUR-NAME");
            Account::User(user.to_owned())
        });
        Some(role::missing(namespace, &account))
    }

    /// What the API server said itself, where it did: the reason, such as `Forbidden`, and the message.
    #[must_use]
    pub fn said(&self) -> Option<(&str, &str)> {
        self.refusal()
            .map(|(status, _)| (status.reason.as_str(), status.message.as_str()))
    }

    fn refusal(&self) -> Option<(&kube::core::Status, &str)> {
        match self {
            Self::Api {
                source, namespace, ..
            } => match source.as_ref() {
                kube::Error::Api(status) => Some((status, namespace)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a request was made, rather than only prepared.
    #[must_use]
    pub fn is_of_a_request(&self) -> bool {
        matches!(
            self,
            Self::Api { .. } | Self::Timeout { .. } | Self::TooLarge { .. }
        )
    }

    /// Whether there was no answer at all.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || self.is_broken_off()
    }

    /// Whether there was no connection, or it was closed or reset before its time.
    fn is_broken_off(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_broken_off(source))
    }

    /// How long the API server asked to be left alone.
    fn asked_wait(&self) -> Duration {
        let details = self.refusal().and_then(|(status, _)| status.details.as_ref());
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        Duration::from_secs(seconds.into()).min(LONGEST_ASKED_WAIT)
    }
}

/// The name of any other user that a 403 names: `User "jane@example.com" cannot …`. Only one that needs no care in YAML.
#[cfg(feature = "kubeconfig")]
fn forbidden_user(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("User \"")?;
    let (user, _) = rest.split_once('"')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@:+/=#".contains(&byte);
    (!user.is_empty() && user.bytes().all(is_plain)).then_some(user)
}

/// A step of the watch, for whoever logs or counts it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'error> {
    /// The API server has listed the pod, or told that there is none.
    Listed,
    /// A watch begins again, after an earlier one ended or failed.
    Restarted,
    /// The API server has taken a watch: from now on it tells what changes.
    Opened,
    /// Something failed, and is survived.
    Failed(&'error Error),
}

/// Watches one pod. Cheap to clone: the clones share a connection pool.
#[derive(Clone)]
pub struct PodWatch {
    access: Access,
    /// Replaced when the API server no longer accepts the token, so that it is read afresh.
    client: Arc<Mutex<Client>>,
    namespace: String,
    name: String,
    silence: Duration,
    spread: Duration,
    hurry: Option<watch::Receiver<bool>>,
}

impl PodWatch {
    /// Sets the client up; sends nothing yet. Without a namespace, the kubeconfig's own is taken.
    ///
    /// # Errors
    /// The kubeconfig, the address, the CA or the client certificate is unreadable.
    pub async fn new(access: &Access, namespace: Option<&str>, name: &str) -> Result<Self, Error> {
        let reached = reach(access).await?;
        let namespace = namespace.map_or(reached.namespace, str::to_owned);
        Ok(Self {
            access: access.clone(),
            client: Arc::new(Mutex::new(reached.client)),
            namespace,
            name: name.to_owned(),
            silence: SILENCE,
            spread: SPREAD,
            hurry: None,
        })
    }

    /// The pod's namespace, as it was given or as the kubeconfig has it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Doubts a watch after this time without news, instead of 75 s.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Opens a watch that broke off again after a wait drawn evenly from nothing up to this, instead of 35 s. With nothing, the
    /// back-off alone is waited for: half a second at most for the first time.
    #[must_use]
    pub fn with_spread(self, spread: Duration) -> Self {
        Self { spread, ..self }
    }

    /// Once this says true, news is worth any request: a wait is cut short, and the reconnects that follow are spread no more.
    #[must_use]
    pub fn with_hurry(self, hurry: watch::Receiver<bool>) -> Self {
        Self {
            hurry: Some(hurry),
            ..self
        }
    }

    /// Looks at the pod directly, past every cache. `None` if there is none of that name.
    ///
    /// # Errors
    /// The API server refused, failed or didn't answer within `limit`.
    pub async fn look(&self, limit: Duration) -> Result<Option<Pod>, Error> {
        let look = async {
            match self.get(&GetParams::default()).await {
                Err(error) if error.status() == Some(401) => {
                    self.sign_in_again().await?;
                    self.get(&GetParams::default()).await
                }
                answer => answer,
            }
        };
        match timeout(limit, look).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timeout("get", limit)),
        }
    }

    /// How many pods of the same Job failed before this one; `None` if that can't be known.
    ///
    /// # Errors
    /// The API server refused, failed or didn't answer in time.
    pub async fn retries(&self, job: &JobPod) -> Result<Option<i32>, Error> {
        match timeout(REQUEST, listed::retries(&self.client(), &self.namespace, job)).await {
            Ok(answer) => answer.map_err(|error| self.failure("list", error)),
            Err(_) => Err(self.timeout("list", REQUEST)),
        }
    }

    /// The pod; `None` if there is none of that name.
    async fn get(&self, params: &GetParams) -> Result<Option<Pod>, Error> {
        let answer = async {
            let request = self.pods().get(&self.name, params);
            answer::object(&self.client(), request.map_err(kube::Error::BuildRequest)?).await
        };
        match answer.await {
            Ok(pod) => Ok(Some(pod)),
            Err(answer::Error::Kube(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            Err(error) => Err(self.failure("get", error)),
        }
    }

    fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes requests for the namespace's pods.
    fn pods(&self) -> Request {
        Request::new(pods_in(Some(&self.namespace)))
    }

    /// Sets the client up anew. A rotated token is read by itself, but only once a minute; and what is wrong with one that can't be
    /// read is known only then.
    async fn sign_in_again(&self) -> Result<(), Error> {
        let client = reach(&self.access).await?.client;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Watches until the pod is gone or nobody listens any more. Each step is told to `on_step`; trouble is survived.
    ///
    /// `uid` is the pod's own; without it, the first pod seen under the name is ours.
    pub async fn run(
        self,
        mut uid: Option<String>,
        sightings: mpsc::Sender<Sighting>,
        mut rng: fastrand::Rng,
        on_step: impl Fn(Step<'_>),
    ) {
        let mut patience = Patience::new(self.spread);
        // The first list may be served from the API server's cache: ten thousand copies that start at once should not
        // reach etcd. After an expired watch it may not, or we could be shown a past that we have already left.
        let mut from_cache = true;
        let mut seen = false;
        let mut watched = false;
        loop {
            let listed = self.list(from_cache, &mut uid).await;
            if listed.is_ok() {
                on_step(Step::Listed);
            }
            let wait = match listed {
                Ok((Some(pod), version)) => {
                    patience.answered();
                    from_cache = false;
                    seen = true;
                    let at = Position {
                        version,
                        pod_version: pod.metadata.resource_version.clone(),
                    };
                    if sightings.send(Sighting::Seen(Box::new(pod))).await.is_err() {
                        return;
                    }
                    if std::mem::replace(&mut watched, true) {
                        on_step(Step::Restarted);
                    }
                    match self
                        .follow(at, &mut uid, &sightings, &mut rng, &mut patience, &on_step)
                        .await
                    {
                        Next::ListAgain(wait) => wait,
                        Next::Stop => return,
                    }
                }
                Ok((None, _)) => {
                    // Never seen: the receiver decides what to believe, and we look again.
                    if sightings.send(Sighting::Gone(None)).await.is_err() || seen {
                        return;
                    }
                    patience.after_answer(&mut rng)
                }
                Err(failure) => self.failed(&failure, &mut patience, &mut rng, &on_step).await,
            };
            self.pause(wait, &mut patience, &sightings).await;
            if sightings.is_closed() {
                return;
            }
        }
    }

    /// Tells a failure, reads a token that was refused again, and says how long to wait.
    async fn failed(
        &self,
        failure: &Error,
        patience: &mut Patience,
        rng: &mut fastrand::Rng,
        on_step: &impl Fn(Step<'_>),
    ) -> Duration {
        on_step(Step::Failed(failure));
        if failure.status() == Some(401)
            && let Err(failure) = self.sign_in_again().await
        {
            on_step(Step::Failed(&failure));
        }
        patience.after_failure(failure, rng)
    }

    /// Waits; but not for news that has become urgent, and not when nobody listens any more.
    async fn pause(&self, wait: Duration, patience: &mut Patience, sightings: &mpsc::Sender<Sighting>) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = sightings.closed() => {}
            () = hurried(self.hurry.clone()), if !patience.is_hurried() => patience.hurry(),
        }
    }

    /// Follows watches from a position on until a new list is needed.
    async fn follow(
        &self,
        mut at: Position,
        uid: &mut Option<String>,
        sightings: &mpsc::Sender<Sighting>,
        rng: &mut fastrand::Rng,
        patience: &mut Patience,
        on_step: &impl Fn(Step<'_>),
    ) -> Next {
        loop {
            let lasts = rng.u32(WATCH_SECONDS);
            let asked = Instant::now();
            let (ended, open_for) = match self.open(&at, lasts).await {
                Ok(stream) => {
                    patience.opened();
                    on_step(Step::Opened);
                    let opened = Instant::now();
                    let ended = self.read(stream, &mut at, uid, sightings).await;
                    (ended, opened.elapsed())
                }
                Err(ended) => (ended, Duration::ZERO),
            };
            let short = open_for < SHORT_WATCH;
            if !short {
                patience.settled();
            }
            let failure = match ended {
                Ended::Over if asked.elapsed() + CLOCKS >= Duration::from_secs(lasts.into()) => {
                    // In time, as was asked for: all that happened until now was told, and the next one need not wait, because the
                    // times are spread.
                    if sightings.send(Sighting::Confirmed).await.is_err() {
                        return Next::Stop;
                    }
                    on_step(Step::Restarted);
                    continue;
                }
                // Also an API server that shuts down in order ends all of its watches so, and of a connection that broke kube shows
                // no more either.
                Ended::Over => self.error("watch", kube::Error::ReadEvents(before_its_time())),
                Ended::Expired if !short => return Next::ListAgain(patience.after_expiry(rng)),
                Ended::Expired | Ended::Doubtful => return Next::ListAgain(patience.after_answer(rng)),
                Ended::Failed(failure) => failure,
                Ended::Stop => return Next::Stop,
            };
            let wait = self.failed(&failure, patience, rng, on_step).await;
            // A watch that is refused or unreadable may be so for its resourceVersion: a list tells.
            if !failure.is_broken_off() {
                return Next::ListAgain(wait);
            }
            self.pause(wait, patience, sightings).await;
            if sightings.is_closed() {
                return Next::Stop;
            }
            on_step(Step::Restarted);
        }
    }

    /// Opens a watch that is to last for so many seconds.
    async fn open(
        &self,
        at: &Position,
        lasts: u32,
    ) -> Result<impl Stream<Item = Result<answer::Event, answer::Error>> + use<>, Ended> {
        let params = WatchParams {
            field_selector: Some(self.selector()),
            timeout: Some(lasts),
            bookmarks: true,
            ..WatchParams::default()
        };
        let opened = async {
            let request = self.pods().watch(&params, &at.version);
            answer::watch(&self.client(), request.map_err(kube::Error::BuildRequest)?).await
        };
        match timeout(REQUEST, opened).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.ended(error)),
            Err(_) => Err(Ended::Failed(self.timeout("watch", REQUEST))),
        }
    }

    async fn read(
        &self,
        stream: impl Stream<Item = Result<answer::Event, answer::Error>>,
        at: &mut Position,
        uid: &mut Option<String>,
        sightings: &mpsc::Sender<Sighting>,
    ) -> Ended {
        pin_mut!(stream);
        loop {
            let next = tokio::select! {
                next = timeout(self.silence, stream.next()) => next,
                () = sightings.closed() => return Ended::Stop,
            };
            let sighting = match next {
                Err(_) => match self.has_changed(at, uid).await {
                    // Quiet, not dead.
                    Ok(false) => Sighting::Confirmed,
                    Ok(true) => return Ended::Doubtful,
                    Err(failure) => return Ended::Failed(failure),
                },
                Ok(None) => return Ended::Over,
                Ok(Some(Err(error))) => return self.ended(error),
                Ok(Some(Ok(answer::Event::Refused(status)))) => {
                    return self.ended(kube::Error::Api(status).into());
                }
                Ok(Some(Ok(answer::Event::Bookmark(version)))) => {
                    at.version = version;
                    Sighting::Confirmed
                }
                Ok(Some(Ok(answer::Event::Shown(pod)))) => {
                    at.advance(&pod);
                    if !is_ours(&pod, uid) {
                        return Ended::Doubtful;
                    }
                    Sighting::Seen(pod)
                }
                Ok(Some(Ok(answer::Event::Deleted(pod)))) => {
                    at.advance(&pod);
                    if !is_ours(&pod, uid) {
                        continue;
                    }
                    Sighting::Gone(Some(pod))
                }
            };
            let gone = matches!(sighting, Sighting::Gone(_));
            if sightings.send(sighting).await.is_err() || gone {
                return Ended::Stop;
            }
        }
    }

    /// Asks past a silent watch whether it has missed anything. Any cache may answer: one that shows what is known
    /// already says enough, and of one that differs, ahead or behind, only a new list tells what holds.
    async fn has_changed(&self, at: &Position, uid: &mut Option<String>) -> Result<bool, Error> {
        let Ok(answer) = timeout(SAFETY_LOOK, self.get(&GetParams::any())).await else {
            return Err(self.timeout("get", SAFETY_LOOK));
        };
        Ok(match answer? {
            Some(pod) => !is_ours(&pod, uid) || pod.metadata.resource_version != at.pod_version,
            None => true,
        })
    }

    /// Our pod, if it is there, and the resourceVersion to watch from. Absence, or another UID, is believed only after
    /// a direct look: the list may have come from a cache that is behind.
    async fn list(&self, from_cache: bool, uid: &mut Option<String>) -> Result<(Option<Pod>, String), Error> {
        let mut params = ListParams::default().fields(&self.selector());
        if from_cache {
            params.version_match = Some(VersionMatch::NotOlderThan);
            params.resource_version = Some("0".to_owned());
        }
        let mut found = None;
        let mut first = |item: &[u8]| {
            if found.is_none() {
                found = Some(serde_json::from_slice(item)?);
            }
            Ok(())
        };
        let listed = async {
            let request = self.pods().list(&params).map_err(kube::Error::BuildRequest)?;
            answer::list(&self.client(), request, answer::LARGEST, &mut first).await
        };
        let list = match timeout(REQUEST, listed).await {
            Ok(list) => list.map_err(|error| self.failure("list", error))?,
            Err(_) => return Err(self.timeout("list", REQUEST)),
        };
        let found = found.filter(|pod| is_ours(pod, uid));
        let ours = match found {
            Some(pod) => Some(pod),
            None => self.look(REQUEST).await?.filter(|pod| is_ours(pod, uid)),
        };
        Ok((ours, list.resource_version))
    }

    fn selector(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    /// What the end of a watch means.
    fn ended(&self, error: answer::Error) -> Ended {
        match self.failure("watch", error) {
            failure if failure.status() == Some(410) => Ended::Expired,
            failure => Ended::Failed(failure),
        }
    }

    fn failure(&self, verb: &'static str, error: answer::Error) -> Error {
        match error {
            answer::Error::Kube(source) => self.error(verb, source),
            answer::Error::TooLarge(_) => Error::TooLarge {
                verb,
                namespace: self.namespace.clone(),
                name: self.name.clone(),
            },
        }
    }

    fn error(&self, verb: &'static str, source: kube::Error) -> Error {
        let status = match &source {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        };
        let hint = match status {
            Some(401) => {
                "the API server doesn't accept the service account's token; heartbeats go on without states"
            }
            Some(403) => {
                "not allowed; the service account needs a Role with get, list and watch on pods; heartbeats go on \
                 without states"
            }
            Some(404) => "not found; are POD_NAME and POD_NAMESPACE right?",
            Some(_) => "the API server refused; trying again",
            None if matches!(source, kube::Error::SerdeError(_)) => {
                "what the API server answers can't be read; heartbeats go on without states"
            }
            None => "the API server can't be reached or broke off; trying again",
        };
        Error::Api {
            verb,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            hint,
            source: Box::new(source),
        }
    }

    fn timeout(&self, verb: &'static str, after: Duration) -> Error {
        Error::Timeout {
            verb,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            after,
        }
    }
}

/// How far the watch has come.
struct Position {
    /// The resourceVersion to watch from.
    version: String,
    /// The resourceVersion of the pod as it was last seen.
    pod_version: Option<String>,
}

impl Position {
    fn advance(&mut self, pod: &Pod) {
        if let Some(newer) = &pod.metadata.resource_version {
            self.version.clone_from(newer);
            self.pod_version = Some(newer.clone());
        }
    }
}

enum Next {
    /// After this time at least.
    ListAgain(Duration),
    Stop,
}

enum Ended {
    /// The stream is at its end: the server ended it, or the connection did.
    Over,
    /// The resourceVersion has expired: only a new list tells what holds.
    Expired,
    /// So it does where a pod that isn't ours was seen, or the watch has missed something.
    Doubtful,
    Failed(Error),
    Stop,
}

/// Whether the pod is the one that is watched; the first one seen is, if no UID was given.
fn is_ours(pod: &Pod, uid: &mut Option<String>) -> bool {
    match uid {
        Some(uid) => pod.metadata.uid.as_ref() == Some(uid),
        None => {
            uid.clone_from(&pod.metadata.uid);
            true
        }
    }
}

/// Comes back once it says true; never, if nobody can say so any more.
async fn hurried(hurry: Option<watch::Receiver<bool>>) {
    if let Some(mut hurry) = hurry
        && hurry.wait_for(|hurry| *hurry).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn before_its_time() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ended before its time")
}

/// Whether the connection broke, which says nothing against the resourceVersion.
fn is_broken_off(error: &kube::Error) -> bool {
    matches!(
        error,
        kube::Error::ReadEvents(_) | kube::Error::HyperError(_) | kube::Error::Service(_)
    )
}

/// A client of the API server, and the way there.
pub(super) struct Reached {
    pub(super) client: Client,
    /// Of pods whose namespace isn't told.
    pub(super) namespace: String,
    pub(super) route: Route,
}

/// Where the pods of a namespace are, or those of all.
pub(super) fn pods_in(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        None => "/api/v1/pods".to_owned(),
    }
}

/// Sets a client up; sends nothing yet.
pub(super) async fn reach(access: &Access) -> Result<Reached, Error> {
    match access {
        Access::InCluster {
            host,
            port,
            service_account_dir,
            proxies,
        } => {
            let server = server(host, *port)?;
            let route = proxies.route(server, PlainHttp::Loopback).map_err(Error::Route)?;
            let transport = Transport::new(route.clone(), service_account_dir).await?;
            Ok(Reached {
                client: Client::new(transport, "default"),
                namespace: "default".to_owned(),
                route,
            })
        }
        #[cfg(feature = "kubeconfig")]
        Access::Kubeconfig {
            path,
            context,
            proxies,
        } => Ok(super::kubeconfig::reach(path.as_deref(), context.clone(), proxies).await?),
        #[cfg(not(feature = "kubeconfig"))]
        Access::Kubeconfig { .. } => Err(Error::NoKubeconfig),
    }
}

fn server(host: &str, port: u16) -> Result<Url, Error> {
    format!("https://{}", route::authority(host, port))
        .parse()
        .map_err(Error::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(message: &str) -> Error {
        Error::Api {
            verb: "list",
            namespace: "team-a".to_owned(),
            name: "p".to_owned(),
            hint: "",
            source: Box::new(kube::Error::Api(Box::new(
                kube::core::Status::failure(message, "Forbidden").with_code(403),
            ))),
        }
    }

    #[test]
    fn the_address_of_the_environment_becomes_a_url() {
        let url = |host, port| server(host, port).map(|url| url.to_string());
        assert_eq!(url("10.96.0.1", 443).expect("IPv4"), "https://10.96.0.1/");
        assert_eq!(url("fd00::1", 6443).expect("IPv6"), "https://[fd00::1]:6443/");
        assert_eq!(
            url("kubernetes.default.svc", 443).expect("a name"),
            "https://kubernetes.default.svc/"
        );
        assert!(matches!(url("not a host", 443), Err(Error::Address(_))));
    }

    #[test]
    fn the_missing_role_is_for_the_account_that_was_refused() {
        let role = forbidden(
            r#"pods is forbidden: User "system:serviceaccount:team-a:tasks" cannot list resource "pods" in API group """#,
        )
        .missing_role()
        .expect("a role");
        assert!(role.contains("subjects:\n- {kind: ServiceAccount, name: tasks, namespace: team-a}\n"));
        assert!(role.contains("metadata: {name: podbeat, namespace: team-a}"));
    }

    #[cfg(feature = "kubeconfig")]
    #[test]
    fn the_missing_role_of_a_person_is_for_that_person() {
        let role = |user: &str| {
            let message = format!(r#"pods is forbidden: User "{user}" cannot list resource "pods""#);
            let role = forbidden(&message).missing_role_of_a_person().expect("a role");
            role.rsplit_once("subjects:\n").expect("subjects").1.to_owned()
        };
        let person =
            |name: &str| format!("- {{kind: User, apiGroup: rbac.authorization.k8s.io, name: \"{name}\"}}\n");
        assert_eq!(role("jane@example.com"), person("jane@example.com"));
        assert_eq!(role("a\n- b"), person("YOUR-NAME"));
        assert_eq!(role(""), person("YOUR-NAME"));
        assert_eq!(
            role("system:serviceaccount:team-a:tasks"),
            "- {kind: ServiceAccount, name: tasks, namespace: team-a}\n"
        );
    }

    #[test]
    fn nothing_that_isnt_a_name_gets_into_the_role() {
        for message in [
            "no user",
            r#"User "system:serviceaccount:a"#,
            r#"User "system:serviceaccount:a: b}" cannot"#,
            "User \"system:serviceaccount:a:b\n- c\" cannot",
            r#"User "jane" cannot"#,
        ] {
            let role = forbidden(message).missing_role().expect("a role");
            assert!(
                role.ends_with("- {kind: ServiceAccount, name: default, namespace: team-a}\n"),
                "{role}"
            );
        }
    }
}
