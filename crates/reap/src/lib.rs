//! Decides which pods ended without a last heartbeat, and what that heartbeat contains: for
//! `podbeat reap`, and for podbeat-server. Pure: takes pods one by one, and returns verdicts. `now` is
//! an argument.

mod missing;
mod rules;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use podbeat_heartbeat::observation::Observation;
use podbeat_kubernetes::listed::Listed;

pub use self::missing::{Missing, OwnWord, Uncounted, last_heartbeat, waits};
pub use self::rules::Rules;
use self::rules::ended_at;
use self::run::{Age, Claim, Run};

/// The memory limit for pods until all are listed, in bytes: enough for 90,000 pods with podbeat.
/// The container has 128 MiB (deploy/manifests/reap.yaml).
const MOST_KEPT: usize = 48 << 20;

/// The memory limit for last heartbeats that wait to be sent, in bytes. The rest is left for the
/// next time.
const MOST_WAITING: usize = 24 << 20;

/// The memory for a pod in addition to its texts, in bytes.
const CASE: usize = 512;

/// The memory for the name of a chosen pod in addition to its text, in bytes.
const NAME: usize = 64;

/// The maximum length of a run's ID, in bytes. Without a limit, a few pods could use all memory and
/// hide all others.
const LONGEST_RUN: usize = 1024;

/// The exit code of podbeat's container if its last heartbeat was not accepted
/// (`Ending::Undelivered`).
const UNDELIVERED: i32 = 75;

/// The verdict on one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The pod has a podbeat container, but does not show which run it executes.
    Unnamed,
    /// The run's ID needs an index, but the pod has none.
    Unindexed {
        /// The pattern for the run's ID.
        pattern: String,
    },
    /// The text for the run's ID is too long.
    Overlong,
    /// The pod exceeds the limits for reading, so its state is unknown.
    Unread {
        /// The run.
        run: String,
        /// The reason.
        why: String,
    },
    /// The pod has not ended.
    Open,
    /// podbeat ended once, with exit code 0, after the task. So the service accepted its last
    /// heartbeat, or the run did not belong to this pod.
    Settled {
        /// The run.
        run: String,
    },
    /// The pod ended too recently.
    Young {
        /// The run.
        run: String,
    },
    /// A later pod executes the same run. The last heartbeat of this pod would contain no news, and
    /// would end the later pod's run.
    Superseded {
        /// The run.
        run: String,
        /// The later pod.
        by: String,
    },
    /// Another pod of the run has not ended.
    Held {
        /// The run.
        run: String,
        /// The other pod.
        by: String,
    },
    /// Pods with several owners, or in several namespaces, claim the run. podbeat cannot know whose
    /// it is.
    Contested {
        /// The run.
        run: String,
        /// Some of these pods.
        pods: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// The pod ended, and nothing shows that the service accepted its last heartbeat.
    Missing(Box<Missing>),
    /// Like `Missing`, but too many others wait to be sent.
    Left {
        /// The run.
        run: String,
    },
}

/// The pods to return verdicts for.
#[derive(Debug, Default)]
pub enum Chosen {
    /// All pods.
    #[default]
    All,
    /// One pod, by its name.
    Named(String),
    /// The pods of a selector, by [`Listed::name`].
    These(Names),
}

/// The names of chosen pods.
#[derive(Debug, Default)]
pub struct Names {
    names: BTreeSet<String>,
    /// In bytes.
    kept: usize,
}

impl Names {
    /// Adds a name.
    ///
    /// # Errors
    /// There are too many names.
    pub fn add(&mut self, name: String) -> Result<(), TooMany> {
        self.kept += NAME + name.len();
        if self.kept > MOST_KEPT {
            return Err(TooMany);
        }
        self.names.insert(name);
        Ok(())
    }
}

impl Chosen {
    fn include(&self, pod: &Listed) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => pod.pod.metadata.name.as_ref() == Some(name),
            Self::These(these) => these.names.contains(&pod.name()),
        }
    }
}

/// There are too many pods to decide about at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Decides about each pod in view of all of them. It takes pods one by one, and keeps in memory
/// only what the verdicts need.
pub struct Docket {
    rules: Rules,
    now: Timestamp,
    chosen: Chosen,
    cases: Vec<Case>,
    runs: BTreeMap<String, Run>,
    /// In bytes.
    kept: usize,
    /// In bytes.
    waiting: usize,
    /// Whether the pod chosen by name was among them.
    is_found: bool,
}

/// One pod.
struct Case {
    age: Age,
    run: Option<String>,
    /// The verdict on this pod alone. The other pods of its run may change it.
    verdict: Verdict,
}

impl Docket {
    /// A docket without pods.
    #[must_use]
    pub fn new(rules: Rules, now: Timestamp, chosen: Chosen) -> Self {
        let kept = match &chosen {
            Chosen::All | Chosen::Named(_) => 0,
            Chosen::These(these) => these.kept,
        };
        Self {
            rules,
            now,
            is_found: !matches!(chosen, Chosen::Named(_)),
            chosen,
            cases: Vec::new(),
            runs: BTreeMap::new(),
            kept,
            waiting: 0,
        }
    }

