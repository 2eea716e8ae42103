//! The log: one line per event on standard error, as JSON in a pod or as text on a terminal.
//!
//! podbeat has its own subscriber, and uses only the filter of tracing-subscriber. Its layers do
//! not ensure that an event is one line of limited length, safe on a terminal, whatever text comes
//! from a container, the service or the API server, with the same content in both formats. podbeat
//! uses no spans, so it creates none.

mod unread;

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::LazyLock;

use jiff::Timestamp;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, SetGlobalDefaultError, Subscriber};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets};

use self::unread::Unread;
use crate::environment::Environment;
use crate::messages::{Message, Text};
use crate::parse::LogFormat;
use crate::reader::Reader;
use crate::setting::{LOG, LOG_FORMAT};
use crate::terminal::acts;

/// The maximum size of one value, in bytes. podbeat's longest value is the body of a last
/// heartbeat, with at most 12 KiB of termination messages (the kubelet's limit for a pod).
const LARGEST: usize = 32 * 1024;

/// The column of the first field in the text format, so that fields align after most messages.
const COLUMN: usize = 46;

/// The levels of `PODBEAT_LOG`, in lower or upper case.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The settings of the log, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// The events to log.
    pub filter: Targets,
    /// The format of lines.
    pub format: LogFormat,
    /// Whether output on a terminal may have colors: not if `NO_COLOR` is set
    /// (<https://no-color.org>).
    pub colours: bool,
}

impl LogConfig {
    /// Reads the settings. `in_pod` determines the default format.
    pub fn read(read: &mut Reader<'_, impl Environment>, in_pod: bool) -> Self {
        let filter = read.optional_with(&LOG, |text| parse_filter(&text));
        let format = read.optional(&LOG_FORMAT);
        let default = if in_pod {
            LogFormat::Json
        } else {
            LogFormat::Text
        };
        Self {
            filter: filter.unwrap_or_else(|| parse_filter(LOG.default_text()).unwrap_or_default()),
            format: format.unwrap_or(default),
            colours: read.terminal().colours,
        }
    }
}

/// Levels and target=level pairs.
fn parse_filter(text: &str) -> Result<Targets, String> {
    let mut filter = Targets::new();
    for directive in text.split(',') {
        filter = match parse_directive(directive.trim()) {
            Some((Some(target), level)) => filter.with_target(target, level),
            Some((None, level)) => filter.with_default(level),
            None => {
                let levels = LEVELS.join(", ");
                return Err(format!(
                    "must be a level ({levels}), or comma-separated target=level pairs"
                ));
            }
        };
    }
    Ok(filter)
}

/// The library's own parser treats a word that is not a level as a target, which silences
/// everything else. It treats an empty word as `error`.
fn parse_directive(text: &str) -> Option<(Option<&str>, LevelFilter)> {
    let (target, level) = match text.rsplit_once('=') {
        Some((target, level)) => (Some(target), level),
        None => (None, text),
    };
    let is_of_target = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(&byte);
    let is_target = |target: &str| !target.is_empty() && target.bytes().all(is_of_target);
    let is_level = LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
    if !is_level || !target.is_none_or(is_target) {
        return None;
    }
    Some((target, level.parse().ok()?))
}

