//! Whole pod lives.

use podbeat_interface::exit::Ending;
use podbeat_lab::pod::{Pod, Sidecar, exit, restarted, running, terminated, waiting};
use podbeat_lab::world::{RUN, TOKEN, World};
use serde_json::{Value, json};

use super::{Agent, check, states};
use crate::harness::received::{main_is, until, until_asked, until_final, until_main_is};
use crate::harness::{STARTED, settings};

#[tokio::test]
async fn a_native_sidecar_reports_a_life_from_pull_to_exit_code() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&Value::Null));
    let agent = Agent::start(&world.settings("p", "u1"));
    until(&world, "the first heartbeat", |heartbeats| {
        !heartbeats.is_empty()
    })
    .await;
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    until_main_is(&world, "waiting").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    let last = until_final(&world).await;
    assert_eq!(
        last.state("main"),
        Some((
            "terminated",
            &json!({"containerID": "containerd://c1", "exitCode": 3, "reason": "Error",
                    "startedAt": STARTED, "finishedAt": "2026-01-01T00:00:09Z"})
        ))
    );
    assert_eq!(last.run_id, RUN);
    assert_eq!(last.token.as_deref(), Some(TOKEN));
    assert_eq!(last.content_type.as_deref(), Some("application/json"));
    assert!(
        last.user_agent
            .as_deref()
            .is_some_and(|agent| agent.starts_with("podbeat/"))
    );
    assert_eq!(last.body.get("podName"), Some(&json!("p")));
    assert_eq!(last.body.get("podUID"), Some(&json!("u1")));
    assert_eq!(
        last.body.get("podHardwareDetails"),
        Some(&json!("node=node-1"))
    );
    // The watch ends when it can show nothing more.
    until_asked(&world, "the watch to end", |kube| kube.open_watches() == 0).await;
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    let accepted = world.service.accepted();
    assert_eq!(
        accepted.first().map(|first| first.state("main")),
        Some(None),
        "the first heartbeat does not wait for an observation"
    );
    assert_eq!(
        states(&accepted, "main"),
        ["waiting", "running", "terminated"]
    );
    assert_eq!(world.service.most_in_flight(), 1);
    check(&world);
}

#[tokio::test]
async fn a_plain_sidecar_ends_by_itself() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    assert_eq!(agent.end().await, Ending::Done);
    assert_eq!(until_final(&world).await.exit_code("main"), Some(0));
    check(&world);
}

#[tokio::test]
async fn with_on_failure_a_crash_is_reported_and_is_not_the_end() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").policy("OnFailure");
    world.kube.apply(pod.showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    until_main_is(&world, "terminated").await;
    let last = exit(3, "Error", "c1");
    world
        .kube
        .apply(pod.showing(&restarted(running("2026-01-01T00:00:21Z"), 1, &last)));
    until(&world, "the second run", |heartbeats| {
        heartbeats
            .last()
            .is_some_and(|last| main_is(last, "running"))
    })
    .await;
    // This crash is over before podbeat looks: only lastState shows it.
    world.kube.apply(pod.showing(&restarted(
        running("2026-01-01T00:00:31Z"),
        2,
        &exit(4, "Error", "c2"),
    )));
    until(&world, "the lost exit", |heartbeats| {
        heartbeats
            .iter()
            .any(|heartbeat| heartbeat.exit_code("main") == Some(4))
    })
    .await;
    world.kube.apply(pod.showing(&restarted(
        terminated(0, "Completed", "c3"),
        2,
        &exit(4, "Error", "c2"),
    )));
    assert_eq!(until_final(&world).await.exit_code("main"), Some(0));
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    let exits: Vec<i64> = world
        .service
        .accepted()
        .iter()
        .filter_map(|heartbeat| heartbeat.exit_code("main"))
        .collect();
    assert_eq!(exits, [3, 4, 0]);
    check(&world);
}

#[tokio::test]
async fn a_deleted_pod_gets_its_last_heartbeat_from_the_deleted_event() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    world.kube.delete("lab", "p");
    assert_eq!(
        until_final(&world)
            .await
            .state("main")
            .map(|(name, _)| name),
        Some("running")
    );
    assert_eq!(agent.end().await, Ending::Done);
    check(&world);
}

#[tokio::test]
async fn sigterm_alone_sends_the_last_known_states() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    let last = until_final(&world).await;
    assert_eq!(
        last.state("main").map(|(name, _)| name),
        Some("running"),
        "never an invented end"
    );
    assert!(
        world.kube.seen().iter().any(|seen| seen.verb == "get"),
        "a GET came first"
    );
    check(&world);
}

