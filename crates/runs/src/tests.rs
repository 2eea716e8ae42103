//! Single decisions, and properties of every order of events.

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerState, ContainerStateRunning, ContainerStateTerminated};
use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    heartbeat_timeout: Duration::from_secs(600),
    evidence_wait: Duration::from_secs(60),
    retry_wait: Duration::from_secs(900),
    disruptions: 2,
    final_exit_codes: ExitCodes::NONE.with(99),
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
            disrupted: false,
        },
    }
}

fn disrupted(number: u32) -> Event {
    Event::PodEnded {
        number,
        end: PodEnd {
            reason: Some("Evicted".to_owned()),
            disrupted: true,
            ..PodEnd::default()
        },
    }
}

fn launched(number: u32) -> Event {
    Event::Launched {
        number,
        nonce: format!("nonce {number}"),
    }
}

/// With the nonce of the attempt.
fn issued(number: u32, heartbeat: Heartbeat) -> Heartbeat {
    Heartbeat {
        nonce: Some(format!("nonce {number}")),
        token_of: Some(number),
        ..heartbeat
    }
}

/// Applies the events, one for each second.
fn applied(mut run: Run, events: &[Event]) -> (Run, Vec<Result<(), Refusal>>) {
    let answers = events
        .iter()
        .zip(1..)
        .map(|(event, second)| run.apply(event, at(second), &RULES))
        .collect();
    (run, answers)
}

fn life(retry_limit: u32, events: &[Event]) -> (Run, Vec<Result<(), Refusal>>) {
    applied(Run::new(retry_limit), events)
}

