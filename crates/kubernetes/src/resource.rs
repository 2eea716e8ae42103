//! The slice of a Pod that podbeat parses.
//!
//! A pod of 16 KB contains about 1 KB that podbeat needs. The parser skips other fields
//! (managedFields, env, volumes) without storing them. Every member may be absent or null, because
//! the API server writes both. An unreadable time counts as absent, so that one unusual member does
//! not hide the whole pod.
//!
//! The size of a parsed pod is limited, whoever wrote it. Lists have limits, maps keep only the
//! names that podbeat reads, and a pod of which more than 512 KiB of text would be kept is refused.
//! Otherwise a list of a million `{}`, 3 MB of JSON, would take hundreds of MB.

mod read;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use read::{annotations, devices, hardware, labels, node_labels, optional, required_labels};
pub(crate) use read::{at_most, only, or_default, readable_time};
#[cfg(feature = "kubeconfig")]
use serde::Serialize;
use serde::{Deserialize, Deserializer};
#[cfg(feature = "kubeconfig")]
use serde_json::{Value, json};

/// Limit for the texts that are kept of a pod, in bytes. The kubelet limits the termination
/// messages of a whole pod to 12 KiB. Names, IDs and reasons of a container take 300 bytes.
const MOST_TEXT: usize = 512 << 10;

/// Limit for the containers, and for the container statuses, of either kind. A node runs 110 pods
/// with a few containers each.
const CONTAINERS: usize = 1024;

/// Limit for the restart rules of a container. The API server accepts 20.
const RULES: usize = 32;

/// Limit for the exit codes of a rule. The API server accepts 255.
const CODES: usize = 255;

/// Limit for the conditions of a pod. Kubernetes itself sets ten.
const CONDITIONS: usize = 256;

/// The pod, reduced to the fields that podbeat reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(try_from = "Unweighed")]
pub struct Pod {
    /// Name, namespace, UID, resourceVersion, creation, deletion, and the labels and annotations
    /// that podbeat reads. Nothing else is set.
    pub metadata: ObjectMeta,
    /// The desired pod.
    pub spec: PodSpec,
    /// What the kubelet last reported.
    pub status: PodStatus,
}

/// A pod whose size has not been checked yet.
#[derive(Deserialize)]
struct Unweighed {
    #[serde(default, deserialize_with = "slim_metadata")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: PodSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: PodStatus,
}

/// The pod exceeds the limit for its texts.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the texts of the pod's containers and states exceed {} KiB", MOST_TEXT >> 10)]
pub struct TooLarge;

impl TryFrom<Unweighed> for Pod {
    type Error = TooLarge;

    fn try_from(pod: Unweighed) -> Result<Self, TooLarge> {
        let Unweighed {
            metadata,
            spec,
            status,
        } = pod;
        let pod = Self {
            metadata,
            spec,
            status,
        };
        (pod.text() <= MOST_TEXT).then_some(pod).ok_or(TooLarge)
    }
}

/// The parts of `spec` that decide whether a container will run again, and that describe the pod's
/// node.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// If absent, `Always` (Kubernetes' default).
    pub restart_policy: Option<String>,
    /// In seconds. If absent, 30 (Kubernetes' default).
    pub termination_grace_period_seconds: Option<i64>,
    /// The node to which the pod is bound.
    pub node_name: Option<String>,
    /// Only labels about hardware, such as the instance type that the pod requires.
    #[serde(deserialize_with = "node_labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Regular containers, in the order of the spec.
    #[serde(deserialize_with = "at_most::<CONTAINERS, _, _>")]
    pub containers: Vec<ContainerSpec>,
    /// Init containers and native sidecars, in the order of the spec.
    #[serde(deserialize_with = "at_most::<CONTAINERS, _, _>")]
    pub init_containers: Vec<ContainerSpec>,
    /// Labels about hardware for which the required node affinity accepts only one value.
    #[serde(deserialize_with = "required_labels")]
    #[cfg_attr(feature = "kubeconfig", serde(serialize_with = "written::affinity"))]
    pub affinity: BTreeMap<String, String>,
    /// The names of the ResourceClaims that the spec names (KEP-4381).
    #[serde(deserialize_with = "hardware")]
    #[cfg_attr(feature = "kubeconfig", serde(serialize_with = "written::claims"))]
    pub resource_claims: BTreeMap<String, String>,
}

