//! Pod lives that together produce each message.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use podbeat::config::SETTINGS;
use podbeat_interface::messages::{Message, field_of};
use podbeat_lab::pod::{Pod, Sidecar, exit, restarted, running, terminated, waiting};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{RUN, TOKEN, World};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::table;
use crate::harness::binary::{Podbeat, messages};
use crate::harness::received::{main_is, until, until_final, until_main_is, until_one};
use crate::harness::{STARTED, jwt, settings, text};

/// The messages that no life here produces, and why.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "the service says that the run does not belong to this pod; sending nothing more",
        "needs 30 s of refusals; the tests of the core produce it in virtual time",
    ),
    (
        "the admin endpoint cannot accept connections; retrying, without another warning",
        "needs a process without file descriptors, which could not send heartbeats either",
    ),
    (
        "log lines were dropped because nothing read the log",
        "needs a pipe instead of a file; `process::an_unread_log_delays_nothing` produces it",
    ),
    (
        "podbeat panicked; this is a bug, please report it",
        "no input produces it; `logged::form::a_panic_is_a_line_of_json` panics by itself",
    ),
];

fn of<'lines>(lines: &'lines [Value], message: &str) -> Vec<&'lines Value> {
    lines
        .iter()
        .filter(|line| line["message"] == message)
        .collect()
}

fn one<'lines>(lines: &'lines [Value], message: &str) -> &'lines Value {
    match of(lines, message)[..] {
        [line] => line,
        _ => panic!("not one {message:?}: {lines:#?}"),
    }
}

/// From image pull to exit code, with a restart, an outage of each of the two services, and every
/// member that the API has.
async fn a_whole_life() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    world.kube_faults.script("list 403 x2").expect("rules");
    world
        .service_faults
        .script("heartbeat 503 x3")
        .expect("rules");
    let pod = Pod::new("p", "u1").policy("OnFailure");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_LISTEN", "127.0.0.1:0")]);
    until_main_is(&world, "waiting").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    let mut ended = terminated(137, "OOMKilled", "c1");
    ended["state"]["terminated"]["signal"] = json!(9);
    ended["state"]["terminated"]["message"] = json!("no\nroom");
    world.kube.apply(pod.showing(&ended));
    until_main_is(&world, "terminated").await;
    world.kube.apply(pod.showing(&restarted(
        running("2026-01-01T00:00:21Z"),
        1,
        &exit(137, "OOMKilled", "c1"),
    )));
    until(&world, "the second run", |heartbeats| {
        heartbeats
            .last()
            .is_some_and(|last| last.accepted && main_is(last, "running"))
    })
    .await;
    world.kube.apply(pod.showing(&restarted(
        terminated(0, "Completed", "c2"),
        1,
        &exit(137, "OOMKilled", "c1"),
    )));
    podbeat
        .until_logged("the last heartbeat was accepted")
        .await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);

    let begins = &lines[0];
    let listed = |field: &str| begins.get(field).is_some();
    assert!(
        SETTINGS.iter().any(|setting| listed(&field_of(setting))),
        "{begins}"
    );
    assert_eq!(begins["task_run_id"], RUN);
    assert_eq!(begins["interval"], "30s");
    assert_eq!(begins["token_file"], text(world.path("token")));
    assert_eq!(
        begins["kubernetes_api"],
        format!("127.0.0.1:{}", world.kube.port())
    );
    let contact = one(&lines, "found the pod in the Kubernetes API");
    assert_eq!(
        (
            &contact["pod_uid"],
            &contact["node"],
            &contact["containers"],
            &contact["deleted"]
        ),
        (
            &json!("u1"),
            &json!("node-1"),
            &json!("podbeat, main"),
            &json!(false)
        )
    );
    one(
        &lines,
        "the service accepted the first heartbeat of this process",
    );
    let refused = of(&lines, "a heartbeat was not accepted");
    let repeats: Vec<u64> = refused
        .iter()
        .filter_map(|line| line["repeats"].as_u64())
        .collect();
    assert_eq!(repeats, [1, 2]);
    assert!(
        refused.iter().all(|line| line["status"] == 503),
        "{refused:?}"
    );
    assert_eq!(
        one(&lines, "the service accepts heartbeats again")["failures"],
        3
    );
    assert_eq!(one(&lines, "watching the pod again")["failures"], 2);
    let changes: Vec<Value> = of(&lines, "container state changed")
        .into_iter()
        .map(|line| {
            let mut line = line.clone();
            let members = line.as_object_mut().expect("an object");
            members.retain(|name, _| {
                !["timestamp", "level", "target", "message"].contains(&name.as_str())
            });
            line
        })
        .collect();
    let finished = "2026-01-01T00:00:09Z";
    assert_eq!(
        changes,
        [
            json!({"container": "main", "to": "waiting", "reason": "ContainerCreating", "restart_count": 0}),
            json!({"container": "main", "from": "waiting", "to": "running", "started_at": STARTED, "restart_count": 0}),
            json!({"container": "main", "from": "running", "to": "terminated", "exit_code": 137, "signal": 9,
                   "reason": "OOMKilled", "container_message": "no\nroom", "started_at": STARTED,
                   "finished_at": finished, "container_id": "containerd://c1", "restart_count": 0}),
            json!({"container": "main", "from": "terminated", "to": "running", "started_at": "2026-01-01T00:00:21Z",
                   "restart_count": 1}),
            json!({"container": "main", "from": "running", "to": "terminated", "exit_code": 0, "reason": "Completed",
                   "started_at": STARTED, "finished_at": finished, "container_id": "containerd://c2",
                   "restart_count": 1}),
        ]
    );
    assert_eq!(
        one(&lines, "the last heartbeat was accepted")["told"],
        "main terminated 0"
    );
    let ends = lines.last().expect("lines");
    assert_eq!(ends["message"], "podbeat is exiting");
    assert_eq!(
        (&ends["ending"], &ends["exit_code"], &ends["lost"]),
        (&json!("Delivered"), &json!(0), &json!(0))
    );
    let accepted = world.service.accepted().len();
    assert_eq!(ends["accepted"], accepted);
    assert_eq!(ends["sent"], accepted);
    assert_eq!(ends["attempts"], world.service.heartbeats().len());
    lines
}

