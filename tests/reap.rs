//! `podbeat reap` as a process, against the stand-ins.

use std::collections::BTreeMap;

use podbeat_lab::pod::{Pod, running, terminated};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use serde_json::{Value, json};

use crate::harness::binary::{self, Ended, Podbeat, podbeat};
use crate::harness::received::until_one;
use crate::harness::{STARTED, knowing, text, world_with};

/// A pod of a run that ended long ago, with exit code 3. `own_exit` is the exit code of podbeat's
/// container.
fn ended(name: &str, run: &str, own_exit: Option<i32>) -> Value {
    let mut pod = Pod::new(name, &format!("uid-of-{name}")).showing(&terminated(3, "Error", "1"));
    pod["metadata"]["annotations"] = json!({"podbeat.dev/task-run-id": run});
    pod["metadata"]["ownerReferences"] = of_the_job();
    pod["status"]["phase"] = json!("Failed");
    if let Some(code) = own_exit {
        let status = json!({"name": "podbeat", "state": {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:10Z"}}});
        pod["status"]["initContainerStatuses"] = json!([status]);
    }
    pod
}

fn of_the_job() -> Value {
    json!([{"kind": "Job", "uid": "uid-of-job", "controller": true}])
}

fn settings(world: &World) -> BTreeMap<String, String> {
    let mut settings = world.settings("reaper", "uid-of-reaper");
    for unneeded in ["TASK_RUN_ID", "POD_NAME", "POD_UID"] {
        settings.remove(unneeded);
    }
    settings
}

async fn reap_with(settings: BTreeMap<String, String>, line: &str) -> Ended {
    binary::ended(podbeat().envs(settings).arg("reap").args(line.split(' '))).await
}

async fn reap(world: &World, line: &str) -> Ended {
    reap_with(settings(world), line).await
}

fn finals(world: &World) -> Vec<Heartbeat> {
    world.service.heartbeats()
}

#[tokio::test]
async fn each_missing_last_heartbeat_is_sent_once_however_often_it_is_run() {
    let world = world_with(knowing([
        "trn.killed",
        "trn.undelivered",
        "trn.delivered",
        "trn.open",
        "trn.known",
    ]))
    .await;
    for (name, run, own_exit) in [
        ("killed", "trn.killed", Some(137)),
        ("undelivered", "trn.undelivered", Some(75)),
        ("delivered", "trn.delivered", Some(0)),
        ("known", "trn.known", None),
    ] {
        world.kube.apply(ended(name, run, own_exit));
    }
    let mut open = ended("open", "trn.open", None);
    open["status"]["phase"] = json!("Running");
    world.kube.apply(open);
    let mut other = ended("other", "trn.other", None);
    other["spec"]["initContainers"] = json!([]);
    world.kube.apply(other);
    // The service already knows that this run ended.
    reap(&world, "known").await.done();
    assert_eq!(finals(&world).len(), 1);

    let dry = reap(&world, "--all --dry-run").await.done();
    assert_eq!(
        dry,
        "pod lab/killed (task run trn.killed): would send the last heartbeat: main terminated with exit code 3 (Error)\n\
         pod lab/known (task run trn.known): the service already knows how the run ended: FailedRestartable\n\
         pod lab/undelivered (task run trn.undelivered): would send the last heartbeat: main terminated with exit code 3 (Error)\n\
         5 pods with podbeat: 2 to be sent, 1 not ended, 1 delivered, 1 known\n"
    );
    assert_eq!(finals(&world).len(), 1, "a dry run sends nothing");

    let sent = reap(&world, "--selector app=task").await.done();
    assert!(
        sent.ends_with("5 pods with podbeat: 2 sent, 1 not ended, 1 delivered, 1 known\n"),
        "{sent}"
    );
    let received = finals(&world);
    assert_eq!(received.len(), 3);
    for heartbeat in &received {
        assert!(
            heartbeat.accepted && heartbeat.violations.is_empty(),
            "{heartbeat:?}"
        );
        let pod = heartbeat.run_id.strip_prefix("trn.").expect("a run");
        assert_eq!(
            heartbeat.body,
            json!({
                "containerStatus": [{"name": "main", "state": {"terminated": {
                    "containerID": "containerd://1", "exitCode": 3, "reason": "Error",
                    "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:09Z"}}}],
                "lastHeartbeat": true, "nonce": format!("reap-uid-of-{pod}"), "podHardwareDetails": "node=node-1",
                "podName": pod, "podUID": format!("uid-of-{pod}")
            })
        );
    }
    let again = reap(&world, "--all").await.done();
    assert!(
        again.ends_with("5 pods with podbeat: 1 not ended, 1 delivered, 3 known\n"),
        "{again}"
    );
    assert_eq!(finals(&world).len(), 3, "nothing is sent twice");
}

/// `podbeat reap` counts retries as the agent does. Without a count, the service refuses the last
/// heartbeat of a second attempt, or assigns it to the first one.
#[tokio::test]
async fn the_second_pod_of_a_job_has_its_retry_count() {
    let world = world_with(knowing(["trn.1"])).await;
    for (name, created_at) in [
        ("first", "2026-01-01T00:00:00Z"),
        ("second", "2026-01-01T00:00:20Z"),
    ] {
        let mut pod = ended(name, "trn.1", Some(137));
        pod["metadata"]["creationTimestamp"] = json!(created_at);
        pod["metadata"]["labels"] = json!({"batch.kubernetes.io/controller-uid": "uid-of-job"});
        world.kube.apply(pod);
    }
    let dry = reap(&world, "--all --dry-run -o json").await.done();
    assert!(dry.contains(r#""jobRetryCount":1"#), "{dry}");
    reap(&world, "--all").await.done();
    let [last] = &finals(&world)[..] else {
        panic!("one last heartbeat")
    };
    assert!(last.accepted, "{last:?}");
    assert_eq!(
        (&last.body["podName"], &last.body["jobRetryCount"]),
        (&json!("second"), &json!(1))
    );
}

#[tokio::test]
async fn reap_does_not_end_the_run_of_a_later_pod() {
    let world = world_with(knowing(["trn.1"])).await;
    world.kube.apply(ended("first", "trn.1", Some(75)));
    let mut second = Pod::new("second", "uid-of-second").showing(&running("2026-01-01T00:01:00Z"));
    second["metadata"]["ownerReferences"] = of_the_job();
    second["metadata"]["annotations"] = json!({"podbeat.dev/task-run-id": "trn.1"});
    second["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:59Z");
    second["metadata"]["labels"] = json!({"app": "another"});
    second["status"]["phase"] = json!("Running");
    world.kube.apply(second);
    // Also if the command selects only the first pod, by name or by a label that the second does
    // not have.
    for (line, rest) in [
        ("first", ""),
        ("-l app=task", "1 pod with podbeat: 1 superseded\n"),
    ] {
        let said = reap(&world, line).await.done();
        assert_eq!(
            said,
            format!(
                "pod lab/first (task run trn.1): pod lab/second is a later pod of the same run\n{rest}"
            )
        );
    }
    assert_eq!(finals(&world).len(), 0);
}

#[tokio::test]
async fn another_owners_pod_ends_no_run() {
    let world = world_with(knowing(["trn.victim", "trn.same"])).await;
    let mut victim = Pod::new("victim", "uid-of-victim").showing(&running("2026-01-01T00:00:01Z"));
    victim["metadata"]["annotations"] = json!({"podbeat.dev/task-run-id": "trn.victim"});
    victim["status"]["phase"] = json!("Running");
    world.kube.apply(victim);
    let mut rival = ended("rival", "trn.victim", Some(75));
    rival["metadata"]["namespace"] = json!("elsewhere");
    rival["metadata"]["creationTimestamp"] = json!("2026-01-01T00:01:00Z");
    world.kube.apply(rival);
    let said = reap(&world, "--all -A").await.done();
    assert!(
        said.contains(
            "pod elsewhere/rival (task run trn.victim): pods with different owners, or in different namespaces, claim the run: "
        ) && said.contains("lab/victim")
            && said.ends_with("2 pods with podbeat: 1 not ended, 1 unclear\n"),
        "{said}"
    );
    // podbeat does not send the victim's last heartbeat either, because nobody can know to which
    // pod the run belongs.
    world.kube.apply(ended("victim", "trn.victim", Some(75)));
    let said = reap(&world, "--all -A").await.done();
    assert!(said.ends_with("2 pods with podbeat: 2 unclear\n"), "{said}");
    // An earlier attempt of the same owner has not ended.
    let mut open = ended("open", "trn.same", None);
    open["status"]["phase"] = json!("Running");
    world.kube.apply(open);
    let mut later = ended("later", "trn.same", Some(75));
    later["metadata"]["creationTimestamp"] = json!("2026-01-01T00:01:00Z");
    world.kube.apply(later);
    let said = reap(&world, "later -o json").await.done();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&said["outcome"], &said["message"]),
        (
            &json!("held"),
            &json!("pod lab/open of the same run has not ended")
        )
    );
    assert_eq!(finals(&world).len(), 0);
}

#[tokio::test]
async fn if_only_podbeat_was_stopped_the_service_decides() {
    let world = world_with(knowing(["trn.1", "trn.2"])).await;
    let restarted = |name: &str, run: &str| {
        let mut pod = ended(name, run, Some(0));
        pod["status"]["initContainerStatuses"][0]["restartCount"] = json!(1);
        pod
    };
    world.kube.apply(restarted("p", "trn.1"));
    world.kube.apply(restarted("q", "trn.2"));
    // The first process reported that main runs, which is not an end for the service.
    let sent = reap(&world, "p").await.done();
    assert!(
        sent.contains("sent the last heartbeat: main terminated with exit code 3 (Error)"),
        "{sent}"
    );
    let said = reap(&world, "--all").await.done();
    assert!(
        said.ends_with("2 pods with podbeat: 1 sent, 1 delivered\n"),
        "{said}"
    );
    let known = reap(&world, "p").await.done();
    assert!(
        known.ends_with(
            "podbeat delivered a last heartbeat, and the service knows how the run ended: FailedRestartable\n"
        ),
        "{known}"
    );
    assert_eq!(finals(&world).len(), 2);
}

#[tokio::test]
async fn a_proxy_that_never_ends_does_not_keep_a_run_open() {
    let world = world_with(knowing(["trn.1"])).await;
    let mut pod = ended("p", "trn.1", None);
    let exit =
        |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:10Z"}});
    pod["spec"]["initContainers"] = json!([]);
    pod["spec"]["containers"] =
        json!([{"name": "main"}, {"name": "istio-proxy"}, {"name": "podbeat"}]);
    pod["status"]["phase"] = json!("Running");
    pod["status"]["containerStatuses"] = json!([
        {"name": "main", "state": exit(4)}, {"name": "istio-proxy", "state": {"running": {}}},
        {"name": "podbeat", "state": exit(75)}
    ]);
    world.kube.apply(pod);
    assert_eq!(
        reap(&world, "p").await.done(),
        "pod lab/p: it has not ended\n"
    );
    let said = reap(&world, "p --ignored-containers istio-proxy")
        .await
        .done();
    assert!(
        said.ends_with("sent the last heartbeat: main terminated with exit code 4\n"),
        "{said}"
    );
}

#[test]
fn every_setting_that_is_read_of_a_pod_is_one_of_the_agents() {
    for (variable, flag) in podbeat_kubernetes::listed::SETTINGS {
        let known = podbeat::config::SETTINGS
            .iter()
            .any(|setting| (setting.variable, setting.flag) == (variable, flag));
        assert!(known, "{variable}, --{flag}");
    }
}

#[tokio::test]
async fn each_pod_of_an_indexed_job_ends_its_own_run() {
    let world = world_with(knowing(["trn.1-0", "trn.1-1"])).await;
    for (name, index) in [("job-0", Some("0")), ("job-1", Some("1")), ("lone", None)] {
        let mut pod = ended(name, "trn.1-{index}", Some(137));
        if let Some(index) = index {
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] =
                json!(index);
        }
        world.kube.apply(pod);
    }
    let said = reap(&world, "--all").await.done();
    assert!(
        said.contains("pod lab/lone: cannot find its run: trn.1-{index} needs an index")
            && said.ends_with("3 pods with podbeat: 2 sent, 1 unclear\n"),
        "{said}"
    );
    let mut runs: Vec<String> = finals(&world)
        .into_iter()
        .map(|received| received.run_id)
        .collect();
    runs.sort_unstable();
    assert_eq!(runs, ["trn.1-0", "trn.1-1"]);
}

#[tokio::test]
async fn literal_settings_in_the_spec_are_used() {
    let world = world_with(knowing(["trn.1"])).await;
    let mut pod = ended("p", "trn.other", None);
    pod["spec"]["initContainers"][0]["env"] = json!([
        {"name": "TASK_RUN_ID", "value": "trn.1"}, {"name": "PODBEAT_NONCE", "value": "issued-7"},
        {"name": "JOB_RETRY_COUNT", "value": "2"}
    ]);
    world.kube.apply(pod);
    let told = reap(&world, "p -o json").await.done();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["outcome"], &told["taskRun"]),
        (&json!("sent"), &json!("trn.1"))
    );
    let received = finals(&world).swap_remove(0);
    assert_eq!(
        (received.nonce(), &received.body["jobRetryCount"]),
        ("issued-7", &json!(2))
    );
    let mut shown = received.body.clone();
    shown.as_object_mut().and_then(|body| body.remove("nonce"));
    assert_eq!(told["heartbeat"], shown, "as sent, except for the nonce");
}

