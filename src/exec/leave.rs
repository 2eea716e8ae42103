//! Removes the marker of an earlier run at the start, and writes the marker of this run at the end.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use podbeat_files::regular_file::{Durable, remove, replace};
use podbeat_heartbeat::marker::{self, Marker};

use super::{warn, within};
use crate::config::ExecConfig;

/// How long a directory that hangs may delay the start or the end of the task.
const LIMIT: Duration = Duration::from_secs(1);

/// Everybody may read it, because podbeat's UID differs from the task's.
const MODE: u32 = 0o644;

/// Why there is no marker, or an old one. The command runs anyway.
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
    /// Whether an earlier operation there has not finished, and may still take effect.
    hangs: bool,
}

impl Place {
    /// Removes the marker of an earlier run of the same container, which does not describe this
    /// run.
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

    /// Writes this run's marker, without delaying the end for long.
    pub(super) fn leave(self, marker: &Marker) {
        if self.hangs {
            return;
        }
        let text = marker.print();
        let path = self.path.clone();
        // Flush after the rename, unlike the journal. A flush can take long if the task has just
        // written much to the same disk, and a visible marker is worth more than one that outlives
        // the node. If a power failure damages the marker, the reader notices.
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
