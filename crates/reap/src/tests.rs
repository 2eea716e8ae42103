use std::time::Duration;

use podbeat_heartbeat::report::Report;
use podbeat_kubernetes::tasks::Tasks;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rules() -> Rules {
    Rules {
        container_name: "podbeat".to_owned(),
        tasks: Tasks::All,
        report: Report::Task,
        older_than: Duration::from_secs(120),
        nonce: None,
    }
}

/// A Job's pod that ended a while ago, with the exit code of its podbeat container.
fn pod(name: &str, own_exit: Option<i32>) -> Value {
    let exit =
        |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-11-24T00:10:00Z"}});
    let own = own_exit.map_or(json!({}), exit);
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-of-{name}"),
                     "creationTimestamp": "2026-11-24T00:00:00Z",
                     "ownerReferences": [{"kind": "Job", "uid": "job", "controller": true}],
                     "annotations": {"podbeat.dev/task-run-id": "trn.1"}},
        "spec": {"restartPolicy": "Never", "nodeName": "node-1",
                 "initContainers": [{"name": "podbeat", "restartPolicy": "Always"}], "containers": [{"name": "main"}]},
        "status": {"phase": "Failed",
                   "initContainerStatuses": [{"name": "podbeat", "state": own}],
                   "containerStatuses": [{"name": "main", "state": exit(3)}]}
    })
}

fn docket(only: Option<&str>) -> Docket {
    let chosen = only.map_or(Chosen::All, |name| Chosen::Named(name.to_owned()));
    Docket::new(
        rules(),
        "2026-11-24T01:00:00Z".parse().expect("a time"),
        chosen,
    )
}

fn listed(pod: &Value) -> Listed {
    Listed::read(pod.to_string().as_bytes()).expect("a pod")
}

fn verdicts(pods: &[Value]) -> Vec<Verdict> {
    let mut docket = docket(None);
    for pod in pods {
        docket.take(&listed(pod)).expect("room");
    }
    let verdicts = docket.verdicts().expect("all are asked for");
    verdicts.map(|(_, verdict)| verdict).collect()
}

fn set(mut pod: Value, path: &str, value: Value) -> Value {
    let (parent, member) = path.rsplit_once('/').expect("a path");
    let parent = pod
        .pointer_mut(parent)
        .expect(path)
        .as_object_mut()
        .expect(path);
    parent.insert(member.to_owned(), value);
    pod
}

