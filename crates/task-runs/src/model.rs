//! The wire types, member for member as in the contract.
//!
//! Only this file and its folder know the wire's spelling (`podUID`, `containerID`, `pageToken`).
//! They do no I/O.
//!
//! - Every member is optional on the wire. An absent member is omitted when it is written again,
//!   never written as null. A null is read as absent.
//! - Unknown members of a response are skipped, because the service may be newer than this version.
//! - [`TaskRunStatus`] is a text for which the contract lists the values. It is an open enum that
//!   keeps unknown values.
//! - [`DateTime`] is a time from the service. If it can't be parsed, it is kept unchanged.
//! - [`Number`] is a number that may have a fraction. It is always finite and keeps its form: 4
//!   stays 4, and 4.0 stays 4.0. Fractions are exact up to 15 digits.
//! - [`Secret`](super::Secret) gives access to something, and so does a [`Location`], because it
//!   may be a presigned URL. Debug shows neither. Serialization writes both completely, for
//!   requests to the service. To display them, use [`TaskRun::redact`] and
//!   [`CreateTaskRunRequest::redact`].

mod date_time;
mod error_response;
mod execution;
mod heartbeat;
mod location;
mod problems;
mod query;
mod sort;
mod status;
mod task_run;

pub use date_time::DateTime;
pub use error_response::ErrorResponse;
pub use execution::{
    CreateTaskRunRequest, Credentials, Environment, Execution, Image, InputMountMappingWithCreds,
    InputStreamSettings, MountMappingWithCreds, REDACTED, Resources, SystemFiles,
};
pub use heartbeat::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HeartbeatTaskRunRequest, TaskRunHeartbeat,
};
pub use location::Location;
pub use query::{ListTaskRunsQuery, PageSize, QueryParameter};
/// A JSON number: always finite, with or without a fraction.
pub use serde_json::Number;
pub use sort::{InvalidSort, Sort, SortField, SortOrder};
pub use status::{TaskRunStatus, UnknownStatus};
pub use task_run::{
    TaskRun, TaskRunLogs, TaskRunSummary, TaskRunSummaryPagedItems, TaskVersionSummary,
};
