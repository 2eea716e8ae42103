//! What is wrong with the data file or its disk, and what to do about it.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podbeat_files::regular_file;
use rusqlite::ErrorCode;

use crate::store::Error;

/// The size of the header of a write-ahead log, in bytes. The header is durable before anything
/// follows it (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
const LOG_HEADER: u64 = 32;

/// The first bytes of a write-ahead log, for both byte orders of its checksums.
const LOG_MAGIC: [[u8; 4]; 2] = [[0x37, 0x7f, 0x06, 0x82], [0x37, 0x7f, 0x06, 0x83]];

const DAMAGED: &str = "it is damaged; restore it from a backup";

/// An error of SQLite, about the file.
pub(super) fn unusable(path: &Path, error: rusqlite::Error) -> Error {
    Error::File {
        path: path.display().to_string(),
        problem: problem(&error),
        source: Some(error.into()),
    }
}

/// The error of every change in a transaction that failed.
pub(super) fn not_committed(path: &Path, error: Arc<rusqlite::Error>) -> Error {
    Error::File {
        path: path.display().to_string(),
        problem: problem(&error),
        source: Some(Box::new(error)),
    }
}

/// An error of an operation. If the file or its disk is the cause, the error names the file.
pub(super) fn explained(path: &Path, error: Error) -> Error {
    let Error::Failed { doing, source } = error else {
        return error;
    };
    match source.downcast::<rusqlite::Error>() {
        Ok(error) if is_of_the_file(&error) => unusable(path, *error),
        Ok(error) => Error::Failed {
            doing,
            source: error,
        },
        Err(source) => Error::Failed { doing, source },
    }
}

fn is_of_the_file(error: &rusqlite::Error) -> bool {
    has_wrong_content(error)
        || matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::NotADatabase
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::PermissionDenied
                    | ErrorCode::SystemIoFailure
            )
        )
}

/// Whether the file has another content than what is written there: a value of another kind, or a
/// schema for which the statements are wrong.
fn has_wrong_content(error: &rusqlite::Error) -> bool {
    let is_a_wrong_statement = error.sqlite_error_code() == Some(ErrorCode::Unknown);
    is_a_wrong_statement
        || matches!(
            error,
            rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
        )
}

fn problem(error: &rusqlite::Error) -> &'static str {
    if has_wrong_content(error) {
        return DAMAGED;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            "it is not a data file of podbeat-server; choose another file"
        }
        Some(ErrorCode::DatabaseCorrupt) => DAMAGED,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has locked it; stop that process"
        }
        Some(ErrorCode::DiskFull) => "the disk is full; free some space",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "check that the file and its directory can be written"
        }
        _ => "check the disk",
    }
}

/// Refuses a file whose write-ahead log is none. SQLite would remove that log, and with it all
/// changes since the last checkpoint.
pub(super) fn check_log(path: &Path) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-wal");
    let beside = PathBuf::from(beside);
    let failed = |source: std::io::Error| Error::File {
        path: path.display().to_string(),
        problem: "check that its write-ahead log (-wal) can be read",
        source: Some(source.into()),
    };
    let mut log = match regular_file::open(&beside) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if log.metadata().map_err(failed)?.len() <= LOG_HEADER {
        return Ok(());
    }
    let mut begin = [0; 4];
    log.read_exact(&mut begin).map_err(failed)?;
    match LOG_MAGIC.contains(&begin) {
        true => Ok(()),
        false => Err(Error::File {
            path: path.display().to_string(),
            problem: "its write-ahead log (-wal), which has the last changes, is damaged; restore the file \
                      from a backup, and remove the log",
            source: None,
        }),
    }
}
