//! The machine, driven event by event through pod lives: no clock, no socket, no sleep.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::HeartbeatTaskRunRequest;
use proptest::prelude::*;
use serde_json::Value;

use super::{
    Action, Attempt, Cause, DropCause, End, Event, Look, Machine, Note, Settings, Snapshot,
};
use crate::Now;
use crate::answer::Answer;
use crate::marker::{Found, Marker, whole_seconds};
use crate::observation::{
    Container, Deletion, Exit, JobPod, Observation, Restart, RestartPolicy, Role, Rule, Sidecar,
    State, Why,
};
use crate::outbox::Kind;
use crate::report::{Identity, Report};
use crate::saved::{LastHeartbeat, Saved};

const WALL: &str = "2026-11-24T12:00:00Z";

/// A machine, its clock, and its actions so far.
struct Bench {
    machine: Machine,
    now: Duration,
    wake: Option<Duration>,
    sent: Vec<Attempt>,
    in_flight: Option<u64>,
    notes: Vec<Note>,
    looks: Vec<Duration>,
    /// How many reads of the markers it requested.
    reads: usize,
    /// How many counts of a Job's failed pods it requested.
    counts: usize,
    aborts: usize,
    hurries: u32,
    stopped_watching: bool,
    saved: Option<Saved>,
    end: Option<End>,
    /// The wall clock at the start of this process, in seconds after `WALL`.
    wall_offset: f64,
}

fn settings() -> Settings {
    Settings {
        identity: Identity {
            pod_name: "p".to_owned(),
            pod_uid: Some("u1".to_owned()),
            job_retry_count: None,
            ..Identity::default()
        },
        nonce: None,
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        report: Report::Task,
        max_status_age: Duration::from_secs(300),
        journaled: false,
        markers: false,
    }
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn wall(after: f64) -> Timestamp {
    let start: Timestamp = WALL.parse().expect("a time");
    start
        .checked_add(jiff::SignedDuration::from_secs_f64(after))
        .expect("in range")
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self::seeded(settings, 1)
    }

    fn seeded(settings: Settings, seed: u64) -> Self {
        let mut bench = Self::unstarted(Machine::new(settings, seed));
        bench.on(Event::Started);
        bench
    }

    fn unstarted(machine: Machine) -> Self {
        Self {
            machine,
            now: Duration::ZERO,
            wake: None,
            sent: vec![],
            in_flight: None,
            notes: vec![],
            looks: vec![],
            reads: 0,
            counts: 0,
            aborts: 0,
            hurries: 0,
            stopped_watching: false,
            saved: None,
            end: None,
            wall_offset: 0.0,
        }
    }

    /// A started machine whose first heartbeat was accepted.
    fn started(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.accept();
        bench
    }

    /// Like `started`, but any change is sent without delay.
    fn ready(settings: Settings) -> Self {
        let mut bench = Self::started(settings);
        bench.pass(1.0);
        bench
    }

    fn on(&mut self, event: Event) {
        let now = Now {
            elapsed: self.now,
            wall: wall(self.wall_offset + self.now.as_secs_f64()),
        };
        let actions = self.machine.on(event, now);
        for (at, action) in actions.iter().enumerate() {
            match action {
                Action::Send(attempt) => {
                    assert_eq!(self.in_flight, None, "one request in flight at any time");
                    assert_eq!(self.end, None, "nothing after the end");
                    self.in_flight = Some(attempt.number);
                    self.sent.push(attempt.clone());
                }
                Action::Abort => {
                    assert!(self.in_flight.take().is_some(), "an abort needs an attempt");
                    self.aborts += 1;
                }
                Action::LookAtPod(limit) => self.looks.push(*limit),
                Action::CountRetries(_) => self.counts += 1,
                Action::ReadMarkers => self.reads += 1,
                Action::WakeAt(wake) => {
                    assert_eq!(at, actions.len() - 1, "the wake comes last");
                    self.wake = *wake;
                }
                Action::Persist(saved) => {
                    assert_eq!(at, 0, "what is sent is persisted first");
                    self.saved = Some((**saved).clone());
                }
                Action::HurryWatch => self.hurries += 1,
                Action::StopWatching => self.stopped_watching = true,
                Action::Note(note) => self.notes.push(note.clone()),
                Action::End(end) => self.end = Some(end.clone()),
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        let attempt = self.in_flight.take().expect("an attempt in flight");
        self.on(Event::Answered { attempt, answer });
    }

    fn accept(&mut self) {
        self.answer(Answer::Accepted);
    }

    fn accept_all(&mut self) {
        while self.in_flight.is_some() {
            self.accept();
        }
    }

    /// Lets time pass, and wakes the machine whenever it asked for that.
    fn pass(&mut self, seconds: f64) {
        let until = self.now + secs(seconds);
        for _ in 0..100_000 {
            match self.wake {
                Some(wake) if wake <= until && self.end.is_none() => {
                    self.now = self.now.max(wake);
                    self.on(Event::Woke);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the machine wakes without end");
    }

    /// Lets time pass until an attempt is in flight.
    fn await_attempt(&mut self) {
        for _ in 0..10_000 {
            if self.in_flight.is_some() {
                return;
            }
            self.pass(0.05);
        }
        panic!("nothing is sent any more");
    }

    fn last(&self) -> &HeartbeatTaskRunRequest {
        &self.sent.last().expect("something was sent").request
    }

    fn kinds(&self) -> Vec<Kind> {
        self.sent.iter().map(|attempt| attempt.beat.1).collect()
    }
}

/// What the API shows: the pod's policy, podbeat's kind of sidecar, main's status.
struct Shown {
    policy: &'static str,
    native: bool,
    grace: u64,
    deletion: Option<f64>,
    /// deletionGracePeriodSeconds.
    given: Option<u64>,
    uid: &'static str,
    main: String,
    /// More members of main's spec.
    spec: &'static str,
    /// Whether the pod has the condition AllContainersRestarting.
    restarting: bool,
}

fn shown(main: &str) -> Shown {
    Shown {
        policy: "Never",
        native: true,
        grace: 30,
        deletion: None,
        given: None,
        uid: "u1",
        main: main.to_owned(),
        spec: "",
        restarting: false,
    }
}

/// A pod about which the API shows nothing.
fn nothing_shown() -> Observation {
    Observation {
        uid: None,
        deletion: None,
        termination_grace: Duration::from_secs(30),
        phase_is_terminal: false,
        all_restarting: false,
        why: vec![],
        sidecar: Sidecar::Native,
        containers: vec![],
        job_retry_count: None,
        job: None,
        hardware_details: None,
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A task container, from members of its spec and its status in the API's spelling.
fn container(policy: RestartPolicy, spec: &Value, status: &str, is_deleted: bool) -> Container {
    let status = json(&format!("{{{status}}}"));
    let rules = spec["restartPolicyRules"].as_array().into_iter().flatten();
    let rules = rules.map(|rule| Rule {
        codes: serde_json::from_value(rule["exitCodes"]["values"].clone()).expect("codes"),
        negated: rule["exitCodes"]["operator"] == "NotIn",
        restarts_all: rule["action"] == "RestartAllContainers",
    });
    let own = spec["restartPolicy"].as_str().map(RestartPolicy::named);
    let count = status["restartCount"].as_i64().unwrap_or(0);
    let count = i32::try_from(count).expect("a count");
    let waits_on = |reason: &Value| is_deleted || *reason == "CrashLoopBackOff";
    let same = status["state"]
        .get("waiting")
        .is_some_and(|waiting| waits_on(&waiting["reason"]));
    Container {
        name: spec["name"].as_str().expect("a name").to_owned(),
        role: Role::Task,
        restart: Restart::new(policy, Role::Task, own, rules.collect()),
        state: state_of(&status["state"], count),
        last_exit: status["lastState"]
            .get("terminated")
            .map(|exit| exit_of(exit, count - i32::from(!same && count > 0))),
        restart_count: count,
    }
}

fn state_of(state: &Value, run: i32) -> Option<State> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(exit) = state.get("terminated") {
        Some(State::Terminated(exit_of(exit, run)))
    } else if let Some(running) = state.get("running") {
        Some(State::Running {
            started_at: time(&running["startedAt"]),
        })
    } else {
        state.get("waiting").map(|waiting| State::Waiting {
            reason: text(&waiting["reason"]),
            message: text(&waiting["message"]),
        })
    }
}

fn exit_of(exit: &Value, run: i32) -> Exit {
    let text = |name: &str| exit[name].as_str().map(str::to_owned);
    let number = |name: &str| {
        exit[name]
            .as_i64()
            .map(|number| i32::try_from(number).expect("a code"))
    };
    Exit {
        exit_code: number("exitCode"),
        signal: number("signal"),
        reason: text("reason"),
        message: text("message"),
        started_at: time(&exit["startedAt"]),
        finished_at: time(&exit["finishedAt"]),
        container_id: text("containerID"),
        run: Some(run),
    }
}

fn time(text: &Value) -> Option<Timestamp> {
    Some(text.as_str()?.parse().expect("a time"))
}

/// Like `shown`, but podbeat is a plain sidecar.
fn plain(main: &str) -> Shown {
    Shown {
        native: false,
        ..shown(main)
    }
}

impl Shown {
    fn observation(&self) -> Observation {
        let spec = json(&format!(r#"{{"name":"main"{}}}"#, self.spec));
        let main = container(
            RestartPolicy::named(self.policy),
            &spec,
            &self.main,
            self.deletion.is_some(),
        );
        Observation {
            uid: Some(self.uid.to_owned()),
            deletion: self.deletion.map(|at| Deletion {
                at: whole_seconds(wall(at)),
                grace: self.given.map(Duration::from_secs),
            }),
            termination_grace: Duration::from_secs(self.grace),
            all_restarting: self.restarting,
            sidecar: if self.native {
                Sidecar::Native
            } else {
                Sidecar::Plain
            },
            containers: vec![main],
            ..nothing_shown()
        }
    }

    fn event(&self) -> Event {
        Event::Observed(self.observation())
    }
}

const WAITING: &str = r#""state":{"waiting":{"reason":"ContainerCreating"}}"#;
const RUNNING: &str = r#""state":{"running":{"startedAt":"2026-11-24T12:00:01Z"}}"#;

fn terminated(code: i32) -> String {
    format!(
        r#""state":{{"terminated":{{"exitCode":{code},"reason":"Error","containerID":"containerd://1"}}}}"#
    )
}

fn exit_code(request: &HeartbeatTaskRunRequest) -> Option<i32> {
    request
        .container_status
        .as_ref()?
        .iter()
        .find_map(|status| status.terminated()?.exit_code)
}

fn state(request: &HeartbeatTaskRunRequest) -> Option<&'static str> {
    request.container_status.as_ref()?.first()?.state_name()
}

// ---- when a heartbeat is sent ----

#[test]
fn the_first_goes_out_at_once_before_any_observation() {
    let bench = Bench::new(settings());
    assert_eq!(bench.kinds(), [Kind::First]);
    assert_eq!(bench.last().container_status, None);
    assert_eq!(bench.last().last_heartbeat, None);
    assert_eq!(bench.last().pod_uid.as_deref(), Some("u1"));
}

#[test]
fn later_heartbeats_follow_at_the_interval_with_jitter() {
    let mut bench = Bench::started(settings());
    let mut times = vec![];
    for _ in 0..200 {
        let before = bench.sent.len();
        while bench.sent.len() == before {
            bench.pass(0.05);
        }
        times.push(bench.now);
        bench.accept();
    }
    let gaps: Vec<f64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert!(
        gaps.iter().all(|gap| (26.9..=33.1).contains(gap)),
        "{gaps:?}"
    );
    assert!(
        gaps.iter().any(|gap| *gap < 29.0) && gaps.iter().any(|gap| *gap > 31.0),
        "spread: {gaps:?}"
    );
}

#[test]
fn a_single_change_is_sent_without_delay() {
    let mut bench = Bench::started(settings());
    bench.pass(5.0);
    bench.on(shown(WAITING).event());
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change]);
}

#[test]
fn changes_soon_after_a_send_are_collected() {
    let mut bench = Bench::started(settings());
    bench.pass(0.1);
    bench.on(shown(WAITING).event());
    bench.pass(0.05);
    bench.on(shown(RUNNING).event());
    assert_eq!(
        bench.kinds(),
        [Kind::First],
        "250 ms haven't passed since the first"
    );
    bench.pass(0.2);
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change]);
    assert_eq!(state(bench.last()), Some("running"));
    bench.accept();
    assert_eq!(bench.in_flight, None);
}

#[test]
fn a_terminated_state_never_waits() {
    let mut bench = Bench::started(settings());
    bench.pass(0.1);
    let crash = Shown {
        policy: "OnFailure",
        ..shown(&terminated(3))
    };
    bench.on(crash.event());
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change]);
    assert_eq!(exit_code(bench.last()), Some(3));
}

#[test]
fn a_change_of_an_unreported_member_is_no_change() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.pass(1.0);
    bench.on(Shown {
        grace: 31,
        ..shown(RUNNING)
    }
    .event());
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change]);
}

