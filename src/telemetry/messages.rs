//! What podbeat logs at info and above: one table of its messages and one of their fields. docs/logs.md is made of them, and
//! tests hold every line of the real binary, and every place in the code that logs, against them.

use tracing::Level;

use crate::config::Setting;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// How grave.
    pub level: Level,
    /// The text of the line's `message`, which never varies.
    pub text: &'static str,
    /// Fields that are always there.
    pub always: &'static [&'static str],
    /// Fields that are there if there is something to say.
    pub sometimes: &'static [&'static str],
    /// When it is logged, and what it means.
    pub meaning: &'static str,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What form its value has.
    pub form: Form,
    /// What it says.
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
    /// A text: RFC 3339, UTC.
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

/// The first message. Beside its own fields it has one for each setting.
pub const BEGINS: &str = "podbeat begins";

/// The field in which [`BEGINS`] tells a setting: its flag, with underscores.
#[must_use]
pub fn field_of(setting: &Setting) -> String {
    setting.flag.replace('-', "_")
}

const fn message(
    level: Level,
    text: &'static str,
    always: &'static [&'static str],
    sometimes: &'static [&'static str],
    meaning: &'static str,
) -> Message {
    Message {
        level,
        text,
        always,
        sometimes,
        meaning,
    }
}

const fn field(name: &'static str, form: Form, meaning: &'static str) -> Field {
    Field { name, form, meaning }
}

/// Fields of every line of the JSON form.
pub const EVERYWHERE: &[Field] = &[
    field("timestamp", Form::Time, "when, with milliseconds"),
    field("level", Form::Text, "ERROR, WARN, INFO, DEBUG or TRACE"),
    field("message", Form::Text, "one of the messages above"),
    field(
        "target",
        Form::Text,
        "where in the code, which is what `PODBEAT_LOG` can name",
    ),
];

