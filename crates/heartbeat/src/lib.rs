//! The core: which heartbeat to send, when, and when to end. Events go in, actions come out.
//!
//! Every decision of podbeat is in this crate. It does no I/O and reads no clock; random seeds are
//! passed in.

pub mod answer;
pub mod backoff;
pub mod completion;
#[cfg(test)]
#[path = "../../../tests/guarantees.rs"]
mod guarantees;
pub mod machine;
pub mod marker;
pub mod observation;
pub mod outbox;
pub mod report;
pub mod saved;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test, which is told by its environment how long it is to last, and times itself"
)]
mod simulation;

use std::time::Duration;

use jiff::Timestamp;

/// A moment. The shell passes it in; the core never reads a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the start of the process. Every wait uses it.
    pub elapsed: Duration,
    /// The wall clock, which may step. Only for comparisons with times from other programs.
    pub wall: Timestamp,
}

impl Now {
    /// When the wall clock shows `wall`, by the monotonic clock: now if that has passed.
    #[must_use]
    pub fn elapsed_at(&self, wall: Timestamp) -> Duration {
        let ahead = Duration::try_from(wall.duration_since(self.wall)).unwrap_or(Duration::ZERO);
        self.elapsed.saturating_add(ahead)
    }

    /// The wall clock's time this long ago.
    #[must_use]
    pub fn wall_before(&self, ago: Duration) -> Timestamp {
        self.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
    }

    /// How long ago the wall clock showed `wall`: zero if that is in the future.
    #[must_use]
    pub fn since(&self, wall: Timestamp) -> Duration {
        Duration::try_from(self.wall.duration_since(wall)).unwrap_or(Duration::ZERO)
    }
}
