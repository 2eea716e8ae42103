//! Hostile services: podbeat ends in time, and reports that something is wrong.

use std::time::Duration;

use podbeat_lab::pki::Authority;
use podbeat_lab::world::{TOKEN, World};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::{Checked, run, settings, world};
use crate::harness::listener::Listener;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Accepts it, and sends nothing.
    Silence,
    /// Closes it at once.
    Close,
    /// Completes the TLS handshake, then sends nothing.
    SilenceBehindTls,
    /// Sends an answer byte by byte, without end.
    Drip,
    /// Sends headers without end.
    HugeHeaders,
    /// Sends a body without end.
    HugeBody,
    /// Sends data that is not HTTP.
    Garbage,
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let identity = authority
        .issue(&["127.0.0.1", "localhost"])
        .expect("issued");
    TlsAcceptor::from(identity.server_config(None).expect("a configuration"))
}

/// A server that does this with every connection.
async fn serve(authority: &Authority, does: Does) -> Listener {
    let acceptor = acceptor(authority);
    Listener::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            match does {
                Does::Close => {}
                Does::Silence => std::future::pending().await,
                _ => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = speak(stream, does).await;
                    }
                }
            }
        }
    })
    .await
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin, does: Does) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    let filler = "x".repeat(10_000);
    match does {
        Does::Drip => loop {
            for byte in b"HTTP/1.1 200 OK\r\nX-Drip: " {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        },
        Does::HugeHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for nth in 0_u64.. {
                stream
                    .write_all(format!("X-{nth}: {filler}\r\n").as_bytes())
                    .await?;
            }
            Ok(())
        }
        Does::HugeBody => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
                .await?;
            loop {
                stream.write_all(filler.as_bytes()).await?;
            }
        }
        Does::Garbage => {
            // In large pieces: a megabyte in TLS records of twenty bytes takes this thread longer
            // than a check may take, and the stand-ins also run on it.
            let garbage = b"\x00\xff\x1b[2J garbage\r\n".repeat(1000);
            loop {
                stream.write_all(&garbage).await?;
            }
        }
        Does::Silence | Does::SilenceBehindTls | Does::Close => std::future::pending().await,
    }
}

/// Three seconds per check: fifteen in all, plus the delay of a busy machine. A check that must
/// pass has the same time.
async fn before(world: &World, more: &[(&str, String)]) -> Checked {
    let mut settings = settings(world);
    for (variable, value) in more {
        settings.insert((*variable).to_owned(), value.clone());
    }
    let checked = run(&settings, &["-o", "json", "--timeout", "3s"]).await;
    assert!(checked.took < Duration::from_secs(15 + 15), "{checked:?}");
    assert_eq!(
        (checked.code, checked.notes.as_str()),
        (1, ""),
        "{checked:?}"
    );
    let shown: String = checked
        .out
        .chars()
        .filter(|c| c.is_control() && *c != '\n')
        .collect();
    assert_eq!(shown, "", "nothing for a terminal to act on");
    checked
}

/// Everything that clients send to a listener before they give up; over TLS with a certificate of
/// this authority, if there is one.
async fn sent_to(world: &World, authority: Option<&Authority>) -> Vec<u8> {
    let acceptor = authority.map(acceptor);
    let (sender, mut received) = tokio::sync::mpsc::channel(64);
    let listener = Listener::start(move |mut stream| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let mut bytes = Vec::new();
            match acceptor {
                None => {
                    // No TLS server begins with this answer.
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                    let _ = stream.read_to_end(&mut bytes).await;
                }
                Some(acceptor) => {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let _ = stream.read_to_end(&mut bytes).await;
                    }
                }
            }
            let _ = sender.send(bytes).await;
        }
    })
    .await;
    before(
        world,
        &[(
            "PODBEAT_SERVICE_URL",
            format!("https://localhost:{}", listener.port),
        )],
    )
    .await;
    // The check and its connections are over. It opened at least two connections: one to look at
    // the certificate, and one with TLS.
    let mut all = Vec::new();
    let first = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
    all.extend(first.expect("a connection came").unwrap_or_default());
    while let Ok(more) = received.try_recv() {
        all.extend(more);
    }
    all
}

#[tokio::test]
async fn no_token_is_sent_to_an_unverified_server() {
    let world = world().await;
    let contains = |bytes: &[u8], text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let plain = sent_to(&world, None).await;
    assert!(!plain.is_empty() && !contains(&plain, TOKEN) && !contains(&plain, "HTTP"));
    let other = Authority::named("another CA").expect("made");
    let behind_tls = sent_to(&world, Some(&other)).await;
    assert_eq!(behind_tls, b"", "empty");
    // The verified service itself receives a request, so the test would notice one.
    let verified = sent_to(&world, Some(&world.authority)).await;
    assert!(contains(&verified, "HEAD / HTTP/1.1"), "{verified:?}");
}

#[tokio::test]
async fn a_hostile_service() {
    let world = world().await;
    for (does, failed) in [
        (Does::Silence, "service.tls"),
        (Does::Close, "service.tls"),
        (Does::SilenceBehindTls, "service.run"),
        (Does::Drip, "service.run"),
        (Does::HugeHeaders, "service.run"),
        (Does::HugeBody, "service.run"),
        (Does::Garbage, "service.run"),
    ] {
        let server = serve(&world.authority, does).await;
        let url = format!("https://localhost:{}", server.port);
        let checked = before(&world, &[("PODBEAT_SERVICE_URL", url)]).await;
        assert_eq!(
            checked.check(failed)["state"],
            "failed",
            "{does:?}: {checked:?}"
        );
        assert_eq!(
            checked.check("kubernetes.pod")["state"],
            "ok",
            "{does:?}: the other checks continue"
        );
    }
}

#[tokio::test]
async fn a_hostile_api_server() {
    let world = world().await;
    for does in [
        Does::Silence,
        Does::Close,
        Does::SilenceBehindTls,
        Does::Drip,
        Does::HugeHeaders,
        Does::HugeBody,
        Does::Garbage,
    ] {
        let server = serve(&world.authority, does).await;
        let checked = before(
            &world,
            &[("KUBERNETES_SERVICE_PORT", server.port.to_string())],
        )
        .await;
        assert_eq!(
            checked.check("kubernetes.api")["state"],
            "failed",
            "{does:?}: {checked:?}"
        );
        assert_eq!(
            checked.check("service.run")["state"],
            "ok",
            "{does:?}: the other checks continue: {checked:?}"
        );
    }
}

#[tokio::test]
async fn an_api_server_of_which_parts_hang() {
    let world = world().await;
    world
        .kube_faults
        .inject("get hang until-lifted".parse().expect("a rule"));
    let checked = before(&world, &[]).await;
    assert_eq!(checked.check("kubernetes.pod")["state"], "failed");
    assert!(
        checked
            .seen("kubernetes.pod")
            .contains("no answer within 3s")
    );
    assert_eq!(checked.check("kubernetes.watch")["state"], "ok");
}
