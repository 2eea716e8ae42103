//! The view on a terminal: lines from the state, the time and the window's size. Pure.

use std::time::Duration;

use podbeat_heartbeat::Now;
use podbeat_heartbeat::outbox::Kind;
use podbeat_interface::terminal::{escaped, one_line};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::event::{Container, Shown, reason};
use super::state::State;
use crate::show::age::age;

/// The content of an empty cell.
const NONE: &str = "-";

/// Spaces between two columns.
const GAP: usize = 3;

/// From this height on, in rows, the view has empty lines.
const ROOMY: usize = 16;

/// The available size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    /// `None` for the last view, which is not cut, because it stays on the terminal.
    pub(super) rows: Option<usize>,
}

/// The style of a text. It contains no information that the text does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Good,
    Open,
    Bad,
}

/// A line of the view: several inert texts, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    fn of(style: Style, text: impl AsRef<str>) -> Self {
        let mut line = Self::default();
        line.push(style, text);
        line
    }

    fn plain(text: impl AsRef<str>) -> Self {
        Self::of(Style::Plain, text)
    }

    fn headed(style: Style, head: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        let mut line = Self::of(style, head);
        line.push(Style::Plain, text);
        line
    }

    fn push(&mut self, style: Style, text: impl AsRef<str>) {
        self.0.push((style, one_line(text.as_ref())));
    }

    pub(super) fn texts(&self) -> &[(Style, String)] {
        &self.0
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Cuts the line to this many columns. A cut line ends in an ellipsis.
    fn cut(self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut left = columns;
        let mut kept = Vec::new();
        for (style, text) in self.0 {
            let width = text.width();
            // The ellipsis needs a column, too. Only the last text can fill all columns.
            if width < left {
                left -= width;
                kept.push((style, text));
                continue;
            }
            kept.push((style, shortened(&text, left)));
            break;
        }
        Self(kept)
    }
}

/// As much of the text as fits, followed by an ellipsis.
fn shortened(text: &str, columns: usize) -> String {
    let mut left = columns.saturating_sub(1);
    let mut short: String = text
        .chars()
        .take_while(|c| {
            let fits = c.width().unwrap_or(0) <= left;
            left = left.saturating_sub(c.width().unwrap_or(0));
            fits
        })
        .collect();
    if columns > 0 {
        short.push('…');
    }
    short
}

/// The whole view.
pub(super) fn lines(state: &State, now: Now, size: Size) -> Vec<Line> {
    let roomy = size.rows.is_none_or(|rows| rows >= ROOMY);
    let mut top = head(state, now, size);
    let mut heartbeat = heartbeat(state, now);
    if roomy {
        top.push(Line::default());
        heartbeat.insert(0, Line::default());
    }
    let mut containers = table(state, now, size.columns);
    let messages = messages(state);
    let body = body(state);
    if let Some(rows) = size.rows {
        // The space goes first to the containers, then to their messages, then to the body.
        let left = rows.saturating_sub(top.len() + heartbeat.len());
        let mut middle = bounded(containers, left, "containers");
        let left = left.saturating_sub(middle.len());
        middle.extend(bounded(messages, left / 3, "messages"));
        let left = rows.saturating_sub(top.len() + heartbeat.len() + middle.len());
        heartbeat.extend(bounded(body, left, "lines"));
        top.extend(middle);
    } else {
        containers.extend(messages);
        heartbeat.extend(body);
        top.extend(containers);
    }
    top.extend(heartbeat);
    let Some(rows) = size.rows else {
        // The lines of the last view can wrap.
        return top;
    };
    top.truncate(rows);
    top.into_iter().map(|line| line.cut(size.columns)).collect()
}

/// At most this many lines. If some do not fit, the last line shows how many are missing.
fn bounded(mut lines: Vec<Line>, most: usize, what: &str) -> Vec<Line> {
    if lines.len() <= most {
        return lines;
    }
    let Some(kept) = most.checked_sub(1) else {
        return Vec::new();
    };
    let left_out = lines.len() - kept;
    lines.truncate(kept);
    lines.push(Line::plain(format!("… {left_out} more {what}")));
    lines
}

