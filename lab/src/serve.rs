//! A server of HTTPS, or of plain HTTP: accepts, shakes hands, and hands requests to a function.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::{Error, io};

/// The most connections at once: above the ten thousand agents of a large fleet.
const MOST_CONNECTIONS: usize = 16_384;

/// How long a connection may wait for a request: above the idle time-outs of common load balancers (240 s).
const IDLE: Duration = Duration::from_secs(300);

/// An answer's body: whole, or a stream that may break off.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What is done with a request: an answer, or the connection's end without one.
pub(crate) type Outcome = Result<Response<Body>, CutOff>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer, as the script demands")]
pub(crate) struct CutOff;

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whether a new connection is closed before its handshake.
    fn refuses(&self) -> bool;
    /// Answers one request. Dropped if the client goes away.
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Outcome> + Send;
}

/// A server that ends when dropped, with its connections.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens on `address`, plainly if there is no TLS for it.
    pub(crate) async fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: Arc<impl Handler>,
        address: SocketAddr,
    ) -> Result<Self, Error> {
        let acceptor = tls.map(TlsAcceptor::from);
        let listener = TcpListener::bind(address)
            .await
            .map_err(io(format!("listening on {address}")))?;
        let address = listener.local_addr().map_err(io("asking for the bound port"))?;
        let accepting = tokio::spawn(accept(listener, acceptor, handler));
        Ok(Self { address, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The set of connections lives in the task, and goes with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, handler: Arc<impl Handler>) {
    const HANDSHAKE: Duration = Duration::from_secs(10);
    /// Between two tries, where the system has no more of what a connection takes.
    const EXHAUSTED: Duration = Duration::from_millis(50);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(EXHAUSTED).await;
            continue;
        };
        if handler.refuses() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
        connections.spawn(async move {
            let Some(acceptor) = acceptor else {
                return serve(stream, handler).await;
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                serve(stream, handler).await;
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send, handler: Arc<impl Handler>) {
    let service = service_fn(|request| Arc::clone(&handler).handle(request));
    // An error here is a client that went away, or a scripted end.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = content_type.parse() {
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, content_type);
    }
    response
}

pub(crate) fn json(status: u16, body: &serde_json::Value) -> Response<Body> {
    whole(status, "application/json", body.to_string())
}
