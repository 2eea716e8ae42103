//! Requests to the page and the API in one router, with a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::http::HeaderMap;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::keys::Keys;
use crate::service::{Clock, Options};
use crate::store::{Memory, Role, Store};
use podbeat_runs::{Moment, Rules};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

const START: &str = "2026-01-01T00:00:00.5Z";

/// A clock that only tests move.
struct Manual(Mutex<Moment>);

impl Clock for Manual {
    fn now(&self) -> Moment {
        *self.0.lock().expect("a clock")
    }
}

struct Played {
    api: Arc<Api>,
    router: Router,
    store: Arc<Memory>,
    clock: Arc<Manual>,
    base: &'static str,
}

async fn played() -> Played {
    at("https://h", "").await
}

async fn at(url: &str, base: &'static str) -> Played {
    let store = Arc::new(Memory::default());
    let clock = Arc::new(Manual(Mutex::new(Moment {
        wall: START.parse().expect("a time"),
        elapsed: Duration::ZERO,
    })));
    let options = Options {
        rules: Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(900),
            ..Rules::DEFAULT
        },
        url: format!("{url}{base}"),
        token_lifetime: Duration::from_secs(3600),
        live_runs: 100_000,
        creates_per_minute: 100_000,
        retention: DAY,
        retained_runs: 100_000,
        launch: None,
    };
    let keys = Keys::temporary().expect("keys");
    let service = Service::start(store.clone(), keys, clock.clone(), options);
    let api = Arc::new(Api::new(base));
    api.serve(Arc::new(service.await.expect("a service")));
    let router = router(Arc::clone(&api)).merge(Arc::clone(&api).router());
    Played {
        api,
        router,
        store,
        clock,
        base,
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("text"))
    }

    /// The cookie that the answer sets, without its attributes.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie");
        cookie.split(';').next().unwrap_or_default().to_owned()
    }
}

/// A browser with at most one cookie.
struct Browser<'played> {
    played: &'played Played,
    cookie: String,
    headers: Vec<(&'static str, String)>,
}

impl Played {
    fn pass(&self, by: Duration) {
        let mut moment = self.clock.0.lock().expect("a clock");
        moment.wall += by;
        moment.elapsed += by;
    }

    async fn token(
        &self,
        tenant: &str,
        user: &str,
        role: Role,
        lifetime: Option<Duration>,
    ) -> String {
        let now: Timestamp = START.parse().expect("a time");
        let token = tokens::create(tenant, user, role, now, lifetime).expect("a token");
        self.store.add_token(token.token).await.expect("stored");
        token.text.expose().to_owned()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("a response");
        let (head, body) = response.into_parts();
        // A stream instead of a page never ends.
        let body = tokio::time::timeout(LIMIT, to_bytes(body, usize::MAX)).await;
        let body = body.expect("in time").expect("a body");
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(body.into()).expect("text"),
        }
    }

    fn stranger(&self) -> Browser<'_> {
        Browser {
            played: self,
            cookie: String::new(),
            headers: vec![("sec-fetch-site", "same-origin".to_owned())],
        }
    }

    async fn signed_in(&self, token: &str) -> Browser<'_> {
        let mut browser = self.stranger();
        let answer = browser.post("/sign-in", &[("token", token)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        browser.cookie = answer.cookie();
        browser
    }

    async fn alice(&self) -> Browser<'_> {
        let token = self.token("a", "alice", Role::User, None).await;
        self.signed_in(&token).await
    }

    async fn operate(&self, token: &str, method: &str, rest: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/tasks/runs{rest}", self.base))
            .header("authorization", format!("Bearer {token}"))
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .header("content-type", "application/json");
        let answer = self.send(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        );
        let answer = answer.await;
        (
            answer.status,
            serde_json::from_str(&answer.text).expect("JSON"),
        )
    }

    async fn create(&self, token: &str, body: &Value) -> String {
        let (status, body) = self.operate(token, "POST", "", body).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().expect("an ID").to_owned()
    }

    async fn beat(&self, token: &str, id: &str, body: &Value) -> (u16, Value) {
        self.operate(token, "POST", &format!("/{id}:heartbeat"), body)
            .await
    }
}

impl Browser<'_> {
    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.played.base))
            .header("host", "h")
            .header("cookie", &self.cookie);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = self.request(method, path).body(Body::from(body.to_owned()));
        self.played.send(request.expect("a request")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.text
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        self.ask("POST", path, &body).await
    }

    /// The token of the forms on a page.
    async fn form(&self, path: &str) -> String {
        let page = self.page(path).await;
        let (_, rest) = page.split_once("name=\"form\" value=\"").expect("a form");
        rest.split('"').next().expect("a token").to_owned()
    }
}