/// Every message at info and above, in the order of a pod's life.
pub const MESSAGES: &[Message] = &[
    message(
        Level::INFO,
        BEGINS,
        &["version"],
        &["trace_id", "kubernetes_api"],
        "The first line. Each setting in force is a field, named as its flag with underscores; a secret is `[redacted]`, a \
         setting without a value is left out",
    ),
    message(
        Level::WARN,
        "TRACEPARENT is ignored; heartbeats are sent in a trace of their own",
        &["error"],
        &[],
        "What was given is no W3C traceparent",
    ),
    message(
        Level::INFO,
        "the admin endpoint listens",
        &["address"],
        &[],
        "`PODBEAT_LISTEN` is set, and its port is had",
    ),
    message(
        Level::ERROR,
        "there is no admin endpoint: no probe, metric or status will be answered; set PODBEAT_LISTEN to a free port of this \
         pod. Heartbeats go on without it",
        &["setting", "error", "cause"],
        &[],
        "The port of `PODBEAT_LISTEN` can't be had",
    ),
    message(
        Level::WARN,
        "the admin endpoint can't take a connection; trying again, also if it happens once more",
        &["error"],
        &[],
        "The process or the node has no room for another; told once",
    ),
    message(
        Level::WARN,
        "the journal can't be taken up; beginning afresh",
        &["journal", "error"],
        &["set_aside_as"],
        "It is torn, or of another pod, run or newer version",
    ),
    message(
        Level::INFO,
        "going on from the journal",
        &["waiting", "last_heartbeat"],
        &[],
        "podbeat's container was started again, and takes up what the process before it left",
    ),
    message(
        Level::INFO,
        "first contact with the task-run service",
        &["heartbeat", "kind"],
        &["trace_id", "span_id"],
        "The first heartbeat of this process was accepted",
    ),
    message(
        Level::INFO,
        "first contact with the Kubernetes API",
        &["containers", "deleted"],
        &["pod_uid", "node"],
        "The pod is seen for the first time",
    ),
    message(
        Level::WARN,
        "the pod has no regular containers of these names, which a setting or an annotation counts among the task's or not",
        &["containers"],
        &[],
        "A name in PODBEAT_TASK_CONTAINERS, PODBEAT_IGNORED_CONTAINERS or the annotations podbeat.dev/task-containers or podbeat.dev/ignored-containers is misspelt. It is ignored; if no container is left for the task, every regular one counts",
    ),
    message(
        Level::INFO,
        "the Job's failed pods are counted",
        &["job_retry_count"],
        &[],
        "The pod is a Job's, and neither JOB_RETRY_COUNT nor the Job controller's annotation gives a retry count: it is the number of the Job's pods that failed before this one",
    ),
    message(
        Level::INFO,
        "the Job runs more than one pod, so that its failed pods tell no retry count of this one; set JOB_RETRY_COUNT if the service \
         needs it",
        &[],
        &[],
        "The same, and the Job has no completion index by which the pods could be told apart. Heartbeats go on without a retry count",
    ),
    message(
        Level::WARN,
        "the Job's failed pods can't be counted; heartbeats go on without a retry count",
        &["error"],
        &["kubectl_apply"],
        "The Kubernetes API didn't list them, six times, or doesn't allow it",
    ),
    message(
        Level::WARN,
        "the pod has no container of that name: podbeat takes its own container for a task's, and the run never ends; set \
         PODBEAT_CONTAINER_NAME to the name of podbeat's container",
        &["container"],
        &[],
        "In a pod, podbeat's own container isn't found",
    ),
    message(
        Level::WARN,
        "no such pod; are POD_NAME, POD_NAMESPACE and POD_UID right? Heartbeats go on without states",
        &[],
        &[],
        "The Kubernetes API never showed a pod of that name",
    ),
    message(
        Level::WARN,
        "another pod bears our pod's name; its states are not reported",
        &[],
        &["uid"],
        "The pod was made anew under its name, or POD_UID is wrong",
    ),
    message(
        Level::INFO,
        "container changed",
        &["container", "to", "restart_count"],
        &[
            "from",
            "reason",
            "container_message",
            "exit_code",
            "signal",
            "started_at",
            "finished_at",
            "container_id",
        ],
        "Each change of a container that is reported, as the Kubernetes API words it; an exit that only `lastState` still \
         shows, too",
    ),
    message(
        Level::INFO,
        "the Kubernetes API gives a reason for the pod's state",
        &[],
        &["condition", "container", "exit_code", "reason", "pod_message"],
        "Why the pod ends or can't begin: its `status.reason` (such as DeadlineExceeded or Evicted), the conditions DisruptionTarget, \
         PodScheduled and Ready (PodFailed), or what an init container or another sidecar does that keeps the task from starting. \
         Each reason has one line",
    ),
    message(
        Level::INFO,
        "the pod is being deleted",
        &["until"],
        &[],
        "The API shows a deletionTimestamp",
    ),
    message(
        Level::WARN,
        "the Kubernetes API gives no news of the pod",
        &["repeats", "since", "error"],
        &["status", "kubectl_apply"],
        "A list, watch or get failed; heartbeats go on without fresh states. Told at once, then ever more rarely",
    ),
    message(
        Level::INFO,
        "the Kubernetes API gives news of the pod again",
        &["failures", "lasted_seconds"],
        &[],
        "That is over",
    ),
    message(
        Level::WARN,
        "a heartbeat was not accepted",
        &[
            "heartbeat",
            "kind",
            "repeats",
            "since",
            "error",
            "trace_id",
            "span_id",
        ],
        &["status"],
        "Any answer but 2xx, or none. Told at once, then ever more rarely",
    ),
    message(
        Level::INFO,
        "the service accepts heartbeats again",
        &[
            "heartbeat",
            "kind",
            "failures",
            "lasted_seconds",
            "trace_id",
            "span_id",
        ],
        &[],
        "That is over",
    ),
    message(
        Level::WARN,
        "a heartbeat was dropped",
        &["heartbeat", "kind", "cause", "told"],
        &[],
        "The service will never hear of a change of a container as it happened; what it would have told, and why not",
    ),
    message(
        Level::INFO,
        "every container of the pod is being restarted; the next process continues",
        &[],
        &[],
        "A container ended with a code for which its rule says RestartAllContainers (KEP-5532). No last heartbeat was sent",
    ),
    message(
        Level::ERROR,
        "podbeat's container alone was stopped, and the task goes on; heartbeats continue after a last heartbeat",
        &["last_heartbeat"],
        &[],
        "A failed liveness probe, a changed image or a resize stopped podbeat, not the pod. If the last heartbeat was accepted, the service may hold the run for over: see that nothing stops podbeat's container alone",
    ),
    message(
        Level::WARN,
        "the service says that this run isn't ours; nothing more is sent",
        &[],
        &[],
        "404, 409 or 410, three times over 30 s or more",
    ),
    message(
        Level::WARN,
        "a heartbeat was accepted, but the answer's body can't be read: a new token in it would be lost",
        &[
            "heartbeat",
            "kind",
            "repeats",
            "since",
            "error",
            "trace_id",
            "span_id",
        ],
        &[],
        "It is no JSON, or too long. Told at once, then ever more rarely",
    ),
    message(
        Level::WARN,
        "the service sent a token that can't be used",
        &["repeats", "since", "error", "trace_id", "span_id"],
        &[],
        "No header can carry it; the old one stays in use. Told at once, then ever more rarely",
    ),
    message(
        Level::INFO,
        "the service's answers can be used again",
        &["failures", "lasted_seconds"],
        &[],
        "The two before this are over",
    ),
    message(
        Level::WARN,
        "the bearer token will expire soon, and no newer one is at hand",
        &["expires_at"],
        &[],
        "It is a JWT that says so, ten minutes ahead; told once, and again only after a better one",
    ),
    message(
        Level::WARN,
        "the bearer token has expired; the service is asked with it all the same",
        &["expired_at"],
        &[],
        "The same, when the time has come",
    ),
    message(
        Level::WARN,
        "a file could not be written; heartbeats go on without it",
        &["what", "repeats", "since", "error"],
        &[],
        "The journal's or the renewed token's directory is missing, full or read-only. Told at once, then ever more rarely",
    ),
    message(
        Level::INFO,
        "a file is written again",
        &["what", "failures", "lasted_seconds"],
        &[],
        "That is over",
    ),
    message(
        Level::INFO,
        "dry run: this heartbeat would be sent",
        &["heartbeat", "kind", "body"],
        &[],
        "With `--dry-run`, in place of each heartbeat; the totals at the end count it as sent and accepted",
    ),
    message(
        Level::INFO,
        "a signal to end came; watching on for the last states",
        &[],
        &[],
        "SIGTERM or SIGINT",
    ),
    message(
        Level::INFO,
        "another signal to end came; not waiting any longer",
        &[],
        &[],
        "A second one",
    ),
    message(
        Level::WARN,
        "the look at the pod before the last heartbeat failed",
        &["error"],
        &[],
        "The last heartbeat tells what was known before",
    ),
    message(
        Level::WARN,
        "no exit markers; heartbeats go on without them",
        &["repeats", "since", "error"],
        &[],
        "The directory can't be read. Told at once, then ever more rarely",
    ),
    message(
        Level::INFO,
        "exit markers are read again",
        &["failures", "lasted_seconds"],
        &[],
        "That is over",
    ),
    message(
        Level::WARN,
        "a file among the exit markers is ignored",
        &["file", "error"],
        &[],
        "It is no marker; each is told once",
    ),
    message(
        Level::WARN,
        "an exit marker names a container that the pod doesn't have; it is ignored",
        &["container"],
        &[],
        "A wrapper was given another name",
    ),
    message(
        Level::INFO,
        "the last heartbeat is due",
        &["cause"],
        &[],
        "Why it goes out now",
    ),
    message(
        Level::INFO,
        "an exit marker tells what the Kubernetes API withholds",
        &["container", "exit_code"],
        &[],
        "The exit in the last heartbeat is the task's own word",
    ),
    message(
        Level::WARN,
        "not accepted; this body is not sent again",
        &["heartbeat", "kind"],
        &["trace_id", "span_id"],
        "The service refused the last heartbeat for good; why, says `a heartbeat was not accepted` before it",
    ),
    message(
        Level::INFO,
        "the last heartbeat was accepted",
        &["heartbeat", "told"],
        &["trace_id", "span_id"],
        "The service knows how the run ended: what it was told",
    ),
    message(
        Level::INFO,
        "an earlier request got no answer and may still arrive; the last heartbeat goes once more after it",
        &["again_in_seconds"],
        &[],
        "So that the service's last word is the last heartbeat",
    ),
    message(
        Level::WARN,
        "the last heartbeat was accepted; its repetition behind an earlier request that may arrive late was not",
        &[],
        &[],
        "The run has been told its end all the same",
    ),
    message(
        Level::WARN,
        "some heartbeats with news were never accepted",
        &["overflowed", "expired", "refused", "too_late", "orphaned"],
        &[],
        "At the end, if there were any: how many, by cause",
    ),
    message(
        Level::ERROR,
        "the last heartbeat could not be delivered in time: the service doesn't know how this run ended",
        &["request"],
        &["trace_id", "span_id"],
        "Exit code 75 follows",
    ),
    message(
        Level::INFO,
        "podbeat ends",
        &[
            "ending",
            "exit_code",
            "sent",
            "attempts",
            "accepted",
            "lost",
            "uptime_seconds",
        ],
        &[],
        "The last line, with the totals of this process",
    ),
    message(
        Level::WARN,
        "lines were left out of the log, because nobody read it",
        &["lines"],
        &[],
        "Standard error is a pipe that was full for longer than 50 ms; heartbeats went on. The container runtime, or whatever reads the log, hung or was too slow",
    ),
    message(
        Level::ERROR,
        "podbeat panicked, which is a bug",
        &["panic"],
        &["location"],
        "Please report it, with this line",
    ),
];

