//! Streams of a real kubelet, replayed: the words of `tests/captures/README.md` are theirs.

use std::collections::BTreeMap;
use std::path::Path;

use podbeat::exit::Ending;
use podbeat::heartbeat::request::{self, Report};
use podbeat::pod::status::Observation;
use podbeat_lab::capture::Capture;
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::{Agent, check, states, until_final};

/// Ten times as fast as life.
const SPEED: u32 = 10;

fn load(name: &str) -> Capture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(format!("watch-{name}.jsonl"));
    Capture::load(&path).expect("a capture")
}

fn settings(world: &World, capture: &Capture) -> BTreeMap<String, String> {
    let mut settings = world.settings(capture.name(), capture.uid());
    settings.insert("POD_NAMESPACE".to_owned(), capture.namespace().to_owned());
    settings.insert("PODBEAT_CONTAINER_NAME".to_owned(), "hb".to_owned());
    settings
}

fn agent(world: &World, capture: &Capture) -> Agent {
    Agent::start(&settings(world, capture))
}

/// What is reported of a pod as a step shows it.
fn reported(object: &Value, report: Report) -> Value {
    let pod = serde_json::from_value(object.clone()).expect("a pod");
    let statuses = request::statuses(&Observation::of(&pod, "hb"), report);
    serde_json::to_value(statuses).expect("JSON")
}

/// Replays a stream with its own timing divided by ten, and ends podbeat by SIGTERM behind it, as the kubelet does. A
/// step also waits until the one before it was heard, so that a busy machine loses none of them in the agent's own
/// collecting of what follows fast.
async fn replay(name: &str, report: Report) -> Vec<Heartbeat> {
    let world = World::start().await.expect("a world");
    let capture = load(name);
    let mut settings = settings(&world, &capture);
    if report == Report::All {
        settings.insert("PODBEAT_REPORT".to_owned(), "all".to_owned());
    }
    let agent = Agent::start(&settings);
    let begun = Instant::now();
    for step in &capture.steps {
        sleep_until(begun + step.at / SPEED).await;
        world.kube.replay(&step.event);
        let object = step.event.get("object").expect("an object");
        let shown = reported(object, report);
        let gone = step.event.get("type") == Some(&json!("DELETED"));
        crate::until(&world, "the step to be heard", |heartbeats| {
            let accepted = || heartbeats.iter().filter(|heartbeat| heartbeat.accepted);
            let told = accepted()
                .next_back()
                .and_then(|last| last.body.get("containerStatus"));
            let heard = !gone && (told == Some(&shown) || shown == json!([]));
            heard || accepted().any(Heartbeat::is_final)
        })
        .await;
    }
    agent.terminate().await;
    until_final(&world).await;
    assert_eq!(agent.end().await, Ending::Delivered, "{name}");
    check(&world);
    world.service.accepted()
}

