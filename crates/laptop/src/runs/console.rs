//! The terminal's side of a command: what is shown, what is said, and which error the process ends
//! with.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;

use jiff::Timestamp;
use podbeat_files::regular_file;
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::terminal::one_line;
use podbeat_task_runs::model::CreateTaskRunRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::command::{Format, RequestSource};
use super::printer::{Printer, Shape, Shown};
use super::status_line::StatusLine;
use super::{image_reference, manifest};

/// Where a command reads and writes.
pub struct Streams<'streams> {
    /// Standard input, for files named `-`.
    pub input: &'streams mut dyn Read,
    /// What was asked for.
    pub out: &'streams mut dyn Write,
    /// What else there is to say.
    pub notes: &'streams mut dyn Write,
    /// On a terminal, what is waited for.
    pub status: StatusLine,
}

/// What becomes of the runs that are named behind one that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    AreTried,
    WouldFailToo,
}

pub(super) struct Console<'streams> {
    streams: Streams<'streams>,
    format: Option<Format>,
    headers: bool,
    /// What the first error means for the process.
    first: Option<Ending>,
}

impl<'streams> Console<'streams> {
    pub(super) fn new(streams: Streams<'streams>, format: Option<Format>, headers: bool) -> Self {
        Self {
            streams,
            format,
            headers,
            first: None,
        }
    }

    /// How the process ends if nothing else goes wrong.
    pub(super) fn ending(&self) -> Ending {
        self.first.unwrap_or(Ending::Done)
    }

    /// Whether outcomes are told in words.
    pub(super) fn talks(&self) -> bool {
        self.format.is_none()
    }

    /// Whether outcomes are shown as a table.
    pub(super) fn draws(&self) -> bool {
        matches!(self.format, None | Some(Format::Wide))
    }

    pub(super) fn printer(&self, shape: Shape) -> Printer {
        Printer::new(self.format, shape, self.headers)
    }

    /// Where a printer writes.
    pub(super) fn out(&mut self) -> &mut dyn Write {
        self.streams.status.clear();
        self.streams.out
    }

    /// The line that says what is waited for.
    pub(super) fn status(&mut self) -> &mut StatusLine {
        &mut self.streams.status
    }

    pub(super) fn say(&mut self, text: fmt::Arguments<'_>) -> Result<(), Error> {
        let out = self.out();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(Error::Write)
    }

    /// Standard error that nobody reads any more is no reason to stop.
    pub(super) fn note(&mut self, text: &str) {
        self.streams.status.clear();
        let _ = writeln!(self.streams.notes, "podbeat: {text}");
    }

    pub(super) fn failed(&mut self, error: &Error) -> Ending {
        self.note(&with_causes(error));
        *self.first.get_or_insert(error.ending())
    }

    /// Tells an error of one run out of several, and whether the others, `left` of them, would fail
    /// alike.
    pub(super) fn failed_of_some(&mut self, error: &Error, left: usize) -> Others {
        self.failed(error);
        match error.ending() {
            Ending::Denied | Ending::Unavailable | Ending::Usage | Ending::Overdue => {
                if left > 0 {
                    self.note(&format!(
                        "skipped the remaining {left}, because they would fail in the same way"
                    ));
                }
                Others::WouldFailToo
            }
            _ => Others::AreTried,
        }
    }

    /// Shows runs: one that was asked for alone, several as a list.
    pub(super) fn show(&mut self, runs: &[impl Shown], asked: usize) -> Result<(), Error> {
        if runs.is_empty() && asked == 1 {
            return Ok(());
        }
        self.streams.status.clear();
        let mut printer = self.printer(if asked == 1 { Shape::One } else { Shape::Many });
        for run in runs {
            printer
                .run(self.streams.out, run, Timestamp::now())
                .map_err(Error::Write)?;
        }
        printer.end(self.streams.out).map_err(Error::Write)
    }

    /// Shows what was done, unless it was told in words already.
    pub(super) fn show_done(&mut self, runs: &[impl Shown], asked: usize) -> Result<(), Error> {
        if self.talks() {
            Ok(())
        } else {
            self.show(runs, asked)
        }
    }

