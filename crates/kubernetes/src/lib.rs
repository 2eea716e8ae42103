//! What Kubernetes says of our pod: the slice of it that is parsed, its meaning, and the watch that brings it.
//! Here lives everything that knows Kubernetes' field names and API.
//! Never here: the task-run service, the decision when to send, clocks other than the watch's own deadlines.

mod answer;
pub mod ask;
#[cfg(test)]
pub(crate) mod captured;
#[cfg(feature = "kubeconfig")]
pub mod kubeconfig;
pub mod listed;
#[cfg(test)]
mod real_pods;
pub mod resource;
pub mod retries;
pub mod role;
pub mod status;
pub mod tasks;
pub mod transport;
pub mod watch;
pub mod why;
