//! Explains podbeat's log, in the JSON or the text form.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use podbeat_heartbeat::observation::Why;
use serde_json::{Map, Value};

use super::cause::Facts;
use super::story::{Event, Outcome, Story, Verdict, When, at, lasting, listed, times};
use super::text_form;
use super::watch::reason;
use podbeat_interface::messages::Id;

/// One line of the log.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The prefix from `kubectl logs --prefix`. All lines of one pod have the same prefix.
    prefix: String,
    at: Option<When>,
    level: String,
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    /// Parses a line, without kubectl's additions (`--prefix`, `--timestamps`). `None` if it is not
    /// podbeat's.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (mut rest, mut prefix, mut read_at) = (text.trim(), String::new(), None);
        while let Some((word, after)) = rest.split_once(' ') {
            match word.parse::<Timestamp>() {
                Ok(at) => read_at = Some(at),
                Err(_) if word.starts_with('[') && word.ends_with(']') => {
                    word.clone_into(&mut prefix)
                }
                Err(_) => break,
            }
            rest = after.trim_start();
        }
        if rest.starts_with('{') {
            return Self::read_json(rest, prefix);
        }
        let read = text_form::read(rest)?;
        Some(Self {
            prefix,
            at: Some(read_at.map_or(When::OfDay(read.at), When::At)),
            level: read.level,
            message: read.message,
            fields: read.fields,
        })
    }

    fn read_json(text: &str, prefix: String) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (message, level, timestamp) = (take("message")?, take("level")?, take("timestamp")?);
        let target = take("target")?;
        Some(Self {
            prefix,
            at: timestamp.parse().ok().map(When::At),
            level,
            message,
            fields,
        })
        .filter(|_| target.starts_with("podbeat"))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.fields.get(name)? {
            Value::String(text) => text.parse().ok(),
            other => other.as_i64(),
        }
    }

    fn is_set(&self, name: &str) -> bool {
        let value = self.fields.get(name);
        value.is_some_and(|value| *value == Value::Bool(true) || value == "true")
    }

    fn seconds(&self, name: &str) -> Option<SignedDuration> {
        let seconds = match self.fields.get(name)? {
            Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        };
        SignedDuration::try_from_secs_f64(seconds?).ok()
    }
}

/// A problem that has not ended yet.
#[derive(Clone, Debug)]
struct Trouble {
    since: Option<When>,
    error: String,
}

/// The current state of a container.
#[derive(Clone, Debug)]
struct Container {
    since: Option<When>,
    state: String,
    told: String,
}

/// What is known so far.
#[derive(Debug, Default)]
struct Known {
    task_run: Option<String>,
    pod: Option<String>,
    begun: usize,
    ended: usize,
    containers: BTreeMap<String, Container>,
    facts: Facts,
    pod_is_seen: bool,
    never_seen: bool,
    service_is_heard: bool,
    service: Option<Trouble>,
    kubernetes: Option<Trouble>,
    service_outages: Vec<SignedDuration>,
    kubernetes_outages: Vec<SignedDuration>,
    signalled: bool,
    due: Option<(Option<When>, String)>,
    accepted: Option<(Option<When>, String)>,
    undelivered: Option<Option<When>>,
    refused: bool,
    orphaned: bool,
    marked: Vec<String>,
    losses: Vec<String>,
    exit_code: Option<i64>,
    last: Option<When>,
}

/// The stories of the pods in these lines. Each story includes all processes of its pod.
pub(super) fn stories(lines: Vec<Line>) -> Vec<Story> {
    let mut pods: Vec<(String, Vec<Line>)> = Vec::new();
    for line in lines {
        match pods.iter_mut().find(|(prefix, _)| *prefix == line.prefix) {
            Some((_, lines)) => lines.push(line),
            None => pods.push((line.prefix.clone(), vec![line])),
        }
    }
    pods.into_iter().map(|(_, lines)| story(&lines)).collect()
}

