//! Runs in one SQLite file.
//!
//! One thread writes. It commits all changes that wait together, so that they share one sync of the
//! disk. Readers have their own connections and never wait for it (write-ahead log).

mod backup;
mod fault;
mod inspect;
mod list;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ToSql, params};
use tokio::sync::Semaphore;

use self::fault::unusable;
pub use self::inspect::Inspection;
use self::rows::{micros, time};
use self::writer::Writer;
use super::{
    Change, Created, ENTRIES, Entry, Error, Execution, FIRST_ENTRIES, Future, NewRun, Page, Query,
    Role, Store, StoredRun, Token,
};
use podbeat_runs::Status;

/// How long a statement waits for another process that has locked the file, such as
/// `podbeat-server token create`.
const BUSY: Duration = Duration::from_secs(5);

/// The limit for a read, which includes the wait for a connection.
const READ: Duration = Duration::from_secs(10);

/// The number of connections that read at the same time.
const READERS: usize = 4;

/// The maximum size of the write-ahead log between checkpoints, in pages of 4 KiB.
const LOG_PAGES: u32 = 4000;

/// A store in a file.
#[derive(Debug)]
pub struct Sqlite {
    writer: Writer,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    /// At most [`READERS`].
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Sqlite {
    /// Opens or creates the file, and updates its schema. Only its owner may read a new file.
    ///
    /// # Errors
    /// The file can't be used. It is unchanged then, unless the disk failed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        create(path)?;
        fault::check_log(path)?;
        let mut connection = connect(path)?;
        let state = schema::look(&connection).map_err(|error| unusable(path, error))?;
        refused(path, &state)?;
        // Committed changes survive a power failure.
        let settings = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {LOG_PAGES};"
        );
        connection
            .execute_batch(&settings)
            .and_then(|()| schema::migrate(&mut connection))
            .map_err(|error| unusable(path, error))?;
        Ok(Self {
            writer: Writer::start(path, connection),
            readers: Arc::new(Readers {
                path: path.to_owned(),
                idle: Mutex::new(Vec::new()),
                permits: Arc::new(Semaphore::new(READERS)),
            }),
        })
    }

    fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Future<'_, T> {
        let readers = Arc::clone(&self.readers);
        Box::pin(async move {
            let read = async {
                let permit = Arc::clone(&readers.permits).acquire_owned().await;
                let permit = permit.map_err(|_| Error::Closed)?;
                let done = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    let connection = readers.take()?;
                    let result = work(&connection);
                    readers.put(connection);
                    result.map_err(|error| fault::explained(&readers.path, error))
                });
                done.await
                    .unwrap_or_else(|panicked| Err(failed(doing)(panicked)))
            };
            tokio::time::timeout(READ, read)
                .await
                .unwrap_or(Err(Error::Busy))
        })
    }
}

