//! `podbeat explain` as a process: with logs and journals of real agents, and with recorded watches
//! of a real cluster.

use podbeat_lab::pod::{Pod, running, terminated, waiting};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{RUN, World};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::binary::{Ended, Podbeat, ended_with_input, podbeat};
use crate::harness::received::{main_is, until_final, until_main_is, until_one};
use crate::harness::repository::read;
use crate::harness::{LIMIT, STARTED};

async fn explain(arguments: &[&str], input: &str) -> Ended {
    ended_with_input(podbeat().arg("explain").args(arguments), input).await
}

/// A story as JSON.
async fn told(input: &str) -> Value {
    let story = explain(&["-o", "json"], input).await.done();
    serde_json::from_str(&story).expect("one story")
}

fn outcome(story: &Value) -> &str {
    story["verdict"]["outcome"].as_str().expect("an outcome")
}

fn verdict(story: &Value) -> &str {
    story["verdict"]["text"].as_str().expect("a text")
}

fn texts(story: &Value) -> Vec<&str> {
    let events = story["events"].as_array().expect("events");
    events
        .iter()
        .map(|event| event["text"].as_str().expect("a text"))
        .collect()
}

/// Checks that the texts contain these parts, in this order.
#[track_caller]
fn in_order(texts: &[&str], expected: &[&str]) {
    let mut rest = texts.iter();
    for part in expected {
        assert!(
            rest.any(|text| text.contains(part)),
            "{part:?} is missing, or out of order: {texts:#?}"
        );
    }
}

#[tokio::test]
async fn a_life_with_an_outage_a_crash_and_success() {
    let world = World::start().await.expect("a world");
    let directory = world.path("state");
    std::fs::create_dir(&directory).expect("made");
    let state = [
        ("PODBEAT_STATE_DIR", directory.to_str().expect("text")),
        // The last heartbeat of the second process may wait this long for the first one's requests.
        ("PODBEAT_TIMEOUT", "1s"),
    ];
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&waiting("ContainerCreating")));
    let mut first = Podbeat::start(&world, "log-1", &state);
    until_main_is(&world, "waiting").await;
    world
        .service_faults
        .script("heartbeat 503 x2")
        .expect("a fault");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    first
        .until_logged("the service accepts heartbeats again")
        .await;
    first.kill();
    let second = Podbeat::start(&world, "log-2", &state);
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(3, "Error", "1")));
    until_final(&world).await;
    second.signal(Signal::TERM);
    // One after the other, as in a container's log.
    let before = first.text();
    let (code, after) = second.end().await;
    assert_eq!(code, 0);

    let log = before + &after;
    let story = told(&log).await;
    assert_eq!(
        (&story["taskRun"], &story["pod"]),
        (&RUN.into(), &"lab/p".into())
    );
    in_order(
        &texts(&story),
        &[
            "started",
            "main: waiting, ContainerCreating",
            "main: running",
            "the service did not accept a heartbeat: sending a heartbeat of task run trn.42: the task-run service answered 503",
            "the service accepts heartbeats again, after",
            "started again: the process before it was killed",
            "resumed from the journal",
            "main: terminated with exit code 3, Error",
            "the last heartbeat is due: the task's containers are finished",
            "THE LAST HEARTBEAT WAS ACCEPTED; it reported: main terminated 3",
            "podbeat exited with code 0",
        ],
    );
    assert_eq!(outcome(&story), "delivered");
    for part in [
        "The service knows how task run trn.42 ended: it accepted the last heartbeat at 20",
        "which reported: main terminated 3.",
        "The service was unavailable once, for",
        "podbeat's container was restarted once.",
        "The service also accepted everything that podbeat saw before.",
    ] {
        assert!(
            verdict(&story).contains(part),
            "{part}: {}",
            verdict(&story)
        );
    }

    // The same as text, from a file, with the prefix that kubectl can add to each line, and with
    // foreign lines between.
    let prefixed: String = log
        .lines()
        .map(|line| format!("[pod/p/podbeat] {line}\nepoch 1 of 3\n"))
        .collect();
    let path = world.path("prefixed");
    std::fs::write(&path, prefixed).expect("written");
    let text = explain(&[path.to_str().expect("text")], "").await;
    assert_eq!(text.code, 0);
    assert!(
        text.out
            .starts_with("What happened to task run trn.42, pod lab/p, from its log:\n\n20"),
        "{}",
        text.out
    );
    let one_paragraph = text.out.replace('\n', " ");
    assert!(one_paragraph.contains(verdict(&story)), "{}", text.out);
    assert!(
        text.notes.ends_with(" lines that are not podbeat's\n"),
        "{}",
        text.notes
    );
}

