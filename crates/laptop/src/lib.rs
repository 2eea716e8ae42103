//! The commands that people run on a laptop (`podbeat observe`, `explain` and `runs`), their flags,
//! and the profiles of the person who runs them.
//!
//! This crate contains no part of the agent. `podbeat observe` cannot reach the task-run service.

pub mod cli;
pub mod explain;
pub mod observe;
pub mod profiles;
pub mod runs;
mod show;
