//! The control plane as processes under a temporary root: etcd and kube-apiserver; for a node, also
//! controllers and a scheduler.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use podbeat_lab::pki::{Authority, Identity};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::network::{CONTROL_PLANE, KUBERNETES_SERVICE};
use crate::{Error, io, tail};

/// The limit from start to ready, which takes two seconds on an idle machine.
const READY: Duration = Duration::from_secs(90);

/// The controllers that Jobs, service accounts, nodes and deletions need. The others would only
/// take time.
const CONTROLLERS: &[&str] = &[
    "job-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "node-lifecycle-controller",
    "disruption-controller",
    "resourcequota-controller",
    "deployment-controller",
    "replicaset-controller",
    "persistentvolume-binder-controller",
    "validatingadmissionpolicy-status-controller",
];

/// The parts of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// etcd and kube-apiserver, on free ports of loopback. No controller acts on the objects.
    Api,
    /// Also controllers and a scheduler, at the addresses that a node and its pods use.
    WithNode,
}

/// A control plane. When dropped, it ends its processes and removes its files.
pub struct Cluster {
    /// Signs the certificates of the API server and its clients.
    pub authority: Authority,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The port in `url`.
    pub port: u16,
    /// The identity of a cluster administrator.
    admin: Identity,
    plan: Plan,
    /// Additional flags.
    apiserver_flags: Vec<String>,
    programs: PathBuf,
    root: PathBuf,
    etcd_port: u16,
    /// Ended when dropped. The API server ends before etcd.
    controllers: Vec<Child>,
    apiserver: Option<Child>,
    etcd: Child,
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts both and waits until the API server is ready. `programs` contains `etcd` and
    /// `kubernetes`.
    ///
    /// # Errors
    /// A program is missing, ends, or isn't ready in time. The error shows the end of its log.
    pub async fn start(programs: &Path) -> Result<Self, Error> {
        Self::start_with(programs, |_| Ok(Vec::new())).await
    }

    /// Starts both with more flags for the API server. `flags` gets the cluster's root, where it
    /// can create the files that the flags name.
    ///
    /// # Errors
    /// The same as for [`Self::start`], and the errors of `flags`.
    pub async fn start_with(
        programs: &Path,
        flags: impl FnOnce(&Path) -> Result<Vec<String>, Error>,
    ) -> Result<Self, Error> {
        let root = tempfile::Builder::new()
            .prefix("podbeat-e2e-api-")
            .tempdir()
            .map_err(io("creating a temporary root"))?;
        let path = root.path().to_owned();
        let mut cluster = Self::begin(programs, &path, Plan::Api)?;
        cluster._temporary = Some(root);
        cluster.apiserver_flags = flags(&path)?;
        cluster.start_apiserver().await?;
        Ok(cluster)
    }

    /// Starts the control plane of a node, with controllers and a scheduler. The network must
    /// exist.
    ///
    /// # Errors
    /// The same as for [`Self::start`].
    pub async fn start_for_node(programs: &Path, root: &Path) -> Result<Self, Error> {
        let mut cluster = Self::begin(programs, root, Plan::WithNode)?;
        cluster.start_apiserver().await?;
        cluster.start_controllers()?;
        Ok(cluster)
    }

    fn begin(programs: &Path, root: &Path, plan: Plan) -> Result<Self, Error> {
        let authority = Authority::new()?;
        authority.write_to(&root.join("ca.crt"))?;
        let (control_plane, service) = (CONTROL_PLANE.to_string(), KUBERNETES_SERVICE.to_string());
        let names = [
            "127.0.0.1",
            "localhost",
            "kubernetes.default.svc",
            &control_plane,
            &service,
        ];
        for (name, identity) in [
            ("apiserver", authority.issue(&names)?),
            // The API server shows this one when it requests logs from kubelet.
            (
                "kubelet-client",
                authority.issue_client("kube-apiserver", &["system:masters"])?,
            ),
            // kube-apiserver accepts a certificate as the public half of the key that signs service
            // accounts' tokens.
            (
                "service-account",
                authority.issue_client("service-account-signer", &[])?,
            ),
        ] {
            write(&root.join(format!("{name}.crt")), &identity.certificate)?;
            write(&root.join(format!("{name}.key")), &identity.key)?;
        }
        let port = match plan {
            Plan::Api => free_port()?,
            // The port of its service address, because there is no kube-proxy.
            Plan::WithNode => 443,
        };
        let (etcd_port, peer_port) = (free_port()?, free_port()?);
        let client_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = spawn(&programs.join("etcd"), &root.join("etcd.log"), |command| {
            command
                .arg(format!("--data-dir={}", root.join("etcd").display()))
                .args(["--name=e2e", "--unsafe-no-fsync", "--log-level=warn"])
                .arg(format!("--listen-client-urls={client_url}"))
                .arg(format!("--advertise-client-urls={client_url}"))
                .arg(format!("--listen-peer-urls={peer_url}"))
                .arg(format!("--initial-advertise-peer-urls={peer_url}"))
                .arg(format!("--initial-cluster=e2e={peer_url}"));
        })?;
        Ok(Self {
            admin: authority.issue_client("admin", &["system:masters"])?,
            authority,
            url: format!("https://127.0.0.1:{port}"),
            port,
            plan,
            apiserver_flags: Vec::new(),
            programs: programs.to_owned(),
            root: root.to_owned(),
            etcd_port,
            controllers: Vec::new(),
            apiserver: None,
            etcd,
            _temporary: None,
        })
    }

