//! The parts of runs and heartbeats that the page shows, and no others: no nonce, no secret. Every
//! text is made safe to show, except IDs, which are needed for addresses. Pure.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};

use super::text::shown;
use crate::service::{self, Beat, Caller, Detail};
use crate::store::{COUNTED, Facts, Listed, Page, Role};
use podbeat_runs::{Attempt as StoredAttempt, Status};

/// The maximum number of characters that are shown of a name, of an ID and of a sentence. The
/// details of a status have at most 4096 (the contract), and are complete on the page of their run.
const NAME: usize = 120;
pub(super) const ID: usize = 200;
const SENTENCE: usize = 400;
const TEXT: usize = 4096;

/// The maximum number of characters of a line of a log.
const LOG_LINE: usize = 2000;

/// The maximum number of containers of one heartbeat, and of entries of an access control list.
const CONTAINERS: usize = 20;
const ENTRIES: usize = 20;

/// Who looks at a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reader {
    pub(super) user: String,
    pub(super) tenant: String,
    pub(super) role: Role,
    /// Proves that a form comes from this session. Only for the reader's own pages.
    pub(super) form_token: String,
}

impl Reader {
    /// `None` for an agent, which can't sign in.
    pub(super) fn of(caller: &Caller, form_token: String) -> Option<Self> {
        let Caller::User { tenant, user, role } = caller else {
            return None;
        };
        Some(Self {
            user: shown(user, NAME),
            tenant: shown(tenant, NAME),
            role: *role,
            form_token,
        })
    }
}

/// A run in the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) number: u64,
    /// Unchanged.
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) tenant: String,
    pub(super) created_by: String,
    pub(super) status: Status,
    pub(super) details: Option<String>,
    pub(super) modified: Timestamp,
    pub(super) seen: Option<Timestamp>,
}

fn name(facts: &Facts) -> Option<String> {
    let name = facts.name.as_deref();
    let name = name.filter(|name| !name.trim().is_empty());
    name.map(|name| shown(name, NAME))
}

impl From<&Listed> for Line {
    fn from(run: &Listed) -> Self {
        Self {
            number: run.number,
            id: run.facts.id.clone(),
            name: name(&run.facts),
            tenant: shown(&run.facts.tenant, NAME),
            created_by: shown(&run.facts.created_by, NAME),
            status: run.status,
            details: run.details.as_deref().map(|text| shown(text, SENTENCE)),
            modified: run.modified,
            seen: run.seen,
        }
    }
}

/// The fields of the form above the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The beginning of a name or an ID, unchanged.
    pub(super) search: String,
    pub(super) statuses: Vec<Status>,
}

/// The tokens of other pages of the list. `None` if there is no such page, or it is this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) newer: Option<String>,
    pub(super) older: Option<String>,
    pub(super) oldest: Option<String>,
    /// Whether this is not the first page.
    pub(super) has_newest: bool,
}

/// A page of the list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Overview {
    pub(super) wanted: Wanted,
    pub(super) pages: Pages,
    /// The runs of all tenants by status, if the reader sees them all.
    pub(super) counts: Option<Vec<(Status, u64)>>,
    pub(super) lines: Vec<Line>,
    /// The number of runs on all pages.
    pub(super) total: u64,
}

impl Overview {
    /// `page` has the oldest run first.
    pub(super) fn of(
        wanted: Wanted,
        pages: Pages,
        counts: Option<Vec<(Status, u64)>>,
        page: &Page,
    ) -> Self {
        Self {
            wanted,
            pages,
            counts,
            lines: page.runs.iter().rev().map(Line::from).collect(),
            total: page.total,
        }
    }

    /// Whether there may be more runs than `total`.
    pub(super) fn is_more(&self) -> bool {
        !self.wanted.search.is_empty() && self.total >= COUNTED
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    pub(super) error: Option<String>,
    pub(super) pod_name: Option<String>,
    pub(super) pod_uid: Option<String>,
    pub(super) hardware: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) containers: Vec<Container>,
}

