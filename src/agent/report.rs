//! The agent's log: its start, the core's decisions, and its end. At level info, there is one line
//! for each important event (`podbeat_interface::messages`).

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, Cause, DropCause, End, Losses, Note};
use podbeat_heartbeat::marker::ContainerName;
use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::saved::LastHeartbeat;
use podbeat_interface::exit::Ending;
use podbeat_interface::nonce::NonceSource;
use podbeat_kubernetes::access::Access;
use podbeat_task_runs::credentials::Source;
use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use podbeat_task_runs::trace::{TraceId, TraceParent};
use tracing::debug;

use crate::config::{Config, Trace};
use podbeat_interface::messages::{Beat, Cut, Message, Seconds, Settings, Text};

/// The length limit, in characters, for foreign text in a log line, such as a termination message
/// (at most 4 KiB).
const LONGEST: usize = 256;

/// The maximum number of containers whose states are in one log line.
const CONTAINERS: usize = 64;

/// Keeps the totals for the last log line, and details of the current attempt for other lines.
#[derive(Default)]
pub(super) struct Report {
    /// The number of heartbeats that were attempted, and the number of the last one.
    sent: u64,
    last_sent: Option<u64>,
    attempts: u64,
    accepted: u64,
    final_accepted: bool,
    /// The trace and span of the last attempt.
    trace: Option<TraceParent>,
    /// The container states in the last attempt, if it was the last heartbeat.
    told: Option<String>,
    hides_nonce: bool,
    dry_run: bool,
}

