//! Why a request to the Kubernetes API failed. All requests of this crate have this error.

use std::time::Duration;

use super::answer::Cause;
use super::role::{self, Account};
use super::{access, answer};

/// Limit for the wait that an API server can ask for (429 with retryAfterSeconds).
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(60);

/// The most characters of the API server's explanation in a message.
const LONGEST_EXPLANATION: usize = 300;

/// Why a request to the Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client could be created.
    #[error(transparent)]
    Access(#[from] access::Error),
    /// The API server refused the request.
    #[error("{request}: the API server answered {}{}", .refusal.status, explained(.refusal))]
    Refused {
        /// The request.
        request: String,
        /// The namespace of the request. `None` for all namespaces.
        namespace: Option<String>,
        /// The answer.
        refusal: Refusal,
    },
    /// The response is not a response of the Kubernetes API.
    #[error("{request}: the answer is not from a Kubernetes API")]
    Unreadable {
        /// The request.
        request: String,
        /// The cause, if it contains no part of the response.
        #[source]
        source: Option<Cause>,
    },
    /// There was no connection, or it closed early.
    #[error("{request}: the API server is unreachable, or the connection closed early")]
    Unreachable {
        /// The request.
        request: String,
        /// The error of the connection.
        #[source]
        source: Cause,
    },
    /// The request could not be created.
    #[error("{request}: cannot create the request; check the names")]
    Request {
        /// The request.
        request: String,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// An object of the response exceeds the limit.
    #[error("{request}: the API server sent more than {} MiB for one object", .limit >> 20)]
    TooLarge {
        /// The request.
        request: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// There was no response in time.
    #[error("{request}: no answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The request.
        request: String,
        /// The limit.
        after: Duration,
    },
    /// The list has too many pages.
    #[error("{request}: stopped after {pages} pages")]
    Endless {
        /// The request.
        request: String,
        /// The limit.
        pages: usize,
    },
}

/// An answer with a status that is not 2xx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The API server's reason, such as `Forbidden`; empty if it was not readable.
    pub reason: String,
    /// The API server's explanation; empty if it was not readable.
    pub message: String,
    /// How long the API server asked to wait.
    pub retry_after: Duration,
}

impl From<kube::core::Status> for Refusal {
    fn from(status: kube::core::Status) -> Self {
        let seconds = status
            .details
            .map_or(0, |details| details.retry_after_seconds);
        Self {
            status: status.code,
            reason: status.reason,
            message: status.message,
            retry_after: Duration::from_secs(seconds.into()).min(LONGEST_ASKED_WAIT),
        }
    }
}

/// The API server's explanation, and advice for statuses that a user can do something about.
fn explained(refusal: &Refusal) -> String {
    let mut text = String::new();
    let message = refusal.message.trim();
    if !message.is_empty() {
        text.push_str(": ");
        text.extend(message.chars().take(LONGEST_EXPLANATION));
    }
    text.push_str(match refusal.status {
        400 | 422 => "; check the label selector and the names",
        401 => "; the token is not valid for this cluster, or has expired",
        403 => "; the account needs a Role with get, list and watch on pods",
        404 => "; check the address and the names",
        410 => "; the state expired meanwhile, try again",
        _ => "",
    });
    text
}

impl Error {
    /// The error of a request in this namespace, or in all.
    pub(super) fn of(request: String, namespace: Option<&str>, error: answer::Error) -> Self {
        match error {
            answer::Error::TooLarge(limit) => Self::TooLarge { request, limit },
            answer::Error::Refused(status) => Self::Refused {
                request,
                namespace: namespace.map(str::to_owned),
                refusal: Refusal::from(*status),
            },
            answer::Error::Unreadable(source) => Self::Unreadable {
                request,
                source: Some(source.into()),
            },
            // The text of the error may contain a secret.
            #[cfg(feature = "kubeconfig")]
            answer::Error::Credentials(source) => {
                Self::Access(super::kubeconfig::setup(source).into())
            }
            answer::Error::Broken(source) => Self::Unreachable { request, source },
            answer::Error::Request(source) => Self::Request { request, source },
        }
    }

