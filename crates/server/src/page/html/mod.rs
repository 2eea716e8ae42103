//! The page as HTML. Pure.
//!
//! maud escapes all inserted values. `view` made every text safe to show. IDs are shown with
//! [`id_text`], and encoded in addresses.

mod forms;
mod list;
mod run;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

pub(super) use forms::{abort, elsewhere, heartbeat, log, refusal, sign_in};
pub(super) use list::{SEARCH, runs, runs_picture};
pub(super) use run::{run, run_picture};

use super::access::FORM_TOKEN;
use super::text::{age, moment, shown};
use super::view::{self, Reader};
use crate::service::encoded;
use podbeat_runs::Status;

/// The changing parts of a page: regions by their IDs in the document, and the rows of its table,
/// in order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Picture {
    pub(super) regions: Vec<(&'static str, String)>,
    pub(super) rows: Vec<(u64, String)>,
}

type Regions = Vec<(&'static str, Markup)>;

impl Picture {
    fn of(regions: Regions, rows: Vec<(u64, Markup)>) -> Self {
        let text = |(name, markup): (&'static str, Markup)| (name, markup.into_string());
        let row = |(number, markup): (u64, Markup)| (number, markup.into_string());
        Self {
            regions: regions.into_iter().map(text).collect(),
            rows: rows.into_iter().map(row).collect(),
        }
    }
}

fn region(regions: &Regions, wanted: &str) -> Markup {
    let found = regions.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, markup)| markup.clone()).unwrap_or_default()
}

/// A status's sign, for readers who distinguish shapes better than colors, and its class in
/// page.css.
fn look(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Pending => ("○", "pending"),
        Status::CheckedOut => ("◌", "pending"),
        Status::Runnable => ("◎", "pending"),
        Status::Running => ("●", "running"),
        Status::Finalizing => ("◐", "running"),
        Status::Completed => ("✓", "completed"),
        Status::FailedRestartable => ("↻", "failed"),
        Status::Failed => ("✕", "failed"),
        Status::Aborted => ("■", "aborted"),
        Status::TimedOut => ("◔", "timedout"),
    }
}

fn badge(status: Status) -> Markup {
    let (sign, class) = look(status);
    html! { span class={ "badge " (class) } { span aria-hidden="true" { (sign) } " " (status) } }
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

fn or_nothing(text: Option<&str>) -> Markup {
    text.map_or_else(nothing, foreign)
}

fn id_text(id: &str) -> Markup {
    html! { code.id { (foreign(&shown(id, view::ID))) } }
}

/// A name and a value in a `dl`.
fn fact(name: &str, content: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (content) } } }
}

/// The address of a run's page.
pub(super) fn run_href(up: &str, id: &str) -> String {
    format!("{up}run?id={}", encoded(id))
}

/// What surrounds the content of a page.
#[derive(Clone, Copy, Debug, Default)]
struct Frame<'page> {
    title: &'page str,
    /// `None` for a page without a session.
    reader: Option<&'page Reader>,
    /// From the page's address to the directory of the list: empty, or `../`.
    up: &'page str,
    /// The address of its updates.
    live: Option<&'page str>,
    /// The time of its content, and its address.
    state: Option<(Timestamp, &'page str)>,
    /// The address to which the browser goes at once.
    refresh: Option<&'page str>,
}

fn document(frame: Frame<'_>, main: &Markup) -> String {
    let up = frame.up;
    let now = frame.state.map(|(now, _)| now.as_millisecond());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(address) = frame.refresh { meta http-equiv="refresh" content={ "0;url=" (address) }; }
                title { (frame.title) " · podbeat-server" }
                link rel="icon" type="image/svg+xml" href={ (up) "page.svg" };
                link rel="stylesheet" href={ (up) "page.css" };
                @if frame.live.is_some() { script src={ (up) "page.js" } defer {} }
            }
            body data-live=[frame.live] data-now=[now] {
                a.skip href="#main" { "Skip to content" }
                header {
                    a.home href={ (up) "./" } { "podbeat-server" }
                    @if let Some((now, address)) = frame.state {
                        p #live role="status" { "As of " (fixed(now)) ". " a href=(address) { "Reload" } }
                    }
                    @if let Some(reader) = frame.reader { (signed_in(reader, up)) }
                }
                main #main tabindex="-1" { (main) }
            }
        }
    };
    page.into_string()
}

fn signed_in(reader: &Reader, up: &str) -> Markup {
    html! {
        form.session method="post" action={ (up) "sign-out" } {
            span { (foreign(&reader.user)) " (" (foreign(&reader.tenant)) ", " (reader.role.name()) ")" }
            (form_token(reader))
            button type="submit" { "Sign out" }
        }
    }
}

fn form_token(reader: &Reader) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(reader.form_token); }
}

/// A column's title, and its class in page.css.
type Column = (&'static str, &'static str);

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
