//! Every message that podbeat logs at info and above, with its level, text, fields and meaning.
//! Each message is defined once. [`Message::emit`] logs it, docs/logs.md is generated from
//! [`Message::ALL`], and [`Id::of`] finds a message by its text.

mod form;
mod value;

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;

pub use form::{Carried, Described, EVERYWHERE, FIELDS, Field, Form, Presence, field, field_of};
pub use value::{Beat, Cut, Outage, Over, Seconds, Settings, Shown, Since, Span, Text, form_of};

/// The targets of messages: the modules that log them. `PODBEAT_LOG` filters by target, so a
/// message keeps its target even if its module moves.
mod target {
    pub(super) const ADMIN: &str = "podbeat::telemetry::admin";
    pub(super) const DELIVERY: &str = "podbeat::agent::delivery";
    pub(super) const JOURNAL: &str = "podbeat::agent::journal";
    pub(super) const DURABLE_FILE: &str = "podbeat::agent::durable_file";
    pub(super) const LOG: &str = "podbeat::telemetry::log";
    pub(super) const MARKERS: &str = "podbeat::agent::markers";
    pub(super) const REPORT: &str = "podbeat::agent::report";
    pub(super) const POD_EVENT: &str = "podbeat::agent::pod_event";
}

/// Generates `Message`, `Id` and the descriptions from a list of messages. A module `target` with
/// the constants of the targets must be in scope.
///
/// A message consists of its meaning (a comment), level, target, name, text, and its fields in the
/// order of the line:
/// - `name: Type` is in every line. `?name: Option<Type>` is only in lines in which it has a value.
/// - `..group: Type { name, ?name, @name }` are members of a group: `name` is in every line,
///   `?name` only in lines in which it has a value. `@name` is like `?name`, for a setting.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[doc = $meaning:literal])+
        $level:ident $target:ident $id:ident $text:literal $({
            $(
                $($name:ident)? $(?$optional:ident)? $(..$group:ident)? : $type:ty
                $({ $($($member:ident)? $(?$sometimes:ident)? $(@$setting:ident)?),+ })?
            ),*
            $(,)?
        })?,
    )+) => {
        /// A message to log, with its fields. `FIELDS` has their meaning.
        #[allow(missing_docs, reason = "one table has the meaning of all fields")]
        pub enum Message<'a> {$(
            $(#[doc = $meaning])+
            $id $({ $($($name: $type,)? $($optional: $type,)? $($group: $type,)?)* })?,
        )+}

        /// Identifies a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Id {$(
            $(#[doc = $meaning])+
            $id,
        )+}

        impl Id {
            /// The message with this text. `None` if podbeat has no such message.
            #[must_use]
            #[deny(unreachable_patterns, reason = "each text is of one message")]
            pub fn of(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$id),)+
                    _ => None,
                }
            }
        }

        impl<'a> Message<'a> {
            /// Every message, in the order of a pod's life.
            pub const ALL: &'static [$crate::messages::Described<Id>] = &[$(
                $crate::messages::Described {
                    id: Id::$id,
                    level: ::tracing::Level::$level,
                    text: $text,
                    fields: &[$($(
                        $($crate::carried!($name, Always, <$type as $crate::messages::Shown>::FORM),)?
                        $($crate::carried!($optional, Sometimes, <$type as $crate::messages::Shown>::FORM),)?
                        $($(
                            $($crate::carried!($member, Always, $crate::member!($type, $member)),)?
                            $($crate::carried!($sometimes, Sometimes, $crate::member!($type, $sometimes)),)?
                            $($crate::carried!($setting, Setting, $crate::member!($type, $setting)),)?
                        )+)?
                    )*)?],
                    meaning: concat!($($meaning),+),
                },
            )+];

            /// Logs the message.
            pub fn emit(&self) {
                #[allow(unused_imports, reason = "a list may have no fields")]
                use $crate::messages::Shown as _;
                match self {$(
                    Self::$id $({ $($($name,)? $($optional,)? $($group,)?)* })? => ::tracing::event!(
                        target: target::$target,
                        ::tracing::Level::$level,
                        $($(
                            $($name = $name.shown(),)?
                            $($optional = $optional.shown(),)?
                            $($(
                                $($member = $group.$member.shown(),)?
                                $($sometimes = $group.$sometimes.shown(),)?
                                $($setting = $group.$setting.shown(),)?
                            )+)?
                        )*)?
                        $text
                    ),
                )+}
            }
        }
    };
}

