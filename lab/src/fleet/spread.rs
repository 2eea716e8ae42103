//! How evenly arrivals are spread over time. Pure.

use std::time::Duration;

use serde_json::{Value, json};

/// Arrivals per time slice, usually of a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Arrivals in each slice.
    pub slices: Vec<u32>,
    /// The time from the first arrival to the last, in seconds.
    pub span: f64,
}

impl Spread {
    /// The arrivals from `from` on, in this many slices of a second.
    #[must_use]
    pub fn of(
        arrivals: impl IntoIterator<Item = Duration>,
        from: Duration,
        seconds: usize,
    ) -> Self {
        Self::in_slices(arrivals, from, Duration::from_secs(1), seconds)
    }

    /// The arrivals from `from` on, in this many slices of the given length.
    #[must_use]
    pub fn in_slices(
        arrivals: impl IntoIterator<Item = Duration>,
        from: Duration,
        slice: Duration,
        slices: usize,
    ) -> Self {
        let mut counts = vec![0; slices];
        let slice = slice.as_nanos().max(1);
        let (mut first, mut last) = (f64::MAX, 0.0_f64);
        for at in arrivals {
            let Some(since) = at.checked_sub(from) else {
                continue;
            };
            let nth = usize::try_from(since.as_nanos() / slice).unwrap_or(usize::MAX);
            if let Some(count) = counts.get_mut(nth) {
                *count += 1;
                first = first.min(since.as_secs_f64());
                last = last.max(since.as_secs_f64());
            }
        }
        Self {
            slices: counts,
            span: (last - first).max(0.0),
        }
    }

    /// The number of all arrivals.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.slices.iter().sum()
    }

    /// The average number of arrivals in a slice.
    #[must_use]
    pub fn mean(&self) -> f64 {
        f64::from(self.total()) / (self.slices.len().max(1) as f64)
    }

    /// The largest number of arrivals in a slice.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.slices.iter().copied().max().unwrap_or(0)
    }

    /// The largest number of arrivals in a slice, divided by the average. For independent arrivals
    /// it is at most 1 plus four standard deviations (1.2 for 333 arrivals in a slice).
    #[must_use]
    pub fn most_to_mean(&self) -> f64 {
        if self.total() == 0 {
            return 0.0;
        }
        f64::from(self.most()) / self.mean()
    }

    /// Pearson's chi-square against "the same number in each slice", divided by the degrees of
    /// freedom. It is about 1 for independent arrivals, less if they avoid each other, and much
    /// more if they come in bursts.
    #[must_use]
    pub fn dispersion(&self) -> f64 {
        let mean = self.mean();
        if mean == 0.0 || self.slices.len() < 2 {
            return 0.0;
        }
        let squares: f64 = self
            .slices
            .iter()
            .map(|&count| (f64::from(count) - mean).powi(2) / mean)
            .sum();
        squares / (self.slices.len() - 1) as f64
    }

    /// The spread as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"slices": self.slices, "span": self.span, "most": self.most(), "mean": self.mean(),
               "mostToMean": self.most_to_mean(), "chiSquareByDegrees": self.dispersion()})
    }
}

/// The given percentile, or 0 without values. Sorts the values.
pub fn percentile(values: &mut [u32], of_hundred: usize) -> u32 {
    values.sort_unstable();
    let nth = (values.len() * of_hundred).div_ceil(100).saturating_sub(1);
    values.get(nth).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn even_arrivals_are_distinguished_from_bunches() {
        let mut rng = fastrand::Rng::with_seed(1);
        let even = Spread::of((0..10_000).map(|_| at(5.0 + 30.0 * rng.f64())), at(5.0), 30);
        assert_eq!(even.total(), 10_000);
        assert!(
            (0.3..2.0).contains(&even.dispersion()),
            "{}",
            even.dispersion()
        );
        assert!(even.most_to_mean() < 1.25, "{}", even.most_to_mean());
        assert!(even.span > 29.0);

        // All arrivals are within ±3 s. Agents that started together arrive like this after one
        // interval of 30 s with ±10 %.
        let bunched = Spread::of((0..10_000).map(|_| at(12.0 + 6.0 * rng.f64())), at(0.0), 30);
        assert!(bunched.dispersion() > 100.0, "{}", bunched.dispersion());
        assert!(bunched.most_to_mean() > 4.0);
        assert!(bunched.span < 6.1);
    }

    #[test]
    fn no_arrivals_give_zeros() {
        let none = Spread::of([], Duration::ZERO, 10);
        assert_eq!(
            (none.total(), none.most_to_mean(), none.dispersion()),
            (0, 0.0, 0.0)
        );
        assert_eq!(percentile(&mut [], 99), 0);
        assert_eq!(percentile(&mut [3, 1, 2], 50), 2);
        assert_eq!(percentile(&mut (1..=200).collect::<Vec<u32>>(), 99), 198);
    }
}
