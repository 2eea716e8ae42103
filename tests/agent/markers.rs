//! Exit markers: the exits that the API withholds while a pod terminates.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podbeat_heartbeat::marker::{self, Marker};
use podbeat_interface::exit::Ending;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated};
use podbeat_lab::world::World;
use serde_json::{Value, json};

use super::{Agent, check};
use crate::harness::received::{until, until_final, until_main_is};
use crate::harness::{self, STARTED, text};

fn settings(world: &World) -> BTreeMap<String, String> {
    std::fs::create_dir_all(world.path("markers")).expect("made");
    harness::settings(
        world,
        &[("PODBEAT_MARKER_DIR", &text(world.path("markers")))],
    )
}

/// Writes a marker as `podbeat exec` does.
fn leave(world: &World, container: &str, exit_code: i32) {
    let now = marker::whole_seconds(Timestamp::now());
    let marker = Marker {
        exit_code,
        signal: (exit_code > 128).then_some(exit_code - 128),
        started_at: Some(STARTED.parse().expect("a time")),
        finished_at: Some(now),
    };
    let directory = world.path("markers");
    let beside = directory.join(".new");
    std::fs::write(&beside, marker.print()).expect("written");
    std::fs::rename(beside, directory.join(marker::file_name(container))).expect("renamed");
}

/// The API server accepts a deletion with a grace period of 30 s. The kubelet shows nothing of what
/// follows.
fn begin_deletion(world: &World) {
    let ends = marker::whole_seconds(Timestamp::now() + jiff::SignedDuration::from_secs(30));
    world.kube.change("lab", "p", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!(ends.to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    });
}

#[tokio::test]
async fn the_final_of_a_deleted_pod_has_the_exit_that_the_api_does_not_show() {
    for sidecar in [Sidecar::Native, Sidecar::Plain] {
        let world = World::start().await.expect("a world");
        world.kube.apply(
            Pod::new("p", "u1")
                .sidecar(sidecar)
                .showing(&running(STARTED)),
        );
        let agent = Agent::start(&settings(&world));
        until_main_is(&world, "running").await;
        begin_deletion(&world);
        agent.terminate().await;
        leave(&world, "main", 143);
        assert_eq!(agent.end().await, Ending::Done);
        let last = until_final(&world).await;
        let (state, exit) = last.state("main").expect("a state");
        assert_eq!(state, "terminated", "{sidecar:?}");
        assert_eq!(
            (&exit["exitCode"], &exit["signal"], &exit["startedAt"]),
            (&json!(143), &json!(15), &json!(STARTED))
        );
        assert_eq!(
            (exit.get("containerID"), exit.get("reason")),
            (None, None),
            "nothing is invented"
        );
        check(&world);
    }
}

#[tokio::test]
async fn a_bare_exit_code_is_a_sufficient_marker() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&settings(&world));
    until_main_is(&world, "running").await;
    begin_deletion(&world);
    std::fs::write(world.path("markers/main"), "3\n").expect("written");
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    assert_eq!(
        until_final(&world).await.state("main"),
        Some(("terminated", &json!({"exitCode": 3})))
    );
    check(&world);
}

#[tokio::test]
async fn any_number_of_other_files_hides_no_marker() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&settings(&world));
    until_main_is(&world, "running").await;
    for nth in 0..3000 {
        std::fs::write(world.path("markers").join(format!(".{nth}")), "").expect("written");
    }
    begin_deletion(&world);
    leave(&world, "main", 3);
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    assert_eq!(until_final(&world).await.exit_code("main"), Some(3));
    check(&world);
}

#[tokio::test]
async fn a_state_of_the_api_takes_precedence_over_a_marker() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&running(STARTED)));
    let settings = settings(&world);
    leave(&world, "main", 9);
    let agent = Agent::start(&settings);
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(137, "OOMKilled", "c1")));
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    let last = until_final(&world).await;
    let (_, exit) = last.state("main").expect("a state");
    assert_eq!(
        (&exit["exitCode"], &exit["reason"]),
        (&json!(137), &json!("OOMKilled"))
    );
    check(&world);
}

#[tokio::test]
async fn the_marker_is_reported_after_the_pod_left_the_api() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let settings = settings(&world);
    let agent = Agent::start(&settings);
    until_main_is(&world, "running").await;
    leave(&world, "main", 137);
    world.kube.delete("lab", "p");
    assert_eq!(agent.end().await, Ending::Done);
    assert_eq!(until_final(&world).await.exit_code("main"), Some(137));
    check(&world);
}

#[tokio::test]
async fn without_a_marker_no_exit_is_sent_and_a_missing_directory_is_harmless() {
    for directory in ["markers", "no-such-directory", "token"] {
        let world = World::start().await.expect("a world");
        world
            .kube
            .apply(Pod::new("p", "u1").showing(&running(STARTED)));
        let mut settings = settings(&world);
        settings.insert("PODBEAT_MARKER_DIR".to_owned(), text(world.path(directory)));
        let agent = Agent::start(&settings);
        until_main_is(&world, "running").await;
        agent.terminate().await;
        assert_eq!(agent.end().await, Ending::Done);
        let last = until_final(&world).await;
        assert_eq!(
            last.state("main").map(|(name, _)| name),
            Some("running"),
            "{directory}"
        );
        check(&world);
    }
}

/// If a last heartbeat cannot be sent at once, its retry contains what came meanwhile.
#[tokio::test]
async fn a_retry_of_the_final_includes_a_marker_that_appeared_meanwhile() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&settings(&world));
    until_main_is(&world, "running").await;
    begin_deletion(&world);
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a rule");
    agent.terminate().await;
    let is_final = |heartbeats: &[podbeat_lab::service::Heartbeat]| {
        heartbeats
            .iter()
            .any(podbeat_lab::service::Heartbeat::is_final)
    };
    until(&world, "a refused final", is_final).await;
    leave(&world, "main", 1);
    let carries = |heartbeats: &[podbeat_lab::service::Heartbeat]| {
        let told = heartbeats.last().and_then(|last| last.exit_code("main"));
        told == Some(1)
    };
    until(&world, "a final with the marker's code", carries).await;
    world.service_faults.lift_all();
    assert_eq!(agent.end().await, Ending::Done);
    let last = until_final(&world).await;
    assert_eq!(last.exit_code("main"), Some(1));
    let members: Vec<&Value> = last.body.get("containerStatus").into_iter().collect();
    assert_eq!(members.len(), 1);
    check(&world);
}
