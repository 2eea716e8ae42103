//! podbeat's release binary against a real etcd and kube-apiserver on loopback.
//! Here lives the cluster, the agent as a process, and the scenarios, each a test of its own.
//! Never here: a stand-in of Kubernetes (that is lab's), or anything that the production binary contains.

pub mod api;
pub mod cluster;
pub mod deploy;
pub mod fleet;
pub mod lives;
pub mod network;
pub mod node;
pub mod process;
pub mod runner;
pub mod scenarios;

/// Why a scenario failed, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stand-in, a certificate or a capture is unusable, or what was awaited did not come.
    #[error(transparent)]
    Lab(#[from] podbeat_lab::Error),
    /// A file or process.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The API server's answer to us.
    #[error("{what}")]
    Kube {
        /// What was asked for.
        what: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image or a manifest of ours.
    #[error("{what}")]
    Ours {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program ended or did not come up.
    #[error("{what}; the end of its log:\n{log}")]
    Program {
        /// What happened.
        what: String,
        /// The last lines it wrote.
        log: String,
    },
    /// What was seen is not what was expected.
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
