//! Whether the task is over: a terminated container that its policy starts again is not.

use crate::pod::status::{Observation, Role};

/// Whether every task container is finished for good.
///
/// - A container is finished if it terminated and neither its rules nor its policy start it again (design fact 4);
///   in a pod that is being deleted nothing is started again.
/// - An init container that failed for good keeps the task's containers from ever starting: that is an end, too.
/// - A terminal phase (evicted, rejected, deadline) says the same of the whole pod. It is never waited for: the
///   kubelet holds it back until all containers are dead, ours included (kubernetes/kubernetes#128103).
/// - Native sidecars never hold the end back, and a pod without any task container never ends by itself.
#[must_use]
pub fn is_finished(pod: &Observation) -> bool {
    let is_over = |container: &crate::pod::status::Container| {
        container
            .state
            .as_ref()
            .and_then(|state| state.exit())
            .is_some_and(|exit| pod.deletion.is_some() || !container.restart.follows(exit.exit_code))
    };
    let failed = |container: &crate::pod::status::Container| {
        let exit_code = container
            .state
            .as_ref()
            .and_then(|state| state.exit())
            .and_then(|exit| exit.exit_code);
        exit_code.is_some_and(|code| code != 0)
    };
    let tasks = || {
        pod.containers
            .iter()
            .filter(|container| container.role == Role::Task)
    };
    let init_failed = pod
        .containers
        .iter()
        .filter(|container| container.role == Role::Init)
        .any(|container| failed(container) && is_over(container));
    let tasks_over = tasks().next().is_some() && tasks().all(is_over);
    pod.phase_is_terminal || init_failed || tasks_over
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(json: &str) -> bool {
        is_finished(&Observation::of(
            &serde_json::from_str(json).expect("a pod"),
            "podbeat",
        ))
    }

    /// A pod with the given policy, main's terminated exit code if any, and more members of metadata.
    fn pod(policy: &str, exit: Option<i32>, metadata: &str) -> String {
        let state = exit.map_or(r#"{"running":{}}"#.to_owned(), |code| {
            format!(r#"{{"terminated":{{"exitCode":{code}}}}}"#)
        });
        format!(
            r#"{{"metadata":{{{metadata}}},
                "spec":{{"restartPolicy":"{policy}","initContainers":[{{"name":"proxy","restartPolicy":"Always"}}],
                         "containers":[{{"name":"main"}},{{"name":"podbeat"}}]}},
                "status":{{"phase":"Running","containerStatuses":[{{"name":"main","state":{state}}},{{"name":"podbeat","state":{{"running":{{}}}}}}],
                           "initContainerStatuses":[{{"name":"proxy","state":{{"running":{{}}}}}}]}}}}"#
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
            assert_eq!(finished(&pod(policy, exit, "")), expected, "{policy} {exit:?}");
        }
    }

    #[test]
    fn nothing_restarts_in_a_pod_that_is_being_deleted() {
        let deletion = r#""deletionTimestamp":"2026-01-01T00:00:30Z""#;
        assert!(finished(&pod("Always", Some(3), deletion)));
        assert!(!finished(&pod("Always", None, deletion)));
    }

    #[test]
    fn every_task_container_counts_and_none_at_all_is_no_end() {
        let two = |b: &str| {
            format!(
                r#"{{"spec":{{"restartPolicy":"Never","containers":[{{"name":"a"}},{{"name":"b"}}]}},
                    "status":{{"containerStatuses":[{{"name":"a","state":{{"terminated":{{"exitCode":0}}}}}}{b}]}}}}"#
            )
        };
        assert!(!finished(&two("")), "b has no status yet");
        assert!(!finished(&two(r#",{"name":"b","state":{"running":{}}}"#)));
        assert!(finished(&two(
            r#",{"name":"b","state":{"terminated":{"exitCode":1}}}"#
        )));
        assert!(!finished(
            r#"{"spec":{"restartPolicy":"Never","containers":[{"name":"podbeat"}]}}"#
        ));
    }

    #[test]
    fn an_init_container_that_fails_for_good_ends_the_task() {
        let init = |policy: &str, code: i32| {
            format!(
                r#"{{"spec":{{"restartPolicy":"{policy}","initContainers":[{{"name":"setup"}}],"containers":[{{"name":"main"}}]}},
                    "status":{{"initContainerStatuses":[{{"name":"setup","state":{{"terminated":{{"exitCode":{code}}}}}}}],
                               "containerStatuses":[{{"name":"main","state":{{"waiting":{{"reason":"PodInitializing"}}}}}}]}}}}"#
            )
        };
        assert!(finished(&init("Never", 1)));
        assert!(!finished(&init("Never", 0)));
        assert!(!finished(&init("OnFailure", 1)));
        assert!(!finished(&init("Always", 1)));
    }

    #[test]
    fn ephemeral_containers_and_other_native_sidecars_never_hold_the_end_back() {
        assert!(finished(
            r#"{"spec":{"restartPolicy":"Never","containers":[{"name":"main"}],"ephemeralContainers":[{"name":"debugger"}],
                        "initContainers":[{"name":"podbeat","restartPolicy":"Always"},{"name":"proxy","restartPolicy":"Always"}]},
                "status":{"phase":"Running","containerStatuses":[{"name":"main","state":{"terminated":{"exitCode":0}}}],
                          "ephemeralContainerStatuses":[{"name":"debugger","state":{"running":{}}}],
                          "initContainerStatuses":[{"name":"podbeat","state":{"running":{}}},{"name":"proxy","state":{"running":{}}}]}}"#
        ));
    }

    #[test]
    fn a_containers_own_policy_and_rules_decide_before_the_pods() {
        let pod = |own: &str, code: i32| {
            format!(
                r#"{{"spec":{{"restartPolicy":"Always","containers":[{{"name":"main"{own}}}]}},
                    "status":{{"containerStatuses":[{{"name":"main","state":{{"terminated":{{"exitCode":{code}}}}}}}]}}}}"#
            )
        };
        let rules = r#","restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]"#;
        assert!(finished(&pod(r#","restartPolicy":"Never""#, 1)));
        assert!(finished(&pod(r#","restartPolicy":"OnFailure""#, 0)));
        assert!(!finished(&pod(r#","restartPolicy":"OnFailure""#, 1)));
        assert!(!finished(&pod(rules, 42)));
        assert!(finished(&pod(rules, 41)));
    }

    #[test]
    fn a_terminal_phase_is_enough() {
        assert!(finished(
            r#"{"spec":{"containers":[{"name":"main"}]},"status":{"phase":"Failed","reason":"Evicted"}}"#
        ));
    }
}
