//! The page in headless Chromium, with the real service and the real agent: `just page-test`.
//!
//! The tests need Chromium, so they are ignored by default. `PODBEAT_BINARY` names the agent.
//! Screenshots are saved in target/page.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the environment names the tested binary, and the tests print what they skip"
)]

mod driver;

use std::path::Path;
use std::process::Stdio;

use podbeat_lab::pod::{Pod, running};
use podbeat_lab::world::World;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{self, TOKEN};
use driver::{Area, Browser, LIMIT, Picture};

/// The background colors of the statuses in page.css, in the light scheme.
const BACKS: [(&str, [u8; 3]); 6] = [
    ("Pending", [0xe7, 0xe9, 0xed]),
    ("Running", [0xd2, 0xe5, 0xfb]),
    ("Completed", [0xd4, 0xee, 0xdb]),
    ("Failed", [0xfb, 0xda, 0xd7]),
    ("Aborted", [0xeb, 0xe0, 0xf5]),
    ("TimedOut", [0xfd, 0xe7, 0xbd]),
];

/// `podbeat-lab service`, and its output.
struct Service {
    child: Child,
    url: String,
    page: String,
    client: Client,
}

impl Service {
    async fn start(arguments: &[&str]) -> Self {
        Self::at("127.0.0.1:0", arguments).await
    }

    async fn at(address: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_podbeat-lab"))
            .args(["service", "--listen", address, "--token", TOKEN])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let told = async {
            let (mut url, mut page) = (String::new(), String::new());
            while page.is_empty() {
                let line = lines
                    .next_line()
                    .await
                    .expect("text")
                    .expect("it says where the page is");
                match line.split_once(' ') {
                    Some(("url", rest)) => url = rest.trim().to_owned(),
                    Some(("page", rest)) => page = rest.trim().to_owned(),
                    _ => {}
                }
            }
            (url, page)
        };
        let (url, page) = tokio::time::timeout(LIMIT, told)
            .await
            .expect("it says where it is");
        let client = harness::client().timeout(LIMIT).build().expect("a client");
        Self {
            child,
            url,
            page,
            client,
        }
    }

    async fn post(&self, rest: &str, body: &Value) -> Value {
        let request = self
            .client
            .post(format!("{}/v1/tasks/runs{rest}", self.url));
        let request = request
            .bearer_auth(TOKEN)
            .header("content-type", "application/json");
        let response = request
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
    }

    async fn run(&self, name: &str) -> String {
        let created = self
            .post("", &json!({"name": name, "description": name}))
            .await;
        created["id"].as_str().expect("an id").to_owned()
    }

    async fn beat(&self, id: &str, body: &Value) {
        self.post(&format!("/{id}:heartbeat"), body).await;
    }

    /// Creates runs with every status that a client can set at once.
    async fn some_runs(&self) -> Vec<String> {
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
        for id in &ids[..3] {
            for nth in 0..3 {
                self.beat(
                    id,
                    &json!({"nonce": format!("5f0c-{nth}"), "jobRetryCount": 1, "containerStatus": running}),
                )
                .await;
            }
        }
        for (id, code, reason) in [(&ids[1], 0, "Completed"), (&ids[2], 137, "OOMKilled")] {
            let body = json!({"nonce": "5f0c-9", "lastHeartbeat": true, "jobRetryCount": 1, "containerStatus": exit(code, reason)});
            self.beat(id, &body).await;
        }
        let request = self
            .client
            .put(format!("{}/v1/tasks/runs/{}:abort", self.url, ids[3]));
        let aborted = request.bearer_auth(TOKEN).send().await.expect("an answer");
        assert!(aborted.status().is_success());
        ids
    }

    async fn kill(mut self) -> String {
        self.child.kill().await.expect("killed");
        self.url.replace("http://", "")
    }
}

/// Opens the page of the runs, and waits until it is live.
async fn open(browser: &Browser, service: &Service) {
    browser.open(&service.page).await;
    is_live(browser).await;
}

