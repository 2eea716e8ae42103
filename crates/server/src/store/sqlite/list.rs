//! Pages of runs. Each part of a list is read in the order of an index, at most a page of it, and
//! the parts are merged. So a page costs the same wherever it is in the list.

use podbeat_task_runs::model::SortField;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, ToSql, params_from_iter};

use super::super::{COUNTED, Cursor, Filter, Key, Listed, Page, Place, Query, Viewer};
use super::rows::{self, micros, time};
use podbeat_runs::Status;

/// The columns of a run in a list, for [`listed`]. The first eleven are those of a single run.
const COLUMNS: &str = "number, id, tenant, created_by, name, description, acl, resource_type, resource_size, resource_tier, \
                       created, modified_by, modified, seen, status, details, sort_name";

pub(super) fn page(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let is_rare = is_rare(connection, query)?;
    let total = total(connection, query, is_rare)?;
    // Before a run and from the end, the list is read backward.
    let (cursor, backward) = match &query.place {
        Place::First => (None, false),
        Place::After(cursor) => (Some(cursor), false),
        Place::Before(cursor) => (Some(cursor), true),
        Place::Last => (None, true),
    };
    let size = match query.place {
        // The pages have the same borders from either side.
        Place::Last => match usize::try_from(total).unwrap_or(usize::MAX) % query.size.max(1) {
            0 => query.size,
            rest => rest,
        },
        Place::First | Place::After(_) | Place::Before(_) => query.size,
    };
    let mut select = Select::new(query, backward);
    select.is_rare = is_rare;
    select.common = common(connection, query)?;
    select.parts(cursor, size + 1);
    let mut statement = connection.prepare_cached(&select.sql)?;
    let rows = statement.query_map(params_from_iter(&select.values), listed)?;
    let mut runs = rows.collect::<Result<Vec<_>, _>>()?;
    let is_cut = runs.len() > size;
    runs.truncate(size);
    if backward {
        runs.reverse();
    }
    let came_from = cursor.is_some() && total > 0;
    Ok(match backward {
        false => Page {
            has_previous: came_from,
            has_next: is_cut,
            runs,
            total,
        },
        true => Page {
            has_previous: is_cut,
            has_next: came_from,
            runs,
            total,
        },
    })
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let status: String = row.get(14)?;
    Ok(Listed {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        facts: rows::facts(row)?,
        modified_by: row.get(11)?,
        modified: time(row.get(12)?),
        seen: row.get::<_, Option<i64>>(13)?.map(time),
        status: Status::named(&status).unwrap_or(Status::Failed),
        details: row.get(15)?,
    })
}

/// A part of a list: the runs of the viewer's tenant, or those of others that are shared.
#[derive(Clone, Copy)]
enum Part {
    All,
    Own,
    Shared,
}

/// The parts of a list that the viewer sees.
fn parts(query: &Query) -> &'static [Part] {
    match query.viewer {
        Viewer::All => &[Part::All],
        Viewer::Member { .. } => &[Part::Own, Part::Shared],
    }
}

/// The statuses to read one by one, because an index has the runs of one status in order, but not
/// those of several.
fn statuses(query: &Query) -> Vec<Option<Status>> {
    match query.filter.statuses.as_slice() {
        [] => vec![None],
        statuses => statuses.iter().copied().map(Some).collect(),
    }
}

/// A statement under construction.
struct Select<'query> {
    query: &'query Query,
    /// The columns of the order, the number last, and whether each is descending.
    order: Vec<(&'static str, bool)>,
    /// See [`is_rare`]. SQLite uses no index of a column that has the sign `+`.
    is_rare: bool,
    /// See [`common`].
    common: Vec<Status>,
    sql: String,
    values: Vec<Value>,
}

impl<'query> Select<'query> {
    fn new(query: &'query Query, backward: bool) -> Self {
        let fields = query
            .sort
            .iter()
            .map(|sort| (column(sort.field), sort.descending));
        let order = fields.chain([("number", query.newest_first())]);
        let order = order.map(|(column, descending)| (column, descending != backward));
        Self {
            query,
            order: order.collect(),
            is_rare: false,
            common: Vec::new(),
            sql: String::new(),
            values: Vec::new(),
        }
    }

