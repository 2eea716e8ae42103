//! Imports go down only. This test reads the paths that each file names and fails when one goes up.
//!
//! main → cli → agent → {pod::watch, task_runs::client, telemetry} → heartbeat → {pod::status, task_runs::model, marker}
//! main → exec → marker
//! main → cli → {runs, reap} → service → task_runs::client; reap → {pod::listed, heartbeat::request, journal}
//! main → cli → runs → {task_runs::client, heartbeat::backoff, show}
//! main → cli → observe → {pod::watch, heartbeat, show}
//! main → cli → check → {pod::ask, task_runs::client, journal}

use std::fs;

use crate::harness::repository::{root, sources};

/// A room: the files whose path begins so, what they must not name, and why.
struct Rule {
    room: &'static str,
    /// Files, and folders (with a slash at their end), of which the rule is not.
    but_not: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

/// Who speaks to the API server, and how it is reached.
const WITH_KUBES_CLIENT: &[&str] = &[
    "pod/answer.rs",
    "pod/watch.rs",
    "pod/watch/",
    "pod/listed.rs",
    "pod/ask.rs",
    "pod/transport.rs",
    "pod/kubeconfig.rs",
];

const RULES: &[Rule] = &[
    Rule {
        room: "heartbeat/",
        // The simulation plays the shell's part, with the shell's own credentials.
        but_not: &["heartbeat/simulation/run.rs"],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::exec",
            "crate::exit",
            "crate::telemetry",
            "crate::pod::watch",
            "crate::task_runs::client",
            "crate::task_runs::credentials",
            "crate::task_runs::error",
        ],
        why: "the core is below the shell",
    },
    Rule {
        room: "heartbeat/",
        // The driver of the simulation is a test: it times itself and reads what it is asked for.
        but_not: &["heartbeat/simulation/mod.rs"],
        forbidden: &[
            "tokio::",
            "kube::",
            "reqwest::",
            "tracing::",
            "std::fs",
            "std::net",
            "std::env",
            "std::thread",
            "Instant",
            "SystemTime",
            "::now(",
            "Rng::new(",
        ],
        why: "the core does no I/O, reads no clock and draws no random number that wasn't handed in",
    },
    Rule {
        room: "pod/",
        but_not: WITH_KUBES_CLIENT,
        forbidden: &["crate::", "tokio::", "reqwest::", "tracing::"],
        why: "what Kubernetes says is read without knowing who wants it",
    },
    Rule {
        // And what goes by the same client.
        room: "pod/",
        but_not: &["pod/captured.rs"],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::telemetry",
            "crate::task_runs",
        ],
        why: "the watch is below the shell and beside the service's client",
    },
    Rule {
        room: "exec/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::heartbeat",
            "crate::pod",
            "crate::task_runs",
            "crate::telemetry",
            "tokio::",
            "tracing::",
        ],
        why: "in the task's container podbeat runs a command and knows of nothing else",
    },
    Rule {
        room: "marker.rs",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::config",
            "crate::exec",
            "crate::heartbeat",
            "crate::pod",
            "crate::regular_file",
            "crate::task_runs",
            "crate::telemetry",
            "std::fs",
            "std::io",
            "std::path",
            "::now(",
            "tracing::",
            "tokio::",
        ],
        why: "the marker's form is known without files, clocks, or who reads and writes it",
    },
    Rule {
        room: "indexed.rs",
        but_not: &[],
        forbidden: &["crate::", "std::", "::now(", "tracing::", "tokio::"],
        why: "which run a pod executes is known from two texts",
    },
    Rule {
        room: "",
        but_not: WITH_KUBES_CLIENT,
        forbidden: &["kube::"],
        why: "nobody else imports kube's client",
    },
    Rule {
        room: "",
        but_not: &[
            "http_client/",
            "pod/transport.rs",
            "pod/kubeconfig.rs",
            "task_runs/",
            "check/",
        ],
        forbidden: &["crate::http_client", "reqwest::"],
        why: "HTTP to the API server goes by pod/transport.rs, to the service by task_runs/",
    },
    Rule {
        room: "route.rs",
        but_not: &[],
        forbidden: &["crate::", "tokio::", "std::env", "std::fs", "::now(", "tracing::"],
        why: "which proxy a client uses is known from two texts",
    },
    Rule {
        room: "http_client/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::check",
            "crate::cli",
            "crate::config",
            "crate::pod",
            "crate::service",
            "crate::task_runs",
            "crate::telemetry",
            "std::env",
            "tracing::",
        ],
        why: "a client has one destination, and doesn't know what is there",
    },
    Rule {
        room: "task_runs/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::exit",
            "crate::heartbeat",
            "crate::pod",
            "crate::runs",
            "crate::telemetry",
        ],
        why: "the service's client could be used on its own",
    },
    Rule {
        room: "telemetry/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::pod",
            "crate::task_runs::client",
            "crate::task_runs::credentials",
            "crate::task_runs::error",
        ],
        why: "telemetry shows what the shell hands to it, and asks nobody",
    },
    Rule {
        room: "explain/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::service",
            "crate::pod::watch",
            "crate::pod::listed",
            "crate::heartbeat::machine",
            "clap",
            "tokio::",
            "reqwest::",
            "std::net",
            "::now(",
        ],
        why: "a story is read, and nobody is asked",
    },
    Rule {
        room: "reap/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::exec",
            "crate::runs",
            "crate::telemetry",
            "crate::heartbeat::machine",
            "clap",
            "std::fs::File",
            "reqwest::",
            "tracing::",
        ],
        why: "pods that ended are judged without an agent",
    },
    Rule {
        room: "reap/verdict.rs",
        but_not: &[],
        forbidden: &[
            "tokio::",
            "std::fs",
            "std::io",
            "::now(",
            "crate::service",
            "crate::config",
        ],
        why: "a verdict is pure: pods in, verdicts out",
    },
    Rule {
        room: "check/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::exec",
            "crate::reap",
            "crate::runs",
            "crate::telemetry",
            "crate::task_runs::model::heartbeat",
            "HeartbeatTaskRunRequest",
            "clap",
            "tracing::",
        ],
        why: "a check looks, and changes nothing: it has no agent, and no heartbeat to send",
    },
    Rule {
        room: "check/",
        but_not: &[
            "check/mod.rs",
            "check/files.rs",
            "check/kubernetes.rs",
            "check/service.rs",
            "check/tls.rs",
        ],
        forbidden: &[
            "tokio::",
            "std::fs",
            "std::io",
            "::now(",
            "rustls::",
            "crate::service",
        ],
        why: "what was seen is judged without looking again: certificate, clock, deployed, finding and token are pure",
    },
    Rule {
        room: "journal.rs",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::reap",
            "tokio::",
            "tracing::",
        ],
        why: "the journal's form is known without who writes and reads it",
    },
    Rule {
        room: "runs/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::exec",
            "crate::pod",
            "crate::telemetry",
            "clap",
            "std::net",
            "reqwest::",
        ],
        why: "what a terminal asks of the service needs neither a pod nor the command line's form",
    },
    Rule {
        room: "observe/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::exec",
            "crate::runs",
            "crate::telemetry",
            "crate::task_runs::client",
            "crate::task_runs::credentials",
            "clap",
            "std::net",
            "reqwest::",
        ],
        why: "an observer sends nothing, and decides no more than how it is shown",
    },
    Rule {
        room: "show/",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::heartbeat",
            "crate::observe",
            "crate::pod",
            "crate::runs",
            "crate::task_runs",
            "std::io",
            "std::fs",
            "::now(",
            "tokio::",
        ],
        why: "how text is shown depends on nothing but the text",
    },
    Rule {
        room: "terminal.rs",
        but_not: &[],
        forbidden: &["crate::", "io::stdout", "io::stderr", "std::fs", "tokio::"],
        why: "what a terminal acts on is known without one",
    },
    Rule {
        room: "",
        // The log and the wrapper's warnings are escaped where they are written.
        but_not: &["main.rs", "laptop.rs", "telemetry/log.rs", "exec/mod.rs"],
        forbidden: &["io::stdout", "io::stderr", "io::{stdout", "io::{stderr"],
        why: "what a command writes goes through terminal::Inert, which main.rs puts before both streams",
    },
    Rule {
        room: "agent/",
        but_not: &[],
        forbidden: &[
            "crate::cli",
            "crate::exec",
            "crate::main",
            "crate::observe",
            "crate::profiles",
            "crate::runs",
            "crate::show",
        ],
        why: "the shell is below the command line",
    },
    Rule {
        room: "profiles.rs",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::exec::",
            "crate::pod",
            "crate::task_runs",
            "clap",
            "tokio::",
        ],
        why: "a file in a home directory is read for commands, and by nothing in a pod",
    },
    Rule {
        room: "config.rs",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::profiles",
            "crate::cli",
            "crate::heartbeat",
            "crate::pod",
            "crate::telemetry",
            "crate::task_runs::client",
        ],
        why: "settings know nothing of what is done with them",
    },
    Rule {
        room: "",
        but_not: &["task_runs/model.rs", "task_runs/model/", "pod/resource.rs"],
        forbidden: &[
            "podUID",
            "containerID",
            "pageToken",
            "pageSize",
            "blockSizeMB",
            "cacheSizeGB",
        ],
        why: "the wire's spelling is known to task_runs/model alone (and Kubernetes' own to pod/resource.rs)",
    },
    Rule {
        room: "task_runs/model",
        but_not: &[],
        forbidden: &[
            "crate::task_runs::client",
            "crate::task_runs::credentials",
            "crate::task_runs::error",
            "tokio::",
            "reqwest::",
            "tracing::",
            "std::fs",
            "std::net",
            "::now(",
        ],
        why: "the core knows the wire types, and so they do no I/O",
    },
    Rule {
        room: "trimmed.rs",
        but_not: &[],
        forbidden: &["crate::", "std::fs", "std::io"],
        why: "what stands around a text is known without where it comes from",
    },
    Rule {
        room: "regular_file.rs",
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::config",
            "crate::task_runs",
            "tokio::",
            "tracing::",
        ],
        why: "files are read without knowing who wants them",
    },
    Rule {
        room: "",
        but_not: &["regular_file.rs"],
        forbidden: &[
            "fs::read(",
            "fs::read_to_string",
            "fs::write(",
            "File::open",
            "File::create",
            "tokio::fs",
        ],
        why: "files are read and written in regular_file.rs, where nothing is waited for and all has an end",
    },
    Rule {
        room: "",
        but_not: &["config.rs", "heartbeat/simulation/mod.rs"],
        forbidden: &["std::env::var"],
        why: "the environment is read once, in config.rs",
    },
    Rule {
        room: "",
        // The captures, for unit tests alone.
        but_not: &["pod/captured.rs"],
        forbidden: &["podbeat_lab"],
        why: "no stand-in in the production binary",
    },
    Rule {
        room: "",
        but_not: &[],
        forbidden: &["process::exit", "unbounded_channel"],
        why: "no sudden end and no queue without bound in the production binary",
    },
];

