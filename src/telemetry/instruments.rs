//! The instruments that the agent updates, for the readings that metrics, probes and status show.
//!
//! Without PODBEAT_LISTEN, nobody reads them. Then there are no readings, and the methods do
//! nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::machine::{Attempt, Note, Snapshot};
use podbeat_task_runs::model::ContainerStatus;
use tokio::time::Instant;

use super::readings::{Readings, Reply};
use crate::config::Config;
use podbeat_interface::own_process;

/// A handle to the instruments. It is cheap to clone, and all clones update the same instruments.
#[derive(Clone, Debug, Default)]
pub struct Instruments(Option<Arc<Panel>>);

impl Instruments {
    /// No instruments: counts nothing and allocates nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn on(panel: &Arc<Panel>) -> Self {
        Self(Some(Arc::clone(panel)))
    }

    /// Records a message of the core.
    pub fn note(&self, note: &Note) {
        self.with(|readings| readings.note(note));
    }

    /// Records the core's state after an event, and when its loop runs again at the latest. `None`
    /// if the loop only waits for events.
    pub fn turned(&self, snapshot: Snapshot, turns_again: Option<Instant>) {
        self.with(|readings| {
            readings.snapshot = Some((snapshot, Instant::now()));
            readings.turns_again = turns_again;
        });
    }

    /// Records the last known state of each reported container, from an earlier process.
    pub fn seen(&self, statuses: &[ContainerStatus]) {
        self.with(|readings| statuses.iter().for_each(|status| readings.seen(status)));
    }

    /// Records the pod's UID, if the settings do not have it.
    pub fn learned(&self, uid: Option<&str>) {
        self.with(|readings| {
            if readings.pod_uid.is_none() {
                readings.pod_uid = uid.map(str::to_owned);
            }
        });
    }

    /// Records that the watch ended because podbeat no longer needs it.
    pub fn watch_ended(&self) {
        self.with(|readings| readings.watch_ended = true);
    }

    /// Records that an attempt is prepared.
    pub fn sending(&self, attempt: &Attempt) {
        self.with(|readings| readings.sending(attempt));
    }

    /// Records that an attempt began, or that there was no token for it.
    pub fn begun(&self) {
        self.with(|readings| readings.begun = true);
    }

    /// Records the outcome of the attempt.
    pub fn replied(&self, reply: Reply, took: Duration) {
        self.with(|readings| readings.replied(reply, took));
    }

    /// Records that the attempt timed out and was aborted.
    pub fn gave_up(&self) {
        self.with(Readings::gave_up);
    }

    /// Records when the token of this attempt expires, if the token contains that.
    pub fn token_expires(&self, at: Option<Timestamp>) {
        self.with(|readings| readings.token_expires = at);
    }

    /// Counts a list of the pod by the API server.
    pub fn listed(&self) {
        self.with(|readings| readings.resyncs += 1);
    }

    /// Counts a restart of the watch.
    pub fn watch_restarted(&self) {
        self.with(|readings| readings.watch_restarts += 1);
    }

    /// Counts a request to the Kubernetes API that was rejected, failed or got no answer.
    pub fn kubernetes_failed(&self) {
        self.with(|readings| readings.watch_errors += 1);
    }

    /// Counts a failed write of the journal or the renewed token.
    pub fn write_failed(&self) {
        self.with(|readings| readings.journal_errors += 1);
    }

    fn with(&self, change: impl FnOnce(&mut Readings)) {
        if let Some(panel) = &self.0 {
            change(&mut panel.readings());
        }
    }
}

/// All instruments of one process.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) about: About,
    pub(super) started: Instant,
    pub(super) started_at: Timestamp,
    /// When the kernel started the process, in seconds since 1970.
    pub(super) process_started: Option<f64>,
    readings: Mutex<Readings>,
}

/// The values that never change.
#[derive(Debug)]
pub(super) struct About {
    pub(super) task_run_id: String,
    pub(super) pod_name: String,
    pub(super) pod_namespace: Option<String>,
    pub(super) interval: Duration,
    pub(super) max_status_age: Duration,
    pub(super) dry_run: bool,
}

impl Panel {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            about: About {
                task_run_id: config.task_run_id.clone(),
                pod_name: config.pod_name.clone(),
                pod_namespace: config.pod_namespace.clone(),
                interval: config.reporting.interval,
                max_status_age: config.reporting.max_status_age,
                dry_run: config.dry_run,
            },
            started: Instant::now(),
            started_at: Timestamp::now(),
            process_started: own_process::started_at(),
            readings: Mutex::new(Readings::new(config.pod_uid.clone())),
        })
    }

    /// The current readings. Never keep the guard across an await.
    pub(super) fn readings(&self) -> MutexGuard<'_, Readings> {
        // If a panic interrupted an update, the numbers are still valid.
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use podbeat_heartbeat::machine::Losses;
    use podbeat_heartbeat::outbox::Kind;
    use podbeat_heartbeat::saved::LastHeartbeat;
    use podbeat_interface::environment::Flags;

    use super::*;

    /// Instruments of a pod `p`, and their panel.
    pub(in crate::telemetry) fn instruments() -> (Instruments, Arc<Panel>) {
        let settings = BTreeMap::from(
            [
                ("TASK_RUN_ID", "trn.\"1\"\\"),
                ("POD_NAME", "p"),
                ("POD_UID", "u1"),
                ("PODBEAT_SERVICE_URL", "https://ica.example"),
                ("PODBEAT_TOKEN", "secret"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let panel =
            Panel::new(&Config::load(&Flags::default(), &settings).expect("right settings"));
        (Instruments::on(&panel), panel)
    }

    pub(in crate::telemetry) fn snapshot() -> Snapshot {
        Snapshot {
            backlog: 0,
            losses: Losses::default(),
            status_age: Some(Duration::ZERO),
            gone: false,
            final_is_due: false,
            last_heartbeat: LastHeartbeat::Open,
            journaled: false,
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_kept() {
        let off = Instruments::off();
        off.note(&Note::Accepted(1, Kind::First));
        off.replied(Reply::Success, Duration::ZERO);
        assert!(off.0.is_none());
    }
}
