//! The service's client and its models as a library: against the contract, and against a small
//! server.

mod bounds;
mod built;
mod client;
mod contract;
#[cfg(target_os = "linux")]
mod late;
mod listing;
mod secrets;
