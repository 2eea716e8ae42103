//! `podbeat exec --install`: the running binary, copied to where the task's container can run it. An image made FROM
//! scratch has no `cp`.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::leave::remove;

/// The binary of this very process, also if its file was replaced or removed meanwhile.
const SELF: &str = "/proc/self/exe";

const NAME: &str = "podbeat";

/// Everybody may run it, only its owner may change it.
const MODE: u32 = 0o755;

/// Why the copy isn't there.
#[derive(Debug, thiserror::Error)]
#[error("copying podbeat to {}: is its directory there, writable for this user, and not full?", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Copies the running binary to `to`, or to `to`/podbeat if that is a directory: mode 0755, whole at any moment. Returns
/// where it is.
///
/// # Errors
/// It can't be read or written.
pub fn install(to: &Path) -> Result<PathBuf, Error> {
    let path = if to.is_dir() { to.join(NAME) } else { to.to_owned() };
    match copy(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(Error { path, source }),
    }
}

fn copy(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = path.with_file_name(beside);
    remove(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&beside)?;
    let written = io::copy(&mut File::open(SELF)?, &mut file)
        .and_then(|_| file.set_permissions(Permissions::from_mode(MODE)))
        .and_then(|()| file.sync_all());
    // Nobody may hold it open for writing when it is run.
    drop(file);
    written
        .and_then(|()| std::fs::rename(&beside, path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })
}
