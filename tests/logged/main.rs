//! What the real binary logs: each line held against the table of messages, and each message of the table brought about.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod bounds;
mod form;
mod lives;
mod secrets;
mod table;
mod traces;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes, even on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);
const STARTED: &str = "2026-01-01T00:00:01Z";

/// A running podbeat whose log goes to a file. Killed when dropped.
struct Podbeat {
    child: Child,
    log: PathBuf,
}

impl Podbeat {
    /// Starts the binary in a pod of this world, with these settings on top of what the world sets.
    fn start(world: &World, log: &str, more: &[(&str, &str)]) -> Self {
        let mut settings = world.settings("p", "u1");
        for (variable, value) in more {
            settings.insert((*variable).to_owned(), (*value).to_owned());
        }
        Self::with(world, log, &settings, &[])
    }

    fn with(world: &World, log: &str, settings: &BTreeMap<String, String>, arguments: &[&str]) -> Self {
        let log = world.path(log);
        let stderr = std::fs::File::create(&log).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_podbeat"))
            .args(arguments)
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary runs");
        Self { child, log }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    fn lines(&self) -> Vec<Value> {
        // The last one may be half written.
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        lines(whole)
    }

    /// Waits until the log has a line that is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(&wanted) {
                    return line;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        match timeout(LIMIT, found).await {
            Ok(line) => line,
            Err(_) => panic!("no line {what:?} within {LIMIT:?}:\n{}", self.text()),
        }
    }

    async fn until_logged(&self, message: &str) -> Value {
        self.until(message, |line| line["message"] == message).await
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the end.
    async fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let status = self.ended().await;
        (status.code(), self.lines())
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("waited for") {
                    return status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        match timeout(LIMIT, ended).await {
            Ok(status) => status,
            Err(_) => panic!("podbeat doesn't end:\n{}", self.text()),
        }
    }
}

impl Drop for Podbeat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["message"].as_str().expect("a message"))
        .collect()
}

async fn heard(world: &World, what: &str, reached: impl Fn(&[Heartbeat]) -> bool) -> Vec<Heartbeat> {
    world
        .service
        .wait_for(what, LIMIT, reached)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until the service has accepted a heartbeat with `main` in this state.
async fn main_is(world: &World, state: &str) {
    let so = |heartbeat: &Heartbeat| {
        heartbeat.accepted && heartbeat.state("main").is_some_and(|(name, _)| name == state)
    };
    heard(world, &format!("main {state}"), |heartbeats| {
        heartbeats.iter().any(so)
    })
    .await;
}
