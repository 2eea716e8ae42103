//! The way to the API server from a laptop: with a kubeconfig, as for kubectl. kube reads the
//! kubeconfig, but podbeat selects the proxies, because kube compares NO_PROXY with the proxy
//! instead of the server, and fails on an empty entry.
//!
//! This module is behind the feature `laptop`. A pod has no kubeconfig, and the code that reads one
//! (YAML, credential programs) would be part of every pod's binary.

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

use super::access::Reached;
use super::transport::Carrier;

/// Limit for a kubeconfig, in bytes: enough for a thousand clusters with their certificates.
const LARGEST: u64 = 8 << 20;

/// Why the kubeconfig can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be read.
    #[error("cannot read the kubeconfig; check KUBECONFIG (or --kubeconfig, --context)")]
    Unreadable(#[source] KubeconfigError),
    /// A file that the kubeconfig names can't be read.
    #[error("cannot read {what} of the kubeconfig from {}", path.display())]
    File {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kubeconfig is not YAML that kubectl would read. The parser's own message is not shown,
    /// because it repeats lines that may contain a token.
    #[error("the kubeconfig is not valid{}", at(.place))]
    Malformed {
        /// Line and column, if the parser reports them.
        place: Option<(u64, u64)>,
    },
    /// The client can't be set up. The error's own text is not shown, because it may repeat a
    /// secret.
    #[error("cannot set up the connection to the Kubernetes API: {0}")]
    Withheld(&'static str),
    /// A CA, token or client certificate that the kubeconfig names can't be used.
    #[error(
        "cannot set up the connection to the Kubernetes API; check the kubeconfig's CA, and its token or client certificate"
    )]
    Setup(#[source] kube::Error),
    /// The server's address is not a URL.
    #[error("the kubeconfig's server has no URL")]
    Address(#[source] url::ParseError),
    /// The proxy can't be used.
    #[error("the way to the Kubernetes API")]
    Route(#[source] route::Error),
    /// TLS can't be set up.
    #[error("cannot set up TLS to the Kubernetes API or its proxy")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::Tls(unfit.into())
    }
}

/// The source of a proxy, for messages: the cluster's entry in the kubeconfig.
const PROXY_URL: &str = "proxy-url of the kubeconfig";

/// Creates a client for a kubeconfig without sending anything. `None` means `~/.kube/config`, and
/// its current context.
pub(super) async fn reach(
    path: Option<&Path>,
    context: Option<String>,
    proxies: &Proxies,
) -> Result<Reached, Error> {
    let (config, proxy) = config(path, context).await?;
    let url: Url = config
        .cluster_url
        .to_string()
        .parse()
        .map_err(Error::Address)?;
    let route = match proxy {
        // As for kubectl: only for this cluster, and regardless of NO_PROXY.
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

/// Reads the kubeconfig, and the proxy that it names.
async fn config(
    path: Option<&Path>,
    context: Option<String>,
) -> Result<(Config, Option<String>), Error> {
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

/// Combines kube's layers (credentials and base path) with our own connection.
fn client(config: &Config, route: Route) -> Result<Client, Error> {
    let roots = config.root_cert.iter().flatten();
    let roots: Vec<_> = roots
        .map(|root| CertificateDer::from(root.clone()))
        .collect();
    let to_server = || {
        config
            .rustls_client_config()
            .map(speaking_http)
            .map_err(setup)
    };
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

/// Why the client can't be set up or signed in. The error does not contain the output of a
/// credential program, or a proxy's password.
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

/// Reads a kubeconfig, or several that are joined, as in `KUBECONFIG`. As for kubectl, a missing
/// file in such a list is ignored, and if two entries have the same name, the first one is used.
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

/// Checks that the file can be read, and lets kube's client read it. That accepts a byte order
/// mark.
fn read_one(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    match regular_file::read(path, LARGEST) {
        Ok(_) => Kubeconfig::read_from(path),
        Err(error) => Err(KubeconfigError::ReadConfig(error, path.to_owned())),
    }
}

/// Replaces the paths of a context's certificates and key with their contents, because kube's
/// client would wait for a pipe and would not find a certificate after a byte order mark. The path
/// of a token file stays, because kube reads that file again when it changes. Returns the cluster's
/// proxy, and gives kube's client one that it does not use: otherwise kube would look for a proxy
/// in the environment.
fn take_in(kubeconfig: &mut Kubeconfig, context: Option<&str>) -> Result<Option<String>, Error> {
    let wanted = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(named.name.as_str()) == wanted)
        .and_then(|named| named.context.clone());
    // A missing entry is reported when kube reads the rest.
    let Some(context) = context else {
        return Ok(None);
    };
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

/// Reads a PEM file into the form that a kubeconfig has.
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
    fn several_kubeconfigs_are_merged_and_a_missing_one_is_skipped() {
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
        assert!(
            read(&missing).is_err(),
            "one that is named alone must be there"
        );
    }

    #[test]
    fn byte_order_marks_hide_nothing_and_pipes_do_not_block() {
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
        assert_eq!(
            pem(&cluster.certificate_authority_data),
            b"-----BEGIN ca-----\n"
        );
        assert_eq!(
            pem(&user.client_certificate_data),
            b"-----BEGIN cert-----\n"
        );
        assert!(user.client_key_data.is_some());
        for name in ["ca", "key", "config"] {
            std::fs::remove_file(path(name)).expect("removed");
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                path(name),
                rustix::fs::FileType::Fifo,
                mode,
                0,
            )
            .expect("a pipe");
            let error = match name {
                "config" => unreadable(read(&path("config")).expect_err("a pipe")),
                _ => taken_in().expect_err("a pipe"),
            };
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
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
