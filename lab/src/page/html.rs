//! The page as HTML. Pure.
//!
//! maud escapes all inserted values. Text from outside also went through [`shown`], or is an id in
//! an address.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use percent_encoding::utf8_percent_encode;

use super::text::{age, moment, shown};
use super::view::{Attempt, Container, Detail, Entry, Line, MOST_RUNS, Overview, Told};
use crate::task_runs::http::ID;
use crate::task_runs::run::Status;

/// The changing parts of a page: regions by their ids in the document, and the rows of its table,
/// in order.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) regions: Vec<(&'static str, String)>,
    pub(super) rows: Vec<(u64, String)>,
}

/// A status's sign, for readers who distinguish shapes better than colors, and its class in
/// page.css.
fn look(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Pending => ("○", "pending"),
        Status::Running => ("●", "running"),
        Status::Completed => ("✓", "completed"),
        Status::Failed => ("✕", "failed"),
        Status::Aborted => ("■", "aborted"),
        Status::TimedOut => ("◔", "timedout"),
    }
}

fn badge(status: Status) -> Markup {
    let (sign, class) = look(status);
    html! { span class={ "badge " (class) } { span aria-hidden="true" { (sign) } " " (status.word()) } }
}

/// How long ago something was, if `now` is given. page.js updates it. An open page receives no age,
/// so its content changes only with the data.
fn ago(then: Timestamp, now: Option<Timestamp>) -> Markup {
    let moment = moment(then);
    html! {
        time datetime=(then) title=(moment) data-at=(then.as_millisecond()) {
            @match now { Some(now) => (age(then, now)), None => (moment) }
        }
    }
}

/// A fixed time, for comparison with a log.
fn fixed(time: Timestamp) -> Markup {
    html! { time datetime=(time) { (moment(time)) } }
}

fn nothing() -> Markup {
    html! { span.none { "–" } }
}

/// Text from outside, isolated so that it can't change the direction of the text around it.
fn foreign(text: &str) -> Markup {
    html! { bdi { (text) } }
}

fn document(
    title: &str,
    live: Option<&str>,
    now: Option<Timestamp>,
    reload: &str,
    main: &Markup,
) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href="page.svg";
                link rel="stylesheet" href="page.css";
                @if live.is_some() { script src="page.js" defer {} }
            }
            body data-live=[live] data-now=[now.map(Timestamp::as_millisecond)] {
                header {
                    a.home href="./" { "podbeat-lab" }
                    span.service { "task-run service" }
                    @if let Some(now) = now {
                        p #live role="status" {
                            "As of " (fixed(now)) ". " a href=(reload) { "Reload" }
                        }
                    }
                }
                main { (main) }
            }
        }
    };
    page.into_string()
}

/// The page of the runs.
pub(super) fn runs(overview: &Overview, now: Timestamp) -> String {
    let query = overview
        .status
        .map(|status| format!("?status={}", status.word()));
    let query = query.unwrap_or_default();
    let picture = |name| region(runs_regions(overview), name);
    let main = html! {
        h1 { "Task runs" }
        nav aria-label="Runs by status" {
            ul.counts {
                li { (filter(None, overview, &picture("count-all"))) }
                @for (status, _) in &overview.counts {
                    li { (filter(Some(*status), overview, &picture(count_id(*status)))) }
                }
            }
        }
        // The roles are explicit, because page.css turns the table into blocks on narrow screens,
        // and some browsers then no longer expose it as a table.
        table role="table" aria-label="Runs, newest first" {
            (head(&RUN_COLUMNS))
            tbody #rows role="rowgroup" { @for line in &overview.lines { (row(line, Some(now))) } }
        }
        p #note { (picture("note")) }
    };
    let title = match overview.status {
        Some(status) => format!("{} task runs", status.word()),
        None => "Task runs".to_owned(),
    };
    document(
        &title,
        Some(&format!("live{query}")),
        Some(now),
        &format!("./{query}"),
        &main,
    )
}

