//! All integration tests of the stand-ins, in one binary and one process.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod browser;
mod harness;
mod launching;
mod load;
mod service;
mod stand_ins;
