//! The way to the service through a proxy.

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use podbeat_lab::world::World;

use super::{Settings, check, plain, settings, world};
use crate::harness::listener::{AWAY, Listener, destination, head, refuse, tunnel};
use crate::harness::{settings_away, text};

/// A proxy that makes tunnels for clients with the password, and forwards plain requests to a port
/// of this machine.
async fn proxy(plain: Option<u16>) -> Listener {
    Listener::start(move |stream| async move {
        let _ = pass_on(stream, plain).await;
    })
    .await
}

async fn pass_on(mut stream: TcpStream, plain: Option<u16>) -> std::io::Result<()> {
    let head = head(&mut stream).await?;
    // "user:hunter2"
    let knows = head.lines().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("proxy-authorization") && value == "Basic dXNlcjpodW50ZXIy"
        })
    });
    if !knows {
        return refuse(stream).await;
    }
    if head.starts_with("CONNECT ") {
        return tunnel(stream, TcpStream::connect(destination(&head)).await?).await;
    }
    // The whole URL, as a proxy needs it (RFC 9112, 3.2.2).
    assert!(head.contains(" http://ica.lab.example/"), "{head}");
    let mut service = TcpStream::connect(("127.0.0.1", plain.unwrap_or_default())).await?;
    service.write_all(head.as_bytes()).await?;
    copy_bidirectional(&mut stream, &mut service).await?;
    Ok(())
}

/// Sets a proxy for the service. The Kubernetes API is on loopback, so it uses none.
fn by(world: &World, settings: &mut Settings, proxy: String) {
    let url = world.service.url().replace("localhost", AWAY);
    settings.insert("PODBEAT_SERVICE_URL".to_owned(), url);
    settings.insert("HTTPS_PROXY".to_owned(), proxy);
}

#[tokio::test]
async fn a_proxy_is_shown_without_its_password() {
    let world = world().await;
    let mut settings = settings(&world);
    let proxy = proxy(None).await;
    by(
        &world,
        &mut settings,
        format!("http://user:hunter2@127.0.0.1:{}", proxy.port),
    );
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    let told = format!("through the proxy 127.0.0.1:{} (HTTPS_PROXY): ", proxy.port);
    for id in ["service.dns", "service.tcp"] {
        assert!(checked.seen(id).starts_with(&told), "{}", checked.seen(id));
    }
}

#[tokio::test]
async fn the_kubernetes_api_is_asked_through_it_too() {
    let world = world().await;
    let mut settings = settings(&world);
    let proxy = proxy(None).await;
    by(
        &world,
        &mut settings,
        format!("http://user:hunter2@127.0.0.1:{}", proxy.port),
    );
    settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), AWAY.to_owned());
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    let seen = checked.seen("kubernetes.access");
    assert!(
        seen.contains(&format!(
            " through the proxy 127.0.0.1:{} (HTTPS_PROXY), ",
            proxy.port
        )),
        "{seen}"
    );
}

#[tokio::test]
async fn plain_http_through_a_proxy() {
    let world = world().await;
    let mut settings = settings(&world);
    let plain = plain().await;
    let at = plain
        .url()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let proxy = proxy(at).await;
    for (variable, value) in [
        (
            "HTTP_PROXY",
            format!("http://user:hunter2@127.0.0.1:{}", proxy.port),
        ),
        ("PODBEAT_SERVICE_URL", "http://ica.lab.example".to_owned()),
        ("PODBEAT_ALLOW_HTTP", "true".to_owned()),
    ] {
        settings.insert(variable.to_owned(), value);
    }
    let checked = check(&settings).await;
    checked.differs_by(&[("service.tls", "warning")]);
    assert!(
        checked
            .seen("service.tls")
            .contains("sends the token and the states unencrypted"),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses() {
    let world = world().await;
    let mut settings = settings(&world);
    let proxy = proxy(None).await;
    by(
        &world,
        &mut settings,
        format!("http://user:wrong@127.0.0.1:{}", proxy.port),
    );
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("service.tls", "failed"),
        ("service.run", "skipped"),
        ("clock.service", "skipped"),
    ]);
    assert!(
        checked
            .seen("service.tls")
            .contains("the proxy answered 407"),
        "{}",
        checked.seen("service.tls")
    );
    assert!(checked.remedy("service.tls").contains("NO_PROXY"));
}