#[test]
fn an_exit_only_in_last_state_is_sent_once_in_its_own_heartbeat() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(Shown {
        policy: "OnFailure",
        ..shown(RUNNING)
    }
    .event());
    bench.accept();
    bench.pass(1.0);
    let restarted = r#""restartCount":1,"state":{"running":{"startedAt":"2026-11-24T12:00:09Z"}},
        "lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled","containerID":"containerd://1"}}"#;
    let restarted = Shown {
        policy: "OnFailure",
        ..shown(restarted)
    };
    bench.on(restarted.event());
    bench.accept();
    bench.pass(0.3);
    assert_eq!(
        bench.kinds(),
        [Kind::First, Kind::Change, Kind::LostExit, Kind::Change]
    );
    assert_eq!(exit_code(&bench.sent[2].request), Some(137));
    assert_eq!(state(&bench.sent[3].request), Some("running"));
    bench.accept_all();
    bench.on(restarted.event());
    assert_eq!(bench.sent.len(), 4);
}

#[test]
fn an_exit_that_was_seen_is_not_sent_again_from_last_state() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(Shown {
        policy: "OnFailure",
        ..shown(&terminated(3))
    }
    .event());
    bench.accept();
    bench.pass(1.0);
    let back_off = r#""state":{"waiting":{"reason":"CrashLoopBackOff"}},
        "lastState":{"terminated":{"exitCode":3,"reason":"Error","containerID":"containerd://1"}}"#;
    bench.on(Shown {
        policy: "OnFailure",
        ..shown(back_off)
    }
    .event());
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change, Kind::Change]);
    assert_eq!(state(bench.last()), Some("waiting"));
}

#[test]
fn unconfirmed_states_become_too_old_to_be_sent() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    let mut with_states = vec![];
    for _ in 0..14 {
        let before = bench.sent.len();
        while bench.sent.len() == before {
            bench.pass(1.0);
        }
        with_states.push(bench.last().container_status.is_some());
        bench.accept();
    }
    assert!(with_states.starts_with(&[true; 8]), "{with_states:?}");
    assert!(with_states.ends_with(&[false; 3]), "{with_states:?}");
    bench.on(Event::Confirmed);
    bench.pass(34.0);
    assert!(bench.last().container_status.is_some());
}

// ---- what an answer means ----

#[test]
fn retries_keep_nonce_and_body_and_a_new_heartbeat_has_its_own() {
    let mut bench = Bench::new(settings());
    bench.answer(Answer::Unavailable {
        status: 503,
        retry_after: None,
    });
    bench.pass(1.0);
    bench.answer(Answer::Ambiguous);
    bench.pass(2.0);
    bench.accept();
    bench.on(shown(WAITING).event());
    bench.pass(1.0);
    let nonces: Vec<_> = bench
        .sent
        .iter()
        .map(|attempt| attempt.request.nonce.clone().expect("a nonce"))
        .collect();
    assert_eq!(nonces.len(), 4);
    assert!(
        nonces[0] == nonces[1] && nonces[1] == nonces[2] && nonces[2] != nonces[3],
        "{nonces:?}"
    );
    assert_eq!(bench.sent[0].request, bench.sent[2].request);
    assert_eq!(bench.sent[2].retries, 2);
}

#[test]
fn a_nonce_from_the_settings_is_echoed() {
    let mut bench = Bench::new(Settings {
        nonce: Some("n7".to_owned()),
        ..settings()
    });
    bench.accept();
    bench.pass(34.0);
    assert!(
        bench
            .sent
            .iter()
            .all(|attempt| attempt.request.nonce.as_deref() == Some("n7"))
    );
}

#[test]
fn an_outage_loses_no_transition_and_keeps_their_order() {
    let mut bench = Bench::new(settings());
    bench.answer(Answer::NotSent);
    for main in [
        WAITING.to_owned(),
        RUNNING.to_owned(),
        terminated(3),
        RUNNING.to_owned(),
    ] {
        bench.on(Shown {
            policy: "Always",
            ..shown(&main)
        }
        .event());
        for _ in 0..40 {
            bench.pass(1.0);
            if bench.in_flight.is_some() {
                bench.answer(Answer::Unavailable {
                    status: 503,
                    retry_after: None,
                });
            }
        }
    }
    let before = bench.sent.len();
    for _ in 0..40 {
        bench.pass(1.0);
        bench.accept_all();
    }
    let told: Vec<_> = bench.sent[before..]
        .iter()
        .map(|attempt| state(&attempt.request))
        .take(5)
        .collect();
    assert_eq!(
        told,
        [
            None,
            Some("waiting"),
            Some("running"),
            Some("terminated"),
            Some("running")
        ]
    );
}

#[test]
fn retry_after_is_respected() {
    let mut bench = Bench::new(settings());
    bench.answer(Answer::Unavailable {
        status: 429,
        retry_after: Some(secs(7.0)),
    });
    bench.pass(6.9);
    assert_eq!(bench.sent.len(), 1);
    // At most half as long again.
    bench.pass(3.7);
    assert_eq!(bench.sent.len(), 2);
    let mut bench = Bench::new(settings());
    bench.answer(Answer::Unavailable {
        status: 503,
        retry_after: Some(secs(86_400.0)),
    });
    bench.pass(299.0);
    assert_eq!(bench.sent.len(), 1, "five minutes are");
    bench.pass(32.0);
    assert!(bench.sent.len() >= 2, "a day is not");
}

#[test]
fn agents_with_the_same_retry_after_return_one_by_one() {
    let back_after = |seed: u64| {
        let mut bench = Bench::seeded(settings(), seed);
        bench.answer(Answer::Unavailable {
            status: 503,
            retry_after: Some(secs(10.0)),
        });
        while bench.sent.len() < 2 {
            bench.pass(0.1);
        }
        bench.now
    };
    let mut counts = [0; 5];
    for seed in 0..500 {
        let late = back_after(seed).saturating_sub(secs(10.0)).as_secs();
        counts[usize::try_from(late).expect("small").min(4)] += 1;
    }
    assert!(
        counts.iter().all(|count| (50..150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn an_unauthorized_rereads_the_token_once_at_once_and_never_gives_up() {
    let mut bench = Bench::new(settings());
    assert!(!bench.sent[0].token_was_refused);
    bench.answer(Answer::Unauthorized);
    assert_eq!(bench.sent.len(), 2, "at once");
    assert!(bench.sent[1].token_was_refused);
    bench.answer(Answer::Unauthorized);
    assert_eq!(bench.sent.len(), 2, "then after a wait");
    bench.await_attempt();
    assert!(bench.sent[2].token_was_refused);
    bench.answer(Answer::NotSent);
    bench.await_attempt();
    assert!(
        !bench.sent[3].token_was_refused,
        "no token was refused by no connection"
    );
    bench.answer(Answer::Unauthorized);
    for _ in 0..300 {
        bench.await_attempt();
        bench.answer(Answer::Unauthorized);
    }
    bench.await_attempt();
    bench.accept();
    bench.await_attempt();
    assert!(!bench.sent.last().expect("sent").token_was_refused);
}

#[test]
fn a_refused_body_is_never_sent_again() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(WAITING).event());
    let refused = bench.last().clone();
    bench.answer(Answer::Refused { status: 400 });
    bench.pass(120.0);
    assert_eq!(
        bench
            .sent
            .iter()
            .filter(|attempt| attempt.request == refused)
            .count(),
        1
    );
    let told = refused.container_status.expect("a change of states");
    assert!(
        bench
            .notes
            .contains(&Note::Dropped(2, Kind::Change, DropCause::Refused, told))
    );
}

#[test]
fn a_run_is_orphaned_after_three_answers_over_thirty_seconds_and_never_on_one() {
    let mut bench = Bench::new(settings());
    let mut answers = 0;
    while !bench.notes.contains(&Note::Orphaned) {
        bench.await_attempt();
        assert!(bench.now <= secs(90.0), "believed in the end");
        bench.answer(Answer::Disowned { status: 404 });
        answers += 1;
        assert!(
            !bench.notes.contains(&Note::Orphaned) || (bench.now >= secs(30.0) && answers >= 3)
        );
    }
    assert!(bench.notes.contains(&Note::Orphaned));
    let sent = bench.sent.len();
    bench.on(shown(RUNNING).event());
    bench.pass(3600.0);
    assert_eq!(bench.sent.len(), sent, "quiet from now on");
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Orphaned));
}

#[test]
fn only_a_signal_makes_an_update_urgent() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.accept_all();
    bench.pass(3600.0);
    assert_eq!(bench.hurries, 0);
    bench.on(Event::Signal);
    assert_eq!(bench.hurries, 1);
    bench.on(Event::Signal);
    bench.pass(60.0);
    assert_eq!((bench.hurries, bench.looks.len()), (1, 1));
}

#[test]
fn an_accepted_heartbeat_in_between_resets_the_refusals() {
    let mut bench = Bench::new(settings());
    for _ in 0..20 {
        bench.answer(Answer::Disowned { status: 409 });
        bench.pass(20.0);
        bench.await_attempt();
        bench.accept();
        bench.await_attempt();
    }
    assert!(!bench.notes.contains(&Note::Orphaned));
}

#[test]
fn an_attempt_without_an_answer_times_out_and_is_retried() {
    let mut bench = Bench::new(settings());
    bench.pass(9.9);
    assert_eq!(bench.aborts, 0);
    bench.pass(1.0);
    assert_eq!(bench.aborts, 1);
    assert_eq!(bench.sent.len(), 2);
}

#[test]
fn a_late_answer_of_an_aborted_attempt_is_ignored() {
    let mut bench = Bench::new(settings());
    bench.pass(11.0);
    assert_eq!(bench.in_flight, Some(2));
    bench.on(Event::Answered {
        attempt: 1,
        answer: Answer::Accepted,
    });
    assert_eq!(bench.machine.backlog(), 1);
}

// ---- the last heartbeat ----

#[test]
fn a_native_sidecar_sends_the_final_with_the_exit_code_and_ends_on_sigterm() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.pass(5.0);
    bench.on(shown(&terminated(3)).event());
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change, Kind::Final]);
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(exit_code(bench.last()), Some(3));
    bench.accept();
    assert!(bench.stopped_watching);
    assert_eq!(bench.end, None);
    bench.pass(3600.0);
    assert_eq!(bench.sent.len(), 3, "nothing after an accepted final");
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_plain_sidecar_exits_by_itself_after_the_final() {
    let mut bench = Bench::ready(settings());
    bench.on(plain(&terminated(0)).event());
    bench.accept_all();
    assert_eq!(bench.kinds(), [Kind::First, Kind::Final]);
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn waiting_heartbeats_are_sent_before_the_final() {
    let mut bench = Bench::new(settings());
    bench.answer(Answer::NotSent);
    bench.pass(0.3);
    bench
        .in_flight
        .is_some()
        .then(|| bench.answer(Answer::NotSent));
    bench.on(shown(RUNNING).event());
    bench.pass(0.3);
    bench
        .in_flight
        .is_some()
        .then(|| bench.answer(Answer::NotSent));
    bench.on(shown(&terminated(3)).event());
    bench.accept_all();
    let accepted: Vec<_> = bench
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Accepted(_, kind) => Some(*kind),
            _ => None,
        })
        .collect();
    assert_eq!(accepted, [Kind::First, Kind::Change, Kind::Final]);
}

