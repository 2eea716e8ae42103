//! What can fail, and how it is reported.

use std::os::unix::process::ExitStatusExt;

use podbeat_lab::pod::{Pod, running, terminated};
use podbeat_lab::world::World;
use rustix::process::Signal;

use super::{Observer, observe, sent_nothing};
use crate::harness::{LIMIT, STARTED};

#[tokio::test]
async fn a_missing_pod_is_reported_with_kubectl_s_message() {
    let world = World::start().await.expect("a world");
    let ended = Observer::start(&mut observe(&world, &["nobody"]))
        .end()
        .await;
    ended.code(67);
    assert_eq!(ended.lines, Vec::<String>::new());
    assert_eq!(
        ended.notes,
        "podbeat: Error from server (NotFound): pods \"nobody\" not found\n\
         podbeat: check the namespace lab (-n) and the cluster (--context)\n"
    );
}

#[tokio::test]
async fn a_missing_right_prints_its_role() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    world.kube.deny(true);
    for arguments in [&["p"][..], &["p", "-o", "json"]] {
        let ended = Observer::start(&mut observe(&world, arguments)).end().await;
        ended.code(77);
        assert_eq!(ended.lines, Vec::<String>::new());
        assert!(
            ended
                .notes
                .starts_with("podbeat: Error from server (Forbidden): "),
            "{}",
            ended.notes
        );
        let (_, role) = ended
            .notes
            .split_once("kubectl apply -f -`:\n")
            .expect("a Role");
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(role).expect("YAML");
        assert_eq!(documents[0]["kind"], "Role");
        assert_eq!(documents[1]["kind"], "RoleBinding");
    }
}

#[tokio::test]
async fn a_missing_right_to_watch_prints_the_role() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    world
        .kube_faults
        .script("watch 403 until-lifted")
        .expect("a fault");
    let ended = Observer::start(&mut observe(&world, &["p"])).end().await;
    ended.code(77);
    assert!(
        ended
            .notes
            .contains("kubectl apply -f -`:\napiVersion: rbac"),
        "{}",
        ended.notes
    );
}

#[tokio::test]
async fn credentials_that_have_expired_say_so() {
    let world = World::start().await.expect("a world");
    world.kube.set_token("another");
    let ended = Observer::start(&mut observe(&world, &["p"])).end().await;
    ended.code(77);
    assert!(ended.notes.contains("(Unauthorized)"), "{}", ended.notes);
    assert!(
        ended
            .notes
            .contains("podbeat: the credentials are invalid or have expired"),
        "{}",
        ended.notes
    );
    assert!(!ended.notes.contains("kubectl apply"), "{}", ended.notes);
}

#[tokio::test]
async fn an_unreachable_api_server_is_reported_at_once() {
    let world = World::start().await.expect("a world");
    world
        .kube_faults
        .script("any refuse until-lifted")
        .expect("a fault");
    let ended = Observer::start(&mut observe(&world, &["p"])).end().await;
    ended.code(69);
    assert!(
        ended
            .notes
            .starts_with("podbeat: Unable to connect to the server: "),
        "{}",
        ended.notes
    );
}

#[tokio::test]
async fn a_busy_api_server_is_retried() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    world.kube.apply(pod.showing(&running(STARTED)));
    world.kube_faults.script("list 503 x2").expect("a fault");
    let mut observer = Observer::start(&mut observe(&world, &["p"]));
    observer.until(" api back: ").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "one")));
    let ended = observer.end().await;
    ended.code(0).quietly();
    let troubles = ended
        .lines
        .iter()
        .filter(|line| line.contains(" api trouble: "))
        .count();
    assert_eq!(troubles, 1, "once: {ended:#?}");
}

#[tokio::test]
async fn an_invalid_kubeconfig_is_a_usage_error() {
    let world = World::start().await.expect("a world");
    for arguments in [
        &["p", "--kubeconfig", "/nowhere"][..],
        &["p", "--context", "staging"],
    ] {
        let ended = Observer::start(&mut observe(&world, arguments)).end().await;
        ended.code(64);
        assert!(
            ended
                .notes
                .starts_with("podbeat: cannot read the kubeconfig"),
            "{}",
            ended.notes
        );
    }
    let ended = Observer::start(&mut observe(
        &world,
        &["p", "--interval", "1ms", "-n", "A B"],
    ))
    .end()
    .await;
    ended.code(64);
    assert!(
        ended.notes.contains("2 settings are missing or invalid")
            && ended.notes.contains("POD_NAMESPACE (--namespace)")
            && ended.notes.contains("PODBEAT_INTERVAL (--interval)"),
        "{}",
        ended.notes
    );
}

#[tokio::test]
async fn an_outage_is_reported_once_and_heartbeats_continue() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "--interval", "100ms"]));
    observer.until("heartbeat 3 periodic").await;
    world
        .kube_faults
        .script("watch cut; any refuse until-lifted")
        .expect("a fault");
    observer
        .until("api trouble: Unable to connect to the server: ")
        .await;
    observer.until("periodic: main running").await;
    observer.until("periodic: main running").await;
    world.kube_faults.lift_all();
    observer.until("api back: after ").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "one")));
    let ended = observer.end().await;
    ended.code(0).quietly();
    let troubles: Vec<&str> = ended
        .lines
        .iter()
        .filter_map(|line| line.split_once(" api trouble: ").map(|(_, what)| what))
        .collect();
    let mut distinct = troubles.clone();
    distinct.dedup();
    assert_eq!(troubles, distinct, "no message appears twice");
    sent_nothing(&world);
}

#[tokio::test]
async fn a_right_that_is_lost_later_is_reported_and_its_role_follows_the_end() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "-o", "json"]));
    observer.until(r#""number":2"#).await;
    world.kube.deny(true);
    world.kube_faults.script("watch cut").expect("a fault");
    observer.until(r#""kubectlApply":"apiVersion: rbac"#).await;
    observer.signal(Signal::TERM);
    let ended = observer.end().await;
    assert_eq!(ended.status.signal(), Some(15));
    assert!(
        ended
            .notes
            .contains("kubectl apply -f -`:\napiVersion: rbac"),
        "{}",
        ended.notes
    );
}

#[tokio::test]
async fn a_signal_ends_it_as_if_it_had_not_been_caught() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    for signal in [Signal::INT, Signal::TERM] {
        let mut observer = Observer::start(&mut observe(&world, &["p"]));
        observer.until("heartbeat 2 change").await;
        observer.signal(signal);
        let ended = observer.end().await;
        assert_eq!(ended.status.signal(), Some(signal.as_raw()), "{ended:#?}");
        ended.quietly();
        assert!(
            !ended.lines.iter().any(|line| line.contains(" end: ")),
            "it was cut off: {ended:#?}"
        );
    }
}

#[tokio::test]
async fn a_closed_output_ends_it_without_an_error() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    let mut command = observe(&world, &["p", "--interval", "100ms"]);
    let mut child = command.spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .expect("it ends")
        .expect("waited for");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
