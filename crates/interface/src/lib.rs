//! What every command of podbeat shares with its users: settings, exit codes, text that is safe to
//! show. Here live how settings are read and checked, how the service is reached with them, and
//! what commands print and end with. Never here: a command, or the agent.

pub mod arguments;
pub mod clock;
pub mod environment;
pub mod exit;
pub mod messages;
pub mod nonce;
pub mod reader;
pub mod reporting;
pub mod service;
pub mod setting;
pub mod terminal;
