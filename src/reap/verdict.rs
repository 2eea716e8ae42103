//! Which pods ended without a last heartbeat, and what it would have said: pure. Pods in, one by
//! one, verdicts out; `now` is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::heartbeat::request::{Identity, Report, statuses};
use crate::indexed::run_id;
use crate::pod::listed::Listed;
use crate::pod::resource::ContainerStatus;
use crate::pod::status::Observation;
use crate::task_runs::model::{ContainerState, HeartbeatTaskRunRequest, TaskRunStatus};

/// The most that is kept of pods until all were listed, in bytes: of 90,000 pods with podbeat at
/// once. The container has 128 MiB (deploy/manifests/reap.yaml).
const MOST_KEPT: usize = 48 << 20;

/// The most that last heartbeats take that wait to be sent, in bytes. What is beyond that is left
/// for the next time.
const MOST_WAITING: usize = 24 << 20;

/// What a pod takes beside its texts, in bytes.
const CASE: usize = 512;

/// What a container's state takes in a heartbeat beside its texts, in bytes.
const STATE: usize = 256;

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
    /// It has a container of podbeat's, but which run it executes can't be seen.
    Unnamed,
    /// It has one, but its run's ID has a place for an index, and the pod has none.
    Unindexed {
        /// What stands for the run's ID.
        pattern: String,
    },
    /// There is more of it than is kept, so that nobody knows how it stands.
    Unread {
        /// The run.
        run: String,
        /// Why.
        why: String,
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
    /// The same, but too many others wait to be sent.
    Left {
        /// The run.
        run: String,
    },
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

/// There are more pods than can be judged at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Pods that are judged, each against all of them: taken one by one, so that no more of each is in
/// memory than what its verdict takes.
pub(super) struct Docket {
    rules: Rules,
    now: Timestamp,
    /// The only one whose verdict is asked for, if it is one.
    only: Option<String>,
    cases: Vec<Case>,
    newest: BTreeMap<String, Age>,
    /// Bytes.
    kept: usize,
    /// Bytes.
    waiting: usize,
    /// Whether the only one was among them.
    is_found: bool,
}

/// One pod.
struct Case {
    age: Age,
    run: Option<String>,
    /// By itself; a later pod of its run may change it.
    verdict: Verdict,
}

impl Docket {
    pub(super) fn new(rules: Rules, now: Timestamp, only: Option<&str>) -> Self {
        Self {
            rules,
            now,
            only: only.map(str::to_owned),
            cases: Vec::new(),
            newest: BTreeMap::new(),
            kept: 0,
            waiting: 0,
            is_found: only.is_none(),
        }
    }

    /// Takes a pod in, unless it has no podbeat.
    pub(super) fn take(&mut self, pod: &Listed) -> Result<(), TooMany> {
        let is_asked_for = self.only.is_none() || self.only == pod.pod.metadata.name;
        self.is_found |= is_asked_for;
        if !pod.has_container(&self.rules.container_name) {
            return Ok(());
        }
        let age = age(pod, &self.rules);
        let run = match run_of(pod, &self.rules) {
            Some(Err(pattern)) => {
                if is_asked_for {
                    let (run, verdict) = (None, Verdict::Unindexed { pattern });
                    self.cases.push(Case { age, run, verdict });
                }
                return Ok(());
            }
            Some(Ok(run)) => Some(run),
            None => None,
        };
        self.kept += CASE + 2 * (age.2.len() + run.as_ref().map_or(0, String::len));
        if self.kept > MOST_KEPT {
            return Err(TooMany);
        }
        if let Some(run) = &run {
            let newest = self.newest.entry(run.clone()).or_insert_with(|| age.clone());
            if age > *newest {
                *newest = age.clone();
            }
        }
        if is_asked_for {
            let verdict = self.alone(pod, run.clone());
            self.cases.push(Case { age, run, verdict });
        }
        Ok(())
    }

    /// Names and verdicts, in the order in which the pods came; `None` if the only one that was
    /// asked for is not there.
    pub(super) fn verdicts(self) -> Option<impl Iterator<Item = (String, Verdict)>> {
        let newest = self.newest;
        let verdicts = self.cases.into_iter().map(move |case| {
            let Case { age, run, verdict } = case;
            let later = run.as_ref().and_then(|run| newest.get(run));
            let verdict = match (verdict, later.filter(|newest| **newest > age), run) {
                // What it would say is no news, and would end the other's run.
                (
                    Verdict::Young { .. }
                    | Verdict::Missing(_)
                    | Verdict::Left { .. }
                    | Verdict::Unread { .. },
                    Some((_, _, by)),
                    Some(run),
                ) => Verdict::Superseded { run, by: by.clone() },
                (verdict, _, _) => verdict,
            };
            (age.2, verdict)
        });
        self.is_found.then_some(verdicts)
    }

    /// What there is to say of a pod as if it were the only one.
    fn alone(&mut self, pod: &Listed, run: Option<String>) -> Verdict {
        let Some(run) = run else {
            return Verdict::Unnamed;
        };
        if let Some(why) = pod.unread.clone() {
            return Verdict::Unread { run, why };
        }
        let seen = Observation::of(&pod.pod, &self.rules.container_name);
        // Nothing of it runs any more, podbeat included. Until then it may still say its last word
        // itself.
        if !seen.phase_is_terminal {
            return Verdict::Open;
        }
        let own_exit = own_exit_code(pod, &self.rules);
        if own_exit == Some(0) {
            return Verdict::Settled { run };
        }
        let ended_at = ended_at(pod);
        if ended_at.is_some_and(|ended_at| {
            self.now.duration_since(ended_at).unsigned_abs() < self.rules.older_than && ended_at <= self.now
        }) {
            return Verdict::Young { run };
        }
        let request = request(pod, &seen, &self.rules);
        self.waiting += size(&request);
        if self.waiting > MOST_WAITING {
            self.waiting -= size(&request);
            return Verdict::Left { run };
        }
        Verdict::Missing(Box::new(Missing {
            request,
            run,
            is_certain: own_exit == Some(UNDELIVERED),
        }))
    }
}

/// What a heartbeat takes in memory, about.
fn size(request: &HeartbeatTaskRunRequest) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let states = request.container_status.iter().flatten().map(|status| {
        let texts = match &status.state {
            Some(ContainerState::Terminated(exit)) => {
                length(&exit.message) + length(&exit.reason) + length(&exit.container_id)
            }
            Some(ContainerState::Waiting(waiting)) => length(&waiting.message) + length(&waiting.reason),
            Some(ContainerState::Running(_)) | None => 0,
        };
        STATE + length(&status.name) + texts
    });
    let own = [
        &request.nonce,
        &request.pod_hardware_details,
        &request.pod_name,
        &request.pod_uid,
    ];
    states.sum::<usize>() + own.map(length).into_iter().sum::<usize>()
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

/// The run that the agent of this pod has by its settings, if they tell. `Err` is a pattern that
/// wants an index where there is none.
fn run_of(pod: &Listed, rules: &Rules) -> Option<Result<String, String>> {
    let variable = |name| pod.variable(&rules.container_name, name);
    let pattern = variable("TASK_RUN_ID").or_else(|| pod.annotated_run())?;
    let index = variable("JOB_COMPLETION_INDEX").or_else(|| pod.annotated_index());
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

    fn docket(only: Option<&str>) -> Docket {
        Docket::new(rules(), "2026-11-24T01:00:00Z".parse().expect("a time"), only)
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
        assert!(left.iter().all(|verdict| matches!(verdict, Verdict::Left { .. })));
        // Their names alone may be too much.
        let mut docket = self::docket(None);
        let long = listed(&set(pod("p", None), "/metadata/name", json!("x".repeat(1 << 20))));
        let taken = (0..100).take_while(|_| docket.take(&long).is_ok()).count();
        assert!((20..30).contains(&taken), "{taken}");
    }

    #[test]
    fn a_pod_that_is_not_read_robs_nobody_and_hides_nobody() {
        let later = |pod| set(pod, "/metadata/creationTimestamp", json!("2026-11-24T00:20:00Z"));
        let large = set(pod("large", None), "/status/message", json!("x".repeat(1 << 20)));
        assert!(matches!(
            &verdicts(std::slice::from_ref(&large))[..],
            [Verdict::Unread { .. }]
        ));
        let both = verdicts(&[pod("a", None), later(large.clone())]);
        assert!(
            matches!(&both[..], [Verdict::Superseded { .. }, Verdict::Unread { .. }]),
            "{both:?}"
        );
        let both = verdicts(&[large, later(pod("a", None))]);
        assert!(
            matches!(&both[..], [Verdict::Superseded { .. }, Verdict::Missing(_)]),
            "{both:?}"
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
