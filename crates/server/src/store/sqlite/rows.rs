//! The columns of a run.

use jiff::Timestamp;
use rusqlite::Row;

use super::super::{Error, Facts, StoredRun};

/// The columns of a run with its life, for [`stored`].
pub(super) const COLUMNS: &str = "number, id, tenant, created_by, name, description, acl, resource_type, resource_size, \
                                  resource_tier, created, modified_by, modified, seen, version, life";

/// A run. The inner error is about its life.
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Result<StoredRun, Error>> {
    let facts = facts(row)?;
    let life: String = row.get(15)?;
    let run = match serde_json::from_str(&life) {
        Ok(run) => run,
        Err(error) => {
            return Ok(Err(Error::Unreadable {
                run: facts.id,
                source: error.into(),
            }));
        }
    };
    Ok(Ok(StoredRun {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        version: row.get::<_, i64>(14)?.unsigned_abs(),
        facts,
        modified_by: row.get(11)?,
        modified: time(row.get(12)?),
        seen: row.get::<_, Option<i64>>(13)?.map(time),
        run,
    }))
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
