//! The runs that have not ended, in memory: their waits, and one event at a time for each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::inspect::Record;
use super::problem::Problem;
use crate::store::{Change, Entry, Error, Store, StoredRun};
use crate::telemetry::messages::Message;
use podbeat_runs::{Event, Moment, Rules, Run, Status};

/// How often the times of heartbeats are stored.
const FLUSH: Duration = Duration::from_secs(5);

/// How long a request waits for the one before it about the same run.
const TURN: Duration = Duration::from_secs(10);

/// A run whose change was not answered is read again after this time.
const REREAD: Duration = Duration::from_secs(10);

/// The number of runs that end at the same time because their time is up.
const TOGETHER: usize = 64;

/// The time. Tests have their own.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;
}

/// The clock of a process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessClock(Instant);

impl ProcessClock {
    /// The clock of a process that started at this time.
    #[must_use]
    pub fn since(start: Instant) -> Self {
        Self(start)
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Moment {
        let now = Timestamp::now();
        Moment {
            // A store keeps microseconds, and an answer must not differ from the next one.
            wall: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
            elapsed: self.0.elapsed(),
        }
    }
}

/// A run, and its next wait.
#[derive(Default)]
struct Slot {
    /// `None` if it must be read from the store before its next event.
    run: Option<StoredRun>,
    /// The earliest time in the heap for it.
    scheduled: Option<Duration>,
}

/// Learns the IDs of runs that changed.
pub type Listener = Arc<dyn Fn(&str) + Send + Sync>;

type Shared = Arc<tokio::sync::Mutex<Slot>>;

/// Times and the IDs of the runs that may change then, earliest first.
type Waits = BinaryHeap<Reverse<(Duration, String)>>;

pub(super) struct Live {
    store: Arc<dyn Store>,
    record: Arc<Record>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    slots: Mutex<HashMap<String, Shared>>,
    waits: Mutex<Waits>,
    earlier: Notify,
    /// Who launches runs.
    listener: OnceLock<Listener>,
    /// Times of heartbeats that are not stored yet, by the numbers of the runs.
    seen: Mutex<HashMap<u64, Timestamp>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run, when it is this request's turn.
async fn turn(shared: &Shared) -> Result<tokio::sync::MutexGuard<'_, Slot>, Problem> {
    let turn = tokio::time::timeout(TURN, shared.lock());
    turn.await
        .map_err(|_| Problem::unavailable("an earlier request about this run takes too long"))
}

impl Live {
    pub(super) async fn start(
        (store, record): (Arc<dyn Store>, Arc<Record>),
        clock: Arc<dyn Clock>,
        rules: Rules,
    ) -> Result<Self, Error> {
        let runs = store.live().await?;
        let live = Self {
            store,
            record,
            clock,
            rules,
            slots: Mutex::default(),
            waits: Mutex::default(),
            earlier: Notify::new(),
            listener: OnceLock::new(),
            seen: Mutex::default(),
        };
        for run in runs {
            live.add(run);
        }
        Ok(live)
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn tell(&self, listener: Listener) {
        // Only the first one counts.
        let _ = self.listener.set(listener);
    }

    fn told(&self, id: &str, run: &Run) {
        if let Some(listener) = self.listener.get().filter(|_| run.is_launched()) {
            listener(id);
        }
    }

    /// Adds a run that is in the store.
    pub(super) fn add(&self, mut run: StoredRun) {
        self.record.changed();
        run.run.waits_from(self.now());
        let id = run.facts.id.clone();
        self.told(&id, &run.run);
        let mut slot = Slot {
            run: Some(run),
            scheduled: None,
        };
        self.schedule(&id, &mut slot);
        // If a heartbeat was faster, its slot stays.
        let mut slots = lock(&self.slots);
        slots
            .entry(id)
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(slot)));
    }

    /// Applies an event to a run, and stores the run if it changed. Returns the run.
    pub(super) async fn apply(
        &self,
        id: &str,
        allowed: impl Fn(&StoredRun) -> Result<(), Problem> + Send,
        by: &str,
        event: &Event,
    ) -> Result<StoredRun, Problem> {
        let shared = Arc::clone(lock(&self.slots).entry(id.to_owned()).or_default());
        let mut slot = turn(&shared).await?;
        let result = self.apply_to(&mut slot, id, allowed, by, event).await;
        let is_live = slot
            .run
            .as_ref()
            .is_some_and(|run| !run.run.status().is_final());
        if is_live {
            self.schedule(id, &mut slot);
        } else if slot.run.is_some() || slot.scheduled.is_none() {
            // It has ended, or does not exist. A run whose state is unknown stays.
            lock(&self.slots).remove(id);
        }
        result
    }

