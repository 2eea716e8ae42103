//! One attempt of a run: its pods, and the evidence of its end.

use jiff::Timestamp;
use podbeat_task_runs::model::ContainerStatus;
use serde::{Deserialize, Serialize};

use super::evidence::{self, Last, PodEnd};
use super::{ExitCodes, Heartbeat};

/// The number of replaced pods that an attempt remembers.
const REPLACED: usize = 16;

/// A pod, as its heartbeats describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// metadata.name.
    pub name: Option<String>,
    /// metadata.uid.
    pub uid: Option<String>,
    /// Free text about the hardware.
    pub hardware: Option<String>,
}

/// One attempt of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The place in the order of all attempts of the run, from 0. It never changes.
    pub serial: u32,
    /// The number, which is the Job's retry count. A retry that the Job does not count has the
    /// number of the attempt before it.
    pub number: u32,
    /// The nonce that the service issued for it.
    pub nonce: Option<String>,
    /// When its first heartbeat arrived.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
    /// The pod of its latest heartbeat.
    pub pod: Pod,
    /// The states of its containers in the latest heartbeat that had any.
    pub containers: Vec<ContainerStatus>,
    /// The trace ID of its heartbeats.
    pub trace_id: Option<String>,
    /// metadata.uid of its Job, if the service launched it and the Job was created.
    #[serde(default)]
    pub job: Option<String>,
    /// The UIDs of pods that another pod replaced.
    replaced: Vec<String>,
    /// The last heartbeat.
    pub(super) last: Option<Last>,
    /// How its pod ended, according to Kubernetes.
    pub(super) pod_end: Option<PodEnd>,
}

impl Attempt {
    pub(super) fn new(serial: u32, number: u32) -> Self {
        Self {
            serial,
            number,
            ..Self::default()
        }
    }

    /// Whether another pod replaced the one with this UID.
    pub(super) fn was_replaced(&self, uid: &str) -> bool {
        self.replaced.iter().any(|replaced| replaced == uid)
    }

    /// Adds what a heartbeat says. Returns whether its pod replaced another one.
    pub(super) fn see(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> bool {
        self.started.get_or_insert(now);
        let earlier = self.pod.uid.take();
        let is_replaced = match (&earlier, &heartbeat.pod.uid) {
            (Some(earlier), Some(uid)) => earlier != uid,
            (None, _) | (_, None) => false,
        };
        if is_replaced {
            self.replaced.extend(earlier.clone());
            if self.replaced.len() > REPLACED {
                self.replaced.remove(0);
            }
            // The evidence was of the earlier pod.
            self.last = None;
            self.pod_end = self
                .pod_end
                .take()
                .filter(|end| end.uid == heartbeat.pod.uid);
            self.pod = Pod::default();
        }
        self.pod = Pod {
            name: heartbeat.pod.name.clone().or(self.pod.name.take()),
            uid: heartbeat.pod.uid.clone().or(earlier),
            hardware: heartbeat.pod.hardware.clone().or(self.pod.hardware.take()),
        };
        if heartbeat.trace_id.is_some() {
            self.trace_id.clone_from(&heartbeat.trace_id);
        }
        if !heartbeat.containers.is_empty() {
            self.containers.clone_from(&heartbeat.containers);
        }
        if heartbeat.last {
            let exits = evidence::exits(&heartbeat.containers);
            // One without exits can be followed by one with them, but not the other way around.
            if !exits.is_empty() || self.last.is_none() {
                self.last = Some(Last {
                    uid: heartbeat.pod.uid.clone(),
                    nonce: heartbeat.nonce.clone(),
                    exits,
                });
            }
        }
        is_replaced
    }

    /// Whether the last heartbeat arrived, and no better evidence is worth a wait. A failure of an
    /// attempt that the service launched is worth one, because Kubernetes knows whether something
    /// disrupted it.
    pub(super) fn is_decided(&self, is_launched: bool) -> bool {
        self.last.as_ref().is_some_and(|last| {
            let is_success = evidence::verdict(&last.exits).is_some_and(|verdict| verdict.is_ok());
            is_success || self.pod_end.is_some() || !is_launched
        })
    }

    /// Whether the attempt succeeded, and why not, according to the best evidence that there is.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let last = self.last.as_ref();
        let of_last = last.and_then(|last| evidence::verdict(&last.exits));
        match (of_last, &self.pod_end) {
            // Kubernetes' reason explains the exit codes.
            (
                Some(Err(details)),
                Some(PodEnd {
                    reason: Some(reason),
                    ..
                }),
            ) => Err(format!("{reason}: {details}")),
            (Some(verdict), _) => verdict,
            (None, Some(end)) => end.verdict(),
            (None, None) => Err("the last heartbeat has no exit code".to_owned()),
        }
    }

    /// Whether Kubernetes or its administrator ended the pod, and not the task itself.
    pub(super) fn is_disrupted(&self) -> bool {
        self.pod_end.as_ref().is_some_and(|end| end.disrupted)
    }

    /// Whether a container ended with one of these exit codes.
    pub(super) fn has_exit_of(&self, codes: &ExitCodes) -> bool {
        let of_last = self.last.iter().flat_map(|last| &last.exits);
        let of_pod = self.pod_end.iter().flat_map(|end| &end.exits);
        of_last.chain(of_pod).any(|exit| codes.contains(exit.code))
    }

    /// Adds exits that Kubernetes shows, of containers whose heartbeats stopped.
    pub(super) fn see_exits(&mut self, containers: &[ContainerStatus]) {
        for shown in containers.iter().filter(|it| it.terminated().is_some()) {
            match self.containers.iter_mut().find(|it| it.name == shown.name) {
                Some(known) => known.clone_from(shown),
                None => self.containers.push(shown.clone()),
            }
        }
    }

    /// Another pod will continue the attempt, so how this one ends does not matter.
    pub(super) fn forget_its_end(&mut self) {
        self.last = None;
        self.pod_end = None;
    }

    /// Ends the attempt, unless it has ended.
    pub(super) fn end(&mut self, now: Timestamp, error: Option<String>) {
        if self.ended.is_none() {
            self.ended = Some(now);
            self.error = error;
        }
    }
}