fn region(regions: Vec<(&'static str, Markup)>, wanted: &str) -> Markup {
    let found = regions.into_iter().find(|(name, _)| *name == wanted);
    found.map(|(_, markup)| markup).unwrap_or_default()
}

fn count_id(status: Status) -> &'static str {
    match status {
        Status::Pending => "count-pending",
        Status::Running => "count-running",
        Status::Completed => "count-completed",
        Status::Failed => "count-failed",
        Status::Aborted => "count-aborted",
        Status::TimedOut => "count-timedout",
    }
}

fn filter(status: Option<Status>, overview: &Overview, count: &Markup) -> Markup {
    let is_current = status == overview.status;
    let (id, href, word) = match status {
        Some(status) => (
            count_id(status),
            format!("./?status={}", status.word()),
            status.word(),
        ),
        None => ("count-all", "./".to_owned(), "All"),
    };
    html! {
        a href=(href) aria-current=[is_current.then_some("page")] {
            @if let Some(status) = status {
                span.sign.(look(status).1) aria-hidden="true" { (look(status).0) } " "
            }
            (word) " " span.count id=(id) { (count) }
        }
    }
}

fn runs_regions(overview: &Overview) -> Vec<(&'static str, Markup)> {
    let mut regions = vec![("count-all", html! { (overview.total()) })];
    for (status, count) in &overview.counts {
        regions.push((count_id(*status), html! { (count) }));
    }
    let matching = overview.matching();
    let note = match (matching, overview.status) {
        (0, None) => html! { "No run yet. " code { "POST /v1/tasks/runs" } " creates one." },
        (0, Some(status)) => html! { "No run is " (status.word()) " now." },
        (matching, _) if matching > MOST_RUNS => {
            html! { "The newest " (MOST_RUNS) " of " (matching) " are shown." }
        }
        _ => html! {},
    };
    regions.push(("note", note));
    regions
}