#[test]
fn sigterm_before_the_event_that_shows_the_end_waits_for_it() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.on(Event::Signal);
    assert_eq!(
        bench.kinds().last(),
        Some(&Kind::Change),
        "SIGTERM itself sends nothing"
    );
    bench.pass(0.013);
    bench.on(shown(&terminated(7)).event());
    assert_eq!(exit_code(bench.last()), Some(7));
    assert_eq!(bench.last().last_heartbeat, Some(true));
    bench.accept();
    assert_eq!(
        bench.end,
        Some(End::Delivered),
        "SIGTERM came before: nothing to idle for"
    );
    assert_eq!(
        bench.looks.len(),
        0,
        "the event showed it: no look was needed"
    );
}

#[test]
fn a_native_sidecar_waits_a_second_reads_once_and_sends_the_known_states() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    let signalled = bench.now;
    bench.on(Event::Signal);
    bench.pass(0.99);
    assert_eq!(bench.looks.len(), 0);
    bench.pass(0.02);
    assert_eq!(bench.looks.len(), 1);
    bench.on(Event::Looked(Look::Found(
        Shown {
            deletion: Some(0.0),
            ..shown(RUNNING)
        }
        .observation(),
    )));
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(
        state(bench.last()),
        Some("running"),
        "never an invented end"
    );
    assert!(
        bench.sent.last().expect("sent").timeout + bench.now <= signalled + secs(2.0),
        "2 s are left, no more"
    );
}

#[test]
fn a_read_without_an_answer_does_not_delay_the_final() {
    let mut bench = Bench::started(settings());
    bench.on(shown(RUNNING).event());
    bench.pass(0.3);
    bench.accept_all();
    bench.on(Event::Signal);
    bench.pass(2.1);
    assert_eq!(bench.looks.len(), 1);
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    assert!(bench.notes.contains(&Note::Final(Cause::Signal)));
}

#[test]
fn a_plain_sidecar_waits_for_newer_states_within_the_grace() {
    let mut bench = Bench::ready(settings());
    bench.on(plain(RUNNING).event());
    bench.accept();
    bench.on(Event::Signal);
    bench.pass(0.5);
    bench.on(Shown {
        native: false,
        deletion: Some(31.0),
        ..shown(RUNNING)
    }
    .event());
    bench.pass(14.0);
    assert_eq!(bench.looks.len(), 0, "there is time left");
    bench.pass(1.0);
    assert_eq!(bench.looks.len(), 1);
    bench.on(Event::Looked(Look::Failed));
    assert_eq!(bench.last().last_heartbeat, Some(true));
    bench.accept();
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_second_sigterm_shortens_the_wait() {
    let mut bench = Bench::ready(settings());
    bench.on(plain(RUNNING).event());
    bench.accept();
    bench.on(Event::Signal);
    assert_eq!(bench.looks.len(), 0);
    bench.on(Event::Signal);
    assert_eq!(bench.looks.len(), 1);
}

#[test]
fn sigterm_before_the_first_states_reads_and_sends() {
    let mut bench = Bench::started(settings());
    bench.on(Event::Signal);
    assert_eq!(bench.looks.len(), 1);
    bench.on(Event::Looked(Look::Found(
        shown(&terminated(5)).observation(),
    )));
    assert_eq!(exit_code(bench.last()), Some(5));
    bench.accept();
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_sidecar_that_turns_out_plain_after_sigterm_waits_for_newer_states() {
    let mut bench = Bench::started(settings());
    bench.on(Event::Signal);
    assert_eq!(bench.looks.len(), 1);
    bench.on(Event::Looked(Look::Found(plain(RUNNING).observation())));
    assert!(bench.kinds().iter().all(|kind| *kind != Kind::Final));
    bench.pass(1.0);
    bench.accept_all();
    bench.pass(13.5);
    assert_eq!(bench.looks.len(), 1);
    bench.pass(1.0);
    assert_eq!(bench.looks.len(), 2);
    bench.on(Event::Looked(Look::Failed));
    bench.accept_all();
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_final_that_cant_be_delivered_ends_in_time_and_with_the_body() {
    for (native, grace) in [(true, 30), (false, 30), (true, 1), (false, 1)] {
        let mut bench = Bench::started(settings());
        bench.pass(1.0);
        bench.on(Shown {
            native,
            grace,
            ..shown(RUNNING)
        }
        .event());
        bench.accept();
        let signalled = bench.now;
        bench.on(Event::Signal);
        for _ in 0..4000 {
            bench.pass(0.01);
            if bench.end.is_some() {
                break;
            }
            if bench.in_flight.is_some() {
                bench.answer(Answer::NotSent);
            }
        }
        let took = bench.now - signalled;
        assert!(
            took <= secs(f64::from(u32::try_from(grace.max(2)).expect("small")) + 0.02),
            "{native} {grace}: {took:?}"
        );
        let Some(End::Undelivered(request)) = &bench.end else {
            panic!("{native} {grace}: {:?}", bench.end)
        };
        assert_eq!(request.last_heartbeat, Some(true));
        let finals = bench
            .kinds()
            .iter()
            .filter(|kind| **kind == Kind::Final)
            .count();
        assert!(
            (3..100).contains(&finals),
            "{native} {grace}: {finals} attempts"
        );
    }
}

#[test]
fn a_hanging_request_does_not_delay_the_final_past_its_deadline() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(WAITING).event());
    bench.accept();
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.on(Shown {
        deletion: Some(-60.0),
        ..shown(RUNNING)
    }
    .event());
    bench.on(Event::Signal);
    bench.pass(1.9);
    assert_eq!(
        bench.kinds().last(),
        Some(&Kind::Final),
        "the running heartbeat hangs, and is given up for the final"
    );
}

#[test]
fn a_refused_final_is_sent_once_more_without_container_status() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(&terminated(3)).event());
    bench.answer(Answer::Refused { status: 400 });
    assert_eq!(bench.last().container_status, None);
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(bench.sent[1].request.nonce, bench.sent[2].request.nonce);
    bench.answer(Answer::Refused { status: 400 });
    bench.pass(3600.0);
    assert_eq!(
        (bench.end.as_ref(), bench.sent.len()),
        (None, 3),
        "the kubelet would start a native sidecar again"
    );
    bench.on(Event::Signal);
    assert!(matches!(bench.end, Some(End::Undelivered(_))));
    assert_eq!(bench.machine.losses().refused, 1);
}

#[test]
fn a_plain_sidecar_whose_final_is_refused_ends_at_once() {
    let mut bench = Bench::started(settings());
    let ended = plain(&terminated(3));
    bench.on(ended.event());
    bench.answer(Answer::Refused { status: 400 });
    bench.answer(Answer::Refused { status: 422 });
    assert!(matches!(bench.end, Some(End::Undelivered(_))));
}

#[test]
fn a_final_that_may_have_arrived_counts_as_accepted_if_the_run_is_closed() {
    for (status, arrived) in [
        (None, true),
        (Some(500), false),
        (Some(502), true),
        (Some(503), false),
        (Some(504), true),
    ] {
        let mut bench = Bench::ready(settings());
        bench.on(plain(&terminated(0)).event());
        bench.answer(status.map_or(Answer::Ambiguous, |status| {
            Answer::from_status(status, None)
        }));
        bench.await_attempt();
        bench.answer(Answer::Disowned { status: 409 });
        assert_eq!(bench.end, arrived.then_some(End::Delivered), "{status:?}");
    }
}

#[test]
fn a_final_includes_states_from_the_time_it_could_not_be_sent() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.on(Event::Signal);
    bench.pass(2.1);
    assert_eq!(state(bench.last()), Some("running"));
    bench.answer(Answer::NotSent);
    bench.on(Event::Gone(Some(
        Shown {
            deletion: Some(31.0),
            ..shown(&terminated(143))
        }
        .observation(),
    )));
    bench.pass(1.0);
    assert_eq!(exit_code(bench.last()), Some(143));
    bench.accept();
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_deleted_pod_gets_its_final_with_the_last_states() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.on(Event::Gone(None));
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(state(bench.last()), Some("running"));
    bench.accept();
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_pod_that_was_never_seen_is_not_treated_as_deleted() {
    let mut bench = Bench::started(settings());
    bench.on(Event::Gone(None));
    bench.on(Shown {
        uid: "u2",
        ..shown(&terminated(9))
    }
    .event());
    bench.pass(100.0);
    assert!(bench.kinds().iter().all(|kind| *kind != Kind::Final));
    assert!(bench.notes.contains(&Note::NeverSeen));
}

#[test]
fn another_pod_under_our_name_is_never_reported_and_ends_ours() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.on(Shown {
        uid: "u2",
        ..shown(&terminated(9))
    }
    .event());
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(bench.last().pod_uid.as_deref(), Some("u1"));
    assert_eq!(state(bench.last()), Some("running"));
}

#[test]
fn with_on_failure_a_success_is_the_end_and_a_crash_is_not() {
    let mut bench = Bench::started(settings());
    bench.pass(1.0);
    bench.on(Shown {
        policy: "OnFailure",
        ..shown(&terminated(3))
    }
    .event());
    bench.accept();
    assert_eq!(bench.kinds(), [Kind::First, Kind::Change]);
    bench.pass(12.0);
    let done = r#""restartCount":1,"state":{"terminated":{"exitCode":0,"reason":"Completed","containerID":"containerd://2"}},
        "lastState":{"terminated":{"exitCode":3,"reason":"Error","containerID":"containerd://1"}}"#;
    bench.on(Shown {
        policy: "OnFailure",
        ..shown(done)
    }
    .event());
    assert_eq!(exit_code(bench.last()), Some(0));
    assert_eq!(bench.last().last_heartbeat, Some(true));
}

#[test]
fn outside_a_pod_the_uid_is_learned() {
    let mut unknown = settings();
    unknown.identity.pod_uid = None;
    let mut bench = Bench::started(unknown);
    assert_eq!(bench.last().pod_uid, None);
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    assert_eq!(bench.last().pod_uid.as_deref(), Some("u1"));
}

#[test]
fn a_plain_sidecar_gives_up_its_final_after_the_patience() {
    let mut bench = Bench::ready(settings());
    bench.on(plain(&terminated(0)).event());
    for _ in 0..2000 {
        if bench.in_flight.is_some() {
            bench.answer(Answer::Unavailable {
                status: 503,
                retry_after: None,
            });
        }
        bench.pass(1.0);
    }
    assert!(matches!(bench.end, Some(End::Undelivered(_))));
}

// ---- the end of the grace period ----

/// When podbeat gives up a last heartbeat that cannot reach the service, in seconds; SIGTERM comes
/// at 1 s.
fn given_up_at(shown: &Shown) -> f64 {
    let mut bench = Bench::started(settings());
    bench.on(shown.event());
    bench.pass(1.0);
    bench.on(Event::Signal);
    for _ in 0..10_000 {
        if bench.end.is_some() {
            break;
        }
        if bench.in_flight.is_some() {
            bench.answer(Answer::NotSent);
        } else if bench.looks.len() == 1 {
            bench.looks.push(Duration::ZERO);
            bench.on(Event::Looked(Look::Failed));
        } else {
            bench.pass(0.01);
        }
    }
    assert!(
        matches!(bench.end, Some(End::Undelivered(_))),
        "{:?}",
        bench.end
    );
    bench.now.as_secs_f64()
}

