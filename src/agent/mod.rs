//! The shell: sockets, files, signals and time around the core, and too simple to be wrong. Here
//! lives the wiring of one agent, its delivery to the service, its journal, and what it logs of the
//! core's decisions. Never here: a decision. What is sent, when, and how it ends is said by
//! `heartbeat::machine`.

mod delivery;
mod durable_file;
mod journal;
mod markers;
mod pod_event;
mod report;
mod throttle;

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

/// How long the end of the process waits for the journal, and for a token that is being handed on.
/// The kubelet's SIGKILL may be near.
const LAST_WRITE: Duration = Duration::from_millis(250);

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client of the service can't be set up from the settings.
    #[error("cannot use the settings of the task-run service")]
    Service(#[from] podbeat_task_runs::error::Error),
    /// There is no nonce in its file.
    #[error(transparent)]
    Nonce(#[from] nonce::Unusable),
    /// The system gives no random numbers.
    #[error("cannot get random numbers from the system")]
    Entropy,
}

impl Error {
    /// How the process ends for it.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Service(_) | Self::Nonce(_) => Ending::Usage,
            Self::Entropy => Ending::Internal,
        }
    }
}

/// Something that an onlooker, such as a test or the demo, may want to see. The agent needs none.
pub trait Onlooker {
    /// The core said something.
    fn note(&mut self, note: &Note);
    /// An attempt begins.
    fn attempt(&mut self, attempt: &Attempt);
}

/// Looks at nothing.
impl Onlooker for () {
    fn note(&mut self, _: &Note) {}
    fn attempt(&mut self, _: &Attempt) {}
}

/// Runs one agent to its end.
///
/// `signals` brings one item for each SIGTERM or SIGINT; its handlers must be set before this is
/// called.
///
/// # Errors
/// Only before the first heartbeat, for settings that can't be used. After that nothing ends the
/// agent but its task.
pub async fn run(
    config: &Config,
    mut signals: impl Stream<Item = ()> + Unpin,
    mut onlooker: impl Onlooker,
) -> Result<Ending, Error> {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed()?);
    let trace = delivery::trace(config, &mut rng);
    let mut log = Report::started(config, trace.map(|trace| trace.trace_id));
    // Its port is taken before anything else is begun. It ends when it is dropped here.
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
        // Signals first: nothing else may keep one waiting. Every branch is cancel-safe: the
        // futures stay in their places when another branch wins, and a channel or stream loses
        // nothing when its wait is dropped.
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

/// Waits for a future that may not be there. Cancel-safe: the future stays where it is.
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

/// A seed from the system's random numbers, through the crypto provider that is here anyway.
fn seed() -> Result<u64, Error> {
    let mut seed = [0; 8];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut seed).map_err(|_| Error::Entropy)?;
    Ok(u64::from_ne_bytes(seed))
}

/// How the client of the service is to be set up.
fn tls(config: &Config) -> client::Tls {
    client::Tls {
        ca_file: config.ca_file.clone(),
        identity: config
            .client_cert_file
            .clone()
            .zip(config.client_key_file.clone()),
    }
}
