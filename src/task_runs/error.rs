//! What can go wrong between podbeat and the service.

use std::time::Duration;

use jiff::Timestamp;

use super::credentials;
use super::model::ErrorResponse;

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client can't be set up.
    #[error(
        "setting up the HTTPS client for the task-run service: check the CA and client certificate files"
    )]
    Setup(#[source] reqwest::Error),
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
    /// No connection: nothing was sent.
    #[error(
        "connecting to the task-run service: is the URL right, does the name resolve, does TLS trust its CA?"
    )]
    Connect(#[source] reqwest::Error),
    /// The request broke off or timed out: it may have arrived, and may still.
    #[error("no whole answer from the task-run service: the request may have arrived all the same")]
    Ambiguous(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The service answered with something other than 2xx.
    #[error("the task-run service answered {status}{}", described(.response))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it said of it, if that was readable.
        response: Option<ErrorResponse>,
        /// When it asked to be tried again.
        retry_after: Option<RetryAfter>,
    },
}

/// A `Retry-After` header in either of its two forms (RFC 9110, 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Seconds.
    Delay(Duration),
    /// A date.
    At(Timestamp),
}

/// An attempt that took too long.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {}", humantime::format_duration(*.0))]
pub struct TimedOut(pub Duration);

/// Characters of a server's text that are repeated in our own messages.
const LONGEST_QUOTE: usize = 300;

fn described(response: &Option<ErrorResponse>) -> String {
    let Some(response) = response else {
        return String::new();
    };
    let quote = |text: &str| -> String {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        clean.take(LONGEST_QUOTE).collect()
    };
    match (&response.code, &response.message) {
        (Some(code), Some(message)) => format!(": {}: {}", quote(code), quote(message)),
        (Some(text), None) | (None, Some(text)) => format!(": {}", quote(text)),
        (None, None) => String::new(),
    }
}