    /// Starts or restarts the API server, and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or isn't ready in time.
    pub async fn start_apiserver(&mut self) -> Result<(), Error> {
        let log = self.path("apiserver.log");
        let file = |name: &str| self.path(name).display().to_string();
        let apiserver = spawn(&self.programs.join("kubernetes"), &log, |command| {
            command
                .arg("kube-apiserver")
                .arg(format!(
                    "--etcd-servers=http://127.0.0.1:{}",
                    self.etcd_port
                ))
                .args(["--endpoint-reconciler-type=none", "--anonymous-auth=false"])
                .args(match self.plan {
                    Plan::Api => {
                        ["--bind-address=127.0.0.1", "--authorization-mode=RBAC"].as_slice()
                    }
                    Plan::WithNode => &[
                        "--bind-address=0.0.0.0",
                        "--advertise-address=10.99.0.1",
                        "--authorization-mode=Node,RBAC",
                        "--enable-admission-plugins=NodeRestriction",
                        // So that only Pod Security can refuse a privileged pod.
                        "--allow-privileged=true",
                    ],
                })
                .args([
                    "--service-cluster-ip-range=10.96.0.0/16",
                    "--service-account-issuer=https://kubernetes.default.svc",
                ])
                .arg(format!("--secure-port={}", self.port))
                .arg(format!("--tls-cert-file={}", file("apiserver.crt")))
                .arg(format!("--tls-private-key-file={}", file("apiserver.key")))
                .arg(format!("--client-ca-file={}", file("ca.crt")))
                .arg(format!(
                    "--kubelet-client-certificate={}",
                    file("kubelet-client.crt")
                ))
                .arg(format!(
                    "--kubelet-client-key={}",
                    file("kubelet-client.key")
                ))
                .arg("--kubelet-preferred-address-types=InternalIP")
                .arg(format!(
                    "--service-account-key-file={}",
                    file("service-account.crt")
                ))
                .arg(format!(
                    "--service-account-signing-key-file={}",
                    file("service-account.key")
                ))
                .arg(format!("--cert-dir={}", file("certs")))
                .args(&self.apiserver_flags);
        })?;
        self.apiserver = Some(apiserver);
        let begun = Instant::now();
        let admin = self.admin().await?;
        loop {
            let ready = admin.request_text(get("/readyz")).await;
            if ready.is_ok() {
                return Ok(());
            }
            let ended = self
                .apiserver
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(Error::Program {
                    what: format!("kube-apiserver ended with {status}"),
                    log: tail(&log),
                });
            }
            if let Ok(Some(status)) = self.etcd.try_wait() {
                let log = tail(&self.path("etcd.log"));
                return Err(Error::Program {
                    what: format!("etcd ended with {status}"),
                    log,
                });
            }
            if begun.elapsed() > READY {
                return Err(Error::Program {
                    what: "kube-apiserver isn't ready".to_owned(),
                    log: tail(&log),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts the controllers and the scheduler. They reconnect to a restarted API server by
    /// themselves.
    fn start_controllers(&mut self) -> Result<(), Error> {
        self.write_kubeconfig("admin", &self.admin, &self.url)?;
        let file = |name: &str| self.path(name).display().to_string();
        let kubeconfig = format!("--kubeconfig={}", self.admin_kubeconfig().display());
        let kubernetes = self.programs.join("kubernetes");
        let manager = spawn(
            &kubernetes,
            &self.path("controller-manager.log"),
            |command| {
                command
                    .arg("kube-controller-manager")
                    .arg(&kubeconfig)
                    .arg(format!(
                        "--service-account-private-key-file={}",
                        file("service-account.key")
                    ))
                    .arg(format!("--root-ca-file={}", file("ca.crt")))
                    .arg(format!("--controllers={}", CONTROLLERS.join(",")))
                    .args([
                        "--leader-elect=false",
                        "--use-service-account-credentials=true",
                    ])
                    .arg(format!("--cert-dir={}", file("certs")));
            },
        )?;
        let scheduler = spawn(&kubernetes, &self.path("scheduler.log"), |command| {
            command
                .arg("kube-scheduler")
                .arg(&kubeconfig)
                .arg("--leader-elect=false")
                .arg(format!("--cert-dir={}", file("certs")));
        })?;
        self.controllers = vec![manager, scheduler];
        Ok(())
    }

    /// Writes `NAME.kubeconfig` for a client with this certificate.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_kubeconfig(
        &self,
        name: &str,
        identity: &Identity,
        server: &str,
    ) -> Result<(), Error> {
        let kubeconfig = self.kubeconfig(server, &certificate(identity));
        write(
            &self.path(&format!("{name}.kubeconfig")),
            &kubeconfig.to_string(),
        )
    }

    /// The administrator's kubeconfig, of a node's control plane.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    fn kubeconfig(&self, server: &str, user: &serde_json::Value) -> serde_json::Value {
        let ca = BASE64_STANDARD.encode(self.authority.pem());
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "e2e", "user": user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        })
    }

