//! What every store does. Each test runs with each implementation, and random operations must have
//! the same results in all.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::{Sort, SortField};
use proptest::prelude::*;

use super::*;
use podbeat_runs::{Event, Heartbeat, Moment, Pod, Rules};

const UNLIMITED: Limits = Limits {
    live: u64::MAX,
    creates: u64::MAX,
    since: Timestamp::UNIX_EPOCH,
};

fn at(seconds: u64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    start + Duration::from_secs(seconds)
}

fn new(id: &str, tenant: &str, seconds: u64) -> NewRun {
    NewRun {
        facts: Facts {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            created_by: "alice".to_owned(),
            created: at(seconds),
            ..Facts::default()
        },
        run: Run::new(0),
        execution: None,
        idempotency: None,
        limits: UNLIMITED,
    }
}

fn applied(run: &StoredRun, event: &Event, seconds: u64) -> Change {
    let rules = Rules {
        heartbeat_timeout: Duration::from_secs(60),
        evidence_wait: Duration::from_secs(60),
        retry_wait: Duration::from_secs(60),
        ..Rules::DEFAULT
    };
    let mut next = run.run.clone();
    let now = Moment {
        wall: at(seconds),
        elapsed: Duration::from_secs(seconds),
    };
    next.apply(event, now, &rules).expect("accepted");
    Change {
        number: run.number,
        id: run.facts.id.clone(),
        version: run.version,
        run: next,
        by: "bob".to_owned(),
        at: at(seconds),
        seen: matches!(event, Event::Heartbeat(_)).then(|| at(seconds)),
        timeline: vec![Entry {
            at: at(seconds),
            text: format!("{event:?}"),
        }],
    }
}

fn abort() -> Event {
    Event::Abort {
        by: "bob".to_owned(),
    }
}

fn heartbeat() -> Event {
    Event::Heartbeat(Box::new(Heartbeat {
        pod: Pod {
            uid: Some("u".to_owned()),
            ..Pod::default()
        },
        ..Heartbeat::default()
    }))
}

async fn created(store: &dyn Store, run: NewRun) -> StoredRun {
    match store.create(run).await.expect("a store") {
        Created::New(run) => run,
        other => panic!("{other:?}"),
    }
}

fn by(viewer: Viewer) -> Query {
    Query {
        viewer,
        filter: Filter::default(),
        sort: Vec::new(),
        place: Place::First,
        size: 3,
    }
}

fn member(tenant: &str, user: &str) -> Viewer {
    Viewer::Member {
        tenant: tenant.to_owned(),
        user: user.to_owned(),
    }
}

async fn ids(store: &dyn Store, query: Query) -> Vec<String> {
    let page = store.list(query).await.expect("a page");
    page.runs.into_iter().map(|run| run.facts.id).collect()
}

/// Defines a test for each store.
macro_rules! with_each_store {
    ($($name:ident)+) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&crate::store::Memory::default()).await;
                }
            )+
        }

        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    let dir = tempfile::tempdir().expect("a directory");
                    let store = crate::store::Sqlite::open(&dir.path().join("d")).expect("a store");
                    super::$name(&store).await;
                }
            )+
        }
    };
}

with_each_store! {
    a_run_is_stored_with_all_its_parts
    a_change_is_stored_once
    the_secrets_of_an_ended_run_are_removed
    an_idempotency_key_returns_the_same_run
    a_tenant_has_limits
    live_runs_are_found_again
    a_viewer_sees_its_own_runs_and_those_that_are_shared
    ended_runs_are_forgotten_by_age_and_number
    a_timeline_keeps_its_beginning_and_its_end
    tokens_are_found_by_their_hash_and_revoked_once
}

