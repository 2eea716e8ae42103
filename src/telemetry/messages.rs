//! The messages that podbeat logs at info and above, and their fields, as two tables. docs/logs.md is generated from them. Tests
//! compare every line of the real binary, and every log statement in the code, with these tables.

use tracing::Level;

use podbeat_interface::setting::Setting;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The severity.
    pub level: Level,
    /// The text of the line's `message`. It is constant.
    pub text: &'static str,
    /// Fields that every line with this message has.
    pub always: &'static [&'static str],
    /// Fields that a line has only if they have a value.
    pub sometimes: &'static [&'static str],
    /// When podbeat logs it, and what it means.
    pub meaning: &'static str,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The form of its value.
    pub form: Form,
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

/// The first message. It also has a field for each setting.
pub const BEGINS: &str = "podbeat started";

/// The name of a setting's field in [`BEGINS`]: the setting's flag, with underscores.
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
    field("timestamp", Form::Time, "the time, with milliseconds"),
    field("level", Form::Text, "ERROR, WARN, INFO, DEBUG or TRACE"),
    field("message", Form::Text, "one of the messages above"),
    field(
        "target",
        Form::Text,
        "the module in the code. `PODBEAT_LOG` can filter by it",
    ),
];

/// Every message at info and above, in the order of a pod's life.
pub const MESSAGES: &[Message] = &[
    message(
        Level::INFO,
        BEGINS,
        &["version"],
        &["trace_id", "kubernetes_api"],
        "The first line. It has a field for each setting that has a value, named like the setting's flag, with underscores. \
         Secrets are `[redacted]`",
    ),
    message(
        Level::WARN,
        "ignoring TRACEPARENT; heartbeats start a trace of their own",
        &["error"],
        &[],
        "The value of `TRACEPARENT` is not a valid W3C traceparent",
    ),
    message(
        Level::INFO,
        "the admin endpoint is listening",
        &["address"],
        &[],
        "The admin endpoint listens on the address of `PODBEAT_LISTEN`",
    ),
    message(
        Level::ERROR,
        "cannot open the admin endpoint: probes, metrics and status are not available; set PODBEAT_LISTEN to a free \
         port of this pod. Heartbeats continue",
        &["setting", "error", "cause"],
        &[],
        "podbeat cannot listen on the port of `PODBEAT_LISTEN`",
    ),
    message(
        Level::WARN,
        "the admin endpoint cannot accept connections; retrying, without another warning",
        &["error"],
        &[],
        "The process or the node has no resources for another connection. Logged once",
    ),
    message(
        Level::WARN,
        "cannot resume from the journal; starting with an empty one",
        &["journal", "error"],
        &["set_aside_as"],
        "The journal is damaged, or belongs to another pod, another run or a newer version of podbeat",
    ),
    message(
        Level::INFO,
        "resumed from the journal",
        &["waiting", "last_heartbeat"],
        &[],
        "podbeat's container restarted. The new process continues with the state of the earlier one",
    ),
    message(
        Level::INFO,
        "the service accepted the first heartbeat of this process",
        &["heartbeat", "kind"],
        &["trace_id", "span_id"],
        "The connection to the task-run service works",
    ),
    message(
        Level::INFO,
        "found the pod in the Kubernetes API",
        &["containers", "deleted"],
        &["pod_uid", "node"],
        "podbeat sees the pod for the first time",
    ),
    message(
        Level::WARN,
        "the pod has no regular containers with these names; check the settings and annotations for task and ignored \
         containers",
        &["containers"],
        &[],
        "A name in `PODBEAT_TASK_CONTAINERS`, `PODBEAT_IGNORED_CONTAINERS` or the annotations `podbeat.dev/task-containers` or \
         `podbeat.dev/ignored-containers` is misspelt. podbeat ignores the name. If this leaves no task container, every \
         regular container is one",
    ),
    message(
        Level::INFO,
        "counted the Job's failed pods",
        &["job_retry_count"],
        &[],
        "The pod belongs to a Job, and neither `JOB_RETRY_COUNT` nor the Job controller's annotation gives a retry count. podbeat \
         uses the number of the Job's pods that failed before this one",
    ),
    message(
        Level::INFO,
        "the Job runs several pods, so the number of failed pods is not this pod's retry count; set JOB_RETRY_COUNT \
         if the service needs it",
        &[],
        &[],
        "The same, but the Job has no completion index, so podbeat cannot assign the failed pods. Heartbeats continue without a \
         retry count",
    ),
    message(
        Level::WARN,
        "cannot count the Job's failed pods; heartbeats continue without a retry count",
        &["error"],
        &["kubectl_apply"],
        "The Kubernetes API failed to list the Job's pods six times, or does not allow it",
    ),
    message(
        Level::WARN,
        "the pod has no container with this name: podbeat counts its own container as a task container, and the run \
         never ends; set PODBEAT_CONTAINER_NAME to the name of podbeat's container",
        &["container"],
        &[],
        "podbeat runs in a pod, and did not find its own container there",
    ),
    message(
        Level::WARN,
        "pod not found; check POD_NAME, POD_NAMESPACE and POD_UID. Heartbeats continue without container states",
        &[],
        &[],
        "The Kubernetes API never showed a pod with this name and UID",
    ),
    message(
        Level::WARN,
        "another pod has this pod's name; ignoring its states",
        &[],
        &["uid"],
        "The pod was created again with the same name, or `POD_UID` is wrong",
    ),
    message(
        Level::INFO,
        "container state changed",
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
        "A reported container changed, in the words of the Kubernetes API. This includes an exit that only \
         `lastState` still shows",
    ),
    message(
        Level::INFO,
        "the Kubernetes API reported a reason for the pod's state",
        &[],
        &["condition", "container", "exit_code", "reason", "pod_message"],
        "Why the pod ends or cannot start: its `status.reason` (such as DeadlineExceeded or Evicted), the conditions \
         DisruptionTarget, PodScheduled and Ready (PodFailed), or an init container or another sidecar that prevents the task \
         from starting. Each reason is logged once",
    ),
    message(
        Level::INFO,
        "the pod is being deleted",
        &["until"],
        &[],
        "The pod has a `deletionTimestamp`",
    ),
    message(
        Level::WARN,
        "cannot watch the pod; heartbeats continue without new container states",
        &["repeats", "since", "error"],
        &["status", "kubectl_apply"],
        "A list, watch or get request to the Kubernetes API failed. Logged at once, then less and less often",
    ),
    message(
        Level::INFO,
        "watching the pod again",
        &["failures", "lasted_seconds"],
        &[],
        "A request to the Kubernetes API succeeded again",
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
        "The service did not answer with 2xx, or did not answer. Logged at once, then less and less often",
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
        "The service accepted a heartbeat after failures",
    ),
    message(
        Level::WARN,
        "a heartbeat was dropped",
        &["heartbeat", "kind", "cause", "told"],
        &[],
        "The service will not receive this container change. `told` has the lost content, `cause` the reason",
    ),
    message(
        Level::INFO,
        "all containers of the pod are restarting; the next podbeat process continues",
        &[],
        &[],
        "A container exited with a code for which its restart rule says RestartAllContainers (KEP-5532). podbeat sent no last \
         heartbeat",
    ),
    message(
        Level::ERROR,
        "only podbeat's container was stopped and the task continues; resuming heartbeats after a last heartbeat",
        &["last_heartbeat"],
        &[],
        "A failed liveness probe, a changed image or a resize stopped podbeat, but not the pod. If the last heartbeat was \
         accepted, the service may regard the run as ended. Make sure that nothing stops only podbeat's container",
    ),
    message(
        Level::WARN,
        "the service says that the run does not belong to this pod; sending nothing more",
        &[],
        &[],
        "The service answered 404, 409 or 410 three times over 30 s or more",
    ),
    message(
        Level::WARN,
        "a heartbeat was accepted, but the response body is unreadable; a new token in it would be lost",
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
        "The body is not JSON, or too long. Logged at once, then less and less often",
    ),
    message(
        Level::WARN,
        "the service sent an unusable token; keeping the current one",
        &["repeats", "since", "error", "trace_id", "span_id"],
        &[],
        "The token contains characters that an HTTP header cannot contain. Logged at once, then less and less often",
    ),
    message(
        Level::INFO,
        "the service's responses are usable again",
        &["failures", "lasted_seconds"],
        &[],
        "The problem of the two messages before is over",
    ),
    message(
        Level::WARN,
        "the bearer token expires soon, and no newer token is available",
        &["expires_at"],
        &[],
        "The token is a JWT that expires in less than ten minutes. Logged once, and again only after a token that is \
         valid for longer",
    ),
    message(
        Level::WARN,
        "the bearer token has expired; sending it anyway",
        &["expired_at"],
        &[],
        "The same, after the token has expired",
    ),
    message(
        Level::WARN,
        "cannot write a file; heartbeats continue without it",
        &["what", "repeats", "since", "error"],
        &[],
        "The directory of the journal or of the renewed token is missing, full or read-only. Logged at once, then less and less \
         often",
    ),
    message(
        Level::INFO,
        "writing the file succeeded again",
        &["what", "failures", "lasted_seconds"],
        &[],
        "The file is up to date again",
    ),
    message(
        Level::INFO,
        "dry run: would send this heartbeat",
        &["heartbeat", "kind", "body"],
        &[],
        "With `--dry-run`, instead of each heartbeat. The totals at the end count it as sent and accepted",
    ),
    message(
        Level::INFO,
        "received SIGTERM or SIGINT; waiting for final container states",
        &[],
        &[],
        "podbeat is being stopped. It waits for the last changes before it sends the last heartbeat",
    ),
    message(
        Level::INFO,
        "received a second SIGTERM or SIGINT; no longer waiting",
        &[],
        &[],
        "podbeat sends the last heartbeat now",
    ),
    message(
        Level::WARN,
        "cannot get the pod before the last heartbeat; using the last known states",
        &["error"],
        &[],
        "The last heartbeat has the states that podbeat saw before",
    ),
    message(
        Level::WARN,
        "cannot read exit markers; heartbeats continue without them",
        &["repeats", "since", "error"],
        &[],
        "podbeat cannot read the directory. Logged at once, then less and less often",
    ),
    message(
        Level::INFO,
        "reading exit markers succeeded again",
        &["failures", "lasted_seconds"],
        &[],
        "podbeat can read the directory again",
    ),
    message(
        Level::WARN,
        "ignoring a file that is not a valid exit marker",
        &["file", "error"],
        &[],
        "Logged once for each file",
    ),
    message(
        Level::WARN,
        "ignoring an exit marker: the pod has no container with this name",
        &["container"],
        &[],
        "`podbeat exec` was started with another container name",
    ),
    message(
        Level::INFO,
        "the last heartbeat is due",
        &["cause"],
        &[],
        "`cause` says why podbeat sends the last heartbeat now",
    ),
    message(
        Level::INFO,
        "using an exit code from an exit marker; the Kubernetes API does not show it",
        &["container", "exit_code"],
        &[],
        "The exit code in the last heartbeat comes from the task's exit marker",
    ),
    message(
        Level::WARN,
        "heartbeat rejected; will not resend this body",
        &["heartbeat", "kind"],
        &["trace_id", "span_id"],
        "The service permanently refused this body of the last heartbeat. The line `a heartbeat was not accepted` before has the \
         reason",
    ),
    message(
        Level::INFO,
        "the last heartbeat was accepted",
        &["heartbeat", "told"],
        &["trace_id", "span_id"],
        "The service knows how the run ended. `told` has what podbeat reported",
    ),
    message(
        Level::INFO,
        "an earlier request got no response and may still arrive; sending the last heartbeat once more after it",
        &["again_in_seconds"],
        &[],
        "This makes the last heartbeat the last request that the service receives",
    ),
    message(
        Level::WARN,
        "the last heartbeat was accepted, but sending it again after an unanswered request failed",
        &[],
        &[],
        "The service knows how the run ended nevertheless",
    ),
    message(
        Level::WARN,
        "some heartbeats with container changes were never accepted",
        &["overflowed", "expired", "refused", "too_late", "orphaned"],
        &[],
        "At the end, if there were any. The fields have the counts by cause",
    ),
    message(
        Level::ERROR,
        "could not deliver the last heartbeat in time; the service does not know how this run ended",
        &["request"],
        &["trace_id", "span_id"],
        "podbeat exits with 75",
    ),
    message(
        Level::INFO,
        "podbeat is exiting",
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
        "The last line. It has the totals of this process",
    ),
    message(
        Level::WARN,
        "log lines were dropped because nothing read the log",
        &["lines"],
        &[],
        "Standard error is a pipe that was full for longer than 50 ms. The container runtime, or another reader of the log, hung \
         or was too slow. Heartbeats continued",
    ),
    message(
        Level::ERROR,
        "podbeat panicked; this is a bug, please report it",
        &["panic"],
        &["location"],
        "Report the bug with this line",
    ),
];