/// Odd answers, and a directory that is created later.
async fn odd_answers() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let soon = jiff::Timestamp::now().as_second() + 300;
    let token = jwt(&format!(r#"{{"exp":{soon}}}"#));
    world.service.set_tokens(&[&token, "renewed"]);
    world.write_token(&token).expect("written");
    world
        .service_faults
        .script("heartbeat garbage; heartbeat jwt=nö; heartbeat jwt=renewed")
        .expect("rules");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let podbeat = Podbeat::start(
        &world,
        "log",
        &[
            ("PODBEAT_INTERVAL", "100ms"),
            ("TRACEPARENT", "none of the kind"),
            (
                "PODBEAT_RENEWED_TOKEN_FILE",
                &text(world.path("later/token")),
            ),
        ],
    );
    podbeat
        .until_logged("cannot write a file; heartbeats continue without it")
        .await;
    std::fs::create_dir(world.path("later")).expect("made");
    podbeat
        .until_logged("writing the file succeeded again")
        .await;
    podbeat
        .until_logged("the service's responses are usable again")
        .await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    assert!(
        !lines
            .iter()
            .any(|line| line.to_string().contains("none of the kind"))
    );
    lines
}

async fn an_expired_token() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let token = jwt(r#"{"exp":1}"#);
    world.service.set_tokens(&[&token]);
    world.write_token(&token).expect("written");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    Podbeat::start(&world, "log", &[]).end_in_lines().await.1
}

/// A damaged journal and a port in use, then kill -9, and a process that continues.
async fn a_restart() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    std::fs::create_dir(world.path("state")).expect("made");
    std::fs::write(world.path("state/journal.json"), "{").expect("written");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let listen = taken.local_addr().expect("an address").to_string();
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let state = text(world.path("state"));
    let settings = [
        ("PODBEAT_STATE_DIR", state.as_str()),
        ("PODBEAT_LISTEN", listen.as_str()),
    ];
    let mut first = Podbeat::start(&world, "log-1", &settings);
    until_main_is(&world, "running").await;
    first.signal(Signal::KILL);
    first.ended().await;
    let mut all = first.lines();
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, lines) = Podbeat::start(&world, "log-2", &settings)
        .end_in_lines()
        .await;
    assert_eq!(code, 0);
    one(&lines, "resumed from the journal");
    all.extend(lines);
    all
}