#[tokio::test]
async fn many_pods_are_read_page_after_page_in_every_namespace() {
    const PODS: usize = 250;
    let runs: Vec<String> = (0..PODS).map(|nth| format!("trn.{nth}")).collect();
    let world = world_with(knowing(runs.iter().map(String::as_str))).await;
    for (nth, run) in runs.iter().enumerate() {
        let mut pod = ended(&format!("p-{nth}"), run, Some(137));
        pod["metadata"]["namespace"] = json!(format!("n-{}", nth % 3));
        world.kube.apply(pod);
    }
    assert_eq!(reap(&world, "--all").await.done(), "0 pods with podbeat\n");
    let sent = reap(&world, "--all -A").await.done();
    assert!(
        sent.ends_with(&format!("\n{PODS} pods with podbeat: {PODS} sent\n")),
        "{sent}"
    );
    assert_eq!(finals(&world).len(), PODS);
    let lists = world
        .kube
        .seen()
        .iter()
        .filter(|seen| seen.query.contains("limit=100"))
        .count();
    assert_eq!(lists, 4, "one page, and then three");
}

#[tokio::test]
async fn a_last_heartbeat_that_the_service_refuses_is_sent_once_more_without_states() {
    for status in [400, 413, 422, 451] {
        let world = world_with(knowing(["trn.1"])).await;
        world.kube.apply(ended("p", "trn.1", Some(75)));
        world
            .service_faults
            .script(&format!("heartbeat {status} x1"))
            .expect("a fault");
        reap(&world, "p").await.done();
        let received = finals(&world);
        let states: Vec<bool> = received
            .iter()
            .map(|heartbeat| heartbeat.body.get("containerStatus").is_some())
            .collect();
        assert_eq!(
            (states, received[1].accepted),
            (vec![true, false], true),
            "{status}"
        );
    }
}

