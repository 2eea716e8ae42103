//! `podbeat runs` as a process, against the stand-in service and against a small server that answers what a test wants.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod manual;
mod operations;
#[path = "../task_runs/server.rs"]
#[expect(dead_code, reason = "the client's own tests use the rest")]
mod server;
mod troubles;

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use server::TOKEN;

/// Longer than anything here takes, even on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// What a process left.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    notes: String,
}

impl Ended {
    /// What was asked for, of a process that did it and had nothing else to say.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!((self.code, self.notes.as_str()), (0, ""), "{}", self.out);
        self.out
    }
}

/// `podbeat`, without any variable of this process.
fn podbeat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podbeat"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `podbeat runs`, that knows where the service is and what opens it.
fn runs(url: &str, arguments: &[&str]) -> Command {
    let mut command = podbeat();
    command
        .env("PODBEAT_SERVICE_URL", url)
        .env("PODBEAT_TOKEN", TOKEN)
        .arg("runs")
        .args(arguments);
    command
}

async fn ended(command: &mut Command) -> Ended {
    told(command.spawn().expect("the binary runs"), "").await
}

/// The same, with something to read at standard input.
async fn ended_with_input(command: &mut Command, input: &str) -> Ended {
    command.stdin(Stdio::piped());
    told(command.spawn().expect("the binary runs"), input).await
}

async fn told(mut child: tokio::process::Child, input: &str) -> Ended {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.expect("written");
    }
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .expect("podbeat ends")
        .expect("waited for");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        notes: text(output.stderr),
    }
}
