//! A fleet's service: podbeat-server behind the layer that records heartbeats and plays outages, and
//! the ledger of these heartbeats.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};
use podbeat_task_runs::model::TaskRun;
use serde_json::json;
use tokio::time::Instant;

use super::figures::Figures;
use super::ledger::Ledger;
use super::process::{Usage, raise_file_limit};
use super::scenario::{Member, RUNS};
use super::server::Server;
use super::upstream::Upstream;
use super::verdict;
use crate::contract::Contract;
use crate::fault::{Faults, Misread};
use crate::pki::Authority;
use crate::serve::{self, Bound};
use crate::service::Limits;
use crate::service::layer::Layer;
use crate::{Error, io};

/// The Retry-After of the 503 answers in an outage.
pub const RETRY_AFTER: Duration = Duration::from_secs(15);

/// How often the ledger takes new heartbeats.
const LOOK: Duration = Duration::from_millis(100);

/// How many runs are created at the same time.
const CREATES: usize = 16;

/// The service and its ledger.
#[derive(Debug)]
pub struct FleetService {
    url: String,
    token: String,
    layer: Arc<Layer<Upstream>>,
    _listening: serve::Server,
    server: Server,
    faults: Faults,
    /// The IDs, by the number of the pod.
    runs: Vec<String>,
    /// The heartbeats up to the last look.
    pub ledger: Ledger,
}

