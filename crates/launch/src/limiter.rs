//! How fast Jobs are created. Pure.

use std::time::Duration;

/// A wait that doubles with each repetition, from the first of these limits to the second one.
/// `times` counts from 1.
#[must_use]
pub fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times.saturating_sub(1));
    first.saturating_mul(factor).min(longest)
}

/// A rate with a burst: the generic cell rate algorithm. Each caller gets a time of its own, in the
/// order of the calls, so nobody asks twice. Times are since the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    /// The time between two creates.
    interval: Duration,
    /// How far ahead of the rate a burst may be.
    burst: Duration,
    /// When the next create would be due at exactly the rate.
    next: Duration,
}

impl Limiter {
    /// A limiter with a rate per second, and a number of creates at once after a pause. Both are at
    /// least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            burst: interval * (burst.max(1) - 1),
            next: Duration::ZERO,
        }
    }

    /// When the caller may create its Job: now, or later.
    #[must_use]
    pub fn reserve(&mut self, now: Duration) -> Duration {
        let due = self.next.saturating_sub(self.burst).max(now);
        self.next = self.next.max(now) + self.interval;
        due
    }

    /// Nobody may create a Job before this time, because the API server asked for it.
    pub fn pause(&mut self, until: Duration) {
        self.next = self.next.max(until.saturating_add(self.burst));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(20, 40);
        let due: Vec<u128> = (0..60)
            .map(|_| limiter.reserve(SECOND).as_millis())
            .collect();
        assert!(due[..40].iter().all(|at| *at == 1000), "{due:?}");
        assert_eq!(due[40..44], [1050, 1100, 1150, 1200]);
        limiter.pause(10 * SECOND);
        assert_eq!(limiter.reserve(2 * SECOND), 10 * SECOND);
    }

    proptest! {
        /// In any window, there are at most as many creates as the rate and the burst allow, in the
        /// order of the calls.
        #[test]
        fn no_window_has_more(pauses in prop::collection::vec(0..300_u64, 1..200), burst in 1..10_u32) {
            let mut limiter = Limiter::new(10, burst);
            let mut now = Duration::ZERO;
            let due: Vec<Duration> = pauses.iter().map(|pause| {
                now += Duration::from_millis(*pause);
                limiter.reserve(now)
            }).collect();
            prop_assert!(due.is_sorted());
            for (nth, begin) in due.iter().enumerate() {
                let within = due[nth..].iter().filter(|at| **at < *begin + SECOND).count();
                prop_assert!(within <= 10 + burst as usize, "{within} in a second");
            }
        }
    }
}