#[tokio::test]
async fn only_a_token_of_a_user_signs_in() {
    let played = played().await;
    let alice = played.token("a", "alice", Role::User, None).await;
    let id = played.create(&alice, &json!({"name": "secret-name"})).await;
    let (_, answer) = played.beat(&alice, &id, &json!({"podUID": "u"})).await;
    let of_run = answer["jwt"].as_str().expect("a token").to_owned();
    let revoked = played.token("a", "old", Role::Admin, None).await;
    let tokens = played.store.tokens().await.expect("tokens");
    let old = tokens.iter().find(|token| token.user == "old").expect("it");
    played
        .store
        .revoke(old.id.clone(), Timestamp::UNIX_EPOCH)
        .await
        .expect("revoked");
    let browser = played.stranger();
    for (token, problem) in [
        ("", "unknown, expired or revoked"),
        ("pbt_wrong", "unknown, expired or revoked"),
        (&revoked, "unknown, expired or revoked"),
        (&of_run, "valid only for a run"),
    ] {
        let answer = browser
            .post("/sign-in", &[("token", token), ("next", "/run?id=x")])
            .await;
        assert_eq!(
            (answer.status, answer.header("set-cookie")),
            (401, ""),
            "{token}"
        );
        assert!(
            answer.text.contains(problem) && answer.text.contains("value=\"/run?id=x\""),
            "{}",
            answer.text
        );
        assert!(
            token.is_empty() || !answer.text.contains(token),
            "the token is not repeated"
        );
    }
    let answer = browser
        .post("/sign-in", &[("token", &format!(" {alice}\n"))])
        .await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    let cookie = answer.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("__Host-podbeat-session=") && !cookie.contains(&alice),
        "{cookie}"
    );
    assert!(
        cookie.ends_with("; Max-Age=43200; Path=/; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let large = browser
        .post("/sign-in", &[("token", &"x".repeat(5000))])
        .await;
    assert_eq!(large.status, 413);
    // The cookie opens only the page, and tokens open only the API.
    let api = browser
        .request("GET", "/v1/tasks/runs")
        .header("cookie", answer.cookie());
    let api = played
        .send(api.body(Body::empty()).expect("a request"))
        .await;
    assert_eq!(api.status, 401);
    let (_, value) = cookie.split_once('=').expect("a value");
    let (status, _) = played
        .operate(
            value.split(';').next().expect("a value"),
            "GET",
            "",
            &json!({}),
        )
        .await;
    assert_eq!(status, 401);
    let page = browser
        .request("GET", "/")
        .header("authorization", format!("Bearer {alice}"));
    let page = played
        .send(page.body(Body::empty()).expect("a request"))
        .await;
    assert_eq!(page.status, 303);
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in_and_back() {
    let played = at("https://h", "/ica").await;
    let token = played.token("a", "alice", Role::User, None).await;
    let id = played.create(&token, &json!({"name": "secret-name"})).await;
    let stranger = played.stranger();
    for path in [
        "/",
        "/?status=Running",
        &format!("/run?id={id}"),
        &format!("/run/abort?id={id}"),
        "/run/heartbeat?id=x&number=1",
    ] {
        for method in ["GET", "HEAD"] {
            let answer = stranger.ask(method, path, "").await;
            let own = format!("/ica{path}");
            let expected = format!("/ica/sign-in?next={}", encoded(&own));
            assert_eq!(
                (answer.status, answer.header("location")),
                (303, &*expected)
            );
            assert!(!answer.text.contains("secret-name"));
        }
        let form = stranger
            .page(&format!(
                "/sign-in?next={}",
                encoded(&format!("/ica{path}"))
            ))
            .await;
        let hidden = format!("name=\"next\" value=\"/ica{}\"", path.replace('&', "&amp;"));
        assert!(form.contains(&hidden), "{form}");
    }
    let next = format!("/ica/run?id={id}");
    let answer = stranger
        .post("/sign-in", &[("token", &token), ("next", &next)])
        .await;
    assert_eq!((answer.status, answer.header("location")), (303, &*next));
    assert!(answer.header("set-cookie").contains("; Path=/ica/;"));
    for path in ["/live", &format!("/run/live?id={id}")] {
        assert_eq!(
            stranger.get(path).await.status,
            401,
            "a script can't sign in"
        );
    }
    let answer = stranger.post("/run/abort", &[("id", &id)]).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/ica/sign-in")
    );
    let answer = stranger.get("").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/ica/"));
    // The sign-in leads to no other place.
    let signed_in = stranger.post("/sign-in", &[("token", &token)]).await;
    assert_eq!(signed_in.header("location"), "/ica/");
    for next in [
        "https://evil.example/",
        "//evil.example/ica/",
        "/ica//evil.example",
        "\\evil",
        "/ica/sign-out",
        "/ica/page.js",
        "/other",
        "/ica/run\\..",
        "/ica/\u{e9}",
        "/ica/run?id=\r\nx: y",
        "javascript:alert(1)",
        &format!("/ica/?{}", "x".repeat(3000)),
    ] {
        let answer = stranger
            .post("/sign-in", &[("token", &token), ("next", next)])
            .await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, "/ica/"),
            "{next}"
        );
        let form = stranger
            .get(&format!("/sign-in?next={}", encoded(next)))
            .await;
        assert!(form.text.contains("name=\"next\" value=\"\""), "{next}");
    }
}

