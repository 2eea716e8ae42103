//! The pod as the core sees it: its containers in the order of the spec, with their states and
//! restart policies.
//!
//! Nothing is derived: a value that the Kubernetes API omits is absent.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The `waiting` reason of a container that restarts after a delay.
pub const BACKS_OFF: &str = "CrashLoopBackOff";

/// The pod at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// Set once the API server accepted a deletion.
    pub deletion: Option<Deletion>,
    /// `spec.terminationGracePeriodSeconds`.
    pub termination_grace: Duration,
    /// Whether the phase says that no container will run again.
    pub phase_is_terminal: bool,
    /// Whether the condition `AllContainersRestarting` holds (KEP-5532).
    pub all_restarting: bool,
    /// Why the pod ends or cannot start, if the API says so.
    pub why: Vec<Why>,
    /// How podbeat's own container is declared.
    pub sidecar: Sidecar,
    /// Every container except podbeat's: init containers first, then the regular ones, each in the
    /// spec's order.
    pub containers: Vec<Container>,
    /// From the annotation `batch.kubernetes.io/job-index-failure-count`.
    pub job_retry_count: Option<i32>,
    /// The data that identifies its predecessors, if it belongs to a Job.
    pub job: Option<Box<JobPod>>,
    /// The node and its hardware, as far as the pod shows them.
    pub hardware_details: Option<String>,
}

/// A deletion in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// `metadata.deletionTimestamp`: when the grace period ends, in whole seconds.
    pub at: Timestamp,
    /// `metadata.deletionGracePeriodSeconds`: the grace period of this deletion, which replaces the
    /// pod's own.
    pub grace: Option<Duration>,
}

/// How podbeat's own container is declared in the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sidecar {
    /// An init container with restartPolicy Always. The kubelet stops it after the task's
    /// containers.
    Native,
    /// A regular container. It must end by itself when the task is over.
    Plain,
    /// Not in this pod: podbeat runs outside.
    #[default]
    Elsewhere,
}

/// One container: its spec and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The name in the spec.
    pub name: String,
    /// Its purpose.
    pub role: Role,
    /// Whether it restarts after an exit.
    pub restart: Restart,
    /// `None` while the API shows no state.
    pub state: Option<State>,
    /// The exit that `lastState` shows.
    pub last_exit: Option<Exit>,
    /// How often it restarted.
    pub restart_count: i32,
}

/// The purpose of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A regular container of the task: the task is over when these ended.
    Task,
    /// Ends before the task's containers start.
    Init,
    /// An init container with restartPolicy Always, or a regular container outside the task. It
    /// never delays the last heartbeat.
    Sidecar,
}

/// The states of a container, as in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet running, or between two runs.
    Waiting {
        /// A reason such as `ImagePullBackOff`.
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

/// How a container ended. Nothing is derived: a value that the API omits is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// The exit code.
    pub exit_code: Option<i32>,
    /// The signal, if the runtime reports it.
    pub signal: Option<i32>,
    /// A reason such as `OOMKilled`.
    pub reason: Option<String>,
    /// The termination message.
    pub message: Option<String>,
    /// Whole seconds.
    pub started_at: Option<Timestamp>,
    /// Whole seconds.
    pub finished_at: Option<Timestamp>,
    /// `containerd://…`: identifies the exit.
    pub container_id: Option<String>,
    /// Which run of the container ended, counted from 0. It identifies exits without a container
    /// ID. Absent in an exit from an exit marker, and in journals of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<i32>,
}

/// One reason that the API reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Why {
    /// The condition with the reason, such as `DisruptionTarget`. Without condition and container,
    /// it is `status.reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The init container or native sidecar with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// That container's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// A reason such as `Evicted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A pod of a Job, with the data that separates its predecessors from the Job's other pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPod {
    /// The Job's UID, from the label `batch.kubernetes.io/controller-uid`.
    pub controller_uid: String,
    /// The index in an Indexed Job, where each index has its own count.
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

/// Whether a container restarts after it ended: its own rules decide, else its own policy, else the
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
    /// A policy unknown to this version. It counts as one that restarts, so that podbeat reports no
    /// false end.
    Unknown,
}

/// One of a container's `restartPolicyRules` (KEP-5307).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The exit codes of the rule.
    pub codes: Vec<i32>,
    /// Whether the rule matches all other exit codes instead (`NotIn`).
    pub negated: bool,
    /// Whether its action is `RestartAllContainers` (KEP-5532). Every other action restarts the
    /// container.
    pub restarts_all: bool,
}

impl Restart {
    /// Whether Kubernetes restarts the container after `exit_code`. An unknown code counts as a
    /// failure.
    ///
    /// The order is that of KEP-5307 (Kubernetes 1.34): the first rule that matches decides, else
    /// the policy. Every known action (`Restart`, `RestartAllContainers`) restarts the container,
    /// and podbeat assumes the same of new ones.
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

    /// The first rule that matches decides.
    fn rule(&self, exit_code: Option<i32>) -> Option<&Rule> {
        let code = exit_code?;
        self.rules
            .iter()
            .find(|rule| rule.codes.contains(&code) != rule.negated)
    }

    /// For a container with this role, in a pod with this policy. `own` is the container's own
    /// policy, if it has one.
    #[must_use]
    pub fn new(
        pod: RestartPolicy,
        role: Role,
        own: Option<RestartPolicy>,
        rules: Vec<Rule>,
    ) -> Self {
        let policy = match own {
            Some(own) => own,
            // An init container that succeeded does not run again, whatever the pod's policy:
            // Always means OnFailure for it.
            None if role == Role::Init && pod == RestartPolicy::Always => RestartPolicy::OnFailure,
            None => pod,
        };
        Self { policy, rules }
    }
}

impl RestartPolicy {
    /// By its name in the API.
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
    /// Whether every container of the pod is about to restart (KEP-5532): the kubelet says so, or a
    /// rule with the action `RestartAllContainers` matches an exit. Until the containers run again,
    /// no exit ends the task. In a pod that is being deleted, or whose phase is terminal, nothing
    /// restarts.
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
    /// Whether both are the end of the same run of a container. If both have a container ID, the ID
    /// decides.
    ///
    /// The kubelet reports an exit without an ID if it has lost the container
    /// (`ContainerStatusUnknown`), or if it restarts all of them (`RestartingAllContainers`),
    /// always with exit code 137 and without times. Then only the run identifies the exit.
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

    /// Whether both give the same reason, also with different messages.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        (
            &self.condition,
            &self.container,
            self.exit_code,
            &self.reason,
        ) == (
            &other.condition,
            &other.container,
            other.exit_code,
            &other.reason,
        )
    }
}
