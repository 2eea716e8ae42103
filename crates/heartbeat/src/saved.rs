//! The part of the machine that a journal keeps after the process ends.
//!
//! The journal has each heartbeat before its first attempt begins, so that after a crash the next
//! process sends it with the same nonce. It has no periodic heartbeats: they have no news, and so
//! an idle pod writes nothing.
//!
//! The journal's form is here, too, for the agent that writes it and for commands that read it. The
//! parser is bounded and trusts nothing.

use std::fmt;
use std::io::{self, BufReader, Read, Seek};

use jiff::Timestamp;
use podbeat_task_runs::Renewed;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::machine::Cause;
use super::outbox::{Beat, Kind};
use super::report::Identity;
use crate::observation::Why;
use crate::observation::{Exit, Sidecar};

/// Everything that the machine needs to continue where an earlier process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// How many heartbeats of this pod there were.
    pub beats: u64,
    /// The heartbeats that wait, oldest first, including the last heartbeat.
    pub outbox: Vec<SavedBeat>,
    /// How far the last heartbeat has come.
    pub last_heartbeat: LastHeartbeat,
    /// Why the last heartbeat is due. Absent if it is not, and in journals of earlier versions.
    pub cause: Option<Cause>,
    /// What the pod showed of the members that the settings omit.
    pub identity: Identity,
    /// Whether podbeat ever saw the pod. Only then can it be gone.
    pub was_seen: bool,
    /// The last known state of each reported container.
    pub statuses: Vec<ContainerStatus>,
    /// When the API last showed or confirmed these states.
    pub confirmed_at: Option<Timestamp>,
    /// The last exits of each container that a heartbeat reports.
    pub exits: Vec<(String, Exit)>,
    /// Those seen since the last heartbeat was due.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late_exits: Vec<(String, Exit)>,
    /// Why the pod ends or cannot start, as the API says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Why>,
    /// `metadata.deletionTimestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_at: Option<Timestamp>,
    /// How podbeat's own container is declared.
    pub sidecar: Sidecar,
}

/// One heartbeat that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedBeat {
    /// Its number in this pod.
    pub number: u64,
    /// Why it exists.
    pub kind: Kind,
    /// Its body, including the nonce.
    pub request: HeartbeatTaskRunRequest,
    /// Whether it is the first with an exit.
    pub tells_exit: bool,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// Whether an attempt may have arrived, including one in flight.
    pub may_have_arrived: bool,
    /// Whether it has no containerStatus because the service refused it once.
    pub stripped: bool,
}

impl Saved {
    /// Whether the last heartbeat was due only for a signal, so that it may lack the task's end.
    #[must_use]
    pub fn is_by_signal_alone(&self) -> bool {
        self.cause == Some(Cause::Signal)
    }
}

/// How far the last heartbeat has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LastHeartbeat {
    /// Not accepted. If it is due, it waits in the outbox.
    #[default]
    Open,
    /// Accepted. If it is still in the outbox, podbeat must repeat it, because an earlier request
    /// may arrive late.
    Accepted,
    /// Refused, also without containerStatus. It stays in the outbox, so that the journal shows it,
    /// and is never sent again.
    Refused,
    /// The service said that the run does not belong to this pod.
    Orphaned,
}

impl SavedBeat {
    pub(super) fn of(beat: &Beat, in_flight: bool, queued_at: Timestamp) -> Self {
        Self {
            number: beat.number,
            kind: beat.kind,
            request: beat.request.clone(),
            tells_exit: beat.tells_exit,
            queued_at,
            may_have_arrived: beat.may_have_arrived || in_flight,
            stripped: beat.stripped,
        }
    }
}

/// The version of the format. Another meaning of the same members needs another number.
pub const VERSION: u32 = 1;

/// The largest journal, in bytes, for reading and writing. The outbox takes at most 2 MiB of it.
/// The rest is what the core keeps of one pod. In memory it takes twice as much, and a container
/// has 32 MiB.
pub const LARGEST: u64 = 8 << 20;