    /// The API server's refusal, if there is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Access(_)
            | Self::Unreadable { .. }
            | Self::Unreachable { .. }
            | Self::Request { .. }
            | Self::TooLarge { .. }
            | Self::Timeout { .. }
            | Self::Endless { .. } => None,
        }
    }

    /// The HTTP status of the API server's refusal, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// The Role and RoleBinding that would allow a forbidden request, for `kubectl apply`. `None`
    /// for any other error, and for a request in all namespaces.
    #[must_use]
    pub fn missing_role(&self) -> Option<String> {
        let (namespace, message) = self.forbidden()?;
        let account = Account::forbidden(message);
        let account = account.unwrap_or_else(|| Account::ServiceAccount {
            namespace: namespace.to_owned(),
            name: "default".to_owned(),
        });
        Some(role::missing(namespace, &account))
    }

    /// As [`missing_role`](Self::missing_role), but for a person, who may not be a service account.
    /// If the name is unknown or unusual, the Role contains a placeholder for it.
    #[cfg(feature = "kubeconfig")]
    #[must_use]
    pub fn missing_role_of_a_person(&self) -> Option<String> {
        let (namespace, message) = self.forbidden()?;
        let account = Account::forbidden(message).unwrap_or_else(|| {
            let user = forbidden_user(message).unwrap_or("YOUR-NAME");
            Account::User(user.to_owned())
        });
        Some(role::missing(namespace, &account))
    }

    /// The namespace of a forbidden request, and the API server's explanation.
    fn forbidden(&self) -> Option<(&str, &str)> {
        match self {
            Self::Refused {
                namespace: Some(namespace),
                refusal,
                ..
            } if refusal.status == 403 => Some((namespace, &refusal.message)),
            _ => None,
        }
    }

    /// Whether a request was sent. `false` if the client could not be created.
    #[must_use]
    pub fn is_of_a_request(&self) -> bool {
        !matches!(self, Self::Access(_))
    }

    /// Whether there was no response at all.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || self.is_broken_off()
    }

    /// Whether no connection could be opened, or it closed early. The resourceVersion may still be
    /// valid then.
    pub(super) fn is_broken_off(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The wait that the API server asked for.
    pub(super) fn asked_wait(&self) -> Duration {
        self.refusal()
            .map_or(Duration::ZERO, |refusal| refusal.retry_after)
    }
}

/// The name of another user in the message of a 403: `User "jane@example.com" cannot …`. Returns
/// only a name that needs no escaping in YAML.
#[cfg(feature = "kubeconfig")]
fn forbidden_user(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("User \"")?;
    let (user, _) = rest.split_once('"')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@:+/=#".contains(&byte);
    (!user.is_empty() && user.bytes().all(is_plain)).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(message: &str) -> Error {
        Error::Refused {
            request: "listing pod team-a/p".to_owned(),
            namespace: Some("team-a".to_owned()),
            refusal: Refusal {
                status: 403,
                message: message.to_owned(),
                ..Refusal::default()
            },
        }
    }

    #[test]
    fn the_missing_role_is_for_the_account_that_was_refused() {
        let role = forbidden(
            r#"pods is forbidden: User "system:serviceaccount:team-a:tasks" cannot list resource "pods" in API group """#,
        )
        .missing_role()
        .expect("a role");
        assert!(
            role.contains("subjects:\n- {kind: ServiceAccount, name: tasks, namespace: team-a}\n")
        );
        assert!(role.contains("metadata: {name: podbeat, namespace: team-a}"));
    }

    #[cfg(feature = "kubeconfig")]
    #[test]
    fn the_missing_role_of_a_person_is_for_that_person() {
        let role = |user: &str| {
            let message =
                format!(r#"pods is forbidden: User "{user}" cannot list resource "pods""#);
            let role = forbidden(&message)
                .missing_role_of_a_person()
                .expect("a role");
            role.rsplit_once("subjects:\n")
                .expect("subjects")
                .1
                .to_owned()
        };
        let person = |name: &str| {
            format!("- {{kind: User, apiGroup: rbac.authorization.k8s.io, name: \"{name}\"}}\n")
        };
        assert_eq!(role("jane@example.com"), person("jane@example.com"));
        assert_eq!(role("a\n- b"), person("YOUR-NAME"));
        assert_eq!(role(""), person("YOUR-NAME"));
        assert_eq!(
            role("system:serviceaccount:team-a:tasks"),
            "- {kind: ServiceAccount, name: tasks, namespace: team-a}\n"
        );
    }

    #[test]
    fn the_role_contains_only_valid_names() {
        for message in [
            "no user",
            r#"User "system:serviceaccount:a"#,
            r#"User "system:serviceaccount:a: b}" cannot"#,
            "User \"system:serviceaccount:a:b\n- c\" cannot",
            r#"User "jane" cannot"#,
        ] {
            let role = forbidden(message).missing_role().expect("a role");
            assert!(
                role.ends_with("- {kind: ServiceAccount, name: default, namespace: team-a}\n"),
                "{role}"
            );
        }
    }
}
