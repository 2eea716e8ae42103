//! A fleet's pods: their names and their lives.

use serde_json::Value;

use crate::pod::{Pod, exit, restarted, running, terminated, waiting};

/// The bearer token of all runs.
pub const TOKEN: &str = "fleet-service-token";

/// The number of statuses of `main` in one pod's life. Each status is one change of the pod, and
/// one transition to report.
pub const STEPS: usize = 8;

/// The step at which the task is finally over.
pub const LAST: usize = STEPS - 1;

/// One pod of the fleet, and its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The pod's number in the fleet, from 0.
    pub nth: usize,
}

impl Member {
    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> String {
        format!("fleet-{:05}", self.nth)
    }

    /// The UID, if the API server doesn't assign one.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.nth)
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> String {
        format!("trn.fleet-{:05}", self.nth)
    }

    /// The nonce, as the service issues one for each run that is checked out.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("nonce-of-fleet-{:05}", self.nth)
    }

    /// The status of `main` at a step. `main` fails twice, is restarted, and then succeeds. No two
    /// steps look alike.
    #[must_use]
    pub fn status(&self, step: usize) -> Value {
        let id = |start: usize| format!("{}-{start}", self.pod());
        // The exit code differs from pod to pod, so a report about the wrong pod is noticed.
        let code = i32::try_from(1 + self.nth % 200).unwrap_or(1);
        let failed = |start: usize| exit(code, "Error", &id(start));
        let restarts =
            |count: i32, status: Value, start: usize| restarted(status, count, &failed(start));
        match step {
            0 => waiting("ContainerCreating"),
            1 => running("2026-01-01T00:00:01Z"),
            2 => terminated(code, "Error", &id(0)),
            3 => restarts(0, waiting("CrashLoopBackOff"), 0),
            4 => restarts(1, running("2026-01-01T00:01:01Z"), 0),
            5 => restarts(1, terminated(code, "Error", &id(1)), 0),
            6 => restarts(2, running("2026-01-01T00:02:01Z"), 1),
            _ => restarts(2, terminated(0, "Completed", &id(2)), 1),
        }
    }

    /// The pod at a step.
    #[must_use]
    pub fn at(&self, step: usize) -> Value {
        Pod::new(&self.pod(), &self.uid())
            .policy("OnFailure")
            .showing(&self.status(step))
    }
}

/// The text that distinguishes a state from all others in its pod's life. `None` if it is not a
/// state.
#[must_use]
pub fn mark(state: &Value) -> Option<String> {
    let (kind, members) = state.as_object()?.iter().next()?;
    let text = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    Some(match kind.as_str() {
        "waiting" => format!("waiting {}", text("reason")),
        "running" => format!("running since {}", text("startedAt")),
        _ => {
            let code = members.get("exitCode").cloned().unwrap_or_default();
            format!("{kind} {code} {}", text("containerID"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_steps_of_a_life_look_alike() {
        let member = Member { nth: 7 };
        let marks: BTreeSet<String> = (0..STEPS)
            .filter_map(|step| mark(member.status(step).get("state")?))
            .collect();
        assert_eq!(marks.len(), STEPS, "{marks:?}");
    }
}
