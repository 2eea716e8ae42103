//! Converts a Pod into an [`Observation`]. Pure.
//!
//! The containers are in the order of the spec, with the states as the API reports them. Nothing is
//! added: a container without a status has no state here either.

use std::time::Duration;

use podbeat_heartbeat::observation::{
    BACKS_OFF, Container, Deletion, Exit, Observation, Restart, RestartPolicy, Role, Rule, Sidecar,
    State,
};

use super::resource::{self, Pod};
use super::tasks::Tasks;
use super::{hardware, retries, why};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The annotation that the Job controller sets on pods of an Indexed Job with backoffLimitPerIndex
/// (KEP-3850).
pub const JOB_INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// The condition of a pod whose containers are all being restarted (KEP-5532, on by default since
/// Kubernetes 1.36).
const ALL_RESTARTING: &str = "AllContainersRestarting";

/// Reads a pod without settings for the task containers.
#[must_use]
pub fn observe(pod: &Pod, own_container: &str) -> Observation {
    observe_with(pod, own_container, &Tasks::All)
}

/// Reads a pod. `own_container` is the name of podbeat's container, which is left out of
/// `containers`. `tasks` are the settings. The pod's annotations have precedence over them.
#[must_use]
pub fn observe_with(pod: &Pod, own_container: &str, tasks: &Tasks) -> Observation {
    let tasks = tasks.in_force(pod, own_container);
    let pod_policy = pod
        .spec
        .restart_policy
        .as_deref()
        .map_or(RestartPolicy::Always, RestartPolicy::named);
    let init = pod.spec.init_containers.iter().map(|spec| {
        let role = match spec.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            Some(_) | None => Role::Init,
        };
        (spec, role, &pod.status.init_container_statuses)
    });
    let regular = pod.spec.containers.iter().map(|spec| {
        // The loop below handles podbeat's own container.
        let role = if spec.name == own_container || tasks.include(&spec.name) {
            Role::Task
        } else {
            Role::Sidecar
        };
        (spec, role, &pod.status.container_statuses)
    });
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let mut sidecar = Sidecar::Elsewhere;
    let mut containers =
        Vec::with_capacity(pod.spec.init_containers.len() + pod.spec.containers.len());
    for (spec, role, statuses) in init.chain(regular) {
        if spec.name == own_container {
            sidecar = match role {
                Role::Task => Sidecar::Plain,
                // An ordinary init container would end before the task starts, so podbeat's
                // container must be a native sidecar.
                Role::Sidecar | Role::Init => Sidecar::Native,
            };
            continue;
        }
        let status = statuses.iter().find(|status| status.name == spec.name);
        containers.push(Container {
            name: spec.name.clone(),
            role,
            restart: restart(pod_policy, role, spec),
            state: status.and_then(|status| state(&status.state, status.restart_count)),
            last_exit: status.and_then(|status| {
                let terminated = status.last_state.terminated.as_ref()?;
                Some(exit(terminated, last_run(status, is_deleted)))
            }),
            restart_count: status.map_or(0, |status| status.restart_count),
        });
    }
    Observation {
        uid: pod.metadata.uid.clone(),
        deletion: pod
            .metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| Deletion {
                at: time.0,
                grace: pod.metadata.deletion_grace_period_seconds.and_then(seconds),
            }),
        termination_grace: pod
            .spec
            .termination_grace_period_seconds
            .and_then(seconds)
            .unwrap_or(DEFAULT_GRACE),
        phase_is_terminal: matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")),
        all_restarting: pod
            .status
            .conditions
            .iter()
            .any(|condition| condition.kind == ALL_RESTARTING && condition.status == "True"),
        why: why::of(pod, &containers),
        sidecar,
        containers,
        job_retry_count: annotation(pod, JOB_INDEX_FAILURE_COUNT)
            .and_then(|count| count.trim().parse().ok())
            .filter(|count| *count >= 0),
        job: retries::job_pod(pod).map(Box::new),
        hardware_details: hardware::details(pod),
    }
}

