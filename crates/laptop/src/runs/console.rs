//! Input and output of a command: results, notes and errors, and the exit code of the process.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;

use jiff::Timestamp;
use podbeat_files::regular_file;
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::terminal::one_line;
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRunSummaryPagedItems};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::{Format, RequestSource};
use super::error::Error;
use super::printer::{Printer, Shape, Shown};
use super::status_line::StatusLine;
use super::{image_reference, manifest};

/// The streams of a command.
pub struct Streams<'streams> {
    /// Standard input, for files named `-`.
    pub input: &'streams mut dyn Read,
    /// Standard output, for results.
    pub out: &'streams mut dyn Write,
    /// Standard error, for everything else.
    pub notes: &'streams mut dyn Write,
    /// On a terminal, the line that shows what podbeat waits for.
    pub status: StatusLine,
}

/// What to do with the remaining runs after one failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    AreTried,
    WouldFailToo,
}

pub(super) struct Console<'streams> {
    streams: Streams<'streams>,
    format: Option<Format>,
    headers: bool,
    /// The ending for the first error.
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

    /// How the process ends if nothing else fails.
    pub(super) fn ending(&self) -> Ending {
        self.first.unwrap_or(Ending::Done)
    }

    /// Whether results are sentences.
    pub(super) fn talks(&self) -> bool {
        self.format.is_none()
    }

    /// Whether results are a table.
    pub(super) fn draws(&self) -> bool {
        matches!(self.format, None | Some(Format::Wide))
    }

    pub(super) fn printer(&self, shape: Shape) -> Printer {
        Printer::new(self.format, shape, self.headers)
    }

    /// The stream for a printer.
    pub(super) fn out(&mut self) -> &mut dyn Write {
        self.streams.status.clear();
        self.streams.out
    }

    /// The line that shows what podbeat waits for.
    pub(super) fn status(&mut self) -> &mut StatusLine {
        &mut self.streams.status
    }

    pub(super) fn say(&mut self, text: fmt::Arguments<'_>) -> Result<(), Error> {
        let out = self.out();
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(Error::Write)
    }

    /// A closed standard error does not stop the command.
    pub(super) fn note(&mut self, text: &str) {
        self.streams.status.clear();
        let _ = writeln!(self.streams.notes, "podbeat: {text}");
    }

    pub(super) fn failed(&mut self, error: &Error) -> Ending {
        self.note(&with_causes(error));
        *self.first.get_or_insert(error.ending())
    }

    /// Reports the error of one of several runs. Returns whether the `left` remaining runs would
    /// fail in the same way.
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

    /// Shows runs: a single run as an object, several as a list.
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

    /// Shows one page of a list: with its tokens as JSON or YAML, otherwise only its runs.
    pub(super) fn show_page(&mut self, page: &TaskRunSummaryPagedItems) -> Result<(), Error> {
        if matches!(self.format, Some(Format::Json | Format::Yaml)) {
            return self.show_documents(std::slice::from_ref(page));
        }
        let runs = page.items.as_deref().unwrap_or_default();
        let mut printer = self.printer(Shape::Many);
        for run in runs {
            let out = self.out();
            printer
                .run(out, run, Timestamp::now())
                .map_err(Error::Write)?;
        }
        printer.end(self.out()).map_err(Error::Write)?;
        let next = page.next_page_token.as_deref().unwrap_or_default();
        if self.draws() && runs.is_empty() {
            self.note("no task runs found on this page");
        }
        if self.draws() && !next.is_empty() {
            self.note("there are more pages; -o json and -o yaml show their tokens");
        }
        Ok(())
    }

    /// Shows the result, unless a sentence has already reported it.
    pub(super) fn show_done(&mut self, runs: &[impl Shown], asked: usize) -> Result<(), Error> {
        if self.talks() {
            Ok(())
        } else {
            self.show(runs, asked)
        }
    }

    /// Shows documents as JSON if the user chose it, otherwise as YAML.
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

    /// Shows the request for a run, or only the run's ID.
    pub(super) fn show_sent(&mut self, run: &str, request: &impl Serialize) -> Result<(), Error> {
        if self.format == Some(Format::Name) {
            return self.say(format_args!("{}", one_line(run)));
        }
        self.show_documents(std::slice::from_ref(request))
    }

    /// Shows requests without sending them. Secrets are redacted.
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

    /// The requests for new runs. The contract allows any text as an image. podbeat rejects an
    /// image that no registry can have, because otherwise it would fail only when the pod pulls it.
    pub(super) fn new_runs(
        &mut self,
        from: &RequestSource<CreateTaskRunRequest>,
    ) -> Result<Vec<CreateTaskRunRequest>, Error> {
        let requests = self.requests(from)?;
        let images = requests.iter().enumerate().filter_map(|(nth, request)| {
            let image = request.execution.as_ref()?.image.as_ref()?;
            // The contract already reports a missing name.
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

    /// The requests from the command line or a file.
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
