//! What happens to a request that its client gave up while the network delayed it.

use std::net::SocketAddr;
use std::time::Duration;

use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::error::Error;
use podbeat_task_runs::model::HeartbeatTaskRunRequest;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::harness::LIMIT;
use crate::harness::server::token;

/// The end of the request below. No receive buffer below reaches it.
const END: &[u8] = b"the end\"}";

/// A service that accepts only a few KiB from the network until it reads.
fn service() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    socket.listen(16).expect("a listener")
}

/// Sends a larger heartbeat to this service with a client that was created with `patience`, and
/// gives it up after `attempt`. The client's kernel keeps the part that the service has not
/// received yet.
async fn given_up(attempt: Duration, patience: Duration) -> TcpStream {
    let service = service();
    let address = service.local_addr().expect("an address");
    let url = format!("http://{address}").parse().expect("a URL");
    let client = Client::new(url, &Tls::default(), patience).expect("a client");
    let heartbeat = HeartbeatTaskRunRequest {
        pod_hardware_details: Some(format!("{}the end", "x".repeat(32 * 1024))),
        ..HeartbeatTaskRunRequest::default()
    };
    let error = client
        .heartbeat("trn.1", &heartbeat, &token(), attempt)
        .await
        .expect_err("nobody answers");
    assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
    let (stream, _) = service.accept().await.expect("the connection");
    stream
}

/// What the service receives when it continues to read.
async fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset connection still delivers what came before.
    let _ = timeout(LIMIT, stream.read_to_end(&mut read))
        .await
        .expect("an end");
    read
}

/// Whether the client's kernel still has a connection on this port.
fn lives(client: SocketAddr) -> bool {
    let port = format!(":{:04X}", client.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the table of connections");
    table.lines().any(|line| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|local| local.ends_with(&port))
    })
}

#[tokio::test]
async fn a_timed_out_request_leaves_the_network() {
    let attempt = Duration::from_millis(500);
    // Long after the client gave the request up, the system still sends it.
    let stream = given_up(attempt, LIMIT).await;
    assert!(read(stream).await.ends_with(END));

    let stream = given_up(attempt, attempt).await;
    let client = stream.peer_addr().expect("an address");
    timeout(LIMIT, async {
        while lives(client) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the system gives it up");
    let read = read(stream).await;
    assert!(
        read.starts_with(b"POST ") && !read.ends_with(END),
        "{}",
        read.len()
    );
}
