//! The visible members of runs and heartbeats, and no others. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::text::shown;
use crate::task_runs::http::{container_state, whole_number};
use crate::task_runs::received::Received;
use crate::task_runs::run::{Run, Status};
use crate::task_runs::store::Store;

/// The most runs on one page.
pub(super) const MOST_RUNS: usize = 200;

/// The most characters that are shown of a name and of a sentence.
const NAME: usize = 120;
const SENTENCE: usize = 400;

/// The most containers and violations that are shown of one heartbeat.
const MOST_CONTAINERS: usize = 20;
const MOST_VIOLATIONS: usize = 10;

/// The memory of an entry in addition to its texts, in bytes, including its places in the record.
const OWN_WEIGHT: usize = 320;

/// A heartbeat that is kept for the page. Its body is parsed only when somebody views it.
#[derive(Debug)]
pub(crate) struct Entry {
    at: Timestamp,
    body: Box<[u8]>,
    status: Option<u16>,
    fault: Option<String>,
    violations: Vec<String>,
}

impl Entry {
    /// Creates an entry from the body, the answer's status, the fault that applied, and the
    /// contract violations.
    pub(crate) fn new(
        at: Timestamp,
        body: &[u8],
        status: Option<u16>,
        fault: Option<String>,
        violations: &[String],
    ) -> Self {
        let violations = violations.iter().take(MOST_VIOLATIONS);
        Self {
            at,
            body: body.into(),
            status,
            fault,
            violations: violations
                .map(|violation| shown(violation, SENTENCE))
                .collect(),
        }
    }

    /// The memory that it uses, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let texts: usize = self
            .violations
            .iter()
            .chain(&self.fault)
            .map(String::len)
            .sum();
        self.body.len() + texts + OWN_WEIGHT
    }
}

/// A run in the list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(super) number: u64,
    /// Unchanged; every other text is made safe to show.
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) status: Status,
    pub(super) since: Timestamp,
    pub(super) last_beat: Option<Timestamp>,
    pub(super) retry_count: Option<i32>,
    pub(super) details: Option<String>,
}

impl Line {
    fn of((run, last_beat): (&Run, Option<Timestamp>)) -> Self {
        let name = run.name.as_deref().filter(|name| !name.trim().is_empty());
        Self {
            number: run.number,
            id: run.id.clone(),
            name: name.map(|name| shown(name, NAME)),
            status: run.status,
            since: run.modified,
            last_beat,
            retry_count: run.retry_count,
            details: run
                .details
                .as_deref()
                .map(|details| shown(details, SENTENCE)),
        }
    }
}

/// The newest runs with a status, or of all, and their counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Overview {
    pub(super) status: Option<Status>,
    pub(super) counts: Vec<(Status, usize)>,
    pub(super) lines: Vec<Line>,
}

impl Overview {
    pub(crate) fn of(store: &Store, status: Option<Status>) -> Self {
        Self {
            status,
            counts: Status::ALL
                .map(|status| (status, store.count(status)))
                .into(),
            lines: store.newest(status).take(MOST_RUNS).map(Line::of).collect(),
        }
    }

    pub(super) fn total(&self) -> usize {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// The number of runs with the shown status.
    pub(super) fn matching(&self) -> usize {
        let chosen =
            |(other, _): &&(Status, usize)| self.status.is_none_or(|status| status == *other);
        self.counts
            .iter()
            .filter(chosen)
            .map(|(_, count)| count)
            .sum()
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(super) began: Timestamp,
    pub(super) ended: Option<Timestamp>,
    pub(super) error: Option<String>,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Detail {
    pub(super) line: Line,
    pub(super) description: Option<String>,
    pub(super) created: Timestamp,
    /// After how long without a heartbeat it times out, if ever.
    pub(super) timeout: Option<Duration>,
    pub(super) attempts: Vec<Attempt>,
    /// Its heartbeats, newest first, each with its number.
    pub(super) received: Vec<(u64, Arc<Entry>)>,
}

impl Detail {
    pub(crate) fn of(
        store: &Store,
        received: &Received<Arc<Entry>>,
        timeout: Option<Duration>,
        id: &str,
    ) -> Option<Self> {
        let (run, last_beat) = store.find(id)?;
        let attempts = run.attempts.iter().map(|attempt| Attempt {
            began: attempt.began,
            ended: attempt.ended,
            error: attempt.error.as_deref().map(|error| shown(error, SENTENCE)),
        });
        let received = received
            .of_run(id)
            .map(|(number, entry)| (number, Arc::clone(entry)));
        Some(Self {
            line: Line::of((run, last_beat)),
            description: run.description.as_deref().map(|text| shown(text, SENTENCE)),
            created: run.created,
            timeout,
            attempts: attempts.collect(),
            received: received.collect(),
        })
    }
}

/// A parsed heartbeat.
#[derive(Debug, PartialEq)]
pub(super) struct Told<'a> {
    pub(super) at: Timestamp,
    pub(super) last: bool,
    pub(super) nonce: Option<String>,
    pub(super) retry_count: Option<i64>,
    pub(super) containers: Vec<Container>,
    /// The number of containers that are not shown.
    pub(super) more_containers: usize,
    pub(super) status: Option<u16>,
    pub(super) fault: Option<&'a str>,
    pub(super) violations: &'a [String],
}

/// A container in a heartbeat.
#[derive(Debug, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) state: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) exit_code: Option<i64>,
}

impl Container {
    fn of(status: &Value) -> Self {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).map(|text| shown(text, NAME));
        let state = container_state(status);
        let member = |name| state.and_then(|(_, members)| members.get(name));
        Self {
            name: text(status.get("name")).unwrap_or_default(),
            state: state.map(|(state, _)| shown(state, NAME)),
            reason: text(member("reason")),
            exit_code: member("exitCode").and_then(whole_number),
        }
    }
}

