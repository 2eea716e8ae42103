//! Stand-ins of a Kubernetes API and a task-run service, one fault language for both, captures, and pods to play with.
//! Here lives what tests and the demo need to make podbeat's world, over TLS, on loopback.
//! Never here: anything that the production binary contains, and no decision of podbeat's.

pub mod capture;
pub mod contract;
pub mod fault;
pub mod kube_api;
pub mod pki;
pub mod pod;
mod serve;
pub mod service;
pub mod world;

/// Why a stand-in could not begin, or what was awaited did not come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate could not be made.
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A key or certificate could not be used.
    #[error("setting TLS up")]
    Tls(#[from] rustls::Error),
    /// No port, or a file that can't be read or written.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The contract can't be read as YAML.
    #[error("reading the OpenAPI contract")]
    Yaml(#[from] serde_saphyr::Error),
    /// The contract holds a schema that isn't one.
    #[error("the schema {name} of the contract is unusable: {problem}")]
    Schema {
        /// The component.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A line of a capture isn't JSON.
    #[error("line {line} of {path} is not JSON")]
    Capture {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The state that was awaited did not come.
    #[error("waited {} for {what}, in vain; last seen: {seen}", humantime::format_duration(*.waited))]
    InVain {
        /// What was awaited.
        what: String,
        /// How long.
        waited: std::time::Duration,
        /// What there was instead.
        seen: String,
    },
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