#[tokio::test]
async fn the_services_answer_decides() {
    let world = world_with(knowing(["trn.1"])).await;
    // If the service does not know the run, or assigns it to another pod, that is not an error.
    world.kube.apply(ended("q", "trn.unknown", Some(75)));
    let told = reap(&world, "q").await.done();
    assert!(
        told.starts_with("pod lab/q (task run trn.unknown): nothing to send: getting task run"),
        "{told}"
    );

    // If podbeat cannot ask the service, it sends nothing, unless its exit code says that the last
    // heartbeat is missing.
    for (token, own_exit, code, received) in
        [("other", Some(137), 77, 0), ("other", Some(75), 77, 1)]
    {
        let world = world_with(knowing(["trn.1"])).await;
        world.kube.apply(ended("p", "trn.1", own_exit));
        world.write_token(token).expect("written");
        let refused = reap(&world, "p").await;
        assert_eq!(refused.code, code, "{refused:?}");
        assert_eq!(finals(&world).len(), received, "{refused:?}");
    }
}

#[tokio::test]
async fn an_unavailable_service_is_asked_again_in_the_next_run() {
    let world = world_with(knowing(["trn.1", "trn.2"])).await;
    for nth in 1..=2 {
        world
            .kube
            .apply(ended(&format!("p-{nth}"), &format!("trn.{nth}"), Some(137)));
    }
    world
        .service_faults
        .script("heartbeat 503 until-lifted")
        .expect("a fault");
    let failed = reap(&world, "--all").await;
    assert_eq!(failed.code, 69);
    assert!(
        failed.out.contains("the task-run service answered 503"),
        "{failed:?}"
    );
    assert!(
        failed
            .notes
            .contains("the remaining pods would fail in the same way"),
        "{failed:?}"
    );
    assert_eq!(finals(&world).len(), 1);
    world.service_faults.lift_all();
    let sent = reap(&world, "--all").await.done();
    assert!(sent.ends_with("2 pods with podbeat: 2 sent\n"), "{sent}");

    // The answer was lost. The next call detects that the request arrived.
    let world = world_with(knowing(["trn.1"])).await;
    world.kube.apply(ended("p", "trn.1", Some(137)));
    world
        .service_faults
        .script("heartbeat drop x1")
        .expect("a fault");
    let failed = reap(&world, "p").await;
    assert_eq!(failed.code, 69);
    assert!(
        failed.out.contains("the request may have arrived"),
        "{failed:?}"
    );
    let known = reap(&world, "p").await.done();
    assert!(
        known.contains("the service already knows how the run ended: Failed"),
        "{known}"
    );
    assert_eq!(finals(&world).len(), 1);
}

