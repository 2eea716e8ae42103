//! A server for HTTPS or plain HTTP. It accepts connections, does the handshakes, and passes
//! requests to a function.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use podbeat_server::serve::Impatient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::{Error, io as failed};

/// The most connections at once: more than the ten thousand agents of a large fleet.
const MOST_CONNECTIONS: usize = 16_384;

/// How long a connection may wait for a request: longer than the idle timeouts of common load
/// balancers (240 s).
const IDLE: Duration = Duration::from_secs(300);

/// How long a client may leave sent data unread. After that the client is gone, or it only occupies
/// a stream.
const UNREAD: Duration = Duration::from_secs(30);

/// An answer's body: complete, or a stream that can break off.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The result of a request: an answer, or a closed connection without one.
pub(crate) type Outcome = Result<Response<Body>, CutOff>;

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer by a scripted fault")]
pub(crate) struct CutOff;

/// Answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whether to close a new connection before its handshake.
    fn refuses(&self) -> bool;
    /// How many seconds the answers' clock is ahead; negative if it is behind.
    fn clock_ahead(&self) -> i64 {
        0
    }
    /// Answers one request. The future is dropped if the client disconnects.
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Outcome> + Send;
}

/// An address that is bound, so that a handler can know it before the first request.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    pub(crate) async fn to(address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(failed(format!("listening on {address}")))?;
        let address = listener
            .local_addr()
            .map_err(failed("asking for the bound port"))?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests: with TLS, or with plain HTTP if `tls` is `None`.
    pub(crate) fn serve(
        self,
        tls: Option<Arc<ServerConfig>>,
        handler: Arc<impl Handler>,
    ) -> Server {
        let acceptor = tls.map(TlsAcceptor::from);
        Server {
            address: self.address,
            accepting: tokio::spawn(accept(self.listener, acceptor, handler)),
        }
    }
}

/// A server. It ends, with its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The task owns the connections, so they end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, handler: Arc<impl Handler>) {
    const HANDSHAKE: Duration = Duration::from_secs(10);
    /// The wait after a failed accept, because the system has no resources for a connection.
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
        let stream = Impatient::new(stream, UNREAD);
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
    let service = service_fn(|request| {
        let handler = Arc::clone(&handler);
        async move {
            let ahead = handler.clock_ahead();
            let mut response = handler.handle(request).await?;
            if ahead != 0
                && let Some(date) = date(ahead)
            {
                response.headers_mut().insert(http::header::DATE, date);
            }
            Ok::<_, CutOff>(response)
        }
    });
    // An error here is a client that disconnected, or a scripted end.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The time this many seconds ahead, as a `Date`.
fn date(ahead: i64) -> Option<http::HeaderValue> {
    let at = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::from_secs(ahead))
        .ok()?;
    let text = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .ok()?;
    text.parse().ok()
}

/// A complete answer.
pub(crate) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    answer(status, content_type, body)
}

/// A streamed answer. A part is requested only when there is room for it, so nothing accumulates
/// for a slow client.
pub(crate) fn stream(
    content_type: &str,
    parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let body = StreamBody::new(parts.map(|part| part.map(Frame::data)));
    answer(200, content_type, body.boxed_unsync())
}

/// An answer that begins with this text, and never ends.
pub(crate) fn flood(begins: &'static str) -> Response<Body> {
    const PART: &[u8] = &[b'x'; 64 << 10];
    let parts = futures_util::stream::iter([begins.as_bytes()])
        .chain(futures_util::stream::repeat(PART))
        .map(|part| Ok(Bytes::from_static(part)));
    stream("application/json", parts)
}

fn answer(status: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    response
}

pub(crate) fn json(status: u16, body: &serde_json::Value) -> Response<Body> {
    whole(status, "application/json", body.to_string())
}