async fn wrong_names() -> Vec<Value> {
    let mut all = vec![];
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let names = [
        ("PODBEAT_CONTAINER_NAME", "hearbeat"),
        ("PODBEAT_TASK_CONTAINERS", "main,mian"),
        ("PODBEAT_INTERVALL", "1s"),
        ("PODBEAT_SERVER_SERVICE_HOST", "10.0.0.1"),
    ];
    let podbeat = Podbeat::start(&world, "log-1", &names);
    until_main_is(&world, "running").await;
    let strangers = podbeat
        .until_logged(
            "the pod has no regular containers with these names; check the settings and annotations for task and ignored containers",
        )
        .await;
    assert_eq!(strangers["containers"], "mian");
    let unknown = podbeat
        .until_logged("ignoring unknown environment variables")
        .await;
    assert_eq!(
        unknown["variables"],
        "PODBEAT_INTERVALL (did you mean PODBEAT_INTERVAL?)"
    );
    podbeat.signal(Signal::TERM);
    all.extend(podbeat.end_in_lines().await.1);
    let podbeat = Podbeat::start(
        &world,
        "log-2",
        &[("POD_NAME", "q"), ("TASK_RUN_ID", "run-2")],
    );
    podbeat
        .until_logged(
            "pod not found; check POD_NAME, POD_NAMESPACE and POD_UID. Heartbeats continue without container states",
        )
        .await;
    podbeat.signal(Signal::TERM);
    all.extend(podbeat.end_in_lines().await.1);
    all
}

/// Outside the cluster, where podbeat learns the pod's UID: while podbeat is down, the pod is
/// created again under the same name.
async fn another_pod() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    std::fs::create_dir(world.path("state")).expect("made");
    let (kubeconfig, state) = (text(world.path("kubeconfig")), text(world.path("state")));
    let more = [
        ("KUBECONFIG", &*kubeconfig),
        ("PODBEAT_STATE_DIR", &state),
        ("PODBEAT_LOG_FORMAT", "json"),
    ];
    let mut settings = settings(&world, &more);
    settings.retain(|variable, _| !variable.starts_with("KUBERNETES_") && variable != "POD_UID");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut first = Podbeat::with(&world, "log-1", &settings, &[]);
    until_main_is(&world, "running").await;
    first.signal(Signal::KILL);
    first.ended().await;
    let mut all = first.lines();
    assert_eq!(all[0]["kubeconfig"], text(world.path("kubeconfig")));
    world.kube.delete("lab", "p");
    world
        .kube
        .apply(Pod::new("p", "u2").showing(&terminated(9, "Error", "other")));
    let second = Podbeat::with(&world, "log-2", &settings, &[]);
    second
        .until_logged("another pod has this pod's name; ignoring its states")
        .await;
    second.until_logged("the last heartbeat was accepted").await;
    second.signal(Signal::TERM);
    let (_, lines) = second.end_in_lines().await;
    assert_eq!(
        one(
            &lines,
            "another pod has this pod's name; ignoring its states"
        )["uid"],
        "u2"
    );
    all.extend(lines);
    all
}

