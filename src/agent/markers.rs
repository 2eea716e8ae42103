//! Reads the directory of exit markers when the core asks for it.
//!
//! podbeat does not trust this directory: the task may write anything under any name. So podbeat
//! opens only small regular files, follows no links, never logs the content of a file, and limits
//! everything. It looks for the markers of the pod's containers by name, so that other files cannot
//! hide one, however many there are. If the directory hangs, one read stays pending and delays
//! nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use podbeat_files::{regular_file, trimmed};
use podbeat_heartbeat::machine::{Event, Look};
use podbeat_heartbeat::marker::{Found, LARGEST, NotAMarker, container_of, file_name};

use super::report::brief;
use crate::config::Config;
use podbeat_interface::messages::Message;
use podbeat_interface::throttle::{Chain, Throttle};

/// How many files podbeat reads that are not named after a container of the pod. It reads them to
/// warn about them, or because it never saw the pod.
const MOST: usize = 64;

/// How many directory entries podbeat looks at, of any kind.
const NAMES: usize = 1024;

/// How many invalid files podbeat logs, each once.
const TOLD: usize = 64;

/// Why the directory could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read exit markers from {}; check that PODBEAT_MARKER_DIR is mounted here, and readable for this user", path.display())]
struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// Why podbeat rejects a file of the directory.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("not a regular file; an exit marker must not be a link or a directory")]
    NotAFile,
    #[error(
        "the directory has too many other files; podbeat finds the exit markers of the pod's containers by name, \
         but may ignore others: keep other files out of this directory"
    )]
    TooMany,
    #[error("cannot read the file")]
    Unreadable(#[source] io::Error),
    #[error(transparent)]
    NotAMarker(NotAMarker),
}

/// The result of a read.
pub(super) struct Read(Result<Listing, Unreadable>);

/// The content of the directory.
#[derive(Default)]
struct Listing {
    found: Vec<Found>,
    refused: Vec<(OsString, Refused)>,
}

/// Reads exit markers, if a directory is configured.
pub(super) struct Markers {
    directory: Option<PathBuf>,
    /// The names of the pod's containers, once podbeat saw the pod.
    expected: Arc<[String]>,
    /// Markers from the last successful read.
    found: Vec<Found>,
    throttle: Throttle,
    told: BTreeSet<OsString>,
}

impl Markers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            directory: config.marker_dir.clone(),
            expected: Arc::default(),
            found: vec![],
            throttle: Throttle::default(),
            told: BTreeSet::new(),
        }
    }

    /// Records the names of the pod's containers from each event that shows the pod.
    pub(super) fn expect(&mut self, event: &Event) {
        let (Event::Observed(pod) | Event::Gone(Some(pod)) | Event::Looked(Look::Found(pod))) =
            event
        else {
            return;
        };
        let names = || pod.containers.iter().map(|container| &container.name);
        if self.directory.is_some() && !names().eq(self.expected.iter()) {
            self.expected = names().cloned().collect();
        }
    }

    /// Begins a read.
    pub(super) fn read(&self) -> Pin<Box<dyn Future<Output = Read> + Send>> {
        let Some(directory) = self.directory.clone() else {
            return Box::pin(async { Read(Ok(Listing::default())) });
        };
        let expected = Arc::clone(&self.expected);
        Box::pin(async move {
            let path = directory.clone();
            // On its own thread: a directory that hangs must not delay a heartbeat.
            let read = tokio::task::spawn_blocking(move || read_all(&directory, &expected)).await;
            let read = read.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
            Read(read.map_err(|source| Unreadable { path, source }))
        })
    }

    /// Logs each problem once, and returns the markers to the core.
    pub(super) fn conclude(&mut self, read: Read) -> Event {
        let Listing { found, refused } = match read.0 {
            Ok(listing) => listing,
            Err(error) => {
                let chain = Chain(&error).to_string();
                if let Some(outage) = self.throttle.failed(&chain, &chain) {
                    Message::CannotReadMarkers { outage }.emit();
                }
                return Event::Markers(self.found.clone());
            }
        };
        if let Some(over) = self.throttle.over() {
            Message::ReadingMarkersAgain { over }.emit();
        }
        for (name, why) in refused {
            if self.told.len() < TOLD && self.told.insert(name.clone()) {
                Message::InvalidMarker {
                    file: brief(&name.to_string_lossy()),
                    error: &Chain(&why),
                }
                .emit();
            }
        }
        self.found.clone_from(&found);
        Event::Markers(found)
    }
}

