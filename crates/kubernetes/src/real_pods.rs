//! Tests of the core with pods from a real API server.

mod completion {
    use serde_json::json;

    use podbeat_heartbeat::completion::is_finished;

    use crate::captured::{Captured, Observe};

    fn finished(pod: &Captured) -> bool {
        is_finished(&pod.observe())
    }

    /// A pod with this policy. Its `main` runs, or has ended with this code. podbeat and a native
    /// sidecar beside it are running.
    fn pod(policy: &str, exit: Option<i32>) -> Captured {
        let pod = Captured::when("a-complete", "main", "running")
            .with("/spec/restartPolicy", json!(policy));
        let Some(code) = exit else { return pod };
        let ended = Captured::when("a-complete", "main", "terminated");
        let statuses = ended.said("/status/containerStatuses").clone();
        pod.with("/status/containerStatuses", statuses).with(
            "/status/containerStatuses/0/state/terminated/exitCode",
            json!(code),
        )
    }

    #[test]
    fn by_restart_policy_and_exit_code() {
        for (policy, exit, expected) in [
            ("Never", None, false),
            ("Never", Some(0), true),
            ("Never", Some(3), true),
            ("OnFailure", Some(0), true),
            ("OnFailure", Some(3), false),
            ("Always", Some(0), false),
            ("Always", Some(3), false),
        ] {
            assert_eq!(finished(&pod(policy, exit)), expected, "{policy} {exit:?}");
        }
    }

    #[test]
    fn recorded_ends_are_ends_and_recorded_restarts_are_not() {
        for name in [
            "e2e/fail-plain",
            "e2e/oom-main-native",
            "e2e/early-main",
            "e2e/job-indexed-native",
            "i-badcmd",
        ] {
            assert!(
                finished(&Captured::when(name, "main", "terminated")),
                "{name}"
            );
            assert!(!finished(&Captured::new(name)), "{name}");
        }
        for (nth, code, expected) in [(1, 4, false), (2, 5, false), (3, 6, false), (4, 0, true)] {
            let pod = Captured::nth_time(nth, "e2e/restarts-native", "main", "terminated");
            assert_eq!(
                *pod.said("/status/containerStatuses/0/state/terminated/exitCode"),
                code
            );
            assert_eq!(finished(&pod), expected, "{code}");
        }
        // Between two runs, the end of the previous run does not end the task.
        let pod = Captured::nth_time(2, "e2e/restarts-native", "main", "waiting");
        assert_eq!(
            pod.said("/status/containerStatuses/0/state/waiting/reason"),
            "CrashLoopBackOff"
        );
        assert!(!finished(&pod));
        assert!(!finished(&Captured::nth_time(
            2,
            "e2e/fact-5",
            "main",
            "running"
        )));
    }

    #[test]
    fn nothing_restarts_in_a_pod_that_is_being_deleted() {
        let deletion = "2026-01-01T00:00:30Z";
        let deleted = |pod: Captured| pod.with("/metadata/deletionTimestamp", json!(deletion));
        assert!(finished(&deleted(pod("Always", Some(3)))));
        assert!(!finished(&deleted(pod("Always", None))));
        let real = Captured::last("e2e/delete-force-native");
        assert!(real.said("/metadata/deletionTimestamp").is_string());
        assert!(!finished(&real), "gone, and main still runs");
        // Without its phase, this pod (policy OnFailure) would continue if it were not being
        // deleted.
        let real = Captured::nth_time(2, "e2e/fact-5", "main", "terminated")
            .with("/status/phase", json!("Running"));
        assert!(finished(&real));
        assert!(!finished(&real.without("/metadata/deletionTimestamp")));
    }

    #[test]
    fn every_task_container_must_end_and_a_task_without_containers_never_ends() {
        let one = Captured::when("e2e/two-mains-native", "first", "terminated");
        assert!(
            one.said("/status/containerStatuses/1/state/running")
                .is_object()
        );
        assert!(!finished(&one));
        let first = one.said("/status/containerStatuses/0").clone();
        let alone = one.with("/status/containerStatuses", json!([first]));
        assert!(!finished(&alone), "main has no status yet");
        assert!(finished(&Captured::when(
            "e2e/two-mains-native",
            "main",
            "terminated"
        )));

        // A pod with no container but podbeat.
        let pod = Captured::when("e2e/fail-plain", "podbeat", "running");
        assert_eq!(pod.said("/spec/containers/1/name"), "podbeat");
        let podbeat = pod.said("/spec/containers/1").clone();
        assert!(!finished(&pod.with("/spec/containers", json!([podbeat]))));
    }

    #[test]
    fn an_init_container_that_fails_for_good_ends_the_task() {
        let init = |policy: &str, code: i32| {
            let pod = Captured::when("e2e/failed-init", "setup", "terminated");
            assert_eq!(pod.said("/status/phase"), "Pending");
            assert_eq!(pod.said("/status/initContainerStatuses/1/name"), "setup");
            pod.with("/spec/restartPolicy", json!(policy)).with(
                "/status/initContainerStatuses/1/state/terminated/exitCode",
                json!(code),
            )
        };
        assert!(finished(&init("Never", 5)));
        assert!(!finished(&init("Never", 0)));
        assert!(!finished(&init("OnFailure", 5)));
        assert!(!finished(&init("Always", 5)));
    }

