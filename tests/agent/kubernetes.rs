//! What the Kubernetes API does, and how the agent reacts.

use std::time::Duration;

use podbeat_http_client::route::Proxies;
use podbeat_kubernetes::access::Access;
use podbeat_kubernetes::watch::{PodEvent, PodWatch, Step};
use podbeat_lab::fault::Faults;
use podbeat_lab::kube_api::{KubeApi, Options};
use podbeat_lab::pki::Authority;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated, waiting};
use podbeat_lab::service;
use podbeat_lab::world::{KUBE_TOKEN, World};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Agent, check};
use crate::harness::received::{until, until_asked, until_final, until_main_is};
use crate::harness::{LIMIT, STARTED, settings};

#[tokio::test]
async fn only_our_pod_is_asked_for() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .kube
        .apply(Pod::new("q", "u2").showing(&terminated(1, "Error", "x")));
    let _agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    for seen in world.kube.seen() {
        assert!(
            seen.verb == "get" || seen.query.contains("fieldSelector=metadata.name%3Dp"),
            "{seen:?}"
        );
    }
    assert!(
        world
            .service
            .accepted()
            .iter()
            .all(|heartbeat| heartbeat.exit_code("main").is_none())
    );
}

/// A life in which the watch fails as the script says, before the transition that ends it.
async fn survives(script: &str) {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "waiting").await;
    world.kube_faults.script(script).expect("rules");
    world.kube.apply(pod.showing(&running(STARTED)));
    world.kube.apply(pod.showing(&terminated(6, "Error", "c1")));
    assert_eq!(
        until_final(&world).await.exit_code("main"),
        Some(6),
        "{script}"
    );
    agent.terminate().await;
    agent.end().await;
    check(&world);
}

#[tokio::test]
async fn broken_watches_are_resumed() {
    for script in [
        "watch cut",
        "watch end x3",
        "watch garbage",
        "watch 500 x2; watch cut",
        "watch cut; any refuse for 1s",
    ] {
        survives(script).await;
    }
}

/// The pod ends while a broken watch waits to reconnect.
#[tokio::test]
async fn a_signal_ends_the_wait_for_a_reconnect() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let settings = settings(&world, &[("PODBEAT_RECONNECT_SPREAD", "10m")]);
    let agent = Agent::start(&settings);
    until_main_is(&world, "running").await;
    until_watched(&world).await;
    world.kube_faults.script("watch cut").expect("a rule");
    until_asked(&world, "no watch", |kube| kube.open_watches() == 0).await;
    world.kube.apply(pod.showing(&terminated(6, "Error", "c1")));
    agent.terminate().await;
    assert_eq!(until_final(&world).await.exit_code("main"), Some(6));
    agent.end().await;
    // The watch showed it, and not the look before the last heartbeat, which comes after half of
    // the grace period.
    let looked = world.kube.seen().iter().any(|seen| seen.verb == "get");
    assert!(!looked, "{:?}", world.kube.seen());
    check(&world);
}

#[tokio::test]
async fn an_expired_watch_lists_again() {
    survives("watch gone").await;
    survives("watch gone; list 503 x2; list garbage; list drop").await;
    survives("watch cut; watch 410").await;
}

#[tokio::test]
async fn a_compacted_history_lists_again() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let _agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "waiting").await;
    world
        .kube_faults
        .script("watch cut; watch 503 x2")
        .expect("rules");
    world.kube.apply(pod.showing(&running(STARTED)));
    world.kube.compact();
    until_main_is(&world, "running").await;
    let lists = world
        .kube
        .seen()
        .iter()
        .filter(|seen| seen.verb == "list")
        .count();
    assert!(lists >= 2, "{:?}", world.kube.seen());
}

