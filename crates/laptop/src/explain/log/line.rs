//! One line of the log, in the JSON or the text form, and its fields.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::explain::story::When;
use crate::explain::text_form;

/// One line of the log.
#[derive(Clone, Debug)]
pub(in crate::explain) struct Line {
    /// The prefix from `kubectl logs --prefix`. All lines of one pod have the same prefix.
    pub(super) prefix: String,
    pub(super) at: Option<When>,
    pub(super) level: String,
    pub(super) message: String,
    fields: Map<String, Value>,
}

impl Line {
    /// Parses a line, without kubectl's additions (`--prefix`, `--timestamps`). `None` if it is not
    /// podbeat's.
    pub(in crate::explain) fn read(text: &str) -> Option<Self> {
        let (mut rest, mut prefix, mut read_at) = (text.trim(), String::new(), None);
        while let Some((word, after)) = rest.split_once(' ') {
            match word.parse::<Timestamp>() {
                Ok(at) => read_at = Some(at),
                Err(_) if word.starts_with('[') && word.ends_with(']') => {
                    word.clone_into(&mut prefix)
                }
                Err(_) => break,
            }
            rest = after.trim_start();
        }
        if rest.starts_with('{') {
            return Self::read_json(rest, prefix);
        }
        let read = text_form::read(rest)?;
        Some(Self {
            prefix,
            at: Some(read_at.map_or(When::OfDay(read.at), When::At)),
            level: read.level,
            message: read.message,
            fields: read.fields,
        })
    }

    fn read_json(text: &str, prefix: String) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (message, level, timestamp) = (take("message")?, take("level")?, take("timestamp")?);
        let target = take("target")?;
        Some(Self {
            prefix,
            at: timestamp.parse().ok().map(When::At),
            level,
            message,
            fields,
        })
        .filter(|_| target.starts_with("podbeat"))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        match self.fields.get(name)? {
            Value::String(text) => text.parse().ok(),
            other => other.as_i64(),
        }
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        let value = self.fields.get(name);
        value.is_some_and(|value| *value == Value::Bool(true) || value == "true")
    }

    pub(super) fn seconds(&self, name: &str) -> Option<SignedDuration> {
        let seconds = match self.fields.get(name)? {
            Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        };
        SignedDuration::try_from_secs_f64(seconds?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_puts_before_a_line_is_left_out_and_other_lines_are_not_taken() {
        let own = r#"{"timestamp":"2026-11-24T01:00:01.000Z","level":"INFO","message":"podbeat started","task_run_id":"r","target":"podbeat::agent"}"#;
        for before in [
            "",
            "2026-11-24T01:00:01.5Z ",
            "[pod/p/podbeat] ",
            "[pod/p/podbeat] 2026-11-24T01:00:01Z ",
        ] {
            let read = Line::read(&format!("{before}{own}")).expect(before);
            assert_eq!(
                read.at,
                Some(When::At("2026-11-24T01:00:01Z".parse().expect("a time")))
            );
            let text =
                "01:00:01.000Z INFO  podbeat started                                task_run_id=r";
            let read = Line::read(&format!("{before}{text}")).expect(before);
            assert_eq!(
                (read.message.as_str(), read.text("task_run_id")),
                ("podbeat started", Some("r"))
            );
            assert_eq!(
                matches!(read.at, Some(When::At(_))),
                before.contains('Z'),
                "the date is in what kubectl says"
            );
        }
        for other in [
            "",
            "{}",
            "epoch 1 {\"loss\": 3}",
            r#"{"message":"m","level":"INFO","timestamp":"t","target":"kube_client"}"#,
            r#"{"message":"m","level":"INFO","timestamp":"t"}"#,
            "{\"message\":",
        ] {
            assert!(Line::read(other).is_none(), "{other}");
        }
    }
}
