//! Explains task runs from the service's own description of them, as `podbeat runs` prints it as
//! JSON. A launched run whose Job is deleted has no other source.

use std::collections::HashMap;

use podbeat_task_runs::model::{DateTime, TaskRunLogs, TaskRunStatus};
use serde::Deserialize;

use super::story::{Event, Outcome, Story, Verdict, in_order};

/// The maximum number of descriptions in the input. Each of them can take ten times the memory of
/// its text.
const MOST: usize = 100_000;

/// The members of a run that a story needs. Only a run has these three.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    id: String,
    status: TaskRunStatus,
    time_created: DateTime,
    time_modified: Option<DateTime>,
    created_by: Option<String>,
    status_details: Option<String>,
    logs: Option<Vec<TaskRunLogs>>,
}

/// A run, or several as `podbeat runs get` prints them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Several { items: Vec<Run> },
    One(Box<Run>),
}

/// A story for each run, in the order of the input. `None` if the input is anything else, or more
/// than [`MOST`] descriptions. Descriptions of the same run are a history, as from `podbeat runs watch`.
pub(super) fn stories(text: &str) -> Option<Vec<Story>> {
    let mut histories: Vec<Vec<Run>> = Vec::new();
    let mut places = HashMap::new();
    let mut count = 0;
    for document in serde_json::Deserializer::from_str(text).into_iter() {
        let runs = match document.ok()? {
            Document::Several { items } => items,
            Document::One(run) => vec![*run],
        };
        for run in runs {
            count += 1;
            if count > MOST {
                return None;
            }
            let place = *places.entry(run.id.clone()).or_insert(histories.len());
            match histories.get_mut(place) {
                Some(history) => history.push(run),
                None => histories.push(vec![run]),
            }
        }
    }
    let stories: Vec<Story> = histories.iter().filter_map(|runs| story(runs)).collect();
    (!stories.is_empty()).then_some(stories)
}

fn story(history: &[Run]) -> Option<Story> {
    let last = history.last()?;
    let mut created = "the run was created".to_owned();
    if let Some(who) = last.created_by.as_deref().filter(|who| !who.is_empty()) {
        created += &format!(" by {who}");
    }
    let mut events = vec![event(Some(&last.time_created), &created)];
    // Lists do not have the attempts.
    let attempts = history.iter().rev().find_map(|run| run.logs.as_deref());
    let attempts = attempts.unwrap_or_default();
    for (index, attempt) in attempts.iter().enumerate() {
        let number = index + 1;
        if attempt.start_time.is_some() {
            let text = format!("attempt {number} started");
            events.push(event(attempt.start_time.as_ref(), &text));
        }
        if attempt.end_time.is_some() || attempt.error.is_some() {
            let said = [&attempt.error, &attempt.error_details];
            let said: Vec<&str> = said
                .into_iter()
                .filter_map(|text| text.as_deref())
                .collect();
            let text = match said.is_empty() {
                true => format!("attempt {number} ended"),
                false => format!("attempt {number} ended: {}", said.join(": ")),
            };
            events.push(event(attempt.end_time.as_ref(), &text));
        }
    }
    let mut shown = None;
    for run in history {
        let now = (&run.status, run.status_details.as_deref());
        if shown == Some(now) {
            continue;
        }
        shown = Some(now);
        let mut text = format!("the run is {}", run.status.as_str());
        if let Some(details) = &run.status_details {
            text += &format!(": {details}");
        }
        events.push(event(run.time_modified.as_ref(), &text));
    }
    Some(Story {
        source: "status",
        task_run: Some(last.id.clone()),
        pod: None,
        events: in_order(events),
        verdict: verdict(last, attempts.len()),
    })
}

fn event(at: Option<&DateTime>, text: &str) -> Event {
    Event::new(at.and_then(DateTime::timestamp), text)
}

/// The service's own reason, and how far the run is. The service does not say where a run's last
/// heartbeat is.
fn verdict(run: &Run, attempts: usize) -> Verdict {
    let details = run.status_details.as_deref().unwrap_or_default().trim();
    let cause = match details {
        "" => None,
        details if details.ends_with('.') => Some(format!("The service says: {details}")),
        details => Some(format!("The service says: {details}.")),
    };
    let after = match attempts {
        0 => String::new(),
        1 => ", after one attempt".to_owned(),
        count => format!(", after {count} attempts"),
    };
    let so_far = match run.status.is_over() {
        true => "This is final.",
        false => "The run has not ended.",
    };
    let (id, status) = (&run.id, run.status.as_str());
    let text = format!("Task run {id} is {status}{after}. {so_far}");
    Verdict::new(Outcome::Unknown, cause, &text)
}
