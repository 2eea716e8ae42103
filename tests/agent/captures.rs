//! Streams of a real kubelet, replayed: the words of `tests/captures/README.md` are theirs.

use std::path::Path;

use podbeat::exit::Ending;
use podbeat_lab::capture::Capture;
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use serde_json::json;

use crate::{Agent, check, states, until_final};

/// Ten times as fast as life.
const SPEED: u32 = 10;

fn load(name: &str) -> Capture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(format!("watch-{name}.jsonl"));
    Capture::load(&path).expect("a capture")
}

fn agent(world: &World, capture: &Capture) -> Agent {
    let mut settings = world.settings(capture.name(), capture.uid());
    settings.insert("POD_NAMESPACE".to_owned(), capture.namespace().to_owned());
    settings.insert("PODBEAT_CONTAINER_NAME".to_owned(), "hb".to_owned());
    Agent::start(&settings)
}

/// Replays a stream whose pod ends by itself; returns what the service accepted.
async fn replay(name: &str) -> Vec<Heartbeat> {
    let world = World::start().await.expect("a world");
    let capture = load(name);
    let agent = agent(&world, &capture);
    capture.play(&world.kube, SPEED).await;
    until_final(&world).await;
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Delivered, "{name}");
    check(&world);
    world.service.accepted()
}

fn last(heartbeats: &[Heartbeat]) -> &Heartbeat {
    heartbeats.last().expect("heartbeats")
}

#[tokio::test]
async fn a_complete_ends_with_exit_code_3_and_its_container_id() {
    let heartbeats = replay("a-complete").await;
    assert_eq!(states(&heartbeats, "main"), ["waiting", "running", "terminated"]);
    assert_eq!(
        states(&heartbeats, "hb"),
        Vec::<String>::new(),
        "our own container is left out"
    );
    assert_eq!(
        states(&heartbeats, "side2"),
        Vec::<String>::new(),
        "and other sidecars, unless asked for"
    );
    let (state, members) = last(&heartbeats).state("main").expect("main's state");
    assert_eq!(state, "terminated");
    assert_eq!(members.get("exitCode"), Some(&json!(3)));
    let id = members
        .get("containerID")
        .and_then(|id| id.as_str())
        .expect("an id");
    assert!(id.starts_with("containerd://") && id.len() == 77, "{id}");
    assert_eq!(
        last(&heartbeats).body.get("podUID"),
        Some(&json!("ebf42801-1044-4472-a6c6-9eb994d0e3dc"))
    );
}

#[tokio::test]
async fn every_stream_that_ends_by_itself_ends_with_its_exit_code() {
    let streams = [
        ("z-cold", 3, "Error"),
        ("e-hostnet", 0, "Completed"),
        ("d-classic", 0, "Completed"),
        ("g-oom", 137, "OOMKilled"),
        ("i-badcmd", 128, "StartError"),
        ("k-single1", 3, "Error"),
        ("k-single2", 3, "Error"),
        ("k-single3", 3, "Error"),
        ("m-sidecrash", 0, "Completed"),
    ];
    let lives = streams.map(|(name, exit_code, reason)| async move {
        let heartbeats = if name == "d-classic" {
            replay_plain(name).await
        } else {
            replay(name).await
        };
        let (_, members) = last(&heartbeats).state("main").expect("main's state");
        assert_eq!(last(&heartbeats).exit_code("main"), Some(exit_code), "{name}");
        assert_eq!(members.get("reason"), Some(&json!(reason)), "{name}");
    });
    futures_util::future::join_all(lives).await;
}

/// A plain sidecar gets no SIGTERM, and ends all the same.
async fn replay_plain(name: &str) -> Vec<Heartbeat> {
    let world = World::start().await.expect("a world");
    let capture = load(name);
    let agent = agent(&world, &capture);
    capture.play(&world.kube, SPEED).await;
    assert_eq!(agent.end().await, Ending::Delivered);
    check(&world);
    world.service.accepted()
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

/// Whoever outlives the containers (as from a laptop) sees the exit in the DELETED event.
#[tokio::test]
async fn b_delete_to_its_end_brings_the_exit_code() {
    let heartbeats = {
        let world = World::start().await.expect("a world");
        let capture = load("b-delete");
        let agent = agent(&world, &capture);
        capture.play(&world.kube, SPEED).await;
        let last = until_final(&world).await;
        assert_eq!(last.exit_code("main"), Some(143));
        agent.terminate().await;
        agent.end().await;
        check(&world);
        world.service.accepted()
    };
    assert_eq!(states(&heartbeats, "main"), ["waiting", "running", "terminated"]);
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
