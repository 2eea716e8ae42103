//! What the service answers, and how the agent reacts.

use std::collections::BTreeSet;

use podbeat_interface::exit::Ending;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated, waiting};
use podbeat_lab::service::Options;
use podbeat_lab::world::{TOKEN, World};
use podbeat_lab::{kube_api, service};

use super::{Agent, check, states};
use crate::harness::received::{until, until_final, until_main_is};
use crate::harness::{STARTED, settings, text};

/// A life of three transitions in which the service fails as the script says.
async fn outage(script: &str) -> World {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let settings = settings(&world, &[("PODBEAT_TIMEOUT", "500ms")]);
    let agent = Agent::start(&settings);
    until_main_is(&world, "waiting").await;
    let before = world.service.heartbeats().len();
    world.service_faults.script(script).expect("rules");
    world.kube.apply(pod.showing(&running(STARTED)));
    if !script.starts_with("heartbeat refuse") {
        until(&world, "a failed attempt", |heartbeats| {
            heartbeats.len() > before
        })
        .await;
    }
    world.kube.apply(pod.showing(&terminated(5, "Error", "c1")));
    assert_eq!(
        until_final(&world).await.exit_code("main"),
        Some(5),
        "{script}"
    );
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
    assert_eq!(
        states(&world.service.accepted(), "main"),
        ["waiting", "running", "terminated"],
        "{script}"
    );
    check(&world);
    world
}

#[tokio::test]
async fn no_transition_is_lost_after_errors() {
    outage("heartbeat 503 x3; heartbeat 500; heartbeat 429 retry-after=1s; heartbeat 408; heartbeat 403")
        .await;
}

#[tokio::test]
async fn no_transition_is_lost_after_refused_connections() {
    outage("heartbeat refuse for 1s").await;
}

#[tokio::test]
async fn no_transition_is_lost_after_lost_requests() {
    outage("heartbeat lose x2; heartbeat drop; heartbeat hang-lost").await;
}

#[tokio::test]
async fn an_answer_that_never_comes_is_followed_by_a_retry_with_the_same_nonce() {
    let world = outage("heartbeat hang").await;
    let accepted = world.service.accepted();
    let hung = accepted
        .iter()
        .find(|heartbeat| heartbeat.status.is_none())
        .expect("one hung");
    let same: Vec<_> = accepted
        .iter()
        .filter(|heartbeat| heartbeat.nonce() == hung.nonce())
        .collect();
    assert!(
        same.len() >= 2 && same.iter().all(|heartbeat| heartbeat.body == hung.body),
        "{same:#?}"
    );
}

#[tokio::test]
async fn retry_after_is_waited_for_in_both_forms() {
    for script in [
        "heartbeat 503 retry-after=2s",
        "heartbeat 429 retry-after=date+3s",
    ] {
        let world = World::start().await.expect("a world");
        world.service_faults.script(script).expect("a rule");
        let _agent = Agent::start(&world.settings("p", "u1"));
        let heartbeats = until(&world, "a second try", |heartbeats| heartbeats.len() >= 2).await;
        let waited = heartbeats[1].at - heartbeats[0].at;
        assert!(waited.as_millis() >= 1_900, "{script}: {waited:?}");
        assert_eq!(heartbeats[0].nonce(), heartbeats[1].nonce());
    }
}

