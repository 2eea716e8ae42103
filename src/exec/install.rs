//! `podbeat exec --install`: the running binary, copied to where the task's container can run it.
//! An image made FROM scratch has no `cp`.

use std::io;
use std::path::{Path, PathBuf};

use podbeat_files::regular_file::{Durable, open, replace};

/// The binary of this very process, also if its file was replaced or removed meanwhile.
const SELF: &str = "/proc/self/exe";

const NAME: &str = "podbeat";

/// Everybody may run it, only its owner may change it.
const MODE: u32 = 0o755;

/// Why the copy isn't there.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy podbeat to {}; check that its directory exists, is writable for this user, and is not full", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Copies the running binary to `to`, or to `to`/podbeat if that is a directory: mode 0755, whole
/// at any moment. Returns where it is.
///
/// # Errors
/// It can't be read or written.
pub fn install(to: &Path) -> Result<PathBuf, Error> {
    let path = if to.is_dir() {
        to.join(NAME)
    } else {
        to.to_owned()
    };
    let copied = replace(&path, MODE, Durable::First, &|file| {
        io::copy(&mut open(Path::new(SELF))?, file).map(drop)
    });
    match copied {
        Ok(()) => Ok(path),
        Err(source) => Err(Error { path, source }),
    }
}
