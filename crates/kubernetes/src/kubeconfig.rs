//! The way to the API server from a laptop: as kubectl goes, by a kubeconfig, which kube reads. The proxies are ours: kube's own
//! reading of NO_PROXY compares it with the proxy, and fails on an empty entry.
//!
//! Behind the feature `laptop`: in a pod nobody has a kubeconfig, and what reads one (YAML, programs for credentials) would be in
//! every pod.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::client::ConfigExt;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use podbeat_files::{regular_file, trimmed};
use podbeat_http_client::route::{self, PlainHttp, Proxies, Route};
use podbeat_http_client::tls::{Encryption, Unfit, speaking_http};
use rustls::pki_types::CertificateDer;
use tower_layer::Layer;
use url::Url;

use super::transport::Carrier;
use super::watch::Reached;

/// The most that is read of a kubeconfig, in bytes: of a thousand clusters, certificates included.
const LARGEST: u64 = 8 << 20;

/// Why the kubeconfig can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("reading the Kubernetes client configuration: is KUBECONFIG (or --kubeconfig, --context) right?")]
    Unreadable(#[source] KubeconfigError),
    /// A file that it names can't be read.
    #[error("reading {what} that the kubeconfig names from {}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
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
    /// The server's address isn't one.
    #[error("the server that the kubeconfig names has no URL")]
    Address(#[source] url::ParseError),
    /// The proxy can't be used.
    #[error("the way to the Kubernetes API")]
    Route(#[source] route::Error),
    /// TLS can't be set up.
    #[error("setting up TLS to the Kubernetes API, or to the proxy on the way")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::Tls(unfit.into())
    }
}

/// What names the proxy of a kubeconfig's cluster.
const PROXY_URL: &str = "proxy-url of the kubeconfig";

/// Sets a client up, by what the kubeconfig says; sends nothing yet. `None` for `~/.kube/config`, and for its current context.
pub(super) async fn reach(
    path: Option<&Path>,
    context: Option<String>,
    proxies: &Proxies,
) -> Result<Reached, Error> {
    let (config, proxy) = config(path, context).await?;
    let url: Url = config.cluster_url.to_string().parse().map_err(Error::Address)?;
    let route = match proxy {
        // As kubectl has it: for this cluster alone, whatever NO_PROXY says.
        Some(proxy) => Route::by(url, PROXY_URL, &proxy),
        None => proxies.route(url, PlainHttp::Direct),
    };
    let route = route.map_err(Error::Route)?;
    Ok(Reached {
        namespace: config.default_namespace.clone(),
        client: client(&config, route.clone())?,
        route,
    })
}

/// What the kubeconfig says, and the proxy that it names.
async fn config(path: Option<&Path>, context: Option<String>) -> Result<(Config, Option<String>), Error> {
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let path = match path {
        Some(path) => path.to_owned(),
        None => std::env::home_dir()
            .ok_or(Error::Unreadable(KubeconfigError::FindPath))?
            .join(".kube/config"),
    };
    let mut kubeconfig = read(&path).map_err(unreadable)?;
    let proxy = take_in(&mut kubeconfig, options.context.as_deref())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(unreadable)?;
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static(podbeat_http_client::USER_AGENT),
    ));
    Ok((config, proxy))
}

/// kube's layers (who asks, and below which path) over our own connection.
fn client(config: &Config, route: Route) -> Result<Client, Error> {
    let roots = config.root_cert.iter().flatten();
    let roots: Vec<_> = roots.map(|root| CertificateDer::from(root.clone())).collect();
    let to_server = || config.rustls_client_config().map(speaking_http).map_err(setup);
    let mut tls = Encryption::new(&route, to_server, &roots)?;
    tls.server_name.clone_from(&config.tls_server_name);
    let base = config.base_uri_layer();
    let headers = config.extra_headers_layer().map_err(setup)?;
    let sent = headers.layer(Carrier::new(route, tls));
    let namespace = config.default_namespace.clone();
    Ok(match config.auth_layer().map_err(setup)? {
        Some(credentials) => Client::new(base.layer(credentials.layer(sent)), namespace),
        None => Client::new(base.layer(sent), namespace),
    })
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
        other => Error::Setup(other),
    }
}

/// A kubeconfig, or several that are joined, as `KUBECONFIG` may name them. Of several, one that isn't there is passed over, as
/// kubectl does; of two entries with one name the first holds.
fn read(paths: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let mut all = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
    let (Some(first), Some(second)) = (all.next(), all.next()) else {
        return read_one(paths);
    };
    [first, second]
        .into_iter()
        .chain(all)
        .filter(|path| path.exists())
        .try_fold(Kubeconfig::default(), |joined, path| {
            joined.merge(read_one(&path)?)
        })
}

