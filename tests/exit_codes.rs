//! Compares the exit codes in `--help` with the commands: each documented code is produced.

use std::process::Stdio;

use podbeat::cli::endings;
use podbeat_interface::exit::Ending;
use serde_json::json;
use tokio::process::Command;

use crate::harness::binary::{PODBEAT, ended, podbeat};
use crate::harness::server::{Answer, Server, TOKEN, error, json_answer, raw};

/// What produces an ending. It is `None` if that takes a cluster; `tests/process.rs`,
/// `tests/agent`, `tests/reap.rs` and `tests/observe` test those.
struct Play {
    arguments: &'static [&'static str],
    /// The run's status that the service shows, or the HTTP status of its error; 1 means an answer
    /// that is not JSON.
    service: Result<&'static str, u16>,
    /// Whether standard output is a full disk.
    full: bool,
    /// Whether the process cannot open more files.
    starved: bool,
}

fn play(called: &str, ending: Ending) -> Option<Play> {
    const JOURNAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/journal/accepted");
    const NEITHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let right: &'static [&'static str] = match called {
        "podbeat" | "podbeat agent" => &["--dry-run", "--task-run-id=r", "--pod-name=p"],
        "podbeat check" => &["--timeout", "100ms"],
        "podbeat reap" => &["--all"],
        "podbeat observe" => &["p"],
        "podbeat runs create" => &["--image", "i"],
        "podbeat runs get" | "podbeat runs abort" => &["trn.1"],
        "podbeat runs heartbeat" => &["trn.1"],
        "podbeat runs wait" => &["trn.1", "--for", "Completed", "--timeout", "0"],
        "podbeat runs watch" => &["trn.1"],
        "podbeat explain" => &[JOURNAL],
        "podbeat completion" => &["bash"],
        _ => &[],
    };
    let is_of_runs = called.starts_with("podbeat runs ");
    let plain = |arguments, service| {
        Some(Play {
            arguments,
            service,
            full: false,
            starved: false,
        })
    };
    match (ending, called) {
        (Ending::Usage, _) => plain(&["--no-such-flag"], Err(500)),
        (Ending::Unwritten, "podbeat man") => plain(&["/dev/null/man"], Err(500)),
        (Ending::Unwritten, "podbeat exec") => plain(&["--install", "/dev/null/podbeat"], Err(500)),
        (Ending::Unwritten, "podbeat observe" | "podbeat reap") => None,
        (Ending::Unwritten, _) => Some(Play {
            arguments: right,
            service: Ok("Completed"),
            full: true,
            starved: false,
        }),
        (Ending::Internal, _) => Some(Play {
            arguments: right,
            service: Ok("Completed"),
            full: false,
            starved: true,
        }),
        (Ending::Unmet, "podbeat check") => plain(right, Err(500)),
        (Ending::Unmet, _) => plain(right, Ok("Failed")),
        (Ending::Overdue, _) => plain(right, Ok("Running")),
        (Ending::Unread, "podbeat reap") => {
            plain(&["--journal", "/nowhere/journal.json"], Err(500))
        }
        (Ending::Unread, "podbeat explain") => plain(&["/nowhere/log"], Err(500)),
        (Ending::Unread, "podbeat runs heartbeat") => {
            plain(&["trn.1", "-f", "/nowhere/file"], Err(500))
        }
        (Ending::Unread, _) => plain(&["-f", "/nowhere/file"], Err(500)),
        (Ending::Refused, "podbeat explain") => plain(&[NEITHER], Err(500)),
        (Ending::Done, "podbeat explain" | "podbeat completion" | "podbeat version") => {
            plain(right, Err(500))
        }
        (Ending::Done, _) if is_of_runs => plain(right, Ok("Completed")),
        (Ending::Refused, _) if is_of_runs => plain(right, Err(400)),
        (Ending::NoSuchRun, _) if is_of_runs => plain(right, Err(404)),
        (Ending::Unavailable, _) if is_of_runs => plain(right, Err(503)),
        (Ending::Misunderstood, _) if is_of_runs => plain(right, Err(1)),
        (Ending::Denied, _) if is_of_runs => plain(right, Err(403)),
        _ => None,
    }
}

async fn serving(service: Result<&'static str, u16>) -> Server {
    Server::start(move |received| -> Answer {
        match service {
            Err(1) => raw(200, "<html>"),
            Err(status) => error(status),
            Ok(status) => {
                let run = json!({"id": "trn.1", "name": "n", "status": status});
                let is_list =
                    received.method == "GET" && !received.path_and_query.contains("trn.1");
                json_answer(
                    200,
                    &if is_list {
                        json!({"items": [run]})
                    } else {
                        run
                    },
                )
            }
        }
    })
    .await
}

#[tokio::test]
async fn every_documented_exit_code_is_what_the_command_ends_with() {
    let (mut played, mut left) = (0, Vec::new());
    for (called, endings) in endings::all() {
        for (ending, _) in endings {
            let Some(play) = play(called, *ending) else {
                left.push(format!("{called} {ending:?}"));
                continue;
            };
            let server = serving(play.service).await;
            let words = called.split(' ').skip(1);
            let mut command = if play.starved {
                // It inherits three descriptors. One is left for the libraries and then for the
                // runtime, which needs more.
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "ulimit -n 4 && exec \"$0\" \"$@\"", PODBEAT]);
                command
                    .env_clear()
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                command
            } else {
                podbeat()
            };
            command
                .args(words)
                .args(play.arguments)
                .env("PODBEAT_SERVICE_URL", server.url())
                .env("PODBEAT_TOKEN", TOKEN)
                .env("KUBECONFIG", "/nowhere/kubeconfig");
            if play.full {
                let full = std::fs::File::options()
                    .write(true)
                    .open("/dev/full")
                    .expect("a full disk");
                command.stdout(full);
            }
            let ended = ended(&mut command).await;
            let told = format!(
                "{called} {:?} for {ending:?}: {}",
                play.arguments, ended.notes
            );
            assert_eq!(ended.code, i32::from(ending.code()), "{told}");
            played += 1;
        }
    }
    assert!(played > 70, "{played}, without {left:?}");
}
