//! The page of one run.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::super::view::{Attempt, Container, Heartbeat, Reader, Run};
use super::{
    Column, Frame, Picture, Regions, ago, badge, cells, document, fact, fixed, foreign, head,
    id_text, nothing, or_nothing, region,
};
use crate::service::encoded;

const COLUMNS: [Column; 6] = [
    ("Time", "time"),
    ("Answer", "answer"),
    ("Retry", "number"),
    ("Containers", "text"),
    ("Trace ID", "trace"),
    ("Body", "size"),
];

/// The page of one run. `execution` is what it executes, as indented JSON without secrets.
pub(crate) fn run(run: &Run, execution: Option<&str>, reader: &Reader, now: Timestamp) -> String {
    let title = run.title();
    let regions = regions(run, Some(now));
    let part = |name| region(&regions, name);
    let main = html! {
        p.back { a href="./" { "All runs" } }
        h1 { (foreign(&title)) " " span #badge aria-live="polite" { (part("badge")) } }
        div #actions { (part("actions")) }
        dl #facts { (part("facts")) }
        section aria-labelledby="attempts-title" {
            h2 #attempts-title { "Attempts" }
            div #attempts { (part("attempts")) }
        }
        section aria-labelledby="heartbeats-title" {
            h2 #heartbeats-title { "Heartbeats" }
            table role="table" aria-labelledby="heartbeats-title" {
                (head(&COLUMNS))
                tbody #rows role="rowgroup" {
                    @for beat in &run.heartbeats { (row(&run.line.id, beat)) }
                }
            }
            p #note { (part("note")) }
        }
        section aria-labelledby="timeline-title" {
            h2 #timeline-title { "Timeline" }
            div #timeline { (part("timeline")) }
        }
        @if let Some(execution) = execution {
            section aria-labelledby="execution-title" {
                h2 #execution-title { "Execution" }
                details {
                    summary { "What the run executes, without secrets" }
                    pre { code { (execution) } }
                }
            }
        }
    };
    let query = format!("?id={}", encoded(&run.line.id));
    let frame = Frame {
        title: &title,
        reader: Some(reader),
        live: Some(&format!("run/live{query}")),
        state: Some((now, &format!("run{query}"))),
        ..Frame::default()
    };
    document(frame, &main)
}

fn regions(run: &Run, now: Option<Timestamp>) -> Regions {
    let note = html! {
        @if run.heartbeats.is_empty() { "None is kept. " } @else { "Newest first. " }
        "The service keeps the newest heartbeats of each run in memory, until it restarts."
    };
    let actions = html! {
        @if run.is_launched { a.button href={ "run/log?id=" (encoded(&run.line.id)) } { "Log" } " " }
        @if run.may_abort { a.button href={ "run/abort?id=" (encoded(&run.line.id)) } { "Abort…" } }
    };
    vec![
        ("badge", badge(run.line.status)),
        ("actions", actions),
        ("facts", facts(run, now)),
        ("attempts", attempts(&run.attempts)),
        ("note", note),
        ("timeline", timeline(&run.timeline)),
    ]
}

/// The changing parts of the page of one run. `None` means that the run was removed.
pub(crate) fn run_picture(run: Option<&Run>) -> Picture {
    let Some(run) = run else {
        let gone = html! { "The service removed this run, because it ended long ago or there are too many." };
        return Picture::of(vec![("note", gone), ("actions", html! {})], Vec::new());
    };
    let rows = run.heartbeats.iter();
    let row = |beat: &Heartbeat| (beat.number, row(&run.line.id, beat));
    Picture::of(regions(run, None), rows.map(row).collect())
}

fn facts(run: &Run, now: Option<Timestamp>) -> Markup {
    let line = &run.line;
    let timeout = SignedDuration::try_from(run.timeout).unwrap_or(SignedDuration::MAX);
    html! {
        (fact("ID", &id_text(&line.id)))
        @if let Some(details) = &run.details { div.wide { dt { "Status details" } dd { (foreign(details)) } } }
        (fact("Last heartbeat", &line.seen.map_or_else(nothing, |at| ago(at, now))))
        (fact("Times out after", &html! { (format!("{timeout:#}")) " without a heartbeat" }))
        (fact("Created", &html! { (fixed(run.created)) " by " (foreign(&line.created_by)) }))
        (fact("Changed", &html! { (fixed(line.modified)) " by " (foreign(&run.modified_by)) }))
        (fact("Tenant", &foreign(&line.tenant)))
        (fact("Failed attempts", &html! { (run.failures) }))
        @if !run.resource.is_empty() {
            (fact("Requested hardware", &html! {
                @for (nth, part) in run.resource.iter().enumerate() { @if nth > 0 { ", " } (foreign(part)) }
            }))
        }
        @if !run.acl.is_empty() {
            (fact("Shared with", &html! {
                @for (nth, entry) in run.acl.iter().enumerate() { @if nth > 0 { ", " } code { (foreign(entry)) } }
                @if run.more_acl > 0 { " and " (run.more_acl) " more" }
            }))
        }
        @if let Some(description) = &run.description {
            div.wide { dt { "Description" } dd { (foreign(description)) } }
        }
    }
}