/// One container of the spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSpec {
    /// Unique within the pod.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `Always` makes an init container a native sidecar (1.29). Since 1.34, any container may have
    /// its own policy (KEP-5307).
    pub restart_policy: Option<String>,
    /// Rules by exit code. They have precedence over the container's restartPolicy (1.34,
    /// KEP-5307).
    #[serde(deserialize_with = "at_most::<RULES, _, _>")]
    pub restart_policy_rules: Vec<RestartRule>,
    /// Only the limits of extended resources, such as `nvidia.com/gpu`.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
}

/// One entry of `restartPolicyRules`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct RestartRule {
    /// `Restart`, or since 1.35 `RestartAllContainers`.
    pub action: Option<String>,
    /// When the rule applies.
    #[serde(deserialize_with = "optional")]
    pub exit_codes: Option<ExitCodes>,
}

/// The exit codes to which a restart rule applies.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct ExitCodes {
    /// `In` or `NotIn`.
    pub operator: Option<String>,
    /// At most 255, according to the API's validation.
    #[serde(deserialize_with = "at_most::<CODES, _, _>")]
    pub values: Vec<i32>,
}

/// A container's resources.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Names and quantities of devices, as Kubernetes writes them.
    #[serde(deserialize_with = "devices")]
    pub limits: BTreeMap<String, String>,
}

/// The parts of `status` that are reported or decide the end.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// Why the pod is in that phase, such as `Evicted` or `DeadlineExceeded`.
    pub reason: Option<String>,
    /// An explanation for people.
    pub message: Option<String>,
    /// The conditions of the pod.
    #[serde(deserialize_with = "at_most::<CONDITIONS, _, _>")]
    pub conditions: Vec<Condition>,
    /// Regular containers.
    #[serde(deserialize_with = "at_most::<CONTAINERS, _, _>")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers and native sidecars.
    #[serde(deserialize_with = "at_most::<CONTAINERS, _, _>")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// The names of the ResourceClaims that Kubernetes created for the pod from templates.
    #[serde(deserialize_with = "hardware")]
    #[cfg_attr(feature = "kubeconfig", serde(serialize_with = "written::claims"))]
    pub resource_claim_statuses: BTreeMap<String, String>,
}

/// One entry of `conditions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// For example `Ready`, `DisruptionTarget` or `AllContainersRestarting`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    /// A reason in one word.
    pub reason: Option<String>,
    /// Free text.
    pub message: Option<String>,
}

/// One container, as the kubelet last reported it.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// The container's name in the spec.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// How often the container was restarted.
    #[serde(deserialize_with = "or_default")]
    pub restart_count: i32,
    /// The current state.
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerState,
    /// The state before the last restart.
    #[serde(deserialize_with = "or_default")]
    pub last_state: ContainerState,
    /// The devices of the container, by ID, with their health (KEP-4680, on by default since
    /// Kubernetes 1.36).
    #[serde(deserialize_with = "hardware")]
    #[cfg_attr(feature = "kubeconfig", serde(serialize_with = "written::allocated"))]
    pub allocated_resources_status: BTreeMap<String, String>,
}

/// A container's state. According to the API, at most one member is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(default)]
pub struct ContainerState {
    /// The container has not started, or waits for its next run.
    #[serde(deserialize_with = "optional")]
    pub waiting: Option<Waiting>,
    /// The container is running.
    #[serde(deserialize_with = "optional")]
    pub running: Option<Running>,
    /// The container has ended.
    #[serde(deserialize_with = "optional")]
    pub terminated: Option<Terminated>,
}

/// `state.waiting`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(default)]
pub struct Waiting {
    /// A reason such as `ContainerCreating` or `ImagePullBackOff`.
    pub reason: Option<String>,
    /// Free text.
    pub message: Option<String>,
}

/// `state.running`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// In whole seconds.
    #[serde(deserialize_with = "readable_time")]
    pub started_at: Option<Timestamp>,
}

