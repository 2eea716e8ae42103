//! The five operations of the task-run service over HTTP, with a client that knows nothing of the
//! stand-in's internals. Every answer is checked against the contract.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::service::{Limits, Options, Service};
use podbeat_lab::task_runs::clock::Clock;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness;

const TOKEN: &str = "a-token";

/// A service and its client.
struct Played {
    service: Service,
    faults: Faults,
    clock: Clock,
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
        Self::try_with(options).await.expect("a service")
    }

    async fn try_with(options: Options) -> Result<Self, podbeat_lab::Error> {
        let clock = Clock::stopped_at("2026-01-01T00:00:00Z".parse().expect("a time"));
        let options = Options {
            tokens: BTreeSet::from([TOKEN.to_owned()]),
            runs: Some(BTreeSet::new()),
            clock: clock.clone(),
            ..options
        };
        let contract = Contract::load().expect("the contract");
        let faults = Faults::default();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let service =
            Service::start_plain(loopback, contract.clone(), faults.clone(), options).await?;
        Ok(Self {
            service,
            faults,
            clock,
            client: client(),
            contract,
        })
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

/// Sends JSON bodies without reqwest's `json` feature, which nothing else needs.
trait Json {
    fn json(self, body: &Value) -> Self;
}

impl Json for RequestBuilder {
    fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }
}

fn names(listed: &Answer) -> Vec<&str> {
    listed.body["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["name"].as_str().expect("a name"))
        .collect()
}

fn last(codes: &[i32]) -> Value {
    let statuses: Vec<Value> = codes
        .iter()
        .map(|code| json!({"name": "main", "state": {"terminated": {"exitCode": code}}}))
        .collect();
    json!({"lastHeartbeat": true, "nonce": "last", "containerStatus": statuses})
}

#[tokio::test]
async fn a_created_run_is_returned_without_its_credentials() {
    let played = Played::start().await;
    let secret = json!({"username": "u", "password": "hunter2"});
    let execution = json!({
        "image": {"name": "tool", "tag": "1", "digest": "sha256:0"},
        "command": "run", "args": ["-x"], "workingDirectory": "/w", "retryLimit": 3, "retryCount": 0,
        "inputs": [{"path": "/in", "url": "gds://v/in", "mode": "download", "type": "File", "storageProvider": "s"}],
        "outputs": [{"path": "/out", "url": "gds://v/out", "serviceUrl": "s"}],
        "systemFiles": {"url": "gds://v/sys"},
        "environment": {"variables": {"A": "1"},
            "resources": {"type": "standard", "size": "small", "tier": "economy", "cpuCores": 1.5, "memoryGb": 2.0, "hardware": ["gpu"]},
            "inputStreamSettings": {"accessPattern": "random", "cacheSizeGB": 50, "blockSizeMB": 0.5, "prefetchBlocks": 2}}});
    let asked = |execution: &Value| {
        let mut execution = execution.clone();
        execution["image"]["credentials"] = secret.clone();
        execution["inputs"][0]["credentials"] = json!({"key": "hunter2"});
        json!({"name": "n", "description": "d", "acl": ["tid:1"], "execution": execution})
    };
    let created = played.create(&asked(&execution)).await;
    assert_eq!(created.status, 201);
    let got = played
        .get(created.body["id"].as_str().expect("an id"))
        .await;
    assert_eq!((got.status, &got.body), (200, &created.body));
    assert_eq!(got.body["execution"], execution);
    assert!(!got.body.to_string().contains("hunter2"));
    for (member, value) in [
        ("name", "n"),
        ("description", "d"),
        ("status", "Pending"),
        ("typeOfResource", "standard"),
        ("sizeOfResource", "small"),
        ("tierOfResource", "economy"),
        ("timeCreated", "2026-01-01T00:00:00Z"),
        ("timeModified", "2026-01-01T00:00:00Z"),
    ] {
        assert_eq!(got.body[member], value);
    }
    let href = got.body["href"].as_str().expect("a link");
    let followed = played.client.get(href).bearer_auth(TOKEN);
    assert_eq!(played.send(followed, "TaskRun").await.body, got.body);
    assert_eq!(played.get("trn.0").await.status, 404);
}

#[tokio::test]
async fn a_run_goes_from_pending_to_its_end() {
    let played = Played::start().await;
    for (codes, ended) in [
        (&[0][..], "Completed"),
        (&[0, 7], "Failed"),
        (&[], "Failed"),
    ] {
        let id = played.run("n").await;
        assert_eq!(played.status(&id).await, "Pending");
        assert_eq!(
            played.beat(&id, &json!({"nonce": "1"})).await.body,
            json!({})
        );
        assert_eq!(played.status(&id).await, "Running");
        assert_eq!(played.beat(&id, &last(codes)).await.status, 200);
        assert_eq!(
            played.beat(&id, &last(codes)).await.status,
            200,
            "once more"
        );
        let got = played.get(&id).await.body;
        assert_eq!(got["status"], ended);
        assert_eq!(got["logs"][0]["endTime"], "2026-01-01T00:00:00Z");
        let refused = played.abort(&id).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (409, &json!("Conflict"))
        );
        assert_eq!(played.beat(&id, &json!({"nonce": "2"})).await.status, 409);
    }
}

