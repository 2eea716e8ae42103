//! A fleet: thousands of real agents in a few processes, the lives of their pods, and the
//! measurements.
//! Contains the part of `podbeat-lab fleet` that works with the stand-ins, and what a fleet with a
//! real API server needs of it.
//! Never here: the behavior of a stand-in, or a decision of podbeat. Each agent is the library's
//! complete agent.

pub mod agents;
pub mod figures;
pub mod kubernetes;
pub mod ledger;
pub mod process;
pub mod scenario;
pub mod service;
pub mod spread;
pub mod stand_ins;
pub mod workers;
