//! The wait before a retry: exponential backoff with full jitter.

use std::time::Duration;

/// The bound of the first wait.
pub const BASE: Duration = Duration::from_millis(500);
/// The bound of every wait, so that podbeat notices the end of an outage within this time.
pub const CAP: Duration = Duration::from_secs(30);

/// Counts consecutive failures and draws the next wait.
///
/// Full jitter (a random wait between zero and the bound) spreads ten thousand copies that failed
/// at the same moment. With equal waits they would return together.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Draws the wait after one more failure: at most [`BASE`] after the first, twice that after
    /// each further one, at most [`CAP`].
    pub fn after_failure(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let bound = BASE
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(CAP);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rng.f64())
    }

    /// Resets the count after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_stay_in_bounds(seed: u64, failures in 1_u32..200) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut backoff = Backoff::default();
            for nth in 0..failures {
                let bound = BASE.saturating_mul(2_u32.saturating_pow(nth)).min(CAP);
                prop_assert!(backoff.after_failure(&mut rng) <= bound);
            }
            backoff.reset();
            prop_assert!(backoff.after_failure(&mut rng) <= BASE);
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut rng = fastrand::Rng::with_seed(7);
        let waits: Vec<Duration> = (0..1000)
            .map(|_| {
                let mut backoff = Backoff { failures: 20 };
                backoff.after_failure(&mut rng)
            })
            .collect();
        let early = waits.iter().filter(|wait| **wait < CAP / 2).count();
        assert!(
            (400..600).contains(&early),
            "{early} of 1000 in the first half"
        );
    }
}