/// The pod, and the state of the connection to the API.
fn head(state: &State, now: Now, size: Size) -> Vec<Line> {
    let mut first = Line::of(Style::Strong, state.title());
    let aside = "podbeat observe, sends nothing; q quits";
    if size.rows.is_some() {
        let gap = size.columns.saturating_sub(first.width() + aside.width());
        if gap >= GAP {
            first.push(Style::Plain, " ".repeat(gap) + aside);
        }
    }
    let mut lines = vec![first];
    if let Some(pod) = &state.pod {
        let mut event = pod.phase.as_deref().unwrap_or("no phase").to_owned();
        if pod.gone {
            event += ", gone";
        } else if let Some(at) = pod.deletion_timestamp {
            event += &format!(", being deleted until {at}");
        }
        if let Some(node) = &pod.node {
            event += &format!(", on {node}");
        }
        event += match pod.sidecar {
            "native" => ", podbeat is a native sidecar",
            "plain" => ", podbeat is a plain sidecar",
            _ => ", without podbeat",
        };
        lines.push(Line::plain(event));
        if let Some(uid) = &pod.uid {
            lines.push(Line::plain(format!("uid {uid}")));
        }
    }
    lines.extend(api(state, now));
    lines
}

fn api(state: &State, now: Now) -> Vec<Line> {
    let ago = |at: Duration| seconds(now.elapsed.saturating_sub(at));
    match (&state.diagnosis, state.confirmed) {
        (Some(failing), confirmed) => {
            let since = match confirmed {
                Some(at) => format!("API unavailable, states are {} old: ", ago(at)),
                None => format!("API unavailable for {}: ", ago(failing.since)),
            };
            vec![
                Line::headed(Style::Bad, since, &failing.diagnosis.what),
                Line::plain(format!("  {}", failing.diagnosis.remedy)),
            ]
        }
        (None, Some(at)) => vec![Line::plain(format!(
            "API up to date, confirmed {} ago",
            ago(at)
        ))],
        (None, None) => vec![Line::plain("API not reached yet")],
    }
}

/// The columns, most important first. If the window is narrow, the last ones are omitted.
const COLUMNS: [&str; 8] = [
    "CONTAINER",
    "STATE",
    "EXIT",
    "REASON",
    "SINCE",
    "RESTARTS",
    "REPORTED",
    "KIND",
];

fn table(state: &State, now: Now, columns: usize) -> Vec<Line> {
    if state.containers.is_empty() {
        return Vec::new();
    }
    let longest_name = (columns / 3).max(12);
    let rows: Vec<(Style, [String; 8])> = state
        .containers
        .iter()
        .map(|container| (style(&container.shown), cells(container, now, longest_name)))
        .collect();
    let mut widths = COLUMNS.map(UnicodeWidthStr::width);
    for (_, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.width());
        }
    }
    let mut shown = 0;
    let mut total = 0;
    for width in widths {
        total += width + if shown > 0 { GAP } else { 0 };
        if total > columns && shown >= 2 {
            break;
        }
        shown += 1;
    }
    let line = |style: Style, cells: Vec<String>| {
        let mut line = Line::default();
        for (nth, (cell, width)) in cells.into_iter().zip(widths).take(shown).enumerate() {
            let padding = match nth + 1 < shown {
                true => " ".repeat(width.saturating_sub(cell.width()) + GAP),
                false => String::new(),
            };
            // Only the state has a color.
            let of_cell = if nth == 1 { style } else { Style::Plain };
            line.push(of_cell, cell);
            line.push(Style::Plain, padding);
        }
        line
    };
    let mut lines = vec![line(Style::Plain, COLUMNS.map(str::to_owned).into())];
    lines.extend(
        rows.into_iter()
            .map(|(style, cells)| line(style, cells.into())),
    );
    lines
}

fn cells(container: &Container, now: Now, longest_name: usize) -> [String; 8] {
    let shown = &container.shown;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let mut name = one_line(&container.name);
    if name.width() > longest_name {
        name = shortened(&name, longest_name);
    }
    let exit = match (shown.exit_code, shown.signal) {
        (Some(code), Some(signal)) if signal != 0 => Some(format!("{code}, signal {signal}")),
        (code, _) => code.map(|code| code.to_string()),
    };
    let since = shown.finished_at.or(shown.started_at);
    [
        name,
        or_none(shown.state.map(str::to_owned)),
        or_none(exit),
        or_none(shown.reason.as_deref().map(one_line)),
        or_none(since.map(|since| age(since, now.wall))),
        container.restart_count.to_string(),
        if container.reported { "yes" } else { "no" }.to_owned(),
        container.kind.to_owned(),
    ]
}

fn style(shown: &Shown) -> Style {
    match (shown.state, shown.exit_code) {
        (Some("running"), _) => Style::Good,
        (Some("waiting"), _) => Style::Open,
        (Some("terminated"), Some(0)) => Style::Plain,
        (Some("terminated"), _) => Style::Bad,
        (_, _) => Style::Plain,
    }
}

