//! What a pod's log says about the end of its run, as one paragraph.

use jiff::SignedDuration;

use super::known::Known;
use crate::explain::story::{Outcome, Verdict, When, at, lasting, listed, times};

impl Known {
    /// The state of the last heartbeat, and what else mattered.
    pub(super) fn verdict(&self) -> Verdict {
        let run = self
            .task_run
            .as_deref()
            .map_or_else(|| "the run".to_owned(), |run| format!("task run {run}"));
        let when =
            |time: &Option<When>| time.map_or_else(String::new, |time| format!(" at {}", at(time)));
        let why = self
            .service
            .as_ref()
            .map_or_else(String::new, |trouble| format!(": {}", trouble.error));
        let (outcome, mut text) = if let Some((time, told)) = &self.accepted {
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
