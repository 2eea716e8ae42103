//! Requests to the router, with a store in memory.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{Method, header};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::keys::Keys;
use crate::service::{Clock, Options};
use crate::store::{Memory, Role, Store};
use crate::tokens;
use podbeat_runs::{Moment, Rules};

/// A clock that moves by a second with each look.
#[derive(Default)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Moment {
        let elapsed = Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst));
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        Moment {
            wall: start + elapsed,
            elapsed,
        }
    }
}

struct Played {
    api: Arc<Api>,
    token: String,
}

async fn played() -> Played {
    let store = Arc::new(Memory::default());
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let token = tokens::create("a", "alice", Role::User, now, None).expect("a token");
    store.add_token(token.token).await.expect("stored");
    let options = Options {
        rules: Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(900),
            ..Rules::DEFAULT
        },
        url: "https://h".to_owned(),
        token_lifetime: Duration::from_secs(3600),
        live_runs: 100_000,
        creates_per_minute: 100_000,
        retention: Duration::from_secs(100_000),
        retained_runs: 100_000,
        launch: None,
    };
    let keys = Keys::temporary().expect("keys");
    let clock = Arc::new(Steps::default());
    let service = Service::start(store, keys, clock, options)
        .await
        .expect("a service");
    let api = Arc::new(Api::new(""));
    api.serve(Arc::new(service));
    Played {
        api,
        token: token.text.expose().to_owned(),
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn text(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

async fn sent(api: &Arc<Api>, request: Request<Body>) -> Answer {
    let router = Arc::clone(api).router();
    let response = router.oneshot(request).await.expect("a response");
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let json = serde_json::from_slice(&body);
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: json.unwrap_or_else(|error| panic!("{error}: {body:?}")),
    }
}

impl Played {
    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = self.request(method, path).body(Body::from(body.to_owned()));
        sent(&self.api, request.expect("a request")).await
    }

    async fn create(&self, body: &Value) -> String {
        let answer = self.ask("POST", "/v1/tasks/runs", &body.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.text("/id").to_owned()
    }
}

#[tokio::test]
async fn the_five_operations() {
    let played = played().await;
    let id = played
        .create(&json!({"name": "n", "execution": {"retryLimit": 0}}))
        .await;
    let path = format!("/v1/tasks/runs/{id}");
    let run = played.ask("GET", &path, "").await;
    assert_eq!((run.status, run.text("/status")), (200, "Pending"));
    assert_eq!(run.text("/href"), format!("https://h{path}"));
    let beat = r#"{"podUID": "u", "inTheFuture": {}, "nonce": null, "containerStatus":
        [{"name": null, "state": {"waiting": null, "running": {"startedAt": null}}}]}"#;
    let beat = played.ask("POST", &format!("{path}:heartbeat"), beat).await;
    assert_eq!(beat.status, 200, "{}", beat.body);
    assert!(beat.text("/jwt").contains('.'));
    let list = played.ask("GET", "/v1/tasks/runs?status=running", "").await;
    assert_eq!((list.status, list.text("/items/0/id")), (200, id.as_str()));
    assert_eq!(list.body["totalItemCount"], 1);
    // A body that the operation does not have is skipped.
    let abort = Request::put(format!("{path}:abort"))
        .header(header::AUTHORIZATION, format!("Bearer {}", played.token))
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from("why"));
    let abort = sent(&played.api, abort.expect("a request")).await;
    assert_eq!((abort.status, abort.text("/status")), (200, "Aborted"));
    let again = played.ask("PUT", &format!("{path}:abort"), "").await;
    assert_eq!((again.status, again.text("/code")), (409, "Conflict"));
    assert_eq!(again.text("/message"), "the run is already Aborted");
}

