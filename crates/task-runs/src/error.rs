//! Errors of the client of the task-run service.

use std::fmt;
use std::time::Duration;

use super::credentials;
use super::model::ErrorResponse;

/// Why a request was not accepted. No message contains a token, a password or another secret of the
/// request, even if the service repeated it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client can't be set up.
    #[error(
        "setting up the HTTPS client for the task-run service: check the CA and client certificate files"
    )]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file that the client needs can't be read.
    #[error("reading {what} from {}", path.display())]
    File {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A PEM file without a certificate.
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: std::path::PathBuf,
    },
    /// There is no token, so nothing was sent.
    #[error("no bearer token for the task-run service")]
    Token(#[from] credentials::Error),
    /// The request breaks the contract, so nothing was sent.
    #[error("{operation}: not sent, since {}", problems.join("; "))]
    Unfit {
        /// The operation.
        operation: Operation,
        /// What is wrong with the request.
        problems: Vec<String>,
    },
    /// No connection could be opened, so nothing was sent.
    #[error(
        "{operation}: no connection to the task-run service: is the URL right, does the name resolve, does TLS trust its CA?"
    )]
    Connect {
        /// The operation.
        operation: Operation,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request broke off or timed out. It may have arrived, or may still arrive.
    #[error("{operation}: no whole answer from the task-run service{}", operation.in_doubt())]
    Ambiguous {
        /// The operation.
        operation: Operation,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service responded with a status other than 2xx.
    #[error(
        "{operation}: the task-run service answered {status}{}{}",
        described(.response),
        Advice { operation, status: *status, retry_after: *retry_after }
    )]
    Status {
        /// The operation.
        operation: Operation,
        /// The HTTP status.
        status: u16,
        /// The error response, if it was readable.
        response: Option<Box<ErrorResponse>>,
        /// The wait before the next try that the service asked for.
        retry_after: Option<Duration>,
    },
    /// The operation succeeded, but the response can't be read.
    #[error("{operation}: the task-run service answered {status}, but what it says is {problem}{}", operation.done())]
    Unreadable {
        /// The operation.
        operation: Operation,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the body. No part of the body is repeated, because it may contain
        /// secrets.
        problem: String,
    },
    /// A list without an end.
    #[error("{}: given up after {pages} pages: {problem}", Operation::List)]
    Endless {
        /// Number of pages that were read.
        pages: u32,
        /// What the service does.
        problem: &'static str,
    },
}

/// The operation, and the run that it affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `CreateTaskRun`.
    Create {
        /// The run's name, if the request has one.
        name: Option<String>,
    },
    /// `GetTaskRun`.
    Get {
        /// The run.
        run_id: String,
    },
    /// `ListTaskRuns`.
    List,
    /// `AbortTaskRun`.
    Abort {
        /// The run.
        run_id: String,
    },
    /// `HeartbeatTaskRun`.
    Heartbeat {
        /// The run.
        run_id: String,
    },
}

impl Operation {
    fn in_doubt(&self) -> &'static str {
        match self {
            Self::Create { .. } => {
                ": the run may have been created all the same; look for its name in a list before you try again"
            }
            Self::Abort { .. } | Self::Heartbeat { .. } => ": the request may have arrived all the same",
            Self::Get { .. } | Self::List => "",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Create { .. } => ": the run is created; look for its name in a list",
            Self::Abort { .. } => ": the run is aborted",
            Self::Get { .. } | Self::List | Self::Heartbeat { .. } => "",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name: Some(name) } => write!(f, "creating task run {:?}", quote(name)),
            Self::Create { name: None } => f.write_str("creating a task run"),
            Self::Get { run_id } => write!(f, "getting task run {}", quote(run_id)),
            Self::List => f.write_str("listing task runs"),
            Self::Abort { run_id } => write!(f, "aborting task run {}", quote(run_id)),
            Self::Heartbeat { run_id } => write!(f, "sending a heartbeat of task run {}", quote(run_id)),
        }
    }
}

/// Advice for an error status.
struct Advice<'error> {
    operation: &'error Operation,
    status: u16,
    retry_after: Option<Duration>,
}

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match (self.status, self.operation) {
            (300..=399, _) => {
                "redirects are not followed, since the token must not go elsewhere: is the service's URL right?"
            }
            (401, _) => "is the token this service's, and still valid?",
            (403, _) => "the token doesn't give the right to do that",
            (400 | 409 | 422, Operation::Abort { .. }) => {
                "only a run that is Pending or Running can be aborted: get says where it stands"
            }
            // podbeat itself creates heartbeats, so the user can't correct them.
            (400 | 422, Operation::Heartbeat { .. }) => return Ok(()),
            (400 | 422, _) => "correct the request by what the service says of it",
            (404 | 410, Operation::Create { .. } | Operation::List) => "is the service's URL right?",
            (404 | 410, _) => "is the run's id right, and is the run the token's tenant's?",
            // The sender of heartbeats retries them and logs when.
            (408 | 425 | 429 | 500..=599, Operation::Heartbeat { .. }) => return Ok(()),
            (408 | 425 | 429 | 500..=599, _) => {
                return match self.retry_after {
                    Some(delay) => write!(f, "; try again in {}", humantime::format_duration(delay)),
                    None => f.write_str("; try again later"),
                };
            }
            _ => return Ok(()),
        };
        write!(f, "; {advice}")
    }
}

/// A request that exceeded its timeout.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {}", humantime::format_duration(*.0))]
pub struct TimedOut(pub Duration);

/// How many characters of an external text our messages repeat.
const LONGEST_QUOTE: usize = 300;

/// Shortens a text and puts it on one line.
fn quote(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(LONGEST_QUOTE).collect()
}

fn described(response: &Option<Box<ErrorResponse>>) -> String {
    let Some(response) = response else {
        return String::new();
    };
    let mut text = String::new();
    for part in [&response.code, &response.message].into_iter().flatten() {
        text += ": ";
        text += &quote(part);
    }
    if let Some(details) = response.details.as_ref().filter(|details| !details.is_empty()) {
        text += " (details: ";
        let details: Vec<String> = details.iter().map(ToString::to_string).collect();
        text += &quote(&details.join(", "));
        text += ")";
    }
    text
}
