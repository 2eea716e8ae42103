//! The real service in the test's process, with its page.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podbeat_runs::{Moment, Rules};
use podbeat_server::api::Api;
use podbeat_server::keys::Keys;
use podbeat_server::page;
use podbeat_server::serve::Server;
use podbeat_server::service::{Clock, Options, Service};
use podbeat_server::store::{Role, Sqlite, Store};
use podbeat_server::tokens;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::driver::{Browser, LIMIT};
use crate::harness;

struct Real(tokio::time::Instant);

impl Clock for Real {
    fn now(&self) -> Moment {
        Moment {
            wall: jiff::Timestamp::now(),
            elapsed: self.0.elapsed(),
        }
    }
}

pub(crate) struct Played {
    server: Server,
    timing: JoinHandle<()>,
    store: Arc<Sqlite>,
    pub(crate) url: String,
    /// The token of a user with the role admin.
    pub(crate) token: String,
    client: Client,
    /// Removed at the end, if it is only for this service.
    #[allow(dead_code, reason = "it is kept for its end")]
    directory: Option<tempfile::TempDir>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.timing.abort();
    }
}

impl Played {
    /// A service with a new store. Runs time out after this time.
    pub(crate) async fn start(heartbeat_timeout: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let any = ([127, 0, 0, 1], 0).into();
        let mut played = Self::at(any, directory.path(), heartbeat_timeout).await;
        played.directory = Some(directory);
        played
    }

    /// A service with the store in this directory.
    pub(crate) async fn at(
        address: SocketAddr,
        directory: &Path,
        heartbeat_timeout: Duration,
    ) -> Played {
        let store = Sqlite::open(&directory.join("runs.db")).expect("a store");
        let store = Arc::new(store);
        let keys = Keys::load(&directory.join("key")).expect("keys");
        let clock = Arc::new(Real(tokio::time::Instant::now()));
        let rules = Rules {
            heartbeat_timeout,
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(900),
            ..Rules::DEFAULT
        };
        let api = Arc::new(Api::new(""));
        let router = page::router(Arc::clone(&api)).merge(Arc::clone(&api).router());
        let server = Server::start(address, None, router)
            .await
            .expect("a server");
        let url = format!("http://{}", server.address());
        let options = Options {
            rules,
            url: url.clone(),
            token_lifetime: Duration::from_secs(3600),
            live_runs: 1000,
            creates_per_minute: 1000,
            retention: Duration::from_secs(3600),
            retained_runs: 1000,
            launch: None,
        };
        let service = Service::start(store.clone(), keys, clock, options).await;
        let service = Arc::new(service.expect("a service"));
        api.serve(Arc::clone(&service));
        let timing = tokio::spawn(async move { service.keep_time().await });
        let mut played = Self {
            server,
            timing,
            store,
            url,
            token: String::new(),
            client: harness::client().timeout(LIMIT).build().expect("a client"),
            directory: None,
        };
        played.token = played.token(Role::Admin).await;
        played
    }

    pub(crate) async fn token(&self, role: Role) -> String {
        let token = tokens::create("lab", "alice", role, jiff::Timestamp::now(), None);
        let token = token.expect("a token");
        self.store.add_token(token.token).await.expect("stored");
        token.text.expose().to_owned()
    }

    /// Ends it at once. Returns its address.
    pub(crate) fn kill(self) -> SocketAddr {
        self.server.address()
    }

    async fn operate(&self, method: reqwest::Method, rest: &str, body: &Value) -> Value {
        let address = format!("{}/v1/tasks/runs{rest}", self.url);
        let request = self
            .client
            .request(method, address)
            .bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        let response = request
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
    }

    pub(crate) async fn run(&self, name: &str) -> String {
        let request = json!({"name": name, "description": name, "execution": {
            "retryLimit": 0, "image": {"name": "registry/align:1"}}});
        let created = self.operate(reqwest::Method::POST, "", &request).await;
        created["id"].as_str().expect("an ID").to_owned()
    }

    pub(crate) async fn beat(&self, id: &str, body: &Value) {
        let rest = format!("/{id}:heartbeat");
        self.operate(reqwest::Method::POST, &rest, body).await;
    }

    /// Creates runs with every status that a client can cause at once.
    pub(crate) async fn some_runs(&self) -> Vec<String> {
        let exit = |code: i32, reason: &str| {
            let exit = json!({"reason": reason, "exitCode": code});
            json!([{"name": "main", "state": {"terminated": exit}}])
        };
        let mut ids = Vec::new();
        for name in [
            "align-reads",
            "call-variants",
            "annotate",
            "merge-lanes",
            "qc-report",
        ] {
            ids.push(self.run(name).await);
        }
        let running = json!([{"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}},
                             {"name": "helper", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let beat = |nonce: String| {
            json!({"nonce": nonce, "jobRetryCount": 0, "podName": "align-7f3a-x2x4k", "podHardwareDetails": "node=n1",
                   "podUID": "6f1c2d0e-55aa-4b0e-9f0e-2a41c1d9e7b3"})
        };
        for id in &ids[..3] {
            for nth in 0..3 {
                let mut body = beat(format!("5f0c-{nth}"));
                body["containerStatus"] = running.clone();
                self.beat(id, &body).await;
            }
        }
        for (id, code, reason) in [(&ids[1], 0, "Completed"), (&ids[2], 137, "OOMKilled")] {
            let mut body = beat("5f0c-9".to_owned());
            body["lastHeartbeat"] = true.into();
            body["containerStatus"] = exit(code, reason);
            self.beat(id, &body).await;
        }
        let rest = format!("/{}:abort", ids[3]);
        self.operate(reqwest::Method::PUT, &rest, &Value::Null)
            .await;
        ids
    }

    /// Signs in, as a person does, and shows the page with this address.
    pub(crate) async fn sign_in(&self, browser: &Browser, token: &str, path: &str) {
        browser.open(&format!("{}{path}", self.url)).await;
        browser
            .until("the form", "document.querySelector('#token')")
            .await;
        browser
            .get("document.querySelector('#token').focus()")
            .await;
        browser.press(&format!("{token}\u{e007}")).await;
        browser
            .until("signed in", "document.querySelector('.session')")
            .await;
    }
}
