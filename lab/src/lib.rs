//! Stand-ins for a Kubernetes API and a task-run service, one fault language for both, captures,
//! and sample pods.
//! Contains what tests, the demo and `podbeat-lab service` need to simulate podbeat's environment
//! on loopback.
//! Never here: code of the production binary, or a decision of podbeat.

pub mod capture;
pub mod captured;
pub mod contract;
pub mod fault;
pub mod fleet;
pub mod hostile;
pub mod interrupt;
pub mod kube_api;
pub mod node;
pub mod pki;
pub mod pod;
mod serve;
pub mod service;
pub mod world;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Two addresses on loopback that were free a moment ago, for a program that listens on both. They
/// stay the same when the program starts again.
///
/// # Errors
/// There is no free port.
pub fn free_addresses() -> Result<(SocketAddr, SocketAddr), Error> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io("looking for a port"));
    let (one, other) = (listen()?, listen()?);
    let address = |listener: &TcpListener| listener.local_addr().map_err(io("looking for a port"));
    Ok((address(&one)?, address(&other)?))
}

/// Formats an error with all its causes on one line.
pub use podbeat_interface::exit::with_causes as chain;

/// Why a stand-in could not start, or an awaited state was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate could not be made.
    #[error("creating a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A key or certificate could not be used.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// No port is free, or a file can't be read or written.
    #[error("{what}")]
    Io {
        /// The action that failed.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The contract can't be read as YAML.
    #[error("reading the OpenAPI contract")]
    Yaml(#[from] serde_saphyr::Error),
    /// The contract contains an invalid schema.
    #[error("the contract's schema {name} is invalid: {problem}")]
    Schema {
        /// The schema's name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A line of a capture isn't JSON.
    #[error("line {line} of {path} is not JSON")]
    Capture {
        /// The file.
        path: String,
        /// The line number, from 1.
        line: usize,
        /// The JSON error.
        #[source]
        source: serde_json::Error,
    },
    /// The keys of the service can't be used.
    #[error("getting the service's keys")]
    Keys(#[from] podbeat_server::keys::Error),
    /// The data file can't be used.
    #[error("opening the data file")]
    Data(#[from] podbeat_server::data::Error),
    /// The store of the service can't be used.
    #[error("using the service's store")]
    Store(#[from] podbeat_server::store::Error),
    /// There is no client for the Kubernetes API.
    #[error(transparent)]
    Cluster(#[from] podbeat_launch::cluster::Error),
    /// The service refuses an operation.
    #[error("the service refused an operation")]
    Refused(#[from] podbeat_server::service::Problem),
    /// The awaited state was not reached.
    #[error("timed out after {} while waiting for {what}; last seen: {seen}", humantime::format_duration(*.waited))]
    InVain {
        /// The awaited state.
        what: String,
        /// How long it waited.
        waited: std::time::Duration,
        /// The last state that was seen.
        seen: String,
    },
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}
