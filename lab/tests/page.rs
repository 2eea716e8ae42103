//! The page over HTTP, with a client that runs no script: access, answers, and the streams'
//! content.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::page;
use podbeat_lab::service::{Options, Service};
use podbeat_lab::task_runs::clock::Clock;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{self, TOKEN};

/// How long a state may take to appear.
const LIMIT: Duration = Duration::from_secs(60);

struct Played {
    service: Service,
    faults: Faults,
    clock: Clock,
    client: Client,
    cookie: String,
}

fn client() -> Client {
    harness::client()
        .read_timeout(LIMIT)
        .redirect(Policy::none())
        .build()
        .expect("a client")
}

fn options(clock: &Clock) -> Options {
    Options {
        tokens: BTreeSet::from([TOKEN.to_owned()]),
        runs: Some(BTreeSet::new()),
        clock: clock.clone(),
        page: Some(page::Options::default()),
        ..Options::default()
    }
}

fn clock() -> Clock {
    Clock::stopped_at("2026-01-01T00:00:00Z".parse().expect("a time"))
}

impl Played {
    async fn start() -> Self {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(Options) -> Options) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), change).await
    }

    async fn at(address: SocketAddr, change: impl FnOnce(Options) -> Options) -> Self {
        let (clock, faults) = (clock(), Faults::default());
        let contract = Contract::load().expect("the contract");
        let options = change(options(&clock));
        let service = Service::start_plain(address, contract, faults.clone(), options)
            .await
            .expect("a service");
        let mut played = Self {
            service,
            faults,
            clock,
            client: client(),
            cookie: String::new(),
        };
        let link = played.service.page_url().expect("a page");
        let let_in = played.client.get(link).send().await.expect("an answer");
        assert_eq!(let_in.status(), 303);
        let cookie = let_in.headers()["set-cookie"].to_str().expect("text");
        played.cookie = cookie.split(';').next().expect("a cookie").to_owned();
        played
    }

    fn url(&self, rest: &str) -> String {
        format!("{}{rest}", self.service.url())
    }

    async fn see(&self, rest: &str) -> Response {
        let request = self
            .client
            .get(self.url(rest))
            .header("cookie", &self.cookie);
        request.send().await.expect("an answer")
    }

    async fn page(&self, rest: &str) -> String {
        let response = self.see(rest).await;
        assert_eq!(response.status(), 200, "{rest}");
        response.text().await.expect("text")
    }

    /// Opens the page's stream.
    async fn stream(&self, rest: &str) -> Stream {
        let response = self.see(rest).await;
        assert_eq!(response.status(), 200, "{rest}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream {
            response,
            text: String::new(),
        }
    }

    async fn operate(&self, method: Method, rest: &str, body: &Value) -> (u16, Value) {
        let request = self
            .client
            .request(method, self.url(&format!("/v1/tasks/runs{rest}")));
        let request = request
            .bearer_auth(TOKEN)
            .header("content-type", "application/json");
        let response = request
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn run(&self, name: &str) -> String {
        let (status, body) = self.operate(Method::POST, "", &json!({"name": name})).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().expect("an id").to_owned()
    }

    async fn beat(&self, id: &str, body: &Value) -> u16 {
        self.operate(Method::POST, &format!("/{id}:heartbeat"), body)
            .await
            .0
    }
}

/// A stream of server-sent events.
struct Stream {
    response: Response,
    text: String,
}

/// The content of a page that has followed a stream from its start.
#[derive(Debug, Default)]
struct Shown {
    events: u64,
    regions: BTreeMap<String, String>,
    rows: BTreeMap<u64, String>,
    order: Vec<u64>,
}

impl Stream {
    /// The next event or comment as lines; `None` at the end.
    async fn next(&mut self) -> Option<Vec<String>> {
        let wait = async {
            loop {
                if let Some((part, rest)) = self.text.split_once("\n\n") {
                    let lines = part.lines().map(str::to_owned).collect();
                    self.text = rest.to_owned();
                    return Some(lines);
                }
                let chunk = self.response.chunk().await.ok()??;
                self.text
                    .push_str(std::str::from_utf8(&chunk).expect("text"));
            }
        };
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("an event, or the end")
    }

