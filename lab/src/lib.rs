//! Stand-ins of a Kubernetes API and a task-run service, one fault language for both, captures, and pods to play with.
//! Here lives what tests, the demo and `podbeat-lab service` need to make podbeat's world, on loopback.
//! Never here: anything that the production binary contains, and no decision of podbeat's.

pub mod capture;
pub mod captured;
pub mod contract;
pub mod fault;
pub mod fleet;
pub mod hostile;
pub mod interrupt;
pub mod kube_api;
pub mod page;
pub mod pki;
pub mod pod;
mod serve;
pub mod service;
pub mod task_runs;
pub mod world;

/// An error with all its causes, on one line.
pub use podbeat_interface::exit::with_causes as chain;

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
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// The data file can't be used.
    #[error("{what} the data file {}", path.display())]
    Data {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The data file is another program's, or a later version's.
    #[error("{} is no data file of this version of the stand-in (version {version}): choose another file", path.display())]
    ForeignData {
        /// The file.
        path: std::path::PathBuf,
        /// The version that it says.
        version: i32,
    },
    /// The data file holds a run that can't be read.
    #[error("a run in the data file {} can't be read: choose another file", path.display())]
    Torn {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// More runs were named than there is room for.
    #[error("more runs are named than there is room for: raise the limit of runs")]
    TooManyRuns,
    /// A run that was named isn't known.
    #[error("there is no run {0}")]
    NoSuchRun(String),
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
