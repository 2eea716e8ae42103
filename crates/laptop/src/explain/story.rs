//! A story: the events in order of time, and a verdict.

use std::fmt::{self, Write};

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use podbeat_interface::terminal::one_line;

/// The input as a story.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Story {
    /// The kind of the input.
    pub(super) source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<String>,
    pub(super) events: Vec<Event>,
    pub(super) verdict: Verdict,
}

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(super) enum When {
    At(Timestamp),
    /// The time of day in UTC. The log's text form has no date.
    OfDay(#[serde(serialize_with = "time_of_day")] Time),
}

/// An event.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    /// The event's time, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<When>,
    pub(super) text: String,
}

/// The conclusion.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// Why the run ended or does not start, if the Kubernetes API says more than exit codes. `text`
    /// begins with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    /// One paragraph.
    pub(super) text: String,
}

/// The state of the run's last heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// The service accepted it.
    Delivered,
    /// podbeat ended, and the service had not accepted it.
    Undelivered,
    /// The service refused it permanently.
    Refused,
    /// The service answered that the run does not belong to this pod.
    Orphaned,
    /// It is due, but not accepted yet.
    Due,
    /// It is not due yet.
    Open,
    /// The input does not contain it.
    Unknown,
}

impl Verdict {
    pub(super) fn new(outcome: Outcome, cause: Option<String>, text: &str) -> Self {
        let parts = [cause.as_deref().unwrap_or_default(), text];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Self {
            outcome,
            text: parts.collect::<Vec<_>>().join(" "),
            cause,
        }
    }
}

impl Event {
    pub(super) fn new(at: Option<impl Into<When>>, text: impl AsRef<str>) -> Self {
        Self {
            at: at.map(Into::into),
            text: text.as_ref().to_owned(),
        }
    }
}

/// Sorts by time. Events without a time stay after the event before them.
pub(super) fn in_order(events: Vec<Event>) -> Vec<Event> {
    let mut latest = None;
    let mut keyed: Vec<(Option<When>, Event)> = events
        .into_iter()
        .map(|event| {
            latest = event.at.or(latest);
            (latest, event)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, event)| event).collect()
}

impl Story {
    /// The story as text for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let subject = [("task run", &self.task_run), ("pod", &self.pod)];
        let named = subject
            .iter()
            .filter_map(|(what, name)| Some((what, name.as_deref()?)));
        let named: Vec<String> = named
            .map(|(what, name)| format!("{what} {}", one_line(name)))
            .collect();
        let of = if named.is_empty() {
            String::new()
        } else {
            format!(" to {}", named.join(", "))
        };
        let _ = writeln!(text, "What happened{of}, from its {}:\n", self.source);
        let times = self
            .events
            .iter()
            .map(|event| event.at.map_or_else(String::new, |at| format!("{at:.3}")));
        let times: Vec<String> = times.collect();
        let width = times.iter().map(String::len).max().unwrap_or_default();
        for (at, event) in times.iter().zip(&self.events) {
            let _ = writeln!(text, "{at:width$}  {}", one_line(&event.text));
        }
        let _ = writeln!(text, "\n{}", wrapped(&one_line(&self.verdict.text)));
        text
    }
}

/// Wraps a text into lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let room = lines.last().is_none_or(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= WIDTH
        });
        if !room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// A time, for use in a sentence.
pub(super) fn at(time: impl Into<When>) -> String {
    format!("{:.0}", time.into())
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        Self::At(at)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::OfDay(time) => {
                time.fmt(f)?;
                f.write_str("Z")
            }
        }
    }
}

fn time_of_day<S: Serializer>(time: &Time, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}Z"))
}

/// A duration, for use in a sentence: in whole seconds, if it is at least one second.
pub(super) fn lasting(duration: SignedDuration) -> String {
    let duration = duration.unsigned_abs();
    let shown = match duration.as_secs() {
        0 => std::time::Duration::from_millis(u64::from(duration.subsec_millis())),
        seconds => std::time::Duration::from_secs(seconds),
    };
    humantime::format_duration(shown).to_string()
}

/// `once`, `twice`, `3 times`.
pub(super) fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}
