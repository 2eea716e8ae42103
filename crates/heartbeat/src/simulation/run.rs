//! The simulated world: a queue of happenings in order of time, and a shell that decides as little
//! as the real one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use jiff::SignedDuration;
use podbeat_task_runs::Secret;

use super::check::{Accepted, Judge};
use super::digest::Digest;
use super::flaw::{Flaw, Subject};
use super::life::{File, Life, Reads, ServiceFault, Shown, between, wall_at};
use crate::Now;
use crate::answer::Answer;
use crate::machine::{Action, Attempt, End, Event, Look, Note, Settings};
use crate::observation::Sidecar;
use crate::report::{Identity, Report};
use crate::saved::Saved;

/// Part of every token, so that the simulation can search for it.
pub(super) const TOKEN: &str = "hunter2";

/// A watch is open again within this many seconds after an outage.
const RECONNECTS: f64 = 35.0;

/// The result of a life.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) events: u64,
    pub(super) faults: u64,
    pub(super) violations: Vec<String>,
    pub(super) story: Vec<String>,
    /// With [`Record::Digest`] only.
    pub(super) digest: u64,
}

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Only the counts and the violations.
    Nothing,
    /// Every step, for a person.
    Story,
    /// A number for everything.
    Digest,
}

/// Runs and judges one life. A panic is a violation (G8).
pub(super) fn live(seed: u64, flaw: Option<Flaw>, record: Record) -> Outcome {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, flaw, record);
        world.turn();
        world.judged()
    }));
    outcome.unwrap_or_else(|_| Outcome {
        violations: vec!["G8: a panic".to_owned()],
        ..Outcome::default()
    })
}

enum Happening {
    /// The API server changes to this entry of the timeline.
    PodChanges(usize),
    /// The watch of this process shows the API server's current state.
    WatchBrings(u32),
    /// The API server confirms that nothing changed, once a minute.
    WatchConfirms(u32),
    LookIsAnswered(u32, bool),
    /// A file in the directory of exit markers changes: the nth such change.
    FileChanges(usize),
    /// A read of that directory returns these files, or the current ones.
    MarkersAreRead(u32, Option<Vec<File>>),
    /// A request reaches the service.
    Arrives(Box<Request>),
    IsAnswered {
        process: u32,
        attempt: u64,
        answer: Answer,
        jwt: Option<String>,
    },
    /// This process asked to be woken at this time.
    Woke(u32, Duration),
    Signal,
    Kill,
    Crash(Duration),
    /// podbeat's container is stopped while the pod continues: the nth such stop.
    Stop(usize),
    /// The grace period of this stopped process ends.
    StopKills(u32),
    Restart,
    WallStep(i64),
    ApiReturns,
    Durable(u32, Box<Saved>),
}

/// A request on the wire.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) process: u32,
    pub(super) attempt: Attempt,
    pub(super) late: bool,
    /// When podbeat sends it: not before the journal is written.
    begins: Duration,
    fate: Fate,
}

/// What happens to the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answers,
    LosesAnswer,
    Says(u16),
    /// It arrives so late that podbeat no longer waits for an answer.
    TooLate,
}

