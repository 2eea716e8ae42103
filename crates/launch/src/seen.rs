//! What the API server shows about an attempt, and what that means for its run. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podbeat_heartbeat::observation::{Observation, Role, State, Why};
use podbeat_heartbeat::report::Report;
use podbeat_kubernetes::listed::Listed;
use podbeat_kubernetes::tasks::Tasks;
use podbeat_kubernetes::why::{DISRUPTION, SCHEDULED, is_trouble};
use podbeat_reap::{Rules, last_heartbeat};
use podbeat_runs::{Exit, PodEnd, exits};
use podbeat_task_runs::model::ContainerStatus;

use crate::manifests::{ATTEMPT, MAIN, PODBEAT, RUN, SPEC_HASH, is_ours};
use crate::settings::{Pending, Settings};

/// The reason of a Job that failed because of its podFailurePolicy (Kubernetes' source,
/// `JobReasonPodFailurePolicy`).
const POLICY: &str = "PodFailurePolicy";

/// The longest reason, in characters.
const LONGEST: usize = 1024;

/// A Job of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSeen {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// The run in its label.
    pub run: String,
    /// The number of the attempt in its label.
    pub attempt: u32,
    /// The hash of what it executes.
    pub spec_hash: Option<String>,
    /// `spec.suspend`.
    pub is_suspended: bool,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// How it ended.
    pub end: Option<JobEnd>,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// All containers of its pod ended with exit code 0.
    Complete,
    /// It failed.
    Failed {
        /// The reason of the condition, such as `BackoffLimitExceeded`.
        reason: String,
    },
    /// Something disrupted its pod: the only rule of its podFailurePolicy.
    Disrupted,
}

impl JobSeen {
    /// Reads a Job. `None` if it is not from this server.
    #[must_use]
    pub fn of(job: &Job, settings: &Settings) -> Option<Self> {
        let (run, attempt) = owned(&job.metadata, settings)?;
        let annotations = job.metadata.annotations.as_ref();
        let conditions = job.status.iter().flat_map(|status| &status.conditions);
        let end = conditions.flatten().find_map(|condition| {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => Some(JobEnd::Complete),
                ("Failed", "True") if condition.reason.as_deref() == Some(POLICY) => {
                    Some(JobEnd::Disrupted)
                }
                ("Failed", "True") => Some(JobEnd::Failed {
                    reason: cut(condition.reason.as_deref().unwrap_or("Failed")),
                }),
                _ => None,
            }
        });
        Some(Self {
            namespace: job.metadata.namespace.clone()?,
            name: job.metadata.name.clone()?,
            uid: job.metadata.uid.clone()?,
            run,
            attempt,
            spec_hash: annotations.and_then(|all| all.get(SPEC_HASH)).cloned(),
            is_suspended: job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true),
            is_deleted: job.metadata.deletion_timestamp.is_some(),
            end,
        })
    }
}

/// The run and the attempt of an object, if it is of this server.
#[must_use]
pub fn owned(metadata: &ObjectMeta, settings: &Settings) -> Option<(String, u32)> {
    if !is_ours(metadata, settings) {
        return None;
    }
    let labels = metadata.labels.as_ref()?;
    let attempt = labels.get(ATTEMPT)?.parse().ok()?;
    Some((labels.get(RUN)?.clone(), attempt))
}

/// A pod of a Job of this server.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSeen {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// The run in its label.
    pub run: String,
    /// The number of the attempt in its label.
    pub attempt: u32,
    /// When it was created, in whole seconds.
    pub created: Option<Timestamp>,
    /// Why it does not start.
    pub waiting: Option<Waiting>,
    /// What disrupts it, such as `EvictionByEvictionAPI`, while it still runs.
    pub disruption: Option<String>,
    /// How it ended. `None` if a container still runs, or will run again.
    pub end: Option<PodEnd>,
    /// The states of the task's containers, as podbeat reports them.
    pub containers: Vec<ContainerStatus>,
}

/// Why a pod does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How long it may take.
    pub kind: Kind,
    /// Kubernetes' reason, for people.
    pub reason: String,
}

/// How long a pod may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It never starts.
    Hopeless,
    /// Something outside may change, such as a registry that is not reachable.
    Image,
    /// There is no suitable node.
    Node,
    /// Nothing is wrong.
    Ordinary,
}