fn breaches(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    RULES
        .iter()
        .filter(|rule| {
            file.starts_with(rule.room) && !rule.but_not.iter().any(|excepted| is_or_is_in(file, excepted))
        })
        .flat_map(|rule| {
            let found = rule.forbidden.iter().filter(|word| names(&code, word));
            found.map(move |word| format!("src/{file} names {word}: {}", rule.why))
        })
        .collect()
}

fn is_or_is_in(file: &str, excepted: &str) -> bool {
    file == excepted || (excepted.ends_with('/') && file.starts_with(excepted))
}

/// The code without comments and without its tests, which stand at the end of a file.
fn code_only(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the word stands in the code, not as the tail of a longer path segment. `use` groups are written out:
/// `use crate::{a, b}` names `crate::a` and `crate::b`.
fn names(code: &str, word: &str) -> bool {
    let stands_alone = |at: usize| {
        if word.starts_with(':') {
            return true;
        }
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    };
    if code.match_indices(word).any(|(at, _)| stands_alone(at)) {
        return true;
    }
    let Some((head, tail)) = word.rsplit_once("::") else {
        return false;
    };
    let tail = if tail.is_empty() { return false } else { tail };
    code.split(';')
        .filter_map(|statement| statement.split_once(&format!("{head}::{{")))
        .any(|(_, group)| {
            group
                .split([',', '{', '}'])
                .any(|item| item.trim().split("::").next() == Some(tail))
        })
}

#[test]
fn imports_go_down_only() {
    let (root, files) = (root().join("src"), sources());
    assert!(files.len() > 20, "the sources are found: {files:?}");
    let mut all = Vec::new();
    for path in files {
        let file = path
            .strip_prefix(&root)
            .expect("below src")
            .to_string_lossy()
            .into_owned();
        // A module of tests alone: `mod tests;` behind #[cfg(test)].
        if !file.ends_with("/tests.rs") {
            all.extend(breaches(&file, &fs::read_to_string(&path).expect("readable")));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn planted_breaches_are_found() {
    for (file, text) in [
        ("heartbeat/machine.rs", "use tokio::time::sleep;"),
        ("heartbeat/machine.rs", "use crate::pod::watch::PodWatch;"),
        (
            "heartbeat/machine.rs",
            "use crate::pod::{status::Observation, watch::PodWatch};",
        ),
        ("heartbeat/machine.rs", "use crate::{config, heartbeat};"),
        ("heartbeat/machine.rs", "fn f() { let t = Timestamp::now(); }"),
        ("heartbeat/outbox.rs", "use std::time::{Duration, Instant};"),
        ("heartbeat/backoff.rs", "let rng = fastrand::Rng::new();"),
        ("pod/status.rs", "use crate::task_runs::Secret;"),
        ("pod/status.rs", "use kube::Client;"),
        ("task_runs/client.rs", "use crate::config::Config;"),
        ("task_runs/error.rs", "fn f(_: &crate::heartbeat::Now) {}"),
        ("agent/delivery.rs", "let member = \"podUID\";"),
        ("task_runs/model_of_another.rs", "let member = \"podUID\";"),
        ("task_runs/client.rs", "let parameter = \"pageToken\";"),
        (
            "task_runs/model/task_run.rs",
            "use crate::task_runs::client::Client;",
        ),
        ("task_runs/model.rs", "use reqwest::Url;"),
        ("agent/mod.rs", "let member = std::env::var(\"HOME\");"),
        ("telemetry/log.rs", "use crate::agent;"),
        (
            "telemetry/status.rs",
            "use crate::task_runs::credentials::Credentials;",
        ),
        ("exec/mod.rs", "use crate::pod::status::Exit;"),
        ("exec/leave.rs", "use tokio::fs::write;"),
        ("marker.rs", "let text = std::fs::read(path);"),
        ("agent/delivery.rs", "let text = std::fs::read_to_string(path);"),
        ("check/files.rs", "use std::fs;\nfn f() { fs::read(path); }"),
        (
            "pod/transport.rs",
            "use std::fs::File;\nfn f() { File::open(path); }",
        ),
        ("trimmed.rs", "use std::io::Read;"),
        ("regular_file.rs", "use tokio::task;"),
        ("marker.rs", "let at = Timestamp::now();"),
        ("agent/markers.rs", "use crate::exec::run;"),
        ("agent/mod.rs", "use crate::runs::command::Command;"),
        ("runs/mod.rs", "use crate::pod::status::Observation;"),
        ("explain/watch.rs", "use crate::pod::watch::PodWatch;"),
        ("reap/verdict.rs", "fn f() { let t = Timestamp::now(); }"),
        ("reap/mod.rs", "use crate::heartbeat::machine::Machine;"),
        ("pod/listed.rs", "use crate::config::Kubernetes;"),
        ("check/mod.rs", "use crate::agent::run;"),
        (
            "check/service.rs",
            "use crate::task_runs::model::HeartbeatTaskRunRequest;",
        ),
        ("check/token.rs", "fn f() { let t = Timestamp::now(); }"),
        ("check/certificate.rs", "use rustls::Error;"),
        ("check/kubernetes.rs", "use kube::Client;"),
        ("pod/ask.rs", "use crate::config::Kubernetes;"),
        ("pod/role.rs", "use kube::Client;"),
        ("journal.rs", "use crate::agent::run;"),
        ("runs/command.rs", "use clap::ValueEnum;"),
        ("observe/mod.rs", "use crate::task_runs::client::Client;"),
        ("observe/view.rs", "use crate::agent::Onlooker;"),
        ("show/age.rs", "let now = Timestamp::now();"),
        ("show/table.rs", "use crate::runs::command::Format;"),
        ("terminal.rs", "use crate::config::Config;"),
        ("agent/report.rs", "use crate::show::inert::one_line;"),
        ("main.rs", "std::process::exit(1)"),
    ] {
        assert!(!breaches(file, text).is_empty(), "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    for (file, text) in [
        (
            "heartbeat/machine.rs",
            "// tokio::time is for the shell\nuse crate::pod::status::Observation;",
        ),
        (
            "heartbeat/request.rs",
            "use crate::task_runs::model::ContainerStatus;",
        ),
        (
            "heartbeat/machine.rs",
            "#[cfg(test)]\nmod tests { use tokio::time::sleep; }",
        ),
        (
            "pod/watch.rs",
            "use kube::Client;\nuse crate::heartbeat::backoff::Backoff;",
        ),
        ("agent/mod.rs", "use crate::{config, heartbeat, task_runs};"),
        ("check/files.rs", "let names = std::fs::read_dir(directory);"),
        ("marker.rs", "use crate::trimmed;"),
        (
            "exec/leave.rs",
            "use crate::config::ExecConfig;\nuse crate::marker::{self, Marker};",
        ),
        (
            "observe/mod.rs",
            "use crate::pod::watch::PodWatch;\nuse crate::task_runs::model::ContainerStatus;",
        ),
        ("task_runs/model.rs", "#[serde(rename = \"podUID\")]"),
        ("task_runs/model/heartbeat.rs", "#[serde(rename = \"podUID\")]"),
        (
            "telemetry/instruments.rs",
            "use crate::task_runs::model::ContainerStatus;\nuse crate::heartbeat::machine::Note;",
        ),
    ] {
        assert_eq!(breaches(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}