/// The service refuses a change, and then also the end.
async fn a_service_that_refuses() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&Value::Null));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_NONCE", "hunter2")]);
    podbeat
        .until_logged("the service accepted the first heartbeat of this process")
        .await;
    podbeat
        .until_logged("found the pod in the Kubernetes API")
        .await;
    world
        .service_faults
        .script("heartbeat 400 until-lifted")
        .expect("a rule");
    world.kube.apply(pod.showing(&running(STARTED)));
    podbeat.until_logged("a heartbeat was dropped").await;
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 75);
    let dropped = one(&lines, "a heartbeat was dropped");
    assert_eq!(
        (&dropped["cause"], &dropped["told"]),
        (&json!("the service refused it"), &json!("main running"))
    );
    one(&lines, "heartbeat rejected; will not resend this body");
    let undelivered = one(
        &lines,
        "could not deliver the last heartbeat in time; the service does not know how this run ended",
    );
    let request: Value =
        serde_json::from_str(undelivered["request"].as_str().expect("a text")).expect("JSON");
    assert_eq!(
        (&request["lastHeartbeat"], &request["nonce"]),
        (&json!(true), &json!("[redacted]"))
    );
    let losses = one(
        &lines,
        "some heartbeats with container changes were never accepted",
    );
    assert_eq!(losses["refused"], 2);
    let ends = lines.last().expect("lines");
    assert_eq!(
        (&ends["exit_code"], &ends["ending"], &ends["lost"]),
        (&json!(75), &json!("Undelivered"), &json!(2))
    );
    lines
}

/// A pod that is being stopped, with markers of all kinds, including a late one.
async fn markers() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let directory = world.path("markers");
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_MARKER_DIR", &text(&directory))]);
    until_main_is(&world, "running").await;
    podbeat.signal(Signal::TERM);
    podbeat
        .until_logged("cannot read exit markers; heartbeats continue without them")
        .await;
    // Filled before it gets its name, so that one read sees everything.
    let beside = world.path("markers.new");
    std::fs::create_dir(&beside).expect("made");
    for (name, content) in [("stranger", "7"), ("junk", "?")] {
        std::fs::write(beside.join(name), content).expect("written");
    }
    std::fs::rename(&beside, &directory).expect("renamed");
    podbeat
        .until_logged("ignoring a file that is not a valid exit marker")
        .await;
    std::fs::write(directory.join("main"), "143").expect("written");
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    let withheld = one(
        &lines,
        "using an exit code from an exit marker; the Kubernetes API does not show it",
    );
    assert_eq!(
        (&withheld["container"], &withheld["exit_code"]),
        (&json!("main"), &json!(143))
    );
    assert_eq!(
        one(&lines, "the last heartbeat was accepted")["told"],
        "main terminated 143"
    );
    lines
}

async fn two_signals_and_no_look() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    world
        .kube_faults
        .script("get 500 until-lifted")
        .expect("a rule");
    let podbeat = Podbeat::start(&world, "log", &[]);
    until_main_is(&world, "running").await;
    podbeat.signal(Signal::TERM);
    podbeat
        .until_logged("received SIGTERM or SIGINT; waiting for final container states")
        .await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    assert_eq!(
        one(&lines, "the last heartbeat was accepted")["told"],
        "main running"
    );
    lines
}

