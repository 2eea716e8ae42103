//! Single decisions, and properties of every order of events.

use podbeat_task_runs::model::{ContainerState, ContainerStateRunning, ContainerStateTerminated};
use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    heartbeat_timeout: Duration::from_secs(600),
    evidence_wait: Duration::from_secs(60),
    retry_wait: Duration::from_secs(900),
    watches_pods: false,
};

const WATCHING: Rules = Rules {
    watches_pods: true,
    ..RULES
};

fn at(seconds: u64) -> Moment {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let elapsed = Duration::from_secs(seconds);
    Moment {
        wall: start + elapsed,
        elapsed,
    }
}

fn main_with(state: ContainerState) -> Vec<ContainerStatus> {
    vec![ContainerStatus {
        name: Some("main".to_owned()),
        state: Some(state),
    }]
}

fn of_pod(uid: &str) -> Heartbeat {
    Heartbeat {
        nonce: Some(format!("{uid} periodic")),
        pod: Pod {
            name: Some("p".to_owned()),
            uid: Some(uid.to_owned()),
            hardware: None,
        },
        containers: main_with(ContainerStateRunning::default().into()),
        ..Heartbeat::default()
    }
}

fn last(uid: &str, code: Option<i32>) -> Heartbeat {
    let end = ContainerStateTerminated {
        exit_code: code,
        ..ContainerStateTerminated::default()
    };
    Heartbeat {
        last: true,
        nonce: Some(format!("{uid} last {code:?}")),
        containers: main_with(end.into()),
        ..of_pod(uid)
    }
}

fn told(count: u32, heartbeat: Heartbeat) -> Heartbeat {
    Heartbeat {
        retry_count: Some(count),
        ..heartbeat
    }
}

fn beat(heartbeat: Heartbeat) -> Event {
    Event::Heartbeat(Box::new(heartbeat))
}

fn pod_ended(uid: &str, code: i32) -> Event {
    Event::PodEnded {
        number: 0,
        end: PodEnd {
            uid: Some(uid.to_owned()),
            exits: vec![Exit {
                container: "main".to_owned(),
                code,
                reason: None,
            }],
            reason: None,
        },
    }
}

fn launched(number: u32) -> Event {
    Event::Launched {
        number,
        nonce: format!("nonce {number}"),
    }
}

/// Applies the events, one for each second.
fn life(retry_limit: u32, rules: &Rules, events: &[Event]) -> (Run, Vec<Result<(), Refusal>>) {
    let mut run = Run::new(retry_limit);
    let answers = events
        .iter()
        .zip(1..)
        .map(|(event, second)| run.apply(event, at(second), rules))
        .collect();
    (run, answers)
}

fn shown(run: &Run) -> (Status, Option<&str>) {
    (run.status(), run.details())
}

#[test]
fn exit_codes_of_the_last_heartbeat_decide() {
    for (code, expected) in [
        (Some(0), (Status::Completed, None)),
        (
            Some(3),
            (Status::Failed, Some("main ended with exit code 3")),
        ),
        (
            None,
            (Status::Failed, Some("the last heartbeat has no exit code")),
        ),
    ] {
        let (run, answers) = life(0, &RULES, &[beat(of_pod("a")), beat(last("a", code))]);
        assert_eq!(answers, [Ok(()), Ok(())]);
        assert_eq!(shown(&run), expected, "{code:?}");
        let [attempt] = run.attempts() else {
            panic!("{run:?}");
        };
        assert_eq!(attempt.started, Some(at(1).wall));
        assert_eq!(attempt.ended, Some(at(2).wall));
        assert_eq!(attempt.error.as_deref(), expected.1);
    }
}

#[test]
fn the_details_name_five_containers_and_the_reasons() {
    let exits: Vec<Exit> = (0..7)
        .map(|number| Exit {
            container: format!("c{number}"),
            code: 137,
            reason: (number == 0).then(|| "OOMKilled".to_owned()),
        })
        .collect();
    let details = evidence::verdict(&exits)
        .expect("exits")
        .expect_err("failed");
    assert_eq!(
        details,
        "c0 ended with exit code 137 (OOMKilled); c1 ended with exit code 137; c2 ended with exit code 137; \
         c3 ended with exit code 137; c4 ended with exit code 137; and 2 more"
    );
}

