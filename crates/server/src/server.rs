//! The server's process: it listens at once and answers 503, opens the data file, and serves until
//! it is stopped.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use jiff::Timestamp;
use podbeat_interface::exit::Ending;
use podbeat_interface::messages::Seconds;
use podbeat_interface::throttle::Chain;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::Api;
use crate::data::{self, Data};
use crate::keys::{self, Keys};
use crate::launching;
use crate::page;
use crate::serve::{self, Server};
use crate::service::{Options, ProcessClock, Service};
use crate::settings::{BaseUrl, Config};
use crate::store::{self, Observed, Role, Store};
use crate::telemetry::admin::Admin;
use crate::telemetry::messages::Message;
use crate::telemetry::readings::Readings;
use crate::telemetry::traces::{self, Traces};
use crate::tls::{self, Identity};
use crate::tokens;

/// How long the server waits for requests in progress when it stops: less than Kubernetes' default
/// grace period of 30 s.
const STOP: Duration = Duration::from_secs(20);

/// How often the server looks whether the certificate's files changed.
const CERTIFICATE: Duration = Duration::from_secs(30);

/// The tenant and the user of the first token.
const FIRST: (&str, &str) = ("default", "admin");

/// Why the server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    /// TLS itself.
    #[error("cannot use TLS")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The address.
    #[error(transparent)]
    Listen(#[from] serve::Error),
    /// The data file.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The key file.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// The launch file, or the cluster.
    #[error(transparent)]
    Launch(#[from] launching::Error),
    /// The traces.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// A part of the server ended by itself.
    #[error("the server's timer or launcher ended; this is a bug, please report it")]
    Timer(#[source] Option<tokio::task::JoinError>),
}

impl Error {
    /// How the process ends.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Certificate(_)
            | Self::Keys(_)
            | Self::Data(_)
            | Self::Store(_)
            | Self::Launch(_) => Ending::Unread,
            Self::Listen(_) => Ending::Unavailable,
            Self::Tls(_) | Self::Traces(_) | Self::Timer(_) => Ending::Internal,
        }
    }
}

/// Serves until `stopped` is ready. `out` gets the first token.
///
/// # Errors
/// The server can't start.
pub async fn run(
    config: &Config,
    stopped: impl Future<Output = ()>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let started = Instant::now();
    Message::Started {
        version: env!("CARGO_PKG_VERSION"),
        listen: config.listen,
        data: &config.data,
    }
    .emit();
    if let Some(unknown) = &config.unknown {
        Message::UnknownVariables { variables: unknown }.emit();
    }
    let launch = config.launch_file.as_deref().map(launching::load);
    let launch = launch.transpose()?;
    let mut tasks = JoinSet::new();
    let identity = match &config.identity {
        Some((certificate, key)) => Some(Arc::new(Identity::load(certificate, key)?)),
        None => None,
    };
    let tls = identity.as_ref().map(Identity::config).transpose()?;
    if let (Some(identity), Some(files)) = (identity, &config.identity) {
        tasks.spawn(follow_certificate(identity, files.clone()));
    }
    let traces = config
        .otlp_endpoint
        .as_deref()
        .map(Traces::to)
        .transpose()?;
    let readings = Arc::new(Readings::with_traces(traces));
    let base_path = config.url.as_ref().map_or("", |url| &url.path);
    let api = Arc::new(Api::new(base_path).observed(Arc::clone(&readings) as _));
    let router = page::router(Arc::clone(&api)).merge(Arc::clone(&api).router());
    let server = Server::start(config.listen, tls.map(Arc::new), router).await?;
    let url = config.base_url(server.address());
    Message::Listening {
        address: server.address(),
        url: &url.url,
    }
    .emit();
    let admin = Arc::new(Admin::new(
        config,
        Arc::clone(&api),
        Arc::clone(&readings),
        server.connections(),
    ));
    let _endpoint = open_admin(config.admin_listen, Arc::clone(&admin).router()).await;
    tokio::pin!(stopped);
    let clock = ProcessClock::since(started);
    let opening = open(
        config,
        launch.clone(),
        Arc::clone(&readings),
        (&url, clock),
        out,
    );
    let (service, _data) = tokio::select! {
        opened = opening => opened?,
        () = &mut stopped => {
            stop(server, &api, &admin, None).await;
            return Ok(());
        }
    };
    api.serve(Arc::clone(&service));
    Message::Ready {
        live_runs: service.live_runs(),
        seconds: Seconds(started.elapsed()),
    }
    .emit();
    let timed = Arc::clone(&service);
    let mut timer = JoinSet::new();
    timer.spawn(async move { timed.keep_time().await });
    if let Some(launch) = launch {
        // Only this process uses the data file, so no other one launches its runs.
        let launcher = launching::launcher(config, launch, &service, &readings).await?;
        timer.spawn(launcher.run());
    }
    tokio::select! {
        ended = timer.join_next() => return Err(Error::Timer(ended.and_then(Result::err))),
        () = &mut stopped => {}
    }
    stop(server, &api, &admin, Some(&service)).await;
    readings.close().await;
    Ok(())
}

