//! The watch of one pod with kube's client (list, watch, resume, list again), and the direct look.
//!
//! Only this module, `listed`, `ask`, `transport` and `kubeconfig` use kube's client. podbeat has
//! its own loop instead of kube's watcher, because the loop must distinguish a dead watch from an
//! idle one with the server's bookmarks, distinguish absence from a stale cache, and spread its
//! reconnects.

#[cfg(test)]
mod outage;
mod reconnect;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use kube::Client;
use kube::api::{GetParams, ListParams, VersionMatch, WatchParams};
use kube::core::Request;
use podbeat_heartbeat::machine::Event;
use podbeat_heartbeat::observation::JobPod;
use podbeat_http_client::route::{self, PlainHttp, Proxies, Route};
use reconnect::{Reconnect, SPREAD};
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

/// Limit for one request to the API server, or for the head of a watch's response.
const REQUEST: Duration = Duration::from_secs(15);

/// After this time without news, the watch gets the pod directly. A watch can die without an error,
/// because load balancers drop idle connections (many at 240 s) silently. Together with
/// [`SAFETY_LOOK`], the watch detects this within a minute and a half.
///
/// This is longer than the interval between two bookmarks, so that an idle but live watch causes no
/// request. kube-apiserver sends a bookmark a minute after the previous one, by a clock of whole
/// seconds that it reads every 1 to 1.25 s, so 59 to 61.25 s later (k8s.io/apiserver v0.37.2,
/// `storage/cacher/cacher.go`).
const SILENCE: Duration = Duration::from_secs(75);

/// Limit for that request. Any cache may answer it, so it costs the API server almost nothing.
const SAFETY_LOOK: Duration = Duration::from_secs(10);

/// Limit for the wait that an API server can ask for (429 with retryAfterSeconds).
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(60);

/// The range, in seconds, from which the duration of a watch is drawn, so that copies that started
/// together do not reconnect together. kube refuses 295 and more.
const WATCH_SECONDS: std::ops::Range<u32> = 230..290;

/// A watch that was open for less than this does not reset the backoff.
const SHORT_WATCH: Duration = Duration::from_secs(5);

/// How much faster than ours the API server's clock may run during one watch.
const CLOCKS: Duration = Duration::from_secs(1);

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// From a pod: the address comes from the environment. Token and CA come from a directory, and
    /// are read again when they change.
    InCluster {
        /// `KUBERNETES_SERVICE_HOST`.
        host: String,
        /// `KUBERNETES_SERVICE_PORT`.
        port: u16,
        /// The directory with `token` and `ca.crt`.
        service_account_dir: PathBuf,
        /// The proxies of the environment.
        proxies: Proxies,
    },
    /// As kubectl. Only in the build for a laptop.
    Kubeconfig {
        /// The file. `None` means `~/.kube/config`.
        path: Option<PathBuf>,
        /// The context, if not the current one.
        context: Option<String>,
        /// The proxies of the environment.
        proxies: Proxies,
    },
}

impl Access {
    /// Whether this build supports kubeconfigs.
    pub const READS_KUBECONFIGS: bool = cfg!(feature = "kubeconfig");
}

/// News from the watch.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The current pod.
    Seen(Box<Pod>),
    /// The API server confirmed that nothing has changed.
    Confirmed,
    /// The pod is gone, or another pod has its name. Contains its last state, if the server sent
    /// it.
    Gone(Option<Box<Pod>>),
}