impl FleetService {
    /// Starts `program` (podbeat-server) with its files in `dir`, and creates the runs of a fleet.
    ///
    /// # Errors
    /// There is no free port, or no certificate, or podbeat-server does not work.
    pub async fn start(
        authority: &Authority,
        size: usize,
        program: &Path,
        dir: &Path,
    ) -> Result<Self, Error> {
        let (server, token) = Server::start(program, dir, authority).await?;
        let upstream = Upstream::new(server.api, authority, &token, raise_file_limit()?)?;
        let runs: Vec<String> = stream::iter(0..size)
            .map(|nth| create(&upstream, nth))
            .buffered(CREATES)
            .try_collect()
            .await?;
        upstream.close();
        let identity = authority.issue(&["localhost"])?;
        let bound = Bound::to((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let url = format!("https://localhost:{}", bound.address().port());
        let faults = Faults::default();
        let limits = Limits {
            heartbeats: 1 << 20,
            heartbeat_bytes: 2 << 30,
            ..Limits::default()
        };
        let layer = Layer::new(upstream, Contract::load()?, faults.clone(), "", limits);
        let layer = Arc::new(layer);
        Ok(Self {
            url,
            token,
            _listening: bound.serve(Some(identity.server_config(None)?), Arc::clone(&layer)),
            layer,
            server,
            faults,
            ledger: Ledger::new(&runs),
            runs,
        })
    }

    /// The service's settings for the environment of all agents. `ca_file` contains its authority's
    /// certificate.
    #[must_use]
    pub fn settings(&self, ca_file: &Path, interval: Duration) -> BTreeMap<String, String> {
        BTreeMap::from(
            [
                ("PODBEAT_SERVICE_URL", self.url.clone()),
                ("PODBEAT_TOKEN", self.token.clone()),
                ("PODBEAT_CA_FILE", ca_file.display().to_string()),
                (
                    "PODBEAT_INTERVAL",
                    humantime::format_duration(interval).to_string(),
                ),
            ]
            .map(|(variable, value)| (variable.to_owned(), value)),
        )
    }

    /// The environment of one agent. Without a UID, it is the one that the stand-in gives the pod.
    #[must_use]
    pub fn settings_of(&self, nth: usize, uid: Option<&str>) -> BTreeMap<String, String> {
        let member = Member { nth };
        BTreeMap::from(
            [
                (
                    "TASK_RUN_ID",
                    self.runs.get(nth).cloned().unwrap_or_default(),
                ),
                ("POD_NAME", member.pod()),
                ("POD_UID", uid.map_or_else(|| member.uid(), str::to_owned)),
            ]
            .map(|(variable, value)| (variable.to_owned(), value)),
        )
    }

    /// Moves the heartbeats since the last look into the ledger.
    pub fn look(&mut self) {
        let received = self.layer.state().received.take();
        for heartbeat in received {
            self.ledger.hear(&heartbeat);
        }
    }

    /// The time since the service's start, which is the time base of arrivals.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.layer.started.elapsed()
    }

    /// Starts an outage of this length. In the first half the service closes connections; in the
    /// second half it answers 503 with [`RETRY_AFTER`]. podbeat-server loses all its connections, so
    /// each agent that comes back needs a new one. Returns the time at which the outage ends.
    ///
    /// # Errors
    /// Only a mistake in this function.
    pub fn go_away(&self, length: Duration) -> Result<Duration, Misread> {
        let text = |time: Duration| {
            humantime::format_duration(time)
                .to_string()
                .replace(' ', "")
        };
        // Both rules are in force now; the first one that is in force applies.
        self.faults.script(&format!(
            "heartbeat refuse for {}; heartbeat 503 retry-after={} for {}",
            text(length / 2),
            text(RETRY_AFTER),
            text(length)
        ))?;
        self.layer.behind.close();
        Ok(self.elapsed() + length)
    }

    /// After `delay`, kills podbeat-server with SIGKILL. Starts it again after `down`.
    ///
    /// # Errors
    /// podbeat-server had ended already, or does not become ready again.
    pub async fn kill(&mut self, delay: Duration, down: Duration) -> Result<(), Error> {
        self.server.kill(delay, down).await
    }

    /// The resources that podbeat-server's process used so far.
    ///
    /// # Errors
    /// The process ended.
    pub fn server_usage(&self) -> Result<Usage, Error> {
        self.server.usage()
    }

    /// Checks what podbeat-server itself knows of the runs, after all of them ended: by its API and
    /// metrics, and in its data file. Stops podbeat-server.
    ///
    /// # Errors
    /// podbeat-server does not answer or stop, or its data file can't be read.
    pub async fn verify(&mut self, figures: &mut Figures) -> Result<(), Error> {
        let metrics = self.server.metrics().await?;
        verdict::check_api(&self.layer.behind, &metrics, &self.runs, figures).await?;
        self.server.stop().await?;
        verdict::check_data(&self.server.data(), &self.runs, figures).await?;
        verdict::report(&self.server.spent, figures);
        Ok(())
    }

    /// Records heartbeats until this time (see [`Self::elapsed`]).
    pub async fn listen_until(&mut self, at: Duration) {
        while self.elapsed() < at {
            tokio::time::sleep(LOOK.min(at.saturating_sub(self.elapsed()))).await;
            self.look();
        }
    }

    /// Records heartbeats until the ledger has the wanted state.
    ///
    /// # Errors
    /// The state is not reached within `limit`. `seen` describes the progress.
    pub async fn listen_for(
        &mut self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&Ledger) -> bool,
        seen: impl Fn(&Ledger) -> String,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            self.look();
            if reached(&self.ledger) {
                return Ok(());
            }
            if begun.elapsed() > limit {
                return Err(Error::InVain {
                    what: what.to_owned(),
                    waited: limit,
                    seen: seen(&self.ledger),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Records heartbeats until every run has reported a step.
    ///
    /// # Errors
    /// The step is not reported within `limit`.
    pub async fn listen_for_step(
        &mut self,
        step: usize,
        size: usize,
        limit: Duration,
    ) -> Result<(), Error> {
        self.listen_for(
            &format!("step {step} of {size} runs"),
            limit,
            |ledger| ledger.told_of(step) == size,
            |ledger| format!("{} runs", ledger.told_of(step)),
        )
        .await
    }
}

/// Creates the run of a pod, and returns its ID.
async fn create(upstream: &Upstream, nth: usize) -> Result<String, Error> {
    let member = Member { nth };
    let what = || io(format!("creating the run of {}", member.pod()));
    let body = match member.fails() {
        // It ends with its first attempt.
        true => json!({"name": member.pod(), "execution": {"retryLimit": 0}}),
        false => json!({"name": member.pod()}),
    };
    let key = (nth % CREATES).to_string();
    let body = body.to_string().into();
    let (status, body) = upstream.call(&key, Method::POST, RUNS, body).await?;
    if status != StatusCode::CREATED {
        let text = String::from_utf8_lossy(&body);
        return Err(what()(std::io::Error::other(format!("{status}: {text}"))));
    }
    let run: TaskRun = serde_json::from_slice(&body).map_err(|error| what()(error.into()))?;
    Ok(run.id.unwrap_or_default())
}

/// Writes the authority's certificate to a file for the agents.
///
/// # Errors
/// The file can't be written.
pub fn write_ca(authority: &Authority, dir: &Path) -> Result<std::path::PathBuf, Error> {
    std::fs::create_dir_all(dir).map_err(io(format!("creating {}", dir.display())))?;
    let path = dir.join("ca.crt");
    authority.write_to(&path)?;
    Ok(path)
}
