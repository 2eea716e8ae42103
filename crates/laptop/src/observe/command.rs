//! The command `podbeat observe` as types.

use std::path::PathBuf;

/// One call of `podbeat observe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The pod's name.
    pub pod: String,
    /// The output format. `None` for the default: a view on a terminal, otherwise a line for each
    /// event.
    pub format: Option<Format>,
    /// Where to record the watch.
    pub record: Option<Record>,
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, for programs.
    Json,
}

impl Format {
    /// All formats, each with its name on the command line.
    pub const ALL: [(&'static str, Self); 1] = [("json", Self::Json)];
}

/// Where to record the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The file.
    pub path: PathBuf,
    /// Whether to overwrite an existing file.
    pub force: bool,
}