#[tokio::test]
async fn heartbeats_continue_without_the_api() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .kube_faults
        .script("any refuse until-lifted")
        .expect("a rule");
    let settings = settings(&world, &[("PODBEAT_INTERVAL", "100ms")]);
    let _agent = Agent::start(&settings);
    let heartbeats = until(&world, "five heartbeats", |heartbeats| {
        heartbeats.len() >= 5
    })
    .await;
    assert!(
        heartbeats
            .iter()
            .all(|heartbeat| heartbeat.body.get("containerStatus").is_none())
    );
    world.kube_faults.lift_all();
    until_main_is(&world, "running").await;
    check(&world);
}

#[tokio::test]
async fn heartbeats_continue_without_a_role_and_a_new_role_is_detected() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world.kube.deny(true);
    let _agent = Agent::start(&world.settings("p", "u1"));
    until(&world, "a heartbeat", |heartbeats| !heartbeats.is_empty()).await;
    let refused = |kube: &KubeApi| kube.seen().iter().any(|seen| seen.status == Some(403));
    until_asked(&world, "a refusal", refused).await;
    world.kube.deny(false);
    until_main_is(&world, "running").await;
}

#[tokio::test]
async fn heartbeats_continue_without_the_ca_file() {
    let world = World::start().await.expect("a world");
    let settings = settings(&world, &[("PODBEAT_SERVICE_ACCOUNT_DIR", "/nowhere")]);
    let _agent = Agent::start(&settings);
    until(&world, "a heartbeat", |heartbeats| {
        heartbeats.iter().any(|heartbeat| heartbeat.accepted)
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_works_and_the_uid_is_learned() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    for variable in ["KUBERNETES_SERVICE_HOST", "POD_UID", "POD_NAMESPACE"] {
        settings.remove(variable);
    }
    settings.insert(
        "KUBECONFIG".to_owned(),
        world.path("kubeconfig").to_string_lossy().into_owned(),
    );
    let _agent = Agent::start(&settings);
    until_main_is(&world, "running").await;
    assert_eq!(
        world
            .service
            .accepted()
            .last()
            .and_then(|last| last.body.get("podUID").cloned()),
        Some(json!("u1"))
    );
}

#[tokio::test]
async fn a_pod_that_was_never_seen_is_not_ended() {
    let world = World::start().await.expect("a world");
    let mut settings = world.settings("misspelled", "u1");
    settings.insert("PODBEAT_INTERVAL".to_owned(), "200ms".to_owned());
    let agent = Agent::start(&settings);
    let twice = |kube: &KubeApi| {
        kube.seen()
            .iter()
            .filter(|seen| seen.status == Some(404))
            .count()
            >= 2
    };
    until_asked(&world, "two failed requests", twice).await;
    let heartbeats = until(&world, "three heartbeats", |heartbeats| {
        heartbeats.len() >= 3
    })
    .await;
    assert!(
        !heartbeats
            .iter()
            .any(podbeat_lab::service::Heartbeat::is_final)
    );
    assert!(!agent.task.is_finished());
}

/// A separate watch, with its sightings.
async fn watch(world: &World, silence: Duration) -> mpsc::Receiver<PodEvent> {
    told_watch(world, silence).await.0
}

/// The same, with its troubles as text.
async fn told_watch(
    world: &World,
    silence: Duration,
) -> (mpsc::Receiver<PodEvent>, mpsc::Receiver<String>) {
    let access = Access::InCluster {
        host: "127.0.0.1".to_owned(),
        port: world.kube.port(),
        service_account_dir: world.path("serviceaccount"),
        proxies: Proxies::default(),
    };
    let pod = PodWatch::new(&access, Some("lab"), "p")
        .await
        .expect("a client")
        .with_spread(Duration::ZERO)
        .with_silence(silence);
    let (sender, pod_events) = mpsc::channel(16);
    let (tell, troubles) = mpsc::channel(64);
    let on_step = move |step: Step<'_>| {
        if let Step::Failed(error) = step {
            let _ = tell.try_send(podbeat_interface::exit::with_causes(error));
        }
    };
    tokio::spawn(pod.run(
        Some("u1".to_owned()),
        sender,
        fastrand::Rng::with_seed(1),
        on_step,
    ));
    (pod_events, troubles)
}

/// Waits for the first trouble that contains this text.
async fn until_told(troubles: &mut mpsc::Receiver<String>, what: &str) {
    let told = async {
        while let Some(trouble) = troubles.recv().await {
            if trouble.contains(what) {
                return;
            }
        }
        panic!("no other message");
    };
    tokio::time::timeout(LIMIT, told)
        .await
        .unwrap_or_else(|_| panic!("no message with {what:?}"));
}

async fn until_watched(world: &World) {
    until_asked(world, "a watch", |kube| kube.open_watches() == 1).await;
}

async fn next(pod_events: &mut mpsc::Receiver<PodEvent>) -> PodEvent {
    tokio::time::timeout(LIMIT, pod_events.recv())
        .await
        .expect("in time")
        .expect("the pod")
}

#[tokio::test]
async fn a_silent_watch_is_detected_and_no_change_is_missed() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let mut pod_events = watch(&world, Duration::from_millis(300)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    until_watched(&world).await;
    world.kube_faults.script("watch silent").expect("a rule");
    world.kube.apply(pod.showing(&running(STARTED)));
    let PodEvent::Seen(seen) = next(&mut pod_events).await else {
        panic!("no update")
    };
    assert!(seen.status.container_statuses[0].state.running.is_some());
    let opened_again = |kube: &KubeApi| {
        kube.seen()
            .iter()
            .filter(|seen| seen.verb == "watch")
            .count()
            >= 2
    };
    until_asked(&world, "another watch", opened_again).await;
}

#[tokio::test]
async fn an_idle_watch_is_checked_and_kept() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    // Bookmarks come only once a minute here, so only the direct request confirms the state.
    let mut pod_events = watch(&world, Duration::from_millis(50)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    for _ in 0..3 {
        assert!(matches!(next(&mut pod_events).await, PodEvent::Confirmed));
    }
    let requests = world.kube.seen();
    let of = |verb: &str| requests.iter().filter(|seen| seen.verb == verb).count();
    assert_eq!((of("watch"), of("list")), (1, 1), "{requests:?}");
    let asked = requests.iter().filter(|seen| seen.verb == "get");
    assert!(
        asked.clone().count() >= 3
            && asked
                .clone()
                .all(|seen| seen.query.ends_with("resourceVersion=0"))
    );
}

#[tokio::test]
async fn a_rotated_token_is_read_at_once() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&waiting("ContainerCreating")));
    let mut pod_events = watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    until_watched(&world).await;
    KubeApi::write_service_account(&world.authority, "rotated", &world.path("serviceaccount"))
        .expect("written");
    world.kube.set_token("rotated");
    world.kube_faults.script("watch cut").expect("a rule");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    loop {
        if let PodEvent::Seen(pod) = next(&mut pod_events).await
            && pod.status.container_statuses[0].state.running.is_some()
        {
            break;
        }
    }
    assert!(
        world
            .kube
            .seen()
            .iter()
            .any(|seen| seen.status == Some(401))
    );
}

