//! How much podbeat logs.

use std::collections::BTreeSet;

use podbeat::config::SETTINGS;
use podbeat_interface::messages::field_of;
use podbeat_lab::pod::{Pod, running, terminated};
use podbeat_lab::world::World;
use rustix::process::Signal;

use super::table;
use crate::harness::binary::{Podbeat, messages};
use crate::harness::received::{until, until_main_is};
use crate::harness::{STARTED, text};

/// The first line has each setting in effect, under its flag's name.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_has_every_setting() {
    let world = World::start().await.expect("a world");
    let path = |name: &str| text(world.path(name));
    for (name, text) in [("nonce", "n"), ("state", "")] {
        std::fs::write(world.path(name), text).expect("written");
    }
    let (nonce, state, cert, key) = (
        path("nonce"),
        path("state"),
        path("client.crt"),
        path("client.key"),
    );
    let everywhere = [
        ("JOB_RETRY_COUNT", "2"),
        ("POD_HARDWARE_DETAILS", "big"),
        ("PODBEAT_CLIENT_CERT_FILE", &cert),
        ("PODBEAT_CLIENT_KEY_FILE", &key),
        ("PODBEAT_STATE_DIR", &state),
        ("PODBEAT_MARKER_DIR", &state),
        ("PODBEAT_RENEWED_TOKEN_FILE", &state),
        ("PODBEAT_LISTEN", "127.0.0.1:0"),
        ("PODBEAT_LOG_FORMAT", "json"),
        ("JOB_COMPLETION_INDEX", "3"),
        (
            "TRACEPARENT",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ),
    ];
    let token = std::fs::read_to_string(world.path("token")).expect("a token");
    let (kubeconfig, in_pod) = (
        path("kubeconfig"),
        [("PODBEAT_NONCE", "n"), ("PODBEAT_TASK_CONTAINERS", "main")],
    );
    let outside = [
        ("PODBEAT_NONCE_FILE", nonce.as_str()),
        ("PODBEAT_TOKEN_FILE", ""),
        ("PODBEAT_TOKEN", token.as_str()),
        ("KUBECONFIG", kubeconfig.as_str()),
        ("PODBEAT_KUBE_CONTEXT", "lab"),
        ("PODBEAT_IGNORED_CONTAINERS", "proxy"),
    ];
    let mut told = BTreeSet::new();
    for (log, more) in [("log-1", &in_pod[..]), ("log-2", &outside[..])] {
        let podbeat = Podbeat::start(&world, log, &[&everywhere[..], more].concat());
        let begins = podbeat.until_logged("podbeat started").await;
        table::check(std::slice::from_ref(&begins));
        told.extend(begins.as_object().expect("an object").keys().cloned());
    }
    let untold: Vec<String> = SETTINGS
        .iter()
        .map(field_of)
        .filter(|field| !told.contains(field))
        .collect();
    // The service's URL shows it.
    assert_eq!(untold, ["allow_http"]);
}

/// While nothing happens, podbeat logs nothing after its first lines, however many heartbeats are
/// accepted and tokens are renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_at_rest_logs_nothing() {
    let world = World::start().await.expect("a world");
    world
        .service
        .set_tokens(&[podbeat_lab::world::TOKEN, "renewed"]);
    world
        .service_faults
        .script("heartbeat jwt=renewed until-lifted")
        .expect("a rule");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
    until_main_is(&world, "running").await;
    until(&world, "thirty more", |heartbeats| heartbeats.len() > 33).await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    table::check(&lines);
    let mut told = messages(&lines);
    told[1..4].sort_unstable();
    assert_eq!(
        told,
        [
            "podbeat started",
            "container state changed",
            "found the pod in the Kubernetes API",
            "the service accepted the first heartbeat of this process",
            "received SIGTERM or SIGINT; waiting for final container states",
            "the last heartbeat is due",
            "the last heartbeat was accepted",
            "podbeat is exiting",
        ]
    );
}

/// A service that refuses everything, alternating between two statuses: one line for each, then
/// fewer and fewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_continuing_problem_is_logged_less_and_less_often() {
    let world = World::start().await.expect("a world");
    let rules = "heartbeat 400; heartbeat 422;".repeat(20);
    world.service_faults.script(&rules).expect("rules");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&serde_json::Value::Null));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
    podbeat
        .until_logged("the service accepts heartbeats again")
        .await;
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(0, "Completed", "c1")));
    podbeat
        .until_logged("the last heartbeat was accepted")
        .await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    table::check(&lines);
    let repeats: Vec<u64> = lines
        .iter()
        .filter(|line| line["message"] == "a heartbeat was not accepted")
        .filter_map(|line| line["repeats"].as_u64())
        .collect();
    assert_eq!(repeats, [1, 2, 4, 8, 16, 32]);
    let over = lines
        .iter()
        .find(|line| line["message"] == "the service accepts heartbeats again")
        .expect("it is over");
    assert_eq!(over["failures"], 40);
    // A refused first or periodic heartbeat loses no news, so it has no line of its own.
    assert!(
        !messages(&lines).contains(&"a heartbeat was dropped"),
        "{lines:#?}"
    );
}

/// `off` logs nothing; a level or a target works as documented.
#[tokio::test(flavor = "multi_thread")]
async fn the_filter_selects_the_logged_events() {
    for (filter, expected) in [
        ("off", None),
        ("error", None),
        ("debug", Some(("DEBUG", "sending a heartbeat"))),
        (
            "warn,podbeat::agent::delivery=debug",
            Some(("DEBUG", "answered")),
        ),
        (
            "podbeat::agent::report=info",
            Some(("INFO", "podbeat is exiting")),
        ),
    ] {
        let world = World::start().await.expect("a world");
        let pod = Pod::new("p", "u1").sidecar(podbeat_lab::pod::Sidecar::Plain);
        world
            .kube
            .apply(pod.showing(&terminated(0, "Completed", "c1")));
        let (code, lines) = Podbeat::start(&world, "log", &[("PODBEAT_LOG", filter)])
            .end_in_lines()
            .await;
        assert_eq!(code, 0);
        table::check(&lines);
        let told: Vec<(&str, &str)> = lines
            .iter()
            .map(|line| {
                (
                    line["level"].as_str().expect("a level"),
                    line["message"].as_str().expect("text"),
                )
            })
            .collect();
        match expected {
            None => assert_eq!(told, [], "{filter}"),
            Some(expected) => assert!(told.contains(&expected), "{filter}: {told:?}"),
        }
        if filter.starts_with("warn,") {
            assert!(told.iter().all(|(level, _)| *level != "INFO"), "{told:?}");
        }
    }
}