impl Entry {
    /// Parses the heartbeat.
    pub(super) fn told(&self) -> Told<'_> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let statuses = body.get("containerStatus").and_then(Value::as_array);
        let statuses = statuses.map(Vec::as_slice).unwrap_or_default();
        Told {
            at: self.at,
            last: body.get("lastHeartbeat") == Some(&Value::Bool(true)),
            nonce: body
                .get("nonce")
                .and_then(Value::as_str)
                .map(|nonce| shown(nonce, NAME)),
            retry_count: body.get("jobRetryCount").and_then(whole_number),
            containers: statuses
                .iter()
                .take(MOST_CONTAINERS)
                .map(Container::of)
                .collect(),
            more_containers: statuses.len().saturating_sub(MOST_CONTAINERS),
            status: self.status,
            fault: self.fault.as_deref(),
            violations: &self.violations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_body_is_read_as_far_as_it_can_be() {
        let body = br#"{"nonce":"n\u202e","jobRetryCount":2.0,"lastHeartbeat":true,"podName":"hidden","containerStatus":[
            {"name":"main","state":{"terminated":{"reason":"OOMKilled","exitCode":137,"message":"hidden"}}}, {"state":7}]}"#;
        let entry = Entry::new(now(), body, Some(200), None, &[]);
        let told = entry.told();
        assert_eq!(
            (told.nonce.as_deref(), told.retry_count, told.last),
            (Some("n\\u{202e}"), Some(2), true)
        );
        let main = Container {
            name: "main".to_owned(),
            state: Some("terminated".to_owned()),
            reason: Some("OOMKilled".to_owned()),
            exit_code: Some(137),
        };
        assert_eq!(told.containers[0], main);
        assert_eq!(told.containers[1].state, None);
        assert!(!format!("{told:?}").contains("hidden"));
        for odd in ["", "[", "7", "null", r#"{"containerStatus":{}}"#] {
            let entry = Entry::new(now(), odd.as_bytes(), None, None, &[]);
            assert_eq!(entry.told().containers, [], "{odd}");
        }
    }

    #[test]
    fn a_fleet_of_2500_runs_has_50_heartbeats_each() {
        let body = [b' '; 400];
        let mut received = Received::default();
        for _ in 0..60 {
            for run in 0..2_500 {
                let entry = Entry::new(now(), &body, Some(200), None, &[]);
                let weight = entry.weight();
                received.keep(
                    &format!("trn.{run:032x}"),
                    entry,
                    weight,
                    crate::page::BOUNDS,
                );
            }
        }
        for run in 0..2_500 {
            assert_eq!(received.of_run(&format!("trn.{run:032x}")).count(), 50);
        }
        assert_eq!(received.iter().count(), 125_000);
    }

    #[test]
    fn only_the_beginning_of_large_values_is_shown() {
        let status = r#"{"name":"c"}"#;
        let body = format!(
            r#"{{"nonce":"{}","containerStatus":[{}]}}"#,
            "n".repeat(9_999),
            vec![status; 30].join(",")
        );
        let violations = vec!["v".repeat(9_999); 99];
        let entry = Entry::new(now(), body.as_bytes(), None, None, &violations);
        let told = entry.told();
        assert_eq!((told.containers.len(), told.more_containers), (20, 10));
        assert_eq!(told.nonce.expect("a nonce").chars().count(), NAME + 1);
        assert_eq!(told.violations.len(), MOST_VIOLATIONS);
        assert!(entry.weight() < body.len() + 8 * SENTENCE * MOST_VIOLATIONS);
    }
}
