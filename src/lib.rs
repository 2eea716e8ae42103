//! podbeat tells the task-run service that a run is alive, what each container of its pod is doing,
//! and how it ended.
//!
//! Data flows one way: environment → [`podbeat_kubernetes::watch`] → [`podbeat_kubernetes::status`]
//! → [`podbeat_heartbeat::machine`] → [`podbeat_task_runs::client`]. Imports go down only;
//! ARCHITECTURE.md draws the map, and `tests/imports.rs` holds the code to it.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod exec;
pub mod indexed;
pub mod journal;
pub mod reap;
pub mod telemetry;
pub mod undumpable;
