//! podbeat-server: the service behind the Task Runs API.

pub mod api;
pub mod keys;
pub mod runs;
pub mod serve;
pub mod service;
pub mod store;
pub mod tokens;