#[test]
fn the_deadline_is_the_earliest_known_but_at_least_what_the_kubelet_leaves() {
    let plain = |deletion: Option<f64>, given: Option<u64>| Shown {
        native: false,
        deletion,
        given,
        ..shown(RUNNING)
    };
    let native = |deletion: Option<f64>, given: Option<u64>| Shown {
        native: true,
        ..plain(deletion, given)
    };
    for (shown, expected, why) in [
        (
            plain(None, None),
            30.7,
            "SIGTERM and terminationGracePeriodSeconds",
        ),
        (plain(Some(20.0), None), 19.7, "deletionTimestamp"),
        (
            plain(Some(500.0), None),
            30.7,
            "never longer than the grace",
        ),
        (
            plain(Some(500.0), Some(5)),
            4.7,
            "deletionGracePeriodSeconds in place of the pod's own",
        ),
        (plain(Some(-100.0), Some(5)), 2.0, "half of the least"),
        (
            native(None, None),
            30.7,
            "SIGTERM and terminationGracePeriodSeconds",
        ),
        (native(Some(20.0), None), 19.7, "deletionTimestamp"),
        (
            native(Some(1.5), Some(30)),
            2.7,
            "a late native sidecar has 2 s",
        ),
        (native(Some(500.0), Some(10)), 9.7, "a clock that is behind"),
    ] {
        let at = given_up_at(&shown);
        // 0.3 s before the grace period ends, so that podbeat can still log the end.
        assert!(
            (expected - 0.1..expected + 0.1).contains(&at),
            "{why}: {at}"
        );
    }
}

#[test]
fn a_native_sidecar_always_sends_its_final_within_two_seconds() {
    for deletion in [None, Some(30.0), Some(0.5)] {
        let mut bench = Bench::ready(settings());
        bench.on(Shown {
            deletion,
            ..shown(RUNNING)
        }
        .event());
        bench.accept_all();
        bench.pass(1.0);
        bench.on(Event::Signal);
        bench.pass(1.7);
        assert_eq!(bench.kinds().last(), Some(&Kind::Final), "{deletion:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the pod and the clocks say, and however the service fails, podbeat ends before its
    /// grace period does, with time left to log it.
    #[test]
    fn no_wait_exceeds_the_grace(
        native: bool,
        grace in prop::sample::select(vec![0_u64, 1, 2, 5, 30, 600]),
        given in prop::option::of(prop::sample::select(vec![0_u64, 1, 5, 600])),
        deletion in prop::option::of(-5000.0..5000.0_f64),
        seen: bool,
        failure in 0_usize..4,
        mut again: bool,
    ) {
        let shown = Shown { native, grace, given: given.filter(|_| deletion.is_some()), deletion, ..shown(RUNNING) };
        let mut bench = Bench::started(settings());
        if seen {
            bench.on(shown.event());
        }
        bench.pass(1.0);
        bench.on(Event::Signal);
        let mut looked = 0;
        for _ in 0..100_000 {
            if bench.end.is_some() {
                break;
            }
            if again && bench.now > secs(1.5) {
                again = false;
                bench.on(Event::Signal);
            }
            match failure {
                0 if bench.in_flight.is_some() => bench.answer(Answer::NotSent),
                1 if bench.in_flight.is_some() => bench.answer(Answer::Unavailable {
                    status: 503,
                    retry_after: Some(Duration::from_secs(3600)),
                }),
                2 if bench.in_flight.is_some() => bench.answer(Answer::Unauthorized),
                _ if bench.looks.len() > looked && failure != 3 => {
                    looked = bench.looks.len();
                    bench.on(Event::Looked(Look::Failed));
                }
                _ => bench.pass(0.02),
            }
        }
        prop_assert!(matches!(bench.end, Some(End::Undelivered(_))), "{:?}", bench.end);
        // For a pod that it never saw, podbeat assumes Kubernetes' default.
        let grace = match seen {
            true => given.filter(|_| deletion.is_some()).unwrap_or(grace),
            false => 30,
        };
        let most = secs(1.0) + Duration::from_secs(grace.max(2));
        prop_assert!(bench.now + secs(0.25) <= most, "{:?}, with the signal at 1 s", bench.now);
    }
}

// ---- the final barrier ----

/// A native sidecar whose last heartbeat was accepted at 10 s, right after another heartbeat had
/// timed out.
fn behind_a_lost_request() -> Bench {
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.pass(9.9);
    bench.on(shown(&terminated(3)).event());
    bench.pass(0.2);
    bench.await_attempt();
    bench.accept();
    bench.await_attempt();
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    bench.accept();
    bench
}

#[test]
fn the_final_is_repeated_if_an_earlier_request_may_arrive_late() {
    let mut bench = behind_a_lost_request();
    let sent = bench.sent.len();
    assert!(bench.stopped_watching);
    bench.pass(9.0);
    assert_eq!(
        bench.sent.len(),
        sent,
        "not before the late one must have arrived"
    );
    bench.pass(2.0);
    assert_eq!(bench.sent.len(), sent + 1);
    assert_eq!(
        bench.sent[sent].request,
        bench.sent[sent - 1].request,
        "the same to the letter"
    );
    bench.accept();
    bench.pass(3600.0);
    assert_eq!(bench.sent.len(), sent + 1, "and then nothing more");
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_lost_request_may_arrive_late_until_another_is_accepted() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    // The change gets no answer. After that, nothing reaches the service for minutes.
    bench.answer(Answer::Ambiguous);
    while bench.now < secs(200.0) {
        bench.await_attempt();
        bench.answer(Answer::NotSent);
    }
    bench.on(shown(&terminated(3)).event());
    bench.await_attempt();
    bench.accept();
    let accepted = bench.now;
    bench.await_attempt();
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    bench.accept();
    let sent = bench.sent.len();
    bench.await_attempt();
    assert_eq!(bench.sent[sent].request, bench.sent[sent - 1].request);
    assert!(
        bench.now >= accepted + settings().timeout,
        "{:?}",
        bench.now - accepted
    );
    bench.accept();
    // A path that has been free for longer than that delays nothing any more.
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.answer(Answer::from_status(504, None));
    bench.await_attempt();
    bench.accept();
    bench.pass(11.0);
    bench.on(shown(&terminated(3)).event());
    bench.accept_all();
    let sent = bench.sent.len();
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    bench.pass(3600.0);
    assert_eq!(bench.sent.len(), sent);
}

#[test]
fn a_final_without_an_earlier_lost_request_is_sent_once() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(&terminated(0)).event());
    bench.accept();
    bench.pass(60.0);
    assert_eq!(bench.kinds(), [Kind::First, Kind::Final]);
}

#[test]
fn sigterm_repeats_the_final_earlier_and_the_grace_limits_it() {
    let mut bench = behind_a_lost_request();
    let sent = bench.sent.len();
    let signalled = bench.now;
    bench.on(Event::Signal);
    assert_eq!(bench.end, None);
    bench.pass(10.0);
    assert_eq!(bench.sent.len(), sent + 1);
    // The attempt hangs, like all others. The service already knows the end of the run.
    bench.pass(30.0);
    assert_eq!(bench.end, Some(End::Delivered));
    assert!(bench.now >= signalled);
    assert!(bench.notes.contains(&Note::BarrierFailed));
}

#[test]
fn a_repetition_that_fails_is_tried_three_times_and_is_no_failure() {
    for answer in [
        Answer::NotSent,
        Answer::Forbidden,
        Answer::Unauthorized,
        Answer::Ambiguous,
        Answer::Unavailable {
            status: 503,
            retry_after: None,
        },
    ] {
        let mut bench = behind_a_lost_request();
        let sent = bench.sent.len();
        for _ in 0..3 {
            bench.await_attempt();
            bench.answer(answer.clone());
        }
        bench.pass(3600.0);
        assert_eq!(bench.sent.len(), sent + 3, "{answer:?}");
        bench.on(Event::Signal);
        assert_eq!(bench.end, Some(End::Delivered));
    }
}

#[test]
fn a_run_that_is_closed_to_the_repetition_is_closed_to_a_late_request_too() {
    let mut bench = behind_a_lost_request();
    bench.await_attempt();
    bench.answer(Answer::Disowned { status: 409 });
    assert!(!bench.notes.contains(&Note::BarrierFailed));
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Delivered));
}

// ---- age ----

#[test]
fn after_a_long_outage_exits_are_sent_and_old_states_are_not() {
    let mut bench = Bench::ready(settings());
    let crash =
        |id: &str| format!(r#""state":{{"terminated":{{"exitCode":1,"containerID":"{id}"}}}}"#);
    let restarts = |main: &str| Shown {
        policy: "Always",
        ..shown(main)
    };
    bench.on(restarts(WAITING).event());
    bench.answer(Answer::NotSent);
    for main in [RUNNING, &crash("c1"), RUNNING, &crash("c2"), RUNNING] {
        bench.pass(1.0);
        bench.on(restarts(main).event());
        if bench.in_flight.is_some() {
            bench.answer(Answer::NotSent);
        }
    }
    // The service is unavailable for ten minutes. The API server confirms what it showed.
    for _ in 0..600 {
        bench.pass(1.0);
        bench.on(Event::Confirmed);
        if bench.in_flight.is_some() {
            bench.answer(Answer::NotSent);
        }
    }
    let before = bench.sent.len();
    bench.await_attempt();
    bench.accept_all();
    let told: Vec<_> = bench.sent[before..]
        .iter()
        .map(|attempt| state(&attempt.request))
        .collect();
    assert_eq!(
        told,
        [Some("terminated"), Some("terminated"), Some("running")]
    );
    let losses = bench.machine.losses();
    assert_eq!(
        (losses.expired, losses.overflowed),
        (3, 0),
        "waiting, running and running"
    );
}

#[test]
fn a_final_omits_states_that_were_unconfirmed_for_too_long() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.accept();
    for _ in 0..12 {
        bench.pass(30.0);
        bench.accept_all();
    }
    bench.on(Event::Signal);
    bench.pass(1.0);
    bench.on(Event::Looked(Look::Failed));
    bench.accept_all();
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(bench.last().container_status, None);
}

// ---- the journal ----

fn journaled() -> Settings {
    Settings {
        journaled: true,
        ..settings()
    }
}

impl Bench {
    /// A process that continues from the last saved state, `later` seconds later.
    fn after_crash(&self, later: f64) -> Self {
        let json = serde_json::to_string(&self.saved.clone().unwrap_or_default()).expect("JSON");
        let saved: Saved = serde_json::from_str(&json).expect("read back");
        assert_eq!(
            Some(&saved),
            self.saved.as_ref().or(Some(&Saved::default()))
        );
        let wall_offset = self.wall_offset + self.now.as_secs_f64() + later;
        let now = Now {
            elapsed: Duration::ZERO,
            wall: wall(wall_offset),
        };
        let settings = Settings {
            markers: self.machine.settings.markers,
            ..journaled()
        };
        let mut bench = Self::unstarted(Machine::resume(settings, 2, saved, now));
        bench.wall_offset = wall_offset;
        bench.on(Event::Started);
        bench
    }
}

#[test]
fn a_pod_at_rest_writes_nothing() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.saved = None;
    for _ in 0..10 {
        bench.await_attempt();
        bench.accept();
        bench.on(Event::Confirmed);
        bench.on(shown(RUNNING).event());
    }
    assert_eq!(bench.saved, None);
}

#[test]
fn without_a_journal_nothing_is_persisted() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(&terminated(0)).event());
    bench.accept();
    assert_eq!(bench.saved, None);
}

#[test]
fn heartbeats_that_waited_at_a_crash_are_sent_later_with_the_same_nonce() {
    let mut bench = Bench::ready(journaled());
    for main in [WAITING, RUNNING] {
        bench.on(Shown {
            policy: "Always",
            ..shown(main)
        }
        .event());
        bench.pass(0.5);
    }
    let in_flight = bench.sent.last().expect("sent").request.clone();
    let mut after = bench.after_crash(5.0);
    assert_eq!(after.last(), &in_flight, "before anything else");
    after.accept_all();
    let told: Vec<_> = after
        .sent
        .iter()
        .map(|attempt| state(&attempt.request))
        .collect();
    assert_eq!(told, [Some("waiting"), Some("running")]);
    after.on(Shown {
        policy: "Always",
        ..shown(RUNNING)
    }
    .event());
    after.pass(5.0);
    assert_eq!(after.sent.len(), 2, "what was told is no news");
    assert!(
        after.sent.iter().all(|attempt| attempt.beat.0 > 1),
        "the count goes on"
    );
}