/// A log as Docker and as the CRI store it. Both split long lines.
fn kept_by_runtimes(log: &str) -> [String; 2] {
    let (mut docker, mut cri) = (String::new(), String::new());
    for (nth, line) in log.lines().enumerate() {
        let at = format!("2026-11-24T01:00:{:02}.123456789Z", nth % 60);
        let middle = line
            .char_indices()
            .nth(line.chars().count() / 2)
            .map_or(0, |(at, _)| at);
        let (first, rest) = line.split_at(middle);
        for (part, tag) in [(first.to_owned(), "P"), (format!("{rest}\n"), "F")] {
            docker += &format!("{}\n", json!({"log": part, "stream": "stderr", "time": at}));
            docker += &format!(
                "{}\n",
                json!({"log": "epoch 1\n", "stream": "stdout", "time": at})
            );
            cri += &format!(
                "{at} stderr {tag} {}\n{at} stdout F epoch 1\n",
                part.trim_end_matches('\n')
            );
        }
    }
    [docker, cri]
}

#[tokio::test]
async fn a_log_gives_the_same_story_in_every_encoding() {
    let world = World::start().await.expect("a world");
    let mut stories = Vec::new();
    for format in ["json", "text"] {
        let (uid, started) = (format!("u-{format}"), running(STARTED));
        world.kube.apply(Pod::new("p", &uid).showing(&started));
        let settings = [
            ("PODBEAT_LOG_FORMAT", format),
            ("POD_UID", &uid),
            ("TASK_RUN_ID", &uid),
        ];
        let agent = Podbeat::start(&world, format, &settings);
        until_one(&world, "its first state", |heartbeat| {
            heartbeat.run_id == uid && main_is(heartbeat, "running")
        })
        .await;
        let mut over = terminated(3, "Error", "1");
        over["state"]["terminated"]["message"] = json!("no \"way\"\n\u{1b}[2J a=b");
        world.kube.apply(Pod::new("p", &uid).showing(&over));
        until_one(&world, "its last heartbeat", |heartbeat| {
            heartbeat.run_id == uid && heartbeat.is_final() && heartbeat.accepted
        })
        .await;
        agent.signal(Signal::TERM);
        let (code, log) = agent.end().await;
        assert_eq!(code, 0);

        let story = told(&log).await;
        in_order(
            &texts(&story),
            &[
                "started",
                "found the pod on node node-1",
                "main: running",
                "exit code 3, Error, no \"way\"\n\u{1b}[2J a=b",
                "THE LAST",
            ],
        );
        assert_eq!(outcome(&story), "delivered");
        let prefixed: String = log
            .lines()
            .map(|line| format!("[pod/p/podbeat] 2026-11-24T01:00:00.5Z {line}\n"))
            .collect();
        let utf16 = |units: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let lines = format!("\u{feff}{}", log.replace('\n', "\r\n"));
            lines.encode_utf16().flat_map(units).collect()
        };
        let [docker, cri] = kept_by_runtimes(&log);
        for (kept, bytes) in [
            ("UTF-8 with a mark", format!("\u{feff}{log}").into_bytes()),
            ("UTF-16, little endian", utf16(u16::to_le_bytes)),
            ("UTF-16, big endian", utf16(u16::to_be_bytes)),
            ("Docker", docker.into_bytes()),
            ("CRI", cri.into_bytes()),
            ("kubectl with prefix and timestamps", prefixed.into_bytes()),
        ] {
            let path = world.path("kept");
            std::fs::write(&path, bytes).expect("written");
            let ended = explain(&["-o", "json", path.to_str().expect("text")], "").await;
            assert_eq!(ended.code, 0, "{kept}: {}", ended.notes);
            let again: Value = serde_json::from_str(&ended.out).expect("one story");
            assert_eq!(texts(&again), texts(&story), "{kept}");
            // The text form takes its date from the runtime or kubectl.
            if format == "json" {
                assert_eq!(again, story, "{kept}");
            }
        }
        stories.push(story);
    }
    // Both forms give the same story, except for the exit of podbeat and the order.
    let alike = |story: &Value| -> Vec<String> {
        let texts = texts(story).into_iter();
        let texts = texts.filter(|text| !text.starts_with("podbeat exited with"));
        let mut texts: Vec<String> = texts.map(str::to_owned).collect();
        texts.sort_unstable();
        texts
    };
    assert_eq!(alike(&stories[0]), alike(&stories[1]));
    let at = stories[1]["events"][0]["at"].as_str().expect("a time");
    assert!(at.len() == 13 && at.ends_with('Z'), "the time of day: {at}");
    let text = explain(&[world.path("text").to_str().expect("text")], "")
        .await
        .done();
    assert!(text.contains(&format!("\n\n{at}  podbeat")), "{text}");
}