impl Readers {
    fn take(&self) -> Result<Connection, Error> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(connection) => Ok(connection),
            None => {
                let connection = connect(&self.path)?;
                connection
                    .pragma_update(None, "query_only", true)
                    .map_err(failed("opening the data file"))?;
                Ok(connection)
            }
        }
    }

    fn put(&self, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

/// Refuses files that this version can't use.
fn refused(path: &Path, state: &schema::State) -> Result<(), Error> {
    let path = path.display().to_string();
    match state {
        schema::State::Empty | schema::State::Ours => Ok(()),
        schema::State::Newer(found) => Err(Error::Newer {
            path,
            found: *found,
            known: schema::known(),
        }),
        schema::State::Foreign => Err(Error::File {
            path,
            problem: "it is not a data file of podbeat-server; choose another file",
            source: None,
        }),
    }
}

fn create(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o600).open(path);
    opened.map(|_| ()).map_err(|error| Error::File {
        path: path.display().to_string(),
        problem: "check that its directory exists and that the file can be written",
        source: Some(error.into()),
    })
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // In a container with a read-only root there is no directory for temporary files. A list
        // sorts at most a page, and a transaction is bounded, so memory is enough.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    });
    opened.map_err(|error| unusable(path, error))
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl Fn(E) -> Error + Copy {
    move |source| Error::Failed {
        doing,
        source: Box::new(source),
    }
}

const BY_ID: &str = "WHERE id = ?1";
const BY_NUMBER: &str = "WHERE number = ?1";

fn one(
    connection: &Connection,
    condition: &str,
    value: impl rusqlite::ToSql,
) -> Result<Option<StoredRun>, Error> {
    let doing = failed("reading a run");
    let sql = format!("SELECT {} FROM runs {condition}", rows::COLUMNS);
    let mut statement = connection.prepare_cached(&sql).map_err(doing)?;
    let found = statement.query_row([value], rows::stored).optional();
    found.map_err(doing)?.transpose()
}

fn create_run(connection: &Connection, new: &NewRun) -> Result<Created, Error> {
    let doing = failed("creating a run");
    let facts = &new.facts;
    if let Some(idempotency) = &new.idempotency {
        connection
            .prepare_cached("DELETE FROM idempotency WHERE until <= ?1")
            .and_then(|mut statement| statement.execute([micros(facts.created)]))
            .map_err(doing)?;
        let before: Option<(Vec<u8>, i64)> = connection
            .prepare_cached("SELECT request, run FROM idempotency WHERE tenant = ?1 AND key = ?2")
            .and_then(|mut statement| {
                let row = statement.query_row(params![facts.tenant, idempotency.key], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                });
                row.optional()
            })
            .map_err(doing)?;
        if let Some((request, run)) = before {
            if request != idempotency.request {
                return Ok(Created::OtherRequest);
            }
            // If the run was forgotten, the request creates another one.
            if let Some(run) = one(connection, BY_NUMBER, run)? {
                return Ok(Created::Before(run));
            }
        }
    }
    let count = |sql: &str, values: &[&dyn ToSql]| -> Result<u64, Error> {
        let counted = connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(values, |row| row.get::<_, i64>(0)));
        Ok(counted.map_err(doing)?.unsigned_abs())
    };
    let live = "SELECT coalesce(sum(runs), 0) FROM counts WHERE tenant = ?1 \
                AND status NOT IN ('Completed', 'Failed', 'Aborted', 'TimedOut')";
    if count(live, &[&facts.tenant])? >= new.limits.live {
        return Ok(Created::TooManyLive);
    }
    let creates = "SELECT count(*) FROM runs WHERE tenant = ?1 AND created > ?2 AND created <= ?3";
    let (since, now) = (micros(new.limits.since), micros(facts.created));
    if count(creates, &[&facts.tenant, &since, &now])? >= new.limits.creates {
        return Ok(Created::TooManyCreates);
    }
    let life = serde_json::to_string(&new.run).map_err(failed("writing a run"))?;
    let acl = facts.acl.as_ref().map(|acl| rows::joined(acl));
    connection
        .prepare_cached(
            "INSERT INTO runs (id, tenant, created_by, modified_by, name, description, acl, resource_type, resource_size, \
             resource_tier, status, is_final, details, created, modified, life) \
             VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?14)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                facts.id,
                facts.tenant,
                facts.created_by,
                facts.name,
                facts.description,
                acl,
                facts.resource_type,
                facts.resource_size,
                facts.resource_tier,
                new.run.status().to_string(),
                new.run.status().is_final(),
                new.run.details(),
                micros(facts.created),
                life,
            ])
        })
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Error::Exists(facts.id.clone()),
            _ => doing(error),
        })?;
    let number = connection.last_insert_rowid();
    for entry in facts.acl.iter().flatten() {
        connection
            .prepare_cached("INSERT OR IGNORE INTO acls (entry, run) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![entry, number]))
            .map_err(doing)?;
    }
    if let Some(execution) = &new.execution {
        connection
            .prepare_cached("INSERT INTO executions (run, public, sealed) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| {
                statement.execute(params![number, execution.public, execution.sealed])
            })
            .map_err(doing)?;
    }
    if let Some(idempotency) = &new.idempotency {
        connection
            .prepare_cached("INSERT OR REPLACE INTO idempotency (tenant, key, request, run, until) VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut statement| {
                statement.execute(params![
                    facts.tenant,
                    idempotency.key,
                    idempotency.request,
                    number,
                    micros(idempotency.until)
                ])
            })
            .map_err(doing)?;
    }
    Ok(Created::New(StoredRun {
        number: number.unsigned_abs(),
        version: 0,
        facts: facts.clone(),
        modified_by: facts.created_by.clone(),
        modified: facts.created,
        seen: None,
        run: new.run.clone(),
    }))
}