async fn a_run_is_stored_with_all_its_parts(store: &dyn Store) {
    let full = NewRun {
        facts: Facts {
            name: Some("n".to_owned()),
            description: Some("d\0\u{1f600}".to_owned()),
            acl: Some(vec![String::new(), "tid:b".to_owned(), "tid:b".to_owned()]),
            resource_type: Some("t".to_owned()),
            resource_size: Some("s".to_owned()),
            resource_tier: Some("r".to_owned()),
            ..new("trn.1", "a", 1).facts
        },
        execution: Some(Execution {
            public: "{}".to_owned(),
            sealed: Some(vec![0, 255]),
        }),
        ..new("trn.1", "a", 1)
    };
    let run = created(store, full.clone()).await;
    assert_eq!((&run.facts, &run.run), (&full.facts, &full.run));
    assert_eq!(
        store.run("trn.1".to_owned()).await.expect("read"),
        Some(run.clone())
    );
    assert_eq!(store.run("trn.2".to_owned()).await.expect("read"), None);
    assert_eq!(
        store.execution(run.number).await.expect("read"),
        full.execution
    );
    let empty = NewRun {
        facts: Facts {
            acl: Some(Vec::new()),
            ..new("trn.2", "a", 2).facts
        },
        ..new("trn.2", "a", 2)
    };
    let other = created(store, empty.clone()).await;
    assert!(other.number > run.number);
    let read = store
        .run("trn.2".to_owned())
        .await
        .expect("read")
        .expect("the run");
    assert_eq!(read.facts, empty.facts);
    assert_eq!(store.execution(other.number).await.expect("read"), None);
    let page = store.list(by(Viewer::All)).await.expect("a page");
    assert_eq!(page.runs[0].facts, full.facts);
    assert_eq!(
        (page.total, page.has_previous, page.has_next),
        (2, false, false)
    );
    let again = store.create(new("trn.1", "b", 3)).await;
    assert!(matches!(again, Err(Error::Exists(id)) if id == "trn.1"));
}

async fn a_change_is_stored_once(store: &dyn Store) {
    let run = created(store, new("trn.1", "a", 1)).await;
    let change = applied(&run, &heartbeat(), 2);
    store.change(change.clone()).await.expect("stored");
    let read = store
        .run("trn.1".to_owned())
        .await
        .expect("read")
        .expect("the run");
    assert!(!read.run.differs(&change.run), "{read:?}");
    assert_eq!(
        (
            read.version,
            read.modified_by.as_str(),
            read.modified,
            read.seen
        ),
        (1, "bob", at(2), Some(at(2)))
    );
    let stale = store.change(change).await;
    assert!(matches!(stale, Err(Error::Stale(id)) if id == "trn.1"));
    assert_eq!(store.timeline(run.number).await.expect("read").len(), 1);
    store
        .seen(vec![(run.number, at(40)), (99, at(40))])
        .await
        .expect("stored");
    let seen = store
        .run("trn.1".to_owned())
        .await
        .expect("read")
        .expect("the run");
    assert_eq!(
        (seen.version, seen.modified, seen.seen),
        (1, at(2), Some(at(40)))
    );
    let counts = store.counts().await.expect("read");
    let counted = |wanted| {
        counts
            .iter()
            .find(|(status, _)| *status == wanted)
            .map(|(_, runs)| *runs)
    };
    assert_eq!(
        (
            counted(Status::Pending),
            counted(Status::Running),
            counts.len()
        ),
        (Some(0), Some(1), 10)
    );
}

async fn the_secrets_of_an_ended_run_are_removed(store: &dyn Store) {
    let with_secrets = |id: &str| NewRun {
        execution: Some(Execution {
            public: "{}".to_owned(),
            sealed: Some(vec![1]),
        }),
        ..new(id, "a", 1)
    };
    let run = created(store, with_secrets("trn.1")).await;
    let other = created(store, with_secrets("trn.2")).await;
    store
        .change(applied(&run, &heartbeat(), 2))
        .await
        .expect("stored");
    let sealed = async |run: &StoredRun| {
        let execution = store.execution(run.number).await.expect("read");
        execution.expect("an execution").sealed
    };
    assert_eq!(sealed(&run).await, Some(vec![1]));
    let run = store
        .run("trn.1".to_owned())
        .await
        .expect("read")
        .expect("the run");
    store
        .change(applied(&run, &abort(), 3))
        .await
        .expect("stored");
    assert_eq!(sealed(&run).await, None);
    assert_eq!(sealed(&other).await, Some(vec![1]));
    let run = store
        .run("trn.1".to_owned())
        .await
        .expect("read")
        .expect("the run");
    assert_eq!(run.seen, Some(at(2)), "an abort is no heartbeat");
}

async fn an_idempotency_key_returns_the_same_run(store: &dyn Store) {
    let with = |id: &str, tenant: &str, seconds, request| NewRun {
        idempotency: Some(Idempotency {
            key: "k".to_owned(),
            request: [request; 32],
            until: at(seconds + 100),
        }),
        ..new(id, tenant, seconds)
    };
    let run = created(store, with("trn.1", "a", 1, 7)).await;
    let same = store
        .create(with("trn.2", "a", 2, 7))
        .await
        .expect("a store");
    assert_eq!(same, Created::Before(run));
    let other = store
        .create(with("trn.3", "a", 3, 8))
        .await
        .expect("a store");
    assert_eq!(other, Created::OtherRequest);
    created(store, with("trn.4", "b", 4, 8)).await;
    // After its time, the key is free.
    created(store, with("trn.5", "a", 101, 8)).await;
    assert_eq!(store.run("trn.2".to_owned()).await.expect("read"), None);
}