#[tokio::test]
async fn a_refusal_of_the_kubernetes_api_is_reported_with_a_suggestion() {
    let world = world_with(knowing([])).await;
    let missing = reap(&world, "nowhere").await;
    assert_eq!(missing.code, 67);
    assert!(
        missing
            .notes
            .starts_with("podbeat: pod nowhere not found; only the journal"),
        "{missing:?}"
    );
    let odd = reap(&world, "-l app").await;
    assert_eq!(odd.code, 65);
    assert!(odd.notes.contains("check the label selector"), "{odd:?}");
    world.kube.deny(true);
    let denied = reap(&world, "--all").await;
    assert_eq!(denied.code, 77);
    assert!(
        denied
            .notes
            .contains("a Role with get, list and watch on pods")
            && denied.notes.contains("is forbidden"),
        "{denied:?}"
    );
    let mut away = settings(&world);
    away.insert("KUBERNETES_SERVICE_PORT".to_owned(), "9".to_owned());
    assert_eq!(reap_with(away, "--all").await.code, 69);
    let nothing = reap_with(BTreeMap::new(), "--all").await;
    assert_eq!(nothing.code, 64);
    assert!(
        nothing
            .notes
            .contains("PODBEAT_SERVICE_URL (--service-url)"),
        "{nothing:?}"
    );
    let nobody = reap(&world, "--dry-run").await;
    assert_eq!(nobody.code, 64);
    assert!(
        nobody
            .notes
            .contains("missing: <POD|--selector <LABELS>|--all|--journal <FILE>>"),
        "{nobody:?}"
    );
}

