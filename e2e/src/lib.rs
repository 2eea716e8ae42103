//! podbeat's release binary with a real etcd and kube-apiserver on loopback, and on a real node.
//! Contains the cluster, the agent as a process, and the scenarios.
//! Never here: a stand-in for Kubernetes (see lab), or code of the production binary.

pub mod api;
pub mod api_scenarios;
pub mod cluster;
pub mod deploy;
pub mod fleet;
pub mod launch;
pub mod network;
pub mod node;
pub mod process;
pub mod runner;
pub mod scenarios;

/// Why a scenario failed, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stand-in, a certificate or a capture is unusable, or an awaited state was not reached.
    #[error(transparent)]
    Lab(#[from] podbeat_lab::Error),
    /// A file or process failed.
    #[error("{what}")]
    Io {
        /// The action that failed.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The API server's answer is an error.
    #[error("{what}")]
    Kube {
        /// The request.
        what: String,
        /// The answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of our images or manifests is unusable.
    #[error("{what}")]
    Ours {
        /// The action that failed.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program ended or did not start.
    #[error("{what}; the end of its log:\n{log}")]
    Program {
        /// The event.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// The observation differs from the expectation.
    #[error("{0}")]
    Unexpected(String),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

pub(crate) fn ours<E>(what: impl Into<String>) -> impl FnOnce(E) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let what = what.into();
    move |source| Error::Ours {
        what,
        source: Box::new(source),
    }
}

/// The end of a log file.
#[must_use]
pub fn tail(path: &std::path::Path) -> String {
    const LINES: usize = 30;
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}