#[tokio::test]
async fn a_link_on_another_site_leads_to_the_page_if_there_is_a_session() {
    let played = played().await;
    let mut browser = played.stranger();
    browser.headers = vec![
        ("sec-fetch-site", "cross-site".to_owned()),
        ("sec-fetch-mode", "navigate".to_owned()),
    ];
    let answer = browser.get("/run?id=a&x=%22").await;
    assert_eq!((answer.status, answer.header("set-cookie")), (200, ""));
    let refresh = "<meta http-equiv=\"refresh\" content=\"0;url=/run?id=a&amp;x=%22\">";
    assert!(answer.text.contains(refresh), "{}", answer.text);
    browser.headers[1].1 = "no-cors".to_owned();
    assert_eq!(browser.get("/run?id=a").await.status, 303);
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_token_or_the_sign_out() {
    let played = played().await;
    let short = played
        .token("a", "short", Role::User, Some(Duration::from_secs(60)))
        .await;
    let short = played.signed_in(&short).await;
    let long = played.alice().await;
    short.page("/").await;
    played.pass(Duration::from_secs(60));
    assert_eq!(short.get("/").await.status, 303, "its token has expired");
    played.pass(Duration::from_secs(12 * 3600 - 62));
    long.page("/").await;
    played.pass(Duration::from_secs(2));
    assert_eq!(long.get("/").await.status, 303, "12 hours are over");

    let again = played.alice().await;
    let form = again.form("/").await;
    let refused = again.post("/sign-out", &[("form", "wrong")]).await;
    assert_eq!(refused.status, 403);
    let out = again.post("/sign-out", &[("form", &form)]).await;
    assert_eq!((out.status, out.header("location")), (303, "/sign-in"));
    assert!(
        out.header("set-cookie")
            .starts_with("__Host-podbeat-session=; Max-Age=0; Path=/;")
    );

    again.page("/").await;
    for token in played.store.tokens().await.expect("tokens") {
        played
            .store
            .revoke(token.id, Timestamp::UNIX_EPOCH)
            .await
            .expect("revoked");
    }
    assert_eq!(again.get("/").await.status, 303, "its token is revoked");
    assert_eq!(again.get("/live").await.status, 401);
}

/// The text with another first character.
fn changed(text: &str) -> String {
    let first = if text.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", text.get(1..).expect("text"))
}

#[tokio::test]
async fn forged_cookies_are_refused() {
    let played = played().await;
    let alice = played.alice().await;
    let other = at("https://h", "").await;
    let stranger_token = other.token("a", "alice", Role::Admin, None).await;
    let foreign = other.signed_in(&stranger_token).await.cookie;
    let (name, value) = alice.cookie.split_once('=').expect("a value");
    let (payload, signature) = value.split_once('.').expect("a signature");
    let form = alice.form("/").await;
    let token = played.token("a", "bob", Role::User, None).await;
    let id = played.create(&token, &json!({})).await;
    let (_, answer) = played.beat(&token, &id, &json!({})).await;
    let of_run = answer["jwt"].as_str().expect("a token");
    for forged in [
        "",
        ".",
        payload,
        &format!("{payload}."),
        &format!(".{signature}"),
        &format!("{payload}.{form}"),
        &format!("{}.{signature}", changed(payload)),
        &format!("{payload}.{}", changed(signature)),
        &format!("{payload}.{signature}.x"),
        of_run,
        foreign.split_once('=').expect("a value").1,
    ] {
        let mut browser = played.stranger();
        browser.cookie = format!("{name}={forged}");
        assert_eq!(browser.get("/").await.status, 303, "{forged}");
    }
    let mut browser = played.stranger();
    browser.cookie = format!("{name}=x; {name}={value}");
    assert_eq!(
        browser.get("/").await.status,
        200,
        "another server's cookie does not hide ours"
    );
}

#[tokio::test]
async fn a_run_is_aborted_by_its_form_only() {
    let played = played().await;
    let token = played.token("a", "alice", Role::User, None).await;
    let alice = played.signed_in(&token).await;
    let id = played.create(&token, &json!({"name": "align"})).await;
    let run = format!("/run?id={id}");
    let ask = format!("/run/abort?id={id}");
    assert!(
        alice
            .page(&run)
            .await
            .contains(&format!("href=\"run/abort?id={id}\""))
    );
    assert!(alice.page(&ask).await.contains("Abort the run</button>"));
    let form = alice.form(&ask).await;
    let bob = played.token("a", "bob", Role::User, None).await;
    let bob = played.signed_in(&bob).await;
    let of_bob = bob.form(&ask).await;
    for wrong in [
        "",
        "x",
        &of_bob,
        alice.cookie.rsplit_once('.').expect("a signature").1,
    ] {
        let refused = alice
            .post("/run/abort", &[("id", &id), ("form", wrong)])
            .await;
        assert_eq!(refused.status, 403, "{wrong}");
        assert!(refused.text.contains("The form is outdated"));
    }
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let mut browser = played.stranger();
        browser.cookie.clone_from(&alice.cookie);
        browser.headers = vec![(name, value.to_owned())];
        let refused = browser
            .post("/run/abort", &[("id", &id), ("form", &form)])
            .await;
        assert_eq!(refused.status, 403, "{name}: {value}");
        assert!(refused.text.contains("Request from another site"));
        let refused = browser.post("/sign-in", &[("token", &token)]).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
    }
    let get = alice.get(&format!("/run/abort?id={id}&form={form}")).await;
    assert_eq!(get.status, 200, "a GET changes nothing");
    let (_, before) = played
        .operate(&token, "GET", &format!("/{id}"), &json!({}))
        .await;
    assert_eq!(before["status"], "Pending");

    let done = alice
        .post("/run/abort", &[("id", &id), ("form", &form)])
        .await;
    assert_eq!((done.status, done.header("location")), (303, &*run));
    let page = alice.page(&run).await;
    assert!(
        page.contains("badge aborted") && page.contains("aborted by alice"),
        "{page}"
    );
    assert!(!page.contains("run/abort"), "it can't be aborted again");
    assert!(alice.page(&ask).await.contains("nothing to abort"));
    let again = alice
        .post("/run/abort", &[("id", &id), ("form", &form)])
        .await;
    assert_eq!(again.status, 409);
    assert!(again.text.contains("already Aborted"), "{}", again.text);
}