fn change_run(connection: &Connection, change: &Change) -> Result<(), Error> {
    let doing = failed("changing a run");
    let life = serde_json::to_string(&change.run).map_err(failed("writing a run"))?;
    let number = rows::signed(change.number);
    let changed = connection
        .prepare_cached(
            "UPDATE runs SET version = version + 1, status = ?3, is_final = ?4, details = ?5, modified = ?6, modified_by = ?7, \
             seen = ifnull(?9, seen), life = ?8 WHERE number = ?1 AND version = ?2",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                number,
                rows::signed(change.version),
                change.run.status().to_string(),
                change.run.status().is_final(),
                change.run.details(),
                micros(change.at),
                change.by,
                life,
                change.seen.map(micros),
            ])
        })
        .map_err(doing)?;
    if changed == 0 {
        return Err(Error::Stale(change.id.clone()));
    }
    if change.run.status().is_final() {
        connection
            .prepare_cached("UPDATE executions SET sealed = NULL WHERE run = ?1")
            .and_then(|mut statement| statement.execute([number]))
            .map_err(doing)?;
    }
    for entry in &change.timeline {
        connection
            .prepare_cached(
                "INSERT INTO timeline (run, entry, at, text) \
                 SELECT ?1, 1 + coalesce(max(entry), 0), ?2, ?3 FROM timeline WHERE run = ?1",
            )
            .and_then(|mut statement| {
                statement.execute(params![number, micros(entry.at), entry.text])
            })
            .map_err(doing)?;
    }
    if !change.timeline.is_empty() {
        let kept = rows::signed((ENTRIES - FIRST_ENTRIES) as u64);
        connection
            .prepare_cached(
                "DELETE FROM timeline WHERE run = ?1 AND entry > ?2 \
                 AND entry <= (SELECT max(entry) FROM timeline WHERE run = ?1) - ?3",
            )
            .and_then(|mut statement| {
                statement.execute(params![number, rows::signed(FIRST_ENTRIES as u64), kept])
            })
            .map_err(doing)?;
    }
    Ok(())
}

fn token_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Token> {
    let role: String = row.get(4)?;
    let hash: Vec<u8> = row.get(1)?;
    Ok(Token {
        id: row.get(0)?,
        hash: hash.try_into().unwrap_or_default(),
        tenant: row.get(2)?,
        user: row.get(3)?,
        role: Role::ALL
            .into_iter()
            .find(|known| known.name() == role)
            .unwrap_or(Role::Read),
        created: time(row.get(5)?),
        expires: row.get::<_, Option<i64>>(6)?.map(time),
        revoked: row.get::<_, Option<i64>>(7)?.map(time),
    })
}

const TOKEN: &str = "SELECT id, hash, tenant, user, role, created, expires, revoked FROM tokens";

