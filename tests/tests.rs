//! All integration tests of podbeat, in one binary: linking it takes longer than compiling most of what is in it.
//!
//! They share one process. What would change the process for all of them (its environment, its log, its panic hook, its signals) a
//! test changes in a process that it starts.

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
mod steps;
mod task_runs;
