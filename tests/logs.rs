//! Generates docs/logs.md from the table of messages (`just docs` writes it), and compares every log statement in the code with
//! that table. tests/logged compares what the real binary logs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use podbeat::config::SETTINGS;
use podbeat::telemetry::messages::{BEGINS, EVERYWHERE, FIELDS, Field, MESSAGES, field_of};

use crate::harness::repository::{is_up_to_date, sources};

const BEGINNING: &str = "\
# Logs

This page is generated from `src/telemetry/messages.rs` by `just docs`. Tests compare every line that the binary writes, and
every log statement in its code, with the same table.

podbeat logs to standard error: JSON in a pod, text elsewhere. `PODBEAT_LOG_FORMAT` overrides this. At the default level, info,
podbeat logs each important event, and nothing while all goes well: a pod in which nothing happens for a day adds nothing after
its first lines. [troubleshooting.md](troubleshooting.md) says what to do about a message, and
[operations.md](operations.md#alerts) what to do about an alert.

- **JSON** is one flat object per line. Numbers are numbers, times are RFC 3339 in UTC, and fields without a value are absent.
- **Text** is for people: the time of day in UTC, the level, the message, and the fields as `name=value`. It has colours on a
  terminal, unless `NO_COLOR` is set.
- Each event is one line in both formats. podbeat escapes characters from containers, the Kubernetes API or the service that
  would break the line, move a terminal's cursor or change the direction of the text. It truncates long values: a container's
  message after 256 characters, an error after 1024, any value after 32 KiB.
- No line shows a token, a key, a password, or a nonce that the service issued, at any level.
- Errors in the settings are reported before the log starts, as plain text, with exit code 64.

**Repeated failures.** podbeat logs a failure at once, and then each time the number of failures has doubled: `repeats` is the
number since `since`. podbeat also logs at once if the error changes, for up to eight different errors. When the problem is
over, a line has the number of failures (`failures`) and the duration (`lasted_seconds`). A problem that comes and goes counts
as one problem until ten minutes have passed without it, so its lines become less and less frequent. podbeat always logs four
failures in a row.

**Traces.** Each heartbeat request has a W3C `traceparent`. All heartbeats of a process have the same trace ID, which is
`trace_id` in the first line. Each attempt has its own parent ID, which is `span_id` in each line about the attempt (at debug
level, for all attempts). With these IDs you find an attempt in podbeat's log from the service's records, and the service's
records of a pod from podbeat's log. podbeat does not mark the trace as sampled: podbeat records no spans, and ten thousand pods
must not make the service record every heartbeat. A service that samples as its callers ask then keeps no spans of them, but its
log lines still have the IDs. To have the heartbeats of one pod recorded, set `TRACEPARENT`: podbeat then uses that trace and its
sampling flag. podbeat ignores an invalid value with a warning, and does not forward `tracestate`.

## Log levels

`PODBEAT_LOG` is a level, or comma-separated `target=level` pairs. The longest matching target decides.

| `PODBEAT_LOG` | what it shows |
|---|---|
| `info` | the messages below |
| `warn` | the messages that may need action |
| `off` | nothing, not even how podbeat ends |
| `debug` | also each attempt and its answer, each wait before a retry, each dropped heartbeat without container changes, and each renewed token |
| `warn,podbeat::agent::delivery=debug` | warnings, and each request with its answer |
| `info,podbeat::telemetry::admin=off` | everything except the messages of the admin endpoint |
| `info,kube_client=debug,hyper_util=debug` | also the messages of these libraries; `trace` shows the messages of all libraries |

## Messages

A field in parentheses is present only if it has a value.

| level | message | fields | meaning |
|---|---|---|---|
";

fn document() -> String {
    let mut text = BEGINNING.to_owned();
    for message in MESSAGES {
        let always = message.always.iter().map(|name| format!("`{name}`"));
        let sometimes = message.sometimes.iter().map(|name| format!("(`{name}`)"));
        let fields: Vec<String> = always.chain(sometimes).collect();
        writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            message.level,
            message.text,
            fields.join(" "),
            message.meaning
        )
        .expect("a String takes all");
    }
    text.push_str(
        "\n## Fields\n\nEvery line in JSON has these fields:\n\n| field | form | meaning |\n|---|---|---|\n",
    );
    rows(&mut text, EVERYWHERE);
    text.push_str("\nThe messages above have these fields:\n\n| field | form | meaning |\n|---|---|---|\n");
    rows(&mut text, FIELDS);
    writeln!(
        text,
        "\nIn `{BEGINS}`, the settings are texts, in the form of [configuration.md](configuration.md). Exceptions: \
         `job_retry_count` is a number, and `dry_run` is true or false. `PODBEAT_ALLOW_HTTP` has no field, because the URL \
         shows it."
    )
    .expect("a String takes all");
    text
}

