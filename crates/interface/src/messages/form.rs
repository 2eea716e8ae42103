//! How documents show a message and its fields, and the meaning of every field.

use tracing::Level;

use super::Id;
use crate::setting::Row;

/// The description of one message, for documents.
#[derive(Clone, Copy, Debug)]
pub struct Described<I = Id> {
    /// Which message it is.
    pub id: I,
    /// The severity.
    pub level: Level,
    /// The text of the line's `message`. It is constant.
    pub text: &'static str,
    /// Its fields, in the order of the line.
    pub fields: &'static [Carried],
    /// When podbeat logs it, and what it means. It can begin with one space.
    #[doc(hidden)]
    pub meaning: &'static str,
}

impl<I> Described<I> {
    /// When podbeat logs it, and what it means.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }
}

/// A field of one message.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Its name.
    pub name: &'static str,
    /// The form of its value.
    pub form: Form,
    /// Which lines of the message have it.
    pub presence: Presence,
}

/// Which lines of a message have a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every line.
    Always,
    /// Only lines in which it has a value.
    Sometimes,
    /// Like `Sometimes`, but the field is a setting ([`field_of`]).
    Setting,
}

/// The meaning of a field, in every message that has it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// The form of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// A number with up to three decimals.
    Seconds,
    /// A time in RFC 3339, UTC.
    Time,
    /// `true` or `false`.
    Flag,
}

impl Form {
    /// The word for documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Seconds => "seconds",
            Self::Time => "time",
            Self::Flag => "true or false",
        }
    }
}

/// The name of a setting's field in [`Message::Started`](super::Message::Started): the setting's
/// flag, with underscores.
#[must_use]
pub fn field_of(setting: &Row) -> String {
    setting.flag.replace('-', "_")
}

/// A field.
#[must_use]
pub const fn field(name: &'static str, meaning: &'static str) -> Field {
    Field { name, meaning }
}

/// Fields of every line of the JSON form, with their forms.
pub const EVERYWHERE: &[(Field, Form)] = &[
    (
        field("timestamp", "the time, with milliseconds"),
        Form::Time,
    ),
    (
        field("level", "ERROR, WARN, INFO, DEBUG or TRACE"),
        Form::Text,
    ),
    (field("message", "one of the messages above"), Form::Text),
    (
        field(
            "target",
            "the module in the code. `PODBEAT_LOG` can filter by it",
        ),
        Form::Text,
    ),
];

/// Every field of these messages except the settings of
/// [`Message::Started`](super::Message::Started), sorted by name.
pub const FIELDS: &[Field] = &[
    field("accepted", "heartbeats that the service accepted"),
    field("address", "address and port"),
    field(
        "again_in_seconds",
        "seconds until podbeat sends it again, at the earliest",
    ),
    field("attempts", "requests that podbeat started"),
    field("body", "the whole body, as JSON"),
    field("cause", "the reason"),
    field(
        "condition",
        "the pod condition with the reason. Absent for `status.reason`",
    ),
    field("container", "the container's name"),
    field(
        "container_id",
        "the container runtime's ID of the terminated container",
    ),
    field(
        "container_message",
        "the API's `message` of the state: a termination message, or why the container waits. At \
         most 256 characters",
    ),
    field(
        "containers",
        "the names of containers; of all containers of the pod, init containers come first",
    ),
    field("deleted", "whether the pod is already being deleted"),
    field("ending", "how podbeat ended; see the list of exit codes"),
    field(
        "error",
        "what failed, on what, what to do about it, and the causes",
    ),
    field("exit_code", "the container's exit code, or podbeat's"),
    field(
        "expired",
        "heartbeats that waited longer than `PODBEAT_MAX_STATUS_AGE`",
    ),
    field("expired_at", "the token's `exp`"),
    field("expires_at", "the token's `exp`"),
    field("failures", "the number of failures"),
    field("file", "the file's name in the directory"),
    field("finished_at", "the value from the Kubernetes API"),
    field("from", "the earlier state. Absent if there was none"),
    field(
        "heartbeat",
        "the heartbeat's number. It starts at 1 in each pod; a retry has the same number",
    ),
    field(
        "job_retry_count",
        "the number of the Job's pods that failed before this one",
    ),
    field("journal", "the journal's path"),
    field(
        "kind",
        "first, periodic, change, lost_exit (an exit that only `lastState` shows) or final",
    ),
    field(
        "kubectl_apply",
        "the missing Role and RoleBinding, ready to apply",
    ),
    field(
        "kubernetes_api",
        "the API server's host and port, in a pod. Elsewhere, see `kubeconfig` and `context`",
    ),
    field(
        "last_heartbeat",
        "the state of the last heartbeat: open, accepted, refused or orphaned",
    ),
    field("lasted_seconds", "from the first failure to this line"),
    field("lines", "the number of dropped lines"),
    field("location", "the place in the code"),
    field(
        "lost",
        "heartbeats with container changes that were never accepted",
    ),
    field("node", "the node's name"),
    field(
        "orphaned",
        "heartbeats that waited when the service said that the run does not belong to this pod",
    ),
    field("overflowed", "heartbeats that did not fit into the outbox"),
    field("panic", "the panic's message"),
    field(
        "pod_message",
        "the API's `message` for the reason. At most 256 characters",
    ),
    field("pod_uid", "the pod's metadata.uid"),
    field("reason", "the reason from the API, such as OOMKilled"),
    field("refused", "heartbeats that the service refused"),
    field(
        "repeats",
        "the number of failures since `since`, including this one",
    ),
    field(
        "request",
        "the body that was not accepted, as JSON. A nonce that the service issued is redacted",
    ),
    field("restart_count", "the value from the Kubernetes API"),
    field(
        "sent",
        "heartbeats that podbeat tried to send at least once",
    ),
    field("set_aside_as", "the file's new name"),
    field("setting", "the setting to look at"),
    field(
        "signal",
        "the signal that ended the container, if the API has it",
    ),
    field("since", "the time of the first failure"),
    field(
        "span_id",
        "the attempt's ID, from the header `traceparent` of its request",
    ),
    field("started_at", "the value from the Kubernetes API"),
    field("status", "the HTTP status, if there was a response"),
    field("to", "the new state: waiting, running or terminated"),
    field(
        "told",
        "each container's state and exit code, such as `main terminated 3, helper running`. Empty \
         if none is known",
    ),
    field(
        "too_late",
        "heartbeats that waited when the deadline of the last heartbeat passed",
    ),
    field(
        "trace_id",
        "the trace ID of all heartbeats of this process, from the header `traceparent` of each \
         request. Absent in a dry run",
    ),
    field("uid", "the other pod's metadata.uid"),
    field("until", "the end of the deletion grace period"),
    field("uptime_seconds", "since the process started"),
    field(
        "variables",
        "at most five names, each with the similar name of a setting if there is one, and the \
         number of the others",
    ),
    field("version", "podbeat's version"),
    field(
        "waiting",
        "heartbeats that the service has not accepted yet",
    ),
    field("what", "which file: the journal, or the renewed token"),
];
