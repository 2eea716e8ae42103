//! What a pod's JSON means: Pod → [`Observation`], a pure function.
//!
//! The order is the spec's, the states are the API's own words, and nothing is added: a container without a status
//! has no state here either.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::resource::{self, Pod};

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Set by the Job controller on pods of an indexed Job with backoffLimitPerIndex (KEP-3850).
const JOB_INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// Well-known label of nodes; a pod shows it where it selects by it or a policy copies it.
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";

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
    /// How our own container is declared.
    pub sidecar: Sidecar,
    /// Every container but our own: init containers first, then the regular ones, each in the spec's order.
    pub containers: Vec<Container>,
    /// From the annotation `batch.kubernetes.io/job-index-failure-count`.
    pub job_retry_count: Option<i32>,
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
    /// A regular container: its end is the task's end.
    Task,
    /// Runs to its end before the task's containers start.
    Init,
    /// An init container with restartPolicy Always. Never holds the last heartbeat back.
    NativeSidecar,
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
}

impl Restart {
    /// Whether Kubernetes starts the container again after `exit_code`. A code that isn't known counts as a failure.
    ///
    /// The order is that of KEP-5307 (Kubernetes 1.34): the first rule that matches decides, else the policy. Every
    /// action known so far (`Restart`, `RestartAllContainers`) runs the container again, and so is held any new one.
    #[must_use]
    pub fn follows(&self, exit_code: Option<i32>) -> bool {
        let matches = |rule: &Rule| exit_code.is_some_and(|code| rule.codes.contains(&code) != rule.negated);
        self.rules.iter().any(matches)
            || match self.policy {
                RestartPolicy::Always | RestartPolicy::Unknown => true,
                RestartPolicy::OnFailure => exit_code != Some(0),
                RestartPolicy::Never => false,
            }
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
        })
    }
}

