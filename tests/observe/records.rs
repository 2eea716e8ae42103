//! `--record`: what it stores, and that it can be replayed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use podbeat_heartbeat::observation::Observation;
use podbeat_kubernetes::resource;
use podbeat_kubernetes::status;
use podbeat_lab::capture::Capture;
use podbeat_lab::pod::{Pod, running, terminated, waiting};
use podbeat_lab::world::World;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Observer, observe, sent_nothing};
use crate::harness::STARTED;

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn observed(object: &Value) -> Observation {
    let pod: resource::Pod = serde_json::from_value(object.clone()).expect("a pod");
    status::observe(&pod, "podbeat")
}

#[tokio::test]
async fn a_replayed_record_shows_the_same_and_contains_no_secret() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    let showing = |status: &Value| {
        let mut pod = pod.showing(status);
        pod["spec"]["containers"][0]["env"] = json!([{"name": "PASSWORD", "value": "hunter2"}]);
        pod["spec"]["containers"][0]["args"] = json!(["--password", "hunter2"]);
        pod["metadata"]["annotations"] = json!({
            "kubectl.kubernetes.io/last-applied-configuration": "hunter2",
            "batch.kubernetes.io/job-index-failure-count": "2",
        });
        pod
    };
    let record = world.path("record.jsonl");
    world.kube.apply(showing(&waiting("ContainerCreating")));
    let arguments = ["p", "-o", "json", "--record", text(&record)];
    let mut observer = Observer::start(&mut observe(&world, &arguments));
    observer.until(r#""number":2"#).await;
    world.kube.apply(showing(&running(STARTED)));
    observer.until(r#""number":3"#).await;
    world.kube.apply(showing(&terminated(3, "Error", "one")));
    let first = observer.end().await;
    first.code(0).quietly();
    let mode = std::fs::metadata(&record)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let written = std::fs::read_to_string(&record).expect("text");
    assert!(!written.contains("hunter2"), "{written}");
    assert!(written.ends_with('\n'));

    let capture = Capture::load(&record).expect("lab reads it");
    assert_eq!(
        (capture.name(), capture.namespace(), capture.uid()),
        ("p", "lab", "uid-p")
    );
    let kinds: Vec<&str> = capture
        .steps
        .iter()
        .map(|step| step.event["type"].as_str().expect("text"))
        .collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "MODIFIED"]);
    assert!(
        capture.steps.windows(2).all(|two| two[0].at <= two[1].at)
            && !capture.steps[2].at.is_zero()
    );
    let seen: Vec<Observation> = capture.pods().map(observed).collect();
    let shown: Vec<Observation> = [
        waiting("ContainerCreating"),
        running(STARTED),
        terminated(3, "Error", "one"),
    ]
    .iter()
    .map(|status| observed(&showing(status)))
    .collect();
    assert_eq!(seen, shown);

    // Replays the record into a new world.
    let again = World::start().await.expect("a world");
    again.kube.replay(&capture.steps[0].event);
    let mut observer = Observer::start(&mut observe(&again, &["p", "-o", "json"]));
    for (step, number) in capture.steps[1..].iter().zip(["2", "3"]) {
        observer.until(&format!(r#""number":{number}"#)).await;
        again.kube.replay(&step.event);
    }
    let second = observer.end().await;
    second.code(0).quietly();
    let timeless = |mut events: Vec<Value>| {
        for event in &mut events {
            event.as_object_mut().expect("an object").remove("time");
        }
        events
    };
    assert_eq!(timeless(first.events()), timeless(second.events()));
    sent_nothing(&world);
}

#[tokio::test]
async fn a_deleted_pod_is_recorded_with_its_deletion() {
    let world = World::start().await.expect("a world");
    let record = world.path("record.jsonl");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "--record", text(&record)]));
    observer.until("heartbeat 2").await;
    world.kube.delete("lab", "p");
    observer.end().await.code(0).quietly();
    let capture = Capture::load(&record).expect("lab reads it");
    assert_eq!(
        capture.steps.last().expect("steps").event["type"],
        "DELETED"
    );
}

#[tokio::test]
async fn an_existing_file_is_kept_without_force() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&terminated(0, "Completed", "one")));
    let record = world.path("record.jsonl");
    std::fs::write(&record, "existing content").expect("written");
    let refused = Observer::start(&mut observe(&world, &["p", "--record", text(&record)]))
        .end()
        .await;
    refused.code(73);
    assert!(
        refused
            .notes
            .contains("it already exists; use --force to overwrite it"),
        "{}",
        refused.notes
    );
    assert_eq!(
        std::fs::read_to_string(&record).expect("text"),
        "existing content"
    );
    let arguments = ["p", "--record", text(&record), "--force"];
    Observer::start(&mut observe(&world, &arguments))
        .end()
        .await
        .code(0)
        .quietly();
    assert_eq!(Capture::load(&record).expect("lab reads it").steps.len(), 1);
}

#[tokio::test]
async fn a_full_disk_ends_the_record_and_not_the_view() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&terminated(0, "Completed", "one")));
    let arguments = ["p", "--record", "/dev/full", "--force"];
    let ended = Observer::start(&mut observe(&world, &arguments))
        .end()
        .await;
    ended.code(73);
    assert!(
        ended.lines.last().expect("lines").contains(" end: "),
        "{ended:#?}"
    );
    assert!(
        ended
            .notes
            .starts_with("podbeat: the record is incomplete: "),
        "{}",
        ended.notes
    );
}

#[tokio::test]
async fn after_a_kill_every_line_is_complete() {
    let world = World::start().await.expect("a world");
    let record = world.path("record.jsonl");
    let pod = Pod::new("p", "uid-p").policy("Always");
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut observer = Observer::start(&mut observe(&world, &["p", "--record", text(&record)]));
    observer.until("heartbeat 2").await;
    for run in 0..20 {
        let id = format!("run-{run}");
        world.kube.apply(pod.showing(&terminated(1, "Error", &id)));
        world.kube.apply(pod.showing(&running(STARTED)));
    }
    observer.signal(Signal::KILL);
    assert_eq!(observer.end().await.status.code(), None);
    let written = std::fs::read_to_string(&record).expect("text");
    let capture = Capture::load(&record).expect("lab reads it");
    assert_eq!(
        capture.steps.len(),
        written.lines().count(),
        "no line is torn"
    );
    // Also if the machine itself crashed in the middle of a line:
    std::fs::write(&record, &written.as_bytes()[..written.len() - 7]).expect("written");
    assert_eq!(
        Capture::load(&record).expect("lab reads it").steps.len(),
        capture.steps.len() - 1
    );
}