/// The size of the read buffer, in bytes.
const AT_ONCE: usize = 8 << 10;

/// The most JSON objects in a journal. A heartbeat has three for each container, with at least 20
/// bytes each, and the outbox has at most 2 MiB. Without this limit, 2.7 million empty objects
/// would fit, and each takes 200 bytes of memory.
const OBJECTS: usize = 100_000;

/// The content of a journal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Contents {
    /// The version of the format.
    pub version: u32,
    /// The run.
    pub task_run_id: String,
    /// The pod's UID, once it is known.
    pub pod_uid: Option<String>,
    /// The token that the service sent last.
    pub renewed_token: Option<Renewed>,
    /// The state of the core.
    pub machine: Saved,
}

/// The content of a journal, for writing.
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
    /// An entry in this version's format.
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
}

impl Contents {
    /// Whether the journal is of this run and this pod. If one of the two UIDs is unknown, only the
    /// run counts.
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

/// Parsed first, because another version may define everything else differently.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Versioned {
    version: u32,
}

/// Why this version cannot read a file as a journal.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is larger than any journal.
    #[error("the file is larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// The file has more objects than any journal.
    #[error("the file has more than {OBJECTS} objects")]
    TooMany,
    /// The file ends too early, or is not a journal.
    #[error("the file is damaged, or not a journal")]
    Torn(#[source] Where),
    /// A newer version wrote the file.
    #[error(
        "a newer version of podbeat wrote the file (format {0}; this version supports {VERSION})"
    )]
    Newer(u32),
}

/// Where the JSON is invalid. The parser's own message could repeat a part of the file, such as a
/// token.
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

/// Reads a journal in parts, and twice: the version first.
///
/// # Errors
/// The journal cannot be read, or this version does not know its format.
pub fn parse(from: &mut (impl Read + Seek)) -> Result<Contents, Malformed> {
    let version = json::<Versioned>(from)?.version;
    match version {
        0 => Err(Malformed::Torn(Where { line: 1, column: 1 })),
        VERSION => {
            from.rewind().map_err(Malformed::Unreadable)?;
            json(from)
        }
        newer => Err(Malformed::Newer(newer)),
    }
}

fn json<T: DeserializeOwned>(from: &mut dyn Read) -> Result<T, Malformed> {
    let mut objects = Objects {
        from: from.take(LARGEST),
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

/// Passes JSON on, and fails once it contains too many objects.
struct Objects<R> {
    from: R,
    left: usize,
    in_text: bool,
    is_escaped: bool,
}

impl<R: Read> Read for Objects<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
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
    use std::error::Error as _;
    use std::io::Cursor;

    use super::*;

    #[test]
    fn an_error_repeats_nothing_of_the_files_content() {
        let bytes = br#"{"version":1,"taskRunId":"run","renewedToken":"hunter2","machine":{}}"#;
        let error = parse(&mut Cursor::new(bytes)).expect_err("not a token's form");
        let source = error.source().map(ToString::to_string);
        assert!(!format!("{error} {source:?} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_small_file_that_needs_much_memory_is_refused() {
        let journal = |statuses: &str| {
            format!(
                r#"{{"version":1,"taskRunId":"run","machine":{{"statuses":[{statuses}],"beats":7}}}}"#
            )
        };
        let many = journal(&vec!["{}"; 2_000_000].join(","));
        assert!(matches!(
            parse(&mut Cursor::new(&many)),
            Err(Malformed::TooMany)
        ));
        // Braces in a text are no objects.
        let name = "{\\\"{".repeat(100_000);
        let one = journal(&format!(r#"{{"name":"{name}"}}"#));
        let contents = parse(&mut Cursor::new(&one)).expect("a journal");
        assert_eq!(
            (contents.machine.beats, contents.machine.statuses.len()),
            (7, 1)
        );
    }
}
