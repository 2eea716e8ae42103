//! podbeat reports to the task-run service that a run is alive, what each container of its pod is
//! doing, and how the run ended.
//!
//! Data flows one way: environment → [`podbeat_kubernetes::watch`] → [`podbeat_kubernetes::status`]
//! → [`podbeat_heartbeat::machine`] → [`podbeat_task_runs::client`]. Imports follow the diagram in
//! ARCHITECTURE.md, and `tests/imports.rs` checks them.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod exec;
pub mod journal;
pub mod reap;
pub mod telemetry;
