//! The settings of `podbeat observe`.

use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::reader::{Errors, Reader, dns_name};
use podbeat_interface::reporting::Reporting;
use podbeat_interface::setting::{
    CONTAINER_NAME, IGNORED_CONTAINERS, INTERVAL, JOB_RETRY_COUNT, KUBE_CONTEXT, KUBECONFIG,
    MAX_STATUS_AGE, REPORT, Setting, TASK_CONTAINERS, setting,
};
use podbeat_interface::terminal::Terminal;
use podbeat_kubernetes::access::Access;

/// All settings of `podbeat observe`. The variables have the agent's names. The flags of the
/// cluster have kubectl's.
pub const OBSERVE_SETTINGS: &[Setting] = &[
    setting(
        "POD_NAMESPACE",
        "namespace",
        "the context's namespace",
        "namespace of the pod",
    ),
    KUBECONFIG,
    KUBE_CONTEXT,
    INTERVAL,
    REPORT,
    CONTAINER_NAME,
    TASK_CONTAINERS,
    IGNORED_CONTAINERS,
    JOB_RETRY_COUNT,
    MAX_STATUS_AGE,
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
        let host = read.text("KUBERNETES_SERVICE_HOST");
        let config = Self {
            namespace: read.optional("POD_NAMESPACE", dns_name),
            kubernetes: read.kubernetes(host),
            reporting: Reporting::read(&mut read),
            terminal: Terminal::load(environment),
        };
        read.done(config)
    }
}
