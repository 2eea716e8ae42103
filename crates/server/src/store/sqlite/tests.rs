//! What only a file shows: other schemas, other programs, damage, crashes, a full disk.

use super::*;
use crate::store::{Facts, Limits};
use podbeat_runs::Run;

fn new(id: &str) -> NewRun {
    NewRun {
        facts: Facts {
            id: id.to_owned(),
            tenant: "a".to_owned(),
            created_by: "alice".to_owned(),
            ..Facts::default()
        },
        run: Run::new(0),
        execution: None,
        idempotency: None,
        limits: Limits {
            live: u64::MAX,
            creates: u64::MAX,
            since: Timestamp::UNIX_EPOCH,
        },
    }
}

fn problem(path: &Path) -> String {
    Sqlite::open(path).expect_err("not usable").to_string()
}

#[tokio::test]
async fn a_file_is_opened_again_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    let store = Sqlite::open(&path).expect("a store");
    store.create(new("trn.1")).await.expect("stored");
    drop(store);
    let store = Sqlite::open(&path).expect("a store");
    assert!(store.run("trn.1".to_owned()).await.expect("read").is_some());
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn files_of_others_and_of_newer_versions_are_refused_and_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |name: &str, path: &Path, expected: &str| {
        let before = std::fs::read(path).expect("a file");
        let text = problem(path);
        assert!(text.contains(expected), "{name}: {text}");
        assert_eq!(std::fs::read(path).expect("a file"), before, "{name}");
    };
    let text = dir.path().join("text");
    std::fs::write(&text, "hello, world: not a database at all".repeat(40)).expect("written");
    refused("a text", &text, "is not a data file");

    let foreign = dir.path().join("foreign");
    let connection = Connection::open(&foreign).expect("a database");
    connection
        .execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1")
        .expect("a table");
    drop(connection);
    refused("another program's", &foreign, "is not a data file");

    let newer = dir.path().join("newer");
    drop(Sqlite::open(&newer).expect("a store"));
    let connection = Connection::open(&newer).expect("a database");
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA user_version = 99")
        .expect("changed");
    drop(connection);
    refused("a newer version's", &newer, "has schema 99");
}

#[test]
fn unusable_places_are_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = problem(&dir.path().join("missing/d"));
    assert!(
        missing.contains("check that its directory exists"),
        "{missing}"
    );
    assert!(problem(dir.path()).contains("check that"), "a directory");
}

#[tokio::test]
async fn a_damaged_file_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    let store = Sqlite::open(&path).expect("a store");
    for number in 0..200 {
        store
            .create(new(&format!("trn.{number}")))
            .await
            .expect("stored");
    }
    drop(store);
    let mut bytes = std::fs::read(&path).expect("a file");
    // The header stays, and everything behind the first page is noise.
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, &bytes).expect("written");
    let read = match Sqlite::open(&path) {
        Err(error) => Err(error),
        Ok(store) => store.run("trn.1".to_owned()).await,
    };
    read.expect_err("unreadable");
}

/// A change that waits for another process is made after that one, and one that waits too long fails
/// and leaves nothing behind.
#[tokio::test]
async fn changes_wait_for_another_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    let store = Sqlite::open(&path).expect("a store");
    let other = Connection::open(&path).expect("the same file");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let created = store.create(new("trn.1"));
    let reading = store.run("trn.1".to_owned());
    assert_eq!(reading.await.expect("readers do not wait"), None);
    other.execute_batch("COMMIT").expect("released");
    created.await.expect("stored");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let failed = store.create(new("trn.2")).await;
    let failed = failed.expect_err("locked").to_string();
    assert!(failed.contains("another process has locked it"), "{failed}");
    other.execute_batch("COMMIT").expect("released");
    assert_eq!(store.run("trn.2".to_owned()).await.expect("read"), None);
    store.create(new("trn.2")).await.expect("stored");
}

#[tokio::test]
async fn one_failed_change_does_not_undo_those_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(&dir.path().join("d")).expect("a store");
    let all = ["trn.1", "trn.2", "trn.1", "trn.3"].map(|id| store.create(new(id)));
    let results = futures_util::future::join_all(all).await;
    let stored: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, true, false, true]);
    for id in ["trn.1", "trn.2", "trn.3"] {
        assert!(
            store.run(id.to_owned()).await.expect("read").is_some(),
            "{id}"
        );
    }
}

