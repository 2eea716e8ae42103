//! Prints results as tables, JSON, YAML or IDs.

use std::io::{self, Write};

use jiff::Timestamp;
use podbeat_interface::terminal::{acts, escaped, one_line};
use podbeat_task_runs::model::{DateTime, TaskRun, TaskRunStatus, TaskRunSummary};
use serde::Serialize;
use serde_json::Value;

use super::command::Format;
use crate::show::age::age;
use crate::show::table::{Table, cell};

/// How many rows to collect before printing, so that the columns fit the whole first page. The
/// largest page has as many.
const ROWS: usize = 1000;

const NARROW: &[&str] = &["ID", "NAME", "STATUS", "AGE"];
const WIDE: &[&str] = &[
    "ID",
    "NAME",
    "STATUS",
    "AGE",
    "MODIFIED",
    "VERSION",
    "CREATED BY",
    "TYPE",
    "SIZE",
    "TIER",
    "DETAILS",
];

/// One level of indentation in JSON, as in kubectl's output.
const JSON_INDENT: &str = "    ";

/// How many results there will be. It determines what surrounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One result, printed alone.
    One,
    /// Several results that belong together: the `items` of one document.
    Many,
    /// Several results, each a document of its own.
    Stream,
}

/// The content of a table's row for a task run.
#[derive(Debug, Default)]
pub(super) struct Told<'run> {
    id: Option<&'run str>,
    name: Option<&'run str>,
    status: Option<&'run TaskRunStatus>,
    created: Option<&'run DateTime>,
    modified: Option<&'run DateTime>,
    version: Option<&'run str>,
    created_by: Option<&'run str>,
    r#type: Option<&'run str>,
    size: Option<&'run str>,
    tier: Option<&'run str>,
    details: Option<&'run str>,
}

/// A run in the service's answer. It is shown without secrets, as a row or complete.
pub(super) trait Shown: Serialize {
    fn told(&self) -> Told<'_>;
}

/// Both types have these members.
macro_rules! shown {
    ($run:ty) => {
        impl Shown for $run {
            fn told(&self) -> Told<'_> {
                let version = self.task_version_summary.as_ref();
                Told {
                    id: self.id.as_deref(),
                    name: self.name.as_deref(),
                    status: self.status.as_ref(),
                    created: self.time_created.as_ref(),
                    modified: self.time_modified.as_ref(),
                    version: version.and_then(|version| version.version.as_deref()),
                    created_by: self.created_by.as_deref(),
                    r#type: self.type_of_resource.as_deref(),
                    size: self.size_of_resource.as_deref(),
                    tier: self.tier_of_resource.as_deref(),
                    details: self.status_details.as_deref(),
                }
            }
        }
    };
}

shown!(TaskRun);
shown!(TaskRunSummary);

/// Prints results one after the other.
#[derive(Debug)]
pub(super) struct Printer {
    format: Option<Format>,
    shape: Shape,
    table: Table,
    rows: Vec<Vec<String>>,
    shown: usize,
}

impl Printer {
    pub(super) fn new(format: Option<Format>, shape: Shape, with_headers: bool) -> Self {
        let headers = if format == Some(Format::Wide) {
            WIDE
        } else {
            NARROW
        };
        Self {
            format,
            shape,
            table: Table::new(headers, with_headers),
            rows: Vec::new(),
            shown: 0,
        }
    }

    /// Prints a task run whose secrets are already removed. In a stream, it appears at once.
    pub(super) fn run(
        &mut self,
        out: &mut dyn Write,
        run: &impl Shown,
        now: Timestamp,
    ) -> io::Result<()> {
        match self.format {
            None | Some(Format::Wide) => {
                let is_wide = self.format.is_some();
                self.rows.push(row(&run.told(), is_wide, now));
                if self.rows.len() >= ROWS || self.shape == Shape::Stream {
                    self.write_rows(out)?;
                }
            }
            Some(Format::Name) => {
                let id = run.told().id.unwrap_or_default();
                writeln!(out, "{}", one_line(id))?;
            }
            Some(Format::Json | Format::Yaml) => self.write_document(out, run)?,
        }
        self.shown += 1;
        if self.shape == Shape::Stream {
            out.flush()?;
        }
        Ok(())
    }