#[tokio::test]
async fn an_explicit_null_is_an_absent_member_and_an_absent_body_is_empty() {
    let played = played().await;
    let nulls = json!({"name": null, "acl": null, "execution": {"image": null, "retryLimit": null,
        "environment": {"resources": {"type": null, "cpuCores": 1.5}, "variables": null}}});
    let id = played.create(&nulls).await;
    let run = played.ask("GET", &format!("/v1/tasks/runs/{id}"), "").await;
    let execution = json!({"environment": {"resources": {"cpuCores": 1.5}}});
    assert_eq!(run.body["execution"], execution);
    assert!(!run.body.to_string().contains("null"), "{}", run.body);
    let bare = Request::post("/v1/tasks/runs")
        .header(header::AUTHORIZATION, format!("Bearer {}", played.token))
        .body(Body::empty());
    assert_eq!(
        sent(&played.api, bare.expect("a request")).await.status,
        201
    );
    for body in [
        r#"{"acl": [null]}"#,
        r#"{"execution": {"environment": {"variables": {"A": null}}}}"#,
        r#"{"execution": {"image": {"name": null}}}"#,
    ] {
        let refused = played.ask("POST", "/v1/tasks/runs", body).await;
        assert_eq!(refused.status, 400, "{body}");
    }
}

#[tokio::test]
async fn a_starting_service_is_unavailable_and_knows_of_no_missing_run() {
    let played = played().await;
    let starting = Arc::new(Api::new(""));
    for (method, path) in [
        ("GET", "/v1/tasks/runs/trn.1"),
        ("POST", "/v1/tasks/runs/trn.1:heartbeat"),
        ("GET", "/v1/tasks/runs"),
    ] {
        let request = played
            .request(method, path)
            .body(Body::empty())
            .expect("a request");
        let answer = sent(&starting, request).await;
        assert_eq!(
            (answer.status, answer.text("/code")),
            (503, "ServiceUnavailable")
        );
        assert_eq!(answer.headers[header::RETRY_AFTER], "5");
    }
}

