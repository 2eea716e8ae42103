//! Prints what each side does.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use podbeat::agent::Onlooker;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, Cause, DropCause, Note};
use podbeat_interface::environment::{Environment, ProcessEnvironment};
use podbeat_lab::service::Heartbeat;
use tokio::time::Instant;

/// Who does something.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Kubernetes,
    Launcher,
    Podbeat,
    Service,
}

/// Prints the events of each side, with the time since the start.
#[derive(Clone)]
pub(crate) struct Timeline {
    start: Instant,
    /// When the agent of this copy began, from which its times count.
    began: Option<Instant>,
    colors: bool,
    out: Arc<std::io::Stdout>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        let out = Arc::new(std::io::stdout());
        let colors = out.is_terminal() && ProcessEnvironment.get("NO_COLOR").is_none();
        Self {
            start: Instant::now(),
            began: None,
            colors,
            out,
        }
    }

    /// Begins a new part.
    pub(crate) fn heading(&self, text: &str) {
        let mut out = self.out.lock();
        let _ = match self.colors {
            true => writeln!(out, "\n\x1b[1m{text}\x1b[0m"),
            false => writeln!(out, "\n{text}"),
        };
    }

    pub(crate) fn line(&self, side: Side, text: &str) {
        let (name, color) = match side {
            Side::Kubernetes => ("kubernetes", "34"),
            Side::Launcher => ("launcher", "35"),
            Side::Podbeat => ("podbeat", "33"),
            Side::Service => ("service", "32"),
        };
        let time = format!("{:6.2}s", self.start.elapsed().as_secs_f64());
        let mut out = self.out.lock();
        // A closed standard output doesn't stop the demo, because the exit code matters.
        let _ = if self.colors {
            writeln!(
                out,
                "\x1b[2m{time}\x1b[0m  \x1b[{color}m{name:<10}\x1b[0m  {text}"
            )
        } else {
            writeln!(out, "{time}  {name:<10}  {text}")
        };
    }

    pub(crate) fn heartbeat(&self, heartbeat: &Heartbeat) {
        let kind = if heartbeat.is_final() {
            "the last heartbeat"
        } else {
            "a heartbeat"
        };
        let state = match heartbeat.state("main") {
            None => "no states yet".to_owned(),
            Some((state, _)) => match heartbeat.exit_code("main") {
                Some(code) => format!("main {state}, exit code {code}"),
                None => format!("main {state}"),
            },
        };
        let nonce: String = heartbeat.nonce().chars().take(6).collect();
        let answer = heartbeat.status.map_or_else(
            || "no answer".to_owned(),
            |status| format!("answers {status}"),
        );
        self.line(
            Side::Service,
            &format!("receives {kind} (nonce {nonce}…): {state}; {answer}"),
        );
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Accepted => "accepted".to_owned(),
        Answer::Unauthorized => "401".to_owned(),
        Answer::Forbidden => "403".to_owned(),
        Answer::Refused { status }
        | Answer::Disowned { status }
        | Answer::Unavailable { status, .. } => status.to_string(),
        Answer::NotSent => "no connection".to_owned(),
        Answer::Ambiguous => "no answer".to_owned(),
    }
}

impl Onlooker for Timeline {
    fn note(&mut self, note: &Note) {
        let began = *self.began.get_or_insert_with(Instant::now);
        let text = match note {
            Note::Transition {
                container,
                from,
                to,
                ..
            } => {
                let now = to.state_name().unwrap_or("unknown");
                format!("sees {container}: {} → {now}", from.unwrap_or("nothing"))
            }
            Note::Failed {
                beat,
                answer,
                retry_at: Some(at),
            } => {
                let wait = at.saturating_sub(began.elapsed()).as_secs_f64();
                format!(
                    "heartbeat {} was not accepted ({}); tries again in {wait:.1} s",
                    beat.0,
                    said(answer)
                )
            }
            Note::Failed {
                beat,
                answer,
                retry_at: None,
            } => {
                format!(
                    "heartbeat {} was not accepted ({}); not sent again",
                    beat.0,
                    said(answer)
                )
            }
            Note::Dropped(_, _, DropCause::Superseded, _) | Note::Accepted(..) => return,
            Note::Dropped(number, kind, cause, _) => {
                format!("drops heartbeat {number} ({}): {cause:?}", kind.name())
            }
            Note::Barrier { .. } => {
                "an earlier request may still arrive; will send the last heartbeat again after it"
                    .to_owned()
            }
            Note::Marked {
                container,
                exit_code,
            } => {
                format!("reads an exit marker: {container} ended with exit code {exit_code}")
            }
            Note::UnknownMarker(container) => {
                format!("ignores an exit marker: the pod has no container {container}")
            }
            Note::BarrierFailed => "the repeated last heartbeat was not accepted".to_owned(),
            Note::Resumed { waiting, .. } => {
                format!("continues from the journal; {waiting} heartbeats are waiting")
            }
            Note::Final(Cause::Completed) => {
                "the last heartbeat is due: the task's containers are finished".to_owned()
            }
            Note::Final(cause) => format!("the last heartbeat is due: {cause:?}"),
            Note::Reopened(_) => "cancels the last heartbeat: only podbeat was stopped".to_owned(),
            Note::Signal { .. } => "receives SIGTERM".to_owned(),
            Note::Deletion(_) => "sees that the pod is being deleted".to_owned(),
            Note::Why(why) => {
                let of = why
                    .condition
                    .as_deref()
                    .or(why.container.as_deref())
                    .unwrap_or("pod");
                format!(
                    "sees {of}: reason {}",
                    why.reason.as_deref().unwrap_or_default()
                )
            }
            Note::OtherPod(_) => "sees another pod with the same name".to_owned(),
            Note::NeverSeen => "does not find the pod".to_owned(),
            Note::Orphaned => "the run no longer belongs to this pod".to_owned(),
        };
        self.line(Side::Podbeat, &text);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        self.began.get_or_insert_with(Instant::now);
        let retry = if attempt.retries > 0 {
            format!(", try {}", attempt.retries + 1)
        } else {
            String::new()
        };
        let (number, kind) = attempt.beat;
        self.line(
            Side::Podbeat,
            &format!("sends heartbeat {number} ({}{retry})", kind.name()),
        );
    }
}