fn rows(text: &mut String, fields: &[Field]) {
    for field in fields {
        writeln!(
            text,
            "| `{}` | {} | {} |",
            field.name,
            field.form.name(),
            field.meaning
        )
        .expect("a String takes all");
    }
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/logs.md", &document());
}

#[test]
fn the_tables_name_each_thing_once_and_agree() {
    let texts: BTreeSet<&str> = MESSAGES.iter().map(|message| message.text).collect();
    assert_eq!(texts.len(), MESSAGES.len());
    let named: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    assert!(
        named.windows(2).all(|pair| pair[0] < pair[1]),
        "by name, each once"
    );
    let used: BTreeSet<&str> = MESSAGES
        .iter()
        .flat_map(|message| message.always.iter().chain(message.sometimes).copied())
        .collect();
    assert_eq!(used, named.iter().copied().collect());
    for setting in SETTINGS {
        let field = field_of(setting);
        let begins = MESSAGES
            .iter()
            .find(|message| message.text == BEGINS)
            .expect("it begins");
        assert!(!begins.always.contains(&field.as_str()) && !begins.sometimes.contains(&field.as_str()));
    }
}

/// A place in the code that logs at info or above.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    level: &'static str,
    text: String,
}

/// The level and the message of each call of a macro of tracing, in the code of one file. The message is the last literal of
/// the call that stands alone, not as a field's value.
fn places(code: &str) -> Vec<Place> {
    let mut found = vec![];
    for (level, name) in [("INFO", "info!("), ("WARN", "warn!("), ("ERROR", "error!(")] {
        for (at, _) in code.match_indices(name) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            found.push(Place {
                level,
                text: last_literal(&code[at + name.len()..]),
            });
        }
    }
    found
}

/// The last string literal before the parenthesis that ends the call, unescaped.
fn last_literal(call: &str) -> String {
    let mut depth = 1;
    let mut last = String::new();
    let mut characters = call.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                last.clear();
                while let Some(character) = characters.next() {
                    match character {
                        '"' => break,
                        '\\' => match characters.next() {
                            // A literal over several lines.
                            Some('\n') => {
                                let rest = characters.as_str().trim_start();
                                characters = rest.chars();
                            }
                            escaped => last.extend(escaped),
                        },
                        character => last.push(character),
                    }
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
}

#[test]
fn every_place_that_logs_says_what_the_table_says_and_every_row_has_a_place() {
    let mut said = BTreeSet::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("readable");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        said.extend(places(code));
    }
    let listed: BTreeSet<Place> = MESSAGES
        .iter()
        .map(|message| Place {
            level: match message.level {
                tracing::Level::INFO => "INFO",
                tracing::Level::WARN => "WARN",
                tracing::Level::ERROR => "ERROR",
                _ => panic!("the table is of info and above"),
            },
            text: message.text.to_owned(),
        })
        .collect();
    let unlisted: Vec<&Place> = said.difference(&listed).collect();
    let unsaid: Vec<&Place> = listed.difference(&said).collect();
    assert!(
        unlisted.is_empty() && unsaid.is_empty(),
        "not in src/telemetry/messages.rs: {unlisted:#?}\nin it, and said nowhere: {unsaid:#?}"
    );
}

#[test]
fn the_reader_of_the_code_finds_what_is_said() {
    let code = r#"
        info!("one");
        warn!(error = %Chain(&error), kind = if a { "x" } else { "y" }, "two \"2\"");
        tracing::error!(
            a,
            "three, over \
             two lines"
        );
        debug!("not this"); my_info!("nor this");
    "#;
    let texts: Vec<(&str, String)> = places(code)
        .into_iter()
        .map(|place| (place.level, place.text))
        .collect();
    assert_eq!(
        texts,
        [
            ("INFO", "one".to_owned()),
            ("WARN", "two \"2\"".to_owned()),
            ("ERROR", "three, over two lines".to_owned())
        ]
    );
}
