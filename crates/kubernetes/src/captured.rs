//! Captured pods for the tests, as this crate reads them.

use podbeat_heartbeat::observation::Observation;
pub(crate) use podbeat_lab::captured::Captured;

use crate::resource::Pod;
use crate::status;

/// Reads a captured pod.
pub(crate) trait Observe {
    /// What the core sees of the pod. The container in podbeat's place is left out.
    fn observe(&self) -> Observation;
}

impl Observe for Captured {
    fn observe(&self) -> Observation {
        status::observe(&self.pod::<Pod>(), self.own_container())
    }
}
