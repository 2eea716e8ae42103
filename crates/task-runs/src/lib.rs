//! The Task Runs API: wire types, client and credentials. Only this crate knows the wire contract
//! (`contract/task-runs.openapi.yaml`). It knows nothing of Kubernetes, of settings, or of when to
//! send.
//!
//! You can use this crate on its own. [`client::Client`] has the five operations, [`model`] has
//! their requests and responses, and [`error::Error`] describes failures.
//! ```no_run
//! use std::time::Duration;
//!
//! use podbeat_task_runs::Secret;
//! use podbeat_task_runs::client::{Client, Tls};
//! use podbeat_task_runs::model::{CreateTaskRunRequest, Execution, Image};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "https://use1.platform.illumina.com".parse()?;
//! let client = Client::new(url, &Tls::default(), Duration::from_secs(10))?;
//! let (token, timeout) = (Secret::new("an API key or a JWT"), Duration::from_secs(10));
//! let request = CreateTaskRunRequest {
//!     name: Some("say hello".to_owned()),
//!     execution: Some(Execution {
//!         image: Some(Image::new("registry.example/busybox")),
//!         command: Some("echo".to_owned()),
//!         args: Some(vec!["hello".to_owned()]),
//!         ..Execution::default()
//!     }),
//!     ..CreateTaskRunRequest::default()
//! };
//! let run = client.create(&request, &token, timeout).await?;
//! let id = run.id.ok_or("the service gave the run no id")?;
//! println!("{id} is {:?}", run.status);
//! client.abort(&id, &token, timeout).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The caller must keep the token fresh. [`credentials::Credentials`] reads it from a file and
//! accepts renewed tokens. [`trace::TraceParent`] joins requests to a trace.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod credentials;
#[cfg(feature = "client")]
pub mod error;
#[cfg(test)]
#[path = "../../../tests/guarantees.rs"]
mod guarantees;
#[cfg(feature = "client")]
mod http_date;
pub mod model;
mod renewed;
mod secret;
pub mod trace;

pub use renewed::Renewed;
pub use secret::Secret;
