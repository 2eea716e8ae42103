//! The way to the API server from a pod, below kube's client: one connection that trusts only the
//! cluster's CA, with the service account's token. `Carrier` is the part that the way from a
//! laptop also uses.
//!
//! The service's client uses the same code, but neither roots nor tokens are shared. kube's own
//! stack would be a second one in every pod (HTTP, TLS, and everything for a kubeconfig: 2 MB of
//! binary).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use kube::client::Body;
use podbeat_files::{regular_file, trimmed};
use podbeat_http_client::route::Route;
use podbeat_http_client::tls::{Encryption, Means, Unfit};
use podbeat_http_client::{self as http_client, Answer, Seen};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long an idle connection is kept. kube-apiserver closes it after 90 s, and load balancers may
/// drop it silently. This limit is much shorter, because the look before the last heartbeat must
/// not use a dead connection.
const IDLE: Duration = Duration::from_secs(60);

/// A response without a new byte for longer than this ends. This is longer than any watch, because
/// a server may send no bookmarks.
const SILENT: Duration = Duration::from_secs(295);

/// If the API server does not acknowledge data within this time, Linux gives up the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The kubelet replaces a projected token after four fifths of its lifetime (usually an hour), and
/// sometimes the CA. A request first reads both files again if the last read was longer ago than
/// this.
const FRESH: Duration = Duration::from_secs(60);

/// Limit for reading the files. Their volume is in memory, but nothing may block the watch.
const READING: Duration = Duration::from_secs(2);

/// Why there is no connection to the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the service account can't be read.
    #[error(
        "cannot read {} for the Kubernetes API; check that the service account's volume is mounted and readable for this user",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Reading the files takes too long.
    #[error(
        "cannot read token and ca.crt in {} for the Kubernetes API within {}; check whether the volume hangs",
        dir.display(), humantime::format_duration(READING)
    )]
    Hangs {
        /// The directory.
        dir: PathBuf,
    },
    /// The token can't be sent.
    #[error("the service account's token in {} is not one line of visible ASCII characters", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The CA file contains no certificate.
    #[error("the cluster's CA in {} contains no certificate; it must be a PEM file, as in the ConfigMap kube-root-ca.crt", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The client can't be set up.
    #[error("cannot use the CA in {} for the Kubernetes API; check that its PEM is complete", path.display())]
    Setup {
        /// The CA's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sends requests of kube's client to one destination. Only the path and the query of their URI are
/// used.
#[derive(Clone)]
pub(super) struct Carrier(http_client::Client);

impl Carrier {
    /// Creates a client without opening a connection.
    pub(super) fn new(route: Route, tls: Encryption) -> Self {
        Self(http_client::Client::new(http_client::Settings {
            route,
            tls,
            idle: IDLE,
            silent: Some(SILENT),
            unacknowledged: Some(UNACKNOWLEDGED),
        }))
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Answer>, Failed> {
        let (parts, body) = request.into_parts();
        // Not kube's error itself: its texts would be 90 KB of the image, because it also reports
        // wrong YAML.
        let body = body.collect_bytes().await;
        let body = body.map_err(|_| "cannot read the body of the request")?;
        let request = Request::from_parts(parts, Full::new(body));
        Ok(self.0.send(request, &Seen::default()).await?)
    }
}

impl tower_service::Service<Request<Body>> for Carrier {
    type Response = Response<Answer>;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let carrier = self.clone();
        async move { carrier.exchange(request).await }.boxed()
    }
}

/// The error type that kube's client accepts.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A [`Carrier`] that adds the service account's token. It is cheap to clone, and clones share the
/// connection and the files.
#[derive(Clone)]
pub(super) struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    /// The directory with `token` and `ca.crt`.
    dir: PathBuf,
    held: Mutex<Held>,
    /// Whether a request failed in a way that newer files may fix.
    doubted: AtomicBool,
}

struct Held {
    carrier: Carrier,
    authorization: HeaderValue,
    ca: Vec<u8>,
    read_at: Instant,
    /// A read that took too long. The next refresh waits for it instead of starting another one.
    slow: Option<JoinHandle<Result<Files, Error>>>,
}

