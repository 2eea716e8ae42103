//! What the watch reports of a pod.

use podbeat_heartbeat::machine::Event;

use crate::resource::Pod;
use crate::status;
use crate::tasks::Tasks;

/// News from the watch.
#[derive(Clone, Debug)]
pub enum PodEvent {
    /// The current pod.
    Seen(Box<Pod>),
    /// The API server confirmed that nothing has changed.
    Confirmed,
    /// The pod is gone, or another pod has its name. Contains its last state, if the server sent
    /// it.
    Gone(Option<Box<Pod>>),
}

impl PodEvent {
    /// Converts the sighting into an event for the core. `own_container` is the name of podbeat's
    /// container. `tasks` selects the task containers.
    #[must_use]
    pub fn event(&self, own_container: &str, tasks: &Tasks) -> Event {
        let observe = |pod: &Pod| status::observe_with(pod, own_container, tasks);
        match self {
            Self::Seen(pod) => Event::Observed(observe(pod)),
            Self::Confirmed => Event::Confirmed,
            Self::Gone(last) => Event::Gone(last.as_deref().map(observe)),
        }
    }
}