#[tokio::test]
async fn a_reader_sees_and_changes_only_what_the_service_allows() {
    let played = played().await;
    let alice = played.token("a", "alice", Role::User, None).await;
    let own = played.create(&alice, &json!({"name": "own-run"})).await;
    let shared = played
        .create(&alice, &json!({"name": "shared-run", "acl": ["tid:b"]}))
        .await;
    let read = played.token("a", "rita", Role::Read, None).await;
    let other = played.token("b", "olga", Role::User, None).await;
    let admin = played.token("c", "adam", Role::Admin, None).await;
    for (token, sees_own, may_abort) in [
        (&alice, true, true),
        (&read, true, false),
        (&other, false, false),
        (&admin, true, true),
    ] {
        let browser = played.signed_in(token).await;
        let list = browser.page("/").await;
        assert_eq!(list.contains("own-run"), sees_own, "{list}");
        assert!(list.contains("shared-run"), "{list}");
        let has_counts = list.contains("id=\"count-pending\">2<");
        assert_eq!(has_counts, token == &admin, "only an admin sees all runs");
        let form = browser.form("/").await;
        for id in [&own, &shared] {
            let exists = id == &shared || sees_own;
            let status = |allowed: u16, refused: u16| match (exists, may_abort) {
                (false, _) => 404,
                (true, true) => allowed,
                (true, false) => refused,
            };
            let page = browser.get(&format!("/run?id={id}")).await;
            assert_eq!(page.status, status(200, 200));
            assert_eq!(
                page.text.contains("run/abort"),
                exists && may_abort,
                "{}",
                page.text
            );
            let ask = browser.get(&format!("/run/abort?id={id}")).await;
            assert_eq!(ask.status, status(200, 403), "{}", ask.text);
            let live = browser.ask("HEAD", &format!("/run/live?id={id}"), "").await;
            assert_eq!(live.status, status(200, 200));
            let beat = browser
                .get(&format!("/run/heartbeat?id={id}&number=0"))
                .await;
            assert_eq!(beat.status, 404, "none has come");
            if !may_abort {
                let refused = browser
                    .post("/run/abort", &[("id", id), ("form", &form)])
                    .await;
                assert_eq!(refused.status, status(0, 403));
            }
        }
        assert_eq!(browser.get("/run?id=unknown").await.status, 404);
        assert_eq!(browser.get("/run").await.status, 404);
    }
}

