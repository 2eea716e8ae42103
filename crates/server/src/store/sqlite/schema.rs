//! The schema of the data file, and its migrations.

use rusqlite::{Connection, TransactionBehavior};

/// Identifies the file as ours (SQLite's `application_id`): "pbsv".
pub(super) const APPLICATION: i64 = 0x7062_7376;

/// The migrations, oldest first. The number of applied ones is SQLite's `user_version`. A released
/// migration never changes.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    version INTEGER NOT NULL DEFAULT 0,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_by TEXT NOT NULL,
    modified_by TEXT NOT NULL,
    name TEXT,
    description TEXT,
    -- Entries, separated by line feeds.
    acl TEXT,
    resource_type TEXT,
    resource_size TEXT,
    resource_tier TEXT,
    status TEXT NOT NULL,
    is_final INTEGER NOT NULL,
    details TEXT,
    -- Microseconds since 1970.
    created INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    seen INTEGER,
    -- The run's life as JSON. Only requests for a single run read it.
    life TEXT NOT NULL,
    sort_name TEXT NOT NULL GENERATED ALWAYS AS (ifnull(name, '')) VIRTUAL
) STRICT;
CREATE INDEX runs_tenant ON runs (tenant, number);
CREATE INDEX runs_tenant_name ON runs (tenant, sort_name, number);
CREATE INDEX runs_tenant_status ON runs (tenant, status, number);
CREATE INDEX runs_tenant_created ON runs (tenant, created, number);
CREATE INDEX runs_tenant_modified ON runs (tenant, modified, number);
CREATE INDEX runs_name ON runs (sort_name, number);
CREATE INDEX runs_status ON runs (status, number);
CREATE INDEX runs_created ON runs (created, number);
CREATE INDEX runs_modified ON runs (modified, number);
CREATE INDEX runs_live ON runs (number) WHERE is_final = 0;
CREATE INDEX runs_ended ON runs (modified, number) WHERE is_final = 1;

CREATE TABLE counts (
    tenant TEXT NOT NULL,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (tenant, status)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER runs_insert AFTER INSERT ON runs BEGIN
    INSERT INTO counts VALUES (new.tenant, new.status, 1)
        ON CONFLICT DO UPDATE SET runs = runs + 1;
END;
CREATE TRIGGER runs_delete AFTER DELETE ON runs BEGIN
    UPDATE counts SET runs = runs - 1 WHERE tenant = old.tenant AND status = old.status;
END;
CREATE TRIGGER runs_update AFTER UPDATE OF status ON runs WHEN old.status <> new.status BEGIN
    UPDATE counts SET runs = runs - 1 WHERE tenant = old.tenant AND status = old.status;
    INSERT INTO counts VALUES (new.tenant, new.status, 1)
        ON CONFLICT DO UPDATE SET runs = runs + 1;
END;

-- Entries of access control lists.
CREATE TABLE acls (
    entry TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    PRIMARY KEY (entry, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX acls_run ON acls (run);

CREATE TABLE executions (
    run INTEGER PRIMARY KEY REFERENCES runs (number) ON DELETE CASCADE,
    public TEXT NOT NULL,
    sealed BLOB
) STRICT;

CREATE TABLE timeline (
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    entry INTEGER NOT NULL,
    at INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (run, entry)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    run INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_until ON idempotency (until);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    role TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    revoked INTEGER
) STRICT;
"];

/// The state of a file.
pub(super) enum State {
    /// It is new.
    Empty,
    /// This or an earlier version wrote it.
    Ours,
    /// A newer version wrote it.
    Newer(i64),
    /// Another program wrote it.
    Foreign,
}

/// Looks whether the file is ours, without a change.
pub(super) fn look(connection: &Connection) -> rusqlite::Result<State> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(match (application, version, objects) {
        (0, 0, 0) => State::Empty,
        (APPLICATION, version, _) if version > known() => State::Newer(version),
        (APPLICATION, 1.., _) => State::Ours,
        _ => State::Foreign,
    })
}

/// The newest schema.
pub(super) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Applies the missing migrations, all or none. Writes nothing if none is missing.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    if connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == known() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let applied = usize::try_from(version).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", known())?;
    transaction.commit()
}
