//! A node for a first try: podbeat-server and podbeat, installed with Helm as a user would, and left
//! running.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::deploy::hold::write_script;
use crate::deploy::tools::Tools;
use crate::node::images::{self, CURL_IMAGE, PODBEAT, TASK};
use crate::runner::{repository, say};
use crate::{Error, io};

/// The namespaces of the server and of the runs.
const OWN: &str = "podbeat";
const TASKS: &str = "tasks";

/// The name of the server's image on the node.
const SERVER: &str = "localhost/podbeat-server:e2e";

/// The Secret with the token of `helm test`.
const TEST_TOKEN: &str = "podbeat-server-test";

/// The port of the server, everywhere.
pub const PORT: u16 = 8443;

/// The server's data on the node.
const DATA: &str = "/var/lib/podbeat-server";

/// The user of the server's container.
const USER: u32 = 65532;

/// The limit for each step.
const LIMIT: Duration = Duration::from_secs(180);

/// A node with both charts.
pub struct Up {
    tools: Tools,
    root: PathBuf,
}

/// What a user needs to reach the server: a directory with scripts and files, outside of the node.
#[must_use]
pub fn place() -> PathBuf {
    std::env::temp_dir().join("podbeat-up")
}

impl Up {
    /// Installs both charts, and creates a token.
    ///
    /// # Errors
    /// A program fails, or the server is not ready in time.
    pub async fn install(
        cluster: &Cluster,
        tools: Tools,
        root: &Path,
        server_image: &Path,
    ) -> Result<Self, Error> {
        let up = Self {
            tools,
            root: root.to_owned(),
        };
        images::import(server_image)?;
        images::import_curl(root)?;
        up.prepare(cluster).await?;
        let charts = repository().join("deploy/helm");
        let chart = |name: &str| charts.join(name).display().to_string();
        let (name, tag) = split(PODBEAT);
        let (server, server_tag) = split(SERVER);
        let image = format!("image.repository={name},image.tag={tag}");
        let url = format!("https://podbeat-server.{OWN}.svc:{PORT}");
        let service = format!("service.url={url},service.ca.configMap=podbeat-ca");
        let chart_of_runs = chart("podbeat");
        up.helm(&[
            "podbeat",
            &chart_of_runs,
            "--namespace",
            TASKS,
            "--set",
            &image,
            "--set",
            &service,
        ])
        .await?;
        let chart_of_server = chart("podbeat-server");
        let own = format!(
            "image.repository={server},image.tag={server_tag},tls.secretName=podbeat-server-tls,\
             url=https://localhost:{PORT},service.port={PORT},listenAddress=0.0.0.0,persistence.size=1Gi,\
             launch.podbeat.image.repository={name},launch.podbeat.image.tag={tag},\
             test.tokenSecret.name={TEST_TOKEN},test.image={CURL_IMAGE},test.ca.configMap=podbeat-ca"
        );
        up.helm(&[
            "podbeat-server",
            &chart_of_server,
            "--namespace",
            OWN,
            "--set",
            &own,
        ])
        .await?;
        let rollout = [
            "rollout",
            "status",
            "deployment/podbeat-server",
            "--timeout=150s",
        ];
        up.kubectl(OWN, &rollout).await?;
        up.name_the_pod().await?;
        Ok(up)
    }

    async fn helm(&self, arguments: &[&str]) -> Result<(), Error> {
        let all: Vec<&str> = ["install"].iter().chain(arguments).copied().collect();
        let said = self.tools.helm(&all).await?;
        say(&format!(
            "$ {}",
            said.command
                .replace(&repository().display().to_string(), ".")
        ));
        said.well().map(drop)
    }

    async fn kubectl(&self, namespace: &str, arguments: &[&str]) -> Result<String, Error> {
        let all: Vec<&str> = ["--namespace", namespace]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.tools.kubectl(&all).await?.well()
    }