    #[test]
    fn ephemeral_containers_and_other_native_sidecars_never_delay_the_end() {
        let debugger =
            json!([{"name": "debugger", "image": "busybox", "targetContainerName": "main"}]);
        let running = json!([{"name": "debugger", "state": {"running": {"startedAt": "2026-11-24T01:52:40Z"}}}]);
        let pod = pod("Never", Some(0))
            .with("/spec/ephemeralContainers", debugger)
            .with("/status/ephemeralContainerStatuses", running);
        assert_eq!(pod.said("/status/phase"), "Running");
        for (at, name) in ["hb", "side2"].into_iter().enumerate() {
            let status = pod.said(&format!("/status/initContainerStatuses/{at}"));
            assert!(
                status["name"] == name && status["state"]["running"].is_object(),
                "{status}"
            );
        }
        assert!(finished(&pod));
    }

    #[test]
    fn a_containers_own_policy_and_rules_decide_before_the_pods() {
        let own = |policy: &str, code| {
            pod("Always", Some(code)).with("/spec/containers/0/restartPolicy", json!(policy))
        };
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        let ruled =
            |code| own("Never", code).with("/spec/containers/0/restartPolicyRules", rules.clone());
        assert!(finished(&own("Never", 1)));
        assert!(finished(&own("OnFailure", 0)));
        assert!(!finished(&own("OnFailure", 1)));
        assert!(!finished(&ruled(42)));
        assert!(finished(&ruled(41)));
    }

    #[test]
    fn a_terminal_phase_is_enough() {
        // Like a pod that the kubelet rejects or evicts before any container started.
        let pod = Captured::new("e2e/evict-plain");
        assert!(!finished(&pod));
        assert!(finished(
            &pod.with("/status/phase", json!("Failed"))
                .with("/status/reason", json!("Evicted"))
        ));
        // The phase is Failed, and main waits forever. The init container's exit is hidden, so that
        // only the phase shows the end.
        let pod =
            Captured::last("e2e/failed-init").with("/status/initContainerStatuses", json!([]));
        assert!(
            pod.said("/status/containerStatuses/0/state/waiting")
                .is_object()
        );
        assert!(finished(&pod));
        assert!(!finished(&pod.with("/status/phase", json!("Pending"))));
    }
}

mod request {
    use serde_json::{Value, json};

    use podbeat_heartbeat::report::{Identity, Report, statuses};

    use crate::captured::{Captured, Observe};

    fn told(pod: &Captured, report: Report) -> Value {
        serde_json::to_value(statuses(&pod.observe(), report)).expect("JSON")
    }

    #[test]
    fn the_task_alone_or_all_but_ourselves() {
        let pod = Captured::when("e2e/failed-init", "setup", "terminated");
        let said = |list: &str| {
            let status = pod.said(&format!("/status/{list}"));
            json!({"name": status["name"], "state": status["state"]})
        };
        let (setup, main) = (said("initContainerStatuses/1"), said("containerStatuses/0"));
        assert_eq!(setup["state"]["terminated"]["exitCode"], 5);
        assert_eq!(told(&pod, Report::Task), json!([main]));
        assert_eq!(told(&pod, Report::All), json!([setup, main]));
    }

    #[test]
    fn containers_without_a_status_are_not_reported() {
        assert_eq!(
            told(&Captured::new("e2e/two-mains-native"), Report::All),
            json!([])
        );
    }

    #[test]
    fn null_times_are_left_out() {
        let pod = Captured::last("e2e/no-image-native");
        let mut state = pod.said("/status/containerStatuses/0/state").clone();
        let members = state["terminated"].as_object_mut().expect("terminated");
        let all = members.len();
        members.retain(|_, value| !value.is_null());
        assert_eq!(all - members.len(), 2, "both of its times");
        assert_eq!(
            told(&pod, Report::Task),
            json!([{"name": "main", "state": state}])
        );
    }

    #[test]
    fn an_identity_learns_what_is_open_and_keeps_what_is_set() {
        let pod = Captured::when("e2e/job-indexed-native", "main", "running");
        let mut open = Identity::default();
        open.learn(&pod.observe());
        assert_eq!(json!(open.pod_uid), *pod.said("/metadata/uid"));
        assert_eq!(open.job_retry_count, Some(0));
        assert_eq!(open.pod_hardware_details.as_deref(), Some("node=e2e-node"));

        let set = Identity {
            pod_name: "p".to_owned(),
            pod_uid: Some("u".to_owned()),
            job_retry_count: Some(7),
            pod_hardware_details: Some("a big one".to_owned()),
            ..Identity::default()
        };
        let mut learned = set.clone();
        learned.learn(&pod.observe());
        assert_eq!(learned, set);
        open.take_over(set.clone());
        assert_eq!(open.job_retry_count, Some(0), "what is known now is newer");
        let mut empty = Identity::default();
        empty.take_over(set.clone());
        assert_eq!(
            empty,
            Identity {
                pod_name: String::new(),
                hardware_is_learned: true,
                ..set
            }
        );
        // What an earlier process saw is not a setting: what the pod shows now is newer.
        empty.learn(&pod.observe());
        assert_eq!(empty.pod_hardware_details, open.pod_hardware_details);
        // The device is known when main starts.
        let devices = json!([{"name": "nvidia.com/gpu", "resources": [{"resourceID": "GPU-1"}]}]);
        let pod = pod.with(
            "/status/containerStatuses/0/allocatedResourcesStatus",
            devices,
        );
        open.learn(&pod.observe());
        let details = open.pod_hardware_details.as_deref();
        assert_eq!(details, Some("node=e2e-node; device-ids=GPU-1"));
    }
}