#[tokio::test]
async fn another_pod_of_the_same_name_is_never_reported() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    world
        .kube_faults
        .script("watch cut; list 503 x2")
        .expect("rules");
    world.kube.delete("lab", "p");
    world
        .kube
        .apply(Pod::new("p", "u2").showing(&terminated(9, "Error", "other")));
    assert_eq!(agent.end().await, Ending::Done);
    for heartbeat in world.service.accepted() {
        assert_eq!(heartbeat.body.get("podUID"), Some(&json!("u1")));
        assert_eq!(heartbeat.exit_code("main"), None);
    }
    until_final(&world).await;
    check(&world);
}

#[tokio::test]
async fn heartbeats_come_at_the_interval() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let settings = settings(&world, &[("PODBEAT_INTERVAL", "100ms")]);
    let _agent = Agent::start(&settings);
    let heartbeats = until(&world, "twelve heartbeats", |heartbeats| {
        heartbeats.len() >= 12
    })
    .await;
    // For the sender, the gaps are 90 to 110 ms; a busy machine only makes them longer.
    let took = heartbeats[11].at - heartbeats[1].at;
    assert!(took.as_millis() >= 800, "{took:?}");
    let mut nonces: Vec<&str> = heartbeats
        .iter()
        .map(podbeat_lab::service::Heartbeat::nonce)
        .collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(
        nonces.len(),
        heartbeats.len(),
        "each has a nonce of its own"
    );
    check(&world);
}

#[tokio::test]
async fn identity_from_the_settings_comes_before_the_pods_own() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").showing(&running(STARTED));
    world.kube.apply(pod);
    let more = [
        ("JOB_RETRY_COUNT", "2"),
        ("POD_HARDWARE_DETAILS", "a big one"),
        ("PODBEAT_NONCE", "n-1"),
        ("TASK_RUN_ID", "a/b c-{index}"),
        ("JOB_COMPLETION_INDEX", "3"),
    ];
    let _agent = Agent::start(&settings(&world, &more));
    until_main_is(&world, "running").await;
    for heartbeat in world.service.accepted() {
        assert_eq!(heartbeat.body.get("jobRetryCount"), Some(&json!(2)));
        assert_eq!(
            heartbeat.body.get("podHardwareDetails"),
            Some(&json!("a big one"))
        );
        assert_eq!(heartbeat.nonce(), "n-1");
        assert_eq!(heartbeat.path, "/v1/tasks/runs/a%2Fb%20c-3:heartbeat");
    }
    check(&world);
}

#[tokio::test]
async fn a_dry_run_sends_nothing() {
    let world = World::start().await.expect("a world");
    world.kube.apply(
        Pod::new("p", "u1")
            .sidecar(Sidecar::Plain)
            .showing(&terminated(0, "Completed", "c1")),
    );
    let settings = settings(&world, &[("PODBEAT_DRY_RUN", "true")]);
    assert_eq!(Agent::start(&settings).end().await, Ending::Done);
    assert_eq!(world.service.heartbeats(), []);
}

/// A service mesh proxy among the regular containers continues after main ended.
#[tokio::test]
async fn a_container_outside_the_task_does_not_delay_the_last_heartbeat() {
    for by_annotation in [true, false] {
        let world = World::start().await.expect("a world");
        let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
        let containers = pod["spec"]["containers"]
            .as_array_mut()
            .expect("containers");
        containers.push(json!({"name": "istio-proxy", "image": "proxy:lab"}));
        let statuses = pod["status"]["containerStatuses"]
            .as_array_mut()
            .expect("statuses");
        statuses.push(json!({"name": "istio-proxy", "state": {"running": {"startedAt": STARTED}}}));
        let mut settings = world.settings("p", "u1");
        if by_annotation {
            pod["metadata"]["annotations"] =
                json!({"podbeat.dev/ignored-containers": "istio-proxy"});
        } else {
            settings.insert("PODBEAT_TASK_CONTAINERS".to_owned(), "main".to_owned());
        }
        world.kube.apply(pod.clone());
        let agent = Agent::start(&settings);
        until_main_is(&world, "running").await;
        pod["status"]["containerStatuses"][0]["state"] =
            terminated(0, "Completed", "c1")["state"].clone();
        world.kube.apply(pod);
        let last = until_final(&world).await;
        assert_eq!(last.exit_code("main"), Some(0));
        assert_eq!(
            last.state("istio-proxy"),
            None,
            "it is not part of the task"
        );
        agent.terminate().await;
        assert_eq!(agent.end().await, Ending::Done);
        check(&world);
    }
}
