//! Reads regular files up to a limit, without waiting, and replaces files as a whole. Removes what
//! editors put around a text.
//! This crate does not know what a file is for.

pub mod regular_file;
pub mod trimmed;