#[tokio::test]
async fn a_run_is_shown_with_its_life_and_without_secrets() {
    let played = played().await;
    let token = played.token("a", "alice", Role::User, None).await;
    let alice = played.signed_in(&token).await;
    let request = json!({"name": "align", "execution": {
        "retryLimit": 0,
        "image": {"name": "registry/align:1", "credentials": {"username": "u", "password": "hunter2"}},
        "environment": {"variables": {"KEY": "hunter2"}, "resources": {"type": "fpga", "size": "medium"}}}});
    let id = played.create(&token, &request).await;
    let state = json!([{"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]);
    let beat = json!({"nonce": "hunter2", "podName": "align-x2", "podUID": "6f1c", "podHardwareDetails": "node=n1",
        "jobRetryCount": 0, "lastHeartbeat": true, "containerStatus": state, "unknown": {"nonce": ["hunter2"]}});
    let (status, _) = played.beat(&token, &id, &beat).await;
    assert_eq!(status, 200);
    let late = json!({"nonce": "hunter2-late", "podUID": "6f1c"});
    let (status, _) = played.beat(&token, &id, &late).await;
    assert_eq!(status, 409);
    let (status, _) = played.beat(&token, &id, &json!({"podUID": 7})).await;
    assert_eq!(status, 400, "the run does not see it, so it is not kept");
    let page = alice.page(&format!("/run?id={id}")).await;
    for part in [
        "badge failed",
        "main ended with exit code 137 (OOMKilled)",
        "align-x2",
        "6f1c",
        "node=n1",
        "fpga",
        "medium",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "2026-01-01 00:00:00.500 UTC",
        "attempt 0 began",
        "registry/align:1",
        "200 accepted",
        "409 refused",
        "alice",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("hunter2"), "{page}");
    assert_eq!(page.matches("data-key=").count(), 2);
    for (number, parts) in [
        (0, ["&quot;podUID&quot;: &quot;6f1c&quot;", "200 accepted"]),
        (
            1,
            ["&quot;nonce&quot;: &quot;[redacted]&quot;", "409 refused"],
        ),
    ] {
        let body = alice
            .page(&format!("/run/heartbeat?id={id}&number={number}"))
            .await;
        assert!(parts.iter().all(|part| body.contains(part)), "{body}");
        assert!(!body.contains("hunter2"), "{body}");
    }
    for number in ["2", "-1", "x", ""] {
        let answer = alice
            .get(&format!("/run/heartbeat?id={id}&number={number}"))
            .await;
        assert_eq!(answer.status, 404, "{number}");
    }
    let other = played.create(&token, &json!({})).await;
    let answer = alice
        .get(&format!("/run/heartbeat?id={other}&number=0"))
        .await;
    assert_eq!(answer.status, 404, "it is of another run");

    let large = json!({"nonce": "hunter2", "podName": "x".repeat(100_000), "podUID": "y"});
    let (status, _) = played.beat(&token, &other, &large).await;
    assert_eq!(status, 200);
    let body = alice
        .page(&format!("/run/heartbeat?id={other}&number=2"))
        .await;
    assert!(
        body.contains("Only its beginning is kept.") && body.contains("xxxx"),
        "{body}"
    );
    assert!(!body.contains("hunter2") && body.len() < 80_000);
}

#[tokio::test]
async fn heartbeats_are_dropped_with_their_run() {
    let played = played().await;
    let token = played.token("a", "alice", Role::User, None).await;
    let id = played
        .create(&token, &json!({"execution": {"retryLimit": 0}}))
        .await;
    played
        .beat(&token, &id, &json!({"lastHeartbeat": true}))
        .await;
    let service = played.api.service().expect("a service");
    assert_eq!(service.newest_heartbeat(&id), Some(0));
    let before = service.changes();
    played.pass(DAY * 2);
    assert_eq!(service.forget(true).await.expect("a store"), 1);
    assert_eq!(service.newest_heartbeat(&id), None);
    assert!(service.changes() > before);
}

#[tokio::test]
async fn the_list_is_searched_filtered_and_paged() {
    let played = played().await;
    let token = played.token("a", "alice", Role::User, None).await;
    let alice = played.signed_in(&token).await;
    assert!(alice.page("/").await.contains("No run yet."));
    let mut ids = Vec::new();
    for nth in 0..120 {
        let name = if nth % 10 == 0 { "call & co" } else { "align" };
        ids.push(played.create(&token, &json!({"name": name})).await);
    }
    played.beat(&token, &ids[7], &json!({})).await;
    let shown = |page: &str| {
        let all = ids.iter().enumerate().rev();
        let all = all.filter(|(_, id)| page.contains(&format!("run?id={id}\"")));
        all.map(|(nth, _)| nth).collect::<Vec<_>>()
    };
    let link = |page: &str, word: &str| {
        let (before, _) = page.split_once(&format!(">{word}</a>"))?;
        let (_, address) = before.rsplit_once("href=\"./")?;
        let address = address.split('"').next()?;
        Some(format!("/{}", address.replace("&amp;", "&")))
    };
    let range = |from: usize, to: usize| (from..=to).rev().collect::<Vec<_>>();
    let first = alice.page("/").await;
    assert_eq!(shown(&first), range(70, 119));
    assert!(first.contains("120 runs.") && first.contains("data-live=\"live\""));
    assert_eq!(
        (link(&first, "First"), link(&first, "Previous")),
        (None, None)
    );
    let second = alice.page(&link(&first, "Next").expect("a page")).await;
    assert_eq!(shown(&second), range(20, 69));
    assert!(
        !second.contains("data-live"),
        "only the first page is updated"
    );
    let third = alice.page(&link(&second, "Next").expect("a page")).await;
    assert_eq!(shown(&third), range(0, 19));
    assert_eq!((link(&third, "Next"), link(&third, "Last")), (None, None));
    let last = alice.page(&link(&first, "Last").expect("a page")).await;
    assert_eq!(shown(&last), range(0, 49));
    let back = alice.page(&link(&third, "Previous").expect("a page")).await;
    assert_eq!(shown(&back), range(20, 69));
    let top = alice.page(&link(&back, "Previous").expect("a page")).await;
    assert_eq!(shown(&top), range(70, 119));
    assert_eq!(link(&top, "Previous"), None);
    assert_eq!(link(&top, "First").expect("a page"), "/");

    let calls = alice.page("/?search=call+%26").await;
    assert_eq!(
        shown(&calls),
        (0..12).rev().map(|nth| nth * 10).collect::<Vec<_>>()
    );
    assert!(calls.contains("value=\"call &amp;\"") && calls.contains("Show all"));
    assert!(calls.contains("data-live=\"live?search=call%20%26\""));
    let by_id = alice.page(&format!("/?search={}", &ids[3])).await;
    assert_eq!(shown(&by_id), [3]);
    let running = alice.page("/?search=&status=Running&status=Failed").await;
    assert_eq!(shown(&running), [7]);
    assert!(running.contains("value=\"Running\" checked"));
    assert!(
        alice
            .page("/?status=Aborted")
            .await
            .contains("No run matches.")
    );
    let aligned = alice.page("/?search=ali&status=Pending").await;
    let next = link(&aligned, "Next").expect("a page");
    assert!(
        next.starts_with("/?search=ali&status=Pending&page="),
        "{next}"
    );
    assert!(
        shown(&alice.page(&next).await)
            .iter()
            .all(|nth| nth % 10 != 0 && *nth != 7)
    );
    let (_, page) = next.split_once("&page=").expect("a token");
    for wrong in [
        "/?status=Odd",
        "/?status=running",
        "/?search=%ff",
        "/?page=x",
        &format!("/?search=other&page={page}"),
        &format!("/?search={}", "x".repeat(256)),
    ] {
        assert_eq!(alice.get(wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(alice.get("/?page=&other=1").await.status, 200);
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let played = at("http://h:1", "/a{b}").await;
    let token = played.token("a", "alice", Role::User, None).await;
    let alice = played.signed_in(&token).await;
    assert!(
        alice.cookie.starts_with("podbeat-session="),
        "not over HTTPS"
    );
    let id = played.create(&token, &json!({})).await;
    played.beat(&token, &id, &json!({})).await;
    let html = "text/html; charset=utf-8";
    for (path, status, kind, methods) in [
        ("/", 200, html, "GET, HEAD"),
        ("/page.css", 200, "text/css; charset=utf-8", "GET, HEAD"),
        (
            "/page.js",
            200,
            "text/javascript; charset=utf-8",
            "GET, HEAD",
        ),
        ("/page.svg", 200, "image/svg+xml", "GET, HEAD"),
        ("/sign-in", 200, html, "GET, HEAD, POST"),
        ("/sign-out", 405, html, "POST"),
        ("/live", 200, "text/event-stream", "GET, HEAD"),
        ("/?status=Odd", 400, html, "GET, HEAD"),
        ("/run", 404, html, "GET, HEAD"),
        (&format!("/run?id={id}"), 200, html, "GET, HEAD"),
        (
            &format!("/run/live?id={id}"),
            200,
            "text/event-stream",
            "GET, HEAD",
        ),
        (&format!("/run/abort?id={id}"), 200, html, "GET, HEAD, POST"),
        (
            &format!("/run/heartbeat?id={id}&number=0"),
            200,
            html,
            "GET, HEAD",
        ),
    ] {
        for method in ["HEAD", "GET"] {
            if method == "GET" && kind == "text/event-stream" {
                continue;
            }
            let answer = alice.ask(method, path, "").await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (status, kind),
                "{method} {path}"
            );
            assert_eq!(answer.text.is_empty(), method == "HEAD", "{method} {path}");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("referrer-policy"), "same-origin");
            assert_eq!(answer.header("x-frame-options"), "DENY");
            let policy = answer.header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self';"),
                "{policy}"
            );
            assert!(
                policy.contains("form-action 'self'; frame-ancestors 'none'"),
                "{policy}"
            );
            assert!(
                !policy.contains("unsafe") && !policy.contains('*'),
                "{policy}"
            );
            let text = answer.text;
            assert!(
                kind != html || !text.contains(" style=") && !text.contains("onclick"),
                "{text}"
            );
        }
        for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "POST"] {
            if methods.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = alice.ask(method, path, "").await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, methods),
                "{method} {path}"
            );
        }
    }
    let (status, _) = played.operate(&token, "GET", "", &json!({})).await;
    assert_eq!(status, 200, "the API is next to it");
}

