//! What a pod shows of its hardware, as one text. Pure.
//!
//! podbeat has no right to read nodes and resource claims. So it knows of a node's labels only what
//! the pod itself repeats, and of a claim only its name.

use super::resource::Pod;

/// Limit for the text, in bytes. Every heartbeat contains it. Eight GPUs with their IDs need 500.
const LONGEST: usize = 1024;

/// The parts that come from labels of the node, with their labels, in the order of the text. Of
/// several labels for one part, the first that the pod shows counts.
const LABELS: [(&str, &str); 8] = [
    // https://kubernetes.io/docs/reference/labels-annotations-taints/. The API server copies the
    // zone from the node to the pod (KEP-4742, on by default since Kubernetes 1.35).
    ("instance-type", "node.kubernetes.io/instance-type"),
    ("zone", "topology.kubernetes.io/zone"),
    // NVIDIA GPU Feature Discovery. The name ends with the profile if all GPUs of the node have the
    // same MIG devices.
    ("gpu", "nvidia.com/gpu.product"),
    // The node labeller of AMD's device plugin.
    ("gpu", "amd.com/gpu.product-name"),
    // GKE, for GPUs and TPUs.
    ("gpu", "cloud.google.com/gke-accelerator"),
    ("gpu", "cloud.google.com/gke-tpu-accelerator"),
    // Karpenter and Amazon EKS Auto Mode.
    ("gpu", "karpenter.k8s.aws/instance-gpu-name"),
    ("gpu", "eks.amazonaws.com/instance-gpu-name"),
];

/// The health of a device that does not work (KEP-4680).
const UNHEALTHY: &str = "Unhealthy";

/// Whether this label says something about the hardware of a node.
pub(super) fn is_label(name: &str) -> bool {
    LABELS.iter().any(|(_, label)| *label == name)
}