impl Report {
    /// Logs the start, with the current settings under the names of their flags. For a secret, the
    /// log shows only whether it is set.
    pub(super) fn started(config: &Config, trace: Option<TraceId>) -> Self {
        let (token, token_file) = match &config.token {
            Some(Source::Inline(token)) => (Some(token), None),
            Some(Source::File(path)) => (None, Some(path)),
            None => (None, None),
        };
        let (nonce, nonce_file) = match &config.nonce {
            Some(NonceSource::Inline(nonce)) => (Some(nonce), None),
            Some(NonceSource::File(path)) => (None, Some(path)),
            None => (None, None),
        };
        let (kubernetes_api, service_account_dir, kubeconfig, context) = match &config.kubernetes {
            Access::InCluster {
                host,
                port,
                service_account_dir,
                ..
            } => (
                Some(format!("{host}:{port}")),
                Some(service_account_dir.as_path()),
                None,
                None,
            ),
            Access::Kubeconfig { path, context, .. } => {
                (None, None, path.as_deref(), context.as_deref())
            }
        };
        let traceparent = match config.trace {
            Trace::GoOn(parent) => Some(parent),
            Trace::New | Trace::Unfit(_) => None,
        };
        Message::Started {
            version: env!("CARGO_PKG_VERSION"),
            settings: &Settings {
                trace_id: trace,
                task_run_id: &config.task_run_id,
                job_completion_index: config.job_completion_index,
                pod_name: &config.pod_name,
                pod_namespace: config.pod_namespace.as_deref(),
                pod_uid: config.pod_uid.as_deref(),
                job_retry_count: config.reporting.job_retry_count,
                pod_hardware_details: config.pod_hardware_details.as_deref().map(brief),
                service_url: config.service_url.as_ref().map(|url| url as Text<'_>),
                token_file: token_file.map(PathBuf::as_path),
                token: token.map(|token| token as Text<'_>),
                ca_file: config.ca_file.as_deref(),
                client_cert_file: config.client_cert_file.as_deref(),
                client_key_file: config.client_key_file.as_deref(),
                nonce: nonce.map(|nonce| nonce as Text<'_>),
                nonce_file: nonce_file.map(PathBuf::as_path),
                interval: &humantime::format_duration(config.reporting.interval),
                timeout: &humantime::format_duration(config.timeout),
                container_name: &config.reporting.container_name,
                task_containers: listed(&config.reporting.task_containers).as_deref(),
                ignored_containers: listed(&config.reporting.ignored_containers).as_deref(),
                report: config.reporting.report.name(),
                state_dir: config.state_dir.as_deref(),
                marker_dir: config.marker_dir.as_deref(),
                renewed_token_file: config.renewed_token_file.as_deref(),
                listen: config.listen,
                max_status_age: &humantime::format_duration(config.reporting.max_status_age),
                reconnect_spread: &humantime::format_duration(config.reconnect_spread),
                log: &config.log.filter,
                log_format: config.log.format.name(),
                traceparent: traceparent.as_ref().map(|trace| trace as Text<'_>),
                dry_run: config.dry_run,
                kubernetes_api: kubernetes_api.as_deref(),
                service_account_dir,
                kubeconfig,
                context,
            },
        }
        .emit();
        if let Trace::Unfit(unfit) = &config.trace {
            Message::UnfitTraceparent { error: unfit }.emit();
        }
        if let Some(unknown) = &config.unknown {
            Message::UnknownVariables { variables: unknown }.emit();
        }
        Self {
            hides_nonce: config.nonce.is_some(),
            dry_run: config.dry_run,
            ..Self::default()
        }
    }

    /// Records that an attempt begins, with its span.
    pub(super) fn attempt(&mut self, attempt: &Attempt, trace: Option<TraceParent>) {
        let (number, kind) = attempt.beat;
        self.attempts += 1;
        self.sent += u64::from(self.last_sent.replace(number) != Some(number));
        self.trace = trace;
        let statuses = attempt.request.container_status.as_deref();
        self.told = (kind == Kind::Final).then(|| states(statuses.unwrap_or_default()));
    }

    /// Logs one decision of the core.
    pub(super) fn note(&mut self, note: &Note, now: Duration) {
        match note {
            Note::Transition {
                container,
                from,
                to,
                restart_count,
            } => transition(container, *from, to, *restart_count),
            Note::Deletion(at) => Message::PodDeletion { until: *at }.emit(),
            Note::Why(why) => Message::PodReason {
                condition: why.condition.as_deref().map(brief),
                container: why.container.as_deref().map(brief),
                exit_code: why.exit_code,
                reason: why.reason.as_deref().map(brief),
                pod_message: why.message.as_deref().map(brief),
            }
            .emit(),
            Note::OtherPod(uid) => Message::OtherPod {
                uid: uid.as_deref(),
            }
            .emit(),
            Note::NeverSeen => Message::PodNotFound.emit(),
            Note::Accepted(number, kind) => self.accepted(*number, *kind),
            Note::Failed {
                beat,
                answer,
                retry_at,
            } => self.failed(*beat, answer, retry_at.map(|at| at.saturating_sub(now))),
            Note::Dropped(number, kind, cause, told) => dropped(*number, *kind, *cause, told),
            Note::Signal { again: false } => Message::Signal.emit(),
            Note::Signal { again: true } => Message::SecondSignal.emit(),
            Note::Final(cause) => {
                let cause = match cause {
                    Cause::Completed => "the task's containers are finished",
                    Cause::Gone => "the pod is gone",
                    Cause::Signal => {
                        "received SIGTERM or SIGINT; the API does not show that the task ended"
                    }
                    Cause::Marked => {
                        "received SIGTERM or SIGINT; exit markers show that the task ended"
                    }
                };
                Message::LastHeartbeatDue { cause }.emit();
            }
            Note::Marked {
                container,
                exit_code,
            } => Message::MarkerUsed {
                container: brief(container),
                exit_code: *exit_code,
            }
            .emit(),
            Note::UnknownMarker(container) => Message::UnknownMarker {
                container: brief(container),
            }
            .emit(),
            Note::Barrier { until } => Message::RepeatPlanned {
                again_in_seconds: Seconds(until.saturating_sub(now)),
            }
            .emit(),
            Note::BarrierFailed => Message::RepeatFailed.emit(),
            Note::Resumed {
                waiting,
                last_heartbeat,
            } => Message::Resumed {
                waiting: *waiting,
                last_heartbeat: how_far(*last_heartbeat),
            }
            .emit(),
            Note::Reopened(last_heartbeat) => Message::Reopened {
                last_heartbeat: how_far(*last_heartbeat),
            }
            .emit(),
            Note::Orphaned => Message::Orphaned.emit(),
        }
    }

    /// Logs the end: an undelivered last heartbeat, other losses, and the totals.
    pub(super) fn ended(&self, end: &End, losses: Losses, uptime: Duration) -> Ending {
        let lost = tell_losses(losses);
        let ending = match end {
            End::Delivered => Ending::Done,
            End::Orphaned => Ending::Orphaned,
            End::Restarting => {
                Message::AllRestarting.emit();
                Ending::Restarting
            }
            End::Undelivered(request) => {
                Message::Undelivered {
                    request: &body(request, self.hides_nonce),
                    span: self.trace.into(),
                }
                .emit();
                Ending::Undelivered
            }
        };
        Message::Exiting {
            ending: end.name(),
            exit_code: ending.code(),
            sent: self.sent,
            attempts: self.attempts,
            accepted: self.accepted,
            lost,
            uptime_seconds: Seconds(uptime),
        }
        .emit();
        ending
    }

    fn accepted(&mut self, number: u64, kind: Kind) {
        let span = self.trace.into();
        let repeated = kind == Kind::Final && std::mem::replace(&mut self.final_accepted, true);
        if !repeated {
            self.accepted += 1;
        }
        if self.dry_run {
            return;
        }
        if self.accepted == 1 && !repeated {
            let beat = beat(number, kind);
            Message::FirstAccepted { beat, span }.emit();
        }
        if kind == Kind::Final && !repeated {
            Message::LastHeartbeatAccepted {
                heartbeat: number,
                told: self.told.as_deref().unwrap_or_default(),
                span,
            }
            .emit();
        } else {
            debug!(heartbeat = number, kind = kind.name(), repeated, "accepted");
        }
    }

    fn failed(&self, (heartbeat, kind): (u64, Kind), answer: &Answer, retry_in: Option<Duration>) {
        let kind_name = kind.name();
        match retry_in {
            Some(retry_in) => debug!(
                heartbeat,
                kind = kind_name,
                ?answer,
                ?retry_in,
                "not accepted; retrying"
            ),
            // Any news that this heartbeat contained is logged when the core drops it, at once.
            None if kind != Kind::Final => {
                debug!(
                    heartbeat,
                    kind = kind_name,
                    ?answer,
                    "not accepted; not retrying"
                );
            }
            None => Message::Rejected {
                beat: beat(heartbeat, kind),
                span: self.trace.into(),
            }
            .emit(),
        }
    }
}

/// The body of a heartbeat, as JSON. A nonce that the service issued is a secret. A random nonce is
/// shown, because it distinguishes a retry from a new heartbeat.
pub(super) fn body(request: &HeartbeatTaskRunRequest, hides_nonce: bool) -> String {
    let mut request = request.clone();
    if hides_nonce {
        request.nonce = request.nonce.map(|_| "[redacted]".to_owned());
    }
    serde_json::to_string(&request).unwrap_or_default()
}

/// Shortens foreign text.
pub(super) fn brief(text: &str) -> Cut<'_> {
    Cut::new(text, LONGEST)
}

fn beat(heartbeat: u64, kind: Kind) -> Beat {
    Beat {
        heartbeat,
        kind: kind.name(),
    }
}

fn dropped(heartbeat: u64, kind: Kind, cause: DropCause, told: &[ContainerStatus]) {
    let cause = match cause {
        DropCause::Overflow => "the outbox is full",
        DropCause::Expired => "its container states are older than PODBEAT_MAX_STATUS_AGE",
        DropCause::Refused => "the service refused it",
        DropCause::Deadline => "the deadline passed first",
        DropCause::Superseded => "a newer heartbeat contains all of it",
        DropCause::Orphaned => "the run does not belong to this pod",
    };
    match kind {
        Kind::Change | Kind::LostExit => Message::Dropped {
            beat: beat(heartbeat, kind),
            cause,
            told: &states(told),
        }
        .emit(),
        // The first two contain no news, and the log has more detailed lines for the last one.
        Kind::First | Kind::Periodic | Kind::Final => {
            debug!(
                heartbeat,
                kind = kind.name(),
                cause,
                "a heartbeat without container changes was dropped"
            );
        }
    }
}

/// Logs and returns the number of heartbeats with news that the service never accepted.
fn tell_losses(losses: Losses) -> u64 {
    let Losses {
        overflowed,
        expired,
        refused,
        too_late,
        orphaned,
    } = losses;
    let lost = [overflowed, expired, refused, too_late, orphaned]
        .into_iter()
        .fold(0, u64::saturating_add);
    if lost > 0 {
        Message::Losses {
            overflowed,
            expired,
            refused,
            too_late,
            orphaned,
        }
        .emit();
    }
    lost
}

/// `main terminated 3, helper running`: the name, state and exit code of each container in a
/// heartbeat.
fn states(statuses: &[ContainerStatus]) -> String {
    let mut text = String::new();
    for status in statuses.iter().take(CONTAINERS) {
        let separator = if text.is_empty() { "" } else { ", " };
        let name = brief(status.name.as_deref().unwrap_or_default());
        let _ = write!(
            text,
            "{separator}{name} {}",
            status.state_name().unwrap_or("unknown")
        );
        if let Some(code) = status.terminated().and_then(|exit| exit.exit_code) {
            let _ = write!(text, " {code}");
        }
    }
    if statuses.len() > CONTAINERS {
        text.push_str(", …");
    }
    text
}

fn transition(container: &str, from: Option<&str>, to: &ContainerStatus, restart_count: i32) {
    let (Some(state), Some(name)) = (&to.state, to.state_name()) else {
        return;
    };
    let exit = state.terminated.as_ref();
    let (reason, message, started_at) = match (exit, &state.running, &state.waiting) {
        (Some(exit), ..) => (&exit.reason, &exit.message, exit.started_at),
        (None, Some(running), _) => (&None, &None, running.started_at),
        (None, None, Some(waiting)) => (&waiting.reason, &waiting.message, None),
        (None, None, None) => (&None, &None, None),
    };
    Message::StateChanged {
        container: brief(container),
        from,
        to: name,
        exit_code: exit.and_then(|exit| exit.exit_code),
        signal: exit.and_then(|exit| exit.signal),
        reason: reason.as_deref().map(brief),
        container_message: message.as_deref().map(brief),
        restart_count,
        started_at,
        finished_at: exit.and_then(|exit| exit.finished_at),
        container_id: exit
            .and_then(|exit| exit.container_id.as_deref())
            .map(brief),
    }
    .emit();
}

/// Names, with commas.
fn listed(names: &[ContainerName]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(","))
}

fn how_far(last_heartbeat: LastHeartbeat) -> &'static str {
    match last_heartbeat {
        LastHeartbeat::Open => "open",
        LastHeartbeat::Accepted => "accepted",
        LastHeartbeat::Refused => "refused",
        LastHeartbeat::Orphaned => "orphaned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_task_runs::model::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated,
    };

    fn ended(name: &str, exit_code: Option<i32>) -> ContainerStatus {
        ContainerStatus {
            name: Some(name.to_owned()),
            state: Some(ContainerState::from(ContainerStateTerminated {
                exit_code,
                ..ContainerStateTerminated::default()
            })),
        }
    }

    #[test]
    fn states_are_told_in_few_words_and_not_without_end() {
        let other = ContainerStatus {
            name: Some("side".to_owned()),
            state: Some(ContainerState::from(ContainerStateRunning::default())),
        };
        assert_eq!(
            states(&[ended("main", Some(3)), other, ended("b", None)]),
            "main terminated 3, side running, b terminated"
        );
        assert_eq!(states(&[]), "");
        let long = states(&vec![ended(&"x".repeat(5000), Some(0)); 500]);
        assert!(long.ends_with("…, …") || long.ends_with(", …"), "{long}");
        assert!(long.chars().count() < CONTAINERS * (LONGEST + 20));
    }

    #[test]
    fn a_nonce_that_the_service_issued_is_not_shown() {
        let request = HeartbeatTaskRunRequest {
            nonce: Some("hunter2".to_owned()),
            ..HeartbeatTaskRunRequest::default()
        };
        assert_eq!(body(&request, true), r#"{"nonce":"[redacted]"}"#);
        assert_eq!(body(&request, false), r#"{"nonce":"hunter2"}"#);
    }
}