#[test]
fn an_exit_that_was_sent_before_a_crash_is_not_sent_again() {
    let mut bench = Bench::ready(journaled());
    let always = |main: &str| Shown {
        policy: "Always",
        ..shown(main)
    };
    bench.on(always(&terminated(1)).event());
    bench.accept_all();
    let mut after = bench.after_crash(1.0);
    after.accept();
    after.pass(1.0);
    let last_state = terminated(1).replacen("state", "lastState", 1);
    after.on(always(&format!("{RUNNING},{last_state}")).event());
    after.accept_all();
    assert_eq!(after.kinds(), [Kind::First, Kind::Change]);
    assert_eq!(state(after.last()), Some("running"));
}

#[test]
fn nothing_after_an_accepted_final_however_often_the_process_restarts() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(&terminated(0)).event());
    bench.accept();
    for _ in 0..5 {
        bench = bench.after_crash(60.0);
        assert!(bench.stopped_watching);
        bench.pass(3600.0);
        bench.on(shown(&terminated(0)).event());
        assert_eq!(bench.sent.len(), 0);
        assert_eq!(bench.end, None, "a native sidecar idles");
        bench.saved.get_or_insert_with(|| Saved {
            last_heartbeat: LastHeartbeat::Accepted,
            sidecar: crate::observation::Sidecar::Native,
            ..Saved::default()
        });
    }
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Delivered));
}

#[test]
fn a_plain_sidecar_that_restarts_after_its_final_exits_at_once() {
    let mut bench = Bench::ready(journaled());
    bench.on(plain(&terminated(0)).event());
    bench.accept();
    let after = bench.after_crash(1.0);
    assert_eq!(
        (after.end.as_ref(), after.sent.len()),
        (Some(&End::Delivered), 0)
    );
}

#[test]
fn a_final_in_flight_at_a_crash_is_sent_again_with_the_same_nonce() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(&terminated(3)).event());
    let last = bench.last().clone();
    assert_eq!(last.last_heartbeat, Some(true));
    let mut after = bench.after_crash(1.0);
    assert_eq!(after.last(), &last);
    // It had arrived, and the run is closed.
    after.answer(Answer::Disowned { status: 409 });
    after.pass(60.0);
    after.on(Event::Signal);
    assert_eq!(after.end, Some(End::Delivered));
}

#[test]
fn a_final_that_was_not_sent_does_not_count_as_arrived_after_a_crash() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(&terminated(3)).event());
    bench.answer(Answer::NotSent);
    let mut after = bench.after_crash(1.0);
    after.answer(Answer::Disowned { status: 404 });
    assert!(
        !after
            .notes
            .iter()
            .any(|note| matches!(note, Note::Accepted(..)))
    );
}

#[test]
fn a_crash_in_the_barrier_ends_with_the_repetition() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(RUNNING).event());
    bench.pass(9.9);
    bench.on(shown(&terminated(3)).event());
    bench.pass(0.2);
    for _ in 0..2 {
        bench.await_attempt();
        bench.accept();
    }
    let last = bench.last().clone();
    let mut after = bench.after_crash(1.0);
    after.await_attempt();
    assert_eq!(after.last(), &last);
    after.accept();
    let again = after.after_crash(1.0);
    assert_eq!(again.sent.len(), 0);
}

#[test]
fn an_orphaned_or_refused_run_stays_so_over_a_restart() {
    let mut bench = Bench::ready(journaled());
    bench.on(shown(&terminated(3)).event());
    bench.answer(Answer::Refused { status: 400 });
    bench.answer(Answer::Refused { status: 400 });
    let mut after = bench.after_crash(1.0);
    after.pass(3600.0);
    assert_eq!(after.sent.len(), 0);
    after.on(Event::Signal);
    assert!(matches!(after.end, Some(End::Undelivered(_))));

    let mut bench = Bench::ready(journaled());
    bench.on(shown(RUNNING).event());
    for _ in 0..200 {
        if bench.in_flight.is_some() {
            bench.answer(Answer::Disowned { status: 404 });
        }
        bench.pass(1.0);
    }
    assert!(bench.notes.contains(&Note::Orphaned));
    let mut after = bench.after_crash(1.0);
    after.pass(3600.0);
    assert_eq!(after.sent.len(), 0);
}

#[test]
fn states_from_a_journal_age_by_the_wall_clock() {
    for (later, told) in [(10.0, true), (600.0, false)] {
        let mut bench = Bench::ready(journaled());
        bench.on(shown(RUNNING).event());
        bench.accept();
        let mut after = bench.after_crash(later);
        after.accept();
        after.on(Event::Signal);
        after.pass(1.0);
        after.on(Event::Looked(Look::Failed));
        after.await_attempt();
        assert_eq!(after.last().last_heartbeat, Some(true));
        assert_eq!(
            after.last().container_status.is_some(),
            told,
            "{later} s later"
        );
    }
}

// ---- exit markers ----

fn marking() -> Settings {
    Settings {
        markers: true,
        ..settings()
    }
}

/// The marker of a container that ended with this code, `finished` seconds after `WALL`.
fn marker_of(container: &str, exit_code: i32, finished: f64) -> Found {
    let finished = crate::marker::whole_seconds(wall(finished));
    Found {
        container: container.to_owned(),
        marker: Marker {
            exit_code,
            signal: (exit_code > 128).then_some(exit_code - 128),
            started_at: Some(wall(1.0)),
            finished_at: Some(finished),
        },
        written_at: finished,
    }
}

/// A bare exit code. The only time is the file's.
fn bare(container: &str, exit_code: i32, written: f64) -> Found {
    let mut found = marker_of(container, exit_code, written);
    found.marker = Marker {
        exit_code,
        signal: None,
        started_at: None,
        finished_at: None,
    };
    found
}

fn marker(exit_code: i32, finished: f64) -> Event {
    Event::Markers(vec![marker_of("main", exit_code, finished)])
}

fn deleted(native: bool) -> Shown {
    Shown {
        native,
        deletion: Some(35.0),
        given: Some(30),
        ..shown(RUNNING)
    }
}

/// Main has run since second 1. At second 5, podbeat sees that the pod is being deleted.
fn in_deletion(native: bool) -> Bench {
    let mut bench = Bench::ready(marking());
    bench.on(Shown {
        native,
        ..shown(RUNNING)
    }
    .event());
    bench.accept();
    bench.pass(4.0);
    bench.on(deleted(native).event());
    assert_eq!(
        (bench.sent.len(), bench.reads),
        (2, 0),
        "nothing changed, and nothing is asked"
    );
    bench
}

fn told(request: &HeartbeatTaskRunRequest) -> String {
    serde_json::to_string(&request.container_status).expect("JSON")
}

#[test]
fn markers_are_not_read_while_the_pod_runs() {
    let mut bench = Bench::ready(marking());
    bench.on(shown(RUNNING).event());
    bench.accept();
    for _ in 0..10 {
        bench.await_attempt();
        bench.accept();
        bench.pass(1.0);
    }
    bench.on(shown(&terminated(0)).event());
    bench.accept();
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    assert_eq!(bench.reads, 0, "nor when the API tells the end");
}

#[test]
fn markers_are_not_read_without_a_directory() {
    let mut bench = Bench::ready(settings());
    bench.on(deleted(false).event());
    bench.accept();
    bench.on(Event::Signal);
    bench.pass(60.0);
    assert_eq!(bench.reads, 0);
}

#[test]
fn in_a_deletion_the_final_is_sent_when_the_markers_show_the_end() {
    for native in [true, false] {
        let mut bench = in_deletion(native);
        bench.on(Event::Signal);
        assert_eq!(bench.reads, 1, "at once");
        bench.on(Event::Markers(vec![]));
        bench.pass(0.3);
        assert_eq!(bench.reads, 2, "and again after 250 ms");
        bench.on(marker(143, 5.2));
        assert_eq!(bench.kinds().last(), Some(&Kind::Final), "native: {native}");
        assert_eq!(
            told(bench.last()),
            r#"[{"name":"main","state":{"terminated":{"exitCode":143,"finishedAt":"2026-11-24T12:00:05Z","signal":15,"startedAt":"2026-11-24T12:00:01Z"}}}]"#
        );
        assert!(bench.looks.is_empty(), "the API has nothing to add");
        assert!(bench.notes.contains(&Note::Final(Cause::Marked)));
        assert!(bench.notes.contains(&Note::Marked {
            container: "main".to_owned(),
            exit_code: 143
        }));
        bench.accept();
        assert_eq!(bench.end, Some(End::Delivered));
        assert_eq!(bench.reads, 2, "what is known is not asked again");
    }
}

#[test]
fn a_directory_that_hangs_is_read_once_and_changes_nothing() {
    for native in [true, false] {
        let mut finals = vec![];
        for markers in [true, false] {
            let mut bench = Bench::ready(Settings {
                markers,
                ..settings()
            });
            bench.on(Shown {
                native,
                ..shown(RUNNING)
            }
            .event());
            bench.accept();
            bench.pass(4.0);
            bench.on(deleted(native).event());
            bench.on(Event::Signal);
            while bench.kinds().last() != Some(&Kind::Final) {
                bench.pass(0.01);
            }
            assert_eq!(state(bench.last()), Some("running"));
            assert_eq!(
                bench.reads,
                usize::from(markers),
                "a second order would mean nothing"
            );
            finals.push(bench.now);
        }
        assert_eq!(finals[0], finals[1], "native: {native}");
    }
}

#[test]
fn without_a_deletion_the_richer_state_of_the_api_has_a_second() {
    for native in [true, false] {
        let mut bench = Bench::ready(marking());
        let pod = |main: &str| Shown {
            native,
            ..shown(main)
        };
        bench.on(pod(RUNNING).event());
        bench.accept();
        bench.pass(1.0);
        bench.on(Event::Signal);
        bench.on(marker(0, 2.5));
        assert_eq!(bench.in_flight, None, "the marker alone is not the end");
        bench.pass(0.1);
        bench.on(pod(&terminated(0)).event());
        assert_eq!(bench.kinds().last(), Some(&Kind::Final));
        assert!(
            told(bench.last()).contains("containerd://1"),
            "the API's word: {}",
            told(bench.last())
        );
        assert!(bench.notes.contains(&Note::Final(Cause::Completed)));

        // If the API shows no exit, podbeat waits only one second and for one look.
        let mut bench = Bench::ready(marking());
        bench.on(pod(RUNNING).event());
        bench.accept();
        bench.pass(1.0);
        bench.on(Event::Signal);
        bench.on(marker(7, 2.5));
        bench.pass(0.99);
        assert!(bench.looks.is_empty());
        bench.pass(0.02);
        assert_eq!(bench.looks.len(), 1);
        bench.on(Event::Looked(Look::Found(pod(RUNNING).observation())));
        assert_eq!(exit_code(bench.last()), Some(7));
        assert_eq!(bench.last().last_heartbeat, Some(true));
    }
}

#[test]
fn a_plain_sidecar_ends_soon_after_the_last_task_and_not_near_the_end_of_the_grace() {
    let mut bench = Bench::ready(marking());
    let pod = plain(RUNNING);
    bench.on(pod.event());
    bench.accept();
    bench.on(Event::Signal);
    for _ in 0..20 {
        bench.on(Event::Markers(vec![]));
        bench.pass(0.25);
    }
    assert_eq!(
        bench.reads, 21,
        "asked all the while, by the quarter of a second"
    );
    bench.on(marker(143, 6.0));
    assert_eq!(bench.looks.len(), 1, "the second is over long since");
    bench.on(Event::Looked(Look::Failed));
    assert_eq!(exit_code(bench.last()), Some(143));
}

#[test]
fn a_task_that_is_started_again_is_not_finished_by_its_marker() {
    let mut bench = Bench::ready(marking());
    let pod = Shown {
        policy: "OnFailure",
        native: false,
        ..shown(RUNNING)
    };
    bench.on(pod.event());
    bench.accept();
    bench.on(Event::Signal);
    bench.on(marker(3, 2.0));
    bench.pass(5.0);
    assert!(
        bench.looks.is_empty(),
        "it may run again: the wait goes on as without markers"
    );
    bench.pass(30.0);
    assert_eq!(exit_code(bench.last()), Some(3), "but its exit is told");
}

