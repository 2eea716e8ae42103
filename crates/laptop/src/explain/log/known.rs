//! What the lines of a pod's log say, line by line: the events as text, and what is known after
//! them.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use podbeat_heartbeat::observation::Why;
use podbeat_interface::messages::Id;

use super::line::Line;
use crate::explain::cause::Facts;
use crate::explain::story::{When, lasting, times};
use crate::explain::watch::reason;

/// A problem that has not ended yet.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) since: Option<When>,
    pub(super) error: String,
}

/// The current state of a container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) since: Option<When>,
    pub(super) state: String,
    pub(super) told: String,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) task_run: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) begun: usize,
    pub(super) ended: usize,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) facts: Facts,
    pub(super) pod_is_seen: bool,
    pub(super) never_seen: bool,
    pub(super) service_is_heard: bool,
    pub(super) service: Option<Trouble>,
    pub(super) kubernetes: Option<Trouble>,
    pub(super) service_outages: Vec<SignedDuration>,
    pub(super) kubernetes_outages: Vec<SignedDuration>,
    pub(super) signalled: bool,
    pub(super) due: Option<(Option<When>, String)>,
    pub(super) accepted: Option<(Option<When>, String)>,
    pub(super) undelivered: Option<Option<When>>,
    pub(super) refused: bool,
    pub(super) orphaned: bool,
    pub(super) marked: Vec<String>,
    pub(super) losses: Vec<String>,
    pub(super) exit_code: Option<i64>,
    pub(super) last: Option<When>,
}

impl Known {
    /// Processes a line, and returns its event as text. `None` if the line is not an event.
    pub(super) fn take_in(&mut self, line: &Line) -> Option<String> {
        let text = |name| line.text(name).unwrap_or_default();
        Some(match Id::of(&line.message) {
            Some(Id::Started) => self.begins(line),
            Some(Id::Resumed) => format!(
                "resumed from the journal: {} heartbeats wait; the last heartbeat is {}",
                line.number("waiting").unwrap_or(0),
                text("last_heartbeat")
            ),
            Some(Id::FirstAccepted) => {
                self.service_is_heard = true;
                "the service accepted the first heartbeat of this process".to_owned()
            }
            Some(Id::PodFound) => {
                self.pod_is_seen = true;
                if line.is_set("deleted") {
                    self.facts.deleted();
                }
                let node = line
                    .text("node")
                    .map_or_else(String::new, |node| format!(" on node {node}"));
                format!("found the pod{node}: containers {}", text("containers"))
            }
            Some(Id::PodNotFound) => {
                self.never_seen = true;
                "pod not found: POD_NAME, POD_NAMESPACE or POD_UID may be wrong".to_owned()
            }
            Some(Id::StateChanged) => self.changed(line),
            Some(Id::PodDeletion) => {
                self.facts.deleted();
                format!(
                    "the pod is being deleted; its grace period ends at {}",
                    text("until")
                )
            }
            Some(Id::PodReason) => {
                let part = |name| line.text(name).map(str::to_owned);
                let why = Why {
                    condition: part("condition"),
                    container: part("container"),
                    exit_code: line
                        .number("exit_code")
                        .and_then(|code| i32::try_from(code).ok()),
                    reason: part("reason"),
                    message: part("pod_message"),
                };
                let text = reason(&why);
                self.facts.add(why);
                text
            }
            Some(Id::NotAccepted) => {
                let trouble = trouble(line);
                let text = format!(
                    "the service did not accept a heartbeat{}: {}",
                    repeats(line),
                    trouble.error
                );
                self.service.get_or_insert(trouble);
                text
            }
            Some(Id::AcceptedAgain) => {
                self.service = None;
                self.service_is_heard = true;
                format!(
                    "the service accepts heartbeats again{}",
                    over(line, &mut self.service_outages)
                )
            }
            Some(Id::CannotWatch) => {
                let trouble = trouble(line);
                let text = format!(
                    "podbeat cannot watch the pod{}: {}",
                    repeats(line),
                    trouble.error
                );
                self.kubernetes.get_or_insert(trouble);
                text
            }
            Some(Id::WatchingAgain) => {
                self.kubernetes = None;
                format!(
                    "podbeat watches the pod again{}",
                    over(line, &mut self.kubernetes_outages)
                )
            }
            Some(Id::Dropped) => format!(
                "heartbeat {} was dropped; its content was: {} ({})",
                line.number("heartbeat").unwrap_or(0),
                text("told"),
                text("cause")
            ),
            Some(Id::Orphaned) => {
                self.orphaned = true;
                "the service says that the run does not belong to this pod; podbeat sends nothing more"
                    .to_owned()
            }
            Some(Id::Signal) => {
                self.signalled = true;
                self.facts.stopped();
                "SIGTERM: the pod is being stopped, or the task has ended".to_owned()
            }
            Some(Id::MarkerUsed) => {
                self.marked.push(text("container").to_owned());
                format!(
                    "an exit marker has the exit code that the API does not show: {} ended with exit code {}",
                    text("container"),
                    line.number("exit_code").unwrap_or(0)
                )
            }
            Some(Id::LastHeartbeatDue) => {
                self.due = Some((line.at, text("cause").to_owned()));
                self.facts.over();
                format!("the last heartbeat is due: {}", text("cause"))
            }
            Some(Id::LastHeartbeatAccepted) => {
                self.service = None;
                let told = match text("told") {
                    "" => "no container states",
                    told => told,
                };
                self.accepted = Some((line.at, told.to_owned()));
                format!("THE LAST HEARTBEAT WAS ACCEPTED; it reported: {told}")
            }
            Some(Id::Rejected) => {
                self.refused = true;
                "the service permanently rejected the last heartbeat".to_owned()
            }
            Some(Id::Losses) => {
                let causes = ["overflowed", "expired", "refused", "too_late", "orphaned"];
                let counts = causes
                    .iter()
                    .filter_map(|cause| Some((cause, line.number(cause)?)));
                let counts = counts.filter(|(_, count)| *count > 0);
                self.losses = counts
                    .map(|(cause, count)| format!("{count} {}", cause.replace('_', " ")))
                    .collect();
                format!(
                    "some heartbeats with container changes were never accepted: {}",
                    self.losses.join(", ")
                )
            }
            Some(Id::Undelivered) => {
                self.undelivered = Some(line.at);
                "THE LAST HEARTBEAT COULD NOT BE DELIVERED in time".to_owned()
            }
            Some(Id::Reopened) => {
                (self.due, self.accepted, self.undelivered) = (None, None, None);
                self.refused = false;
                self.facts.goes_on();
                "only podbeat's container was stopped, and the task continues: the earlier last heartbeat no longer counts".to_owned()
            }
            Some(Id::Exiting) => {
                self.ended += 1;
                self.exit_code = line.number("exit_code");
                format!(
                    "podbeat exited with code {}, after {} heartbeats in {} attempts",
                    self.exit_code.unwrap_or(0),
                    line.number("sent").unwrap_or(0),
                    line.number("attempts").unwrap_or(0)
                )
            }
            // Only events count. A log at debug level also has attempts and waits.
            _ if matches!(line.level.as_str(), "DEBUG" | "TRACE") => return None,
            _ => {
                let error = line
                    .text("error")
                    .map_or_else(String::new, |error| format!(": {error}"));
                format!("{}{error}", line.message)
            }
        })
    }