    /// Follows the stream until the page is as wanted.
    async fn until(&mut self, shown: &mut Shown, what: &str, reached: impl Fn(&Shown) -> bool) {
        while !reached(shown) {
            let lines = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before: {what}"));
            shown.take(&lines);
        }
    }
}

impl Shown {
    fn take(&mut self, lines: &[String]) {
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        let Some(data) = field("data: ") else {
            return;
        };
        assert_eq!(field("event: "), Some("state"));
        self.events += 1;
        assert_eq!(
            field("id: ").map(str::to_owned),
            Some(self.events.to_string())
        );
        assert_eq!(field("retry: ").is_some(), self.events == 1);
        let told: Value = serde_json::from_str(data).expect("JSON");
        for (name, html) in told["regions"].as_object().expect("regions") {
            self.regions
                .insert(name.clone(), html.as_str().expect("text").to_owned());
        }
        for row in told["rows"].as_array().expect("rows") {
            let key = row[0].as_u64().expect("a key");
            self.rows
                .insert(key, row[1].as_str().expect("text").to_owned());
        }
        let order = told["order"].as_array().expect("an order");
        self.order = order
            .iter()
            .map(|key| key.as_u64().expect("a key"))
            .collect();
        self.rows.retain(|key, _| self.order.contains(key));
        assert_eq!(self.rows.len(), self.order.len(), "every row is known");
    }

    fn shows(&self, text: &str) -> bool {
        self.rows
            .values()
            .chain(self.regions.values())
            .any(|html| html.contains(text))
    }
}

#[tokio::test]
async fn only_the_link_gives_access() {
    let played = Played::start().await;
    let id = played.run("secret-name").await;
    let link = played.service.page_url().expect("a page");
    let let_in = played.client.get(&link).send().await.expect("an answer");
    assert_eq!(let_in.headers()["location"], "/");
    let cookie = let_in.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let (_, key) = link.split_once("key=").expect("a key");
    assert!(!cookie.contains(key) && !link.contains(TOKEN));
    for rest in [
        "/",
        "/live",
        "/run?id=x",
        &format!("/run?id={id}"),
        &format!("/run/live?id={id}"),
        "/?key=",
        "/?key=wrong",
    ] {
        for (name, value) in [
            ("x-none", String::new()),
            ("cookie", "podbeat-lab-1=1.2".to_owned()),
            ("cookie", played.cookie.replace("=1", "=2")),
            ("authorization", format!("Bearer {TOKEN}")),
        ] {
            let request = played.client.get(played.url(rest)).header(name, &value);
            let response = request.send().await.expect("an answer");
            assert_eq!(response.status(), 403, "{rest} {name}: {value}");
            assert!(response.headers().get("set-cookie").is_none());
            let text = response.text().await.expect("text");
            assert!(
                text.contains("podbeat-lab service prints the link"),
                "{text}"
            );
            assert!(
                !text.contains("secret-name") && !text.contains(key),
                "{text}"
            );
        }
    }
    assert!(played.page("/").await.contains("secret-name"));
    // The cookie opens only the page.
    let request = played
        .client
        .get(played.url("/v1/tasks/runs"))
        .header("cookie", &played.cookie);
    assert_eq!(request.send().await.expect("an answer").status(), 401);
    let other = Played::start().await;
    let request = other
        .client
        .get(other.url("/"))
        .header("cookie", &played.cookie);
    assert_eq!(
        request.send().await.expect("an answer").status(),
        403,
        "another service"
    );
}

