//! The server as a process.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

mod faults;
mod harness;
mod killed;
mod process;
mod tokens;
