//! The admin endpoint of the real binary: probes, metrics and status during the troubles that they
//! report, and heartbeats while clients attack the endpoint.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use podbeat::telemetry::metrics::{METRICS, Read};
use podbeat_interface::metrics::{Metric, Type};
use podbeat_lab::kube_api;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated, waiting};
use podbeat_lab::service::{self, Heartbeat};
use podbeat_lab::world::{KUBE_TOKEN, RUN, TOKEN, World};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::binary::{Podbeat, lines};
use crate::harness::received::{until, until_asked, until_final, until_main_is, until_one};
use crate::harness::{LIMIT, STARTED, jwt, text};

/// A running podbeat with an admin endpoint.
struct Endpoint {
    podbeat: Podbeat,
    address: SocketAddr,
}

impl Endpoint {
    async fn start(world: &World, log: &str, more: &[(&str, &str)]) -> Self {
        let settings = [&[("PODBEAT_LISTEN", "127.0.0.1:0")], more].concat();
        let podbeat = Podbeat::start(world, log, &settings);
        let listens = podbeat
            .until_logged("the admin endpoint is listening")
            .await;
        let address = listens["address"].as_str().expect("an address");
        Self {
            address: address.parse().expect("an address"),
            podbeat,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        ask(self.address, path).await.expect("an answer")
    }

    /// Repeats the request until the answer is as expected.
    async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "timed out while waiting for {what}; {path}: {answer:?}\n{}",
                self.podbeat.text()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_ready(&self, is_ready: bool) -> Answer {
        let status = if is_ready { 200 } else { 503 };
        self.until("/readyz", &status.to_string(), |answer| {
            answer.status == status
        })
        .await
    }

    /// Sends SIGTERM, and returns the exit code and the log.
    async fn terminate(self) -> (i32, String) {
        self.podbeat.signal(Signal::TERM);
        self.podbeat.end().await
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").await.body).expect("JSON")
    }
}

/// An answer of the endpoint.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: podbeat\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    let text: std::io::Result<String> = timeout(LIMIT, exchange).await?;
    let text = text?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(Answer {
        status: head
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .ok_or(std::io::ErrorKind::InvalidData)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// The value of a sample; `sample` is its name with labels, as printed.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_follows_the_service() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .service_faults
        .script("heartbeat 503 until-lifted")
        .expect("a rule");
    let podbeat = Endpoint::start(&world, "log", &[("PODBEAT_INTERVAL", "200ms")]).await;
    let unready = podbeat
        .until("/readyz", "only the service missing", |answer| {
            answer.body == "the service has not accepted a heartbeat yet\n"
        })
        .await;
    assert_eq!(unready.status, 503);
    world.service_faults.lift_all();
    podbeat.until_ready(true).await;

    // The service is away for longer than three intervals, and then back.
    world
        .service_faults
        .script("any refuse until-lifted; heartbeat 503 until-lifted")
        .expect("rules");
    let unready = podbeat.until_ready(false).await;
    assert!(
        unready
            .body
            .starts_with("the service last accepted a heartbeat ")
            && unready.body.ends_with(" ago, longer than 3 intervals\n"),
        "{unready:?}"
    );
    assert_eq!(podbeat.get("/livez").await.status, 200);
    assert_eq!(podbeat.get("/startupz").await.status, 200);
    world.service_faults.lift_all();
    podbeat.until_ready(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_follows_the_kubernetes_api() {
    let api = kube_api::Options {
        bookmarks: Duration::from_millis(100),
        ..kube_api::Options::default()
    };
    let world = World::with(api, service::Options::default())
        .await
        .expect("a world");
    world
        .kube_faults
        .script("list 403 until-lifted")
        .expect("a rule");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let podbeat = Endpoint::start(
        &world,
        "log",
        &[("PODBEAT_MAX_STATUS_AGE", "1s"), ("PODBEAT_INTERVAL", "1h")],
    )
    .await;
    let unready = podbeat
        .until("/readyz", "only the API missing", |answer| {
            answer.body == "the Kubernetes API has not shown the pod yet\n"
        })
        .await;
    assert_eq!(unready.status, 503);
    until_asked(&world, "a list to be refused", |kube| {
        kube.seen()
            .iter()
            .any(|seen| (seen.verb, seen.status) == ("list", Some(403)))
    })
    .await;
    world.kube_faults.lift_all();
    podbeat.until_ready(true).await;
    let metrics = podbeat.get("/metrics").await.body;
    assert!(
        value(&metrics, "podbeat_watch_errors_total") >= Some(1.0),
        "{metrics}"
    );
    assert_eq!(
        value(&metrics, "podbeat_watch_resyncs_total"),
        Some(1.0),
        "{metrics}"
    );
    assert_eq!(
        value(&metrics, "podbeat_watch_restarts_total"),
        Some(0.0),
        "{metrics}"
    );

    world
        .kube_faults
        .script("watch cut until-lifted; any refuse until-lifted; any 503 until-lifted")
        .expect("rules");
    let unready = podbeat.until_ready(false).await;
    assert!(
        unready
            .body
            .starts_with("the Kubernetes API last confirmed the pod's states "),
        "{unready:?}"
    );
    assert_eq!(podbeat.get("/livez").await.status, 200);
    world.kube_faults.lift_all();
    podbeat.until_ready(true).await;
    let metrics = podbeat.get("/metrics").await.body;
    assert!(
        value(&metrics, "podbeat_watch_restarts_total") >= Some(1.0),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_service_does_not_delay_the_startup() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .service_faults
        .script("heartbeat hang-lost until-lifted")
        .expect("a rule");
    let podbeat = Endpoint::start(&world, "log", &[]).await;
    podbeat
        .until("/startupz", "the first attempt", |answer| {
            answer.status == 200
        })
        .await;
    assert_eq!(podbeat.get("/livez").await.status, 200);
    assert_eq!(podbeat.get("/readyz").await.status, 503);
    let status = podbeat.status().await;
    assert_eq!(status["sent"]["kind"], "first", "{status}");
    assert_eq!(status["answered"], Value::Null, "{status}");
    assert_eq!(world.service.accepted(), []);
}

/// After a life with everything that a metric can report, each metric is there as the table says,
/// and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_what_the_table_says() {
    let world = World::start().await.expect("a world");
    let expiry = jiff::Timestamp::now().as_second() + 3600;
    let token = jwt(&format!(r#"{{"exp":{expiry}}}"#));
    world.service.set_tokens(&[&token]);
    world.write_token(&token).expect("written");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    world
        .service_faults
        .script("heartbeat 400; heartbeat 503; heartbeat drop")
        .expect("rules");
    let podbeat = Endpoint::start(
        &world,
        "log",
        &[
            ("PODBEAT_INTERVAL", "200ms"),
            // No user can create a file there, not even root.
            ("PODBEAT_STATE_DIR", "/proc/self"),
        ],
    )
    .await;
    until_main_is(&world, "waiting").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    let before = podbeat.get("/metrics").await;
    assert!(
        before.head.contains(
            "\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        ),
        "{}",
        before.head
    );
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    let accepted_final = r#"podbeat_heartbeats_total{kind="final",outcome="accepted"}"#;
    let after = podbeat
        .until("/metrics", "an accepted final", |answer| {
            value(&answer.body, accepted_final) == Some(1.0)
        })
        .await;
    for metrics in [&before.body, &after.body] {
        conforms(metrics);
    }
    let metrics = &after.body;
    for (sample, expected) in [
        (
            concat!(
                r#"podbeat_build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""}"#
            ),
            1.0,
        ),
        (&format!(r#"podbeat_run_info{{task_run_id="{RUN}"}}"#), 1.0),
        (
            r#"podbeat_heartbeats_total{kind="first",outcome="refused"}"#,
            1.0,
        ),
        (r#"podbeat_attempts_total{status="4xx"}"#, 1.0),
        (r#"podbeat_attempts_total{status="5xx"}"#, 1.0),
        (r#"podbeat_attempts_total{status="ambiguous"}"#, 1.0),
        (r#"podbeat_transitions_total{state="waiting"}"#, 1.0),
        (r#"podbeat_transitions_total{state="running"}"#, 1.0),
        (r#"podbeat_transitions_total{state="terminated"}"#, 1.0),
        ("podbeat_interval_seconds", 0.2),
        ("podbeat_max_status_age_seconds", 300.0),
        ("podbeat_watch_age_seconds", 0.0),
        ("podbeat_outbox_depth", 0.0),
        ("podbeat_final_pending", 0.0),
        ("podbeat_orphaned", 0.0),
    ] {
        assert_eq!(
            value(metrics, sample),
            Some(expected),
            "{sample}\n{metrics}"
        );
    }
    let expires = value(metrics, "podbeat_token_expiry_timestamp_seconds").expect("it tells");
    assert!((expires - 3600.0 - jiff::Timestamp::now().as_duration().as_secs_f64()).abs() < 60.0);
    assert!(
        value(metrics, "podbeat_journal_errors_total") >= Some(1.0),
        "{metrics}"
    );
    let attempts: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("podbeat_attempts_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(
        value(metrics, "podbeat_attempt_duration_seconds_count"),
        Some(attempts)
    );

    assert_eq!(
        podbeat.get("/readyz").await.status,
        200,
        "after the end as well"
    );
    let status = podbeat.status().await;
    for (pointer, expected) in [
        ("/taskRunId", json!(RUN)),
        (
            "/pod",
            json!({"name": "p", "namespace": "lab", "uid": "u1"}),
        ),
        (
            "/seen/containers",
            json!([{"name": "main", "state": "terminated", "reason": "Error", "exitCode": 3}]),
        ),
        ("/seen/watching", json!(false)),
        ("/sent/kind", json!("final")),
        ("/answered/outcome", json!("accepted")),
        ("/outboxDepth", json!(0)),
        ("/lastHeartbeat", json!("accepted")),
        ("/journal", json!(true)),
        ("/intervalSeconds", json!(0.2)),
        ("/losses/refused", json!(0)),
    ] {
        assert_eq!(
            status.pointer(pointer),
            Some(&expected),
            "{pointer}: {status}"
        );
    }
    let (code, log) = podbeat.terminate().await;
    assert_eq!(code, 0, "{log}");
}

/// Checks that a text is OpenMetrics as in the table: each family once, with its type, its labels
/// and their values.
fn conforms(metrics: &str) {
    let Some(lines) = metrics.strip_suffix("# EOF\n") else {
        panic!("no end: {metrics}");
    };
    let mut printed = BTreeSet::new();
    let mut current: Option<&Metric<Read>> = None;
    for line in lines.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').expect("a type");
            let metric = METRICS
                .iter()
                .find(|metric| metric.family() == family)
                .unwrap_or_else(|| panic!("{family} is not in the table"));
            assert_eq!(kind, metric.kind.name(), "{family}");
            assert!(printed.insert(metric.name), "{family} is printed twice");
            current = Some(metric);
        } else if !line.starts_with("# HELP ") {
            let metric = current.unwrap_or_else(|| panic!("{line} has no type"));
            is_of(metric, line);
        }
    }
    for metric in METRICS {
        assert!(
            printed.contains(metric.name),
            "{} is missing: {metrics}",
            metric.name
        );
    }
}

fn is_of(metric: &Metric<Read>, line: &str) {
    let (sample, value) = line.rsplit_once(' ').expect("a value");
    value
        .parse::<f64>()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let (name, labels) = match sample.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed")),
        None => (sample, ""),
    };
    let mut expected: Vec<&str> = metric.labels.iter().map(|label| label.name).collect();
    if metric.kind == Type::Histogram {
        let suffix = name.strip_prefix(metric.name).expect("its name");
        assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        if suffix == "_bucket" {
            expected.push("le");
        }
    } else {
        assert_eq!(name, metric.name, "{line}");
    }
    let mut there = vec![];
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once('=').expect("a label");
        there.push(label);
        let values = metric
            .labels
            .iter()
            .find(|known| known.name == label)
            .map_or(&[][..], |known| known.values);
        let value = value.trim_matches('"');
        assert!(values.is_empty() || values.contains(&value), "{line}");
    }
    assert_eq!(there, expected, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_heartbeat_that_is_due_is_pending_until_it_is_accepted() {
    let world = World::start().await.expect("a world");
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a rule");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(0, "Completed", "c1")));
    let podbeat = Endpoint::start(&world, "log", &[]).await;
    let pending = podbeat
        .until("/metrics", "a final that waits", |answer| {
            value(&answer.body, "podbeat_final_pending") == Some(1.0)
        })
        .await;
    assert!(value(&pending.body, "podbeat_outbox_depth") >= Some(1.0));
    assert_eq!(podbeat.status().await["lastHeartbeat"], "due");
    world.service_faults.lift_all();
    podbeat
        .until("/metrics", "an accepted final", |answer| {
            value(&answer.body, "podbeat_final_pending") == Some(0.0)
        })
        .await;
    assert_eq!(podbeat.get("/readyz").await.status, 200);
}

/// The kubelet restarts a native sidecar that ended, and runs its startup probe again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_behind_the_last_heartbeat_has_started_and_is_ready() {
    let world = World::start().await.expect("a world");
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let settings = [("PODBEAT_STATE_DIR", &*text(&state))];
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(0, "Completed", "c1")));
    let first = Endpoint::start(&world, "log-1", &settings).await;
    first
        .until("/status", "the end in the journal", |_| {
            std::fs::read_to_string(state.join("journal.json"))
                .is_ok_and(|journal| journal.contains(r#""outbox":[],"lastHeartbeat":"accepted""#))
        })
        .await;
    drop(first);
    let before = world.service.heartbeats().len();
    let second = Endpoint::start(&world, "log-2", &settings).await;
    second
        .until("/startupz", "the start", |answer| answer.status == 200)
        .await;
    assert_eq!(second.get("/readyz").await.status, 200);
    let metrics = second.get("/metrics").await.body;
    let finals = r#"podbeat_heartbeats_total{kind="final",outcome="accepted"}"#;
    assert_eq!(
        value(&metrics, finals),
        Some(0.0),
        "the first process counted it"
    );
    assert_eq!(world.service.heartbeats().len(), before, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_disables_the_endpoint_and_not_the_heartbeats() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let holder = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = holder.local_addr().expect("an address").to_string();
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_LISTEN", &address)]);
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    let errors: Vec<Value> = lines(&log)
        .into_iter()
        .filter(|line| line["level"] == "ERROR")
        .collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert_eq!(errors[0]["setting"], "PODBEAT_LISTEN");
    let error = errors[0]["error"].as_str().expect("an error");
    assert!(error.contains(&address), "{error}");
    assert!(
        errors[0]["cause"]
            .as_str()
            .expect("a cause")
            .contains("in use")
    );
}

/// G6: no answer of the endpoint contains a token, a nonce, or free text of containers or the
/// service.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_contains_a_secret() {
    const SECRETS: [&str; 6] = [
        TOKEN,
        KUBE_TOKEN,
        "renewed-hunter2",
        "nonce-hunter2",
        "message-hunter2",
        "secret-path",
    ];
    let world = World::start().await.expect("a world");
    world.service.set_tokens(&[TOKEN, "renewed-hunter2"]);
    world
        .service_faults
        .script("heartbeat jwt=renewed-hunter2; heartbeat 503; heartbeat 400")
        .expect("rules");
    let pod = Pod::new("p", "u1");
    let mut crashed = waiting("CrashLoopBackOff");
    crashed["state"]["waiting"]["message"] = json!("message-hunter2");
    let path = world.path("secret-path");
    world.kube.apply(pod.showing(&crashed));
    let podbeat = Endpoint::start(
        &world,
        "log",
        &[
            ("PODBEAT_INTERVAL", "100ms"),
            ("PODBEAT_NONCE", "nonce-hunter2"),
            ("PODBEAT_RENEWED_TOKEN_FILE", &text(&path)),
        ],
    )
    .await;
    let renewed = |heartbeat: &Heartbeat| {
        heartbeat.accepted
            && heartbeat.token.as_deref() == Some("renewed-hunter2")
            && heartbeat.nonce() == "nonce-hunter2"
    };
    until_one(&world, "the renewed token", renewed).await;
    for end in [false, true] {
        if end {
            world
                .kube
                .apply(pod.showing(&terminated(0, "Completed", "c1")));
            until_final(&world).await;
        }
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/startupz",
            "/metrics",
            "/status",
            "/token",
        ] {
            let answer = podbeat.get(path).await;
            for secret in SECRETS {
                assert!(
                    !answer.head.contains(secret) && !answer.body.contains(secret),
                    "{secret} is in {path}: {answer:?}"
                );
            }
        }
    }
    let status = podbeat.status().await.to_string();
    assert!(
        status.contains("\"main\""),
        "the status has details: {status}"
    );
}

/// What an attacker does.
#[derive(Clone, Copy)]
enum Attack {
    /// Sends a head byte by byte, without end.
    SlowLoris,
    /// Sends data that is not HTTP.
    Garbage,
    /// Sends a head of a megabyte.
    HugeHead,
    /// Sends a request, and does not read the answer.
    NoReader,
}

async fn attack(
    address: SocketAddr,
    attack: Attack,
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) {
    while !over.load(Ordering::Relaxed) {
        let _: std::io::Result<()> = async {
            let mut stream = TcpStream::connect(address).await?;
            match attack {
                Attack::SlowLoris => {
                    stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await?;
                    while !over.load(Ordering::Relaxed) {
                        stream.write_all(b"x").await?;
                        sleep(Duration::from_millis(50)).await;
                    }
                }
                Attack::Garbage => stream.write_all(&[0xff; 4096]).await?,
                Attack::HugeHead => {
                    stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await?;
                    for _ in 0..1024 {
                        stream.write_all(&[b'x'; 1024]).await?;
                    }
                }
                Attack::NoReader => {
                    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await?;
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Ok(())
        }
        .await;
        done.fetch_add(1, Ordering::Relaxed);
        // This leaves some of the machine to the test.
        sleep(Duration::from_millis(10)).await;
    }
}

/// Probes like the kubelet, which counts a failure only if three probes in a row fail
/// (failureThreshold). A single probe can fail on a busy machine: podbeat cannot distinguish a
/// client that connects and sends nothing for 10 ms from an attacker.
async fn probe(address: SocketAddr) -> Answer {
    let mut failures = Vec::new();
    for _ in 0..3 {
        match ask(address, "/livez").await {
            Ok(answer) => return answer,
            Err(error) => failures.push(error),
        }
    }
    panic!("three probes in a row failed: {failures:?}");
}

/// G5, G2: an endpoint under attack answers its probes, and heartbeats continue as usual.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_delay_no_heartbeat_and_no_probe() {
    const INTERVAL: Duration = Duration::from_millis(100);
    const TIMEOUT: Duration = Duration::from_secs(2);
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&running(STARTED)));
    let podbeat = Endpoint::start(
        &world,
        "log",
        &[("PODBEAT_INTERVAL", "100ms"), ("PODBEAT_TIMEOUT", "2s")],
    )
    .await;
    podbeat.until_ready(true).await;

    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let attackers: Vec<_> = std::iter::repeat_n(Attack::SlowLoris, 200)
        .chain([Attack::Garbage; 4])
        .chain([Attack::HugeHead; 4])
        .chain([Attack::NoReader; 4])
        .map(|kind| {
            tokio::spawn(attack(
                podbeat.address,
                kind,
                Arc::clone(&over),
                Arc::clone(&done),
            ))
        })
        .collect();
    let begun = world.service.heartbeats().len();
    for _ in 0..20 {
        assert_eq!(probe(podbeat.address).await.status, 200);
        let received = world.service.heartbeats().len();
        until(&world, "two more heartbeats", |heartbeats| {
            heartbeats.len() >= received + 2
        })
        .await;
    }
    assert!(done.load(Ordering::Relaxed) > 200, "it was an attack");
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    until_one(&world, "the final", |heartbeat| {
        heartbeat.accepted && heartbeat.is_final() && heartbeat.exit_code("main") == Some(3)
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.await.expect("joined");
    }
    assert_eq!(podbeat.get("/readyz").await.status, 200);
    let heartbeats = world.service.heartbeats();
    let gaps = heartbeats[begun - 1..]
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at);
    let longest = gaps.max().expect("heartbeats");
    assert!(longest <= INTERVAL + TIMEOUT, "{longest:?}");
    assert!(heartbeats.iter().all(|heartbeat| heartbeat.accepted));
    let (code, log) = podbeat.terminate().await;
    assert_eq!(code, 0, "{log}");
}
