//! Parses the text form of podbeat's log: `01:02:03.004Z INFO message name=value name="a text"`.

use jiff::civil::Time;
use serde_json::{Map, Value};

/// The content of a line.
#[derive(Debug)]
pub struct Parsed {
    /// The time of day in UTC. This form has no date.
    pub at: Time,
    /// The level, in capitals.
    pub level: String,
    /// The message.
    pub message: String,
    /// The fields. All values are strings, because this form does not distinguish numbers from
    /// texts.
    pub fields: Map<String, Value>,
}

/// Parses a line. `None` if it does not have this form. Colors are ignored.
#[must_use]
pub fn read(line: &str) -> Option<Parsed> {
    let line = without_colours(line.trim_end());
    let (at, rest) = line.split_once("Z ")?;
    // The length check rejects a date before the time, which the parser would accept.
    let at: Time = Some(at)
        .filter(|at| at.len() <= "01:02:03.004".len())?
        .parse()
        .ok()?;
    // The width of the longest level, plus a space.
    let (level, rest) = rest.split_at_checked(6)?;
    let level = level.trim_end();
    if !["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level) {
        return None;
    }
    // Fields are at the end of the line, whatever the message contains.
    let starts = rest.match_indices(' ').map(|(start, _)| start);
    let split = starts.filter_map(|start| rest.split_at_checked(start));
    let mut split = split.filter_map(|(message, fields)| Some((message, fields_of(fields)?)));
    let (message, fields) = split.next().unwrap_or_else(|| (rest, Map::new()));
    Some(Parsed {
        at,
        level: level.to_owned(),
        message: unescaped(message.trim_end()),
        fields,
    })
}

/// The fields in a text, each after a space. `None` if the text contains anything else.
fn fields_of(mut text: &str) -> Option<Map<String, Value>> {
    let mut fields = Map::new();
    while !text.is_empty() {
        let (name, rest) = text.strip_prefix(' ')?.split_once('=')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_at_checked(end_of_quoted(quoted)?)?;
                (unescaped(value), rest.strip_prefix('"')?)
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (value, rest) = rest.split_at_checked(end)?;
                (value.to_owned(), rest)
            }
        };
        fields.insert(name.to_owned(), Value::String(value));
        text = rest;
    }
    Some(fields)
}

/// Where the open quote ends.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escapes = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escapes;
        escapes = c == '\\' && !escapes;
        ends.then_some(at)
    })
}

/// Reverts the log's escapes: backslashes, quotes, and characters that a terminal acts on.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out += before;
        let mut chars = after.chars();
        let (c, left) = match (chars.next(), chars.as_str()) {
            (Some('n'), left) => ('\n', left),
            (Some('r'), left) => ('\r', left),
            (Some('t'), left) => ('\t', left),
            (Some('u'), left) => coded(left).unwrap_or(('u', left)),
            (Some(c), left) => (c, left),
            (None, left) => ('\\', left),
        };
        out.push(c);
        rest = left;
    }
    out + rest
}

/// The character of a code such as `{1b}`, and the text after it.
fn coded(text: &str) -> Option<(char, &str)> {
    let (code, rest) = text.strip_prefix('{')?.split_once('}')?;
    Some((char::from_u32(u32::from_str_radix(code, 16).ok()?)?, rest))
}

/// The line without the colors of a terminal, for example from a recording by `script`.
fn without_colours(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out += before;
        let digits = |c: char| c.is_ascii_digit() || c == ';';
        match after.trim_start_matches(digits).strip_prefix('m') {
            Some(left) => rest = left,
            None => {
                out += "\u{1b}[";
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use podbeat_interface::log::{Form, Log};
    use podbeat_lab::hostile;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tracing::{Level, event};

    use super::*;

    /// Reads back what the log writes.
    fn of(colours: bool, act: impl FnOnce()) -> Parsed {
        let written = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&written);
        let write = move |line: &str| kept.lock().expect("not poisoned").push_str(line);
        let filter = "trace".parse().expect("a filter");
        let log = Log::new(&filter, Form::Text { colours }, write);
        tracing::subscriber::with_default(log, act);
        let line = written.lock().expect("not poisoned").clone();
        read(&line).unwrap_or_else(|| panic!("{line:?}"))
    }

    #[test]
    fn a_line_is_read_back_with_colours_or_without() {
        for colours in [false, true] {
            let read = of(colours, || {
                event!(
                    Level::WARN,
                    container = "main",
                    why = "two words",
                    count = 2,
                    empty = "",
                    "it=is so: a b=c d"
                );
            });
            assert_eq!(
                (read.level.as_str(), read.message.as_str()),
                ("WARN", "it=is so: a b=c d")
            );
            let fields =
                json!({"container": "main", "why": "two words", "count": "2", "empty": ""});
            assert_eq!(Value::Object(read.fields), fields);
            let read = of(colours, || event!(Level::INFO, "no fields"));
            assert_eq!((read.message.as_str(), read.fields.len()), ("no fields", 0));
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "01:02:03.004Z",
            "01:02:03.004Z INFO",
            "01:02:03.004Z NOTE  hello",
            "25:02:03.004Z INFO  hello",
            "2026-11-24T01:02:03Z INFO  hello",
            "INFO  hello",
            "01:02:03.004Z INFOhello",
        ] {
            assert!(read(line).is_none(), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_logged_is_read_back(
            said in prop_oneof![hostile::TEXT, "[a-z=\\\\\" \n]{0,20}"],
            also in prop_oneof![hostile::TEXT, "[a-z=\\\\\" \n]{0,20}"],
        ) {
            let read = of(false, || event!(Level::INFO, said = said.as_str(), also = also.as_str(), "hello"));
            prop_assert_eq!(read.message, "hello");
            prop_assert_eq!(Value::Object(read.fields), json!({"said": said, "also": also}));
        }

        #[test]
        fn any_line_is_parsed_or_ignored(text in hostile::TEXT) {
            let _ = (read(&text), read(&format!("01:02:03.004Z INFO  {text}")));
        }
    }
}