#[tokio::test]
async fn a_replaced_ca_is_read_as_soon_as_it_is_needed() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let dir = world.path("serviceaccount");
    let other = Authority::new().expect("another authority");
    KubeApi::write_service_account(&other, KUBE_TOKEN, &dir).expect("written");
    let (mut pod_events, mut troubles) = told_watch(&world, Duration::from_secs(20)).await;
    until_told(
        &mut troubles,
        "not signed with the key of the CA of that name",
    )
    .await;
    KubeApi::write_service_account(&world.authority, KUBE_TOKEN, &dir).expect("written");
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
}

#[tokio::test]
async fn heartbeats_continue_without_the_service_account_and_the_log_reports_it() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&waiting("ContainerCreating")));
    let dir = world.path("serviceaccount");
    let (mut pod_events, mut troubles) = told_watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    until_watched(&world).await;
    std::fs::remove_file(dir.join("token")).expect("removed");
    world.kube.set_token("rotated");
    world.kube_faults.script("watch cut").expect("a rule");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    until_told(
        &mut troubles,
        "check that the service account's volume is mounted",
    )
    .await;
    KubeApi::write_service_account(&world.authority, "rotated", &dir).expect("written");
    loop {
        if let PodEvent::Seen(pod) = next(&mut pod_events).await
            && pod.status.container_statuses[0].state.running.is_some()
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_redirect_never_receives_the_token() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let elsewhere = KubeApi::start(&world.authority, Faults::default(), Options::default())
        .await
        .expect("another API server");
    let script = format!("list redirect={}/", elsewhere.url());
    world.kube_faults.script(&script).expect("a rule");
    let mut pod_events = watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    let redirected = |kube: &KubeApi| kube.seen().iter().any(|seen| seen.status == Some(307));
    assert!(redirected(&world.kube), "{:?}", world.kube.seen());
    assert!(elsewhere.seen().is_empty(), "{:?}", elsewhere.seen());
}

