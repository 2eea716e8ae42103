//! The journal's form, for the agent that writes it and for whoever reads it afterwards. Bounded, and never trusted.

use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use podbeat_files::regular_file::{self, Bounded};
use podbeat_heartbeat::saved::Saved;
use podbeat_task_runs::credentials::Renewed;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Its name in PODBEAT_STATE_DIR.
pub const FILE: &str = "journal.json";

/// The form that this version writes. One that reads it differently must have another number.
pub const VERSION: u32 = 1;

/// The most that is written, and so the most that is read, in bytes. The outbox takes 2 MiB at
/// most, written down; what else stands in a journal is what the core keeps of one pod. Read, it
/// takes twice as much memory, and a container has 32 MiB.
pub const LARGEST: u64 = 8 << 20;

/// The most objects that a journal has. A heartbeat has three for each container, of 20 bytes and
/// more each, and the outbox has its 2 MiB; an empty one, of which 2.7 million would fit, takes 200
/// bytes of memory.
const OBJECTS: usize = 100_000;

/// Bytes that are read or written at once.
const AT_ONCE: usize = 8 << 10;

/// What the file holds.
#[derive(Debug, Default, Deserialize)]
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

/// The same, to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'kept> {
    version: u32,
    task_run_id: &'kept str,
    pod_uid: Option<&'kept str>,
    renewed_token: Option<&'kept Renewed>,
    machine: &'kept Saved,
}

impl<'kept> Entry<'kept> {
    /// Of this version.
    #[must_use]
    pub fn new(
        task_run_id: &'kept str,
        pod_uid: Option<&'kept str>,
        renewed_token: Option<&'kept Renewed>,
        machine: &'kept Saved,
    ) -> Self {
        Self {
            version: VERSION,
            task_run_id,
            pod_uid,
            renewed_token,
            machine,
        }
    }

    /// Writes it, part by part: it is never whole in memory.
    ///
    /// # Errors
    /// It can't be written, or takes more than [`LARGEST`].
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut to = BufWriter::with_capacity(AT_ONCE, Bounded::new(to, LARGEST));
        serde_json::to_writer(&mut to, self)?;
        to.flush()
    }
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
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// No journal is so large.
    #[error("the file is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// No journal has so many parts.
    #[error("the file has more than {OBJECTS} objects")]
    TooMany,
    /// It ends too early, or is something else.
    #[error("the file is damaged, or not a journal")]
    Torn(#[source] Where),
    /// Another version's.
    #[error("a newer version of podbeat wrote the file (format {0}; this version supports {VERSION})")]
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

/// Reads a journal, part by part; `None` if there is no such file.
///
/// # Errors
/// It can't be read, or is none that this version knows.
pub fn read(path: &Path) -> Result<Option<Contents>, Malformed> {
    read_counting(path, &AtomicU64::new(0))
}

/// The same; `count` shows from another thread how many bytes came so far, so that a disk that hangs is
/// told from a processor that is busy.
///
/// # Errors
/// Those of [`read`].
pub fn read_counting(path: &Path, count: &AtomicU64) -> Result<Option<Contents>, Malformed> {
    let mut file = match regular_file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Malformed::Unreadable(error)),
    };
    if file.metadata().map_err(Malformed::Unreadable)?.len() > LARGEST {
        return Err(Malformed::TooLarge);
    }
    parse_from(&mut file, count).map(Some)
}

/// What bytes say as a journal.
///
/// # Errors
/// They are none that this version knows.
pub fn parse(bytes: &[u8]) -> Result<Contents, Malformed> {
    parse_from(&mut io::Cursor::new(bytes), &AtomicU64::new(0))
}

/// Twice: the version first.
fn parse_from(from: &mut (impl Read + Seek), count: &AtomicU64) -> Result<Contents, Malformed> {
    let version = json::<Versioned>(from, count)?.version;
    match version {
        0 => Err(Malformed::Torn(Where { line: 1, column: 1 })),
        VERSION => {
            from.rewind().map_err(Malformed::Unreadable)?;
            json(from, count)
        }
        newer => Err(Malformed::Newer(newer)),
    }
}

fn json<T: DeserializeOwned>(from: &mut dyn Read, count: &AtomicU64) -> Result<T, Malformed> {
    let mut objects = Objects {
        from: from.take(LARGEST),
        count,
        left: OBJECTS,
        in_text: false,
        is_escaped: false,
    };
    serde_json::from_reader(BufReader::with_capacity(AT_ONCE, &mut objects)).map_err(|error| {
        if objects.left == 0 {
            return Malformed::TooMany;
        }
        if error.is_io() {
            return Malformed::Unreadable(error.into());
        }
        Malformed::Torn(Where {
            line: error.line(),
            column: error.column(),
        })
    })
}

/// Passes JSON on until there were too many objects in it.
struct Objects<'count, R> {
    from: R,
    count: &'count AtomicU64,
    left: usize,
    in_text: bool,
    is_escaped: bool,
}

impl<R: Read> Read for Objects<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.count
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        for byte in into.iter().take(count) {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = self.in_text,
                b'"' => self.in_text = !self.in_text,
                b'{' if !self.in_text => self.left = self.left.saturating_sub(1),
                _ => {}
            }
        }
        if self.left == 0 {
            return Err(io::Error::other("too many objects"));
        }
        Ok(count)
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

    #[test]
    fn what_is_short_to_write_and_long_to_keep_is_no_journal() {
        let journal = |statuses: &str| {
            format!(r#"{{"version":1,"taskRunId":"run","machine":{{"statuses":[{statuses}],"beats":7}}}}"#)
        };
        let many = journal(&vec!["{}"; 2_000_000].join(","));
        assert!(matches!(parse(many.as_bytes()), Err(Malformed::TooMany)));
        // Braces in a text are no objects.
        let name = "{\\\"{".repeat(100_000);
        let contents = parse(journal(&format!(r#"{{"name":"{name}"}}"#)).as_bytes()).expect("a journal");
        assert_eq!((contents.machine.beats, contents.machine.statuses.len()), (7, 1));
    }
}