impl Kind {
    /// How long a pod may wait before its attempt fails. `None`: as long as it takes.
    #[must_use]
    pub fn limit(self, pending: &Pending) -> Option<Duration> {
        match self {
            Self::Hopeless => Some(Duration::ZERO),
            Self::Image => Some(Duration::from_secs(pending.image_pull_seconds)),
            Self::Node => pending.unschedulable_seconds.map(Duration::from_secs),
            Self::Ordinary => None,
        }
    }
}

impl PodSeen {
    /// Reads a pod. `metadata` are its metadata, of which `listed` has only a part. `None` if the pod
    /// is not of this server.
    #[must_use]
    pub fn of(metadata: &ObjectMeta, listed: &Listed, settings: &Settings) -> Option<Self> {
        let (run, attempt) = owned(metadata, settings)?;
        let rules = rules();
        let seen = rules.observe(listed);
        // The same code as in `podbeat reap` decides whether the pod is over, and what podbeat would
        // have reported.
        let is_over = listed.unread.is_none() && rules.is_over(listed, &seen);
        let request = last_heartbeat(listed, &seen, &rules);
        let containers = request.container_status.unwrap_or_default();
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            run,
            attempt,
            created: listed.created_at,
            waiting: waiting(listed, &seen),
            disruption: disruption(listed).map(|reason| cut(&reason)),
            end: is_over.then(|| end(metadata, listed, &seen, &containers)),
            containers,
        })
    }
}

/// The pods of this server have podbeat in a container of this name, and one task container.
fn rules() -> Rules {
    Rules {
        container_name: PODBEAT.to_owned(),
        tasks: Tasks::Only(vec![MAIN.to_owned()]),
        report: Report::Task,
        older_than: Duration::ZERO,
        nonce: None,
    }
}

fn has_begun(seen: &Observation) -> bool {
    seen.containers.iter().any(|container| {
        let waits = matches!(container.state, None | Some(State::Waiting { .. }));
        container.role == Role::Task && (!waits || container.last_exit.is_some())
    })
}

fn end(
    metadata: &ObjectMeta,
    listed: &Listed,
    seen: &Observation,
    containers: &[ContainerStatus],
) -> PodEnd {
    let status = &listed.pod.status;
    let disruption = disruption(listed);
    let is_disruption = |reason: &str| {
        // Reasons of the kubelet, the node controller and the scheduler in `status.reason`
        // (Kubernetes' source, pkg/kubelet/eviction, nodeshutdown, preemption and lifecycle).
        matches!(
            reason,
            "Evicted"
                | "NodeLost"
                | "NodeShutdown"
                | "NodeAffinity"
                | "Preempting"
                | "Shutdown"
                | "Terminated"
                | "UnexpectedAdmissionError"
        ) || reason.starts_with("OutOf")
    };
    let own = status.reason.as_deref().filter(|reason| !reason.is_empty());
    let why = disruption
        .clone()
        .or_else(|| own.map(str::to_owned))
        .or_else(|| seen.why.iter().find_map(phrase));
    let is_deleted = metadata.deletion_timestamp.is_some();
    PodEnd {
        uid: metadata.uid.clone(),
        exits: exits(containers),
        disrupted: disruption.is_some() || own.is_some_and(is_disruption),
        reason: why
            .or_else(|| is_deleted.then(|| "the pod was deleted".to_owned()))
            .map(|reason| cut(&reason)),
    }
}

/// What disrupts a pod, if anything does.
fn disruption(listed: &Listed) -> Option<String> {
    let conditions = &listed.pod.status.conditions;
    let condition = conditions
        .iter()
        .find(|condition| condition.kind == DISRUPTION && condition.status == "True")?;
    let reason = condition.reason.as_deref();
    Some(reason.unwrap_or(DISRUPTION).to_owned())
}

/// A reason for people.
fn phrase(why: &Why) -> Option<String> {
    let reason = why.reason.as_deref();
    let text = match (&why.container, why.exit_code) {
        (Some(container), Some(code)) => format!("{container} ended with exit code {code}"),
        (Some(container), None) => format!("{container}: {}", reason?),
        (None, _) => reason?.to_owned(),
    };
    Some(text)
}