/// A pod whose init container fails, and which is then evicted: each reason has one line, and no
/// line reports it as a container's state.
async fn reasons() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "u1").showing(&waiting("PodInitializing"));
    let setup =
        |state: Value| json!({"name": "setup", "restartCount": 0, "state": state, "lastState": {}});
    pod["spec"]["initContainers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "setup"}));
    let waits =
        |message: &str| setup(json!({"waiting": {"reason": "ErrImagePull", "message": message}}));
    pod["status"]["initContainerStatuses"] = json!([waits("no such image")]);
    world.kube.apply(pod.clone());
    let podbeat = Podbeat::start(&world, "log", &[]);
    let reason = "the Kubernetes API reported a reason for the pod's state";
    podbeat.until_logged(reason).await;
    let disrupted = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                           "message": "Eviction API: evicting"});
    pod["status"]["conditions"] = json!([disrupted]);
    pod["status"]["initContainerStatuses"] = json!([waits("in other words")]);
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T02:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    world.kube.apply(pod.clone());
    podbeat.until_logged("the pod is being deleted").await;
    pod["status"]["phase"] = json!("Failed");
    pod["status"]["reason"] = json!("Evicted");
    pod["status"]["message"] = json!("x".repeat(1000));
    pod["status"]["initContainerStatuses"] = json!([setup(
        json!({"terminated": {"exitCode": 5, "reason": "Error"}})
    )]);
    world.kube.apply(pod);
    until_final(&world).await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    assert_eq!(
        one(&lines, "the pod is being deleted")["until"],
        "2026-11-24T02:00:00Z"
    );
    let members = [
        "condition",
        "container",
        "exit_code",
        "reason",
        "pod_message",
    ];
    let told: Vec<Value> = of(&lines, reason)
        .into_iter()
        .map(|line| {
            let said = members.iter().filter_map(|member| line.get(member));
            said.cloned().collect()
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["setup", "ErrImagePull", "no such image"]),
            json!([
                "DisruptionTarget",
                "EvictionByEvictionAPI",
                "Eviction API: evicting"
            ]),
            json!(["Evicted", format!("{}…", "x".repeat(256))]),
            json!(["setup", 5, "Error"]),
        ]
    );
    for heartbeat in world.service.heartbeats() {
        let body = heartbeat.body.to_string();
        assert!(!body.contains("Evict") && !body.contains("setup"), "{body}");
    }
    lines
}

/// All containers, including podbeat, restart twice; then main succeeds.
async fn a_restart_of_all_containers() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let settings = [("PODBEAT_STATE_DIR", &*text(&state))];
    let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
    pod["spec"]["containers"][0]["restartPolicyRules"] = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let showing = |pod: &Value, status: Value| {
        let mut pod = pod.clone();
        pod["status"]["containerStatuses"][0]["state"] = status["state"].clone();
        pod
    };
    let mut all = vec![];
    for (nth, id) in [(1, "c1"), (2, "c2")] {
        world.kube.apply(showing(&pod, running(STARTED)));
        let podbeat = Podbeat::start(&world, &format!("log-{nth}"), &settings);
        until_main_is(&world, "running").await;
        world.kube.apply(showing(&pod, terminated(42, "Error", id)));
        until_one(&world, "the exit", |heartbeat| {
            heartbeat.accepted
                && heartbeat
                    .state("main")
                    .is_some_and(|(_, exit)| exit["containerID"] == format!("containerd://{id}"))
        })
        .await;
        podbeat.signal(Signal::TERM);
        let (code, lines) = podbeat.end_in_lines().await;
        assert_eq!(code, 0);
        one(
            &lines,
            "all containers of the pod are restarting; the next podbeat process continues",
        );
        all.extend(lines);
    }
    assert!(!world.service.accepted().iter().any(Heartbeat::is_final));
    world.kube.apply(showing(&pod, running(STARTED)));
    let podbeat = Podbeat::start(&world, "log-3", &settings);
    podbeat
        .until_logged("found the pod in the Kubernetes API")
        .await;
    world
        .kube
        .apply(showing(&pod, terminated(0, "Completed", "c3")));
    assert_eq!(until_final(&world).await.exit_code("main"), Some(0));
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    all.extend(lines);
    all
}

/// A request without an answer, and then a repetition that the service refuses.
async fn a_barrier() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&Value::Null));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_TIMEOUT", "5s")]);
    podbeat
        .until_logged("the service accepted the first heartbeat of this process")
        .await;
    podbeat
        .until_logged("found the pod in the Kubernetes API")
        .await;
    world
        .service_faults
        .script("heartbeat drop")
        .expect("a rule");
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    until_final(&world).await;
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a rule");
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    one(&lines, "the last heartbeat was accepted");
    lines
}

