//! The server's page in headless Chromium, with the real service and the real agent: `just page-test`.
//!
//! The tests need Chromium, so they are ignored by default. `PODBEAT_BINARY` names the agent, and
//! `PODBEAT_AXE_CORE` axe-core, which checks the accessibility. Screenshots are saved in target/page.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the environment names the tested binary, and the tests print what they skip"
)]

mod driver;
mod service;

use std::process::Stdio;
use std::time::Duration;

use podbeat_lab::pod::{Pod, running};
use podbeat_lab::world::World;
use podbeat_server::store::Role;
use serde_json::{Value, json};
use tokio::process::Command;

use driver::{Area, Browser, Picture};
use service::Played;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The background colors of the statuses in page.css, in the light scheme.
const BACKS: [(&str, [u8; 3]); 6] = [
    ("Pending", [0xe7, 0xe9, 0xed]),
    ("Running", [0xd2, 0xe5, 0xfb]),
    ("Completed", [0xd4, 0xee, 0xdb]),
    ("Failed", [0xfb, 0xda, 0xd7]),
    ("Aborted", [0xeb, 0xe0, 0xf5]),
    ("TimedOut", [0xfd, 0xe7, 0xbd]),
];

/// Signs in, and waits until the list is live.
async fn open(browser: &Browser, played: &Played) {
    played.sign_in(browser, &played.token, "/").await;
    is_live(browser).await;
}

