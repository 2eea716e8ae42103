//! podbeat-server: the service behind the Task Runs API.

pub mod keys;
pub mod runs;
pub mod service;
pub mod store;
pub mod tokens;
