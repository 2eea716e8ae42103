//! What podbeat tells its operators: logs now, metrics and the admin endpoint later.
//! Here lives how it is told: format, filter, destination.
//! Never here: what is told (that stands where it happens), and no secret: they are types that don't print.

pub mod log;
