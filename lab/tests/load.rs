//! What open pages of the server cost: heartbeats a second with and without them, and memory: `just
//! page-load`. It reports figures, and fails only if one is far off.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness;

/// How long the server may take to start.
const LIMIT: Duration = Duration::from_secs(60);

const RUNS: usize = 2_500;
const BEATS: usize = 50;
const CONNECTIONS: usize = 25;
const ROUNDS: usize = 3;
/// The open pages, all of lists.
const PAGES: [&str; 4] = [
    "live",
    "live?status=Running",
    "live?search=align",
    "live?status=Pending&status=Running",
];

/// The server as a process, with a store on a file.
struct Binary {
    child: Child,
    address: String,
    token: String,
    /// Removed with the server.
    _directory: TempDir,
}

async fn start(binary: &str) -> Binary {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(binary)
        .args(["--listen", "127.0.0.1:0", "--log", "off"])
        .args(["--creates-per-minute", "1000000", "--live-runs", "1000000"])
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (mut token, mut address) = (String::new(), String::new());
    while address.is_empty() {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await;
        let line = line.expect("in time").expect("text").expect("its page");
        if let Some(url) = line.strip_prefix("Web page: http://") {
            address = url.trim_end_matches('/').to_owned();
        } else if line.trim().starts_with("pbt_") {
            token = line.trim().to_owned();
        }
    }
    // Reads the rest, so that the server never waits.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    // It prints this before it is ready.
    let client = harness::client().build().expect("a client");
    let ready = async {
        let page = format!("http://{address}/sign-in");
        while client.get(&page).send().await.expect("an answer").status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("in time");
    Binary {
        child,
        address,
        token,
        _directory: directory,
    }
}

impl Binary {
    /// Resident memory, in MiB.
    fn resident(&self) -> usize {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("its memory");
        let kilobytes: usize = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        kilobytes / 1024
    }

    /// The processor time that it used, in seconds. Unlike the rate, it hardly depends on other
    /// work on the machine.
    fn took(&self) -> f64 {
        /// The kernel's ticks in a second (`getconf CLK_TCK`; 100 on all current
        /// architectures).
        const TICKS: f64 = 100.0;
        let pid = self.child.id().expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
        let (_, rest) = stat.rsplit_once(") ").expect("its times");
        let fields = rest.split(' ').skip(11).take(2);
        fields
            .map(|ticks| ticks.parse::<f64>().expect("ticks"))
            .sum::<f64>()
            / TICKS
    }
}

/// Sends a request on a connection, and returns its answer.
async fn ask(stream: &mut BufReader<TcpStream>, token: &str, path: &str, body: &str) -> String {
    let head = format!(
        "POST /v1/tasks/runs{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut length, mut line) = (0, String::new());
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.expect("a line");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
        assert!(
            !line.starts_with("HTTP") || line.starts_with("HTTP/1.1 20"),
            "{line}"
        );
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.expect("an answer");
    String::from_utf8(answer).expect("text")
}

fn body(nth: usize) -> String {
    let state = json!({"running": {"startedAt": "2026-01-01T00:00:01Z"}});
    let status = json!([{"name": "main", "state": state}, {"name": "log-shipper", "state": state}]);
    let heartbeat = json!({"containerStatus": status, "jobRetryCount": 0, "lastHeartbeat": false,
                           "nonce": format!("{nth:032x}"), "podName": "align-reads-7f3a-x2x4k",
                           "podUID": "6f1c2d0e-55aa-4b0e-9f0e-2a41c1d9e7b3"});
    heartbeat.to_string()
}

/// Measures accepted heartbeats a second.
async fn rate(binary: &Binary) -> f64 {
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, token) = (binary.address.clone(), binary.token.clone());
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await.expect("connected");
            let mut stream = BufReader::new(stream);
            let mut ids = Vec::new();
            for _ in 0..RUNS / CONNECTIONS {
                let run: Value = serde_json::from_str(
                    &ask(&mut stream, &token, "", r#"{"name":"align-reads"}"#).await,
                )
                .expect("JSON");
                ids.push(run["id"].as_str().expect("an id").to_owned());
            }
            let began = Instant::now();
            for nth in 0..BEATS {
                for id in &ids {
                    ask(&mut stream, &token, &format!("/{id}:heartbeat"), &body(nth)).await;
                }
            }
            (began, Instant::now())
        });
    }
    let times = clients.join_all().await;
    let began = times
        .iter()
        .map(|(began, _)| *began)
        .min()
        .expect("a client");
    let ended = times
        .iter()
        .map(|(_, ended)| *ended)
        .max()
        .expect("a client");
    let beats = u32::try_from(RUNS * BEATS).expect("a number");
    f64::from(beats) / (ended - began).as_secs_f64()
}

