//! The service's client and its models, as a library: against the contract, and against a small server.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod built;
mod client;
mod contract;
#[cfg(target_os = "linux")]
mod late;
mod listing;
mod secrets;
mod server;