impl From<&StoredAttempt> for Attempt {
    fn from(attempt: &StoredAttempt) -> Self {
        let part = |text: &Option<String>| text.as_deref().map(|text| shown(text, SENTENCE));
        Self {
            number: attempt.number,
            started: attempt.started,
            ended: attempt.ended,
            error: attempt.error.as_deref().map(|text| shown(text, TEXT)),
            pod_name: part(&attempt.pod.name),
            pod_uid: part(&attempt.pod.uid),
            hardware: part(&attempt.pod.hardware),
            trace_id: part(&attempt.trace_id),
            containers: attempt.containers.iter().map(Container::from).collect(),
        }
    }
}

/// A container in a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) state: Option<&'static str>,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
}

impl From<&ContainerStatus> for Container {
    fn from(status: &ContainerStatus) -> Self {
        let state = status.state.as_ref();
        let end = status.terminated();
        let running = state.and_then(|state| state.running.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref());
        let of_end =
            |text: fn(&podbeat_task_runs::model::ContainerStateTerminated) -> Option<&String>| {
                end.and_then(text)
            };
        let reason = of_end(|end| end.reason.as_ref())
            .or_else(|| waiting.and_then(|waiting| waiting.reason.as_ref()));
        let message = of_end(|end| end.message.as_ref())
            .or_else(|| waiting.and_then(|waiting| waiting.message.as_ref()));
        Self {
            name: shown(status.name.as_deref().unwrap_or_default(), NAME),
            state: status.state_name(),
            started: end
                .and_then(|end| end.started_at)
                .or_else(|| running.and_then(|running| running.started_at)),
            finished: end.and_then(|end| end.finished_at),
            exit_code: end.and_then(|end| end.exit_code),
            signal: end.and_then(|end| end.signal),
            reason: reason.map(|text| shown(text, NAME)),
            message: message.map(|text| shown(text, SENTENCE)),
        }
    }
}

/// The end of the log of a run's pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Log {
    pub(super) namespace: String,
    pub(super) pod: Option<String>,
    /// Its lines, oldest first.
    pub(super) lines: Option<Vec<String>>,
}

impl Log {
    pub(super) fn of(log: &service::Log) -> Self {
        // Tabs are usual in logs.
        let line = |line: &str| shown(&line.replace('\t', "    "), LOG_LINE);
        Self {
            namespace: shown(&log.namespace, NAME),
            pod: log.pod.as_deref().map(|pod| shown(pod, SENTENCE)),
            lines: log
                .text
                .as_ref()
                .map(|text| text.lines().map(line).collect()),
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) line: Line,
    /// The details of its status, complete.
    pub(super) details: Option<String>,
    pub(super) description: Option<String>,
    pub(super) created: Timestamp,
    pub(super) modified_by: String,
    pub(super) acl: Vec<String>,
    pub(super) more_acl: usize,
    /// The type, size and tier that it asks for.
    pub(super) resource: Vec<String>,
    /// How long it may run without a heartbeat.
    pub(super) timeout: Duration,
    pub(super) attempts: Vec<Attempt>,
    pub(super) failures: u32,
    /// Oldest first.
    pub(super) timeline: Vec<(Timestamp, String)>,
    /// Newest first.
    pub(super) heartbeats: Vec<Heartbeat>,
    pub(super) may_abort: bool,
    /// Whether the service launches it.
    pub(super) is_launched: bool,
}

impl Run {
    pub(super) fn of(detail: &Detail, timeout: Duration) -> Self {
        let run = &detail.run;
        let facts = &run.facts;
        let acl = facts.acl.as_deref().unwrap_or_default();
        let resource = [
            &facts.resource_type,
            &facts.resource_size,
            &facts.resource_tier,
        ];
        let line = Line {
            number: run.number,
            id: facts.id.clone(),
            name: name(facts),
            tenant: shown(&facts.tenant, NAME),
            created_by: shown(&facts.created_by, NAME),
            status: run.run.status(),
            details: None,
            modified: run.modified,
            seen: run.seen,
        };
        let timeline = detail.timeline.iter();
        let heartbeats = detail.heartbeats.iter();
        Self {
            line,
            details: run.run.details().map(|text| shown(text, TEXT)),
            description: facts.description.as_deref().map(|text| shown(text, TEXT)),
            created: facts.created,
            modified_by: shown(&run.modified_by, NAME),
            acl: acl
                .iter()
                .take(ENTRIES)
                .map(|entry| shown(entry, ID))
                .collect(),
            more_acl: acl.len().saturating_sub(ENTRIES),
            resource: resource
                .into_iter()
                .flatten()
                .map(|text| shown(text, NAME))
                .collect(),
            timeout,
            attempts: run.run.attempts().iter().rev().map(Attempt::from).collect(),
            failures: run.run.failures(),
            timeline: timeline
                .map(|entry| (entry.at, shown(&entry.text, TEXT)))
                .collect(),
            heartbeats: heartbeats
                .map(|(number, beat)| Heartbeat::of(*number, beat))
                .collect(),
            may_abort: detail.may_change.is_ok() && !run.run.status().is_final(),
            is_launched: run.run.is_launched(),
        }
    }