impl Observation {
    /// Reads a pod. `own_container` is the name of podbeat's container, which is left out of `containers`.
    #[must_use]
    pub fn of(pod: &Pod, own_container: &str) -> Self {
        let pod_policy = pod
            .spec
            .restart_policy
            .as_deref()
            .map_or(RestartPolicy::Always, RestartPolicy::named);
        let init = pod.spec.init_containers.iter().map(|spec| {
            let role = match spec.restart_policy.as_deref() {
                Some("Always") => Role::NativeSidecar,
                Some(_) | None => Role::Init,
            };
            (spec, role, &pod.status.init_container_statuses)
        });
        let regular = pod
            .spec
            .containers
            .iter()
            .map(|spec| (spec, Role::Task, &pod.status.container_statuses));
        let mut sidecar = Sidecar::Elsewhere;
        let mut containers = Vec::with_capacity(pod.spec.init_containers.len() + pod.spec.containers.len());
        for (spec, role, statuses) in init.chain(regular) {
            if spec.name == own_container {
                sidecar = match role {
                    Role::Task => Sidecar::Plain,
                    // An ordinary init container could not outlive its turn, so both are taken for the native kind.
                    Role::NativeSidecar | Role::Init => Sidecar::Native,
                };
                continue;
            }
            let status = statuses.iter().find(|status| status.name == spec.name);
            containers.push(Container {
                name: spec.name.clone(),
                role,
                restart: Restart::new(pod_policy, role, spec),
                state: status.and_then(|status| State::read(&status.state)),
                last_exit: status
                    .and_then(|status| status.last_state.terminated.as_ref())
                    .map(Exit::read),
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
            sidecar,
            containers,
            job_retry_count: annotation(pod, JOB_INDEX_FAILURE_COUNT)
                .and_then(|count| count.trim().parse().ok())
                .filter(|count| *count >= 0),
            hardware_details: hardware_details(pod),
        }
    }
}

impl State {
    fn read(state: &resource::ContainerState) -> Option<Self> {
        if let Some(terminated) = &state.terminated {
            Some(Self::Terminated(Exit::read(terminated)))
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
    fn read(terminated: &resource::Terminated) -> Self {
        Self {
            exit_code: terminated.exit_code,
            signal: terminated.signal,
            reason: terminated.reason.clone(),
            message: terminated.message.clone(),
            started_at: terminated.started_at,
            finished_at: terminated.finished_at,
            container_id: terminated.container_id.clone(),
        }
    }

    /// Whether both tell of the same end of the same run of a container. The runtime's id decides where there is one.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (&self.container_id, &other.container_id) {
            (Some(one), Some(two)) => one == two,
            (None, None) => (self.exit_code, self.finished_at) == (other.exit_code, other.finished_at),
            (Some(_), None) | (None, Some(_)) => false,
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
        .filter(|(name, _)| is_device(name))
        .map(|(name, quantity)| match quantity.as_str() {
            Some(quantity) => format!("{name}:{quantity}"),
            None => format!("{name}:{quantity}"),
        })
        .collect();
    if !devices.is_empty() {
        parts.push(format!("devices={}", devices.join(",")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Extended resources carry a domain (`nvidia.com/gpu`); Kubernetes' own (`cpu`, `hugepages-2Mi`) don't.
fn is_device(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(json: &str) -> Observation {
        Observation::of(&serde_json::from_str(json).expect("a pod"), "podbeat")
    }

    fn restart(policy: &str, container: &str) -> Restart {
        let json = format!(
            r#"{{"spec":{{"restartPolicy":"{policy}","containers":[{{"name":"main"{container}}}]}}}}"#
        );
        observe(&json).containers.swap_remove(0).restart
    }

    #[test]
    fn restart_policies_by_exit_code() {
        for (policy, zero, three, unknown) in [
            ("Always", true, true, true),
            ("OnFailure", false, true, true),
            ("Never", false, false, false),
            ("Later", true, true, true),
        ] {
            let restart = restart(policy, "");
            assert_eq!(restart.follows(Some(0)), zero, "{policy}");
            assert_eq!(restart.follows(Some(3)), three, "{policy}");
            assert_eq!(restart.follows(None), unknown, "{policy}");
        }
    }

    #[test]
    fn the_containers_own_policy_and_rules_come_first() {
        assert!(!restart("Always", r#","restartPolicy":"Never""#).follows(Some(1)));
        let rules = r#","restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]"#;
        assert!(restart("Never", rules).follows(Some(42)));
        assert!(!restart("Never", rules).follows(Some(41)));
        let not_in =
            r#","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"NotIn","values":[0,1]}}]"#;
        assert!(restart("Never", not_in).follows(Some(2)));
        assert!(!restart("Never", not_in).follows(Some(1)));
    }

    #[test]
    fn order_is_the_specs_and_our_own_container_is_left_out() {
        let seen = observe(
            r#"{"metadata":{"uid":"u1"},
              "spec":{"initContainers":[{"name":"podbeat","restartPolicy":"Always"},{"name":"setup"},{"name":"proxy","restartPolicy":"Always"}],
                      "containers":[{"name":"b"},{"name":"a"}],"terminationGracePeriodSeconds":7},
              "status":{"containerStatuses":[{"name":"a","state":{"waiting":{"reason":"X"}}},{"name":"b","state":{}}],
                        "initContainerStatuses":[{"name":"proxy","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}"#,
        );
        let names: Vec<_> = seen
            .containers
            .iter()
            .map(|c| (c.name.as_str(), c.role))
            .collect();
        assert_eq!(
            names,
            [
                ("setup", Role::Init),
                ("proxy", Role::NativeSidecar),
                ("b", Role::Task),
                ("a", Role::Task)
            ]
        );
        assert_eq!(seen.sidecar, Sidecar::Native);
        assert_eq!(seen.termination_grace, Duration::from_secs(7));
        assert_eq!(seen.containers[2].state, None, "an empty state says nothing");
        assert_eq!(seen.containers[0].state, None, "no status says nothing");
        assert_eq!(
            seen.containers[3].state.as_ref().map(State::name),
            Some("waiting")
        );
    }

    #[test]
    fn plain_sidecar_and_elsewhere_are_told_apart() {
        assert_eq!(
            observe(r#"{"spec":{"containers":[{"name":"podbeat"}]}}"#).sidecar,
            Sidecar::Plain
        );
        assert_eq!(
            observe(r#"{"spec":{"containers":[{"name":"main"}]}}"#).sidecar,
            Sidecar::Elsewhere
        );
    }

    #[test]
    fn hardware_and_retry_count_come_from_the_pod_alone() {
        let seen = observe(
            r#"{"metadata":{"annotations":{"batch.kubernetes.io/job-index-failure-count":"2"}},
              "spec":{"nodeName":"n1","nodeSelector":{"node.kubernetes.io/instance-type":"g5.xlarge"},
                      "containers":[{"name":"main","resources":{"limits":{"cpu":"1","nvidia.com/gpu":"2","amd.com/gpu":1}}}]}}"#,
        );
        assert_eq!(seen.job_retry_count, Some(2));
        assert_eq!(
            seen.hardware_details.as_deref(),
            Some("node=n1; instance-type=g5.xlarge; devices=amd.com/gpu:1,nvidia.com/gpu:2")
        );
        let bare =
            observe(r#"{"metadata":{"annotations":{"batch.kubernetes.io/job-index-failure-count":"-1"}}}"#);
        assert_eq!((bare.job_retry_count, bare.hardware_details), (None, None));
    }

    #[test]
    fn an_exit_is_known_by_its_container_id() {
        let one = Exit {
            container_id: Some("containerd://1".to_owned()),
            exit_code: Some(1),
            ..Exit::default()
        };
        let again = Exit {
            exit_code: Some(2),
            ..one.clone()
        };
        let two = Exit {
            container_id: Some("containerd://2".to_owned()),
            ..one.clone()
        };
        assert!(one.is_same_as(&again));
        assert!(!one.is_same_as(&two));
        assert!(!one.is_same_as(&Exit {
            container_id: None,
            ..one.clone()
        }));
    }
}