/// The life of a run that the service launches.
fn launched_life(retry_limit: u32, events: &[Event]) -> (Run, Vec<Result<(), Refusal>>) {
    applied(Run::to_launch(retry_limit), events)
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
        let (run, answers) = life(0, &[beat(of_pod("a")), beat(last("a", code))]);
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
    let (run, answers) = launched_life(
        3,
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
            Err(Refusal::NotLaunched),
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
    let mine = |heartbeat| beat(issued(0, heartbeat));
    let waits = |events: &[Event]| {
        let (mut run, answers) = launched_life(0, events);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(run.status(), Status::Finalizing);
        let deadline = run.deadline(&RULES).expect("a deadline");
        let second = deadline.as_secs();
        run.apply(&Event::Tick, at(second - 1), &RULES)
            .expect("accepted");
        assert_eq!(run.status(), Status::Finalizing);
        run.apply(&Event::Tick, at(second), &RULES)
            .expect("accepted");
        run
    };
    let run = waits(&[launched(0), pod_ended("a", 0)]);
    assert_eq!(shown(&run), (Status::Completed, None));
    let run = waits(&[launched(0), mine(of_pod("a")), pod_ended("a", 4)]);
    assert_eq!(
        shown(&run),
        (Status::Failed, Some("main ended with exit code 4"))
    );
    // With both, nothing waits.
    for events in [
        [mine(of_pod("a")), mine(last("a", None)), pod_ended("a", 0)],
        [mine(of_pod("a")), pod_ended("a", 0), mine(last("a", None))],
    ] {
        let events = [vec![launched(0)], events.to_vec()].concat();
        let (run, _) = launched_life(0, &events);
        assert_eq!(run.status(), Status::Completed);
    }
}

#[test]
fn a_launched_run_fails_only_after_the_api_server_was_asked() {
    let mine = |heartbeat| beat(issued(0, heartbeat));
    let lives = Event::PodLives {
        number: 0,
        containers: last("a", Some(7)).containers,
    };
    // A failure without Kubernetes' evidence.
    for (code, expected) in [
        (Some(3), "main ended with exit code 3"),
        (None, "the last heartbeat has no exit code"),
    ] {
        let (mut run, _) =
            launched_life(0, &[launched(0), mine(of_pod("a")), mine(last("a", code))]);
        assert_eq!(run.status(), Status::Finalizing);
        assert_eq!(run.deadline(&RULES), None, "time alone ends nothing");
        let asks_at = run.asks_at(&RULES).expect("a question");
        run.apply(&lives, at(4), &RULES).expect("accepted");
        assert_eq!(run.status(), Status::Finalizing, "it may end yet");
        run.apply(&Event::Tick, at(asks_at.as_secs()), &RULES)
            .expect("accepted");
        assert_eq!(run.status(), Status::Finalizing);
        run.apply(&lives, at(asks_at.as_secs()), &RULES)
            .expect("accepted");
        assert_eq!(shown(&run), (Status::Failed, Some(expected)));
    }
    // Heartbeats that stop.
    let (mut run, _) = launched_life(9, &[launched(0), Event::PodRuns { number: 0 }]);
    assert_eq!(
        (run.status(), run.deadline(&RULES)),
        (Status::Running, None)
    );
    let asks_at = run.asks_at(&RULES).expect("a question").as_secs();
    run.apply(&lives, at(asks_at - 1), &RULES).expect("early");
    assert_eq!(run.status(), Status::Running);
    run.apply(&lives, at(asks_at), &RULES).expect("accepted");
    assert_eq!(
        shown(&run),
        (Status::TimedOut, Some("no heartbeat for 10m"))
    );
    let exits = evidence::exits(&run.attempts()[0].containers);
    assert_eq!(exits[0].code, 7, "exits that Kubernetes shows are kept");
    // A success in the last heartbeat needs no other evidence.
    let (run, _) = launched_life(0, &[launched(0), mine(last("a", Some(0)))]);
    assert_eq!(run.status(), Status::Completed);
}

#[test]
fn disruptions_have_a_limit_of_their_own_and_some_exit_codes_are_final() {
    let mut events = Vec::new();
    for number in 0..3 {
        let end = last(&number.to_string(), Some(143));
        events.extend([
            launched(number),
            beat(issued(number, end)),
            disrupted(number),
        ]);
    }
    let (run, answers) = launched_life(1, &events[..6]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(
        (run.status(), run.failures()),
        (Status::FailedRestartable, 0)
    );
    assert_eq!(
        run.details(),
        Some("Evicted: main ended with exit code 143")
    );
    assert_eq!(run.ended_attempts(), 2);
    let (run, _) = launched_life(1, &events);
    assert_eq!(run.status(), Status::Failed, "the third is too many");
    // A failure counts.
    let failed = |number: u32, code| {
        let end = beat(issued(number, last(&number.to_string(), Some(code))));
        let ended = match pod_ended(&number.to_string(), code) {
            Event::PodEnded { end, .. } => Event::PodEnded { number, end },
            other => other,
        };
        vec![launched(number), end, ended]
    };
    let (run, _) = launched_life(1, &failed(0, 3));
    assert_eq!(
        (run.status(), run.failures()),
        (Status::FailedRestartable, 1)
    );
    let (run, _) = launched_life(1, &[failed(0, 3), failed(1, 3)].concat());
    assert_eq!(run.status(), Status::Failed);
    let (run, _) = launched_life(1, &failed(0, 99));
    assert_eq!(run.status(), Status::Failed);
    let codes = (-1..300).filter(|code| RULES.final_exit_codes.contains(*code));
    assert_eq!(codes.collect::<Vec<_>>(), [99]);
}

#[test]
fn a_suspended_job_continues_its_attempt_with_another_pod() {
    let mine = |heartbeat| beat(issued(0, heartbeat));
    let suspended = Event::Suspended {
        number: 0,
        reason: "suspended".to_owned(),
    };
    let created = Event::Created {
        number: 0,
        job: "job".to_owned(),
    };
    let (run, answers) = launched_life(
        0,
        &[
            launched(0),
            created,
            suspended.clone(),
            mine(of_pod("a")),
            mine(last("a", Some(143))),
            suspended,
            mine(of_pod("b")),
            mine(last("a", Some(143))),
            mine(last("b", Some(0))),
        ],
    );
    let mut expected = vec![Ok(()); 9];
    expected[7] = Err(Refusal::ReplacedPod);
    assert_eq!(answers, expected);
    assert_eq!(run.status(), Status::Completed);
    let [attempt] = run.attempts() else {
        panic!("{run:?}");
    };
    assert_eq!(attempt.job.as_deref(), Some("job"));
}

#[test]
fn waiting_takes_no_time_from_a_run_that_is_launched() {
    let (mut run, _) = launched_life(0, &[launched(0)]);
    let mut check = |event: Event, expected: (Status, Option<&str>)| {
        run.apply(&event, at(9), &RULES).expect("accepted");
        assert_eq!(shown(&run), expected);
        assert_eq!((run.deadline(&RULES), run.asks_at(&RULES)), (None, None));
    };
    let waiting = |reason: &str| Event::Waiting {
        number: 0,
        reason: reason.to_owned(),
    };
    check(
        waiting("forbidden"),
        (Status::CheckedOut, Some("forbidden")),
    );
    let created = Event::Created {
        number: 0,
        job: "job".to_owned(),
    };
    check(created, (Status::CheckedOut, Some("forbidden")));
    check(waiting("no node"), (Status::Runnable, Some("no node")));
}

#[test]
fn a_running_pod_whose_task_cannot_start_says_why_until_it_starts() {
    let mine = || beat(issued(0, of_pod("a")));
    let waiting = Event::Waiting {
        number: 0,
        reason: "ImagePullBackOff".to_owned(),
    };
    let (mut run, _) = launched_life(0, &[launched(0), mine(), waiting]);
    let said = (Status::Running, Some("ImagePullBackOff"));
    assert_eq!(shown(&run), said);
    let before = run.clone();
    run.apply(&mine(), at(9), &RULES).expect("accepted");
    assert!(!run.differs(&before), "{run:?}");
    run.apply(&Event::PodRuns { number: 0 }, at(10), &RULES)
        .expect("accepted");
    assert_eq!(shown(&run), (Status::Running, None));
}

#[test]
fn a_stored_run_waits_again_from_the_start() {
    let (run, _) = life(0, &[beat(of_pod("a"))]);
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
    let (run, _) = life(0, &[beat(of_pod("a"))]);
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
    let (run, _) = life(0, &many);
    assert!(serde_json::to_string(&run).expect("JSON").len() < 2_000);
    let many: Vec<Event> = (0..200)
        .map(|count| beat(told(count, of_pod(&count.to_string()))))
        .collect();
    let (run, _) = life(u32::MAX, &many);
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
        1 => (0..3_u32).prop_map(move |number| Event::Suspended { number, reason: reason() }),
        1 => (0..3_u32).prop_map(move |number| Event::Created { number, job: "job".to_owned() }),
        1 => (0..3_u32).prop_map(move |number| Event::PodRuns { number }),
        1 => (0..3_u32).prop_map(disrupted),
        1 => (0..3_u32, 0..2_i32).prop_map(|(number, code)| {
            Event::PodLives { number, containers: last("a", Some(code)).containers }
        }),
        1 => Just(Event::Abort { by: "alice".to_owned() }),
        2 => Just(Event::Tick),
    ]
}

/// Events with the seconds between them.
fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let pause = prop_oneof![6 => 0..60_u64, 1 => 0..2_000_u64];
    prop::collection::vec((event(), pause), 0..40)
}

