//! The newest heartbeats, in memory and within bounds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// How many heartbeats are kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The maximum number of one run.
    pub of_run: usize,
    /// The maximum number of all runs.
    pub all: usize,
    /// The maximum sum of their weights, in bytes.
    pub bytes: usize,
}

/// Heartbeats in any form, in the order of arrival. Above the bounds, the oldest are discarded:
/// first those of the same run. The cost to keep one doesn't depend on how many are kept.
#[derive(Debug)]
pub struct Received<H> {
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
    /// All of them, in the order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &H> {
        self.heartbeats.values().map(|kept| &kept.heartbeat)
    }

    /// The heartbeats of one run, newest first, each with its number among all.
    pub fn of_run(&self, run_id: &str) -> impl Iterator<Item = (u64, &H)> {
        let of_run = self.of_runs.get(run_id);
        let numbers = of_run
            .into_iter()
            .flat_map(|of_run| of_run.numbers.iter().rev());
        numbers.filter_map(|&number| Some((number, &self.heartbeats.get(&number)?.heartbeat)))
    }

    /// Removes and returns all kept heartbeats, in order.
    pub fn take(&mut self) -> Vec<H> {
        self.of_runs.clear();
        self.bytes = 0;
        let kept = std::mem::take(&mut self.heartbeats);
        kept.into_values().map(|kept| kept.heartbeat).collect()
    }

    /// How many heartbeats ever arrived. Shows whether any arrived since an earlier call.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next
    }

    /// Keeps a heartbeat with this weight in bytes.
    pub fn keep(&mut self, run_id: &str, heartbeat: H, weight: usize, bounds: Bounds) {
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

    /// Discards all heartbeats of a run.
    pub fn forget_run(&mut self, run_id: &str) {
        while let Some(of_run) = self.of_runs.get(run_id)
            && let Some(oldest) = of_run.numbers.front().copied()
        {
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
        let of_a: Vec<(u64, &Nth)> = received.of_run("a").collect();
        assert_eq!(of_a, [(3, &("a", 3)), (2, &("a", 2))]);
        assert_eq!(received.of_run("z").count(), 0);
        for nth in [("c", 4), ("d", 5)] {
            received.keep(nth.0, nth, 1, bounds);
        }
        expect(&received, &[("a", 2), ("a", 3), ("c", 4), ("d", 5)]);
        received.keep("e", ("e", 6), 33, bounds);
        expect(&received, &[("c", 4), ("d", 5), ("e", 6)]);
        received.keep("f", ("f", 7), 36, bounds);
        expect(&received, &[]);
        assert_eq!(
            (received.bytes, received.of_runs.len(), received.count()),
            (0, 0, 8)
        );
        received.keep("g", ("g", 7), 3, bounds);
        received.keep("h", ("h", 8), 3, bounds);
        received.keep("h", ("h", 9), 3, bounds);
        received.forget_run("h");
        received.forget_run("z");
        assert_eq!(received.take(), [("g", 7)]);
        assert_eq!(
            (received.bytes, received.of_runs.len(), received.count()),
            (0, 0, 11)
        );
        let none = Bounds {
            of_run: 0,
            ..bounds
        };
        received.keep("g", ("g", 8), 1, none);
        expect(&received, &[]);
    }
}
