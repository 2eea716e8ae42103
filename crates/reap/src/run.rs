//! What all pods of one run show together: which of them decides about the run, and whether it is
//! clear whose run it is.

use jiff::Timestamp;
use podbeat_kubernetes::listed::Listed;

use super::Verdict;

/// The memory for a run in addition to its texts, in bytes.
const RUN: usize = 256;

/// How many pods that claim a run are named, in addition to the first.
const RIVALS: usize = 3;

/// The order of a run's pods, oldest first. Creation times have whole seconds, so the retry count
/// and the name decide between equal times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) created_at: Option<Timestamp>,
    pub(crate) retry_count: Option<i32>,
    pub(crate) name: String,
}

/// What all pods of a run show together.
pub(crate) struct Run {
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
pub(crate) struct Claim {
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
    pub(crate) fn of(pod: &Listed) -> Self {
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
    /// The run of a pod that is the first of it. `speaks` means that the pod has podbeat.
    pub(crate) fn new(claim: Claim, age: &Age, is_over: bool, speaks: bool) -> Self {
        Self {
            newest: speaks.then(|| age.clone()),
            open: (!is_over).then(|| age.name.clone()),
            claim,
            first: age.name.clone(),
            rivals: Vec::new(),
            unnamed: 0,
        }
    }

    /// The memory for a run with one pod, in bytes.
    pub(crate) fn size(&self) -> usize {
        RUN + self.claim.size() + 2 * self.first.len()
    }

    /// Adds a pod, with or without podbeat. Returns how many more bytes are kept.
    pub(crate) fn take(&mut self, claim: &Claim, age: &Age, is_over: bool, speaks: bool) -> usize {
        let mut kept = 0;
        let mut name = || {
            kept += age.name.len();
            age.name.clone()
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
    pub(crate) fn objection(&self, run: &str, age: &Age) -> Option<Verdict> {
        let run = run.to_owned();
        if !self.rivals.is_empty() {
            let mut pods = vec![self.first.clone()];
            pods.extend(self.rivals.iter().cloned());
            let more = self.unnamed;
            return Some(Verdict::Contested { run, pods, more });
        }
        // Its heartbeat would contain no news, and would end the later pod's run.
        if let Some(newest) = self.newest.as_ref().filter(|newest| *newest > age) {
            let by = newest.name.clone();
            return Some(Verdict::Superseded { run, by });
        }
        let by = self
            .open
            .as_ref()
            .filter(|open| **open != age.name)?
            .clone();
        Some(Verdict::Held { run, by })
    }
}
