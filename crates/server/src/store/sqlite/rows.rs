//! The columns of a run.

use jiff::Timestamp;
use rusqlite::Row;

use super::super::{Error, Facts, StoredRun};

/// The columns of a run with its life, for [`raw`].
pub(super) const COLUMNS: &str = "number, id, tenant, created_by, name, description, acl, resource_type, resource_size, \
                                  resource_tier, created, modified_by, modified, seen, version, life";

/// A row, before its life is parsed.
pub(super) struct Raw {
    run: StoredRunWithoutLife,
    life: String,
}

struct StoredRunWithoutLife {
    number: u64,
    version: u64,
    facts: Facts,
    modified_by: String,
    modified: Timestamp,
    seen: Option<Timestamp>,
}

pub(super) fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        run: StoredRunWithoutLife {
            number: row.get::<_, i64>(0)?.unsigned_abs(),
            facts: facts(row)?,
            modified_by: row.get(11)?,
            modified: time(row.get(12)?),
            seen: row.get::<_, Option<i64>>(13)?.map(time),
            version: row.get::<_, i64>(14)?.unsigned_abs(),
        },
        life: row.get(15)?,
    })
}

/// The columns 1 to 10.
pub(super) fn facts(row: &Row<'_>) -> rusqlite::Result<Facts> {
    let acl: Option<String> = row.get(6)?;
    Ok(Facts {
        id: row.get(1)?,
        tenant: row.get(2)?,
        created_by: row.get(3)?,
        name: row.get(4)?,
        description: row.get(5)?,
        acl: acl.map(|acl| split(&acl)),
        resource_type: row.get(7)?,
        resource_size: row.get(8)?,
        resource_tier: row.get(9)?,
        created: time(row.get(10)?),
    })
}

pub(super) fn of_row(raw: Raw) -> Result<StoredRun, Error> {
    let Raw { run, life } = raw;
    match serde_json::from_str(&life) {
        Ok(life) => Ok(StoredRun {
            number: run.number,
            version: run.version,
            facts: run.facts,
            modified_by: run.modified_by,
            modified: run.modified,
            seen: run.seen,
            run: life,
        }),
        Err(error) => Err(Error::Unreadable {
            run: run.facts.id,
            source: error.into(),
        }),
    }
}

/// Joins the entries of an access control list. Each ends with a line feed, because an empty list
/// differs from one with an empty entry.
pub(super) fn joined(acl: &[String]) -> String {
    acl.iter().map(|entry| format!("{entry}\n")).collect()
}

fn split(acl: &str) -> Vec<String> {
    acl.split_terminator('\n').map(str::to_owned).collect()
}

/// Microseconds since 1970.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time of microseconds since 1970.
pub(super) fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// SQLite's integers are signed. All of ours count something, so none is that large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