    /// Selects at most `limit` runs after the cursor.
    fn parts(&mut self, cursor: Option<&Cursor>, limit: usize) {
        let statuses = statuses(self.query);
        // A run is after the cursor if it is after it in one column and equal to it in all columns
        // before that. An index finds each of these alternatives, but not all at once.
        let alternatives = cursor.map_or(1, |_| self.order.len());
        for part in parts(self.query) {
            for status in &statuses {
                for alternative in 0..alternatives {
                    if !self.sql.is_empty() {
                        self.sql += " UNION ALL ";
                    }
                    self.sql += &format!("SELECT * FROM (SELECT {COLUMNS} FROM runs WHERE ");
                    self.conditions(*part, *status);
                    if let Some(cursor) = cursor {
                        self.after(cursor, alternative);
                    }
                    self.order_by(self.sign_of_order(*status));
                    self.limit(limit);
                    self.sql += ")";
                }
            }
        }
        self.order_by("");
        self.limit(limit);
    }

    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    fn list(&mut self, values: &[String]) -> String {
        let places: Vec<String> = values
            .iter()
            .map(|value| self.value(value.clone()))
            .collect();
        places.join(", ")
    }

    fn conditions(&mut self, part: Part, status: Option<Status>) {
        let mut all: Vec<String> = Vec::new();
        let (query, sign) = (self.query, self.sign());
        if let Viewer::Member { tenant, .. } = &query.viewer {
            let tenant = self.value(tenant.clone());
            match part {
                Part::All => {}
                Part::Own => all.push(format!("{sign}tenant = {tenant}")),
                Part::Shared => {
                    let entries = self.list(&query.viewer.entries());
                    all.push(format!(
                        "tenant <> {tenant} AND number IN (SELECT run FROM acls WHERE entry IN ({entries}))"
                    ));
                }
            }
        }
        if let Some(status) = status {
            let value = self.value(status.to_string());
            let sign = match self.is_sorted() && self.common.contains(&status) {
                true => "+",
                false => sign,
            };
            all.push(format!("{sign}status = {value}"));
        }
        let filter = &query.filter;
        if filter.none {
            all.push("0".to_owned());
        }
        if !filter.names.is_empty() {
            let names = self.list(&filter.names);
            all.push(format!("name IS NOT NULL AND sort_name IN ({names})"));
        }
        if !filter.acls.is_empty() {
            let entries = self.list(&filter.acls);
            all.push(format!(
                "number IN (SELECT run FROM acls WHERE entry IN ({entries}))"
            ));
        }
        if let Some(search) = &filter.search {
            let from = self.value(search.clone());
            let to = self.value(format!("{search}\u{10ffff}"));
            all.push(format!(
                "(sort_name >= {from} AND sort_name < {to} OR id >= {from} AND id < {to})"
            ));
        }
        self.sql += match all.is_empty() {
            true => "1",
            false => "",
        };
        self.sql += &all.join(" AND ");
    }

    /// The condition that a run is after the cursor in this column, and equal in all before it.
    fn after(&mut self, cursor: &Cursor, at: usize) {
        let values = cursor.keys.iter().map(|key| match key {
            Key::Text(text) => Value::from(text.clone()),
            Key::Time(time) => Value::from(micros(*time)),
        });
        let values = values.chain([Value::from(rows::signed(cursor.number))]);
        let order = self.order.clone();
        for (place, ((column, descending), value)) in
            order.into_iter().zip(values).take(at + 1).enumerate()
        {
            let comparison = match descending {
                _ if place < at => "=",
                false => ">",
                true => "<",
            };
            let value = self.value(value);
            self.sql += &format!(" AND {column} {comparison} {value}");
        }
    }

    fn sign(&self) -> &'static str {
        if self.is_rare { "+" } else { "" }
    }

    /// Whether the runs of one status are in another order than the index of statuses has them.
    fn is_sorted(&self) -> bool {
        let mut order = self.order.iter().map(|(column, _)| *column);
        !order.all(|column| matches!(column, "status" | "number"))
    }

    /// The runs of a status that few have are found by the index of statuses, and sorted.
    fn sign_of_order(&self, status: Option<Status>) -> &'static str {
        let is_few = status.is_some_and(|status| !self.common.contains(&status));
        if is_few && self.is_sorted() {
            "+"
        } else {
            self.sign()
        }
    }

    fn order_by(&mut self, sign: &str) {
        let order = self
            .order
            .iter()
            .map(|(column, descending)| match descending {
                false => format!("{sign}{column} ASC"),
                true => format!("{sign}{column} DESC"),
            });
        self.sql += &format!(" ORDER BY {}", order.collect::<Vec<_>>().join(", "));
    }

    fn limit(&mut self, limit: usize) {
        let limit = self.value(rows::signed(limit as u64));
        self.sql += &format!(" LIMIT {limit}");
    }
}

fn column(field: SortField) -> &'static str {
    match field {
        SortField::Name => "sort_name",
        SortField::Status => "status",
        SortField::TimeCreated => "created",
        SortField::TimeModified => "modified",
    }
}