fn attempts(attempts: &[Attempt]) -> Markup {
    html! {
        @if attempts.is_empty() { p { "No attempt has started: the service has not received a heartbeat yet." } }
        @for attempt in attempts { (self::attempt(attempt)) }
    }
}

fn attempt(attempt: &Attempt) -> Markup {
    let time = |time: Option<Timestamp>| time.map_or_else(nothing, fixed);
    let part = |text: &Option<String>| or_nothing(text.as_deref());
    let code = |text: &Option<String>| {
        let text = text.as_deref();
        text.map_or_else(nothing, |text| html! { code.copy { (foreign(text)) } })
    };
    html! {
        section.attempt {
            h3 { "Attempt " (attempt.number) }
            dl {
                (fact("Pod", &part(&attempt.pod_name)))
                (fact("Pod UID", &code(&attempt.pod_uid)))
                (fact("Hardware", &part(&attempt.hardware)))
                (fact("Trace ID", &code(&attempt.trace_id)))
                (fact("Started", &time(attempt.started)))
                (fact("Ended", &time(attempt.ended)))
                @if let Some(error) = &attempt.error { div.wide { dt { "Error" } dd { (foreign(error)) } } }
            }
            @if !attempt.containers.is_empty() {
                h4 { "Containers" }
                (containers(&attempt.containers, 0, true))
            }
        }
    }
}

fn containers(containers: &[Container], more: usize, with_times: bool) -> Markup {
    html! {
        ul.containers { @for each in containers { li { (container(each, with_times)) } } }
        @if more > 0 { p { "and " (more) " more" } }
    }
}

fn container(container: &Container, with_times: bool) -> Markup {
    html! {
        code { (foreign(&container.name)) }
        @if let Some(state) = container.state { " " (state) }
        @if let Some(reason) = &container.reason { ", " (foreign(reason)) }
        @if let Some(code) = container.exit_code { ", exit code " (code) }
        @if let Some(signal) = container.signal { ", signal " (signal) }
        @if with_times {
            @if let Some(started) = container.started { ", started " (fixed(started)) }
            @if let Some(finished) = container.finished { ", finished " (fixed(finished)) }
            @if let Some(message) = &container.message { p.message { (foreign(message)) } }
        }
    }
}

fn timeline(timeline: &[(Timestamp, String)]) -> Markup {
    html! {
        @if timeline.is_empty() { p { "Nothing has happened since the run was created." } }
        @else {
            ol.timeline { @for (at, text) in timeline { li { (fixed(*at)) " " (foreign(text)) } } }
        }
    }
}

fn row(id: &str, beat: &Heartbeat) -> Markup {
    let time = html! {
        (fixed(beat.at))
        @if beat.last { " " span.last { "last" } }
    };
    let containers = match beat.containers.as_slice() {
        [] => nothing(),
        some => containers(some, beat.more_containers, false),
    };
    let trace = beat.trace_id.as_deref();
    let trace = trace.map_or_else(nothing, |trace| html! { code.copy { (foreign(trace)) } });
    let body = html! {
        a href={ "run/heartbeat?id=" (encoded(id)) "&number=" (beat.number) } {
            "Body, " (beat.size) " B"
        }
    };
    let retry = html! { @match beat.retry_count { Some(count) => (count), None => (nothing()) } };
    let contents = [time, answer(beat.accepted), retry, containers, trace, body];
    cells(beat.number, COLUMNS, contents)
}

/// The answer to a heartbeat. The record has only heartbeats that got one of these.
pub(super) fn answer(accepted: bool) -> Markup {
    html! {
        @match accepted {
            true => span.good { "200 accepted" },
            false => span.bad { "409 refused" },
        }
    }
}