impl Store for Sqlite {
    fn create(&self, run: NewRun) -> Future<'_, Created> {
        self.writer
            .write(move |connection| create_run(connection, &run))
    }

    fn change(&self, change: Change) -> Future<'_, ()> {
        self.writer
            .write(move |connection| change_run(connection, &change))
    }

    fn seen(&self, runs: Vec<(u64, Timestamp)>) -> Future<'_, ()> {
        self.writer.write(move |connection| {
            let doing = failed("writing the times of heartbeats");
            let mut statement = connection
                .prepare_cached("UPDATE runs SET seen = ?2 WHERE number = ?1")
                .map_err(doing)?;
            for (number, at) in &runs {
                statement
                    .execute(params![rows::signed(*number), micros(*at)])
                    .map_err(doing)?;
            }
            Ok(())
        })
    }

    fn run(&self, id: String) -> Future<'_, Option<StoredRun>> {
        self.read("reading a run", move |connection| {
            one(connection, BY_ID, id)
        })
    }

    fn live(&self) -> Future<'_, Vec<StoredRun>> {
        self.read("reading the live runs", |connection| {
            let doing = failed("reading the live runs");
            let sql = format!(
                "SELECT {} FROM runs WHERE is_final = 0 ORDER BY number",
                rows::COLUMNS
            );
            let mut statement = connection.prepare(&sql).map_err(doing)?;
            let rows = statement.query_map([], rows::stored).map_err(doing)?;
            rows.map(|row| row.map_err(doing)?).collect()
        })
    }

    fn execution(&self, number: u64) -> Future<'_, Option<Execution>> {
        self.read("reading an execution", move |connection| {
            let found = connection
                .prepare_cached("SELECT public, sealed FROM executions WHERE run = ?1")
                .and_then(|mut statement| {
                    let row = statement.query_row([rows::signed(number)], |row| {
                        Ok(Execution {
                            public: row.get(0)?,
                            sealed: row.get(1)?,
                        })
                    });
                    row.optional()
                });
            found.map_err(failed("reading an execution"))
        })
    }

    fn list(&self, query: Query) -> Future<'_, Page> {
        self.read("listing runs", move |connection| {
            list::page(connection, &query).map_err(failed("listing runs"))
        })
    }

    fn counts(&self) -> Future<'_, Vec<(Status, u64)>> {
        self.read("counting runs", |connection| {
            let doing = failed("counting runs");
            let mut statement = connection
                .prepare_cached("SELECT status, sum(runs) FROM counts GROUP BY status")
                .map_err(doing)?;
            let rows = statement
                .query_map([], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
                })
                .map_err(doing)?;
            let mut counts = Status::ALL.map(|status| (status, 0));
            for row in rows {
                let (status, runs) = row.map_err(doing)?;
                let of_status = counts.iter_mut().find(|(known, _)| known.name() == status);
                if let Some((_, count)) = of_status {
                    *count = runs.unsigned_abs();
                }
            }
            Ok(counts.to_vec())
        })
    }

    fn timeline(&self, number: u64) -> Future<'_, Vec<Entry>> {
        self.read("reading a timeline", move |connection| {
            let doing = failed("reading a timeline");
            let mut statement = connection
                .prepare_cached("SELECT at, text FROM timeline WHERE run = ?1 ORDER BY entry")
                .map_err(doing)?;
            let rows = statement
                .query_map([rows::signed(number)], |row| {
                    Ok(Entry {
                        at: time(row.get(0)?),
                        text: row.get(1)?,
                    })
                })
                .map_err(doing)?;
            rows.collect::<Result<_, _>>().map_err(doing)
        })
    }

    fn forget(&self, ended_before: Timestamp, most: u64, batch: u32) -> Future<'_, Vec<String>> {
        self.writer.write(move |connection| {
            let doing = failed("removing ended runs");
            let runs: i64 = connection
                .query_row("SELECT coalesce(sum(runs), 0) FROM counts", [], |row| row.get(0))
                .map_err(doing)?;
            let surplus = runs.saturating_sub(rows::signed(most)).max(0);
            let removed = connection
                .prepare_cached(
                    "DELETE FROM runs WHERE number IN ( \
                     SELECT number FROM (SELECT number, modified, row_number() OVER (ORDER BY modified, number) AS place \
                     FROM (SELECT number, modified FROM runs WHERE is_final = 1 ORDER BY modified, number LIMIT ?3)) \
                     WHERE modified < ?1 OR place <= ?2) RETURNING id",
                )
                .and_then(|mut statement| {
                    let values = params![micros(ended_before), surplus, batch];
                    let ids = statement.query_map(values, |row| row.get(0))?;
                    ids.collect()
                })
                .map_err(doing)?;
            Ok(removed)
        })
    }

    fn add_token(&self, token: Token) -> Future<'_, ()> {
        self.writer.write(move |connection| {
            connection
                .execute(
                    "INSERT INTO tokens (id, hash, tenant, user, role, created, expires, revoked) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        token.id,
                        token.hash,
                        token.tenant,
                        token.user,
                        token.role.name(),
                        micros(token.created),
                        token.expires.map(micros),
                        token.revoked.map(micros)
                    ],
                )
                .map_err(failed("storing a token"))?;
            Ok(())
        })
    }

    fn token(&self, hash: [u8; 32]) -> Future<'_, Option<Token>> {
        self.read("reading a token", move |connection| {
            let found = connection
                .prepare_cached(&format!("{TOKEN} WHERE hash = ?1"))
                .and_then(|mut statement| statement.query_row([hash], token_of).optional());
            found.map_err(failed("reading a token"))
        })
    }

    fn tokens(&self) -> Future<'_, Vec<Token>> {
        self.read("reading the tokens", |connection| {
            let doing = failed("reading the tokens");
            let mut statement = connection
                .prepare_cached(&format!("{TOKEN} ORDER BY created, id"))
                .map_err(doing)?;
            let rows = statement.query_map([], token_of).map_err(doing)?;
            rows.collect::<Result<_, _>>().map_err(doing)
        })
    }

    fn revoke(&self, id: String, at: Timestamp) -> Future<'_, bool> {
        self.writer.write(move |connection| {
            let revoked = connection.execute(
                "UPDATE tokens SET revoked = ifnull(revoked, ?2) WHERE id = ?1",
                params![id, micros(at)],
            );
            Ok(revoked.map_err(failed("revoking a token"))? > 0)
        })
    }

    fn check(&self) -> Future<'_, ()> {
        self.writer.write(|connection| {
            connection
                .query_row("SELECT count(*) FROM counts", [], |row| {
                    row.get::<_, i64>(0)
                })
                .map(|_| ())
                .map_err(failed("checking the store"))
        })
    }
}