struct Files {
    authorization: HeaderValue,
    ca: Vec<u8>,
}

impl Transport {
    /// Reads the token and the CA. Does not open a connection.
    ///
    /// # Errors
    /// A file can't be read or has the wrong content.
    pub(super) async fn new(route: Route, dir: &Path) -> Result<Self, Error> {
        let files = reading(dir);
        let files = match timeout(READING, files).await {
            Ok(Ok(files)) => files?,
            // The read panicked, or the runtime is shutting down.
            Ok(Err(_)) | Err(_) => {
                return Err(Error::Hangs {
                    dir: dir.to_owned(),
                });
            }
        };
        let held = Held {
            carrier: carrier(&route, &files.ca, dir)?,
            authorization: files.authorization,
            ca: files.ca,
            read_at: Instant::now(),
            slow: None,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                route,
                dir: dir.to_owned(),
                held: Mutex::new(held),
                doubted: AtomicBool::new(false),
            }),
        })
    }
}

impl Shared {
    /// Returns the current client and token. If the files can't be read any more, the old ones stay
    /// in use: the API server rejects them when they expire, and signing in again then reports what
    /// is wrong with the files.
    async fn current(&self) -> (Carrier, HeaderValue) {
        let mut held = self.held.lock().await;
        if self.doubted.swap(false, Ordering::Relaxed) || held.read_at.elapsed() >= FRESH {
            held.read_at = Instant::now();
            held.refresh(&self.route, &self.dir).await;
        }
        (held.carrier.clone(), held.authorization.clone())
    }

    async fn exchange(&self, mut request: Request<Body>) -> Result<Response<Answer>, Failed> {
        let (carrier, authorization) = self.current().await;
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, authorization);
        let answered = carrier.exchange(request).await;
        let doubtful = match &answered {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            // The CA may have been replaced.
            Err(error) => matches!(error.downcast_ref(), Some(http_client::Error::Connect(_))),
        };
        if doubtful {
            self.doubted.store(true, Ordering::Relaxed);
        }
        answered
    }
}

impl Held {
    async fn refresh(&mut self, route: &Route, dir: &Path) {
        let mut files = self.slow.take().unwrap_or_else(|| reading(dir));
        let Ok(read) = timeout(READING, &mut files).await else {
            self.slow = Some(files);
            return;
        };
        let Ok(Ok(files)) = read else { return };
        if files.ca != self.ca {
            let Ok(carrier) = carrier(route, &files.ca, dir) else {
                return;
            };
            self.carrier = carrier;
            self.ca = files.ca;
        }
        self.authorization = files.authorization;
    }
}

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<Answer>;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        async move { shared.exchange(request).await }.boxed()
    }
}

/// Reads the files on a thread that may block.
fn reading(dir: &Path) -> JoinHandle<Result<Files, Error>> {
    let (token, ca) = (dir.join("token"), dir.join("ca.crt"));
    tokio::task::spawn_blocking(move || {
        let text = read(&token, regular_file::LINE)?;
        let text = trimmed::bytes(&text);
        let mut authorization = HeaderValue::from_bytes(&[b"Bearer ", text].concat())
            .ok()
            .filter(|_| text.iter().all(u8::is_ascii_graphic) && !text.is_empty())
            .ok_or(Error::Token { path: token })?;
        // So that no log of headers contains it.
        authorization.set_sensitive(true);
        Ok(Files {
            authorization,
            ca: trimmed::pem(&read(&ca, regular_file::PEM)?),
        })
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    regular_file::read(path, most).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn carrier(route: &Route, ca: &[u8], dir: &Path) -> Result<Carrier, Error> {
    let path = dir.join("ca.crt");
    let setup = |source: Failed| Error::Setup {
        path: path.clone(),
        source,
    };
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca).collect();
    let roots = roots.map_err(|error| setup(error.into()))?;
    if roots.is_empty() {
        return Err(Error::NoCertificate { path });
    }
    let means = |roots| Means::new(Some(roots), None).and_then(Means::config);
    let tls = Encryption::new(route, || means(roots.clone()), &roots);
    let tls = tls.map_err(|error: Unfit| setup(error.into()))?;
    Ok(Carrier::new(route.clone(), tls))
}
