//! The output, line by line and as JSON.

use podbeat_lab::pod::{Pod, Sidecar, exit, restarted, running, terminated, waiting};
use podbeat_lab::world::World;
use serde_json::{Value, json};

use super::{Observer, observe, sent_nothing};
use crate::harness::STARTED;
use crate::harness::binary::Podbeat;
use crate::harness::received::{main_is, until_one};

/// The lines without their times. Checks that each time is valid.
fn timeless(lines: &[String]) -> String {
    let text = |line: &String| {
        let (time, text) = line.split_once(' ').expect("a time first");
        let read: jiff::Timestamp = time.parse().expect("a time");
        assert_eq!(format!("{read:.3}"), time, "in milliseconds and UTC");
        text.to_owned()
    };
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_life_is_shown_line_by_line() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p").policy("OnFailure");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let mut observer = Observer::start(&mut observe(&world, &["pod/p"]));
    observer.until("heartbeat 2 change").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    observer.until("heartbeat 3 change").await;
    // It ended and runs again, and podbeat did not see it in between.
    let again = restarted(running(STARTED), 1, &exit(9, "Error", "one"));
    world.kube.apply(pod.showing(&again));
    observer.until("heartbeat 5 change").await;
    let mut over = terminated(0, "Completed", "two");
    over["state"]["terminated"]["message"] = json!("all\nis \u{1b}[31mwell");
    world
        .kube
        .apply(pod.showing(&restarted(over, 1, &exit(9, "Error", "one"))));
    let ended = observer.end().await;
    ended.code(0).quietly();
    insta::assert_snapshot!(timeless(&ended.lines));
    sent_nothing(&world);
}

#[tokio::test]
async fn as_json_each_event_is_an_object_with_the_content_of_the_line() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let arguments = [
        "p",
        "-o",
        "json",
        "--report",
        "all",
        "--job-retry-count",
        "3",
    ];
    let mut observer = Observer::start(&mut observe(&world, &arguments));
    observer.until(r#""number":2"#).await;
    let mut over = terminated(137, "OOMKilled", "one");
    // A character that JSON does not escape and that acts on a terminal.
    over["state"]["terminated"]["message"] = json!("\u{9b}31m");
    world.kube.apply(pod.showing(&over));
    let ended = observer.end().await;
    ended.code(0).quietly();
    assert!(!ended.lines.iter().any(|line| line.contains('\u{9b}')));
    let mut events = ended.events();
    for event in &mut events {
        let time = event
            .as_object_mut()
            .expect("an object")
            .remove("time")
            .expect("a time");
        time.as_str()
            .expect("text")
            .parse::<jiff::Timestamp>()
            .expect("a time");
    }
    insta::assert_json_snapshot!(events);
    sent_nothing(&world);
}