async fn is_live(browser: &Browser) {
    browser
        .until(
            "live",
            "document.getElementById('live')?.dataset.state === 'live'",
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

async fn text(browser: &Browser) -> String {
    let text = browser.get("return document.body.innerText").await;
    text.as_str().expect("text").to_owned()
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

async fn no_complaints(browser: &Browser, played: &Played) {
    assert_eq!(
        browser.console().await,
        Vec::<Value>::new(),
        "the console is quiet"
    );
    let origin = format!("{}/", played.url);
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
    let played = Played::start(Duration::from_secs(3)).await;
    let browser = Browser::start().await;
    let bystander = played.run("bystander").await;
    let id = played.run("align-reads").await;
    assert_ne!(bystander, id);
    open(&browser, &played).await;
    shows(&browser, "align-reads", "Pending").await;
    browser.get("window.untouched = true").await;

    let world = World::start().await.expect("a Kubernetes API");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running("2026-01-01T00:00:01Z")));
    world.write_token(&played.token).expect("written");
    let mut settings = world.settings("p", "u1");
    for (name, value) in [
        ("PODBEAT_SERVICE_URL", &*played.url),
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

    // It sends heartbeats for longer than the timeout. The store gets their times every 5 s.
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
    // Below the form, which has the counts.
    for y in row.top..after.height {
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
    no_complaints(&browser, &played).await;

    browser.open(&format!("{}/run?id={id}", played.url)).await;
    is_live(&browser).await;
    let text = text(&browser).await;
    for part in [
        "TimedOut",
        "no heartbeat for 3s",
        "main running",
        "200 accepted",
        "u1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    browser.picture("run").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn the_page_of_a_run_is_live() {
    let played = Played::start(Duration::from_secs(3)).await;
    let browser = Browser::start().await;
    let ids = played.some_runs().await;
    open(&browser, &played).await;
    browser
        .get("document.querySelector('#rows tr:last-child a').click()")
        .await;
    browser
        .until(
            "the page of the run",
            "document.querySelector('h1').textContent.includes('align-reads')",
        )
        .await;
    is_live(&browser).await;
    let beats = "document.querySelectorAll('#rows tr').length";
    let before = browser.get(&format!("return {beats}")).await;
    let body = json!({"podUID": "6f1c2d0e-55aa-4b0e-9f0e-2a41c1d9e7b3", "podHardwareDetails": "node=other"});
    played.beat(&ids[0], &body).await;
    browser
        .until("its heartbeat", &format!("{beats} === {before} + 1"))
        .await;
    browser
        .until(
            "its hardware",
            "document.querySelector('#attempts').textContent.includes('node=other')",
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
            "document.querySelector('#timeline').textContent.includes('no heartbeat for 3s')",
        )
        .await;
    let button = "return document.querySelector('#actions').childElementCount";
    assert_eq!(browser.get(button).await, 0, "it can't be aborted any more");
    no_complaints(&browser, &played).await;
}

/// Everything that the page does, with no script and only with the keyboard.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn without_scripting_it_does_all_that_it_can() {
    let played = Played::start(NEVER).await;
    let browser =
        Browser::with(json!({"profile.managed_default_content_settings.javascript": 2})).await;
    let ids = played.some_runs().await;
    played
        .sign_in(&browser, &played.token, "/?status=Running&status=Completed")
        .await;
    let list = text(&browser).await;
    for part in [
        "align-reads",
        "Running",
        "call-variants",
        "2 runs.",
        "As of",
        "Reload",
    ] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(
        !list.contains("qc-report") && !list.contains("Live"),
        "{list}"
    );
    browser.picture("scripting-off").await;

    // The search, sent with Enter.
    browser
        .get("document.querySelector('#search').focus()")
        .await;
    browser.press("align\u{e007}").await;
    browser
        .until(
            "found",
            "location.search.startsWith('?search=align&status=Running')",
        )
        .await;
    assert!(text(&browser).await.contains("1 run."));

    // The first Tab reaches the link to the content, and Enter follows the link to the run.
    browser.press("\u{e004}").await;
    browser
        .until(
            "the link to the content",
            "document.activeElement.textContent === 'Skip to content'",
        )
        .await;
    browser.press("\u{e007}").await;
    browser
        .get("document.querySelector('#rows a').focus()")
        .await;
    browser.press("\u{e007}").await;
    browser
        .until("the run", "location.pathname === '/run'")
        .await;
    let run = text(&browser).await;
    for part in [
        "Attempt 0",
        "align-7f3a-x2x4k",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "200 accepted",
        "Timeline",
        "main running",
    ] {
        assert!(run.contains(part), "{part}: {run}");
    }
    assert!(!run.contains("5f0c"), "no nonce");

    browser
        .get("document.querySelector('#rows td.size a').focus()")
        .await;
    browser.press("\u{e007}").await;
    browser
        .until("the body", "location.pathname === '/run/heartbeat'")
        .await;
    let body = text(&browser).await;
    assert!(
        body.contains("\"nonce\": \"[redacted]\"") && body.contains("CrashLoopBackOff"),
        "{body}"
    );
    browser.picture("heartbeat").await;

    browser
        .open(&format!("{}/run?id={}", played.url, ids[0]))
        .await;
    browser
        .get("document.querySelector('#actions a').focus()")
        .await;
    browser.press("\u{e007}").await;
    browser
        .until("the question", "location.pathname === '/run/abort'")
        .await;
    assert!(text(&browser).await.contains("Abort this run?"));
    browser.picture("abort").await;
    browser
        .get("document.querySelector('button.danger').focus()")
        .await;
    browser.press("\u{e007}").await;
    browser
        .until("the run again", "location.pathname === '/run'")
        .await;
    let run = text(&browser).await;
    assert!(
        run.contains("Aborted") && run.contains("aborted by alice"),
        "{run}"
    );

    browser
        .get("document.querySelector('.session button').focus()")
        .await;
    browser.press("\u{e007}").await;
    browser
        .until("signed out", "location.pathname === '/sign-in'")
        .await;
    browser
        .open(&format!("{}/run?id={}", played.url, ids[0]))
        .await;
    assert!(!text(&browser).await.contains("align-reads"));
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
    let played = Played::start(NEVER).await;
    let browser = Browser::start().await;
    let mut ids = Vec::new();
    for (nth, hostile) in HOSTILE.into_iter().enumerate() {
        let id = played.run(hostile).await;
        // Half of them are created while the page is open, so that the stream sends them.
        if nth == HOSTILE.len() / 2 {
            open(&browser, &played).await;
        }
        let status = json!([{"name": hostile, "state": {"terminated": {"reason": hostile, "exitCode": 1, "message": hostile}}}]);
        let body = json!({"lastHeartbeat": true, "podName": hostile, "podUID": hostile, "podHardwareDetails": hostile,
                          "containerStatus": status});
        played.beat(&id, &body).await;
        ids.push(id);
    }
    let all = format!(
        "document.querySelectorAll('#rows .badge.failed').length === {}",
        HOSTILE.len()
    );
    browser.until("all of them", &all).await;
    let inert = async |what: &str, scripts: usize, tables: usize| {
        assert!(!browser.is_alerted().await, "{what}");
        let made = "return [window.struck ?? 0, document.querySelectorAll('img, iframe, b, i, script:not([src])').length,
                            document.scripts.length, document.querySelectorAll('h1').length, document.querySelectorAll('table').length]";
        assert_eq!(
            browser.get(made).await,
            json!([0, 0, scripts, 1, tables]),
            "{what}"
        );
    };
    inert("the runs", 1, 1).await;
    let names = browser
        .get("return [...document.querySelectorAll('#rows a')].map(link => link.textContent)")
        .await;
    let mut expected: Vec<String> = HOSTILE.iter().map(|name| (*name).to_owned()).collect();
    expected.reverse();
    expected[1] = "\\u{202e}txt.exe\\u{2066}".to_owned();
    assert_eq!(names, json!(expected));
    browser.picture("hostile").await;
    for (id, hostile) in ids.iter().zip(HOSTILE) {
        browser.open(&format!("{}/run?id={id}", played.url)).await;
        is_live(&browser).await;
        inert(hostile, 1, 1).await;
        browser
            .get("document.querySelector('#rows td.size a').click()")
            .await;
        browser
            .until("the body", "document.querySelector('pre')")
            .await;
        inert(hostile, 0, 0).await;
    }
    no_complaints(&browser, &played).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn it_is_live_again_after_an_outage_of_the_service() {
    let directory = tempfile::tempdir().expect("a directory");
    let any = ([127, 0, 0, 1], 0).into();
    let played = Played::at(any, directory.path(), NEVER).await;
    let browser = Browser::start().await;
    played.run("before").await;
    open(&browser, &played).await;
    shows(&browser, "before", "Pending").await;
    browser.get("window.untouched = true").await;
    let address = played.kill();
    browser
        .until(
            "not live",
            "/^Not live, trying again. As of 20[0-9: .-]+ UTC. Reload$/.test(document.getElementById('live').innerText)",
        )
        .await;
    shows(&browser, "before", "Pending").await;
    browser.picture("away").await;
    let played = Played::at(address, directory.path(), NEVER).await;
    is_live(&browser).await;
    let id = played.run("after").await;
    shows(&browser, "after", "Pending").await;
    played.beat(&id, &json!({})).await;
    shows(&browser, "after", "Running").await;
    assert_eq!(
        browser.get("return window.untouched").await,
        true,
        "it was never loaded again"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn only_a_token_opens_it_and_leaves_no_trace() {
    let played = Played::start(NEVER).await;
    let browser = Browser::start().await;
    let id = played.run("align-reads").await;
    let run = format!("{}/run?id={id}", played.url);
    browser.open(&run).await;
    let before = text(&browser).await;
    assert!(
        before.contains("Sign in") && !before.contains("align-reads"),
        "{before}"
    );
    browser
        .get("document.querySelector('#token').focus()")
        .await;
    browser.press("pbt_wrong\u{e007}").await;
    browser
        .until("refused", "document.querySelector('#problem')")
        .await;
    assert!(text(&browser).await.contains("unknown, expired or revoked"));
    browser.picture("refused").await;
    // The console shows only the refusal.
    let complaints = browser.console().await;
    let refused = |entry: &Value| {
        let message = entry["message"].as_str();
        message.is_some_and(|text| text.contains("401"))
    };
    assert!(complaints.iter().all(refused), "{complaints:?}");
    browser
        .get("document.querySelector('#token').focus()")
        .await;
    browser.press(&format!("{}\u{e007}", played.token)).await;
    is_live(&browser).await;
    let seen = browser
        .get("return [location.href, document.cookie, localStorage.length, sessionStorage.length]")
        .await;
    assert_eq!(
        seen,
        json!([run, "", 0, 0]),
        "the page that was asked for, and nothing for scripts"
    );
    assert!(text(&browser).await.contains("align-reads"));
    no_complaints(&browser, &played).await;

    // A link on another site leads to the page. A form there changes nothing.
    let link = format!("data:text/html,<a href='{run}'>x</a>");
    browser.open(&link).await;
    browser.get("document.querySelector('a').click()").await;
    is_live(&browser).await;
    assert_eq!(browser.get("return location.href").await, run);
    let form = format!(
        "data:text/html,<form method=post action='{}/run/abort'><input name=id value='{id}'></form>",
        played.url
    );
    browser.open(&form).await;
    browser.get("document.forms[0].submit()").await;
    browser
        .until(
            "refused",
            "document.querySelector('h1')?.textContent === 'Request from another site'",
        )
        .await;
    browser.open(&run).await;
    assert!(text(&browser).await.contains("Pending"));
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
    let played = Played::start(Duration::from_secs(1)).await;
    let browser = Browser::start().await;
    let ids = played.some_runs().await;
    played
        .run(&"a-very-long-name-without-a-break".repeat(7))
        .await;
    let long = "long".repeat(60);
    let status = json!([{"name": long, "state": {"waiting": {"reason": long}}}]);
    let body = json!({"podName": long, "podUID": long, "podHardwareDetails": long, "containerStatus": status});
    played.beat(&ids[4], &body).await;
    open(&browser, &played).await;
    shows(&browser, "qc-report", "TimedOut").await;
    shows(&browser, "align-reads", "TimedOut").await;
    for (page, name, is_followed) in [
        ("", "runs", true),
        (&*format!("run?id={}", ids[4]), "run", true),
        (&*format!("run?id={}", ids[2]), "failed", true),
        (&*format!("run/abort?id={}", ids[4]), "abort-ended", false),
        (
            &*format!("run/heartbeat?id={}&number=0", ids[0]),
            "body",
            false,
        ),
        ("sign-in", "sign-in", false),
    ] {
        browser.resize(1280, 900).await;
        browser.open(&format!("{}/{page}", played.url)).await;
        if is_followed {
            is_live(&browser).await;
        }
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            let least = browser.get(LEAST).await;
            assert!(
                least[0][0].as_f64().is_some_and(|ratio| ratio >= CONTRAST),
                "{name} {scheme}: {least}"
            );
            assert!(
                least[1].as_u64().is_some_and(|count| count > 5),
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
    // The focus is visible, and an update keeps it.
    browser.resize(1280, 900).await;
    browser.open(&format!("{}/", played.url)).await;
    is_live(&browser).await;
    browser
        .get("document.querySelector('#search').focus()")
        .await;
    browser.press("\u{e004}").await;
    browser
        .until(
            "a visible focus",
            "document.activeElement.textContent === 'Show'
                && getComputedStyle(document.activeElement).outlineStyle === 'solid'",
        )
        .await;
    browser
        .get("document.querySelector('#rows tr:last-child a').focus()")
        .await;
    played.run("another").await;
    shows(&browser, "another", "Pending").await;
    let focused = browser
        .get("return document.activeElement.textContent")
        .await;
    assert_eq!(focused, "align-reads");
}

/// axe-core finds nothing serious on any page.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn the_pages_are_accessible() {
    /// Calls back with the violations, each with its impact, rule and elements.
    const CHECK: &str = "
        const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ['violations'] }).then(
            result => done([result.passes.length, result.violations.map(each =>
                ({ impact: each.impact, id: each.id, targets: each.nodes.map(node => node.target.join(' ')) }))]),
            error => done(String(error)))";
    let axe = std::env::var("PODBEAT_AXE_CORE")
        .expect("PODBEAT_AXE_CORE names axe-core; `just page-test` sets it");
    let axe = std::fs::read_to_string(axe).expect("axe-core");
    let played = Played::start(NEVER).await;
    let browser = Browser::start().await;
    let ids = played.some_runs().await;
    for nth in 0..60 {
        played.run(&format!("more-{nth}")).await;
    }
    let violations = async |what: &str| {
        // Through WebDriver and not by the page, which loads no script from elsewhere.
        browser.get(&axe).await;
        let found = browser.get_later(CHECK).await;
        let passed = found[0].as_u64().unwrap_or_default();
        assert!(passed > 5, "{what}: {found}");
        let is_serious =
            |each: &&Value| each["impact"] == "serious" || each["impact"] == "critical";
        let all = found[1].as_array().expect("violations");
        if !all.is_empty() {
            eprintln!("{what}: {all:?}");
        }
        all.iter()
            .filter(is_serious)
            .cloned()
            .collect::<Vec<Value>>()
    };
    let mut found = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        browser.open(&format!("{}/sign-in", played.url)).await;
        found.extend(violations("sign-in").await);
    }
    open(&browser, &played).await;
    for (page, is_followed) in [
        (String::new(), true),
        ("?search=none".to_owned(), true),
        (format!("run?id={}", ids[0]), true),
        (format!("run?id={}", ids[2]), true),
        (format!("run/abort?id={}", ids[0]), false),
        (format!("run/heartbeat?id={}&number=0", ids[0]), false),
        ("run?id=unknown".to_owned(), false),
    ] {
        browser.open(&format!("{}/{page}", played.url)).await;
        if is_followed {
            is_live(&browser).await;
        }
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390)] {
            browser.prefer(scheme).await;
            browser.resize(width, 900).await;
            found.extend(violations(&format!("{page} {scheme} {width}")).await);
        }
    }
    assert_eq!(found, Vec::<Value>::new());
    // It would find something.
    browser
        .get("document.querySelector('h1').outerHTML = '<img src=\"page.svg\">'")
        .await;
    assert!(!violations("an image without a text").await.is_empty());
}

/// A reader may look, and nothing more.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: just page-test"]
async fn a_reader_sees_no_button_to_abort() {
    let played = Played::start(NEVER).await;
    let browser = Browser::start().await;
    let id = played.run("align-reads").await;
    let read = played.token(Role::Read).await;
    played
        .sign_in(&browser, &read, &format!("/run?id={id}"))
        .await;
    is_live(&browser).await;
    let seen = text(&browser).await;
    assert!(
        seen.contains("align-reads") && !seen.contains("Abort"),
        "{seen}"
    );
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
