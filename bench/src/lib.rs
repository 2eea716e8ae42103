//! What podbeat costs, measured on the process from outside, before stand-ins of the Kubernetes API and the task-run service.
//! Here live processes as /proc shows them, the world that they run in, and the measurements of budgets and of peers.
//! Never here: anything that the production binary contains, and no figure that wasn't measured.

pub mod budget;
pub mod control_group;
pub mod peers;
pub mod process;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error with all its causes, on one line.
pub use podbeat_lab::chain;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a program or the system didn't do what was asked.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A stand-in failed.
    #[error(transparent)]
    Lab(#[from] podbeat_lab::Error),
    /// There is no memory limit to be had.
    #[error(
        "{} can't be used: `hostile` and `reap` need a control group with a memory limit; run as root \
         where /sys/fs/cgroup is writable, or leave them out with --only",
        path.display()
    )]
    NoControlGroup {
        /// The group, or its limit.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A process that is measured is gone.
    #[error("{program} (process {id}) is gone before it was measured: read what it logged:\n{log}")]
    Gone {
        /// The program.
        program: String,
        /// The process.
        id: i32,
        /// The end of what it wrote.
        log: String,
    },
    /// Something in /proc isn't as expected.
    #[error("{} holds no readable {what}: this needs Linux 4.14 or later", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The file of budgets isn't as expected.
    #[error("{} is no file of budgets: {problem}", path.display())]
    Budgets {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A fault isn't one.
    #[error(transparent)]
    Fault(#[from] podbeat_lab::fault::Misread),
    /// valgrind needs the names of functions.
    #[error(
        "callgrind can't count without the names of functions: build the binary with them (image/static.sh --symbols) and name it \
         with --symbols"
    )]
    NoSymbols,
    /// valgrind wrote nothing that counts.
    #[error(
        "valgrind counted nothing: install it, and build the binary with the names of its functions (image/static.sh --symbols); \
         it wrote:\n{log}"
    )]
    Valgrind {
        /// The end of what was written.
        log: String,
    },
    /// A subject of the comparison wasn't prepared.
    #[error("{name} isn't prepared: run `bash bench/prepare.sh`, and read what it says is missing")]
    NotPrepared {
        /// Its name.
        name: String,
    },
    /// A subject doesn't do what it is compared for.
    #[error("{subject} does not do the same work: {}", .complaints.join("; "))]
    Unfair {
        /// Its name.
        subject: &'static str,
        /// What is wrong.
        complaints: Vec<String>,
    },
    /// The page for the figures has no place for them.
    #[error("{} has no lines {begin:?} and {end:?}, between which the figures go", path.display())]
    NoPlace {
        /// The page.
        path: PathBuf,
        /// The line before them.
        begin: &'static str,
        /// The line behind them.
        end: &'static str,
    },
    /// What was awaited did not come.
    #[error("waited {} s for {what}, in vain; {seen}", .waited.as_secs_f64())]
    InVain {
        /// What was awaited.
        what: String,
        /// How long.
        waited: Duration,
        /// What there was instead.
        seen: String,
    },
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

/// The repository that this was built from.
#[must_use]
pub fn repository() -> PathBuf {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench).to_owned()
}
