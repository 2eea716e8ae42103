//! The outcome for one pod, in words. Pure.

use std::fmt;

use podbeat_kubernetes::retries::COMPLETION_INDEX;
use serde::Serialize;

use podbeat_reap::{Missing, Verdict};

/// The outcome for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// The service accepted the last heartbeat.
    Sent,
    /// podbeat would have sent the last heartbeat, but this is a dry run.
    WouldSend,
    /// The pod has not ended.
    Open,
    /// podbeat itself delivered the last heartbeat.
    Settled,
    /// The pod ended too recently.
    Young,
    /// A later pod executes the run.
    Superseded,
    /// Another pod of the run has not ended.
    Held,
    /// The service already knows how the run ended.
    Known,
    /// The service does not know the run, or says that it belongs to another pod.
    Disowned,
    /// There was not enough memory for it.
    Left,
    /// podbeat did nothing, because it cannot know whether a last heartbeat would be right.
    Unclear,
    /// It failed.
    Failed,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::WouldSend => "to be sent",
            Self::Open => "not ended",
            Self::Settled => "delivered",
            Self::Young => "ended just now",
            Self::Superseded => "superseded",
            Self::Held => "held back",
            Self::Known => "known",
            Self::Disowned => "disowned",
            Self::Left => "left for the next time",
            Self::Unclear => "unclear",
            Self::Failed => "failed",
        }
    }
}

/// The outcome for one pod, and its description.
pub(super) struct Case {
    pub(super) outcome: Outcome,
    pub(super) message: String,
}

impl Case {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
        }
    }
}

/// The run and the outcome of a pod whose last heartbeat podbeat does not send. `Err` is the last
/// heartbeat that is missing.
pub(super) fn of_verdict(verdict: Verdict) -> Result<(Option<String>, Case), Box<Missing>> {
    let (run, outcome, message) = match verdict {
        Verdict::Unnamed => {
            let message = "cannot find its run: the pod has neither the annotation podbeat.dev/task-run-id nor TASK_RUN_ID in its spec";
            (None, Outcome::Unclear, message.to_owned())
        }
        Verdict::Unindexed { pattern } => {
            let message = format!(
                "cannot find its run: {pattern} needs an index, but the pod has no annotation {COMPLETION_INDEX}"
            );
            (None, Outcome::Unclear, message)
        }
        Verdict::Overlong => {
            let message = "cannot find its run: the run's ID is longer than 1 KiB";
            (None, Outcome::Unclear, message.to_owned())
        }
        Verdict::Unread { run, why } => {
            let message = format!("cannot read its containers: {why}");
            (Some(run), Outcome::Unclear, message)
        }
        Verdict::Left { run } => {
            let message = "too many last heartbeats are missing at once; left for the next time";
            (Some(run), Outcome::Left, message.to_owned())
        }
        Verdict::Open => (None, Outcome::Open, "it has not ended".to_owned()),
        Verdict::Settled { run } => {
            let message = "podbeat itself delivered the last heartbeat";
            (Some(run), Outcome::Settled, message.to_owned())
        }
        Verdict::Young { run } => {
            let message = "it ended just now; left for the next time";
            (Some(run), Outcome::Young, message.to_owned())
        }
        Verdict::Superseded { run, by } => {
            let message = format!("pod {by} is a later pod of the same run");
            (Some(run), Outcome::Superseded, message)
        }
        Verdict::Held { run, by } => {
            let message = format!("pod {by} of the same run has not ended");
            (Some(run), Outcome::Held, message)
        }
        Verdict::Contested { run, pods, more } => {
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "pods with different owners, or in different namespaces, claim the run: {}{more}; podbeat sends nothing, because the run may belong to any of them",
                pods.join(", ")
            );
            (Some(run), Outcome::Unclear, message)
        }
        Verdict::Missing(missing) => return Err(missing),
    };
    Ok((run, Case { outcome, message }))
}

/// Summarizes the states of the containers in a last heartbeat.
pub(super) struct Said<'case>(pub(super) &'case Missing);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(statuses) = &self.0.request.container_status else {
            return f.write_str("no container states are known");
        };
        for (nth, status) in statuses.iter().enumerate() {
            let name = status.name.as_deref().unwrap_or_default();
            let before = if nth == 0 { "" } else { ", " };
            write!(
                f,
                "{before}{name} {}",
                status.state_name().unwrap_or("unknown")
            )?;
            if let Some(exit) = status.terminated() {
                if let Some(code) = exit.exit_code {
                    write!(f, " with exit code {code}")?;
                }
                if let Some(reason) = &exit.reason {
                    write!(f, " ({reason})")?;
                }
            }
        }
        Ok(())
    }
}
