//! The heartbeats that came, as they came, for those who want to see them: the newest, within bounds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// One heartbeat as it came.
#[derive(Clone, PartialEq)]
pub struct Heartbeat {
    /// When, since the start.
    pub at: Duration,
    /// The run, decoded.
    pub run_id: String,
    /// The path, as it came.
    pub path: String,
    /// The body; null if it isn't JSON.
    pub body: Value,
    /// The token that it came with. Not shown by Debug.
    pub token: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// The HTTP status; `None` if it was not answered.
    pub status: Option<u16>,
    /// Whether the service acted on it.
    pub accepted: bool,
    /// What the contract has against it.
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
    /// Whether it is a last one.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.body.get("lastHeartbeat") == Some(&Value::Bool(true))
    }

    /// The nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        self.body.get("nonce").and_then(Value::as_str).unwrap_or_default()
    }

    /// The state of a container: its name on the wire, and its members.
    #[must_use]
    pub fn state(&self, container: &str) -> Option<(&str, &Value)> {
        let statuses = self.body.get("containerStatus")?.as_array()?;
        let status = statuses
            .iter()
            .find(|status| status.get("name").and_then(Value::as_str) == Some(container))?;
        status
            .get("state")?
            .as_object()?
            .iter()
            .next()
            .map(|(name, members)| (name.as_str(), members))
    }

    /// The exit code of a container that terminated.
    #[must_use]
    pub fn exit_code(&self, container: &str) -> Option<i64> {
        match self.state(container)? {
            ("terminated", members) => members.get("exitCode")?.as_i64(),
            _ => None,
        }
    }
}

/// How many heartbeats are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) of_run: usize,
    pub(crate) all: usize,
    /// The size of their bodies together.
    pub(crate) bytes: usize,
}

/// The heartbeats, in the order in which they came. Beyond the bounds the oldest go: a run's own first.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    heartbeats: VecDeque<(usize, Heartbeat)>,
    of_runs: BTreeMap<String, usize>,
    bytes: usize,
}

impl Heard {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Heartbeat> {
        self.heartbeats.iter().map(|(_, heartbeat)| heartbeat)
    }

    /// Keeps a heartbeat with a body of `size` bytes.
    pub(crate) fn keep(&mut self, heartbeat: Heartbeat, size: usize, bounds: Bounds) {
        let of_run = self.of_runs.entry(heartbeat.run_id.clone()).or_default();
        *of_run += 1;
        let is_too_many = *of_run > bounds.of_run;
        let run_id = is_too_many.then(|| heartbeat.run_id.clone());
        self.bytes += size;
        self.heartbeats.push_back((size, heartbeat));
        if let Some(run_id) = run_id {
            let oldest = self
                .heartbeats
                .iter()
                .position(|(_, heartbeat)| heartbeat.run_id == run_id);
            self.forget(oldest.unwrap_or(0));
        }
        while self.heartbeats.len() > bounds.all || self.bytes > bounds.bytes {
            self.forget(0);
        }
    }

    fn forget(&mut self, at: usize) {
        let Some((size, heartbeat)) = self.heartbeats.remove(at) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(size);
        if let Some(of_run) = self.of_runs.get_mut(&heartbeat.run_id) {
            *of_run -= 1;
            if *of_run == 0 {
                self.of_runs.remove(&heartbeat.run_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(run: &str, nth: u64) -> Heartbeat {
        Heartbeat {
            at: Duration::from_secs(nth),
            run_id: run.to_owned(),
            path: String::new(),
            body: Value::Null,
            token: None,
            content_type: None,
            user_agent: None,
            traceparent: None,
            status: None,
            accepted: false,
            violations: Vec::new(),
        }
    }

    #[test]
    fn the_newest_of_each_run_and_of_all_are_kept() {
        let bounds = Bounds {
            of_run: 2,
            all: 4,
            bytes: 35,
        };
        let mut heard = Heard::default();
        let kept = |heard: &Heard| -> Vec<(String, u64)> {
            heard
                .iter()
                .map(|heartbeat| (heartbeat.run_id.clone(), heartbeat.at.as_secs()))
                .collect()
        };
        let expect = |heard: &Heard, expected: &[(&str, u64)]| {
            let expected: Vec<(String, u64)> =
                expected.iter().map(|&(run, at)| (run.to_owned(), at)).collect();
            assert_eq!(kept(heard), expected);
        };
        for (run, nth) in [("a", 0), ("b", 1), ("a", 2), ("a", 3)] {
            heard.keep(heartbeat(run, nth), 1, bounds);
        }
        expect(&heard, &[("b", 1), ("a", 2), ("a", 3)]);
        for (run, nth) in [("c", 4), ("d", 5)] {
            heard.keep(heartbeat(run, nth), 1, bounds);
        }
        expect(&heard, &[("a", 2), ("a", 3), ("c", 4), ("d", 5)]);
        heard.keep(heartbeat("e", 6), 33, bounds);
        expect(&heard, &[("c", 4), ("d", 5), ("e", 6)]);
        heard.keep(heartbeat("f", 7), 36, bounds);
        expect(&heard, &[]);
        assert_eq!((heard.bytes, heard.of_runs.len()), (0, 0));
    }
}
