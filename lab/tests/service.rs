//! The stand-in service over HTTP: the layer around the service, and every answer checked against
//! the contract. What the service decides is tested in crates/server.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::service::{Options, Service};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness;

const TOKEN: &str = "a-token";

/// A service and its client.
struct Played {
    service: Service,
    faults: Faults,
    client: Client,
    contract: Contract,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

fn client() -> Client {
    harness::client()
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

impl Played {
    /// A service without runs.
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        Self::knowing(BTreeSet::new(), options).await
    }

    /// A service with these runs.
    async fn knowing(runs: impl Into<Option<BTreeSet<String>>>, options: Options) -> Self {
        let options = Options {
            tokens: BTreeSet::from([TOKEN.to_owned()]),
            runs: runs.into(),
            ..options
        };
        let contract = Contract::load().expect("the contract");
        let faults = Faults::default();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let service =
            Service::start_plain(loopback, contract.clone(), faults.clone(), options).await;
        Self {
            service: service.expect("a service"),
            faults,
            client: client(),
            contract,
        }
    }

    fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        self.client.request(
            method,
            format!("{}/v1/tasks/runs{rest}", self.service.url()),
        )
    }

    /// Sends a request, and checks the answer against the contract's schema for its status.
    async fn send(&self, request: RequestBuilder, schema: &str) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.expect("a body");
        let body: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(headers["content-type"], "application/json");
        let schema = if status < 300 {
            schema
        } else {
            "ErrorResponse"
        };
        assert_eq!(
            self.contract.check(schema, &body),
            Vec::<String>::new(),
            "{body}"
        );
        if status >= 300 {
            for member in ["code", "message"] {
                assert!(
                    body[member].as_str().is_some_and(|text| !text.is_empty()),
                    "{body}"
                );
            }
        }
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn create(&self, body: &Value) -> Answer {
        let request = self.request(Method::POST, "").bearer_auth(TOKEN).json(body);
        self.send(request, "TaskRun").await
    }

    /// Creates a run with this name, and returns its id.
    async fn run(&self, name: &str) -> String {
        let created = self.create(&json!({"name": name})).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.body["id"].as_str().expect("an id").to_owned()
    }

    async fn get(&self, id: &str) -> Answer {
        let request = self
            .request(Method::GET, &format!("/{id}"))
            .bearer_auth(TOKEN);
        self.send(request, "TaskRun").await
    }

    async fn list(&self, query: &str) -> Answer {
        let request = self.request(Method::GET, query).bearer_auth(TOKEN);
        self.send(request, "TaskRunSummaryPagedItems").await
    }

