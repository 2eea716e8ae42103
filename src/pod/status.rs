//! What a pod's JSON means: Pod → [`Observation`], a pure function.
//!
//! The order is the spec's, the states are the API's own words, and nothing is added: a container without a status
//! has no state here either.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::resource::{self, Pod};
use super::retries::JobPod;
use super::tasks::Tasks;
use super::why::Why;

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Set by the Job controller on pods of an indexed Job with backoffLimitPerIndex (KEP-3850).
pub const JOB_INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// Why a container waits that is to be started again after a while.
pub const BACKS_OFF: &str = "CrashLoopBackOff";

/// The condition of a pod whose containers are all being restarted (KEP-5532, on by default from Kubernetes 1.36).
const ALL_RESTARTING: &str = "AllContainersRestarting";

/// Well-known label of nodes; a pod shows it where it selects by it or a policy copies it.
pub(super) const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";

/// One look at the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// Set once the API server has accepted a deletion.
    pub deletion: Option<Deletion>,
    /// `spec.terminationGracePeriodSeconds`.
    pub termination_grace: Duration,
    /// Whether the phase says that no container will run again.
    pub phase_is_terminal: bool,
    /// Whether the condition `AllContainersRestarting` holds (KEP-5532).
    pub all_restarting: bool,
    /// Why the pod ends, or can't begin, where the API says so.
    pub why: Vec<Why>,
    /// How our own container is declared.
    pub sidecar: Sidecar,
    /// Every container but our own: init containers first, then the regular ones, each in the spec's order.
    pub containers: Vec<Container>,
    /// From the annotation `batch.kubernetes.io/job-index-failure-count`.
    pub job_retry_count: Option<i32>,
    /// What its predecessors are found by, if it is a Job's.
    pub job: Option<Box<JobPod>>,
    /// Node name, instance type and devices, where the pod shows them.
    pub hardware_details: Option<String>,
}

/// A deletion under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// `metadata.deletionTimestamp`: when the grace ends, in whole seconds.
    pub at: Timestamp,
    /// `metadata.deletionGracePeriodSeconds`: the grace that this deletion was given, in place of the pod's own.
    pub grace: Option<Duration>,
}

/// How our own container is declared in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sidecar {
    /// An init container with restartPolicy Always: stopped by the kubelet after the task's containers.
    Native,
    /// A regular container: must leave by itself when the task is done.
    Plain,
    /// Not in this pod, as when run from outside.
    #[default]
    Elsewhere,
}

/// One container: what was asked for and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The name in the spec.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Whether it runs again after an exit.
    pub restart: Restart,
    /// `None` while the API shows no state.
    pub state: Option<State>,
    /// The exit that `lastState` shows.
    pub last_exit: Option<Exit>,
    /// How often it was started again.
    pub restart_count: i32,
}

/// What a container is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A regular container that is the task's: its end is the task's end.
    Task,
    /// Runs to its end before the task's containers start.
    Init,
    /// An init container with restartPolicy Always, or a regular container that isn't the task's. Never holds the last heartbeat back.
    Sidecar,
}

/// The states of a container, as Kubernetes words them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet running, or between two runs.
    Waiting {
        /// A word such as `ImagePullBackOff`.
        reason: Option<String>,
        /// Free text.
        message: Option<String>,
    },
    /// Running.
    Running {
        /// Whole seconds.
        started_at: Option<Timestamp>,
    },
    /// Ended.
    Terminated(Exit),
}

/// How a container ended. Nothing here is derived: what the API left out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// The exit code.
    pub exit_code: Option<i32>,
    /// The signal, where the runtime tells.
    pub signal: Option<i32>,
    /// A word such as `OOMKilled`.
    pub reason: Option<String>,
    /// The termination message.
    pub message: Option<String>,
    /// Whole seconds.
    pub started_at: Option<Timestamp>,
    /// Whole seconds.
    pub finished_at: Option<Timestamp>,
    /// `containerd://…`: tells one exit from another.
    pub container_id: Option<String>,
    /// Of which run of the container this is the end, counted from 0. It tells exits apart that have no container ID. Absent where an
    /// exit marker reports the exit, and in what earlier versions wrote down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<i32>,
}

