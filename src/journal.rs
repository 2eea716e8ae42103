//! The journal's form, for the agent that writes it and for whoever reads it afterwards. Bounded, and never trusted.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::heartbeat::saved::Saved;
use crate::task_runs::credentials::Renewed;

/// Its name in PODBEAT_STATE_DIR.
pub const FILE: &str = "journal.json";

/// The form that this version writes. One that reads it differently must have another number.
pub const VERSION: u32 = 1;

/// A full outbox with the longest termination messages (4 KiB each, 12 KiB a pod) is a third of this.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Contents {
    /// The form.
    pub version: u32,
    /// The run.
    pub task_run_id: String,
    /// The pod, once it is known.
    pub pod_uid: Option<String>,
    /// The token that the service handed out last.
    pub renewed_token: Option<Renewed>,
    /// What the core knew.
    pub machine: Saved,
}

impl Contents {
    /// Whether it is of this run and this pod; of any pod of the run where one of the two isn't known.
    #[must_use]
    pub fn is_of(&self, run: &str, pod_uid: Option<&str>) -> bool {
        let of_another_pod = self
            .pod_uid
            .as_deref()
            .zip(pod_uid)
            .is_some_and(|(theirs, ours)| theirs != ours);
        self.task_run_id == run && !of_another_pod
    }
}

/// Read first, because everything else may look different in another version.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Versioned {
    version: u32,
}

/// Why a file is no journal that this version reads.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The file can't be read.
    #[error("it can't be read")]
    Unreadable(#[source] io::Error),
    /// No journal is so large.
    #[error("it is larger than {LARGEST} bytes")]
    TooLarge,
    /// It ends too early, or is something else.
    #[error("it is torn, or not a journal")]
    Torn(#[source] Where),
    /// Another version's.
    #[error("it was written by a newer version of podbeat (form {0}, this one knows {VERSION})")]
    Newer(u32),
}

/// Where the JSON went wrong. The parser's own words may repeat what the file holds, a token perhaps.
#[derive(Debug)]
pub struct Where {
    line: usize,
    column: usize,
}

impl std::error::Error for Where {}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at line {}, column {}", self.line, self.column)
    }
}

/// Reads a journal; `None` if there is no such file.
///
/// # Errors
/// It can't be read, or is none that this version knows.
pub fn read(path: &Path) -> Result<Option<Contents>, Malformed> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Malformed::Unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(Malformed::Unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(Malformed::TooLarge);
    }
    parse(&bytes).map(Some)
}

/// What bytes say as a journal.
///
/// # Errors
/// They are none that this version knows.
pub fn parse(bytes: &[u8]) -> Result<Contents, Malformed> {
    let torn = |error: serde_json::Error| {
        Malformed::Torn(Where {
            line: error.line(),
            column: error.column(),
        })
    };
    let version = serde_json::from_slice::<Versioned>(bytes).map_err(torn)?.version;
    match version {
        0 => Err(Malformed::Torn(Where { line: 1, column: 1 })),
        VERSION => serde_json::from_slice(bytes).map_err(torn),
        newer => Err(Malformed::Newer(newer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_nothing_of_what_the_file_holds() {
        let bytes = br#"{"version":1,"taskRunId":"run","renewedToken":"hunter2","machine":{}}"#;
        let error = parse(bytes).expect_err("not a token's form");
        let text = crate::exit::with_causes(&error);
        assert!(!format!("{text} {error:?}").contains("hunter2"));
    }
}
