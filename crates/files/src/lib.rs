//! Reads regular files up to a limit, without waiting, and replaces files as a whole. Removes byte
//! order marks and white space around texts.
//!
//! This crate does not know what a file is for.

pub mod regular_file;
pub mod trimmed;
