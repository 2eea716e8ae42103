//! The watch of one pod with kube's client (list, watch, resume, list again), and the direct look.
//!
//! Only this module, `listed`, `ask`, `transport` and `kubeconfig` use kube's client. podbeat has
//! its own loop instead of kube's watcher, because the loop must distinguish a dead watch from an
//! idle one with the server's bookmarks, distinguish absence from a stale cache, and spread its
//! reconnects.

#[cfg(test)]
mod outage;
mod pod_event;
mod reconnect;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use kube::Client;
use kube::api::{GetParams, ListParams, VersionMatch, WatchParams};
use kube::core::Request;
use podbeat_heartbeat::observation::JobPod;
use reconnect::Reconnect;
pub use reconnect::SPREAD;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::access::{Access, pods_in, reach};
use super::answer;
use super::error::Error;
use super::listed;
use super::resource::Pod;
pub use pod_event::PodEvent;

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

/// The range, in seconds, from which the duration of a watch is drawn, so that copies that started
/// together do not reconnect together. kube refuses 295 and more.
const WATCH_SECONDS: std::ops::Range<u32> = 230..290;

/// A watch that was open for less than this does not reset the backoff.
const SHORT_WATCH: Duration = Duration::from_secs(5);

/// How much faster than ours the API server's clock may run during one watch.
const CLOCKS: Duration = Duration::from_secs(1);

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
            Err(_) => Err(self.timeout("getting", limit)),
        }
    }

    /// Counts the pods of the same Job that failed before this one. `None` if the count is unknown.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn retries(&self, job: &JobPod) -> Result<Option<i32>, Error> {
        match timeout(
            REQUEST,
            listed::retries(&self.client(), &self.namespace, job),
        )
        .await
        {
            Ok(answer) => answer.map_err(|error| self.failure("listing", error)),
            Err(_) => Err(self.timeout("listing", REQUEST)),
        }
    }

    /// Gets the pod. `None` if no pod of that name exists.
    async fn get(&self, params: &GetParams) -> Result<Option<Pod>, Error> {
        let answer = async {
            let request = self.pods().get(&self.name, params);
            answer::object(&self.client(), request?).await
        };
        match answer.await {
            Ok(pod) => Ok(Some(pod)),
            Err(answer::Error::Refused(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.failure("getting", error)),
        }
    }

    fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        pod_events: mpsc::Sender<PodEvent>,
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
                    if pod_events
                        .send(PodEvent::Seen(Box::new(pod)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    if std::mem::replace(&mut watched, true) {
                        on_step(Step::Restarted);
                    }
                    match self
                        .follow(
                            at,
                            &mut uid,
                            &pod_events,
                            &mut rng,
                            &mut reconnect,
                            &on_step,
                        )
                        .await
                    {
                        Next::ListAgain(wait) => wait,
                        Next::Stop => return,
                    }
                }
                Ok((None, _)) => {
                    // If we have never seen the pod, the receiver decides what to believe, and we
                    // look again.
                    if pod_events.send(PodEvent::Gone(None)).await.is_err() || seen {
                        return;
                    }
                    reconnect.after_answer(&mut rng)
                }
                Err(failure) => {
                    self.failed(&failure, &mut reconnect, &mut rng, &on_step)
                        .await
                }
            };
            self.pause(wait, &mut reconnect, &pod_events).await;
            if pod_events.is_closed() {
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
    async fn pause(
        &self,
        wait: Duration,
        reconnect: &mut Reconnect,
        pod_events: &mpsc::Sender<PodEvent>,
    ) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = pod_events.closed() => {}
            () = hurried(self.hurry.clone()), if !reconnect.is_hurried() => reconnect.hurry(),
        }
    }

    /// Follows watches from a position until a new list is needed.
    async fn follow(
        &self,
        mut at: Position,
        uid: &mut Option<String>,
        pod_events: &mpsc::Sender<PodEvent>,
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
                    let ended = self.read(stream, &mut at, uid, pod_events).await;
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
                    if pod_events.send(PodEvent::Confirmed).await.is_err() {
                        return Next::Stop;
                    }
                    on_step(Step::Restarted);
                    continue;
                }
                // An API server that shuts down cleanly also ends all of its watches like this, and
                // kube does not distinguish that from a broken connection.
                Ended::Over => {
                    self.failure("watching", answer::Error::Broken(before_its_time().into()))
                }
                Ended::Expired if !short => return Next::ListAgain(reconnect.after_expiry(rng)),
                Ended::Expired | Ended::Doubtful => {
                    return Next::ListAgain(reconnect.after_answer(rng));
                }
                Ended::Failed(failure) => failure,
                Ended::Stop => return Next::Stop,
            };
            let wait = self.failed(&failure, reconnect, rng, on_step).await;
            // The API server may refuse a watch because of its resourceVersion. Only a list can
            // show that.
            if !failure.is_broken_off() {
                return Next::ListAgain(wait);
            }
            self.pause(wait, reconnect, pod_events).await;
            if pod_events.is_closed() {
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
            answer::watch(&self.client(), request?).await
        };
        match timeout(REQUEST, opened).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.ended(error)),
            Err(_) => Err(Ended::Failed(self.timeout("watching", REQUEST))),
        }
    }

    async fn read(
        &self,
        stream: impl Stream<Item = Result<answer::Event, answer::Error>>,
        at: &mut Position,
        uid: &mut Option<String>,
        pod_events: &mpsc::Sender<PodEvent>,
    ) -> Ended {
        pin_mut!(stream);
        loop {
            let next = tokio::select! {
                next = timeout(self.silence, stream.next()) => next,
                () = pod_events.closed() => return Ended::Stop,
            };
            let pod_event = match next {
                Err(_) => match self.has_changed(at, uid).await {
                    // The watch is idle, not dead.
                    Ok(false) => PodEvent::Confirmed,
                    Ok(true) => return Ended::Doubtful,
                    Err(failure) => return Ended::Failed(failure),
                },
                Ok(None) => return Ended::Over,
                Ok(Some(Err(error))) => return self.ended(error),
                Ok(Some(Ok(answer::Event::Refused(status)))) => {
                    return self.ended(answer::Error::Refused(status));
                }
                Ok(Some(Ok(answer::Event::Bookmark(version)))) => {
                    at.version = version;
                    PodEvent::Confirmed
                }
                Ok(Some(Ok(answer::Event::Shown(pod)))) => {
                    at.advance(&pod);
                    if !is_ours(&pod, uid) {
                        return Ended::Doubtful;
                    }
                    PodEvent::Seen(pod)
                }
                Ok(Some(Ok(answer::Event::Deleted(pod)))) => {
                    at.advance(&pod);
                    if !is_ours(&pod, uid) {
                        continue;
                    }
                    PodEvent::Gone(Some(pod))
                }
            };
            let gone = matches!(pod_event, PodEvent::Gone(_));
            if pod_events.send(pod_event).await.is_err() || gone {
                return Ended::Stop;
            }
        }
    }

    /// Checks without the watch whether it missed anything. Any cache may answer. If it shows the
    /// known state, that is enough. If it differs, it may be ahead or behind, so a new list is
    /// needed.
    async fn has_changed(&self, at: &Position, uid: &mut Option<String>) -> Result<bool, Error> {
        let Ok(answer) = timeout(SAFETY_LOOK, self.get(&GetParams::any())).await else {
            return Err(self.timeout("getting", SAFETY_LOOK));
        };
        Ok(match answer? {
            Some(pod) => !is_ours(&pod, uid) || pod.metadata.resource_version != at.pod_version,
            None => true,
        })
    }

    /// Returns our pod, if it exists, and the resourceVersion to watch from. Absence or another UID
    /// must be confirmed by a direct look, because the list may come from a stale cache.
    async fn list(
        &self,
        from_cache: bool,
        uid: &mut Option<String>,
    ) -> Result<(Option<Pod>, String), Error> {
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
            let request = self.pods().list(&params)?;
            answer::list(&self.client(), request, answer::LARGEST, &mut first).await
        };
        let list = match timeout(REQUEST, listed).await {
            Ok(list) => list.map_err(|error| self.failure("listing", error))?,
            Err(_) => return Err(self.timeout("listing", REQUEST)),
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
        match self.failure("watching", error) {
            failure if failure.status() == Some(410) => Ended::Expired,
            failure => Ended::Failed(failure),
        }
    }

    fn failure(&self, verb: &'static str, error: answer::Error) -> Error {
        Error::of(self.request(verb), Some(&self.namespace), error)
    }

    fn timeout(&self, verb: &'static str, after: Duration) -> Error {
        Error::Timeout {
            request: self.request(verb),
            after,
        }
    }

    /// The request, for an error message.
    fn request(&self, verb: &'static str) -> String {
        format!("{verb} pod {}/{}", self.namespace, self.name)
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
