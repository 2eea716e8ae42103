//! What becomes of a request that its client gave up while the network held it.

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

/// The end of the request below, which no receive buffer below reaches.
const END: &[u8] = b"the end\"}";

/// A service that takes no more than some KiB from the network until it reads.
fn service() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    socket.listen(16).expect("a listener")
}

/// Sends it a heartbeat that is larger and given up after `attempt`, by a client that was set up with `patience`. What of it the
/// service didn't take yet is left to the client's kernel.
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

/// What the service reads once it reads on.
async fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A connection that was reset brings what came before.
    let _ = timeout(LIMIT, stream.read_to_end(&mut read))
        .await
        .expect("an end");
    read
}

/// Whether the client's kernel still has something to send from this port.
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
async fn what_is_given_up_leaves_the_network_too() {
    let attempt = Duration::from_millis(500);
    // Long after it was given up, the system sends it on.
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
