//! The pod as the core sees it: its containers in the order of the spec, with their states, and how
//! each is restarted.
//!
//! Nothing here is derived: what the Kubernetes API left out is absent.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a container waits that is to be started again after a while.
pub const BACKS_OFF: &str = "CrashLoopBackOff";

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
    /// Every container but our own: init containers first, then the regular ones, each in the
    /// spec's order.
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
    /// `metadata.deletionGracePeriodSeconds`: the grace that this deletion was given, in place of
    /// the pod's own.
    pub grace: Option<Duration>,
}

/// How our own container is declared in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sidecar {
    /// An init container with restartPolicy Always: stopped by the kubelet after the task's
    /// containers.
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
    /// An init container with restartPolicy Always, or a regular container that isn't the task's.
    /// Never holds the last heartbeat back.
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
    /// Of which run of the container this is the end, counted from 0. It tells exits apart that
    /// have no container ID. Absent where an exit marker reports the exit, and in what earlier
    /// versions wrote down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<i32>,
}

/// One reason that the API gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Why {
    /// The condition that says it, such as `DisruptionTarget`. Without one and without a container,
    /// it is `status.reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The init container or native sidecar of which it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How that container ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// A word such as `Evicted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A pod of a Job, by what tells its predecessors apart from the Job's other pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPod {
    /// The Job's UID, from the label `batch.kubernetes.io/controller-uid`.
    pub controller_uid: String,
    /// Of an Indexed Job, whose pods each have a count of their own.
    pub index: Option<String>,
    /// The pod's own UID.
    pub uid: String,
    /// Whole seconds.
    pub created_at: Timestamp,
    /// Whether the pod is being deleted.
    pub is_deleted: bool,
    /// `metadata.resourceVersion`, empty if there is none.
    pub resource_version: String,
}

/// Whether a container runs again after it ended: its own rules, else its own policy, else the
/// pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    policy: RestartPolicy,
    rules: Vec<Rule>,
}

/// The `restartPolicy` of a pod or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every exit.
    Always,
    /// After an exit code other than 0.
    OnFailure,
    /// After no exit.
    Never,
    /// A policy that this version doesn't know. It counts as one that restarts, so that no end is
    /// invented.
    Unknown,
}

/// One of a container's `restartPolicyRules` (KEP-5307).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The exit codes that the rule is about.
    pub codes: Vec<i32>,
    /// Whether it matches every other exit code instead (`NotIn`).
    pub negated: bool,
    /// Whether its action is `RestartAllContainers` (KEP-5532). Any other one restarts the
    /// container.
    pub restarts_all: bool,
}

impl Restart {
    /// Whether Kubernetes starts the container again after `exit_code`. A code that isn't known
    /// counts as a failure.
    ///
    /// The order is that of KEP-5307 (Kubernetes 1.34): the first rule that matches decides, else
    /// the policy. Every action known so far (`Restart`, `RestartAllContainers`) runs the container
    /// again, and so is held any new one.
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

    /// Of a container with this role, in a pod with this policy. `own` is the container's own
    /// policy, if it has one.
    #[must_use]
    pub fn new(pod: RestartPolicy, role: Role, own: Option<RestartPolicy>, rules: Vec<Rule>) -> Self {
        let policy = match own {
            Some(own) => own,
            // An init container that succeeded is done, whatever the pod's policy: Always means
            // OnFailure for it.
            None if role == Role::Init && pod == RestartPolicy::Always => RestartPolicy::OnFailure,
            None => pod,
        };
        Self { policy, rules }
    }
}

impl RestartPolicy {
    /// By the name that the API gives it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "Always" => Self::Always,
            "OnFailure" => Self::OnFailure,
            "Never" => Self::Never,
            _ => Self::Unknown,
        }
    }
}

impl Observation {
    /// Whether every container of the pod is about to be restarted (KEP-5532): the kubelet says so,
    /// or a container was terminated by a rule with the action `RestartAllContainers`. Until the
    /// containers run again, no exit is the task's end. In a pod that is being deleted, or whose
    /// phase is terminal, nothing is restarted.
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

impl State {
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
    /// Whether both are the end of the same run of a container. The runtime's ID decides where both
    /// have one.
    ///
    /// The kubelet reports an exit without an ID if it has lost the container
    /// (`ContainerStatusUnknown`), or replaces all of them (`RestartingAllContainers`), always with
    /// code 137 and without times. Then only the run tells exits apart.
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

impl Why {
    /// Whether it is `status.reason`.
    #[must_use]
    pub fn is_the_pods_own(&self) -> bool {
        self.condition.is_none() && self.container.is_none()
    }

    /// Whether both say the same, in other words perhaps.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.condition, &self.container, self.exit_code, &self.reason)
            == (&other.condition, &other.container, other.exit_code, &other.reason)
    }
}
