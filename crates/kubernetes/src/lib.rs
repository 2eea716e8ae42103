//! Reads pods from Kubernetes: the parsed slice of a pod, its meaning, and the watch that delivers
//! it.
//!
//! All code that knows Kubernetes' field names and API is in this crate. It knows nothing of the
//! task-run service, of when to send, or of clocks other than the watch's own deadlines.

pub mod access;
mod answer;
pub mod ask;
#[cfg(test)]
pub(crate) mod captured;
#[cfg(test)]
mod changes;
pub mod error;
mod hardware;
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
