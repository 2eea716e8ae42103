//! How to reach the API server: from a pod, or as kubectl.

use std::path::PathBuf;

use kube::Client;
use podbeat_http_client::route::{self, PlainHttp, Proxies, Route};
use url::Url;

use super::transport::{self, Transport};

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// From a pod: the address comes from the environment. Token and CA come from a directory, and
    /// are read again when they change.
    InCluster {
        /// `KUBERNETES_SERVICE_HOST`.
        host: String,
        /// `KUBERNETES_SERVICE_PORT`.
        port: u16,
        /// The directory with `token` and `ca.crt`.
        service_account_dir: PathBuf,
        /// The proxies of the environment.
        proxies: Proxies,
    },
    /// As kubectl. Only in the build for a laptop.
    Kubeconfig {
        /// The file. `None` means `~/.kube/config`.
        path: Option<PathBuf>,
        /// The context, if not the current one.
        context: Option<String>,
        /// The proxies of the environment.
        proxies: Proxies,
    },
}

impl Access {
    /// Whether this build supports kubeconfigs.
    pub const READS_KUBECONFIGS: bool = cfg!(feature = "kubeconfig");
}

/// Why no client of the Kubernetes API could be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be used.
    #[cfg(feature = "kubeconfig")]
    #[error(transparent)]
    Kubeconfig(#[from] super::kubeconfig::Error),
    /// This build does not support kubeconfigs.
    #[cfg(not(feature = "kubeconfig"))]
    #[error(
        "this build of podbeat does not read a kubeconfig; run it in a pod, or use the build for a laptop (cargo feature `laptop`)"
    )]
    NoKubeconfig,
    /// The address is not valid.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not a valid address")]
    Address(#[source] url::ParseError),
    /// The proxy can't be used.
    #[error("the way to the Kubernetes API")]
    Route(#[source] route::Error),
    /// The service account's token or the cluster's CA can't be used.
    #[error(transparent)]
    ServiceAccount(#[from] transport::Error),
}

/// A client of the API server, and the way to it.
pub(super) struct Reached {
    pub(super) client: Client,
    /// The namespace of pods for which none is given.
    pub(super) namespace: String,
    pub(super) route: Route,
}

/// The path of the pods in a namespace, or in all namespaces.
pub(super) fn pods_in(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        None => "/api/v1/pods".to_owned(),
    }
}

/// Creates a client without sending anything.
pub(super) async fn reach(access: &Access) -> Result<Reached, Error> {
    match access {
        Access::InCluster {
            host,
            port,
            service_account_dir,
            proxies,
        } => {
            let server = server(host, *port)?;
            let route = proxies
                .route(server, PlainHttp::Loopback)
                .map_err(Error::Route)?;
            let transport = Transport::new(route.clone(), service_account_dir).await?;
            Ok(Reached {
                client: Client::new(transport, "default"),
                namespace: "default".to_owned(),
                route,
            })
        }
        #[cfg(feature = "kubeconfig")]
        Access::Kubeconfig {
            path,
            context,
            proxies,
        } => Ok(super::kubeconfig::reach(path.as_deref(), context.clone(), proxies).await?),
        #[cfg(not(feature = "kubeconfig"))]
        Access::Kubeconfig { .. } => Err(Error::NoKubeconfig),
    }
}

fn server(host: &str, port: u16) -> Result<Url, Error> {
    format!("https://{}", route::authority(host, port))
        .parse()
        .map_err(Error::Address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_environment_becomes_a_url() {
        let url = |host, port| server(host, port).map(|url| url.to_string());
        assert_eq!(url("10.96.0.1", 443).expect("IPv4"), "https://10.96.0.1/");
        assert_eq!(
            url("fd00::1", 6443).expect("IPv6"),
            "https://[fd00::1]:6443/"
        );
        assert_eq!(
            url("kubernetes.default.svc", 443).expect("a name"),
            "https://kubernetes.default.svc/"
        );
        assert!(matches!(url("not a host", 443), Err(Error::Address(_))));
    }
}
