//! Counts how many pods of a Job failed before this one. A Job with a `backoffLimit` replaces a
//! failed pod, but the new pod has no information about earlier ones.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podbeat_heartbeat::observation::JobPod;
use serde::{Deserialize, Deserializer};

use super::resource::{Pod, only, or_default, readable_time};

/// The label with the Job's UID that the Job controller sets on all pods of a Job (Kubernetes
/// 1.27).
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// The annotation, and since Kubernetes 1.28 the label, with the index that the Job controller
/// gives to each pod.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Returns the data for finding a pod's predecessors. `None` for a pod that was not created by a
/// Job controller.
#[must_use]
pub fn job_pod(pod: &Pod) -> Option<JobPod> {
    let metadata = &pod.metadata;
    let controller_uid = metadata.labels.as_ref()?.get(CONTROLLER_UID)?;
    // A value that is not a UID must not get into a label selector.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if controller_uid.is_empty() || !controller_uid.bytes().all(is_plain) {
        return None;
    }
    let annotations = metadata.annotations.as_ref();
    Some(JobPod {
        controller_uid: controller_uid.clone(),
        index: annotations
            .and_then(|all| all.get(COMPLETION_INDEX))
            .filter(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
            .cloned(),
        uid: metadata.uid.clone()?,
        created_at: metadata.creation_timestamp.as_ref()?.0,
        is_deleted: metadata.deletion_timestamp.is_some(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
    })
}

/// The label selector for the pods to count. It also matches a few others.
pub(super) fn selector(job: &JobPod) -> String {
    let of_job = format!("{CONTROLLER_UID}={}", job.controller_uid);
    match &job.index {
        // A label since Kubernetes 1.28.
        Some(index) => format!("{of_job},{COMPLETION_INDEX}={index}"),
        None => of_job,
    }
}

/// A pod of the Job, possibly this one.
#[derive(Debug, Deserialize)]
pub(super) struct Other {
    #[serde(default, deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: Option<String>,
    #[serde(deserialize_with = "readable_time")]
    creation_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "readable_time")]
    deletion_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "completion_index")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
}

fn completion_index<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    only(deserializer, &|name| name == COMPLETION_INDEX)
}

/// Counts the predecessors, one pod at a time.
#[derive(Debug)]
pub(super) struct Tally<'job> {
    job: &'job JobPod,
    failed: i32,
    is_parallel: bool,
}

impl<'job> Tally<'job> {
    pub(super) fn new(job: &'job JobPod) -> Self {
        Self {
            job,
            failed: 0,
            is_parallel: false,
        }
    }

    /// Adds a pod from the list. Returns whether the count can still be known.
    pub(super) fn add(&mut self, other: &Other) -> bool {
        let metadata = &other.metadata;
        let is_other_index = metadata.annotations.get(COMPLETION_INDEX) != self.job.index.as_ref();
        if metadata.uid.as_ref() == Some(&self.job.uid) || is_other_index {
            return true;
        }
        // Creation times have whole seconds. If two pods have the same time, the ended one came
        // first, because a Job that runs one pod at a time creates the next one only after that.
        let is_later = metadata
            .creation_timestamp
            .is_none_or(|created_at| created_at > self.job.created_at);
        let is_over = metadata.deletion_timestamp.is_some()
            || other.status.phase.as_deref() == Some("Failed");
        match (is_over, is_later) {
            // A pod that is being deleted counts as failed, and is replaced at once
            // (podReplacementPolicy).
            (true, false) => self.failed = self.failed.saturating_add(1),
            (true, true) => {}
            // The other pod replaces this one, or another one of the same index.
            (false, true) if self.job.is_deleted || self.job.index.is_some() => {}
            // The other pod runs in parallel with this one, or has succeeded, and the Job wants
            // more pods. It is then unknown to which pod the failures belong.
            (false, _) => self.is_parallel = true,
        }
        !self.is_parallel
    }

