//! Decides which pods ended without a last heartbeat, and what that heartbeat contains. Pure: takes
//! pods one by one, and returns verdicts. `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::completion::is_finished;
use podbeat_heartbeat::observation::JobPod;
use podbeat_heartbeat::observation::{Observation, Role, State};
use podbeat_heartbeat::report::{Identity, Report, statuses, texts};
use podbeat_interface::setting::{
    IGNORED_CONTAINERS, JOB_COMPLETION_INDEX, JOB_RETRY_COUNT, NONCE, POD_HARDWARE_DETAILS, REPORT,
    Row, TASK_CONTAINERS, TASK_RUN_ID,
};
use podbeat_kubernetes::listed::Listed;
use podbeat_kubernetes::resource::ContainerStatus;
use podbeat_kubernetes::retries::job_pod;
use podbeat_kubernetes::status;
use podbeat_kubernetes::status::own_is_over;
use podbeat_kubernetes::tasks::Tasks;
use podbeat_task_runs::model::{HeartbeatTaskRunRequest, TaskRunStatus};

use crate::indexed::run_id;

/// The memory limit for pods until all are listed, in bytes: enough for 90,000 pods with podbeat.
/// The container has 128 MiB (deploy/manifests/reap.yaml).
const MOST_KEPT: usize = 48 << 20;

/// The memory limit for last heartbeats that wait to be sent, in bytes. The rest is left for the
/// next time.
const MOST_WAITING: usize = 24 << 20;

/// The memory for a pod in addition to its texts, in bytes.
const CASE: usize = 512;

/// The memory for a run in addition to its texts, in bytes.
const RUN: usize = 256;

/// The memory for the name of a chosen pod in addition to its text, in bytes.
const NAME: usize = 64;

/// The maximum length of a run's ID, in bytes. Without a limit, a few pods could use all memory and
/// hide all others.
const LONGEST_RUN: usize = 1024;

/// How many pods that claim a run are named, in addition to the first.
const RIVALS: usize = 3;

/// The memory for a pod's place in its Job, in bytes: a namespace, two UIDs, an index and a
/// version.
const PLACE: usize = 512;

/// The memory for a container's state in a heartbeat in addition to its texts, in bytes.
const STATE: usize = 256;

/// The exit code of podbeat's container if its last heartbeat was not accepted
/// (`Ending::Undelivered`).
const UNDELIVERED: i32 = 75;

/// The rules for verdicts.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The name of podbeat's container.
    pub(super) container_name: String,
    /// The regular containers of the task, if a pod itself does not specify them.
    pub(super) tasks: Tasks,
    /// The containers to report.
    pub(super) report: Report,
    /// Skip pods that ended more recently than this, because the Job may be about to start another
    /// pod.
    pub(super) older_than: Duration,
    /// The nonce that the service issued, if any. Otherwise the nonce is derived from the pod's
    /// UID.
    pub(super) nonce: Option<String>,
}

/// The verdict on one pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// The pod has a podbeat container, but does not show which run it executes.
    Unnamed,
    /// The run's ID needs an index, but the pod has none.
    Unindexed {
        /// The pattern for the run's ID.
        pattern: String,
    },
    /// The text for the run's ID is too long.
    Overlong,
    /// The pod exceeds the limits for reading, so its state is unknown.
    Unread {
        /// The run.
        run: String,
        /// The reason.
        why: String,
    },
    /// The pod has not ended.
    Open,
    /// podbeat ended once, with exit code 0, after the task. So the service accepted its last
    /// heartbeat, or the run did not belong to this pod.
    Settled {
        /// The run.
        run: String,
    },
    /// The pod ended too recently.
    Young {
        /// The run.
        run: String,
    },
    /// A later pod executes the same run. The last heartbeat of this pod would contain no news, and
    /// would end the later pod's run.
    Superseded {
        /// The run.
        run: String,
        /// The later pod.
        by: String,
    },
    /// Another pod of the run has not ended.
    Held {
        /// The run.
        run: String,
        /// The other pod.
        by: String,
    },
    /// Pods with several owners, or in several namespaces, claim the run. podbeat cannot know whose
    /// it is.
    Contested {
        /// The run.
        run: String,
        /// Some of these pods.
        pods: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// The pod ended, and nothing shows that the service accepted its last heartbeat.
    Missing(Box<Missing>),
    /// Like `Missing`, but too many others wait to be sent.
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
    /// The content of the heartbeat.
    pub(super) request: HeartbeatTaskRunRequest,
    /// What podbeat itself reported about it.
    pub(super) own_word: OwnWord,
    /// The Job's pod, if `request` has no retry count and podbeat must count the Job's failed pods.
    pub(super) uncounted: Option<Uncounted>,
}

