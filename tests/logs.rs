//! docs/logs.md is made from the table of messages, and every place in the code that logs is held against that table. `just
//! docs` writes the page anew. What the real binary logs is held against it in tests/logged.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use podbeat::config::SETTINGS;
use podbeat::telemetry::messages::{BEGINS, EVERYWHERE, FIELDS, Field, MESSAGES, field_of};

use crate::harness::repository::{is_up_to_date, sources};

const BEGINNING: &str = "\
# Logs

This page is generated from `src/telemetry/messages.rs` by `just docs`; tests hold every line that the binary writes, and every
place in its code that logs, against the same table.

podbeat logs to standard error: JSON in a pod, text elsewhere, or as `PODBEAT_LOG_FORMAT` says. At info, the default, there is a
line for each thing that matters, and none for what goes on as it should: a pod in which nothing happens for a day logs nothing
after its first lines. What to do about a line is in the [README](../README.md#debug) and, by alert, in
[operations.md](operations.md#alerts).

- **JSON** is one flat object a line. Numbers are numbers, times are RFC 3339 in UTC, and a field without a value is left out.
- **Text** is for eyes: the time of day in UTC, the level, the message, and the fields as `name=value`. It has colours on a
  terminal, unless `NO_COLOR` is set to anything.
- One event is one line in both. Whatever containers, the Kubernetes API or the service say is escaped where it would end a line,
  move a terminal's cursor or turn the direction of a text, and cut where it is too long (a container's message after 256
  characters, an error after 1024, any value after 32 KiB).
- No line shows a token, a key, a password, or the nonce that the service issued, at any level.
- What is wrong with the settings is told before there is a log, as plain text, with exit code 64.

**Troubles that go on** are told at once, and then each time their number has doubled: `repeats` is how many there were since
`since`. Another kind of failure in the same trouble is told at once, too, up to eight of them. When it is over, a line says how
many there were (`failures`) and how long it took (`lasted_seconds`). A trouble that comes and goes is one trouble until ten
minutes have passed without it, so that its lines become ever rarer; but four failures in a row are always told.

**Traces.** Each request for a heartbeat has a W3C `traceparent`. Its trace is one for all heartbeats of a process and stands in
the first line as `trace_id`; its parent id is one for each attempt, in `span_id` of each line about one (at debug, all of them).
So whoever has a record of the service finds the attempt, and whoever has podbeat's log finds the service's records of the whole
pod by one id. The trace isn't marked as sampled, because podbeat records no spans, and ten thousand pods mustn't make the
service record every heartbeat: a service that samples by its callers' word then keeps no spans of them, and its log lines have
the ids all the same. `TRACEPARENT` puts the heartbeats into a given trace, with its mark: that is how to have one pod's
heartbeats recorded. One that isn't valid is ignored with a warning. A `tracestate` isn't passed on.

## What is logged

`PODBEAT_LOG` is a level, or `target=level` pairs with commas; the longest target that fits decides.

| `PODBEAT_LOG` | what it shows |
|---|---|
| `info` | the messages below |
| `warn` | those of them that somebody may have to act on |
| `off` | nothing, not even how it ends |
| `debug` | each attempt and its answer, each retry's wait, each heartbeat that was dropped and lost no news, each renewed token |
| `warn,podbeat::agent::delivery=debug` | warnings, and what is sent and answered |
| `info,podbeat::telemetry::admin=off` | all but the admin endpoint's |
| `info,kube_client=debug,hyper_util=debug` | also what these libraries say; at `trace` they are all heard |

## Messages

Fields in parentheses are there if there is something to say.

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
        "\n## Fields\n\nOf every line, in JSON:\n\n| field | form | what it says |\n|---|---|---|\n",
    );
    rows(&mut text, EVERYWHERE);
    text.push_str("\nOf the messages above:\n\n| field | form | what it says |\n|---|---|---|\n");
    rows(&mut text, FIELDS);
    writeln!(
        text,
        "\nThe settings in `{BEGINS}` are texts as [configuration.md](configuration.md) writes them, but for `job_retry_count` (a \
         number) and `dry_run` (true or false). `PODBEAT_ALLOW_HTTP` has no field: it shows in the URL."
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
