//! Explains a recorded watch: what the Kubernetes API showed of a pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use podbeat_heartbeat::completion::is_finished;
use podbeat_heartbeat::observation::Why;
use podbeat_heartbeat::observation::{Container, Role, State};
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::status;
use serde::Deserialize;
use serde_json::Value;

use super::cause::Facts;
use super::story::{Event, Outcome, Story, Verdict, at, listed, times};

/// One line of a record: an event as an API server sends it, and its time of arrival, if recorded.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
    #[serde(default)]
    at: Option<Timestamp>,
}

impl Line {
    /// Parses a line. `None` if it is not an event of a watch.
    pub(super) fn read(text: &str) -> Option<Self> {
        let line: Self = serde_json::from_str(text.trim()).ok()?;
        let is_known = matches!(
            line.kind.as_str(),
            "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR"
        );
        (is_known && line.object.is_object()).then_some(line)
    }
}

/// What is known about one pod.
#[derive(Default)]
struct Known {
    name: String,
    uid: Option<String>,
    containers: BTreeMap<String, String>,
    deleted: bool,
    facts: Facts,
    /// The latest version of each reason that has an event.
    why: Vec<Why>,
    phase: Option<String>,
    finished: Option<String>,
    gone: bool,
    runs_to_the_end: Vec<String>,
    restarts: usize,
}

/// The story of the pods in a record. Two pods with the same name count as two pods.
pub(super) fn story(lines: Vec<Line>, own_container: &str) -> Story {
    let mut known = Known::default();
    let mut events = Vec::new();
    for line in lines {
        let mut tell = |text: String| events.push(Event::new(line.at, text));
        match line.kind.as_str() {
            "BOOKMARK" => continue,
            "ERROR" => {
                let message = line
                    .object
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                tell(format!("the API server ended the watch: {message}"));
                continue;
            }
            _ => {}
        }
        let Ok(pod) = serde_json::from_value::<Pod>(line.object) else {
            tell("an object that is no pod".to_owned());
            continue;
        };
        for text in known.take_in(&pod, line.kind == "DELETED", own_container) {
            tell(text);
        }
    }
    let verdict = known.verdict();
    Story {
        source: "record",
        task_run: None,
        pod: (!known.name.is_empty()).then_some(known.name),
        events,
        verdict,
    }
}

impl Known {
    fn take_in(&mut self, pod: &Pod, is_gone: bool, own_container: &str) -> Vec<String> {
        let mut told = Vec::new();
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (namespace, name) = (part(&pod.metadata.namespace), part(&pod.metadata.name));
        if self.uid != pod.metadata.uid {
            if self.uid.is_some() {
                told.push(
                    "another pod has the same name: the events of that pod follow".to_owned(),
                );
            }
            *self = Self {
                uid: pod.metadata.uid.clone(),
                name: format!("{namespace}/{name}"),
                ..Self::default()
            };
        }
        let seen = status::observe(pod, own_container);
        self.facts.replace(&seen.why);
        if seen.deletion.is_some() {
            self.facts.deleted();
        }
        // Events of containers show the other reasons.
        for why in seen.why.iter().filter(|why| why.container.is_none()) {
            if !self.why.iter().any(|known| known.is_same_as(why)) {
                told.push(reason(why));
                self.why.push(why.clone());
            }
        }
        for container in &seen.containers {
            match &container.state {
                _ if container.role == Role::Task => self.task(container),
                Some(State::Running { .. } | State::Terminated(_)) => self.facts.begun(),
                Some(State::Waiting { .. }) | None => {}
            }
            told.extend(self.container(container));
        }
        // The state of podbeat's own container shows until when podbeat could see the pod.
        let own = own_state(pod, own_container);
        if own.as_deref().is_some_and(|text| text != "waiting") {
            self.facts.begun();
        }
        if let Some(text) = own
            && self
                .containers
                .insert(own_container.to_owned(), text.clone())
                .as_ref()
                != Some(&text)
        {
            told.push(format!("{own_container} (podbeat's own): {text}"));
        }
        if let Some(deletion) = seen.deletion
            && !std::mem::replace(&mut self.deleted, true)
        {
            told.push(format!(
                "the pod is being deleted; its grace period ends at {}",
                at(deletion.at)
            ));
        }
        if self.finished.is_none() && is_finished(&seen) {
            let ends: Vec<String> = seen
                .containers
                .iter()
                .filter(|it| it.role == Role::Task)
                .map(|it| self.end_of(it))
                .collect();
            told.push("the task has ended: the last heartbeat is due".to_owned());
            self.finished = Some(listed(&ends));
            self.facts.over();
        }
        let phase = pod.status.phase.clone();
        if phase != self.phase {
            told.push(format!("phase {}", phase.as_deref().unwrap_or("(none)")));
            self.phase = phase;
        }
        if is_gone {
            self.gone = true;
            let runs = |container: &&Container| {
                container.role == Role::Task
                    && matches!(container.state, Some(State::Running { .. }))
            };
            self.runs_to_the_end = seen
                .containers
                .iter()
                .filter(runs)
                .map(|it| it.name.clone())
                .collect();
            told.push("the pod object was deleted".to_owned());
        }
        told
    }

