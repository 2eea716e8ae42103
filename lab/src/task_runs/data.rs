//! The persistent data: one SQLite file with the runs and the key of renewed tokens.
//!
//! A run is written before its answer is sent. Heartbeats that change no run are not written.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::jwt;
use super::run::Run;
use super::store::Change;
use crate::{Error, io};

/// Identifies the file as ours (SQLite's `application_id`): "pblb".
const APPLICATION: i32 = 0x7062_6c62;

/// The version of the file's schema (SQLite's `user_version`).
const VERSION: i32 = 1;

/// How long to wait for another process that has locked the file.
const BUSY: Duration = Duration::from_millis(500);

/// The file.
#[derive(Debug)]
pub(crate) struct Data {
    path: PathBuf,
    connection: Connection,
}

impl Data {
    /// Opens or creates the file. It contains a key, so only its owner may read it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(io(format!("opening the data file {}", path.display())))?;
        let failed = |what: &'static str| failed(path, what);
        let mut connection = Connection::open(path).map_err(failed("opening"))?;
        connection.busy_timeout(BUSY).map_err(failed("opening"))?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let application = pragma("application_id").map_err(failed("reading"))?;
        let version = pragma("user_version").map_err(failed("reading"))?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
            .map_err(failed("reading"))?;
        match (application, version, tables) {
            (APPLICATION, VERSION, _) => {}
            (0, 0, 0) => create(&mut connection).map_err(failed("creating"))?,
            _ => {
                return Err(Error::ForeignData {
                    path: path.to_owned(),
                    version,
                });
            }
        }
        // Two services on one file would overwrite each other's runs, so the lock is kept.
        let locked =
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                      BEGIN IMMEDIATE; COMMIT;";
        connection
            .execute_batch(locked)
            .map_err(failed("locking"))?;
        Ok(Self {
            path: path.to_owned(),
            connection,
        })
    }

    /// The runs, in the order of their creation.
    pub(crate) fn runs(&self) -> Result<Vec<Run>, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self
                .connection
                .prepare("SELECT run FROM runs ORDER BY number")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        };
        let texts = read().map_err(failed(&self.path, "reading"))?;
        texts
            .iter()
            .map(|text| {
                serde_json::from_str(text).map_err(|source| Error::Torn {
                    path: self.path.clone(),
                    source,
                })
            })
            .collect()
    }

    /// The key of renewed tokens. The first call creates it.
    pub(crate) fn key(&self) -> Result<Vec<u8>, Error> {
        let kept = self
            .connection
            .query_row("SELECT key FROM keys", [], |row| row.get(0))
            .optional()
            .map_err(failed(&self.path, "reading"))?;
        if let Some(key) = kept {
            return Ok(key);
        }
        let key = jwt::random(jwt::KEY_BYTES)?;
        self.connection
            .execute("INSERT INTO keys (key) VALUES (?1)", params![key])
            .map_err(failed(&self.path, "writing"))?;
        Ok(key)
    }

    /// Writes the changes, all or nothing.
    pub(crate) fn write(&mut self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let connection = &mut self.connection;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            for change in changes {
                match change {
                    Change::Put(run) => transaction.execute(
                        "INSERT OR REPLACE INTO runs (number, run) VALUES (?1, ?2)",
                        params![
                            number(run.number),
                            serde_json::to_string(run).unwrap_or_default()
                        ],
                    )?,
                    Change::Gone(gone) => transaction
                        .execute("DELETE FROM runs WHERE number = ?1", params![number(*gone)])?,
                };
            }
            transaction.commit()
        };
        write().map_err(failed(&self.path, "writing"))
    }
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(
        "CREATE TABLE runs (number INTEGER PRIMARY KEY, run TEXT NOT NULL) STRICT;
         CREATE TABLE keys (key BLOB NOT NULL) STRICT;",
    )?;
    transaction.commit()
}

/// SQLite's integers are signed. The numbers count up from 0, one for each run.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(path: &Path, what: &'static str) -> impl Fn(rusqlite::Error) -> Error + Copy {
    move |source| Error::Data {
        what,
        path: path.to_owned(),
        source,
    }
}
