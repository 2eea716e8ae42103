//! Why the command failed, and how the process then ends.

use std::io;
use std::path::PathBuf;

use podbeat_heartbeat::saved::Malformed;
use podbeat_interface::exit::Ending;
use podbeat_interface::{nonce, service};
use podbeat_task_runs::error;

/// Why the command failed, or could not process all pods.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The service rejected a request, or cannot be reached.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// The Kubernetes API rejected a request, or cannot be reached.
    #[error(transparent)]
    Kubernetes(#[from] podbeat_kubernetes::error::Error),
    /// There are too many pods to keep in memory.
    #[error(
        "too many pods with podbeat to keep in memory; choose fewer with a namespace or a label selector"
    )]
    TooMany,
    /// The pod does not exist.
    #[error(
        "pod {name} not found; only the journal of a deleted pod shows how the pod ended (--journal)"
    )]
    NoSuchPod {
        /// The pod's name.
        name: String,
    },
    /// The journal is not usable.
    #[error("cannot use the journal {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Malformed,
    },
    /// The journal does not exist.
    #[error("journal {} not found", path.display())]
    NoJournal {
        /// The file.
        path: PathBuf,
    },
    /// The nonce file has no usable nonce.
    #[error(transparent)]
    Nonce(#[from] nonce::Unusable),
    /// The output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    /// The ending of the process for this error.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Service(error) => service::ending(error),
            Self::Kubernetes(podbeat_kubernetes::error::Error::Access(_)) | Self::Nonce(_) => {
                Ending::Usage
            }
            Self::Kubernetes(error) => match error.status() {
                Some(401 | 403) => Ending::Denied,
                Some(400 | 404 | 422) => Ending::Refused,
                Some(_) | None => Ending::Unavailable,
            },
            Self::TooMany => Ending::Refused,
            Self::NoSuchPod { .. } => Ending::NoSuchPod,
            Self::Journal { .. } | Self::NoJournal { .. } => Ending::Unread,
            Self::Write(_) => Ending::Unwritten,
        }
    }
}