/// Installs the process's log, and a panic hook that logs.
///
/// kube's client logs each failed request at level error. podbeat reports the same failure with its
/// remedy. So libraries log only if the filter names them, or at level trace.
///
/// # Errors
/// The process already has a log.
pub fn install(config: &LogConfig) -> Result<(), SetGlobalDefaultError> {
    let form = match config.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text {
            colours: config.colours && io::stderr().is_terminal(),
        },
    };
    tracing::subscriber::set_global_default(Log::new(&config.filter, form, to_stderr))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn quiet_libraries(filter: &Targets) -> Targets {
    let named = |target: &str| filter.iter().any(|(named, _)| named == target);
    let traces = filter
        .default_level()
        .is_some_and(|level| level >= LevelFilter::TRACE);
    let mut quieted = filter.clone();
    for library in ["kube_client", "tower", "hyper_util", "rustls"] {
        if !named(library) && !traces {
            quieted = quieted.with_target(library, LevelFilter::OFF);
        }
    }
    quieted
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    Message::Panicked {
        panic: panic.payload_as_str().unwrap_or("(no message)"),
        location: panic.location().map(|location| location as Text<'_>),
    }
    .emit();
}

/// Writes to standard error. A log that nobody reads must not delay a heartbeat or end the process.
fn to_stderr(line: &str) {
    static LOG: LazyLock<Unread<io::Stderr>> = LazyLock::new(|| Unread::new(io::stderr()));
    if let Some(lines) = LOG.left_out() {
        Message::LinesDropped { lines }.emit();
    }
    LOG.write(line);
}

/// A subscriber that writes the events that pass the filter. [`install`] uses it.
pub struct Log<W> {
    filter: Targets,
    most: LevelFilter,
    form: Form,
    write: W,
}

/// The form of lines.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// JSON objects.
    Json,
    /// Text.
    Text {
        /// Whether it has the escape sequences of colors.
        colours: bool,
    },
}

impl<W> fmt::Debug for Log<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl<W> Log<W> {
    /// A log. `write` gets each line, with its line end.
    pub fn new(filter: &Targets, form: Form, write: W) -> Self {
        let filter = quiet_libraries(filter);
        let named = filter.iter().map(|(_, level)| level);
        let most = named.chain(filter.default_level()).max();
        Self {
            most: most.unwrap_or(LevelFilter::OFF),
            filter,
            form,
            write,
        }
    }
}

impl<W: Fn(&str) + 'static> Subscriber for Log<W> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && self
                .filter
                .would_enable(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn event(&self, event: &Event<'_>) {
        (self.write)(&line(event, self.form, Timestamp::now()));
    }

    // No span is enabled, so these are not called for podbeat's own spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>, form: Form, at: Timestamp) -> String {
    let mut found = Found::default();
    event.record(&mut found);
    let mut line = String::with_capacity(256);
    // Writing into a String never fails.
    let _ = match form {
        Form::Json => json(&mut line, event.metadata(), &found, at),
        Form::Text { colours } => text(&mut line, event.metadata(), &found, at, colours),
    };
    line
}

/// Formats one flat object: time, level, message, fields, and target.
fn json(line: &mut String, metadata: &Metadata<'_>, found: &Found, at: Timestamp) -> fmt::Result {
    write!(
        line,
        "{{\"timestamp\":\"{at:.3}\",\"level\":\"{}\",\"message\":",
        metadata.level()
    )?;
    json_text(line, &found.message)?;
    for (name, value) in &found.fields {
        // Rename a library's field that has the name of one of these.
        let suffix = if ["timestamp", "level", "target"].contains(name) {
            "_"
        } else {
            ""
        };
        write!(line, ",\"{name}{suffix}\":")?;
        match value {
            Value::Text(text) => json_text(line, text)?,
            Value::Bare(text) => line.push_str(text),
        }
    }
    line.push_str(",\"target\":");
    json_text(line, metadata.target())?;
    line.push_str("}\n");
    Ok(())
}

fn json_text(line: &mut String, text: &str) -> fmt::Result {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            // All of these are below U+10000, the limit of a single JSON escape.
            character if acts(character) => write!(line, "\\u{:04x}", u32::from(character))?,
            character => line.push(character),
        }
    }
    line.push('"');
    Ok(())
}

