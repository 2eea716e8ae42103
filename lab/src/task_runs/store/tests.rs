use proptest::prelude::*;

use super::*;
use crate::task_runs::list::{Filter, Place};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn at(seconds: u64) -> Timestamp {
    later(start(), Duration::from_secs(seconds))
}

fn rules() -> Rules {
    Rules {
        adopts: false,
        heartbeat_timeout: Some(Duration::from_secs(60)),
        checks_nonces: false,
        most_runs: 100,
        most_bytes: 1 << 20,
    }
}

fn store_with(rules: Rules) -> Store {
    Store::new(rules, Vec::new(), start())
}

fn store() -> Store {
    let mut store = store_with(rules());
    store
        .create("a", Wanted::default(), 0, start())
        .expect("a run");
    store
}

fn beat(nonce: &str) -> Beat {
    Beat {
        nonce: Some(nonce.to_owned()),
        ..Beat::default()
    }
}

fn last(nonce: &str, codes: &[i64]) -> Beat {
    Beat {
        last: true,
        exits: codes
            .iter()
            .map(|code| (format!("c{code}"), *code))
            .collect(),
        ..beat(nonce)
    }
}

fn of_attempt(retry_count: i32, beat: Beat) -> Beat {
    Beat {
        retry_count: Some(retry_count),
        ..beat
    }
}

fn seen_by_onlookers(store: &Store) -> Vec<(Run, Option<Timestamp>)> {
    let all = store.newest(None);
    all.map(|(run, beat)| (run.clone(), beat)).collect()
}

fn status(store: &mut Store, seconds: u64) -> Status {
    store.get("a", at(seconds)).expect("the run").status
}

#[test]
fn onlookers_see_when_the_last_heartbeat_was_accepted_and_none_that_was_not() {
    let mut store = store();
    let seen = |store: &Store| store.find("a").expect("the run").1;
    assert_eq!(seen(&store), None);
    store.heartbeat("a", &beat("1"), at(2)).expect("accepted");
    assert_eq!(seen(&store), Some(at(2)));
    store.heartbeat("a", &beat("2"), at(7)).expect("accepted");
    assert_eq!(seen(&store), Some(at(7)));
    let version = store.version();
    store.expire(at(67));
    assert_eq!(store.version(), version, "nothing has happened");
    store.expire(at(68));
    assert!(store.version() > version);
    store.heartbeat("a", &beat("3"), at(69)).expect_err("over");
    assert_eq!(seen(&store), Some(at(7)), "a time-out is no heartbeat");
    store
        .create("b", Wanted::default(), 0, at(70))
        .expect("a run");
    let order: Vec<&str> = store.newest(None).map(|(run, _)| run.id.as_str()).collect();
    assert_eq!(order, ["b", "a"]);
    assert!(store.find("c").is_none());
}

#[test]
fn a_run_is_pending_until_its_first_heartbeat_and_ends_with_its_last() {
    for (codes, ended, details) in [
        (&[0, 0][..], Status::Completed, None),
        (&[0, 3], Status::Failed, Some("c3 ended with exit code 3")),
        (
            &[],
            Status::Failed,
            Some("the last heartbeat has no exit code"),
        ),
    ] {
        let mut store = store();
        assert_eq!(status(&mut store, 1), Status::Pending);
        store.heartbeat("a", &beat("1"), at(2)).expect("accepted");
        assert_eq!(status(&mut store, 2), Status::Running);
        store
            .heartbeat("a", &last("2", codes), at(3))
            .expect("accepted");
        let run = store.get("a", at(4)).expect("the run");
        assert_eq!((run.status, run.details.as_deref()), (ended, details));
        assert_eq!((run.created, run.modified), (start(), at(3)));
        assert_eq!(run.attempts.len(), 1);
        assert_eq!(
            (run.attempts[0].began, run.attempts[0].ended),
            (at(2), Some(at(3)))
        );
    }
}

#[test]
fn a_first_heartbeat_may_be_the_last() {
    let mut store = store();
    store
        .heartbeat("a", &last("1", &[0]), at(1))
        .expect("accepted");
    assert_eq!(status(&mut store, 1), Status::Completed);
}

