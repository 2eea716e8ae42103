//! G6: at any level, the log contains no secret, wherever the secret came from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use podbeat_lab::pod::{Pod, Sidecar, running, terminated};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{KUBE_TOKEN, World};
use tokio::net::TcpStream;

use super::table;
use crate::harness::binary::{Podbeat, lines};
use crate::harness::listener::{Listener, destination, head, refuse, tunnel};
use crate::harness::received::{until, until_main_is};
use crate::harness::{STARTED, settings_away, text};

/// A proxy that requires a password, and refuses the first two requests, so that its URL could
/// appear in an error. It counts its tunnels.
async fn proxy() -> (Listener, Arc<AtomicUsize>) {
    let tunnels = Arc::new(AtomicUsize::new(0));
    let (made, mut refusals) = (Arc::clone(&tunnels), 2_usize);
    let proxy = Listener::start(move |mut client| {
        let (made, refuses) = (Arc::clone(&made), refusals > 0);
        refusals = refusals.saturating_sub(1);
        async move {
            let Ok(head) = head(&mut client).await else {
                return;
            };
            let _ = if refuses
                || !head
                    .to_ascii_lowercase()
                    .contains("proxy-authorization: basic")
            {
                refuse(client).await
            } else if let Ok(server) = TcpStream::connect(destination(&head)).await {
                made.fetch_add(1, Ordering::Relaxed);
                tunnel(client, server).await
            } else {
                Ok(())
            };
        }
    });
    (proxy.await, tunnels)
}

/// Basic authentication of `user:hunter2-proxy`.
const PROXY_CREDENTIALS: &str = "dXNlcjpodW50ZXIyLXByb3h5";

/// A line of the client's key, which is secret as a whole.
fn key_line(world: &World) -> String {
    let pem = std::fs::read_to_string(world.path("client.key")).expect("a key");
    pem.lines().nth(1).expect("a line of it").to_owned()
}

fn holds_none(text: &str, secrets: &[&str], what: &str) {
    for secret in secrets {
        if let Some(line) = text.lines().find(|line| line.contains(secret)) {
            panic!("{what}: {secret} is in {line}");
        }
    }
}

/// All settings in variables, in a pod, through a proxy with a password.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_variable_or_a_file_is_in_a_trace_of_a_whole_life() {
    let world = World::start().await.expect("a world");
    world
        .service
        .set_tokens(&["hunter2-token", "hunter2-renewed"]);
    world
        .service_faults
        .script("heartbeat 401; heartbeat 503; heartbeat garbage; heartbeat jwt=hunter2-ü; heartbeat jwt=hunter2-renewed")
        .expect("rules");
    world
        .kube_faults
        .script("list 403; list garbage; watch cut")
        .expect("rules");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let (proxy, tunnels) = proxy().await;
    let proxy_url = format!("http://user:hunter2-proxy@127.0.0.1:{}", proxy.port);
    std::fs::write(world.path("nonce"), "hunter2-nonce").expect("written");
    let key = key_line(&world);
    let path = |name: &str| text(world.path(name));
    for (log, nonce) in [
        ("log-1", ("PODBEAT_NONCE", "hunter2-nonce")),
        ("log-2", ("PODBEAT_NONCE_FILE", &*path("nonce"))),
    ] {
        let more = [
            ("PODBEAT_TOKEN", "hunter2-token"),
            nonce,
            ("PODBEAT_CLIENT_CERT_FILE", &path("client.crt")),
            ("PODBEAT_CLIENT_KEY_FILE", &path("client.key")),
            ("HTTPS_PROXY", &proxy_url),
            ("PODBEAT_LOG", "trace"),
            ("PODBEAT_INTERVAL", "100ms"),
        ];
        let mut settings = settings_away(&world, &more);
        settings.remove("PODBEAT_TOKEN_FILE");
        let before = world.service.heartbeats().len();
        let podbeat = Podbeat::with(&world, log, &settings, &[]);
        let enough = |heartbeats: &[Heartbeat]| {
            heartbeats
                .iter()
                .skip(before)
                .filter(|one| one.accepted)
                .count()
                > 6
        };
        until(&world, "seven accepted", enough).await;
        podbeat.signal(rustix::process::Signal::KILL);
        let (text, lines) = (podbeat.text(), podbeat.lines());
        table::check(&lines);
        assert!(
            lines.iter().any(|line| line["level"] == "TRACE"),
            "a full log"
        );
        holds_none(
            &text,
            &["hunter2", KUBE_TOKEN, PROXY_CREDENTIALS, &key],
            log,
        );
        assert!(tunnels.load(Ordering::Relaxed) >= 2, "to both sides");
        if log == "log-1" {
            assert_eq!(
                (&lines[0]["token"], &lines[0]["nonce"]),
                (&"[redacted]".into(), &"[redacted]".into())
            );
        } else {
            assert_eq!(lines[0]["nonce_file"], path("nonce"));
        }
    }
}

/// Secrets in flags, a kubeconfig whose proxy has a password, and a last heartbeat that cannot be
/// delivered.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_flag_or_a_kubeconfig_is_in_a_trace() {
    let world = World::start().await.expect("a world");
    world.service.set_tokens(&["hunter2-token"]);
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let (proxy, tunnels) = proxy().await;
    let kubeconfig = std::fs::read_to_string(world.path("kubeconfig")).expect("a kubeconfig");
    let mut kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).expect("JSON");
    kubeconfig["clusters"][0]["cluster"]["proxy-url"] =
        format!("http://user:hunter2-proxy@127.0.0.1:{}", proxy.port).into();
    std::fs::write(world.path("kubeconfig"), kubeconfig.to_string()).expect("written");
    let url = world.service.url();
    let (config, ca) = (text(world.path("kubeconfig")), text(world.path("ca.crt")));
    let arguments = [
        "--task-run-id=r",
        "--pod-name=p",
        "--pod-namespace=lab",
        "--token=hunter2-token",
        "--nonce=hunter2-nonce",
        "--log=trace",
        "--log-format=json",
        "--service-url",
        &url,
        "--ca-file",
        &ca,
        "--kubeconfig",
        &config,
    ];
    let mut podbeat = Podbeat::with(&world, "log", &BTreeMap::new(), &arguments);
    until_main_is(&world, "running").await;
    world
        .service_faults
        .script("heartbeat 400 until-lifted")
        .expect("a rule");
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    assert_eq!(podbeat.ended().await.code(), Some(75));
    let text = podbeat.text();
    let lines = lines(&text);
    table::check(&lines);
    assert!(
        lines.iter().any(|line| line.get("request").is_some()),
        "{text}"
    );
    assert_eq!(
        (&lines[0]["token"], &lines[0]["nonce"]),
        (&"[redacted]".into(), &"[redacted]".into())
    );
    holds_none(&text, &["hunter2", KUBE_TOKEN, PROXY_CREDENTIALS], "log");
    assert!(
        tunnels.load(Ordering::Relaxed) >= 1,
        "to the Kubernetes API by the kubeconfig's proxy"
    );
}
