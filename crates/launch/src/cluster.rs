//! The requests to the API server. Each has a deadline, and each is safe to repeat.

mod kubernetes;

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;

pub use kubernetes::{Error, Kubernetes, Place, RIGHTS};

use crate::seen::{JobSeen, PodSeen};

/// Why a request was not successful.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is an object of that name.
    #[error("an object of this name exists already")]
    Exists,
    /// The object is not what the precondition says.
    #[error("the object changed meanwhile")]
    Changed,
    /// The API server will never accept this object (400, 422).
    #[error("the API server rejects it: {0}")]
    Invalid(String),
    /// The API server does not accept it now: a quota, a missing namespace or Role.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// The API server did not answer, or asked to wait.
    #[error("the API server is not available: {why}")]
    Unavailable {
        /// The reason.
        why: String,
        /// How long it asked to wait.
        after: Option<Duration>,
    },
}

/// The result of a request.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// A Job, as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// There is none of that name.
    Nothing,
    /// It is not from this server.
    Foreign,
    /// It is from this server.
    Ours(JobSeen),
}

/// A change of an object of this server, from a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A Job exists, or changed.
    Job(JobSeen),
    /// A Job does not exist any more.
    JobGone(JobSeen),
    /// A pod exists, or changed.
    Pod(PodSeen),
    /// A pod does not exist any more.
    PodGone(PodSeen),
    /// All Jobs and pods of a namespace, after a new list.
    Listed {
        /// The namespace.
        namespace: String,
        /// Its Jobs, or `None` if this list is about pods.
        jobs: Option<Vec<JobSeen>>,
        /// Its pods, or `None` if this list is about Jobs.
        pods: Option<Vec<PodSeen>>,
    },
    /// A watch failed. It continues by itself.
    Failed(Failure),
}

/// A Secret of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSeen {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// The run in its label.
    pub run: String,
    /// The number of the attempt in its label.
    pub attempt: u32,
    /// metadata.uid of its owner.
    pub owner: Option<String>,
}

/// The requests to the API server that a launcher makes.
pub trait Cluster: Send + Sync + 'static {
    /// Asks for a Job.
    fn job<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Found>;
    /// Asks for the pods of a Job.
    fn pods<'a>(&'a self, namespace: &'a str, job_uid: &'a str) -> Answer<'a, Vec<PodSeen>>;
    /// Asks for the newest event about a Job that has no pod, such as an exceeded quota.
    fn complaint<'a>(&'a self, namespace: &'a str, job_uid: &'a str) -> Answer<'a, Option<String>>;
    /// Creates a Job. [`Failure::Exists`] if there is one of that name.
    fn create_job<'a>(&'a self, job: &'a Job) -> Answer<'a, JobSeen>;
    /// Creates a Secret. [`Failure::Exists`] if there is one of that name.
    /// Returns its UID.
    fn create_secret<'a>(&'a self, secret: &'a Secret) -> Answer<'a, String>;
    /// Asks for a Secret. `None` if there is none of that name, or it is not from this server.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretSeen>>;
    /// All Secrets of this server in a namespace, without their contents.
    fn secrets<'a>(&'a self, namespace: &'a str) -> Answer<'a, Vec<SecretSeen>>;
    /// Deletes a Job and its pods, if it has this UID. No error if it does not exist.
    fn delete_job<'a>(&'a self, namespace: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()>;
    /// Deletes a Secret, if it has this UID. No error if it does not exist.
    fn delete_secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> Answer<'a, ()>;
    /// The last lines of a container's log, at most `bytes`. `None` if it has none yet.
    fn log_tail<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        bytes: usize,
    ) -> Answer<'a, Option<String>>;
    /// Watches the Jobs and pods of this server. Ends never by itself.
    fn watch(&self) -> BoxStream<'static, Change>;
}