/// Messages of the containers and of the pod.
fn messages(state: &State) -> Vec<Line> {
    let notes = state
        .notes
        .iter()
        .map(|note| format!("note: {}", note.text()));
    let of_containers = state.containers.iter().filter_map(|container| {
        let message = container.shown.message.as_deref()?.trim();
        (!message.is_empty()).then(|| format!("{}: {message}", container.name))
    });
    let of_pod = state.pod.iter().flat_map(|pod| &pod.reasons);
    let of_pod = of_pod.map(|why| format!("pod: {}", reason(why)));
    of_pod
        .chain(of_containers)
        .chain(notes)
        .map(Line::plain)
        .collect()
}

/// The next heartbeat and the last one.
fn heartbeat(state: &State, now: Now) -> Vec<Line> {
    let mut lines = Vec::new();
    match (state.end, state.due) {
        (Some(end), _) => lines.push(Line::headed(Style::Strong, "End: ", end.text())),
        (None, Some(due)) => {
            let kind = if state.waiting > 0 {
                "change"
            } else {
                "periodic"
            };
            let left = seconds(due.saturating_sub(now.elapsed) + Duration::from_millis(999));
            let text = format!("{kind}, due in {left}");
            lines.push(Line::headed(Style::Strong, "Next heartbeat: ", text));
        }
        (None, None) => {
            let text = "none until the pod is found";
            lines.push(Line::headed(Style::Strong, "Next heartbeat: ", text));
        }
    }
    if let Some((beat, at)) = &state.last {
        let kind = match beat.kind {
            Kind::First => "first",
            Kind::Periodic => "periodic",
            Kind::Change => "change",
            Kind::LostExit => "a missed exit",
            Kind::Final => "the last one",
        };
        let ago = seconds(now.elapsed.saturating_sub(*at));
        let head = format!("Heartbeat {}: ", beat.number);
        let text = format!("{kind}, {ago} ago, with this body");
        lines.push(Line::headed(Style::Strong, head, text));
    }
    lines
}

/// The body of the last heartbeat, in the order of the contract: the container states come first.
fn body(state: &State) -> Vec<Line> {
    let Some((beat, _)) = &state.last else {
        return Vec::new();
    };
    let json = serde_json::to_string_pretty(&beat.body).unwrap_or_default();
    escaped(&json).lines().map(Line::plain).collect()
}

