//! The network between the control plane and the node: two namespaces, and a link that can be cut.

use std::net::Ipv4Addr;

use crate::Error;
use crate::node::namespaces::run;

/// The control plane's address for the node.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The node's address for the control plane.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The Kubernetes API's service address, which every pod has in its environment.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The cluster DNS's service address.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The task-run service's service address. Pods know only its name.
pub const TASK_RUNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
/// Its name in the cluster's domain.
pub const TASK_RUNS_NAME: &str = "task-runs.platform.svc.cluster.local";
/// The name that pods use. The resolver's search list completes it.
pub const TASK_RUNS_HOST: &str = "task-runs.platform.svc";

/// The addresses of pods.
pub const PODS: &str = "10.88.0.0/16";
/// The network namespace of the node, by its name in `ip netns`.
pub const NETNS: &str = "node";

/// Creates the network: this namespace contains the control plane, another one the node, and a link
/// connects them.
///
/// # Errors
/// `ip` fails.
pub fn wire() -> Result<(), Error> {
    let ip = |arguments: &str| run("ip", &arguments.split(' ').collect::<Vec<_>>());
    ip(&format!("netns add {NETNS}"))?;
    ip("link set lo up")?;
    for service in [KUBERNETES_SERVICE, DNS_SERVICE, TASK_RUNS_SERVICE] {
        ip(&format!("address add {service}/32 dev lo"))?;
    }
    ip(&format!(
        "link add control type veth peer name node0 netns {NETNS}"
    ))?;
    ip(&format!("address add {CONTROL_PLANE}/24 dev control"))?;
    let inside = |arguments: &str| ip(&format!("-n {NETNS} {arguments}"));
    inside("link set lo up")?;
    inside(&format!("address add {NODE_ADDRESS}/24 dev node0"))?;
    inside("link set node0 up")?;
    heal()?;
    inside(&format!("route add default via {CONTROL_PLANE}"))?;
    let forward = format!("--net=/run/netns/{NETNS}");
    run(
        "nsenter",
        &[&forward, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
    )
}

/// Disconnects the node and its pods from the control plane and the task-run service, silently:
/// requests get no answer and no error.
///
/// # Errors
/// `ip` fails.
pub fn partition() -> Result<(), Error> {
    run("ip", &["link", "set", "control", "down"])
}

/// Reconnects them.
///
/// # Errors
/// `ip` fails.
pub fn heal() -> Result<(), Error> {
    run("ip", &["link", "set", "control", "up"])?;
    let node = NODE_ADDRESS.to_string();
    run("ip", &["route", "replace", PODS, "via", &node])
}