async fn is_live(browser: &Browser) {
    browser
        .until(
            "live",
            "document.getElementById('live').dataset.state === 'live'",
        )
        .await;
}

/// Waits until the row of this run shows this status.
async fn shows(browser: &Browser, name: &str, status: &str) {
    let expression = format!(
        "[...document.querySelectorAll('#rows tr')].some(row =>
            row.querySelector('a').textContent === {name:?} && row.querySelector('.badge').textContent.endsWith({status:?}))"
    );
    browser
        .until(&format!("{name} {status}"), &expression)
        .await;
}

/// The status with a pixel's color.
fn class(pixel: [u8; 3]) -> Option<&'static str> {
    BACKS
        .iter()
        .find(|(_, back)| *back == pixel)
        .map(|(status, _)| *status)
}

/// The status that most pixels of a badge show, if any.
fn badge(picture: &Picture, area: Area) -> Option<&'static str> {
    let pixels: Vec<Option<&str>> = (area.top..area.bottom)
        .flat_map(|y| (area.left..area.right).map(move |x| (x, y)))
        .map(|(x, y)| class(picture.at(x, y)))
        .collect();
    let of = |status: &str| {
        pixels
            .iter()
            .filter(|class| **class == Some(status))
            .count()
    };
    BACKS
        .iter()
        .map(|(status, _)| *status)
        .find(|status| of(status) * 2 > pixels.len())
}

async fn no_complaints(browser: &Browser, service: &Service) {
    assert_eq!(
        browser.console().await,
        Vec::<Value>::new(),
        "the console is quiet"
    );
    let origin = format!("{}/", service.url);
    let requests = browser.requests().await;
    assert!(
        requests.iter().any(|url| url.contains("/live")),
        "{requests:?}"
    );
    for url in requests {
        assert!(url.starts_with(&origin), "{url} is asked for");
    }
}

