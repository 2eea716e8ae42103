//! A fleet: thousands of real agents in a few processes, the lives of their pods, podbeat-server, and
//! the measurements.
//! Contains the part of `podbeat-lab fleet` that works with the stand-in Kubernetes API, and what a
//! fleet with a real API server needs of it.
//! Never here: the behavior of a stand-in, or a decision of podbeat. Each agent is the library's
//! complete agent, and the service is podbeat-server as a process.

pub mod agents;
pub mod figures;
pub mod kubernetes;
pub mod ledger;
pub mod measure;
mod metrics;
pub mod process;
pub mod scenario;
mod server;
pub mod service;
pub mod spread;
mod upstream;
mod verdict;
pub mod workers;