    /// Ends the API server with SIGKILL. Open watches break at once.
    ///
    /// # Errors
    /// The process can't be ended.
    pub async fn kill_apiserver(&mut self) -> Result<(), Error> {
        if let Some(mut apiserver) = self.apiserver.take() {
            apiserver
                .kill()
                .await
                .map_err(io("ending kube-apiserver"))?;
        }
        Ok(())
    }

    /// The process id of the API server, while it runs.
    #[must_use]
    pub fn apiserver_pid(&self) -> Option<u32> {
        self.apiserver.as_ref()?.id()
    }

    /// An administrator's client.
    ///
    /// # Errors
    /// The client can't be set up.
    pub async fn admin(&self) -> Result<Client, Error> {
        let what = "setting up the admin's client";
        self.client(what, &certificate(&self.admin)).await
    }

    /// A client with a service account's token.
    ///
    /// # Errors
    /// The client can't be set up.
    pub async fn client_of(&self, token: &str) -> Result<Client, Error> {
        let what = "setting up a client with a token";
        self.client(what, &json!({"token": token})).await
    }

    async fn client(&self, what: &str, user: &serde_json::Value) -> Result<Client, Error> {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig(&self.url, user))
            .map_err(|error| kube_error(what, error))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| kube_error(what, error))?;
        config.default_retry = false;
        Client::try_from(config).map_err(|error| kube_error(what, error))
    }

    /// The path of a file under the cluster's root.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The API server's version.
    ///
    /// # Errors
    /// It doesn't answer.
    pub async fn version(&self) -> Result<String, Error> {
        let version: serde_json::Value = self
            .admin()
            .await?
            .request(get("/version"))
            .await
            .map_err(|error| kube_error("asking for the version", error))?;
        Ok(version
            .get("gitVersion")
            .and_then(|version| version.as_str())
            .unwrap_or("unknown")
            .to_owned())
    }
}

/// Flags of an API server that logs the requests of one user or group: a member of an audit rule, and
/// its value. The log is `audit.jsonl` in the cluster's root.
///
/// # Errors
/// The policy can't be written.
pub(crate) fn audited(
    dir: &Path,
    omitted_stages: &[&str],
    (member, whose): (&str, &str),
) -> Result<Vec<String>, Error> {
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": omitted_stages,
        "rules": [{"level": "Metadata", member: [whose]}, {"level": "None"}]});
    let path = dir.join("audit-policy.json");
    write(&path, &policy.to_string())?;
    Ok(vec![
        format!("--audit-policy-file={}", path.display()),
        format!("--audit-log-path={}", dir.join("audit.jsonl").display()),
        // Blocking, so that nothing is lost when the API server is killed.
        "--audit-log-mode=blocking".to_owned(),
    ])
}

/// A kubeconfig's user with a certificate.
fn certificate(identity: &Identity) -> serde_json::Value {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    json!({
        "client-certificate-data": encode(&identity.certificate),
        "client-key-data": encode(&identity.key),
    })
}

pub(crate) fn kube_error(
    what: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Kube {
        what: what.to_owned(),
        source: Box::new(source),
    }
}

pub(crate) fn get(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

pub(crate) fn spawn(
    program: &Path,
    log: &Path,
    arguments: impl FnOnce(&mut Command),
) -> Result<Child, Error> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(io(format!("opening {}", log.display())))?;
    let stderr = file.try_clone().map_err(io("sharing the log"))?;
    let mut command = Command::new(program);
    arguments(&mut command);
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(stderr)
        // A separate process group: Ctrl-C reaches only us, and we end the process cleanly.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(io(format!("starting {}", program.display())))
}

pub(crate) fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(io("looking for a free port"))?;
    Ok(listener
        .local_addr()
        .map_err(io("looking for a free port"))?
        .port())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(io(format!("writing {}", path.display())))
}
