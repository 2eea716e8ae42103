//! podbeat-server: the service behind the Task Runs API.

pub mod api;
pub mod check;
pub mod cli;
pub mod data;
pub mod keys;
pub mod launching;
pub mod page;
pub mod received;
pub mod serve;
pub mod server;
pub mod service;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod token_command;
pub mod tokens;