/// One line for each heartbeat, as it was sent; only the nonce, which is random, is left out.
fn story(heartbeats: &[Heartbeat]) -> String {
    let lines = heartbeats.iter().map(|heartbeat| {
        let mut body = heartbeat.body.clone();
        body.as_object_mut().expect("an object").remove("nonce");
        body.to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn last(heartbeats: &[Heartbeat]) -> &Heartbeat {
    heartbeats.last().expect("heartbeats")
}

/// Every stream, and what the service heard of it: read the snapshots before you accept a change of them.
#[tokio::test]
async fn every_stream_is_told_as_its_snapshot_says() {
    const STREAMS: [&str; 14] = [
        "a-complete",
        "b-delete",
        "d-classic",
        "e-hostnet",
        "g-oom",
        "h-noimage",
        "i-badcmd",
        "j-stubborn2",
        "k-single1",
        "k-single2",
        "k-single3",
        "l-deadline",
        "m-sidecrash",
        "z-cold",
    ];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut streams: Vec<String> = std::fs::read_dir(directory)
        .expect("listed")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("watch-")?.strip_suffix(".jsonl")?.to_owned()))
        // A stream that is an error and no pod: see below.
        .filter(|name| !name.starts_with("error-event"))
        .collect();
    streams.sort_unstable();
    assert_eq!(streams, STREAMS, "no stream is left out");
    let lives = STREAMS.map(|name| async move { (name, replay(name, Report::Task).await) });
    for (name, heartbeats) in futures_util::future::join_all(lives).await {
        insta::assert_snapshot!(name, story(&heartbeats));
    }
}

#[tokio::test]
async fn with_report_all_init_containers_and_other_sidecars_are_told_too() {
    insta::assert_snapshot!(
        "m-sidecrash-all",
        story(&replay("m-sidecrash", Report::All).await)
    );
    insta::assert_snapshot!("a-complete-all", story(&replay("a-complete", Report::All).await));
}

/// What the snapshots can't say by themselves.
#[tokio::test]
async fn every_stream_that_ends_by_itself_ends_with_its_exit_code() {
    let streams = [
        ("z-cold", 3, "Error"),
        ("e-hostnet", 0, "Completed"),
        ("d-classic", 0, "Completed"),
        ("g-oom", 137, "OOMKilled"),
        ("i-badcmd", 128, "StartError"),
        ("b-delete", 143, "Error"),
        ("m-sidecrash", 0, "Completed"),
    ];
    let lives = streams.map(|(name, exit_code, reason)| async move {
        let heartbeats = replay(name, Report::Task).await;
        let (_, members) = last(&heartbeats).state("main").expect("main's state");
        assert_eq!(last(&heartbeats).exit_code("main"), Some(exit_code), "{name}");
        assert_eq!(members.get("reason"), Some(&json!(reason)), "{name}");
        assert_eq!(
            states(&heartbeats, "hb"),
            Vec::<String>::new(),
            "our own is left out"
        );
    });
    futures_util::future::join_all(lives).await;
}

/// Fact 1 of the design: while a pod is being deleted, the kubelet shows no exit before all containers are dead.
#[tokio::test]
async fn b_delete_says_running_until_every_container_is_dead() {
    let world = World::start().await.expect("a world");
    let capture = load("b-delete");
    let terminating: Vec<_> = capture
        .steps
        .iter()
        .map(|step| &step.event)
        .filter(|event| event.pointer("/object/metadata/deletionTimestamp").is_some())
        .collect();
    let main_runs = |event: &&&serde_json::Value| {
        event
            .pointer("/object/status/containerStatuses/0/state/running")
            .is_some()
    };
    // The capture itself: deleted, and main still runs; then at once everything is dead, the sidecar included.
    assert_eq!(terminating.iter().filter(main_runs).count(), 2);
    let first_end = terminating
        .iter()
        .find(|event| !main_runs(event))
        .expect("it ends");
    assert!(
        first_end
            .pointer("/object/status/initContainerStatuses/0/state/terminated")
            .is_some()
    );

    // A sidecar that is told to end at its place in the order sees no more than that.
    let agent = agent(&world, &capture);
    for step in &capture.steps {
        world.kube.replay(&step.event);
        if step.event.pointer("/object/metadata/deletionTimestamp").is_some() {
            break;
        }
    }
    crate::until_main_is(&world, "running").await;
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Delivered);
    let heartbeats = world.service.accepted();
    assert_eq!(
        last(&heartbeats).state("main").map(|(name, _)| name),
        Some("running"),
        "no end is invented"
    );
    assert!(last(&heartbeats).is_final());
    check(&world);
}

#[tokio::test]
async fn h_noimage_waits_and_never_ends() {
    let world = World::start().await.expect("a world");
    let capture = load("h-noimage");
    let agent = agent(&world, &capture);
    for step in &capture.steps {
        world.kube.replay(&step.event);
    }
    // The stream was cut before the image was missed; the pod as it stood later is beside it.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/pod-h-noimage-final.json");
    let text = std::fs::read_to_string(path).expect("the pod");
    world.kube.apply(serde_json::from_str(&text).expect("JSON"));
    let heartbeats = crate::until(&world, "the image to be missed", |heartbeats| {
        heartbeats.iter().any(|heartbeat| {
            let reason = heartbeat
                .state("main")
                .and_then(|(_, members)| members.get("reason"));
            reason
                .and_then(|reason| reason.as_str())
                .is_some_and(|reason| reason.contains("Image"))
        })
    })
    .await;
    assert!(!heartbeats.iter().any(Heartbeat::is_final));
    assert!(!agent.task.is_finished());
    check(&world);
}
