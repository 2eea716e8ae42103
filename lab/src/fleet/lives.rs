//! The pods of a fleet: their names, and the life that each of them goes through.

use serde_json::Value;

use crate::pod::{Pod, exit, restarted, running, terminated, waiting};

/// The bearer token of all runs.
pub const TOKEN: &str = "fleet-service-token";

/// The statuses of `main` in one pod's life, in order: each is one change of the pod, and one transition to report.
pub const STEPS: usize = 8;

/// The step at which the task is over for good.
pub const LAST: usize = STEPS - 1;

/// One pod of the fleet, and the run that it carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Of the fleet's pods, from 0.
    pub nth: usize,
}

impl Member {
    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> String {
        format!("fleet-{:05}", self.nth)
    }

    /// The UID, where nobody else gives one.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.nth)
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> String {
        format!("trn.fleet-{:05}", self.nth)
    }

    /// The nonce, as the service gives one for each run that is checked out.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("nonce-of-fleet-{:05}", self.nth)
    }

    /// The status of `main` at a step: it fails twice and is started again, and then succeeds. No two steps look alike.
    #[must_use]
    pub fn status(&self, step: usize) -> Value {
        let id = |start: usize| format!("{}-{start}", self.pod());
        // The pod's own, so that one that is told of another pod is found out.
        let code = i32::try_from(1 + self.nth % 200).unwrap_or(1);
        let failed = |start: usize| exit(code, "Error", &id(start));
        let restarts = |count: i32, status: Value, start: usize| restarted(status, count, &failed(start));
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

/// What of a state tells it from any other of its pod's life. `None` if it is no state.
#[must_use]
pub fn mark(state: &Value) -> Option<String> {
    let (kind, members) = state.as_object()?.iter().next()?;
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
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
