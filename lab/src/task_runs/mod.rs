//! The task-run service behind its stand-in: what runs there are and what may happen to them (`store`, `list`, `run`),
//! how that is said over HTTP (`http`), what outlives the process (`data`), renewed tokens and time (`jwt`, `clock`), and the
//! heartbeats that came (`heard`).
//! Never here: sockets, faults and what is recorded for tests, which are `service`'s.

pub mod clock;
pub(crate) mod data;
pub(crate) mod heard;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod list;
pub(crate) mod run;
pub(crate) mod store;