    /// Shows documents as JSON, or else as YAML.
    pub(super) fn show_documents(&mut self, documents: &[impl Serialize]) -> Result<(), Error> {
        let format = match self.format {
            Some(Format::Json) => Format::Json,
            None | Some(Format::Yaml | Format::Name | Format::Wide) => Format::Yaml,
        };
        let shape = if documents.len() == 1 {
            Shape::One
        } else {
            Shape::Stream
        };
        let mut printer = Printer::new(Some(format), shape, self.headers);
        for document in documents {
            printer
                .document(self.streams.out, document)
                .map_err(Error::Write)?;
        }
        printer.end(self.streams.out).map_err(Error::Write)
    }

    /// Shows what was sent of a run, or its id.
    pub(super) fn show_sent(&mut self, run: &str, request: &impl Serialize) -> Result<(), Error> {
        if self.format == Some(Format::Name) {
            return self.say(format_args!("{}", one_line(run)));
        }
        self.show_documents(std::slice::from_ref(request))
    }

    /// Shows requests as they would be sent, but for their secrets.
    pub(super) fn dry_run(
        &mut self,
        from: &RequestSource<CreateTaskRunRequest>,
    ) -> Result<(), Error> {
        let mut requests = self.new_runs(from)?;
        let problems: Vec<String> = requests
            .iter()
            .flat_map(CreateTaskRunRequest::problems)
            .collect();
        if !problems.is_empty() {
            return Err(Error::Malformed {
                from: from.to_string(),
                problems,
            });
        }
        let whole = requests.clone();
        requests.iter_mut().for_each(CreateTaskRunRequest::redact);
        self.show_documents(&requests)?;
        if requests != whole {
            self.note("secrets are shown as [redacted]; replace them before you use this request");
        }
        self.note("dry run: nothing was created");
        Ok(())
    }

    /// The requests for new runs. The contract takes any text for an image; what no registry has is
    /// found out here rather than when the run's pod can't pull it.
    pub(super) fn new_runs(
        &mut self,
        from: &RequestSource<CreateTaskRunRequest>,
    ) -> Result<Vec<CreateTaskRunRequest>, Error> {
        let requests = self.requests(from)?;
        let images = requests.iter().enumerate().filter_map(|(nth, request)| {
            let image = request.execution.as_ref()?.image.as_ref()?;
            // That a name is missing, the contract says, too.
            let name = image.name.as_deref().filter(|name| !name.is_empty())?;
            let unfit = image_reference::check(name, image.tag.as_deref(), image.digest.as_deref())
                .err()?;
            Some(match requests.len() {
                1 => format!("execution.image: {unfit}"),
                _ => format!("document {}: execution.image: {unfit}", nth + 1),
            })
        });
        let problems: Vec<String> = images.collect();
        if problems.is_empty() {
            return Ok(requests);
        }
        Err(Error::Malformed {
            from: from.to_string(),
            problems,
        })
    }

    /// The requests that the command line or a file holds.
    pub(super) fn requests<T: DeserializeOwned + Serialize + Clone>(
        &mut self,
        from: &RequestSource<T>,
    ) -> Result<Vec<T>, Error> {
        let path = match from {
            RequestSource::Flags(request) => return Ok(vec![T::clone(request)]),
            RequestSource::File(path) => path,
        };
        let read = if is_standard_input(path) {
            regular_file::read_from(&mut *self.streams.input, manifest::LARGEST)
        } else {
            regular_file::read_or_wait(path, manifest::LARGEST)
        };
        let text = read
            .and_then(manifest::text)
            .map_err(|source| Error::Read {
                from: from.to_string(),
                source,
            })?;
        manifest::requests(&text).map_err(|problems| Error::Malformed {
            from: from.to_string(),
            problems,
        })
    }
}

impl<T> fmt::Display for RequestSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags(_) => f.write_str("the command line"),
            Self::File(path) if is_standard_input(path) => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}