impl Sighting {
    /// Converts the sighting into an event for the core. `own_container` is the name of podbeat's
    /// container. `tasks` selects the task containers.
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

/// Why a request to the Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be used.
    #[cfg(feature = "kubeconfig")]
    #[error(transparent)]
    Kubeconfig(#[from] super::kubeconfig::Error),
    /// This build does not support kubeconfigs.
    #[cfg(not(feature = "kubeconfig"))]
    #[error(
        "this build of podbeat does not read a kubeconfig; run it in a pod, or use the build for a laptop (cargo feature `laptop`)"
    )]
    NoKubeconfig,
    /// The address is not valid.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not a valid address")]
    Address(#[source] url::ParseError),
    /// The proxy can't be used.
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
        /// How to fix it.
        hint: &'static str,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The response exceeds the limit.
    #[error(
        "{verb} of pod {namespace}/{name}: the API server sent more than {} MiB; heartbeats continue without container states",
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
    /// There was no response in time.
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
    /// The HTTP status of the API server's refusal, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|(status, _)| status.code)
    }

    /// The Role and RoleBinding that would allow a forbidden request, for `kubectl apply`. `None`
    /// for any other error.
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

    /// As [`missing_role`](Self::missing_role), but for a person, who may not be a service account.
    /// If the name is unknown or unusual, the Role contains a placeholder for it.
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

    /// The API server's own explanation, if there is one: the reason, such as `Forbidden`, and the
    /// message.
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

    /// Whether a request was sent. `false` if the client could not be set up.
    #[must_use]
    pub fn is_of_a_request(&self) -> bool {
        matches!(
            self,
            Self::Api { .. } | Self::Timeout { .. } | Self::TooLarge { .. }
        )
    }

    /// Whether there was no response at all.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || self.is_broken_off()
    }

    /// Whether no connection could be opened, or it broke off.
    fn is_broken_off(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_broken_off(source))
    }

    /// The wait that the API server asked for.
    fn asked_wait(&self) -> Duration {
        let details = self.refusal().and_then(|(status, _)| status.details.as_ref());
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        Duration::from_secs(seconds.into()).min(LONGEST_ASKED_WAIT)
    }
}

/// The name of another user in the message of a 403: `User "jane@example.com" cannot …`. Returns
/// only a name that needs no escaping in YAML.
#[cfg(feature = "kubeconfig")]
fn forbidden_user(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("User \"")?;
    let (user, _) = rest.split_once('"')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@:+/=#".contains(&byte);
    (!user.is_empty() && user.bytes().all(is_plain)).then_some(user)
}

/// A step of the watch, for logs and metrics.
#[derive(Clone, Copy, Debug)]
pub enum Step<'error> {
    /// The API server has listed the pod, or reported that it does not exist.
    Listed,
    /// A watch starts again after an earlier one ended or failed.
    Restarted,
    /// The API server has accepted a watch, and reports changes from now on.
    Opened,
    /// A failure. The watch continues.
    Failed(&'error Error),
}

/// Watches one pod. It is cheap to clone, and clones share a connection pool.
#[derive(Clone)]
pub struct PodWatch {
    access: Access,
    /// Replaced when the API server rejects the token, so that the token is read again.
    client: Arc<Mutex<Client>>,
    namespace: String,
    name: String,
    silence: Duration,
    spread: Duration,
    hurry: Option<watch::Receiver<bool>>,
}

impl PodWatch {
    /// Creates a client without sending anything. Without a namespace, that of the kubeconfig is
    /// used.
    ///
    /// # Errors
    /// The kubeconfig, the address, the CA or the client certificate can't be used.
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

    /// The pod's namespace, as given or from the kubeconfig.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Checks a watch after this time without news, instead of 75 s.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// After a watch broke off, waits a random time between zero and this, instead of 35 s. With
    /// zero, only the backoff applies: at most half a second for the first time.
    #[must_use]
    pub fn with_spread(self, spread: Duration) -> Self {
        Self { spread, ..self }
    }

    /// When the value becomes true, news is urgent: the current wait ends, and later reconnects are
    /// not spread.
    #[must_use]
    pub fn with_hurry(self, hurry: watch::Receiver<bool>) -> Self {
        Self {
            hurry: Some(hurry),
            ..self
        }
    }

    /// Looks at the pod directly, without any cache. `None` if no pod of that name exists.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond within `limit`.
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