#[tokio::test]
async fn until_the_service_is_ready_the_page_says_so() {
    let api = Arc::new(Api::new("/ica"));
    let router = router(Arc::clone(&api)).merge(api.router());
    for (path, status) in [
        ("/ica/", 503),
        ("/ica/sign-in", 503),
        ("/ica/page.css", 200),
        ("/ica/v1/tasks/runs", 503),
        ("/", 404),
    ] {
        let request = Request::builder().uri(path).body(Body::empty());
        let response = router
            .clone()
            .oneshot(request.expect("a request"))
            .await
            .expect("a response");
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 503,
            "{path}"
        );
    }
    // A base path without a slash at its beginning never matches, as in the API.
    let _ = super::router(Arc::new(Api::new("odd")));
}

/// A stream of server-sent events, and the page that follows it.
struct Followed {
    parts: axum::body::BodyDataStream,
    regions: BTreeMap<String, String>,
    rows: BTreeMap<u64, String>,
    order: Vec<u64>,
    events: u64,
}

impl Followed {
    async fn open(browser: &Browser<'_>, path: &str) -> Self {
        let request = browser.request("GET", path).body(Body::empty());
        let router = browser.played.router.clone();
        let response = router
            .oneshot(request.expect("a request"))
            .await
            .expect("a response");
        assert_eq!(response.status(), 200);
        Self {
            parts: response.into_body().into_data_stream(),
            regions: BTreeMap::new(),
            rows: BTreeMap::new(),
            order: Vec::new(),
            events: 0,
        }
    }