/// The complete path: the real agent sends heartbeats, and the open page shows Running. After the
/// agent is killed, the page shows TimedOut.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn the_page_shows_a_running_agent_and_its_timeout() {
    let agent = std::env::var("PODBEAT_BINARY")
        .expect("PODBEAT_BINARY names the agent; `just page-test` sets it");
    let service = Service::start(&["--heartbeat-timeout", "3s"]).await;
    let browser = Browser::start().await;
    let bystander = service.run("bystander").await;
    let id = service.run("align-reads").await;
    assert_ne!(bystander, id);
    open(&browser, &service).await;
    shows(&browser, "align-reads", "Pending").await;
    browser.get("window.untouched = true").await;

    let world = World::start().await.expect("a Kubernetes API");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running("2026-01-01T00:00:01Z")));
    world.write_token(TOKEN).expect("written");
    let mut settings = world.settings("p", "u1");
    for (name, value) in [
        ("PODBEAT_SERVICE_URL", &*service.url),
        ("TASK_RUN_ID", &*id),
        ("PODBEAT_INTERVAL", "500ms"),
    ] {
        settings.insert(name.to_owned(), value.to_owned());
    }
    let mut agent = Command::new(agent)
        .env_clear()
        .envs(&settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the agent starts");
    shows(&browser, "align-reads", "Running").await;
    let row = browser.area("#rows tr:first-child").await;
    let place = browser.area("#rows tr:first-child .badge").await;
    let other = browser.area("#rows tr:last-child .badge").await;
    let before = browser.picture("running").await;
    assert_eq!(badge(&before, place), Some("Running"));
    assert_eq!(badge(&before, other), Some("Pending"));

    // It sends heartbeats for longer than the timeout.
    let beats = "document.querySelector('#rows tr:first-child td:nth-child(4) time').dataset.at";
    let first = browser.get(&format!("return Number({beats})")).await;
    browser
        .until(
            "beats for 4 s",
            &format!("Number({beats}) > {first} + 4000"),
        )
        .await;
    shows(&browser, "align-reads", "Running").await;

    agent.kill().await.expect("killed");
    shows(&browser, "align-reads", "TimedOut").await;
    let place = browser.area("#rows tr:first-child .badge").await;
    let after = browser.picture("timed-out").await;
    assert_eq!(badge(&after, place), Some("TimedOut"));
    assert_eq!(badge(&after, other), Some("Pending"));
    assert_eq!((before.width, before.height), (after.width, after.height));
    for y in 0..after.height {
        for x in 0..after.width {
            if !row.holds(x, y) {
                assert_eq!(
                    class(before.at(x, y)),
                    class(after.at(x, y)),
                    "outside of the row, at {x}, {y}"
                );
            }
        }
    }
    assert_eq!(
        browser.get("return window.untouched").await,
        true,
        "it was never loaded again"
    );
    no_complaints(&browser, &service).await;

    browser.open(&format!("{}/run?id={id}", service.url)).await;
    is_live(&browser).await;
    let text = browser.get("return document.body.innerText").await;
    let text = text.as_str().expect("text");
    for part in ["TimedOut", "no heartbeat for 3s", "main running", "200"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    browser.picture("run").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn the_page_of_a_run_is_live() {
    let service = Service::start(&["--heartbeat-timeout", "3s"]).await;
    let browser = Browser::start().await;
    let ids = service.some_runs().await;
    open(&browser, &service).await;
    browser
        .get("document.querySelector('#rows tr:last-child a').click()")
        .await;
    is_live(&browser).await;
    browser
        .until(
            "the page of the run",
            "document.querySelector('h1').textContent.includes('align-reads')",
        )
        .await;
    let body = json!({"nonce": "new-one", "jobRetryCount": 2});
    service.beat(&ids[0], &body).await;
    browser
        .until(
            "its heartbeat",
            "document.querySelector('#rows tr').textContent.includes('new-one')",
        )
        .await;
    browser
        .until(
            "its retry count",
            "document.querySelector('#facts').textContent.includes('Job retry count2')",
        )
        .await;
    browser
        .until(
            "timed out",
            "document.querySelector('#badge').textContent.includes('TimedOut')",
        )
        .await;
    browser
        .until(
            "why",
            "document.querySelector('#attempts').textContent.includes('no heartbeat for 3s')",
        )
        .await;
    no_complaints(&browser, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn without_scripting_it_shows_the_state_at_loading() {
    let service = Service::start(&[]).await;
    let browser =
        Browser::with(json!({"profile.managed_default_content_settings.javascript": 2})).await;
    let id = service.run("align-reads").await;
    browser.open(&service.page).await;
    let text = async || {
        let text = browser.get("return document.body.innerText").await;
        text.as_str().expect("text").to_owned()
    };
    let before = text().await;
    assert!(
        before.contains("align-reads") && before.contains("Pending") && before.contains("As of"),
        "{before}"
    );
    assert!(
        before.contains("Reload") && !before.contains("Live"),
        "{before}"
    );
    service.beat(&id, &json!({})).await;
    let href = browser
        .get("return document.querySelector('#live a').href")
        .await;
    browser.open(href.as_str().expect("a link")).await;
    assert!(text().await.contains("Running"));
    browser.open(&format!("{}/run?id={id}", service.url)).await;
    let run = text().await;
    assert!(
        run.contains("Running") && run.contains("Heartbeats") && run.contains("200"),
        "{run}"
    );
    browser.picture("scripting-off").await;
    let requests = browser.requests().await;
    assert!(
        requests.iter().all(|url| !url.contains("/live")),
        "no script ran: {requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn hostile_names_are_inert() {
    const HOSTILE: [&str; 6] = [
        "<script>window.struck = 1; alert(1)</script>",
        "\"'><img src=x onerror='window.struck = 2; alert(2)'>",
        "</bdi></a></td></tr></table><h1>gone</h1><iframe src=//evil.example></iframe>",
        "&lt;b&gt; &#60;i&#62; &amp;",
        "\u{202e}txt.exe\u{2066}",
        "javascript:alert(3)",
    ];
    let service = Service::start(&["--any-run"]).await;
    let browser = Browser::start().await;
    let mut ids = Vec::new();
    for (nth, hostile) in HOSTILE.into_iter().enumerate() {
        let id = service.run(hostile).await;
        // Half of them are created while the page is open, so that the stream sends them.
        if nth == HOSTILE.len() / 2 {
            open(&browser, &service).await;
        }
        let status =
            json!([{"name": hostile, "state": {"terminated": {"reason": hostile, "exitCode": 1}}}]);
        service
            .beat(
                &id,
                &json!({"nonce": hostile, "lastHeartbeat": true, "containerStatus": status}),
            )
            .await;
        ids.push(id);
    }
    let all = format!(
        "document.querySelectorAll('#rows .badge.failed').length === {}",
        HOSTILE.len()
    );
    browser.until("all of them", &all).await;
    let inert = async |what: &str| {
        assert!(!browser.is_alerted().await, "{what}");
        let made = "return [window.struck ?? 0, document.querySelectorAll('img, iframe, b, i, script:not([src])').length,
                            document.scripts.length, document.querySelectorAll('h1').length, document.querySelectorAll('table').length]";
        assert_eq!(browser.get(made).await, json!([0, 0, 1, 1, 1]), "{what}");
    };
    inert("the runs").await;
    let names = browser
        .get("return [...document.querySelectorAll('#rows a')].map(link => link.textContent)")
        .await;
    let mut expected: Vec<String> = HOSTILE.iter().map(|name| (*name).to_owned()).collect();
    expected.reverse();
    expected[1] = "\\u{202e}txt.exe\\u{2066}".to_owned();
    assert_eq!(names, json!(expected));
    browser.picture("hostile").await;
    for (id, hostile) in ids.iter().zip(HOSTILE) {
        browser.open(&format!("{}/run?id={id}", service.url)).await;
        is_live(&browser).await;
        inert(hostile).await;
    }
    no_complaints(&browser, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn it_is_live_again_after_an_outage_of_the_service() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("runs.sqlite");
    let with_data = ["--data", path(&data)];
    let service = Service::start(&with_data).await;
    let browser = Browser::start().await;
    service.run("before").await;
    open(&browser, &service).await;
    shows(&browser, "before", "Pending").await;
    browser.get("window.untouched = true").await;
    let address = service.kill().await;
    browser
        .until(
            "not live",
            "/^Not live, trying again. As of 20[0-9: -]+ UTC. Reload$/.test(document.getElementById('live').innerText)",
        )
        .await;
    shows(&browser, "before", "Pending").await;
    browser.picture("away").await;
    let service = Service::at(&address, &with_data).await;
    is_live(&browser).await;
    let id = service.run("after").await;
    shows(&browser, "after", "Pending").await;
    service.beat(&id, &json!({})).await;
    shows(&browser, "after", "Running").await;
    assert_eq!(
        browser.get("return window.untouched").await,
        true,
        "it was never loaded again"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn only_the_link_opens_it_and_leaves_no_trace() {
    let service = Service::start(&[]).await;
    let browser = Browser::start().await;
    service.run("align-reads").await;
    browser.open(&format!("{}/", service.url)).await;
    let text = browser.get("return document.body.innerText").await;
    let text = text.as_str().expect("text");
    assert!(
        text.contains("This page needs its link") && !text.contains("align-reads"),
        "{text}"
    );
    browser.picture("stranger").await;
    // The console shows only the document's refusal.
    let complaints = browser.console().await;
    let refused = |entry: &Value| {
        entry["message"]
            .as_str()
            .is_some_and(|text| text.contains("403"))
    };
    assert!(complaints.iter().all(refused), "{complaints:?}");
    open(&browser, &service).await;
    let seen = browser
        .get("return [location.href, document.referrer, document.cookie]")
        .await;
    assert_eq!(
        seen,
        json!([format!("{}/", service.url), "", ""]),
        "no key, and no cookie for scripts"
    );
    shows(&browser, "align-reads", "Pending").await;
    no_complaints(&browser, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn it_fits_a_phone_and_can_be_read_in_light_and_dark() {
    /// The lowest contrast of text that isn't large (WCAG 2.2, 1.4.3).
    const CONTRAST: f64 = 4.5;
    /// Computes the lowest contrast of the page's texts with their background, and the number of
    /// texts.
    const LEAST: &str = "
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
                                 return [...canvas.getImageData(0, 0, 1, 1).data] };
        const back = element => { for (let at = element; at; at = at.parentElement) {
            const color = rgba(getComputedStyle(at).backgroundColor); if (color[3] === 255) return color } };
        const light = color => color.slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
            .reduce((sum, part, nth) => sum + part * [0.2126, 0.7152, 0.0722][nth], 0);
        const texts = [...document.querySelectorAll('body *')]
            .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
        const ratios = texts.map(element => {
            const [one, other] = [rgba(getComputedStyle(element).color), back(element)].map(light);
            return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.textContent] });
        ratios.sort((one, other) => one[0] - other[0]);
        return [ratios[0], ratios.length]";
    let service = Service::start(&["--heartbeat-timeout", "1s"]).await;
    let browser = Browser::start().await;
    let ids = service.some_runs().await;
    service
        .run(&"a-very-long-name-without-a-break".repeat(7))
        .await;
    let long = "long".repeat(60);
    let status = json!([{"name": long, "state": {"waiting": {"reason": long}}}]);
    service
        .beat(&ids[4], &json!({"nonce": long, "containerStatus": status}))
        .await;
    open(&browser, &service).await;
    shows(&browser, "qc-report", "TimedOut").await;
    shows(&browser, "align-reads", "TimedOut").await;
    for (page, name) in [
        ("", "runs"),
        (&*format!("run?id={}", ids[4]), "run"),
        (&*format!("run?id={}", ids[2]), "failed"),
    ] {
        browser.resize(1280, 900).await;
        browser.open(&format!("{}/{page}", service.url)).await;
        is_live(&browser).await;
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            let least = browser.get(LEAST).await;
            assert!(
                least[0][0].as_f64().is_some_and(|ratio| ratio >= CONTRAST),
                "{name} {scheme}: {least}"
            );
            assert!(
                least[1].as_u64().is_some_and(|count| count > 20),
                "{name} {scheme}: {least}"
            );
            browser.resize(1280, 900).await;
            browser.picture(&format!("{name}-{scheme}")).await;
            for width in [320, 390, 700, 800, 1024] {
                browser.resize(width, 900).await;
                let over = browser
                    .get("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    .await;
                assert_eq!(over, 0, "{name} at {width}");
                if width == 390 {
                    browser.picture(&format!("{name}-{scheme}-phone")).await;
                }
            }
        }
    }
    // By keyboard: the links can be reached, and an update keeps the focus.
    browser.resize(1280, 900).await;
    browser.open(&format!("{}/", service.url)).await;
    is_live(&browser).await;
    browser
        .get("document.querySelector('#rows tr:last-child a').focus()")
        .await;
    service.beat(&ids[0], &json!({"jobRetryCount": 9})).await;
    browser
        .until(
            "the update",
            "document.querySelector('#rows tr:last-child').textContent.includes('9')",
        )
        .await;
    let focused = browser
        .get("return document.activeElement.textContent")
        .await;
    assert_eq!(focused, "align-reads");
}

/// A browser leaves no process behind, even if its test panics.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn a_browser_leaves_nothing_behind() {
    let profile = tokio::spawn(async {
        let browser = Browser::start().await;
        let profile = browser.profile().to_owned();
        assert!(!driver::with_argument(&profile).is_empty(), "it is there");
        std::panic::panic_any(profile);
    });
    let panic = profile.await.expect_err("it panics").into_panic();
    let profile = panic.downcast::<std::path::PathBuf>().expect("its profile");
    assert_eq!(driver::with_argument(&profile), Vec::<i32>::new());
    assert!(!profile.exists());
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}