#[test]
fn the_marker_of_an_earlier_run_is_not_sent() {
    // Main has run since second 1 (12:00:01).
    for (found, expected) in [
        (marker_of("main", 9, 0.9), None),
        (marker_of("main", 9, 1.2), Some(9)),
        (bare("main", 9, 0.9), None),
        (bare("main", 9, 4.0), Some(9)),
    ] {
        let mut bench = in_deletion(false);
        bench.on(Event::Signal);
        bench.on(Event::Markers(vec![found.clone()]));
        bench.pass(40.0);
        assert_eq!(exit_code(bench.last()), expected, "{found:?}");
        assert_eq!(bench.last().last_heartbeat, Some(true));
    }
    // Between two runs: if an exit is known from an earlier event or from lastState, the last
    // heartbeat does not report it again.
    let back_off = r#""state":{"waiting":{"reason":"CrashLoopBackOff"}},"restartCount":1,
        "lastState":{"terminated":{"exitCode":3,"finishedAt":"2026-11-24T12:00:02Z","containerID":"containerd://1"}}"#;
    for (finished, expected) in [(2.7, None), (3.0, Some(9))] {
        let mut bench = Bench::ready(marking());
        let pod = Shown {
            policy: "OnFailure",
            deletion: Some(33.0),
            ..shown(back_off)
        };
        bench.on(pod.event());
        bench.accept_all();
        bench.pass(3.0);
        bench.accept_all();
        bench.on(Event::Signal);
        bench.on(marker(9, finished));
        bench.pass(2.0);
        assert_eq!(bench.last().last_heartbeat, Some(true));
        assert_eq!(exit_code(bench.last()), expected, "{finished}");
    }
}

#[test]
fn a_marker_is_ambiguous_if_two_runs_ended_in_one_second() {
    let again = r#""restartCount":1,"state":{"running":{"startedAt":"2026-11-24T12:00:02Z"}},
        "lastState":{"terminated":{"exitCode":3,"finishedAt":"2026-11-24T12:00:02Z","containerID":"containerd://1"}}"#;
    let mut bench = Bench::ready(marking());
    bench.on(Shown {
        policy: "OnFailure",
        deletion: Some(33.0),
        ..shown(again)
    }
    .event());
    bench.accept_all();
    bench.pass(2.0);
    bench.accept_all();
    bench.on(Event::Signal);
    bench.on(marker(3, 2.9));
    bench.pass(2.0);
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(state(bench.last()), Some("running"), "so it is not told");
}

#[test]
fn an_exit_without_times_hides_no_marker_of_a_later_run() {
    let lost = r#""lastState":{"terminated":{"exitCode":137,"reason":"RestartingAllContainers"}}"#;
    let told_after = |main: &str| {
        let mut bench = Bench::ready(marking());
        let main = format!(r#""restartCount":1,{main},{lost}"#);
        bench.on(Shown {
            deletion: Some(33.0),
            ..shown(&main)
        }
        .event());
        bench.accept_all();
        bench.pass(2.0);
        bench.accept_all();
        bench.on(Event::Signal);
        bench.on(marker(3, 2.9));
        bench.pass(2.0);
        assert_eq!(bench.last().last_heartbeat, Some(true));
        exit_code(bench.last())
    };
    assert_eq!(told_after(RUNNING), Some(3));
    assert_eq!(
        told_after(WAITING),
        None,
        "it may be the marker of the run before"
    );
}

#[test]
fn the_terminated_state_of_the_api_replaces_the_marker_before_a_retry() {
    let mut bench = in_deletion(true);
    bench.on(Event::Signal);
    bench.on(marker(137, 5.0));
    assert_eq!(exit_code(bench.last()), Some(137));
    bench.answer(Answer::NotSent);
    let killed = Shown {
        main:
            r#""state":{"terminated":{"exitCode":137,"reason":"OOMKilled","containerID":"containerd://1"}}"#
                .to_owned(),
        ..deleted(true)
    };
    bench.on(killed.event());
    bench.await_attempt();
    assert_eq!(bench.sent.last().map(|attempt| attempt.retries), Some(1));
    assert!(
        told(bench.last()).contains("OOMKilled"),
        "{}",
        told(bench.last())
    );
}

#[test]
fn a_retry_includes_a_marker_that_appeared_meanwhile() {
    let mut bench = in_deletion(true);
    bench.on(Event::Signal);
    bench.on(Event::Markers(vec![]));
    bench.pass(1.0);
    bench.on(Event::Markers(vec![]));
    bench.pass(0.6);
    assert_eq!(
        (bench.last().last_heartbeat, state(bench.last())),
        (Some(true), Some("running"))
    );
    bench.answer(Answer::NotSent);
    bench.on(marker(1, 6.0));
    bench.await_attempt();
    assert_eq!(exit_code(bench.last()), Some(1));
    assert_eq!(
        bench.sent[bench.sent.len() - 2].request.nonce,
        bench.last().nonce
    );
}

#[test]
fn a_deleted_pod_waits_for_one_read_of_the_markers_and_only_briefly() {
    let gone = || {
        let mut bench = Bench::ready(marking());
        bench.on(shown(RUNNING).event());
        bench.accept();
        bench.pass(2.0);
        bench.on(Event::Gone(None));
        assert_eq!((bench.in_flight, bench.reads), (None, 1));
        bench
    };
    let mut bench = gone();
    bench.pass(0.01);
    bench.on(marker(137, 3.0));
    assert_eq!(
        exit_code(bench.last()),
        Some(137),
        "what was there is in it, and at once"
    );
    let mut bench = gone();
    bench.on(Event::Markers(vec![]));
    assert_eq!(
        state(bench.last()),
        Some("running"),
        "nothing was there, and it goes at once"
    );
    let mut bench = gone();
    bench.pass(0.24);
    assert_eq!(bench.in_flight, None);
    bench.pass(0.02);
    assert_eq!(
        state(bench.last()),
        Some("running"),
        "a read that hangs is not waited for"
    );
    bench.answer(Answer::NotSent);
    bench.on(marker(137, 3.0));
    bench.await_attempt();
    assert_eq!(
        exit_code(bench.last()),
        Some(137),
        "its retry has what came late"
    );
}

/// The exit appears only in `lastState`, and while the last heartbeat waits to be accepted: the
/// container is in backoff, and then runs again.
#[test]
fn after_a_crash_a_marker_does_not_repeat_an_exit_of_last_state() {
    let mut bench = Bench::ready(Settings {
        markers: true,
        ..journaled()
    });
    bench.on(Shown {
        policy: "Always",
        ..shown(RUNNING)
    }
    .event());
    bench.accept();
    bench.pass(2.0);
    bench.on(Event::Signal);
    bench.on(Event::Markers(vec![]));
    bench.pass(2.0);
    bench.on(Event::Looked(Look::Failed));
    bench.pass(3.0);
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
    bench.answer(Answer::NotSent);
    let ended = wall(5.0);
    let backs_off = format!(
        r#""restartCount":0,"state":{{"waiting":{{"reason":"CrashLoopBackOff"}}}},
           "lastState":{{"terminated":{{"exitCode":3,"finishedAt":"{ended}","containerID":"containerd://1"}}}}"#
    );
    bench.on(Shown {
        policy: "Always",
        ..shown(&backs_off)
    }
    .event());
    let mut after = bench.after_crash(3.0);
    after.on(Event::Gone(None));
    after.on(marker(3, 5.0));
    after.await_attempt();
    assert_eq!(after.kinds().last(), Some(&Kind::Final));
    assert_eq!(
        state(after.last()),
        Some("waiting"),
        "{}",
        told(after.last())
    );
}

#[test]
fn if_the_pod_was_never_seen_only_markers_are_reported() {
    let mut bench = Bench::started(marking());
    bench.pass(1.0);
    bench.on(Event::Signal);
    bench.on(Event::Markers(vec![
        marker_of("b", 1, 0.5),
        marker_of("a", 0, 0.5),
    ]));
    bench.on(Event::Looked(Look::Failed));
    let names: Vec<_> = bench
        .last()
        .container_status
        .iter()
        .flatten()
        .map(|status| status.name.clone())
        .collect();
    assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(bench.last().last_heartbeat, Some(true));
}

#[test]
fn markers_of_unknown_or_unreported_containers_are_ignored() {
    let pod = || {
        let running = |name: &str| {
            let spec = json(&format!(r#"{{"name":"{name}"}}"#));
            container(
                RestartPolicy::Always,
                &spec,
                r#""state":{"running":{}}"#,
                true,
            )
        };
        let proxy = Container {
            role: Role::Sidecar,
            ..running("proxy")
        };
        Observation {
            uid: Some("u1".to_owned()),
            deletion: Some(Deletion {
                at: wall(30.0),
                grace: None,
            }),
            containers: vec![proxy, running("main")],
            ..nothing_shown()
        }
    };
    let markers = || {
        Event::Markers(vec![
            marker_of("main", 0, 2.0),
            marker_of("proxy", 1, 2.0),
            marker_of("stranger", 2, 2.0),
        ])
    };
    for (report, expected) in [(Report::Task, vec![0]), (Report::All, vec![1, 0])] {
        let mut bench = Bench::ready(Settings {
            report,
            ..marking()
        });
        bench.on(Event::Observed(pod()));
        bench.accept();
        bench.pass(1.0);
        bench.on(Event::Signal);
        bench.on(markers());
        let codes: Vec<_> = bench
            .last()
            .container_status
            .iter()
            .flatten()
            .filter_map(|status| status.terminated()?.exit_code)
            .collect();
        assert_eq!(codes, expected);
        bench.on(markers());
        let strangers = bench
            .notes
            .iter()
            .filter(|note| matches!(note, Note::UnknownMarker(_)));
        assert_eq!(strangers.count(), 1, "told once");
    }
}

#[test]
fn a_marker_is_sent_even_if_the_states_are_too_old() {
    let mut bench = Bench::ready(marking());
    bench.on(plain(RUNNING).event());
    bench.accept();
    for _ in 0..14 {
        bench.await_attempt();
        bench.accept();
        bench.pass(1.0);
    }
    bench.on(Event::Signal);
    bench.on(marker(3, 400.0));
    bench.pass(1.0);
    bench.on(Event::Looked(Look::Failed));
    bench.pass(0.1);
    bench.accept_all();
    assert_eq!(
        (bench.last().last_heartbeat, exit_code(bench.last())),
        (Some(true), Some(3))
    );
}

#[test]
fn a_restart_during_the_final_reads_the_markers_again() {
    let mut bench = Bench::ready(Settings {
        markers: true,
        ..journaled()
    });
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.on(Event::Gone(None));
    bench.on(marker(3, 2.0));
    assert_eq!(exit_code(bench.last()), Some(3));
    let mut next = bench.after_crash(1.0);
    assert_eq!(next.in_flight, None, "it waits for the read");
    next.on(marker(3, 2.0));
    assert_eq!(exit_code(next.last()), Some(3));
    assert_eq!(next.last().nonce, bench.last().nonce);
}

#[test]
fn markers_never_delay_the_final_past_the_deadline() {
    for native in [true, false] {
        for markers in [true, false] {
            let mut ends = vec![];
            for answers in [true, false] {
                let mut bench = Bench::ready(Settings {
                    markers,
                    ..settings()
                });
                let pod = Shown {
                    native,
                    grace: 1,
                    ..shown(RUNNING)
                };
                bench.on(pod.event());
                bench.accept();
                bench.pass(1.0);
                bench.on(Event::Signal);
                let signalled = bench.now;
                while bench.end.is_none() {
                    bench.pass(0.01);
                    if answers && bench.reads > 0 {
                        bench.on(Event::Markers(vec![]));
                    }
                    if bench.in_flight.is_some() {
                        bench.answer(Answer::NotSent);
                    }
                }
                ends.push((bench.now - signalled).as_secs_f64());
            }
            let most = if native { 2.0 } else { 1.02 };
            assert!(
                ends.iter().all(|end| *end <= most + 0.02),
                "{native} {markers} {ends:?}"
            );
        }
    }
}

// ---- the snapshot ----

impl Bench {
    fn snapshot(&self) -> Snapshot {
        self.machine.snapshot(self.now)
    }
}

#[test]
fn the_shown_status_follows_a_life_to_its_accepted_end() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.snapshot().status_age, None, "nothing was seen yet");
    assert_eq!(bench.snapshot().backlog, 1);
    bench.accept();
    bench.pass(1.0);
    bench.on(shown(RUNNING).event());
    bench.accept();
    bench.pass(20.0);
    let snapshot = bench.snapshot();
    assert_eq!(snapshot.status_age, Some(secs(20.0)));
    assert_eq!((snapshot.backlog, snapshot.final_is_due), (0, false));
    bench.on(shown(&terminated(3)).event());
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.backlog, snapshot.final_is_due), (1, true));
    assert_eq!(bench.machine.last_seen().len(), 1);
    bench.accept();
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.backlog, snapshot.final_is_due), (0, false));
    assert_eq!(snapshot.last_heartbeat, LastHeartbeat::Accepted);
}