    /// Prints any other document as JSON or YAML. The other formats print nothing.
    pub(super) fn document(
        &mut self,
        out: &mut dyn Write,
        document: &impl Serialize,
    ) -> io::Result<()> {
        self.write_document(out, document)?;
        self.shown += 1;
        Ok(())
    }

    fn write_document(&mut self, out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
        let text = match self.format {
            Some(Format::Json) => match self.shape {
                Shape::One => json(document, "")? + "\n",
                Shape::Stream => escaped(&serde_json::to_string(document)?) + "\n",
                Shape::Many => {
                    let before = if self.shown == 0 {
                        "{\n    \"items\": [\n"
                    } else {
                        ",\n"
                    };
                    let indent = JSON_INDENT.repeat(2);
                    format!("{before}{indent}{}", json(document, &indent)?)
                }
            },
            Some(Format::Yaml) => {
                let text = yaml(document)?;
                match self.shape {
                    Shape::One => text,
                    Shape::Stream if self.shown == 0 => text,
                    Shape::Stream => format!("---\n{text}"),
                    Shape::Many => {
                        let before = if self.shown == 0 { "items:\n" } else { "" };
                        format!("{before}{}", item(&text))
                    }
                }
            }
            None | Some(Format::Wide | Format::Name) => return Ok(()),
        };
        out.write_all(text.as_bytes())
    }

    /// Prints the collected rows, and ends the document.
    pub(super) fn end(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.write_rows(out)?;
        if self.shape == Shape::Many {
            match (self.format, self.shown) {
                (Some(Format::Json), 0) => out.write_all(b"{\n    \"items\": []\n}\n")?,
                (Some(Format::Json), _) => out.write_all(b"\n    ]\n}\n")?,
                (Some(Format::Yaml), 0) => out.write_all(b"items: []\n")?,
                _ => {}
            }
        }
        out.flush()
    }

    fn write_rows(&mut self, out: &mut dyn Write) -> io::Result<()> {
        // Do not print headers without rows.
        if self.rows.is_empty() {
            return Ok(());
        }
        let text = self.table.rows(&self.rows);
        self.rows.clear();
        out.write_all(text.as_bytes())
    }
}

fn row(run: &Told<'_>, is_wide: bool, now: Timestamp) -> Vec<String> {
    let ago = |time: Option<&DateTime>| match time.map(DateTime::timestamp) {
        None => cell(None),
        Some(None) => "<unknown>".to_owned(),
        Some(Some(then)) => age(then, now),
    };
    let mut row = vec![
        cell(run.id),
        cell(run.name),
        cell(run.status.map(TaskRunStatus::as_str)),
        ago(run.created),
    ];
    if is_wide {
        row.push(ago(run.modified));
        row.extend(
            [
                run.version,
                run.created_by,
                run.r#type,
                run.size,
                run.tier,
                run.details,
            ]
            .map(cell),
        );
    }
    row
}

/// JSON on several lines. Each line after the first begins with `indent`.
fn json(document: &impl Serialize, indent: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(JSON_INDENT.as_bytes());
    document.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, formatter,
    ))?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    // JSON strings contain no line feeds.
    Ok(escaped(&text).replace('\n', &format!("\n{indent}")))
}

fn yaml(document: &impl Serialize) -> io::Result<String> {
    // The members are in the order of the contract, as in the file of a request. Texts are not
    // folded, because readers would have to unfold them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(document, options).map_err(io::Error::other)?;
    let lines = text
        .split_inclusive('\n')
        .map(|line| match line.contains(acts_in_yaml) {
            true => requoted(line),
            false => line.to_owned(),
        });
    Ok(lines.collect())
}

fn acts_in_yaml(c: char) -> bool {
    acts(c) && c != '\n'
}