    /// How many pods failed before this one. `None` if that can't be known.
    pub(super) fn count(&self) -> Option<i32> {
        (!self.is_parallel).then_some(self.failed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, second: u32, phase: &str, index: Option<u32>) -> Value {
        let annotations = index.map(|index| json!({COMPLETION_INDEX: index.to_string()}));
        json!({
            "metadata": {
                "uid": uid, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"), "resourceVersion": "7",
                "labels": {CONTROLLER_UID: "c0ffee", "other": "x"}, "annotations": annotations
            },
            "status": {"phase": phase}
        })
    }

    fn deleted(mut pod: Value) -> Value {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        pod
    }

    fn count(own: &Value, others: &[Value]) -> Option<i32> {
        let own: Pod = serde_json::from_value(own.clone()).expect("a pod");
        let job = job_pod(&own).expect("a Job's");
        let mut tally = Tally::new(&job);
        for other in others {
            tally.add(&serde_json::from_value(other.clone()).expect("a pod"));
        }
        tally.count()
    }

    #[test]
    fn failed_pods_that_came_before_are_counted() {
        let own = pod("own", 30, "Running", None);
        let failed = |uid, second| pod(uid, second, "Failed", None);
        for (others, expected) in [
            (vec![], Some(0)),
            (vec![own.clone()], Some(0)),
            (vec![failed("a", 0), own.clone()], Some(1)),
            (vec![own.clone(), failed("a", 0), failed("b", 10)], Some(2)),
            // In the same second. Then later ones, as for a process that lists late.
            (vec![failed("a", 30)], Some(1)),
            (vec![failed("a", 31)], Some(0)),
            // The pod is replaced while its grace period is still running.
            (vec![deleted(pod("a", 0, "Running", None))], Some(1)),
            // Parallel or consecutive pods: it is unknown to which pod the failures belong.
            (vec![failed("a", 0), pod("b", 30, "Running", None)], None),
            (vec![pod("a", 0, "Succeeded", None), failed("b", 1)], None),
            (vec![pod("a", 31, "Pending", None)], None),
            (vec![json!({"status": {"phase": "Unknown"}})], None),
        ] {
            assert_eq!(count(&own, &others), expected, "{others:?}");
        }
        // Its own replacement.
        assert_eq!(
            count(&deleted(own), &[pod("a", 31, "Pending", None)]),
            Some(0)
        );
    }

    #[test]
    fn each_index_has_a_count_of_its_own() {
        let own = pod("own", 30, "Running", Some(3));
        let others = [
            pod("a", 0, "Failed", Some(3)),
            pod("b", 0, "Failed", Some(2)),
            pod("c", 0, "Running", Some(4)),
            pod("d", 0, "Failed", None),
            pod("e", 40, "Running", Some(3)),
        ];
        assert_eq!(count(&own, &others), Some(1));
        let beside = [pod("a", 0, "Running", Some(3))];
        assert_eq!(
            count(&own, &beside),
            None,
            "an older one of the same index goes on"
        );
    }

    #[test]
    fn a_pod_without_the_jobs_controller_does_not_belong_to_the_job() {
        let of = |metadata: Value| {
            let pod: Pod = serde_json::from_value(json!({"metadata": metadata})).expect("a pod");
            job_pod(&pod)
        };
        let job = |uid: &str| {
            json!({"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {CONTROLLER_UID: uid},
                   "annotations": {COMPLETION_INDEX: "4"}})
        };
        assert_eq!(
            of(json!({"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"})),
            None
        );
        assert_eq!(of(job("")), None);
        assert_eq!(of(job("a,b=c")), None);
        let indexed = of(job("a-1")).expect("a Job's");
        assert_eq!(
            selector(&indexed),
            "batch.kubernetes.io/controller-uid=a-1,batch.kubernetes.io/job-completion-index=4"
        );
        let mut odd = job("a-1");
        odd["annotations"][COMPLETION_INDEX] = json!("4,x=y");
        assert!(!selector(&of(odd).expect("a Job's")).contains(','));
    }

    proptest! {
        /// For any pods of a Job, the count is the number of earlier failures, or unknown.
        #[test]
        fn a_count_is_that_of_older_pods_which_are_over(
            pods in proptest::collection::vec((0..60u32, 0..5usize, any::<bool>(), proptest::option::of(0..2u32)), 0..12),
            index in proptest::option::of(0..2u32),
        ) {
            let phases = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
            let own = pod("own", 30, "Running", index);
            let others: Vec<Value> = pods.iter().enumerate().map(|(nth, (second, phase, is_deleted, index))| {
                let other = pod(&nth.to_string(), *second, phases[*phase], *index);
                if *is_deleted { deleted(other) } else { other }
            }).collect();
            let same = pods.iter().filter(|(_, _, _, of)| *of == index);
            let before = same.clone().filter(|(second, _, _, _)| *second <= 30);
            let is_over = |(_, phase, is_deleted, _): &&(u32, usize, bool, Option<u32>)| *phase == 3 || *is_deleted;
            let known = before.clone().all(|it| is_over(&it)) && (index.is_some() || same.clone().all(|it| is_over(&it)));
            let expected = known.then(|| i32::try_from(before.count()).unwrap_or(i32::MAX));
            prop_assert_eq!(count(&own, &others), expected);
        }
    }
}
