//! Launches task runs on Kubernetes. Each attempt of a run is one Job with one pod, which has podbeat
//! as a native sidecar. Kubernetes schedules; this crate decides what to create, when to delete it,
//! and what the objects say about the run.
//!
//! The rows of the service decide, and the cluster follows: a change of a run is committed first,
//! then the objects change. Every request to the cluster is safe to repeat, because the names of the
//! objects follow from the run and the attempt. Objects that are not from this service are never
//! touched.
//!
//! This crate knows nothing of HTTP requests to the service, of tokens, or of SQL.

pub mod cluster;
pub mod launcher;
pub mod limiter;
pub mod manifests;
pub mod order;
pub mod placement;
pub mod queue;
pub mod seen;
pub mod settings;
#[cfg(test)]
mod simulation;