/// Every field of these messages except the settings of [`BEGINS`], sorted by name.
pub const FIELDS: &[Field] = &[
    field("accepted", Form::Number, "heartbeats that the service accepted"),
    field("address", Form::Text, "address and port"),
    field(
        "again_in_seconds",
        Form::Seconds,
        "seconds until podbeat sends it again, at the earliest",
    ),
    field("attempts", Form::Number, "requests that podbeat started"),
    field("body", Form::Text, "the whole body, as JSON"),
    field("cause", Form::Text, "the reason"),
    field(
        "condition",
        Form::Text,
        "the pod condition with the reason. Absent for `status.reason`",
    ),
    field("container", Form::Text, "the container's name"),
    field(
        "container_id",
        Form::Text,
        "the container runtime's ID of the terminated container",
    ),
    field(
        "container_message",
        Form::Text,
        "the API's `message` of the state: a termination message, or why the container waits. At most 256 characters",
    ),
    field(
        "containers",
        Form::Text,
        "the names of containers; of all containers of the pod, init containers come first",
    ),
    field("deleted", Form::Flag, "whether the pod is already being deleted"),
    field(
        "ending",
        Form::Text,
        "how podbeat ended; see the list of exit codes",
    ),
    field(
        "error",
        Form::Text,
        "what failed, on what, what to do about it, and the causes",
    ),
    field(
        "exit_code",
        Form::Number,
        "the container's exit code, or podbeat's",
    ),
    field(
        "expired",
        Form::Number,
        "heartbeats that waited longer than `PODBEAT_MAX_STATUS_AGE`",
    ),
    field("expired_at", Form::Time, "the token's `exp`"),
    field("expires_at", Form::Time, "the token's `exp`"),
    field("failures", Form::Number, "the number of failures"),
    field("file", Form::Text, "the file's name in the directory"),
    field("finished_at", Form::Time, "the value from the Kubernetes API"),
    field("from", Form::Text, "the earlier state. Absent if there was none"),
    field(
        "heartbeat",
        Form::Number,
        "the heartbeat's number. It starts at 1 in each pod; a retry has the same number",
    ),
    field(
        "job_retry_count",
        Form::Number,
        "the number of the Job's pods that failed before this one",
    ),
    field("journal", Form::Text, "the journal's path"),
    field(
        "kind",
        Form::Text,
        "first, periodic, change, lost_exit (an exit that only `lastState` shows) or final",
    ),
    field(
        "kubectl_apply",
        Form::Text,
        "the missing Role and RoleBinding, ready to apply",
    ),
    field(
        "kubernetes_api",
        Form::Text,
        "the API server's host and port, in a pod. Elsewhere, see `kubeconfig` and `context`",
    ),
    field(
        "last_heartbeat",
        Form::Text,
        "the state of the last heartbeat: open, accepted, refused or orphaned",
    ),
    field(
        "lasted_seconds",
        Form::Seconds,
        "from the first failure to this line",
    ),
    field("lines", Form::Number, "the number of dropped lines"),
    field("location", Form::Text, "the place in the code"),
    field(
        "lost",
        Form::Number,
        "heartbeats with container changes that were never accepted",
    ),
    field("node", Form::Text, "the node's name"),
    field(
        "orphaned",
        Form::Number,
        "heartbeats that waited when the service said that the run does not belong to this pod",
    ),
    field(
        "overflowed",
        Form::Number,
        "heartbeats that did not fit into the outbox",
    ),
    field("panic", Form::Text, "the panic's message"),
    field(
        "pod_message",
        Form::Text,
        "the API's `message` for the reason. At most 256 characters",
    ),
    field("pod_uid", Form::Text, "the pod's metadata.uid"),
    field("reason", Form::Text, "the reason from the API, such as OOMKilled"),
    field("refused", Form::Number, "heartbeats that the service refused"),
    field(
        "repeats",
        Form::Number,
        "the number of failures since `since`, including this one",
    ),
    field(
        "request",
        Form::Text,
        "the body that was not accepted, as JSON. A nonce that the service issued is redacted",
    ),
    field("restart_count", Form::Number, "the value from the Kubernetes API"),
    field(
        "sent",
        Form::Number,
        "heartbeats that podbeat tried to send at least once",
    ),
    field("set_aside_as", Form::Text, "the file's new name"),
    field("setting", Form::Text, "the setting to look at"),
    field(
        "signal",
        Form::Number,
        "the signal that ended the container, if the API has it",
    ),
    field("since", Form::Time, "the time of the first failure"),
    field(
        "span_id",
        Form::Text,
        "the attempt's ID, from the header `traceparent` of its request",
    ),
    field("started_at", Form::Time, "the value from the Kubernetes API"),
    field("status", Form::Number, "the HTTP status, if there was a response"),
    field("to", Form::Text, "the new state: waiting, running or terminated"),
    field(
        "told",
        Form::Text,
        "each container's state and exit code, such as `main terminated 3, helper running`. Empty if none is known",
    ),
    field(
        "too_late",
        Form::Number,
        "heartbeats that waited when the deadline of the last heartbeat passed",
    ),
    field(
        "trace_id",
        Form::Text,
        "the trace ID of all heartbeats of this process, from the header `traceparent` of each request. Absent in a \
         dry run",
    ),
    field("uid", Form::Text, "the other pod's metadata.uid"),
    field("until", Form::Time, "the end of the deletion grace period"),
    field("uptime_seconds", Form::Seconds, "since the process started"),
    field("version", Form::Text, "podbeat's version"),
    field(
        "waiting",
        Form::Number,
        "heartbeats that the service has not accepted yet",
    ),
    field(
        "what",
        Form::Text,
        "which file: the journal, or the renewed token",
    ),
];
