//! The shell: sockets, files, signals and time around the core. It is simple enough to be obviously
//! correct. This module connects the parts of one agent: delivery to the service, journal, pod
//! watch, and the log of the core's decisions. It makes no decisions. `heartbeat::machine` decides
//! what is sent, when, and how the process ends.

mod delivery;
mod durable_file;
mod journal;
mod markers;
mod pod_event;
mod report;

#[cfg(fuzzing)]
pub use journal::fuzz as read_journal;

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use delivery::{Delivery, Outcome};
use futures_util::{Stream, StreamExt};
use journal::Journal;
use markers::Markers;
use pod_event::Watcher;
use podbeat_heartbeat::machine::{Action, Attempt, Event, Look, Machine, Note, Settings};
use podbeat_interface::clock::{present, until};
use podbeat_interface::exit::Ending;
use podbeat_interface::nonce::{self, NonceSource};
use podbeat_task_runs::{self, client};
use report::Report;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Config;
use crate::telemetry::admin::Endpoint;

/// How long the process waits at its end for the journal and for the file of the renewed token. The
/// kubelet's SIGKILL may be near.
const LAST_WRITE: Duration = Duration::from_millis(250);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings do not allow a client for the service.
    #[error("cannot use the settings of the task-run service")]
    Service(#[from] podbeat_task_runs::error::Error),
    /// The nonce file has no usable nonce.
    #[error(transparent)]
    Nonce(#[from] nonce::Unusable),
    /// The system returned no random numbers.
    #[error("cannot get random numbers from the system")]
    Entropy,
}

impl Error {
    /// The ending of the process for this error.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Service(_) | Self::Nonce(_) => Ending::Usage,
            Self::Entropy => Ending::Internal,
        }
    }
}

/// Receives events for tests or the demo. The agent itself does not need them.
pub trait Onlooker {
    /// The core reported something.
    fn note(&mut self, note: &Note);
    /// An attempt begins.
    fn attempt(&mut self, attempt: &Attempt);
}

/// Ignores all events.
impl Onlooker for () {
    fn note(&mut self, _: &Note) {}
    fn attempt(&mut self, _: &Attempt) {}
}