/// The changing parts of the page of the runs.
pub(super) fn runs_picture(overview: &Overview) -> Picture {
    let text = |(name, markup): (&'static str, Markup)| (name, markup.into_string());
    Picture {
        regions: runs_regions(overview).into_iter().map(text).collect(),
        rows: overview
            .lines
            .iter()
            .map(|line| (line.number, row(line, None).into_string()))
            .collect(),
    }
}

/// A column's title, and its class in page.css.
type Column = (&'static str, &'static str);

const RUN_COLUMNS: [Column; 6] = [
    ("Run", "run"),
    ("Status", "status"),
    ("Since", "when"),
    ("Last heartbeat", "when"),
    ("Retry", "number"),
    ("Details", "text"),
];

const BEAT_COLUMNS: [Column; 5] = [
    ("Time", "time"),
    ("Answer", "answer"),
    ("Retry", "number"),
    ("Containers", "text"),
    ("Nonce", "nonce"),
];

fn head(columns: &[Column]) -> Markup {
    html! {
        thead role="rowgroup" {
            tr role="row" {
                @for (title, class) in columns { th role="columnheader" scope="col" class=(class) { (title) } }
            }
        }
    }
}

fn cells<const N: usize>(key: u64, columns: [Column; N], contents: [Markup; N]) -> Markup {
    html! {
        tr role="row" data-key=(key) {
            @for ((title, class), content) in columns.into_iter().zip(contents) {
                td role="cell" class=(class) data-label=(title) { (content) }
            }
        }
    }
}

fn row(line: &Line, now: Option<Timestamp>) -> Markup {
    let id = shown(&line.id, ID_SHOWN);
    let href = format!("run?id={}", utf8_percent_encode(&line.id, ID));
    let run = html! {
        a href=(href) { @match &line.name { Some(name) => (foreign(name)), None => (foreign(&id)) } }
        @if line.name.is_some() { " " code.id { (foreign(&id)) } }
    };
    let last_beat = line.last_beat.map_or_else(nothing, |at| ago(at, now));
    let retry = html! { @match line.retry_count { Some(count) => (count), None => (nothing()) } };
    let details = line.details.as_deref().map_or_else(nothing, foreign);
    let contents = [
        run,
        badge(line.status),
        ago(line.since, now),
        last_beat,
        retry,
        details,
    ];
    cells(line.number, RUN_COLUMNS, contents)
}

/// The most characters of an id that are shown.
const ID_SHOWN: usize = 200;

/// The page of one run.
pub(super) fn run(detail: &Detail, now: Timestamp) -> String {
    let id = shown(&detail.line.id, ID_SHOWN);
    let title = detail.line.name.as_deref().unwrap_or(&id);
    let regions = run_regions(detail, Some(now));
    let picture = |name| region(regions.clone(), name);
    let main = html! {
        p.back { a href="./" { "All runs" } }
        h1 { (foreign(title)) " " span #badge aria-live="polite" { (picture("badge")) } }
        dl #facts { (picture("facts")) }
        section aria-labelledby="attempts-title" {
            h2 #attempts-title { "Attempts" }
            div #attempts { (picture("attempts")) }
        }
        section aria-labelledby="heartbeats-title" {
            h2 #heartbeats-title { "Heartbeats" }
            table role="table" aria-labelledby="heartbeats-title" {
                (head(&BEAT_COLUMNS))
                tbody #rows role="rowgroup" {
                    @for (number, entry) in &detail.received { (beat(*number, entry)) }
                }
            }
            p #note { (picture("note")) }
        }
    };
    let query = format!("?id={}", utf8_percent_encode(&detail.line.id, ID));
    document(
        title,
        Some(&format!("run/live{query}")),
        Some(now),
        &format!("run{query}"),
        &main,
    )
}

fn run_regions(detail: &Detail, now: Option<Timestamp>) -> Vec<(&'static str, Markup)> {
    let note = if detail.received.is_empty() {
        html! { "No heartbeats are available. The service keeps the newest heartbeats of each run until it stops." }
    } else {
        html! { "Newest first. The service keeps the newest heartbeats of each run until it stops." }
    };
    vec![
        ("badge", badge(detail.line.status)),
        ("facts", facts(detail, now)),
        ("attempts", attempts(&detail.attempts)),
        ("note", note),
    ]
}

/// The changing parts of the page of one run. `None` means that the run is no longer kept.
pub(super) fn run_picture(detail: Option<&Detail>) -> Picture {
    let Some(detail) = detail else {
        let gone = "This run ended and was removed to make room for newer runs.".to_owned();
        return Picture {
            regions: vec![("note", gone)],
            rows: Vec::new(),
        };
    };
    let text = |(name, markup): (&'static str, Markup)| (name, markup.into_string());
    let received = detail.received.iter();
    Picture {
        regions: run_regions(detail, None).into_iter().map(text).collect(),
        rows: received
            .map(|(number, entry)| (*number, beat(*number, entry).into_string()))
            .collect(),
    }
}

fn facts(detail: &Detail, now: Option<Timestamp>) -> Markup {
    let line = &detail.line;
    let fact = |name: &str, content: &Markup| html! { div { dt { (name) } dd { (content) } } };
    let last_beat = line.last_beat.map_or_else(nothing, |at| ago(at, now));
    html! {
        (fact("ID", &html! { code.id { (foreign(&shown(&line.id, ID_SHOWN))) } }))
        (fact("Since", &ago(line.since, now)))
        (fact("Last heartbeat", &last_beat))
        @if let Some(timeout) = detail.timeout {
            (fact("Times out after", &html! { (humantime::format_duration(timeout)) " without a heartbeat" }))
        }
        (fact("Job retry count", &html! { @match line.retry_count { Some(count) => (count), None => (nothing()) } }))
        (fact("Created", &fixed(detail.created)))
        @if let Some(details) = &line.details { (fact("Details", &foreign(details))) }
        @if let Some(description) = &detail.description { (fact("Description", &foreign(description))) }
    }
}

fn attempts(attempts: &[Attempt]) -> Markup {
    html! {
        @if attempts.is_empty() { p { "No attempt has started: the service has not received a heartbeat yet." } }
        @else {
            ol {
                @for attempt in attempts {
                    li {
                        "from " (fixed(attempt.began))
                        @match attempt.ended { Some(ended) => { " to " (fixed(ended)) }, None => " until now" }
                        @if let Some(error) = &attempt.error { ": " (foreign(error)) }
                    }
                }
            }
        }
    }
}

fn beat(number: u64, entry: &Entry) -> Markup {
    let told = entry.told();
    let retry = html! { @match told.retry_count { Some(count) => (count), None => (nothing()) } };
    let nonce = html! { @match &told.nonce { Some(nonce) => code { (foreign(nonce)) }, None => (nothing()) } };
    let time = html! {
        (fixed(told.at))
        @if told.last { " " span.last { "last" } }
    };
    let contents = [time, answer(&told), retry, containers(&told), nonce];
    cells(number, BEAT_COLUMNS, contents)
}

fn answer(told: &Told<'_>) -> Markup {
    let is_good = told
        .status
        .is_some_and(|status| (200..300).contains(&status));
    html! {
        @match told.status {
            Some(status) => span class=(if is_good { "good" } else { "bad" }) { (status) },
            None => span.bad { "none" },
        }
        @if let Some(fault) = told.fault { " " span.fault { "fault: " (foreign(fault)) } }
        @if !told.violations.is_empty() {
            ul.violations aria-label="Violations of the contract" {
                @for violation in told.violations { li { (foreign(violation)) } }
            }
        }
    }
}

fn containers(told: &Told<'_>) -> Markup {
    html! {
        @if told.containers.is_empty() { (nothing()) }
        @else {
            ul.containers { @for each in &told.containers { li { (container(each)) } } }
            @if told.more_containers > 0 { p { "and " (told.more_containers) " more" } }
        }
    }
}

fn container(container: &Container) -> Markup {
    html! {
        code { (foreign(&container.name)) }
        @if let Some(state) = &container.state { " " (foreign(state)) }
        @if let Some(reason) = &container.reason { ", " (foreign(reason)) }
        @if let Some(code) = container.exit_code { ", exit code " (code) }
    }
}

/// A page that explains a refusal.
pub(super) fn refusal(title: &str, text: &str) -> String {
    document(
        title,
        None,
        None,
        "",
        &html! { h1 { (title) } p { (text) } },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::task_runs::received::Received;
    use crate::task_runs::run::Wanted;
    use crate::task_runs::store::{Beat, Rules, Store};

    /// Texts that try to become markup, to leave an attribute, or to change the text direction.
    const HOSTILE: [&str; 5] = [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(2)>",
        "&lt;b&gt; &#60;i&#62;",
        "\u{202e}txt.exe\u{2066}",
        "../?key=x#y%00",
    ];

    fn at(seconds: u64) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        start + Duration::from_secs(seconds)
    }

    fn store() -> Store {
        let rules = Rules {
            adopts: true,
            heartbeat_timeout: Some(Duration::from_secs(60)),
            checks_nonces: false,
            most_runs: 1000,
            most_bytes: 1 << 30,
        };
        Store::new(rules, Vec::new(), at(0))
    }

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: Some(name.to_owned()),
            description: Some(format!("what {name} is for")),
            ..Wanted::default()
        }
    }

    fn last(container: &str, code: i64) -> Beat {
        Beat {
            retry_count: Some(3),
            last: true,
            exits: vec![(container.to_owned(), code)],
            ..Beat::default()
        }
    }

    fn entry(body: &serde_json::Value, violations: &[String]) -> Arc<Entry> {
        let fault = (!violations.is_empty()).then(|| "drop".to_owned());
        let status = violations.is_empty().then_some(200);
        Arc::new(Entry::new(
            at(5),
            body.to_string().as_bytes(),
            status,
            fault,
            violations,
        ))
    }

    /// A failed run, and a new one.
    fn played(text: &str) -> (Store, Received<Arc<Entry>>) {
        let mut store = store();
        store.create(text, wanted(text), 0, at(1)).expect("a run");
        store
            .heartbeat(text, &Beat::default(), at(2))
            .expect("accepted");
        store
            .heartbeat(text, &last(text, 3), at(65))
            .expect("accepted");
        store
            .create("new", wanted("fresh"), 0, at(66))
            .expect("a run");
        let mut received = Received::default();
        let body = json!({"nonce": text, "jobRetryCount": 3, "lastHeartbeat": true, "containerStatus": [
            {"name": text, "state": {"terminated": {"reason": text, "exitCode": 3}}}, {"name": "helper", "state": {text: {}}}]});
        for entry in [entry(&json!({}), &[]), entry(&body, &[text.to_owned()])] {
            let weight = entry.weight();
            received.keep(text, entry, weight, super::super::BOUNDS);
        }
        (store, received)
    }

    fn detail(played: &(Store, Received<Arc<Entry>>), id: &str) -> Detail {
        Detail::of(&played.0, &played.1, Some(Duration::from_secs(60)), id).expect("the run")
    }

    #[test]
    fn the_pages_match_their_snapshots() {
        let played = played("align");
        let broken = |page: String| page.replace("><", ">\n<");
        insta::assert_snapshot!("runs", broken(runs(&Overview::of(&played.0, None), at(70))));
        insta::assert_snapshot!("run", broken(run(&detail(&played, "align"), at(4_000))));
    }

    #[test]
    fn text_from_outside_never_becomes_markup() {
        for hostile in HOSTILE {
            let played = played(hostile);
            let detail = detail(&played, hostile);
            let overview = Overview::of(&played.0, None);
            let told = |picture: Picture| {
                let regions = picture.regions.into_iter().map(|(_, html)| html);
                let rows = picture.rows.into_iter().map(|(_, html)| html);
                regions.chain(rows).collect::<String>()
            };
            for html in [
                runs(&overview, at(70)),
                run(&detail, at(70)),
                told(runs_picture(&overview)),
                told(run_picture(Some(&detail))),
            ] {
                assert!(
                    !html.contains("<script>") && !html.contains("<img") && !html.contains("<b>"),
                    "{html}"
                );
                assert!(!html.contains("onerror=alert(2)>"), "{html}");
                assert!(
                    !html.contains('\u{202e}') && !html.contains('\u{2066}'),
                    "{html}"
                );
                // There are only the page's own tags, and every attribute ends where it should.
                let stripped = html.replace("<script src=\"page.js\" defer></script>", "");
                assert!(!stripped.contains("script>"), "{html}");
                assert_eq!(
                    html.matches('<').count(),
                    html.matches('>').count(),
                    "{html}"
                );
            }
            let address = utf8_percent_encode(hostile, ID).to_string();
            assert!(runs(&overview, at(70)).contains(&format!("href=\"run?id={address}\"")));
            assert!(run(&detail, at(70)).contains(&format!("data-live=\"run/live?id={address}\"")));
        }
    }

    #[test]
    fn an_open_page_gets_updates_only_for_visible_changes() {
        let (mut store, received) = played("align");
        let picture = runs_picture(&Overview::of(&store, None));
        assert_eq!(picture, runs_picture(&Overview::of(&store, None)));
        let again = |store: &Store| run_picture(Some(&detail_of(store, &received)));
        fn detail_of(store: &Store, received: &Received<Arc<Entry>>) -> Detail {
            Detail::of(store, received, None, "align").expect("the run")
        }
        assert_eq!(again(&store), again(&store));
        store
            .heartbeat("new", &Beat::default(), at(80))
            .expect("accepted");
        let after = runs_picture(&Overview::of(&store, None));
        let changed = |(one, other): &(&(u64, String), &(u64, String))| one != other;
        let rows = picture.rows.iter().zip(&after.rows);
        assert_eq!(rows.filter(changed).count(), 1);
        assert!(run_picture(None).rows.is_empty());
    }

    #[test]
    fn only_the_newest_runs_are_shown_with_a_note() {
        let mut store = store();
        for nth in 0..250 {
            store
                .create(&format!("r{nth}"), wanted("n"), 0, at(nth))
                .expect("a run");
        }
        let html = runs(&Overview::of(&store, None), at(300));
        assert_eq!(html.matches("<tr role=\"row\" data-key").count(), MOST_RUNS);
        assert!(html.contains("The newest 200 of 250 are shown."));
        assert!(
            html.contains("run?id=r249")
                && html.contains("run?id=r50\"")
                && !html.contains("run?id=r49\"")
        );
        let html = runs(&Overview::of(&store, Some(Status::Failed)), at(300));
        assert!(html.contains("No run is Failed now.") && !html.contains("data-key"));
        store
            .heartbeat("r7", &last("main", 1), at(301))
            .expect("accepted");
        let failed = Overview::of(&store, Some(Status::Failed));
        let html = runs(&failed, at(302));
        assert!(html.contains("run?id=r7\"") && html.matches("data-key").count() == 1);
        assert!(
            html.contains("id=\"count-pending\">249<") && html.contains("id=\"count-failed\">1<")
        );
    }
}