#[tokio::test]
async fn a_pending_or_running_run_can_be_aborted_once() {
    let played = Played::start().await;
    for beats in [false, true] {
        let id = played.run("n").await;
        if beats {
            played.beat(&id, &json!({})).await;
        }
        let aborted = played.abort(&id).await;
        assert_eq!(
            (aborted.status, &aborted.body["status"]),
            (200, &json!("Aborted"))
        );
        assert_eq!(aborted.body.get("execution"), None, "a summary");
        assert_eq!(played.abort(&id).await.status, 409);
        assert_eq!(played.beat(&id, &json!({})).await.status, 409);
    }
    assert_eq!(played.abort("trn.0").await.status, 404);
    assert_eq!(played.beat("trn.0", &json!({})).await.status, 404);
}

#[tokio::test]
async fn a_silent_run_times_out_and_a_lower_retry_count_is_refused() {
    let played = Played::with(Options {
        heartbeat_timeout: Some(Duration::from_secs(60)),
        ..Options::default()
    })
    .await;
    let id = played.run("n").await;
    played.beat(&id, &json!({"jobRetryCount": 1})).await;
    assert_eq!(
        played.beat(&id, &json!({"jobRetryCount": 0})).await.status,
        409
    );
    played.clock.advance(Duration::from_secs(60));
    assert_eq!(played.status(&id).await, "Running");
    played.clock.advance(Duration::from_secs(1));
    assert_eq!(played.status(&id).await, "TimedOut");
    assert_eq!(
        played.beat(&id, &json!({"jobRetryCount": 1})).await.status,
        409
    );
    assert_eq!(
        played.beat(&id, &json!({"jobRetryCount": 2})).await.status,
        200
    );
    assert_eq!(played.status(&id).await, "Running");
}