/// podbeat's container is stopped and restarted, and main continues.
async fn a_stop_of_podbeat_alone() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let settings = [("PODBEAT_STATE_DIR", &*text(&state))];
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut podbeat = Podbeat::start(&world, "log-1", &settings);
    until_main_is(&world, "running").await;
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a rule");
    podbeat.signal(Signal::TERM);
    podbeat.until_logged("a heartbeat was not accepted").await;
    podbeat.kill();
    let mut all = podbeat.lines();
    world.service_faults.lift_all();
    let podbeat = Podbeat::start(&world, "log-2", &settings);
    let reopened = podbeat
        .until_logged(
            "only podbeat's container was stopped and the task continues; resuming heartbeats after a last heartbeat",
        )
        .await;
    assert_eq!(
        (&reopened["level"], &reopened["last_heartbeat"]),
        (&json!("ERROR"), &json!("open"))
    );
    world.kube.apply(pod.showing(&terminated(3, "Error", "c1")));
    assert_eq!(until_final(&world).await.exit_code("main"), Some(3));
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    all.extend(lines);
    all
}

/// Pods of Jobs: the second pod's retry count comes from the first pod, which failed; the count of
/// a parallel pod cannot be known; and one pod may not list its predecessors.
async fn jobs() -> Vec<Value> {
    let of_job = |name: &str, job: &str, status: &Value, phase: &str| {
        let mut pod = Pod::new(name, name).showing(status);
        pod["metadata"]["creationTimestamp"] = json!(STARTED);
        pod["metadata"]["labels"] = json!({"batch.kubernetes.io/controller-uid": job});
        pod["status"]["phase"] = json!(phase);
        pod
    };
    let of = |name: &'static str| [("POD_NAME", name), ("POD_UID", name)];
    let world = World::start().await.expect("a world");
    let failed = terminated(1, "Error", "c1");
    world.kube.apply(of_job("first", "j1", &failed, "Failed"));
    world
        .kube
        .apply(of_job("beside", "j2", &running(STARTED), "Running"));
    let lives = [
        ("second", "j1", "counted the Job's failed pods"),
        (
            "parallel",
            "j2",
            "the Job runs several pods, so the number of failed pods is not this pod's retry count; set JOB_RETRY_COUNT if the service needs it",
        ),
        (
            "unlisted",
            "j3",
            "cannot count the Job's failed pods; heartbeats continue without a retry count",
        ),
    ];
    let mut all = vec![];
    for (name, job, message) in lives {
        let mut pod = of_job(name, job, &running(STARTED), "Running");
        let labels = pod["metadata"]["labels"].take();
        world.kube.apply(pod.clone());
        let podbeat = Podbeat::start(&world, &format!("log-{name}"), &of(name));
        podbeat
            .until_logged("found the pod in the Kubernetes API")
            .await;
        if name == "unlisted" {
            world
                .kube_faults
                .script("list 403 until-lifted")
                .expect("a rule");
        }
        pod["metadata"]["labels"] = labels;
        world.kube.apply(pod);
        podbeat.until_logged(message).await;
        world.kube_faults.lift_all();
        podbeat.signal(Signal::TERM);
        let (_, lines) = podbeat.end_in_lines().await;
        let line = one(&lines, message);
        match name {
            "second" => assert_eq!(line["job_retry_count"], 1),
            "unlisted" => assert!(line["kubectl_apply"].is_string(), "{line}"),
            _ => {}
        }
        all.extend(lines);
    }
    let counts: BTreeSet<String> = world
        .service
        .heartbeats()
        .iter()
        .map(|heartbeat| {
            format!(
                "{} {}",
                heartbeat.body["podName"], heartbeat.body["jobRetryCount"]
            )
        })
        .collect();
    assert!(counts.contains("\"second\" 1"), "{counts:?}");
    assert!(
        !counts
            .iter()
            .any(|told| !told.starts_with("\"second") && !told.ends_with("null")),
        "{counts:?}"
    );
    all
}

async fn a_dry_run() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let settings = [("PODBEAT_DRY_RUN", "true"), ("PODBEAT_NONCE", "hunter2")];
    let (code, lines) = Podbeat::start(&world, "log", &settings)
        .end_in_lines()
        .await;
    assert_eq!(code, 0);
    let told = messages(&lines);
    assert!(
        told.contains(&"dry run: would send this heartbeat"),
        "{told:?}"
    );
    // podbeat sent nothing, and no line claims that it did.
    assert!(
        !told
            .iter()
            .any(|message| message.contains("accepted") || message.contains("service")),
        "{told:?}"
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.to_string().contains("hunter2")),
        "{lines:#?}"
    );
    assert_eq!(lines[0].get("trace_id"), None);
    lines
}