/// Whether podbeat's own container has ended and will not be restarted, so that podbeat sends
/// nothing more.
#[must_use]
pub fn own_is_over(pod: &Pod, own_container: &str) -> bool {
    let (spec, status) = (&pod.spec, &pod.status);
    let init = (
        &spec.init_containers,
        &status.init_container_statuses,
        Role::Init,
    );
    let regular = (&spec.containers, &status.container_statuses, Role::Task);
    let is_over = |(specs, statuses, role): (
        &Vec<resource::ContainerSpec>,
        &Vec<resource::ContainerStatus>,
        Role,
    )| {
        let spec = specs.iter().find(|spec| spec.name == own_container)?;
        let status = statuses
            .iter()
            .find(|status| status.name == own_container)?;
        let exit = status.state.terminated.as_ref()?;
        let policy = pod.spec.restart_policy.as_deref();
        let policy = policy.map_or(RestartPolicy::Always, RestartPolicy::named);
        let restart = restart(policy, role, spec);
        Some(pod.metadata.deletion_timestamp.is_some() || !restart.follows(exit.exit_code))
    };
    is_over(init).or_else(|| is_over(regular)).unwrap_or(false)
}

/// The number of the run whose end `lastState` shows. `restartCount` is the number of the run that
/// `state` shows. While the container waits after a crash, or for the end of its pod, that is still
/// the run that ended.
fn last_run(status: &resource::ContainerStatus, is_deleted: bool) -> i32 {
    let same = status
        .state
        .waiting
        .as_ref()
        .is_some_and(|waiting| is_deleted || waiting.reason.as_deref() == Some(BACKS_OFF));
    status.restart_count - i32::from(!same && status.restart_count > 0)
}

fn restart(pod: RestartPolicy, role: Role, spec: &resource::ContainerSpec) -> Restart {
    let own = spec.restart_policy.as_deref().map(RestartPolicy::named);
    let rules = spec.restart_policy_rules.iter().filter_map(rule).collect();
    Restart::new(pod, role, own, rules)
}

fn rule(rule: &resource::RestartRule) -> Option<Rule> {
    let exit_codes = rule.exit_codes.as_ref()?;
    let negated = match exit_codes.operator.as_deref() {
        Some("In") => false,
        Some("NotIn") => true,
        Some(_) | None => return None,
    };
    Some(Rule {
        codes: exit_codes.values.clone(),
        negated,
        restarts_all: rule.action.as_deref() == Some("RestartAllContainers"),
    })
}

fn state(state: &resource::ContainerState, run: i32) -> Option<State> {
    if let Some(terminated) = &state.terminated {
        Some(State::Terminated(exit(terminated, run)))
    } else if let Some(running) = &state.running {
        Some(State::Running {
            started_at: running.started_at,
        })
    } else {
        let waiting = state.waiting.as_ref()?;
        Some(State::Waiting {
            reason: waiting.reason.clone(),
            message: waiting.message.clone(),
        })
    }
}

fn exit(terminated: &resource::Terminated, run: i32) -> Exit {
    Exit {
        exit_code: terminated.exit_code,
        signal: terminated.signal,
        reason: terminated.reason.clone(),
        message: terminated.message.clone(),
        started_at: terminated.started_at,
        finished_at: terminated.finished_at,
        container_id: terminated.container_id.clone(),
        run: Some(run),
    }
}