/// The agent in the pod and an observer, both in one life: the same bodies in the same order.
#[tokio::test]
async fn the_heartbeats_are_those_that_the_agent_sends() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p")
        .policy("OnFailure")
        .sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&Value::Null));
    let mut observer = Observer::start(&mut observe(&world, &["p", "-o", "json"]));
    let mut agent = Podbeat::with(&world, "log", &world.settings("p", "uid-p"), &[]);
    observer.until(r#""event":"heartbeat""#).await;
    let one = exit(5, "Error", "one");
    for (status, what, state, code, line) in [
        (
            waiting("ContainerCreating"),
            "waiting",
            "waiting",
            None,
            "ContainerCreating",
        ),
        (running(STARTED), "running", "running", None, r#""running""#),
        (
            terminated(5, "Error", "one"),
            "an exit",
            "terminated",
            Some(5),
            r#""exitCode":5"#,
        ),
        (
            restarted(waiting("CrashLoopBackOff"), 0, &one),
            "the back-off",
            "waiting",
            None,
            "CrashLoopBackOff",
        ),
        (
            restarted(terminated(0, "Completed", "two"), 1, &one),
            "the end",
            "terminated",
            Some(0),
            r#""lastHeartbeat":true"#,
        ),
    ] {
        world.kube.apply(pod.showing(&status));
        until_one(&world, what, |heartbeat| {
            main_is(heartbeat, state)
                && (code.is_none() || heartbeat.exit_code("main") == code.map(i64::from))
        })
        .await;
        loop {
            let heartbeat = observer.until(r#""event":"heartbeat""#).await;
            if heartbeat.contains(line) {
                break;
            }
        }
    }
    let ended = observer.end().await;
    ended.code(0).quietly();
    // A plain sidecar ends by itself.
    agent.ended().await;
    let bodies = |bodies: Vec<Value>| {
        let mut bodies: Vec<Value> = bodies
            .into_iter()
            .map(|mut body| {
                body.as_object_mut().expect("an object").remove("nonce");
                body
            })
            .collect();
        // Only the network decides whether a first heartbeat comes before the pod is seen.
        bodies.retain(|body| body.get("containerStatus").is_some());
        bodies
    };
    let observed = ended
        .events()
        .into_iter()
        .filter(|event| event["event"] == "heartbeat")
        .map(|event| event["body"].clone());
    let sent = world
        .service
        .accepted()
        .into_iter()
        .map(|heartbeat| heartbeat.body);
    let (observed, sent) = (bodies(observed.collect()), bodies(sent.collect()));
    assert!(sent.len() >= 5, "{sent:#?}");
    assert_eq!(observed, sent);
}

#[tokio::test]
async fn heartbeats_continue_at_the_interval_until_the_pod_is_deleted() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "--interval", "200ms"]));
    for number in 3..6 {
        observer
            .until(&format!("heartbeat {number} periodic: main running"))
            .await;
    }
    world.kube.change("lab", "p", |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    });
    observer
        .until("being deleted, its grace ends at 2026-01-01T00:01:00Z")
        .await;
    observer.until("note: the pod is being deleted").await;
    world.kube.delete("lab", "p");
    let ended = observer.end().await;
    ended.code(0).quietly();
    let last = timeless(&ended.lines);
    let last: Vec<&str> = last.lines().rev().take(3).collect();
    assert_eq!(
        last[0],
        "end: the pod was deleted; the agent would have sent the last heartbeat"
    );
    assert!(
        last[1].ends_with(" final: main running"),
        "no end is invented: {last:?}"
    );
    assert!(last[2].starts_with("pod lab/p: Pending, gone"), "{last:?}");
    sent_nothing(&world);
}

#[tokio::test]
async fn a_pod_that_has_ended_is_shown_at_once() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    world
        .kube
        .apply(pod.showing(&terminated(3, "Error", "one")));
    let ended = Observer::start(&mut observe(&world, &["p"])).end().await;
    ended.code(0).quietly();
    let told = timeless(&ended.lines);
    assert!(
        told.contains("heartbeat 2 final: main terminated Error 3\nend: the task has ended"),
        "{told}"
    );
}

#[tokio::test]
async fn a_pod_without_podbeat_says_so() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "--container-name", "other"]));
    observer.until("sidecar none").await;
    observer
        .until("note: this pod has no podbeat container")
        .await;
    observer
        .until("container podbeat: no state, restarts 0, sidecar, not reported")
        .await;
}

#[tokio::test]
async fn the_namespace_is_the_context_s_or_the_flag_s() {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "uid-p").showing(&terminated(0, "Completed", "one"));
    pod["metadata"]["namespace"] = json!("other");
    world.kube.apply(pod);
    Observer::start(&mut observe(&world, &["p"]))
        .end()
        .await
        .code(67);
    for arguments in [["p", "-n", "other"], ["p", "--namespace", "other"]] {
        let ended = Observer::start(&mut observe(&world, &arguments))
            .end()
            .await;
        ended.code(0).quietly();
        assert!(ended.lines[0].contains("pod other/p: "), "{ended:?}");
    }
}

#[tokio::test]
async fn in_a_pod_the_service_account_opens_the_way() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&terminated(0, "Completed", "one")));
    let mut command = observe(&world, &["p"]);
    let ended = Observer::start(command.env_clear().envs(world.settings("p", "uid-p")))
        .end()
        .await;
    ended.code(0).quietly();
}
