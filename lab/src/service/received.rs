//! The received heartbeats, for inspection: the newest, within bounds.

use std::fmt;
use std::time::Duration;

pub(crate) use podbeat_server::received::{Bounds, Received};
use serde_json::Value;

/// One received heartbeat.
#[derive(Clone, PartialEq)]
pub struct Heartbeat {
    /// When it arrived, since the start.
    pub at: Duration,
    /// The run's id, decoded.
    pub run_id: String,
    /// The path, unchanged.
    pub path: String,
    /// The body; null if it isn't JSON.
    pub body: Value,
    /// The request's token. Debug doesn't show it.
    pub token: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// The HTTP status of the answer; `None` if there was no answer.
    pub status: Option<u16>,
    /// The seconds in the answer's Retry-After.
    pub retry_after: Option<Duration>,
    /// Whether the service accepted it.
    pub accepted: bool,
    /// Its contract violations.
    pub violations: Vec<String>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self
            .status
            .map_or("no answer".to_owned(), |status| status.to_string());
        write!(
            f,
            "{:?} {} {status} {} {:?}",
            self.at, self.run_id, self.body, self.violations
        )
    }
}

impl Heartbeat {
    /// Whether it is a last heartbeat.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.body.get("lastHeartbeat") == Some(&Value::Bool(true))
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        self.body
            .get("nonce")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The state of a container: its name on the wire and its members. Of several, the latest in a
    /// container's life.
    #[must_use]
    pub fn state(&self, container: &str) -> Option<(&str, &Value)> {
        let statuses = self.body.get("containerStatus")?.as_array()?;
        let status = statuses
            .iter()
            .find(|status| status.get("name").and_then(Value::as_str) == Some(container))?;
        // A null is no state.
        let states = status.get("state")?.as_object()?;
        let names = ["terminated", "running", "waiting"];
        let state = |name| Some((name, states.get(name)?)).filter(|(_, state)| !state.is_null());
        names.into_iter().find_map(state)
    }

    /// The exit code of a terminated container.
    #[must_use]
    pub fn exit_code(&self, container: &str) -> Option<i64> {
        match self.state(container)? {
            ("terminated", members) => members.get("exitCode")?.as_i64(),
            _ => None,
        }
    }
}
