//! What the Kubernetes API's refusals and silences mean to a person, in kubectl's words where it
//! has them.

use std::error::Error as _;

use podbeat_kubernetes::error::Error;

/// What is wrong between here and the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// What happened.
    pub(super) what: String,
    /// What to do about it.
    pub(super) remedy: &'static str,
    /// The Role and RoleBinding that are missing, ready for `kubectl apply`.
    pub(super) role: Option<String>,
    pub(super) kind: Kind,
}

/// How a trouble is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The settings of the connection are wrong.
    Setup,
    /// The API server doesn't know the user, or doesn't allow it.
    Denied,
    /// It refuses for another reason.
    Refused,
    /// It can't be reached, or says nothing.
    Unreachable,
    /// It answers, and asks to wait.
    Busy,
}

impl Diagnosis {
    pub(super) fn of(error: &Error, namespace: &str) -> Self {
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
            Error::Access(_) | Error::TooLarge { .. } | Error::Endless { .. } => {
                podbeat_interface::exit::with_causes(error)
            }
        };
        Self {
            what,
            remedy,
            role: error.missing_role_of_a_person(namespace),
            kind,
        }
    }
}

/// The innermost cause: those around it say no more than that something failed in them.
fn root(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}