/// Why a pod does not start: what keeps one of its containers, or that it has no node.
fn waiting(listed: &Listed, seen: &Observation) -> Option<Waiting> {
    if has_begun(seen) {
        return None;
    }
    let status = &listed.pod.status;
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses);
    let troubles = all.filter_map(|container| {
        let waiting = container.state.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|it| is_trouble(it))?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(Waiting {
            kind: kind(reason, message),
            reason: explained(&format!("{}: {reason}", container.name), message),
        })
    });
    let unscheduled = status
        .conditions
        .iter()
        .find(|condition| condition.kind == SCHEDULED && condition.status == "False")
        .map(|condition| Waiting {
            kind: Kind::Node,
            reason: explained(
                condition.reason.as_deref().unwrap_or("Unschedulable"),
                condition.message.as_deref().unwrap_or_default(),
            ),
        });
    let ordinary = || Waiting {
        kind: Kind::Ordinary,
        reason: "the pod starts".to_owned(),
    };
    let mut troubles: Vec<Waiting> = troubles.collect();
    let worst = troubles
        .iter()
        .position(|trouble| trouble.kind == Kind::Hopeless)
        .unwrap_or(0);
    match troubles.is_empty() {
        true => unscheduled.or_else(|| Some(ordinary())),
        false => Some(troubles.swap_remove(worst)),
    }
}

/// How long a container may wait for this reason (Kubernetes' source,
/// pkg/kubelet/kuberuntime and pkg/kubelet/images).
fn kind(reason: &str, message: &str) -> Kind {
    match reason {
        // The kubelet could not reach the API server in time.
        "CreateContainerConfigError" if message.contains("failed to sync") => Kind::Image,
        "InvalidImageName" | "CreateContainerConfigError" | "ErrImageNeverPull" => Kind::Hopeless,
        _ => Kind::Image,
    }
}

fn explained(reason: &str, message: &str) -> String {
    match message.trim() {
        "" => cut(reason),
        message => cut(&format!("{reason}: {message}")),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Everything that the API server shows about an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Its Job.
    pub job: Option<JobSeen>,
    /// The pods of the Job.
    pub pods: BTreeMap<String, PodSeen>,
    /// The last state of the latest pod that is gone.
    pub gone: Option<PodSeen>,
}

/// What that means for the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// There is no Job, or it is being deleted, and no pod.
    NoJob,
    /// The Job is suspended, for example because it waits in a queue. No pod of it goes on.
    Suspended,
    /// The Job has no pod yet.
    NoPod,
    /// The pod does not start yet.
    Waiting(Waiting),
    /// The task has begun.
    Runs(Vec<ContainerStatus>),
    /// The pod ended.
    Ended(PodEnd),
}

impl Seen {
    /// Adds what a watch showed of a pod that is gone to what the API server still knows.
    #[must_use]
    pub fn with_gone(&self, end: PodEnd) -> PodEnd {
        let Some(gone) = self.gone.as_ref().filter(|_| end.uid.is_none()) else {
            return end;
        };
        match (&gone.end, &gone.disruption) {
            (Some(last), _) => PodEnd {
                disrupted: last.disrupted || end.disrupted,
                ..last.clone()
            },
            (None, Some(reason)) => PodEnd {
                uid: Some(gone.uid.clone()),
                exits: exits(&gone.containers),
                disrupted: true,
                reason: Some(reason.clone()),
            },
            (None, None) => end,
        }
    }

    /// What the objects mean.
    #[must_use]
    pub fn finding(&self) -> Finding {
        // A later pod of the same Job replaces an earlier one.
        let pod = self
            .pods
            .values()
            .max_by_key(|pod| (pod.end.is_none(), pod.created, &pod.uid));
        let job = self.job.as_ref().filter(|job| !job.is_deleted);
        if job.is_some_and(|job| job.is_suspended && job.end.is_none()) {
            return Finding::Suspended;
        }
        match (pod, job) {
            (Some(pod), _) => match (&pod.end, &pod.waiting) {
                (Some(end), _) => Finding::Ended(end.clone()),
                (None, Some(waiting)) => Finding::Waiting(waiting.clone()),
                (None, None) => Finding::Runs(pod.containers.clone()),
            },
            (None, Some(JobSeen { end: None, .. })) => Finding::NoPod,
            (None, Some(JobSeen { end: Some(end), .. })) => Finding::Ended(match end {
                JobEnd::Complete => PodEnd {
                    exits: vec![Exit {
                        container: MAIN.to_owned(),
                        code: 0,
                        reason: None,
                    }],
                    ..PodEnd::default()
                },
                JobEnd::Failed { reason } => PodEnd {
                    reason: Some(format!("its pod is gone, and the Job failed: {reason}")),
                    ..PodEnd::default()
                },
                JobEnd::Disrupted => PodEnd {
                    disrupted: true,
                    reason: Some(DISRUPTION.to_owned()),
                    ..PodEnd::default()
                },
            }),
            (None, None) => Finding::NoJob,
        }
    }
}

#[cfg(test)]
mod tests;
