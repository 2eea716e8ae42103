//! A real node: containerd, runc and kubelet, connected to the control plane by a link that can be
//! cut.
//! Contains its start in its own namespaces, and its end.
//! Never here: what a scenario does with it, or a stand-in for Kubernetes.

pub mod images;
pub mod namespaces;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::Instant;

use crate::cluster::{Cluster, spawn};
use crate::network::{
    CONTROL_PLANE, DNS_SERVICE, NETNS, NODE_ADDRESS, PODS, TASK_RUNS_NAME, TASK_RUNS_SERVICE,
};
use crate::{Error, io, network, tail};

/// The node's name.
pub const NODE: &str = "e2e-node";

/// containerd's socket, in the mount namespace.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The directory of kubelet's container logs, in the mount namespace.
pub const POD_LOGS: &str = "/var/log/pods";

/// The limit from start to ready, which takes about five seconds on an idle machine.
const READY: Duration = Duration::from_secs(120);

/// Required programs of the system, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("dnsmasq", "dnsmasq-base"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("sysctl", "procps"),
    ("ip", "iproute2"),
];
/// Required files, and the Debian package of each.
const FILES: &[(&str, &str)] = &[
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    (images::BUSYBOX, "busybox-static"),
];

/// A node with its network. Everything in it ends with the PID namespace.
#[derive(Debug)]
pub struct Node {
    root: PathBuf,
    programs: PathBuf,
    cgroup: String,
    kubelet: Option<Child>,
    _containerd: Child,
    _dns: Child,
}

/// Checks that the system has everything that a node needs.
///
/// # Errors
/// Something is missing. The error lists all of it with the packages.
pub fn check() -> Result<(), Error> {
    let is_missing =
        |(program, _): &&(&str, &str)| !path().any(|directory| directory.join(program).exists());
    let programs = PROGRAMS.iter().filter(is_missing);
    let files = FILES.iter().filter(|(path, _)| !Path::new(path).exists());
    let missing: Vec<&(&str, &str)> = programs.chain(files).collect();
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unexpected(
            "a node needs root, to create namespaces, mounts and control groups".to_owned(),
        ));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(Error::Unexpected(format!(
        "{} missing; on Debian: apt-get install --no-install-recommends {}",
        names.join(", "),
        packages.join(" ")
    )))
}

/// The directories of programs.
#[expect(
    clippy::disallowed_methods,
    reason = "this is not part of podbeat, which reads its environment once"
)]
fn path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Creates the network, starts the control plane and the node, and imports the images: podbeat's
/// from this archive.
///
/// # Errors
/// Something doesn't start, or isn't ready in time. The error shows the end of its log.
pub async fn raise(root: &Path, programs: &Path, image: &Path) -> Result<(Cluster, Node), Error> {
    namespaces::furnish(root)?;
    network::wire()?;
    let cluster = Cluster::start_for_node(programs, root).await?;
    let node = Node::start(&cluster, programs, root).await?;
    images::import_small(root)?;
    images::import_podbeat(image)?;
    node.until_ready(&cluster).await?;
    Ok((cluster, node))
}

impl Node {
    /// Starts DNS, containerd and kubelet. The network must exist.
    ///
    /// # Errors
    /// A program ends or isn't ready in time. The error shows the end of its log.
    pub async fn start(cluster: &Cluster, programs: &Path, root: &Path) -> Result<Self, Error> {
        let cgroup = namespaces::make_cgroup(root)?;
        let dns = start_dns(root)?;
        let containerd = start_containerd(root)?;
        let mut node = Self {
            root: root.to_owned(),
            programs: programs.to_owned(),
            cgroup,
            kubelet: None,
            _containerd: containerd,
            _dns: dns,
        };
        until("containerd", &root.join("containerd.log"), || {
            Path::new(CONTAINERD).exists() && images::ctr(&["version"]).is_ok()
        })
        .await?;
        node.write_kubelet_config(cluster)?;
        node.start_kubelet()?;
        Ok(node)
    }