/// The journal of an agent that was killed before the service accepted its last heartbeat.
async fn journal(world: &World) -> std::path::PathBuf {
    let directory = world.path("state");
    std::fs::create_dir(&directory).expect("made");
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a fault");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut agent = Podbeat::start(world, "log", &[("PODBEAT_STATE_DIR", &text(&directory))]);
    until_one(world, "running", |heartbeat| {
        heartbeat.state("main").is_some()
    })
    .await;
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&terminated(5, "Error", "1")));
    until_one(world, "a last heartbeat", Heartbeat::is_final).await;
    agent.kill();
    directory.join("journal.json")
}

#[tokio::test]
async fn a_deleted_pod_is_reported_from_its_journal_with_the_same_nonce() {
    let world = world_with(knowing(["trn.42"])).await;
    let journal = journal(&world).await;
    let asked = finals(&world).pop().expect("a last heartbeat");
    assert!(asked.is_final() && !asked.accepted);
    world.service_faults.lift_all();
    let line = format!("--journal {}", journal.display());
    let dry = reap(&world, &format!("{line} --dry-run")).await.done();
    assert!(
        dry.contains("would send the last heartbeat: main terminated with exit code 5 (Error)"),
        "{dry}"
    );
    reap(&world, &line).await.done();
    let sent = finals(&world).pop().expect("a last heartbeat");
    assert!(sent.accepted);
    assert_eq!(sent.body, asked.body, "unchanged");
    let again = reap(&world, &line).await.done();
    assert!(
        again.contains("the service already knows how the run ended: Failed"),
        "{again}"
    );

    std::fs::write(&journal, "{").expect("written");
    let torn = reap(&world, &line).await;
    assert_eq!(torn.code, 66);
    assert!(
        torn.notes.contains("the file is damaged, or not a journal"),
        "{torn:?}"
    );
    std::fs::remove_file(&journal).expect("removed");
    assert_eq!(reap(&world, &line).await.code, 66);
}

#[tokio::test]
async fn with_a_journal_whose_final_followed_only_a_signal_the_service_decides() {
    let world = world_with(knowing(["trn.42"])).await;
    let journal = world.path("journal.json");
    let written = |cause: &str| {
        let journal_of = json!({"version": 1, "taskRunId": "trn.42", "podUid": "u1", "machine": {
            "lastHeartbeat": "accepted", "cause": cause, "identity": {"podName": "p", "podUid": "u1"},
            "statuses": [{"name": "main", "state": {"running": {}}}]}});
        std::fs::write(&journal, journal_of.to_string()).expect("written");
    };
    let line = format!("--journal {}", journal.display());
    written("completed");
    let said = reap(&world, &line).await.done();
    assert!(
        said.contains("podbeat itself delivered the last heartbeat"),
        "{said}"
    );
    written("signal");
    let said = reap(&world, &line).await.done();
    assert!(
        said.contains("sent the last heartbeat: main running"),
        "{said}"
    );
    let again = reap(&world, &line).await.done();
    assert!(
        again.contains("podbeat delivered a last heartbeat, and the service knows"),
        "{again}"
    );
    assert_eq!(finals(&world).len(), 1);
}
