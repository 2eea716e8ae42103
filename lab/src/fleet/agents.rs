//! Many agents in one process. Each is the library's own agent, with its own pod, run, clients and
//! connections. They share two threads.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use podbeat::agent::{self, Onlooker};
use podbeat::config::Config;
use podbeat_heartbeat::machine::{Attempt, DropCause, Note};
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::process::raise_file_limit;
use crate::{Error, io};

/// The plan of a process of agents: the first line of JSON on its standard input.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The environment that all agents share.
    pub settings: BTreeMap<String, String>,
    /// Each agent's additional environment.
    pub agents: Vec<BTreeMap<String, String>>,
    /// The time over which the agents are started one after the other, in milliseconds.
    pub start_over_ms: u64,
}

/// A later order, one word on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write a [`Count`] as a line of JSON on standard output.
    Count,
    /// Stop all agents as SIGTERM would.
    Terminate,
}

impl Order {
    /// The order's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Terminate => "terminate",
        }
    }
}

/// The agents' results in one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    /// Agents that were started.
    pub started: usize,
    /// Agents that ended with exit code 0.
    pub ended_well: usize,
    /// Agents that ended with another exit code.
    pub ended_ill: usize,
    /// Attempts to send a heartbeat.
    pub attempts: usize,
    /// Attempts that were not accepted.
    pub failed: usize,
    /// Transitions that the cores saw.
    pub transitions: usize,
    /// Dropped heartbeats with news.
    pub dropped: usize,
    /// The durations of the accepted attempts since the last count, from start to answer, in
    /// microseconds.
    pub took: Vec<u32>,
}

impl Count {
    /// The sum of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.started += other.started;
        self.ended_well += other.ended_well;
        self.ended_ill += other.ended_ill;
        self.attempts += other.attempts;
        self.failed += other.failed;
        self.transitions += other.transitions;
        self.dropped += other.dropped;
        self.took.extend(other.took);
        self
    }
}

#[derive(Debug, Default)]
struct Tally {
    started: AtomicUsize,
    ended_well: AtomicUsize,
    ended_ill: AtomicUsize,
    attempts: AtomicUsize,
    failed: AtomicUsize,
    transitions: AtomicUsize,
    dropped: AtomicUsize,
    took: Mutex<Vec<u32>>,
}

/// The most durations that are kept between two counts.
const MOST_TIMES: usize = 1 << 20;

impl Tally {
    fn count(&self) -> Count {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Count {
            started: load(&self.started),
            ended_well: load(&self.ended_well),
            ended_ill: load(&self.ended_ill),
            attempts: load(&self.attempts),
            failed: load(&self.failed),
            transitions: load(&self.transitions),
            dropped: load(&self.dropped),
            took: std::mem::take(&mut *self.took.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn took(&self, time: Duration) {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        if took.len() < MOST_TIMES {
            took.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        }
    }
}

fn one_more(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts one agent's activity.
struct Counting {
    tally: Arc<Tally>,
    begun: Option<Instant>,
}

impl Onlooker for Counting {
    fn note(&mut self, note: &Note) {
        match note {
            Note::Accepted(..) => {
                if let Some(begun) = self.begun.take() {
                    self.tally.took(begun.elapsed());
                }
            }
            Note::Failed { .. } => one_more(&self.tally.failed),
            Note::Transition { .. } => one_more(&self.tally.transitions),
            // Not a loss: a newer heartbeat reports the same news.
            Note::Dropped(_, _, cause, _) if *cause != DropCause::Superseded => {
                one_more(&self.tally.dropped)
            }
            _ => {}
        }
    }

    fn attempt(&mut self, _: &Attempt) {
        self.begun = Some(Instant::now());
        one_more(&self.tally.attempts);
    }
}

/// Runs agents and follows the orders on standard input, until it ends.
///
/// # Errors
/// The plan can't be read, or one of its settings is wrong.
pub async fn work() -> Result<(), Error> {
    raise_file_limit()?;
    let mut lines = standard_input();
    let plan = lines.recv().await.unwrap_or_default();
    let plan: Plan = serde_json::from_str(&plan).map_err(|error| {
        io("reading the plan of the fleet's agents from standard input")(error.into())
    })?;
    let tally = Arc::new(Tally::default());
    let (terminate, terminated) = watch::channel(false);
    let mut agents = JoinSet::new();
    let mut to_start = plan.agents.len();
    let gap = Duration::from_millis(plan.start_over_ms)
        / u32::try_from(to_start.max(1)).unwrap_or(u32::MAX);
    let begun = Instant::now();
    let mut waiting = plan.agents.into_iter();
    loop {
        let nth = u32::try_from(tally.started.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            line = lines.recv() => match line.as_deref() {
                Some("count") => {
                    let count = serde_json::to_string(&tally.count()).unwrap_or_default();
                    let mut out = std::io::stdout();
                    writeln!(out, "{count}").and_then(|()| out.flush()).map_err(io("writing the count"))?;
                }
                Some("terminate") => {
                    let _ = terminate.send(true);
                }
                Some(_) => {}
                // Our parent ended, or doesn't need us any more.
                None => return Ok(()),
            },
            Some(ended) = agents.join_next() => {
                let well = matches!(ended, Ok(Ok(Ending::Done)));
                one_more(if well { &tally.ended_well } else { &tally.ended_ill });
            }
            () = tokio::time::sleep_until(begun + gap * nth), if to_start > 0 => {
                to_start -= 1;
                let Some(own) = waiting.next() else { continue };
                let mut settings = plan.settings.clone();
                settings.extend(own);
                let config = Config::load(&Flags::default(), &settings)
                    .map_err(|error| io(format!("setting up an agent: {error}"))(std::io::ErrorKind::InvalidInput.into()))?;
                let counting = Counting { tally: Arc::clone(&tally), begun: None };
                let signals = signals(terminated.clone());
                agents.spawn(async move { agent::run(&config, signals, counting).await });
                one_more(&tally.started);
            }
        }
    }
}

/// One signal, sent on the order to terminate.
fn signals(mut terminated: watch::Receiver<bool>) -> Pin<Box<dyn Stream<Item = ()> + Send>> {
    let once = stream::once(async move {
        // The sender is gone, so no signal will come.
        if terminated.wait_for(|terminated| *terminated).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    Box::pin(once.chain(stream::pending()))
}

/// Reads the lines of standard input on a separate thread, which ends with the process.
fn standard_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
