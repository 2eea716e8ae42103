//! What all commands of podbeat share: settings, exit codes, log messages and safe text.
//!
//! This crate reads and checks settings, connects to the service with them, and defines what
//! commands print and how they end. It contains no command and no part of the agent.

pub mod arguments;
pub mod certificate;
pub mod clock;
pub mod command_line;
pub mod environment;
pub mod exit;
pub mod finding;
pub mod indexed;
pub mod log;
pub mod messages;
pub mod metrics;
pub mod nearest;
pub mod nonce;
pub mod own_process;
pub mod parse;
pub mod reader;
pub mod reporting;
pub mod service;
pub mod setting;
pub mod terminal;
pub mod throttle;
pub mod undumpable;
pub mod unknown;
