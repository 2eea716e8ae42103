//! podbeat-server: the service behind the Task Runs API.

pub mod runs;
pub mod store;
