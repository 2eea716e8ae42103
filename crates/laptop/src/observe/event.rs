//! An event as a line for people and as JSON for programs. Pure.

use std::fmt;

use jiff::Timestamp;
use podbeat_heartbeat::machine::Cause;
use podbeat_heartbeat::observation::Why;
use podbeat_heartbeat::observation::{Exit, State};
use podbeat_heartbeat::outbox::Kind as BeatKind;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::{Serialize, Serializer};

use podbeat_interface::terminal::{escaped, one_line};

/// An event and its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Event {
    #[serde(serialize_with = "milliseconds")]
    pub(super) time: Timestamp,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What happened. docs/observe.md documents the names of the members.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub(super) enum What {
    /// podbeat sees the pod for the first time, or the pod as a whole changed.
    Pod(Pod),
    /// A container changed.
    Container(Container),
    /// The agent would send a heartbeat.
    Heartbeat(Beat),
    /// The Kubernetes API fails, or works again.
    Api(Api),
    /// A hint for the reader.
    Note(Note),
    /// The observation is over.
    End(End),
}

/// The pod as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<String>,
    /// Why the pod ends or cannot start, if the API says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) reasons: Vec<Why>,
    /// The kind of podbeat's own container: `native`, `plain` or `none`.
    pub(super) sidecar: &'static str,
    /// Set when the pod is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deletion_timestamp: Option<Timestamp>,
    /// Whether the pod is gone.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) gone: bool,
}

/// A container and its kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    /// `task`, `init`, `sidecar`, or `podbeat` for podbeat's own container.
    pub(super) kind: &'static str,
    /// Whether heartbeats report it.
    pub(super) reported: bool,
    #[serde(flatten)]
    pub(super) shown: Shown,
    /// The previous state, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<&'static str>,
    pub(super) restart_count: i32,
    /// The end of its previous run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_exit: Option<Shown>,
}

/// A state, with the API's own values.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    /// `waiting`, `running` or `terminated`. Absent if the API shows no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

/// A heartbeat that the agent would send.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Beat {
    pub(super) number: u64,
    #[serde(serialize_with = "name")]
    pub(super) kind: BeatKind,
    /// Without the nonce, which belongs to the run.
    pub(super) body: Box<HeartbeatTaskRunRequest>,
}

/// The state of the connection to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(super) enum Api {
    #[serde(rename_all = "camelCase")]
    Trouble {
        message: String,
        remedy: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        kubectl_apply: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    Back { after_seconds: u64, failures: u64 },
}

/// A hint for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "note", rename_all = "camelCase")]
pub(super) enum Note {
    /// The pod is being deleted.
    Deletion,
    /// The pod does not have podbeat's own container.
    NoSidecar,
}

/// Why the observation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "camelCase")]
pub(super) enum End {
    /// The task is over.
    Finished,
    /// The pod is gone.
    Gone,
}

impl Event {
    /// One inert line, without its line feed.
    pub(super) fn line(&self) -> String {
        format!("{:.3} {}", self.time, one_line(&self.what.to_string()))
    }

    /// One inert line of JSON, without its line feed.
    ///
    /// # Errors
    /// None is known: every member can be serialized.
    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        Ok(escaped(&serde_json::to_string(self)?))
    }
}

impl Shown {
    pub(super) fn of(state: &State) -> Self {
        let named = Self {
            state: Some(state.name()),
            ..Self::default()
        };
        match state {
            State::Waiting { reason, message } => Self {
                reason: reason.clone(),
                message: message.clone(),
                ..named
            },
            State::Running { started_at } => Self {
                started_at: *started_at,
                ..named
            },
            State::Terminated(exit) => Self::of_exit(exit),
        }
    }

    pub(super) fn of_exit(exit: &Exit) -> Self {
        Self {
            state: Some("terminated"),
            reason: exit.reason.clone(),
            exit_code: exit.exit_code,
            signal: exit.signal,
            started_at: exit.started_at,
            finished_at: exit.finished_at,
            message: exit.message.clone(),
        }
    }

    /// Writes the state's details, after its name.
    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.reason {
            write!(f, ", reason {reason}")?;
        }
        if let Some(code) = self.exit_code {
            write!(f, ", exit code {code}")?;
        }
        if let Some(signal) = self.signal {
            write!(f, ", signal {signal}")?;
        }
        match (self.started_at, self.finished_at) {
            (_, Some(at)) => write!(f, ", finished at {at}"),
            (Some(at), None) => write!(f, ", started at {at}"),
            (None, None) => Ok(()),
        }
    }
}

