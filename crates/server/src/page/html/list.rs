//! The list of the runs.

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::view::{Line, Overview, Pages, Reader, Wanted};
use super::{
    Column, Frame, Picture, Regions, ago, badge, cells, document, foreign, head, id_text, look,
    nothing, or_nothing, region, run_href,
};
use crate::service::encoded;
use podbeat_runs::Status;

const COLUMNS: [Column; 6] = [
    ("Run", "run"),
    ("Status", "status"),
    ("Changed", "when"),
    ("Last heartbeat", "when"),
    ("Owner", "owner"),
    ("Details", "text"),
];

/// The maximum length of the text in the search field, in characters: that of an ID or a name.
pub(crate) const SEARCH: usize = 255;

/// The part of an address that selects these runs, without its `?`.
fn query(wanted: &Wanted) -> String {
    let mut parts = Vec::new();
    if !wanted.search.is_empty() {
        parts.push(format!("search={}", encoded(&wanted.search)));
    }
    parts.extend(
        wanted
            .statuses
            .iter()
            .map(|status| format!("status={status}")),
    );
    parts.join("&")
}

fn address(path: &str, query: &str) -> String {
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{query}"),
    }
}

/// The page of the list. `own` is the token of this page, if it is not the first.
pub(crate) fn runs(
    overview: &Overview,
    own: Option<&str>,
    reader: &Reader,
    now: Timestamp,
) -> String {
    let regions = regions(overview);
    let wanted = &overview.wanted;
    let query = query(wanted);
    let main = html! {
        h1 { "Task runs" }
        (filter(wanted, &regions))
        // The roles are explicit, because page.css turns the table into blocks on narrow screens,
        // and some browsers then no longer expose it as a table.
        table role="table" aria-label="Runs, newest first" {
            (head(&COLUMNS))
            tbody #rows role="rowgroup" { @for line in &overview.lines { (row(line, Some(now))) } }
        }
        p #note { (region(&regions, "note")) }
        nav #pages aria-label="Pages" { (region(&regions, "pages")) }
    };
    let title = match wanted.statuses.as_slice() {
        [status] => format!("{status} task runs"),
        _ => "Task runs".to_owned(),
    };
    let live = address("live", &query);
    let reload = match own {
        Some(token) => other_page(&query, token),
        None => address("./", &query),
    };
    let frame = Frame {
        title: &title,
        reader: Some(reader),
        live: own.is_none().then_some(&live),
        state: Some((now, &reload)),
        ..Frame::default()
    };
    document(frame, &main)
}

fn filter(wanted: &Wanted, regions: &Regions) -> Markup {
    let has_filter = *wanted != Wanted::default();
    html! {
        form.filter method="get" action="./" role="search" aria-label="Runs" {
            div.search {
                label for="search" { "Name or ID begins with" }
                input #search type="search" name="search" value=(wanted.search) maxlength=(SEARCH) autocomplete="off"
                    autocapitalize="none" spellcheck="false";
                button type="submit" { "Show" }
                @if has_filter { " " a href="./" { "Show all" } }
            }
            fieldset {
                legend { "Status" }
                @for status in Status::ALL {
                    label {
                        input type="checkbox" name="status" value=(status) checked[wanted.statuses.contains(&status)];
                        " " span.sign.(look(status).1) aria-hidden="true" { (look(status).0) } " " (status)
                        " " span.count id=(count_id(status)) { (region(regions, count_id(status))) }
                    }
                }
            }
        }
    }
}

fn count_id(status: Status) -> &'static str {
    match status {
        Status::Pending => "count-pending",
        Status::CheckedOut => "count-checked-out",
        Status::Runnable => "count-runnable",
        Status::Running => "count-running",
        Status::Finalizing => "count-finalizing",
        Status::Completed => "count-completed",
        Status::FailedRestartable => "count-failed-restartable",
        Status::Failed => "count-failed",
        Status::Aborted => "count-aborted",
        Status::TimedOut => "count-timed-out",
    }
}

fn regions(overview: &Overview) -> Regions {
    let counts = overview.counts.iter().flatten();
    let counts = counts.map(|(status, count)| (count_id(*status), html! { (count) }));
    let has_filter = overview.wanted != Wanted::default();
    let note = match overview.total {
        0 if has_filter => html! { "No run matches." },
        0 => html! { "No run yet. " code { "podbeat runs create" } " creates one." },
        1 => html! { "1 run." },
        total if overview.is_more() => html! { "At least " (total) " runs." },
        total => html! { (total) " runs." },
    };
    let query = query(&overview.wanted);
    counts
        .chain([("note", note), ("pages", pages(&overview.pages, &query))])
        .collect()
}

fn other_page(query: &str, token: &str) -> String {
    let and = if query.is_empty() { "" } else { "&" };
    format!("./?{query}{and}page={token}")
}

fn pages(pages: &Pages, query: &str) -> Markup {
    let newest = pages.has_newest.then(|| address("./", query));
    let other = |token: &Option<String>| token.as_ref().map(|token| other_page(query, token));
    let links = [
        ("First", None, newest),
        ("Previous", Some("prev"), other(&pages.newer)),
        ("Next", Some("next"), other(&pages.older)),
        ("Last", None, other(&pages.oldest)),
    ];
    if links.iter().all(|(_, _, address)| address.is_none()) {
        return html! {};
    }
    html! {
        ul {
            @for (word, relation, address) in links {
                li {
                    @match address {
                        Some(address) => a href=(address) rel=[relation] { (word) },
                        None => span.none { (word) },
                    }
                }
            }
        }
    }
}

/// The changing parts of the first page.
pub(crate) fn runs_picture(overview: &Overview) -> Picture {
    let rows = overview.lines.iter();
    Picture::of(
        regions(overview),
        rows.map(|line| (line.number, row(line, None))).collect(),
    )
}

fn row(line: &Line, now: Option<Timestamp>) -> Markup {
    let run = html! {
        a href=(run_href("", &line.id)) {
            @match &line.name { Some(name) => (foreign(name)), None => (id_text(&line.id)) }
        }
        @if line.name.is_some() { " " (id_text(&line.id)) }
    };
    let owner = html! { (foreign(&line.created_by)) " " span.tenant { (foreign(&line.tenant)) } };
    let contents = [
        run,
        badge(line.status),
        ago(line.modified, now),
        line.seen.map_or_else(nothing, |at| ago(at, now)),
        owner,
        or_nothing(line.details.as_deref()),
    ];
    cells(line.number, COLUMNS, contents)
}
