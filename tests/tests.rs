//! All integration tests of podbeat in one binary, because linking takes longer than compiling most
//! of its files.
//!
//! The tests share one process. A test that changes something for the whole process (its
//! environment, log, panic hook or signals) does so in a process that it starts.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod admin;
mod agent;
mod check;
mod commands;
mod configuration;
mod deploy;
mod exec;
mod exit_codes;
mod explain;
mod guarantees;
mod harness;
mod hostile;
mod imports;
mod inert;
mod killed;
mod logged;
mod logs;
mod mapping;
mod metrics;
mod monitoring;
mod observe;
mod pinned;
mod process;
mod proxies;
mod reap;
mod runs;
mod server_chart;
mod server_reference;
mod steps;
mod task_runs;