async fn a_tenant_has_limits(store: &dyn Store) {
    let limited = |id: &str, tenant: &str, seconds, since| NewRun {
        limits: Limits {
            live: 2,
            creates: 3,
            since: at(since),
        },
        ..new(id, tenant, seconds)
    };
    let first = created(store, limited("trn.1", "a", 1, 0)).await;
    created(store, limited("trn.2", "a", 2, 0)).await;
    created(store, limited("trn.3", "b", 2, 0)).await;
    let full = store
        .create(limited("trn.4", "a", 3, 0))
        .await
        .expect("a store");
    assert_eq!(full, Created::TooManyLive);
    store
        .change(applied(&first, &abort(), 4))
        .await
        .expect("stored");
    let third = created(store, limited("trn.4", "a", 4, 0)).await;
    store
        .change(applied(&third, &abort(), 5))
        .await
        .expect("stored");
    let fast = store
        .create(limited("trn.5", "a", 5, 0))
        .await
        .expect("a store");
    assert_eq!(fast, Created::TooManyCreates);
    created(store, limited("trn.5", "a", 62, 2)).await;
    // After the clock was set back, runs seem to be created later than now.
    let created_before = |id, seconds| NewRun {
        limits: Limits {
            live: u64::MAX,
            creates: 1,
            since: at(0),
        },
        ..new(id, "c", seconds)
    };
    created(store, created_before("trn.6", 3600)).await;
    created(store, created_before("trn.7", 60)).await;
    let fast = store.create(created_before("trn.8", 61)).await;
    assert_eq!(fast.expect("a store"), Created::TooManyCreates);
}

async fn live_runs_are_found_again(store: &dyn Store) {
    for (id, seconds) in [("trn.1", 1), ("trn.2", 2), ("trn.3", 3)] {
        created(store, new(id, "a", seconds)).await;
    }
    let second = store
        .run("trn.2".to_owned())
        .await
        .expect("read")
        .expect("the run");
    store
        .change(applied(&second, &abort(), 4))
        .await
        .expect("stored");
    let live = store.live().await.expect("read");
    let live: Vec<&str> = live.iter().map(|run| run.facts.id.as_str()).collect();
    assert_eq!(live, ["trn.1", "trn.3"]);
    store.check().await.expect("it answers");
}

async fn a_viewer_sees_its_own_runs_and_those_that_are_shared(store: &dyn Store) {
    let shared = |id: &str, tenant: &str, acl: &[&str]| NewRun {
        facts: Facts {
            acl: Some(acl.iter().map(|entry| (*entry).to_owned()).collect()),
            ..new(id, tenant, 1).facts
        },
        ..new(id, tenant, 1)
    };
    created(store, shared("own", "a", &["tid:a", "uid:a/alice"])).await;
    created(store, shared("with-tenant", "b", &["tid:a", "uid:a/alice"])).await;
    created(store, shared("with-user", "b", &["uid:a/alice"])).await;
    created(
        store,
        shared("with-nobody", "b", &["a", "alice", "uid:alice", "tid:"]),
    )
    .await;
    let alice = member("a", "alice");
    assert_eq!(
        ids(store, by(alice.clone())).await,
        ["own", "with-tenant", "with-user"]
    );
    assert_eq!(
        ids(store, by(member("a", "bob"))).await,
        ["own", "with-tenant"]
    );
    assert_eq!(
        ids(store, by(member("b", "alice"))).await,
        ["with-tenant", "with-user", "with-nobody"]
    );
    assert_eq!(ids(store, by(member("c", "alice"))).await, [""; 0]);
    let page = store.list(by(alice.clone())).await.expect("a page");
    assert_eq!(page.total, 3);
    for run in store.live().await.expect("read") {
        let is_listed = page.runs.iter().any(|listed| listed.number == run.number);
        assert_eq!(alice.sees(&run), is_listed, "{}", run.facts.id);
    }
}

