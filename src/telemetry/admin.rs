//! The admin endpoint: probes, metrics and status over HTTP/1.1. Everything that a client can use
//! is limited.
//!
//! podbeat does not depend on this endpoint. If it cannot bind the port, podbeat continues without
//! it, and no client, slow or hostile, can delay a heartbeat.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::instruments::{Instruments, Panel};
use super::probes::{self, Reasons};
use super::{metrics, status};
use crate::config::Config;
use podbeat_interface::messages::Message;

/// The maximum number of connections: three probes of the kubelet, two scrapers, a few people. An
/// additional connection replaces the oldest, so that slow clients cannot block a probe.
const CONNECTIONS: usize = 16;

/// The age at which a newer connection may replace a connection. A connected client sends its
/// request within this time. It also limits the cost of a flood to 1600 connections per second. So
/// even a probe behind a full accept queue (1024 connections) gets its answer within the kubelet's
/// timeout of one second.
const LEFT_ALONE: Duration = Duration::from_millis(10);

/// The maximum size of a request's head in bytes, and so the buffer of a connection. It is hyper's
/// minimum.
const HEAD: usize = 8 * 1024;

/// How long a client may take to send the head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may last: one request, and its response of some kilobytes.
const CONNECTION: Duration = Duration::from_secs(10);

/// The wait after accept() failed, because a lasting error must not cause a busy loop. The most
/// likely cause is that the process has no free file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

const TEXT: &str = "text/plain; charset=utf-8";

/// The paths and their descriptions.
const PATHS: [(&str, &str); 6] = [
    ("/", "this list"),
    ("/livez", "200 while podbeat's main loop runs"),
    (
        "/readyz",
        "200 while podbeat sees the pod and the service accepts heartbeats, otherwise 503 with the reasons",
    ),
    ("/startupz", "200 after podbeat started the first heartbeat"),
    ("/metrics", "metrics, as OpenMetrics"),
    (
        "/status",
        "what podbeat last saw, sent and received, as JSON",
    ),
];

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "cannot listen on {address}; check whether another process uses the port, for example on the host's network"
    )]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Serves until it is dropped. Dropping it also closes the connections.
#[derive(Debug)]
pub struct Endpoint {
    serving: JoinHandle<()>,
}

impl Endpoint {
    /// Binds the port, starts to serve, and returns the instruments that the endpoint shows. If the
    /// settings have no address, or the port cannot be bound, which is logged, there is no endpoint
    /// and the instruments are off.
    pub async fn open(config: &Config) -> (Option<Self>, Instruments) {
        let Some(address) = config.listen else {
            return (None, Instruments::off());
        };
        match listen(address).await {
            Ok((listener, address)) => {
                Message::Listening { address }.emit();
                let panel = Panel::new(config);
                let instruments = Instruments::on(&panel);
                let serving = tokio::spawn(accept(listener, panel));
                (Some(Self { serving }), instruments)
            }
            Err(error) => {
                let Error::Bind { source, .. } = &error;
                Message::CannotListen {
                    setting: "PODBEAT_LISTEN",
                    error: &error,
                    cause: source,
                }
                .emit();
                (None, Instruments::off())
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The task owns the set of connections, so they end with it.
        self.serving.abort();
    }
}

/// Binds the port, and returns the actual address, because the system may have chosen the port.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind.await.map_err(|source| Error::Bind { address, source })
}

async fn accept(listener: TcpListener, panel: Arc<Panel>) {
    let mut connections = Connections::default();
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.ended() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.make_room().await;
                connections.serve(stream, Arc::clone(&panel));
            }
            Err(error) => {
                // Log this once, because an intermittent shortage would fill the log.
                if std::mem::replace(&mut told, true) {
                    debug!(%error, "the admin endpoint cannot accept connections");
                } else {
                    Message::CannotAcceptConnections { error: &error }.emit();
                }
                // The connections may themselves use the missing resource.
                connections.drop_oldest();
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// All except those that were dropped but have not ended yet.
    by_age: VecDeque<(Instant, AbortHandle)>,
}

impl Connections {
    /// Waits until a connection ends, or forever if there is none. Cancel-safe, because the set's
    /// own wait is.
    async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                };
                self.by_age.retain(|(_, connection)| connection.id() != id);
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until there is room for one more connection, and ends the oldest if necessary.
    async fn make_room(&mut self) {
        while self.tasks.len() >= CONNECTIONS {
            let left_alone_until = match self.by_age.front() {
                Some((since, _)) if self.by_age.len() >= CONNECTIONS => *since + LEFT_ALONE,
                // One was dropped. It ends when its task is next polled.
                Some(_) | None => {
                    self.ended().await;
                    continue;
                }
            };
            tokio::select! {
                () = self.ended() => {}
                () = sleep_until(left_alone_until) => self.drop_oldest(),
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, oldest)) = self.by_age.pop_front() {
            oldest.abort();
        }
    }