    async fn apply_to(
        &self,
        slot: &mut Slot,
        id: &str,
        allowed: impl Fn(&StoredRun) -> Result<(), Problem> + Send,
        by: &str,
        event: &Event,
    ) -> Result<StoredRun, Problem> {
        if slot.run.is_none() {
            slot.run = self.store.run(id.to_owned()).await?;
            if let Some(run) = &mut slot.run {
                run.run.waits_from(self.now());
            }
        }
        let run = slot.run.as_mut().ok_or(Problem::NotFound)?;
        allowed(run)?;
        let now = self.now();
        let mut next = run.run.clone();
        next.apply(event, now, &self.rules)?;
        let seen = matches!(event, Event::Heartbeat(_)).then_some(now.wall);
        if !next.differs(&run.run) {
            run.run = next;
            if let Some(seen) = seen.filter(|_| !run.run.status().is_final()) {
                lock(&self.seen).insert(run.number, seen);
            }
            return Ok(run.clone());
        }
        // Until the store has answered, the run is in an unknown state, also if this request is
        // given up now. Then a tick reads it again.
        self.wake(id, slot, now.elapsed.saturating_add(REREAD));
        let Some(mut run) = slot.run.take() else {
            return Err(Problem::NotFound);
        };
        self.store
            .change(Change {
                number: run.number,
                id: id.to_owned(),
                version: run.version,
                run: next.clone(),
                by: by.to_owned(),
                at: now.wall,
                seen,
                timeline: entries(&run.run, &next, now.wall),
            })
            .await?;
        self.record.changed();
        run.version += 1;
        by.clone_into(&mut run.modified_by);
        run.modified = now.wall;
        run.seen = seen.or(run.seen);
        run.run = next;
        slot.run = Some(run.clone());
        self.told(id, &run.run);
        if run.run.status().is_final() {
            Message::RunEnded {
                run: id,
                tenant: &run.facts.tenant,
                status: run.run.status().name(),
                details: run.run.details(),
            }
            .emit();
        }
        Ok(run)
    }

    /// Notes when the run may change without an event.
    fn schedule(&self, id: &str, slot: &mut Slot) {
        let run = slot.run.as_ref();
        if let Some(deadline) = run.and_then(|run| run.run.deadline(&self.rules)) {
            self.wake(id, slot, deadline);
        }
    }

    /// Applies a tick to a run at this time or earlier.
    fn wake(&self, id: &str, slot: &mut Slot, at: Duration) {
        let now = self.now().elapsed;
        let is_later = |scheduled| at < scheduled || scheduled <= now;
        if slot.scheduled.is_none_or(is_later) {
            slot.scheduled = Some(at);
            lock(&self.waits).push(Reverse((at, id.to_owned())));
            self.earlier.notify_one();
        }
    }

    pub(super) async fn keep_time(&self) {
        let flushing = async {
            loop {
                tokio::time::sleep(FLUSH).await;
                self.flush().await;
            }
        };
        let ticking = async {
            loop {
                self.wait().await;
                self.tick_due().await;
            }
        };
        tokio::join!(flushing, ticking);
    }

