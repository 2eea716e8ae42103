//! Which proxy each client uses, and which destinations need none: the service and the Kubernetes
//! API, for the agent in this process and for the commands as processes.

mod real;

use std::collections::BTreeMap;

use podbeat::agent;
use podbeat::config::Config;
use podbeat_interface::environment::Flags;
use podbeat_lab::pod::{Pod, running};
use podbeat_lab::service::{Options, Service};
use podbeat_lab::world::{RUN, TOKEN, World};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::binary::{Ended, ended, podbeat};
use crate::harness::listener::AWAY;
use crate::harness::proxy::Proxy;
use crate::harness::received::until_main_is;
use crate::harness::{LIMIT, STARTED, knowing, plain_service, settings_away, world_with};

/// An agent in this process. It ends when dropped.
struct Agent(JoinHandle<()>);

impl Agent {
    fn start(settings: &BTreeMap<String, String>) -> Self {
        let config = Config::load(&Flags::default(), settings).expect("right settings");
        let (signals, mut receiver) = mpsc::channel::<()>(1);
        Self(tokio::spawn(async move {
            let _kept = signals;
            let signals = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
            agent::run(&config, signals, ()).await.expect("begun");
        }))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn world() -> World {
    let world = world_with(knowing([RUN])).await;
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
}

/// A service without TLS that knows the run.
async fn plain() -> Service {
    plain_service(Options {
        runs: knowing([RUN]).runs,
        ..Options::with_token(TOKEN)
    })
    .await
}

/// The tunnels that clients request from a proxy to reach these destinations.
fn tunnels(world: &World, kube: bool, service: bool) -> Vec<String> {
    let service_port = world
        .service
        .url()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let ports = [
        kube.then(|| world.kube.port().to_string()),
        service.then_some(service_port),
    ];
    let mut tunnels: Vec<String> = ports
        .into_iter()
        .flatten()
        .map(|port| format!("CONNECT {AWAY}:{port} HTTP/1.1"))
        .collect();
    tunnels.sort_unstable();
    tunnels
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_uses_a_proxy_for_both_except_hosts_in_no_proxy() {
    for (no_proxy, kube, service) in [
        ("", true, true),
        ("*", false, false),
        ("10.0.0.1,*", false, false),
        (AWAY, false, false),
        ("0.0.0.0/8", false, false),
        ("KUBE", false, true),
        ("SERVICE", true, false),
        ("SERVICE KUBE", false, false),
        ("127.0.0.1,localhost,0.0.0.0:1", true, true),
    ] {
        let (world, proxy) = (world().await, Proxy::start().await);
        let service_at = world.service.url().replace("https://localhost", AWAY);
        let kube_at = format!("{AWAY}:{}", world.kube.port());
        let exceptions = no_proxy
            .replace("SERVICE", &service_at)
            .replace("KUBE", &kube_at);
        let url = proxy.url();
        let settings = settings_away(&world, &[("HTTPS_PROXY", &url), ("NO_PROXY", &exceptions)]);
        let _agent = Agent::start(&settings);
        until_main_is(&world, "running").await;
        assert_eq!(
            proxy.asked(),
            tunnels(&world, kube, service),
            "NO_PROXY={no_proxy}"
        );
        assert!(proxy.was_opened() && !proxy.received(TOKEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_over_tls() {
    let world = world().await;
    let proxy = Proxy::start_encrypted(&world.authority).await;
    let url = proxy.url();
    let settings = settings_away(&world, &[("ALL_PROXY", &url)]);
    let _agent = Agent::start(&settings);
    until_main_is(&world, "running").await;
    assert_eq!(proxy.asked(), tunnels(&world, true, true));
    assert!(proxy.was_opened() && !proxy.received(TOKEN));
    let checked = check(settings, &[]).await;
    let by = format!(
        "through the proxy {} (ALL_PROXY)",
        url.rsplit('@').next().expect("a host")
    );
    assert!(
        checked.out.contains(&by) && !checked.out.contains("failed"),
        "{}",
        checked.out
    );
}

/// Through a proxy, the token would cross the network in clear text.
#[tokio::test(flavor = "multi_thread")]
async fn loopback_uses_no_proxy() {
    let (world, plain, proxy) = (world().await, plain().await, Proxy::start().await);
    let url = proxy.url();
    for localhost in ["127.0.0.1", "localhost"] {
        let service = plain.url().replace("127.0.0.1", localhost);
        let mut settings = world.settings("p", "u1");
        for (variable, value) in [
            ("HTTP_PROXY", &url),
            ("http_proxy", &url),
            ("HTTPS_PROXY", &url),
            ("ALL_PROXY", &url),
            ("PODBEAT_SERVICE_URL", &service),
        ] {
            settings.insert(variable.to_owned(), value.clone());
        }
        let before = plain.heartbeats().len();
        let _agent = Agent::start(&settings);
        let more = |heartbeats: &[podbeat_lab::service::Heartbeat]| {
            let mut new = heartbeats.iter().skip(before);
            new.any(|heartbeat| heartbeat.accepted && heartbeat.state("main").is_some())
        };
        plain
            .wait_for("main's state", LIMIT, more)
            .await
            .expect("a heartbeat");
        check(settings.clone(), &[("PODBEAT_ALLOW_HTTP", "true")]).await;
        let listed = runs(&service, &[("http_proxy", &url)]).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        assert_eq!(proxy.asked(), Vec::<String>::new(), "{localhost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_through_a_proxy_must_be_allowed() {
    let (plain, proxy) = (plain().await, Proxy::start().await);
    let (service, url) = (plain.url().replace("127.0.0.1", AWAY), proxy.url());
    let refused = runs(&service, &[("http_proxy", &url)]).await;
    assert_eq!(refused.code, 64, "{refused:?}");
    assert_eq!(proxy.asked(), Vec::<String>::new());
    let listed = runs(
        &service,
        &[("http_proxy", &url), ("PODBEAT_ALLOW_HTTP", "true")],
    )
    .await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let line = format!("GET {service}/v1/tasks/runs?pageSize=");
    let asked = proxy.asked();
    assert!(asked.len() == 1 && asked[0].starts_with(&line), "{asked:?}");
    assert!(proxy.was_opened());
    let excepted = [
        ("http_proxy", &*url),
        ("PODBEAT_ALLOW_HTTP", "true"),
        ("NO_PROXY", "0.0.0.0/32"),
    ];
    assert_eq!(runs(&service, &excepted).await.code, 0);
    assert_eq!(proxy.asked(), asked);
}

/// `podbeat runs list` with these variables.
async fn runs(service: &str, more: &[(&str, &str)]) -> Ended {
    let mut command = podbeat();
    command
        .env("PODBEAT_SERVICE_URL", service)
        .env("PODBEAT_TOKEN", TOKEN)
        .envs(more.iter().copied())
        .args(["runs", "list"]);
    told(&mut command).await
}

async fn check(settings: BTreeMap<String, String>, more: &[(&str, &str)]) -> Ended {
    let mut command = podbeat();
    command
        .envs(settings)
        .envs(more.iter().copied())
        .arg("check");
    told(&mut command).await
}

async fn told(command: &mut tokio::process::Command) -> Ended {
    let ended = ended(command).await;
    let said = format!("{}{}", ended.out, ended.notes);
    assert!(!said.contains("hunter2"), "{said}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_uses_the_same_proxy_rules() {
    let (world, proxy) = (world().await, Proxy::start().await);
    let service = world.service.url().replace("localhost", AWAY);
    let (ca, url) = (crate::harness::text(world.path("ca.crt")), proxy.url());
    for (no_proxy, expected) in [("*", false), ("0.0.0.0", false), ("0.0.0.0:1", true)] {
        let variables = [
            ("https_proxy", &*url),
            ("no_proxy", no_proxy),
            ("PODBEAT_CA_FILE", &ca),
        ];
        let listed = runs(&service, &variables).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        assert_eq!(
            proxy.asked(),
            tunnels(&world, false, expected),
            "{no_proxy}"
        );
    }
}

/// Through a kubeconfig, once with a proxy in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_uses_the_same_proxy_rules_and_its_own_proxy_first() {
    let world = world().await;
    let kubeconfig = std::fs::read_to_string(world.path("kubeconfig")).expect("a kubeconfig");
    let mut kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    let server = cluster["server"]
        .as_str()
        .expect("a URL")
        .replace("127.0.0.1", AWAY);
    cluster["server"] = server.clone().into();
    let file = world.path("kubeconfig-away");
    let at = server.replace("https://", "");
    for (no_proxy, own, expected) in [
        ("", false, true),
        ("*", false, false),
        (&*at, false, false),
        ("a.example,,0.0.0.0/16,", false, false),
        ("a.example,", false, true),
        ("127.0.0.1", false, true),
        ("*", true, true),
    ] {
        let proxy = Proxy::start().await;
        let (ours, environments) = match own {
            true => (
                proxy.url().into(),
                "http://user:hunter2@proxy.invalid".to_owned(),
            ),
            false => (serde_json::Value::Null, proxy.url()),
        };
        kubeconfig["clusters"][0]["cluster"]["proxy-url"] = ours;
        std::fs::write(&file, kubeconfig.to_string()).expect("written");
        let variables = [("HTTPS_PROXY", &*environments), ("NO_PROXY", no_proxy)];
        let mut settings = world.settings("p", "u1");
        settings.remove("KUBERNETES_SERVICE_HOST");
        settings.insert("KUBECONFIG".to_owned(), crate::harness::text(&file));
        let checked = check(settings, &variables).await;
        assert_eq!(checked.code, 0, "NO_PROXY={no_proxy}: {checked:?}");
        let used = checked.out.contains(" through the proxy 127.0.0.1:");
        assert_eq!(
            (used, proxy.asked()),
            (expected, tunnels(&world, expected, false)),
            "{no_proxy}"
        );
        let proxy = match own {
            true => proxy,
            false => Proxy::start().await,
        };
        let url = proxy.url();
        let mut observing = podbeat();
        observing
            .env("KUBECONFIG", &file)
            .envs([("HTTPS_PROXY", &*url), ("NO_PROXY", no_proxy)])
            .args(["observe", "p", "--namespace", "lab"]);
        let mut observing = observing.spawn().expect("the binary runs");
        let out = observing.stdout.take().expect("a pipe");
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(out));
        let seen = async {
            while let Some(line) = lines.next_line().await.expect("a line") {
                if line.contains("running") {
                    return true;
                }
            }
            false
        };
        assert!(
            tokio::time::timeout(LIMIT, seen).await.expect("lines"),
            "{no_proxy}"
        );
        assert_eq!(
            proxy.asked(),
            tunnels(&world, expected, false),
            "{no_proxy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_proxy_is_an_invalid_setting_and_is_not_shown() {
    for (variable, value) in [
        ("HTTPS_PROXY", "socks5://user:hunter2@proxy:1080"),
        ("all_proxy", "http://user:hunter2@"),
        ("https_proxy", "http://user:hunter2@pro xy"),
    ] {
        let refused = runs("https://ica.invalid", &[(variable, value)]).await;
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(
            refused.notes.contains(&format!("{variable}: ")),
            "{refused:?}"
        );
    }
}