fn story(lines: &[Line]) -> Story {
    let mut known = Known::default();
    let mut events = Vec::new();
    for line in lines {
        known.last = line.at.or(known.last);
        if let Some(text) = known.take_in(line) {
            events.push(Event::new(line.at, text));
        }
    }
    let verdict = known.verdict();
    Story {
        source: "log",
        task_run: known.task_run,
        pod: known.pod,
        events,
        verdict,
    }
}

impl Known {
    /// Processes a line, and returns its event as text. `None` if the line is not an event.
    fn take_in(&mut self, line: &Line) -> Option<String> {
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
                self.accepted = Some((line.at, text("told").to_owned()));
                let told = match text("told") {
                    "" => "no container states".to_owned(),
                    told => told.to_owned(),
                };
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

    fn verdict(&self) -> Verdict {
        let run = self
            .task_run
            .as_deref()
            .map_or_else(|| "the run".to_owned(), |run| format!("task run {run}"));
        let when =
            |time: &Option<When>| time.map_or_else(String::new, |time| format!(" at {}", at(time)));
        let (outcome, mut text) = if let Some((time, told)) = &self.accepted {
            let told = if told.is_empty() {
                "no container states"
            } else {
                told
            };
            let text = format!(
                "The service knows how {run} ended: it accepted the last heartbeat{}, which reported: {told}.",
                when(time)
            );
            (Outcome::Delivered, text)
        } else if self.orphaned {
            let text = format!(
                "The service said three times, over half a minute or more, that {run} does not belong to this pod, so podbeat sent \
                 nothing more. Check whether another pod checked out the run, or whether it was ended in another way."
            );
            (Outcome::Orphaned, text)
        } else if self.refused {
            let why = self
                .service
                .as_ref()
                .map_or_else(String::new, |trouble| format!(": {}", trouble.error));
            let text = format!(
                "The service does not know how {run} ended: it permanently rejected the last heartbeat, also without \
                 containerStatus{why}."
            );
            (Outcome::Refused, text)
        } else if let Some(time) = &self.undelivered {
            let due = self
                .due
                .as_ref()
                .map_or_else(String::new, |(time, _)| when(time));
            let why = self
                .service
                .as_ref()
                .map_or_else(String::new, |trouble| format!(": {}", trouble.error));
            let text = format!(
                "The service does not know how {run} ended: the last heartbeat was due{due}, but was not accepted before podbeat had \
                 to exit{}{why}. As long as the pod exists, podbeat reap can send it.",
                when(time)
            );
            (Outcome::Undelivered, text)
        } else {
            self.open(&run)
        };
        for more in [
            self.outages(),
            self.restarts(),
            self.withheld(),
            self.lost(outcome),
        ] {
            if !more.is_empty() {
                text += " ";
                text += &more;
            }
        }
        Verdict::new(outcome, self.facts.cause(), &text)
    }

    /// What a run still waits for, if its end is unknown.
    fn open(&self, run: &str) -> (Outcome, String) {
        if self.begun == 0 && self.last.is_none() {
            return (
                Outcome::Unknown,
                "These lines contain nothing about a run.".to_owned(),
            );
        }
        let here = self
            .last
            .map_or_else(String::new, |last| format!(" at {}", at(last)));
        let end = if self.begun > 0 && self.ended >= self.begun {
            format!(
                "podbeat exited with code {}, without a last heartbeat of {run}.",
                self.exit_code.unwrap_or(0)
            )
        } else {
            format!("The log of {run} ends{here}: podbeat still runs, or was killed.")
        };
        let since = |time: &Option<When>| {
            time.map_or_else(String::new, |time| format!(" since {}", at(time)))
        };
        let mut why = Vec::new();
        if let Some((time, cause)) = &self.due {
            why.push(format!(
                "The last heartbeat has been due{} ({cause}).",
                since(time)
            ));
        }
        if let Some(trouble) = &self.service {
            why.push(format!(
                "The service has not accepted a heartbeat{}: {}.",
                since(&trouble.since),
                trouble.error
            ));
        } else if !self.service_is_heard {
            why.push("The service has not accepted any heartbeat so far.".to_owned());
        }
        if let Some(trouble) = &self.kubernetes {
            why.push(format!(
                "podbeat has not been able to watch the pod{}: {}.",
                since(&trouble.since),
                trouble.error
            ));
        } else if self.never_seen && !self.pod_is_seen {
            why.push("The Kubernetes API has no pod with this name and UID.".to_owned());
        }
        for (name, container) in &self.containers {
            match container.state.as_str() {
                "running" => why.push(format!(
                    "{name} has been running{}.",
                    since(&container.since)
                )),
                "waiting" => why.push(format!(
                    "{name} is {}{}.",
                    container.told,
                    since(&container.since)
                )),
                _ => why.push(format!("{name}: {}.", container.told)),
            }
        }
        let outcome = if self.due.is_some() {
            Outcome::Due
        } else {
            Outcome::Open
        };
        why.insert(0, end);
        (outcome, why.join(" "))
    }

    fn outages(&self) -> String {
        let mut told = Vec::new();
        for (who, outages) in [
            ("the service", &self.service_outages),
            ("the Kubernetes API", &self.kubernetes_outages),
        ] {
            if !outages.is_empty() {
                let all = outages
                    .iter()
                    .fold(SignedDuration::ZERO, |all, one| all.saturating_add(*one));
                told.push(format!(
                    "{who} was unavailable {}, for {} in total",
                    times(outages.len()),
                    lasting(all)
                ));
            }
        }
        sentence(&told)
    }

    fn restarts(&self) -> String {
        match self.begun {
            0 | 1 => String::new(),
            begun => format!("podbeat's container was restarted {}.", times(begun - 1)),
        }
    }

    fn withheld(&self) -> String {
        if self.marked.is_empty() {
            return String::new();
        }
        format!(
            "Kubernetes did not show how {} ended, because the pod was being stopped; the exit codes come from exit markers.",
            listed(&self.marked)
        )
    }

    fn lost(&self, outcome: Outcome) -> String {
        if !self.losses.is_empty() {
            return format!(
                "Heartbeats with container changes that were never accepted: {}.",
                listed(&self.losses)
            );
        }
        match outcome {
            Outcome::Delivered => {
                "The service also accepted everything that podbeat saw before.".to_owned()
            }
            _ => String::new(),
        }
    }
}

fn sentence(parts: &[String]) -> String {
    let text = listed(parts);
    let mut characters = text.chars();
    match characters.next() {
        None => String::new(),
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
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

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::*;
    use podbeat_interface::messages::{FIELDS, Message};

    fn lines(text: &str) -> Vec<Line> {
        text.lines().filter_map(Line::read).collect()
    }

    fn line(second: u32, message: &str, fields: &str) -> String {
        let fields = if fields.is_empty() {
            String::new()
        } else {
            format!(",{fields}")
        };
        format!(
            r#"{{"timestamp":"2026-11-24T01:00:{second:02}.000Z","level":"INFO","message":"{message}"{fields},"target":"podbeat::agent"}}"#
        )
    }

    #[test]
    fn what_kubectl_puts_before_a_line_is_left_out_and_other_lines_are_not_taken() {
        let own = line(1, "podbeat started", r#""task_run_id":"r""#);
        for before in [
            "",
            "2026-11-24T01:00:01.5Z ",
            "[pod/p/podbeat] ",
            "[pod/p/podbeat] 2026-11-24T01:00:01Z ",
        ] {
            let read = Line::read(&format!("{before}{own}")).expect(before);
            assert_eq!(
                read.at,
                Some(When::At("2026-11-24T01:00:01Z".parse().expect("a time")))
            );
            let text =
                "01:00:01.000Z INFO  podbeat started                                task_run_id=r";
            let read = Line::read(&format!("{before}{text}")).expect(before);
            assert_eq!(
                (read.message.as_str(), read.text("task_run_id")),
                ("podbeat started", Some("r"))
            );
            assert_eq!(
                matches!(read.at, Some(When::At(_))),
                before.contains('Z'),
                "the date is in what kubectl says"
            );
        }
        for other in [
            "",
            "{}",
            "epoch 1 {\"loss\": 3}",
            r#"{"message":"m","level":"INFO","timestamp":"t","target":"kube_client"}"#,
            r#"{"message":"m","level":"INFO","timestamp":"t"}"#,
            "{\"message\":",
        ] {
            assert!(Line::read(other).is_none(), "{other}");
        }
    }

    #[test]
    fn lines_of_several_pods_are_several_stories() {
        let of = |pod: &str, run: &str| {
            format!(
                "[pod/{pod}/podbeat] {}\n",
                line(1, "podbeat started", &format!(r#""task_run_id":"{run}""#))
            )
        };
        let text = format!("{}{}{}", of("a", "r1"), of("b", "r2"), of("a", "r1"));
        let stories = stories(lines(&text));
        let runs: Vec<_> = stories
            .iter()
            .map(|story| story.task_run.as_deref())
            .collect();
        assert_eq!(runs, [Some("r1"), Some("r2")]);
        assert_eq!(
            stories[0].events[1].text,
            "podbeat ? started again: the process before it was killed"
        );
    }

    proptest! {
        /// A log can be cut, edited or from another version. Whatever values the fields have, there
        /// is a story.
        #[test]
        fn whatever_the_lines_hold_there_is_a_story(
            told in prop::collection::vec(
                (
                    prop::sample::select(Message::ALL),
                    prop::collection::btree_map(
                        prop::sample::select(FIELDS).prop_map(|field| field.name),
                        prop_oneof![
                            any::<i64>().prop_map(Value::from),
                            any::<f64>().prop_map(Value::from),
                            any::<bool>().prop_map(Value::from),
                            hostile::TEXT.prop_map(Value::from),
                            Just(Value::Null),
                        ],
                        0..6,
                    ),
                    prop_oneof!["[0-9:TZ-]{0,24}|2026-11-24T01:00:00Z", hostile::TEXT],
                ),
                1..20,
            ),
        ) {
            let text: Vec<String> = told
                .into_iter()
                .map(|(message, fields, at)| {
                    let mut line: Map<String, Value> =
                        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                    let own = [("message", message.text), ("level", "INFO"), ("timestamp", &at), ("target", "podbeat")];
                    line.extend(own.map(|(name, value)| (name.to_owned(), value.into())));
                    Value::Object(line).to_string()
                })
                .collect();
            let stories = stories(lines(&text.join("\n")));
            prop_assert_eq!(stories.len(), 1);
            let shown = stories[0].text();
            prop_assert!(!shown.chars().any(|c| podbeat_interface::terminal::acts(c) && c != '\n'), "{:?}", shown);
        }
    }

    fn verdict(text: &[String]) -> Verdict {
        stories(lines(&text.join("\n"))).swap_remove(0).verdict
    }

    #[test]
    fn a_last_heartbeat_that_was_taken_back_is_no_end() {
        let before = [
            line(0, "podbeat started", r#""task_run_id":"trn.1""#),
            line(1, "the last heartbeat is due", r#""cause":"a signal""#),
            line(
                2,
                "the last heartbeat was accepted",
                r#""told":"main running""#,
            ),
            line(3, "podbeat is exiting", r#""exit_code":0"#),
            line(4, "podbeat started", ""),
        ];
        assert_eq!(verdict(&before).outcome, Outcome::Delivered);
        let reopened = "only podbeat's container was stopped and the task continues; resuming heartbeats after a last heartbeat";
        let mut lines = before.to_vec();
        lines.push(line(5, reopened, r#""last_heartbeat":"accepted""#));
        assert_eq!(verdict(&lines).outcome, Outcome::Open);
        lines.push(line(
            6,
            "the pod is being deleted",
            r#""until":"2026-11-24T02:00:00Z""#,
        ));
        let told = verdict(&lines);
        assert_eq!(told.cause.as_deref(), Some("The pod was deleted."));
    }

    #[test]
    fn a_log_of_a_task_that_ended_beside_a_proxy_names_the_proxy() {
        let changed = |second, name: &str, to: &str| {
            let fields =
                format!(r#""container":"{name}","to":"{to}","exit_code":0,"restart_count":0"#);
            line(second, "container state changed", &fields)
        };
        let mut lines = vec![
            line(
                0,
                "podbeat started",
                r#""task_run_id":"trn.1","report":"task""#,
            ),
            changed(1, "main", "running"),
            changed(2, "linkerd-proxy", "running"),
            changed(3, "main", "terminated"),
        ];
        let named = |told: &Verdict| {
            let cause = told.cause.as_deref().unwrap_or_default();
            cause.starts_with("Container main has ended, but linkerd-proxy still runs.")
                && cause.contains("PODBEAT_IGNORED_CONTAINERS")
        };
        let told = verdict(&lines);
        assert!(told.outcome == Outcome::Open && named(&told), "{told:?}");
        // If all containers are reported, the proxy may be a native sidecar. The last heartbeat
        // does not wait for one.
        let all = lines[0].replace(r#""report":"task""#, r#""report":"all""#);
        assert!(!named(&verdict(&[vec![all], lines[1..].to_vec()].concat())));
        // In the end, a signal caused the last heartbeat.
        lines.push(line(
            4,
            "received SIGTERM or SIGINT; waiting for final container states",
            "",
        ));
        lines.push(line(
            5,
            "the last heartbeat is due",
            r#""cause":"a signal""#,
        ));
        lines.push(line(
            6,
            "the last heartbeat was accepted",
            r#""told":"main terminated 0""#,
        ));
        let told = verdict(&lines);
        assert!(
            told.outcome == Outcome::Delivered && named(&told),
            "{told:?}"
        );
    }

    #[test]
    fn a_run_that_hangs_is_told_what_it_waits_for() {
        let begins = line(
            0,
            "podbeat started",
            r#""version":"1","task_run_id":"trn.1""#,
        );
        let heard = line(
            1,
            "the service accepted the first heartbeat of this process",
            "",
        );
        let waits = line(
            2,
            "container state changed",
            r#""container":"main","to":"waiting","reason":"ImagePullBackOff","restart_count":0"#,
        );
        let told = verdict(&[begins.clone(), heard.clone(), waits]);
        assert_eq!(told.outcome, Outcome::Open);
        assert!(
            told.text.ends_with(
                "podbeat still runs, or was killed. main is waiting, ImagePullBackOff since 2026-11-24T01:00:02Z."
            ),
            "{}",
            told.text
        );
        let refused = line(
            5,
            "a heartbeat was not accepted",
            r#""since":"2026-11-24T01:00:04Z","repeats":8,"error":"the task-run service answered 403""#,
        );
        let due = line(
            6,
            "the last heartbeat is due",
            r#""cause":"the task's containers are finished""#,
        );
        let told = verdict(&[begins.clone(), heard, refused.clone(), due.clone()]);
        assert_eq!(told.outcome, Outcome::Due);
        assert!(
            told.text.contains("The service has not accepted a heartbeat since 2026-11-24T01:00:04Z: the task-run service answered 403."),
            "{}",
            told.text
        );
        let over = line(
            7,
            "could not deliver the last heartbeat in time; the service does not know how this run ended",
            r#""request":"{}""#,
        );
        let told = verdict(&[begins, refused, due, over]);
        assert_eq!(told.outcome, Outcome::Undelivered);
        assert!(
            told.text
                .contains("answered 403. As long as the pod exists, podbeat reap can send it."),
            "{}",
            told.text
        );
    }
}