    /// Creates what both charts expect: namespaces, a certificate, its CA, and a volume.
    async fn prepare(&self, cluster: &Cluster) -> Result<(), Error> {
        std::fs::create_dir_all(DATA).map_err(io(format!("creating {DATA}")))?;
        std::os::unix::fs::chown(DATA, Some(USER), Some(USER))
            .map_err(io(format!("giving {DATA} to the server")))?;
        let names = ["localhost", "127.0.0.1", "podbeat-server.podbeat.svc"];
        let identity = cluster.authority.issue(&names)?;
        let ca = cluster.authority.pem();
        let of_ca = |namespace: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "podbeat-ca", "namespace": namespace}, "data": {"ca.crt": ca}})
        };
        let namespace = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
        };
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            namespace(OWN), namespace(TASKS), of_ca(OWN), of_ca(TASKS),
            {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
             "metadata": {"name": "podbeat-server-tls", "namespace": OWN},
             "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key}},
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "podbeat-server"},
             "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                      "hostPath": {"path": DATA}}},
        ]});
        let path = self.root.join("up.json");
        std::fs::write(&path, objects.to_string())
            .map_err(io(format!("writing {}", path.display())))?;
        let path = path.display().to_string();
        self.tools
            .kubectl(&["create", "--filename", &path])
            .await?
            .well()?;
        Ok(())
    }

    /// The node has no kube-proxy, so the name of the Service leads to the server's pod.
    async fn name_the_pod(&self) -> Result<(), Error> {
        let address = self.pod_address().await?;
        let path = crate::node::hosts(&self.root).join("podbeat-server");
        let line = format!("{address} podbeat-server.{OWN}.svc.cluster.local\n");
        std::fs::write(&path, line).map_err(io(format!("writing {}", path.display())))
    }

    async fn pod_address(&self) -> Result<String, Error> {
        let begun = Instant::now();
        loop {
            let address = self
                .kubectl(
                    OWN,
                    &[
                        "get",
                        "pods",
                        "--output",
                        "jsonpath={.items[0].status.podIP}",
                    ],
                )
                .await?;
            if !address.is_empty() {
                return Ok(address);
            }
            if begun.elapsed() > LIMIT {
                return Err(Error::Unexpected(
                    "the server's pod has no address".to_owned(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A token for the user `me` of the tenant `default`, also for `helm test`.
    ///
    /// # Errors
    /// kubectl fails.
    pub async fn token(&self) -> Result<String, Error> {
        let create = "exec deployment/podbeat-server -- /podbeat-server token create --tenant default --user me --role user";
        let words: Vec<&str> = create.split(' ').collect();
        let text = self.kubectl(OWN, &words).await?;
        let token = text
            .split_whitespace()
            .find(|word| word.starts_with("pbt_"));
        let token = token
            .map(str::to_owned)
            .ok_or_else(|| Error::Unexpected(format!("there is no token in {text}")))?;
        let literal = format!("token={token}");
        let secret = [
            "create",
            "secret",
            "generic",
            TEST_TOKEN,
            "--from-literal",
            &literal,
        ];
        self.kubectl(OWN, &secret).await?;
        Ok(token)
    }

    /// Writes the files of [`place`], and prints how to use them.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn explain(&self, cluster: &Cluster, token: &str) -> Result<(), Error> {
        let directory = self.root.join("up");
        std::fs::create_dir_all(&directory)
            .map_err(io(format!("creating {}", directory.display())))?;
        let at = place();
        let env = format!(
            "export PODBEAT_SERVICE_URL=https://localhost:{PORT} PODBEAT_CA_FILE={at}/ca.crt PODBEAT_TOKEN={token}\n",
            at = at.display()
        );
        for (name, text, mode) in [
            ("env", env.as_str(), 0o600),
            ("ca.crt", cluster.authority.pem(), 0o644),
        ] {
            let path = directory.join(name);
            let what = || format!("writing {}", path.display());
            std::fs::write(&path, text).map_err(io(what()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(io(what()))?;
        }
        let kubeconfig = cluster.admin_kubeconfig().display().to_string();
        for (name, programs) in [
            ("kubectl", &self.tools.kubernetes),
            ("helm", &self.tools.tools),
        ] {
            let (path, program) = (directory.join(name), programs.join(name));
            write_script(&path, &self.root, &kubeconfig, &program)?;
        }
        // It may belong to an earlier node.
        let _ = std::fs::remove_file(&at);
        symlink(&directory, &at).map_err(io(format!("linking {}", at.display())))?;
        say(&format!(
            "
podbeat-server runs until Ctrl-C. The token of the user me, for the web page https://localhost:{PORT}/ (its certificate is of
the node's own CA):

  {token}

Try in another terminal:

  . {at}/env
  run=$(podbeat runs create --name first --image {TASK} -o name -- sh -c 'sleep 5; exit 0')
  podbeat runs watch $run                                  # until it has ended
  podbeat runs get $run -o json | podbeat explain          # what happened, and why

Others: a run that fails and is retried, and one to abort:

  podbeat runs create --image {TASK} --retry-limit 2 -- sh -c 'exit 3'
  podbeat runs abort $(podbeat runs create --image {TASK} -o name -- sleep 600)

{at}/kubectl and {at}/helm are kubectl and helm in the node's network:

  {at}/kubectl --namespace {TASKS} get jobs,pods
  {at}/helm test podbeat-server --namespace {OWN} --logs
",
            at = at.display(),
        ));
        Ok(())
    }

    /// Passes connections from [`relay`] to the server, until it is dropped. If the server's pod is
    /// replaced, its new address is used.
    ///
    /// # Errors
    /// The socket can't be opened.
    pub async fn serve(&self) -> Result<(), Error> {
        let path = self.root.join("up").join("socket");
        let listener =
            UnixListener::bind(&path).map_err(io(format!("listening on {}", path.display())))?;
        let mut passing = JoinSet::new();
        loop {
            let (from, _) = listener
                .accept()
                .await
                .map_err(io("waiting for connections"))?;
            let address = self.pod_address().await?;
            self.name_the_pod().await?;
            passing.spawn(async move {
                if let Ok(to) = TcpStream::connect(format!("{address}:{PORT}")).await {
                    pass(from, to).await;
                }
            });
            while passing.try_join_next().is_some() {}
        }
    }
}

/// Outside of the node's network: passes connections to loopback into it, until it is dropped.
///
/// # Errors
/// The port is taken.
pub async fn relay() -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", PORT))
        .await
        .map_err(io(format!("listening on port {PORT}")))?;
    let mut passing = JoinSet::new();
    loop {
        let (from, _) = listener
            .accept()
            .await
            .map_err(io("waiting for connections"))?;
        passing.spawn(async move {
            if let Ok(to) = UnixStream::connect(place().join("socket")).await {
                pass(from, to).await;
            }
        });
        while passing.try_join_next().is_some() {}
    }
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut to: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) {
    // Whoever closes first, the other one notices.
    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
}

fn split(image: &str) -> (&str, &str) {
    image.rsplit_once(':').unwrap_or((image, "latest"))
}