/// `state.terminated`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "kubeconfig", derive(Serialize))]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// The API requires it, so it is absent only in a broken response. Absence never means 0.
    pub exit_code: Option<i32>,
    /// The signal that ended the container, if the runtime reports it.
    pub signal: Option<i32>,
    /// A reason such as `Completed`, `Error` or `OOMKilled`.
    pub reason: Option<String>,
    /// The termination message. The kubelet limits it to 4 KiB.
    pub message: Option<String>,
    /// In whole seconds. 1970 for a container that could not be started.
    #[serde(deserialize_with = "readable_time")]
    pub started_at: Option<Timestamp>,
    /// In whole seconds.
    #[serde(deserialize_with = "readable_time")]
    pub finished_at: Option<Timestamp>,
    /// For example `containerd://…`.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
}

impl Pod {
    /// The size of all kept texts, in bytes.
    fn text(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let of_map = |map: &BTreeMap<String, String>| -> usize {
            map.iter()
                .map(|(name, value)| name.len() + value.len())
                .sum()
        };
        let of_state = |state: &ContainerState| {
            let waiting = state
                .waiting
                .as_ref()
                .map_or(0, |it| length(&it.reason) + length(&it.message));
            let terminated = state.terminated.as_ref().map_or(0, |it| {
                length(&it.reason) + length(&it.message) + length(&it.container_id)
            });
            waiting + terminated
        };
        let of_rule = |rule: &RestartRule| {
            let codes = rule.exit_codes.as_ref();
            length(&rule.action) + codes.map_or(0, |codes| length(&codes.operator))
        };
        let (metadata, spec, status) = (&self.metadata, &self.spec, &self.status);
        let one = [
            &metadata.name,
            &metadata.namespace,
            &metadata.uid,
            &metadata.resource_version,
            &spec.restart_policy,
            &spec.node_name,
            &status.phase,
            &status.reason,
            &status.message,
        ];
        let maps = [metadata.labels.as_ref(), metadata.annotations.as_ref()];
        let maps = maps.into_iter().flatten().chain([
            &spec.node_selector,
            &spec.affinity,
            &spec.resource_claims,
            &status.resource_claim_statuses,
        ]);
        let specs = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .map(|it| {
                let rules: usize = it.restart_policy_rules.iter().map(of_rule).sum();
                it.name.len() + length(&it.restart_policy) + rules + of_map(&it.resources.limits)
            });
        let statuses = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses);
        let statuses = statuses.map(|it| {
            let devices = of_map(&it.allocated_resources_status);
            it.name.len() + of_state(&it.state) + of_state(&it.last_state) + devices
        });
        let conditions = status
            .conditions
            .iter()
            .map(|it| it.kind.len() + it.status.len() + length(&it.reason) + length(&it.message));
        one.into_iter().map(length).sum::<usize>()
            + maps.map(of_map).sum::<usize>()
            + specs.sum::<usize>()
            + statuses.sum::<usize>()
            + conditions.sum::<usize>()
    }
}

#[cfg(feature = "kubeconfig")]
impl Pod {
    /// Returns everything that podbeat reads of the pod, as an object of the API. Commands,
    /// variables, volumes and other parts of the spec are not included, nor are unused labels and
    /// annotations (kubectl stores a whole spec in one of them). When it is parsed again, it means
    /// the same.
    #[must_use]
    pub fn to_object(&self) -> Value {
        let mut object = json!({"kind": "Pod", "apiVersion": "v1"});
        if let (Some(object), Ok(Value::Object(members))) =
            (object.as_object_mut(), serde_json::to_value(self))
        {
            object.extend(members);
        }
        leave_absent_out(&mut object);
        object
    }
}

/// Writes again what is kept in another form than the API's.
#[cfg(feature = "kubeconfig")]
mod written {
    use std::collections::BTreeMap;

    use serde::{Serialize, Serializer};
    use serde_json::{Value, json};

