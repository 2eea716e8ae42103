//! What podbeat tells its operators: its log, its metrics, and the admin endpoint with the probes and the status.
//! Here lives how it is told: format, filter, destination, and the readings that are shown.
//! Never here: a decision, the writing of a log line (that stands where it happens; `messages` lists them all), and no
//! secret: they don't print.

pub mod admin;
pub mod instruments;
pub mod log;
pub mod messages;
pub mod metrics;
mod own_process;
mod probes;
mod status;
mod unread;