#[test]
fn after_the_last_heartbeat_only_its_repetition_is_accepted() {
    let mut store = store();
    store
        .heartbeat("a", &last("2", &[0]), at(1))
        .expect("accepted");
    store
        .heartbeat("a", &last("2", &[0]), at(9))
        .expect("it once more");
    assert_eq!(store.get("a", at(9)).expect("the run").modified, at(1));
    let over = Err(Refusal::Over(Status::Completed));
    for late in [
        beat("1"),
        beat("2"),
        last("3", &[0]),
        of_attempt(1, beat("4")),
    ] {
        assert_eq!(store.heartbeat("a", &late, at(10)), over, "{late:?}");
    }
}

#[test]
fn an_earlier_attempt_is_refused_after_a_later_one() {
    let mut store = store();
    store
        .heartbeat("a", &of_attempt(1, beat("1")), at(1))
        .expect("accepted");
    store
        .heartbeat("a", &of_attempt(2, beat("2")), at(2))
        .expect("accepted");
    let fenced = Err(Refusal::Fenced { told: 1, seen: 2 });
    assert_eq!(
        store.heartbeat("a", &of_attempt(1, beat("3")), at(3)),
        fenced
    );
    assert_eq!(
        store.heartbeat("a", &of_attempt(1, last("3", &[1])), at(3)),
        fenced
    );
    store
        .heartbeat("a", &beat("4"), at(4))
        .expect("a heartbeat without a count is not refused");
    let run = store.get("a", at(4)).expect("the run");
    assert_eq!((run.status, run.attempts.len()), (Status::Running, 2));
}

#[test]
fn a_later_attempt_restarts_only_a_failed_run() {
    for (codes, goes_on) in [(&[1][..], true), (&[], true), (&[0], false)] {
        let mut store = store();
        store
            .heartbeat("a", &of_attempt(0, last("1", codes)), at(1))
            .expect("accepted");
        let later = store.heartbeat("a", &of_attempt(1, beat("2")), at(2));
        assert_eq!(later.is_ok(), goes_on, "{codes:?}");
        if goes_on {
            assert_eq!(status(&mut store, 2), Status::Running);
            assert!(
                store
                    .heartbeat("a", &of_attempt(0, last("1", codes)), at(3))
                    .is_err()
            );
        }
    }
    let mut store = store();
    store.abort("a", at(1)).expect("aborted");
    assert!(
        store
            .heartbeat("a", &of_attempt(1, beat("2")), at(2))
            .is_err()
    );
}

#[test]
fn only_a_pending_or_running_run_is_aborted() {
    let mut store = store();
    assert_eq!(store.abort("b", at(1)), Err(Refusal::Unknown));
    assert_eq!(
        store.abort("a", at(1)).expect("aborted").status,
        Status::Aborted
    );
    assert_eq!(
        store.abort("a", at(2)),
        Err(Refusal::NotAbortable(Status::Aborted))
    );
    assert_eq!(
        store.heartbeat("a", &beat("1"), at(3)),
        Err(Refusal::Over(Status::Aborted))
    );
    let mut store = self::store();
    store.heartbeat("a", &beat("1"), at(1)).expect("accepted");
    assert_eq!(
        store.abort("a", at(2)).expect("aborted").status,
        Status::Aborted
    );
}

#[test]
fn a_run_times_out_when_its_heartbeats_stop_and_at_that_moment() {
    let mut store = store();
    assert_eq!(
        status(&mut store, 1000),
        Status::Pending,
        "it has no heartbeats that could stop"
    );
    store
        .heartbeat("a", &beat("1"), at(1000))
        .expect("accepted");
    store
        .heartbeat("a", &beat("2"), at(1060))
        .expect("accepted");
    assert_eq!(status(&mut store, 1120), Status::Running);
    assert_eq!(status(&mut store, 1500), Status::TimedOut);
    let run = store.get("a", at(1500)).expect("the run");
    assert_eq!(run.modified, at(1120));
    assert_eq!(run.details.as_deref(), Some("no heartbeat for 1m"));
    assert_eq!(
        store.heartbeat("a", &beat("3"), at(1501)),
        Err(Refusal::Over(Status::TimedOut))
    );
    store
        .heartbeat("a", &of_attempt(1, beat("4")), at(1502))
        .expect("a later attempt");
    assert_eq!(status(&mut store, 1503), Status::Running);
}

