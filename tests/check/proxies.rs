//! The way to the service through a proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Settings, check, plain_service, settings, world};

/// A proxy that makes tunnels for whoever knows the password, and passes plain requests on to a port of this machine.
async fn proxy(plain: Option<u16>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let _ = pass_on(stream, plain).await;
            });
        }
    });
    (port, task)
}

async fn pass_on(mut stream: TcpStream, plain: Option<u16>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default();
    // "user:hunter2"
    let knows = head.lines().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("proxy-authorization") && value == "Basic dXNlcjpodW50ZXIy"
        })
    });
    if !knows {
        return stream
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            .await;
    }
    let mut service;
    if head.starts_with("CONNECT ") {
        service = TcpStream::connect(target).await?;
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await?;
    } else {
        // The whole URL, as a proxy needs it (RFC 9112, 3.2.2).
        assert!(head.contains(" http://ica.lab.example/"), "{head}");
        service = TcpStream::connect(("127.0.0.1", plain.unwrap_or_default())).await?;
        service.write_all(head.as_bytes()).await?;
    }
    copy_bidirectional(&mut stream, &mut service).await?;
    Ok(())
}

fn by(settings: &mut Settings, proxy: String) {
    settings.insert("HTTPS_PROXY".to_owned(), proxy);
    // The Kubernetes API, but not the service.
    settings.insert("NO_PROXY".to_owned(), "127.0.0.1".to_owned());
}

#[tokio::test]
async fn a_proxy_is_told_without_its_password() {
    let world = world().await;
    let mut settings = settings(&world);
    let (port, task) = proxy(None).await;
    by(&mut settings, format!("http://user:hunter2@127.0.0.1:{port}"));
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    let told = format!("by the proxy 127.0.0.1:{port}: ");
    for id in ["service.dns", "service.tcp"] {
        assert!(checked.seen(id).starts_with(&told), "{}", checked.seen(id));
    }
    task.abort();
}

#[tokio::test]
async fn the_kubernetes_api_is_asked_through_it_too() {
    let world = world().await;
    let mut settings = settings(&world);
    let (port, task) = proxy(None).await;
    by(&mut settings, format!("http://user:hunter2@127.0.0.1:{port}"));
    settings.remove("NO_PROXY");
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    let seen = checked.seen("kubernetes.access");
    assert!(
        seen.contains(&format!(" by the proxy 127.0.0.1:{port}, ")),
        "{seen}"
    );
    task.abort();
}

#[tokio::test]
async fn plain_http_through_a_proxy() {
    let world = world().await;
    let mut settings = settings(&world);
    let plain = plain_service().await;
    let at = plain.url().rsplit(':').next().and_then(|port| port.parse().ok());
    let (port, task) = proxy(at).await;
    for (variable, value) in [
        ("HTTP_PROXY", format!("http://user:hunter2@127.0.0.1:{port}")),
        ("PODBEAT_SERVICE_URL", "http://ica.lab.example".to_owned()),
        ("PODBEAT_ALLOW_HTTP", "true".to_owned()),
    ] {
        settings.insert(variable.to_owned(), value);
    }
    let checked = check(&settings).await;
    checked.differs_by(&[("service.tls", "warning")]);
    assert!(
        checked.seen("service.tls").contains("travel unencrypted"),
        "{checked:?}"
    );
    task.abort();
}

#[tokio::test]
async fn a_proxy_that_refuses() {
    let world = world().await;
    let mut settings = settings(&world);
    let (port, task) = proxy(None).await;
    by(&mut settings, format!("http://user:wrong@127.0.0.1:{port}"));
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("service.tls", "failed"),
        ("service.run", "skipped"),
        ("clock.service", "skipped"),
    ]);
    assert!(
        checked.seen("service.tls").contains("the proxy answered 407"),
        "{}",
        checked.seen("service.tls")
    );
    assert!(checked.remedy("service.tls").contains("NO_PROXY"));
    task.abort();
}

#[tokio::test]
async fn a_proxy_that_is_not_looked_into() {
    let world = world().await;
    let mut settings = settings(&world);
    let (port, task) = proxy(None).await;
    by(&mut settings, format!("socks5://user:hunter2@127.0.0.1:{port}"));
    let checked = check(&settings).await;
    assert_eq!(checked.check("service.tls")["state"], "skipped", "{checked:?}");
    task.abort();
}
