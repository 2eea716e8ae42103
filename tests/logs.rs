//! Generates docs/logs.md from the definitions of the messages (`just docs` writes it).
//! tests/logged compares the log of the real binary with the same definitions.

use std::collections::BTreeSet;
use std::fmt::Write;

use podbeat::config::SETTINGS;
use podbeat_interface::messages::{FIELDS, Id, Message, Presence, field_of};

use crate::harness::reference::{fields, messages};
use crate::harness::repository::is_up_to_date;

const BEGINNING: &str = "\
# Logs

This page lists every message that the agent logs at info and above, with its fields. `just docs` generates it from
`crates/interface/src/messages.rs`, whose definitions also write the log lines. Other commands print plain text instead. Before
version 1.0, messages and fields may change; the changelog says so.

podbeat logs to standard error: JSON in a pod, text elsewhere. `PODBEAT_LOG_FORMAT` overrides this. At the default level, info,
podbeat logs each important event, and nothing while all goes well: a pod in which nothing happens for a day adds nothing after
its first lines. [troubleshooting.md](troubleshooting.md) says what to do about a message, and
[operations.md](operations.md#alerts) what to do about an alert.

- **JSON** is one flat object per line. Numbers are numbers, times are RFC 3339 in UTC, and fields without a value are absent.
- **Text** is for people: the time of day in UTC, the level, the message, and the fields as `name=value`. It has colors on a
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
level, for all attempts). Use these IDs in both directions: to find an attempt of the service's records in podbeat's log,
and a pod's requests in the service's records. podbeat does not mark the trace as sampled: podbeat records no spans, and ten thousand pods
must not make the service record every heartbeat. A service that follows its callers' sampling keeps no spans of heartbeats, but its log lines
still have the IDs. To have the heartbeats of one pod recorded, set `TRACEPARENT`: podbeat then uses that trace and its
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

";

fn document() -> String {
    let mut text = BEGINNING.to_owned();
    messages(&mut text, Message::ALL);
    text.push_str("\n## Fields\n");
    fields(&mut text, FIELDS, Message::ALL);
    writeln!(
        text,
        "\nIn `podbeat started`, the settings are texts, in the form of [configuration.md](configuration.md). Exceptions: \
         `job_retry_count` is a number, and `dry_run` is true or false. `PODBEAT_ALLOW_HTTP` has no field, because the URL \
         shows it."
    )
    .expect("a String takes all");
    text
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/logs.md", &document());
}

#[test]
fn every_field_has_one_meaning_and_every_setting_a_field() {
    let named: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
    assert!(
        named.windows(2).all(|pair| pair[0] < pair[1]),
        "by name, each once"
    );
    let used: BTreeSet<&str> = Message::ALL
        .iter()
        .flat_map(|message| message.fields)
        .filter(|field| field.presence != Presence::Setting)
        .map(|field| field.name)
        .collect();
    assert_eq!(used, named.iter().copied().collect());
    let shown: BTreeSet<(Id, &str)> = Message::ALL
        .iter()
        .flat_map(|message| message.fields.iter().map(|field| (message.id, field)))
        .filter(|(_, field)| field.presence == Presence::Setting)
        .map(|(id, field)| (id, field.name))
        .collect();
    // The service's URL shows whether plain HTTP is allowed.
    let settings = SETTINGS
        .iter()
        .filter(|setting| setting.variable != "PODBEAT_ALLOW_HTTP");
    let settings: Vec<String> = settings.map(field_of).collect();
    let expected = settings.iter().map(|name| (Id::Started, name.as_str()));
    assert_eq!(shown, expected.collect());
}
