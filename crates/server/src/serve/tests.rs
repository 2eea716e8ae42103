//! Connections over real sockets.

use std::sync::Arc;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Long enough for anything on this machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
}

/// Reads until the text occurs.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let reading = async {
        let mut bytes = [0; 1024];
        while !text.contains(wanted) {
            let read = stream.read(&mut bytes).await.expect("read");
            assert!(read > 0, "closed after {text:?}");
            text += &String::from_utf8_lossy(&bytes[..read]);
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("in time");
    text
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_stop_waits_for_requests_in_progress_and_closes_idle_connections() {
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, goes_on) = (Arc::clone(&begun), Arc::clone(&goes_on));
        get(async move || {
            begun.notify_one();
            goes_on.notified().await;
            "slow"
        })
    };
    let router = Router::new()
        .route("/slow", slow)
        .route("/fast", get(async || "fast"));
    let server = Server::start(ANY, None, router).await.expect("a server");
    let address = server.address();
    let mut idle = TcpStream::connect(address).await.expect("connected");
    ask(&mut idle, "/fast").await;
    until(&mut idle, "fast").await;
    let mut busy = TcpStream::connect(address).await.expect("connected");
    ask(&mut busy, "/slow").await;
    begun.notified().await;

    let stopping = tokio::spawn(server.stop(LIMIT));
    assert!(is_closed(&mut idle).await);
    // The listener is closed before the idle connections are.
    TcpStream::connect(address).await.expect_err("refused");
    goes_on.notify_one();
    until(&mut busy, "slow").await;
    assert!(is_closed(&mut busy).await);
    assert!(stopping.await.expect("stopped"));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_request_that_never_ends() {
    let begun = Arc::new(Notify::new());
    let never = {
        let begun = Arc::clone(&begun);
        get(async move || {
            begun.notify_one();
            std::future::pending::<&str>().await
        })
    };
    let router = Router::new().route("/", never);
    let server = Server::start(ANY, None, router).await.expect("a server");
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connected");
    ask(&mut stream, "/").await;
    begun.notified().await;
    assert!(!server.stop(Duration::from_millis(200)).await);
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = Server::start(ANY, None, Router::new())
        .await
        .expect("a server");
    let again = Server::start(server.address(), None, Router::new()).await;
    let error = again.expect_err("in use").to_string();
    assert!(error.contains(&server.address().to_string()), "{error}");
}

#[tokio::test]
async fn a_head_that_is_too_large_ends_the_connection() {
    let server = Server::start(ANY, None, Router::new())
        .await
        .expect("a server");
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connected");
    let line = format!("X: {}\r\n", "x".repeat(1000));
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{}", line.repeat(80));
    let _ = stream.write_all(head.as_bytes()).await;
    until(&mut stream, "431").await;
}
