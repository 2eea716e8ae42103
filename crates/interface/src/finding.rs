//! The result of a check, and its output: a table with the remedies below it, JSON, or YAML. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::terminal::{escaped, inert, one_line};

/// The maximum number of characters shown for an observation. Foreign text, from a service or a
/// certificate, may have any length.
const LONGEST: usize = 400;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The check passed.
    Ok,
    /// The check passed, but somebody should look at it.
    Warning,
    /// The check failed.
    Failed,
    /// The check did not run, because a prerequisite failed or does not exist.
    Skipped,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable across versions.
    pub id: String,
    /// The result.
    pub state: State,
    /// What was checked, and what podbeat saw.
    pub seen: String,
    /// How to fix the problem, in one or more lines.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(id: &str, state: State, seen: &str, remedy: Option<String>) -> Self {
        let mut short: String = seen.chars().take(LONGEST).collect();
        if short.len() < seen.len() {
            short.push('…');
        }
        Self {
            id: id.to_owned(),
            state,
            seen: short,
            remedy: remedy.map(|remedy| remedy.trim_end().to_owned()),
        }
    }

    /// A check that passed.
    pub fn ok(id: &str, seen: impl AsRef<str>) -> Self {
        Self::new(id, State::Ok, seen.as_ref(), None)
    }

    /// A check that passed, but somebody should look at it.
    pub fn warning(id: &str, seen: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::new(id, State::Warning, seen.as_ref(), Some(remedy.into()))
    }

    /// A check that failed.
    pub fn failed(id: &str, seen: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::new(id, State::Failed, seen.as_ref(), Some(remedy.into()))
    }

    /// A check that did not run, with the reason.
    pub fn skipped(id: &str, why: impl AsRef<str>) -> Self {
        Self::new(id, State::Skipped, why.as_ref(), None)
    }

    /// A check that did not run because another check failed.
    pub fn because(id: &str, other: &str) -> Self {
        Self::skipped(id, format!("because of {other}"))
    }

    /// Whether the check passed.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self.state, State::Ok | State::Warning)
    }
}

/// The results of all checks.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The checks, in the order of the output.
    pub checks: Vec<Finding>,
    /// Whether no check failed.
    pub ok: bool,
}

impl Findings {
    /// The results of these checks.
    #[must_use]
    pub fn new(checks: Vec<Finding>) -> Self {
        let ok = checks.iter().all(|check| check.state != State::Failed);
        Self { checks, ok }
    }

    /// Formats the table, then each remedy once, under the IDs of its checks. A remedy begins at
    /// the start of the line, so that users can copy YAML from it.
    pub fn table(&self) -> String {
        const HEADERS: [&str; 2] = ["CHECK", "STATE"];
        const GAP: usize = 3;
        // Both columns have only podbeat's own ASCII texts. Foreign text is in the last column.
        let ids = self.checks.iter().map(|check| check.id.len());
        let id = ids.chain([HEADERS[0].len()]).max().unwrap_or_default() + GAP;
        let state = State::Warning.word().len() + GAP;
        let mut text = format!("{:id$}{:state$}SEEN\n", HEADERS[0], HEADERS[1]);
        let mut remedies: Vec<(&str, Vec<&str>)> = Vec::new();
        for check in &self.checks {
            let _ = writeln!(
                text,
                "{:id$}{:state$}{}",
                check.id,
                check.state.word(),
                one_line(&check.seen)
            );
            let Some(remedy) = &check.remedy else {
                continue;
            };
            match remedies.iter_mut().find(|(known, _)| known == remedy) {
                Some((_, ids)) => ids.push(&check.id),
                None => remedies.push((remedy, vec![&check.id])),
            }
        }
        for (remedy, ids) in remedies {
            let _ = write!(text, "\n{}:\n", ids.join(", "));
            for line in remedy.lines() {
                text.extend(inert(line));
                text.push('\n');
            }
        }
        let count = |state| {
            self.checks
                .iter()
                .filter(|check| check.state == state)
                .count()
        };
        let counts: Vec<String> = [State::Ok, State::Warning, State::Failed, State::Skipped]
            .into_iter()
            .filter_map(|state| match count(state) {
                0 => None,
                count => Some(format!("{count} {}", state.word())),
            })
            .collect();
        let _ = write!(
            text,
            "\n{} checks: {}\n",
            self.checks.len(),
            counts.join(", ")
        );
        text
    }

