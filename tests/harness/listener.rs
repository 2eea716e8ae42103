//! A small server, and functions to make a proxy of it.

use std::io::Result;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// This machine, by an address that is not loopback, because loopback uses no proxy. The stand-ins'
/// certificates include it.
pub(crate) const AWAY: &str = "0.0.0.0";

/// A server on a port of loopback that does the same with every connection. It ends when dropped,
/// with its connections.
pub(crate) struct Listener {
    pub(crate) port: u16,
    _accepting: JoinSet<()>,
}

impl Listener {
    pub(crate) async fn start<Done: Future<Output = ()> + Send + 'static>(
        mut serve: impl FnMut(TcpStream) -> Done + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self {
            port,
            _accepting: accepting,
        }
    }
}

/// The head of a request.
pub(crate) async fn head(client: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8(head).expect("text"))
}

/// The destination of the tunnel that a client requests from a proxy.
pub(crate) fn destination(head: &str) -> &str {
    head.strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default()
}

/// Accepts the tunnel, and copies in both directions.
pub(crate) async fn tunnel(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: TcpStream,
) -> Result<()> {
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Requires the proxy's password.
pub(crate) async fn refuse(mut client: TcpStream) -> Result<()> {
    client
        .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        .await
}
