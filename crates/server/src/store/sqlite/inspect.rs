//! A look into a data file that changes nothing.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;

use super::rows::time;
use super::{Sqlite, connect, refused, schema, unusable};
use crate::store::Error;

/// What is in a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The number of runs.
    pub runs: u64,
    /// The number of tokens that are not revoked.
    pub tokens: u64,
    /// When a run changed last.
    pub newest_change: Option<Timestamp>,
    /// The first sign of damage, if there is one.
    pub damage: Option<String>,
}

impl Sqlite {
    /// Opens a file that must exist, and updates its schema.
    ///
    /// # Errors
    /// As for [`Self::open`], or the file does not exist.
    pub fn open_existing(path: &Path) -> Result<Self, Error> {
        existing(path)?;
        Self::open(path)
    }

    /// Looks into a data file, which may be in use. `None` if it is empty.
    ///
    /// # Errors
    /// The file can't be used, or a newer version wrote it.
    pub fn inspect(path: &Path) -> Result<Option<Inspection>, Error> {
        existing(path)?;
        let connection = connect(path)?;
        let failed = |error| unusable(path, error);
        connection
            .pragma_update(None, "query_only", true)
            .map_err(failed)?;
        let state = schema::look(&connection).map_err(failed)?;
        refused(path, &state)?;
        if matches!(state, schema::State::Empty) {
            return Ok(None);
        }
        look(&connection).map(Some).map_err(failed)
    }
}

/// Refuses a file that does not exist. SQLite's own error would not say so.
pub(super) fn existing(path: &Path) -> Result<(), Error> {
    match path.exists() {
        true => Ok(()),
        false => Err(Error::File {
            path: path.display().to_string(),
            problem: "it does not exist; check PODBEAT_SERVER_DATA",
            source: None,
        }),
    }
}

fn look(connection: &Connection) -> rusqlite::Result<Inspection> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    };
    let newest: Option<i64> =
        connection.query_row("SELECT max(modified) FROM runs", [], |row| row.get(0))?;
    let checked: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(Inspection {
        runs: count("SELECT coalesce(sum(runs), 0) FROM counts")?,
        tokens: count("SELECT count(*) FROM tokens WHERE revoked IS NULL")?,
        newest_change: newest.map(time),
        damage: (checked != "ok").then_some(checked),
    })
}