/// Converts a period of Kubernetes in whole seconds. A negative one is ignored.
fn seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn annotation<'pod>(pod: &'pod Pod, name: &str) -> Option<&'pod str> {
    pod.metadata
        .annotations
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::captured::{Captured, Observe};

    /// A real pod with another restartPolicy.
    fn with_policy(policy: &str) -> Captured {
        Captured::when("e2e/restarts-native", "main", "running")
            .with("/spec/restartPolicy", json!(policy))
    }

    fn restart(pod: &Captured) -> Restart {
        pod.observe().containers.swap_remove(0).restart
    }

    #[test]
    fn restart_policies_by_exit_code() {
        for (policy, zero, three, unknown) in [
            ("Always", true, true, true),
            ("OnFailure", false, true, true),
            ("Never", false, false, false),
            // A policy that no API server knows yet.
            ("Later", true, true, true),
        ] {
            let restart = restart(&with_policy(policy));
            assert_eq!(restart.follows(Some(0)), zero, "{policy}");
            assert_eq!(restart.follows(Some(3)), three, "{policy}");
            assert_eq!(restart.follows(None), unknown, "{policy}");
        }
    }

    #[test]
    fn a_pod_without_a_policy_restarts_always() {
        // Every API server writes the default into the spec.
        let pod = with_policy("Never").without("/spec/restartPolicy");
        assert!(restart(&pod).follows(Some(0)));
    }

    #[test]
    fn the_containers_own_policy_and_rules_come_first() {
        let own = |policy, member: &str, value| {
            restart(&with_policy(policy).with(&format!("/spec/containers/0/{member}"), value))
        };
        assert!(!own("Always", "restartPolicy", json!("Never")).follows(Some(1)));
        let rule = |operator: &str, values: &[i32]| {
            let rules = json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": values}}]);
            let pod = with_policy("Never").with("/spec/containers/0/restartPolicy", json!("Never"));
            restart(&pod.with("/spec/containers/0/restartPolicyRules", rules))
        };
        assert!(rule("In", &[42]).follows(Some(42)));
        assert!(!rule("In", &[42]).follows(Some(41)));
        // The API's validation requires a policy of the container's own with rules. This code does
        // not.
        let not_in =
            json!([{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}]);
        let not_in = own("Never", "restartPolicyRules", not_in);
        assert!(not_in.follows(Some(2)));
        assert!(!not_in.follows(Some(1)));
        assert!(
            !rule("Later", &[1]).follows(Some(1)),
            "an operator that nobody knows"
        );
    }

    #[test]
    fn a_native_sidecar_and_an_init_container_are_restarted_by_rules_of_their_own() {
        let seen = |policy: &str| {
            let pod = Captured::when("e2e/failed-init", "setup", "terminated");
            pod.with("/spec/restartPolicy", json!(policy)).observe()
        };
        for (policy, after_failure) in [("Never", false), ("OnFailure", true), ("Always", true)] {
            let setup = &seen(policy).containers[0];
            assert_eq!((setup.name.as_str(), setup.role), ("setup", Role::Init));
            assert_eq!(setup.restart.follows(Some(5)), after_failure, "{policy}");
            assert!(!setup.restart.follows(Some(0)), "{policy}: it is done");
        }
        let side = &Captured::when("a-complete", "side2", "running")
            .observe()
            .containers[0];
        assert_eq!(side.role, Role::Sidecar);
        assert!(
            side.restart.follows(Some(0)),
            "though the pod's policy is Never"
        );
    }

    fn names(seen: &Observation) -> Vec<(&str, Role)> {
        let containers = seen.containers.iter();
        containers
            .map(|container| (container.name.as_str(), container.role))
            .collect()
    }

    #[test]
    fn order_is_the_specs_and_our_own_container_is_left_out() {
        let two = Captured::when("e2e/two-mains-native", "first", "running");
        assert_eq!(
            names(&two.observe()),
            [("first", Role::Task), ("main", Role::Task)]
        );
        // The kubelet sorts its statuses by name, regardless of the spec's order.
        let (first, main) = (
            two.said("/spec/containers/0"),
            two.said("/spec/containers/1"),
        );
        let turned = two.clone().with("/spec/containers", json!([main, first]));
        assert_eq!(
            names(&turned.observe()),
            [("main", Role::Task), ("first", Role::Task)]
        );

        let init = Captured::when("e2e/failed-init", "setup", "running");
        assert_eq!(init.said("/spec/initContainers/0/name"), "podbeat");
        assert_eq!(
            names(&init.observe()),
            [("setup", Role::Init), ("main", Role::Task)]
        );
        let sidecars = Captured::when("a-complete", "main", "running").observe();
        assert_eq!(
            names(&sidecars),
            [("side2", Role::Sidecar), ("main", Role::Task)]
        );
    }

    #[test]
    fn a_container_without_a_status_has_no_state() {
        let without = |seen: &Observation| {
            seen.containers
                .iter()
                .all(|container| container.state.is_none())
        };
        for name in [
            "e2e/failed-init",
            "e2e/two-mains-native",
            "a-complete",
            "d-classic",
        ] {
            let seen = Captured::new(name).observe();
            assert!(
                !seen.containers.is_empty() && without(&seen),
                "{name}: no status says nothing"
            );
        }
        let pod = Captured::when("e2e/two-mains-native", "main", "running");
        let seen = pod
            .with("/status/containerStatuses/1/state", json!({}))
            .observe();
        let states: Vec<_> = seen
            .containers
            .iter()
            .map(|container| container.state.as_ref())
            .collect();
        assert_eq!(states[0].map(State::name), Some("running"));
        assert_eq!(states[1], None, "an empty state says nothing");
    }

    #[test]
    fn states_are_read_in_kubernetes_own_words() {
        let main = |pod: &Captured| pod.observe().containers.pop().expect("main");
        let text = |pod: &Captured, member: &str| {
            let said = pod.said(&format!("/status/containerStatuses/0/state/{member}"));
            said.as_str().map(str::to_owned)
        };
        let time = |pod: &Captured, member: &str| {
            text(pod, member).map(|time| time.parse().expect("a time"))
        };

        let pod = Captured::when("e2e/no-image-native", "main", "waiting");
        let waiting = State::Waiting {
            reason: text(&pod, "waiting/reason"),
            message: None,
        };
        assert_eq!(main(&pod).state, Some(waiting));
        let pod = Captured::when("e2e/restarts-native", "main", "running");
        let running = State::Running {
            started_at: time(&pod, "running/startedAt"),
        };
        assert_eq!(main(&pod).state, Some(running));
        let pod = Captured::when("i-badcmd", "main", "terminated");
        let terminated = State::Terminated(Exit {
            exit_code: Some(128),
            signal: None,
            reason: Some("StartError".to_owned()),
            message: text(&pod, "terminated/message"),
            started_at: Some(jiff::Timestamp::UNIX_EPOCH),
            finished_at: time(&pod, "terminated/finishedAt"),
            container_id: text(&pod, "terminated/containerID"),
            run: Some(0),
        });
        assert_eq!(main(&pod).state, Some(terminated));
    }

    #[test]
    fn a_lost_container_ends_without_times_or_id() {
        let seen = Captured::when("e2e/no-image-native", "main", "terminated").observe();
        let exit = seen.containers[0].state.as_ref().and_then(State::exit);
        let expected = Exit {
            exit_code: Some(137),
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            run: Some(0),
            ..Exit::default()
        };
        assert_eq!(exit, Some(&expected));
    }

    #[test]
    fn plain_native_and_absent_sidecars_are_distinguished() {
        assert_eq!(
            Captured::new("e2e/fail-plain").observe().sidecar,
            Sidecar::Plain
        );
        assert_eq!(
            Captured::new("e2e/fact-1").observe().sidecar,
            Sidecar::Native
        );
        let of_another_name = observe(&Captured::new("a-complete").pod(), "podbeat");
        assert_eq!(of_another_name.sidecar, Sidecar::Elsewhere);
    }

    #[test]
    fn graces_and_deletion() {
        let grace = |pod: &Captured| pod.observe().termination_grace;
        assert_eq!(
            grace(&Captured::new("e2e/deadline-native")),
            Duration::from_secs(10)
        );
        // Every API server writes the default into the spec.
        let pod =
            Captured::new("e2e/deadline-native").without("/spec/terminationGracePeriodSeconds");
        assert_eq!(grace(&pod), DEFAULT_GRACE);

        let pod = Captured::nth_time(2, "e2e/fact-5", "main", "running");
        assert_eq!(
            pod.observe().deletion,
            None,
            "restarted and not yet deleted"
        );
        let pod = Captured::last("e2e/delete-force-native");
        let deletion = pod.observe().deletion.expect("deleted");
        assert_eq!(
            deletion.grace,
            Some(Duration::ZERO),
            "not the pod's own, {:?}",
            grace(&pod)
        );
        assert_eq!(
            json!(deletion.at.to_string()),
            *pod.said("/metadata/deletionTimestamp")
        );
        let seen = Captured::when("e2e/fact-5", "podbeat", "terminated").observe();
        let given = seen.deletion.and_then(|deletion| deletion.grace);
        assert_eq!(
            (given, seen.termination_grace),
            (Some(Duration::from_secs(2)), Duration::from_secs(30))
        );
        // A negative grace period is ignored. No API server accepts one.
        let odd = pod
            .with("/metadata/deletionGracePeriodSeconds", json!(-1))
            .observe();
        assert_eq!(odd.deletion.map(|deletion| deletion.grace), Some(None));
    }

    #[test]
    fn only_a_terminal_phase_is_one() {
        for (name, expected) in [
            ("e2e/restarts-native", true),
            ("e2e/fail-plain", true),
            ("e2e/delete-force-native", false),
        ] {
            assert_eq!(
                Captured::last(name).observe().phase_is_terminal,
                expected,
                "{name}"
            );
        }
        assert!(
            !Captured::new("e2e/fail-plain").observe().phase_is_terminal,
            "Pending"
        );
    }

    #[test]
    fn the_retry_count_comes_from_the_annotation() {
        let pod = Captured::when("e2e/job-indexed-native", "main", "running");
        let retried = |count: &str| {
            let pod = pod.clone().with(
                "/metadata/annotations/batch.kubernetes.io~1job-index-failure-count",
                json!(count),
            );
            pod.observe().job_retry_count
        };
        assert_eq!(pod.observe().job_retry_count, Some(0));
        assert_eq!(
            (retried("2"), retried("-1"), retried("many")),
            (Some(2), None, None)
        );
    }

    #[test]
    fn an_exit_is_known_by_its_container_id() {
        let exit = |nth| {
            let seen =
                Captured::nth_time(nth, "e2e/restarts-native", "main", "terminated").observe();
            seen.containers[0]
                .state
                .as_ref()
                .and_then(State::exit)
                .cloned()
                .expect("an exit")
        };
        let (one, two) = (exit(1), exit(2));
        assert_eq!((one.exit_code, two.exit_code), (Some(4), Some(5)));
        assert!(!one.is_same_as(&two));
        assert_eq!((one.run, two.run), (Some(0), Some(1)));
        // During the backoff, no new run is counted.
        let backs_off = Captured::nth_time(2, "e2e/restarts-native", "main", "waiting").observe();
        assert_eq!(backs_off.containers[0].last_exit.as_ref(), Some(&two));
        // After the restart, `lastState` shows the exit that `state` showed before.
        let restarted = Captured::nth_time(2, "e2e/restarts-native", "main", "running").observe();
        let main = &restarted.containers[0];
        assert_eq!(
            (main.restart_count, main.last_exit.as_ref()),
            (1, Some(&one))
        );
        assert!(
            main.last_exit
                .as_ref()
                .is_some_and(|exit| exit.is_same_as(&one))
        );

        // Only the container ID decides. No captured pod shows this.
        let again = Exit {
            exit_code: Some(2),
            ..one.clone()
        };
        assert!(one.is_same_as(&again));
        assert!(!one.is_same_as(&Exit {
            container_id: two.container_id.clone(),
            ..one.clone()
        }));
        let lost = |run| Exit {
            container_id: None,
            run,
            ..one.clone()
        };
        assert!(
            one.is_same_as(&lost(one.run)),
            "the kubelet has lost the container of this run"
        );
        assert!(!one.is_same_as(&lost(two.run)) && !one.is_same_as(&lost(None)));

        // Without an ID, as for a lost container, the code and the times decide.
        let lost = Captured::last("e2e/no-image-native").observe();
        let lost = lost.containers[0]
            .state
            .as_ref()
            .and_then(State::exit)
            .expect("an exit");
        assert!(lost.is_same_as(&lost.clone()));
        let of_run = |run| Exit {
            run,
            ..lost.clone()
        };
        assert!(!lost.is_same_as(&of_run(Some(1))));
        assert!(
            lost.is_same_as(&of_run(None)),
            "what an earlier version wrote down"
        );
        assert!(!lost.is_same_as(&Exit {
            exit_code: Some(0),
            ..lost.clone()
        }));
    }
}