/// Whether a container runs again after it ended: its own rules, else its own policy, else the pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    policy: RestartPolicy,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestartPolicy {
    Always,
    OnFailure,
    Never,
    /// A policy that this version doesn't know. Held to restart, so that no end is invented.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    codes: Vec<i32>,
    negated: bool,
    restarts_all: bool,
}

impl Restart {
    /// Whether Kubernetes starts the container again after `exit_code`. A code that isn't known counts as a failure.
    ///
    /// The order is that of KEP-5307 (Kubernetes 1.34): the first rule that matches decides, else the policy. Every
    /// action known so far (`Restart`, `RestartAllContainers`) runs the container again, and so is held any new one.
    #[must_use]
    pub fn follows(&self, exit_code: Option<i32>) -> bool {
        self.rule(exit_code).is_some()
            || match self.policy {
                RestartPolicy::Always | RestartPolicy::Unknown => true,
                RestartPolicy::OnFailure => exit_code != Some(0),
                RestartPolicy::Never => false,
            }
    }

    /// Whether Kubernetes restarts every container of the pod after `exit_code` (KEP-5532).
    #[must_use]
    pub fn restarts_all(&self, exit_code: Option<i32>) -> bool {
        self.rule(exit_code).is_some_and(|rule| rule.restarts_all)
    }

    /// The first rule that matches, which is the one that decides.
    fn rule(&self, exit_code: Option<i32>) -> Option<&Rule> {
        let code = exit_code?;
        self.rules
            .iter()
            .find(|rule| rule.codes.contains(&code) != rule.negated)
    }

    fn new(pod: RestartPolicy, role: Role, spec: &resource::ContainerSpec) -> Self {
        let policy = match spec.restart_policy.as_deref() {
            Some(own) => RestartPolicy::named(own),
            // An init container that succeeded is done, whatever the pod's policy: Always means OnFailure for it.
            None if role == Role::Init && pod == RestartPolicy::Always => RestartPolicy::OnFailure,
            None => pod,
        };
        let rules = spec.restart_policy_rules.iter().filter_map(Rule::read).collect();
        Self { policy, rules }
    }
}

impl RestartPolicy {
    fn named(name: &str) -> Self {
        match name {
            "Always" => Self::Always,
            "OnFailure" => Self::OnFailure,
            "Never" => Self::Never,
            _ => Self::Unknown,
        }
    }
}

impl Rule {
    fn read(rule: &resource::RestartRule) -> Option<Self> {
        let exit_codes = rule.exit_codes.as_ref()?;
        let negated = match exit_codes.operator.as_deref() {
            Some("In") => false,
            Some("NotIn") => true,
            Some(_) | None => return None,
        };
        Some(Self {
            codes: exit_codes.values.clone(),
            negated,
            restarts_all: rule.action.as_deref() == Some("RestartAllContainers"),
        })
    }
}

impl Observation {
    /// Reads a pod of which no setting says which containers are the task's.
    #[must_use]
    pub fn of(pod: &Pod, own_container: &str) -> Self {
        Self::with(pod, own_container, &Tasks::All)
    }