#[tokio::test]
async fn rebound_names_and_other_origins_are_refused() {
    let played = Played::with(|mut options| {
        options.page = Some(page::Options {
            hosts: BTreeSet::from(["lab.example".to_owned()]),
            ..page::Options::default()
        });
        options
    })
    .await;
    let asked = |rest: &str, header: &'static str, value: &'static str| {
        let request = played
            .client
            .get(played.url(rest))
            .header("cookie", &played.cookie);
        let request = request.header(header, value);
        async move { request.send().await.expect("an answer") }
    };
    for (host, status) in [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("localhost:1", 200),
        ("[::1]:8080", 200),
        ("lab.example", 200),
    ] {
        for rest in ["/", "/page.css", "/page.js"] {
            assert_eq!(
                asked(rest, "host", host).await.status(),
                status,
                "{host} {rest}"
            );
        }
    }
    for (site, status) in [("cross-site", 403), ("same-site", 403)] {
        assert_eq!(
            asked("/live", "sec-fetch-site", site).await.status(),
            status,
            "{site}"
        );
    }
    let response = asked("/", "origin", "http://evil.example").await;
    for (name, _) in response.headers() {
        assert!(!name.as_str().starts_with("access-control"), "{name}");
    }
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let played = Played::start().await;
    let id = played.run("a").await;
    let run = format!("/run?id={id}");
    let run_live = format!("/run/live?id={id}");
    for (rest, status, kind) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/?status=Running", 200, "text/html; charset=utf-8"),
        ("/?status=timedout&other=1", 200, "text/html; charset=utf-8"),
        (&*run, 200, "text/html; charset=utf-8"),
        ("/page.css", 200, "text/css; charset=utf-8"),
        ("/page.js", 200, "text/javascript; charset=utf-8"),
        ("/page.svg", 200, "image/svg+xml"),
        ("/live", 200, "text/event-stream"),
        (&*run_live, 200, "text/event-stream"),
        ("/run", 404, "text/html; charset=utf-8"),
        ("/run?id=unknown", 404, "text/html; charset=utf-8"),
        ("/run/live?id=unknown", 404, "text/html; charset=utf-8"),
        ("/?status=Odd", 400, "text/html; charset=utf-8"),
        ("/?status=%ff", 400, "text/html; charset=utf-8"),
    ] {
        let mut length = None;
        for method in [Method::GET, Method::HEAD] {
            let request = played.client.request(method.clone(), played.url(rest));
            let response = request
                .header("cookie", &played.cookie)
                .send()
                .await
                .expect("an answer");
            let headers = response.headers().clone();
            assert_eq!(response.status().as_u16(), status, "{method} {rest}");
            assert_eq!(headers["content-type"], kind, "{rest}");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["referrer-policy"], "no-referrer");
            let policy = headers["content-security-policy"].to_str().expect("text");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
                "{policy}"
            );
            assert!(
                !policy.contains("unsafe") && !policy.contains('*'),
                "{policy}"
            );
            if method == Method::GET {
                length = headers.get("content-length").cloned();
                assert_eq!(length.is_none(), kind == "text/event-stream", "{rest}");
            }
            if method == Method::HEAD {
                assert_eq!(headers.get("content-length"), length.as_ref(), "{rest}");
                assert!(
                    response.bytes().await.expect("nothing").is_empty(),
                    "{rest}"
                );
            } else if status == 200 && kind.starts_with("text/html") {
                let text = response.text().await.expect("text");
                assert!(
                    !text.contains(" style=")
                        && !text.contains("onclick")
                        && !text.contains("http"),
                    "{text}"
                );
            }
        }
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::PATCH,
        ] {
            let request = played.client.request(method.clone(), played.url(rest));
            let response = request
                .header("cookie", &played.cookie)
                .send()
                .await
                .expect("an answer");
            assert_eq!(response.status(), 405, "{method} {rest}");
            assert_eq!(response.headers()["allow"], "GET, HEAD");
        }
    }
}

#[tokio::test]
async fn the_page_is_served_next_to_the_operations_only_if_enabled() {
    let none = Service::start_plain(
        ([127, 0, 0, 1], 0).into(),
        Contract::load().expect("the contract"),
        Faults::default(),
        Options::with_token(TOKEN),
    );
    let none = none.await.expect("a service");
    assert_eq!(none.page_url(), None);
    for rest in ["/", "/live", "/page.js", "/run?id=x"] {
        let response = client()
            .get(format!("{}{rest}", none.url()))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 404, "{rest}");
        assert_eq!(response.headers()["content-type"], "application/json");
    }
    let played = Played::with(|options| Options {
        base_path: "/ica".to_owned(),
        ..options
    })
    .await;
    let id = played.run("a").await;
    assert!(
        played
            .service
            .page_url()
            .expect("a page")
            .contains("/ica/?key=")
    );
    let page = played.page("/").await;
    assert!(
        page.contains("href=\"page.css\"") && page.contains(&format!("run?id={id}")),
        "relative, so under any base"
    );
    let to_base = played.see("").await;
    assert_eq!(
        (to_base.status().as_u16(), &to_base.headers()["location"]),
        (303, &"/ica/".parse().expect("a value"))
    );
    assert_eq!(
        played.see("/elsewhere").await.headers()["content-type"],
        "application/json"
    );
    // Faults apply to the operations and never to the page.
    played
        .faults
        .script("any 503 until-lifted")
        .expect("a rule");
    assert_eq!(played.operate(Method::GET, "", &Value::Null).await.0, 503);
    assert!(played.page("/").await.contains(&id));
}

