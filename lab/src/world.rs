//! Both stand-ins together, and the settings that connect an agent to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podbeat::agent::Onlooker;
use tempfile::TempDir;

use crate::contract::Contract;
use crate::fault::Faults;
use crate::kube_api::{self, KubeApi};
use crate::node::{self, Node, Program};
use crate::pki::Authority;
use crate::service::{self, Service};
use crate::{Error, io};

/// The token that the task-run service accepts at first.
pub const TOKEN: &str = "service-token-7f3a";

/// The token that the Kubernetes API accepts at first.
pub const KUBE_TOKEN: &str = "kube-token-91bc";

/// The run's id.
pub const RUN: &str = "trn.42";

/// A Kubernetes API, a task-run service, and a directory for files. All end when dropped.
#[derive(Debug)]
pub struct World {
    /// The Kubernetes API.
    pub kube: Arc<KubeApi>,
    /// Faults of the Kubernetes API.
    pub kube_faults: Faults,
    /// The task-run service.
    pub service: Service,
    /// Faults of the task-run service.
    pub service_faults: Faults,
    /// The authority that signs the certificates of both.
    pub authority: Arc<Authority>,
    service_options: service::Options,
    dir: TempDir,
}

impl World {
    /// Starts both.
    ///
    /// # Errors
    /// There is no free port, no certificate, or no temporary directory.
    pub async fn start() -> Result<Self, Error> {
        Self::with(kube_api::Options::default(), service::Options::default()).await
    }

    /// Starts both with these options. The tokens are always [`KUBE_TOKEN`] and [`TOKEN`].
    ///
    /// # Errors
    /// There is no free port, no certificate, or no temporary directory.
    pub async fn with(
        kube: kube_api::Options,
        mut service: service::Options,
    ) -> Result<Self, Error> {
        let authority = Authority::new()?;
        let dir = tempfile::tempdir().map_err(io("creating a temporary directory"))?;
        let (kube_faults, service_faults) = (Faults::default(), Faults::default());
        service.tokens.insert(TOKEN.to_owned());
        let kube = kube_api::Options {
            token: KUBE_TOKEN.to_owned(),
            ..kube
        };
        let kube = KubeApi::start(&authority, kube_faults.clone(), kube).await?;
        authority.write_to(&dir.path().join("ca.crt"))?;
        KubeApi::write_service_account(&authority, KUBE_TOKEN, &dir.path().join("serviceaccount"))?;
        let kubeconfig = dir.path().join("kubeconfig");
        kube.write_kubeconfig(&authority, KUBE_TOKEN, &kubeconfig)?;
        let client = authority.issue_client("podbeat", &[])?;
        for (name, pem) in [
            ("client.crt", &client.certificate),
            ("client.key", &client.key),
        ] {
            std::fs::write(dir.path().join(name), pem)
                .map_err(io("writing the client's certificate"))?;
        }
        if let Some(launch) = &mut service.launch {
            launch.kubeconfig = kubeconfig;
        }
        let service_options = service.clone();
        let service = Service::start(
            &authority,
            Contract::load()?,
            service_faults.clone(),
            service,
        )
        .await?;
        let world = Self {
            kube: Arc::new(kube),
            kube_faults,
            service,
            service_faults,
            authority: Arc::new(authority),
            service_options,
            dir,
        };
        world.write_token(TOKEN)?;
        Ok(world)
    }

    /// Kills the service and starts it again, at the same address. It continues only with what is in
    /// its data file.
    ///
    /// # Errors
    /// The port was taken meanwhile, or the data file can't be used.
    pub async fn restart_service(&mut self) -> Result<(), Error> {
        self.service.kill().await;
        let options = service::Options {
            port: self.service.port(),
            ..self.service_options.clone()
        };
        let faults = self.service_faults.clone();
        self.service = Service::start(&self.authority, Contract::load()?, faults, options).await?;
        Ok(())
    }

    /// A second service like the one of this world, at another address, with the same data file. It
    /// waits until no other one uses that file.
    ///
    /// # Errors
    /// The same as for [`Self::with`].
    pub fn second_service(&self) -> impl Future<Output = Result<Service, Error>> + Send + use<> {
        let (faults, options) = (self.service_faults.clone(), self.service_options.clone());
        let authority = Arc::clone(&self.authority);
        async move { Service::start(&authority, Contract::load()?, faults, options).await }
    }

    /// Starts a Job controller and a node. `programs` says what the task of each attempt does, from
    /// the run's ID and the number of the attempt. `onlooker` gets what the agents do.
    ///
    /// # Errors
    /// There is no temporary directory, or a file can't be read.
    pub fn node(
        &self,
        pace: std::time::Duration,
        programs: impl Fn(&str, u32) -> Program + Send + Sync + 'static,
        onlooker: impl Onlooker + Clone + Send + 'static,
    ) -> Result<Node, Error> {
        let read = |name: &str| {
            let path = self.path(name);
            std::fs::read_to_string(&path).map_err(io(format!("reading {}", path.display())))
        };
        let map = |pairs: &[(&str, String)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect()
        };
        let ca = map(&[("ca.crt", read("ca.crt")?)]);
        let settings = map(&[
            ("PODBEAT_CA_FILE", "/var/run/podbeat/ca.crt".to_owned()),
            ("PODBEAT_INTERVAL", "1s".to_owned()),
            // A single agent needs no spread, and tests should not wait for it.
            ("PODBEAT_RECONNECT_SPREAD", "0s".to_owned()),
        ]);
        let config_maps = [
            ("podbeat", settings),
            ("podbeat-ca", ca.clone()),
            ("kube-root-ca.crt", ca),
        ];
        let options = node::Options {
            pace,
            token: KUBE_TOKEN.to_owned(),
            config_maps: config_maps
                .map(|(name, data)| (name.to_owned(), data))
                .into(),
        };
        Node::start(Arc::clone(&self.kube), options, programs, onlooker)
    }

    /// The path of a file or directory of this world: `token`, `ca.crt`, `client.crt`,
    /// `client.key`, `kubeconfig`, `serviceaccount`, or one of the caller's.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the service's token file atomically, as the kubelet does.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_token(&self, token: &str) -> Result<(), Error> {
        let beside = self.path("token.new");
        std::fs::write(&beside, token).map_err(io("writing the token"))?;
        std::fs::rename(&beside, self.path("token")).map_err(io("replacing the token"))
    }

    /// The environment of an agent in the pod with this name and UID.
    #[must_use]
    pub fn settings(&self, pod: &str, uid: &str) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", self.kube.port().to_string()),
            (
                "PODBEAT_SERVICE_ACCOUNT_DIR",
                text(&self.path("serviceaccount")),
            ),
            ("TASK_RUN_ID", RUN.to_owned()),
            ("POD_NAME", pod.to_owned()),
            ("POD_NAMESPACE", "lab".to_owned()),
            ("POD_UID", uid.to_owned()),
            ("PODBEAT_SERVICE_URL", self.service.url()),
            ("PODBEAT_TOKEN_FILE", text(&self.path("token"))),
            ("PODBEAT_CA_FILE", text(&self.path("ca.crt"))),
            // A single agent needs no spread, and tests should not wait for it.
            ("PODBEAT_RECONNECT_SPREAD", "0s".to_owned()),
        ]
        .into_iter()
        .map(|(variable, value)| (variable.to_owned(), value))
        .collect()
    }
}