#[tokio::test]
async fn lists_are_sorted_filtered_and_paged() {
    let played = Played::start().await;
    for (name, acl) in [("b", "x"), ("a", "y"), ("c", "x"), ("a,b", "x")] {
        played.create(&json!({"name": name, "acl": [acl]})).await;
        played.clock.advance(Duration::from_secs(1));
    }
    let running = played.run("d").await;
    played.beat(&running, &json!({})).await;
    for (query, expected) in [
        ("", &["b", "a", "c", "a,b", "d"][..]),
        ("?sort=name", &["a", "a,b", "b", "c", "d"]),
        ("?sort=name%20desc", &["d", "c", "b", "a,b", "a"]),
        ("?sort=timeCreated+desc", &["d", "a,b", "c", "a", "b"]),
        ("?sort=status%20desc,name", &["d", "a", "a,b", "b", "c"]),
        ("?names=a,c", &["a", "c"]),
        ("?names=a%2Cb", &["b", "a", "a,b"]),
        ("?status=running", &["d"]),
        ("?status=Pending&acls=x&sort=name", &["a,b", "b", "c"]),
        ("?status=Lost", &[]),
        ("?versions=tvn.1", &[]),
        ("?acls=z,y", &["a"]),
    ] {
        let listed = played.list(query).await;
        assert_eq!(
            (listed.status, names(&listed)),
            (200, expected.to_vec()),
            "{query}"
        );
        assert_eq!(listed.body["totalItemCount"], expected.len(), "{query}");
    }

    let first = played.list("?sort=name&pageSize=2").await;
    let counts = |listed: &Answer| {
        ["itemCount", "totalItemCount", "totalPageCount"].map(|member| listed.body[member].as_u64())
    };
    assert_eq!(counts(&first), [Some(2), Some(5), Some(3)]);
    assert_eq!(first.body.get("prevPageToken"), None);
    let follow = async |listed: &Answer, token: &str| {
        let token = listed.body[token].as_str().expect("a token").to_owned();
        played.list(&format!("?pageToken={token}")).await
    };
    let second = follow(&first, "nextPageToken").await;
    assert_eq!(names(&second), ["b", "c"]);
    let third = follow(&second, "nextPageToken").await;
    assert_eq!((names(&third), counts(&third)[0]), (vec!["d"], Some(1)));
    assert_eq!(third.body.get("nextPageToken"), None);
    assert_eq!(names(&follow(&third, "prevPageToken").await), ["b", "c"]);
    assert_eq!(
        names(&follow(&third, "firstPageToken").await),
        names(&first)
    );
    assert_eq!(names(&follow(&first, "lastPageToken").await), ["d"]);
    for refused in [
        "?pageSize=0",
        "?pageSize=1001",
        "?sort=id",
        "?pageToken=x",
        "?pagesize=1",
    ] {
        assert_eq!(played.list(refused).await.status, 400, "{refused}");
    }
}

#[tokio::test]
async fn only_the_listed_content_types_are_accepted() {
    let played = Played::start().await;
    for (content_type, status) in [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("text/json", 201),
        ("application/json-patch+json", 201),
        ("application/merge-patch+json", 201),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ] {
        let request = played
            .request(Method::POST, "")
            .bearer_auth(TOKEN)
            .header("content-type", content_type)
            .body("{\"name\":\"n\"}");
        let answer = played.send(request, "TaskRun").await;
        assert_eq!(answer.status, status, "{content_type}");
    }
    let bare = played.request(Method::POST, "").bearer_auth(TOKEN);
    assert_eq!(
        played.send(bare, "TaskRun").await.status,
        201,
        "the body is optional"
    );
    let id = played.run("n").await;
    let abort = played
        .request(Method::PUT, &format!("/{id}:abort"))
        .bearer_auth(TOKEN);
    let abort = abort
        .header("content-type", "text/plain")
        .body("a body that it doesn't ask for");
    assert_eq!(played.send(abort, "TaskRunSummary").await.status, 200);
    for (accept, status) in [("application/json", 200), ("*/*", 200), ("text/html", 406)] {
        let request = played
            .request(Method::GET, "")
            .bearer_auth(TOKEN)
            .header("accept", accept);
        let answer = played.send(request, "TaskRunSummaryPagedItems").await;
        assert_eq!(answer.status, status, "{accept}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let played = Played::with(Options {
        limits: Limits {
            body: 2000,
            runs: 1,
            ..Limits::default()
        },
        ..Options::default()
    })
    .await;
    let long = "x".repeat(256);
    for (body, told) in [
        ("{", "not JSON"),
        ("[]", "violates the contract"),
        ("{\"nmae\":\"n\"}", "violates the contract"),
        ("{\"execution\":{\"image\":{}}}", "violates the contract"),
        (&format!("{{\"name\":\"{long}\"}}"), "violates the contract"),
    ] {
        let request = played.request(Method::POST, "").bearer_auth(TOKEN);
        let request = request
            .header("content-type", "application/json")
            .body(body.to_owned());
        let refused = played.send(request, "TaskRun").await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(
            refused.body["message"]
                .as_str()
                .is_some_and(|message| message.contains(told)),
            "{refused:?}"
        );
    }
    let large = played
        .create(&json!({"description": "x".repeat(3000)}))
        .await;
    assert_eq!(large.status, 413);
    assert_eq!(played.create(&json!({})).await.status, 201);
    assert_eq!(
        played.create(&json!({})).await.status,
        503,
        "there is room for one, and it hasn't ended"
    );
    let wrong_method = played.request(Method::DELETE, "").bearer_auth(TOKEN);
    let refused = played.send(wrong_method, "TaskRun").await;
    assert_eq!(
        (refused.status, &refused.headers["allow"]),
        (405, &"GET, POST".parse().expect("a value"))
    );
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
    assert_eq!(played.create(&Value::Null).await.status, 201);
    let id = created.body["id"].as_str().expect("an id");
    let last = json!({"nonce": null, "jobRetryCount": null, "lastHeartbeat": true, "containerStatus": [
        {"name": "main", "state": {"waiting": null, "running": null, "terminated": {"exitCode": 0, "reason": null}}}]});
    assert_eq!(played.beat(id, &last).await.status, 200);
    assert_eq!(played.status(id).await, "Completed");
}