#[tokio::test]
async fn a_run_is_found_by_any_id() {
    let played = Played::with(|options| Options {
        runs: None,
        ..options
    })
    .await;
    for id in [".", "..", "a/b", "a b+c", "ä?&=#%", "<b>\"'"] {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = json!({"nonce": "n"});
        // A raw request keeps encoded dots. Browsers and reqwest don't.
        let path = format!("/v1/tasks/runs/{encoded}:heartbeat");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.to_string().len()
        );
        let address = played.service.url().replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let list = played.page("/").await;
        let link = list
            .split("href=\"run?id=")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a link");
        let run = played.page(&format!("/run?id={link}")).await;
        assert!(run.contains("<code><bdi>n</bdi></code>"), "{id}: {run}");
        let mut stream = played.stream(&format!("/run/live?id={link}")).await;
        let mut shown = Shown::default();
        stream
            .until(&mut shown, "its heartbeat", |shown| shown.rows.len() == 1)
            .await;
    }
}

#[tokio::test]
async fn the_page_of_a_run_shows_its_heartbeats_and_their_answers() {
    let played = Played::start().await;
    let id = played.run("align").await;
    assert!(
        played
            .page(&format!("/run?id={id}"))
            .await
            .contains("the service has not received a heartbeat yet")
    );
    played
        .faults
        .script("heartbeat 503; heartbeat jwt=hunter2; heartbeat drop")
        .expect("rules");
    assert_eq!(played.beat(&id, &json!({"nonce": "first"})).await, 503);
    assert_eq!(played.beat(&id, &json!({"nonce": "second"})).await, 200);
    let dropped = played
        .client
        .post(played.url(&format!("/v1/tasks/runs/{id}:heartbeat")))
        .bearer_auth(TOKEN)
        .body("{}");
    assert!(
        dropped
            .header("content-type", "application/json")
            .send()
            .await
            .is_err()
    );
    assert_eq!(played.beat(&id, &json!({"nonce": 7})).await, 400);
    played.clock.advance(Duration::from_secs(90));
    let status = json!([{"name": "main", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]);
    let body = json!({"nonce": "last", "lastHeartbeat": true, "jobRetryCount": 4, "containerStatus": status});
    assert_eq!(played.beat(&id, &body).await, 200);
    let page = played.page(&format!("/run?id={id}")).await;
    for part in [
        "2026-01-01 00:01:30 UTC",
        "<span class=\"last\">last</span>",
        "<code><bdi>main</bdi></code> <bdi>terminated</bdi>, <bdi>OOMKilled</bdi>, exit code 137",
        "<span class=\"bad\">503</span> <span class=\"fault\">fault: <bdi>503</bdi></span>",
        "fault: <bdi>jwt</bdi>",
        "<span class=\"bad\">none</span> <span class=\"fault\">fault: <bdi>drop</bdi></span>",
        "/nonce: 7 is not of type",
        "main ended with exit code 137",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        page.find("last</span>") < page.find("first"),
        "newest first"
    );
    assert!(!page.contains("hunter2") && !page.contains(TOKEN), "{page}");
    for nth in 0..60 {
        played
            .beat(&id, &json!({"nonce": format!("late-{nth}-")}))
            .await;
    }
    let page = played.page(&format!("/run?id={id}")).await;
    assert_eq!(page.matches("data-key").count(), 50);
    assert!(page.contains("late-59-") && page.contains("late-10-") && !page.contains("late-9-"));
}

#[tokio::test]
async fn heartbeats_with_invented_ids_displace_no_others() {
    let played = Played::start().await;
    let id = played.run("align").await;
    assert_eq!(played.beat(&id, &json!({"nonce": "mine"})).await, 200);
    assert_eq!(
        played.beat("made-up", &json!({"nonce": "other"})).await,
        404
    );
    assert_eq!(played.see("/run?id=made-up").await.status(), 404);
    assert!(played.page(&format!("/run?id={id}")).await.contains("mine"));
}

#[tokio::test]
async fn a_stream_sends_everything_first_and_then_changes() {
    let played = Played::start().await;
    let first = played.run("first").await;
    let mut stream = played.stream("/live").await;
    let mut shown = Shown::default();
    stream
        .until(&mut shown, "the run", |shown| shown.shows("first"))
        .await;
    assert_eq!(shown.events, 1, "the first event has everything");
    assert!(shown.shows("Pending") && shown.regions["count-pending"] == "1");
    assert_eq!(played.beat(&first, &json!({})).await, 200);
    stream
        .until(&mut shown, "running", |shown| {
            shown.shows("badge running") && shown.regions["count-running"] == "1"
        })
        .await;
    played.run("second").await;
    stream
        .until(&mut shown, "the second", |shown| shown.order.len() == 2)
        .await;
    assert!(
        shown.rows[&shown.order[0]].contains("second"),
        "newest first"
    );

    let mut only_running = played.stream("/live?status=running").await;
    let mut filtered = Shown::default();
    only_running
        .until(&mut filtered, "one row", |shown| shown.order.len() == 1)
        .await;
    assert_eq!(filtered.regions["count-all"], "2");
    let (status, _) = played
        .operate(Method::PUT, &format!("/{first}:abort"), &Value::Null)
        .await;
    assert_eq!(status, 200);
    only_running
        .until(&mut filtered, "none", |shown| shown.order.is_empty())
        .await;
    assert!(filtered.shows("No run is Running now."));

    // A reconnected stream starts with everything, whatever its last event id.
    let request = played
        .client
        .get(played.url("/live"))
        .header("cookie", &played.cookie);
    let response = request
        .header("last-event-id", "7")
        .send()
        .await
        .expect("an answer");
    let mut again = Stream {
        response,
        text: String::new(),
    };
    let mut shown = Shown::default();
    again
        .until(&mut shown, "all", |shown| shown.events == 1)
        .await;
    assert!(shown.shows("second") && shown.shows("badge aborted"));
}

#[tokio::test]
async fn a_timeout_appears_by_itself_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("runs.sqlite");
    let with_data = |options: Options| Options {
        data: Some(data.clone()),
        heartbeat_timeout: Some(Duration::from_secs(60)),
        ..options
    };
    let played = Played::with(with_data).await;
    let id = played.run("align").await;
    assert_eq!(played.beat(&id, &json!({})).await, 200);
    let mut of_all = played.stream("/live").await;
    let mut of_run = played.stream(&format!("/run/live?id={id}")).await;
    let (mut all, mut run) = (Shown::default(), Shown::default());
    of_all
        .until(&mut all, "running", |shown| shown.shows("badge running"))
        .await;
    of_run
        .until(&mut run, "running", |shown| shown.shows("badge running"))
        .await;
    played.clock.advance(Duration::from_secs(61));
    of_all
        .until(&mut all, "timed out", |shown| shown.shows("badge timedout"))
        .await;
    of_run
        .until(&mut run, "timed out", |shown| shown.shows("badge timedout"))
        .await;
    assert!(all.shows("no heartbeat for 1m") && run.shows("no heartbeat for 1m"));
    assert_eq!(all.regions["count-timedout"], "1");

    let (address, cookie) = (
        played.service.url().replace("http://", ""),
        played.cookie.clone(),
    );
    drop(played.service);
    assert_eq!(
        of_all.next().await,
        None,
        "the stream ends with the service"
    );
    // This service's clock is before the timeout, so it knows of the timeout only from the file.
    let mut again = Played::at(address.parse().expect("an address"), with_data).await;
    again.cookie = cookie;
    assert!(
        again.page("/").await.contains("badge timedout"),
        "the browser has access as before"
    );
}