    pub(super) fn affinity<S: Serializer>(
        labels: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let expressions: Vec<Value> = labels
            .iter()
            .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}))
            .collect();
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
        let required =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        (!labels.is_empty())
            .then_some(required)
            .serialize(serializer)
    }

    pub(super) fn claims<S: Serializer>(
        claims: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(claims.keys().map(|name| json!({"resourceClaimName": name})))
    }

    pub(super) fn allocated<S: Serializer>(
        devices: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let devices: Vec<Value> = devices
            .iter()
            .map(|(id, health)| json!({"resourceID": id, "health": health}))
            .collect();
        let resource = (!devices.is_empty()).then(|| json!({"resources": devices}));
        serializer.collect_seq(resource)
    }
}

/// Removes members that are null or empty lists, because an API server writes neither. An object
/// without members stays, because it may be a state.
#[cfg(feature = "kubeconfig")]
fn leave_absent_out(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| {
                !member.is_null() && member.as_array().is_none_or(|list| !list.is_empty())
            });
            members.values_mut().for_each(leave_absent_out);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_absent_out),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The parts of `metadata` that are kept. `managedFields` alone is often half of a pod.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    #[serde(deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "annotations")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "readable_time")]
    creation_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "readable_time")]
    deletion_timestamp: Option<Timestamp>,
    deletion_grace_period_seconds: Option<i64>,
}

fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let slim: SlimMetadata = or_default(deserializer)?;
    let some = |map: BTreeMap<String, String>| (!map.is_empty()).then_some(map);
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        labels: some(slim.labels),
        annotations: some(slim.annotations),
        creation_timestamp: slim.creation_timestamp.map(Time::from),
        deletion_timestamp: slim.deletion_timestamp.map(Time::from),
        deletion_grace_period_seconds: slim.deletion_grace_period_seconds,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::captured::Captured;
    use crate::retries::{COMPLETION_INDEX, CONTROLLER_UID};
    use crate::status::JOB_INDEX_FAILURE_COUNT;

    #[test]
    fn null_is_absent_everywhere() {
        // No API server writes null for all of these, but a client in between may.
        let pod = Captured::when("e2e/fact-5", "main", "running")
            .with("/metadata/labels", Value::Null)
            .with("/metadata/deletionTimestamp", Value::Null)
            .with("/spec/containers", Value::Null)
            .with("/spec/initContainers", Value::Null)
            .with("/spec/nodeSelector", Value::Null)
            .with("/status/initContainerStatuses", Value::Null)
            .with("/status/containerStatuses/0/state", Value::Null)
            .with(
                "/status/containerStatuses/0/lastState/terminated",
                Value::Null,
            )
            .with("/status/containerStatuses/0/restartCount", Value::Null)
            .pod::<Pod>();
        assert_eq!(pod.status.container_statuses.len(), 1);
        let main = &pod.status.container_statuses[0];
        assert_eq!(main.name, "main");
        assert!(main.state.running.is_none() && main.last_state.terminated.is_none());
        assert_eq!(main.restart_count, 0);
        assert!(pod.spec.containers.is_empty() && pod.spec.init_containers.is_empty());
        assert!(pod.status.init_container_statuses.is_empty());
        // An API server would not write this either.
        let nothing: Pod =
            serde_json::from_value(json!({"metadata": null, "spec": null, "status": null}))
                .expect("all null");
        assert_eq!(nothing.metadata, ObjectMeta::default());
    }

    fn terminated(pod: &Captured) -> Terminated {
        let status = pod.pod::<Pod>().status.container_statuses.swap_remove(0);
        status.state.terminated.expect("terminated")
    }

    #[test]
    fn null_times_are_ordinary() {
        let pod = Captured::when("e2e/no-image-native", "main", "terminated");
        for member in ["startedAt", "finishedAt"] {
            let said = pod.said(&format!(
                "/status/containerStatuses/0/state/terminated/{member}"
            ));
            assert_eq!(*said, Value::Null, "{member}");
        }
        let terminated = terminated(&pod);
        assert_eq!(
            (terminated.started_at, terminated.finished_at),
            (None, None)
        );
        assert_eq!(terminated.exit_code, Some(137));
    }

    #[test]
    fn odd_times_do_not_hide_the_pod() {
        let pod = Captured::when("i-badcmd", "main", "terminated");
        let started_at = terminated(&pod).started_at.map(|time| time.to_string());
        assert_eq!(
            started_at.as_deref(),
            Some("1970-01-01T00:00:00Z"),
            "it never started"
        );
        // Year 1 is Go's zero time, which kubelets have written. No API server accepts the word.
        let pod = pod
            .with(
                "/status/containerStatuses/0/state/terminated/startedAt",
                json!("0001-01-01T00:00:00Z"),
            )
            .with(
                "/status/containerStatuses/0/state/terminated/finishedAt",
                json!("yesterday"),
            );
        let terminated = terminated(&pod);
        assert_eq!(
            terminated.started_at.map(|t| t.to_string()).as_deref(),
            Some("0001-01-01T00:00:00Z")
        );
        assert_eq!(terminated.finished_at, None);
        assert_eq!(terminated.exit_code, Some(128));
    }

    #[test]
    fn only_the_needed_metadata_is_kept() {
        // The captures were recorded without managedFields, but every API server writes them.
        let fields = json!([{"manager": "kubelet", "operation": "Update"}]);
        let pod = Captured::when("e2e/job-indexed-native", "main", "running")
            .with("/metadata/managedFields", fields);
        let metadata = pod.pod::<Pod>().metadata;
        assert_eq!(metadata.managed_fields, None);
        assert!(
            pod.said("/metadata/ownerReferences").is_array() && metadata.owner_references.is_none()
        );
        assert!(pod.said("/metadata/finalizers").is_array() && metadata.finalizers.is_none());
        let said = |member: &str| pod.said(&format!("/metadata/{member}")).clone();
        assert_eq!(json!(metadata.uid), said("uid"));
        assert_eq!(json!(metadata.name), said("name"));
        assert_eq!(json!(metadata.namespace), said("namespace"));
        assert_eq!(json!(metadata.resource_version), said("resourceVersion"));
        let read = |map: Option<BTreeMap<String, String>>| {
            map.unwrap_or_default().into_keys().collect::<Vec<_>>()
        };
        assert!(
            said("labels")
                .as_object()
                .is_some_and(|labels| labels.len() > 1)
        );
        assert_eq!(read(metadata.labels), [CONTROLLER_UID]);
        assert_eq!(
            read(metadata.annotations),
            [COMPLETION_INDEX, JOB_INDEX_FAILURE_COUNT]
        );
    }

    #[cfg(feature = "kubeconfig")]
    #[test]
    fn the_object_has_the_meaning_of_the_pod_and_nothing_else() {
        for name in podbeat_lab::capture::Capture::names().expect("captures") {
            let capture = podbeat_lab::capture::Capture::named(&name).expect("a capture");
            for shown in capture.pods() {
                let pod: Pod = serde_json::from_value(shown.clone()).expect("a pod");
                let object = pod.to_object();
                let again: Pod = serde_json::from_value(object.clone()).expect("a pod again");
                assert_eq!(
                    crate::status::observe(&again, capture.sidecar()),
                    crate::status::observe(&pod, capture.sidecar())
                );
                assert_eq!(again.to_object(), object, "{name}");
                assert_eq!(again.status.phase, pod.status.phase);
                assert_eq!(again.metadata.name, pod.metadata.name);
                assert_eq!(
                    again.metadata.resource_version,
                    pod.metadata.resource_version
                );
                is_part_of(&object, shown);
            }
        }
        let spec = json!([{"name": "main", "command": ["hunter2"], "args": ["hunter2"], "image": "hunter2",
            "env": [{"name": "PASSWORD", "value": "hunter2"}]}]);
        // Devices and claims, which no capture has. `name` is not read, so it is not written.
        let expression =
            json!({"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A100"]});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
        let devices = json!([{"resourceID": "GPU-1", "health": "Unhealthy"}]);
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        let pod = Captured::when("e2e/job-indexed-native", "main", "running")
            .with("/spec/affinity", affinity)
            .with(
                "/spec/resourceClaims",
                json!([{"name": "one", "resourceClaimName": "shared"}]),
            )
            .with(
                "/status/resourceClaimStatuses",
                json!([{"name": "gpu", "resourceClaimName": "task-gpu-x2p8v"}]),
            )
            .with(
                "/status/containerStatuses/0/allocatedResourcesStatus",
                json!([{"name": "nvidia.com/gpu", "resources": devices}]),
            );
        let (said, object) = (pod.said("").clone(), pod.pod::<Pod>().to_object());
        let again: Pod = serde_json::from_value(object.clone()).expect("a pod again");
        assert_eq!(
            crate::status::observe(&again, "podbeat"),
            crate::status::observe(&pod.pod::<Pod>(), "podbeat")
        );
        is_part_of(&object, &said);
        assert!(object.to_string().contains("GPU-1"), "{object}");
        let secretive = Captured::when("e2e/job-indexed-native", "main", "running")
            .with("/spec/containers", spec)
            .with("/metadata/labels/secret", json!("hunter2"))
            .with(
                "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration",
                json!("{\"env\": \"hunter2\"}"),
            );
        let object = secretive.pod::<Pod>().to_object().to_string();
        assert!(!object.contains("hunter2"), "{object}");
        assert!(object.contains("job-index-failure-count"), "{object}");
    }

    /// Asserts that one value contains nothing that the other does not. Times may have another
    /// form.
    #[cfg(feature = "kubeconfig")]
    #[track_caller]
    fn is_part_of(part: &Value, whole: &Value) {
        match (part, whole) {
            (Value::Object(part), _) => {
                for (name, member) in part {
                    // A member with a default may be absent.
                    let absent = matches!(member, Value::Object(members) if members.is_empty());
                    let beside = whole.get(name).filter(|beside| !beside.is_null());
                    match beside {
                        Some(beside) => is_part_of(member, beside),
                        None => assert!(
                            absent || name == "limits" || member == &json!({"limits": {}}),
                            "{name}: {member}"
                        ),
                    }
                }
            }
            (Value::Array(part), Value::Array(whole)) => {
                assert_eq!(part.len(), whole.len());
                part.iter()
                    .zip(whole)
                    .for_each(|(part, whole)| is_part_of(part, whole));
            }
            _ => assert_eq!(part, whole),
        }
    }

    #[test]
    fn limits_are_read_from_the_spec_and_not_from_the_status() {
        // If no limit was requested, a kubelet may show the value of the cgroup as the limit.
        let pod = Captured::last("e2e/deadline-native");
        assert!(pod.said("/status/resources/limits/memory").is_string());
        assert!(
            pod.said("/spec/containers/0/resources")
                .as_object()
                .is_some_and(|all| all.is_empty())
        );
        assert!(
            pod.pod::<Pod>().spec.containers[0]
                .resources
                .limits
                .is_empty()
        );
        let limits =
            json!({"nvidia.com/gpu": "2", "amd.com/gpu": 1, "a.b/c": null, "memory": "1Gi"});
        let pod = Captured::new("g-oom").with("/spec/containers/0/resources/limits", limits);
        let limits = &pod.pod::<Pod>().spec.containers[0].resources.limits;
        assert_eq!(
            json!(limits),
            json!({"nvidia.com/gpu": "2", "amd.com/gpu": "1"})
        );
    }

    /// Repeated items: cheap to write, expensive to keep.
    fn many(item: &str, count: usize) -> String {
        vec![item; count].join(",")
    }

    #[test]
    fn the_kept_part_of_a_pod_is_bounded() {
        let long = "x".repeat(MOST_TEXT + 1);
        for (pod, why) in [
            (
                format!(
                    r#"{{"spec":{{"containers":[{}]}}}}"#,
                    many("{}", CONTAINERS + 1)
                ),
                "1024",
            ),
            (
                format!(
                    r#"{{"spec":{{"initContainers":[{}]}}}}"#,
                    many("{}", 1 << 20)
                ),
                "1024",
            ),
            (
                format!(
                    r#"{{"status":{{"containerStatuses":[{}]}}}}"#,
                    many("{}", 1 << 20)
                ),
                "1024",
            ),
            (
                format!(
                    r#"{{"status":{{"initContainerStatuses":[{}]}}}}"#,
                    many("{}", 1 << 20)
                ),
                "1024",
            ),
            (
                format!(r#"{{"status":{{"conditions":[{}]}}}}"#, many("{}", 1 << 20)),
                "256",
            ),
            (
                format!(
                    r#"{{"spec":{{"containers":[{{"restartPolicyRules":[{}]}}]}}}}"#,
                    many("{}", 1 << 20)
                ),
                "32",
            ),
            (
                format!(
                    r#"{{"spec":{{"containers":[{{"restartPolicyRules":[{{"exitCodes":{{"values":[{}]}}}}]}}]}}}}"#,
                    many("1", 1 << 20)
                ),
                "255",
            ),
            (format!(r#"{{"metadata":{{"uid":"{long}"}}}}"#), "512 KiB"),
            (format!(r#"{{"status":{{"message":"{long}"}}}}"#), "512 KiB"),
            (
                format!(r#"{{"spec":{{"resourceClaims":[{{"resourceClaimName":"{long}"}}]}}}}"#),
                "512 KiB",
            ),
            (
                format!(
                    r#"{{"status":{{"containerStatuses":[{{"allocatedResourcesStatus":[{{"resources":[{{"resourceID":"{long}"}}]}}]}}]}}}}"#
                ),
                "512 KiB",
            ),
            (
                format!(
                    r#"{{"status":{{"containerStatuses":[{}]}}}}"#,
                    many(
                        &format!(
                            r#"{{"lastState":{{"terminated":{{"message":"{}"}}}}}}"#,
                            "x".repeat(6000)
                        ),
                        100
                    )
                ),
                "512 KiB",
            ),
        ] {
            let error = serde_json::from_str::<Pod>(&pod)
                .expect_err(why)
                .to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        // Unused entries cost nothing, and the entries that are kept have a limit.
        let entries = |of: &str| {
            let all: Vec<String> = (0..100_000)
                .map(|nth| format!(r#""{of}{nth}":"1""#))
                .collect();
            all.join(",")
        };
        let many_devices = many(r#"{"resourceID":"1","health":"Healthy"}"#, 1 << 16);
        let many_claims = many(r#"{"resourceClaimName":"c"}"#, 1 << 16);
        let pod = format!(
            r#"{{"spec":{{"resourceClaims":[{many_claims}]}},"status":{{"resourceClaimStatuses":[{many_claims}],
            "containerStatuses":[{{"allocatedResourcesStatus":[{{"resources":[{many_devices}]}}]}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&pod).expect("a pod");
        assert!(pod.spec.resource_claims.is_empty());
        assert!(pod.status.resource_claim_statuses.is_empty());
        let devices = &pod.status.container_statuses[0].allocated_resources_status;
        assert!(devices.is_empty());
        let pod = format!(
            r#"{{"metadata":{{"labels":{{{labels}}},"annotations":{{{labels}}}}},"spec":{{"nodeSelector":{{{labels}}},
            "containers":[{{"resources":{{"limits":{{{devices}}}}}}}]}}}}"#,
            labels = entries("example.org/"),
            devices = entries("example.org/device-")
        );
        let pod: Pod = serde_json::from_str(&pod).expect("a pod");
        assert_eq!(
            (&pod.metadata.labels, &pod.metadata.annotations),
            (&None, &None)
        );
        assert!(pod.spec.node_selector.is_empty());
        assert_eq!(pod.spec.containers[0].resources.limits.len(), 64);
    }

    #[test]
    fn a_pod_of_many_containers_is_read() {
        let names = |nth: usize| format!("container-{nth}");
        let specs: Vec<Value> = (0..500).map(|nth| json!({"name": names(nth)})).collect();
        let statuses: Vec<Value> = (0..500)
            .map(|nth| {
                json!({"name": names(nth), "state": {"terminated": {"exitCode": 1, "reason": "Error",
                    "containerID": format!("containerd://{}", "0".repeat(64)), "message": "x".repeat(500)}}})
            })
            .collect();
        let pod = json!({"spec": {"containers": specs}, "status": {"containerStatuses": statuses}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(pod.status.container_statuses.len(), 500);
    }
}