impl Note {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Deletion => {
                "the pod is being deleted: podbeat may have to send its last heartbeat before Kubernetes shows how the \
                 containers ended; podbeat observe cannot see that moment"
            }
            Self::NoSidecar => {
                "this pod has no podbeat container, so every regular container counts as a task container; set the name of \
                 podbeat's container with --container-name"
            }
        }
    }
}

impl End {
    pub(super) fn of(cause: Cause) -> Self {
        match cause {
            Cause::Gone => Self::Gone,
            // Signal and Marked do not occur here, because the machine gets no signals and no
            // markers.
            Cause::Completed | Cause::Signal | Cause::Marked => Self::Finished,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Finished => "the task has ended; the agent would have sent the last heartbeat",
            Self::Gone => "the pod was deleted; the agent would have sent the last heartbeat",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => {
                let phase = pod.phase.as_deref().unwrap_or("no phase");
                write!(f, "pod {}/{}: {phase}", pod.namespace, pod.name)?;
                if pod.gone {
                    f.write_str(", gone")?;
                } else if let Some(at) = pod.deletion_timestamp {
                    write!(f, ", being deleted, its grace ends at {at}")?;
                }
                if let Some(node) = &pod.node {
                    write!(f, ", node {node}")?;
                }
                if let Some(uid) = &pod.uid {
                    write!(f, ", uid {uid}")?;
                }
                write!(f, ", sidecar {}", pod.sidecar)?;
                for why in &pod.reasons {
                    write!(f, ", {}", reason(why))?;
                }
                Ok(())
            }
            Self::Container(container) => {
                write!(f, "container {}: ", container.name)?;
                f.write_str(container.shown.state.unwrap_or("no state"))?;
                if let Some(from) = container.from {
                    write!(f, " (was {from})")?;
                }
                container.shown.details(f)?;
                write!(f, ", restarts {}", container.restart_count)?;
                if let Some(last) = &container.last_exit {
                    f.write_str(", before that terminated")?;
                    last.details(f)?;
                }
                if !container.reported {
                    write!(f, ", {}, not reported", container.kind)?;
                }
                match container.shown.message.as_deref() {
                    Some(message) if !message.trim().is_empty() => {
                        write!(f, ", message: {}", message.trim())
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Self::Heartbeat(beat) => {
                write!(f, "heartbeat {} {}: ", beat.number, beat.kind.name())?;
                match beat.body.container_status.as_deref() {
                    None | Some([]) => f.write_str("no states"),
                    Some(statuses) => {
                        let event: Vec<String> = statuses.iter().map(brief).collect();
                        f.write_str(&event.join("; "))
                    }
                }
            }
            Self::Api(Api::Trouble {
                message, remedy, ..
            }) => write!(f, "api trouble: {message}; {remedy}"),
            Self::Api(Api::Back {
                after_seconds,
                failures,
            }) => write!(
                f,
                "api back: after {after_seconds} s and {failures} failures"
            ),
            Self::Note(note) => write!(f, "note: {}", note.text()),
            Self::End(end) => write!(f, "end: {}", end.text()),
        }
    }
}

/// A reason and its source in the pod: `reason Evicted: the message`, or `DisruptionTarget
/// EvictionByEvictionAPI: the message`.
pub(super) fn reason(why: &Why) -> String {
    let of = why.condition.as_deref().unwrap_or("reason");
    let reason = why.reason.as_deref().unwrap_or("unknown");
    match why.message.as_deref().map(str::trim) {
        Some(message) => format!("{of} {reason}: {message}"),
        None => format!("{of} {reason}"),
    }
}

/// A short form of a container's status in a heartbeat.
fn brief(status: &ContainerStatus) -> String {
    let name = status.name.as_deref().unwrap_or("?");
    let with = |word: &str, reason: &Option<String>| match reason {
        Some(reason) => format!("{name} {word} {reason}"),
        None => format!("{name} {word}"),
    };
    let state = status.state.clone().unwrap_or_default();
    let word = status.state_name().unwrap_or("no state");
    match (&state.terminated, &state.waiting) {
        (Some(exit), _) => {
            let event = with(word, &exit.reason);
            match exit.exit_code {
                Some(code) => format!("{event} {code}"),
                None => event,
            }
        }
        (None, Some(waiting)) => with(word, &waiting.reason),
        (None, None) => with(word, &None),
    }
}

fn milliseconds<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}"))
}

fn name<S: Serializer>(kind: &BeatKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_false(it: &bool) -> bool {
    !it
}