#[test]
fn an_attempts_nonce_is_the_issued_one_or_the_first() {
    let mut store = store_with(Rules {
        checks_nonces: true,
        ..rules()
    });
    store
        .create("a", Wanted::default(), 0, start())
        .expect("a run");
    store.issue_nonce("a", 1, "issued", at(1)).expect("issued");
    assert_eq!(
        store.heartbeat("a", &Beat::default(), at(2)),
        Err(Refusal::WrongNonce)
    );
    store
        .heartbeat("a", &beat("first"), at(2))
        .expect("accepted");
    assert_eq!(
        store.heartbeat("a", &beat("other"), at(3)),
        Err(Refusal::WrongNonce)
    );
    assert_eq!(
        store.heartbeat("a", &of_attempt(1, beat("first")), at(4)),
        Err(Refusal::WrongNonce)
    );
    store
        .heartbeat("a", &of_attempt(1, beat("issued")), at(5))
        .expect("accepted");
    store
        .heartbeat("a", &of_attempt(1, last("issued", &[0])), at(6))
        .expect("accepted");
    assert_eq!(
        store.heartbeat("a", &of_attempt(1, beat("issued")), at(7)),
        Err(Refusal::Over(Status::Completed))
    );
}

#[test]
fn a_heartbeat_of_an_unknown_run_is_refused_or_makes_the_run() {
    assert_eq!(
        store().heartbeat("b", &beat("1"), at(1)),
        Err(Refusal::Unknown)
    );
    let mut store = store_with(Rules {
        adopts: true,
        ..rules()
    });
    store.heartbeat("b", &beat("1"), at(1)).expect("accepted");
    assert_eq!(
        store.get("b", at(1)).expect("a run").status,
        Status::Running
    );
}

#[test]
fn the_run_that_ended_first_is_removed_and_active_runs_are_kept() {
    let mut store = store_with(Rules {
        most_runs: 3,
        ..rules()
    });
    for id in ["a", "b", "c"] {
        store
            .create(id, Wanted::default(), 0, start())
            .expect("a run");
    }
    assert_eq!(
        store.create("d", Wanted::default(), 0, at(1)),
        Err(Refusal::Full)
    );
    store.abort("c", at(2)).expect("aborted");
    store.abort("a", at(3)).expect("aborted");
    store.take_changes();
    store
        .create("d", Wanted::default(), 0, at(4))
        .expect("a run");
    assert!(!store.knows("c") && store.knows("a"), "c ended first");
    let written: Vec<bool> = store
        .take_changes()
        .iter()
        .map(|change| matches!(change, Change::Put(_)))
        .collect();
    assert_eq!(written, [false, true], "one went, one came");
    store.changed_still(&[Change::Gone(2)]);
    assert_eq!(
        store.take_changes(),
        [Change::Gone(2)],
        "unwritten changes are returned again"
    );
    let large = 1 << 20;
    assert_eq!(
        store.create("e", Wanted::default(), large, at(5)),
        Err(Refusal::Full)
    );
}

#[test]
fn a_store_continues_with_saved_runs_and_restarts_their_timeouts() {
    let mut store = store();
    store
        .heartbeat("a", &of_attempt(2, beat("1")), at(1))
        .expect("accepted");
    let runs: Vec<Run> = store
        .take_changes()
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(run) => Some(*run),
            Change::Gone(_) => None,
        })
        .collect();
    let mut other = Store::new(rules(), runs, at(5000));
    assert_eq!(other.get("a", at(5060)), store.get("a", at(2)));
    assert_eq!(status(&mut other, 5061), Status::TimedOut);
    assert_eq!(
        other
            .create("b", Wanted::default(), 0, at(5062))
            .expect("a run")
            .number,
        1
    );
    let none = Rules {
        most_runs: 1,
        ..rules()
    };
    let runs: Vec<Run> = ["a", "b"]
        .iter()
        .map(|id| other.get(id, at(5062)).expect("a run"))
        .collect();
    let narrower = Store::new(none, runs, at(5062));
    assert_eq!((narrower.knows("a"), narrower.knows("b")), (false, true));
}