#[test]
fn a_repeated_last_heartbeat_is_shown_as_accepted() {
    let bench = behind_a_lost_request();
    assert_eq!(bench.machine.backlog(), 1);
    let snapshot = bench.snapshot();
    assert_eq!((snapshot.backlog, snapshot.final_is_due), (0, false));
}

#[test]
fn a_last_heartbeat_that_is_refused_for_good_stays_due() {
    let mut bench = Bench::started(settings());
    bench.on(shown(&terminated(0)).event());
    for _ in 0..2 {
        bench.await_attempt();
        bench.answer(Answer::Refused { status: 400 });
    }
    let snapshot = bench.snapshot();
    assert_eq!(snapshot.last_heartbeat, LastHeartbeat::Refused);
    assert!(snapshot.final_is_due);
}

// ---- all containers are restarted (KEP-5532) ----

/// A main that ended with this code. Exit code 42 restarts all containers.
fn ruled(code: i32) -> Shown {
    Shown {
        spec: r#","restartPolicy":"Never","restartPolicyRules":
            [{"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[42]}}]"#,
        ..shown(&terminated(code))
    }
}

#[test]
fn an_exit_that_restarts_all_containers_is_sent_and_is_not_the_end() {
    for native in [true, false] {
        let mut bench = Bench::ready(Settings {
            journaled: true,
            ..settings()
        });
        bench.on(Shown {
            native,
            ..ruled(42)
        }
        .event());
        assert_eq!(bench.kinds().last(), Some(&Kind::Change));
        assert_eq!(exit_code(bench.last()), Some(42));
        bench.accept();
        bench.on(Event::Signal);
        assert_eq!(bench.end, Some(End::Restarting), "nothing waits: at once");
        assert!(!bench.kinds().contains(&Kind::Final));
        let saved = bench.saved.expect("a journal");
        assert_eq!(saved.last_heartbeat, LastHeartbeat::Open);
        assert_eq!(saved.outbox, []);
    }
    // Any other exit code ends the task.
    let mut bench = Bench::ready(settings());
    bench.on(ruled(41).event());
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
}

#[test]
fn the_pods_condition_alone_shows_the_restart_of_all_containers() {
    let mut bench = Bench::ready(settings());
    let killed = Shown {
        restarting: true,
        ..shown(&terminated(137))
    };
    bench.on(killed.event());
    bench.accept_all();
    bench.on(Event::Signal);
    assert_eq!(bench.end, Some(End::Restarting));
    assert!(!bench.kinds().contains(&Kind::Final));
}

#[test]
fn nothing_is_restarted_in_a_pod_that_is_being_deleted() {
    let mut bench = Bench::ready(settings());
    let deleted = Shown {
        deletion: Some(30.0),
        restarting: true,
        ..ruled(42)
    };
    bench.on(deleted.event());
    assert_eq!(bench.kinds().last(), Some(&Kind::Final));
}

#[test]
fn waiting_heartbeats_are_sent_before_the_restart_if_there_is_time() {
    let mut bench = Bench::ready(settings());
    bench.on(ruled(42).event());
    bench.on(Event::Signal);
    assert_eq!(bench.end, None, "the exit is on its way");
    bench.pass(1.0);
    bench.accept();
    assert_eq!(bench.end, Some(End::Restarting));

    // The kubelet kills podbeat after two seconds.
    let mut bench = Bench::ready(settings());
    bench.on(ruled(42).event());
    bench.on(Event::Signal);
    bench.pass(1.6);
    assert_eq!(bench.end, None);
    bench.pass(0.2);
    assert_eq!((bench.end, bench.aborts), (Some(End::Restarting), 1));
}

#[test]
fn a_signal_before_its_reason_is_seen_waits_for_it() {
    // An event of the watch shows the reason, or the look before the last heartbeat does.
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.accept_all();
    bench.on(Event::Signal);
    bench.pass(0.05);
    bench.on(ruled(42).event());
    bench.accept_all();
    bench.pass(0.3);
    bench.accept_all();
    assert_eq!(bench.end, Some(End::Restarting));
    assert!(!bench.kinds().contains(&Kind::Final));

    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.accept_all();
    bench.on(Event::Signal);
    bench.pass(1.1);
    assert_eq!(bench.looks.len(), 1);
    bench.on(Event::Looked(Look::Found(ruled(42).observation())));
    bench.accept_all();
    assert_eq!(bench.end, Some(End::Restarting));
    assert!(!bench.kinds().contains(&Kind::Final));
}

#[test]
fn an_unsent_last_heartbeat_is_canceled() {
    let mut bench = Bench::ready(settings());
    bench.on(shown(RUNNING).event());
    bench.accept_all();
    // An attempt is in flight when the signal comes, and the look fails.
    bench.on(plainly_failed().event());
    bench.on(Event::Signal);
    bench.pass(1.1);
    bench.on(Event::Looked(Look::Failed));
    assert!(bench.notes.contains(&Note::Final(Cause::Signal)));
    bench.on(ruled(42).event());
    bench.accept_all();
    assert_eq!(bench.end, Some(End::Restarting));
    assert!(!bench.kinds().contains(&Kind::Final), "{:?}", bench.kinds());
}

/// A change that does not end the task.
fn plainly_failed() -> Shown {
    Shown {
        policy: "OnFailure",
        ..shown(&terminated(1))
    }
}

#[test]
fn a_marker_shows_the_restart_if_the_api_is_late() {
    let mut bench = Bench::ready(Settings {
        markers: true,
        ..settings()
    });
    let running = Shown {
        main: RUNNING.to_owned(),
        ..ruled(0)
    };
    bench.on(running.event());
    bench.accept_all();
    bench.on(Event::Signal);
    bench.on(Event::Markers(vec![Found {
        container: "main".to_owned(),
        marker: Marker {
            exit_code: 42,
            signal: None,
            started_at: None,
            finished_at: Some(wall(2.0)),
        },
        written_at: wall(2.0),
    }]));
    bench.accept_all();
    bench.pass(2.0);
    assert_eq!(bench.end, Some(End::Restarting));
    assert!(!bench.kinds().contains(&Kind::Final));
}

// ---- exits that the kubelet lost ----

/// An exit without an ID and without times, as the kubelet reports a container that it lost.
const LOST: &str =
    r#"{"exitCode":137,"reason":"ContainerStatusUnknown","startedAt":null,"finishedAt":null}"#;

#[test]
fn each_lost_exit_is_sent_once_even_if_exits_look_the_same() {
    let mut bench = Bench::ready(Settings {
        journaled: true,
        ..settings()
    });
    let lost = |count: i32| Shown {
        policy: "Always",
        ..shown(&format!(
            r#"{RUNNING},"restartCount":{count},"lastState":{{"terminated":{LOST}}}"#
        ))
    };
    let told = |bench: &Bench| {
        let lost = |kind: &Kind| *kind == Kind::LostExit;
        bench.kinds().iter().filter(|kind| lost(kind)).count()
    };
    for count in 1..=3 {
        for _ in 0..2 {
            bench.on(lost(count).event());
            bench.accept_all();
            bench.pass(1.0);
            bench.accept_all();
        }
        assert_eq!(told(&bench), usize::try_from(count).expect("small"));
    }
    // The next process knows these exits.
    let saved = bench.saved.clone().expect("a journal");
    let json = serde_json::to_string(&saved).expect("written");
    let saved: Saved = serde_json::from_str(&json).expect("read");
    let now = Now {
        elapsed: Duration::ZERO,
        wall: wall(60.0),
    };
    let mut next = Bench::unstarted(Machine::resume(settings(), 2, saved, now));
    next.on(Event::Started);
    next.accept_all();
    next.pass(1.0);
    next.on(lost(3).event());
    next.accept_all();
    assert_eq!(told(&next), 0);
    next.on(lost(4).event());
    next.accept_all();
    assert_eq!(told(&next), 1);
}

#[test]
fn exits_of_an_earlier_journal_are_known_by_code_and_time() {
    let earlier =
        r#"{"exits":[["main",{"exitCode":137,"reason":"ContainerStatusUnknown"}]],"wasSeen":true}"#;
    let saved: Saved = serde_json::from_str(earlier).expect("read");
    let now = Now {
        elapsed: Duration::ZERO,
        wall: wall(0.0),
    };
    let mut bench = Bench::unstarted(Machine::resume(settings(), 1, saved, now));
    bench.on(Event::Started);
    bench.accept_all();
    let lost = shown(&format!(
        r#"{RUNNING},"restartCount":1,"lastState":{{"terminated":{LOST}}}"#
    ));
    bench.on(lost.event());
    bench.accept_all();
    assert!(!bench.kinds().contains(&Kind::LostExit));
}

#[test]
fn an_exit_that_was_seen_is_the_one_in_the_last_heartbeat() {
    let ended = terminated(0);
    for (now, restarts) in [
        // The kubelet lost the container.
        (
            format!(r#"{WAITING},"lastState":{{"terminated":{LOST}}}"#),
            "Never",
        ),
        (WAITING.to_owned(), "Never"),
        (format!(r#""state":{{"terminated":{LOST}}}"#), "Never"),
        (format!(r#""state":{{"terminated":{LOST}}}"#), "Always"),
    ] {
        let mut bench = Bench::ready(settings());
        // Main's exit alone must not end the task. Usually another container continues; here main's
        // policy has the same effect.
        let first = Shown {
            policy: "Always",
            ..shown(&ended)
        };
        bench.on(first.event());
        bench.accept_all();
        let deleted = Shown {
            policy: restarts,
            deletion: Some(60.0),
            ..shown(&now)
        };
        bench.on(deleted.event());
        bench.accept_all();
        let last = bench.last();
        assert_eq!(last.last_heartbeat, Some(true), "{now}");
        assert_eq!(exit_code(last), Some(0), "{now}");
        assert!(!bench.kinds().contains(&Kind::LostExit), "{now}");
    }
    // A restarted container is a new run.
    let mut bench = Bench::ready(settings());
    let always = |main: &str| Shown {
        policy: "Always",
        ..shown(main)
    };
    bench.on(always(&ended).event());
    bench.accept_all();
    bench.pass(1.0);
    bench.on(always(WAITING).event());
    bench.accept_all();
    assert_eq!(state(bench.last()), Some("waiting"));
}

// ---- only podbeat's container is stopped ----

/// A process that got a signal while main ran, up to its last heartbeat.
fn stopped_alone(pod: &Shown) -> Bench {
    let mut bench = Bench::ready(journaled());
    bench.on(pod.event());
    bench.accept_all();
    bench.on(Event::Signal);
    bench.pass(1.0);
    bench.on(Event::Looked(Look::Found(pod.observation())));
    bench.await_attempt();
    assert_eq!(bench.last().last_heartbeat, Some(true));
    assert_eq!(state(bench.last()), Some("running"));
    bench
}

fn is_reopened(note: &Note) -> bool {
    matches!(note, Note::Reopened(_))
}

#[test]
fn heartbeats_continue_after_only_podbeat_was_stopped() {
    let pods = [shown(RUNNING), plain(RUNNING)];
    for (pod, is_accepted) in pods.iter().flat_map(|pod| [(pod, true), (pod, false)]) {
        let mut bench = stopped_alone(pod);
        if is_accepted {
            bench.accept_all();
            assert_eq!(bench.end, Some(End::Delivered));
        }
        let mut after = bench.after_crash(2.0);
        assert_eq!((after.sent.len(), after.end.as_ref()), (0, None));
        // The pod does not show yet whether the task continues.
        after.on(Event::Observed(
            Shown {
                main: WAITING.to_owned(),
                native: pod.native,
                ..shown("")
            }
            .observation(),
        ));
        after.pass(30.0);
        assert_eq!(after.sent.len(), 0);
        after.on(pod.event());
        let how_far = if is_accepted {
            LastHeartbeat::Accepted
        } else {
            LastHeartbeat::Open
        };
        assert!(
            after.notes.contains(&Note::Reopened(how_far)),
            "{:?}",
            after.notes
        );
        assert!(!after.stopped_watching);
        assert_eq!(after.last().last_heartbeat, None);
        assert_eq!(state(after.last()), Some("running"));
        after.accept_all();
        // After another crash, the next process also continues.
        let mut next = after.after_crash(1.0);
        next.accept_all();
        next.on(pod.event());
        next.accept_all();
        assert!(!next.notes.iter().any(is_reopened));
        next.on(Shown {
            main: terminated(3),
            native: pod.native,
            ..shown("")
        }
        .event());
        assert_eq!(next.last().last_heartbeat, Some(true));
        assert_eq!(exit_code(next.last()), Some(3));
    }
}

#[test]
fn an_exit_while_podbeat_was_stopped_is_not_missed() {
    let mut after = stopped_alone(&shown(RUNNING));
    after.accept_all();
    let mut after = after.after_crash(2.0);
    after.on(shown(&terminated(3)).event());
    assert!(after.notes.contains(&Note::Final(Cause::Completed)));
    assert_eq!(
        exit_code(after.last()),
        Some(3),
        "the last heartbeat had not told it"
    );

    let mut bench = stopped_alone(&Shown {
        policy: "Always",
        ..shown(RUNNING)
    });
    bench.accept_all();
    let mut after = bench.after_crash(2.0);
    let last = terminated(3).replacen("state", "lastState", 1);
    let restarted = format!(r#"{RUNNING},"restartCount":1,{last}"#);
    after.on(Shown {
        policy: "Always",
        ..shown(&restarted)
    }
    .event());
    after.accept_all();
    after.pass(1.0);
    after.accept_all();
    assert_eq!(
        after.kinds(),
        [Kind::LostExit, Kind::Change],
        "{:?}",
        after.notes
    );
}

#[test]
fn a_last_heartbeat_for_a_signal_is_kept_if_the_pod_has_ended() {
    let deleted = Shown {
        deletion: Some(90.0),
        ..shown(RUNNING)
    };
    let failed = {
        let mut failed = shown(RUNNING).observation();
        failed.phase_is_terminal = true;
        failed
    };
    let ends = [
        Event::Observed(deleted.observation()),
        Event::Observed(failed),
        Event::Gone(None),
        Event::Observed(
            Shown {
                uid: "u2",
                ..shown(RUNNING)
            }
            .observation(),
        ),
        Event::Signal,
    ];
    for end in ends {
        // If it was accepted, podbeat sends nothing more.
        let mut bench = stopped_alone(&shown(RUNNING));
        bench.accept_all();
        let mut after = bench.after_crash(2.0);
        after.on(end.clone());
        after.pass(60.0);
        assert_eq!(after.sent.len(), 0, "{end:?}");
        after.on(Event::Signal);
        assert_eq!(after.end, Some(End::Delivered), "{end:?}");
        // If it was not accepted, podbeat sends it.
        let mut after = stopped_alone(&shown(RUNNING)).after_crash(2.0);
        after.on(end.clone());
        after.await_attempt();
        assert_eq!(after.last().last_heartbeat, Some(true), "{end:?}");
        assert!(!after.notes.iter().any(is_reopened), "{end:?}");
    }
}

#[test]
fn a_plain_sidecar_stops_asking_when_it_stops_trying_the_last_heartbeat() {
    let mut bench = stopped_alone(&plain(RUNNING));
    bench.accept_all();
    let mut after = bench.after_crash(2.0);
    after.pass(14.0 * 60.0);
    assert_eq!(after.end, None);
    after.pass(61.0);
    assert_eq!(
        (after.end.as_ref(), after.sent.len()),
        (Some(&End::Delivered), 0)
    );
}

#[test]
fn a_last_heartbeat_that_reported_the_end_is_never_canceled() {
    // The cause says so; journals of earlier versions have no cause.
    for cause in [Some(Cause::Completed), Some(Cause::Gone), None] {
        let mut bench = stopped_alone(&shown(RUNNING));
        bench.accept_all();
        bench.saved.as_mut().expect("a journal").cause = cause;
        let mut after = bench.after_crash(2.0);
        assert!(after.stopped_watching);
        after.on(shown(RUNNING).event());
        after.pass(60.0);
        assert_eq!(after.sent.len(), 0, "{cause:?}");
    }
}

#[test]
fn a_last_heartbeat_before_a_restart_of_all_containers_is_canceled() {
    let mut bench = stopped_alone(&Shown {
        main: RUNNING.to_owned(),
        ..ruled(0)
    });
    bench.accept_all();
    let mut after = bench.after_crash(2.0);
    after.on(ruled(42).event());
    assert!(after.notes.iter().any(is_reopened));
    assert_eq!(exit_code(after.last()), Some(42));
    assert_eq!(after.last().last_heartbeat, None);
}

fn because(reason: &str, message: &str) -> Why {
    Why {
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Why::default()
    }
}

#[test]
fn each_reason_and_a_deletion_are_logged_once_and_cause_no_heartbeat() {
    let noted = |bench: &Bench| {
        let reasons = bench.notes.iter().filter_map(|note| match note {
            Note::Why(why) => why.reason.clone(),
            Note::Deletion(_) => Some("deletion".to_owned()),
            _ => None,
        });
        reasons.collect::<Vec<_>>()
    };
    let mut bench = Bench::ready(journaled());
    bench.on(shown(RUNNING).event());
    bench.accept_all();
    let sent = bench.sent.len();
    let deleted = Shown {
        deletion: Some(1000.0),
        ..shown(RUNNING)
    };
    let mut pod = deleted.observation();
    for message in ["one", "two"] {
        pod.why = vec![because("A", message), because("B", &"ü".repeat(1000))];
        bench.on(Event::Observed(pod.clone()));
    }
    assert_eq!(noted(&bench), ["deletion", "A", "B"]);
    assert_eq!(bench.sent.len(), sent);
    let saved = bench.saved.clone().expect("a journal");
    assert_eq!(
        saved.why,
        [because("A", "one"), because("B", &"ü".repeat(512))]
    );
    assert_eq!(saved.deletion_at, Some(wall(1000.0)));

    // A new process has its own log, and keeps everything that the previous one saw.
    let mut after = bench.after_crash(1.0);
    pod.why = vec![because("B", "again")];
    after.on(Event::Observed(pod.clone()));
    assert_eq!(noted(&after), ["deletion", "B"]);
    let saved = after.saved.clone().expect("a journal");
    assert_eq!(saved.why, [because("A", "one"), because("B", "again")]);

    // A reason that appears after the last heartbeat is due did not end the task.
    let mut late = Bench::ready(journaled());
    late.on(shown(&terminated(0)).event());
    let mut over = Shown {
        deletion: Some(1000.0),
        ..shown(&terminated(0))
    }
    .observation();
    let drained = Why {
        condition: Some("DisruptionTarget".to_owned()),
        ..because("C", "")
    };
    over.why = vec![because("A", "one"), drained];
    late.on(Event::Observed(over));
    assert_eq!(noted(&late), ["deletion", "A", "C"]);
    let saved = late.saved.clone().expect("a journal");
    assert_eq!(
        (saved.why, saved.deletion_at),
        (vec![because("A", "one")], None)
    );

    // If there are very many reasons, the journal keeps the newest.
    for nth in 0..100 {
        pod.why = vec![because(&format!("R{nth}"), "")];
        after.on(Event::Observed(pod.clone()));
    }
    let saved = after.saved.clone().expect("a journal");
    assert_eq!(
        (saved.why.len(), saved.why[15].reason.as_deref()),
        (16, Some("R99"))
    );
}

/// The pod of a Job, with the count from the Job controller's annotation, if there is one.
fn of_a_job(main: &str, annotated: Option<i32>) -> Event {
    Event::Observed(Observation {
        job: Some(Box::new(JobPod {
            controller_uid: "j1".to_owned(),
            index: None,
            uid: "u1".to_owned(),
            created_at: wall(0.0),
            is_deleted: false,
            resource_version: String::new(),
        })),
        job_retry_count: annotated,
        ..shown(main).observation()
    })
}

#[test]
fn the_second_pod_of_a_job_sends_its_retry_count_after_the_first_closed_the_run() {
    let mut bench = Bench::new(settings());
    bench.on(of_a_job(WAITING, None));
    bench.on(of_a_job(RUNNING, None));
    assert_eq!(bench.counts, 1, "asked for once");
    assert_eq!(bench.last().job_retry_count, None, "and not waited for");
    bench.answer(Answer::Disowned { status: 409 });
    bench.on(Event::Retries(Some(1)));
    bench.await_attempt();
    assert_eq!(bench.last().job_retry_count, Some(1));
    let (first, second) = (&bench.sent[0], &bench.sent[1]);
    assert_eq!(
        first.request.nonce, second.request.nonce,
        "the same heartbeat"
    );
    bench.accept();
    bench.on(of_a_job(&terminated(0), None));
    bench.pass(1.0);
    bench.accept_all();
    assert_eq!(bench.last().job_retry_count, Some(1));
    assert_eq!(bench.last().last_heartbeat, Some(true));
}

#[test]
fn a_request_that_may_have_arrived_is_repeated_unchanged() {
    let mut bench = Bench::new(settings());
    bench.on(of_a_job(RUNNING, None));
    bench.answer(Answer::Ambiguous);
    bench.on(Event::Retries(Some(2)));
    bench.await_attempt();
    assert_eq!(bench.sent[0].request, bench.sent[1].request);
    bench.accept();
    bench.await_attempt();
    assert_eq!(bench.last().job_retry_count, Some(2));
}

#[test]
fn a_retry_count_that_is_known_is_not_asked_for() {
    let mut bench = Bench::started(settings());
    bench.on(of_a_job(RUNNING, Some(3)));
    bench.await_attempt();
    assert_eq!((bench.counts, bench.last().job_retry_count), (0, Some(3)));

    let mut set = settings();
    set.identity.job_retry_count = Some(7);
    let mut bench = Bench::started(set);
    bench.on(of_a_job(RUNNING, None));
    bench.on(Event::Retries(Some(1)));
    bench.await_attempt();
    assert_eq!((bench.counts, bench.last().job_retry_count), (0, Some(7)));

    // This pod does not belong to a Job.
    let mut bench = Bench::started(settings());
    bench.on(shown(RUNNING).event());
    assert_eq!(bench.counts, 0);
}

#[test]
fn a_retry_count_survives_a_restart_and_an_unknown_one_is_omitted() {
    let mut bench = Bench::started(Settings {
        journaled: true,
        ..settings()
    });
    bench.on(of_a_job(RUNNING, None));
    bench.on(Event::Retries(None));
    bench.await_attempt();
    assert_eq!(bench.last().job_retry_count, None);
    bench.accept();
    bench.on(Event::Retries(Some(1)));
    let saved = bench.saved.expect("saved");
    assert_eq!(saved.identity.job_retry_count, Some(1));
    let resumed = Machine::resume(
        settings(),
        2,
        saved,
        Now {
            elapsed: Duration::ZERO,
            wall: wall(9.0),
        },
    );
    let mut after = Bench::unstarted(resumed);
    after.on(Event::Started);
    after.on(of_a_job(RUNNING, None));
    assert_eq!(after.counts, 0);
    after.await_attempt();
    assert_eq!(after.last().job_retry_count, Some(1));
}