#[test]
fn a_failed_attempt_can_be_followed_by_others_up_to_the_limit() {
    let (run, answers) = life(
        1,
        &RULES,
        &[
            beat(told(0, of_pod("a"))),
            beat(told(0, last("a", Some(1)))),
            // Its response was lost.
            beat(told(0, last("a", Some(1)))),
            beat(told(1, of_pod("b"))),
            beat(told(0, of_pod("a"))),
            beat(told(0, last("a", Some(1)))),
            beat(told(1, last("b", Some(2)))),
            beat(told(2, of_pod("c"))),
        ],
    );
    assert_eq!(
        answers,
        [
            Ok(()),
            Ok(()),
            Ok(()),
            Ok(()),
            Err(Refusal::ReplacedPod),
            Ok(()),
            Ok(()),
            Err(Refusal::Over(Status::Failed)),
        ]
    );
    assert_eq!(
        shown(&run),
        (Status::Failed, Some("main ended with exit code 2"))
    );
    let numbers: Vec<u32> = run
        .attempts()
        .iter()
        .map(|attempt| attempt.number)
        .collect();
    assert_eq!(numbers, [0, 1]);
}

#[test]
fn the_retry_count_may_come_after_the_first_heartbeat_and_need_not_grow() {
    let (run, answers) = life(
        9,
        &RULES,
        &[
            beat(of_pod("a")),
            beat(told(2, of_pod("a"))),
            beat(told(2, last("a", Some(1)))),
            // A replacement that the Job does not count.
            beat(of_pod("b")),
            beat(told(2, of_pod("b"))),
            beat(told(2, of_pod("a"))),
            beat(told(2, last("b", Some(0)))),
        ],
    );
    let mut expected = vec![Ok(()); 7];
    expected[5] = Err(Refusal::ReplacedPod);
    assert_eq!(answers, expected);
    assert_eq!(run.status(), Status::Completed);
    let numbers: Vec<u32> = run
        .attempts()
        .iter()
        .map(|attempt| attempt.number)
        .collect();
    assert_eq!(numbers, [2, 2]);
}

#[test]
fn another_pod_continues_the_attempt_and_the_replaced_one_is_fenced() {
    let (run, answers) = life(
        0,
        &RULES,
        &[
            beat(of_pod("a")),
            beat(of_pod("b")),
            beat(last("a", Some(1))),
            beat(last("b", Some(0))),
        ],
    );
    assert_eq!(answers, [Ok(()), Ok(()), Err(Refusal::ReplacedPod), Ok(())]);
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(run.attempts().len(), 1);
}

#[test]
fn an_issued_nonce_and_token_are_required() {
    let with = |nonce: &str, token_of| {
        beat(Heartbeat {
            nonce: Some(nonce.to_owned()),
            token_of,
            ..of_pod("a")
        })
    };
    let (run, answers) = life(
        3,
        &WATCHING,
        &[
            with("nonce 0", Some(0)),
            launched(0),
            launched(0),
            with("nonce 0", Some(0)),
            with("guessed", None),
            with("nonce 0", Some(1)),
            launched(1),
            with("nonce 0", Some(0)),
            with("nonce 1", Some(1)),
            launched(0),
        ],
    );
    assert_eq!(
        answers,
        [
            Err(Refusal::EarlierToken),
            Ok(()),
            Ok(()),
            Ok(()),
            Err(Refusal::WrongNonce),
            Err(Refusal::EarlierToken),
            Ok(()),
            Err(Refusal::EarlierToken),
            // The first attempt had this pod.
            Err(Refusal::ReplacedPod),
            Err(Refusal::EarlierAttempt {
                number: 0,
                current: 1
            }),
        ]
    );
    assert_eq!(run.status(), Status::CheckedOut);
}

#[test]
fn evidence_of_kubernetes_replaces_a_missing_exit_code_and_a_missing_last_heartbeat() {
    let waits = |events: &[Event]| {
        let (mut run, answers) = life(0, &WATCHING, events);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(run.status(), Status::Finalizing);
        let deadline = run.deadline(&WATCHING).expect("a deadline");
        let second = deadline.as_secs();
        run.apply(&Event::Tick, at(second - 1), &WATCHING)
            .expect("accepted");
        assert_eq!(run.status(), Status::Finalizing);
        run.apply(&Event::Tick, at(second), &WATCHING)
            .expect("accepted");
        run
    };
    let run = waits(&[launched(0), pod_ended("a", 0)]);
    assert_eq!(shown(&run), (Status::Completed, None));
    let run = waits(&[beat(of_pod("a")), pod_ended("a", 4)]);
    assert_eq!(
        shown(&run),
        (Status::Failed, Some("main ended with exit code 4"))
    );
    let run = waits(&[beat(of_pod("a")), beat(last("a", None))]);
    assert_eq!(
        shown(&run),
        (Status::Failed, Some("the last heartbeat has no exit code"))
    );
    // With both, nothing waits.
    for events in [
        [beat(of_pod("a")), beat(last("a", None)), pod_ended("a", 0)],
        [beat(of_pod("a")), pod_ended("a", 0), beat(last("a", None))],
    ] {
        let (run, _) = life(0, &WATCHING, &events);
        assert_eq!(run.status(), Status::Completed);
    }
}