/// Formats the time of day (UTC), level, message and fields.
fn text(
    line: &mut String,
    metadata: &Metadata<'_>,
    found: &Found,
    at: Timestamp,
    colours: bool,
) -> fmt::Result {
    let paint = |colour| if colours { colour } else { "" };
    let (dim, plain) = (paint("\u{1b}[2m"), paint("\u{1b}[0m"));
    let level = match *metadata.level() {
        Level::ERROR => paint("\u{1b}[31m"),
        Level::WARN => paint("\u{1b}[33m"),
        Level::INFO => paint("\u{1b}[32m"),
        Level::DEBUG => paint("\u{1b}[34m"),
        Level::TRACE => paint("\u{1b}[35m"),
    };
    let time = format!("{at:.3}");
    let time = time.split_once('T').map_or("", |(_, time)| time);
    write!(
        line,
        "{dim}{time}{plain} {level}{:<5}{plain} ",
        metadata.level()
    )?;
    let start = line.len();
    on_one_line(line, &found.message, false);
    if !found.fields.is_empty() {
        let width = line
            .get(start..)
            .map_or(0, |message| message.chars().count());
        line.extend(std::iter::repeat_n(' ', COLUMN.saturating_sub(width)));
    }
    for (name, value) in &found.fields {
        write!(line, " {dim}{name}={plain}")?;
        match value {
            Value::Bare(text) => line.push_str(text),
            Value::Text(text) if is_plain(text) => line.push_str(text),
            Value::Text(text) => {
                line.push('"');
                on_one_line(line, text, true);
                line.push('"');
            }
        }
    }
    line.push('\n');
    Ok(())
}

/// Whether a value needs no quotes.
fn is_plain(text: &str) -> bool {
    let needs_quotes = |c: char| c.is_whitespace() || c == '\\' || acts(c);
    !text.is_empty() && !text.starts_with('"') && !text.contains(needs_quotes)
}

/// Adds a text to the line. Escapes line ends and, if `quoted`, quotes.
fn on_one_line(line: &mut String, text: &str, quoted: bool) {
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '"' if quoted => line.push_str("\\\""),
            character if acts(character) => line.extend(character.escape_default()),
            character => line.push(character),
        }
    }
}

/// The content of an event.
#[derive(Default)]
struct Found {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    /// Quoted where the format requires it.
    Text(String),
    /// A number or a Boolean.
    Bare(String),
}

impl Found {
    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut text = Bounded(String::new());
        // An error means that the value was shortened.
        let _ = text.write_fmt(value);
        match field.name() {
            "message" => self.message = text.0,
            name => self.fields.push((name, Value::Text(text.0))),
        }
    }

    fn bare(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.fields
            .push((field.name(), Value::Bare(value.to_string())));
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON cannot express other values.
        if value.is_finite() {
            self.bare(field, &value);
        } else {
            self.text(field, format_args!("{value}"));
        }
    }
}