    /// Adds a pod. A pod without a podbeat container gets no verdict, but may belong to the run of
    /// others, because its podbeat may have another name.
    ///
    /// # Errors
    /// There are too many pods.
    pub fn take(&mut self, pod: &Listed) -> Result<(), TooMany> {
        let is_asked_for = self.chosen.include(pod);
        self.is_found |= is_asked_for;
        let has_podbeat = pod.has_container(&self.rules.container_name);
        let is_asked_for = is_asked_for && has_podbeat;
        if !has_podbeat && pod.annotated_run().is_none() {
            return Ok(());
        }
        let seen = self.rules.observe(pod);
        let age = Age {
            created_at: pod.created_at,
            retry_count: self.rules.job_retry_count(pod).or(seen.job_retry_count),
            name: pod.name(),
        };
        let run = match self.rules.run_of(pod) {
            Some(Ok(text) | Err(text)) if text.len() > LONGEST_RUN => {
                return self.judge(is_asked_for, age, None, |_| Verdict::Overlong);
            }
            Some(Err(pattern)) => {
                self.kept += pattern.len();
                return self.judge(is_asked_for, age, None, |_| Verdict::Unindexed { pattern });
            }
            Some(Ok(run)) => Some(run),
            None => None,
        };
        self.kept += age.name.len() + 2 * run.as_ref().map_or(0, String::len);
        let is_over = self.rules.is_over(pod, &seen);
        if let Some(run) = &run {
            let claim = Claim::of(pod);
            if let Some(known) = self.runs.get_mut(run) {
                self.kept += known.take(&claim, &age, is_over, has_podbeat);
            } else {
                let first = Run::new(claim, &age, is_over, has_podbeat);
                self.kept += first.size();
                self.runs.insert(run.clone(), first);
            }
        }
        let of = run.clone();
        self.judge(is_asked_for, age, run, |docket| {
            docket.alone(pod, &seen, is_over, of)
        })
    }

    /// Keeps the verdict on a pod, if it is chosen.
    fn judge(
        &mut self,
        is_asked_for: bool,
        age: Age,
        run: Option<String>,
        verdict: impl FnOnce(&mut Self) -> Verdict,
    ) -> Result<(), TooMany> {
        self.kept += CASE + age.name.len();
        if self.kept > MOST_KEPT {
            return Err(TooMany);
        }
        if is_asked_for {
            let verdict = verdict(self);
            self.cases.push(Case { age, run, verdict });
        }
        Ok(())
    }

    /// Returns names and verdicts, in the order of the pods. `None` if the pod chosen by name does
    /// not exist.
    pub fn verdicts(self) -> Option<impl Iterator<Item = (String, Verdict)>> {
        let runs = self.runs;
        let verdicts = self.cases.into_iter().map(move |case| {
            let Case { age, run, verdict } = case;
            let verdict = match verdict {
                // podbeat sends nothing for these anyway.
                Verdict::Unnamed
                | Verdict::Overlong
                | Verdict::Unindexed { .. }
                | Verdict::Open
                | Verdict::Settled { .. }
                | Verdict::Superseded { .. }
                | Verdict::Held { .. }
                | Verdict::Contested { .. } => verdict,
                Verdict::Young { .. }
                | Verdict::Missing(_)
                | Verdict::Left { .. }
                | Verdict::Unread { .. } => run
                    .and_then(|run| runs.get(&run)?.objection(&run, &age))
                    .unwrap_or(verdict),
            };
            (age.name, verdict)
        });
        self.is_found.then_some(verdicts)
    }

    /// Returns the verdict on a pod without regard to others.
    fn alone(
        &mut self,
        pod: &Listed,
        seen: &Observation,
        is_over: bool,
        run: Option<String>,
    ) -> Verdict {
        let Some(run) = run else {
            return Verdict::Unnamed;
        };
        if let Some(why) = pod.unread.clone() {
            return Verdict::Unread { run, why };
        }
        if !is_over {
            return Verdict::Open;
        }
        let own_word = match self.rules.own_exit_code(pod) {
            Some(0) if self.rules.proves_the_end(pod, seen) => return Verdict::Settled { run },
            Some(0) => OwnWord::Delivered,
            Some(UNDELIVERED) => OwnWord::Undelivered,
            Some(_) | None => OwnWord::Nothing,
        };
        let ended_at = ended_at(pod);
        if ended_at.is_some_and(|ended_at| {
            self.now.duration_since(ended_at).unsigned_abs() < self.rules.older_than
                && ended_at <= self.now
        }) {
            return Verdict::Young { run };
        }
        let missing = Missing::of(pod, seen, &self.rules, run, own_word);
        let waiting = self.waiting + missing.size();
        if waiting > MOST_WAITING {
            return Verdict::Left { run: missing.run };
        }
        self.waiting = waiting;
        Verdict::Missing(Box::new(missing))
    }
}
