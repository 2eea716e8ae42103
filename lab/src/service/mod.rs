//! A stand-in for the task-run service: the real service, behind a layer for tests and development.
//! The layer has faults, and a record of the received heartbeats with their contract violations. The
//! service in it accepts tokens of any form, and refuses bodies that violate the contract, also where
//! podbeat-server is tolerant. The fleet puts the layer in front of a podbeat-server process.

mod launch;
pub(crate) mod layer;
mod local;
mod received;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use podbeat_runs::Rules;
use podbeat_server::data::Data;
use podbeat_server::keys::{self, Keys};
use podbeat_server::launching;
use podbeat_server::service::{self as server, Clock, ProcessClock};
use podbeat_server::store::{Memory, Store};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::launch::Launch;
use self::layer::Layer;
use self::local::Local;
pub use self::received::Heartbeat;
use crate::Error;
use crate::contract::Contract;
use crate::fault::Faults;
use crate::pki::Authority;
use crate::serve::{Bound, Server};

/// So long that it never passes: a hundred years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a run waits for its next attempt: longer than the largest wait of a Job between two pods
/// (six minutes).
const RETRY_WAIT: Duration = Duration::from_secs(15 * 60);

/// How long it waits for a data file that another process uses, which may be about to end.
const DATA: Duration = Duration::from_secs(10);

/// Generates a token for development from the system's random bytes.
///
/// # Errors
/// The system has no random bytes.
pub fn made_up_token() -> Result<String, Error> {
    Ok(format!("lab-{}", keys::random_hex::<16>()?))
}

/// The stand-in's options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The bearer tokens that it accepts.
    pub tokens: BTreeSet<String>,
    /// A path before `/v1`, such as `/ica`.
    pub base_path: String,
    /// The known runs; `None` for any run: the first heartbeat of an unknown run creates it.
    pub runs: Option<BTreeSet<String>>,
    /// Whether clients must present a certificate of the authority.
    pub mutual_tls: bool,
    /// Its address and host name; `None` for `localhost`.
    pub place: Option<(IpAddr, String)>,
    /// Its port; 0 for a free one.
    pub port: u16,
    /// The first and the last day of its certificate; `None` for a long time.
    pub certificate_holds: Option<(Date, Date)>,
    /// After this long without a heartbeat, a running run is TimedOut; `None` for never.
    pub heartbeat_timeout: Option<Duration>,
    /// Answers heartbeats with a token for their run, valid for this long; `None` for no tokens.
    pub renew_tokens: Option<Duration>,
    /// The file that stores runs across restarts, with its key beside it; `None` for memory only.
    pub data: Option<PathBuf>,
    /// How it launches runs; `None` if others create the pods.
    pub launch: Option<Launch>,
    /// Its limits.
    pub limits: Limits,
}

/// The stand-in's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The number of runs: of those that have not ended, and of all that are kept.
    pub runs: u32,
    /// The recorded heartbeats of one run; the newest are kept.
    pub heartbeats_of_run: usize,
    /// The recorded heartbeats of all runs; 0 for no record.
    pub heartbeats: usize,
    /// The bodies of the recorded heartbeats, in bytes.
    pub heartbeat_bytes: usize,
}

impl Default for Limits {
    /// Enough for twice the ten thousand pods of a large fleet, and for a test that inspects every
    /// heartbeat of a long life.
    fn default() -> Self {
        Self {
            runs: 20_000,
            heartbeats_of_run: 10_000,
            heartbeats: 100_000,
            heartbeat_bytes: 256 << 20,
        }
    }
}

impl Options {
    /// Accepts one token, for any run.
    #[must_use]
    pub fn with_token(token: &str) -> Self {
        Self {
            tokens: BTreeSet::from([token.to_owned()]),
            ..Self::default()
        }
    }

