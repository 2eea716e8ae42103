//! podbeat's output for operators beside the log: the metrics, and the admin endpoint with the
//! probes and the status. This module makes no decisions, and has no secrets, because they cannot
//! be printed.

pub mod admin;
pub mod instruments;
pub mod metrics;
mod probes;
pub mod readings;
mod status;
