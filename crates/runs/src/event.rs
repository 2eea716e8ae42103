//! What can happen to a run, and why a run refuses it.

use podbeat_task_runs::model::ContainerStatus;

use super::{Pod, PodEnd, Status};

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A heartbeat arrived.
    Heartbeat(Box<Heartbeat>),
    /// A client aborts the run.
    Abort {
        /// Who, for the details.
        by: String,
    },
    /// An attempt was launched. It is the current one from now on.
    Launched {
        /// The number of the attempt, from 0.
        number: u32,
        /// The nonce that each of its heartbeats must have.
        nonce: String,
    },
    /// The Job of an attempt exists.
    Created {
        /// The number of the attempt.
        number: u32,
        /// metadata.uid of the Job.
        job: String,
    },
    /// The pod of the current attempt does not run yet.
    Waiting {
        /// The number of the attempt.
        number: u32,
        /// Kubernetes' reason.
        reason: String,
    },
    /// The pod of an attempt runs. Its heartbeats are expected from now on.
    PodRuns {
        /// The number of the attempt.
        number: u32,
    },
    /// The Job of an attempt is suspended, and has no pod that runs. Another pod will continue the
    /// attempt, so what the earlier one said about its end does not matter.
    Suspended {
        /// The number of the attempt.
        number: u32,
        /// The reason, for people.
        reason: String,
    },
    /// The API server was asked, and the pod of an attempt has not ended.
    PodLives {
        /// The number of the attempt.
        number: u32,
        /// The states of its containers.
        containers: Vec<ContainerStatus>,
    },
    /// Kubernetes says that the pod of an attempt ended.
    PodEnded {
        /// The number of the attempt.
        number: u32,
        /// How it ended.
        end: PodEnd,
    },
    /// The attempt can't start, whatever happens.
    CannotStart {
        /// The number of the attempt.
        number: u32,
        /// Kubernetes' reason.
        reason: String,
    },
    /// Time passed.
    Tick,
}

/// The parts of a heartbeat that concern the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    /// The serial of the attempt for which the service issued the token of the request. `None` for
    /// other tokens.
    pub token_of: Option<u32>,
    /// The Job's retry count, which is the number of the attempt.
    pub retry_count: Option<u32>,
    /// The nonce.
    pub nonce: Option<String>,
    /// Whether it is the last heartbeat.
    pub last: bool,
    /// The pod. A heartbeat without a UID is from the pod that is already known.
    pub pod: Pod,
    /// The states of containers.
    pub containers: Vec<ContainerStatus>,
    /// The trace ID of the request.
    pub trace_id: Option<String>,
}

/// Why a run refuses an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The run has ended.
    #[error("the run is already {0}")]
    Over(Status),
    /// The attempt has ended, and the run waits for the next one.
    #[error("this attempt has ended; the run is {0} and waits for the next attempt")]
    Ended(Status),
    /// The message is from an earlier attempt.
    #[error("attempt {number} is not the current one, which is {current}")]
    EarlierAttempt {
        /// The number of the message's attempt.
        number: u32,
        /// The number of the current attempt.
        current: u32,
    },
    /// The service issued the token for an earlier attempt.
    #[error("the token was issued for an earlier attempt")]
    EarlierToken,
    /// The message is from a pod that another one replaced.
    #[error("another pod replaced this one")]
    ReplacedPod,
    /// The service issued another nonce for this attempt.
    #[error("the nonce is not the one that was issued for this attempt")]
    WrongNonce,
    /// The service launches this run and has not done it yet, or does not launch it.
    #[error("the service has not launched an attempt of this run")]
    NotLaunched,
}
