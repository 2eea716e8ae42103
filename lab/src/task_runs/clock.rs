//! The time of day that the stand-in goes by, so that tests needn't sleep.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// A clock: the system's, or one that a test moves on. Clones of a stopped clock share its hands.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Timestamp>>>);

impl Clock {
    /// A clock that stands still until it is moved on.
    #[must_use]
    pub fn stopped_at(time: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(time))))
    }

    /// Moves a stopped clock on; the system's goes as it goes.
    pub fn advance(&self, by: Duration) {
        if let Some(hands) = &self.0 {
            let mut time = hands.lock().unwrap_or_else(PoisonError::into_inner);
            *time = later(*time, by);
        }
    }

    /// The time, in whole microseconds: Python's clients read no finer one.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Some(hands) => *hands.lock().unwrap_or_else(PoisonError::into_inner),
            None => Timestamp::now(),
        };
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// `time` and so much more, but not beyond what a timestamp can hold.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