async fn ended_runs_are_forgotten_by_age_and_number(store: &dyn Store) {
    for number in 1..=6 {
        let id = format!("trn.{number}");
        let run = created(store, new(&id, "a", number)).await;
        if number != 3 {
            store
                .change(applied(&run, &abort(), 10 + number))
                .await
                .expect("stored");
        }
    }
    let left = async || {
        ids(
            store,
            Query {
                size: 9,
                ..by(Viewer::All)
            },
        )
        .await
        .join(" ")
    };
    let forget = async |before, most, batch| {
        let gone = store.forget(at(before), most, batch).await;
        let mut gone = gone.expect("a store");
        gone.sort_unstable();
        gone.join(" ")
    };
    assert_eq!(forget(13, u64::MAX, 1).await, "trn.1");
    assert_eq!(left().await, "trn.2 trn.3 trn.4 trn.5 trn.6");
    assert_eq!(forget(13, u64::MAX, 9).await, "trn.2");
    assert_eq!(forget(13, u64::MAX, 9).await, "");
    assert_eq!(forget(0, 2, 9).await, "trn.4 trn.5");
    assert_eq!(left().await, "trn.3 trn.6");
    assert_eq!(forget(0, 0, 9).await, "trn.6");
    assert_eq!(left().await, "trn.3", "a live run is never forgotten");
    let total = store.list(by(Viewer::All)).await.expect("a page").total;
    assert_eq!(total, 1);
}

async fn a_timeline_keeps_its_beginning_and_its_end(store: &dyn Store) {
    let run = created(store, new("trn.1", "a", 1)).await;
    let (mut number, mut version) = (0, 0);
    for _ in 0..50 {
        let entries = (0..10).map(|_| {
            number += 1;
            Entry {
                at: at(number),
                text: number.to_string(),
            }
        });
        let change = Change {
            version,
            timeline: entries.collect(),
            ..applied(&run, &heartbeat(), 2)
        };
        store.change(change).await.expect("stored");
        version += 1;
    }
    let texts: Vec<String> = store
        .timeline(run.number)
        .await
        .expect("read")
        .into_iter()
        .map(|entry| entry.text)
        .collect();
    let kept = (1..=FIRST_ENTRIES).chain(500 - (ENTRIES - FIRST_ENTRIES) + 1..=500);
    assert_eq!(
        texts,
        kept.map(|number| number.to_string()).collect::<Vec<_>>()
    );
}

async fn tokens_are_found_by_their_hash_and_revoked_once(store: &dyn Store) {
    let token = |id: &str, number: u8| Token {
        id: id.to_owned(),
        hash: [number; 32],
        tenant: "a".to_owned(),
        user: "alice".to_owned(),
        role: Role::Read,
        created: at(number.into()),
        expires: Some(at(100)),
        revoked: None,
    };
    store.add_token(token("t2", 2)).await.expect("stored");
    store.add_token(token("t1", 1)).await.expect("stored");
    assert_eq!(
        store.token([2; 32]).await.expect("read"),
        Some(token("t2", 2))
    );
    assert_eq!(store.token([3; 32]).await.expect("read"), None);
    assert!(store.revoke("t2".to_owned(), at(5)).await.expect("a store"));
    assert!(store.revoke("t2".to_owned(), at(6)).await.expect("a store"));
    assert!(!store.revoke("t3".to_owned(), at(6)).await.expect("a store"));
    let revoked = Token {
        revoked: Some(at(5)),
        ..token("t2", 2)
    };
    let all = store.tokens().await.expect("read");
    assert_eq!(all, [token("t1", 1), revoked]);
}

// ---- the same results in all stores ----

fn some_run() -> impl Strategy<Value = (String, u8, Option<String>, Vec<String>, u64)> {
    let name = prop::option::of(prop::sample::select(vec!["", "a", "ab", "b", "ä", "%"]));
    let entries = prop::sample::select(vec!["tid:a", "tid:b", "uid:a/alice", "x"]);
    (
        prop::sample::select(vec!["a", "b"]),
        0..3_u8,
        name,
        prop::collection::vec(entries, 0..3),
        0..4_u64,
    )
        .prop_map(|(tenant, state, name, acl, second)| {
            let acl = acl.into_iter().map(str::to_owned).collect();
            (
                tenant.to_owned(),
                state,
                name.map(str::to_owned),
                acl,
                second,
            )
        })
}