#[tokio::test]
async fn an_undelivered_end_is_explained_with_its_cause_and_a_suggestion() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let agent = Podbeat::start(&world, "log", &[]);
    until_main_is(&world, "running").await;
    world
        .service_faults
        .script("heartbeat 403 until-lifted")
        .expect("a fault");
    let mut deleted = Pod::new("p", "u1").showing(&terminated(9, "Error", "1"));
    deleted["spec"]["terminationGracePeriodSeconds"] = 3.into();
    world.kube.apply(deleted);
    until_one(&world, "a last heartbeat", Heartbeat::is_final).await;
    agent.signal(Signal::TERM);
    let (code, log) = agent.end().await;
    assert_eq!(code, 75);
    let story = told(&log).await;
    assert_eq!(outcome(&story), "undelivered");
    in_order(
        &texts(&story),
        &[
            "the last heartbeat is due",
            "SIGTERM",
            "COULD NOT BE DELIVERED",
            "exited with code 75",
        ],
    );
    for part in [
        "does not know how task run trn.42 ended",
        "the task-run service answered 403",
        "podbeat reap can send it",
    ] {
        assert!(
            verdict(&story).contains(part),
            "{part}: {}",
            verdict(&story)
        );
    }
}

#[tokio::test]
async fn a_run_without_its_role_is_explained_while_it_runs() {
    let world = World::start().await.expect("a world");
    world.kube.deny(true);
    let mut agent = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "200ms")]);
    until_one(&world, "a heartbeat", |heartbeat| heartbeat.accepted).await;
    let cannot_watch = |line: &Value| line.to_string().contains("cannot watch the pod");
    agent.until("it cannot watch", cannot_watch).await;
    agent.kill();
    let story = told(&agent.text()).await;
    assert_eq!(outcome(&story), "open");
    for part in [
        "podbeat still runs, or was killed",
        "podbeat has not been able to watch the pod since 20",
        "is forbidden",
    ] {
        assert!(
            verdict(&story).contains(part),
            "{part}: {}",
            verdict(&story)
        );
    }
}