#[tokio::test]
async fn an_unreadable_success_is_a_success() {
    for script in ["heartbeat garbage", "heartbeat giant"] {
        let world = World::start().await.expect("a world");
        world
            .kube
            .apply(Pod::new("p", "u1").showing(&running(STARTED)));
        world.service_faults.script(script).expect("a rule");
        let _agent = Agent::start(&world.settings("p", "u1"));
        until_main_is(&world, "running").await;
        assert_eq!(
            world.service.heartbeats().len(),
            2,
            "{script}: the first was not sent again"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = World::start().await.expect("a world");
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .service_faults
        .script(&format!(
            "heartbeat redirect={}/v1/tasks/runs/x:heartbeat",
            elsewhere.service.url()
        ))
        .expect("a rule");
    let _agent = Agent::start(&world.settings("p", "u1"));
    until_main_is(&world, "running").await;
    assert_eq!(
        elsewhere.service.heartbeats(),
        [],
        "the token must not travel"
    );
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let world = World::start().await.expect("a world");
    world.service.set_tokens(&["newer"]);
    let _agent = Agent::start(&world.settings("p", "u1"));
    until(&world, "two refusals", |heartbeats| heartbeats.len() >= 2).await;
    world.write_token("newer").expect("written");
    let heartbeats = until(&world, "an accepted heartbeat", |heartbeats| {
        heartbeats
            .last()
            .is_some_and(|heartbeat| heartbeat.accepted)
    })
    .await;
    assert_eq!(
        heartbeats.last().and_then(|last| last.token.as_deref()),
        Some("newer")
    );
    check(&world);
}

#[tokio::test]
async fn a_renewed_token_is_used_from_the_next_request_on_and_handed_on() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    world.service.set_tokens(&[TOKEN, "renewed"]);
    world
        .service_faults
        .script("heartbeat jwt=renewed")
        .expect("a rule");
    let handed_on = world.path("renewed");
    let settings = settings(&world, &[("PODBEAT_RENEWED_TOKEN_FILE", &text(&handed_on))]);
    let _agent = Agent::start(&settings);
    until_main_is(&world, "waiting").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    let tokens: Vec<_> = world
        .service
        .accepted()
        .into_iter()
        .map(|heartbeat| heartbeat.token.expect("a token"))
        .collect();
    assert_eq!(tokens[0], TOKEN);
    assert!(
        tokens[1..].iter().all(|token| token == "renewed"),
        "{}",
        tokens.len()
    );
    assert_eq!(
        std::fs::read_to_string(&handed_on).expect("handed on"),
        "renewed"
    );
}

#[tokio::test]
async fn a_refused_final_goes_once_more_without_states() {
    let world = World::start().await.expect("a world");
    world.kube.apply(
        Pod::new("p", "u1")
            .sidecar(Sidecar::Plain)
            .showing(&terminated(3, "Error", "c1")),
    );
    world
        .service_faults
        .script("heartbeat final 400")
        .expect("a rule");
    assert_eq!(
        Agent::start(&world.settings("p", "u1")).end().await,
        Ending::Done
    );
    let finals: Vec<_> = world
        .service
        .heartbeats()
        .into_iter()
        .filter(podbeat_lab::service::Heartbeat::is_final)
        .collect();
    assert_eq!(finals.len(), 2);
    assert_eq!(finals[0].exit_code("main"), Some(3));
    assert_eq!(finals[1].body.get("containerStatus"), None);
    check(&world);
}

#[tokio::test]
async fn a_final_that_arrived_without_an_answer_is_not_counted_twice() {
    let world = World::start().await.expect("a world");
    world.kube.apply(
        Pod::new("p", "u1")
            .sidecar(Sidecar::Plain)
            .showing(&terminated(3, "Error", "c1")),
    );
    world
        .service_faults
        .script("heartbeat final drop")
        .expect("a rule");
    assert_eq!(
        Agent::start(&world.settings("p", "u1")).end().await,
        Ending::Done
    );
    check(&world);
}

#[tokio::test]
async fn base_paths_work_with_and_without_a_slash() {
    for slash in ["", "/"] {
        let options = Options {
            base_path: "/ica/v9".to_owned(),
            ..Options::default()
        };
        let world = World::with(kube_api::Options::default(), options)
            .await
            .expect("a world");
        let settings = settings(
            &world,
            &[(
                "PODBEAT_SERVICE_URL",
                &format!("{}{slash}", world.service.url()),
            )],
        );
        let _agent = Agent::start(&settings);
        let heartbeats = until(&world, "a heartbeat", |heartbeats| !heartbeats.is_empty()).await;
        assert_eq!(heartbeats[0].path, "/ica/v9/v1/tasks/runs/trn.42:heartbeat");
        assert!(heartbeats[0].accepted);
    }
}

#[tokio::test]
async fn an_unknown_run_is_not_given_up_on_one_answer() {
    let options = service::Options {
        runs: Some(BTreeSet::new()),
        ..Options::default()
    };
    let world = World::with(kube_api::Options::default(), options)
        .await
        .expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Agent::start(&world.settings("p", "u1"));
    until(&world, "four refusals", |heartbeats| heartbeats.len() >= 4).await;
    assert!(!agent.task.is_finished());
}

#[tokio::test]
async fn a_service_that_demands_a_certificate_gets_ours() {
    let options = Options {
        mutual_tls: true,
        ..Options::default()
    };
    let world = World::with(kube_api::Options::default(), options)
        .await
        .expect("a world");
    let mut settings = world.settings("p", "u1");
    let bare = Agent::start(&settings);
    for (variable, file) in [
        ("PODBEAT_CLIENT_CERT_FILE", "client.crt"),
        ("PODBEAT_CLIENT_KEY_FILE", "client.key"),
    ] {
        settings.insert(
            variable.to_owned(),
            world.path(file).to_string_lossy().into_owned(),
        );
    }
    settings.insert("TASK_RUN_ID".to_owned(), "with-certificate".to_owned());
    let _agent = Agent::start(&settings);
    let heartbeats = until(&world, "a heartbeat", |heartbeats| !heartbeats.is_empty()).await;
    assert!(
        heartbeats
            .iter()
            .all(|heartbeat| heartbeat.run_id == "with-certificate"),
        "without a certificate nothing arrives"
    );
    assert!(!bare.task.is_finished());
}
