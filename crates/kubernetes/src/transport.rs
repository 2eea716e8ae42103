//! The way to the API server from a pod, under kube's client: one connection, which trusts the cluster's CA and nothing else, and
//! the service account's token. `Carrier` is what the way from a laptop has in common with it.
//!
//! It shares its code with the service's client and nothing more: neither roots nor token of the one ever reach the other. kube's own
//! stack would be a second one in every pod (HTTP, TLS, and all that reads a kubeconfig: 2 MB of binary).

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

/// A connection without a request is closed after this time, well before kube-apiserver does it (90 s) or a load balancer forgets
/// it without a word: the look before the last heartbeat must not go out on one that is dead.
const IDLE: Duration = Duration::from_secs(60);

/// An answer that goes on without a byte for longer than this is over. Longer than any watch is asked to last, since a server may send
/// no bookmarks.
const SILENT: Duration = Duration::from_secs(295);

/// After this time Linux gives up what the API server does not acknowledge.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The kubelet replaces a projected token when four fifths of its life are over (of an hour, mostly), and the CA now and then. Both are
/// read again when they were read longer ago than this and a request is to be made.
const FRESH: Duration = Duration::from_secs(60);

/// How long a file may take. The volume is in memory, and yet nothing may hold the watch up.
const READING: Duration = Duration::from_secs(2);

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the service account can't be read.
    #[error(
        "reading {} for the Kubernetes API: is the service account's volume mounted, and readable for this user?",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The files don't come.
    #[error(
        "reading token and ca.crt in {} for the Kubernetes API: no end within {}; does the volume hang?",
        dir.display(), humantime::format_duration(READING)
    )]
    Hangs {
        /// The directory.
        dir: PathBuf,
    },
    /// The token can't be sent.
    #[error("the service account's token in {} is no line of visible ASCII characters", path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The CA can't be used.
    #[error("the cluster's CA in {} holds no certificate: a file of PEM, as the ConfigMap kube-root-ca.crt has it, is needed", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The client can't be set up.
    #[error("setting up the connection to the Kubernetes API with the CA in {}: is it whole PEM?", path.display())]
    Setup {
        /// The CA's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Requests of kube's client, over a client of one destination: of their URI, path and query count.
#[derive(Clone)]
pub(super) struct Carrier(http_client::Client);

impl Carrier {
    /// Connects to nothing yet.
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
        let body = body.collect_bytes().await?;
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

/// What kube's client takes for an error.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Over a [`Carrier`], with the service account's token. Cheap to clone: the clones share connection and files.
#[derive(Clone)]
pub(super) struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    /// Holds `token` and `ca.crt`.
    dir: PathBuf,
    held: Mutex<Held>,
    /// Something failed that newer files may cure.
    doubted: AtomicBool,
}

struct Held {
    carrier: Carrier,
    authorization: HeaderValue,
    ca: Vec<u8>,
    read_at: Instant,
    /// A reading that took too long, so that no second one joins it.
    slow: Option<JoinHandle<Result<Files, Error>>>,
}

struct Files {
    authorization: HeaderValue,
    ca: Vec<u8>,
}

impl Transport {
    /// Reads token and CA; connects to nothing yet.
    ///
    /// # Errors
    /// A file is unreadable, or not what it should be.
    pub(super) async fn new(route: Route, dir: &Path) -> Result<Self, Error> {
        let files = reading(dir);
        let files = match timeout(READING, files).await {
            Ok(Ok(files)) => files?,
            // A read that panicked, or a runtime that ends.
            Ok(Err(_)) | Err(_) => return Err(Error::Hangs { dir: dir.to_owned() }),
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
    /// Client and token of the moment. Files that can't be read any more leave those in use that were read before: the API server
    /// tells when they no longer do, and whoever signs in again then is told what is wrong with the files.
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
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
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

/// On a thread that may wait.
fn reading(dir: &Path) -> JoinHandle<Result<Files, Error>> {
    let (token, ca) = (dir.join("token"), dir.join("ca.crt"));
    tokio::task::spawn_blocking(move || {
        let text = read(&token, regular_file::LINE)?;
        let text = trimmed::bytes(&text);
        let mut authorization = HeaderValue::from_bytes(&[b"Bearer ", text].concat())
            .ok()
            .filter(|_| text.iter().all(u8::is_ascii_graphic) && !text.is_empty())
            .ok_or(Error::Token { path: token })?;
        // In no log of headers.
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
