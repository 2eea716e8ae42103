//! The server's output for operators: log messages, metrics, traces, and the endpoint with probes and
//! metrics.

pub mod admin;
pub mod messages;
pub mod metrics;
pub mod readings;
pub mod traces;