    /// Waits until kubelet reports that the node is ready.
    ///
    /// # Errors
    /// It isn't ready in time.
    pub async fn until_ready(&self, cluster: &Cluster) -> Result<(), Error> {
        let admin = cluster.admin().await?;
        let begun = Instant::now();
        loop {
            let path = format!("/api/v1/nodes/{NODE}");
            let node: Result<Value, _> = admin.request(crate::cluster::get(&path)).await;
            if node.is_ok_and(|node| is_ready(&node)) {
                return Ok(());
            }
            if begun.elapsed() > READY {
                return Err(Error::Program {
                    what: "the node did not become ready".to_owned(),
                    log: tail(&self.log()),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts or restarts kubelet.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_kubelet(&mut self) -> Result<(), Error> {
        let file = |name: &str| self.root.join(name).display().to_string();
        let kubelet = spawn(Path::new("nsenter"), &self.log(), |command| {
            command
                .arg(format!("--net=/run/netns/{NETNS}"))
                .arg(self.programs.join("kubernetes"))
                .arg("kubelet")
                .arg(format!("--config={}", file("kubelet.json")))
                .arg(format!("--kubeconfig={}", file("kubelet.kubeconfig")))
                .arg("--root-dir=/var/lib/kubelet")
                .arg(format!("--hostname-override={NODE}"))
                .arg(format!("--node-ip={NODE_ADDRESS}"))
                .arg(format!("--cert-dir={}", file("kubelet-certs")))
                .arg("--v=2");
        })?;
        self.kubelet = Some(kubelet);
        Ok(())
    }

    /// Ends kubelet with SIGKILL. Containers continue.
    ///
    /// # Errors
    /// It can't be ended.
    pub async fn kill_kubelet(&mut self) -> Result<(), Error> {
        if let Some(mut kubelet) = self.kubelet.take() {
            kubelet.kill().await.map_err(io("ending kubelet"))?;
        }
        Ok(())
    }

    /// Limits a container's memory to what it uses now, and returns the limit. The kernel kills the
    /// container if it needs more. This is necessary because kubelet sets limits only when it
    /// creates a container, and runc needs more memory to start one than podbeat ever does.
    ///
    /// # Errors
    /// The container has no control group, or the kernel refuses.
    pub fn squeeze(&self, container_id: &str) -> Result<u64, Error> {
        let group = namespaces::find_memory_cgroup(&self.cgroup, container_id)?;
        namespaces::squeeze(&group)
    }

    /// The peak memory of a container by its control group, which includes runc's memory at the
    /// start and the page cache; and the peak resident memory of its process alone.
    ///
    /// # Errors
    /// The container has no control group, or no process is in it.
    pub fn peak_memory(&self, container_id: &str) -> Result<(u64, u64), Error> {
        let group = namespaces::find_memory_cgroup(&self.cgroup, container_id)?;
        namespaces::peak_memory(&group)
    }

    /// Writes a file to an emptyDir of a pod.
    ///
    /// # Errors
    /// The volume doesn't exist.
    pub fn write_into(
        &self,
        pod_uid: &str,
        volume: &str,
        name: &str,
        text: &str,
    ) -> Result<(), Error> {
        let path = Self::volume(pod_uid, "empty-dir", volume).join(name);
        std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))
    }

    /// Reads a file of a pod's volume.
    ///
    /// # Errors
    /// The file doesn't exist.
    pub fn read_from(
        &self,
        pod_uid: &str,
        kind: &str,
        volume: &str,
        name: &str,
    ) -> Result<String, Error> {
        let path = Self::volume(pod_uid, kind, volume).join(name);
        std::fs::read_to_string(&path).map_err(io(format!("reading {}", path.display())))
    }

    fn volume(pod_uid: &str, kind: &str, volume: &str) -> PathBuf {
        PathBuf::from(format!(
            "/var/lib/kubelet/pods/{pod_uid}/volumes/kubernetes.io~{kind}/{volume}"
        ))
    }

    /// The control group under which the containers' ones are.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The path of kubelet's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("kubelet.log")
    }

    fn write_kubelet_config(&self, cluster: &Cluster) -> Result<(), Error> {
        let identity = cluster
            .authority
            .issue_client(&format!("system:node:{NODE}"), &["system:nodes"])?;
        cluster.write_kubeconfig(
            "kubelet",
            &identity,
            &format!("https://{CONTROL_PLANE}:{}", cluster.port),
        )?;
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": false},
                "x509": {"clientCAFile": self.root.join("ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.cgroup,
            "failSwapOn": false,
            // The machine may forbid a lower score (no CAP_SYS_RESOURCE).
            "oomScoreAdj": 0,
            "resolvConf": "",
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "podLogsDir": POD_LOGS,
            // The machine's disk may be almost full.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                             "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 250,
            "serializeImagePulls": false,
        });
        let path = self.root.join("kubelet.json");
        std::fs::write(&path, config.to_string()).map_err(io(format!("writing {}", path.display())))
    }
}

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| {
        all.iter().any(|one| {
            one.get("type") == Some(&json!("Ready")) && one.get("status") == Some(&json!("True"))
        })
    })
}