#[tokio::test]
async fn a_journal_shows_the_waiting_heartbeats() {
    let world = World::start().await.expect("a world");
    let directory = world.path("state");
    std::fs::create_dir(&directory).expect("made");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut agent = Podbeat::start(
        &world,
        "log",
        &[("PODBEAT_STATE_DIR", directory.to_str().expect("text"))],
    );
    until_main_is(&world, "running").await;
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a fault");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(5, "Error", "1")));
    until_one(&world, "a last heartbeat", Heartbeat::is_final).await;
    agent.kill();
    let journal = std::fs::read_to_string(directory.join("journal.json")).expect("a journal");
    let story = told(&journal).await;
    assert_eq!((outcome(&story), &story["taskRun"]), ("due", &RUN.into()));
    in_order(&texts(&story), &["(final) waits to be accepted"]);
    for part in [
        "the journal does not show that the service accepted it",
        "podbeat reap --journal sends it, with the same nonce",
    ] {
        assert!(
            verdict(&story).contains(part),
            "{part}: {}",
            verdict(&story)
        );
    }
    let newer = explain(&[], &journal.replace(r#""version":1"#, r#""version":9"#)).await;
    assert_eq!(newer.code, 65);
    assert!(
        newer
            .notes
            .contains("newer version of podbeat wrote the file (format 9"),
        "{newer:?}"
    );
}

fn capture(name: &str) -> String {
    read(&format!("tests/captures/e2e/watch-{name}.jsonl"))
}

#[tokio::test]
async fn watches_of_a_real_cluster() {
    for (name, expected, outcome_expected, told_in_verdict) in [
        (
            "fail-plain",
            &[
                "main: running",
                "main: terminated with exit code 3, Error",
                "the task has ended: the last heartbeat is due",
            ][..],
            "due",
            "The task of pod fail-plain/",
        ),
        (
            "restarts-native",
            &[
                "main: terminated with exit code 4",
                "main: waiting, CrashLoopBackOff",
                "main: terminated with exit code 0",
            ],
            "due",
            "A container was restarted 3 times.",
        ),
        (
            "delete-force-native",
            &[
                "main: running",
                "the pod is being deleted",
                "the pod object was deleted",
            ],
            "due",
            "until then the API showed main as running",
        ),
        (
            "failed-init",
            &[
                "setup (init): terminated with exit code 5",
                "the task has ended: the last heartbeat is due",
            ],
            "due",
            "Init container setup failed with exit code 5, and the task's containers did not start (Error). The task of pod",
        ),
    ] {
        let story = told(&capture(name)).await;
        in_order(&texts(&story), expected);
        assert_eq!(outcome(&story), outcome_expected, "{name}");
        assert!(
            verdict(&story).contains(told_in_verdict),
            "{name}: {}",
            verdict(&story)
        );
    }
    // The record ends in the middle of a life.
    let begun: String = capture("fail-plain")
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    let story = told(&begun).await;
    assert_eq!(outcome(&story), "open");
    assert!(
        verdict(&story).contains("The record ends here"),
        "{}",
        verdict(&story)
    );
}

/// The cause of the end in a story.
fn cause(story: &Value) -> &str {
    let cause = story["verdict"]["cause"].as_str().unwrap_or_default();
    assert!(verdict(story).starts_with(cause), "{}", verdict(story));
    cause
}

#[tokio::test]
async fn why_the_pods_of_a_real_cluster_ended() {
    let capture = |name: &str| read(&format!("tests/captures/{name}.jsonl"));
    for (name, outcome_expected, cause_expected, said) in [
        (
            "watch-l-deadline",
            "due",
            "The pod ran longer than its activeDeadlineSeconds (DeadlineExceeded: Pod was active on the node longer than the specified \
             deadline).",
            "has ended: main is terminated with exit code 0, Completed.",
        ),
        (
            "e2e/watch-deadline-native",
            "due",
            "The pod ran longer than its activeDeadlineSeconds (DeadlineExceeded: Pod was active on the node longer than the specified \
             deadline).",
            "has ended: main is terminated with exit code 5, Error.",
        ),
        (
            "e2e/watch-evict-plain",
            "due",
            "The pod was evicted through the Eviction API, for example by kubectl drain (EvictionByEvictionAPI: Eviction API: evicting).",
            "main is terminated with exit code 5, Error.",
        ),
        (
            "e2e/watch-failed-init",
            "due",
            "Init container setup failed with exit code 5, and the task's containers did not start (Error).",
            "has ended: main never started.",
        ),
        (
            "e2e/watch-no-image-native",
            "due",
            "Container main could not start: its image cannot be pulled (ImagePullBackOff: Back-off pulling image \
             \"registry.invalid/none:1\": ErrImagePull: ",
            "The kubelet lost container main: exit code 137 is not the container's own (ContainerStatusUnknown: The container could not be \
             located when the pod was terminated). The pod was deleted. The task of pod",
        ),
        (
            "watch-i-badcmd",
            "due",
            "Container main could not be started (StartError: failed to create containerd task: ",
            "main is terminated with exit code 128, StartError.",
        ),
        (
            "watch-g-oom",
            "due",
            "Container main was killed because it ran out of memory (OOMKilled).",
            "main is terminated with exit code 137, OOMKilled.",
        ),
        (
            "e2e/watch-delete-native",
            "due",
            "The pod was deleted.",
            "exit code 5, Error.",
        ),
        (
            "e2e/watch-delete-force-native",
            "due",
            "The pod was deleted.",
            "showed main as running",
        ),
        (
            "e2e/watch-fail-plain",
            "due",
            "",
            "main is terminated with exit code 3, Error.",
        ),
        (
            "watch-e-hostnet",
            "due",
            "",
            "main is terminated with exit code 0, Completed.",
        ),
        (
            "e2e/watch-job-indexed-native",
            "due",
            "",
            "main is terminated with exit code 3, Error.",
        ),
    ] {
        let own = if name.starts_with("e2e/") {
            "podbeat"
        } else {
            "hb"
        };
        let told = explain(&["-o", "json", "--container-name", own], &capture(name)).await;
        let story: Value = serde_json::from_str(&told.done()).expect("one story");
        assert_eq!(outcome(&story), outcome_expected, "{name}");
        let cause = cause(&story);
        assert!(cause.starts_with(cause_expected), "{name}: {cause}");
        assert!(
            cause_expected.ends_with(": ") || cause == cause_expected,
            "{name}: {cause}"
        );
        assert!(
            verdict(&story).contains(said),
            "{name}: {}",
            verdict(&story)
        );
    }
    // The pod still waits.
    let waits = capture("e2e/watch-no-image-native");
    let waits: String = waits
        .lines()
        .take(7)
        .map(|line| format!("{line}\n"))
        .collect();
    let story = told(&waits).await;
    assert_eq!(outcome(&story), "open");
    assert!(
        cause(&story).starts_with(
            "Container main could not start: its image cannot be pulled (ImagePullBackOff: "
        ),
        "{}",
        verdict(&story)
    );
}

/// The API shows the reason before the task ends. The agent's log, its journal and a record all
/// contain the reason, and no heartbeat does.
#[tokio::test]
async fn the_reason_is_shown_from_a_log_a_journal_and_a_record() {
    let world = World::start().await.expect("a world");
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let disrupted = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                           "message": "default-scheduler: preempting to accommodate a higher priority pod"});
    let why = "The pod was preempted to make room for a pod with higher priority (PreemptionByScheduler: default-scheduler: preempting to \
               accommodate a higher priority pod).";
    let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
    world.kube.apply(pod.clone());
    let settings = [("PODBEAT_STATE_DIR", state.to_str().expect("text"))];
    let agent = Podbeat::start(&world, "log", &settings);
    let record = world.path("record.jsonl");
    let mut observer = podbeat();
    observer.env("KUBECONFIG", world.path("kubeconfig")).args([
        "observe",
        "p",
        "--record",
        record.to_str().expect("text"),
    ]);
    let observer = observer.spawn().expect("the binary runs");
    until_main_is(&world, "running").await;
    pod["status"]["conditions"] = json!([disrupted]);
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T02:00:00Z");
    world.kube.apply(pod.clone());
    agent.until_logged("the pod is being deleted").await;
    let journal = until_journal(&state.join("journal.json"), "PreemptionByScheduler").await;
    pod["status"]["containerStatuses"][0]["state"] = terminated(143, "Error", "1")["state"].clone();
    world.kube.apply(pod);
    until_final(&world).await;
    agent.signal(Signal::TERM);
    let (code, log) = agent.end().await;
    assert_eq!(code, 0);
    let observed = observer.wait_with_output().await.expect("it ends");
    assert!(observed.status.success(), "{observed:?}");
    let lines = String::from_utf8(observed.stdout).expect("text");
    assert!(
        lines.contains(", DisruptionTarget PreemptionByScheduler: default-scheduler: "),
        "{lines}"
    );

    let kept = std::fs::read_to_string(&record).expect("a record");
    for (what, text) in [("log", &log), ("journal", &journal), ("record", &kept)] {
        let story = told(text).await;
        assert_eq!(story["source"], what);
        assert_eq!(cause(&story), why, "{what}");
        in_order(
            &texts(&story),
            &["DisruptionTarget: PreemptionByScheduler: default-scheduler: "],
        );
    }
    for heartbeat in world.service.heartbeats() {
        assert!(
            !heartbeat.body.to_string().contains("Preempt"),
            "{heartbeat:?}"
        );
    }
}