/// Opens pages that read everything, and counts their events.
async fn follow(binary: &Binary) -> JoinSet<usize> {
    let client = harness::client().redirect(Policy::none()).build();
    let client = client.expect("a client");
    let form = client
        .post(format!("http://{}/sign-in", binary.address))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", binary.token));
    let let_in = form.send().await.expect("an answer");
    let cookie = let_in.headers()["set-cookie"]
        .to_str()
        .expect("text")
        .to_owned();
    let mut streams = JoinSet::new();
    for subject in PAGES {
        let (client, cookie) = (client.clone(), cookie.clone());
        let url = format!("http://{}/{subject}", binary.address);
        streams.spawn(async move {
            let mut response = client
                .get(url)
                .header("cookie", cookie)
                .send()
                .await
                .expect("an answer");
            let mut events = 0;
            while let Ok(Some(chunk)) = response.chunk().await {
                events += chunk
                    .windows(7)
                    .filter(|window| window == b"event: ")
                    .count();
            }
            events
        });
    }
    streams
}

/// The result of one round.
#[derive(Debug)]
struct Round {
    /// Accepted heartbeats a second.
    rate: f64,
    /// The service's processor time for each heartbeat, in microseconds.
    cost: f64,
    resident: usize,
    events: usize,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: just page-load"]
#[allow(
    clippy::disallowed_methods,
    reason = "the environment names the binary to measure"
)]
async fn heartbeats_a_second() {
    let own = std::env::var("PODBEAT_SERVER_BINARY")
        .expect("PODBEAT_SERVER_BINARY names the server; `just page-load` sets it");
    let before = std::env::var("PODBEAT_SERVER_BEFORE").ok();
    let beats = f64::from(u32::try_from(RUNS * BEATS).expect("a number"));
    let mut told: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut kinds = vec![("page closed", &own, false), ("pages open", &own, true)];
        kinds.extend(before.as_ref().map(|before| ("before", before, false)));
        for (kind, binary, is_open) in kinds {
            let mut binary = start(binary).await;
            let streams = if is_open {
                follow(&binary).await
            } else {
                JoinSet::new()
            };
            let rate = rate(&binary).await;
            let (resident, cost) = (binary.resident(), binary.took() / beats * 1e6);
            binary.child.kill().await.expect("killed");
            let events = streams.join_all().await.into_iter().sum();
            let round = Round {
                rate,
                cost,
                resident,
                events,
            };
            told.entry(kind).or_default().push(round);
        }
    }
    for (kind, rounds) in &mut told {
        rounds.sort_by(|one, other| one.cost.total_cmp(&other.cost));
        let Round {
            rate,
            cost,
            resident,
            events,
        } = &rounds[rounds.len() / 2];
        println!(
            "{kind}: {cost:.1} us of processor for a heartbeat, {rate:.0} a second, {resident} MiB, {events} events"
        );
        println!("    rounds: {rounds:.1?}");
    }
    let cost = |kind: &str| told[kind][ROUNDS / 2].cost;
    assert!(cost("pages open") < cost("page closed") * 1.5, "{told:?}");
}
