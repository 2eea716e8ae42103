//! The task-run service behind its stand-in: the runs and their changes (`store`, `list`, `run`),
//! the HTTP form (`http`), the persistent data (`data`), renewed tokens and time (`jwt`, `clock`),
//! and the received heartbeats (`received`).
//! Never here: sockets, faults, and the record for tests. They are in `service`.

pub mod clock;
pub(crate) mod data;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod list;
pub(crate) mod received;
pub(crate) mod run;
pub(crate) mod store;
