//! The wire types, member for member as in the contract.
//!
//! This file and its folder alone know the wire's spelling (`podUID`, `containerID`, `pageToken`). Here is no I/O.
//!
//! - Every member is optional on the wire. An absent one is left out when it is written again, never null; a null that came
//!   is read as absent.
//! - Members that an answer has and this version doesn't know are skipped: the service may be newer.
//! - A text of which the contract names the values is an open enum, [`TaskRunStatus`]: one that is unknown is kept.
//! - A time that the service tells is a [`DateTime`]: one that can't be read as a time is kept as it came.
//! - A number that needn't be whole is a [`Number`], which is always finite and keeps its form: 4 stays 4, and 4.0 stays 4.0.
//!   Fractions are exact up to 15 digits.
//! - What opens something is a [`Secret`](super::Secret), and where data lies is a [`Location`], since a presigned URL opens it,
//!   too: Debug shows neither. Serialized they are whole, because that is what goes to the service; for showing there is
//!   [`TaskRun::redact`] and [`CreateTaskRunRequest::redact`].

mod date_time;
mod error_response;
mod execution;
mod heartbeat;
mod location;
mod query;
mod status;
mod task_run;

pub use date_time::DateTime;
pub use error_response::ErrorResponse;
pub use execution::{
    CreateTaskRunRequest, Credentials, Environment, Execution, Image, InputMountMappingWithCreds,
    InputStreamSettings, MountMappingWithCreds, REDACTED, Resources, SystemFiles,
};
pub use heartbeat::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HeartbeatTaskRunRequest, TaskRunHeartbeat,
};
pub use location::Location;
pub use query::{ListTaskRunsQuery, PageSize, Sort, SortField};
/// A JSON number: always finite, whole or not.
pub use serde_json::Number;
pub use status::{TaskRunStatus, UnknownStatus};
pub use task_run::{TaskRun, TaskRunLogs, TaskRunSummary, TaskRunSummaryPagedItems, TaskVersionSummary};
