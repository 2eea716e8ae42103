//! The way to the API server from a laptop: as kubectl goes, by a kubeconfig, on kube's own stack.
//!
//! Behind the feature `laptop`: in a pod nobody has a kubeconfig, and what reads one (YAML, programs for credentials, a second HTTP and
//! TLS stack) would be in every pod.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// A connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// Why the kubeconfig can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("reading the Kubernetes client configuration: is KUBECONFIG (or --kubeconfig, --context) right?")]
    Unreadable(#[source] KubeconfigError),
    /// It isn't YAML that kubectl would read. What the parser says of it repeats lines of it, a token perhaps.
    #[error("the kubeconfig is not the YAML that kubectl reads{}", at(.place))]
    Malformed {
        /// Line and column, where the parser tells.
        place: Option<(u64, u64)>,
    },
    /// The client can't be set up, for a reason whose own words may repeat a secret.
    #[error("setting up the connection to the Kubernetes API: {0}")]
    Withheld(&'static str),
    /// A CA, token or client certificate that it names can't be used.
    #[error(
        "setting up the connection to the Kubernetes API: check the CA, and the token or client certificate, that the kubeconfig names"
    )]
    Setup(#[source] kube::Error),
}

/// What the kubeconfig says; `None` for `~/.kube/config`, and for its current context.
pub(super) async fn config(path: Option<&Path>, context: Option<String>) -> Result<Config, Error> {
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = match path {
        Some(path) => {
            let kubeconfig = read(path).map_err(unreadable)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let mut config = config.map_err(unreadable)?;
    config.connect_timeout = Some(CONNECT);
    // Retries are ours: kube's own (15 of them, up to 1000 s apart) would hide an outage.
    config.default_retry = false;
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(crate::USER_AGENT),
    ));
    Ok(config)
}

/// Sets a client up; sends nothing yet.
pub(super) fn client(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(setup)
}

/// Why the client can't be set up or signed in, without what a program for credentials printed, and without a proxy's password.
pub(super) fn setup(error: kube::Error) -> Error {
    use kube::client::AuthError;
    match error {
        kube::Error::Auth(AuthError::AuthExecRun { .. }) => Error::Withheld(
            "the kubeconfig's program for credentials failed (what it printed is not shown); does kubectl work with it?",
        ),
        kube::Error::Auth(
            AuthError::ReadTokenFile(..)
            | AuthError::AuthExecStart(_)
            | AuthError::MissingCommand
            | AuthError::ExecMissingClusterInfo,
        ) => Error::Setup(error),
        kube::Error::Auth(_) => Error::Withheld(
            "the credentials can't be used: those that the kubeconfig names, or what its program for them printed (neither is \
             shown)",
        ),
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            Error::Withheld(
                "the proxy of HTTPS_PROXY, or of the kubeconfig, is of a kind that can't be used; one of plain HTTP can",
            )
        }
        other => Error::Setup(other),
    }
}

/// A kubeconfig, or several that are joined, as `KUBECONFIG` may name them. Of several, one that isn't there is passed over, as
/// kubectl does; of two entries with one name the first holds.
fn read(paths: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let mut all = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
    let (Some(first), Some(second)) = (all.next(), all.next()) else {
        return Kubeconfig::read_from(paths);
    };
    [first, second]
        .into_iter()
        .chain(all)
        .filter(|path| path.exists())
        .try_fold(Kubeconfig::default(), |joined, path| {
            joined.merge(Kubeconfig::read_from(path)?)
        })
}

fn unreadable(error: KubeconfigError) -> Error {
    match error {
        KubeconfigError::Parse(error) => Error::Malformed {
            place: error.location().map(|at| (at.line(), at.column())),
        },
        other => Error::Unreadable(other),
    }
}

fn at(place: &Option<(u64, u64)>) -> String {
    place
        .map(|(line, column)| format!(" (line {line}, column {column})"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_kubeconfigs_are_joined_and_one_that_is_missing_is_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, context: &str| {
            let path = dir.path().join(name);
            let text = format!(
                r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "{context}",
                    "contexts": [{{"name": "{context}", "context": {{"cluster": "c", "namespace": "{name}"}}}}]}}"#
            );
            std::fs::write(&path, text).expect("written");
            path
        };
        let (one, two) = (file("one", "a"), file("two", "b"));
        let missing = dir.path().join("missing");
        let joined = std::env::join_paths([&missing, &one, &two]).expect("paths");
        let joined = read(Path::new(&joined)).expect("joined");
        assert_eq!(joined.current_context.as_deref(), Some("a"));
        let names: Vec<&str> = joined
            .contexts
            .iter()
            .map(|context| context.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(read(&missing).is_err(), "one that is named alone must be there");
    }
}
