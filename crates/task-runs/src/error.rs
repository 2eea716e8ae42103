//! What can go wrong between podbeat and the service.

use std::fmt;
use std::time::Duration;

use super::credentials;
use super::model::ErrorResponse;

/// Why a request was not accepted. No message carries a token, a password or any other secret of the request, even if the
/// service repeated it.
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
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A PEM file that holds no certificate.
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: std::path::PathBuf,
    },
    /// There is no token to send; nothing was sent.
    #[error("no bearer token for the task-run service")]
    Token(#[from] credentials::Error),
    /// The request breaks the contract; nothing was sent.
    #[error("{operation}: not sent, since {}", problems.join("; "))]
    Unfit {
        /// What was being done.
        operation: Operation,
        /// What is wrong with the request.
        problems: Vec<String>,
    },
    /// No connection: nothing was sent.
    #[error(
        "{operation}: no connection to the task-run service: is the URL right, does the name resolve, does TLS trust its CA?"
    )]
    Connect {
        /// What was being done.
        operation: Operation,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request broke off or timed out: it may have arrived, and may still.
    #[error("{operation}: no whole answer from the task-run service{}", operation.in_doubt())]
    Ambiguous {
        /// What was being done.
        operation: Operation,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service answered with something other than 2xx.
    #[error(
        "{operation}: the task-run service answered {status}{}{}",
        described(.response),
        Advice { operation, status: *status, retry_after: *retry_after }
    )]
    Status {
        /// What was being done.
        operation: Operation,
        /// The HTTP status.
        status: u16,
        /// What it said of it, if that was readable.
        response: Option<Box<ErrorResponse>>,
        /// How long it asked to wait before the next try.
        retry_after: Option<Duration>,
    },
    /// The service did what was asked for, but what it answered can't be read.
    #[error("{operation}: the task-run service answered {status}, but what it says is {problem}{}", operation.done())]
    Unreadable {
        /// What was being done.
        operation: Operation,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the body. None of it is repeated: it may hold secrets.
        problem: String,
    },
    /// A list that would never end.
    #[error("{}: given up after {pages} pages: {problem}", Operation::List)]
    Endless {
        /// Pages that were read.
        pages: u32,
        /// What the service does.
        problem: &'static str,
    },
}

/// What was being done, and to which run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `CreateTaskRun`.
    Create {
        /// The run's name, if it is to have one.
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

/// What to try.
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
            // A heartbeat is podbeat's own: there is nothing for anybody to correct.
            (400 | 422, Operation::Heartbeat { .. }) => return Ok(()),
            (400 | 422, _) => "correct the request by what the service says of it",
            (404 | 410, Operation::Create { .. } | Operation::List) => "is the service's URL right?",
            (404 | 410, _) => "is the run's id right, and is the run the token's tenant's?",
            // Heartbeats are tried again by whoever sends them, and that says when.
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

/// An attempt that took too long.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {}", humantime::format_duration(*.0))]
pub struct TimedOut(pub Duration);

/// Characters of anybody's text that are repeated in our own messages.
const LONGEST_QUOTE: usize = 300;

/// A text on one line, and not too much of it.
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
