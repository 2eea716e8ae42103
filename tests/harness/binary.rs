//! podbeat as a process.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use podbeat_lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{LIMIT, settings};

pub(crate) const PODBEAT: &str = env!("CARGO_BIN_EXE_podbeat");

/// `podbeat`, without any variable of this process.
pub(crate) fn podbeat() -> Command {
    podbeat_at(Path::new(PODBEAT))
}

/// The same from a copy of the program.
pub(crate) fn podbeat_at(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The result of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) notes: String,
}

impl Ended {
    /// The output of a process that succeeded and reported nothing else.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.notes.as_str()), (0, ""), "{}", self.out);
        self.out
    }
}

pub(crate) async fn ended(command: &mut Command) -> Ended {
    told(command.spawn().expect("the binary runs"), "").await
}

/// The same, with this text at standard input.
pub(crate) async fn ended_with_input(command: &mut Command, input: &str) -> Ended {
    command.stdin(Stdio::piped());
    told(command.spawn().expect("the binary runs"), input).await
}

async fn told(mut child: tokio::process::Child, input: &str) -> Ended {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It may end before it has read everything.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.expect("written"),
        }
    }
    let output = timeout(LIMIT, child.wait_with_output())
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

/// A running podbeat. Its output goes to a file, because a pipe that is read only at the end would
/// fill up. It is killed when dropped.
pub(crate) struct Podbeat {
    child: Child,
    log: PathBuf,
}

impl Podbeat {
    /// Starts the agent in this world's pod `p`, with these settings in addition to the world's.
    pub(crate) fn start(world: &World, log: &str, more: &[(&str, &str)]) -> Self {
        Self::with(world, log, &settings(world, more), &[])
    }

    pub(crate) fn with(
        world: &World,
        log: &str,
        settings: &BTreeMap<String, String>,
        arguments: &[&str],
    ) -> Self {
        let log = world.path(log);
        let mut options = std::fs::File::options();
        // Both outputs append to the file.
        let file = options
            .append(true)
            .create_new(true)
            .open(&log)
            .expect("a file");
        let child = std::process::Command::new(PODBEAT)
            .args(arguments)
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .spawn()
            .expect("the binary runs");
        Self { child, log }
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        // The last line may be incomplete.
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        lines(whole)
    }

    /// Waits until the log has a line as expected.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
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

    pub(crate) async fn until_logged(&self, message: &str) -> Value {
        self.until(message, |line| line["message"] == message).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    /// Waits for the end, and returns the exit code and all output.
    pub(crate) async fn end(mut self) -> (i32, String) {
        let status = self.ended().await;
        (status.code().expect("an exit code"), self.text())
    }

    /// The same, with the log as lines.
    pub(crate) async fn end_in_lines(self) -> (i32, Vec<Value>) {
        let (code, log) = self.end().await;
        (code, lines(&log))
    }

    /// The most memory that it ever had in RAM, in bytes.
    #[track_caller]
    pub(crate) fn peak(&self) -> u64 {
        self.peak_if_it_runs().expect("it runs")
    }

    /// `None` after it has ended.
    fn peak_if_it_runs(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    }

    /// Waits for the end, and returns the most memory that was seen until then.
    pub(crate) async fn ended_with_peak(&mut self) -> (ExitStatus, u64) {
        let mut most = 0;
        let ended = async {
            loop {
                most = most.max(self.peak_if_it_runs().unwrap_or_default());
                if let Some(status) = self.child.try_wait().expect("waited for") {
                    return status;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let ended = timeout(LIMIT, ended).await;
        (ended.expect("podbeat ends"), most)
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
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

/// Sends a signal to the process with this ID.
#[track_caller]
pub(crate) fn send(process: u32, signal: Signal) {
    let process = Pid::from_raw(process.cast_signed()).expect("a process id");
    kill_process(process, signal).expect("the process is there");
}

/// The lines of a log in JSON.
pub(crate) fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

pub(crate) fn messages(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["message"].as_str().expect("a message"))
        .collect()
}