    /// Waits until a run may change.
    async fn wait(&self) {
        loop {
            let next = lock(&self.waits).peek().map(|Reverse((at, _))| *at);
            let changed = self.earlier.notified();
            match next {
                None => changed.await,
                Some(at) => {
                    let left = at.saturating_sub(self.now().elapsed);
                    if left.is_zero() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(left) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Applies a tick to every run whose time is up.
    pub(super) async fn tick_due(&self) {
        let now = self.now().elapsed;
        let mut due = Vec::new();
        {
            let mut waits = lock(&self.waits);
            while waits.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                due.extend(waits.pop().map(|Reverse((_, id))| id));
            }
        }
        stream::iter(due)
            .for_each_concurrent(TOGETHER, |id| async move {
                let shared = lock(&self.slots).get(&id).cloned();
                let Some(shared) = shared else { return };
                let allowed = |_: &StoredRun| Ok(());
                // A tick is never refused. If the store fails, the run is tried again later.
                let ticked = self.apply(&id, allowed, super::SERVER, &Event::Tick).await;
                if ticked.is_err() {
                    let mut slot = shared.lock().await;
                    self.wake(&id, &mut slot, now.saturating_add(REREAD));
                }
            })
            .await;
    }

    /// Stores the times of heartbeats.
    pub(super) async fn flush(&self) {
        let batch = std::mem::take(&mut *lock(&self.seen));
        if batch.is_empty() {
            return;
        }
        let rows = batch.iter().map(|(number, at)| (*number, *at)).collect();
        if self.store.seen(rows).await.is_ok() {
            self.record.changed();
        } else {
            let mut seen = lock(&self.seen);
            for (number, at) in batch {
                seen.entry(number).or_insert(at);
            }
        }
    }

    /// The time since the last heartbeat of the running run that was silent for longest. Skips runs
    /// that are in use.
    pub(super) fn longest_silence(&self) -> Option<Duration> {
        let now = self.now().elapsed;
        let slots = lock(&self.slots);
        let silences = slots.values().filter_map(|slot| {
            let slot = slot.try_lock().ok()?;
            let run = &slot.run.as_ref()?.run;
            (run.status() == Status::Running).then(|| now.saturating_sub(run.waits_since()))
        });
        silences.max()
    }

    /// A run, from memory or from the store.
    pub(super) async fn look(&self, id: &str) -> Result<Option<StoredRun>, Problem> {
        let shared = lock(&self.slots).get(id).cloned();
        if let Some(shared) = shared {
            let slot = turn(&shared).await?;
            if slot.run.is_some() {
                return Ok(slot.run.clone());
            }
        }
        let mut run = self.store.run(id.to_owned()).await?;
        if let Some(run) = &mut run {
            run.run.waits_from(self.now());
        }
        Ok(run)
    }

    /// The runs that the service launches, in the order of their creation. Those in use are first,
    /// because their place is not known.
    pub(super) fn launched(&self) -> Vec<String> {
        let mut launched: Vec<(u64, String)> = {
            let slots = lock(&self.slots);
            let of = |(id, slot): (&String, &Shared)| match slot.try_lock().ok() {
                None => Some((0, id.clone())),
                Some(slot) => match &slot.run {
                    Some(run) => run.run.is_launched().then(|| (run.number, id.clone())),
                    None => Some((0, id.clone())),
                },
            };
            slots.iter().filter_map(of).collect()
        };
        launched.sort_unstable();
        launched.into_iter().map(|(_, id)| id).collect()
    }

    /// The number of attempts that are launched and have not ended. Runs that are in use count.
    pub(super) fn attempts(&self) -> usize {
        let slots = lock(&self.slots);
        let has_attempt = |slot: &&Shared| {
            let Ok(slot) = slot.try_lock() else {
                return true;
            };
            let run = slot.run.as_ref().filter(|run| run.run.is_launched());
            run.is_some_and(|run| run.run.current_attempt().is_some())
        };
        slots.values().filter(has_attempt).count()
    }

    /// Whether a run is in memory.
    pub(super) fn has(&self, id: &str) -> bool {
        lock(&self.slots).contains_key(id)
    }

    /// The number of runs in memory.
    pub(super) fn len(&self) -> usize {
        lock(&self.slots).len()
    }
}

/// What a change means for people.
fn entries(before: &Run, after: &Run, at: Timestamp) -> Vec<Entry> {
    let mut texts = Vec::new();
    let known = before.attempts().last().map(|attempt| attempt.serial);
    if let Some(attempt) = after.attempts().last() {
        if known != Some(attempt.serial) {
            texts.push(format!("attempt {} began", attempt.number));
        }
        let earlier = before
            .attempts()
            .iter()
            .find(|earlier| earlier.serial == attempt.serial);
        let pod = |attempt: &podbeat_runs::Attempt| attempt.pod.uid.clone();
        if let (Some(uid), Some(name)) = (&attempt.pod.uid, &attempt.pod.name)
            && earlier.and_then(pod).as_ref() != Some(uid)
        {
            texts.push(format!("pod {name} reports, UID {uid}"));
        }
        for status in &attempt.containers {
            let is_known = earlier.is_some_and(|earlier| earlier.containers.contains(status));
            if is_known {
                continue;
            }
            let name = status.name.as_deref().unwrap_or("a container");
            let state = status.state_name().unwrap_or("without a state");
            texts.push(match status.terminated().and_then(|exit| exit.exit_code) {
                Some(code) => format!("container {name} {state} with exit code {code}"),
                None => format!("container {name} {state}"),
            });
        }
    }
    if before.status() != after.status() {
        let details = after.details().map(|details| format!(": {details}"));
        texts.push(format!("{}{}", after.status(), details.unwrap_or_default()));
    }
    texts.into_iter().map(|text| Entry { at, text }).collect()
}