    fn task(&mut self, container: &Container) {
        if let Some(exit) = &container.last_exit {
            let code = exit.exit_code.map(i64::from);
            let (reason, message) = (exit.reason.as_deref(), exit.message.as_deref());
            self.facts.ended(&container.name, code, reason, message);
        }
        match &container.state {
            None => self.facts.waits(&container.name, None, None),
            Some(State::Waiting { reason, message }) => {
                self.facts
                    .waits(&container.name, reason.as_deref(), message.as_deref());
            }
            Some(State::Running { .. }) => self.facts.runs(&container.name),
            Some(State::Terminated(exit)) => {
                let code = exit.exit_code.map(i64::from);
                let (reason, message) = (exit.reason.as_deref(), exit.message.as_deref());
                self.facts.ended(&container.name, code, reason, message);
            }
        }
    }

    fn end_of(&self, container: &Container) -> String {
        match &container.state {
            None | Some(State::Waiting { .. }) if self.facts.never_ran(&container.name) => {
                format!("{} never started", container.name)
            }
            None => format!("{} has no state", container.name),
            Some(_) => format!(
                "{} is {}",
                container.name,
                state(container).unwrap_or_default()
            ),
        }
    }

    /// The change of a container, as an event.
    fn container(&mut self, container: &Container) -> Option<String> {
        let now = state(container)?;
        let before = self.containers.insert(container.name.clone(), now.clone());
        if before.as_ref() == Some(&now) {
            return None;
        }
        let role = match container.role {
            Role::Task => "",
            Role::Init => " (init)",
            Role::Sidecar => " (sidecar)",
        };
        let count = usize::try_from(container.restart_count).unwrap_or(0);
        self.restarts = self.restarts.max(count);
        let restarted = if count == 0 {
            String::new()
        } else {
            format!(" (restarted {})", times(count))
        };
        Some(format!("{}{role}: {now}{restarted}", container.name))
    }

    fn verdict(&self) -> Verdict {
        let (outcome, mut text) = if self.name.is_empty() {
            (
                Outcome::Unknown,
                "These events contain nothing about a pod.".to_owned(),
            )
        } else if let Some(ends) = &self.finished {
            let ends = if ends.is_empty() {
                "it has no task container".to_owned()
            } else {
                ends.clone()
            };
            (
                Outcome::Due,
                format!("The task of pod {} has ended: {ends}.", self.name),
            )
        } else if self.gone {
            let text = if self.runs_to_the_end.is_empty() {
                format!(
                    "Pod {} was deleted, and the API never showed the end of its task.",
                    self.name
                )
            } else {
                format!(
                    "Pod {} was deleted, and until then the API showed {} as running: while a pod is being stopped, the kubelet \
                     does not publish any exit before all containers have ended (kubernetes/kubernetes#106896). Only exit \
                     markers show how they ended.",
                    self.name,
                    listed(&self.runs_to_the_end)
                )
            };
            (Outcome::Due, text)
        } else {
            let states: Vec<String> = self
                .containers
                .iter()
                .map(|(name, state)| format!("{name} is {state}"))
                .collect();
            let now = if states.is_empty() {
                "no container has a state yet".to_owned()
            } else {
                listed(&states)
            };
            (
                Outcome::Open,
                format!(
                    "The record ends here, and the task of pod {} has not ended: {now}.",
                    self.name
                ),
            )
        };
        if self.restarts > 0 {
            text += &format!(" A container was restarted {}.", times(self.restarts));
        }
        text += " A record has no information about heartbeats; see podbeat's log.";
        Verdict::new(outcome, self.facts.cause(), &text)
    }
}

