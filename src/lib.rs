//! podbeat tells the task-run service that a run is alive, what each container of its pod is doing, and how it ended.
//!
//! Data flows one way: environment → [`podbeat_kubernetes::watch`] → [`podbeat_kubernetes::status`] → [`podbeat_heartbeat::machine`] → [`podbeat_task_runs::client`].
//! Imports go down only; ARCHITECTURE.md draws the map, and `tests/imports.rs` holds the code to it.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod exec;
pub mod exit;
#[cfg(feature = "laptop")]
pub mod explain;
pub mod indexed;
pub mod journal;
pub mod kubernetes;
pub mod nonce;
#[cfg(feature = "laptop")]
pub mod observe;
#[cfg(feature = "laptop")]
pub mod profiles;
pub mod reap;
#[cfg(feature = "laptop")]
pub mod runs;
pub mod service;
#[cfg(feature = "laptop")]
mod show;
pub mod telemetry;
pub mod terminal;
pub mod undumpable;
