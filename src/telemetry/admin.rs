//! The admin endpoint: probes, metrics and status over HTTP/1.1, bounded in all that a client can
//! take.
//!
//! It takes no part in what podbeat is for: if its port can't be had, podbeat goes on without it,
//! and no client of it, slow or hostile, holds a heartbeat up.

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

/// Connections that are served at once: kubelet's three probes, two scrapers, a few people. One
/// more takes the place of the oldest, so that clients that dawdle never keep a probe out.
const CONNECTIONS: usize = 16;

/// How long a connection is left alone before a newer one may take its place: a client that has
/// connected sends its request within that. It also bounds what a storm of connections costs, at
/// 1600 a second, so that a probe that comes behind as many others as the kernel keeps waiting
/// (1024) is still answered within the second that kubelet gives it.
const LEFT_ALONE: Duration = Duration::from_millis(10);

/// The largest head of a request, in bytes, and with it what a connection may buffer. hyper allows
/// no less.
const HEAD: usize = 8 * 1024;

/// How long a client may take to send it.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may last: one request, and its answer of some kilobytes.
const CONNECTION: Duration = Duration::from_secs(10);

/// The wait after accept() failed, most likely because the process has no file descriptor left: an
/// error that lasts must not spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

const TEXT: &str = "text/plain; charset=utf-8";

/// The paths, and what each tells.
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

/// Serves until it is dropped, and its connections with it.
#[derive(Debug)]
pub struct Endpoint {
    serving: JoinHandle<()>,
}

impl Endpoint {
    /// Takes the port and begins to serve, if the settings ask for it, and makes the instruments
    /// that it shows. If the port can't be had, that is logged, and there are none.
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
        // The set of connections lives in the task, and goes with it.
        self.serving.abort();
    }
}

/// Takes the port. Says which one it is, if the system chose it.
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
                // Once: a lack that comes and goes would fill the log.
                if std::mem::replace(&mut told, true) {
                    debug!(%error, "the admin endpoint cannot accept connections");
                } else {
                    Message::CannotAcceptConnections { error: &error }.emit();
                }
                // It may be ours that use up what is missing.
                connections.drop_oldest();
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// The connections that are being served, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// All but those that were dropped and have not ended yet.
    by_age: VecDeque<(Instant, AbortHandle)>,
}

impl Connections {
    /// Waits until one has ended; without any, for ever. Cancel-safe, as the set's own wait is.
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

    /// Waits until one more may come, and ends the oldest for it if need be.
    async fn make_room(&mut self) {
        while self.tasks.len() >= CONNECTIONS {
            let left_alone_until = match self.by_age.front() {
                Some((since, _)) if self.by_age.len() >= CONNECTIONS => *since + LEFT_ALONE,
                // One was dropped, and ends when its task is next polled.
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

/// Answers one request. No part of its body is read.
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
        // Plain data: there is nothing in it that can't be printed.
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

    /// A connection that is being served, in memory, so that time may be paused.
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
        // Nothing else ends the oldest now: its head would be awaited for longer.
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
