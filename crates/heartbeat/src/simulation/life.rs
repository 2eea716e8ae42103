//! One pod's life, drawn from a seed: what its containers do, what ends it and when, and what fails
//! meanwhile.

use std::time::Duration;

use jiff::Timestamp;

use crate::marker::{Found, Marker};
use crate::observation::{
    Container, Deletion, Exit, Observation, Restart, RestartPolicy, Role, Rule, Sidecar, State,
};

/// The wall clock at the start of the simulation, in Unix seconds.
pub(super) const DAWN: i64 = 1_790_000_000;

/// A time span in which something fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage<K> {
    pub(super) from: Duration,
    pub(super) until: Duration,
    pub(super) kind: K,
}

impl<K> Outage<K> {
    pub(super) fn covers(&self, at: Duration) -> bool {
        self.from <= at && at < self.until
    }
}

/// How the service fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceFault {
    /// No connection.
    Refuses,
    /// No answer comes. The request may still arrive, late.
    Hangs,
    /// The request arrives, but its answer is lost.
    LosesAnswers,
    /// An answer with this HTTP status.
    Says(u16),
}

/// How the pod ends for podbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The tasks complete.
    Natural,
    /// The pod is deleted with this grace period.
    Deleted(Duration),
    /// The kubelet stops the pod (eviction, deadline), and the API shows no deletion.
    Stopped,
    /// The object vanishes at once; the kubelet sends SIGTERM a little later.
    Forced,
    /// Another pod takes the name.
    Replaced,
}

/// How fast reads of the directory of exit markers return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Prompt,
    Slow,
    Never,
}

/// A file in the directory of exit markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) found: Found,
    /// The restart count of the run whose end it reports; -1 for a run that never existed.
    pub(super) run: i32,
    /// Whether `podbeat exec` wrote it. `podbeat exec` removes the previous marker when it starts.
    pub(super) by_exec: bool,
}

/// A stop of podbeat's container in a pod that continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// When the kubelet sends SIGTERM.
    pub(super) at: Duration,
    /// When it sends SIGKILL, if podbeat still runs.
    pub(super) kill: Duration,
    /// The earliest time at which it starts the container again.
    pub(super) starts: Duration,
}

/// What the API server shows from some time on.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    Pod(Box<Observation>),
    Gone,
    Other(Box<Observation>),
}

/// Everything that is decided before the simulation starts.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) sidecar: Sidecar,
    pub(super) death: Death,
    /// When the end of the pod begins, unless the tasks end by themselves.
    dies: Option<Duration>,
    /// What the API server shows, in order of time. The last entry stays.
    pub(super) timeline: Vec<(Duration, Shown)>,
    /// When the tasks are over and are not restarted; `None` if they never are.
    pub(super) completed: Option<Duration>,
    /// When the kubelet sends SIGTERM to end the pod. If the tasks complete, it follows completion.
    pub(super) signal: Option<Duration>,
    /// When the kubelet sends SIGKILL, if podbeat still runs.
    pub(super) kill: Option<Duration>,
    pub(super) second_signal: bool,
    pub(super) api_outages: Vec<Outage<()>>,
    pub(super) service_outages: Vec<Outage<ServiceFault>>,
    /// When podbeat's container is stopped and started again, alone or with all others of the pod.
    pub(super) stops: Vec<Stop>,
    /// When the process crashes, and how long until it is started again.
    pub(super) crashes: Vec<(Duration, Duration)>,
    pub(super) wall_steps: Vec<(Duration, i64)>,
    /// Whether podbeat reads exit markers.
    pub(super) marked: bool,
    pub(super) reads: Reads,
    /// The changes in their directory, in order of time: from then on, a file with this name
    /// exists, or no longer exists.
    pub(super) files: Vec<(Duration, String, Option<File>)>,
    /// When the simulation ends.
    pub(super) horizon: Duration,
}