    fn begins(&mut self, line: &Line) -> String {
        self.facts.begun();
        if line.text("report") == Some("all") {
            self.facts.with_others();
        }
        let killed = self.begun > self.ended;
        self.begun += 1;
        // A new process must find out again about problems that the earlier one had.
        (self.service, self.kubernetes) = (None, None);
        self.task_run = line
            .text("task_run_id")
            .map(str::to_owned)
            .or(self.task_run.take());
        let namespace = line
            .text("pod_namespace")
            .map_or_else(String::new, |namespace| format!("{namespace}/"));
        self.pod = line
            .text("pod_name")
            .map(|name| format!("{namespace}{name}"))
            .or(self.pod.take());
        let version = line.text("version").unwrap_or("?");
        match self.begun {
            1 => format!("podbeat {version} started"),
            _ if killed => {
                format!("podbeat {version} started again: the process before it was killed")
            }
            _ => format!("podbeat {version} started again"),
        }
    }

    fn changed(&mut self, line: &Line) -> String {
        let text = |name| line.text(name).unwrap_or_default();
        let (name, to) = (text("container"), text("to"));
        let (reason, message) = (line.text("reason"), line.text("container_message"));
        match to {
            "waiting" => self.facts.waits(name, reason, message),
            "running" => self.facts.runs(name),
            _ => self
                .facts
                .ended(name, line.number("exit_code"), reason, message),
        }
        let mut told = to.to_owned();
        if let Some(code) = line.number("exit_code") {
            told += &format!(" with exit code {code}");
        }
        if let Some(signal) = line.number("signal").filter(|signal| *signal != 0) {
            told += &format!(", signal {signal}");
        }
        for detail in ["reason", "container_message"] {
            if let Some(detail) = line.text(detail) {
                told += &format!(", {detail}");
            }
        }
        let state = Container {
            since: line.at,
            state: to.to_owned(),
            told: told.clone(),
        };
        self.containers.insert(name.to_owned(), state);
        let restarts = match line.number("restart_count") {
            None | Some(0) => String::new(),
            Some(count) => format!(
                " (restarted {})",
                times(usize::try_from(count).unwrap_or(0))
            ),
        };
        format!("{name}: {told}{restarts}")
    }
}

fn trouble(line: &Line) -> Trouble {
    let since = line
        .text("since")
        .and_then(|since| since.parse().ok())
        .map(When::At);
    Trouble {
        since: since.or(line.at),
        error: line
            .text("error")
            .unwrap_or("(no error)")
            .trim_end_matches('.')
            .to_owned(),
    }
}

fn repeats(line: &Line) -> String {
    match line.number("repeats") {
        None | Some(..=1) => String::new(),
        Some(count) => format!(" ({count} times so far)"),
    }
}

/// The end of a problem: its duration and the number of failures.
fn over(line: &Line, outages: &mut Vec<SignedDuration>) -> String {
    let lasted = line.seconds("lasted_seconds").unwrap_or_default();
    outages.push(lasted);
    let failures = line.number("failures").unwrap_or(0);
    format!(", after {} and {failures} failures", lasting(lasted))
}
