//! What the command writes: a line for each pod that needs attention, and a summary.

use std::collections::BTreeMap;
use std::io::Write;

use podbeat_interface::terminal::{escaped, one_line};
use podbeat_task_runs::model::HeartbeatTaskRunRequest;
use serde::Serialize;

use super::error::Error;
use super::outcome::{Case, Outcome};

/// A pod and its outcome, for `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'case> {
    pod: &'case str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_run: Option<&'case str>,
    outcome: Outcome,
    message: &'case str,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<&'case HeartbeatTaskRunRequest>,
}

/// The streams of the command.
pub(super) struct Output<'run> {
    out: &'run mut dyn Write,
    notes: &'run mut dyn Write,
    json: bool,
    /// Whether the user named a single pod. Then its outcome is always shown.
    is_alone: bool,
    counts: BTreeMap<Outcome, usize>,
}

impl<'run> Output<'run> {
    pub(super) fn new(
        out: &'run mut dyn Write,
        notes: &'run mut dyn Write,
        json: bool,
        is_alone: bool,
    ) -> Self {
        Self {
            out,
            notes,
            json,
            is_alone,
            counts: BTreeMap::new(),
        }
    }

    /// Writes an error or a note. A closed standard error does not stop the command.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "podbeat: {text}");
    }

    /// Writes the outcome for one pod.
    pub(super) fn tell(
        &mut self,
        pod: &str,
        run: Option<&str>,
        case: &Case,
        heartbeat: Option<&HeartbeatTaskRunRequest>,
    ) -> Result<(), Error> {
        *self.counts.entry(case.outcome).or_default() += 1;
        // Text output shows only pods that need attention, and counts the others.
        let is_quiet = matches!(case.outcome, Outcome::Open | Outcome::Settled) && !self.is_alone;
        let line = if self.json {
            let is_shown = matches!(case.outcome, Outcome::Sent | Outcome::WouldSend);
            // A nonce from the service is a secret.
            let mut heartbeat = heartbeat.filter(|_| is_shown).cloned();
            if let Some(heartbeat) = &mut heartbeat {
                heartbeat.nonce = None;
            }
            let told = Told {
                pod,
                task_run: run,
                outcome: case.outcome,
                message: &case.message,
                heartbeat: heartbeat.as_ref(),
            };
            escaped(&serde_json::to_string(&told).map_err(|error| Error::Write(error.into()))?)
        } else if is_quiet {
            return Ok(());
        } else {
            let run = run.map_or_else(String::new, |run| format!(" (task run {run})"));
            one_line(&format!("pod {pod}{run}: {}", case.message))
        };
        writeln!(self.out, "{line}").map_err(Error::Write)
    }

    /// Ends the output. Text about many pods ends with their counts.
    pub(super) fn summarize(&mut self) -> Result<(), Error> {
        if self.json || self.is_alone {
            return self.out.flush().map_err(Error::Write);
        }
        let all: usize = self.counts.values().sum();
        let parts: Vec<String> = self
            .counts
            .iter()
            .map(|(outcome, count)| format!("{count} {}", outcome.word()))
            .collect();
        let of_which = if parts.is_empty() {
            String::new()
        } else {
            format!(": {}", parts.join(", "))
        };
        let pods = if all == 1 { "pod" } else { "pods" };
        writeln!(self.out, "{all} {pods} with podbeat{of_which}")
            .and_then(|()| self.out.flush())
            .map_err(Error::Write)
    }
}
