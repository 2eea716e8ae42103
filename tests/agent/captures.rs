//! Replays streams of a real kubelet. `tests/captures/README.md` explains their names.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use podbeat_heartbeat::report::{self, Report};
use podbeat_interface::exit::Ending;
use podbeat_kubernetes::retries::CONTROLLER_UID;
use podbeat_kubernetes::status;
use podbeat_lab::capture::Capture;
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use serde_json::{Value, json};

use super::{Agent, check, states};
use crate::harness::received::{until, until_final, until_main_is};

/// Ten times as fast as the recording, with no pause longer than this.
const SPEED: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The grace period of a deletion in a replay.
const GRACE: Duration = Duration::from_secs(20);

fn load(name: &str) -> Capture {
    Capture::named(name).expect("a capture")
}

/// The event without the label by which podbeat finds a Job's pods. podbeat reports a retry count
/// from the first heartbeat after the count on, and these tests do not wait for that.
fn uncounted(event: &Value) -> Value {
    let mut event = event.clone();
    let labels = event
        .pointer_mut("/object/metadata/labels")
        .and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        labels.remove(CONTROLLER_UID);
    }
    // The recorded deadline is in the past, and only a fast machine could send a last heartbeat in
    // no time. So the event gets a new deadline.
    if let Some(metadata) = event
        .pointer_mut("/object/metadata")
        .and_then(Value::as_object_mut)
        && metadata.contains_key("deletionTimestamp")
    {
        let until = jiff::Timestamp::now() + GRACE;
        metadata.insert("deletionTimestamp".to_owned(), json!(format!("{until:.0}")));
        metadata.insert(
            "deletionGracePeriodSeconds".to_owned(),
            json!(GRACE.as_secs()),
        );
    }
    event
}

fn settings(world: &World, capture: &Capture) -> BTreeMap<String, String> {
    let mut settings = world.settings(capture.name(), capture.uid());
    settings.insert("POD_NAMESPACE".to_owned(), capture.namespace().to_owned());
    settings.insert(
        "PODBEAT_CONTAINER_NAME".to_owned(),
        capture.sidecar().to_owned(),
    );
    settings
}

fn agent(world: &World, capture: &Capture) -> Agent {
    Agent::start(&settings(world, capture))
}

/// The statuses that podbeat reports for a pod.
fn reported(object: &Value, own_container: &str, report: Report) -> Value {
    let pod = serde_json::from_value(object.clone()).expect("a pod");
    let statuses = report::statuses(&status::observe(&pod, own_container), report);
    serde_json::to_value(statuses).expect("JSON")
}

/// Keeps the steps that podbeat can have seen. If podbeat itself was in the pod (`podbeat`), the
/// stream shows when it ended, because the kubelet never shows that too early. In older streams,
/// the container `hb` exited at once, and shows nothing about podbeat. So these streams are
/// replayed to their end.
fn cut_where_podbeat_ended(capture: &mut Capture) {
    let own = capture.sidecar();
    let ended = |pod: &Value| {
        ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|list| pod.get("status")?.get(list)?.as_array())
            .flatten()
            .any(|status| status["name"] == own && status["state"].get("terminated").is_some())
    };
    let seen = capture.pods().position(ended);
    if own == "podbeat" {
        capture.steps.truncate(seen.unwrap_or(capture.steps.len()));
    }
}

async fn replay(name: &str, report: Report) -> Vec<Heartbeat> {
    let mut capture = load(name);
    cut_where_podbeat_ended(&mut capture);
    told_of(name, &capture, report).await
}

/// Replays a stream with its recorded times divided by ten, and then sends SIGTERM to podbeat, as
/// the kubelet does. Each step also waits until the service received the previous one. Otherwise,
/// on a busy machine, the agent could combine fast steps and lose some.
async fn told_of(name: &str, capture: &Capture, report: Report) -> Vec<Heartbeat> {
    let world = World::start().await.expect("a world");
    let mut settings = settings(&world, capture);
    if report == Report::All {
        settings.insert("PODBEAT_REPORT".to_owned(), "all".to_owned());
    }
    let agent = Agent::start(&settings);
    let mut before = Duration::ZERO;
    for step in &capture.steps {
        tokio::time::sleep((step.at.saturating_sub(before) / SPEED).min(LONGEST_PAUSE)).await;
        before = step.at;
        world.kube.replay(&uncounted(&step.event));
        let object = step.event.get("object").expect("an object");
        let shown = reported(object, capture.sidecar(), report);
        let gone = step.event.get("type") == Some(&json!("DELETED"));
        until(&world, "the heartbeat of the step", |heartbeats| {
            let accepted = || heartbeats.iter().filter(|heartbeat| heartbeat.accepted);
            let told = accepted()
                .next_back()
                .and_then(|last| last.body.get("containerStatus"));
            let received = !gone && (told == Some(&shown) || shown == json!([]));
            received || accepted().any(Heartbeat::is_final)
        })
        .await;
    }
    // A plain sidecar that reported the end has already exited.
    let _ = agent.signals.send(()).await;
    until_final(&world).await;
    assert_eq!(agent.end().await, Ending::Done, "{name}");
    check(&world);
    world.service.accepted()
}

