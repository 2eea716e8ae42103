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
        "cannot set up TLS for the task-run service; check the CA and client certificate files"
    )]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file that the client needs can't be read.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A PEM file does not contain what the client needs from it.
    #[error("{} contains no {what} in PEM format", path.display())]
    NotInFile {
        /// A certificate or an unencrypted private key.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
    },
    /// There is no token, so nothing was sent.
    #[error("no bearer token for the task-run service")]
    Token(#[from] credentials::Error),
    /// The request breaks the contract, so nothing was sent.
    #[error("{operation}: not sent: {}", problems.join("; "))]
    Unfit {
        /// The operation.
        operation: Operation,
        /// What is wrong with the request.
        problems: Vec<String>,
    },
    /// No connection could be opened, so nothing was sent.
    #[error("{operation}: cannot connect to the task-run service; check its URL, DNS and the CA")]
    Connect {
        /// The operation.
        operation: Operation,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request broke off or timed out. It may have arrived, or may still arrive.
    #[error("{operation}: no complete answer from the task-run service{}", operation.in_doubt())]
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
    #[error("{operation}: the task-run service answered {status}, but the body is {problem}{}", operation.done())]
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
    #[error("{}: stopped after {pages} pages: {problem}", Operation::List)]
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
                "; the run may exist: list runs with its name before you try again"
            }
            Self::Abort { .. } | Self::Heartbeat { .. } => "; the request may have arrived",
            Self::Get { .. } | Self::List => "",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Create { .. } => "; the run was created: list runs with its name",
            Self::Abort { .. } => "; the run was aborted",
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
            Self::Heartbeat { run_id } => {
                write!(f, "sending a heartbeat of task run {}", quote(run_id))
            }
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
                "podbeat does not follow redirects, because they could send the token elsewhere; check the service's URL"
            }
            (401, _) => "check that the token belongs to this service and is still valid",
            (403, _) => "the token lacks permission",
            (400 | 409 | 422, Operation::Abort { .. }) => {
                "only a Pending or Running run can be aborted (`get` shows its status)"
            }
            // podbeat itself creates heartbeats, so the user can't correct them.
            (400 | 422, Operation::Heartbeat { .. }) => return Ok(()),
            (400 | 422, _) => "correct the request as the service says",
            (404 | 410, Operation::Create { .. } | Operation::List) => "check the service's URL",
            (404 | 410, _) => "check the run ID, and that the run belongs to the token's tenant",
            // The sender of heartbeats retries them and logs when.
            (408 | 425 | 429 | 500..=599, Operation::Heartbeat { .. }) => return Ok(()),
            (408 | 425 | 429 | 500..=599, _) => {
                return match self.retry_after {
                    Some(delay) => {
                        write!(f, "; try again in {}", humantime::format_duration(delay))
                    }
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
    if let Some(details) = response
        .details
        .as_ref()
        .filter(|details| !details.is_empty())
    {
        text += " (details: ";
        let details: Vec<String> = details.iter().map(ToString::to_string).collect();
        text += &quote(&details.join(", "));
        text += ")";
    }
    text
}
