//! A fleet: thousands of real agents in a few processes, the lives of their pods, and what is measured of them.
//! Here lives what `podbeat-lab fleet` does with the stand-ins and what a fleet on a real API server needs of it.
//! Never here: how a stand-in behaves, or a decision of podbeat's: an agent is the library's own, whole.

pub mod agents;
pub mod crew;
pub mod figures;
pub mod kubernetes;
pub mod ledger;
pub mod lives;
pub mod process;
pub mod service;
pub mod spread;
pub mod stand_ins;