#[test]
fn a_stored_run_waits_again_from_the_start() {
    let (run, _) = life(0, &RULES, &[beat(of_pod("a"))]);
    let text = serde_json::to_string(&run).expect("JSON");
    let mut stored: Run = serde_json::from_str(&text).expect("a run");
    assert!(!stored.differs(&run));
    // Days later by the clock, but the process has just started.
    let now = Moment {
        wall: at(1_000_000).wall,
        ..at(599)
    };
    stored.apply(&Event::Tick, now, &RULES).expect("accepted");
    assert_eq!(stored.status(), Status::Running);
    stored
        .apply(&Event::Tick, at(600), &RULES)
        .expect("accepted");
    assert_eq!(
        shown(&stored),
        (Status::TimedOut, Some("no heartbeat for 10m"))
    );
}

#[test]
fn a_periodic_heartbeat_changes_nothing_that_is_stored() {
    let (run, _) = life(0, &RULES, &[beat(of_pod("a"))]);
    let mut next = run.clone();
    next.apply(&beat(of_pod("a")), at(30), &RULES)
        .expect("accepted");
    assert!(!next.differs(&run));
    assert!(next.deadline(&RULES) > run.deadline(&RULES));
    next.apply(&beat(last("a", Some(0))), at(31), &RULES)
        .expect("accepted");
    assert!(next.differs(&run));
}

#[test]
fn attempts_and_replaced_pods_are_bounded() {
    let many: Vec<Event> = (0..200).map(|uid| beat(of_pod(&uid.to_string()))).collect();
    let (run, _) = life(0, &RULES, &many);
    assert!(serde_json::to_string(&run).expect("JSON").len() < 2_000);
    let many: Vec<Event> = (0..200)
        .map(|count| beat(told(count, of_pod(&count.to_string()))))
        .collect();
    let (run, _) = life(u32::MAX, &RULES, &many);
    assert_eq!(run.attempts().len(), REMEMBERED_ATTEMPTS);
}

// ---- properties ----

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let uid = prop::sample::select(vec!["a", "b", "c"]);
    let code = prop::option::weighted(0.8, 0..3_i32);
    (
        uid,
        any::<bool>(),
        code,
        prop::option::of(0..4_u32),
        prop::option::weighted(0.2, 0..3_u32),
        prop::option::weighted(0.3, 0..3_u32),
    )
        .prop_map(|(uid, is_last, code, count, token_of, nonce)| {
            let heartbeat = if is_last {
                last(uid, code)
            } else {
                of_pod(uid)
            };
            let nonce = nonce.map(|number| format!("nonce {number}"));
            Heartbeat {
                retry_count: count,
                token_of,
                nonce: nonce.or(heartbeat.nonce.clone()),
                ..heartbeat
            }
        })
}

fn event() -> impl Strategy<Value = Event> {
    let reason = || "a reason".to_owned();
    prop_oneof![
        8 => heartbeat().prop_map(beat),
        2 => (0..3_u32).prop_map(launched),
        1 => (0..3_u32).prop_map(move |number| Event::Waiting { number, reason: reason() }),
        2 => (0..3_u32, "[abc]", 0..2_i32).prop_map(|(number, uid, code)| match pod_ended(&uid, code) {
            Event::PodEnded { end, .. } => Event::PodEnded { number, end },
            other => other,
        }),
        1 => (0..3_u32).prop_map(move |number| Event::CannotStart { number, reason: reason() }),
        1 => Just(Event::Abort { by: "alice".to_owned() }),
        2 => Just(Event::Tick),
    ]
}

/// Events with the seconds between them.
fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let pause = prop_oneof![6 => 0..60_u64, 1 => 0..2_000_u64];
    prop::collection::vec((event(), pause), 0..40)
}

fn rules() -> impl Strategy<Value = Rules> {
    prop::sample::select(vec![RULES, WATCHING])
}

