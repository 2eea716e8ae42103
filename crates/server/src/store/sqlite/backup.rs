//! A copy of the data file, made while it is in use.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::inspect::existing;
use super::{Sqlite, connect, unusable};
use crate::store::Error;

impl Sqlite {
    /// Copies a data file to a new file, which only its owner may read. The copy has everything
    /// that was committed when it began (<https://sqlite.org/lang_vacuum.html#vacuuminto>).
    ///
    /// # Errors
    /// A file can't be used, or the new file exists already. Then nothing is left of the copy.
    pub fn backup(from: &Path, to: &Path) -> Result<(), Error> {
        existing(from)?;
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).mode(0o600).open(to);
        let created = created.map_err(|source| {
            file(
                to,
                "choose a new file in a directory that can be written",
                Some(source),
            )
        })?;
        let copied = copy(from, to).and_then(|()| {
            let synced = created.sync_all();
            synced.map_err(|source| file(to, "check the disk", Some(source)))
        });
        if copied.is_err() {
            // The error above is the one to report.
            let _ = std::fs::remove_file(to);
        }
        copied
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let Some(name) = to.to_str() else {
        return Err(file(to, "its name must be UTF-8", None));
    };
    let connection = connect(from)?;
    let copied = connection.execute("VACUUM INTO ?1", [name]);
    copied.map(|_| ()).map_err(|error| unusable(to, error))
}

fn file(path: &Path, problem: &'static str, source: Option<std::io::Error>) -> Error {
    Error::File {
        path: path.display().to_string(),
        problem,
        source: source.map(Into::into),
    }
}
