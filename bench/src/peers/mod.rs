//! podbeat and its peers: other ways to do the same work, each with its own stand-ins, in one run.
//! Contains the peers and their start, the life that each must report in the same way, the
//! measurements, and their evaluation.
//! Never here: a figure from another run than the ones that it is compared with.

pub mod chart;
pub mod docs;
pub mod life;
pub mod machine;
pub mod measure;
pub mod results;
pub mod subject;

use std::time::Duration;

/// How long a subject may take for anything that it does at once, such as its first heartbeat. Far
/// more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a subject may take to end after SIGTERM.
const END: Duration = Duration::from_secs(30);

/// The time between two heartbeats without a change, for a busy subject.
const INTERVAL: Duration = Duration::from_secs(1);