    /// The name, or the ID of a run without one.
    pub(super) fn title(&self) -> String {
        self.line
            .name
            .clone()
            .unwrap_or_else(|| shown(&self.line.id, ID))
    }
}

/// A heartbeat. Its body is parsed only to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heartbeat {
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) accepted: bool,
    pub(super) last: bool,
    pub(super) retry_count: Option<i32>,
    pub(super) containers: Vec<Container>,
    /// The number of containers that are not shown.
    pub(super) more_containers: usize,
    pub(super) trace_id: Option<String>,
    pub(super) size: usize,
    pub(super) is_cut: bool,
}

impl Heartbeat {
    pub(super) fn of(number: u64, beat: &Beat) -> Self {
        // A body of which only the beginning is kept can't be parsed.
        let body: HeartbeatTaskRunRequest = serde_json::from_slice(&beat.body).unwrap_or_default();
        let containers = body.container_status.unwrap_or_default();
        Self {
            number,
            at: beat.at,
            accepted: beat.accepted,
            last: body.last_heartbeat == Some(true),
            retry_count: body.job_retry_count,
            containers: containers
                .iter()
                .take(CONTAINERS)
                .map(Container::from)
                .collect(),
            more_containers: containers.len().saturating_sub(CONTAINERS),
            trace_id: beat.trace_id.as_deref().map(|text| shown(text, NAME)),
            size: beat.size,
            is_cut: beat.body.len() < beat.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(body: &str) -> Beat {
        Beat {
            at: Timestamp::UNIX_EPOCH,
            body: body.as_bytes().into(),
            size: body.len(),
            accepted: true,
            trace_id: None,
        }
    }

    #[test]
    fn a_body_is_read_as_far_as_it_can_be() {
        let body = r#"{"nonce":"hidden","jobRetryCount":2,"lastHeartbeat":true,"other":{},"containerStatus":[
            {"name":"main\u202e","state":{"terminated":{"reason":"OOMKilled","exitCode":137,"finishedAt":"2026-01-01T00:00:00Z"}}}, {}]}"#;
        let read = Heartbeat::of(7, &beat(body));
        assert_eq!(
            (read.number, read.retry_count, read.last),
            (7, Some(2), true)
        );
        let main = Container {
            name: "main\\u{202e}".to_owned(),
            state: Some("terminated"),
            started: None,
            finished: Some("2026-01-01T00:00:00Z".parse().expect("a time")),
            exit_code: Some(137),
            signal: None,
            reason: Some("OOMKilled".to_owned()),
            message: None,
        };
        assert_eq!(read.containers[0], main);
        assert_eq!(read.containers[1].state, None);
        assert!(!format!("{read:?}").contains("hidden"));
        for odd in ["", "[", "7", "null", r#"{"containerStatus":{}}"#] {
            assert_eq!(Heartbeat::of(1, &beat(odd)).containers, [], "{odd}");
        }
    }

    #[test]
    fn only_the_beginning_of_large_values_is_shown() {
        let status = format!(r#"{{"name":"{}"}}"#, "c".repeat(999));
        let body = format!(r#"{{"containerStatus":[{}]}}"#, vec![status; 30].join(","));
        let read = Heartbeat::of(1, &beat(&body));
        assert_eq!((read.containers.len(), read.more_containers), (20, 10));
        assert_eq!(read.containers[0].name.chars().count(), NAME + 1);
        let cut = Beat {
            size: body.len() + 1,
            ..beat(&body)
        };
        assert!(Heartbeat::of(1, &cut).is_cut && !read.is_cut);
    }
}