    async fn beat(&self, id: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, &format!("/{id}:heartbeat"));
        self.send(request.bearer_auth(TOKEN).json(body), "TaskRunHeartbeat")
            .await
    }

    async fn abort(&self, id: &str) -> Answer {
        let request = self
            .request(Method::PUT, &format!("/{id}:abort"))
            .bearer_auth(TOKEN);
        self.send(request, "TaskRunSummary").await
    }

    async fn status(&self, id: &str) -> String {
        self.get(id).await.body["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }
}

#[tokio::test]
async fn every_answer_satisfies_the_contract() {
    let played = Played::start().await;
    let execution = json!({
        "image": {"name": "tool", "tag": "1", "digest": "sha256:0"},
        "command": "run", "args": ["-x"], "workingDirectory": "/w", "retryLimit": 3, "retryCount": 0,
        "inputs": [{"path": "/in", "url": "gds://v/in", "mode": "download", "type": "File", "storageProvider": "s"}],
        "outputs": [{"path": "/out", "url": "gds://v/out", "serviceUrl": "s"}],
        "systemFiles": {"url": "gds://v/sys"},
        "environment": {
            "resources": {"type": "standard", "size": "small", "tier": "economy", "cpuCores": 1.5, "memoryGb": 2.0, "hardware": ["gpu"]},
            "inputStreamSettings": {"accessPattern": "random", "cacheSizeGB": 50, "blockSizeMB": 0.5, "prefetchBlocks": 2}}});
    let asked = json!({"name": "n", "description": "d", "acl": ["tid:1"], "execution": execution});
    let created = played.create(&asked).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body["execution"], execution);
    let href = created.body["href"].as_str().expect("a link");
    let followed = played.client.get(href).bearer_auth(TOKEN);
    let got = played.send(followed, "TaskRun").await;
    assert_eq!((got.status, &got.body), (200, &created.body));
    let id = created.body["id"].as_str().expect("an id");
    let beat =
        json!({"jobRetryCount": 1, "podName": "p", "podUID": "u", "podHardwareDetails": "h"});
    assert_eq!(played.beat(id, &beat).await.body, json!({}), "no token");
    let listed = played.list("?pageSize=1").await;
    assert_eq!(
        (listed.status, &listed.body["items"][0]["id"]),
        (200, &json!(id))
    );
    let aborted = played.abort(id).await;
    assert_eq!(
        (aborted.status, &aborted.body["status"]),
        (200, &json!("Aborted"))
    );
    assert_eq!(
        played.get(id).await.body["logs"][0]["error"],
        "aborted by lab-client"
    );
    assert_eq!(
        played.service.status(id).await.expect("read"),
        Some("Aborted")
    );
    assert_eq!(played.service.status("trn.0").await.expect("read"), None);
    for (refused, status) in [
        (played.beat(id, &json!({})).await, 409),
        (played.abort(id).await, 409),
        (played.get("trn.0").await, 404),
        (played.beat("trn.0", &json!({})).await, 404),
        (played.list("?pageSize=0").await, 400),
        (played.create(&json!({"nmae": "n"})).await, 400),
        (played.create(&json!([])).await, 400),
        (
            played
                .create(&json!({"description": "x".repeat(1 << 20)}))
                .await,
            413,
        ),
    ] {
        assert_eq!(refused.status, status, "{refused:?}");
    }
    let wrong_method = played.request(Method::DELETE, "").bearer_auth(TOKEN);
    assert_eq!(played.send(wrong_method, "TaskRun").await.status, 405);
}

#[tokio::test]
async fn only_the_tokens_of_the_options_are_accepted() {
    let played = Played::start().await;
    let id = played.run("n").await;
    let refused = async |played: &Played| {
        for (method, rest) in [
            (Method::POST, String::new()),
            (Method::GET, String::new()),
            (Method::GET, format!("/{id}")),
            (Method::POST, format!("/{id}:heartbeat")),
            (Method::PUT, format!("/{id}:abort")),
        ] {
            for authorization in [
                None,
                Some("Bearer x"),
                Some("Basic a-token"),
                Some("Bearer a-token"),
            ] {
                let mut request = played.request(method.clone(), &rest);
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                // Also if the body is wrong.
                let request = request.json(&json!({"nmae": "n"}));
                let refused = played.send(request, "TaskRun").await;
                assert_eq!(refused.status, 401, "{method} {rest} {authorization:?}");
                assert_eq!(refused.headers["www-authenticate"], "Bearer");
            }
        }
    };
    played.service.set_tokens(&["other"]);
    refused(&played).await;
    played.service.set_tokens(&[TOKEN, "other"]);
    assert_eq!(played.status(&id).await, "Pending");
}