    fn serve(&mut self, stream: TcpStream, panel: Arc<Panel>) {
        let task = self.tasks.spawn(serve(stream, panel));
        self.by_age.push_back((Instant::now(), task));
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send, panel: Arc<Panel>) {
    let service = service_fn(|request| {
        let answer = answer(&panel, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_header_size(HEAD)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection to the admin endpoint ended"),
        Err(_) => debug!("a connection to the admin endpoint took too long"),
    }
}

/// Answers one request. It never reads the request's body.
fn answer<B>(panel: &Arc<Panel>, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !PATHS.iter().any(|(known, _)| *known == path) {
        return plain(StatusCode::NOT_FOUND, "no such path; / lists them\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => probe(&probes::live(panel)),
        "/readyz" => probe(&probes::ready(panel)),
        "/startupz" => probe(&probes::started(panel)),
        "/metrics" => whole(
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics::text(panel).map(Bytes::from),
        ),
        "/status" => whole("application/json", status::json(panel).map(Bytes::from)),
        _ => plain(StatusCode::OK, list()),
    }
}

fn list() -> String {
    PATHS
        .iter()
        .map(|(path, meaning)| format!("{path}\t{meaning}\n"))
        .collect()
}

fn probe(reasons: &Reasons) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        plain(StatusCode::OK, "ok\n")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, reasons.text())
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, TEXT, text.into())
}

fn whole<E>(content_type: &'static str, body: Result<Bytes, E>) -> Response<Full<Bytes>> {
    match body {
        Ok(body) => response(StatusCode::OK, content_type, body),
        // Cannot happen: the data is always printable.
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "it could not be printed\n",
        ),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::instruments::tests::instruments;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A served connection in memory, so that tests can pause time.
    fn connect(buffer: usize) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(buffer);
        (client, tokio::spawn(serve(server, instruments().1)))
    }

    async fn ask(request: &str) -> String {
        let (mut client, _serving) = connect(1 << 16);
        client.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("text");
        answer
    }

    #[tokio::test]
    async fn every_path_has_an_answer_and_the_list_names_it() {
        let list = ask("GET / HTTP/1.1\r\nHost: p\r\n\r\n").await;
        for (path, _) in PATHS {
            let answer = ask(&format!("GET {path}?q HTTP/1.1\r\nHost: p\r\n\r\n")).await;
            let status = match path {
                "/readyz" | "/startupz" => "503",
                _ => "200",
            };
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{path}: {answer}"
            );
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            assert!(list.contains(&format!("\n{path}\t")), "{list}");
            let head = ask(&format!("HEAD {path} HTTP/1.1\r\nHost: p\r\n\r\n")).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && head.ends_with("\r\n\r\n"),
                "{head}"
            );
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_without_reading_a_body() {
        for (request, status) in [
            ("GET /metric HTTP/1.1\r\nHost: p\r\n\r\n", "404"),
            ("GET /livez/ HTTP/1.1\r\nHost: p\r\n\r\n", "404"),
            ("OPTIONS * HTTP/1.1\r\nHost: p\r\n\r\n", "404"),
            (
                "POST /livez HTTP/1.1\r\nHost: p\r\nContent-Length: 1000000\r\n\r\n",
                "405",
            ),
            ("DELETE /status HTTP/1.1\r\nHost: p\r\n\r\n", "405"),
            ("\u{1}\u{2}\u{3}\r\n\r\n", "400"),
        ] {
            let answer = ask(request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request:?}: {answer}"
            );
            assert_eq!(
                answer.contains("\r\nallow: GET, HEAD\r\n"),
                status == "405",
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_head_of_more_than_8_kib_is_refused() {
        let head = format!(
            "GET /livez HTTP/1.1\r\nHost: p\r\nX: {}\r\n\r\n",
            "x".repeat(HEAD)
        );
        let answer = ask(&head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let large = format!(
            "GET /livez HTTP/1.1\r\nHost: p\r\nX: {}\r\n\r\n",
            "x".repeat(HEAD / 2)
        );
        assert!(ask(&large).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_doesnt_come_is_awaited_for_5_s() {
        for sent in ["", "GET /livez HTTP/1.1\r\nHost: "] {
            let begun = Instant::now();
            let (mut client, serving) = connect(1 << 16);
            client.write_all(sent.as_bytes()).await.expect("written");
            serving.await.expect("ended");
            let took = begun.elapsed();
            assert!(
                took >= HEAD_WITHIN && took < CONNECTION,
                "{sent:?}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_after_10_s() {
        let begun = Instant::now();
        let (mut client, serving) = connect(64);
        client
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n")
            .await
            .expect("written");
        serving.await.expect("ended");
        assert_eq!(begun.elapsed().as_secs(), CONNECTION.as_secs());
    }

    #[tokio::test]
    async fn a_17th_connection_takes_the_place_of_the_oldest() {
        let (listener, address) = listen("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("a port");
        let serving = tokio::spawn(accept(listener, instruments().1));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(address).await.expect("connected"));
        }
        let mut probe = TcpStream::connect(address).await.expect("connected");
        probe
            .write_all(b"GET /livez HTTP/1.1\r\nHost: p\r\n\r\n")
            .await
            .expect("written");
        let mut answer = String::new();
        timeout(LIMIT, probe.read_to_string(&mut answer))
            .await
            .expect("in time")
            .expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        // Only the new connection can have ended the oldest: its head timeout is longer.
        let mut end = [0];
        let ended = timeout(HEAD_WITHIN / 2, idle[0].read(&mut end)).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
        serving.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_names_it() {
        let (_holder, address) = listen("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("a port");
        let error = listen(address).await.expect_err("taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
