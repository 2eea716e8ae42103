//! The agent as a process: the release binary, with only its settings in its environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{Error, io, tail};

/// A running agent. It is killed when dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Starts the binary with these settings. Its log is written to a file.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(
        binary: &Path,
        settings: &BTreeMap<String, String>,
        log: PathBuf,
    ) -> Result<Self, Error> {
        let file =
            std::fs::File::create(&log).map_err(io(format!("creating {}", log.display())))?;
        let child = Command::new(binary)
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(format!(
                "starting {}; build it first (cargo build --release)",
                binary.display()
            )))?;
        Ok(Self { child, log })
    }

    /// Sends SIGTERM, as the kubelet does.
    ///
    /// # Errors
    /// The process has already ended.
    pub fn terminate(&self) -> Result<(), Error> {
        let gone = || Error::Program {
            what: "podbeat ended before its SIGTERM".to_owned(),
            log: tail(&self.log),
        };
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
            .ok_or_else(gone)?;
        kill_process(pid, Signal::TERM).map_err(|_| gone())
    }

    /// Waits for the process to end, and returns its exit code.
    ///
    /// # Errors
    /// It doesn't end within `limit`, or a signal ended it.
    pub async fn end(&mut self, limit: Duration) -> Result<i32, Error> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let told = |what: String| Error::Program {
            what,
            log: tail(&self.log),
        };
        let status = ended
            .map_err(|_| told("podbeat did not end".to_owned()))?
            .map_err(io("waiting for podbeat"))?;
        status
            .code()
            .ok_or_else(|| told(format!("podbeat ended with {status}")))
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log contains a text.
    ///
    /// # Errors
    /// The text isn't logged within `limit`.
    pub async fn until_logged(&self, text: &str, limit: Duration) -> Result<(), Error> {
        let begun = tokio::time::Instant::now();
        while !self.log().contains(text) {
            if begun.elapsed() > limit {
                let what = format!("podbeat did not log {text:?}");
                return Err(Error::Program {
                    what,
                    log: tail(&self.log),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