/// Every field of those messages but the settings of [`BEGINS`], by name.
pub const FIELDS: &[Field] = &[
    field("accepted", Form::Number, "heartbeats that were accepted"),
    field("address", Form::Text, "address and port"),
    field(
        "again_in_seconds",
        Form::Seconds,
        "when it goes once more at the earliest",
    ),
    field("attempts", Form::Number, "requests that were begun"),
    field("body", Form::Text, "the whole body, as JSON"),
    field("cause", Form::Text, "why"),
    field(
        "condition",
        Form::Text,
        "the pod's condition that has the reason; absent for `status.reason`",
    ),
    field("container", Form::Text, "its name"),
    field(
        "container_id",
        Form::Text,
        "the runtime's id of the run that ended",
    ),
    field(
        "container_message",
        Form::Text,
        "the API's `message` of that state: a termination message, or why it waits; 256 characters of it",
    ),
    field(
        "containers",
        Form::Text,
        "names of all containers of the pod, init containers first",
    ),
    field("deleted", Form::Flag, "whether the pod is being deleted already"),
    field(
        "ending",
        Form::Text,
        "how podbeat ended, as its exit codes are listed",
    ),
    field(
        "error",
        Form::Text,
        "what went wrong, to what, and what to do about it, with its causes",
    ),
    field("exit_code", Form::Number, "the container's, or podbeat's own"),
    field(
        "expired",
        Form::Number,
        "heartbeats that waited longer than PODBEAT_MAX_STATUS_AGE",
    ),
    field("expired_at", Form::Time, "the token's `exp`"),
    field("expires_at", Form::Time, "the token's `exp`"),
    field("failures", Form::Number, "how many there were"),
    field("file", Form::Text, "its name in the directory"),
    field("finished_at", Form::Time, "as the API said"),
    field("from", Form::Text, "the state before; absent if there was none"),
    field(
        "heartbeat",
        Form::Number,
        "the heartbeat's number, from 1 in each pod; a retry has the same",
    ),
    field(
        "job_retry_count",
        Form::Number,
        "pods of the Job that failed before this one",
    ),
    field("journal", Form::Text, "its path"),
    field(
        "kind",
        Form::Text,
        "first, periodic, change, lost_exit (of which only `lastState` tells) or final",
    ),
    field(
        "kubectl_apply",
        Form::Text,
        "the missing Role and RoleBinding, ready to apply",
    ),
    field(
        "kubernetes_api",
        Form::Text,
        "its host and port, in a pod; elsewhere `kubeconfig` and `context` say it",
    ),
    field(
        "last_heartbeat",
        Form::Text,
        "how far it has come: open, accepted, refused or orphaned",
    ),
    field(
        "lasted_seconds",
        Form::Seconds,
        "from the first failure to this line",
    ),
    field("lines", Form::Number, "how many"),
    field("location", Form::Text, "where in the code"),
    field(
        "lost",
        Form::Number,
        "heartbeats with news that were never accepted",
    ),
    field("node", Form::Text, "the node's name"),
    field(
        "orphaned",
        Form::Number,
        "heartbeats that waited when the run was disowned",
    ),
    field(
        "overflowed",
        Form::Number,
        "heartbeats for which the outbox had no room",
    ),
    field("panic", Form::Text, "its message"),
    field(
        "pod_message",
        Form::Text,
        "the API's `message` for that reason; 256 characters of it",
    ),
    field("pod_uid", Form::Text, "the pod's metadata.uid"),
    field("reason", Form::Text, "the API's word, such as OOMKilled"),
    field("refused", Form::Number, "heartbeats that the service refused"),
    field(
        "repeats",
        Form::Number,
        "how many failures there were since `since`, this one included",
    ),
    field(
        "request",
        Form::Text,
        "the body that was not accepted, as JSON; the service's own nonce left out",
    ),
    field("restart_count", Form::Number, "as the API said"),
    field("sent", Form::Number, "heartbeats that were tried at least once"),
    field("set_aside_as", Form::Text, "where it is now"),
    field("setting", Form::Text, "the setting to look at"),
    field(
        "signal",
        Form::Number,
        "the signal that ended it, where the API tells",
    ),
    field("since", Form::Time, "when the first failure was"),
    field(
        "span_id",
        Form::Text,
        "the attempt, in the header `traceparent` of its request",
    ),
    field("started_at", Form::Time, "as the API said"),
    field("status", Form::Number, "the HTTP status, if one came"),
    field("to", Form::Text, "the state now: waiting, running or terminated"),
    field(
        "told",
        Form::Text,
        "each container's state and exit code: `main terminated 3, helper running`; empty if none is known",
    ),
    field(
        "too_late",
        Form::Number,
        "heartbeats before which the deadline of the last one came",
    ),
    field(
        "trace_id",
        Form::Text,
        "the trace of all heartbeats of this process, in the header `traceparent` of each request; none in a dry run",
    ),
    field("uid", Form::Text, "the other pod's metadata.uid"),
    field("until", Form::Time, "when the grace of the deletion ends"),
    field("uptime_seconds", Form::Seconds, "since the process began"),
    field("version", Form::Text, "podbeat's"),
    field("waiting", Form::Number, "heartbeats that wait to be accepted"),
    field("what", Form::Text, "the journal, or the renewed token"),
];