async fn until(what: &str, log: &Path, holds: impl Fn() -> bool) -> Result<(), Error> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > READY {
            return Err(Error::Program {
                what: format!("{what} did not become ready"),
                log: tail(log),
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The directory of further names for the cluster's DNS, as files in the form of /etc/hosts. DNS
/// notices changes by itself.
#[must_use]
pub fn hosts(root: &Path) -> PathBuf {
    root.join("hosts")
}

/// Starts the cluster's DNS, which knows one name, those of [`hosts`], and no outside names.
fn start_dns(root: &Path) -> Result<Child, Error> {
    let hosts = hosts(root);
    std::fs::create_dir_all(&hosts).map_err(io(format!("creating {}", hosts.display())))?;
    spawn(Path::new("dnsmasq"), &root.join("dns.log"), |command| {
        command
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--no-poll",
            ])
            .args(["--conf-file=/dev/null", "--user=root", "--log-facility=-"])
            .arg(format!("--pid-file={}", root.join("dns.pid").display()))
            .args(["--bind-interfaces", "--port=53"])
            // Unknown names don't exist; it asks no other server.
            .args(["--local=/cluster.local/", "--address=/#/"])
            .arg(format!("--hostsdir={}", hosts.display()))
            .arg(format!("--listen-address={DNS_SERVICE}"))
            .arg(format!(
                "--host-record={TASK_RUNS_NAME},{TASK_RUNS_SERVICE}"
            ));
    })
}

fn start_containerd(root: &Path) -> Result<Child, Error> {
    let cni = root.join("cni");
    std::fs::create_dir_all(&cni).map_err(io(format!("creating {}", cni.display())))?;
    let network = json!({
        "cniVersion": "1.0.0", "name": "pods", "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]]},
        }],
    });
    let path = cni.join("10-pods.conflist");
    std::fs::write(&path, network.to_string())
        .map_err(io(format!("writing {}", path.display())))?;
    let config = format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # The machine may forbid to lower a score (no CAP_SYS_RESOURCE), and runc fails where it is forbidden.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        pause = images::PAUSE,
        cni = cni.display(),
    );
    let path = root.join("containerd.toml");
    std::fs::write(&path, config).map_err(io(format!("writing {}", path.display())))?;
    spawn(
        Path::new("nsenter"),
        &root.join("containerd.log"),
        |command| {
            command
                .arg(format!("--net=/run/netns/{NETNS}"))
                .arg("containerd")
                .arg(format!("--config={}", path.display()));
        },
    )
}