    /// Counts the pods of the same Job that failed before this one. `None` if the count is unknown.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn retries(&self, job: &JobPod) -> Result<Option<i32>, Error> {
        match timeout(REQUEST, listed::retries(&self.client(), &self.namespace, job)).await {
            Ok(answer) => answer.map_err(|error| self.failure("list", error)),
            Err(_) => Err(self.timeout("list", REQUEST)),
        }
    }

    /// Gets the pod. `None` if no pod of that name exists.
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

    /// Builds requests for the namespace's pods.
    fn pods(&self) -> Request {
        Request::new(pods_in(Some(&self.namespace)))
    }

    /// Creates a new client. The client reads a rotated token by itself, but only once a minute,
    /// and does not report what is wrong with an unreadable token.
    async fn sign_in_again(&self) -> Result<(), Error> {
        let client = reach(&self.access).await?.client;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Watches until the pod is gone or the receiver is closed. Reports each step to `on_step`.
    /// Failures do not end the watch.
    ///
    /// `uid` is the pod's own. Without it, the first pod of that name is ours.
    pub async fn run(
        self,
        mut uid: Option<String>,
        sightings: mpsc::Sender<Sighting>,
        mut rng: fastrand::Rng,
        on_step: impl Fn(Step<'_>),
    ) {
        let mut reconnect = Reconnect::new(self.spread);
        // The API server may answer the first list from its cache, because ten thousand copies that
        // start together should not reach etcd. After an expired watch it may not, because the
        // cache could show a state that is older than what we have seen.
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
                    reconnect.answered();
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
                        .follow(at, &mut uid, &sightings, &mut rng, &mut reconnect, &on_step)
                        .await
                    {
                        Next::ListAgain(wait) => wait,
                        Next::Stop => return,
                    }
                }
                Ok((None, _)) => {
                    // If we have never seen the pod, the receiver decides what to believe, and we
                    // look again.
                    if sightings.send(Sighting::Gone(None)).await.is_err() || seen {
                        return;
                    }
                    reconnect.after_answer(&mut rng)
                }
                Err(failure) => self.failed(&failure, &mut reconnect, &mut rng, &on_step).await,
            };
            self.pause(wait, &mut reconnect, &sightings).await;
            if sightings.is_closed() {
                return;
            }
        }
    }

    /// Reports a failure, reads a rejected token again, and returns the wait.
    async fn failed(
        &self,
        failure: &Error,
        reconnect: &mut Reconnect,
        rng: &mut fastrand::Rng,
        on_step: &impl Fn(Step<'_>),
    ) -> Duration {
        on_step(Step::Failed(failure));
        if failure.status() == Some(401)
            && let Err(failure) = self.sign_in_again().await
        {
            on_step(Step::Failed(&failure));
        }
        reconnect.after_failure(failure, rng)
    }

    /// Waits until the time is over, news becomes urgent, or the receiver is closed.
    async fn pause(&self, wait: Duration, reconnect: &mut Reconnect, sightings: &mpsc::Sender<Sighting>) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = sightings.closed() => {}
            () = hurried(self.hurry.clone()), if !reconnect.is_hurried() => reconnect.hurry(),
        }
    }

    /// Follows watches from a position until a new list is needed.
    async fn follow(
        &self,
        mut at: Position,
        uid: &mut Option<String>,
        sightings: &mpsc::Sender<Sighting>,
        rng: &mut fastrand::Rng,
        reconnect: &mut Reconnect,
        on_step: &impl Fn(Step<'_>),
    ) -> Next {
        loop {
            let lasts = rng.u32(WATCH_SECONDS);
            let asked = Instant::now();
            let (ended, open_for) = match self.open(&at, lasts).await {
                Ok(stream) => {
                    reconnect.opened();
                    on_step(Step::Opened);
                    let opened = Instant::now();
                    let ended = self.read(stream, &mut at, uid, sightings).await;
                    (ended, opened.elapsed())
                }
                Err(ended) => (ended, Duration::ZERO),
            };
            let short = open_for < SHORT_WATCH;
            if !short {
                reconnect.settled();
            }
            let failure = match ended {
                Ended::Over if asked.elapsed() + CLOCKS >= Duration::from_secs(lasts.into()) => {
                    // The watch ended at the requested time. It has reported everything until now,
                    // and the next watch need not wait, because the times are spread.
                    if sightings.send(Sighting::Confirmed).await.is_err() {
                        return Next::Stop;
                    }
                    on_step(Step::Restarted);
                    continue;
                }
                // An API server that shuts down cleanly also ends all of its watches like this, and
                // kube does not distinguish that from a broken connection.
                Ended::Over => self.error("watch", kube::Error::ReadEvents(before_its_time())),
                Ended::Expired if !short => return Next::ListAgain(reconnect.after_expiry(rng)),
                Ended::Expired | Ended::Doubtful => return Next::ListAgain(reconnect.after_answer(rng)),
                Ended::Failed(failure) => failure,
                Ended::Stop => return Next::Stop,
            };
            let wait = self.failed(&failure, reconnect, rng, on_step).await;
            // The API server may refuse a watch because of its resourceVersion. Only a list can
            // show that.
            if !failure.is_broken_off() {
                return Next::ListAgain(wait);
            }
            self.pause(wait, reconnect, sightings).await;
            if sightings.is_closed() {
                return Next::Stop;
            }
            on_step(Step::Restarted);
        }
    }

    /// Opens a watch that lasts this number of seconds.
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
                    // The watch is idle, not dead.
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

    /// Checks without the watch whether it missed anything. Any cache may answer. If it shows the
    /// known state, that is enough. If it differs, it may be ahead or behind, so a new list is
    /// needed.
    async fn has_changed(&self, at: &Position, uid: &mut Option<String>) -> Result<bool, Error> {
        let Ok(answer) = timeout(SAFETY_LOOK, self.get(&GetParams::any())).await else {
            return Err(self.timeout("get", SAFETY_LOOK));
        };
        Ok(match answer? {
            Some(pod) => !is_ours(&pod, uid) || pod.metadata.resource_version != at.pod_version,
            None => true,
        })
    }

    /// Returns our pod, if it exists, and the resourceVersion to watch from. Absence or another UID
    /// must be confirmed by a direct look, because the list may come from a stale cache.
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

    /// Classifies the end of a watch.
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
                "the API server rejects the service account's token; heartbeats continue without container states"
            }
            Some(403) => {
                "forbidden; the service account needs a Role with get, list and watch on pods; heartbeats \
                 continue without container states"
            }
            Some(404) => "not found; check POD_NAME and POD_NAMESPACE",
            Some(_) => "the API server refused; retrying",
            None if matches!(source, kube::Error::SerdeError(_)) => {
                "the API server's answer is invalid; heartbeats continue without container states"
            }
            None => "the API server is unreachable, or the connection closed early; retrying",
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
    /// The resourceVersion of the pod when it was last seen.
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
    /// Wait this long, then list again.
    ListAgain(Duration),
    Stop,
}

