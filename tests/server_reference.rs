//! Generates docs/server-reference.md from the tables of podbeat-server. `just docs` writes it. Every
//! command that podbeat-server's help and its first start show is valid.

use std::path::Path;

use podbeat_server::server::welcome;
use podbeat_server::telemetry::messages::{FIELDS, Message};
use podbeat_server::telemetry::metrics::METRICS;

use crate::harness::reference::{fields, messages, metrics, podbeat, server, settings};
use crate::harness::repository::{is_up_to_date, read};

const BEGINNING: &str = "\
# podbeat-server reference

This page lists the settings, metrics, log messages and commands of podbeat-server. `just docs` generates it from the tables in
`crates/server/src`; a test compares. [server.md](server.md) explains how to install and operate the server.

## Settings

Each setting is an environment variable and a flag. The flag takes precedence. podbeat-server treats an empty value, or a value of
only white space, as unset. Write durations as `500ms`, `30s`, `2m` or `90d`. A boolean is `true` or `false`. podbeat-server reports
all invalid settings at once, by name, with exit code 64. It warns about unknown variables that begin with `PODBEAT_SERVER_`, except
those that the kubelet sets for a Service named `podbeat-server`.

";

const METRICS_BEGIN: &str = "
`token` and `backup` use only `PODBEAT_SERVER_DATA`. `check` uses all settings. \"In a pod\" means that `KUBERNETES_SERVICE_HOST` is
set.

## Metrics

`/metrics` on `PODBEAT_SERVER_ADMIN_LISTEN` is OpenMetrics 1.0 text. Counters begin at 0 when the process starts, and series of
requests appear with the first request of their kind. [server.md](server.md#alerts) has the alerts.

";

const LOGS_BEGIN: &str = "
## Log messages

podbeat-server logs to standard error: JSON in a pod, text elsewhere. It logs these messages at info and above, and each request at
debug. The form of the lines, and how repeated failures are logged, are those of podbeat: see [logs.md](logs.md). An error that ends
the server is plain text. A field in parentheses is present only if it has a value.

";

const COMMANDS_BEGIN: &str = "
## Commands

The `--help` of every command:
";

fn document() -> String {
    let mut text = BEGINNING.to_owned();
    settings(&mut text, &podbeat_server::settings::all());
    text.push_str(METRICS_BEGIN);
    metrics(&mut text, METRICS);
    text.push_str(LOGS_BEGIN);
    messages(&mut text, Message::ALL);
    fields(&mut text, FIELDS, Message::ALL);
    text.push_str(COMMANDS_BEGIN);
    server().helps(&mut text, "###");
    text
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/server-reference.md", &document());
}

#[test]
fn every_command_has_valid_examples() {
    server().examples_are_valid(|called, typed| typed.starts_with(called));
}

/// The commands that users copy from the first start, and from the pages for a first try.
#[test]
fn the_first_commands_are_valid() {
    let shown = [
        welcome(Path::new("podbeat.db"), "http://127.0.0.1:8080", "pbt_x").replace("\n  ", "\n$ "),
        read("README.md"),
        read("docs/server.md"),
    ];
    for text in shown {
        let mut found = 0;
        for line in text.lines() {
            let Some(typed) = line.trim().strip_prefix("$ ") else {
                continue;
            };
            // Without the comment, and with the values of the variables of the shell.
            let typed = typed.split(" #").next().unwrap_or_default();
            let typed = typed.replace("run=$(", "").replace("$run", "trn.1");
            if typed.starts_with("podbeat runs ") {
                found += podbeat().check_line(&typed).len();
            }
            if typed.starts_with("podbeat-server ") {
                found += server().check_line(&typed).len();
            }
        }
        assert!(found >= 3, "{found}: {text}");
    }
}