    /// The options of the service at this address.
    fn of_server(&self, url: &str) -> server::Options {
        let launch = self.launch.as_ref().map(|launch| launch.settings_at(url));
        let rules = Rules {
            heartbeat_timeout: self.heartbeat_timeout.unwrap_or(NEVER),
            // Without evidence of Kubernetes, nothing waits for it.
            evidence_wait: match launch {
                Some(_) => Rules::DEFAULT.evidence_wait,
                None => Duration::ZERO,
            },
            retry_wait: RETRY_WAIT,
            ..Rules::DEFAULT
        };
        server::Options {
            rules: launching::rules(rules, launch.as_ref()),
            url: url.to_owned(),
            token_lifetime: self.renew_tokens.unwrap_or(NEVER),
            live_runs: self.limits.runs.into(),
            creates_per_minute: u64::MAX,
            retention: NEVER,
            retained_runs: self.limits.runs.into(),
            launch,
        }
    }

    async fn open(&self) -> Result<Opened, Error> {
        let Some(path) = &self.data else {
            return Ok(Opened {
                store: Arc::new(Memory::default()),
                keys: Keys::temporary()?,
                data: None,
            });
        };
        let opened = tokio::time::timeout(DATA, Data::open_alone(path, || {}));
        let data = opened.await.map_err(|_| Error::InVain {
            what: format!("the data file {}", path.display()),
            waited: DATA,
            seen: "another process uses it".to_owned(),
        })??;
        let mut key = path.clone().into_os_string();
        key.push(".key");
        Ok(Opened {
            store: data.store(),
            keys: Keys::load(Path::new(&key))?,
            data: Some(data),
        })
    }
}

/// What the service needs to start.
struct Opened {
    store: Arc<dyn Store>,
    keys: Keys,
    data: Option<Data>,
}

/// How many heartbeats of a run were received since the start, including those that are no longer
/// kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All heartbeats.
    pub received: u64,
    /// The accepted heartbeats.
    pub accepted: u64,
}

/// The stand-in. It ends when dropped.
#[derive(Debug)]
pub struct Service {
    url: String,
    port: u16,
    layer: Arc<Layer<Local>>,
    server: Option<Server>,
    /// The service's clock and its launcher. They stop when dropped.
    tasks: JoinSet<()>,
    /// No other process uses the file until this is dropped.
    data: Option<Data>,
}

impl Service {
    /// Starts it over TLS on a free port, on loopback unless the options differ.
    ///
    /// # Errors
    /// There is no free port, no certificate, or the data file can't be used.
    pub async fn start(
        authority: &Authority,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let loopback = || (IpAddr::from(Ipv4Addr::LOCALHOST), "localhost".to_owned());
        let (address, host) = options.place.clone().unwrap_or_else(loopback);
        let clients = options.mutual_tls.then_some(authority);
        let tls = authority
            .issue_for(
                &[&address.to_string(), &host, "0.0.0.0"],
                options.certificate_holds,
            )?
            .server_config(clients)?;
        let bound = Bound::to((address, options.port).into()).await?;
        let url = format!("https://{host}:{}", bound.address().port());
        Self::at(bound, &url, Some(tls), contract, faults, options).await
    }

    /// Starts it over plain HTTP, for development only.
    ///
    /// # Errors
    /// The address is in use, or the data file can't be used.
    pub async fn start_plain(
        listen: SocketAddr,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let bound = Bound::to(listen).await?;
        let url = format!("http://{}", bound.address());
        Self::at(bound, &url, None, contract, faults, options).await
    }