/// One event of one of a few runs.
#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Beat(usize, Option<i32>, u8),
    Last(usize, Option<i32>, u8, Vec<i64>),
    Abort(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = 0..6_usize;
    let count = proptest::option::of(-1..4_i32);
    let nonce = 0..4_u8;
    let step = prop_oneof![
        2 => run.clone().prop_map(Step::Create),
        6 => (run.clone(), count.clone(), nonce.clone()).prop_map(|(run, count, nonce)| Step::Beat(run, count, nonce)),
        2 => (run.clone(), count, nonce, proptest::collection::vec(0..3_i64, 0..3))
            .prop_map(|(run, count, nonce, codes)| Step::Last(run, count, nonce, codes)),
        1 => run.prop_map(Step::Abort),
        2 => (1..50_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

/// The allowed status changes, written independently of the code under test.
fn may_follow(before: Status, after: Status, by_later_attempt: bool) -> bool {
    use Status::{Aborted, Completed, Failed, Pending, Running, TimedOut};
    before == after
        || match (before, after) {
            (Pending, Running | Completed | Failed | Aborted) => true,
            (Running, Completed | Failed | Aborted | TimedOut) => true,
            (Failed | TimedOut, Running | Completed | Failed) => by_later_attempt,
            _ => false,
        }
}

proptest! {
    #[test]
    fn statuses_only_move_as_allowed_and_bounds_hold(steps in steps(), most_runs in 1..6_usize, adopts: bool, checks_nonces: bool) {
        let most_bytes = 4 * OWN_WEIGHT + 100;
        let mut store = store_with(Rules { adopts, checks_nonces, most_runs, most_bytes, ..rules() });
        let mut written: BTreeMap<u64, Run> = BTreeMap::new();
        let mut seconds = 0;
        for step in steps {
            let before: BTreeMap<String, Run> =
                store.runs.values().map(|kept| (kept.run.id.clone(), kept.run.clone())).collect();
            let id = |run: &usize| format!("run-{run}");
            let (seen, version) = (seen_by_onlookers(&store), store.version());
            let mut told = None;
            match &step {
                Step::Create(run) => {
                    let id = id(run);
                    if !store.knows(&id) {
                        let _ = store.create(&id, Wanted::default(), 10, at(seconds));
                    }
                }
                Step::Beat(run, count, nonce) => {
                    told = *count;
                    let _ = store.heartbeat(&id(run), &Beat { retry_count: *count, ..beat(&nonce.to_string()) }, at(seconds));
                }
                Step::Last(run, count, nonce, codes) => {
                    told = *count;
                    let _ = store.heartbeat(&id(run), &Beat { retry_count: *count, ..last(&nonce.to_string(), codes) }, at(seconds));
                }
                Step::Abort(run) => {
                    let is_open = before.get(&id(run)).map(|run| run.status);
                    let aborted = store.abort(&id(run), at(seconds));
                    // The run may time out in the same step.
                    if is_open == Some(Status::Pending) {
                        prop_assert!(aborted.is_ok());
                    }
                    if is_open.is_some_and(Status::is_over) {
                        prop_assert!(aborted.is_err());
                    }
                }
                Step::Wait(more) => seconds += more,
            }
            prop_assert!(store.runs.len() <= most_runs);
            let bytes: usize = store.runs.values().map(|kept| kept.run.weight).sum();
            prop_assert!(bytes <= most_bytes);
            prop_assert_eq!(store.bytes, bytes);
            for (id, was) in &before {
                match store.numbers.get(id).and_then(|number| store.runs.get(number)) {
                    Some(kept) if kept.run.number == was.number => {
                        let is_later = told.is_some_and(|told| told > was.retry_count.unwrap_or(0));
                        prop_assert!(may_follow(was.status, kept.run.status, is_later), "{:?} {:?} {:?}", step, was, kept);
                        prop_assert!(kept.run.retry_count >= was.retry_count);
                        prop_assert!(kept.run.attempts.len() <= 16);
                        // A later list must show the change.
                        prop_assert!(kept.run.status == was.status || kept.run.modified >= was.modified);
                    }
                    // Only an ended run is replaced, even if it times out in this step.
                    _ => prop_assert!(was.status.is_over() || was.status == Status::Running, "{:?} {:?}", step, was),
                }
            }
            for change in store.take_changes() {
                match change {
                    Change::Put(run) => { written.insert(run.number, *run); }
                    Change::Gone(number) => { written.remove(&number); }
                }
            }
            let kept: BTreeMap<u64, Run> = store.runs.iter().map(|(number, kept)| (*number, kept.run.clone())).collect();
            prop_assert_eq!(&written, &kept, "the written runs are the known runs");
            prop_assert_eq!(store.numbers.len(), store.runs.len());
            let running = store.runs.values().filter(|kept| kept.run.status == Status::Running).count();
            let over = store.runs.values().filter(|kept| kept.run.status.is_over()).count();
            prop_assert_eq!((store.running.len(), store.over.len()), (running, over));
            for status in Status::ALL {
                let all = store.runs.values().rev().filter(|kept| kept.run.status == status);
                let numbers: Vec<u64> = all.map(|kept| kept.run.number).collect();
                let newest: Vec<u64> = store.newest(Some(status)).map(|(run, _)| run.number).collect();
                prop_assert_eq!((store.count(status), &newest), (numbers.len(), &numbers));
            }
            prop_assert!(seen_by_onlookers(&store) == seen || store.version() > version, "{:?}", step);
        }
    }

    #[test]
    fn pages_show_each_run_once_also_while_runs_come(
        names in proptest::collection::vec(0..5_u8, 0..60),
        newcomers in proptest::collection::vec(0..5_u8, 0..40),
        sort in prop_oneof![
            Just(None),
            Just(Some("name")),
            Just(Some("name desc,timeCreated")),
            Just(Some("status:desc,name")),
            Just(Some("timeModified desc")),
        ],
        size in 1..25_u16,
        only in proptest::option::of(0..5_u8),
    ) {
        let mut store = store_with(rules());
        let create = |store: &mut Store, id: String, name: u8, seconds: u64| {
            let wanted = Wanted { name: (name > 0).then(|| name.to_string()), ..Wanted::default() };
            store.create(&id, wanted, 0, at(seconds)).expect("a run");
        };
        for (nth, name) in names.iter().enumerate() {
            create(&mut store, format!("old-{nth}"), *name, u64::from(name % 3));
            if nth % 3 == 0 {
                store.abort(&format!("old-{nth}"), at(5)).expect("aborted");
            }
        }
        let filter = Filter { names: only.iter().map(u8::to_string).collect(), ..Filter::default() };
        let passes = |name: u8| only.is_none_or(|only| only == name && name > 0);
        let mut expected: Vec<String> =
            names.iter().enumerate().filter(|(_, name)| passes(**name)).map(|(nth, _)| format!("old-{nth}")).collect();
        expected.sort();
        let sort = sort.map(|sort| sort.parse().expect(sort));
        let first = Query { sort, filter, size, place: Place::First };
        let mut newcomers = newcomers.into_iter().enumerate();

        // Walk forward to the end, by tokens as a client does, while runs are created.
        let mut seen = Vec::new();
        let mut query = first.clone();
        let end = loop {
            let page = store.list(&query, at(10));
            prop_assert!(page.runs.len() <= size.into());
            seen.extend(page.runs.iter().map(|run| run.id.clone()));
            if let Some((nth, name)) = newcomers.next() {
                create(&mut store, format!("new-{nth}"), name, 6);
            }
            match page.next {
                Some(next) => query = Query::of_token(&query.token(next)).expect("a token of ours"),
                None => break page,
            }
            prop_assert!(seen.len() <= 100, "the pages end");
        };
        let count = seen.len();
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen.len(), count, "none is shown twice");
        let old: Vec<String> = seen.into_iter().filter(|id| id.starts_with("old")).collect();
        prop_assert_eq!(&old, &expected);

        // Walk back to the beginning, while more runs are created.
        let mut seen: Vec<String> = end.runs.iter().map(|run| run.id.clone()).collect();
        let mut page = end;
        while let Some(previous) = page.previous {
            query = Query::of_token(&query.token(previous)).expect("a token of ours");
            page = store.list(&query, at(10));
            seen.extend(page.runs.iter().map(|run| run.id.clone()));
            if let Some((nth, name)) = newcomers.next() {
                create(&mut store, format!("new-{nth}"), name, 6);
            }
            prop_assert!(seen.len() <= 100, "the pages end");
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen.len(), count, "none is shown twice");
        let old: Vec<String> = seen.into_iter().filter(|id| id.starts_with("old")).collect();
        prop_assert_eq!(&old, &expected);

        // The last page by its token equals the last page of a walk, and all runs are in order.
        let whole = store.list(&Query { size: 1000, ..first.clone() }, at(10));
        let ids = |page: &Page| page.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>();
        let mut query = first;
        let mut walked = Vec::new();
        let end = loop {
            let page = store.list(&query, at(10));
            walked.extend(ids(&page));
            prop_assert!(walked.len() <= 100, "the pages end");
            match page.next.clone() {
                Some(next) => query.place = next,
                None => break page,
            }
        };
        prop_assert_eq!(&walked, &ids(&whole));
        query.place = Place::Last;
        prop_assert_eq!(ids(&store.list(&query, at(10))), ids(&end));
        prop_assert_eq!(whole.total, walked.len());
    }
}
