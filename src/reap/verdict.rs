//! Which pods ended without a last heartbeat, and what it would have said: pure. Pods in, verdicts out; `now` is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::heartbeat::request::{Identity, Report, statuses};
use crate::indexed::{COMPLETION_INDEX, run_id};
use crate::pod::listed::Listed;
use crate::pod::resource::ContainerStatus;
use crate::pod::status::Observation;
use crate::task_runs::model::{HeartbeatTaskRunRequest, TaskRunStatus};

/// The annotation from which the manifests fill TASK_RUN_ID.
const TASK_RUN_ID: &str = "podbeat.dev/task-run-id";

/// How podbeat's container ends when its last heartbeat was not accepted (`Ending::Undelivered`).
const UNDELIVERED: i32 = 75;

/// What pods are judged by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Podbeat's container.
    pub(super) container_name: String,
    /// Which containers are reported.
    pub(super) report: Report,
    /// A pod that ended later than that long ago is left alone: its Job may be about to start another one.
    pub(super) older_than: Duration,
    /// The nonce of the service, if it issues one; else each last heartbeat has one that its pod alone can have.
    pub(super) nonce: Option<String>,
}

/// What there is to say of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It has no container of podbeat's.
    Other,
    /// It does, but which run it executes can't be seen.
    Unnamed,
    /// It does, but its run's ID has a place for an index, and the pod has none.
    Unindexed {
        /// What stands for the run's ID.
        pattern: String,
    },
    /// It hasn't ended.
    Open,
    /// Podbeat itself ended well: its last heartbeat was accepted, or the run was not its own.
    Settled {
        /// The run.
        run: String,
    },
    /// It ended a moment ago.
    Young {
        /// The run.
        run: String,
    },
    /// A later pod executes the same run: what this one would say is no news, and would end the other's run.
    Superseded {
        /// The run.
        run: String,
        /// The later pod.
        by: String,
    },
    /// It ended, and nobody knows of its last heartbeat.
    Missing(Box<Missing>),
}

/// A last heartbeat that was not sent, or not accepted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Missing {
    /// The run.
    pub(super) run: String,
    /// What it says.
    pub(super) request: HeartbeatTaskRunRequest,
    /// Whether podbeat itself said, by its exit code, that it was not accepted.
    pub(super) is_certain: bool,
}

/// Judges pods, each against all of them.
pub(super) fn judge(pods: &[Listed], rules: &Rules, now: Timestamp) -> Vec<Verdict> {
    let mut newest: BTreeMap<String, (Age, String)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| has_podbeat(pod, rules)) {
        if let Some(Ok(run)) = run_of(pod, rules) {
            let age = age(pod, rules);
            let at = newest.entry(run).or_insert_with(|| (age.clone(), pod.name()));
            if age > at.0 {
                *at = (age, pod.name());
            }
        }
    }
    pods.iter()
        .map(|pod| {
            if !has_podbeat(pod, rules) {
                return Verdict::Other;
            }
            let run = match run_of(pod, rules) {
                Some(Ok(run)) => run,
                Some(Err(pattern)) => return Verdict::Unindexed { pattern },
                None => return Verdict::Unnamed,
            };
            let later = newest.get(&run).filter(|(newest, _)| *newest > age(pod, rules));
            one(pod, run, later.map(|(_, name)| name.as_str()), rules, now)
        })
        .collect()
}

fn one(pod: &Listed, run: String, later: Option<&str>, rules: &Rules, now: Timestamp) -> Verdict {
    let seen = Observation::of(&pod.pod, &rules.container_name);
    // Nothing of it runs any more, podbeat included. Until then it may still say its last word itself.
    if !seen.phase_is_terminal {
        return Verdict::Open;
    }
    let own_exit = own_exit_code(pod, rules);
    if own_exit == Some(0) {
        return Verdict::Settled { run };
    }
    if let Some(by) = later {
        let by = by.to_owned();
        return Verdict::Superseded { run, by };
    }
    let ended_at = ended_at(pod);
    if ended_at.is_some_and(|ended_at| {
        now.duration_since(ended_at).unsigned_abs() < rules.older_than && ended_at <= now
    }) {
        return Verdict::Young { run };
    }
    Verdict::Missing(Box::new(Missing {
        request: request(pod, &seen, rules),
        run,
        is_certain: own_exit == Some(UNDELIVERED),
    }))
}