enum Ended {
    /// The stream ended: the server or the connection ended it.
    Over,
    /// The resourceVersion has expired, so a new list is needed.
    Expired,
    /// The watch showed a pod that is not ours, or missed something, so a new list is needed.
    Doubtful,
    Failed(Error),
    Stop,
}

/// Whether this is the watched pod. If no UID was given, the first pod is.
fn is_ours(pod: &Pod, uid: &mut Option<String>) -> bool {
    match uid {
        Some(uid) => pod.metadata.uid.as_ref() == Some(uid),
        None => {
            uid.clone_from(&pod.metadata.uid);
            true
        }
    }
}

/// Returns when the value becomes true. Never returns if the sender is gone.
async fn hurried(hurry: Option<watch::Receiver<bool>>) {
    if let Some(mut hurry) = hurry
        && hurry.wait_for(|hurry| *hurry).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn before_its_time() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the watch ended early")
}

/// Whether the connection closed early. The resourceVersion may still be valid then.
fn is_broken_off(error: &kube::Error) -> bool {
    matches!(
        error,
        kube::Error::ReadEvents(_) | kube::Error::HyperError(_) | kube::Error::Service(_)
    )
}

/// A client of the API server, and the way to it.
pub(super) struct Reached {
    pub(super) client: Client,
    /// The namespace of pods for which none is given.
    pub(super) namespace: String,
    pub(super) route: Route,
}

/// The path of the pods in a namespace, or in all namespaces.
pub(super) fn pods_in(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        None => "/api/v1/pods".to_owned(),
    }
}

/// Creates a client without sending anything.
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