struct Entry {
    at: Duration,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The current process.
struct Process {
    machine: Subject,
    number: u32,
    begun: Duration,
    wake: Option<Duration>,
    /// The attempt in flight: its request, and whether no answer will come.
    in_flight: Option<(Request, bool)>,
    watches: bool,
    /// When the watch is open again after an outage, because copies spread their reconnects.
    reconnects: Duration,
    hurried: bool,
    /// Whether a read of the markers is under way.
    reads: bool,
    /// If the container is being stopped, alone or with all others of the pod: when it is started
    /// again.
    starts: Option<Duration>,
}

struct World {
    life: Life,
    rng: fastrand::Rng,
    now: Duration,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    /// The current index into the timeline.
    shown: usize,
    process: Option<Process>,
    processes: u32,
    deaths: Vec<(u32, Duration)>,
    settings: Settings,
    flaw: Option<Flaw>,
    token: Secret,
    durable: Option<Saved>,
    written_at: Duration,
    wall_off: i64,
    /// The files in the directory of exit markers, and since when each one exists.
    files: BTreeMap<String, (Duration, File)>,
    /// Whether the service answers 409 after it accepted a last heartbeat.
    strict: bool,
    over: bool,
    judge: Judge,
    outcome: Outcome,
    record: Record,
    digest: Digest,
}

impl World {
    fn new(seed: u64, flaw: Option<Flaw>, record: Record) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let life = Life::draw(&mut rng);
        let interval = between(&mut rng, 5.0, 60.0);
        let settings = Settings {
            identity: Identity {
                pod_name: "p".to_owned(),
                pod_uid: (life.sidecar != Sidecar::Elsewhere).then(|| "u1".to_owned()),
                ..Identity::default()
            },
            nonce: (rng.u32(0..5) == 0).then(|| "given".to_owned()),
            interval,
            timeout: between(&mut rng, 1.0, 10.0),
            report: [Report::Task, Report::Task, Report::All][rng.usize(0..3)],
            max_status_age: Duration::from_secs([20, 300, 300, 3600][rng.usize(0..4)]),
            journaled: rng.u32(0..10) < 7,
            markers: life.marked,
        };
        let judge = Judge::new(&settings, life.reads == Reads::Prompt);
        let mut world = Self {
            strict: rng.bool(),
            token: Secret::new(format!("{TOKEN}-first")),
            life,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            order: 0,
            shown: 0,
            process: None,
            processes: 0,
            deaths: vec![],
            settings,
            flaw,
            durable: None,
            written_at: Duration::ZERO,
            wall_off: 0,
            files: BTreeMap::new(),
            over: false,
            judge,
            outcome: Outcome::default(),
            record,
            digest: Digest::default(),
            rng,
        };
        world.tell(|world| format!("{:#?}\n{:#?}", world.settings, world.life));
        for nth in 1..world.life.timeline.len() {
            let at = world.life.timeline[nth].0;
            world.happens(at, Happening::PodChanges(nth));
        }
        if let Some(at) = world.life.signal {
            world.happens(at, Happening::Signal);
            if world.life.second_signal {
                let later = between(&mut world.rng, 0.01, 5.0);
                world.happens(at + later, Happening::Signal);
            }
        }
        if let Some(at) = world.life.kill {
            world.happens(at, Happening::Kill);
        }
        for nth in 0..world.life.files.len() {
            let at = world.life.files[nth].0;
            world.happens(at, Happening::FileChanges(nth));
        }
        for nth in 0..world.life.stops.len() {
            let at = world.life.stops[nth].at;
            world.happens(at, Happening::Stop(nth));
        }
        for nth in 0..world.life.crashes.len() {
            let (at, pause) = world.life.crashes[nth];
            world.happens(at, Happening::Crash(pause));
        }
        for nth in 0..world.life.wall_steps.len() {
            let (at, step) = world.life.wall_steps[nth];
            world.happens(at, Happening::WallStep(step));
        }
        for nth in 0..world.life.api_outages.len() {
            let until = world.life.api_outages[nth].until;
            world.happens(until, Happening::ApiReturns);
        }
        let faults = world.life.api_outages.len()
            + world.life.service_outages.len()
            + world.life.crashes.len()
            + world.life.wall_steps.len();
        world.outcome.faults += u64::try_from(faults).unwrap_or(0);
        world
    }

    fn tell(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.record == Record::Story {
            let line = format!("{:10.3} {}", self.now.as_secs_f64(), what(self));
            self.outcome.story.push(line);
        }
    }