#[tokio::test]
async fn ranges_and_lengths_are_those_of_the_contract() {
    let played = Played::start().await;
    let streams = |member: &str, value: &Value| json!({"execution": {"environment": {"inputStreamSettings": {member: value}}}});
    let resources = |member: &str, value: &Value| json!({"execution": {"environment": {"resources": {member: value}}}});
    let execution = |member: &str, value: &Value| json!({"execution": {member: value}});
    for (body, status) in [
        (streams("cacheSizeGB", &json!(50)), 201),
        (streams("cacheSizeGB", &json!(49)), 400),
        (streams("cacheSizeGB", &json!(10_001)), 400),
        (streams("blockSizeMB", &json!(0)), 201),
        (streams("blockSizeMB", &json!(1024.5)), 400),
        (streams("prefetchBlocks", &json!(64)), 201),
        (streams("prefetchBlocks", &json!(65)), 400),
        (streams("prefetchBlocks", &json!(-1)), 400),
        (resources("type", &json!("ü".repeat(255))), 201),
        (resources("type", &json!("ü".repeat(256))), 400),
        (resources("cpuCores", &json!(-0.5)), 400),
        (execution("retryLimit", &json!(0)), 201),
        (execution("retryLimit", &json!(-1)), 400),
        (json!({"description": "ü".repeat(4096)}), 201),
        (json!({"description": "ü".repeat(4097)}), 400),
    ] {
        let answer = played.create(&body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn without_the_token_every_request_is_refused() {
    let played = Played::start().await;
    let id = played.run("n").await;
    for (method, rest) in [
        (Method::POST, String::new()),
        (Method::GET, String::new()),
        (Method::GET, format!("/{id}")),
        (Method::GET, "/unknown".to_owned()),
        (Method::POST, format!("/{id}:heartbeat")),
        (Method::PUT, format!("/{id}:abort")),
    ] {
        for authorization in [
            None,
            Some("Bearer x"),
            Some("Basic a-token"),
            Some("a-token"),
        ] {
            let mut request = played.request(method.clone(), &rest);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let refused = played.send(request, "TaskRun").await;
            assert_eq!(refused.status, 401, "{method} {rest}");
            assert_eq!(refused.headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(played.status(&id).await, "Pending");
}

#[tokio::test]
async fn a_renewed_token_is_valid_for_its_run_and_its_time() {
    let played = Played::with(Options {
        renew_tokens: Some(Duration::from_secs(600)),
        ..Options::default()
    })
    .await;
    let (own, other) = (played.run("own").await, played.run("other").await);
    let renewed = played.beat(&own, &json!({})).await.body["jwt"]
        .as_str()
        .expect("a token")
        .to_owned();
    let with = async |method: Method, rest: &str, token: &str| {
        let request = played.request(method, rest).bearer_auth(token);
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let body: Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        (status, body)
    };
    let (status, again) = with(Method::POST, &format!("/{own}:heartbeat"), &renewed).await;
    assert_eq!(status, 200);
    assert_ne!(again["jwt"], renewed, "a fresh one each time");
    assert_eq!(with(Method::GET, &format!("/{own}"), &renewed).await.0, 200);
    for (method, rest) in [
        (Method::POST, format!("/{other}:heartbeat")),
        (Method::GET, format!("/{other}")),
        (Method::PUT, format!("/{own}:abort")),
        (Method::GET, String::new()),
        (Method::POST, String::new()),
    ] {
        let (status, body) = with(method.clone(), &rest, &renewed).await;
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("Forbidden")),
            "{method} {rest}"
        );
    }
    played.clock.advance(Duration::from_secs(600));
    assert_eq!(with(Method::GET, &format!("/{own}"), &renewed).await.0, 401);
}

#[tokio::test]
async fn a_nonce_that_was_issued_must_be_echoed() {
    let played = Played::with(Options {
        check_nonces: true,
        ..Options::default()
    })
    .await;
    let id = played.run("n").await;
    played
        .service
        .issue_nonce(&id, 0, "issued")
        .expect("issued");
    assert_eq!(
        played.beat(&id, &json!({"nonce": "other"})).await.status,
        409
    );
    assert_eq!(played.beat(&id, &json!({})).await.status, 409);
    assert_eq!(
        played.beat(&id, &json!({"nonce": "issued"})).await.status,
        200
    );
    assert!(played.service.issue_nonce("trn.0", 0, "n").is_err());
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

#[tokio::test]
async fn a_run_and_its_token_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("runs.sqlite");
    let options = || Options {
        data: Some(data.clone()),
        renew_tokens: Some(Duration::from_secs(600)),
        ..Options::default()
    };
    let played = Played::with(options()).await;
    let (running, ended) = (played.run("running").await, played.run("ended").await);
    let beat = played
        .beat(&running, &json!({"jobRetryCount": 3, "nonce": "1"}))
        .await;
    let renewed = beat.body["jwt"].as_str().expect("a token").to_owned();
    played.beat(&ended, &last(&[0])).await;
    let before = [
        played.get(&running).await.body,
        played.get(&ended).await.body,
    ];
    let second = Service::start_plain(
        ([127, 0, 0, 1], 0).into(),
        Contract::load().expect("the contract"),
        Faults::default(),
        options(),
    );
    assert!(second.await.is_err(), "one service at a time has the file");
    drop(played);

    let played = reopened(options).await;
    let after = [
        played.get(&running).await.body,
        played.get(&ended).await.body,
    ];
    for (before, after) in before.iter().zip(&after) {
        for member in [
            "id",
            "name",
            "status",
            "timeCreated",
            "timeModified",
            "logs",
        ] {
            assert_eq!(before[member], after[member], "{member}");
        }
    }
    assert_eq!(
        played
            .beat(&running, &json!({"jobRetryCount": 2}))
            .await
            .status,
        409,
        "still refused"
    );
    assert_eq!(
        played.beat(&ended, &last(&[0])).await.status,
        200,
        "the same last heartbeat"
    );
    let own = played
        .request(Method::GET, &format!("/{running}"))
        .bearer_auth(renewed);
    assert_eq!(played.send(own, "TaskRun").await.status, 200);
    assert_eq!(names(&played.list("").await), ["running", "ended"]);
}

/// A dropped service's connections still lock its file for a moment.
async fn reopened(options: impl Fn() -> Options) -> Played {
    let free = async {
        loop {
            match Played::try_with(options()).await {
                Ok(played) => return played,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .expect("the file is closed")
}

#[tokio::test]
async fn a_file_of_another_program_is_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("text");
    std::fs::write(
        &data,
        "not a database, but long enough to be read as one\n".repeat(20),
    )
    .expect("written");
    let options = Options {
        data: Some(data.clone()),
        ..Options::with_token(TOKEN)
    };
    let contract = Contract::load().expect("the contract");
    let started = Service::start_plain(
        ([127, 0, 0, 1], 0).into(),
        contract,
        Faults::default(),
        options,
    )
    .await;
    assert!(started.is_err());
    assert!(
        std::fs::read_to_string(&data)
            .expect("text")
            .starts_with("not a database")
    );
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
        let (url, token, page) = (next("url"), next("token"), next("page"));
        let key = page.strip_prefix(&format!("{url}/?key=")).expect("a key");
        assert_ne!(key, token);
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

#[test]
fn times_are_whole_microseconds() {
    let now = Clock::default().now();
    assert_eq!(
        Timestamp::from_microsecond(now.as_microsecond()).expect("a time"),
        now
    );
}
