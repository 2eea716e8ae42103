//! Steps of the wall clock. They change no wait, but the age of ended runs.

use std::time::Duration;

use jiff::SignedDuration;
use podbeat_interface::messages::Seconds;

use crate::telemetry::messages::Message;
use podbeat_runs::Moment;

/// A clock that differs by more than this from the time that has passed was set, or the machine was
/// suspended. Corrections of a running clock are far smaller.
const STEP: SignedDuration = SignedDuration::from_secs(30);

/// How long the ages of runs are not trusted after the clock was set forward: people have a day to
/// notice that it is wrong.
const FORWARD: Duration = Duration::from_secs(24 * 3600);

/// How long they are not trusted after the start: a machine corrects its clock soon after it boots.
const START: Duration = Duration::from_secs(600);

/// Follows the wall clock.
#[derive(Debug)]
pub(super) struct ClockSteps {
    last: Moment,
    /// Until then, as time since the start of the process, no run is removed because of its age.
    distrusted: Duration,
}

impl ClockSteps {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            last: now,
            distrusted: now.elapsed.saturating_add(START),
        }
    }

    /// Looks at the clock, and logs a step. Returns whether the ages of runs are right.
    pub(super) fn look(&mut self, now: Moment) -> bool {
        let passed = now.elapsed.saturating_sub(self.last.elapsed);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let step = now.wall.duration_since(self.last.wall) - passed;
        self.last = now;
        let step_seconds = Seconds(step.unsigned_abs());
        if step > STEP {
            self.distrusted = self.distrusted.max(now.elapsed.saturating_add(FORWARD));
            Message::ClockSetForward { step_seconds }.emit();
        } else if step < -STEP {
            Message::ClockSetBack { step_seconds }.emit();
        }
        now.elapsed >= self.distrusted
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;

    #[test]
    fn ages_are_not_trusted_after_a_start_and_for_a_day_after_a_step_forward() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        // The offset of the wall clock, in seconds.
        let at = |elapsed: u64, offset: i64| Moment {
            wall: start + Duration::from_secs(elapsed) + SignedDuration::from_secs(offset),
            elapsed: Duration::from_secs(elapsed),
        };
        let mut steps = ClockSteps::new(at(0, 0));
        assert!(!steps.look(at(9 * MINUTE, 0)));
        assert!(steps.look(at(10 * MINUTE, 0)));
        // A correction, and a step back: ages are too small, so nothing is removed too early.
        assert!(steps.look(at(11 * MINUTE, 20)));
        assert!(steps.look(at(12 * MINUTE, -4000)));
        // A year.
        assert!(!steps.look(at(HOUR, 31_536_000)));
        assert!(!steps.look(at(24 * HOUR, 31_536_000)));
        assert!(steps.look(at(25 * HOUR, 31_536_000)));
    }
}