/// An answer that does not come, and a deadline long before the timeout.
async fn an_attempt_that_is_given_up() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_TIMEOUT", "1m")]);
    until_main_is(&world, "waiting").await;
    world
        .service_faults
        .script("heartbeat hang-lost")
        .expect("a rule");
    world.kube.apply(pod.showing(&running(STARTED)));
    until_one(&world, "the change", |heartbeat| {
        main_is(heartbeat, "running")
    })
    .await;
    podbeat.signal(Signal::TERM);
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    // At least one attempt timed out: after SIGTERM, an attempt that delays the last heartbeat has
    // less than half a second. On a busy machine, podbeat may give up another one, too.
    let told = of(&lines, "a heartbeat was not accepted");
    let timed_out = |line: &&Value| {
        line["error"]
            .as_str()
            .is_some_and(|it| it.contains("timed out after"))
    };
    assert!(!told.is_empty() && told.iter().all(timed_out), "{told:?}");
    assert_eq!(told[0]["kind"], "change");
    lines
}

/// An answer that does not come within the timeout.
async fn a_service_that_hangs() -> Vec<Value> {
    let world = World::start().await.expect("a world");
    world
        .service_faults
        .script("heartbeat hang x2")
        .expect("a rule");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    // The timeout is longer than an answer takes on a busy machine, because another late answer
    // would be another problem.
    let (code, lines) = Podbeat::start(&world, "log", &[("PODBEAT_TIMEOUT", "2s")])
        .end_in_lines()
        .await;
    assert_eq!(code, 0);
    for line in of(&lines, "a heartbeat was not accepted") {
        assert!(
            line["error"]
                .as_str()
                .is_some_and(|error| error.contains("timed out after 2s")),
            "{line}"
        );
        assert_eq!(line.get("status"), None);
    }
    assert_eq!(
        one(&lines, "the service accepts heartbeats again")["failures"],
        2
    );
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_the_table_is_produced_and_no_other() {
    let lives: [futures_util::future::BoxFuture<'static, Vec<Value>>; 17] = [
        Box::pin(jobs()),
        Box::pin(a_barrier()),
        Box::pin(markers()),
        Box::pin(a_whole_life()),
        Box::pin(odd_answers()),
        Box::pin(an_expired_token()),
        Box::pin(a_restart()),
        Box::pin(wrong_names()),
        Box::pin(another_pod()),
        Box::pin(a_service_that_refuses()),
        Box::pin(two_signals_and_no_look()),
        Box::pin(a_dry_run()),
        Box::pin(a_restart_of_all_containers()),
        Box::pin(a_stop_of_podbeat_alone()),
        Box::pin(reasons()),
        Box::pin(a_service_that_hangs()),
        Box::pin(an_attempt_that_is_given_up()),
    ];
    let lived: Vec<Vec<Value>> = stream::iter(lives).buffer_unordered(4).collect().await;
    let mut seen = BTreeSet::new();
    for lines in &lived {
        seen.extend(table::check(lines));
        assert!(!lines.iter().any(|line| line.to_string().contains(TOKEN)));
    }
    let not_here: BTreeSet<&str> = NOT_HERE.iter().map(|(message, _)| *message).collect();
    let listed: BTreeSet<&str> = Message::ALL.iter().map(|message| message.text).collect();
    let missing: Vec<_> = listed
        .difference(&seen)
        .filter(|text| !not_here.contains(*text))
        .collect();
    assert!(
        missing.is_empty(),
        "no scenario produced these messages: {missing:#?}"
    );
    let stale: Vec<_> = not_here
        .iter()
        .filter(|text| seen.contains(*text) || !listed.contains(*text))
        .collect();
    assert!(
        stale.is_empty(),
        "produced, or no longer listed: {stale:#?}"
    );
}