    /// Reads a pod. `own_container` is the name of podbeat's container, which is left out of `containers`; `tasks` are the settings, which
    /// the pod's annotations come before.
    #[must_use]
    pub fn with(pod: &Pod, own_container: &str, tasks: &Tasks) -> Self {
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
            // Podbeat's own is told apart below.
            let role = if spec.name == own_container || tasks.include(&spec.name) {
                Role::Task
            } else {
                Role::Sidecar
            };
            (spec, role, &pod.status.container_statuses)
        });
        let is_deleted = pod.metadata.deletion_timestamp.is_some();
        let mut sidecar = Sidecar::Elsewhere;
        let mut containers = Vec::with_capacity(pod.spec.init_containers.len() + pod.spec.containers.len());
        for (spec, role, statuses) in init.chain(regular) {
            if spec.name == own_container {
                sidecar = match role {
                    Role::Task => Sidecar::Plain,
                    // An ordinary init container could not outlive its turn, so both are taken for the native kind.
                    Role::Sidecar | Role::Init => Sidecar::Native,
                };
                continue;
            }
            let status = statuses.iter().find(|status| status.name == spec.name);
            containers.push(Container {
                name: spec.name.clone(),
                role,
                restart: Restart::new(pod_policy, role, spec),
                state: status.and_then(|status| State::read(&status.state, status.restart_count)),
                last_exit: status.and_then(|status| {
                    let terminated = status.last_state.terminated.as_ref()?;
                    Some(Exit::read(terminated, last_run(status, is_deleted)))
                }),
                restart_count: status.map_or(0, |status| status.restart_count),
            });
        }
        Self {
            uid: pod.metadata.uid.clone(),
            deletion: pod.metadata.deletion_timestamp.as_ref().map(|time| Deletion {
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
            why: Why::of(pod, &containers),
            sidecar,
            containers,
            job_retry_count: annotation(pod, JOB_INDEX_FAILURE_COUNT)
                .and_then(|count| count.trim().parse().ok())
                .filter(|count| *count >= 0),
            job: JobPod::of(pod).map(Box::new),
            hardware_details: hardware_details(pod),
        }
    }

    /// Whether every container of the pod is about to be restarted (KEP-5532): the kubelet says so, or a container was terminated by a
    /// rule with the action `RestartAllContainers`. Until the containers run again, no exit is the task's end. In a pod that is being
    /// deleted, or whose phase is terminal, nothing is restarted.
    #[must_use]
    pub fn restarts_all(&self) -> bool {
        let by_rule = |container: &Container| {
            let exit = container.state.as_ref().and_then(State::exit);
            exit.is_some_and(|exit| container.restart.restarts_all(exit.exit_code))
        };
        self.deletion.is_none()
            && !self.phase_is_terminal
            && (self.all_restarting || self.containers.iter().any(by_rule))
    }
}

/// Whether podbeat's own container ended and is not started again, so that nothing more comes from it.
#[must_use]
pub fn own_is_over(pod: &Pod, own_container: &str) -> bool {
    let (spec, status) = (&pod.spec, &pod.status);
    let init = (&spec.init_containers, &status.init_container_statuses, Role::Init);
    let regular = (&spec.containers, &status.container_statuses, Role::Task);
    let is_over = |(specs, statuses, role): (
        &Vec<resource::ContainerSpec>,
        &Vec<resource::ContainerStatus>,
        Role,
    )| {
        let spec = specs.iter().find(|spec| spec.name == own_container)?;
        let status = statuses.iter().find(|status| status.name == own_container)?;
        let exit = status.state.terminated.as_ref()?;
        let policy = pod.spec.restart_policy.as_deref();
        let policy = policy.map_or(RestartPolicy::Always, RestartPolicy::named);
        let restart = Restart::new(policy, role, spec);
        Some(pod.metadata.deletion_timestamp.is_some() || !restart.follows(exit.exit_code))
    };
    is_over(init).or_else(|| is_over(regular)).unwrap_or(false)
}

/// Of which run of the container `lastState` is the end. `restartCount` is the number of the run that `state` shows; while the container
/// waits after a crash, or for the end of its pod, that is still the run which ended.
fn last_run(status: &resource::ContainerStatus, is_deleted: bool) -> i32 {
    let same = status
        .state
        .waiting
        .as_ref()
        .is_some_and(|waiting| is_deleted || waiting.reason.as_deref() == Some(BACKS_OFF));
    status.restart_count - i32::from(!same && status.restart_count > 0)
}

impl State {
    fn read(state: &resource::ContainerState, run: i32) -> Option<Self> {
        if let Some(terminated) = &state.terminated {
            Some(Self::Terminated(Exit::read(terminated, run)))
        } else if let Some(running) = &state.running {
            Some(Self::Running {
                started_at: running.started_at,
            })
        } else {
            let waiting = state.waiting.as_ref()?;
            Some(Self::Waiting {
                reason: waiting.reason.clone(),
                message: waiting.message.clone(),
            })
        }
    }

