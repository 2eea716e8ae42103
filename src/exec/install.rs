//! `podbeat exec --install`: copies the running binary to a place where the task's container can
//! run it. An image FROM scratch has no `cp`.

use std::io;
use std::path::{Path, PathBuf};

use podbeat_files::regular_file::{Durable, open, replace};

/// The binary of this process, even if its file was replaced or removed in the meantime.
#[cfg(target_os = "linux")]
fn own() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// The binary of this process.
#[cfg(not(target_os = "linux"))]
fn own() -> io::Result<PathBuf> {
    std::env::current_exe()
}

const NAME: &str = "podbeat";

/// Everybody may run it. Only its owner may change it.
const MODE: u32 = 0o755;

/// Why podbeat could not make the copy.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy podbeat to {}; check that its directory exists, is writable for this user, and is not full", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Copies the running binary to `to`, or to `to`/podbeat if that is a directory, with mode 0755.
/// The file is complete at any moment. Returns its path.
///
/// # Errors
/// The binary cannot be read, or the copy cannot be written.
pub fn install(to: &Path) -> Result<PathBuf, Error> {
    let path = if to.is_dir() {
        to.join(NAME)
    } else {
        to.to_owned()
    };
    let copied = replace(&path, MODE, Durable::First, &|file| {
        io::copy(&mut open(&own()?)?, file).map(drop)
    });
    match copied {
        Ok(()) => Ok(path),
        Err(source) => Err(Error { path, source }),
    }
}