fn new_run() -> impl Strategy<Value = Run> {
    (0..3_u32, any::<bool>()).prop_map(|(limit, is_launched)| match is_launched {
        true => Run::to_launch(limit),
        false => Run::new(limit),
    })
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
        (_, Runnable) => matches!(before, CheckedOut | Running | Finalizing),
        (_, Finalizing) => true,
        (_, TimedOut) => before == Running,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A final status never changes, a refused event changes nothing, and the table is right.
    #[test]
    fn a_final_status_never_changes(events in events(), mut run in new_run()) {
        let mut second = 0;
        for (event, pause) in events {
            second += pause;
            let before = run.clone();
            let answer = run.apply(&event, at(second), &RULES);
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
    fn without_further_events_a_run_ends(events in events(), mut run in new_run()) {
        let mut second = 0;
        for (event, pause) in events {
            second += pause;
            let _ = run.apply(&event, at(second), &RULES);
        }
        let current = run.attempts().last();
        let was_heard = current.is_some_and(|attempt| attempt.started.is_some());
        let number = current.map_or(0, |attempt| attempt.number);
        for _ in 0..3 {
            if let Some(deadline) = run.deadline(&RULES) {
                let now = at(deadline.as_secs().max(second));
                run.apply(&Event::Tick, now, &RULES).expect("a tick is never refused");
            }
            if let Some(asks_at) = run.asks_at(&RULES) {
                let now = at(asks_at.as_secs().max(second));
                let lives = Event::PodLives { number, containers: Vec::new() };
                run.apply(&lives, now, &RULES).expect("it is about the current attempt");
            }
        }
        // A run that is launched waits for its next attempt, and for a suspended Job.
        let waits = run.is_launched()
            && matches!(run.status(), Status::FailedRestartable | Status::CheckedOut | Status::Runnable);
        prop_assert!(run.status().is_final() || !was_heard || waits, "{:?}", run);
        if was_heard {
            prop_assert_eq!((run.deadline(&RULES), run.asks_at(&RULES)), (None, None));
        }
    }

    /// Every order, with repetitions, of what one pod and Kubernetes say about an attempt leads to
    /// the same status.
    #[test]
    fn the_order_of_the_evidence_does_not_matter(
        code in prop::option::weighted(0.7, 0..3_i32),
        of_kubernetes in 0..3_i32,
        order in Just((0..9_usize).chain(0..9).collect::<Vec<_>>()).prop_shuffle(),
        limit in 0..2_u32,
    ) {
        let all = [
            beat(issued(0, of_pod("a"))),
            beat(issued(0, of_pod("a"))),
            beat(issued(0, last("a", code))),
            beat(issued(0, last("a", code))),
            pod_ended("a", of_kubernetes),
            Event::Tick,
            Event::PodLives { number: 0, containers: Vec::new() },
            Event::PodRuns { number: 0 },
            Event::Waiting { number: 0, reason: "a reason".to_owned() },
        ];
        let mut run = Run::to_launch(limit);
        // Kubernetes' evidence is about an attempt that the run knows.
        run.apply(&launched(0), at(0), &RULES).expect("accepted");
        for event in order {
            let answer = run.apply(&all[event], at(1), &RULES);
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
        let (run, answers) = life(0, &events);
        let expected = match (abort_first, code) {
            (true, _) => Status::Aborted,
            (false, 0) => Status::Completed,
            (false, _) => Status::Failed,
        };
        prop_assert_eq!(run.status(), expected);
        prop_assert_eq!(answers, vec![Ok(()), Ok(()), Err(Refusal::Over(expected))]);
    }
}
