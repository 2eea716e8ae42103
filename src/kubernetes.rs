//! From the settings of the Kubernetes API to the way there.

use podbeat_http_client::route::Proxies;
use podbeat_kubernetes::watch::Access;

use crate::config::Kubernetes;

/// How the API server is reached with these settings.
#[must_use]
pub fn access(settings: &Kubernetes, proxies: &Proxies) -> Access {
    match settings {
        Kubernetes::InCluster {
            host,
            port,
            service_account_dir,
        } => Access::InCluster {
            host: host.clone(),
            port: *port,
            service_account_dir: service_account_dir.clone(),
            proxies: proxies.clone(),
        },
        Kubernetes::Kubeconfig { path, context } => Access::Kubeconfig {
            path: path.clone(),
            context: context.clone(),
            proxies: proxies.clone(),
        },
    }
}