/// SQLite reports a full file as it reports a full disk.
#[tokio::test]
async fn a_full_disk_is_an_error_and_runs_stay_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(&dir.path().join("d")).expect("a store");
    store.create(new("trn.1")).await.expect("stored");
    let limited = store.writer.write(|connection| {
        let pages: i64 = connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .map_err(failed("reading"))?;
        connection
            .pragma_update(None, "max_page_count", pages + 2)
            .map_err(failed("limiting"))
    });
    limited.await.expect("limited");
    let mut stored = 1;
    let error = loop {
        let id = format!("trn.{}", stored + 1);
        let run = NewRun {
            facts: Facts {
                description: Some("x".repeat(4096)),
                ..new(&id).facts
            },
            ..new(&id)
        };
        match store.create(run).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "it is never full");
    };
    let text = error.to_string();
    assert!(text.contains("the disk is full; free some space"), "{text}");
    let counts = store.counts().await.expect("read");
    let total: u64 = counts.iter().map(|(_, runs)| runs).sum();
    assert_eq!(total, stored);
}

#[tokio::test]
async fn lists_read_in_the_order_of_an_index() {
    use podbeat_task_runs::model::{Sort, SortField};

    use crate::store::{Cursor, Filter, Key, Place, Query, Viewer};
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(&dir.path().join("d")).expect("a store");
    let member = || Viewer::Member {
        tenant: "a".to_owned(),
        user: "alice".to_owned(),
    };
    for viewer in [Viewer::All, member()] {
        for field in [
            None,
            Some(SortField::Name),
            Some(SortField::TimeCreated),
            Some(SortField::TimeModified),
        ] {
            for descending in [false, true] {
                let key = match field {
                    Some(SortField::Name | SortField::Status) => Key::Text(String::new()),
                    _ => Key::Time(Timestamp::UNIX_EPOCH),
                };
                let query = Query {
                    viewer: viewer.clone(),
                    filter: Filter::default(),
                    sort: field
                        .map(|field| Sort { field, descending })
                        .into_iter()
                        .collect(),
                    place: Place::After(Cursor {
                        keys: field.map(|_| key).into_iter().collect(),
                        number: 1,
                    }),
                    size: 10,
                };
                let plan = store.read("explaining", {
                    let query = query.clone();
                    move |connection| Ok(list::plan(connection, &query))
                });
                let plan = plan.await.expect("a plan");
                // No part reads more than a page, so the merge sorts little.
                assert!(!plan.contains("SCAN runs\n"), "{query:?}: {plan}");
                let columns = match field {
                    None => "number>?",
                    Some(_) => "=? AND number",
                };
                let finds = |index: &str| plan.contains(index);
                let is_found = finds(columns) || finds("=? AND rowid") || finds("(rowid>?)");
                assert!(is_found, "{query:?}: {plan}");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_store_in_use_has_everything_and_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let (path, copy) = (dir.path().join("d"), dir.path().join("copy"));
    let store = Sqlite::open(&path).expect("a store");
    store.create(new("trn.1")).await.expect("stored");
    Sqlite::backup(&path, &copy).expect("copied");
    store.create(new("trn.2")).await.expect("stored");
    let mode = std::fs::metadata(&copy)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let copied = Sqlite::open(&copy).expect("a store");
    assert!(
        copied
            .run("trn.1".to_owned())
            .await
            .expect("read")
            .is_some()
    );
    assert!(
        copied
            .run("trn.2".to_owned())
            .await
            .expect("read")
            .is_none()
    );
    let again = Sqlite::backup(&path, &copy).expect_err("it exists");
    assert!(again.to_string().contains("choose a new file"), "{again}");
    let missing = dir.path().join("missing");
    assert!(Sqlite::backup(&missing, &dir.path().join("c")).is_err());
    assert!(!missing.exists() && !dir.path().join("c").exists());
    std::fs::write(&missing, "no database ".repeat(100)).expect("written");
    assert!(Sqlite::backup(&missing, &dir.path().join("c")).is_err());
    assert!(!dir.path().join("c").exists(), "nothing is left of a copy");
}

#[tokio::test]
async fn an_inspection_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    for error in [
        Sqlite::inspect(&path).expect_err("there is no file"),
        Sqlite::open_existing(&path).expect_err("there is no file"),
    ] {
        assert!(error.to_string().contains("it does not exist"), "{error}");
    }
    assert!(!path.exists());
    std::fs::write(&path, "").expect("written");
    assert_eq!(Sqlite::inspect(&path).expect("usable"), None);
    assert_eq!(std::fs::read(&path).expect("a file"), b"");
    let store = Sqlite::open(&path).expect("a store");
    store.create(new("trn.1")).await.expect("stored");
    let found = Sqlite::inspect(&path).expect("usable").expect("a store");
    assert_eq!((found.runs, found.tokens, found.damage), (1, 0, None));
    assert!(found.newest_change.is_some());
    drop(store);
    std::fs::write(&path, "no database ".repeat(100)).expect("written");
    assert!(Sqlite::inspect(&path).is_err());
}

/// The runs of a rare status are sorted. Those of a common one are found in the order of the list.
#[tokio::test]
async fn a_sorted_list_of_a_status_reads_few_others() {
    use podbeat_task_runs::model::{Sort, SortField};

    use crate::store::{Filter, Place, Query, Viewer};
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(&dir.path().join("d")).expect("a store");
    let counted = store.writer.write(|connection| {
        connection
            .execute_batch(
                "INSERT INTO counts VALUES ('a', 'Completed', 999000), ('a', 'Failed', 4400)",
            )
            .map_err(failed("counting"))
    });
    counted.await.expect("counted");
    let member = Viewer::Member {
        tenant: "a".to_owned(),
        user: "alice".to_owned(),
    };
    for (viewer, status, index) in [
        (Viewer::All, Status::Failed, "runs_status (status=?)"),
        (Viewer::All, Status::Completed, "runs_name"),
        (
            member.clone(),
            Status::Failed,
            "runs_tenant_status (tenant=? AND status=?)",
        ),
        (member, Status::Completed, "runs_tenant_name (tenant=?)"),
    ] {
        let query = Query {
            viewer,
            filter: Filter {
                statuses: vec![status],
                ..Filter::default()
            },
            sort: vec![Sort {
                field: SortField::Name,
                descending: false,
            }],
            place: Place::First,
            size: 10,
        };
        let plan = store.read("explaining", {
            let query = query.clone();
            move |connection| Ok(list::plan(connection, &query))
        });
        let plan = plan.await.expect("a plan");
        assert!(
            plan.contains(&format!("INDEX {index}\n")),
            "{query:?}: {plan}"
        );
    }
}

#[tokio::test]
async fn a_search_with_few_results_reads_no_others() {
    use crate::store::{Filter, Place, Query, Viewer};
    use podbeat_runs::Status;
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(&dir.path().join("d")).expect("a store");
    let member = Viewer::Member {
        tenant: "a".to_owned(),
        user: "alice".to_owned(),
    };
    for viewer in [Viewer::All, member] {
        for statuses in [Vec::new(), vec![Status::Completed]] {
            let query = Query {
                viewer: viewer.clone(),
                filter: Filter {
                    search: Some("align".to_owned()),
                    statuses,
                    ..Filter::default()
                },
                sort: Vec::new(),
                place: Place::First,
                size: 10,
            };
            let plan = store.read("explaining", {
                let query = query.clone();
                move |connection| Ok(list::plan(connection, &query))
            });
            let plan = plan.await.expect("a plan");
            let finds =
                plan.contains("(sort_name>? AND sort_name<?)") && plan.contains("(id>? AND id<?)");
            assert!(finds && !plan.contains("SCAN runs"), "{query:?}: {plan}");
        }
    }
}

/// In a container, the root file system is read-only, and there is no other place for temporary
/// files: an insert of a few kilobytes failed.
#[test]
fn temporary_data_is_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("d");
    drop(Sqlite::open(&path).expect("a store"));
    let connection = connect(&path).expect("a connection");
    let place: i64 = connection
        .pragma_query_value(None, "temp_store", |row| row.get(0))
        .expect("a value");
    // https://sqlite.org/pragma.html#pragma_temp_store
    assert_eq!(place, 2);
}
