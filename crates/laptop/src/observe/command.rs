//! What can be asked for, typed.

use std::path::PathBuf;

/// One call of `podbeat observe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The pod's name.
    pub pod: String,
    /// How it is shown; `None` for what suits standard output: a view on a terminal, else a line
    /// for each event.
    pub format: Option<Format>,
    /// Where the watch is recorded.
    pub record: Option<Record>,
}

/// How what happens is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, for programs.
    Json,
}

impl Format {
    /// All, with the word that each goes by.
    pub const ALL: [(&'static str, Self); 1] = [("json", Self::Json)];
}

/// Where the watch is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The file.
    pub path: PathBuf,
    /// Whether one that is there is written over.
    pub force: bool,
}