    /// The state's name as Kubernetes writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Terminated(_) => "terminated",
        }
    }

    /// The exit, if the container ended.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Terminated(exit) => Some(exit),
            Self::Waiting { .. } | Self::Running { .. } => None,
        }
    }
}

impl Exit {
    fn read(terminated: &resource::Terminated, run: i32) -> Self {
        Self {
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

    /// Whether both are the end of the same run of a container. The runtime's ID decides where both have one.
    ///
    /// The kubelet reports an exit without an ID if it has lost the container (`ContainerStatusUnknown`), or replaces all of them
    /// (`RestartingAllContainers`), always with code 137 and without times. Then only the run tells exits apart.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let same_run = match (self.run, other.run) {
            (Some(one), Some(two)) => Some(one == two),
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        };
        match (&self.container_id, &other.container_id) {
            (Some(one), Some(two)) => one == two,
            (None, None) => {
                same_run.unwrap_or(true)
                    && (self.exit_code, self.finished_at) == (other.exit_code, other.finished_at)
            }
            (Some(_), None) | (None, Some(_)) => same_run.unwrap_or(false),
        }
    }
}

/// A period of Kubernetes: whole seconds; a negative one says nothing.
fn seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn annotation<'pod>(pod: &'pod Pod, name: &str) -> Option<&'pod str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// `node=…; instance-type=…; devices=nvidia.com/gpu:2`, each part where the pod shows it.
fn hardware_details(pod: &Pod) -> Option<String> {
    let mut parts = Vec::with_capacity(3);
    if let Some(node) = pod.spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        parts.push(format!("node={node}"));
    }
    let label = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(INSTANCE_TYPE));
    if let Some(instance_type) = label.or_else(|| pod.spec.node_selector.get(INSTANCE_TYPE)) {
        parts.push(format!("instance-type={instance_type}"));
    }
    let devices: Vec<String> = pod
        .spec
        .containers
        .iter()
        .flat_map(|container| &container.resources.limits)
        .map(|(name, quantity)| format!("{name}:{quantity}"))
        .collect();
    if !devices.is_empty() {
        parts.push(format!("devices={}", devices.join(",")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Extended resources carry a domain (`nvidia.com/gpu`); Kubernetes' own (`cpu`, `hugepages-2Mi`) don't.
pub(super) fn is_device(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::captured::Captured;

    /// How a real `main` is restarted if its pod's policy is this one.
    fn with_policy(policy: &str) -> Captured {
        Captured::when("e2e/restarts-native", "main", "running").with("/spec/restartPolicy", json!(policy))
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
            // No API server knows this one yet.
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
        // Every API server writes the default down.
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
        // Rules go with a policy of the container's own by the API's validation; they don't need it here.
        let not_in = json!([{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}]);
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
        assert!(side.restart.follows(Some(0)), "though the pod's policy is Never");
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
        // The kubelet sorts its statuses by name, whatever the spec's order.
        let (first, main) = (two.said("/spec/containers/0"), two.said("/spec/containers/1"));
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
        assert_eq!(names(&sidecars), [("side2", Role::Sidecar), ("main", Role::Task)]);
    }

    #[test]
    fn what_the_api_says_nothing_of_has_no_state() {
        let without = |seen: &Observation| seen.containers.iter().all(|container| container.state.is_none());
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
        let seen = pod.with("/status/containerStatuses/1/state", json!({})).observe();
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
        let time = |pod: &Captured, member: &str| text(pod, member).map(|time| time.parse().expect("a time"));

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
            started_at: Some(Timestamp::UNIX_EPOCH),
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
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            run: Some(0),
            ..Exit::default()
        };
        assert_eq!(exit, Some(&expected));
    }

    #[test]
    fn plain_sidecar_and_elsewhere_are_told_apart() {
        assert_eq!(Captured::new("e2e/fail-plain").observe().sidecar, Sidecar::Plain);
        assert_eq!(Captured::new("e2e/fact-1").observe().sidecar, Sidecar::Native);
        let of_another_name = Observation::of(&Captured::new("a-complete").pod(), "podbeat");
        assert_eq!(of_another_name.sidecar, Sidecar::Elsewhere);
    }

    #[test]
    fn graces_and_deletion() {
        let grace = |pod: &Captured| pod.observe().termination_grace;
        assert_eq!(
            grace(&Captured::new("e2e/deadline-native")),
            Duration::from_secs(10)
        );
        // Every API server writes the default down.
        let pod = Captured::new("e2e/deadline-native").without("/spec/terminationGracePeriodSeconds");
        assert_eq!(grace(&pod), DEFAULT_GRACE);

        let pod = Captured::nth_time(2, "e2e/fact-5", "main", "running");
        assert_eq!(pod.observe().deletion, None, "restarted and not yet deleted");
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
        // A negative grace says nothing; no API server accepts one.
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
    fn hardware_and_retry_count_come_from_the_pod_alone() {
        let pod = Captured::when("e2e/job-indexed-native", "main", "running");
        let seen = pod.observe();
        assert_eq!(seen.job_retry_count, Some(0));
        assert_eq!(seen.hardware_details.as_deref(), Some("node=e2e-node"));
        let retried = |count: &str| {
            let pod = pod.clone().with(
                "/metadata/annotations/batch.kubernetes.io~1job-index-failure-count",
                json!(count),
            );
            pod.observe().job_retry_count
        };
        assert_eq!(
            (retried("2"), retried("-1"), retried("many")),
            (Some(2), None, None)
        );

        // Asked for by the pod, but on no node yet.
        let pod = Captured::new("e2e/job-indexed-native");
        assert_eq!(pod.observe().hardware_details, None);
        // A limit of memory is no device.
        let pod = Captured::when("g-oom", "main", "waiting");
        assert!(pod.said("/spec/containers/0/resources/limits/memory").is_string());
        assert_eq!(pod.observe().hardware_details.as_deref(), Some("node=vm"));
        let limits =
            json!({"cpu": "1", "nvidia.com/gpu": "2", "amd.com/gpu": 1, "attachable.kubernetes.io/x": "1"});
        let pod = pod.with("/spec/containers/0/resources/limits", limits).with(
            "/spec/nodeSelector",
            json!({"node.kubernetes.io/instance-type": "g5.xlarge"}),
        );
        assert_eq!(
            pod.observe().hardware_details.as_deref(),
            Some("node=vm; instance-type=g5.xlarge; devices=amd.com/gpu:1,nvidia.com/gpu:2")
        );
    }

    #[test]
    fn an_exit_is_known_by_its_container_id() {
        let exit = |nth| {
            let seen = Captured::nth_time(nth, "e2e/restarts-native", "main", "terminated").observe();
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
        // While it backs off, no new run is counted.
        let backs_off = Captured::nth_time(2, "e2e/restarts-native", "main", "waiting").observe();
        assert_eq!(backs_off.containers[0].last_exit.as_ref(), Some(&two));
        // What `state` showed first, `lastState` shows after the restart.
        let restarted = Captured::nth_time(2, "e2e/restarts-native", "main", "running").observe();
        let main = &restarted.containers[0];
        assert_eq!((main.restart_count, main.last_exit.as_ref()), (1, Some(&one)));
        assert!(main.last_exit.as_ref().is_some_and(|exit| exit.is_same_as(&one)));

        // The id alone decides, which no real pod puts to the test.
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

        // Without an id, as of a lost container: by code and time.
        let lost = Captured::last("e2e/no-image-native").observe();
        let lost = lost.containers[0]
            .state
            .as_ref()
            .and_then(State::exit)
            .expect("an exit");
        assert!(lost.is_same_as(&lost.clone()));
        let of_run = |run| Exit { run, ..lost.clone() };
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