/// A pod whose retry count is the number of its Job's pods that failed before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Uncounted {
    pub(super) namespace: String,
    pub(super) pod: JobPod,
}

/// What podbeat itself reported about its last heartbeat, with its exit code or its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnWord {
    /// The service did not accept it.
    Undelivered,
    /// The service accepted one, which may not report the end of the task.
    Delivered,
    /// Nothing.
    Nothing,
}

/// The pods to return verdicts for.
#[derive(Debug, Default)]
pub(super) enum Chosen {
    /// All pods.
    #[default]
    All,
    /// One pod, by its name.
    Named(String),
    /// The pods of a selector, by [`Listed::name`].
    These(Names),
}

/// The names of chosen pods.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeSet<String>,
    /// In bytes.
    kept: usize,
}

impl Names {
    pub(super) fn add(&mut self, name: String) -> Result<(), TooMany> {
        self.kept += NAME + name.len();
        if self.kept > MOST_KEPT {
            return Err(TooMany);
        }
        self.names.insert(name);
        Ok(())
    }
}

impl Chosen {
    fn include(&self, pod: &Listed) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => pod.pod.metadata.name.as_ref() == Some(name),
            Self::These(these) => these.names.contains(&pod.name()),
        }
    }
}

/// There are too many pods to decide about at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Decides about each pod in view of all of them. It takes pods one by one, and keeps in memory
/// only what the verdicts need.
pub(super) struct Docket {
    rules: Rules,
    now: Timestamp,
    chosen: Chosen,
    cases: Vec<Case>,
    runs: BTreeMap<String, Run>,
    /// In bytes.
    kept: usize,
    /// In bytes.
    waiting: usize,
    /// Whether the pod chosen by name was among them.
    is_found: bool,
}

/// One pod.
struct Case {
    age: Age,
    run: Option<String>,
    /// The verdict on this pod alone. The other pods of its run may change it.
    verdict: Verdict,
}

/// What all pods of a run show together.
struct Run {
    /// The latest pod with podbeat.
    newest: Option<Age>,
    /// A pod that has not ended.
    open: Option<String>,
    /// The claim of the first pod.
    claim: Claim,
    first: String,
    /// Pods with another claim.
    rivals: Vec<String>,
    /// The number of further pods with another claim, whose names are not kept.
    unnamed: usize,
}

/// The owner of a pod. Only pods of one owner in one namespace are attempts of the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    namespace: Option<String>,
    owner: Owner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// The UID of a Job or another controller.
    Controller(String),
    /// A pod without a controller: its UID, or its name if the API shows no UID.
    Pod(String),
}

impl Claim {
    fn of(pod: &Listed) -> Self {
        let own = || {
            let uid = pod.pod.metadata.uid.clone();
            Owner::Pod(uid.unwrap_or_else(|| pod.name()))
        };
        Self {
            namespace: pod.pod.metadata.namespace.clone(),
            owner: pod.controller.clone().map_or_else(own, Owner::Controller),
        }
    }

    /// The size in bytes.
    fn size(&self) -> usize {
        let (Owner::Controller(owner) | Owner::Pod(owner)) = &self.owner;
        owner.len() + self.namespace.as_ref().map_or(0, String::len)
    }
}

impl Run {
    /// Adds a pod, with or without podbeat. Returns how many more bytes are kept.
    fn take(&mut self, claim: &Claim, age: &Age, is_over: bool, speaks: bool) -> usize {
        let mut kept = 0;
        let mut name = || {
            kept += age.2.len();
            age.2.clone()
        };
        if !is_over && self.open.is_none() {
            self.open = Some(name());
        }
        if *claim != self.claim {
            if self.rivals.len() < RIVALS {
                self.rivals.push(name());
            } else {
                self.unnamed += 1;
            }
        }
        if speaks && self.newest.as_ref().is_none_or(|newest| age > newest) {
            self.newest = Some(age.clone());
        }
        kept
    }