fn query() -> impl Strategy<Value = Query> {
    let field = prop::sample::select(SortField::ALL.to_vec());
    let sort = prop::collection::vec((field, any::<bool>()), 0..3).prop_map(|sort| {
        let mut once: Vec<Sort> = Vec::new();
        for (field, descending) in sort {
            if once.iter().all(|other| other.field != field) {
                once.push(Sort { field, descending });
            }
        }
        once
    });
    let viewer = prop_oneof![
        Just(Viewer::All),
        Just(member("a", "alice")),
        Just(member("a", "bob")),
        Just(member("c", "alice")),
    ];
    let texts = |all: &[&'static str]| {
        let one = prop::sample::select(all.to_vec()).prop_map(str::to_owned);
        prop::collection::btree_set(one, 1..3).prop_map(Vec::from_iter)
    };
    let none = Vec::new;
    let statuses = prop::sample::select(vec![Status::Pending, Status::Running, Status::Aborted]);
    let statuses = prop::collection::btree_set(statuses, 0..3).prop_map(Vec::from_iter);
    let filter = (
        prop_oneof![3 => Just(none()), 1 => texts(&["", "a", "ä"])],
        statuses,
        prop_oneof![3 => Just(none()), 1 => texts(&["tid:a", "x"])],
        prop::option::weighted(0.2, prop::sample::select(vec!["", "a", "trn.", "%"])),
        prop::bool::weighted(0.05),
    );
    let filter = filter.prop_map(|(names, statuses, acls, search, none)| Filter {
        names,
        statuses,
        acls,
        search: search.map(str::to_owned),
        none,
    });
    (viewer, filter, sort, 1..4_usize).prop_map(|(viewer, filter, sort, size)| Query {
        viewer,
        filter,
        sort,
        place: Place::First,
        size,
    })
}

/// The IDs on all pages, from the first on or from the last on, with the flags of each page.
async fn walk(store: &dyn Store, query: &Query, backward: bool) -> Vec<(String, bool, bool, u64)> {
    let mut place = if backward { Place::Last } else { Place::First };
    let mut pages = Vec::new();
    loop {
        let query = Query {
            place,
            ..query.clone()
        };
        let page = store.list(query.clone()).await.expect("a page");
        let ids: Vec<&str> = page.runs.iter().map(|run| run.facts.id.as_str()).collect();
        pages.push((ids.join(" "), page.has_previous, page.has_next, page.total));
        assert!(pages.len() < 100, "the pages never end");
        let (goes_on, next) = match backward {
            false => (
                page.has_next,
                page.runs.last().map(|run| Place::After(query.cursor(run))),
            ),
            true => (
                page.has_previous,
                page.runs
                    .first()
                    .map(|run| Place::Before(query.cursor(run))),
            ),
        };
        match next {
            Some(next) if goes_on => place = next,
            _ => return pages,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Lists of random runs have the same pages in both stores, from either end, and each run of
    /// the list is on exactly one page.
    #[test]
    fn all_stores_list_the_same_pages(
        runs in prop::collection::vec(some_run(), 0..12),
        queries in prop::collection::vec(query(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a directory");
            let (memory, sqlite) = (Memory::default(), Sqlite::open(&dir.path().join("d")).expect("a store"));
            let stores: [&dyn Store; 2] = [&memory, &sqlite];
            for store in stores {
                for (number, (tenant, state, name, acl, second)) in runs.iter().enumerate() {
                    let id = format!("trn.{number}");
                    let run = NewRun {
                        facts: Facts {
                            name: name.clone(),
                            acl: Some(acl.clone()),
                            ..new(&id, tenant, *second).facts
                        },
                        ..new(&id, tenant, *second)
                    };
                    let run = created(store, run).await;
                    let event = match state {
                        0 => continue,
                        1 => heartbeat(),
                        _ => abort(),
                    };
                    store.change(applied(&run, &event, *second + 1)).await.expect("stored");
                }
            }
            for query in &queries {
                for backward in [false, true] {
                    let expected = walk(&memory, query, backward).await;
                    prop_assert_eq!(walk(&sqlite, query, backward).await, expected, "{:?}", query);
                }
                let forward = walk(&memory, query, false).await;
                let backward = walk(&memory, query, true).await;
                let ids = |pages: &[(String, bool, bool, u64)]| -> Vec<String> {
                    let mut ids: Vec<String> = pages
                        .iter()
                        .flat_map(|(ids, ..)| ids.split(' ').filter(|id| !id.is_empty()).map(str::to_owned))
                        .collect();
                    ids.sort_unstable();
                    ids
                };
                prop_assert_eq!(ids(&forward), ids(&backward));
                let mut once = ids(&forward);
                once.dedup();
                prop_assert_eq!(once.len() as u64, forward[0].3, "each run is on one page");
            }
            Ok(())
        })?;
    }
}
