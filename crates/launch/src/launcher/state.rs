//! What a launcher has in memory. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::limiter::Limiter;
use crate::queue::Queue;
use crate::seen::{JobSeen, Kind, PodSeen, Seen};
use crate::settings::Limits;

/// What a launcher has in memory. All of it can be lost.
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) limiter: Limiter,
    /// What the watches showed, by run and attempt.
    pub(super) seen: HashMap<String, BTreeMap<u32, Seen>>,
    /// The namespaces of which all Jobs, or all pods, are known.
    pub(super) listed: HashSet<(String, Object)>,
    /// When runs may begin their next attempt.
    pub(super) reserved: HashMap<String, Duration>,
    /// When attempts that have begun may create their Job.
    pub(super) granted: HashMap<String, Duration>,
    /// How often the API server refused the objects of a run, one refusal after the other.
    pub(super) refusals: HashMap<String, u32>,
    /// Runs for which there is no free attempt, in the order of creation.
    pub(super) parked: BTreeMap<u64, String>,
    /// The number of attempts, and when it was counted.
    pub(super) attempts: Option<(Duration, usize)>,
    /// Since when a pod waits for what kind of reason, by run.
    pub(super) waits: HashMap<String, (String, Kind, Duration)>,
    /// How many passes over a run failed, one after the other.
    pub(super) failures: HashMap<String, u32>,
    /// The Secret that was created for a run, by its attempt and UID.
    pub(super) secrets: HashMap<String, (u32, String)>,
    /// The latest attempt of a run of which no object is left.
    pub(super) clean: HashMap<String, u32>,
    pub(super) random: fastrand::Rng,
}

/// Which objects a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Object {
    Job,
    Pod,
}

impl State {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            queue: Queue::default(),
            limiter: Limiter::new(limits.creates_per_second, limits.create_burst),
            seen: HashMap::new(),
            listed: HashSet::new(),
            reserved: HashMap::new(),
            granted: HashMap::new(),
            refusals: HashMap::new(),
            parked: BTreeMap::new(),
            attempts: None,
            waits: HashMap::new(),
            failures: HashMap::new(),
            secrets: HashMap::new(),
            clean: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// When a run may begin its next attempt.
    pub(super) fn reserve(&mut self, run: &str, now: Duration) -> Duration {
        match self.reserved.get(run) {
            Some(due) => *due,
            None => {
                let due = self.limiter.reserve(now);
                self.reserved.insert(run.to_owned(), due);
                due
            }
        }
    }

    /// When an attempt that has begun may create its Job.
    pub(super) fn grant(&mut self, run: &str, now: Duration) -> Duration {
        match self.granted.get(run) {
            Some(due) => *due,
            None => {
                let due = self.limiter.reserve(now);
                self.granted.insert(run.to_owned(), due);
                due
            }
        }
    }

    /// A run began an attempt, with its reservation.
    pub(super) fn began(&mut self, run: &str) {
        if let Some(due) = self.reserved.remove(run) {
            self.granted.insert(run.to_owned(), due);
        }
        if let Some((_, attempts)) = &mut self.attempts {
            *attempts += 1;
        }
    }

    /// The number of attempts, with those that are about to begin.
    pub(super) fn used(&self) -> usize {
        let known = self.attempts.map_or(0, |(_, attempts)| attempts);
        known + self.reserved.len()
    }

    pub(super) fn of(&mut self, run: &str, attempt: u32) -> &mut Seen {
        let attempts = self.seen.entry(run.to_owned()).or_default();
        attempts.entry(attempt).or_default()
    }

    /// A run created its Job.
    pub(super) fn created(&mut self, run: &str) {
        self.granted.remove(run);
        self.refusals.remove(run);
    }

    /// The API server refused an object. Returns how often it did.
    pub(super) fn refused(&mut self, run: &str) -> u32 {
        // The next try is a request like others.
        self.granted.remove(run);
        let refusals = self.refusals.entry(run.to_owned()).or_default();
        *refusals = refusals.saturating_add(1);
        *refusals
    }

    /// What was seen of an attempt, if anything was.
    pub(super) fn known(&self, run: &str, attempt: u32) -> Option<&Seen> {
        self.seen.get(run)?.get(&attempt)
    }

    /// What was seen of an attempt, to be changed because an object is gone. Nothing is noted about
    /// runs that are forgotten.
    pub(super) fn known_mut(&mut self, run: &str, attempt: u32) -> Option<&mut Seen> {
        self.seen.get_mut(run)?.get_mut(&attempt)
    }

    /// A new list of a namespace replaces everything that was known of it.
    pub(super) fn list(
        &mut self,
        namespace: &str,
        jobs: Option<Vec<JobSeen>>,
        pods: Option<Vec<PodSeen>>,
        now: Duration,
    ) {
        for (run, attempts) in &mut self.seen {
            for seen in attempts.values_mut() {
                let mut is_changed = false;
                if jobs.is_some() {
                    let before = seen.job.is_some();
                    seen.job = seen.job.take().filter(|job| job.namespace != namespace);
                    is_changed |= before && seen.job.is_none();
                }
                if pods.is_some() {
                    let before = seen.pods.len();
                    seen.pods.retain(|_, pod| pod.namespace != namespace);
                    is_changed |= before != seen.pods.len();
                }
                if is_changed {
                    self.queue.add(run, now);
                }
            }
        }
        if let Some(jobs) = jobs {
            for job in jobs {
                self.queue.add(&job.run, now);
                let seen = self.of(&job.run, job.attempt);
                seen.job = Some(job);
            }
            self.listed.insert((namespace.to_owned(), Object::Job));
        }
        if let Some(pods) = pods {
            for pod in pods {
                self.queue.add(&pod.run, now);
                let seen = self.of(&pod.run, pod.attempt);
                seen.pods.insert(pod.name.clone(), pod);
            }
            self.listed.insert((namespace.to_owned(), Object::Pod));
        }
    }

    /// Forgets a run that needs nothing any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.reserved.remove(id);
        self.granted.remove(id);
        self.refusals.remove(id);
        self.waits.remove(id);
        self.secrets.remove(id);
        self.parked.retain(|_, parked| parked != id);
        // The last objects may still be shown, and go one by one.
        if let Some(attempts) = self.seen.get_mut(id) {
            attempts.retain(|_, seen| seen.job.is_some() || !seen.pods.is_empty());
            if attempts.is_empty() {
                self.seen.remove(id);
            }
        }
        // Later news of these objects needs no more questions.
        if !self.seen.contains_key(id) {
            self.clean.remove(id);
        }
    }
}