async fn stop(server: Server, api: &Api, admin: &Admin, service: Option<&Service>) {
    Message::Stopping.emit();
    admin.stopping();
    api.end_streams();
    let all_ended = server.stop(STOP).await;
    if let Some(service) = service {
        service.flush().await;
    }
    Message::Stopped {
        unfinished: !all_ended,
    }
    .emit();
}

/// The service depends on no probe, so a port that is taken is no reason to end.
async fn open_admin(address: Option<SocketAddr>, router: Router) -> Option<Server> {
    match Server::start(address?, None, router).await {
        Ok(server) => {
            let address = server.address();
            Message::AdminListening { address }.emit();
            Some(server)
        }
        Err(error) => {
            Message::CannotListen {
                error: &Chain(&error),
            }
            .emit();
            None
        }
    }
}

async fn open(
    config: &Config,
    launch: Option<podbeat_launch::settings::Settings>,
    readings: Arc<Readings>,
    (url, clock): (&BaseUrl, ProcessClock),
    out: &mut dyn Write,
) -> Result<(Arc<Service>, Data), Error> {
    let mut data = Data::open_alone(&config.data, || {
        Message::DataFileInUse { data: &config.data }.emit();
    })
    .await?;
    let store: Arc<dyn Store> = Arc::new(Observed::new(data.store(), readings));
    let keys = open_keys(&config.secrets_key_file, &data, &*store).await?;
    data.use_with(&keys, &config.secrets_key_file)?;
    let options = Options {
        rules: launching::rules(config.rules, launch.as_ref()),
        url: url.url.clone(),
        token_lifetime: config.token_lifetime,
        live_runs: config.live_runs,
        creates_per_minute: config.creates_per_minute,
        retention: config.retention,
        retained_runs: config.retained_runs,
        launch,
    };
    if store.tokens().await?.is_empty() {
        first_token(config, &*store, url, out).await?;
    }
    let service = Service::start(store, keys, Arc::new(clock), options).await?;
    Ok((Arc::new(service), data))
}

/// A new key file makes the tokens of all agents invalid, and the secrets of all runs unreadable.
/// So only a store without runs that was used with no key gets one.
async fn open_keys(path: &Path, data: &Data, store: &dyn Store) -> Result<Keys, Error> {
    let runs: u64 = store.counts().await?.iter().map(|(_, runs)| runs).sum();
    if (runs > 0 || data.has_known_keys()) && !path.exists() {
        return Err(keys::Error::Lost {
            path: path.to_owned(),
        }
        .into());
    }
    Ok(Keys::load(path)?)
}

/// Creates a token for the first user, and prints it. In a pod, the output is a log that others
/// read, so the server only says how to create one.
async fn first_token(
    config: &Config,
    store: &dyn Store,
    url: &BaseUrl,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let (tenant, user) = FIRST;
    if config.in_pod {
        Message::NoToken {
            command: "kubectl exec POD -- /podbeat-server token create --tenant default --user admin --role admin",
        }
        .emit();
        return Ok(());
    }
    let created = tokens::create(tenant, user, Role::Admin, Timestamp::now(), None)?;
    store.add_token(created.token).await?;
    let text = welcome(&config.data, &url.url, created.text.expose());
    // If nobody reads it, `podbeat-server token create` creates another one.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// What the first start prints.
#[must_use]
pub fn welcome(data: &Path, url: &str, token: &str) -> String {
    format!(
        "\nThis is the first start with {}. The token of the first administrator, which is shown only \
         now:\n\n  {token}\n\nWeb page: {url}/\n\nTry in another terminal:\n\n  \
         export PODBEAT_SERVICE_URL={url} PODBEAT_TOKEN={token}\n  \
         run=$(podbeat runs create --name first --image busybox -o name)\n  \
         podbeat runs heartbeat $run --container main=terminated:0 --last\n  \
         podbeat runs list\n\n",
        data.display()
    )
}

/// Reads the certificate again when its files change.
async fn follow_certificate(identity: Arc<Identity>, files: (PathBuf, PathBuf)) {
    let mut known = changed(&files);
    loop {
        tokio::time::sleep(CERTIFICATE).await;
        let now = changed(&files);
        if now == known {
            continue;
        }
        let reloading = Arc::clone(&identity);
        let reloaded = tokio::task::spawn_blocking(move || reloading.reload()).await;
        match reloaded {
            Ok(Ok(is_other)) => {
                known = now;
                if is_other {
                    Message::CertificateReloaded { file: &files.0 }.emit();
                }
            }
            // Perhaps only one of the files was replaced yet. The next time reads them again.
            Ok(Err(error)) => {
                known = now;
                Message::CertificateUnusable {
                    error: &Chain(&error),
                }
                .emit();
            }
            Err(_) => {}
        }
    }
}

/// When the files changed.
fn changed((certificate, key): &(PathBuf, PathBuf)) -> [Option<SystemTime>; 2] {
    let of = |path: &PathBuf| std::fs::metadata(path).ok()?.modified().ok();
    [of(certificate), of(key)]
}