/// Why no proxy is used, and what the output shows of it.
#[tokio::test]
async fn an_unused_proxy_is_reported() {
    let world = world().await;
    let mut settings = settings(&world);
    for (no_proxy, variable, away, why) in [
        ("", "HTTPS_PROXY", false, "the host is this machine itself"),
        ("*", "https_proxy", true, "NO_PROXY has *"),
        (
            "a.example,0.0.0.0/8",
            "ALL_PROXY",
            true,
            "NO_PROXY has 0.0.0.0/8",
        ),
    ] {
        let mut settings = settings.clone();
        if away {
            settings.append(&mut settings_away(&world, &[]));
            settings.insert("POD_NAME".to_owned(), super::POD.to_owned());
            settings.insert("POD_UID".to_owned(), super::UID.to_owned());
        }
        settings.insert("no_proxy".to_owned(), no_proxy.to_owned());
        settings.insert(
            variable.to_owned(),
            "http://user:hunter2@proxy.invalid".to_owned(),
        );
        let checked = check(&settings).await;
        checked.differs_by(&[]);
        for id in ["service.dns", "kubernetes.access"] {
            let seen = checked.seen(id);
            assert!(
                seen.contains(&format!("{variable} is not used, since {why}")),
                "{seen}"
            );
        }
    }
    settings.insert("NO_PROXY".to_owned(), "*".to_owned());
    let seen = check(&settings).await.seen("service.dns");
    assert!(!seen.contains("PROXY"), "there is none: {seen}");
}

#[tokio::test]
async fn an_invalid_proxy_is_an_invalid_setting() {
    let world = world().await;
    let mut settings = settings(&world);
    by(
        &world,
        &mut settings,
        "socks5://user:hunter2@127.0.0.1:1080".to_owned(),
    );
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("settings.HTTPS_PROXY", "failed"),
        ("service.dns", "skipped"),
        ("service.tcp", "skipped"),
        ("service.tls", "skipped"),
        ("service.run", "skipped"),
        ("clock.service", "skipped"),
    ]);
    let seen = checked.seen("settings.HTTPS_PROXY");
    assert!(seen.contains("only http:// and https:// proxies"), "{seen}");
}

#[tokio::test]
async fn urls_are_shown_without_possible_secrets() {
    let world = world().await;
    let mut settings = settings(&world);
    for url in [
        "https://ica.example/?key=hunter2",
        "https://ica.example/#hunter2",
        "https://u:hunter2@ica.example",
    ] {
        settings.insert("PODBEAT_SERVICE_URL".to_owned(), url.to_owned());
        // check() itself searches for hunter2.
        let checked = check(&settings).await;
        assert_eq!(
            checked.check("settings.PODBEAT_SERVICE_URL")["state"],
            "failed",
            "{checked:?}"
        );
    }
    settings.insert("PODBEAT_SERVICE_URL".to_owned(), world.service.url());
    let kubeconfig = std::fs::read_to_string(world.path("kubeconfig")).expect("a kubeconfig");
    let shown = format!("https://127.0.0.1:{}", world.kube.port());
    let url = format!(
        "https://user:hunter2@127.0.0.1:{}/?key=hunter2",
        world.kube.port()
    );
    assert!(kubeconfig.contains(&shown));
    std::fs::write(world.path("kubeconfig"), kubeconfig.replace(&shown, &url)).expect("written");
    settings.remove("KUBERNETES_SERVICE_HOST");
    settings.insert("KUBECONFIG".to_owned(), text(world.path("kubeconfig")));
    let seen = check(&settings).await.seen("kubernetes.access");
    assert!(seen.contains(&format!(": {shown}, ")), "{seen}");
}
