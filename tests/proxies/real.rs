//! The same with a real proxy, tinyproxy, and with curl beside podbeat: `just proxy-test`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{check, plain, runs, tunnels, world};
use crate::harness::listener::AWAY;
use crate::harness::{LIMIT, settings_away, text, unused_port};

/// A tinyproxy that requires a password. It ends when dropped.
struct Tinyproxy {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

impl Tinyproxy {
    async fn start(directory: &Path) -> Self {
        let port = {
            let (port, _socket) = unused_port();
            port
        };
        let (log, file) = (
            directory.join("tinyproxy.log"),
            directory.join("tinyproxy.conf"),
        );
        let configuration = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nLogLevel Connect\nLogFile \"{}\"\nBasicAuth user hunter2\n",
            log.display()
        );
        std::fs::write(&file, configuration).expect("written");
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed: see .ci/install packages");
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, listens).await.expect("tinyproxy listens");
        Self { child, port, log }
    }

    fn url(&self) -> String {
        format!("http://user:hunter2@127.0.0.1:{}", self.port)
    }

    /// The number of tunnels requested, from its log.
    fn tunnels(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.matches("CONNECT ").count()
    }

    /// The requests in its log, each once.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut asked: Vec<String> = log
            .lines()
            .filter_map(|line| line.split_once("): ")?.1.strip_prefix(""))
            .filter(|line| line.starts_with("CONNECT ") || line.starts_with("GET "))
            .map(str::to_owned)
            .collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    }
}

/// Requests a URL with curl.
fn curl(url: &str, ca: &str, variables: &[(&str, &str)]) {
    let output = Command::new("curl")
        .env_clear()
        .envs(variables.iter().copied())
        .args(["--silent", "--max-time", "20", "--output", "/dev/null"])
        .args(["--cacert", ca, url])
        .output()
        .expect("curl is installed: see .ci/install packages");
    assert!(output.status.success(), "{url} {variables:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tinyproxy and curl: just proxy-test"]
async fn podbeat_uses_a_real_proxy_whenever_curl_does() {
    let world = world().await;
    let proxy = Tinyproxy::start(&world.path(".")).await;
    let (service, url) = (world.service.url().replace("localhost", AWAY), proxy.url());
    let ca = text(world.path("ca.crt"));
    for (variable, no_proxy, expected) in [
        ("https_proxy", "", true),
        ("HTTPS_PROXY", "", true),
        ("all_proxy", "", true),
        ("ALL_PROXY", "", true),
        ("http_proxy", "", false),
        ("https_proxy", "*", false),
        ("https_proxy", "0.0.0.0", false),
        ("https_proxy", "0.0.0.0/8", false),
        ("https_proxy", "a.example, 0.0.0.0", false),
        ("https_proxy", "127.0.0.1", true),
        ("https_proxy", "10.0.0.0/8", true),
        ("https_proxy", "0.0.0", true),
    ] {
        let variables = [
            (variable, &*url),
            ("no_proxy", no_proxy),
            ("PODBEAT_CA_FILE", &ca),
        ];
        let before = proxy.tunnels();
        curl(&service, &ca, &variables);
        let after_curl = proxy.tunnels();
        assert_eq!(after_curl > before, expected, "curl: {variable} {no_proxy}");
        let listed = runs(&service, &variables).await;
        assert_eq!(listed.code, 0, "{listed:?}");
        assert_eq!(
            proxy.tunnels() > after_curl,
            expected,
            "podbeat: {variable} {no_proxy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs tinyproxy and curl: just proxy-test"]
async fn check_passes_through_a_real_proxy() {
    let world = world().await;
    let proxy = Tinyproxy::start(&world.path(".")).await;
    let url = proxy.url();
    let settings = settings_away(&world, &[("HTTPS_PROXY", &url)]);
    let checked = check(settings, &[]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    for tunnel in tunnels(&world, true, true) {
        let asked = proxy.asked();
        assert!(asked.contains(&tunnel), "{tunnel}: {asked:?}");
    }
    let plain = plain().await;
    let service = plain.url().replace("127.0.0.1", AWAY);
    let listed = runs(
        &service,
        &[("http_proxy", &url), ("PODBEAT_ALLOW_HTTP", "true")],
    )
    .await;
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(
        proxy
            .asked()
            .iter()
            .any(|line| line.starts_with("GET http://")),
        "{:?}",
        proxy.asked()
    );
    let wrong = url.replace("hunter2", "wrong");
    let settings = settings_away(&world, &[("HTTPS_PROXY", &wrong)]);
    let checked = check(settings, &[]).await;
    assert!(
        checked.out.contains("the proxy answered 401")
            || checked.out.contains("the proxy answered 407"),
        "{checked:?}"
    );
}
