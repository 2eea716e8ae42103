//! The wait between two requests for a run.

use std::time::Duration;

use podbeat_heartbeat::backoff::{Backoff, CAP};

/// The requests for one run so far.
#[derive(Debug, Default)]
pub(super) struct Poll {
    count: u32,
    told: bool,
    backoff: Backoff,
}

impl Poll {
    /// Whether the next request is the first.
    pub(super) fn is_first(&self) -> bool {
        self.count == 0
    }

    /// Whether a failure is the first since the last success. Only such a failure is reported.
    pub(super) fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// The wait after a success: the interval ±10 %, so that many clients do not send at the same
    /// time.
    pub(super) fn seen(&mut self, interval: Duration, rng: &mut fastrand::Rng) -> Duration {
        self.count = self.count.saturating_add(1);
        self.told = false;
        self.backoff.reset();
        interval.mul_f64(0.9 + 0.2 * rng.f64())
    }

    /// The wait after a failure: at least as long as the service asks for, but at most the
    /// backoff's cap.
    pub(super) fn failed(
        &mut self,
        retry_after: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        self.count = self.count.saturating_add(1);
        let drawn = self.backoff.after_failure(rng);
        drawn.max(retry_after.unwrap_or_default().min(CAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_keep_to_the_interval_and_to_what_the_service_asks() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut poll = Poll::default();
        assert!(poll.is_first());
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            let wait = poll.seen(10 * second, &mut rng);
            assert!((9 * second..=11 * second).contains(&wait), "{wait:?}");
        }
        assert!(!poll.is_first());
        let asked = |after| Some(after * second);
        assert!(poll.failed(asked(7), &mut rng) >= 7 * second);
        assert_eq!(poll.failed(asked(3600), &mut rng), CAP);
        assert_eq!(Poll::default().failed(asked(20), &mut rng), 20 * second);
        assert!(Poll::default().failed(asked(0), &mut rng) <= second / 2);
    }

    #[test]
    fn an_outage_is_told_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut poll = Poll::default();
        assert_eq!([poll.is_news(), poll.is_news()], [true, false]);
        poll.seen(Duration::ZERO, &mut rng);
        assert_eq!([poll.is_news(), poll.is_news()], [true, false]);
    }
}