    /// Returns the verdict on an ended pod of this run in view of all its pods. `None` if this pod
    /// decides about the run.
    fn objection(&self, run: &str, age: &Age) -> Option<Verdict> {
        let run = run.to_owned();
        if !self.rivals.is_empty() {
            let mut pods = vec![self.first.clone()];
            pods.extend(self.rivals.iter().cloned());
            let more = self.unnamed;
            return Some(Verdict::Contested { run, pods, more });
        }
        // Its heartbeat would contain no news, and would end the later pod's run.
        if let Some(newest) = self.newest.as_ref().filter(|newest| *newest > age) {
            let by = newest.2.clone();
            return Some(Verdict::Superseded { run, by });
        }
        let by = self.open.as_ref().filter(|open| **open != age.2)?.clone();
        Some(Verdict::Held { run, by })
    }
}

impl Docket {
    pub(super) fn new(rules: Rules, now: Timestamp, chosen: Chosen) -> Self {
        let kept = match &chosen {
            Chosen::All | Chosen::Named(_) => 0,
            Chosen::These(these) => these.kept,
        };
        Self {
            rules,
            now,
            is_found: !matches!(chosen, Chosen::Named(_)),
            chosen,
            cases: Vec::new(),
            runs: BTreeMap::new(),
            kept,
            waiting: 0,
        }
    }

    /// Adds a pod. A pod without a podbeat container gets no verdict, but may belong to the run of
    /// others, because its podbeat may have another name.
    pub(super) fn take(&mut self, pod: &Listed) -> Result<(), TooMany> {
        let is_asked_for = self.chosen.include(pod);
        self.is_found |= is_asked_for;
        let has_podbeat = pod.has_container(&self.rules.container_name);
        let is_asked_for = is_asked_for && has_podbeat;
        if !has_podbeat && pod.annotated_run().is_none() {
            return Ok(());
        }
        let seen = self.rules.observe(pod);
        let age = age(pod, &seen, &self.rules);
        let run = match run_of(pod, &self.rules) {
            Some(Ok(text) | Err(text)) if text.len() > LONGEST_RUN => {
                return self.judge(is_asked_for, age, None, |_| Verdict::Overlong);
            }
            Some(Err(pattern)) => {
                self.kept += pattern.len();
                return self.judge(is_asked_for, age, None, |_| Verdict::Unindexed { pattern });
            }
            Some(Ok(run)) => Some(run),
            None => None,
        };
        self.kept += age.2.len() + 2 * run.as_ref().map_or(0, String::len);
        let is_over = self.is_over(pod, &seen);
        if let Some(run) = &run {
            let claim = Claim::of(pod);
            if let Some(known) = self.runs.get_mut(run) {
                self.kept += known.take(&claim, &age, is_over, has_podbeat);
            } else {
                self.kept += RUN + claim.size() + 2 * age.2.len();
                let first = Run {
                    newest: has_podbeat.then(|| age.clone()),
                    open: (!is_over).then(|| age.2.clone()),
                    claim,
                    first: age.2.clone(),
                    rivals: Vec::new(),
                    unnamed: 0,
                };
                self.runs.insert(run.clone(), first);
            }
        }
        let of = run.clone();
        self.judge(is_asked_for, age, run, |docket| {
            docket.alone(pod, &seen, is_over, of)
        })
    }

    /// Keeps the verdict on a pod, if it is chosen.
    fn judge(
        &mut self,
        is_asked_for: bool,
        age: Age,
        run: Option<String>,
        verdict: impl FnOnce(&mut Self) -> Verdict,
    ) -> Result<(), TooMany> {
        self.kept += CASE + age.2.len();
        if self.kept > MOST_KEPT {
            return Err(TooMany);
        }
        if is_asked_for {
            let verdict = verdict(self);
            self.cases.push(Case { age, run, verdict });
        }
        Ok(())
    }

    /// Returns names and verdicts, in the order of the pods. `None` if the pod chosen by name does
    /// not exist.
    pub(super) fn verdicts(self) -> Option<impl Iterator<Item = (String, Verdict)>> {
        let runs = self.runs;
        let verdicts = self.cases.into_iter().map(move |case| {
            let Case { age, run, verdict } = case;
            let verdict = match verdict {
                // podbeat sends nothing for these anyway.
                Verdict::Unnamed
                | Verdict::Overlong
                | Verdict::Unindexed { .. }
                | Verdict::Open
                | Verdict::Settled { .. }
                | Verdict::Superseded { .. }
                | Verdict::Held { .. }
                | Verdict::Contested { .. } => verdict,
                Verdict::Young { .. }
                | Verdict::Missing(_)
                | Verdict::Left { .. }
                | Verdict::Unread { .. } => run
                    .and_then(|run| runs.get(&run)?.objection(&run, &age))
                    .unwrap_or(verdict),
            };
            (age.2, verdict)
        });
        self.is_found.then_some(verdicts)
    }