    async fn at(
        bound: Bound,
        url: &str,
        tls: Option<Arc<ServerConfig>>,
        contract: Contract,
        faults: Faults,
        options: Options,
    ) -> Result<Self, Error> {
        let url = format!("{url}{}", options.base_path);
        let Opened { store, keys, data } = options.open().await?;
        let clock = Arc::new(ProcessClock::since(Instant::now()));
        let now = clock.now().wall;
        for run in options.runs.iter().flatten() {
            // The caller named them, so no limit applies.
            local::create(&*store, run, u64::MAX, now).await?;
        }
        let token = local::token(&*store, now).await?;
        let of_server = options.of_server(&url);
        let rules = of_server.rules;
        let service = server::Service::start(store, keys, Arc::clone(&clock) as _, of_server);
        let service = Arc::new(service.await?);
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&service);
        tasks.spawn(async move { kept.keep_time().await });
        if let Some(launch) = &options.launch {
            let launcher = launch.launcher(&service, &url, rules).await?;
            tasks.spawn(launcher.run());
        }
        let port = bound.address().port();
        let local = Local::new(service, clock, token, contract.clone(), &options);
        let (base_path, limits) = (&options.base_path, options.limits);
        let layer = Arc::new(Layer::new(local, contract, faults, base_path, limits));
        Ok(Self {
            url,
            port,
            server: Some(bound.serve(tls, Arc::clone(&layer))),
            layer,
            tasks,
            data,
        })
    }

    /// Kills it: its requests, its clock and its launcher end in the middle of what they do. The
    /// record of heartbeats stays.
    pub async fn kill(&mut self) {
        self.server = None;
        self.tasks.shutdown().await;
        self.data = None;
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base URL with the base path.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Every received heartbeat that is kept, in order.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.layer.state().received.iter().cloned().collect()
    }

    /// Issues a nonce for an attempt of a run, as the service does when it launches the attempt.
    ///
    /// # Errors
    /// There is no such run, or it does not accept the attempt.
    pub async fn issue_nonce(&self, run_id: &str, number: u32, nonce: &str) -> Result<(), Error> {
        let service = &self.layer.behind.service;
        Ok(service.launched(run_id, number, nonce).await?)
    }

    /// The kept heartbeats that were accepted.
    #[must_use]
    pub fn accepted(&self) -> Vec<Heartbeat> {
        self.heartbeats()
            .into_iter()
            .filter(|heartbeat| heartbeat.accepted)
            .collect()
    }

    /// A run's status as on the wire; `None` if there is no such run.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn status(&self, run_id: &str) -> Result<Option<&'static str>, Error> {
        let run = self
            .layer
            .behind
            .service
            .store()
            .run(run_id.to_owned())
            .await?;
        Ok(run.map(|run| run.run.status().name()))
    }

    /// The details of a run's status.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn details(&self, run_id: &str) -> Result<Option<String>, Error> {
        let store = self.layer.behind.service.store();
        let run = store.run(run_id.to_owned()).await?;
        Ok(run.and_then(|run| run.run.details().map(str::to_owned)))
    }

    /// How many heartbeats of a run were received. The cost is constant.
    #[must_use]
    pub fn count(&self, run_id: &str) -> Count {
        self.layer
            .state()
            .counts
            .get(run_id)
            .copied()
            .unwrap_or_default()
    }

    /// When the first accepted heartbeat arrived that is as wanted and arrived at `since` or later,
    /// if it is still kept. Both times are since [`Self::started`]. Copies nothing, and reads
    /// nothing older than `since`.
    #[must_use]
    pub fn first_accepted(
        &self,
        run_id: &str,
        since: Duration,
        wanted: impl Fn(&Heartbeat) -> bool,
    ) -> Option<Duration> {
        let state = self.layer.state();
        let newer = state.received.of_run(run_id);
        newer
            .map(|(_, heartbeat)| heartbeat)
            .take_while(|heartbeat| heartbeat.at >= since)
            .filter(|heartbeat| heartbeat.accepted && wanted(heartbeat))
            .last()
            .map(|heartbeat| heartbeat.at)
    }

    /// The start of its heartbeats' time base.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.layer.started
    }

    /// The contract violations in received bodies.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.heartbeats()
            .into_iter()
            .flat_map(|heartbeat| heartbeat.violations)
            .collect()
    }

    /// The largest number of concurrent requests of one run.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.layer.state().most_in_flight
    }

    /// Accepts only these tokens from now on.
    pub fn set_tokens(&self, tokens: &[&str]) {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        self.layer.behind.set_tokens(tokens);
    }

    /// Sets the `Date` of the answers this many seconds ahead, or behind if negative.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.layer.state().clock_ahead = seconds;
    }

    /// Counts heartbeats as they arrive, for callers that wait for each one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.layer.changes.subscribe()
    }

    /// Waits until the received heartbeats are as wanted, and returns them.
    ///
    /// # Errors
    /// They are not as wanted within `limit`.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&[Heartbeat]) -> bool,
    ) -> Result<Vec<Heartbeat>, Error> {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let heartbeats = self.heartbeats();
                if reached(&heartbeats) {
                    return heartbeats;
                }
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_| Error::InVain {
                what: what.to_owned(),
                waited: limit,
                seen: format!("{:#?}", self.heartbeats()),
            })
    }
}