#[tokio::test]
async fn the_services_roots_are_not_the_api_servers() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let other = Authority::new().expect("another authority");
    KubeApi::write_service_account(&other, KUBE_TOKEN, &world.path("serviceaccount"))
        .expect("written");
    let settings = settings(&world, &[("PODBEAT_INTERVAL", "200ms")]);
    let _agent = Agent::start(&settings);
    until(&world, "heartbeats", |heartbeats| {
        heartbeats
            .iter()
            .filter(|heartbeat| heartbeat.accepted)
            .count()
            >= 5
    })
    .await;
    assert!(world.kube.seen().is_empty(), "{:?}", world.kube.seen());
}

#[tokio::test]
async fn after_429_podbeat_waits_as_requested() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .kube_faults
        .script("list 429; list 429")
        .expect("rules");
    let mut pod_events = watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    let refused = world
        .kube
        .seen()
        .iter()
        .filter(|seen| seen.status == Some(429))
        .count();
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn bookmarks_keep_a_quiet_watch_alive_and_confirm_it() {
    let options = Options {
        bookmarks: Duration::from_millis(50),
        ..Options::default()
    };
    let world = World::with(options, service::Options::default())
        .await
        .expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut pod_events = watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    for _ in 0..3 {
        assert!(matches!(next(&mut pod_events).await, PodEvent::Confirmed));
    }
    assert_eq!(
        world
            .kube
            .seen()
            .iter()
            .filter(|seen| seen.verb == "watch")
            .count(),
        1,
        "the first one still stands"
    );
}

#[tokio::test]
async fn absence_from_a_list_counts_only_after_a_get() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut pod_events = watch(&world, Duration::from_secs(20)).await;
    assert!(matches!(next(&mut pod_events).await, PodEvent::Seen(_)));
    until_watched(&world).await;
    world
        .kube_faults
        .script("watch cut; watch 410; list 503")
        .expect("rules");
    world.kube.delete("lab", "p");
    loop {
        match next(&mut pod_events).await {
            PodEvent::Gone(_) => break,
            PodEvent::Seen(_) | PodEvent::Confirmed => {}
        }
    }
    let gets = world
        .kube
        .seen()
        .iter()
        .filter(|seen| seen.verb == "get")
        .count();
    assert_eq!(gets, 1, "{:?}", world.kube.seen());
}

#[tokio::test]
async fn the_service_accounts_token_is_never_the_services() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let _agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    assert!(
        world
            .service
            .heartbeats()
            .iter()
            .all(|heartbeat| heartbeat.token.as_deref() != Some(KUBE_TOKEN))
    );
}
