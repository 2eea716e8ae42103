//! The measured server: a process on a CPU of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use podbeat_lab::free_addresses;
use podbeat_lab::pki::Authority;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::time::Instant;

use super::client::{Target, probe};
use super::data::DataFile;
use crate::process::{Running, Sample};
use crate::{Error, io};

/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two looks whether the server is ready.
const LOOK: Duration = Duration::from_millis(1);

/// The server's program, and what all its processes use.
pub struct Program {
    binary: PathBuf,
    cpu: usize,
    /// For certificate, key and log.
    directory: tempfile::TempDir,
    authority: Authority,
}

/// A running server that is ready.
pub struct Started {
    /// Where it listens.
    pub target: Target,
    /// The time from before its start until it was ready.
    pub took: Duration,
    running: Running,
}

impl Program {
    /// Prepares to start this program. From now on, this process and the server have a CPU each.
    ///
    /// # Errors
    /// This process may use only one CPU, or a file can't be written.
    pub fn new(binary: &Path) -> Result<Self, Error> {
        let affinity = |error: rustix::io::Errno| io("choosing a CPU")(error.into());
        let allowed = sched_getaffinity(None).map_err(affinity)?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (Some(cpu), Some(own)) = (cpus.next(), cpus.next()) else {
            return Err(Error::OneCpu);
        };
        let mut set = CpuSet::new();
        set.set(own);
        sched_setaffinity(None, &set).map_err(affinity)?;
        let directory = tempfile::tempdir().map_err(io("creating a directory"))?;
        // rcgen's default is ECDSA with P-256.
        let authority = Authority::new()?;
        let identity = authority.issue(&["127.0.0.1"])?;
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))
        };
        write("certificate.pem", &identity.certificate)?;
        write("key.pem", &identity.key)?;
        Ok(Self {
            binary: binary.to_owned(),
            cpu,
            directory,
            authority,
        })
    }

    /// Starts the server with a data file, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(&self, data: &Path, of: &DataFile) -> Result<Started, Error> {
        let (api, admin) = free_addresses()?;
        let target = Target::new(api, admin, self.authority.pem())?;
        let text = |text: String| OsString::from(text);
        let file = |name: &str| self.directory.path().join(name).into_os_string();
        let arguments: Vec<OsString> = vec![
            text("--cpu-list".to_owned()),
            text(self.cpu.to_string()),
            self.binary.clone().into(),
            text(format!("--listen={api}")),
            text(format!("--admin-listen={admin}")),
            text("--data".to_owned()),
            data.into(),
            text("--secrets-key-file".to_owned()),
            of.key.clone().into(),
            text("--cert-file".to_owned()),
            file("certificate.pem"),
            text("--key-file".to_owned()),
            file("key.pem"),
            // The limits of a tenant are not measured, and old files are kept.
            text("--live-runs=100000000".to_owned()),
            text("--creates-per-minute=100000000".to_owned()),
            text("--retained-runs=100000000".to_owned()),
            text("--retention=36500d".to_owned()),
            text("--heartbeat-timeout=1h".to_owned()),
        ];
        let environment = BTreeMap::from([("PODBEAT_LOG".to_owned(), "warn".to_owned())]);
        let begun = Instant::now();
        let log = self.directory.path().join("log");
        let mut running = Running::start(Path::new("taskset"), &arguments, &environment, &log)?;
        while !is_ready(&target).await {
            if begun.elapsed() > PATIENCE || !running.runs() {
                return Err(Error::InVain {
                    what: "podbeat-server to be ready".to_owned(),
                    waited: begun.elapsed(),
                    seen: format!("its log:\n{}", running.log()),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Started {
            target,
            took: begun.elapsed(),
            running,
        })
    }
}

impl Started {
    /// What /proc shows of it.
    ///
    /// # Errors
    /// It has ended.
    pub fn sample(&self) -> Result<Sample, Error> {
        self.running.sample()
    }

    /// Stops it.
    ///
    /// # Errors
    /// It can't be waited for.
    pub async fn stop(self) -> Result<(), Error> {
        self.running.stop(PATIENCE).await
    }
}

async fn is_ready(target: &Target) -> bool {
    let Ok(mut client) = target.probe().await else {
        return false;
    };
    let answer = client.send(probe("/readyz")).await;
    answer.is_ok_and(|(status, _)| status == StatusCode::OK)
}
