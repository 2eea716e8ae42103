//! A stand-in for the Kubernetes API. It answers get, list and watch of pods, Jobs, Secrets and
//! events, create and delete, and questions about the API server itself, as kube-apiserver does. It
//! deletes the objects that a deleted one owns.

mod answer;
mod objects;
mod request;
mod watches;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::objects::now;
pub use self::objects::{Event, Kind};
use self::objects::{Key, State};
use crate::fault::Faults;
use crate::pki::Authority;
use crate::serve::{Bound, Server};
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
    /// `pods`, `jobs`, `secrets` or `events`. Empty for questions about the API server itself.
    pub resource: &'static str,
    /// `get`, `list`, `watch`, `create` or `delete`.
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
            state: Mutex::new(State::new(options)),
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

    /// Creates or changes an object: a pod, unless its kind says otherwise. The stand-in sets the
    /// resourceVersion; and the namespace, UID and creation time if they are missing.
    pub fn apply(&self, object: Value) {
        self.shared.state().apply(object);
        self.shared.changed();
    }

    /// An object.
    #[must_use]
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let key = Key::new(kind, namespace, name);
        self.shared.state().get(&key).cloned()
    }

    /// All objects of a kind.
    #[must_use]
    pub fn all(&self, kind: Kind) -> Vec<Value> {
        self.shared.state().all(kind).cloned().collect()
    }

    /// The changes after a version that are still in the history.
    #[must_use]
    pub fn changes_since(&self, version: u64) -> Vec<Arc<Event>> {
        let state = self.shared.state();
        let events = &state.history;
        let known = events.partition_point(|event| event.version <= version);
        events.range(known..).cloned().collect()
    }

    /// Counts what happens, for callers that wait for it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Changes an existing pod. Does nothing if it doesn't exist.
    pub fn change(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.change_object(Kind::Pod, namespace, name, change);
    }

    /// Changes an existing object. Does nothing if it doesn't exist.
    pub fn change_object(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut state = self.shared.state();
        let found = state.get(&Key::new(kind, namespace, name)).cloned();
        if let Some(mut object) = found {
            change(&mut object);
            state.apply(object);
        }
        drop(state);
        self.shared.changed();
    }

    /// Removes a pod. Does nothing if it doesn't exist.
    pub fn delete(&self, namespace: &str, name: &str) {
        self.remove(Kind::Pod, namespace, name);
    }

    /// Removes an object, and deletes those that it owns. Does nothing if it doesn't exist.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        self.shared.state().remove(&Key::new(kind, namespace, name));
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
        self.shared.state().compact();
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

    fn saw(
        &self,
        (resource, verb): (&'static str, &'static str),
        query: &str,
        status: Option<u16>,
    ) {
        let at = self.started.elapsed();
        self.state().seen.push(Seen {
            at,
            resource,
            verb,
            query: query.to_owned(),
            status,
        });
        self.changed();
    }
}
