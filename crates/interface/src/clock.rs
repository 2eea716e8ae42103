//! The time, for a loop around the core. The core itself reads no clock.

use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::Now;
use tokio::time::{Instant, sleep_until};

/// The current time in a process or a watch that began at `start`.
#[must_use]
pub fn present(start: Instant) -> Now {
    Now {
        elapsed: start.elapsed(),
        wall: Timestamp::now(),
    }
}

/// Waits until `wake` after `start`, or forever if `wake` is `None`. Cancel-safe.
pub async fn until(start: Instant, wake: Option<Duration>) {
    match wake {
        Some(wake) => sleep_until(start + wake).await,
        None => pending().await,
    }
}