/// A text of at most [`LARGEST`] bytes, plus an ellipsis.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LARGEST.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let fits = |length: &usize| text.is_char_boundary(*length);
        let length = (0..=room).rev().find(fits).unwrap_or(0);
        self.0.push_str(text.get(..length).unwrap_or_default());
        self.0.push('…');
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;
    use tracing::event;

    use super::*;

    /// The lines that are written while `act` runs.
    fn written(filter: &str, form: Form, act: impl FnOnce()) -> String {
        use std::sync::{Arc, Mutex};

        let lines = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&lines);
        let log = Log::new(
            &filter.parse().expect("a filter"),
            form,
            move |line: &str| {
                kept.lock().expect("not poisoned").push_str(line);
            },
        );
        tracing::subscriber::with_default(log, act);
        lines.lock().expect("not poisoned").clone()
    }

    fn object(line: &str) -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn libraries_are_heard_only_where_named() {
        let enabled = |filter: &str, target: &str, level: Level| {
            quiet_libraries(&filter.parse().expect("a filter")).would_enable(target, &level)
        };
        assert!(enabled("info", "podbeat::agent", Level::INFO));
        assert!(!enabled(
            "info",
            "kube_client::client::builder",
            Level::ERROR
        ));
        assert!(!enabled("debug", "hyper_util::client", Level::DEBUG));
        assert!(enabled(
            "info,kube_client=debug",
            "kube_client",
            Level::DEBUG
        ));
        assert!(enabled("trace", "hyper_util", Level::TRACE));
    }

    #[test]
    fn json_is_flat_and_typed() {
        let text = written("info", Form::Json, || {
            event!(Level::INFO, text = "a\"b\\c",
                debug = ?"d",
                number = 3_u8,
                less = -1,
                real = 1.5,
                none = None::<&str>,
                some = Some("s"),
                yes = true,
                level = "mine",
                "hello"
            );
        });
        let line = object(&text);
        assert_eq!(line["message"], "hello");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "podbeat_interface::log::tests");
        assert_eq!(
            (&line["text"], &line["debug"]),
            (&"a\"b\\c".into(), &"\"d\"".into())
        );
        assert_eq!(
            (&line["number"], &line["less"], &line["real"]),
            (&3.into(), &(-1).into(), &1.5.into())
        );
        assert_eq!((&line["yes"], &line["some"]), (&true.into(), &"s".into()));
        assert_eq!((line.get("none"), &line["level_"]), (None, &"mine".into()));
        let at = line["timestamp"].as_str().expect("a time");
        assert!(
            at.len() == 24 && at.ends_with('Z') && at.parse::<Timestamp>().is_ok(),
            "{at}"
        );
    }

    #[test]
    fn text_is_aligned_and_coloured_only_where_asked() {
        let told = |colours| {
            let text = written("info", Form::Text { colours }, || {
                event!(
                    Level::WARN,
                    container = "main",
                    why = "two words",
                    count = 2,
                    empty = "",
                    json = r#"{"a":1}"#,
                    "it changed"
                );
                event!(Level::INFO, "no fields");
            });
            let without_time: Vec<String> = text
                .lines()
                .map(|line| {
                    line.replacen(|c: char| c.is_ascii_digit(), "", 9)
                        .replacen("::.Z ", "", 1)
                })
                .collect();
            without_time
        };
        assert_eq!(
            told(false),
            [
                format!(
                    "WARN  {:<COLUMN$} container=main why=\"two words\" count=2 empty=\"\" json={{\"a\":1}}",
                    "it changed"
                ),
                "INFO  no fields".to_owned()
            ]
        );
        let coloured = written("info", Form::Text { colours: true }, || {
            event!(Level::WARN, a = 1, "b")
        });
        assert!(
            coloured.contains("\u{1b}[33mWARN \u{1b}[0m b")
                && coloured.contains("\u{1b}[2ma=\u{1b}[0m1")
        );
    }

    #[test]
    fn the_filter_is_by_level_and_by_target() {
        let told = |filter: &str| {
            let text = written(filter, Form::Json, || {
                event!(Level::INFO, "one");
                tracing::debug!(target: "podbeat::agent::delivery", "two");
                event!(target: "kube_client::client", Level::ERROR, "three");
                tracing::info_span!("span").in_scope(|| event!(Level::WARN, "four"));
            });
            let messages: Vec<String> = text
                .lines()
                .map(|line| object(line)["message"].as_str().expect("text").to_owned())
                .collect();
            messages.join(" ")
        };
        assert_eq!(told("info"), "one four");
        assert_eq!(told("off"), "");
        assert_eq!(told("debug"), "one two four");
        assert_eq!(told("warn,podbeat::agent=debug"), "two four");
        assert_eq!(told("error,kube_client=error"), "three");
    }

    #[test]
    fn a_value_has_an_end() {
        let text = written("info", Form::Json, || {
            let long = "ü".repeat(LARGEST);
            event!(Level::INFO, long = long.as_str(), debug = ?long, "{long}");
        });
        assert!(text.len() < 3 * LARGEST + 300, "{}", text.len());
        assert!(
            object(&text)["long"]
                .as_str()
                .is_some_and(|long| long.ends_with("ü…"))
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_one_event_is_one_line_and_harmless(said in prop_oneof![hostile::TEXT, "[\\PC\"\\\\\n]{0,40}"]) {
            for form in [Form::Json, Form::Text { colours: false }] {
                let text = written("info", form, || event!(Level::INFO, said = said.as_str(), debug = ?said, "{said}"));
                let inner = text.strip_suffix('\n').expect("a line's end");
                prop_assert!(!inner.contains(acts), "{inner:?}");
                if matches!(form, Form::Json) {
                    let line = object(&text);
                    prop_assert_eq!(line["said"].as_str(), Some(said.as_str()));
                    prop_assert_eq!(line["message"].as_str(), Some(said.as_str()));
                }
            }
        }
    }
}
