//! Which runs are due. Each run is with one worker at a time. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

/// The runs that wait for a worker, by the time at which they are due. Times are since the start of
/// the process. It is as large as the number of runs that have not ended, or whose objects exist.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<(Duration, String)>>,
    states: HashMap<String, State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It is due at this time. Later entries of the heap are outdated.
    Waits(Duration),
    /// A worker has it. It may be due again at this time.
    Works(Option<Duration>),
}

impl Queue {
    /// Makes a run due at this time, or earlier if it already is.
    pub fn add(&mut self, run: &str, at: Duration) {
        match self.states.get_mut(run) {
            Some(State::Waits(known)) if *known <= at => {}
            Some(State::Works(again)) => {
                *again = Some(again.map_or(at, |known| known.min(at)));
            }
            Some(State::Waits(_)) | None => {
                self.states.insert(run.to_owned(), State::Waits(at));
                self.heap.push(Reverse((at, run.to_owned())));
            }
        }
    }

    /// Gives a run that is due to a worker.
    pub fn take(&mut self, now: Duration) -> Option<String> {
        while let Some(Reverse((at, _))) = self.heap.peek() {
            if *at > now {
                return None;
            }
            let Reverse((at, run)) = self.heap.pop()?;
            if let Some(state @ State::Waits(_)) = self.states.get_mut(&run)
                && matches!(state, State::Waits(due) if *due == at)
            {
                *state = State::Works(None);
                return Some(run);
            }
        }
        None
    }

    /// A worker has finished with a run, which may be due again.
    pub fn done(&mut self, run: &str, again: Option<Duration>) {
        let Some(State::Works(meanwhile)) = self.states.remove(run) else {
            return;
        };
        if let Some(at) = meanwhile.into_iter().chain(again).min() {
            self.add(run, at);
        }
    }

    /// When the next run is due.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The number of runs that wait or are with a worker.
    #[must_use]
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_run_is_with_one_worker_and_becomes_due_again() {
        let mut queue = Queue::default();
        queue.add("a", at(5));
        queue.add("a", at(2));
        queue.add("a", at(9));
        assert_eq!((queue.take(at(1)), queue.next()), (None, Some(at(2))));
        assert_eq!(queue.take(at(2)).as_deref(), Some("a"));
        queue.add("a", at(3));
        assert_eq!(queue.take(at(9)), None, "it is with a worker");
        queue.done("a", Some(at(7)));
        assert_eq!(queue.take(at(3)).as_deref(), Some("a"));
        queue.done("a", None);
        assert_eq!(queue.take(at(99)), None);
        assert!(queue.is_empty());
    }

    proptest! {
        /// Whatever happens, a run that was added is taken as soon as it is due and free.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0..3_u8, 0..4_usize, 0..20_u64), 1..100)) {
            let runs = ["a", "b", "c", "d"];
            let mut queue = Queue::default();
            let mut wanted: [Option<u64>; 4] = [None; 4];
            let mut works = [false; 4];
            for (now, (step, run, time)) in steps.into_iter().enumerate() {
                let now = now as u64;
                match step {
                    0 => {
                        queue.add(runs[run], at(time));
                        wanted[run] = Some(wanted[run].map_or(time, |known| known.min(time)));
                    }
                    1 => {
                        let due = (0..4).filter(|it| !works[*it] && wanted[*it].is_some_and(|at| at <= now));
                        let expected = due.min_by_key(|it| (wanted[*it], *it));
                        let taken = queue.take(at(now));
                        prop_assert_eq!(taken.as_deref(), expected.map(|it| runs[it]));
                        if let Some(it) = expected {
                            (works[it], wanted[it]) = (true, None);
                        }
                    }
                    _ if works[run] => {
                        queue.done(runs[run], None);
                        works[run] = false;
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), (0..4).filter(|it| works[*it] || wanted[*it].is_some()).count());
            }
        }
    }
}