    /// Whether no container of the task or of podbeat runs any more, or will restart. Until then
    /// podbeat may still send the last heartbeat itself.
    fn is_over(&self, pod: &Listed, seen: &Observation) -> bool {
        let is_left_to_others = || {
            let (pod, own) = (&pod.pod, &self.rules.container_name);
            is_finished(seen) && own_is_over(pod, own)
        };
        pod.phase_is_terminal || is_left_to_others()
    }

    /// Returns the verdict on a pod without regard to others.
    fn alone(
        &mut self,
        pod: &Listed,
        seen: &Observation,
        is_over: bool,
        run: Option<String>,
    ) -> Verdict {
        let Some(run) = run else {
            return Verdict::Unnamed;
        };
        if let Some(why) = pod.unread.clone() {
            return Verdict::Unread { run, why };
        }
        if !is_over {
            return Verdict::Open;
        }
        let own_word = match own_exit_code(pod, &self.rules) {
            Some(0) if proves_the_end(pod, seen, &self.rules) => return Verdict::Settled { run },
            Some(0) => OwnWord::Delivered,
            Some(UNDELIVERED) => OwnWord::Undelivered,
            Some(_) | None => OwnWord::Nothing,
        };
        let ended_at = ended_at(pod);
        if ended_at.is_some_and(|ended_at| {
            self.now.duration_since(ended_at).unsigned_abs() < self.rules.older_than
                && ended_at <= self.now
        }) {
            return Verdict::Young { run };
        }
        let request = request(pod, seen, &self.rules);
        let waiting = self.waiting + PLACE + size(&request);
        if waiting > MOST_WAITING {
            return Verdict::Left { run };
        }
        self.waiting = waiting;
        Verdict::Missing(Box::new(Missing {
            run,
            uncounted: Uncounted::of(pod).filter(|_| request.job_retry_count.is_none()),
            request,
            own_word,
        }))
    }
}

impl Uncounted {
    fn of(pod: &Listed) -> Option<Self> {
        Some(Self {
            namespace: pod.pod.metadata.namespace.clone()?,
            pod: job_pod(&pod.pod)?,
        })
    }
}

impl Rules {
    /// Observes a pod like its own podbeat: by its annotations, then its settings, then these
    /// rules.
    fn observe(&self, pod: &Listed) -> Observation {
        let setting = |setting: &Row| pod.setting(&self.container_name, setting.variable);
        let own = Tasks::read(
            setting(&TASK_CONTAINERS.row),
            setting(&IGNORED_CONTAINERS.row),
        );
        status::observe_with(
            &pod.pod,
            &self.container_name,
            own.as_ref().unwrap_or(&self.tasks),
        )
    }
}

/// Estimates the memory for a heartbeat.
fn size(request: &HeartbeatTaskRunRequest) -> usize {
    let states = request.container_status.as_ref().map_or(0, Vec::len);
    STATE * states + texts(request).map(String::len).sum::<usize>()
}

/// Builds the heartbeat that podbeat would have sent: the last states that the API shows, and
/// nothing else.
fn request(pod: &Listed, seen: &Observation, rules: &Rules) -> HeartbeatTaskRunRequest {
    let setting = |setting: &Row| pod.setting(&rules.container_name, setting.variable);
    let mut identity = Identity {
        pod_name: pod.pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: None,
        job_retry_count: job_retry_count(pod, rules),
        pod_hardware_details: setting(&POD_HARDWARE_DETAILS.row).map(str::to_owned),
    };
    identity.learn(seen);
    let nonce = setting(&NONCE.row)
        .map(str::to_owned)
        .or_else(|| rules.nonce.clone());
    // The nonce is always the same, so that the service can recognize a repetition.
    let nonce = nonce
        .unwrap_or_else(|| format!("reap-{}", identity.pod_uid.as_deref().unwrap_or_default()));
    let report = setting(&REPORT.row).and_then(Report::named);
    let report = report.unwrap_or(rules.report);
    let told = statuses(seen, report);
    let mut request = identity.request(nonce, (!told.is_empty()).then_some(told));
    request.last_heartbeat = Some(true);
    request
}

