//! Measures podbeat's resource use from outside the process, with stand-ins for the Kubernetes API
//! and the task-run service.
//! Contains processes as /proc shows them, their environment, and the measurements of budgets and
//! peers.
//! Never here: code of the production binary, or a figure that wasn't measured.

pub mod budget;
pub mod control_group;
pub mod peers;
pub mod process;
pub mod server;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Formats an error with all its causes on one line.
pub use podbeat_lab::chain;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file, a program or the system failed.
    #[error("{what}")]
    Io {
        /// The action that failed.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A stand-in failed.
    #[error(transparent)]
    Lab(#[from] podbeat_lab::Error),
    /// A memory limit is not available.
    #[error(
        "{} can't be used: `hostile` and `reap` need a control group with a memory limit; run as root \
         where /sys/fs/cgroup is writable, or leave them out with --only",
        path.display()
    )]
    NoControlGroup {
        /// The group, or its limit.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A measured process ended too early.
    #[error("{program} (process {id}) ended before it was measured; its log:\n{log}")]
    Gone {
        /// The program.
        program: String,
        /// The process id.
        id: i32,
        /// The end of its output.
        log: String,
    },
    /// A file in /proc has unexpected content.
    #[error("can't read {what} in {}; Linux 4.14 or later is required", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// The missing value.
        what: &'static str,
    },
    /// The file of budgets is invalid.
    #[error("{} is not a valid file of budgets: {problem}", path.display())]
    Budgets {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A fault rule is invalid.
    #[error(transparent)]
    Fault(#[from] podbeat_lab::fault::Misread),
    /// valgrind needs function names.
    #[error(
        "callgrind needs function names; build the binary with them (image/static.sh --symbols), and pass it with --symbols"
    )]
    NoSymbols,
    /// valgrind wrote no counts.
    #[error(
        "valgrind counted nothing; install it, and build the binary with function names (image/static.sh --symbols); its \
         output:\n{log}"
    )]
    Valgrind {
        /// The end of its output.
        log: String,
    },
    /// A compared subject wasn't prepared.
    #[error("{name} is not prepared; run `bash bench/prepare.sh`, which reports missing programs")]
    NotPrepared {
        /// Its name.
        name: String,
    },
    /// A subject doesn't do the work for which it is compared.
    #[error("{subject} does not do the same work: {}", .complaints.join("; "))]
    Unfair {
        /// Its name.
        subject: &'static str,
        /// The differences.
        complaints: Vec<String>,
    },
    /// The page has no markers for the figures.
    #[error("{} needs the lines {begin:?} and {end:?} around the figures", path.display())]
    NoPlace {
        /// The page.
        path: PathBuf,
        /// The line before them.
        begin: &'static str,
        /// The line after them.
        end: &'static str,
    },
    /// The data of a measurement can't be prepared.
    #[error(transparent)]
    Store(#[from] podbeat_server::store::Error),
    /// The key file of a measurement can't be used.
    #[error(transparent)]
    Keys(#[from] podbeat_server::keys::Error),
    /// A connection to the measured server failed.
    #[error("cannot use a connection to podbeat-server")]
    Http(#[from] hyper::Error),
    /// The measured server gave another answer than the work requires.
    #[error("podbeat-server answered {status} to {what}: {body}")]
    Answer {
        /// The request.
        what: &'static str,
        /// The status.
        status: http::StatusCode,
        /// The answer.
        body: String,
    },
    /// Requests failed during a measurement.
    #[error("{failed} of {all} {what} failed, for example: {example}")]
    Failures {
        /// The requests.
        what: &'static str,
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
        /// One failure.
        example: String,
    },
    /// Server and load generator can't have a CPU each.
    #[error("the server and the load generator need a CPU each, but this process may use only one")]
    OneCpu,
    /// The awaited state was not reached.
    #[error("timed out after {} s while waiting for {what}; {seen}", .waited.as_secs_f64())]
    InVain {
        /// The awaited state.
        what: String,
        /// How long it waited.
        waited: Duration,
        /// The last state that was seen.
        seen: String,
    },
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// The repository from which this was built.
#[must_use]
pub fn repository() -> PathBuf {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench).to_owned()
}
