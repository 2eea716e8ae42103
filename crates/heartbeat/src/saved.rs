//! What outlives the process: the part of the machine that a journal keeps, in a form that can be
//! written down.
//!
//! A heartbeat is in it before its first attempt begins, so that whoever comes after a crash sends
//! it with the same nonce. Periodic heartbeats are not: they bring no news, and so a pod at rest
//! writes nothing.
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

/// Everything that the machine needs to go on where an earlier process was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// How many heartbeats were decided so far.
    pub beats: u64,
    /// What waits, oldest first, the last heartbeat included.
    pub outbox: Vec<SavedBeat>,
    /// How far the last heartbeat has come.
    pub last_heartbeat: LastHeartbeat,
    /// Why it is due; absent if it isn't, and in what earlier versions wrote down.
    pub cause: Option<Cause>,
    /// What the pod showed of itself, for the members that settings leave open.
    pub identity: Identity,
    /// Whether the pod was ever seen: only then can it be gone.
    pub was_seen: bool,
    /// What was last seen of each reported container.
    pub statuses: Vec<ContainerStatus>,
    /// When the API last showed or confirmed it.
    pub confirmed_at: Option<Timestamp>,
    /// The last exits of each container that were told of.
    pub exits: Vec<(String, Exit)>,
    /// Those seen since the last heartbeat was due.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late_exits: Vec<(String, Exit)>,
    /// What the API said of why the pod ends or can't begin.
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
    /// Its body, nonce included.
    pub request: HeartbeatTaskRunRequest,
    /// Whether it is the first to tell of an exit.
    pub tells_exit: bool,
    /// When it was decided.
    pub queued_at: Timestamp,
    /// Whether an attempt may have arrived, one in flight included.
    pub may_have_arrived: bool,
    /// Whether it goes without containerStatus because the service refused it.
    pub stripped: bool,
}

impl Saved {
    /// Whether the last heartbeat was due for a signal and nothing else, so that it may not have
    /// told the task's end.
    #[must_use]
    pub fn is_by_signal_alone(&self) -> bool {
        self.cause == Some(Cause::Signal)
    }
}

/// How far the last heartbeat has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LastHeartbeat {
    /// Not accepted; if it is due, it waits in the outbox.
    #[default]
    Open,
    /// Accepted. If it is still in the outbox, it is to be sent again behind an earlier request
    /// that may arrive late.
    Accepted,
    /// Refused, also without containerStatus. It stays in the outbox as a witness and is not sent
    /// any more.
    Refused,
    /// The service disowned the run.
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

/// The form that this version writes. One that reads it differently must have another number.
pub const VERSION: u32 = 1;

/// The most that is written, and so the most that is read, in bytes. The outbox takes 2 MiB at
/// most, written down; what else stands in a journal is what the core keeps of one pod. Read, it
/// takes twice as much memory, and a container has 32 MiB.
pub const LARGEST: u64 = 8 << 20;

/// Bytes that are read at once.
const AT_ONCE: usize = 8 << 10;

/// The most objects that a journal has. A heartbeat has three for each container, of 20 bytes and
/// more each, and the outbox has its 2 MiB; an empty one, of which 2.7 million would fit, takes 200
/// bytes of memory.
const OBJECTS: usize = 100_000;

/// What a journal holds.
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
}

impl Contents {
    /// Whether it is of this run and this pod; of any pod of the run where one of the two isn't
    /// known.
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
    #[error(
        "a newer version of podbeat wrote the file (format {0}; this version supports {VERSION})"
    )]
    Newer(u32),
}

/// Where the JSON went wrong. The parser's own words may repeat what the file holds, a token
/// perhaps.
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

/// Reads a journal, part by part, and twice: the version first.
///
/// # Errors
/// It can't be read, or is none that this version knows.
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

/// Passes JSON on until there were too many objects in it.
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
    fn an_error_repeats_nothing_of_what_the_file_holds() {
        let bytes = br#"{"version":1,"taskRunId":"run","renewedToken":"hunter2","machine":{}}"#;
        let error = parse(&mut Cursor::new(bytes)).expect_err("not a token's form");
        let source = error.source().map(ToString::to_string);
        assert!(!format!("{error} {source:?} {error:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_short_to_write_and_long_to_keep_is_no_journal() {
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