/// One line per heartbeat, as it was sent, without the random nonce.
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

/// Every stream, and what the service received of it. Read the snapshots before you accept a change
/// of them.
#[tokio::test]
async fn every_stream_is_reported_as_in_its_snapshot() {
    let streams = [
        "a-complete",
        "b-delete",
        "d-classic",
        "e-hostnet",
        "e2e/deadline-native",
        "e2e/delete-force-native",
        "e2e/delete-native",
        "e2e/early-main",
        "e2e/evict-plain",
        "e2e/fact-1",
        "e2e/fact-5",
        "e2e/fail-plain",
        "e2e/failed-init",
        "e2e/job-indexed-native",
        "e2e/no-image-native",
        "e2e/oom-main-native",
        "e2e/recreated-first",
        "e2e/recreated-second",
        "e2e/restarts-native",
        "e2e/two-mains-native",
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
    assert_eq!(
        Capture::names().expect("listed"),
        streams,
        "no stream is left out"
    );
    // Eight at a time: thirty agents and their stand-ins in one thread starve each other on a busy
    // machine.
    let lives =
        streams.map(|name| async move { (name, Box::pin(replay(name, Report::Task)).await) });
    let mut lives = stream::iter(lives).buffered(8);
    while let Some((name, heartbeats)) = lives.next().await {
        insta::assert_snapshot!(name, story(&heartbeats));
    }
}

#[tokio::test]
async fn with_report_all_init_containers_and_other_sidecars_are_reported() {
    let streams = ["m-sidecrash", "a-complete", "e2e/failed-init"];
    let lives =
        streams.map(|name| async move { (name, Box::pin(replay(name, Report::All)).await) });
    for (name, heartbeats) in futures_util::future::join_all(lives).await {
        insta::assert_snapshot!(format!("{name}-all"), story(&heartbeats));
    }
}

/// Checks what the snapshots cannot show by themselves.
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
        let heartbeats = Box::pin(replay(name, Report::Task)).await;
        let (_, members) = last(&heartbeats).state("main").expect("main's state");
        assert_eq!(
            last(&heartbeats).exit_code("main"),
            Some(exit_code),
            "{name}"
        );
        assert_eq!(members.get("reason"), Some(&json!(reason)), "{name}");
        assert_eq!(
            states(&heartbeats, "hb"),
            Vec::<String>::new(),
            "our own is left out"
        );
    });
    futures_util::future::join_all(lives).await;
}

/// After podbeat's own end, an observer outside the pod still receives events: podbeat reports an
/// end as the API shows it, even a lost one.
#[tokio::test]
async fn an_end_that_appears_late_is_reported_if_podbeat_still_runs() {
    let streams = [
        (
            "e2e/fact-1",
            json!({"main": [5, "Error"], "slow": [6, "Error"]}),
        ),
        ("e2e/evict-plain", json!({"main": [5, "Error"]})),
        ("e2e/deadline-native", json!({"main": [5, "Error"]})),
        (
            "e2e/no-image-native",
            json!({"main": [137, "ContainerStatusUnknown"]}),
        ),
    ];
    let lives = streams.map(|(name, expected)| async move {
        let heartbeats = Box::pin(told_of(name, &load(name), Report::Task)).await;
        let statuses = last(&heartbeats).body["containerStatus"].clone();
        let ends: serde_json::Map<String, Value> = statuses
            .as_array()
            .expect("statuses")
            .iter()
            .map(|status| {
                let end = &status["state"]["terminated"];
                let name = status["name"].as_str().expect("a name").to_owned();
                // podbeat invents no time if the API shows none.
                let is_known = end["reason"] != "ContainerStatusUnknown";
                assert_eq!(end.get("finishedAt").is_some(), is_known, "{status}");
                (name, json!([end["exitCode"], end["reason"]]))
            })
            .collect();
        assert_eq!(Value::Object(ends), expected, "{name}");
    });
    futures_util::future::join_all(lives).await;
}

