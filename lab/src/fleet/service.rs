//! A fleet's stand-in service, and the ledger of its heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::Ledger;
use super::scenario::{Member, TOKEN};
use crate::contract::Contract;
use crate::fault::{Faults, Misread};
use crate::pki::Authority;
use crate::service::{Limits, Options, Service};
use crate::{Error, io};

/// The Retry-After of the 503 answers.
pub const RETRY_AFTER: Duration = Duration::from_secs(15);

/// How often the ledger takes new heartbeats.
const LOOK: Duration = Duration::from_millis(100);

/// The service and its ledger.
#[derive(Debug)]
pub struct FleetService {
    service: Service,
    faults: Faults,
    /// The heartbeats up to the last look.
    pub ledger: Ledger,
}

impl FleetService {
    /// Starts it for the runs of a fleet. Each has its nonce.
    ///
    /// # Errors
    /// There is no free port, or no certificate.
    pub async fn start(authority: &Authority, size: usize) -> Result<Self, Error> {
        let faults = Faults::default();
        let runs: BTreeSet<String> = (0..size).map(|nth| Member { nth }.run()).collect();
        let options = Options {
            runs: Some(runs),
            limits: Limits {
                heartbeats: 1 << 20,
                heartbeat_bytes: 2 << 30,
                ..Limits::default()
            },
            ..Options::with_token(TOKEN)
        };
        let service = Service::start(authority, Contract::load()?, faults.clone(), options).await?;
        for member in (0..size).map(|nth| Member { nth }) {
            service
                .issue_nonce(&member.run(), 0, &member.nonce())
                .await?;
        }
        Ok(Self {
            service,
            faults,
            ledger: Ledger::new(size, RETRY_AFTER),
        })
    }

    /// The service's settings for the environment of all agents. `ca_file` contains its authority's
    /// certificate.
    #[must_use]
    pub fn settings(&self, ca_file: &Path, interval: Duration) -> BTreeMap<String, String> {
        BTreeMap::from(
            [
                ("PODBEAT_SERVICE_URL", self.service.url()),
                ("PODBEAT_TOKEN", TOKEN.to_owned()),
                ("PODBEAT_CA_FILE", ca_file.display().to_string()),
                (
                    "PODBEAT_INTERVAL",
                    humantime::format_duration(interval).to_string(),
                ),
            ]
            .map(|(variable, value)| (variable.to_owned(), value)),
        )
    }

    /// Moves the heartbeats since the last look into the ledger.
    pub fn look(&mut self) {
        for heartbeat in self.service.take_heartbeats() {
            self.ledger.hear(&heartbeat);
        }
    }

    /// The time since the service's start, which is the time base of arrivals.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.service.elapsed()
    }

    /// Starts an outage of this length. In the first half the service closes connections; in the
    /// second half it answers 503 with [`RETRY_AFTER`]. Returns the time at which the outage ends.
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
        Ok(self.elapsed() + length)
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
