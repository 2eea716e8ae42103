//! The received heartbeats, for inspection: the newest, within bounds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// One received heartbeat.
#[derive(Clone, PartialEq)]
pub struct Heartbeat {
    /// When it arrived, since the start.
    pub at: Duration,
    /// The run's id, decoded.
    pub run_id: String,
    /// The path, unchanged.
    pub path: String,
    /// The body; null if it isn't JSON.
    pub body: Value,
    /// The request's token. Debug doesn't show it.
    pub token: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// The HTTP status of the answer; `None` if there was no answer.
    pub status: Option<u16>,
    /// Whether the service accepted it.
    pub accepted: bool,
    /// Its contract violations.
    pub violations: Vec<String>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self
            .status
            .map_or("no answer".to_owned(), |status| status.to_string());
        write!(
            f,
            "{:?} {} {status} {} {:?}",
            self.at, self.run_id, self.body, self.violations
        )
    }
}

impl Heartbeat {
    /// Whether it is a last heartbeat.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.body.get("lastHeartbeat") == Some(&Value::Bool(true))
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        self.body
            .get("nonce")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The state of a container: its name on the wire and its members. Of several, the latest in a
    /// container's life.
    #[must_use]
    pub fn state(&self, container: &str) -> Option<(&str, &Value)> {
        let statuses = self.body.get("containerStatus")?.as_array()?;
        let status = statuses
            .iter()
            .find(|status| status.get("name").and_then(Value::as_str) == Some(container))?;
        // A null is no state.
        let states = status.get("state")?.as_object()?;
        let names = ["terminated", "running", "waiting"];
        let state = |name| Some((name, states.get(name)?)).filter(|(_, state)| !state.is_null());
        names.into_iter().find_map(state)
    }

    /// The exit code of a terminated container.
    #[must_use]
    pub fn exit_code(&self, container: &str) -> Option<i64> {
        match self.state(container)? {
            ("terminated", members) => members.get("exitCode")?.as_i64(),
            _ => None,
        }
    }
}

/// How many heartbeats are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) of_run: usize,
    pub(crate) all: usize,
    /// The sum of their weights.
    pub(crate) bytes: usize,
}

/// Heartbeats in any form, in the order of arrival. Above the bounds, the oldest are discarded:
/// first those of the same run. The cost to keep one doesn't depend on how many are kept.
#[derive(Debug)]
pub(crate) struct Received<H> {
    /// By the order of arrival.
    heartbeats: BTreeMap<u64, Kept<H>>,
    of_runs: HashMap<Arc<str>, OfRun>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct OfRun {
    run_id: Arc<str>,
    /// Oldest first.
    numbers: VecDeque<u64>,
}

#[derive(Debug)]
struct Kept<H> {
    run_id: Arc<str>,
    weight: usize,
    heartbeat: H,
}

impl<H> Default for Received<H> {
    fn default() -> Self {
        Self {
            heartbeats: BTreeMap::new(),
            of_runs: HashMap::new(),
            next: 0,
            bytes: 0,
        }
    }
}

impl<H> Received<H> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &H> {
        self.heartbeats.values().map(|kept| &kept.heartbeat)
    }

    /// The heartbeats of one run, newest first.
    pub(crate) fn of_run(&self, run_id: &str) -> impl Iterator<Item = &H> {
        let of_run = self.of_runs.get(run_id);
        let numbers = of_run
            .into_iter()
            .flat_map(|of_run| of_run.numbers.iter().rev());
        numbers.filter_map(|number| Some(&self.heartbeats.get(number)?.heartbeat))
    }

    /// Removes and returns all kept heartbeats, in order.
    pub(crate) fn take(&mut self) -> Vec<H> {
        self.of_runs.clear();
        self.bytes = 0;
        let kept = std::mem::take(&mut self.heartbeats);
        kept.into_values().map(|kept| kept.heartbeat).collect()
    }

    /// Keeps a heartbeat with this weight in bytes.
    pub(crate) fn keep(&mut self, run_id: &str, heartbeat: H, weight: usize, bounds: Bounds) {
        if !self.of_runs.contains_key(run_id) {
            let run_id: Arc<str> = run_id.into();
            let of_run = OfRun {
                run_id: Arc::clone(&run_id),
                numbers: VecDeque::new(),
            };
            self.of_runs.insert(run_id, of_run);
        }
        let Some(of_run) = self.of_runs.get_mut(run_id) else {
            return;
        };
        let number = self.next;
        self.next += 1;
        of_run.numbers.push_back(number);
        let run_id = Arc::clone(&of_run.run_id);
        let surplus =
            (of_run.numbers.len() > bounds.of_run).then(|| of_run.numbers.front().copied());
        self.bytes = self.bytes.saturating_add(weight);
        let kept = Kept {
            run_id,
            weight,
            heartbeat,
        };
        self.heartbeats.insert(number, kept);
        if let Some(oldest) = surplus.flatten() {
            self.forget(oldest);
        }
        while self.heartbeats.len() > bounds.all || self.bytes > bounds.bytes {
            let Some(oldest) = self.heartbeats.keys().next().copied() else {
                return;
            };
            self.forget(oldest);
        }
    }

    /// Discards a heartbeat, which must be the oldest of its run.
    fn forget(&mut self, number: u64) {
        let Some(Kept { run_id, weight, .. }) = self.heartbeats.remove(&number) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(weight);
        if let Some(of_run) = self.of_runs.get_mut(&run_id) {
            of_run.numbers.pop_front();
            if of_run.numbers.is_empty() {
                self.of_runs.remove(&run_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Nth = (&'static str, u64);

    #[test]
    fn the_newest_of_each_run_and_of_all_are_kept() {
        let bounds = Bounds {
            of_run: 2,
            all: 4,
            bytes: 35,
        };
        let mut received: Received<Nth> = Received::default();
        let expect = |received: &Received<Nth>, expected: &[Nth]| {
            assert_eq!(received.iter().copied().collect::<Vec<_>>(), expected);
        };
        for nth in [("a", 0), ("b", 1), ("a", 2), ("a", 3)] {
            received.keep(nth.0, nth, 1, bounds);
        }
        expect(&received, &[("b", 1), ("a", 2), ("a", 3)]);
        let of_a: Vec<&Nth> = received.of_run("a").collect();
        assert_eq!(of_a, [&("a", 3), &("a", 2)]);
        assert_eq!(received.of_run("z").count(), 0);
        for nth in [("c", 4), ("d", 5)] {
            received.keep(nth.0, nth, 1, bounds);
        }
        expect(&received, &[("a", 2), ("a", 3), ("c", 4), ("d", 5)]);
        received.keep("e", ("e", 6), 33, bounds);
        expect(&received, &[("c", 4), ("d", 5), ("e", 6)]);
        received.keep("f", ("f", 7), 36, bounds);
        expect(&received, &[]);
        assert_eq!((received.bytes, received.of_runs.len()), (0, 0));
        received.keep("g", ("g", 7), 3, bounds);
        assert_eq!(received.take(), [("g", 7)]);
        assert_eq!((received.bytes, received.of_runs.len()), (0, 0));
        let none = Bounds {
            of_run: 0,
            ..bounds
        };
        received.keep("g", ("g", 8), 1, none);
        expect(&received, &[]);
    }
}
