//! An HTTPS server: accepts, shakes hands, and hands requests to a function.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::{Error, io};

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
    pub(crate) async fn start(
        tls: Arc<ServerConfig>,
        handler: Arc<impl Handler>,
        address: IpAddr,
    ) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(tls);
        let listener = TcpListener::bind((address, 0))
            .await
            .map_err(io(format!("binding a port of {address}")))?;
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

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, handler: Arc<impl Handler>) {
    const HANDSHAKE: Duration = Duration::from_secs(10);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        if handler.refuses() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let (acceptor, handler) = (acceptor.clone(), Arc::clone(&handler));
        connections.spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                return;
            };
            let service = service_fn(|request| Arc::clone(&handler).handle(request));
            // An error here is a client that went away, or a scripted end.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
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
