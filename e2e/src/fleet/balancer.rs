//! A TCP load balancer in front of the API server. It can drop its connections while the API server
//! continues.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::{Error, io};

/// Relays connections until it is dropped.
pub(super) struct Balancer {
    pub(super) port: u16,
    cut: Arc<Notify>,
    _accepting: JoinSet<()>,
}

impl Balancer {
    /// Relays to a port of this machine.
    pub(super) async fn start(to: u16) -> Result<Self, Error> {
        const LISTENING: &str = "listening for agents";
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(io(LISTENING))?;
        let port = listener.local_addr().map_err(io(LISTENING))?.port();
        let cut = Arc::new(Notify::new());
        let mut accepting = JoinSet::new();
        let of_connections = Arc::clone(&cut);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(relay(client, to, Arc::clone(&of_connections)));
            }
        });
        Ok(Self {
            port,
            cut,
            _accepting: accepting,
        })
    }

    /// Closes all open connections. It still accepts new ones.
    pub(super) fn drop_all(&self) {
        self.cut.notify_waiters();
    }
}

async fn relay(mut client: TcpStream, to: u16, cut: Arc<Notify>) {
    // Registered before the first await, so that no open connection misses the notification.
    let cut = cut.notified();
    let relayed = async {
        let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
        copy_bidirectional(&mut client, &mut server).await
    };
    tokio::select! {
        () = cut => {}
        _ = relayed => {}
    }
}