/// A line of YAML in which each text with characters that a terminal acts on has double quotes, so
/// that it can be escaped as in JSON. The serializer does this only for control characters.
///
/// A line consists of indentation and indicators, then a key, a value or both. No text takes
/// several lines.
fn requoted(line: &str) -> String {
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = line.trim_end_matches('\n');
    while let Some(after) = ["  ", " ", "- ", "? ", ": "]
        .iter()
        .find_map(|it| rest.strip_prefix(it))
    {
        out += rest.strip_suffix(after).unwrap_or_default();
        rest = after;
    }
    loop {
        let (scalar, after) = rest.split_at_checked(scalar(rest)).unwrap_or((rest, ""));
        let single = scalar
            .strip_prefix('\'')
            .and_then(|text| text.strip_suffix('\''));
        out += &match single {
            _ if !scalar.contains(acts_in_yaml) => scalar.to_owned(),
            _ if scalar.starts_with('"') => escaped(scalar),
            Some(text) => escaped(&Value::from(text.replace("''", "'")).to_string()),
            None => escaped(&Value::from(scalar).to_string()),
        };
        let Some(value) = after.strip_prefix(": ") else {
            return out + after + "\n";
        };
        out += ": ";
        rest = value;
    }
}

/// The length of the first scalar of the text, in bytes.
fn scalar(text: &str) -> usize {
    let mut before = None;
    let closing = |(at, c): (usize, char)| {
        // In double quotes, a backslash escapes a quote.
        let escapes = before == Some('\\');
        before = Some(c).filter(|c| *c != '\\' || !escapes);
        (c == '"' && !escapes && at > 0).then_some(at + 1)
    };
    let end = match text.chars().next() {
        Some('"') => text.char_indices().find_map(closing),
        // In single quotes, another quote escapes a quote.
        Some('\'') => {
            let quotes = text.char_indices().skip(1).filter(|(_, c)| *c == '\'');
            let mut quotes = quotes.map(|(at, _)| at).peekable();
            loop {
                match quotes.next() {
                    Some(at) if quotes.peek() == Some(&(at + 1)) => drop(quotes.next()),
                    end => break end.map(|at| at + 1),
                }
            }
        }
        _ => text
            .find(": ")
            .or_else(|| text.strip_suffix(':').map(str::len)),
    };
    end.unwrap_or(text.len())
}