    /// The next part. `None` at the end.
    async fn part(&mut self) -> Option<String> {
        let part = tokio::time::timeout(LIMIT, self.parts.next()).await;
        let part = part.expect("in time")?.expect("a part");
        Some(String::from_utf8(part.into()).expect("text"))
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            let part = self
                .part()
                .await
                .unwrap_or_else(|| panic!("it ended before: {what}"));
            let field = |name: &str| part.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else {
                continue;
            };
            self.events += 1;
            assert_eq!(field("id: "), Some(&*self.events.to_string()));
            assert_eq!(field("retry: ").is_some(), self.events == 1);
            let told: Value = serde_json::from_str(data).expect("JSON");
            for (name, html) in told["regions"].as_object().expect("regions") {
                self.regions
                    .insert(name.clone(), html.as_str().expect("text").to_owned());
            }
            for row in told["rows"].as_array().expect("rows") {
                let html = row[1].as_str().expect("text").to_owned();
                self.rows.insert(row[0].as_u64().expect("a key"), html);
            }
            let order = told["order"].as_array().expect("an order");
            self.order = order
                .iter()
                .map(|key| key.as_u64().expect("a key"))
                .collect();
            self.rows.retain(|key, _| self.order.contains(key));
            assert_eq!(self.rows.len(), self.order.len(), "every row is known");
        }
    }

    fn shows(&self, text: &str) -> bool {
        self.rows
            .values()
            .chain(self.regions.values())
            .any(|html| html.contains(text))
    }
}