    /// Formats one JSON object on one line.
    pub fn json(&self) -> String {
        // Cannot fail: there are only texts, and a Boolean.
        let mut text = escaped(&serde_json::to_string(self).unwrap_or_default());
        text.push('\n');
        text
    }

    /// Formats the same content as YAML, without a library, because the image has none. A JSON
    /// string is also a YAML string.
    pub fn yaml(&self) -> String {
        let quoted = |text: &str| escaped(&serde_json::to_string(text).unwrap_or_default());
        let mut text = String::from("checks:\n");
        for check in &self.checks {
            let remedy = check
                .remedy
                .as_deref()
                .map_or_else(|| "null".to_owned(), quoted);
            let (id, state, seen) = (quoted(&check.id), check.state.word(), quoted(&check.seen));
            text += &format!("- id: {id}\n  state: {state}\n  seen: {seen}\n  remedy: {remedy}\n");
        }
        text + if self.ok { "ok: true\n" } else { "ok: false\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::acts;

    fn findings() -> Findings {
        Findings::new(vec![
            Finding::ok("service.tcp", "10.0.0.1:443"),
            Finding::failed(
                "kubernetes.get",
                "not allowed",
                "apply:\nkind: Role\n---\nkind: X\n",
            ),
            Finding::failed(
                "kubernetes.list",
                "not allowed",
                "apply:\nkind: Role\n---\nkind: X\n",
            ),
            Finding::warning("token.expiry", "soon", "a new one"),
            Finding::because("service.run", "service.tls"),
        ])
    }

    #[test]
    fn a_table_with_each_remedy_once_below_it() {
        assert_eq!(
            findings().table(),
            "CHECK             STATE     SEEN\n\
             service.tcp       ok        10.0.0.1:443\n\
             kubernetes.get    failed    not allowed\n\
             kubernetes.list   failed    not allowed\n\
             token.expiry      warning   soon\n\
             service.run       skipped   because of service.tls\n\
             \n\
             kubernetes.get, kubernetes.list:\n\
             apply:\nkind: Role\n---\nkind: X\n\
             \n\
             token.expiry:\n\
             a new one\n\
             \n\
             5 checks: 1 ok, 1 warning, 2 failed, 1 skipped\n"
        );
    }

    #[test]
    fn json_with_the_names_that_are_documented() {
        let json: serde_json::Value = serde_json::from_str(&findings().json()).expect("JSON");
        assert_eq!(json["ok"], false);
        assert_eq!(
            json["checks"][3],
            serde_json::json!({"id": "token.expiry", "state": "warning", "seen": "soon", "remedy": "a new one"})
        );
        assert!(json["checks"][0]["remedy"].is_null());
        assert!(
            Findings::new(vec![Finding::warning("a", "b", "c")]).ok,
            "warnings are allowed"
        );
    }

    #[test]
    fn yaml_says_what_json_says() {
        let json: serde_json::Value = serde_json::from_str(&findings().json()).expect("JSON");
        let yaml: serde_json::Value = serde_saphyr::from_str(&findings().yaml()).expect("YAML");
        assert_eq!(yaml, json);
    }

    #[test]
    fn nothing_that_others_say_does_anything_on_a_terminal() {
        let finding = Finding::failed(
            "service.tls",
            format!("CN=a\x1b[2J\n{}", "x".repeat(1000)),
            "is it \u{202e}right?\nkind: Role\r\n",
        );
        assert!(finding.seen.ends_with("x…") && finding.seen.chars().count() == LONGEST + 1);
        let findings = Findings::new(vec![finding]);
        let table = findings.table();
        assert!(table.contains("CN=a\u{fffd}[2J\u{fffd}x"), "{table}");
        assert!(
            table.contains("\nis it \u{fffd}right?\nkind: Role\n"),
            "{table}"
        );
        let json = findings.json();
        assert!(!json.contains(|c| acts(c) && c != '\n'), "{json:?}");
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let yaml = findings.yaml();
        assert!(!yaml.contains(|c| acts(c) && c != '\n'), "{yaml:?}");
        let same: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!(same, read);
        assert_eq!(
            read["checks"][0]["remedy"],
            "is it \u{202e}right?\nkind: Role"
        );
    }
}
