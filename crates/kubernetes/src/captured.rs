//! Captured pods, as this crate reads them: for its tests.

use podbeat_heartbeat::observation::Observation;
pub(crate) use podbeat_lab::captured::Captured;

use crate::resource::Pod;
use crate::status;

/// What is read from a captured pod.
pub(crate) trait Observe {
    /// What the core sees of it, beside the container that has podbeat's place.
    fn observe(&self) -> Observation;
}

impl Observe for Captured {
    fn observe(&self) -> Observation {
        status::observe(&self.pod::<Pod>(), self.own_container())
    }
}