#[tokio::test]
async fn only_heartbeats_create_unknown_runs_and_only_valid_ones() {
    let played = Played::knowing(None, Options::default()).await;
    let status = async || played.service.status("trn.new").await.expect("read");
    assert_eq!(played.get("trn.new").await.status, 404);
    assert_eq!(played.abort("trn.new").await.status, 404);
    assert_eq!(
        played.beat("trn.new", &json!({"nmae": "n"})).await.status,
        400
    );
    played.faults.script("heartbeat 503").expect("a rule");
    assert_eq!(played.beat("trn.new", &json!({})).await.status, 503);
    played.service.set_tokens(&["other"]);
    assert_eq!(played.beat("trn.new", &json!({})).await.status, 401);
    played.service.set_tokens(&[TOKEN]);
    let long = "x".repeat(300);
    assert_eq!(played.beat(&long, &json!({})).await.status, 404);
    assert_eq!(played.service.status(&long).await.expect("read"), None);
    assert_eq!(status().await, None);
    assert_eq!(played.beat("trn.new", &json!({})).await.status, 200);
    assert_eq!(status().await, Some("Running"));
    assert_eq!(played.service.heartbeats().len(), 4);
    assert_eq!(played.service.count("trn.new").accepted, 1);
}

#[tokio::test]
async fn a_token_of_a_run_is_given_if_asked_for_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = || Options {
        data: Some(dir.path().join("runs.sqlite")),
        renew_tokens: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let played = Played::with(options()).await;
    let (own, other) = (played.run("own").await, played.run("other").await);
    let beat = played.beat(&own, &json!({"podUID": "u"})).await;
    let token = beat.body["jwt"].as_str().expect("a token").to_owned();
    let before = played.get(&own).await.body;
    drop(played);

    let played = Played::with(options()).await;
    let mut after = played.get(&own).await.body;
    // The restarted service has another port.
    after["href"] = before["href"].clone();
    assert_eq!(after, before);
    let with = async |method: Method, rest: &str, schema: &str| {
        let request = played.request(method, rest).bearer_auth(&token);
        played.send(request, schema).await.status
    };
    let heartbeat = |id: &str| format!("/{id}:heartbeat");
    assert_eq!(
        with(Method::POST, &heartbeat(&own), "TaskRunHeartbeat").await,
        200
    );
    assert_eq!(with(Method::GET, &format!("/{own}"), "TaskRun").await, 200);
    assert_eq!(
        with(Method::POST, &heartbeat(&other), "TaskRunHeartbeat").await,
        403
    );
    let wrong = played
        .request(Method::POST, &heartbeat(&own))
        .bearer_auth(&token);
    let wrong = wrong.json(&json!({"nmae": "n"}));
    assert_eq!(played.send(wrong, "TaskRunHeartbeat").await.status, 400);
}

#[tokio::test]
async fn a_nonce_that_was_issued_must_be_sent() {
    let played = Played::start().await;
    let id = played.run("n").await;
    let issued = played.service.issue_nonce(&id, 0, "issued").await;
    issued.expect("issued");
    assert_eq!(played.status(&id).await, "CheckedOut");
    for (body, status) in [
        (json!({"nonce": "other"}), 409),
        (json!({}), 409),
        (json!({"nonce": "issued"}), 200),
    ] {
        assert_eq!(played.beat(&id, &body).await.status, status, "{body}");
    }
    assert!(played.service.issue_nonce("trn.0", 0, "n").await.is_err());
}

#[tokio::test]
async fn an_explicit_null_is_absent() {
    let played = Played::start().await;
    let nulls = json!({"name": null, "acl": null, "execution": {"image": null, "retryLimit": null,
        "environment": {"resources": {"type": null, "cpuCores": 1}, "variables": null}}});
    let created = played.create(&nulls).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(
        created.body["execution"],
        json!({"environment": {"resources": {"cpuCores": 1}}})
    );
    assert!(
        !created.body.to_string().contains("null"),
        "{:?}",
        created.body
    );
    let id = created.body["id"].as_str().expect("an id");
    let last = json!({"nonce": null, "jobRetryCount": null, "lastHeartbeat": true, "containerStatus": [
        {"name": "main", "state": {"waiting": null, "running": null, "terminated": {"exitCode": 0, "reason": null}}}]});
    assert_eq!(played.beat(id, &last).await.status, 200);
    assert_eq!(played.status(id).await, "Completed");
}