    fn happens(&mut self, at: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry {
            at: at.max(self.now),
            order: self.order,
            what,
        }));
    }

    fn soon(&mut self, from: f64, to: f64) -> Duration {
        self.now + between(&mut self.rng, from, to)
    }

    fn api_is_up(&self) -> bool {
        !self
            .life
            .api_outages
            .iter()
            .any(|outage| outage.covers(self.now))
    }

    fn service_fault(&self) -> Option<ServiceFault> {
        self.life
            .service_outages
            .iter()
            .find(|outage| outage.covers(self.now))
            .map(|outage| outage.kind)
    }

    /// How long a request that is delayed now can stay delayed: until the service can accept
    /// another one, or disowns the run.
    fn holds_until(&self) -> Duration {
        let outages = &self.life.service_outages;
        let mut at = self.now;
        while let Some(nth) = outages.iter().position(|outage| outage.covers(at)) {
            if matches!(outages[nth].kind, ServiceFault::Says(404 | 409 | 410)) {
                break;
            }
            // If outages overlap, the one that is first in the list applies.
            let others = outages[..nth].iter().map(|outage| outage.from);
            let other = others
                .filter(|from| at < *from && *from < outages[nth].until)
                .min();
            at = other.unwrap_or(outages[nth].until);
        }
        at
    }

    fn clock(&self, begun: Duration) -> Now {
        Now {
            elapsed: self.now - begun,
            wall: wall_at(self.now)
                .checked_add(SignedDuration::from_secs(self.wall_off))
                .expect("in range"),
        }
    }

    // ---- the world ----

    fn turn(&mut self) {
        self.start();
        while let Some(Reverse(entry)) = self.queue.pop() {
            if self.over || entry.at > self.life.horizon {
                break;
            }
            self.now = entry.at;
            self.happened(entry.what);
        }
    }

    fn judged(self) -> Outcome {
        let Self {
            judge,
            mut outcome,
            mut digest,
            life,
            process,
            ..
        } = self;
        let alive = process.is_some();
        outcome.violations.extend(judge.verdict(&life, alive));
        for violation in &outcome.violations {
            outcome.story.push(format!("VIOLATION {violation}"));
        }
        digest.take(&(outcome.events, outcome.faults, &outcome.violations));
        outcome.digest = digest.number();
        outcome
    }

    fn start(&mut self) {
        self.processes += 1;
        let seed = self.rng.u64(..);
        let begun = self.now;
        let settings = self.settings.clone();
        let saved = self.durable.clone().filter(|_| settings.journaled);
        let saved = saved.map(|saved| {
            let json = serde_json::to_string(&saved).expect("JSON");
            serde_json::from_str(&json).expect("read back")
        });
        let machine = Subject::new(settings, seed, saved, self.flaw, self.clock(begun));
        self.judge.process_begins(self.now);
        self.process = Some(Process {
            machine,
            number: self.processes,
            begun,
            wake: None,
            in_flight: None,
            watches: true,
            reconnects: Duration::ZERO,
            hurried: false,
            reads: false,
            starts: None,
        });
        self.tell(|world| format!("process {} starts", world.processes));
        self.on(Event::Started);
        let first = self.soon(0.001, 0.3);
        let number = self.processes;
        self.happens(first, Happening::WatchBrings(number));
        let confirms = self.soon(50.0, 60.0);
        self.happens(confirms, Happening::WatchConfirms(number));
    }

    fn happened(&mut self, what: Happening) {
        match what {
            Happening::PodChanges(nth) => {
                self.shown = nth;
                self.bring_soon();
            }
            Happening::ApiReturns => self.reconnect(RECONNECTS),
            Happening::WatchBrings(process) => {
                if self.watches(process) && self.api_is_up() && self.is_connected() {
                    let event = self.sight();
                    self.on(event);
                }
            }
            Happening::WatchConfirms(process) => {
                if self.watches(process) {
                    if self.api_is_up() && self.is_connected() {
                        self.on(Event::Confirmed);
                    }
                    let next = self.soon(50.0, 60.0);
                    self.happens(next, Happening::WatchConfirms(process));
                }
            }
            Happening::LookIsAnswered(process, fails) => {
                if self.is_at(process) {
                    let look = match &self.life.timeline[self.shown].1 {
                        _ if fails || !self.api_is_up() => Look::Failed,
                        Shown::Pod(pod) => Look::Found((**pod).clone()),
                        Shown::Gone | Shown::Other(_) => Look::Gone,
                    };
                    match &look {
                        Look::Found(pod) => self.judge.observed(self.now, pod),
                        Look::Gone => self.judge.gone(self.now),
                        Look::Failed => {}
                    }
                    self.on(Event::Looked(look));
                }
            }
            Happening::FileChanges(nth) => {
                let (_, name, file) = self.life.files[nth].clone();
                match file {
                    Some(file) => self.files.insert(name, (self.now, file)),
                    None => self.files.remove(&name),
                };
            }
            Happening::MarkersAreRead(process, files) => {
                if self.is_at(process) {
                    if let Some(process) = &mut self.process {
                        process.reads = false;
                    }
                    let files = files.unwrap_or_else(|| self.files_now());
                    let found = files.iter().map(|file| file.found.clone()).collect();
                    self.judge.markers_read(files);
                    self.on(Event::Markers(found));
                }
            }
            Happening::Arrives(request) => self.arrives(*request),
            Happening::IsAnswered {
                process,
                attempt,
                answer,
                jwt,
            } => self.is_answered(process, attempt, answer, jwt),
            Happening::Woke(process, at) => {
                let due = self
                    .process
                    .as_ref()
                    .is_some_and(|alive| alive.number == process && alive.wake == Some(at));
                if due {
                    self.on(Event::Woke);
                }
            }
            Happening::Signal => {
                if let Some(process) = &mut self.process {
                    // Now the pod itself ends.
                    process.starts = None;
                    self.judge.signalled(self.now);
                    self.on(Event::Signal);
                }
            }
            Happening::Stop(nth) => {
                let stop = self.life.stops[nth];
                let terminating = self.life.signal.is_some_and(|signal| signal <= self.now);
                if let Some(process) = self.process.as_mut().filter(|_| !terminating) {
                    process.starts = Some(stop.starts);
                    let number = process.number;
                    self.judge.stopping(self.now);
                    self.happens(stop.kill, Happening::StopKills(number));
                    self.on(Event::Signal);
                }
            }
            Happening::StopKills(process) => {
                if self
                    .process
                    .as_ref()
                    .is_some_and(|alive| alive.number == process && alive.starts.is_some())
                {
                    self.tell(|_| "SIGKILL".to_owned());
                    self.ends(None);
                }
            }
            Happening::Kill => {
                self.tell(|_| "SIGKILL".to_owned());
                self.ends(None);
            }
            Happening::Crash(pause) => self.crash(pause),
            Happening::Restart => self.start(),
            Happening::WallStep(step) => self.wall_off += step,
            Happening::Durable(process, saved) => {
                if self.is_at(process) {
                    self.durable = Some(*saved);
                }
            }
        }
    }

    fn is_at(&self, process: u32) -> bool {
        self.process
            .as_ref()
            .is_some_and(|alive| alive.number == process)
    }

    fn watches(&self, process: u32) -> bool {
        self.process
            .as_ref()
            .is_some_and(|alive| alive.number == process && alive.watches)
    }

    fn is_connected(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|alive| alive.reconnects <= self.now)
    }

    /// A broken watch is open again within this many seconds; at once if the process asked to
    /// hurry.
    fn reconnect(&mut self, within: f64) {
        let hurried = self.process.as_ref().is_some_and(|process| process.hurried);
        let at = self.soon(0.001, if hurried { 0.05 } else { within });
        if let Some(process) = &mut self.process {
            process.reconnects = at;
        }
        self.bring_soon();
    }

    /// The watch shows the new state within a moment. Sometimes it lags, and podbeat never sees the
    /// states in between.
    fn bring_soon(&mut self) {
        let Some((number, reconnects)) = self
            .process
            .as_ref()
            .map(|process| (process.number, process.reconnects))
        else {
            return;
        };
        let at = match self.rng.u32(0..100) {
            0..3 => self.soon(0.5, 20.0),
            _ => self.soon(0.001, 0.05),
        };
        self.happens(at.max(reconnects), Happening::WatchBrings(number));
    }

    fn sight(&mut self) -> Event {
        match &self.life.timeline[self.shown].1 {
            Shown::Pod(pod) => {
                let pod = (**pod).clone();
                self.judge.observed(self.now, &pod);
                Event::Observed(pod)
            }
            Shown::Gone => {
                self.judge.gone(self.now);
                Event::Gone(None)
            }
            Shown::Other(pod) => {
                self.judge.gone(self.now);
                Event::Observed((**pod).clone())
            }
        }
    }

    fn crash(&mut self, pause: Duration) {
        let terminating = self.life.signal.is_some_and(|signal| signal <= self.now);
        if self.process.is_none() || terminating {
            // The kubelet starts no container of a pod that it is stopping.
            return;
        }
        self.tell(|_| "crash".to_owned());
        self.give_up_in_flight();
        self.deaths.push((self.processes, self.now));
        self.process = None;
        self.judge.crashed(self.now);
        self.starts_again(self.now + pause);
    }

    /// The kubelet starts no container of a pod that it is stopping.
    fn starts_again(&mut self, at: Duration) {
        let stopped = self.life.signal.is_some_and(|signal| signal <= at);
        if stopped {
            self.judge.never_restarted();
            self.over = true;
        } else {
            self.happens(at, Happening::Restart);
        }
    }

    fn ends(&mut self, end: Option<End>) {
        let Some(process) = &self.process else { return };
        let (number, starts) = (process.number, process.starts);
        self.give_up_in_flight();
        self.deaths.push((number, self.now));
        self.process = None;
        if let Some(at) = starts {
            self.judge.stopped(self.now, end.as_ref());
            if end.is_some() {
                // The shell waits for the journal before it ends.
                let of_this = |Reverse(entry): &Reverse<Entry>| match &entry.what {
                    Happening::Durable(process, saved) if *process == number => {
                        Some((entry.order, saved.clone()))
                    }
                    _ => None,
                };
                let last = self
                    .queue
                    .iter()
                    .filter_map(of_this)
                    .max_by_key(|(order, _)| *order);
                self.durable = last.map(|(_, saved)| *saved).or(self.durable.take());
            }
            let soon = self.soon(0.05, 1.0);
            self.starts_again(at.max(soon));
            return;
        }
        self.judge.ended(self.now, end);
        // Requests that are still on the wire arrive even so.
        let mut rest: Vec<Entry> = std::mem::take(&mut self.queue)
            .into_iter()
            .map(|Reverse(entry)| entry)
            .collect();
        rest.sort();
        for entry in rest {
            if let Happening::Arrives(request) = entry.what {
                self.now = entry.at;
                self.arrives(*request);
            }
        }
        self.over = true;
    }

    // ---- the shell ----

    fn on(&mut self, event: Event) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.tell(|_| format!("  {event:?}"));
        self.outcome.events += 1;
        if self.record == Record::Digest {
            self.digest.take(&(self.now, &event));
        }
        let clock = self.clock(process.begun);
        let actions = process.machine.on(event, clock);
        let number = process.number;
        self.process = Some(process);
        let mut durable_at = self.now;
        let mut end = None;
        for action in actions {
            if self.record == Record::Digest {
                self.digest.take(&action);
            }
            match &action {
                Action::WakeAt(_) => {}
                action => self.tell(|_| format!("    → {action:?}")),
            }
            match action {
                Action::Persist(saved) => {
                    // There is one file and one writer, so a later write is on the disk later.
                    durable_at = self.soon(0.0001, 0.05).max(self.written_at);
                    self.written_at = durable_at;
                    self.happens(durable_at, Happening::Durable(number, saved));
                }
                Action::Send(attempt) => self.send(attempt, durable_at),
                Action::Abort => self.give_up_in_flight(),
                Action::LookAtPod(limit) => self.look(limit),
                // No simulated pod belongs to a Job.
                Action::CountRetries(_) => {}
                Action::ReadMarkers => self.read_markers(),
                Action::WakeAt(at) => {
                    if let Some(process) = &mut self.process {
                        let wake = at.map(|at| (process.begun + at).max(self.now));
                        let again = process.wake == wake;
                        process.wake = wake;
                        if let Some(wake) = wake.filter(|_| !again || wake == Some(self.now)) {
                            self.happens(wake, Happening::Woke(number, wake));
                        }
                    }
                }
                Action::HurryWatch => {
                    if let Some(process) = &mut self.process {
                        process.hurried = true;
                        if process.reconnects > self.now {
                            self.reconnect(RECONNECTS);
                        }
                    }
                }
                Action::StopWatching => {
                    if let Some(process) = &mut self.process {
                        process.watches = false;
                    }
                }
                Action::Note(note) => self.note(&note),
                Action::End(ending) => end = Some(ending),
            }
        }
        if let Some(process) = &self.process {
            self.judge.losses(process.number, process.machine.losses());
        }
        if let Some(end) = end {
            // The shell waits for the journal before it ends.
            self.ends(Some(end));
        }
    }

    fn note(&mut self, note: &Note) {
        self.judge.noted(self.now, note, &self.files);
        // Formatting a note takes longer than everything that led to it, so only some are checked.
        if self.rng.u32(0..16) == 0 {
            self.reveals(&format!("{note:?}"));
        }
    }

    fn look(&mut self, limit: Duration) {
        let Some(number) = self.process.as_ref().map(|process| process.number) else {
            return;
        };
        let answer = self.soon(0.001, 0.3);
        let (at, fails) = if answer > self.now + limit || !self.api_is_up() {
            (self.now + limit, true)
        } else {
            (answer, false)
        };
        self.happens(at, Happening::LookIsAnswered(number, fails));
    }

    fn files_now(&self) -> Vec<File> {
        self.files.values().map(|(_, file)| file.clone()).collect()
    }

    fn read_markers(&mut self) {
        let Some(process) = self.process.as_mut().filter(|process| !process.reads) else {
            return;
        };
        process.reads = true;
        let number = process.number;
        let (at, files) = match self.life.reads {
            Reads::Prompt => (self.soon(0.0005, 0.02), None),
            Reads::Slow => (self.soon(0.1, 5.0), Some(self.files_now())),
            Reads::Never => return,
        };
        self.happens(at, Happening::MarkersAreRead(number, files));
    }

    fn send(&mut self, attempt: Attempt, durable_at: Duration) {
        let Some(process) = &self.process else { return };
        let number = process.number;
        let busy = process.in_flight.is_some();
        self.judge
            .sent(self.now, number, &attempt, busy, &self.files);
        if self.rng.u32(0..8) == 0 {
            // The flaw is a secret that prints itself.
            let shown = match self.flaw {
                Some(Flaw::Secret) => self.token.expose().to_owned(),
                Some(_) | None => format!("{:?}", self.token),
            };
            self.reveals(&format!("{attempt:?} {shown}"));
        }
        let begins = durable_at.max(self.now);
        let trips = between(&mut self.rng, 0.001, 0.08);
        let arrives = begins + trips;
        let back = between(&mut self.rng, 0.001, 0.08);
        let fault = self.service_fault().or_else(|| self.stray_fault());
        let mut request = Request {
            process: number,
            attempt,
            late: false,
            begins,
            fate: Fate::Answers,
        };
        let mut hangs = false;
        match fault {
            None => self.happens(arrives, Happening::Arrives(Box::new(request.clone()))),
            Some(ServiceFault::Refuses) => {
                let attempt = request.attempt.number;
                self.happens(
                    arrives,
                    Happening::IsAnswered {
                        process: number,
                        attempt,
                        answer: Answer::NotSent,
                        jwt: None,
                    },
                );
            }
            Some(ServiceFault::Hangs) => {
                hangs = true;
                request.fate = Fate::TooLate;
            }
            Some(ServiceFault::LosesAnswers) => {
                request.fate = Fate::LosesAnswer;
                self.happens(arrives, Happening::Arrives(Box::new(request.clone())));
            }
            Some(ServiceFault::Says(status)) => {
                request.fate = Fate::Says(status);
                self.happens(
                    arrives + back,
                    Happening::Arrives(Box::new(request.clone())),
                );
            }
        }
        if fault.is_some() {
            self.outcome.faults += 1;
            self.judge.service_fault(self.now);
        }
        if let Some(process) = &mut self.process {
            process.in_flight = Some((request, hangs));
        }
    }

    /// In lives with service outages, two in a hundred requests also fail by themselves.
    fn stray_fault(&mut self) -> Option<ServiceFault> {
        if self.life.service_outages.is_empty() || self.rng.u32(0..100) > 1 {
            return None;
        }
        Some(match self.rng.u32(0..6) {
            0 => ServiceFault::Refuses,
            1 => ServiceFault::Hangs,
            2 => ServiceFault::LosesAnswers,
            3 => ServiceFault::Says(if self.rng.bool() { 503 } else { 504 }),
            4 => ServiceFault::Says(401),
            _ => ServiceFault::Says(404),
        })
    }

    /// Drops the connection. A hanging request may still arrive: until its obstacle is gone, and
    /// within the time of one more attempt after that.
    fn give_up_in_flight(&mut self) {
        let Some((request, hangs)) = self
            .process
            .as_mut()
            .and_then(|process| process.in_flight.take())
        else {
            return;
        };
        if hangs && request.begins <= self.now && self.rng.bool() {
            self.arrives_late(request);
        }
    }

    fn arrives_late(&mut self, mut request: Request) {
        let free = self.holds_until();
        // Usually after the path is free again.
        let earliest = if self.rng.u32(0..4) == 0 {
            self.now
        } else {
            free
        };
        let latest = free + self.settings.timeout.mul_f64(0.99);
        let at = earliest + (latest - earliest).mul_f64(self.rng.f64());
        request.late = true;
        request.fate = Fate::TooLate;
        self.happens(at, Happening::Arrives(Box::new(request)));
    }

    fn is_answered(&mut self, number: u32, attempt: u64, answer: Answer, jwt: Option<String>) {
        let Some(process) = self
            .process
            .as_mut()
            .filter(|process| process.number == number)
        else {
            return;
        };
        let awaited = process
            .in_flight
            .as_ref()
            .is_some_and(|(request, _)| request.attempt.number == attempt);
        if awaited {
            process.in_flight = None;
        }
        if let Some(jwt) = jwt.filter(|_| awaited) {
            self.token = Secret::new(jwt);
            self.reveals(&format!("{:?}", self.token));
        }
        self.judge.answered(self.now, &answer);
        self.on(Event::Answered { attempt, answer });
    }

    /// G6: no text that could be printed contains a token.
    fn reveals(&mut self, text: &str) {
        if text.contains(TOKEN) {
            self.judge.complain("G6: a token is printed");
        }
    }

    // ---- the service ----

    fn arrives(&mut self, mut request: Request) {
        let died = self
            .deaths
            .iter()
            .find(|(process, _)| *process == request.process);
        if died.is_some_and(|(_, at)| *at < request.begins) {
            return;
        }
        let alive = self.is_at(request.process);
        let attempt = request.attempt.number;
        let awaited = self
            .process
            .as_ref()
            .and_then(|process| process.in_flight.as_ref());
        request.late |=
            !alive || awaited.is_none_or(|(awaited, _)| awaited.attempt.number != attempt);
        let back = between(&mut self.rng, 0.001, 0.08);
        let closed = self.strict && self.judge.has_accepted_final();
        let known = self.judge.knows(&request);
        let answer = match request.fate {
            Fate::Says(status) => {
                // A gateway may have forwarded the request that it answers with an error, or may
                // still do so.
                let by_gateway = matches!(status, 502 | 504);
                match self.rng.u32(0..4) {
                    0 if by_gateway && !closed => {
                        self.judge.accepted(Accepted::of(&request, self.now))
                    }
                    1 if by_gateway => self.arrives_late(request.clone()),
                    _ => {}
                }
                let seconds = self.rng.u64(0..60);
                let retry_after = self.rng.bool().then(|| Duration::from_secs(seconds));
                Answer::from_status(status, retry_after)
            }
            // After a last heartbeat, a strict service accepts at most its repetition.
            _ if closed && !(known && self.rng.bool()) => Answer::Disowned { status: 409 },
            _ => {
                self.judge.accepted(Accepted::of(&request, self.now));
                Answer::Accepted
            }
        };
        self.tell(|_| {
            format!(
                "  service: attempt {attempt} of process {} {answer:?}",
                request.process
            )
        });
        if !alive || matches!(request.fate, Fate::LosesAnswer | Fate::TooLate) {
            return;
        }
        let jwt = (answer == Answer::Accepted && self.rng.u32(0..10) == 0)
            .then(|| format!("{TOKEN}-{}{}", self.order, ["", "\n"][self.rng.usize(0..2)]));
        self.happens(
            self.now + back,
            Happening::IsAnswered {
                process: request.process,
                attempt,
                answer,
                jwt,
            },
        );
    }
}