fn missing(pod: Value) -> Missing {
    match verdicts(&[pod]).swap_remove(0) {
        Verdict::Missing(missing) => *missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_whose_podbeat_did_not_end_well_lacks_its_last_heartbeat() {
    for (own_exit, own_word) in [
        (Some(75), OwnWord::Undelivered),
        (Some(137), OwnWord::Nothing),
        (Some(64), OwnWord::Nothing),
        (None, OwnWord::Nothing),
    ] {
        let missing = missing(pod("p", own_exit));
        assert_eq!(
            (missing.run.as_str(), missing.own_word),
            ("trn.1", own_word)
        );
        assert_eq!(
            serde_json::to_value(&missing.request).expect("JSON"),
            json!({
                "containerStatus": [{"name": "main", "state": {"terminated": {"exitCode": 3, "finishedAt": "2026-11-24T00:10:00Z"}}}],
                "lastHeartbeat": true, "nonce": "reap-uid-of-p", "podName": "p", "podUID": "uid-of-p",
                "podHardwareDetails": "node=node-1"
            })
        );
    }
    let run = || "trn.1".to_owned();
    assert_eq!(
        verdicts(&[pod("p", Some(0))]),
        [Verdict::Settled { run: run() }]
    );
}

#[test]
fn only_what_has_ended_for_good_is_judged_and_not_at_once() {
    for phase in [
        json!("Pending"),
        json!("Running"),
        json!("Unknown"),
        Value::Null,
    ] {
        let open = set(pod("p", Some(137)), "/status/phase", phase);
        assert_eq!(verdicts(&[open]), [Verdict::Open]);
    }
    let young = |at: &str| {
        let finished = "/status/containerStatuses/0/state/terminated/finishedAt";
        verdicts(&[set(pod("p", Some(137)), finished, json!(at))]).swap_remove(0)
    };
    assert!(matches!(
        young("2026-11-24T00:58:01Z"),
        Verdict::Young { .. }
    ));
    assert!(matches!(young("2026-11-24T00:58:00Z"), Verdict::Missing(_)));
    // A clock that is ahead must not delay it forever.
    assert!(matches!(young("2026-11-24T02:00:00Z"), Verdict::Missing(_)));
}

#[test]
fn the_newest_pod_of_a_run_speaks_for_it() {
    let later = |name: &str, phase: &str| {
        let pod = set(
            pod(name, Some(137)),
            "/metadata/creationTimestamp",
            json!("2026-11-24T00:20:00Z"),
        );
        set(pod, "/status/phase", json!(phase))
    };
    let superseded = Verdict::Superseded {
        run: "trn.1".to_owned(),
        by: "n/b".to_owned(),
    };
    let both = verdicts(&[pod("a", Some(75)), later("b", "Running")]);
    assert_eq!(both, [superseded.clone(), Verdict::Open]);
    // A pod that has not ended blocks the others, even if a later one has ended.
    let both = verdicts(&[
        later("b", "Failed"),
        set(pod("a", None), "/status/phase", json!("Running")),
    ]);
    let held = Verdict::Held {
        run: "trn.1".to_owned(),
        by: "n/a".to_owned(),
    };
    assert_eq!(both, [held, Verdict::Open]);
    let both = verdicts(&[later("b", "Failed"), pod("a", Some(75))]);
    assert!(matches!(&both[..], [Verdict::Missing(_), other] if *other == superseded));
    // With the same creation time, the retry count decides, then the name. Only one pod decides
    // about the run.
    let count = |pod, count: i32| {
        let annotations = json!({"podbeat.dev/task-run-id": "trn.1", "batch.kubernetes.io/job-index-failure-count": count.to_string()});
        set(pod, "/metadata/annotations", annotations)
    };
    let both = verdicts(&[count(pod("b", None), 0), count(pod("a", None), 1)]);
    assert!(
        matches!(&both[..], [Verdict::Superseded { by, .. }, Verdict::Missing(_)] if by == "n/a")
    );
    let both = verdicts(&[pod("a", None), pod("b", None)]);
    assert!(
        matches!(&both[..], [Verdict::Superseded { by, .. }, Verdict::Missing(_)] if by == "n/b")
    );
    // A pod of another run has no effect.
    let other = set(
        later("b", "Running"),
        "/metadata/annotations",
        json!({"podbeat.dev/task-run-id": "trn.2"}),
    );
    assert!(matches!(
        &verdicts(&[pod("a", None), other])[..],
        [Verdict::Missing(_), Verdict::Open]
    ));
}

#[test]
fn each_index_of_a_job_has_a_run_of_its_own() {
    let indexed = |name: &str, index: Option<&str>| {
        let mut annotations = json!({"podbeat.dev/task-run-id": "trn.1-{index}"});
        if let Some(index) = index {
            annotations["batch.kubernetes.io/job-completion-index"] = json!(index);
        }
        set(pod(name, Some(75)), "/metadata/annotations", annotations)
    };
    let both = verdicts(&[indexed("a", Some("0")), indexed("b", Some("1"))]);
    let runs: Vec<&str> = both
        .iter()
        .map(|verdict| match verdict {
            Verdict::Missing(missing) => missing.run.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(runs, ["trn.1-0", "trn.1-1"]);
    // The second pod of an index is a later pod of the same run.
    let again = verdicts(&[indexed("a", Some("0")), indexed("b", Some("0"))]);
    assert!(
        matches!(&again[0], Verdict::Superseded { run, by } if run == "trn.1-0" && by == "n/b")
    );
    let pattern = "trn.1-{index}".to_owned();
    for none in [None, Some(""), Some("first")] {
        let alone = verdicts(&[indexed("a", none)]);
        assert_eq!(
            alone,
            [Verdict::Unindexed {
                pattern: pattern.clone()
            }]
        );
    }
    // Like the agent, use the variable first.
    let env = json!([{"name": "TASK_RUN_ID", "value": " trn.2-{index}"}, {"name": "JOB_COMPLETION_INDEX", "value": "5"}]);
    let of_the_spec = set(indexed("a", Some("0")), "/spec/initContainers/0/env", env);
    assert_eq!(missing(of_the_spec).run, "trn.2-5");
}

#[test]
fn settings_in_the_pods_spec_are_heeded() {
    let env = json!([
        {"name": "TASK_RUN_ID", "value": "trn.of-the-spec"}, {"name": "PODBEAT_NONCE", "value": "issued"},
        {"name": "JOB_RETRY_COUNT", "value": "4"}, {"name": "PODBEAT_REPORT", "value": "all"},
        {"name": "POD_HARDWARE_DETAILS", "value": "a big one"}
    ]);
    let setup = json!({"name": "setup", "state": {"terminated": {"exitCode": 0}}});
    let mut pod = set(pod("p", None), "/spec/initContainers/0/env", env);
    let lists = [
        ("/spec/initContainers", json!({"name": "setup"})),
        ("/status/initContainerStatuses", setup),
    ];
    for (list, item) in lists {
        pod.pointer_mut(list)
            .and_then(Value::as_array_mut)
            .expect(list)
            .push(item);
    }
    let told = missing(pod);
    assert_eq!(told.run, "trn.of-the-spec");
    let request = told.request;
    assert_eq!(request.nonce.as_deref(), Some("issued"));
    assert_eq!(request.job_retry_count, Some(4));
    assert_eq!(request.pod_hardware_details.as_deref(), Some("a big one"));
    let names: Vec<_> = request
        .container_status
        .into_iter()
        .flatten()
        .map(|status| status.name)
        .collect();
    assert_eq!(names, ["setup", "main"].map(|name| Some(name.to_owned())));
    // A pod without a run's ID, and a pod without podbeat.
    let unnamed = set(self::pod("p", None), "/metadata/annotations", Value::Null);
    let other = set(self::pod("q", None), "/spec/initContainers", json!([]));
    assert_eq!(verdicts(&[unnamed, other]), [Verdict::Unnamed]);
}

#[test]
fn nothing_is_invented_where_the_api_shows_nothing() {
    let evicted = set(
        pod("p", None),
        "/status",
        json!({"phase": "Failed", "reason": "Evicted"}),
    );
    let request = missing(evicted).request;
    assert_eq!(
        (request.container_status, request.last_heartbeat),
        (None, Some(true))
    );
}

#[test]
fn of_one_pod_alone_the_verdict_heeds_the_others() {
    let first = pod("first", Some(75));
    let later = set(
        pod("later", Some(75)),
        "/metadata/creationTimestamp",
        json!("2026-11-24T00:20:00Z"),
    );
    let mut one = docket(Some("first"));
    for pod in [&first, &later] {
        one.take(&listed(pod)).expect("room");
    }
    let verdicts: Vec<(String, Verdict)> = one.verdicts().expect("it is there").collect();
    assert!(
        matches!(&verdicts[..], [(name, Verdict::Superseded { by, .. })] if name == "n/first" && by == "n/later"),
        "{verdicts:?}"
    );
    let mut missing = docket(Some("nobody"));
    missing.take(&listed(&first)).expect("room");
    assert!(missing.verdicts().is_none());
}

#[test]
fn what_is_kept_of_many_pods_has_an_end() {
    let message = "x".repeat(12 << 10);
    let large = |nth: usize| {
        let pod = set(
            pod(&format!("p{nth}"), None),
            "/metadata/annotations",
            json!({"podbeat.dev/task-run-id": nth.to_string()}),
        );
        listed(&set(
            pod,
            "/status/containerStatuses/0/state/terminated/message",
            json!(message),
        ))
    };
    let mut docket = docket(None);
    for nth in 0..4000 {
        docket.take(&large(nth)).expect("room");
    }
    let verdicts: Vec<Verdict> = docket
        .verdicts()
        .expect("all")
        .map(|(_, verdict)| verdict)
        .collect();
    let (missing, left): (Vec<_>, Vec<_>) = verdicts
        .iter()
        .partition(|verdict| matches!(verdict, Verdict::Missing(_)));
    assert!((1500..2500).contains(&missing.len()), "{}", missing.len());
    assert!(
        left.iter()
            .all(|verdict| matches!(verdict, Verdict::Left { .. }))
    );
    // The names alone may exceed the limit.
    let mut docket = self::docket(None);
    let long = listed(&set(
        pod("p", None),
        "/metadata/name",
        json!("x".repeat(1 << 20)),
    ));
    let taken = (0..100).take_while(|_| docket.take(&long).is_ok()).count();
    assert!((20..30).contains(&taken), "{taken}");
}

#[test]
fn a_pod_that_is_not_read_robs_nobody_and_hides_nobody() {
    let later = |pod| {
        set(
            pod,
            "/metadata/creationTimestamp",
            json!("2026-11-24T00:20:00Z"),
        )
    };
    let large = set(
        pod("large", None),
        "/status/message",
        json!("x".repeat(1 << 20)),
    );
    assert!(matches!(
        &verdicts(std::slice::from_ref(&large))[..],
        [Verdict::Unread { .. }]
    ));
    let both = verdicts(&[pod("a", None), later(large.clone())]);
    assert!(
        matches!(
            &both[..],
            [Verdict::Superseded { .. }, Verdict::Unread { .. }]
        ),
        "{both:?}"
    );
    let both = verdicts(&[large, later(pod("a", None))]);
    assert!(
        matches!(&both[..], [Verdict::Superseded { .. }, Verdict::Missing(_)]),
        "{both:?}"
    );
}

#[test]
fn a_pod_that_is_not_read_may_still_run() {
    let later = |pod| {
        set(
            pod,
            "/metadata/creationTimestamp",
            json!("2026-11-24T00:20:00Z"),
        )
    };
    let large = set(
        pod("large", None),
        "/status/message",
        json!("x".repeat(1 << 20)),
    );
    let large = set(large, "/status/phase", json!("Running"));
    let both = verdicts(&[later(pod("a", None)), large]);
    assert!(
        matches!(&both[..], [Verdict::Held { by, .. }, Verdict::Superseded { .. }] if by == "n/large"),
        "{both:?}"
    );
}

#[test]
fn pods_of_different_owners_or_namespaces_end_no_run_of_each_other() {
    let later = |pod| {
        set(
            pod,
            "/metadata/creationTimestamp",
            json!("2026-11-24T00:20:00Z"),
        )
    };
    let owner = |pod, owners: Value| set(pod, "/metadata/ownerReferences", owners);
    let job = |uid: &str| json!([{"kind": "Job", "uid": uid, "controller": true}]);
    let victim = || pod("victim", None);
    for rival in [
        owner(pod("rival", None), job("other")),
        owner(pod("rival", None), json!([])),
        // The same owner UID in another namespace, copied by hand, and an owner that is not the
        // controller.
        set(pod("rival", None), "/metadata/namespace", json!("m")),
        owner(pod("rival", None), json!([{"kind": "Job", "uid": "job"}])),
    ] {
        for open in [true, false] {
            let victim = if open {
                set(victim(), "/status/phase", json!("Running"))
            } else {
                victim()
            };
            for pods in [
                [victim.clone(), later(rival.clone())],
                [later(victim.clone()), rival.clone()],
            ] {
                let both = verdicts(&pods);
                let contested = |verdict: &Verdict| matches!(verdict, Verdict::Contested { run, pods, more: 0 } if run == "trn.1" && pods.len() == 2);
                assert!(contested(&both[1]), "{both:?}");
                assert!(
                    if open {
                        both[0] == Verdict::Open
                    } else {
                        contested(&both[0])
                    },
                    "{both:?}"
                );
            }
        }
    }
    // Two pods without a controller are not attempts of the same run. Only some of many pods
    // are named.
    let lone = |name: &str| owner(pod(name, None), Value::Null);
    let all = verdicts(&["a", "b", "c", "d", "e", "f"].map(lone));
    let pods = ["n/a", "n/b", "n/c", "n/d"].map(str::to_owned).to_vec();
    let run = "trn.1".to_owned();
    assert!(all.iter().all(|verdict| *verdict
        == Verdict::Contested {
            run: run.clone(),
            pods: pods.clone(),
            more: 2
        }));
    assert!(matches!(&verdicts(&[lone("a")])[..], [Verdict::Missing(_)]));
}

#[test]
fn an_exit_with_0_proves_the_end_only_of_a_podbeat_that_ran_once_and_outlived_the_task() {
    let own = "/status/initContainerStatuses/0";
    let main = "/status/containerStatuses/0";
    let well = || pod("p", Some(0));
    let rule =
        json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]);
    let exit = json!({"terminated": {"exitCode": 0, "finishedAt": "2026-11-24T00:05:00Z"}});
    for doubtful in [
        set(well(), &format!("{own}/restartCount"), json!(1)),
        set(well(), &format!("{own}/lastState"), exit.clone()),
        // podbeat alone was stopped, and did not restart.
        set(well(), &format!("{own}/state"), exit.clone()),
        set(
            well(),
            &format!("{own}/state/terminated/finishedAt"),
            Value::Null,
        ),
        set(well(), &format!("{main}/state"), json!({"running": {}})),
        set(
            well(),
            &format!("{main}/state/terminated/finishedAt"),
            Value::Null,
        ),
        set(
            set(well(), &format!("{main}/state"), json!({"waiting": {}})),
            &format!("{main}/lastState"),
            exit.clone(),
        ),
        // All containers were to be restarted, but then the pod failed.
        set(well(), "/spec/containers/0/restartPolicyRules", rule),
        set(
            well(),
            "/status/conditions",
            json!([{"type": "AllContainersRestarting", "status": "True"}]),
        ),
    ] {
        let missing = missing(doubtful.clone());
        assert_eq!(missing.own_word, OwnWord::Delivered, "{doubtful}");
        assert_eq!(missing.request.nonce.as_deref(), Some("reap-uid-of-p"));
    }
    let settled = Verdict::Settled {
        run: "trn.1".to_owned(),
    };
    // A task that never began has nothing to report. Containers outside the task may end later.
    let never = set(
        well(),
        &format!("{main}/state"),
        json!({"waiting": {"reason": "PodInitializing"}}),
    );
    let mut beside = set(
        well(),
        "/metadata/annotations",
        json!({"podbeat.dev/task-run-id": "trn.1", "podbeat.dev/ignored-containers": "proxy"}),
    );
    for (list, item) in [
        ("/spec/containers", json!({"name": "proxy"})),
        (
            "/status/containerStatuses",
            json!({"name": "proxy", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-24T00:20:00Z"}}}),
        ),
    ] {
        beside
            .pointer_mut(list)
            .and_then(Value::as_array_mut)
            .expect(list)
            .push(item);
    }
    for pod in [never, beside] {
        assert_eq!(verdicts(&[pod]), std::slice::from_ref(&settled));
    }
}

/// A pod whose `main` ended, whose proxy continues, and whose podbeat is a regular container
/// that ended with this code.
fn beside_a_proxy(own_exit: Option<i32>) -> Value {
    let exit =
        |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-11-24T00:10:00Z"}});
    let own = own_exit.map_or(json!({"running": {}}), exit);
    let pod = set(pod("p", None), "/status/phase", json!("Running"));
    let pod = set(pod, "/spec/initContainers", json!([]));
    let pod = set(pod, "/status/initContainerStatuses", json!([]));
    let pod = set(
        pod,
        "/spec/containers",
        json!([{"name": "main"}, {"name": "proxy"}, {"name": "podbeat"}]),
    );
    let statuses = json!([{"name": "main", "state": exit(3)}, {"name": "proxy", "state": {"running": {}}}, {"name": "podbeat", "state": own}]);
    set(pod, "/status/containerStatuses", statuses)
}

#[test]
fn a_container_that_is_not_the_tasks_neither_keeps_a_pod_open_nor_is_told() {
    let annotations = |name: &str, value: &str| json!({"podbeat.dev/task-run-id": "trn.1", format!("podbeat.dev/{name}"): value});
    let env = |name: &str, value: &str| json!([{"name": name, "value": value}]);
    let podbeat = "/spec/containers/2";
    let one = |own_exit| beside_a_proxy(own_exit);
    let said = |pod: Value| {
        let told = missing(pod).request.container_status.unwrap_or_default();
        let names: Vec<String> = told.into_iter().filter_map(|status| status.name).collect();
        names.join(",")
    };
    assert_eq!(verdicts(&[one(Some(75))]), [Verdict::Open]);
    for chosen in [
        set(
            one(Some(75)),
            "/metadata/annotations",
            annotations("ignored-containers", "proxy"),
        ),
        set(
            one(Some(75)),
            "/metadata/annotations",
            annotations("task-containers", "main"),
        ),
        set(
            one(Some(75)),
            &format!("{podbeat}/env"),
            env("PODBEAT_IGNORED_CONTAINERS", "proxy"),
        ),
        set(
            one(Some(75)),
            &format!("{podbeat}/env"),
            env("PODBEAT_TASK_CONTAINERS", " main"),
        ),
        set(
            one(Some(75)),
            &format!("{podbeat}/args"),
            json!(["agent", "--task-containers", "main"]),
        ),
        set(
            one(Some(75)),
            &format!("{podbeat}/args"),
            json!(["--ignored-containers=proxy"]),
        ),
    ] {
        assert_eq!(said(chosen.clone()), "main", "{chosen}");
        // While podbeat runs or will restart, it sends the last heartbeat itself.
        let statuses = one(None)
            .pointer("/status/containerStatuses")
            .cloned()
            .expect("statuses");
        assert_eq!(
            verdicts(&[set(chosen.clone(), "/status/containerStatuses", statuses)]),
            [Verdict::Open]
        );
        assert_eq!(
            verdicts(&[set(chosen, "/spec/restartPolicy", json!("OnFailure"))]),
            [Verdict::Open]
        );
    }
    // The annotation has priority over the pod's setting, which has priority over the command's
    // setting.
    let both = set(
        one(Some(75)),
        &format!("{podbeat}/env"),
        env("PODBEAT_TASK_CONTAINERS", "proxy"),
    );
    assert_eq!(verdicts(std::slice::from_ref(&both)), [Verdict::Open]);
    assert_eq!(
        said(set(
            both.clone(),
            "/metadata/annotations",
            annotations("task-containers", "main")
        )),
        "main"
    );
    for (pod, is_open) in [(one(Some(75)), false), (both, true)] {
        let mut docket = docket(None);
        docket.rules.tasks = Tasks::Only(vec!["main".to_owned()]);
        docket.take(&listed(&pod)).expect("room");
        let verdict = docket.verdicts().expect("all").next().expect("one").1;
        assert_eq!(verdict == Verdict::Open, is_open, "{verdict:?}");
    }
    let settled = set(
        one(Some(0)),
        "/metadata/annotations",
        annotations("task-containers", "main"),
    );
    assert!(matches!(
        &verdicts(&[settled])[..],
        [Verdict::Settled { .. }]
    ));
}

#[test]
fn the_run_of_a_flag_comes_before_that_of_the_annotation() {
    let pod = set(
        pod("p", None),
        "/spec/initContainers/0/args",
        json!(["agent", "--task-run-id=trn.2", "--nonce", "n"]),
    );
    let missing = missing(pod);
    assert_eq!(
        (missing.run.as_str(), missing.request.nonce.as_deref()),
        ("trn.2", Some("n"))
    );
}

#[test]
fn a_pod_whose_podbeat_has_another_name_is_not_judged_and_still_of_the_run() {
    let other = |phase: &str| {
        let other = set(
            pod("other", None),
            "/spec/initContainers/0/name",
            json!("beat"),
        );
        set(other, "/status/phase", json!(phase))
    };
    let both = verdicts(&[pod("p", None), other("Running")]);
    assert!(
        matches!(&both[..], [Verdict::Held { by, .. }] if by == "n/other"),
        "{both:?}"
    );
    // After its end, it decides about no run.
    let later = set(
        other("Failed"),
        "/metadata/creationTimestamp",
        json!("2026-11-24T00:20:00Z"),
    );
    let both = verdicts(&[later.clone(), pod("p", None)]);
    assert!(matches!(&both[..], [Verdict::Missing(_)]), "{both:?}");
    let both = verdicts(&[
        set(later, "/metadata/namespace", json!("m")),
        pod("p", None),
    ]);
    assert!(matches!(&both[..], [Verdict::Contested { .. }]), "{both:?}");
}

#[test]
fn a_runs_id_that_is_longer_than_any_hides_no_other_pod() {
    let long = json!({"podbeat.dev/task-run-id": "x".repeat(256 << 10)});
    let long = set(pod("long", None), "/metadata/annotations", long);
    let mut pods = vec![long; 300];
    pods.push(pod("p", None));
    let verdicts = verdicts(&pods);
    let (last, others) = verdicts.split_last().expect("pods");
    assert!(others.iter().all(|verdict| *verdict == Verdict::Overlong));
    assert!(matches!(last, Verdict::Missing(_)), "{last:?}");
}

#[test]
fn of_chosen_pods_the_verdicts_heed_the_others() {
    let later = set(
        pod("later", Some(75)),
        "/metadata/creationTimestamp",
        json!("2026-11-24T00:20:00Z"),
    );
    let mut names = Names::default();
    names.add("n/first".to_owned()).expect("room");
    let now = "2026-11-24T01:00:00Z".parse().expect("a time");
    let mut docket = Docket::new(rules(), now, Chosen::These(names));
    for pod in [&pod("first", Some(75)), &later] {
        docket.take(&listed(pod)).expect("room");
    }
    let verdicts: Vec<(String, Verdict)> = docket.verdicts().expect("all").collect();
    assert!(
        matches!(&verdicts[..], [(name, Verdict::Superseded { .. })] if name == "n/first"),
        "{verdicts:?}"
    );
    let long = "x".repeat(1 << 20);
    let mut names = Names::default();
    let added = (0..100)
        .take_while(|_| names.add(long.clone()).is_ok())
        .count();
    assert!((40..50).contains(&added), "{added}");
}

prop_compose! {
    /// One of a few pods that may or may not be related.
    fn any_pod()(
        namespace in prop::sample::select(vec!["n", "m"]),
        owner in prop::sample::select(vec![None, Some("job"), Some("other")]),
        run in prop::sample::select(vec!["trn.1", "trn.2"]),
        phase in prop::sample::select(vec!["Running", "Failed", "Failed"]),
        own_exit in prop::sample::select(vec![None, Some(0), Some(75), Some(137)]),
        minute in 0..4,
        restarts in 0..2,
    ) -> (Value, &'static str, String, bool, i32) {
        let mut pod = pod("p", own_exit);
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["annotations"]["podbeat.dev/task-run-id"] = json!(run);
        pod["metadata"]["creationTimestamp"] = json!(format!("2026-11-24T00:0{minute}:00Z"));
        pod["metadata"]["ownerReferences"] = owner.map_or(json!([]), |uid| json!([{"uid": uid, "controller": true}]));
        pod["status"]["phase"] = json!(phase);
        pod["status"]["initContainerStatuses"][0]["restartCount"] = json!(restarts);
        let claim = owner.map_or("alone".to_owned(), |owner| format!("{namespace} {owner}"));
        (pod, run, claim, phase == "Running", minute)
    }
}

proptest! {
    #[test]
    fn nothing_is_sent_beside_an_open_pod_or_across_owners_and_namespaces_and_only_by_the_latest(
        pods in prop::collection::vec(any_pod(), 1..6),
    ) {
        let mut docket = docket(None);
        let mut all = Vec::new();
        for (nth, (mut pod, run, claim, is_open, minute)) in pods.into_iter().enumerate() {
            pod["metadata"]["name"] = json!(format!("p-{nth}"));
            pod["metadata"]["uid"] = json!(format!("u-{nth}"));
            docket.take(&listed(&pod)).expect("room");
            let claim = if claim == "alone" { format!("u-{nth}") } else { claim };
            all.push((run, claim, is_open, minute));
        }
        let verdicts: Vec<Verdict> = docket.verdicts().expect("all").map(|(_, verdict)| verdict).collect();
        prop_assert_eq!(verdicts.len(), all.len());
        for (verdict, (run, claim, is_open, minute)) in verdicts.iter().zip(&all) {
            let others = || all.iter().filter(|other| other.0 == *run);
            let may_send = !is_open
                && others().all(|other| !other.2 && other.1 == *claim && other.3 <= *minute);
            if matches!(verdict, Verdict::Missing(_)) {
                prop_assert!(may_send, "{:?} of {:?}", verdict, all);
            }
            // The latest pod must send, unless another one has the same creation time.
            let is_latest = others().filter(|other| other.3 == *minute).count() == 1;
            if may_send && is_latest {
                prop_assert!(matches!(verdict, Verdict::Missing(_) | Verdict::Settled { .. }), "{:?}", verdict);
            }
        }
    }
}