/// Part of [`messages!`](crate::messages!).
#[doc(hidden)]
#[macro_export]
macro_rules! carried {
    ($name:ident, $presence:ident, $form:expr) => {
        $crate::messages::Carried {
            name: stringify!($name),
            form: $form,
            presence: $crate::messages::Presence::$presence,
        }
    };
}

/// Part of [`messages!`](crate::messages!).
#[doc(hidden)]
#[macro_export]
macro_rules! member {
    ($group:ty, $member:ident) => {
        $crate::messages::form_of(|group: &$group| &group.$member)
    };
}

messages! {
    /// The first line. It has a field for each setting that has a value, named like the setting's
    /// flag, with underscores. Secrets are `[redacted]`
    INFO REPORT Started "podbeat started" {
        version: &'a str,
        ..settings: &'a Settings<'a> {
            ?trace_id, @task_run_id, @job_completion_index, @pod_name, @pod_namespace,
            @pod_uid, @job_retry_count, @pod_hardware_details, @service_url,
            @token_file, @token, @ca_file, @client_cert_file, @client_key_file,
            @nonce, @nonce_file, @interval, @timeout, @container_name,
            @task_containers, @ignored_containers, @report, @state_dir, @marker_dir,
            @renewed_token_file, @listen, @max_status_age, @reconnect_spread, @log,
            @log_format, @traceparent, @dry_run, ?kubernetes_api,
            @service_account_dir, @kubeconfig, @context,
        },
    },

    /// The value of `TRACEPARENT` is not a valid W3C traceparent
    WARN REPORT UnfitTraceparent "ignoring TRACEPARENT; heartbeats start a trace of their own" {
        error: Text<'a>,
    },

    /// Variables of podbeat's container begin with `PODBEAT_`, but are not settings. podbeat
    /// ignores them. Correct their names, or remove them
    WARN REPORT UnknownVariables "ignoring unknown environment variables" {
        variables: Text<'a>,
    },

    /// The admin endpoint listens on the address of `PODBEAT_LISTEN`
    INFO ADMIN Listening "the admin endpoint is listening" {
        address: SocketAddr,
    },

    /// podbeat cannot listen on the port of `PODBEAT_LISTEN`
    ERROR ADMIN CannotListen
        "cannot open the admin endpoint: probes, metrics and status are not available; set \
         PODBEAT_LISTEN to a free port of this pod. Heartbeats continue" {
        setting: &'a str,
        error: Text<'a>,
        cause: Text<'a>,
    },

    /// The process or the node has no resources for another connection. Logged once
    WARN ADMIN CannotAcceptConnections
        "the admin endpoint cannot accept connections; retrying, without another warning" {
        error: Text<'a>,
    },

    /// The journal is damaged, or belongs to another pod, another run or a newer version of podbeat
    WARN JOURNAL CannotResume "cannot resume from the journal; starting with an empty one" {
        journal: &'a Path,
        ?set_aside_as: Option<&'a Path>,
        error: Text<'a>,
    },

    /// podbeat's container restarted. The new process continues with the state of the earlier one
    INFO REPORT Resumed "resumed from the journal" {
        waiting: usize,
        last_heartbeat: &'a str,
    },

    /// The connection to the task-run service works
    INFO REPORT FirstAccepted "the service accepted the first heartbeat of this process" {
        ..beat: Beat { heartbeat, kind },
        ..span: Span { ?trace_id, ?span_id },
    },

    /// podbeat sees the pod for the first time
    INFO POD_EVENT PodFound "found the pod in the Kubernetes API" {
        ?pod_uid: Option<&'a str>,
        ?node: Option<Cut<'a>>,
        containers: Text<'a>,
        deleted: bool,
    },

    /// A name in `PODBEAT_TASK_CONTAINERS`, `PODBEAT_IGNORED_CONTAINERS` or the annotations
    /// `podbeat.dev/task-containers` or `podbeat.dev/ignored-containers` is misspelt. podbeat
    /// ignores the name. If this leaves no task container, every regular container is one
    WARN POD_EVENT UnknownContainers
        "the pod has no regular containers with these names; check the settings and annotations \
         for task and ignored containers" {
        containers: Cut<'a>,
    },

    /// The pod belongs to a Job, and neither `JOB_RETRY_COUNT` nor the Job controller's annotation
    /// gives a retry count. podbeat uses the number of the Job's pods that failed before this one
    INFO POD_EVENT RetriesCounted "counted the Job's failed pods" {
        job_retry_count: i32,
    },

    /// The pod belongs to a Job that runs several pods without a completion index, so podbeat
    /// cannot assign the failed pods. Heartbeats continue without a retry count
    INFO POD_EVENT RetriesUncountable
        "the Job runs several pods, so the number of failed pods is not this pod's retry count; \
         set JOB_RETRY_COUNT if the service needs it",

    /// The Kubernetes API failed to list the Job's pods six times, or does not allow it
    WARN POD_EVENT CannotCountRetries
        "cannot count the Job's failed pods; heartbeats continue without a retry count" {
        error: Text<'a>,
        ?kubectl_apply: Option<&'a str>,
    },

    /// podbeat runs in a pod, and did not find its own container there
    WARN POD_EVENT OwnContainerMissing
        "the pod has no container with this name: podbeat counts its own container as a task \
         container, and the run never ends; set PODBEAT_CONTAINER_NAME to the name of podbeat's \
         container" {
        container: &'a str,
    },

    /// The Kubernetes API never showed a pod with this name and UID
    WARN REPORT PodNotFound
        "pod not found; check POD_NAME, POD_NAMESPACE and POD_UID. Heartbeats continue without \
         container states",

    /// The pod was created again with the same name, or `POD_UID` is wrong
    WARN REPORT OtherPod "another pod has this pod's name; ignoring its states" {
        ?uid: Option<&'a str>,
    },

    /// A reported container changed, in the words of the Kubernetes API. This includes an exit that
    /// only `lastState` still shows
    INFO REPORT StateChanged "container state changed" {
        container: Cut<'a>,
        ?from: Option<&'a str>,
        to: &'a str,
        ?exit_code: Option<i32>,
        ?signal: Option<i32>,
        ?reason: Option<Cut<'a>>,
        ?container_message: Option<Cut<'a>>,
        restart_count: i32,
        ?started_at: Option<Timestamp>,
        ?finished_at: Option<Timestamp>,
        ?container_id: Option<Cut<'a>>,
    },

    /// Why the pod ends or cannot start: its `status.reason` (such as DeadlineExceeded or Evicted),
    /// the conditions DisruptionTarget, PodScheduled and Ready (PodFailed), or an init container or
    /// another sidecar that prevents the task from starting. Each reason is logged once
    INFO REPORT PodReason "the Kubernetes API reported a reason for the pod's state" {
        ?condition: Option<Cut<'a>>,
        ?container: Option<Cut<'a>>,
        ?exit_code: Option<i32>,
        ?reason: Option<Cut<'a>>,
        ?pod_message: Option<Cut<'a>>,
    },

    /// The pod has a `deletionTimestamp`
    INFO REPORT PodDeletion "the pod is being deleted" {
        until: Timestamp,
    },

    /// A list, watch or get request to the Kubernetes API failed. Logged at once, then less and
    /// less often
    WARN POD_EVENT CannotWatch
        "cannot watch the pod; heartbeats continue without new container states" {
        ?status: Option<u16>,
        ..outage: Outage<'a> { repeats, since, error },
        ?kubectl_apply: Option<&'a str>,
    },

    /// A request to the Kubernetes API succeeded again
    INFO POD_EVENT WatchingAgain "watching the pod again" {
        ..over: Over { failures, lasted_seconds },
    },

    /// The service did not answer with 2xx, or did not answer. Logged at once, then less and less
    /// often
    WARN DELIVERY NotAccepted "a heartbeat was not accepted" {
        ..beat: Beat { heartbeat, kind },
        ?status: Option<u16>,
        ..outage: Outage<'a> { repeats, since, error },
        ..span: Span { trace_id, span_id },
    },

    /// The service accepted a heartbeat after failures
    INFO DELIVERY AcceptedAgain "the service accepts heartbeats again" {
        ..beat: Beat { heartbeat, kind },
        ..over: Over { failures, lasted_seconds },
        ..span: Span { trace_id, span_id },
    },

    /// The service will not receive this container change. `told` has the lost content, `cause` the
    /// reason
    WARN REPORT Dropped "a heartbeat was dropped" {
        ..beat: Beat { heartbeat, kind },
        cause: &'a str,
        told: Text<'a>,
    },

    /// A container exited with a code for which its restart rule says RestartAllContainers
    /// (KEP-5532). podbeat sent no last heartbeat
    INFO REPORT AllRestarting
        "all containers of the pod are restarting; the next podbeat process continues",

    /// A failed liveness probe, a changed image or a resize stopped podbeat, but not the pod. If
    /// the last heartbeat was accepted, the service may regard the run as ended. Make sure that
    /// nothing stops only podbeat's container
    ERROR REPORT Reopened
        "only podbeat's container was stopped and the task continues; resuming heartbeats after a \
         last heartbeat" {
        last_heartbeat: &'a str,
    },

    /// The service answered 404, 409 or 410 three times over 30 s or more
    WARN REPORT Orphaned
        "the service says that the run does not belong to this pod; sending nothing more",

    /// The body is not JSON, or too long. Logged at once, then less and less often
    WARN DELIVERY UnreadableResponse
        "a heartbeat was accepted, but the response body is unreadable; a new token in it would \
         be lost" {
        ..beat: Beat { heartbeat, kind },
        ..outage: Outage<'a> { repeats, since, error },
        ..span: Span { trace_id, span_id },
    },

    /// The token contains characters that an HTTP header cannot contain. Logged at once, then less
    /// and less often
    WARN DELIVERY UnusableToken "the service sent an unusable token; keeping the current one" {
        ..outage: Outage<'a> { repeats, since, error },
        ..span: Span { trace_id, span_id },
    },

    /// podbeat can read the service's responses to accepted heartbeats again, and use their tokens
    INFO DELIVERY ResponsesUsableAgain "the service's responses are usable again" {
        ..over: Over { failures, lasted_seconds },
    },

    /// The token is a JWT that expires in less than ten minutes. Logged once, and again only after
    /// a token that is valid for longer
    WARN DELIVERY TokenExpires "the bearer token expires soon, and no newer token is available" {
        expires_at: Timestamp,
    },

    /// The bearer token has expired, and podbeat found no newer one
    WARN DELIVERY TokenExpired "the bearer token has expired; sending it anyway" {
        expired_at: Timestamp,
    },

    /// The directory of the journal or of the renewed token is missing, full or read-only. Logged
    /// at once, then less and less often
    WARN DURABLE_FILE CannotWrite "cannot write a file; heartbeats continue without it" {
        what: &'a str,
        ..outage: Outage<'a> { repeats, since, error },
    },

    /// The file is up to date again
    INFO DURABLE_FILE WritingAgain "writing the file succeeded again" {
        what: &'a str,
        ..over: Over { failures, lasted_seconds },
    },

    /// With `--dry-run`, instead of each heartbeat. The totals at the end count it as sent and
    /// accepted
    INFO DELIVERY DryRun "dry run: would send this heartbeat" {
        ..beat: Beat { heartbeat, kind },
        body: Text<'a>,
    },

    /// podbeat is being stopped. It waits for the last changes before it sends the last heartbeat
    INFO REPORT Signal "received SIGTERM or SIGINT; waiting for final container states",

    /// A second signal came while podbeat waited for final states. It sends the last heartbeat now
    INFO REPORT SecondSignal "received a second SIGTERM or SIGINT; no longer waiting",

    /// The last heartbeat has the states that podbeat saw before
    WARN POD_EVENT CannotLook
        "cannot get the pod before the last heartbeat; using the last known states" {
        error: Text<'a>,
    },

    /// podbeat cannot read the directory. Logged at once, then less and less often
    WARN MARKERS CannotReadMarkers "cannot read exit markers; heartbeats continue without them" {
        ..outage: Outage<'a> { repeats, since, error },
    },

    /// podbeat can read the directory again
    INFO MARKERS ReadingMarkersAgain "reading exit markers succeeded again" {
        ..over: Over { failures, lasted_seconds },
    },

    /// Logged once for each file
    WARN MARKERS InvalidMarker "ignoring a file that is not a valid exit marker" {
        file: Cut<'a>,
        error: Text<'a>,
    },

    /// `podbeat exec` was started with another container name
    WARN REPORT UnknownMarker "ignoring an exit marker: the pod has no container with this name" {
        container: Cut<'a>,
    },

    /// podbeat sends the last heartbeat now. `cause` is the reason
    INFO REPORT LastHeartbeatDue "the last heartbeat is due" {
        cause: &'a str,
    },

    /// The exit code in the last heartbeat comes from the task's exit marker
    INFO REPORT MarkerUsed
        "using an exit code from an exit marker; the Kubernetes API does not show it" {
        container: Cut<'a>,
        exit_code: i32,
    },

    /// The service permanently refused this body of the last heartbeat. The line `a heartbeat was
    /// not accepted` before has the reason
    WARN REPORT Rejected "heartbeat rejected; will not resend this body" {
        ..beat: Beat { heartbeat, kind },
        ..span: Span { ?trace_id, ?span_id },
    },

    /// The service knows how the run ended. `told` has what podbeat reported
    INFO REPORT LastHeartbeatAccepted "the last heartbeat was accepted" {
        heartbeat: u64,
        told: &'a str,
        ..span: Span { ?trace_id, ?span_id },
    },

    /// This makes the last heartbeat the last request that the service receives
    INFO REPORT RepeatPlanned
        "an earlier request got no response and may still arrive; sending the last heartbeat once \
         more after it" {
        again_in_seconds: Seconds,
    },

    /// The service knows how the run ended nevertheless
    WARN REPORT RepeatFailed
        "the last heartbeat was accepted, but sending it again after an unanswered request failed",

    /// At the end, if there were any. The fields have the counts by cause
    WARN REPORT Losses "some heartbeats with container changes were never accepted" {
        overflowed: u64,
        expired: u64,
        refused: u64,
        too_late: u64,
        orphaned: u64,
    },

    /// podbeat exits with 75
    ERROR REPORT Undelivered
        "could not deliver the last heartbeat in time; the service does not know how this run \
         ended" {
        request: Text<'a>,
        ..span: Span { ?trace_id, ?span_id },
    },

    /// The last line. It has the totals of this process
    INFO REPORT Exiting "podbeat is exiting" {
        ending: &'a str,
        exit_code: u8,
        sent: u64,
        attempts: u64,
        accepted: u64,
        lost: u64,
        uptime_seconds: Seconds,
    },

    /// Standard error is a pipe that was full for longer than 50 ms. The container runtime, or
    /// another reader of the log, hung or was too slow. Heartbeats continued
    WARN LOG LinesDropped "log lines were dropped because nothing read the log" {
        lines: u64,
    },

    /// Report the bug with this line
    ERROR LOG Panicked "podbeat panicked; this is a bug, please report it" {
        panic: &'a str,
        ?location: Option<Text<'a>>,
    },
}
