//! The settings of `podbeat observe`.

use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::reader::{Errors, Reader};
use podbeat_interface::reporting::Reporting;
use podbeat_interface::setting::{
    CONTAINER_NAME, IGNORED_CONTAINERS, INTERVAL, JOB_RETRY_COUNT, KUBE_CONTEXT, KUBECONFIG,
    KUBERNETES_SERVICE_HOST, MAX_STATUS_AGE, POD_NAMESPACE, REPORT, Row, TASK_CONTAINERS,
};
use podbeat_interface::terminal::Terminal;
use podbeat_kubernetes::access::Access;

/// Every setting of `podbeat observe`. The variables are the agent's, the flags of the cluster are
/// kubectl's.
pub static OBSERVE_SETTINGS: &[Row] = &[
    POD_NAMESPACE
        .row
        .with_flag("namespace")
        .with_default("the context's namespace")
        .with_meaning("namespace of the pod"),
    KUBECONFIG.row,
    KUBE_CONTEXT.row,
    INTERVAL.row,
    REPORT.row,
    CONTAINER_NAME.row,
    TASK_CONTAINERS.row,
    IGNORED_CONTAINERS.row,
    JOB_RETRY_COUNT
        .row
        .with_default("the annotation batch.kubernetes.io/job-index-failure-count"),
    MAX_STATUS_AGE.row,
];

/// The checked settings of `podbeat observe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserveConfig {
    /// The pod's namespace. `None` for the kubeconfig's.
    pub namespace: Option<String>,
    /// How to reach the Kubernetes API.
    pub kubernetes: Access,
    /// What to report about the pod, and how often.
    pub reporting: Reporting,
    /// What the terminal can show.
    pub terminal: Terminal,
}

impl ObserveConfig {
    /// Reads and checks the settings of `podbeat observe`.
    ///
    /// # Errors
    /// All malformed settings together, by name.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(OBSERVE_SETTINGS, flags, environment);
        let host = read.optional(&KUBERNETES_SERVICE_HOST);
        let config = Self {
            namespace: read.optional(&POD_NAMESPACE),
            kubernetes: read.kubernetes(host),
            reporting: Reporting::read(&mut read),
            terminal: read.terminal(),
        };
        read.done(config)
    }
}