#[tokio::test]
async fn times_with_any_offset_are_accepted_and_non_utc_times_are_recorded() {
    let played = Played::start().await;
    let id = played.run("n").await;
    let running = |time: &str| json!({"containerStatus": [{"name": "m", "state": {"running": {"startedAt": time}}}]});
    for (time, status) in [
        ("2026-01-01T00:00:00Z", 200),
        ("2026-01-01T01:00:00+01:00", 200),
        ("2026-01-01T00:00:00", 400),
    ] {
        assert_eq!(
            played.beat(&id, &running(time)).await.status,
            status,
            "{time}"
        );
    }
    let violations: Vec<usize> = played
        .service
        .heartbeats()
        .iter()
        .map(|heartbeat| heartbeat.violations.len())
        .collect();
    assert_eq!(violations, [0, 1, 2]);
}

#[tokio::test]
async fn faults_for_any_affect_every_operation() {
    let played = Played::start().await;
    let id = played.run("n").await;
    played
        .faults
        .script("any 503 x3; heartbeat 418")
        .expect("rules");
    assert_eq!(played.list("").await.status, 503);
    assert_eq!(played.abort(&id).await.status, 503);
    assert_eq!(played.get(&id).await.status, 503);
    assert_eq!(
        played.get(&id).await.status,
        200,
        "the other rule is for heartbeats"
    );
    assert_eq!(played.beat(&id, &json!({})).await.status, 418);
}

/// `podbeat-lab service`, and its output.
struct Binary {
    child: Child,
    url: String,
    token: String,
}

impl Binary {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_podbeat-lab"))
            .args(["service", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut told = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut next = |name: &str| -> String {
            let line = told.next().expect("a line").expect("text");
            line.strip_prefix(name).expect(name).trim().to_owned()
        };
        next("the task-run service");
        let (url, token) = (next("url"), next("token"));
        Self { child, url, token }
    }

    async fn create(&self) -> String {
        let request = client()
            .post(format!("{}/v1/tasks/runs", self.url))
            .bearer_auth(&self.token);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 201);
        let body: Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }

    async fn beat(&self, id: &str) -> u16 {
        let request = client()
            .post(format!("{}/v1/tasks/runs/{id}:heartbeat", self.url))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body("{}");
        request.send().await.expect("an answer").status().as_u16()
    }

    async fn get(&self, id: &str) -> u16 {
        let request = client()
            .get(format!("{}/v1/tasks/runs/{id}", self.url))
            .bearer_auth(&self.token);
        request.send().await.expect("an answer").status().as_u16()
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .expect("kill");
        assert!(sent.success());
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_binary_needs_nothing_and_ends_by_a_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("runs.sqlite");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    for signal in ["TERM", "INT"] {
        let binary = Binary::start(&[]);
        let id = binary.create().await;
        assert_eq!(binary.get(&id).await, 200);
        assert_eq!(binary.end(signal), Some(0), "{signal}");
    }
    let binary = Binary::start(&["--data", &text(&data), "--token", "t"]);
    assert_eq!(binary.token, "t");
    let id = binary.create().await;
    assert_eq!(binary.end("KILL"), None);
    let binary = Binary::start(&["--data", &text(&data)]);
    assert_eq!(binary.get(&id).await, 200, "even SIGKILL loses no run");
    assert_ne!(binary.token, "t", "made up");
}

#[tokio::test]
async fn faults_of_the_command_line_take_effect() {
    let binary = Binary::start(&["--faults", "heartbeat 503 after 1 x2"]);
    let id = binary.create().await;
    for expected in [200, 503, 503, 200] {
        assert_eq!(binary.beat(&id).await, expected);
    }
    let binary = Binary::start(&["--faults", "any 500 after 2"]);
    let id = binary.create().await;
    for expected in [200, 500, 200] {
        assert_eq!(binary.get(&id).await, expected);
    }
}
