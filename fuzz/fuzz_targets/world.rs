// Services with runs, and requests to them. Part of the targets that use it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use jiff::Timestamp;
use podbeat_server::api::Api;
use podbeat_server::keys::Keys;
use podbeat_runs::{Moment, Rules};
use podbeat_server::service::{Clock, Options, Service};
use podbeat_server::store::{Role, Store, Token};
use podbeat_server::tokens;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

/// The tokens of users: name, tenant, text and role.
pub const USERS: [(&str, &str, &str, Role); 4] = [
    ("user", "t", "pbt_t0k3n-of-the-user", Role::User),
    ("reader", "t", "pbt_t0k3n-of-the-reader", Role::Read),
    ("stranger", "s", "pbt_t0k3n-of-the-stranger", Role::User),
    ("admin", "a", "pbt_t0k3n-of-the-admin", Role::Admin),
];

#[allow(dead_code, reason = "not each target has requests")]
pub const RUNS: &str = "/v1/tasks/runs";

pub fn at(seconds: u64) -> Timestamp {
    let start = Timestamp::from_second(1_800_000_000).expect("in range");
    start + Duration::from_secs(seconds)
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        Moment {
            wall: at(1000),
            elapsed: Duration::from_secs(1000),
        }
    }
}

pub async fn service(store: Arc<dyn Store>, keys: Keys) -> Service {
    for (user, tenant, text, role) in USERS {
        let token = Token {
            id: user.to_owned(),
            hash: tokens::hash(text),
            tenant: tenant.to_owned(),
            user: user.to_owned(),
            role,
            created: at(0),
            expires: None,
            revoked: None,
        };
        store.add_token(token).await.expect("stored");
    }
    let options = Options {
        rules: Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(600),
            ..Rules::DEFAULT
        },
        url: "https://h".to_owned(),
        token_lifetime: Duration::from_secs(3600),
        live_runs: 5,
        creates_per_minute: 100,
        retention: Duration::from_secs(3600),
        retained_runs: 100,
        launch: None,
    };
    let service = Service::start(store, keys, Arc::new(Still), options).await;
    service.expect("a service")
}

#[allow(dead_code, reason = "not each target has requests")]
pub fn router(service: &Arc<Service>) -> Router {
    let api = Arc::new(Api::new(""));
    api.serve(Arc::clone(service));
    api.router()
}

/// A run's execution with a secret at each place that can have one: `x`.
#[allow(dead_code, reason = "not each target has runs with an execution")]
pub const EXECUTION: &str = r#"{"name": "n", "execution": {"image": {"name": "i", "credentials": {"username": "u", "password": "x"}},
    "environment": {"variables": {"V": "x"}}, "inputs": [{"path": "/p", "url": "gds://v/f", "credentials": {"k": "x"}}],
    "outputs": [{"path": "/p", "url": "gds://v/f", "credentials": {"k": "x"}}], "systemFiles": {"url": "gds://v/f", "credentials": {"k": "x"}}}}"#;

/// Parses a request: a line with method and target, lines with headers, an empty line, and a body.
/// `filled` replaces what stands for something else in the target and in the values of headers.
/// `None` if HTTP has no such request.
#[allow(dead_code, reason = "not each target has whole requests")]
pub fn parsed(text: &str, filled: impl Fn(&str) -> String) -> Option<(Request<Body>, String)> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let (method, target) = first.split_once(' ').unwrap_or((first, RUNS));
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.parse::<Method>().ok()?;
    *request.uri_mut() = filled(target).parse::<Uri>().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let name: HeaderName = name.parse().ok()?;
        let value: HeaderValue = filled(value.trim()).parse().ok()?;
        request.headers_mut().append(name, value);
    }
    Some((request, body.to_owned()))
}

#[allow(dead_code, reason = "not each target has answers of the API")]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Value,
}

/// Sends a request to the API, and checks the form of the answer.
#[allow(dead_code, reason = "not each target has answers of the API")]
pub async fn sent(router: &Router, request: Request<Body>) -> Answer {
    let answer = router.clone().oneshot(request).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let text = String::from_utf8(body.to_vec()).expect("text");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(head.headers[header::CONTENT_TYPE], "application/json");
    if !head.status.is_success() {
        let members: Vec<&String> = json.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["code", "details", "message"], "{text}");
        let reason = head.status.canonical_reason().expect("a known status");
        assert_eq!(json["code"], reason.replace(' ', ""));
        assert_ne!(json["message"].as_str().expect("a message"), "");
        let details = json["details"].as_array().expect("details");
        assert!(details.iter().all(Value::is_string), "{text}");
        assert!(text.len() < 32 << 10, "{} bytes", text.len());
        let needed = match head.status.as_u16() {
            401 => Some(header::WWW_AUTHENTICATE),
            405 => Some(header::ALLOW),
            429 => Some(header::RETRY_AFTER),
            _ => None,
        };
        assert!(needed.is_none_or(|name| head.headers.contains_key(name)));
    }
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text,
        json,
    }
}