#[tokio::test]
async fn the_number_of_streams_is_limited_and_a_closed_one_frees_its_place() {
    let played = Played::with(|mut options| {
        options.page = Some(page::Options {
            streams: 2,
            ..page::Options::default()
        });
        options
    })
    .await;
    let (one, other) = (played.stream("/live").await, played.stream("/live").await);
    let refused = played.see("/live").await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers().contains_key("retry-after")
        ),
        (503, true)
    );
    assert!(
        played.page("/").await.contains("No run yet"),
        "the page itself is there"
    );
    drop(one);
    let wait = async {
        while played.see("/live").await.status() == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("a place");
    drop(other);
}

/// Measures accepted heartbeats with and without open pages, and their memory: `just page-load`. It
/// reports figures, and fails only if one is far off.
mod load {
    use std::process::Stdio;

    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpStream;
    use tokio::process::{Child, Command};
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    const RUNS: usize = 2_500;
    const BEATS: usize = 50;
    const CONNECTIONS: usize = 25;
    const ROUNDS: usize = 3;
    /// The open pages of the runs.
    const PAGES: usize = 4;

    struct Binary {
        child: Child,
        address: String,
        page: Option<String>,
    }

    async fn start(binary: &str) -> Binary {
        let mut child = Command::new(binary)
            .args(["service", "--listen", "127.0.0.1:0", "--token", TOKEN])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (mut address, mut page) = (String::new(), None);
        // A binary without a page prints its token last.
        while let Ok(Ok(Some(line))) =
            tokio::time::timeout(Duration::from_millis(500), lines.next_line()).await
        {
            match line.split_once(' ') {
                Some(("url", url)) => address = url.trim().replace("http://", ""),
                Some(("page", url)) => page = Some(url.trim().to_owned()),
                _ => {}
            }
        }
        Binary {
            child,
            address,
            page,
        }
    }

