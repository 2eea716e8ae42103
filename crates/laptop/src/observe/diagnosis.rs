//! Explains errors of the Kubernetes API and connection failures to a person, in kubectl's words
//! where kubectl has them.

use std::error::Error as _;

use podbeat_kubernetes::error::Error;

/// What is wrong between podbeat and the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// What happened.
    pub(super) what: String,
    /// How to fix it.
    pub(super) remedy: &'static str,
    /// The missing Role and RoleBinding, ready for `kubectl apply`.
    pub(super) role: Option<String>,
    pub(super) kind: Kind,
}

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection's settings are wrong.
    Setup,
    /// The API server does not know the user, or does not allow the request.
    Denied,
    /// The API server rejects the request for another reason.
    Refused,
    /// The API server cannot be reached, or does not answer.
    Unreachable,
    /// The API server answers, but asks podbeat to wait, or fails.
    Busy,
}

impl Diagnosis {
    pub(super) fn of(error: &Error) -> Self {
        let kind = match error.status() {
            Some(401 | 403) => Kind::Denied,
            Some(429 | 500..=599) => Kind::Busy,
            Some(_) => Kind::Refused,
            None if error.is_of_a_request() => Kind::Unreachable,
            None => Kind::Setup,
        };
        let remedy = match (kind, error.status()) {
            (Kind::Setup, _) => "fix the kubeconfig, or choose another kubeconfig or context",
            (Kind::Denied, Some(401)) => {
                "the credentials are invalid or have expired; log in to the cluster again"
            }
            (Kind::Denied, _) => "a Role with get, list and watch for pods is missing",
            (Kind::Refused, _) => "check that this is a Kubernetes API, and check the namespace",
            (Kind::Unreachable, _) => {
                "check the cluster, its address in the kubeconfig, and the network"
            }
            (Kind::Busy, _) => "retrying",
        };
        let what = match error {
            Error::Refused { refusal, .. } => {
                let reason = match refusal.reason.as_str() {
                    "" => "no reason",
                    reason => reason,
                };
                format!("Error from server ({reason}): {}", refusal.message)
            }
            Error::Unreachable { .. } | Error::Unreadable { .. } => {
                format!("Unable to connect to the server: {}", root(error))
            }
            Error::Timeout { .. } => format!("Unable to connect to the server: {error}"),
            Error::Access(_)
            | Error::Request { .. }
            | Error::TooLarge { .. }
            | Error::Endless { .. } => podbeat_interface::exit::with_causes(error),
        };
        Self {
            what,
            remedy,
            role: error.missing_role_of_a_person(),
            kind,
        }
    }
}

/// The innermost cause. The errors around it say only that something in them failed.
fn root(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}
