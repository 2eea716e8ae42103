//! Listens, and passes requests to a router. Everything that a client can take is bounded:
//! connections, the time of handshakes and headers, unread data.

mod impatient;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub use self::impatient::Impatient;

/// The maximum number of connections: more than the ten thousand agents of a large fleet.
const CONNECTIONS: usize = 16_384;

/// The limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may wait for a request, and a request for the end of its headers: longer
/// than the idle timeouts of common load balancers (240 s).
const IDLE: Duration = Duration::from_secs(300);

/// How long a client may leave sent data unread. After that the client is gone.
const UNREAD: Duration = Duration::from_secs(30);

/// The maximum size of a request's head, in bytes.
const HEAD: usize = 64 << 10;

/// The wait after the system had no resources for a connection.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose a free address of this host")]
pub struct Error {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// A server. It ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The task owns the connections, so they end with it.
        self.serving.abort();
    }
}

impl Server {
    /// Listens, with TLS if there is a configuration for it.
    ///
    /// # Errors
    /// The address is not available.
    pub async fn start(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        router: Router,
    ) -> Result<Self, Error> {
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::default();
        let serving = tokio::spawn(accept(
            listener,
            tls.map(TlsAcceptor::from),
            router,
            stopped,
            Arc::clone(&connections),
        ));
        Ok(Self {
            address: bound,
            connections,
            stop,
            serving,
        })
    }

    /// The address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections)
    }

    /// Accepts no more connections, and waits for requests in progress, at most so long. Returns
    /// whether all of them ended.
    pub async fn stop(mut self, most: Duration) -> bool {
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout(most, &mut self.serving).await;
        ended.is_ok()
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        open.store(connections.len(), Ordering::Relaxed);
        let accepted = tokio::select! {
            // The sender lives as long as the server.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(EXHAUSTED).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, UNREAD);
        let (acceptor, router) = (acceptor.clone(), router.clone());
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let Some(acceptor) = acceptor else {
                return serve(stream, router, watcher).await;
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                serve(stream, router, watcher).await;
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    watcher: Watcher,
) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error is a client that disconnected.
    let _ = watcher.watch(connection).await;
}

#[cfg(test)]
mod tests;
