//! The core: what to send, when, and when to end. Events in, actions out; pure and whole.
//! Here lives every decision of podbeat, and the order in which things are decided.
//! Never here: I/O, a clock, a random number that wasn't handed in, tokio, kube, reqwest.

pub mod answer;
pub mod backoff;
pub mod completion;
pub mod machine;
pub mod marker;
pub mod observation;
pub mod outbox;
pub mod request;
pub mod saved;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test, which is told by its environment how long it is to last, and times itself"
)]
mod simulation;

use std::time::Duration;

use jiff::Timestamp;

/// A moment as the shell tells it: the core never asks a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the start of the process, monotonic. Every wait is reckoned by it.
    pub elapsed: Duration,
    /// The wall clock, which may step. Only for comparing with times that others wrote.
    pub wall: Timestamp,
}

impl Now {
    /// When, by the monotonic clock, the wall clock shows `wall`: the present if that has passed.
    #[must_use]
    pub fn elapsed_at(&self, wall: Timestamp) -> Duration {
        let ahead = Duration::try_from(wall.duration_since(self.wall)).unwrap_or(Duration::ZERO);
        self.elapsed.saturating_add(ahead)
    }

    /// What the wall clock showed, as it goes now, this long ago.
    #[must_use]
    pub fn wall_before(&self, ago: Duration) -> Timestamp {
        self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
    }

    /// How long ago the wall clock showed `wall`: nothing if that is yet to come.
    #[must_use]
    pub fn since(&self, wall: Timestamp) -> Duration {
        Duration::try_from(self.wall.duration_since(wall)).unwrap_or(Duration::ZERO)
    }
}
