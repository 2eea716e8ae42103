//! podbeat beside its peers: other ways to do the same work, each before stand-ins of its own, in one run.
//! Here live the peers and how they are started, the life that each must tell alike, the measurements, and what is made of them.
//! Never here: a figure that wasn't measured in the same run as those that it is compared with.

pub mod chart;
pub mod docs;
pub mod life;
pub mod machine;
pub mod measure;
pub mod results;
pub mod subject;

use std::time::Duration;

/// How long a subject may take for anything that it does at once, such as its first heartbeat. Far above what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a subject may take to end after its SIGTERM.
const END: Duration = Duration::from_secs(30);

/// Between two heartbeats while nothing changes, where a subject is kept busy.
const INTERVAL: Duration = Duration::from_secs(1);