fn job_retry_count(pod: &Listed, rules: &Rules) -> Option<i32> {
    let text = pod.setting(&rules.container_name, JOB_RETRY_COUNT.row.variable)?;
    text.trim().parse().ok().filter(|count| *count >= 0)
}

/// The order of a run's pods, oldest first. Creation times have whole seconds, so the retry count
/// and the name decide between equal times.
type Age = (Option<Timestamp>, Option<i32>, String);

fn age(pod: &Listed, seen: &Observation, rules: &Rules) -> Age {
    let told = job_retry_count(pod, rules);
    (pod.created_at, told.or(seen.job_retry_count), pod.name())
}

/// Returns the run of this pod according to its settings, if they show it. `Err` is a pattern that
/// needs an index where there is none.
fn run_of(pod: &Listed, rules: &Rules) -> Option<Result<String, String>> {
    let setting = |setting: &Row| pod.setting(&rules.container_name, setting.variable);
    let pattern = setting(&TASK_RUN_ID.row).or_else(|| pod.annotated_run())?;
    let index = setting(&JOB_COMPLETION_INDEX.row).or_else(|| pod.annotated_index());
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

fn own_status<'pod>(pod: &'pod Listed, rules: &Rules) -> Option<&'pod ContainerStatus> {
    all_statuses(pod).find(|status| status.name == rules.container_name)
}

fn own_exit_code(pod: &Listed, rules: &Rules) -> Option<i32> {
    own_status(pod, rules)?.state.terminated.as_ref()?.exit_code
}

/// Whether a podbeat that ended with 0 reported the end of the task: its container ran once, and
/// ended after all task containers. podbeat also ends with 0 in these cases:
///
/// - Only its container was stopped. Its last heartbeat then reports a task that runs, and a
///   restarted process may have nothing to send.
/// - All containers of the pod are to be restarted (KEP-5532). podbeat then sends no last
///   heartbeat.
fn proves_the_end(pod: &Listed, seen: &Observation, rules: &Rules) -> bool {
    let Some(own) = own_status(pod, rules) else {
        return false;
    };
    let ran_once = own.restart_count == 0 && own.last_state.terminated.is_none();
    let exit = own.state.terminated.as_ref();
    let Some(ended_at) = exit.and_then(|exit| exit.finished_at) else {
        return false;
    };
    let to_be_restarted = seen.all_restarting
        || seen.containers.iter().any(|container| {
            let exit = container.state.as_ref().and_then(State::exit);
            exit.is_some_and(|exit| container.restart.restarts_all(exit.exit_code))
        });
    let mut tasks = seen.containers.iter().filter(|it| it.role == Role::Task);
    let after_all = tasks.all(|task| match &task.state {
        Some(State::Terminated(exit)) => exit.finished_at.is_some_and(|at| at <= ended_at),
        Some(State::Running { .. }) => false,
        // A container that never ran has nothing to report.
        Some(State::Waiting { .. }) | None => task.restart_count == 0 && task.last_exit.is_none(),
    });
    ran_once && !to_be_restarted && after_all
}

/// Returns when the last container ended, as far as the API shows it.
fn ended_at(pod: &Listed) -> Option<Timestamp> {
    let exits = all_statuses(pod).filter_map(|status| status.state.terminated.as_ref());
    exits
        .filter_map(|exit| exit.finished_at)
        .max()
        .or(pod.created_at)
}

/// Whether a run with this status still waits for its last heartbeat. `None` if podbeat does not
/// know the status; it then sends nothing.
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
        let exit = |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-11-24T00:10:00Z"}});
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
        let unnamed = set(
            super::tests::pod("p", None),
            "/metadata/annotations",
            Value::Null,
        );
        let other = set(
            super::tests::pod("q", None),
            "/spec/initContainers",
            json!([]),
        );
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
        let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]);
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
        let exit = |code: i32| json!({"terminated": {"exitCode": code, "finishedAt": "2026-11-24T00:10:00Z"}});
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

    #[test]
    fn runs_that_have_ended_wait_for_nothing() {
        let waiting: Vec<Option<bool>> = TaskRunStatus::KNOWN.iter().map(waits).collect();
        let expected = [
            true, true, true, true, false, false, false, false, false, false,
        ]
        .map(Some);
        assert_eq!(waiting, expected);
        assert_eq!(waits(&"Hibernating".into()), None);
    }
}