/// A time in whole seconds, in kubectl's format of ages.
fn seconds(time: Duration) -> String {
    let whole = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    match epoch.checked_add(jiff::SignedDuration::from_secs(whole)) {
        Ok(later) => age(epoch, later),
        Err(_) => format!("{whole}s"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::super::diagnosis::{self, Diagnosis};
    use super::super::event::{Beat, End};
    use super::super::screen::paint;
    use super::*;
    use podbeat_heartbeat::machine::{Attempt, Losses, Snapshot};
    use podbeat_heartbeat::report::{self, Identity, Report};
    use podbeat_heartbeat::saved::LastHeartbeat;
    use podbeat_interface::terminal::acts;
    use podbeat_kubernetes::resource::Pod;
    use podbeat_kubernetes::tasks::Tasks;
    use podbeat_lab::captured::Captured;

    /// A time some seconds after the start, with this wall clock.
    fn at(seconds: u64, wall: &str) -> Now {
        Now {
            elapsed: Duration::from_secs(seconds),
            wall: wall.parse::<Timestamp>().expect("a time"),
        }
    }

    /// The state of a pod that was seen 7 s ago, and reported in a heartbeat 3 s later.
    fn state(pod: &Captured, own_container: &str, kind: Kind) -> State {
        let pod: Pod = pod.pod();
        let name = pod.metadata.name.clone().expect("a name");
        let mut state = State::new("hb", &name, own_container, &Tasks::All, Report::Task);
        let wall = "2026-11-24T02:00:00Z";
        drop(state.saw(&pod, false, at(10, wall)));
        let seen = podbeat_kubernetes::status::observe(&pod, own_container);
        let mut identity = Identity {
            pod_name: name,
            ..Identity::default()
        };
        identity.learn(&seen);
        let mut request = identity.request(
            "nonce".to_owned(),
            Some(report::statuses(&seen, Report::Task)),
        );
        request.last_heartbeat = (kind == Kind::Final).then_some(true);
        let attempt = Attempt {
            number: 3,
            beat: (3, kind),
            retries: 0,
            request,
            timeout: Duration::from_secs(10),
            token_was_refused: false,
        };
        drop(state.sent(attempt, at(13, wall)));
        let snapshot = Snapshot {
            backlog: 0,
            losses: Losses::default(),
            status_age: None,
            gone: false,
            final_is_due: false,
            last_heartbeat: LastHeartbeat::Open,
            journaled: false,
        };
        state.turned(snapshot, Some(Duration::from_millis(42_300)));
        state
    }

    const NOW: &str = "2026-11-24T02:00:07Z";

    fn text(state: &State, columns: usize, rows: Option<usize>) -> String {
        let lines = lines(state, at(17, NOW), Size { columns, rows });
        let text = |line: &Line| {
            line.0
                .iter()
                .map(|(_, text)| text.as_str())
                .collect::<String>()
        };
        lines.iter().map(text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_pod_that_runs() {
        let state = state(
            &Captured::when("a-complete", "main", "running"),
            "hb",
            Kind::Change,
        );
        insta::assert_snapshot!("80_by_24", text(&state, 80, Some(24)));
        insta::assert_snapshot!("132_by_50", text(&state, 132, Some(50)));
        insta::assert_snapshot!("40_by_10", text(&state, 40, Some(10)));
        insta::assert_snapshot!("colours", {
            let lines = lines(
                &state,
                at(17, NOW),
                Size {
                    columns: 80,
                    rows: Some(12),
                },
            );
            let mut painted = String::new();
            for line in &lines {
                paint(line, true, &mut painted);
                painted.push('\n');
            }
            painted.replace('\u{1b}', "␛")
        });
    }

    #[test]
    fn a_missing_image_and_a_silent_api() {
        let pod = Captured::when("h-noimage", "main", "waiting");
        let mut state = state(&pod, "hb", Kind::Change);
        let diagnosis = Diagnosis {
            what: "Unable to connect to the server: Connection refused (os error 111)".to_owned(),
            remedy: "is the cluster up?",
            role: None,
            kind: diagnosis::Kind::Unreachable,
        };
        state.failed(diagnosis, at(15, NOW)).expect("news");
        insta::assert_snapshot!("silent", text(&state, 80, Some(24)));
    }

    #[test]
    fn a_deletion_and_the_end_whole() {
        let pod = Captured::last("b-delete");
        let mut state = state(&pod, "hb", Kind::Final);
        drop(state.vanished(at(16, NOW)));
        drop(state.ended(End::Gone, at(16, NOW)));
        insta::assert_snapshot!("end", text(&state, 80, None));
    }

    #[test]
    fn before_anything_is_known() {
        let state = State::new("lab", "p", "podbeat", &Tasks::All, Report::Task);
        insta::assert_snapshot!("nothing_yet", text(&state, 80, Some(24)));
    }

    #[test]
    fn containers_that_do_not_fit_are_counted() {
        let first = Captured::when("a-complete", "main", "running");
        let mut pod = first.clone();
        for nth in 0..30 {
            let name = format!("worker-{nth}");
            pod = pod.with("/spec/containers/-", serde_json::json!({"name": name}));
        }
        let state = state(&pod, "hb", Kind::Change);
        let shown = text(&state, 80, Some(24));
        assert!(shown.contains("… 19 more containers"), "{shown}");
        assert!(
            shown.contains("Next heartbeat: ") && shown.contains("Heartbeat 3: "),
            "{shown}"
        );
    }

    #[test]
    fn a_view_fits_into_any_window() {
        let states = [
            state(
                &Captured::when("h-noimage", "main", "waiting"),
                "hb",
                Kind::Change,
            ),
            state(&Captured::last("b-delete"), "hb", Kind::Final),
            State::new("lab", "表表表表表表", "podbeat", &Tasks::All, Report::All),
        ];
        for state in &states {
            for columns in 1..=100 {
                for rows in 1..=40 {
                    let rows_taken = lines(
                        state,
                        at(17, NOW),
                        Size {
                            columns,
                            rows: Some(rows),
                        },
                    );
                    assert!(rows_taken.len() <= rows, "{columns}×{rows}");
                    for line in &rows_taken {
                        assert!(line.width() <= columns, "{columns}×{rows}: {line:?}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_view_contains_no_control_characters_of_the_api(said in hostile::TEXT) {
            let shown = serde_json::json!({"reason": said, "message": said, "exitCode": 1});
            let pod = Captured::when("a-complete", "main", "running")
                .with("/status/containerStatuses/0/state", serde_json::json!({"terminated": shown}))
                .with("/metadata/name", serde_json::json!(said))
                .with("/spec/nodeName", serde_json::json!(said))
                .with("/status/phase", serde_json::json!(said));
            let mut state = state(&pod, "hb", Kind::Change);
            let diagnosis = Diagnosis {
                what: said,
                remedy: "",
                role: None,
                kind: diagnosis::Kind::Unreachable,
            };
            state.failed(diagnosis, at(15, NOW)).expect("news");
            for rows in [None, Some(24)] {
                let text = text(&state, 80, rows);
                prop_assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
            }
        }
    }

    #[test]
    fn the_nonce_is_not_shown() {
        let state = state(
            &Captured::when("a-complete", "main", "running"),
            "hb",
            Kind::Change,
        );
        let (Beat { body, .. }, _) = state.last.expect("a heartbeat");
        assert_eq!(body.nonce, None);
    }
}