/// Fact 5 of docs/kubernetes-facts.md: the events that showed an exit as `state` are left out, so
/// only lastState shows it.
#[tokio::test]
async fn exits_between_two_updates_are_reported_for_recorded_restarts() {
    let name = "e2e/restarts-native";
    let mut capture = load(name);
    cut_where_podbeat_ended(&mut capture);
    let all = capture.steps.len();
    let code = |step: &podbeat_lab::capture::Step| {
        let state = step
            .event
            .pointer("/object/status/containerStatuses/0/state");
        state.and_then(|state| state.pointer("/terminated/exitCode")?.as_i64())
    };
    capture
        .steps
        .retain(|step| matches!(code(step), None | Some(0)));
    assert_eq!(all - capture.steps.len(), 3, "three exits are hidden");

    let heartbeats = told_of(name, &capture, Report::Task).await;
    let exits: Vec<i64> = heartbeats
        .iter()
        .filter_map(|heartbeat| heartbeat.exit_code("main"))
        .collect();
    assert_eq!(exits, [4, 5, 6, 0]);
    let told = [
        "waiting",
        "running",
        "terminated",
        "running",
        "terminated",
        "waiting",
        "running",
        "terminated",
        "waiting",
        "running",
        "terminated",
    ];
    assert_eq!(
        states(&heartbeats, "main"),
        told,
        "nor are the states in between"
    );
}

/// Fact 6 of docs/kubernetes-facts.md: another pod with the same name is not the same pod.
#[tokio::test]
async fn another_real_pod_of_the_same_name_is_never_reported() {
    let (first, second) = (load("e2e/recreated-first"), load("e2e/recreated-second"));
    assert_eq!(
        (first.name(), first.namespace()),
        (second.name(), second.namespace())
    );
    assert_ne!(first.uid(), second.uid());
    // podbeat does not see the end of the first pod, as if a watch had broken off.
    let ended = first
        .pods()
        .position(|pod| pod["status"]["phase"] == "Failed")
        .expect("it ends");
    let steps = first.steps.iter().take(ended).chain(&second.steps);
    for (own, expected) in [
        (&first, ("running", None)),
        (&second, ("terminated", Some(9))),
    ] {
        let world = World::start().await.expect("a world");
        let agent = agent(&world, own);
        for step in steps.clone() {
            world.kube.replay(&step.event);
            // The service receives a step of podbeat's own pod before the next step comes.
            let object = &step.event["object"];
            if object["metadata"]["uid"] == own.uid()
                && !object["status"]["containerStatuses"].is_null()
            {
                let shown = reported(object, "podbeat", Report::Task);
                until(&world, "the heartbeat of the step", |heartbeats| {
                    heartbeats
                        .iter()
                        .any(|heartbeat| heartbeat.body.get("containerStatus") == Some(&shown))
                })
                .await;
            }
        }
        until_final(&world).await;
        let _ = agent.signals.send(()).await;
        assert_eq!(agent.end().await, Ending::Done);
        check(&world);
        let heartbeats = world.service.accepted();
        let (state, _) = last(&heartbeats).state("main").expect("main's state");
        assert_eq!((state, last(&heartbeats).exit_code("main")), expected);
        let shown: Vec<Value> = own
            .pods()
            .map(|pod| reported(pod, "podbeat", Report::Task))
            .collect();
        for heartbeat in &heartbeats {
            assert_eq!(heartbeat.body["podUID"], own.uid());
            let statuses = heartbeat.body.get("containerStatus");
            assert!(
                statuses.is_none_or(|statuses| shown.contains(statuses)),
                "{heartbeat:?}"
            );
        }
    }
}

/// Fact 1 of docs/kubernetes-facts.md: while a pod is being deleted, the kubelet shows no exit
/// before all containers are dead.
#[tokio::test]
async fn b_delete_is_running_until_every_container_has_ended() {
    let world = World::start().await.expect("a world");
    let capture = load("b-delete");
    let terminating: Vec<_> = capture
        .steps
        .iter()
        .map(|step| &step.event)
        .filter(|event| {
            event
                .pointer("/object/metadata/deletionTimestamp")
                .is_some()
        })
        .collect();
    let main_runs = |event: &&&serde_json::Value| {
        event
            .pointer("/object/status/containerStatuses/0/state/running")
            .is_some()
    };
    // The capture itself: the pod is deleted, and main still runs; then everything is dead at once,
    // including the sidecar.
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

    // A sidecar that gets SIGTERM at its place in the order sees nothing else.
    let agent = agent(&world, &capture);
    for step in &capture.steps {
        world.kube.replay(&step.event);
        if step
            .event
            .pointer("/object/metadata/deletionTimestamp")
            .is_some()
        {
            break;
        }
    }
    until_main_is(&world, "running").await;
    agent.terminate().await;
    assert_eq!(agent.end().await, Ending::Done);
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
    // The stream ends before the kubelet reported the missing image. The later pod is in a separate
    // file.
    let path = Capture::directory().join("pod-h-noimage-final.json");
    let text = std::fs::read_to_string(path).expect("the pod");
    world.kube.apply(serde_json::from_str(&text).expect("JSON"));
    let heartbeats = until(&world, "the missing image", |heartbeats| {
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