/// What the module's table allows.
fn may_follow(before: Status, after: Status) -> bool {
    use Status::{
        Aborted, CheckedOut, Completed, Failed, FailedRestartable, Finalizing, Pending, Runnable,
        Running, TimedOut,
    };
    if before == after {
        return true;
    }
    match (before, after) {
        (Completed | Failed | Aborted | TimedOut, _) | (_, Pending) => false,
        (_, Aborted | CheckedOut | Running | Completed | Failed | FailedRestartable) => true,
        (_, Runnable) => matches!(before, CheckedOut),
        (_, Finalizing) => true,
        (_, TimedOut) => before == Running,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A final status never changes, a refused event changes nothing, and the table is right.
    #[test]
    fn a_final_status_never_changes(events in events(), rules in rules(), limit in 0..3_u32) {
        let mut run = Run::new(limit);
        let mut second = 0;
        for (event, pause) in events {
            second += pause;
            let before = run.clone();
            let answer = run.apply(&event, at(second), &rules);
            if answer.is_err() {
                prop_assert_eq!(&run, &before, "a refused event changed the run");
            }
            if before.status().is_final() {
                prop_assert!(!run.differs(&before), "{:?} -> {:?}", before, run);
            }
            prop_assert!(may_follow(before.status(), run.status()), "{:?} -> {:?}", before, run);
            let open = run.attempts().iter().filter(|attempt| attempt.ended.is_none()).count();
            let last_is_open = run.attempts().last().is_some_and(|attempt| attempt.ended.is_none());
            prop_assert!(open == usize::from(last_is_open), "only the current attempt is open");
            prop_assert!(!(run.status().is_final() && open > 0));
        }
    }

    /// Whatever happened, a run that was heard ends by itself within the longest wait of each kind.
    #[test]
    fn without_further_events_a_run_ends(events in events(), rules in rules(), limit in 0..3_u32) {
        let mut run = Run::new(limit);
        let mut second = 0;
        for (event, pause) in events {
            second += pause;
            let _ = run.apply(&event, at(second), &rules);
        }
        let was_heard = run.attempts().last().is_some_and(|attempt| attempt.started.is_some());
        for _ in 0..3 {
            if let Some(deadline) = run.deadline(&rules) {
                let now = at(deadline.as_secs().max(second));
                run.apply(&Event::Tick, now, &rules).expect("a tick is never refused");
            }
        }
        prop_assert!(run.status().is_final() || !was_heard, "{:?}", run);
        if was_heard {
            prop_assert_eq!(run.deadline(&rules), None);
        }
    }

    /// Every order, with repetitions, of what one pod and Kubernetes say about an attempt leads to
    /// the same status.
    #[test]
    fn the_order_of_the_evidence_does_not_matter(
        code in prop::option::weighted(0.7, 0..3_i32),
        of_kubernetes in 0..3_i32,
        order in Just((0..6_usize).chain(0..6).collect::<Vec<_>>()).prop_shuffle(),
        limit in 0..2_u32,
    ) {
        let all = [
            beat(of_pod("a")),
            beat(of_pod("a")),
            beat(last("a", code)),
            beat(last("a", code)),
            pod_ended("a", of_kubernetes),
            Event::Tick,
        ];
        let mut run = Run::new(limit);
        // Kubernetes' evidence is about an attempt that the run knows.
        run.apply(&beat(of_pod("a")), at(0), &WATCHING).expect("accepted");
        for event in order {
            let answer = run.apply(&all[event], at(1), &WATCHING);
            if event == 2 {
                prop_assert_eq!(answer, Ok(()), "the last heartbeat is accepted, and again");
            }
        }
        let expected = match code.unwrap_or(of_kubernetes) {
            0 => Status::Completed,
            _ if limit > 0 => Status::FailedRestartable,
            _ => Status::Failed,
        };
        prop_assert_eq!(run.status(), expected);
    }

    /// Abort and the last heartbeat: the one that comes first wins, and the other is refused.
    #[test]
    fn an_abort_and_an_end_exclude_each_other(code in 0..2_i32, abort_first in any::<bool>()) {
        let abort = Event::Abort { by: "alice".to_owned() };
        let mut events = vec![beat(last("a", Some(code))), abort];
        if abort_first {
            events.reverse();
        }
        events.insert(0, beat(of_pod("a")));
        let (run, answers) = life(0, &RULES, &events);
        let expected = match (abort_first, code) {
            (true, _) => Status::Aborted,
            (false, 0) => Status::Completed,
            (false, _) => Status::Failed,
        };
        prop_assert_eq!(run.status(), expected);
        prop_assert_eq!(answers, vec![Ok(()), Ok(()), Err(Refusal::Over(expected))]);
    }
}
