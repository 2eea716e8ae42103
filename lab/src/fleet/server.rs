//! The real podbeat-server as a process, with a data file on disk. It can be killed and started
//! again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::metrics::{Metrics, Requests};
use super::process::{Usage, peak_rss_kib, usage};
use super::upstream::get;
use crate::pki::Authority;
use crate::{Error, free_addresses, io};

/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two looks whether the server is ready.
const LOOK: Duration = Duration::from_millis(10);

/// How much of the log is shown, in bytes.
const SHOWN: usize = 4 << 10;

/// The resources that all processes of the server used, and their answers, as far as known. The
/// metrics of a process that was killed are those right before its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spent {
    /// The largest resident memory of a process, in KiB.
    pub(super) rss_kib: u64,
    /// Processor time of all processes, in seconds.
    pub(super) cpu_seconds: f64,
    /// The number of answers.
    pub(super) requests: Requests,
    /// How often the server was killed.
    pub(super) kills: usize,
    /// The longest time from a start after a kill until the server was ready, in seconds.
    pub(super) restart_seconds: f64,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    dir: PathBuf,
    pub(super) api: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    pub(super) spent: Spent,
}

impl Server {
    /// Starts the server with a new data file in a directory, and waits until it is ready. Returns
    /// it with a token of a user.
    pub(super) async fn start(
        program: &Path,
        dir: &Path,
        authority: &Authority,
    ) -> Result<(Self, String), Error> {
        std::fs::create_dir_all(dir).map_err(io(format!("creating {}", dir.display())))?;
        let (api, admin) = free_addresses()?;
        let mut server = Self {
            program: program.to_owned(),
            dir: dir.to_owned(),
            api,
            admin,
            child: None,
            spent: Spent::default(),
        };
        let identity = authority.issue(&[&api.ip().to_string()])?;
        for (name, text) in [
            ("tls.crt", &identity.certificate),
            ("tls.key", &identity.key),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        }
        let token = server.token().await?;
        server.resume().await?;
        Ok((server, token))
    }

    /// The data file.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("podbeat.db")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PODBEAT_SERVER_DATA", self.data())
            .stdin(Stdio::null())
            // A separate process group: Ctrl-C reaches only us, and we end the process.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Creates a token, as an administrator does.
    async fn token(&self) -> Result<String, Error> {
        let what = format!("creating a token with {}", self.program.display());
        let mut command = self.command();
        command.args(["token", "create", "--tenant", "fleet", "--user", "fleet"]);
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(std::io::Error::from).flatten();
        let output = output.map_err(io(what.clone()))?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io(what)(std::io::Error::other(error)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts the process, and waits until it is ready.
    async fn resume(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let path = self.log();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io(format!("opening {}", path.display())))?;
        let mut command = self.command();
        command
            .arg(format!("--listen={}", self.api))
            .arg(format!("--admin-listen={}", self.admin))
            .arg("--cert-file")
            .arg(self.dir.join("tls.crt"))
            .arg("--key-file")
            .arg(self.dir.join("tls.key"))
            // A fleet is created within seconds.
            .arg("--creates-per-minute=1000000")
            .stdout(Stdio::null())
            .stderr(log);
        let child = command
            .spawn()
            .map_err(io(format!("starting {}", self.program.display())))?;
        let child = self.child.insert(child);
        loop {
            let ready = get(self.admin, "/readyz").await;
            if ready.is_ok_and(|(status, _)| status == StatusCode::OK) {
                break;
            }
            let ended = !matches!(child.try_wait(), Ok(None));
            if ended || begun.elapsed() > PATIENCE {
                let log = std::fs::read(&path).unwrap_or_default();
                let shown = log
                    .get(log.len().saturating_sub(SHOWN)..)
                    .unwrap_or_default();
                return Err(Error::InVain {
                    what: "podbeat-server to be ready".to_owned(),
                    waited: begun.elapsed(),
                    seen: String::from_utf8_lossy(shown).into_owned(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        if self.spent.kills > 0 {
            let took = begun.elapsed().as_secs_f64();
            self.spent.restart_seconds = self.spent.restart_seconds.max(took);
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("podbeat-server.log")
    }

    /// After `delay`, kills the server with SIGKILL. Starts it again after `down`.
    pub(super) async fn kill(&mut self, delay: Duration, down: Duration) -> Result<(), Error> {
        tokio::time::sleep(delay).await;
        self.add_up().await?;
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(io("killing podbeat-server"))?;
        }
        self.spent.kills += 1;
        tokio::time::sleep(down).await;
        self.resume().await
    }

    /// Stops the server as Kubernetes does, with SIGTERM.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let what = || io("stopping podbeat-server");
        self.add_up().await?;
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).map_err(|error| what()(error.into()))?;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let status = ended.map_err(std::io::Error::from).flatten();
        let status = status.map_err(what())?;
        match status.success() {
            true => Ok(()),
            false => Err(what()(std::io::Error::other(format!(
                "it ended with {status}"
            )))),
        }
    }

    /// The metrics of the running process.
    pub(super) async fn metrics(&self) -> Result<Metrics, Error> {
        let answer = get(self.admin, "/metrics").await;
        let (_, text) = answer.map_err(io("getting podbeat-server's metrics"))?;
        Ok(Metrics::read(&String::from_utf8_lossy(&text)))
    }

    /// The resources that the running process used so far.
    pub(super) fn usage(&self) -> Result<Usage, Error> {
        usage(self.pid())
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap_or(0)
    }

    /// Adds the running process to what was spent.
    async fn add_up(&mut self) -> Result<(), Error> {
        let metrics = self.metrics().await?;
        let (usage, peak) = (self.usage()?, peak_rss_kib(self.pid())?);
        for (name, count) in metrics.requests {
            *self.spent.requests.entry(name).or_default() += count;
        }
        self.spent.rss_kib = self.spent.rss_kib.max(peak);
        self.spent.cpu_seconds += usage.cpu_seconds;
        Ok(())
    }
}
