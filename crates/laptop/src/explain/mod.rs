//! `podbeat explain`: shows what happened to a run, in order of time, with a verdict. This module
//! turns a log, a recorded watch, a journal or a run as JSON into a story, and prints it.
//!
//! It uses only its input, and sends no requests.

mod cause;
mod form;
mod journal;
mod log;
mod story;
mod task_run;
pub mod text_form;
mod watch;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use podbeat_files::regular_file;
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::terminal::escaped;

use self::story::Story;

/// The maximum size of the input in bytes. A day of logs at debug level is a tenth of it.
const LARGEST: u64 = 256 << 20;

/// One call of `podbeat explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The file to read. `-` is standard input.
    pub file: PathBuf,
    /// The name of podbeat's container in a recorded watch.
    pub container_name: String,
    /// JSON instead of text: one object per story.
    pub json: bool,
}

/// Why there is no story.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be read.
    #[error("cannot read {from}")]
    Read {
        /// The file, or standard input.
        from: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The format of the input is unknown.
    #[error("{from}: {problem}")]
    Unknown {
        /// The file, or standard input.
        from: String,
        /// What the input is, if known, and which formats are supported.
        problem: &'static str,
    },
    /// The journal cannot be used.
    #[error("cannot use the journal {from}")]
    Journal {
        /// The file, or standard input.
        from: String,
        /// The cause.
        #[source]
        source: podbeat_heartbeat::saved::Malformed,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    /// How the process ends with this error.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Read { .. } => Ending::Unread,
            Self::Unknown { .. } | Self::Journal { .. } => Ending::Refused,
            Self::Write(_) => Ending::Unwritten,
        }
    }
}

const NOTHING: &str = "the input is empty; use the output of kubectl logs POD -c podbeat, a record of podbeat observe, a journal, or the \
                       output of podbeat runs get RUN -o json";

const NEITHER: &str = "unknown format; use podbeat's log (kubectl logs POD -c podbeat, or a log file of Docker or a CRI runtime), a watch \
                       recorded by podbeat observe, a journal, or a run as JSON (podbeat runs get RUN -o json)";

/// Reads the input and prints the stories. Errors and the number of skipped lines go to `notes`.
pub fn run(
    invocation: &Invocation,
    input: &mut dyn Read,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Ending {
    let done = stories(invocation, input).and_then(|(stories, others)| {
        if others > 0 {
            let lines = if others == 1 { "line" } else { "lines" };
            let _ = writeln!(
                notes,
                "podbeat: skipped {others} {lines} that are not podbeat's"
            );
        }
        write(&stories, invocation.json, out).map_err(Error::Write)
    });
    match done {
        Ok(()) => Ending::Done,
        // Whoever reads has seen enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ending::Done,
        Err(error) => {
            let _ = writeln!(notes, "podbeat: {}", with_causes(&error));
            error.ending()
        }
    }
}

fn write(stories: &[Story], json: bool, out: &mut dyn Write) -> io::Result<()> {
    for (nth, story) in stories.iter().enumerate() {
        if json {
            writeln!(out, "{}", escaped(&serde_json::to_string(story)?))?;
            continue;
        }
        if nth > 0 {
            writeln!(out)?;
        }
        out.write_all(story.text().as_bytes())?;
    }
    out.flush()
}

/// The stories, and the number of lines that belong to none.
fn stories(invocation: &Invocation, input: &mut dyn Read) -> Result<(Vec<Story>, usize), Error> {
    let from = if invocation.file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        invocation.file.display().to_string()
    };
    let bytes = read(&invocation.file, input).map_err(|source| Error::Read {
        from: from.clone(),
        source,
    })?;
    let unknown = |problem| Error::Unknown {
        from: from.clone(),
        problem,
    };
    if let Some(problem) = form::compression(&bytes) {
        return Err(unknown(problem));
    }
    let text = form::text(bytes);
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(unknown(NOTHING));
    }
    if is_journal(text) {
        let contents =
            podbeat_heartbeat::saved::parse(&mut io::Cursor::new(text)).map_err(|source| {
                Error::Journal {
                    from: from.clone(),
                    source,
                }
            })?;
        return Ok((vec![journal::story(&contents)], 0));
    }
    if let Some(stories) = task_run::stories(text) {
        return Ok((stories, 0));
    }
    let all = form::lines(text);
    let count = all.iter().filter(|line| !line.trim().is_empty()).count();
    let lines: Vec<log::Line> = all
        .iter()
        .filter_map(|line| log::Line::read(line))
        .collect();
    if !lines.is_empty() {
        let others = count - lines.len();
        return Ok((log::stories(lines), others));
    }
    let lines: Vec<watch::Line> = all
        .iter()
        .filter_map(|line| watch::Line::read(line))
        .collect();
    if !lines.is_empty() {
        let others = count - lines.len();
        return Ok((
            vec![watch::story(lines, &invocation.container_name)],
            others,
        ));
    }
    Err(unknown(NEITHER))
}

fn read(path: &Path, input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let read = if path.as_os_str() == "-" {
        regular_file::read_from(input, LARGEST)
    } else {
        regular_file::read_or_wait(path, LARGEST)
    };
    read.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::new(
            io::ErrorKind::InvalidData,
            "larger than 256 MiB; shorten it with kubectl logs --since or --tail",
        ),
        _ => error,
    })
}

/// Whether the text is one JSON object with a journal's members, of any version.
fn is_journal(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Members {
        #[serde(rename = "version")]
        _version: u64,
        #[serde(rename = "machine")]
        _machine: serde::de::IgnoredAny,
    }
    serde_json::from_str::<Members>(text).is_ok()
}