/// Whether the text of the search finds few runs. Then the indexes of names and IDs find them, and
/// they are sorted. Otherwise the list is read in its order, because most runs match.
fn is_rare(connection: &Connection, query: &Query) -> rusqlite::Result<bool> {
    if query.filter.search.is_none() {
        return Ok(false);
    }
    let only_search = Query {
        viewer: Viewer::All,
        filter: Filter {
            search: query.filter.search.clone(),
            ..Filter::default()
        },
        ..query.clone()
    };
    Ok(counted(connection, &only_search, Part::All, true)? < COUNTED)
}

/// The statuses that so many runs of the viewer's tenant have that a sorted list of them is found
/// fastest in its order, between those with other statuses. For other statuses it is faster to sort
/// all their runs.
fn common(connection: &Connection, query: &Query) -> rusqlite::Result<Vec<Status>> {
    let mut select = Select::new(query, false);
    select.sql += "SELECT status, sum(runs) FROM counts WHERE 1";
    if let Viewer::Member { tenant, .. } = &query.viewer {
        let tenant = select.value(tenant.clone());
        select.sql += &format!(" AND tenant = {tenant}");
    }
    select.sql += " GROUP BY status";
    let mut statement = connection.prepare_cached(&select.sql)?;
    let rows = statement.query_map(params_from_iter(&select.values), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?.unsigned_abs(),
        ))
    })?;
    let counts = rows.collect::<Result<Vec<_>, _>>()?;
    let all: u64 = counts.iter().map(|(_, runs)| runs).sum();
    // Either all `runs` are sorted, or for each run of the page `all / runs` are read. To read one
    // takes twice as long as to sort one, because those to sort are often neighbors in the file.
    let page = 2 * query.size as u64;
    let is_common = |runs: u64| runs.saturating_mul(runs) >= all.saturating_mul(page);
    let common = counts.iter().filter(|(_, runs)| is_common(*runs));
    Ok(common.filter_map(|(name, _)| Status::named(name)).collect())
}

/// The number of runs on all pages: from the counters if the filter has only statuses, otherwise
/// counted with an index.
fn total(connection: &Connection, query: &Query, is_rare: bool) -> rusqlite::Result<u64> {
    let filter = &query.filter;
    let is_filtered = filter.none
        || !filter.names.is_empty()
        || !filter.acls.is_empty()
        || filter.search.is_some();
    let mut total = 0;
    if is_filtered {
        for part in parts(query) {
            total += counted(connection, query, *part, is_rare)?;
        }
        return Ok(total);
    }
    let mut select = Select::new(query, false);
    let statuses: Vec<String> = filter.statuses.iter().map(ToString::to_string).collect();
    select.sql += "SELECT coalesce(sum(runs), 0) FROM counts WHERE 1";
    if !statuses.is_empty() {
        let statuses = select.list(&statuses);
        select.sql += &format!(" AND status IN ({statuses})");
    }
    if let Viewer::Member { tenant, .. } = &query.viewer {
        let tenant = select.value(tenant.clone());
        select.sql += &format!(" AND tenant = {tenant}");
    }
    total += number(connection, &select)?;
    if let Viewer::Member { .. } = &query.viewer {
        total += counted(connection, query, Part::Shared, is_rare)?;
    }
    Ok(total)
}

fn counted(
    connection: &Connection,
    query: &Query,
    part: Part,
    is_rare: bool,
) -> rusqlite::Result<u64> {
    let mut total = 0;
    for status in statuses(query) {
        let mut select = Select::new(query, false);
        select.is_rare = is_rare;
        select.sql += "SELECT count(*) FROM (SELECT 1 FROM runs WHERE ";
        select.conditions(part, status);
        if query.filter.search.is_some() {
            select.limit(usize::try_from(COUNTED).unwrap_or(usize::MAX));
        }
        select.sql += ")";
        total += number(connection, &select)?;
    }
    Ok(total)
}

fn number(connection: &Connection, select: &Select<'_>) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(&select.sql)?;
    let values: Vec<&dyn ToSql> = select
        .values
        .iter()
        .map(|value| value as &dyn ToSql)
        .collect();
    statement.query_row(values.as_slice(), |row| {
        row.get::<_, i64>(0).map(i64::unsigned_abs)
    })
}

/// How SQLite would read a page.
#[cfg(test)]
pub(super) fn plan(connection: &Connection, query: &Query) -> String {
    let mut select = Select::new(query, false);
    select.is_rare = is_rare(connection, query).expect("counted");
    select.common = common(connection, query).expect("counted");
    let cursor = match &query.place {
        Place::After(cursor) => Some(cursor),
        _ => None,
    };
    select.parts(cursor, query.size + 1);
    let sql = format!("EXPLAIN QUERY PLAN {}", select.sql);
    let mut statement = connection.prepare(&sql).expect("a statement");
    let rows = statement.query_map(params_from_iter(&select.values), |row| {
        row.get::<_, String>(3)
    });
    rows.expect("a plan")
        .map(|row| row.expect("a row") + "\n")
        .collect()
}
