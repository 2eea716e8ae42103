//! What the task-run service speaks: its wire types, its client, the credentials that open it.
//! Here lives everything that knows the wire contract (`contract/task-runs.openapi.yaml`).
//! Never here: Kubernetes, the decision when to send, settings.

pub mod client;
pub mod credentials;
pub mod error;
pub mod model;
pub(crate) mod secret;

pub use secret::Secret;