/// Reads all markers of the directory, ordered by container. NAME.json comes before NAME.
fn read_all(directory: &Path, expected: &[String]) -> io::Result<Listing> {
    let mut entries = std::fs::read_dir(directory)?;
    let seen: Vec<OsString> = entries
        .by_ref()
        .take(NAMES)
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        // Skip files that are being written, and the links with which the kubelet replaces a
        // volume's content.
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .collect();
    let wanted = expected
        .iter()
        .flat_map(|container| [file_name(container), container.clone()]);
    let (mut names, mut others) = (BTreeSet::new(), BTreeSet::new());
    names.extend(wanted.map(OsString::from));
    others.extend(seen.into_iter().filter(|name| !names.contains(name)));
    let too_many = others.len() > MOST || entries.next().is_some();
    names.extend(others.into_iter().take(MOST));
    let Listing {
        mut found,
        mut refused,
    } = Listing::default();
    if too_many {
        refused.push((directory.as_os_str().to_owned(), Refused::TooMany));
    }
    // In reverse order, so that NAME.json comes before NAME.
    for name in names.into_iter().rev() {
        match read_one(directory, &name) {
            Ok(None) => {}
            Ok(Some(one)) => {
                let before = |other: &Found| other.container <= one.container;
                found.insert(found.partition_point(before), one);
            }
            Err(why) => refused.push((name, why)),
        }
    }
    Ok(Listing { found, refused })
}

/// Reads one marker, if it exists. Does not open files whose name is not valid for a marker.
fn read_one(directory: &Path, name: &OsString) -> Result<Option<Found>, Refused> {
    let name = name.to_str().ok_or(Refused::NotAMarker(NotAMarker::Name))?;
    container_of(name).ok_or(Refused::NotAMarker(NotAMarker::Name))?;
    let path = directory.join(name);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(Refused::NotAFile),
        Err(error) => return gone_or(error),
    }
    // Since the check above, the file may have been replaced by a pipe or a link.
    let file = match regular_file::open_no_link(&path) {
        Ok(file) => file,
        Err(error) => return gone_or(error),
    };
    let written_at = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .and_then(|time| Timestamp::try_from(time).map_err(io::Error::other))
        .map_err(Refused::Unreadable)?;
    // One byte more than the limit, so that the parser notices a file that is too large.
    let text = regular_file::read_start(&file, LARGEST + 1).map_err(Refused::Unreadable)?;
    Found::read(name, trimmed::bytes(&text), written_at).map_err(Refused::NotAMarker)
}

/// The marker of an earlier run may be removed at any moment.
fn gone_or(error: io::Error) -> Result<Option<Found>, Refused> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(Refused::Unreadable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_bounded_and_of_two_markers_of_a_container_the_whole_one_comes_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written")
        };
        for (name, text) in [
            ("main", "1"),
            ("main.json", "{\"exitCode\":2}"),
            (".main.json.new", "{\"exit"),
            ("a", "3"),
            ("main-2", ""),
        ] {
            write(name, text);
        }
        let listing = read_all(directory.path(), &[]).expect("read");
        let codes: Vec<i32> = listing
            .found
            .iter()
            .map(|found| found.marker.exit_code)
            .collect();
        assert_eq!((codes, listing.refused.len()), (vec![3, 2, 1], 0));
        for nth in 0..MOST {
            write(&format!("b-{nth}"), "0");
        }
        let listing = read_all(directory.path(), &[]).expect("read");
        assert!(listing.found.len() <= MOST);
        assert!(matches!(&listing.refused[..], [(_, Refused::TooMany)]));
        read_all(&directory.path().join("main"), &[])
            .err()
            .expect("no directory");
    }

    #[test]
    fn no_number_of_other_files_hides_the_marker_of_a_container() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written")
        };
        for nth in 0..30_000 {
            write(&format!(".hidden-{nth}"), "");
        }
        for nth in 0..2 * NAMES {
            write(&format!("a-{nth}"), "0");
        }
        write("main.json", "\u{feff}{\"exitCode\":2}\r\n");
        write("second", "\u{feff}3\r\n");
        let expected = ["main", "second", "third"].map(str::to_owned);
        let listing = read_all(directory.path(), &expected).expect("read");
        let code = |container: &str| {
            let found = listing
                .found
                .iter()
                .find(|found| found.container == container);
            found.map(|found| found.marker.exit_code)
        };
        assert_eq!(
            (code("main"), code("second"), code("third")),
            (Some(2), Some(3), None)
        );
        assert!(
            matches!(&listing.refused[..], [(_, Refused::TooMany)]),
            "{:?}",
            listing.refused
        );
    }
}