#[tokio::test]
async fn wrong_requests_have_their_statuses() {
    let played = played().await;
    let runs = "/v1/tasks/runs";
    for (method, path, body, status, message) in [
        ("GET", "/", "", 404, "unknown operation"),
        ("GET", "/v1/tasks/runs/", "", 404, "no run"),
        ("GET", "/v1/tasks/runs/a/b", "", 404, "unknown operation"),
        ("GET", "/v1/tasks/runs/trn.1", "", 404, "no run"),
        ("GET", "/v1/tasks/runs/%ff", "", 400, "not UTF-8"),
        ("DELETE", "/v1/tasks/runs/trn.1", "", 405, "use GET"),
        ("GET", "/v1/tasks/runs/trn.1:abort", "", 405, "use PUT"),
        ("PATCH", runs, "", 405, "use GET, POST"),
        ("POST", runs, "{", 400, "not JSON (line 1"),
        ("POST", runs, "[]", 400, "it must be an object"),
        ("POST", runs, "null", 400, "it must be an object"),
        (
            "POST",
            runs,
            r#"{"execution": []}"#,
            400,
            "at execution: it must be an object",
        ),
        ("POST", runs, "{} {}", 400, "behind the JSON"),
        (
            "POST",
            runs,
            r#"{"name": 5}"#,
            400,
            "at name: it must be a string",
        ),
        (
            "POST",
            runs,
            r#"{"nmae": "hunter2"}"#,
            400,
            "unknown members, which the contract does not define: nmae",
        ),
        (
            "POST",
            runs,
            r#"{"execution": {"inputs": [{"path": "p", "ulr": "hunter2"}]}}"#,
            400,
            "execution.inputs[0].ulr",
        ),
        (
            "POST",
            runs,
            r#"{"execution": {"retryLimit": "hunter2"}}"#,
            400,
            "execution.retryLimit: it must be i32",
        ),
        (
            "POST",
            runs,
            r#"{"execution": {"image": {"name": ""}}}"#,
            400,
            "violates the contract",
        ),
        (
            "GET",
            "/v1/tasks/runs?pageSize=0",
            "",
            400,
            "from 1 to 1000",
        ),
        (
            "GET",
            "/v1/tasks/runs?pageSize=1&pageSize=2",
            "",
            400,
            "given twice",
        ),
        (
            "GET",
            "/v1/tasks/runs?sort=size",
            "",
            400,
            "sort must be name",
        ),
        (
            "GET",
            "/v1/tasks/runs?hunter2=1",
            "",
            400,
            "unknown parameter",
        ),
        ("GET", "/v1/tasks/runs?names=%ff", "", 400, "not UTF-8"),
        (
            "GET",
            "/v1/tasks/runs?pageToken=hunter2",
            "",
            400,
            "does not come from this service",
        ),
    ] {
        let answer = played.ask(method, path, body).await;
        assert_eq!(
            answer.status, status,
            "{method} {path} {body}: {}",
            answer.body
        );
        let text = answer.body.to_string();
        assert!(
            answer.text("/message").contains(message),
            "{method} {path} {body}: {text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
    // The name of a member is part of the message.
    let long = json!({"execution": {"environment": {"variables": {"x".repeat(100_000): 5}}}});
    let long = played.ask("POST", runs, &long.to_string()).await;
    assert_eq!((long.status, long.text("/message").len()), (400, 500));
    // A token of such a list would not fit into the head of a request.
    let names = format!("{runs}?names={}", "%01".repeat(10_000));
    let long = played.ask("GET", &names, "").await;
    assert_eq!(long.status, 400, "{}", long.body);
    let large = played
        .ask("POST", runs, &" ".repeat(LARGEST_BODY + 1))
        .await;
    assert_eq!(
        (large.status, large.text("/code")),
        (413, "PayloadTooLarge")
    );
    let typed = |name: header::HeaderName, value: &str| {
        let request = played.request("POST", runs);
        let mut request = request.body(Body::from("{}")).expect("a request");
        let value = value.parse().expect("a value");
        request.headers_mut().insert(name, value);
        sent(&played.api, request)
    };
    for (content_type, status) in [
        ("text/json; charset=utf-8", 201),
        ("application/json-patch+json", 201),
        ("text/plain", 415),
        ("application/json; charset=utf-16", 415),
    ] {
        assert_eq!(
            typed(header::CONTENT_TYPE, content_type).await.status,
            status
        );
    }
    for (accept, status) in [
        ("text/html, application/*;q=0.1", 201),
        ("*/*", 201),
        ("text/html", 406),
        ("application/json;q=0", 406),
    ] {
        assert_eq!(
            typed(header::ACCEPT, accept).await.status,
            status,
            "{accept}"
        );
    }
    for authorization in ["Bearer x", "Basic x", "Bearer", ""] {
        let answer = typed(header::AUTHORIZATION, authorization).await;
        assert_eq!(answer.status, 401, "{authorization}");
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_read_from_the_header() {
    let played = played().await;
    let create = async |key: &[&str], body: &str| {
        let mut request = played.request("POST", "/v1/tasks/runs");
        for key in key {
            request = request.header("Idempotency-Key", *key);
        }
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("a request");
        sent(&played.api, request).await
    };
    let first = create(&["k"], "{}").await;
    assert_eq!(first.status, 201);
    assert_eq!(create(&["k"], "{}").await.text("/id"), first.text("/id"));
    assert_eq!(create(&["k"], r#"{"name": "n"}"#).await.status, 409);
    assert_eq!(create(&["k", "l"], "{}").await.status, 400);
    assert_eq!(create(&[""], "{}").await.status, 400);
}

#[tokio::test]
async fn pages_are_linked_in_both_directions() {
    let played = played().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(played.create(&json!({"name": format!("n{number}")})).await);
    }
    let page = async |query: &str| {
        let answer = played
            .ask("GET", &format!("/v1/tasks/runs?{query}"), "")
            .await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let names: Vec<String> = answer.body["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["name"].as_str().expect("a name").to_owned())
            .collect();
        (names.join(" "), answer)
    };
    let (names, first) = page("pageSize=3&sort=name%20desc").await;
    assert_eq!(names, "n6 n5 n4");
    assert_eq!(first.body["totalPageCount"], 3);
    assert_eq!(first.text("/prevPageToken"), "");
    let with = |answer: &Answer, link: &str| {
        let token = answer.text(&format!("/{link}"));
        assert!(!token.is_empty(), "{link}: {}", answer.body);
        format!("pageToken={token}")
    };
    let (names, second) = page(&with(&first, "nextPageToken")).await;
    assert_eq!(names, "n3 n2 n1");
    let (names, third) = page(&with(&second, "nextPageToken")).await;
    assert_eq!((names.as_str(), third.text("/nextPageToken")), ("n0", ""));
    assert_eq!(page(&with(&third, "prevPageToken")).await.0, "n3 n2 n1");
    assert_eq!(page(&with(&third, "firstPageToken")).await.0, "n6 n5 n4");
    assert_eq!(page(&with(&first, "lastPageToken")).await.0, "n0");
    // Another size goes on from the same place.
    let more = format!("{}&pageSize=2", with(&first, "nextPageToken"));
    assert_eq!(page(&more).await.0, "n3 n2");
    let other = format!("{}&sort=name", with(&first, "nextPageToken"));
    let refused = played
        .ask("GET", &format!("/v1/tasks/runs?{other}"), "")
        .await;
    assert_eq!(refused.status, 400);
    let shared = json!({"name": "n1,n2", "acl": ["tid:b"]});
    let id = played.create(&shared).await;
    for (query, expected) in [
        ("names=n1%2Cn2", "n1 n2 n1,n2"),
        ("acls=tid:c,tid:b", "n1,n2"),
        ("acls=tid:c", ""),
    ] {
        assert_eq!(page(query).await.0, expected, "{query}");
    }
    let abort = format!("/v1/tasks/runs/{id}:abort");
    assert_eq!(played.ask("PUT", &abort, "").await.status, 200);
    assert_eq!(page("sort=status,name:desc&pageSize=2").await.0, "n1,n2 n6");
    for (query, expected) in [
        ("names=n1&status=pending", "n1"),
        ("names=n1&names=n3", "n1 n3"),
        ("status=PENDING&pageSize=2", "n0 n1"),
        ("status=unknown", ""),
        ("versions=1", ""),
        ("status=", "n0 n1 n2 n3 n4 n5 n6 n1,n2"),
    ] {
        assert_eq!(page(query).await.0, expected, "{query}");
    }
}

/// A service for all hostile requests, with a run.
static HOSTILE: LazyLock<(tokio::runtime::Runtime, Played, String)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let played = runtime.block_on(played());
    let id = runtime.block_on(played.create(&json!({})));
    (runtime, played, id)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a client sends, the answer is JSON with a status of the API, and never 500.
    #[test]
    fn no_request_is_an_internal_error(
        method in prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "OPTIONS", "X"]),
        path in "/[v1/tasks:runs%a-f0-9?&=,]{0,60}|/v1/tasks/runs([?/]\\PC{0,40})?",
        body in prop_oneof![
            "\\PC{0,80}",
            Just(r#"{"containerStatus":[{"state":{"terminated":{"exitCode":3}}}],"lastHeartbeat":true}"#.to_owned()),
            r#"\{"(name|acl|execution|nonce|jobRetryCount)": ?(null|-?[0-9]{1,12}|"a"|\[\]|\{\})\}"#,
        ],
    ) {
        let (runtime, played, id) = &*HOSTILE;
        let (status, text) = runtime.block_on(async {
            let path = match path.len() % 4 {
                0 => format!("/v1/tasks/runs/{id}:heartbeat"),
                _ => path.clone(),
            };
            let Ok(request) = played.request(method, &path).body(Body::from(body.clone())) else {
                return (400, String::new());
            };
            let router = Arc::clone(&played.api).router();
            let response = router.oneshot(request).await.expect("a response");
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            (status, String::from_utf8(body.to_vec()).expect("text"))
        });
        prop_assert!([200, 201, 400, 404, 405, 409].contains(&status), "{} {}", status, text);
        prop_assert!(text.is_empty() || serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    }
}
