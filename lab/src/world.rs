//! Both stand-ins together, and the settings that connect an agent to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::contract::Contract;
use crate::fault::Faults;
use crate::kube_api::{self, KubeApi};
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
    pub kube: KubeApi,
    /// Faults of the Kubernetes API.
    pub kube_faults: Faults,
    /// The task-run service.
    pub service: Service,
    /// Faults of the task-run service.
    pub service_faults: Faults,
    /// The authority that signs the certificates of both.
    pub authority: Authority,
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
        let service = Service::start(
            &authority,
            Contract::load()?,
            service_faults.clone(),
            service,
        )
        .await?;
        authority.write_to(&dir.path().join("ca.crt"))?;
        KubeApi::write_service_account(&authority, KUBE_TOKEN, &dir.path().join("serviceaccount"))?;
        kube.write_kubeconfig(&authority, KUBE_TOKEN, &dir.path().join("kubeconfig"))?;
        let client = authority.issue_client("podbeat", &[])?;
        for (name, pem) in [
            ("client.crt", &client.certificate),
            ("client.key", &client.key),
        ] {
            std::fs::write(dir.path().join(name), pem)
                .map_err(io("writing the client's certificate"))?;
        }
        let world = Self {
            kube,
            kube_faults,
            service,
            service_faults,
            authority,
            dir,
        };
        world.write_token(TOKEN)?;
        Ok(world)
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