/// What podbeat would have said: the last states that the API shows, and nothing that it doesn't.
fn request(pod: &Listed, seen: &Observation, rules: &Rules) -> HeartbeatTaskRunRequest {
    let variable = |name| pod.variable(&rules.container_name, name);
    let mut identity = Identity {
        pod_name: pod.pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: None,
        job_retry_count: job_retry_count(pod, rules),
        pod_hardware_details: variable("POD_HARDWARE_DETAILS").map(str::to_owned),
    };
    identity.learn(seen);
    let nonce = variable("PODBEAT_NONCE")
        .map(str::to_owned)
        .or_else(|| rules.nonce.clone());
    // The same each time, whoever sends it: so the service can tell a second one from news.
    let nonce = nonce.unwrap_or_else(|| format!("reap-{}", identity.pod_uid.as_deref().unwrap_or_default()));
    let report = match variable("PODBEAT_REPORT") {
        Some("task") => Report::Task,
        Some("all") => Report::All,
        Some(_) | None => rules.report,
    };
    let told = statuses(seen, report);
    let mut request = identity.request(nonce, (!told.is_empty()).then_some(told));
    request.last_heartbeat = Some(true);
    request
}

fn job_retry_count(pod: &Listed, rules: &Rules) -> Option<i32> {
    let text = pod.variable(&rules.container_name, "JOB_RETRY_COUNT")?;
    text.trim().parse().ok().filter(|count| *count >= 0)
}

/// What tells the later of two pods of a run. Creation times have whole seconds, so a tie is broken, the same way each time.
type Age = (Option<Timestamp>, Option<i32>, String);

fn age(pod: &Listed, rules: &Rules) -> Age {
    let told = job_retry_count(pod, rules);
    let shown = || Observation::of(&pod.pod, &rules.container_name).job_retry_count;
    (pod.created_at, told.or_else(shown), pod.name())
}

fn has_podbeat(pod: &Listed, rules: &Rules) -> bool {
    let spec = &pod.pod.spec;
    let mut containers = spec.init_containers.iter().chain(&spec.containers);
    containers.any(|container| container.name == rules.container_name)
}

/// The run that the agent of this pod has by its settings, if they tell. `Err` is a pattern that
/// wants an index where there is none.
fn run_of(pod: &Listed, rules: &Rules) -> Option<Result<String, String>> {
    let variable = |name| pod.variable(&rules.container_name, name);
    let pattern = variable("TASK_RUN_ID").or_else(|| pod.annotation(TASK_RUN_ID))?;
    let index = variable("JOB_COMPLETION_INDEX").or_else(|| pod.annotation(COMPLETION_INDEX));
    let index = index.and_then(|text| text.trim().parse().ok());
    Some(run_id(pattern.trim(), index).ok_or_else(|| pattern.to_owned()))
}

fn all_statuses(pod: &Listed) -> impl Iterator<Item = &ContainerStatus> {
    let status = &pod.pod.status;
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
}

fn own_exit_code(pod: &Listed, rules: &Rules) -> Option<i32> {
    let own = all_statuses(pod).find(|status| status.name == rules.container_name)?;
    own.state.terminated.as_ref()?.exit_code
}

/// When its last container ended, as far as the API tells.
fn ended_at(pod: &Listed) -> Option<Timestamp> {
    let exits = all_statuses(pod).filter_map(|status| status.state.terminated.as_ref());
    exits.filter_map(|exit| exit.finished_at).max().or(pod.created_at)
}

