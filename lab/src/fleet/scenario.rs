//! A fleet's pods: their names and their lives.

use serde_json::Value;

use crate::pod::{Pod, exit, restarted, running, terminated, waiting};

/// The token of the pods' service account.
pub const TOKEN: &str = "fleet-service-account-token";

/// The path of all runs in the service's API.
pub(super) const RUNS: &str = "/v1/tasks/runs";

/// Of so many pods, one fails.
const FAILS_EVERY: usize = 5;

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

    /// Whether the pod fails in the end. Its run must not be repeated.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.nth % FAILS_EVERY == FAILS_EVERY - 1
    }

    /// The status of `main` at a step. No two steps look alike. In most pods, `main` fails twice, is
    /// restarted, and then succeeds. In a pod that fails, it can't start for a long time, and then
    /// it fails once.
    #[must_use]
    pub fn status(&self, step: usize) -> Value {
        let id = |start: usize| format!("{}-{start}", self.pod());
        // The exit code differs from pod to pod, so a report about the wrong pod is noticed.
        let code = i32::try_from(1 + self.nth % 200).unwrap_or(1);
        let failed = |start: usize| exit(code, "Error", &id(start));
        let restarts =
            |count: i32, status: Value, start: usize| restarted(status, count, &failed(start));
        if self.fails() {
            return match step {
                0 => waiting("PodInitializing"),
                1 => waiting("ContainerCreating"),
                2 => waiting("ErrImagePull"),
                3 => waiting("ImagePullBackOff"),
                4 => waiting("CreateContainerConfigError"),
                5 => waiting("CreateContainerError"),
                6 => running("2026-01-01T00:03:01Z"),
                _ => terminated(code, "Error", &id(0)),
            };
        }
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
        let policy = if self.fails() { "Never" } else { "OnFailure" };
        Pod::new(&self.pod(), &self.uid())
            .policy(policy)
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
        for nth in [7, FAILS_EVERY - 1] {
            let member = Member { nth };
            let marks: BTreeSet<String> = (0..STEPS)
                .filter_map(|step| mark(member.status(step).get("state")?))
                .collect();
            assert_eq!(marks.len(), STEPS, "{marks:?}");
        }
    }
}
