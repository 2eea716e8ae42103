//! The stand-in's clock. Tests can set it, so they don't need to sleep.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// The system's clock, or one that a test advances. Clones of a stopped clock share its time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<Timestamp>>>);

impl Clock {
    /// A clock that stands still until a test advances it.
    #[must_use]
    pub fn stopped_at(time: Timestamp) -> Self {
        Self(Some(Arc::new(Mutex::new(time))))
    }

    /// Advances a stopped clock. Has no effect on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(workers) = &self.0 {
            let mut time = workers.lock().unwrap_or_else(PoisonError::into_inner);
            *time = later(*time, by);
        }
    }

    /// The current time in whole microseconds, because Python's clients read no finer times.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Some(workers) => *workers.lock().unwrap_or_else(PoisonError::into_inner),
            None => Timestamp::now(),
        };
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// `time` plus `by`, limited to the largest timestamp.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