/// Runs one agent until it ends.
///
/// `signals` yields one item for each SIGTERM or SIGINT. The caller must install the signal
/// handlers before it calls this function.
///
/// # Errors
/// Only before the first heartbeat, if the settings are not usable. Later, only the end of the task
/// ends the agent.
pub async fn run(
    config: &Config,
    mut signals: impl Stream<Item = ()> + Unpin,
    mut onlooker: impl Onlooker,
) -> Result<Ending, Error> {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed()?);
    let trace = delivery::trace(config, &mut rng);
    let mut log = Report::started(config, trace.map(|trace| trace.trace_id));
    // Bind the port before anything else starts. Dropping the endpoint ends it.
    let (_endpoint, instruments) = Endpoint::open(config).await;
    let (mut journal, left) =
        Journal::open(config, fastrand::Rng::with_seed(seed()?), &instruments).await;
    let settings = settings(config, journal.is_kept())?;
    let mut machine = match left.machine {
        Some(saved) => Machine::resume(settings, seed()?, saved, present(start)),
        None => Machine::new(settings, seed()?),
    };
    instruments.seen(machine.last_seen());
    let mut delivery = Delivery::new(config, left.renewed_token, trace, rng, &instruments)?;

    let (sender, mut pod_events) = mpsc::channel(pod_event::WAITING);
    let mut watcher = Some(Watcher::spawn(config, sender, seed()?, &instruments));
    let mut in_flight: Option<Pin<Box<dyn Future<Output = Outcome> + Send>>> = None;
    let mut look: Option<Pin<Box<dyn Future<Output = Look> + Send>>> = None;
    let mut count: Option<Pin<Box<dyn Future<Output = Option<i32>> + Send>>> = None;
    let mut markers = Markers::new(config);
    let mut reading: Option<Pin<Box<dyn Future<Output = markers::Read> + Send>>> = None;
    let mut begun = Duration::ZERO;
    let mut wake: Option<Duration> = None;
    let mut event = Event::Started;
    loop {
        let now = present(start);
        markers.expect(&event);
        for action in machine.on(event, now) {
            match action {
                Action::Send(attempt) => {
                    onlooker.attempt(&attempt);
                    instruments.sending(&attempt);
                    log.attempt(&attempt, delivery.new_span());
                    begun = now.elapsed;
                    in_flight = Some(delivery.begin(attempt, &mut journal));
                }
                Action::Persist(saved) => journal.persist(*saved),
                Action::Abort => {
                    if in_flight.take().is_some() {
                        delivery.gave_up(now.elapsed.saturating_sub(begun));
                        instruments.gave_up();
                    }
                }
                Action::LookAtPod(limit) => look = Some(Watcher::look(watcher.as_ref(), limit)),
                Action::CountRetries(job) => count = Some(Watcher::count(watcher.as_ref(), job)),
                Action::ReadMarkers => {
                    reading.get_or_insert_with(|| markers.read());
                }
                Action::WakeAt(at) => wake = at,
                Action::HurryWatch => {
                    if let Some(watcher) = &watcher {
                        watcher.hurry();
                    }
                }
                Action::StopWatching => {
                    watcher = None;
                    pod_events.close();
                    instruments.watch_ended();
                }
                Action::Note(note) => {
                    log.note(&note, now.elapsed);
                    instruments.note(&note);
                    onlooker.note(&note);
                }
                Action::End(end) => {
                    for written in [journal.written(), delivery.handed_on()]
                        .into_iter()
                        .flatten()
                    {
                        written.within(LAST_WRITE).await;
                    }
                    return Ok(log.ended(&end, machine.losses(), start.elapsed()));
                }
            }
        }
        instruments.learned(machine.pod_uid());
        instruments.turned(machine.snapshot(now.elapsed), wake.map(|wake| start + wake));
        // Signals first, so that nothing else can delay them. Every branch is cancel-safe: if
        // another branch is ready first, the futures stay in their variables, and dropping the wait
        // on a channel or stream loses no items.
        event = tokio::select! {
            biased;
            Some(()) = signals.next() => Event::Signal,
            outcome = finished(&mut in_flight) => {
                in_flight = None;
                delivery.conclude(outcome, &mut journal)
            }
            looked = finished(&mut look) => {
                look = None;
                Event::Looked(looked)
            }
            counted = finished(&mut count) => {
                count = None;
                Event::Retries(counted)
            }
            read = finished(&mut reading) => {
                reading = None;
                markers.conclude(read)
            }
            Some(event) = pod_events.recv() => event,
            () = until(start, wake) => Event::Woke,
        };
    }
}

/// Waits for a future that may not exist. Cancel-safe: the future stays in its variable.
async fn finished<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn settings(config: &Config, journaled: bool) -> Result<Settings, Error> {
    let nonce = config.nonce.as_ref().map(NonceSource::nonce).transpose()?;
    let mut settings = config.reporting.settings(&config.pod_name);
    settings.identity.pod_uid.clone_from(&config.pod_uid);
    settings
        .identity
        .pod_hardware_details
        .clone_from(&config.pod_hardware_details);
    Ok(Settings {
        nonce,
        timeout: config.timeout,
        journaled,
        markers: config.marker_dir.is_some(),
        ..settings
    })
}

/// Returns a seed from the system's random numbers. The crypto provider is linked anyway.
fn seed() -> Result<u64, Error> {
    let mut seed = [0; 8];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut seed).map_err(|_| Error::Entropy)?;
    Ok(u64::from_ne_bytes(seed))
}

/// The TLS settings for the client of the service.
fn tls(config: &Config) -> client::Tls {
    client::Tls {
        ca_file: config.ca_file.clone(),
        identity: config
            .client_cert_file
            .clone()
            .zip(config.client_key_file.clone()),
    }
}
