//! Output for people at a terminal that several commands share: tables and ages in kubectl's
//! format.
//!
//! This module does no I/O, reads no clock, and does not decide what is shown.

pub(crate) mod age;
pub(crate) mod table;