#[tokio::test(start_paused = true)]
async fn open_pages_follow_the_service() {
    let played = played().await;
    let token = played.token("a", "alice", Role::Admin, None).await;
    let alice = played.signed_in(&token).await;
    let id = played
        .create(
            &token,
            &json!({"name": "first", "execution": {"retryLimit": 0}}),
        )
        .await;
    let mut list = Followed::open(&alice, "/live").await;
    let mut pending = Followed::open(&alice, "/live?status=Pending&search=fir").await;
    let mut run = Followed::open(&alice, &format!("/run/live?id={id}")).await;
    list.until("everything", |page| page.shows("first")).await;
    pending
        .until("everything", |page| page.shows("first"))
        .await;
    run.until("everything", |page| page.shows("badge pending"))
        .await;
    assert_eq!(
        (list.events, run.events),
        (1, 1),
        "the first event has everything"
    );
    assert_eq!(list.regions["count-pending"], "1");
    played.beat(&token, &id, &json!({"podUID": "u"})).await;
    list.until("running", |page| page.shows("badge running"))
        .await;
    pending.until("none", |page| page.order.is_empty()).await;
    run.until("running", |page| {
        page.shows("badge running") && page.order.len() == 1
    })
    .await;
    // A heartbeat that changes nothing else.
    let began = tokio::time::Instant::now();
    played.beat(&token, &id, &json!({"podUID": "u"})).await;
    run.until("the heartbeat", |page| page.order.len() == 2)
        .await;
    let took = began.elapsed();
    assert!(took <= Duration::from_millis(1250), "{took:?}");
    played.create(&token, &json!({"name": "second"})).await;
    list.until("the second", |page| page.order.len() == 2).await;
    assert!(list.rows[&list.order[0]].contains("second"), "newest first");
    let (status, _) = played
        .operate(&token, "PUT", &format!("/{id}:abort"), &json!({}))
        .await;
    assert_eq!(status, 200);
    run.until("aborted", |page| page.shows("badge aborted"))
        .await;
    assert!(!run.shows("run/abort"));
    played.pass(DAY * 2);
    let service = played.api.service().expect("a service");
    service.forget(true).await.expect("a store");
    run.until("removed", |page| page.shows("removed this run"))
        .await;
    played.api.end_streams();
    for page in [&mut list, &mut run] {
        while let Some(part) = page.part().await {
            assert!(part.starts_with("id: ") || part == ":\n\n", "{part}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_soon_after_its_session() {
    let played = played().await;
    let token = played.token("a", "alice", Role::User, None).await;
    let alice = played.signed_in(&token).await;
    let mut list = Followed::open(&alice, "/live").await;
    list.until("everything", |page| page.events == 1).await;
    let opened = tokio::time::Instant::now();
    assert_eq!(
        list.part().await.as_deref(),
        Some(":\n\n"),
        "an idle stream is kept alive"
    );
    for token in played.store.tokens().await.expect("tokens") {
        played
            .store
            .revoke(token.id, Timestamp::UNIX_EPOCH)
            .await
            .expect("revoked");
    }
    while let Some(part) = list.part().await {
        assert_eq!(part, ":\n\n");
        assert!(opened.elapsed() <= LIMIT);
    }
    assert!(
        opened.elapsed() <= Duration::from_secs(31),
        "{:?}",
        opened.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_number_of_streams_is_limited_and_a_closed_one_frees_its_place() {
    let played = played().await;
    let alice = played.alice().await;
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(Followed::open(&alice, "/live").await);
    }
    let refused = alice.get("/live").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert_eq!(alice.get("/").await.status, 200, "the page itself is there");
    assert_eq!(alice.ask("HEAD", "/live", "").await.status, 200);
    open.pop();
    Followed::open(&alice, "/live").await;
    let mut browser = played.stranger();
    browser.cookie.clone_from(&alice.cookie);
    browser.headers[0].1 = "same-site".to_owned();
    assert_eq!(browser.get("/live").await.status, 403);
}
