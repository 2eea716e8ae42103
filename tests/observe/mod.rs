//! `podbeat observe` as a process, against the stand-in Kubernetes API: in a pipe, and on a
//! terminal that a test reads.

mod flags;
mod lines;
mod records;
mod terminal;
mod troubles;

use std::process::ExitStatus;

use podbeat_lab::world::World;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::LIMIT;
use crate::harness::binary::{podbeat, send};

/// `podbeat observe` with the world's kubeconfig and no other variable.
fn observe(world: &World, arguments: &[&str]) -> Command {
    let mut command = podbeat();
    command
        .env("KUBECONFIG", world.path("kubeconfig"))
        .arg("observe")
        .args(arguments);
    command
}

/// A running observer, and its output so far.
struct Observer {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    lines: Vec<String>,
}

impl Observer {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let out = child.stdout.take().expect("a pipe");
        Self {
            child,
            out: BufReader::new(out).lines(),
            lines: Vec::new(),
        }
    }

    /// Waits for a line with this text, after the lines of earlier waits.
    async fn until(&mut self, text: &str) -> String {
        let found = tokio::time::timeout(LIMIT, async {
            while let Some(line) = self.next().await {
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(line)) => line,
            Ok(None) => panic!("it ended without {text:?}: {:#?}", self.lines),
            Err(_) => panic!("no {text:?}: {:#?}", self.lines),
        }
    }

    async fn next(&mut self) -> Option<String> {
        let line = tokio::time::timeout(LIMIT, self.out.next_line())
            .await
            .unwrap_or_else(|_| panic!("nothing more: {:#?}", self.lines))
            .expect("readable")?;
        self.lines.push(line.clone());
        Some(line)
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id().expect("it runs"), signal);
    }

    async fn end(mut self) -> Ended {
        while self.next().await.is_some() {}
        let mut notes = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut notes).await.expect("text");
        let status = tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .expect("it ends")
            .expect("waited for");
        Ended {
            status,
            lines: self.lines,
            notes,
        }
    }
}

/// The result of a process.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    lines: Vec<String>,
    notes: String,
}

impl Ended {
    #[track_caller]
    fn code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn quietly(&self) -> &Self {
        assert_eq!(self.notes, "");
        self
    }

    fn events(&self) -> Vec<Value> {
        let read = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON"))
        };
        self.lines.iter().map(read).collect()
    }
}

/// Every observation must leave the task-run service without a heartbeat.
#[track_caller]
fn sent_nothing(world: &World) {
    assert_eq!(world.service.heartbeats().len(), 0);
}