    impl Binary {
        /// Resident memory, in MiB.
        fn resident(&self) -> usize {
            let pid = self.child.id().expect("it runs");
            let status =
                std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
            let line = status
                .lines()
                .find(|line| line.starts_with("VmRSS:"))
                .expect("its memory");
            let kilobytes: usize = line
                .split_whitespace()
                .nth(1)
                .expect("a number")
                .parse()
                .expect("a number");
            kilobytes / 1024
        }
    }

    impl Binary {
        /// The processor time that it used, in seconds. Unlike the rate, it hardly depends on other
        /// work on the machine.
        fn took(&self) -> f64 {
            /// The kernel's ticks in a second (`getconf CLK_TCK`; 100 on all current
            /// architectures).
            const TICKS: f64 = 100.0;
            let pid = self.child.id().expect("it runs");
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
            let (_, rest) = stat.rsplit_once(") ").expect("its times");
            let fields = rest.split(' ').skip(11).take(2);
            fields
                .map(|ticks| ticks.parse::<f64>().expect("ticks"))
                .sum::<f64>()
                / TICKS
        }
    }

    /// Sends a request on a connection, and returns its answer.
    async fn ask(stream: &mut BufReader<TcpStream>, path: &str, body: &str) -> String {
        let head = format!(
            "POST /v1/tasks/runs{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.expect("a line");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
            assert!(
                !line.starts_with("HTTP") || line.starts_with("HTTP/1.1 20"),
                "{line}"
            );
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8(answer).expect("text")
    }

    fn body(nth: usize) -> String {
        let state = json!({"running": {"startedAt": "2026-01-01T00:00:01Z"}});
        let status =
            json!([{"name": "main", "state": state}, {"name": "log-shipper", "state": state}]);
        let heartbeat = json!({"containerStatus": status, "jobRetryCount": 0, "lastHeartbeat": false,
                               "nonce": format!("{nth:032x}"), "podName": "align-reads-7f3a-x2x4k",
                               "podUID": "6f1c2d0e-55aa-4b0e-9f0e-2a41c1d9e7b3"});
        heartbeat.to_string()
    }

    /// Measures accepted heartbeats a second.
    async fn rate(binary: &Binary) -> f64 {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let address = binary.address.clone();
            clients.spawn(async move {
                let stream = TcpStream::connect(address).await.expect("connected");
                let mut stream = BufReader::new(stream);
                let mut ids = Vec::new();
                for _ in 0..RUNS / CONNECTIONS {
                    let run: Value = serde_json::from_str(
                        &ask(&mut stream, "", r#"{"name":"align-reads"}"#).await,
                    )
                    .expect("JSON");
                    ids.push(run["id"].as_str().expect("an id").to_owned());
                }
                let began = Instant::now();
                for nth in 0..BEATS {
                    for id in &ids {
                        ask(&mut stream, &format!("/{id}:heartbeat"), &body(nth)).await;
                    }
                }
                (began, Instant::now())
            });
        }
        let times = clients.join_all().await;
        let began = times
            .iter()
            .map(|(began, _)| *began)
            .min()
            .expect("a client");
        let ended = times
            .iter()
            .map(|(_, ended)| *ended)
            .max()
            .expect("a client");
        let beats = u32::try_from(RUNS * BEATS).expect("a number");
        f64::from(beats) / (ended - began).as_secs_f64()
    }

    /// Opens pages that read everything, and counts their events.
    async fn follow(binary: &Binary) -> JoinSet<usize> {
        let client = client_without_limit();
        let page = binary.page.clone().expect("a page");
        let let_in = client.get(&page).send().await.expect("an answer");
        let cookie = let_in.headers()["set-cookie"]
            .to_str()
            .expect("text")
            .to_owned();
        let mut streams = JoinSet::new();
        for _ in 0..PAGES {
            let (client, cookie) = (client.clone(), cookie.clone());
            let url = format!("http://{}/live", binary.address);
            streams.spawn(async move {
                let mut response = client
                    .get(url)
                    .header("cookie", cookie)
                    .send()
                    .await
                    .expect("an answer");
                let mut events = 0;
                while let Ok(Some(chunk)) = response.chunk().await {
                    events += chunk
                        .windows(7)
                        .filter(|window| window == b"event: ")
                        .count();
                }
                events
            });
        }
        streams
    }

    fn client_without_limit() -> Client {
        harness::client()
            .redirect(Policy::none())
            .build()
            .expect("a client")
    }

    /// The result of one round.
    #[derive(Debug)]
    struct Round {
        /// Accepted heartbeats a second.
        rate: f64,
        /// The service's processor time for each heartbeat, in microseconds.
        cost: f64,
        resident: usize,
        events: usize,
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement: just page-load"]
    #[allow(
        clippy::disallowed_methods,
        reason = "the environment names the binary to measure"
    )]
    async fn heartbeats_a_second() {
        let own = env!("CARGO_BIN_EXE_podbeat-lab").to_owned();
        let before = std::env::var("PODBEAT_LAB_BEFORE").ok();
        let beats = f64::from(u32::try_from(RUNS * BEATS).expect("a number"));
        let mut told: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let mut kinds = vec![("page closed", &own, false), ("pages open", &own, true)];
            kinds.extend(before.as_ref().map(|before| ("before", before, false)));
            for (kind, binary, is_open) in kinds {
                let mut binary = start(binary).await;
                let streams = if is_open {
                    follow(&binary).await
                } else {
                    JoinSet::new()
                };
                let rate = rate(&binary).await;
                let (resident, cost) = (binary.resident(), binary.took() / beats * 1e6);
                binary.child.kill().await.expect("killed");
                let events = streams.join_all().await.into_iter().sum();
                let round = Round {
                    rate,
                    cost,
                    resident,
                    events,
                };
                told.entry(kind).or_default().push(round);
            }
        }
        for (kind, rounds) in &mut told {
            rounds.sort_by(|one, other| one.cost.total_cmp(&other.cost));
            let Round {
                rate,
                cost,
                resident,
                events,
            } = &rounds[rounds.len() / 2];
            println!(
                "{kind}: {cost:.1} us of processor for a heartbeat, {rate:.0} a second, {resident} MiB, {events} events"
            );
            println!("    rounds: {rounds:.1?}");
        }
        let cost = |kind: &str| told[kind][ROUNDS / 2].cost;
        assert!(cost("pages open") < cost("page closed") * 1.5, "{told:?}");
    }
}
