//! Where the marker is left: an earlier run's is taken away at the start, this run's is written at
//! the end.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use podbeat_files::regular_file::{Durable, remove, replace};
use podbeat_heartbeat::marker::{self, Marker};

use super::{warn, within};
use crate::config::ExecConfig;

/// How long the task's start or end is held up by a directory that hangs.
const LIMIT: Duration = Duration::from_secs(1);

/// Everybody may read it: podbeat has another UID than the task.
const MODE: u32 = 0o644;

/// Why there is no marker, or an old one. The command runs all the same.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot remove the exit marker of an earlier run, {}; check that its directory is writable for this user", path.display())]
    Stale { path: PathBuf, source: io::Error },
    #[error("cannot write the exit marker {}; check that its directory exists, is writable for this user, and is not full", path.display())]
    Unwritten { path: PathBuf, source: io::Error },
    #[error("the exit marker {} was not written within a second; check whether its disk responds", path.display())]
    Hangs { path: PathBuf },
}

/// The marker's file.
pub(super) struct Place {
    path: PathBuf,
    /// Whether something that was begun there has not come back, and may still do whatever it was.
    hangs: bool,
}

impl Place {
    /// Takes away what an earlier run of the same container left: it is not this run's end.
    pub(super) fn prepare(config: &ExecConfig) -> Self {
        let name = marker::file_name(&config.container_name);
        let mut place = Self {
            path: config.marker_dir.join(name),
            hangs: false,
        };
        let path = place.path.clone();
        match within(LIMIT, move || remove(&path)) {
            Some(Ok(())) => {}
            Some(Err(source)) => tell(&Error::Stale {
                path: place.path.clone(),
                source,
            }),
            None => {
                place.hangs = true;
                tell(&Error::Hangs {
                    path: place.path.clone(),
                });
            }
        }
        place
    }

    /// Leaves this run's marker, but doesn't hold its end up for long.
    pub(super) fn leave(self, marker: &Marker) {
        if self.hangs {
            return;
        }
        let text = marker.print();
        let path = self.path.clone();
        // Durable last, unlike the journal: a flush can take long when the task has just written
        // much to the same disk, and a marker that is there is worth more than one that would
        // outlive the node. A torn one after a power cut is told apart.
        let write = move || {
            replace(&path, MODE, Durable::Afterwards, &|file| {
                file.write_all(text.as_bytes())
            })
        };
        match within(LIMIT, write) {
            Some(Ok(())) => {}
            Some(Err(source)) => tell(&Error::Unwritten {
                path: self.path,
                source,
            }),
            None => tell(&Error::Hangs { path: self.path }),
        }
    }
}

fn tell(error: &Error) {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text.push_str(&format!(": {source}"));
    }
    warn(&text);
}