/// kube's client reads it, with a byte order mark or without, once it is known to be a file that
/// can be read.
fn read_one(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    match regular_file::read(path, LARGEST) {
        Ok(_) => Kubeconfig::read_from(path),
        Err(error) => Err(KubeconfigError::ReadConfig(error, path.to_owned())),
    }
}

/// Reads the certificates and the key that a context names, and puts them in the place of their
/// names: kube's client would wait for a pipe, and not find a certificate behind a byte order mark.
/// A token's file is read again as it changes, and so stays named. The cluster's proxy is handed out, and kube's client
/// gets one that it doesn't use: else it would look for one in the environment.
fn take_in(kubeconfig: &mut Kubeconfig, context: Option<&str>) -> Result<Option<String>, Error> {
    let wanted = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(named.name.as_str()) == wanted)
        .and_then(|named| named.context.clone());
    // What is missing is told by whoever reads the rest.
    let Some(context) = context else { return Ok(None) };
    let mut clusters = kubeconfig.clusters.iter_mut();
    let cluster = clusters.find(|named| named.name == context.cluster);
    let mut proxy = None;
    if let Some(Cluster {
        certificate_authority: file,
        certificate_authority_data: data,
        proxy_url,
        ..
    }) = cluster.and_then(|named| named.cluster.as_mut())
    {
        if data.is_none() {
            *data = encoded("the CA", file)?;
        }
        proxy = proxy_url.replace("http://unused.invalid".to_owned());
    }
    let mut users = kubeconfig.auth_infos.iter_mut();
    let user = users.find(|named| Some(&named.name) == context.user.as_ref());
    if let Some(user) = user.and_then(|named| named.auth_info.as_mut()) {
        let AuthInfo {
            client_certificate,
            client_certificate_data,
            client_key,
            client_key_data,
            token_file,
            ..
        } = user;
        if client_certificate_data.is_none() {
            *client_certificate_data = encoded("the client certificate", client_certificate)?;
        }
        if client_key_data.is_none() {
            *client_key_data = encoded("the client key", client_key)?.map(Into::into);
        }
        if let Some(path) = token_file {
            file("the token", path, regular_file::LINE)?;
        }
    }
    Ok(proxy.filter(|proxy| !proxy.trim().is_empty()))
}

/// What a file in PEM form holds, as a kubeconfig has it.
fn encoded(what: &'static str, path: &Option<String>) -> Result<Option<String>, Error> {
    let Some(path) = path else { return Ok(None) };
    let pem = file(what, path, regular_file::PEM)?;
    Ok(Some(BASE64_STANDARD.encode(trimmed::pem(&pem))))
}

fn file(what: &'static str, path: &str, most: u64) -> Result<Vec<u8>, Error> {
    regular_file::read(Path::new(path), most).map_err(|source| Error::File {
        what,
        path: path.into(),
        source,
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

    #[test]
    fn marks_hide_nothing_and_pipes_are_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
        let kubeconfig = r#"{"current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://h", "certificate-authority": "ca"}},
                         {"name": "other", "cluster": {"server": "https://h", "certificate-authority": "nowhere"}}],
            "users": [{"name": "u", "user": {"client-certificate": "cert", "client-key": "key"}}]}"#;
        write("config", &format!("\u{feff}{kubeconfig}"));
        for name in ["ca", "cert", "key"] {
            write(name, &format!("\u{feff}-----BEGIN {name}-----\n"));
        }
        let taken_in = || {
            let mut kubeconfig = read(&path("config")).expect("read");
            take_in(&mut kubeconfig, None).map(|_| kubeconfig)
        };
        let kubeconfig = taken_in().expect("all is there");
        let cluster = kubeconfig.clusters[0].cluster.as_ref().expect("a cluster");
        let user = kubeconfig.auth_infos[0].auth_info.as_ref().expect("a user");
        let pem = |data: &Option<String>| {
            BASE64_STANDARD
                .decode(data.as_ref().expect("data"))
                .expect("base64")
        };
        assert_eq!(pem(&cluster.certificate_authority_data), b"-----BEGIN ca-----\n");
        assert_eq!(pem(&user.client_certificate_data), b"-----BEGIN cert-----\n");
        assert!(user.client_key_data.is_some());
        for name in ["ca", "key", "config"] {
            std::fs::remove_file(path(name)).expect("removed");
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path(name), rustix::fs::FileType::Fifo, mode, 0)
                .expect("a pipe");
            let error = match name {
                "config" => unreadable(read(&path("config")).expect_err("a pipe")),
                _ => taken_in().expect_err("a pipe"),
            };
            let causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let text: Vec<String> = causes.map(ToString::to_string).collect();
            let text = text.join(": ");
            assert!(
                text.contains("it is a pipe, not a regular file"),
                "{name}: {text}"
            );
            if name != "config" {
                std::fs::remove_file(path(name)).expect("removed");
                write(name, "-----BEGIN-----\n");
            }
        }
    }
}