/// Whether a run in this status still waits for its last heartbeat. `None` for a status that podbeat doesn't know: then
/// nothing is done.
pub(super) fn waits(status: &TaskRunStatus) -> Option<bool> {
    match status {
        TaskRunStatus::Pending
        | TaskRunStatus::CheckedOut
        | TaskRunStatus::Runnable
        | TaskRunStatus::Running => Some(true),
        TaskRunStatus::Finalizing
        | TaskRunStatus::Completed
        | TaskRunStatus::FailedRestartable
        | TaskRunStatus::Failed
        | TaskRunStatus::Aborted
        | TaskRunStatus::TimedOut => Some(false),
        TaskRunStatus::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules() -> Rules {
        Rules {
            container_name: "podbeat".to_owned(),
            report: Report::Task,
            older_than: Duration::from_secs(120),
            nonce: None,
        }
    }

    /// A pod of a run that ended a while ago; podbeat's own container ended with this code.
    fn pod(name: &str, own_exit: Option<i32>) -> Value {
        let exit =
            |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-11-24T00:10:00Z"}});
        let own = own_exit.map_or(json!({}), exit);
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": format!("uid-of-{name}"),
                         "creationTimestamp": "2026-11-24T00:00:00Z",
                         "annotations": {"podbeat.dev/task-run-id": "trn.1"}},
            "spec": {"restartPolicy": "Never", "nodeName": "node-1",
                     "initContainers": [{"name": "podbeat", "restartPolicy": "Always"}], "containers": [{"name": "main"}]},
            "status": {"phase": "Failed",
                       "initContainerStatuses": [{"name": "podbeat", "state": own}],
                       "containerStatuses": [{"name": "main", "state": exit(3)}]}
        })
    }

    fn verdicts(pods: &[Value]) -> Vec<Verdict> {
        let pods: Vec<Listed> = pods
            .iter()
            .map(|pod| serde_json::from_value(pod.clone()).expect("a pod"))
            .collect();
        judge(&pods, &rules(), "2026-11-24T01:00:00Z".parse().expect("a time"))
    }

    fn set(mut pod: Value, path: &str, value: Value) -> Value {
        let (parent, member) = path.rsplit_once('/').expect("a path");
        let parent = pod.pointer_mut(parent).expect(path).as_object_mut().expect(path);
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
        for (own_exit, is_certain) in [
            (Some(75), true),
            (Some(137), false),
            (Some(64), false),
            (None, false),
        ] {
            let missing = missing(pod("p", own_exit));
            assert_eq!((missing.run.as_str(), missing.is_certain), ("trn.1", is_certain));
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
        assert_eq!(verdicts(&[pod("p", Some(0))]), [Verdict::Settled { run: run() }]);
    }

    #[test]
    fn only_what_has_ended_for_good_is_judged_and_not_at_once() {
        for phase in [json!("Pending"), json!("Running"), json!("Unknown"), Value::Null] {
            let open = set(pod("p", Some(137)), "/status/phase", phase);
            assert_eq!(verdicts(&[open]), [Verdict::Open]);
        }
        let young = |at: &str| {
            let finished = "/status/containerStatuses/0/state/terminated/finishedAt";
            verdicts(&[set(pod("p", Some(137)), finished, json!(at))]).swap_remove(0)
        };
        assert!(matches!(young("2026-11-24T00:58:01Z"), Verdict::Young { .. }));
        assert!(matches!(young("2026-11-24T00:58:00Z"), Verdict::Missing(_)));
        // A clock that is ahead must not keep it waiting for ever.
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
        let both = verdicts(&[later("b", "Failed"), pod("a", Some(75))]);
        assert!(matches!(&both[..], [Verdict::Missing(_), other] if *other == superseded));
        // Of the same second: the retry count decides, else the name, and never both speak.
        let count = |pod, count: i32| {
            let annotations = json!({"podbeat.dev/task-run-id": "trn.1", "batch.kubernetes.io/job-index-failure-count": count.to_string()});
            set(pod, "/metadata/annotations", annotations)
        };
        let both = verdicts(&[count(pod("b", None), 0), count(pod("a", None), 1)]);
        assert!(matches!(&both[..], [Verdict::Superseded { by, .. }, Verdict::Missing(_)] if by == "n/a"));
        let both = verdicts(&[pod("a", None), pod("b", None)]);
        assert!(matches!(&both[..], [Verdict::Superseded { by, .. }, Verdict::Missing(_)] if by == "n/b"));
        // Another run's pod is nothing to it.
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
        // The second pod of an index is a later one of its run.
        let again = verdicts(&[indexed("a", Some("0")), indexed("b", Some("0"))]);
        assert!(matches!(&again[0], Verdict::Superseded { run, by } if run == "trn.1-0" && by == "n/b"));
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
        // As the agent reads it: the variable first.
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
        // A run that can't be named, and a pod without podbeat.
        let unnamed = set(super::tests::pod("p", None), "/metadata/annotations", Value::Null);
        let other = set(super::tests::pod("q", None), "/spec/initContainers", json!([]));
        assert_eq!(verdicts(&[unnamed, other]), [Verdict::Unnamed, Verdict::Other]);
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
    fn runs_that_have_ended_wait_for_nothing() {
        let waiting: Vec<Option<bool>> = TaskRunStatus::KNOWN.iter().map(waits).collect();
        let expected = [true, true, true, true, false, false, false, false, false, false].map(Some);
        assert_eq!(waiting, expected);
        assert_eq!(waits(&"Hibernating".into()), None);
    }
}
