//! A stand-in proxy that records its requests.

use std::io::Result;
use std::sync::{Arc, Mutex};

use podbeat_lab::pki::Authority;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::listener::{Listener, destination, head, tunnel};

pub(crate) struct Proxy {
    listener: Listener,
    scheme: &'static str,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&heads);
        let listener = Listener::start(move |client| {
            let remembered = Arc::clone(&remembered);
            async move {
                let _ = serve(client, &remembered).await;
            }
        });
        Self {
            listener: listener.await,
            scheme: "http",
            heads,
        }
    }

    /// A proxy with TLS, and a certificate of this authority.
    pub(crate) async fn start_encrypted(authority: &Authority) -> Self {
        let identity = authority.issue(&["127.0.0.1"]).expect("a certificate");
        let acceptor = TlsAcceptor::from(identity.server_config(None).expect("a configuration"));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&heads);
        let listener = Listener::start(move |client| {
            let (remembered, acceptor) = (Arc::clone(&remembered), acceptor.clone());
            async move {
                if let Ok(client) = acceptor.accept(client).await {
                    let _ = serve(client, &remembered).await;
                }
            }
        });
        Self {
            listener: listener.await,
            scheme: "https",
            heads,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "{}://user:hunter2@127.0.0.1:{}",
            self.scheme, self.listener.port
        )
    }

    /// The first lines of all its requests, each once.
    pub(crate) fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("not poisoned");
        let mut lines: Vec<String> = heads
            .iter()
            .map(|head| head.lines().next().expect("a line").to_owned())
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// Whether a request contains a secret that the proxy must not see.
    pub(crate) fn received(&self, secret: &str) -> bool {
        let heads = self.heads.lock().expect("not poisoned");
        heads.iter().any(|head| head.contains(secret))
    }

    /// Whether every request contains the proxy's password.
    pub(crate) fn was_opened(&self) -> bool {
        let heads = self.heads.lock().expect("not poisoned");
        // "user:hunter2"
        let opens = |head: &String| {
            head.to_ascii_lowercase()
                .contains("proxy-authorization: basic dxnlcjpodw50zxiy")
        };
        heads.iter().all(opens)
    }
}

async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<String>>,
) -> Result<()> {
    let head = head(&mut client).await?;
    heads.lock().expect("not poisoned").push(head.clone());
    if head.starts_with("CONNECT ") {
        return tunnel(client, TcpStream::connect(destination(&head)).await?).await;
    }
    let url = head.split(' ').nth(1).unwrap_or_default();
    let host = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next());
    let mut server = TcpStream::connect(host.unwrap_or_default()).await?;
    server.write_all(head.as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