/// A YAML document as an item of a list.
fn item(text: &str) -> String {
    let mut item = String::new();
    for (nth, line) in text.lines().enumerate() {
        item += if nth == 0 { "- " } else { "  " };
        item += line;
        item.push('\n');
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_lab::hostile;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(id: &str, name: &str) -> TaskRunSummary {
        serde_json::from_value(json!({
            "id": id, "name": name, "status": "Running", "timeCreated": "2026-11-24T00:00:00Z", "timeModified": "yesterday",
            "statusDetails": "two\nlines: \u{9b}31m and \u{202e}more", "acl": [],
            "taskVersionSummary": {"version": "1.0"}
        }))
        .expect("a run")
    }

    fn shown(format: Option<Format>, shape: Shape, runs: &[TaskRunSummary]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(format, shape, true);
        for run in runs {
            let now = "2026-11-24T00:05:07Z".parse().expect("a time");
            printer.run(&mut out, run, now).expect("shown");
        }
        printer.end(&mut out).expect("ended");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn tables() {
        let runs = [run("trn.1", "a"), TaskRunSummary::default()];
        assert_eq!(
            shown(None, Shape::Many, &runs),
            "ID       NAME     STATUS    AGE\n\
             trn.1    a        Running   5m7s\n\
             <none>   <none>   <none>    <none>\n"
        );
        let wide = shown(Some(Format::Wide), Shape::One, &runs[..1]);
        assert_eq!(
            wide,
            "ID      NAME   STATUS    AGE    MODIFIED    VERSION   CREATED BY   TYPE     SIZE     TIER     DETAILS\n\
             trn.1   a      Running   5m7s   <unknown>   1.0       <none>       <none>   <none>   <none>   \
             two\u{fffd}lines: \u{fffd}31m and \u{fffd}more\n"
        );
        assert_eq!(shown(None, Shape::Many, &[]), "");
        let many: Vec<_> = (0..2500)
            .map(|nth| run(&format!("trn.{nth}"), "a"))
            .collect();
        assert_eq!(shown(None, Shape::Many, &many).lines().count(), 2501);
    }

    #[test]
    fn json_and_yaml_contain_the_services_answer() {
        let runs = [run("trn.1", "on"), run("trn.2", "b: c #d")];
        let expected: Vec<Value> = runs
            .iter()
            .map(|run| serde_json::to_value(run).expect("JSON"))
            .collect();
        for count in 0..=2 {
            let json = shown(Some(Format::Json), Shape::Many, &runs[..count]);
            let read: Value = serde_json::from_str(&json).expect(&json);
            assert_eq!(read, json!({"items": expected[..count]}));
            let yaml = shown(Some(Format::Yaml), Shape::Many, &runs[..count]);
            let read: Value = serde_saphyr::from_str(&yaml).expect(&yaml);
            assert_eq!(read, json!({"items": expected[..count]}), "{yaml}");
        }
        let json = shown(Some(Format::Json), Shape::One, &runs[..1]);
        assert!(
            json.starts_with("{\n    \"acl\": [],\n    \"id\""),
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&json).expect("JSON"),
            expected[0]
        );
        let yaml = shown(Some(Format::Yaml), Shape::One, &runs[..1]);
        assert_eq!(
            serde_saphyr::from_str::<Value>(&yaml).expect("YAML"),
            expected[0]
        );
        for text in [&json, &yaml] {
            assert!(!text.contains(acts_in_yaml), "{text:?}");
        }
    }

    /// A key or a value: hostile, quoted in one of YAML's ways, or both.
    fn scalar_text() -> impl Strategy<Value = String> {
        let tricky = "[a-c:#'\"\\\\ \u{202e}\u{2066}{}\\[\\],&*!|>%@?~-]{0,10}";
        prop_oneof![
            2 => hostile::TEXT,
            2 => tricky,
            1 => "(yes|null|1|1e3|\u{200f}|-|- a|<<|a: b|a:|'a'|x{1030}\u{202e}?)",
        ]
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            4 => scalar_text().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        let node = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(scalar_text(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        prop::collection::btree_map(scalar_text(), node, 1..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn documents_have_no_control_characters_and_are_read_back(document in document()) {
            let yaml = yaml(&document).expect("YAML");
            prop_assert!(!yaml.contains(acts_in_yaml), "{yaml:?}");
            let read: Value = serde_saphyr::from_str(&yaml).expect(&yaml);
            prop_assert_eq!(&read, &document, "{}", yaml);
            let within: Value = serde_saphyr::from_str(&format!("items:\n{}", item(&yaml))).expect(&yaml);
            prop_assert_eq!(within, json!({"items": [document]}));
        }

        #[test]
        fn no_output_format_passes_on_control_characters(name in hostile::TEXT, details in hostile::TEXT) {
            let run: TaskRunSummary = serde_json::from_value(json!({
                "id": details, "name": name, "status": name, "statusDetails": details, "timeCreated": name,
                "acl": [details], "createdBy": name,
            })).expect("a run");
            let expected = serde_json::to_value(&run).expect("JSON");
            for format in [None, Some(Format::Wide), Some(Format::Name), Some(Format::Json), Some(Format::Yaml)] {
                for shape in [Shape::One, Shape::Many, Shape::Stream] {
                    let shown = shown(format, shape, std::slice::from_ref(&run));
                    prop_assert!(!shown.contains(acts_in_yaml), "{format:?} {shape:?}: {shown:?}");
                    let read: Value = match format {
                        Some(Format::Json) => serde_json::from_str(&shown).expect("JSON"),
                        Some(Format::Yaml) => serde_saphyr::from_str(&shown).expect("YAML"),
                        None | Some(Format::Wide | Format::Name) => continue,
                    };
                    let read = if shape == Shape::Many { read["items"][0].clone() } else { read };
                    prop_assert_eq!(&read, &expected);
                }
            }
        }
    }

    #[test]
    fn a_stream_is_a_document_after_the_other() {
        let runs = [run("trn.1", "a"), run("trn.2", "b")];
        let json = shown(Some(Format::Json), Shape::Stream, &runs);
        assert_eq!(json.lines().count(), 2);
        for line in json.lines() {
            serde_json::from_str::<Value>(line).expect(line);
        }
        let yaml = shown(Some(Format::Yaml), Shape::Stream, &runs);
        assert_eq!(
            serde_saphyr::from_multiple::<Value>(&yaml)
                .expect(&yaml)
                .len(),
            2
        );
        assert_eq!(
            shown(Some(Format::Name), Shape::Stream, &runs),
            "trn.1\ntrn.2\n"
        );
    }
}
