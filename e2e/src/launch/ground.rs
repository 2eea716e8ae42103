//! The namespaces of the runs, the rights of podbeat-server, and what an administrator does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podbeat_launch::cluster::RIGHTS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::server::Site;
use super::text_at;
use crate::api::Namespace;
use crate::cluster::Cluster;
use crate::network::{TASK_RUNS_HOST, TASK_RUNS_NAME, TASK_RUNS_SERVICE};
use crate::node::namespaces::find_memory_cgroup;
use crate::scenarios::play::Stage;
use crate::{Error, io};

/// The namespace of most runs, and their tenant.
pub const NAMESPACE: &str = "tasks";

/// A namespace with a quota of no pods, and its tenant.
pub const QUOTA: &str = "quota";

/// The server's port.
pub const PORT: u16 = 8443;

/// The user of podbeat-server in the cluster.
pub(super) const USER: &str = "podbeat-server";

/// Everything that the runs need, except podbeat-server itself.
pub struct Ground {
    /// The control plane and the node.
    pub stage: Arc<Stage>,
    /// podbeat-server.
    pub site: Site,
}

impl Ground {
    /// Creates the namespaces as an administrator would, and the server's files.
    ///
    /// # Errors
    /// The API server refuses, or a file can't be written.
    pub async fn prepare(stage: &Arc<Stage>, server: PathBuf) -> Result<Self, Error> {
        let directory = stage.root.join("launch");
        std::fs::create_dir_all(&directory)
            .map_err(io(format!("creating {}", directory.display())))?;
        let ground = Self {
            stage: Arc::clone(stage),
            site: Site {
                program: server,
                directory,
                address: format!("{TASK_RUNS_SERVICE}:{PORT}"),
                url: format!("https://{TASK_RUNS_HOST}:{PORT}"),
                // Longer than the node is cut off, and than a restart.
                heartbeat_timeout: "40s",
            },
        };
        let ca = {
            let cluster = stage.cluster.lock().await;
            ground.write_files(&cluster)?;
            cluster.authority.pem().to_owned()
        };
        for name in [NAMESPACE, QUOTA] {
            let namespace = Namespace::create(stage.admin.clone(), name).await?;
            namespace.restrict().await?;
            namespace.grant_all().await?;
            let settings = json!({"metadata": {"name": "podbeat"}, "data": {
                "PODBEAT_CA_FILE": "/var/run/podbeat/ca.crt", "PODBEAT_INTERVAL": "3s",
                "PODBEAT_RECONNECT_SPREAD": "1s", "PODBEAT_TIMEOUT": "3s"}});
            namespace.create_in("configmaps", &settings).await?;
            let of_ca = json!({"metadata": {"name": "podbeat-ca"}, "data": {"ca.crt": ca}});
            namespace.create_in("configmaps", &of_ca).await?;
            namespace.apply(&rights(name)).await?;
        }
        let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
        let in_quota = ground.namespace(QUOTA);
        in_quota.create_in("resourcequotas", &quota).await?;
        Ok(ground)
    }

    fn write_files(&self, cluster: &Cluster) -> Result<(), Error> {
        let address = TASK_RUNS_SERVICE.to_string();
        let names = [TASK_RUNS_HOST, TASK_RUNS_NAME, &address];
        let identity = cluster.authority.issue(&names)?;
        for (name, text) in [
            ("server.crt", identity.certificate.as_str()),
            ("server.key", identity.key.as_str()),
            ("ca.crt", cluster.authority.pem()),
            ("launch.json", &launch_file()),
        ] {
            let path = self.site.file(name);
            std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        }
        let user = cluster.authority.issue_client(USER, &[])?;
        cluster.write_kubeconfig("launch/server", &user, &cluster.url)
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::existing(self.stage.admin.clone(), name)
    }

    /// Waits until no pod with these labels is left.
    ///
    /// # Errors
    /// One is left after a time.
    pub async fn no_pods(&self, namespace: &Namespace, labels: &str) -> Result<(), Error> {
        let begun = Instant::now();
        while let Some(pod) = namespace.first("pods", labels).await? {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(Error::Unexpected(format!("pod {pod} is left")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Stops the process of podbeat in a pod, so that it sends nothing more. Returns whether it has:
    /// only while the task runs. Earlier, podbeat would fail its startup probe, and the task would
    /// never start.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn freeze(&self, namespace: &Namespace, labels: &str) -> Result<bool, Error> {
        let Some(name) = namespace.first("pods", labels).await? else {
            return Ok(false);
        };
        let pod = namespace.pod(&name).await?;
        if pod
            .pointer("/status/containerStatuses/0/state/running")
            .is_none()
        {
            return Ok(false);
        }
        let statuses = pod.pointer("/status/initContainerStatuses");
        let own = statuses.and_then(|all| {
            let all = all.as_array()?.iter();
            all.clone()
                .find(|it| text_at(it, "/name") == Some("podbeat"))
        });
        let id = own.and_then(|status| text_at(status, "/containerID"));
        let Some(id) = id.and_then(|id| id.rsplit('/').next()) else {
            return Ok(false);
        };
        let cgroup = self.stage.node.lock().await.cgroup().to_owned();
        let group = find_memory_cgroup(&cgroup, id)?;
        let file = group.join("cgroup.procs");
        let pids =
            std::fs::read_to_string(&file).map_err(io(format!("reading {}", file.display())))?;
        let mut frozen = false;
        for pid in pids
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        {
            frozen |= kill_process(pid, Signal::STOP).is_ok();
        }
        Ok(frozen)
    }

    /// Removes the quota.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn lift_quota(&self) -> Result<(), Error> {
        self.namespace(QUOTA).delete_in("resourcequotas/none").await
    }
}

/// The launch file of the server.
fn launch_file() -> String {
    json!({
        "instance": "e2e",
        "namespace": NAMESPACE,
        "tenants": {QUOTA: {"namespace": QUOTA}},
        "podbeat": {"image": crate::node::images::PODBEAT},
        "serviceUrl": format!("https://{TASK_RUNS_HOST}:{PORT}"),
        "resources": {"sizes": {"small": {
            "resources": {"cpu": "50m", "memory": "32M"},
            "nodeSelector": {"kubernetes.io/hostname": crate::node::NODE}}}},
        "terminationGracePeriodSeconds": 5,
        "retries": {"backoffSeconds": 1, "maxBackoffSeconds": 4},
        "pending": {"imagePullSeconds": 8},
    })
    .to_string()
}

/// The rights of podbeat-server in a namespace, and no others.
pub(super) fn rights(namespace: &str) -> String {
    let rule = |(group, resource, verbs): &(&str, &str, &[&str])| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let rules: Vec<Value> = RIGHTS.iter().map(rule).collect();
    let rules = json!(rules);
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: podbeat-server}}
rules: {rules}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: podbeat-server, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: podbeat-server}}
subjects:
- {{kind: User, name: {USER}, apiGroup: rbac.authorization.k8s.io}}
"
    )
}