/// Extended resources have a domain (`nvidia.com/gpu`). Kubernetes' own resources (`cpu`,
/// `hugepages-2Mi`) have none.
pub(super) fn is_device(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

/// For example `node=…; instance-type=…; gpu=…; devices=nvidia.com/gpu:2; claims=…; device-ids=…`.
/// Parts that the pod does not show are omitted.
pub(super) fn details(pod: &Pod) -> Option<String> {
    let (spec, status) = (&pod.spec, &pod.status);
    let mut text = Text::default();
    text.add("node", spec.node_name.as_deref().unwrap_or_default(), "");
    for (part, label) in LABELS {
        if text.part != part {
            text.add(part, node_label(pod, label), "");
        }
    }
    for (name, quantity) in spec.containers.iter().flat_map(|it| &it.resources.limits) {
        text.add("devices", name, quantity);
    }
    let claims = spec.resource_claims.iter();
    for (name, _) in claims.chain(&status.resource_claim_statuses) {
        text.add("claims", name, "");
    }
    let statuses = status.container_statuses.iter();
    for (id, health) in statuses.flat_map(|it| &it.allocated_resources_status) {
        // Many drivers do not know the health.
        let health = Some(health.as_str()).filter(|health| *health == UNHEALTHY);
        text.add("device-ids", id, health.unwrap_or_default());
    }
    text.text.truncate(text.text.floor_char_boundary(LONGEST));
    Some(text.text).filter(|text| !text.is_empty())
}

#[derive(Default)]
struct Text {
    text: String,
    part: &'static str,
}

impl Text {
    /// Adds an item to a part, except an empty one. A text that is too long gets no further item.
    fn add(&mut self, part: &'static str, item: &str, value: &str) {
        if item.is_empty() || self.text.len() > LONGEST {
            return;
        }
        let start = if self.part == part {
            [",", "", ""]
        } else {
            let separator = if self.text.is_empty() { "" } else { "; " };
            [separator, part, "="]
        };
        self.part = part;
        let colon = if value.is_empty() { "" } else { ":" };
        self.text
            .extend(start.into_iter().chain([item, colon, value]));
    }
}

/// A label of the pod's node, as far as the pod shows it: in its own labels, in its nodeSelector,
/// or as the only value that its required node affinity accepts. Otherwise empty.
fn node_label<'pod>(pod: &'pod Pod, label: &str) -> &'pod str {
    let (own, spec) = (pod.metadata.labels.as_ref(), &pod.spec);
    let mut maps = own.into_iter().chain([&spec.node_selector, &spec.affinity]);
    maps.find_map(|map| map.get(label))
        .map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::captured::{Captured, Observe};

    /// The details of a pod with these members. It runs on a node of a captured pod.
    #[track_caller]
    fn shown<const N: usize>(members: [(&str, Value); N]) -> String {
        let pod = Captured::when("e2e/job-indexed-native", "main", "running");
        let pod = members
            .into_iter()
            .fold(pod, |pod, (path, value)| pod.with(path, value));
        let details = pod.observe().hardware_details.expect("a text");
        let after_node = details.strip_prefix("node=e2e-node").expect("the node");
        after_node.trim_start_matches("; ").to_owned()
    }

    const LABELS: &str = "/metadata/labels";
    const SELECTOR: &str = "/spec/nodeSelector";
    const LIMITS: &str = "/spec/containers/0/resources/limits";
    const DEVICES: &str = "/status/containerStatuses/0/allocatedResourcesStatus";

    #[test]
    fn a_pod_without_devices_shows_only_its_node() {
        assert_eq!(shown([]), "");
        // The pod has requested resources, but has no node yet.
        let pod = Captured::new("e2e/job-indexed-native");
        assert_eq!(pod.observe().hardware_details, None);
        // A memory limit is not a device.
        let pod = Captured::when("g-oom", "main", "waiting");
        let memory = pod.said("/spec/containers/0/resources/limits/memory");
        assert!(memory.is_string());
        assert_eq!(pod.observe().hardware_details.as_deref(), Some("node=vm"));
        let limits = json!({"cpu": "1", "hugepages-2Mi": "4Mi", "attachable.kubernetes.io/x": "1"});
        assert_eq!(shown([(LIMITS, limits)]), "");
        // Nor are resources of the whole pod (KEP-2837).
        let resources = json!({"limits": {"cpu": "2", "memory": "1Gi"}});
        assert_eq!(shown([("/spec/resources", resources)]), "");
    }

    #[test]
    fn one_gpu_of_a_model_that_the_pod_selects() {
        let selector = json!({
            "node.kubernetes.io/instance-type": "p4d.24xlarge",
            "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
            "kubernetes.io/os": "linux",
        });
        // The device plugin's IDs are the UUIDs of the GPUs.
        let devices = json!([{"name": "nvidia.com/gpu", "resources": [
            {"resourceID": "GPU-8cea5e2b-0d8f-4b3c-9c1d-1f2e3a4b5c6d", "health": "Healthy"}]}]);
        assert_eq!(
            shown([
                (
                    "/metadata/labels/topology.kubernetes.io~1zone",
                    json!("eu-west-1a")
                ),
                (SELECTOR, selector),
                (LIMITS, json!({"nvidia.com/gpu": "1", "memory": "8Gi"})),
                (DEVICES, devices),
            ]),
            "instance-type=p4d.24xlarge; zone=eu-west-1a; gpu=NVIDIA-A100-SXM4-40GB; \
             devices=nvidia.com/gpu:1; device-ids=GPU-8cea5e2b-0d8f-4b3c-9c1d-1f2e3a4b5c6d"
        );
    }

    #[test]
    fn claims_of_the_pod_and_claims_made_from_a_template() {
        // As the API server shows a pod of the first example in Kubernetes' documentation of
        // dynamic resource allocation. The driver's ID of the device is a CDI name.
        let claims = json!([
            {"name": "gpu", "resourceClaimTemplateName": "single-gpu"},
            {"name": "shared", "resourceClaimName": "team-gpu"},
            {"name": "unused", "resourceClaimTemplateName": "no-gpu"},
        ]);
        let statuses = json!([
            {"name": "gpu", "resourceClaimName": "my-task-x7k2p-gpu-q9w4z"},
            // Kubernetes had to create no claim for it.
            {"name": "unused"},
        ]);
        let id = "k8s.gpu.nvidia.com/claim=0a1b2c3d-gpu-0";
        let devices = json!([{"name": "claim:gpu/gpu", "resources": [
            {"resourceID": id, "health": "Unknown", "message": "hunter2"}]}]);
        assert_eq!(
            shown([
                ("/spec/resourceClaims", claims),
                ("/status/resourceClaimStatuses", statuses),
                (DEVICES, devices),
            ]),
            format!("claims=team-gpu,my-task-x7k2p-gpu-q9w4z; device-ids={id}")
        );
    }

    #[test]
    fn parts_of_a_gpu_and_several_containers() {
        // Two MIG devices, of NVIDIA's strategy "mixed".
        let one = json!({"name": "main", "resources": {"limits": {"nvidia.com/mig-1g.5gb": "2"}}});
        let two =
            json!({"name": "side", "resources": {"limits": {"rdma/hca": 1, "a.com/fpga": "1"}}});
        // The kubelet writes devices in another order each time.
        let (a, b) = ("MIG-4a7e", "MIG-9f01");
        let devices = json!([{"name": "nvidia.com/mig-1g.5gb", "resources": [
            {"resourceID": b, "health": "Unhealthy"}, {"health": "Healthy", "resourceID": a}]}]);
        assert_eq!(
            shown([
                ("/spec/containers", json!([one, two])),
                (
                    LABELS,
                    json!({"nvidia.com/gpu.product": "A100-SXM4-40GB-MIG-1g.5gb"})
                ),
                (DEVICES, devices),
            ]),
            "gpu=A100-SXM4-40GB-MIG-1g.5gb; devices=nvidia.com/mig-1g.5gb:2,a.com/fpga:1,rdma/hca:1; \
             device-ids=MIG-4a7e,MIG-9f01:Unhealthy"
        );
    }

    #[test]
    fn a_label_counts_if_the_node_must_have_it() {
        let is = |value: &[&str]| json!({"key": "cloud.google.com/gke-accelerator", "operator": "In", "values": value});
        let term = |expressions: Value| json!({"matchExpressions": expressions});
        let affinity = |terms: Value| {
            let required = json!({"nodeSelectorTerms": terms});
            let preferred =
                json!([{"weight": 1, "preference": term(json!([is(&["nvidia-b200"])]))}]);
            let affinity = json!({"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": preferred,
                "requiredDuringSchedulingIgnoredDuringExecution": required,
            }});
            shown([("/spec/affinity", affinity)])
        };
        let other = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]});
        let t4 = is(&["nvidia-tesla-t4"]);
        assert_eq!(
            affinity(json!([term(json!([other, t4]))])),
            "gpu=nvidia-tesla-t4"
        );
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["e2e-node"]});
        let with_field = json!({"matchExpressions": [t4], "matchFields": [field]});
        assert_eq!(affinity(json!([with_field])), "gpu=nvidia-tesla-t4");
        let not_in = json!({"key": "cloud.google.com/gke-accelerator", "operator": "NotIn", "values": ["nvidia-l4"]});
        for terms in [
            json!([]),
            json!([term(json!([is(&["nvidia-l4", "nvidia-tesla-t4"])]))]),
            json!([term(json!([not_in]))]),
            // Terms are alternatives.
            json!([term(json!([t4])), term(json!([other]))]),
        ] {
            assert_eq!(affinity(terms.clone()), "", "{terms}");
        }
        // The pod's own label is what the API server or a policy copied from the node.
        let label =
            json!({"karpenter.k8s.aws/instance-gpu-name": "a10g", "nvidia.com/gpu.count": "4"});
        let selector = json!({"karpenter.k8s.aws/instance-gpu-name": "t4"});
        assert_eq!(shown([(LABELS, label), (SELECTOR, selector)]), "gpu=a10g");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let devices: Vec<Value> = (10..50)
            .map(|nth| json!({"resourceID": format!("é{}{nth}", "é".repeat(30))}))
            .collect();
        let devices = json!([{"name": "a.com/b", "resources": devices}]);
        let text = shown([(DEVICES, devices)]);
        assert!(text.starts_with("device-ids=éé"), "{text}");
        let all = text.len() + "node=e2e-node; ".len();
        assert!((LONGEST - 1..=LONGEST).contains(&all), "{all}");
        // Of more devices than a list may have, none is known.
        let devices: Vec<Value> = (0..65)
            .map(|nth| json!({"resourceID": nth.to_string()}))
            .collect();
        let devices = json!([{"name": "a.com/memory", "resources": devices}]);
        assert_eq!(shown([(DEVICES, devices)]), "");
    }
}