#[tokio::test]
async fn a_deadline_shows_in_the_log_though_its_reason_comes_too_late() {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
    world.kube.apply(pod.clone());
    let agent = Podbeat::start(&world, "log", &[]);
    until_main_is(&world, "running").await;
    // As in tests/captures/watch-l-deadline.jsonl.
    pod["status"]["conditions"] =
        json!([{"type": "Ready", "status": "False", "reason": "PodFailed"}]);
    world.kube.apply(pod.clone());
    agent
        .until_logged("the Kubernetes API reported a reason for the pod's state")
        .await;
    pod["status"]["containerStatuses"][0]["state"] =
        terminated(0, "Completed", "1")["state"].clone();
    world.kube.apply(pod);
    assert_eq!(until_final(&world).await.exit_code("main"), Some(0));
    agent.signal(Signal::TERM);
    let story = told(&agent.end().await.1).await;
    assert_eq!(outcome(&story), "delivered");
    assert_eq!(
        cause(&story),
        "The kubelet failed the pod although no container had failed; this happens when activeDeadlineSeconds is exceeded (PodFailed)."
    );
}

/// Waits until the journal contains a text.
async fn until_journal(path: &std::path::Path, text: &str) -> String {
    let found = async {
        loop {
            let journal = std::fs::read_to_string(path).unwrap_or_default();
            if journal.contains(text) {
                return journal;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("a journal")
}

#[tokio::test]
async fn other_files_are_refused_with_the_accepted_kinds() {
    for (input, code, said) in [
        ("", 65, "the input is empty"),
        (
            "epoch 1\nepoch 2\n",
            65,
            "unknown format; use podbeat's log (kubectl logs",
        ),
        (
            "{\"a\": 1}\n",
            65,
            "unknown format; use podbeat's log (kubectl logs",
        ),
        (
            "01:02:03.004Z NOTE  hello\n",
            65,
            "unknown format; use podbeat's log (kubectl logs",
        ),
    ] {
        let ended = explain(&[], input).await;
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{input:?}");
        assert!(ended.notes.contains(said), "{}", ended.notes);
    }
    let world = World::start().await.expect("a world");
    for magic in [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd"] {
        let path = world.path("compressed");
        std::fs::write(&path, magic).expect("written");
        let ended = explain(&[path.to_str().expect("text")], "").await;
        assert!(
            ended.code == 65 && ended.notes.contains("the input is compressed"),
            "{ended:?}"
        );
    }
    let missing = explain(&["/nowhere/log"], "").await;
    assert_eq!(missing.code, 66);
    assert!(
        missing
            .notes
            .starts_with("podbeat: cannot read /nowhere/log: "),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_record_of_a_task_that_ended_beside_a_proxy_names_the_proxy_and_the_setting() {
    let record = |annotations: Value| {
        let mut pod = Pod::new("p", "u1").showing(&terminated(0, "Completed", "1"));
        pod["metadata"]["annotations"] = annotations;
        let proxy = json!({"name": "istio-proxy", "state": {"running": {"startedAt": STARTED}}});
        pod["spec"]["containers"]
            .as_array_mut()
            .expect("containers")
            .push(json!({"name": "istio-proxy"}));
        pod["status"]["containerStatuses"]
            .as_array_mut()
            .expect("statuses")
            .push(proxy);
        pod["status"]["phase"] = json!("Running");
        format!("{}\n", json!({"type": "ADDED", "object": pod}))
    };
    let story = told(&record(json!({}))).await;
    assert_eq!(outcome(&story), "open");
    let cause = story["verdict"]["cause"].as_str().expect("a cause");
    assert!(
        cause.starts_with("Container main has ended, but istio-proxy still runs.")
            && cause.contains("PODBEAT_IGNORED_CONTAINERS")
            && cause.contains("podbeat.dev/ignored-containers"),
        "{cause}"
    );
    let named = told(&record(
        json!({"podbeat.dev/ignored-containers": "istio-proxy"}),
    ))
    .await;
    assert_eq!(
        (outcome(&named), named["verdict"].get("cause")),
        ("due", None)
    );
}

/// A run as podbeat-server answers, at a time.
fn run(id: &str, status: &str, at: &str, details: Option<&str>) -> Value {
    let mut run = json!({
        "id": id, "name": "first", "createdBy": "me", "status": status,
        "timeCreated": "2026-11-24T10:00:00Z", "timeModified": at,
        "logs": [
            {"startTime": "2026-11-24T10:00:02Z", "endTime": "2026-11-24T10:00:08Z",
             "error": "main ended with exit code 3"},
            {"startTime": "2026-11-24T10:00:20.5Z"},
        ],
    });
    if let Some(details) = details {
        run["statusDetails"] = json!(details);
    }
    run
}

#[tokio::test]
async fn a_run_as_json_is_explained_when_its_pods_are_gone() {
    let before = run(
        "trn.7",
        "FailedRestartable",
        "2026-11-24T10:00:08Z",
        Some("main ended with exit code 3"),
    );
    let mut after = run(
        "trn.7",
        "Failed",
        "2026-11-24T10:00:31Z",
        Some("OOMKilled:\u{1b}[2J main ended with exit code 137"),
    );
    after["logs"][1]["endTime"] = json!("2026-11-24T10:00:31Z");
    after["logs"][1]["error"] = json!("OOMKilled");

    let text = explain(&[], &format!("{after:#}")).await.done();
    assert_eq!(
        text,
        "What happened to task run trn.7, from its status:\n\
         \n\
         2026-11-24T10:00:00.000Z  the run was created by me\n\
         2026-11-24T10:00:02.000Z  attempt 1 started\n\
         2026-11-24T10:00:08.000Z  attempt 1 ended: main ended with exit code 3\n\
         2026-11-24T10:00:20.500Z  attempt 2 started\n\
         2026-11-24T10:00:31.000Z  attempt 2 ended: OOMKilled\n\
         2026-11-24T10:00:31.000Z  the run is Failed: OOMKilled:\u{fffd}[2J main ended with exit code 137\n\
         \n\
         The service says: OOMKilled:\u{fffd}[2J main ended with exit code 137. Task run trn.7 is Failed, after 2\n\
         attempts. This is final.\n"
    );

    // The lines of `podbeat runs watch -o json` are a history.
    let story = told(&format!("{before}\n{before}\n{after}\n")).await;
    let shown: Vec<_> = texts(&story)
        .into_iter()
        .filter(|text| text.starts_with("the run is"))
        .collect();
    assert_eq!(shown.len(), 2, "{story:#}");
    in_order(
        &texts(&story),
        &["is FailedRestartable", "attempt 2 started", "is Failed: "],
    );
    assert_eq!(
        (&story["source"], outcome(&story)),
        (&json!("status"), "unknown")
    );

    // Several runs, as from `podbeat runs get A B -o json`; the others have not ended.
    let other = run("trn.8", "Running", "2026-11-24T10:00:21Z", None);
    let both = json!({"items": [after, other]}).to_string();
    let both = explain(&[], &both).await.done();
    assert_eq!(both.matches("What happened to task run").count(), 2);
    assert!(
        both.ends_with("\nTask run trn.8 is Running, after 2 attempts. The run has not ended.\n"),
        "{both}"
    );
}

#[tokio::test]
async fn json_that_is_not_only_runs_is_refused() {
    let good = run("trn.7", "Failed", "2026-11-24T10:00:31Z", None);
    let mut bad = good.clone();
    bad["timeCreated"] = json!(null);
    bad["status"] = json!(3);
    for input in [
        bad.to_string(),
        format!("{good}\n{bad}"),
        json!({"items": [good, bad]}).to_string(),
        json!({"items": []}).to_string(),
        format!("{good}").repeat(2).replace("}{", "}] {"),
    ] {
        let ended = explain(&[], &input).await;
        assert_eq!((ended.code, ended.out.as_str()), (65, ""), "{input}");
    }
}