pub(super) fn between(rng: &mut fastrand::Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from + (to - from) * rng.f64())
}

/// A duration drawn evenly over the orders of magnitude.
fn spread(rng: &mut fastrand::Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from * (to / from).powf(rng.f64()))
}

fn chance(rng: &mut fastrand::Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

pub(super) fn wall_at(time: Duration) -> Timestamp {
    let dawn = Timestamp::from_second(DAWN).expect("in range");
    dawn.checked_add(time).expect("in range")
}

fn whole_seconds(time: Duration) -> Timestamp {
    Timestamp::from_second(wall_at(time).as_second()).expect("in range")
}

/// The pod before anything has happened.
fn blank(rng: &mut fastrand::Rng, sidecar: Sidecar, tasks: usize, grace: u64) -> Observation {
    use RestartPolicy::{Always, Never, OnFailure};

    let policy = [Never, Never, OnFailure, Always][rng.usize(0..4)];
    let container = |name: String, role, own, rules| Container {
        name,
        role,
        restart: Restart::new(policy, role, own, rules),
        state: None,
        last_exit: None,
        restart_count: 0,
    };
    let rule = |codes: &[i32], negated, restarts_all| Rule {
        codes: codes.to_vec(),
        negated,
        restarts_all,
    };
    let regular: Vec<Container> = (0..tasks)
        .map(|nth| {
            let (own, rules) = match rng.u32(0..20) {
                0 => (Some(Never), vec![]),
                1 => (Some(OnFailure), vec![]),
                2 => (Some(Never), vec![rule(&[1, 42], false, false)]),
                3 => (Some(Never), vec![rule(&[0, 3, 137], true, true)]),
                _ => (None, vec![]),
            };
            container(format!("task{nth}"), Role::Task, own, rules)
        })
        .collect();
    let mut containers = vec![];
    if chance(rng, 30) {
        containers.push(container("setup".to_owned(), Role::Init, None, vec![]));
    }
    if chance(rng, 30) {
        containers.push(container(
            "proxy".to_owned(),
            Role::Sidecar,
            Some(Always),
            vec![],
        ));
    }
    containers.extend(regular);
    Observation {
        uid: Some("u1".to_owned()),
        deletion: None,
        termination_grace: Duration::from_secs(grace),
        phase_is_terminal: false,
        all_restarting: false,
        why: vec![],
        sidecar,
        containers,
        job_retry_count: None,
        job: None,
        hardware_details: None,
    }
}

/// A change of one container.
struct Step {
    at: Duration,
    container: usize,
    state: Option<State>,
    last_exit: Option<Exit>,
    run: i32,
    /// Whether all containers are being restarted.
    restarting: bool,
}

impl Step {
    fn apply(&self, pod: &mut Observation) {
        let container = &mut pod.containers[self.container];
        container.state.clone_from(&self.state);
        container.last_exit.clone_from(&self.last_exit);
        container.restart_count = self.run;
        pod.all_restarting = self.restarting;
    }
}

/// One run of a container, and how it ends if nothing ends it earlier.
#[derive(Clone)]
struct Run {
    container: usize,
    number: i32,
    begun: Duration,
    ended: Duration,
    code: i32,
}

fn running(at: Duration) -> Option<State> {
    Some(State::Running {
        started_at: Some(whole_seconds(at)),
    })
}

fn waiting(reason: &str) -> Option<State> {
    Some(State::Waiting {
        reason: Some(reason.to_owned()),
        message: None,
    })
}

/// How the runs of a container end.
#[derive(Clone, Copy)]
enum Fate {
    /// The container ended, and is not restarted.
    Ended(Duration),
    /// Its exit restarts all containers.
    RestartsAll(Duration),
    GoesOn,
}

/// Draws the runs of one container from `begin` on. `pod` shows its state before that.
fn runs(
    rng: &mut fastrand::Rng,
    pod: &Observation,
    container: usize,
    begin: Duration,
    steps: &mut Vec<Step>,
    all: &mut Vec<Run>,
) -> Fate {
    let mut at = begin;
    let shown = &pod.containers[container];
    let mut last_exit = shown.last_exit.clone();
    let restart = &shown.restart;
    for run in shown.restart_count..shown.restart_count + 12 {
        steps.push(Step {
            at,
            container,
            state: running(at),
            last_exit: last_exit.clone(),
            run,
            restarting: false,
        });
        let begun = at;
        at += spread(rng, 0.02, 400.0);
        let code = [0, 0, 0, 1, 3, 42, 137][rng.usize(0..7)];
        all.push(Run {
            container,
            number: run,
            begun,
            ended: at,
            code,
        });
        let exit = Exit {
            exit_code: Some(code),
            finished_at: Some(whole_seconds(at)),
            container_id: Some(format!("containerd://{container}-{run}")),
            run: Some(run),
            ..Exit::default()
        };
        let again = restart.follows(Some(code));
        // A container can stop and start between two looks: then only lastState shows its end.
        if !again || chance(rng, 60) {
            steps.push(Step {
                at,
                container,
                state: Some(State::Terminated(exit.clone())),
                last_exit: last_exit.clone(),
                run,
                restarting: false,
            });
        }
        if !again {
            return Fate::Ended(at);
        }
        if restart.restarts_all(Some(code)) {
            return Fate::RestartsAll(at);
        }
        last_exit = Some(exit);
        if chance(rng, 50) {
            at += spread(rng, 0.01, 2.0);
            steps.push(Step {
                at,
                container,
                state: waiting("CrashLoopBackOff"),
                last_exit: last_exit.clone(),
                run,
                restarting: false,
            });
            at += spread(rng, 0.1, 300.0);
        } else {
            at += spread(rng, 0.001, 1.0);
        }
    }
    Fate::GoesOn
}

/// One turn of the pod: from the start of its first container until all have ended or all are
/// restarted.
struct Turn {
    steps: Vec<Step>,
    runs: Vec<Run>,
    /// When the tasks are over and are not restarted; `None` if they never are.
    completed: Option<Duration>,
    /// When an exit restarts all containers, if one does.
    restarts: Option<Duration>,
}

impl Turn {
    fn draw(rng: &mut fastrand::Rng, pod: &Observation, mut begin: Duration) -> Self {
        let mut turn = Self {
            steps: vec![],
            runs: vec![],
            completed: None,
            restarts: None,
        };
        let (init, regular): (Vec<usize>, Vec<usize>) = (0..pod.containers.len())
            .filter(|nth| pod.containers[*nth].role != Role::Sidecar)
            .partition(|nth| pod.containers[*nth].role == Role::Init);
        for container in &regular {
            let shown = &pod.containers[*container];
            turn.steps.push(Step {
                at: begin + between(rng, 0.0, 1.0).min(begin),
                container: *container,
                state: waiting("PodInitializing"),
                last_exit: shown.last_exit.clone(),
                run: shown.restart_count,
                restarting: false,
            });
        }
        begin += Duration::from_secs(1);
        for container in init {
            match runs(rng, pod, container, begin, &mut turn.steps, &mut turn.runs) {
                Fate::Ended(end) => {
                    begin = end + between(rng, 0.0, 1.0);
                    let exit = turn.runs.last().map(|run| run.code);
                    if exit != Some(0) {
                        turn.completed = Some(end);
                        return turn;
                    }
                }
                Fate::RestartsAll(_) | Fate::GoesOn => return turn,
            }
        }
        let fates: Vec<_> = regular
            .iter()
            .map(|container| {
                let begin = begin + between(rng, 0.0, 2.0);
                runs(rng, pod, *container, begin, &mut turn.steps, &mut turn.runs)
            })
            .collect();
        let restarts = fates.iter().filter_map(|fate| match fate {
            Fate::RestartsAll(at) => Some(*at),
            Fate::Ended(_) | Fate::GoesOn => None,
        });
        turn.restarts = restarts.min();
        turn.completed = fates
            .iter()
            .try_fold(Duration::ZERO, |latest, fate| match fate {
                Fate::Ended(at) => Some(latest.max(*at)),
                Fate::RestartsAll(_) | Fate::GoesOn => None,
            });
        turn.steps.sort_by_key(|step| step.at);
        turn
    }

    /// Cuts the turn off when all containers are restarted, and shows the restart on `pod`
    /// (KEP-5532): podbeat gets SIGTERM and has two seconds. After that, the kubelet has lost all
    /// containers and starts new ones. Returns when the next turn begins.
    fn restart_all(
        &mut self,
        rng: &mut fastrand::Rng,
        pod: &mut Observation,
        at: Duration,
        stops: &mut Vec<Stop>,
    ) -> Duration {
        self.steps.retain(|step| step.at <= at);
        self.runs.retain(|run| run.begun <= at);
        let (least, most) = (Duration::from_millis(20), Duration::from_secs(2));
        let signal = at + between(rng, 0.001, 0.3);
        let kill = signal + most;
        let starts = kill + between(rng, 0.1, 5.0);
        for run in self.runs.iter_mut().filter(|run| run.ended > at) {
            run.ended = signal + between(rng, 0.0, 1.9);
            run.code = 137;
        }
        for step in &self.steps {
            step.apply(pod);
        }
        // The kubelet shows the condition, and then briefly that it killed the other containers.
        let mut shown_at = at + least;
        for (nth, container) in pod.containers.iter().enumerate() {
            let killed = Exit {
                exit_code: Some(137),
                finished_at: Some(whole_seconds(kill)),
                container_id: Some(format!("containerd://{nth}-{}", container.restart_count)),
                run: Some(container.restart_count),
                ..Exit::default()
            };
            let is_killed =
                matches!(container.state, Some(State::Running { .. })) && chance(rng, 50);
            if is_killed {
                shown_at = shown_at.max(kill - least);
            }
            self.steps.push(Step {
                at: shown_at,
                container: nth,
                state: if is_killed {
                    Some(State::Terminated(killed))
                } else {
                    container.state.clone()
                },
                last_exit: container.last_exit.clone(),
                run: container.restart_count,
                restarting: true,
            });
        }
        for (nth, container) in pod.containers.iter().enumerate() {
            // A container that never ran is not restarted.
            let ran = self.runs.iter().any(|run| run.container == nth);
            let lost = Exit {
                exit_code: Some(137),
                reason: Some("RestartingAllContainers".to_owned()),
                run: Some(container.restart_count),
                ..Exit::default()
            };
            self.steps.push(Step {
                at: starts,
                container: nth,
                state: waiting("PodInitializing"),
                last_exit: if ran {
                    Some(lost)
                } else {
                    container.last_exit.clone()
                },
                run: container.restart_count + i32::from(ran),
                restarting: false,
            });
        }
        for step in &self.steps {
            step.apply(pod);
        }
        stops.push(Stop {
            at: signal,
            kill,
            starts,
        });
        starts
    }
}

/// The marker of a container that ended at this time.
fn left_at(container: &str, code: i32, at: Duration, by_exec: bool) -> Found {
    Found {
        container: container.to_owned(),
        marker: Marker {
            exit_code: code,
            signal: (by_exec && code > 128).then_some(code - 128),
            started_at: None,
            finished_at: by_exec.then(|| whole_seconds(at)),
        },
        written_at: whole_seconds(at),
    }
}

impl Life {
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        let sidecar = match rng.u32(0..10) {
            0..6 => Sidecar::Native,
            6..9 => Sidecar::Plain,
            _ => Sidecar::Elsewhere,
        };
        let tasks = rng.usize(1..4);
        let grace = [1, 5, 30, 30, 30, 120][rng.usize(0..6)];
        let pod = blank(rng, sidecar, tasks, grace);
        let mut begin = between(rng, 0.0, 5.0);
        let (mut steps, mut all, mut stops) = (vec![], vec![], vec![]);
        let mut before = pod.clone();
        let completed = loop {
            let mut turn = Turn::draw(rng, &before, begin);
            let restarts = turn.restarts.filter(|_| stops.len() < 4);
            if let Some(at) = restarts {
                begin = turn.restart_all(rng, &mut before, at, &mut stops);
            }
            steps.append(&mut turn.steps);
            all.append(&mut turn.runs);
            if restarts.is_none() {
                break turn.completed;
            }
        };
        let last = steps.last().map_or(begin, |step| step.at);
        let mut life = Self::with_death(rng, sidecar, &pod, steps, completed, last);
        life.stop(rng, &pod, stops);
        life.mark(rng, &pod, &all);
        life
    }

    /// Draws when podbeat's container is stopped while its pod continues.
    fn stop(&mut self, rng: &mut fastrand::Rng, pod: &Observation, together: Vec<Stop>) {
        let dies = self.dies.unwrap_or(Duration::MAX);
        self.stops = together.into_iter().filter(|stop| stop.at < dies).collect();
        if self.sidecar == Sidecar::Elsewhere || !chance(rng, 10) {
            return;
        }
        // Causes can be a failed liveness probe, a changed image, or a resize.
        let last = self.timeline.last().map_or(Duration::ZERO, |(at, _)| *at);
        let at = between(rng, 0.0, last.as_secs_f64() + 1.0);
        let kill = at + pod.termination_grace.max(Duration::from_secs(2));
        let starts = at + between(rng, 0.1, 2.0);
        let alone = Stop { at, kill, starts };
        let is_apart = |stop: &Stop| stop.starts < alone.at || alone.kill < stop.at;
        if self.stops.iter().all(is_apart) {
            self.stops.push(alone);
        }
    }

    fn with_death(
        rng: &mut fastrand::Rng,
        sidecar: Sidecar,
        pod: &Observation,
        steps: Vec<Step>,
        completed: Option<Duration>,
        last: Duration,
    ) -> Self {
        let natural = completed.is_some() && chance(rng, 60);
        let death = match rng.u32(0..10) {
            _ if natural => Death::Natural,
            0..5 => Death::Deleted(Duration::from_secs([1, 2, 5, 30, 120][rng.usize(0..5)])),
            5 | 6 => Death::Stopped,
            7 | 8 => Death::Forced,
            _ => Death::Replaced,
        };
        let dies = between(rng, 0.0, last.as_secs_f64() * 1.1 + 5.0);
        let dies = completed.map_or(dies, |completed| dies.min(completed));
        let mut shown = pod.clone();
        let mut timeline = vec![(Duration::ZERO, Shown::Pod(Box::new(shown.clone())))];
        for step in steps {
            if !natural && step.at >= dies {
                break;
            }
            step.apply(&mut shown);
            timeline.push((step.at, Shown::Pod(Box::new(shown.clone()))));
        }
        let stop = between(rng, 0.001, 0.1);
        // When the kubelet has stopped the tasks of a pod that ends, and can stop podbeat.
        let tasks_dead = |rng: &mut fastrand::Rng, grace: Duration| match sidecar {
            Sidecar::Native => dies + stop + grace.mul_f64([0.0, 0.01, 0.5, 1.0][rng.usize(0..4)]),
            Sidecar::Plain | Sidecar::Elsewhere => dies + stop,
        };
        let least = Duration::from_secs(2);
        let (signal, kill) = match death {
            Death::Natural => match sidecar {
                Sidecar::Native => {
                    let at = completed.unwrap_or(last);
                    // Usually together with the event that shows the end; sometimes long after it,
                    // because a kubelet can be unavailable.
                    let later = if chance(rng, 20) { 120.0 } else { 0.03 };
                    let signal =
                        at.saturating_sub(Duration::from_millis(10)) + between(rng, 0.0, later);
                    (
                        Some(signal),
                        Some(signal + pod.termination_grace.max(least)),
                    )
                }
                Sidecar::Plain | Sidecar::Elsewhere => (None, None),
            },
            Death::Deleted(grace) => {
                shown.deletion = Some(Deletion {
                    at: whole_seconds(dies + grace),
                    grace: Some(grace),
                });
                timeline.push((dies, Shown::Pod(Box::new(shown.clone()))));
                let signal = tasks_dead(rng, grace);
                (Some(signal), Some((dies + grace).max(signal + least)))
            }
            Death::Stopped => {
                let signal = tasks_dead(rng, pod.termination_grace);
                (
                    Some(signal),
                    Some((dies + pod.termination_grace).max(signal + least)),
                )
            }
            Death::Forced => {
                timeline.push((dies, Shown::Gone));
                let signal = dies + between(rng, 0.0, 10.0);
                (Some(signal), Some(signal + least))
            }
            Death::Replaced => {
                let other = Observation {
                    uid: Some("u2".to_owned()),
                    ..pod.clone()
                };
                timeline.push((dies, Shown::Other(Box::new(other))));
                let signal = dies + between(rng, 0.0, 10.0);
                (Some(signal), Some(signal + least))
            }
        };
        let (signal, kill) = match sidecar {
            // podbeat does not run in the pod: no signals come, except perhaps from a user.
            Sidecar::Elsewhere
                if matches!(death, Death::Natural | Death::Forced | Death::Replaced) =>
            {
                (None, None)
            }
            Sidecar::Elsewhere => (Some(dies), None),
            Sidecar::Native | Sidecar::Plain => (signal, kill),
        };
        let end = kill.or(signal).unwrap_or(last).max(last);
        let mut life = Self {
            sidecar,
            death,
            dies: (!natural).then_some(dies),
            timeline,
            completed: completed.filter(|_| natural),
            signal,
            kill,
            second_signal: chance(rng, 10),
            api_outages: vec![],
            service_outages: vec![],
            stops: vec![],
            crashes: vec![],
            wall_steps: vec![],
            marked: false,
            reads: Reads::Prompt,
            files: vec![],
            horizon: end + Duration::from_secs(3600),
        };
        life.trouble(rng, end);
        life
    }

    /// Draws what the tasks' own wrappers leave in the directory of exit markers, and which other
    /// files are there.
    fn mark(&mut self, rng: &mut fastrand::Rng, pod: &Observation, all: &[Run]) {
        if chance(rng, 40) {
            return;
        }
        self.marked = true;
        self.reads = match rng.u32(0..10) {
            0 => Reads::Never,
            1 => Reads::Slow,
            _ => Reads::Prompt,
        };
        for (nth, container) in pod.containers.iter().enumerate() {
            let wrapper = rng.u32(0..10);
            if wrapper == 0 {
                continue;
            }
            let by_exec = wrapper > 1;
            for run in all.iter().filter(|run| run.container == nth) {
                let Some((ended, code)) = self.ends(rng, run) else {
                    break;
                };
                if by_exec {
                    self.files.push((run.begun, container.name.clone(), None));
                }
                // A kill of the whole container at once leaves no marker.
                let left = ended.filter(|_| !chance(rng, 10));
                if let Some(at) = left {
                    let file = File {
                        found: left_at(&container.name, code, at, by_exec),
                        run: run.number,
                        by_exec,
                    };
                    self.files.push((at, container.name.clone(), Some(file)));
                }
            }
        }
        if chance(rng, 20) {
            let before = Timestamp::from_second(DAWN - 100).expect("in range");
            let file = |name: &str| File {
                found: Found {
                    written_at: before,
                    ..left_at(name, 9, Duration::ZERO, false)
                },
                run: -1,
                by_exec: false,
            };
            self.files.push((
                Duration::ZERO,
                "stranger".to_owned(),
                Some(file("stranger")),
            ));
            self.files
                .push((Duration::ZERO, "task0".to_owned(), Some(file("task0"))));
        }
        self.files.sort_by_key(|(at, ..)| *at);
    }

    /// When a run ends (`None` if it leaves no marker), and its exit code. `None` for a run that
    /// never began.
    fn ends(&self, rng: &mut fastrand::Rng, run: &Run) -> Option<(Option<Duration>, i32)> {
        let Some(dies) = self.dies.filter(|dies| *dies <= run.ended) else {
            return Some((Some(run.ended), run.code));
        };
        if dies <= run.begun {
            return None;
        }
        let code = [143, 0, 1][rng.usize(0..3)];
        let signal = self.signal.unwrap_or(dies);
        let (from, until) = match self.sidecar {
            Sidecar::Native => (dies, signal),
            Sidecar::Plain | Sidecar::Elsewhere => {
                (signal, self.kill.unwrap_or(signal + Duration::from_secs(5)))
            }
        };
        let at = match rng.u32(0..4) {
            // It runs until SIGKILL.
            0 => None,
            1 => Some(between(rng, from.as_secs_f64(), until.as_secs_f64())),
            _ => Some(between(
                rng,
                from.as_secs_f64(),
                until.as_secs_f64().min(from.as_secs_f64() + 0.5),
            )),
        };
        Some((at, code))
    }

    /// Adds outages, crashes and clock steps. A third of all lives have none.
    fn trouble(&mut self, rng: &mut fastrand::Rng, end: Duration) {
        let span = end.as_secs_f64() + 1.0;
        if chance(rng, 33) {
            return;
        }
        for _ in 0..rng.usize(0..4) {
            let from = between(rng, 0.0, span);
            let kind = match rng.u32(0..20) {
                0..4 => ServiceFault::Refuses,
                4..9 => ServiceFault::Hangs,
                9..12 => ServiceFault::LosesAnswers,
                12..17 => {
                    ServiceFault::Says([500, 502, 503, 504, 429, 408, 401, 403][rng.usize(0..8)])
                }
                17 => ServiceFault::Says(400),
                _ => ServiceFault::Says([404, 409, 410][rng.usize(0..3)]),
            };
            self.service_outages.push(Outage {
                from,
                until: from + spread(rng, 0.05, 900.0),
                kind,
            });
        }
        if chance(rng, 20) {
            // A request that is delayed until shortly after the end can arrive after the last
            // heartbeat.
            let kind = match rng.u32(0..3) {
                0 => ServiceFault::Hangs,
                1 => ServiceFault::LosesAnswers,
                _ => ServiceFault::Says(504),
            };
            let from = end.saturating_sub(between(rng, 0.0, 40.0));
            let until = end + spread(rng, 0.05, 15.0);
            // A cut network: it delays the requests on their way, and later ones find no
            // connection.
            let cut = from + (until - from).mul_f64(rng.f64().powi(2));
            for (from, until, kind) in [(from, cut, kind), (cut, until, ServiceFault::Refuses)] {
                self.service_outages.push(Outage { from, until, kind });
            }
        }
        for _ in 0..rng.usize(0..3) {
            let from = between(rng, 0.0, span);
            self.api_outages.push(Outage {
                from,
                until: from + spread(rng, 0.05, 900.0),
                kind: (),
            });
        }
        if chance(rng, 40) {
            for _ in 0..rng.usize(1..4) {
                self.crashes
                    .push((between(rng, 0.0, span), spread(rng, 0.1, 60.0)));
            }
            self.crashes.sort_unstable();
        }
        if chance(rng, 20) {
            for _ in 0..rng.usize(1..3) {
                self.wall_steps
                    .push((between(rng, 0.0, span), rng.i64(-7200..7200)));
            }
        }
    }
}