/// A reason from the API, as the text of an event.
pub(super) fn reason(why: &Why) -> String {
    let mut text = match (&why.container, &why.condition) {
        (Some(container), _) => format!("{container} prevents the task from starting"),
        (None, Some(condition)) => format!("the pod's condition {condition}"),
        (None, None) => "the pod's reason".to_owned(),
    };
    if let Some(code) = why.exit_code {
        text += &format!(", exit code {code}");
    }
    let parts = [&why.reason, &why.message].into_iter().flatten();
    let parts: Vec<&str> = parts.map(String::as_str).collect();
    if !parts.is_empty() {
        text += &format!(": {}", parts.join(": "));
    }
    text
}

fn state(container: &Container) -> Option<String> {
    Some(match container.state.as_ref()? {
        State::Waiting { reason, .. } => match reason {
            Some(reason) => format!("waiting, {reason}"),
            None => "waiting".to_owned(),
        },
        State::Running { .. } => "running".to_owned(),
        State::Terminated(exit) => {
            let mut text = "terminated".to_owned();
            if let Some(code) = exit.exit_code {
                text += &format!(" with exit code {code}");
            }
            if let Some(reason) = &exit.reason {
                text += &format!(", {reason}");
            }
            text
        }
    })
}

fn own_state(pod: &Pod, own_container: &str) -> Option<String> {
    let statuses = pod
        .status
        .init_container_statuses
        .iter()
        .chain(&pod.status.container_statuses);
    let own = statuses
        .into_iter()
        .find(|status| status.name == own_container)?;
    let state = &own.state;
    Some(if let Some(terminated) = &state.terminated {
        let code = terminated
            .exit_code
            .map_or_else(String::new, |code| format!(" with exit code {code}"));
        format!("terminated{code}")
    } else if state.running.is_some() {
        "running".to_owned()
    } else {
        "waiting".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use podbeat_interface::terminal::acts;

    #[test]
    fn another_pod_of_the_name_is_another_life() {
        let of = |uid: &str| json!({"type": "ADDED", "object": {"metadata": {"name": "p", "namespace": "n", "uid": uid}}});
        let lines = [of("1"), json!({"type": "BOOKMARK", "object": {}}), of("2")];
        let lines = lines
            .iter()
            .filter_map(|line| Line::read(&line.to_string()))
            .collect();
        let told = story(lines, "podbeat");
        let texts: Vec<&str> = told
            .events
            .iter()
            .map(|event| event.text.as_str())
            .collect();
        assert_eq!(
            texts,
            ["another pod has the same name: the events of that pod follow"]
        );
        assert_eq!(told.pod.as_deref(), Some("n/p"));
    }

    proptest! {
        #[test]
        fn a_story_contains_no_control_characters_of_the_api(
            said in hostile::TEXT,
            state in prop::sample::select(vec!["waiting", "running", "terminated"]),
            kind in prop::sample::select(vec!["ADDED", "DELETED", "ERROR"]),
        ) {
            let state = json!({state: {"reason": said, "message": said, "exitCode": 1}});
            let spec = json!([{"name": "main"}, {"name": said}]);
            let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": said, "message": said});
            let object = json!({
                "message": said,
                "metadata": {"name": said, "namespace": said},
                "spec": {"initContainers": [{"name": "setup"}], "containers": spec},
                "status": {
                    "phase": said, "reason": said, "message": said,
                    "conditions": [condition("DisruptionTarget", "True"), condition("PodScheduled", "False")],
                    "initContainerStatuses": [{"name": "setup", "state": state}],
                    "containerStatuses": [{"name": "main", "state": state}, {"name": said, "state": state}],
                },
            });
            let line = json!({"type": kind, "object": object}).to_string();
            let told = story(vec![Line::read(&line).expect("a line")], "podbeat");
            let text = told.text();
            prop_assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
            // The input cannot add lines that look like events.
            let heads = ["The story", "  ", "\n"];
            let body = text.split_once("\n\n").expect("events").1;
            for line in body.split("\n\n").next().unwrap_or_default().lines() {
                prop_assert!(heads.iter().any(|head| line.starts_with(head)), "{line:?} in {text:?}");
            }
        }

        #[test]
        fn any_line_gives_a_story(text in hostile::TEXT, object in "[\\[\\]{}\",:a-z0-9]{0,40}") {
            let texts = [text, format!(r#"{{"type":"MODIFIED","object":{object}}}"#), r#"{"type":"ERROR","object":{}}"#.to_owned()];
            let lines: Vec<Line> = texts.iter().filter_map(|text| Line::read(text)).collect();
            prop_assert!(!lines.is_empty());
            let _ = story(lines, "podbeat").text();
        }
    }
}
