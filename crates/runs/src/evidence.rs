//! How an attempt ended, according to the last heartbeat and to Kubernetes.

use podbeat_task_runs::model::ContainerStatus;
use serde::{Deserialize, Serialize};

/// The maximum number of containers that the details name.
const NAMED: usize = 5;

/// The exit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The container's name.
    pub container: String,
    /// Its exit code.
    pub code: i32,
    /// Kubernetes' reason, such as `OOMKilled`.
    pub reason: Option<String>,
}

/// How a pod ended, according to Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodEnd {
    /// metadata.uid of the pod.
    pub uid: Option<String>,
    /// The exits of the task's containers.
    pub exits: Vec<Exit>,
    /// Why the pod ended, such as `Evicted`.
    pub reason: Option<String>,
    /// Whether Kubernetes or its administrator ended the pod, and not the task itself: eviction,
    /// preemption, the loss of its node.
    #[serde(default)]
    pub disrupted: bool,
}

/// The last heartbeat of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) uid: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) exits: Vec<Exit>,
}

impl Last {
    /// Whether this heartbeat is the same one again. All attempts to send a heartbeat have the same
    /// nonce.
    pub(super) fn is(&self, other: &super::Heartbeat) -> bool {
        self.nonce == other.nonce && self.uid == other.pod.uid
    }
}

/// The exits in a heartbeat. A state without an exit code is no evidence.
#[must_use]
pub fn exits(containers: &[ContainerStatus]) -> Vec<Exit> {
    let exit = |status: &ContainerStatus| {
        let end = status.terminated()?;
        Some(Exit {
            container: status
                .name
                .clone()
                .unwrap_or_else(|| "a container".to_owned()),
            code: end.exit_code?,
            reason: end.reason.clone(),
        })
    };
    containers.iter().filter_map(exit).collect()
}

/// Whether these exits are a success, and what failed. `None` if there are none.
pub(super) fn verdict(exits: &[Exit]) -> Option<Result<(), String>> {
    if exits.is_empty() {
        return None;
    }
    let failed: Vec<String> = exits
        .iter()
        .filter(|exit| exit.code != 0)
        .map(|exit| {
            let reason = match exit.reason.as_deref() {
                // These say nothing that the exit code does not say.
                None | Some("Error" | "Completed") => String::new(),
                Some(reason) => format!(" ({reason})"),
            };
            format!(
                "{} ended with exit code {}{reason}",
                exit.container, exit.code
            )
        })
        .collect();
    if failed.is_empty() {
        return Some(Ok(()));
    }
    let more = failed.len().saturating_sub(NAMED);
    let mut details = failed
        .into_iter()
        .take(NAMED)
        .collect::<Vec<_>>()
        .join("; ");
    if more > 0 {
        details += &format!("; and {more} more");
    }
    Some(Err(details))
}

impl PodEnd {
    /// Whether the pod succeeded, and what failed.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match (verdict(&self.exits), &self.reason) {
            (Some(Ok(())), None) => Ok(()),
            (Some(Ok(())) | None, Some(reason)) => Err(format!("the pod ended: {reason}")),
            (Some(Err(details)), None) => Err(details),
            (Some(Err(details)), Some(reason)) => Err(format!("{reason}: {details}")),
            (None, None) => Err("the pod ended without an exit code".to_owned()),
        }
    }
}
