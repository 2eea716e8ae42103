//! What the agent logs of its start, of the core's decisions, and of its end. At info, one line for each thing that matters;
//! the table of them is `telemetry::messages`.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, Cause, DropCause, End, Losses, Note};
use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::report;
use podbeat_heartbeat::saved::LastHeartbeat;
use podbeat_interface::exit::Ending;
use podbeat_interface::nonce::NonceSource;
use podbeat_kubernetes::access::Access;
use podbeat_task_runs::credentials::Source;
use podbeat_task_runs::model::{ContainerState, ContainerStatus, HeartbeatTaskRunRequest};
use podbeat_task_runs::trace::{TraceId, TraceParent};
use tracing::field::{DisplayValue, display};
use tracing::{debug, error, info, warn};

use super::trouble::beginning;
use crate::config::{Config, LogFormat, Trace};

/// How much of a text from elsewhere, such as a termination message (4 KiB at most), a line repeats, in characters.
const LONGEST: usize = 256;

/// Of how many containers' states one line tells.
const CONTAINERS: usize = 64;

/// Keeps the totals for the last line, and what a line about a heartbeat needs of its attempt.
#[derive(Default)]
pub(super) struct Report {
    /// Heartbeats that were attempted, and the number of the last one.
    sent: u64,
    last_sent: Option<u64>,
    attempts: u64,
    accepted: u64,
    final_accepted: bool,
    /// In which trace and span the last attempt was made.
    trace: Option<TraceParent>,
    /// The states that the last attempt told, if it was the last heartbeat's.
    told: Option<String>,
    hides_nonce: bool,
    dry_run: bool,
}

impl Report {
    /// Tells of the start, with the settings that are in force. Each is named as its flag; a secret shows only that it is set.
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
                Some(service_account_dir),
                None,
                None,
            ),
            Access::Kubeconfig { path, context, .. } => (None, None, path.as_ref(), context.as_deref()),
        };
        let traceparent = match config.trace {
            Trace::GoOn(parent) => Some(parent),
            Trace::New | Trace::Unfit(_) => None,
        };
        info!(
            version = env!("CARGO_PKG_VERSION"),
            trace_id = trace.map(display),
            task_run_id = config.task_run_id,
            job_completion_index = config.job_completion_index,
            pod_name = config.pod_name,
            pod_namespace = config.pod_namespace,
            pod_uid = config.pod_uid,
            job_retry_count = config.reporting.job_retry_count,
            pod_hardware_details = config.pod_hardware_details.as_deref().map(brief),
            service_url = config.service_url.as_ref().map(display),
            token_file = token_file.map(path),
            token = token.map(display),
            ca_file = config.ca_file.as_ref().map(path),
            client_cert_file = config.client_cert_file.as_ref().map(path),
            client_key_file = config.client_key_file.as_ref().map(path),
            nonce = nonce.map(display),
            nonce_file = nonce_file.map(path),
            interval = %humantime::format_duration(config.reporting.interval),
            timeout = %humantime::format_duration(config.timeout),
            container_name = config.reporting.container_name,
            task_containers = listed(&config.reporting.task_containers),
            ignored_containers = listed(&config.reporting.ignored_containers),
            report = match config.reporting.report {
                report::Report::Task => "task",
                report::Report::All => "all",
            },
            state_dir = config.state_dir.as_ref().map(path),
            marker_dir = config.marker_dir.as_ref().map(path),
            renewed_token_file = config.renewed_token_file.as_ref().map(path),
            listen = config.listen.map(display),
            max_status_age = %humantime::format_duration(config.reporting.max_status_age),
            reconnect_spread = %humantime::format_duration(config.reconnect_spread),
            log = %config.log,
            log_format = match config.log_format {
                LogFormat::Json => "json",
                LogFormat::Text => "text",
            },
            traceparent = traceparent.map(display),
            dry_run = config.dry_run,
            kubernetes_api,
            service_account_dir = service_account_dir.map(path),
            kubeconfig = kubeconfig.map(path),
            context,
            "podbeat started"
        );
        if let Trace::Unfit(unfit) = config.trace {
            warn!(error = %unfit, "ignoring TRACEPARENT; heartbeats start a trace of their own");
        }
        Self {
            hides_nonce: config.nonce.is_some(),
            dry_run: config.dry_run,
            ..Self::default()
        }
    }

    /// An attempt begins, in this span.
    pub(super) fn attempt(&mut self, attempt: &Attempt, trace: Option<TraceParent>) {
        let (number, kind) = attempt.beat;
        self.attempts += 1;
        self.sent += u64::from(self.last_sent.replace(number) != Some(number));
        self.trace = trace;
        let statuses = attempt.request.container_status.as_deref();
        self.told = (kind == Kind::Final).then(|| states(statuses.unwrap_or_default()));
    }

    /// One decision of the core.
    pub(super) fn note(&mut self, note: &Note, now: Duration) {
        match note {
            Note::Transition {
                container,
                from,
                to,
                restart_count,
            } => transition(container, *from, to, *restart_count),
            Note::Deletion(at) => info!(until = %at, "the pod is being deleted"),
            Note::Why(why) => info!(
                condition = why.condition.as_deref().map(brief),
                container = why.container.as_deref().map(brief),
                exit_code = why.exit_code,
                reason = why.reason.as_deref().map(brief),
                pod_message = why.message.as_deref().map(brief),
                "the Kubernetes API reported a reason for the pod's state"
            ),
            Note::OtherPod(uid) => {
                warn!(
                    uid = uid.as_deref(),
                    "another pod has this pod's name; ignoring its states"
                );
            }
            Note::NeverSeen => {
                warn!(
                    "pod not found; check POD_NAME, POD_NAMESPACE and POD_UID. Heartbeats continue without container \
                     states"
                );
            }
            Note::Accepted(number, kind) => self.accepted(*number, *kind),
            Note::Failed {
                beat,
                answer,
                retry_at,
            } => self.failed(*beat, answer, retry_at.map(|at| at.saturating_sub(now))),
            Note::Dropped(number, kind, cause, told) => dropped(*number, *kind, *cause, told),
            Note::Signal { again: false } => {
                info!("received SIGTERM or SIGINT; waiting for final container states")
            }
            Note::Signal { again: true } => info!("received a second SIGTERM or SIGINT; no longer waiting"),
            Note::Final(cause) => {
                let cause = match cause {
                    Cause::Completed => "the task's containers are finished",
                    Cause::Gone => "the pod is gone",
                    Cause::Signal => "received SIGTERM or SIGINT; the API does not show that the task ended",
                    Cause::Marked => "received SIGTERM or SIGINT; exit markers show that the task ended",
                };
                info!(cause, "the last heartbeat is due");
            }
            Note::Marked { container, exit_code } => info!(
                container = brief(container),
                exit_code, "using an exit code from an exit marker; the Kubernetes API does not show it"
            ),
            Note::UnknownMarker(container) => warn!(
                container = brief(container),
                "ignoring an exit marker: the pod has no container with this name"
            ),
            Note::Barrier { until } => info!(
                again_in_seconds = seconds(until.saturating_sub(now)),
                "an earlier request got no response and may still arrive; sending the last heartbeat once more after \
                 it"
            ),
            Note::BarrierFailed => warn!(
                "the last heartbeat was accepted, but sending it again after an unanswered request failed"
            ),
            Note::Resumed {
                waiting,
                last_heartbeat,
            } => info!(
                waiting,
                last_heartbeat = how_far(*last_heartbeat),
                "resumed from the journal"
            ),
            Note::Reopened(last_heartbeat) => error!(
                last_heartbeat = how_far(*last_heartbeat),
                "only podbeat's container was stopped and the task continues; resuming heartbeats after a last \
                 heartbeat"
            ),
            Note::Orphaned => {
                warn!("the service says that the run does not belong to this pod; sending nothing more")
            }
        }
    }

    /// The end: what was never accepted, if anything, what could not be delivered, and the totals.
    pub(super) fn ended(&self, end: &End, losses: Losses, uptime: Duration) -> Ending {
        let lost = tell_losses(losses);
        let ending = match end {
            End::Delivered => Ending::Delivered,
            End::Orphaned => Ending::Orphaned,
            End::Restarting => {
                info!("all containers of the pod are restarting; the next podbeat process continues");
                Ending::Restarting
            }
            End::Undelivered(request) => {
                error!(
                    request = body(request, self.hides_nonce),
                    trace_id = self.trace.map(|trace| display(trace.trace_id)),
                    span_id = self.trace.map(|trace| display(trace.span_id)),
                    "could not deliver the last heartbeat in time; the service does not know how this run ended"
                );
                Ending::Undelivered
            }
        };
        info!(
            ?ending,
            exit_code = ending.code(),
            sent = self.sent,
            attempts = self.attempts,
            accepted = self.accepted,
            lost,
            uptime_seconds = seconds(uptime),
            "podbeat is exiting"
        );
        ending
    }

    fn accepted(&mut self, number: u64, kind: Kind) {
        let trace_id = self.trace.map(|trace| display(trace.trace_id));
        let span_id = self.trace.map(|trace| display(trace.span_id));
        let repeated = kind == Kind::Final && std::mem::replace(&mut self.final_accepted, true);
        if !repeated {
            self.accepted += 1;
        }
        if self.dry_run {
            return;
        }
        if self.accepted == 1 && !repeated {
            info!(
                heartbeat = number,
                kind = kind.name(),
                trace_id,
                span_id,
                "the service accepted the first heartbeat of this process"
            );
        }
        if kind == Kind::Final && !repeated {
            info!(
                heartbeat = number,
                told = self.told,
                trace_id,
                span_id,
                "the last heartbeat was accepted"
            );
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
            // What is lost with another one is told when it is dropped, which is at once.
            None if kind != Kind::Final => {
                debug!(heartbeat, kind = kind_name, ?answer, "not accepted; not retrying");
            }
            None => warn!(
                heartbeat,
                kind = kind_name,
                trace_id = self.trace.map(|trace| display(trace.trace_id)),
                span_id = self.trace.map(|trace| display(trace.span_id)),
                "heartbeat rejected; will not resend this body"
            ),
        }
    }
}

/// A heartbeat as it would be sent. A nonce that the service issued is a secret; a random one tells two tries of one
/// heartbeat from two heartbeats.
pub(super) fn body(request: &HeartbeatTaskRunRequest, hides_nonce: bool) -> String {
    let mut request = request.clone();
    if hides_nonce {
        request.nonce = request.nonce.map(|_| "[redacted]".to_owned());
    }
    serde_json::to_string(&request).unwrap_or_default()
}

/// A text from elsewhere, with an end.
pub(super) fn brief(text: &str) -> String {
    beginning(text, LONGEST)
}

/// Seconds with milliseconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

fn path(path: &impl AsRef<Path>) -> DisplayValue<std::path::Display<'_>> {
    display(path.as_ref().display())
}

fn time(time: Option<Timestamp>) -> Option<DisplayValue<Timestamp>> {
    time.map(display)
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
    let kind_name = kind.name();
    match kind {
        Kind::Change | Kind::LostExit => warn!(
            heartbeat,
            kind = kind_name,
            cause,
            told = states(told),
            "a heartbeat was dropped"
        ),
        // No news is lost with the first two, and of the last one more is told than this.
        Kind::First | Kind::Periodic | Kind::Final => {
            debug!(
                heartbeat,
                kind = kind_name,
                cause,
                "a heartbeat without container changes was dropped"
            );
        }
    }
}

/// Says how many heartbeats with news were never accepted.
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
        warn!(
            overflowed,
            expired,
            refused,
            too_late,
            orphaned,
            "some heartbeats with container changes were never accepted"
        );
    }
    lost
}

/// `main terminated 3, helper running`: each container that a heartbeat tells of, its state, and its exit code.
fn states(statuses: &[ContainerStatus]) -> String {
    let mut text = String::new();
    for status in statuses.iter().take(CONTAINERS) {
        let state = status.state.as_ref();
        let separator = if text.is_empty() { "" } else { ", " };
        let name = brief(status.name.as_deref().unwrap_or_default());
        let _ = write!(
            text,
            "{separator}{name} {}",
            state.map_or("unknown", ContainerState::name)
        );
        if let Some(ContainerState::Terminated(exit)) = state
            && let Some(code) = exit.exit_code
        {
            let _ = write!(text, " {code}");
        }
    }
    if statuses.len() > CONTAINERS {
        text.push_str(", …");
    }
    text
}

fn transition(container: &str, from: Option<&str>, to: &ContainerStatus, restart_count: i32) {
    let container = brief(container);
    let text = |text: &Option<String>| text.as_deref().map(brief);
    match &to.state {
        Some(ContainerState::Terminated(exit)) => info!(
            container,
            from,
            to = "terminated",
            exit_code = exit.exit_code,
            signal = exit.signal,
            reason = text(&exit.reason),
            container_message = text(&exit.message),
            restart_count,
            started_at = time(exit.started_at),
            finished_at = time(exit.finished_at),
            container_id = text(&exit.container_id),
            "container state changed"
        ),
        Some(ContainerState::Waiting(waiting)) => {
            info!(
                container,
                from,
                to = "waiting",
                reason = text(&waiting.reason),
                container_message = text(&waiting.message),
                restart_count,
                "container state changed"
            );
        }
        Some(ContainerState::Running(running)) => info!(
            container,
            from,
            to = "running",
            restart_count,
            started_at = time(running.started_at),
            "container state changed"
        ),
        None => {}
    }
}

/// Names, with commas.
fn listed(names: &[String]) -> Option<String> {
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
    use podbeat_task_runs::model::ContainerStateTerminated;

    fn ended(name: &str, exit_code: Option<i32>) -> ContainerStatus {
        ContainerStatus {
            name: Some(name.to_owned()),
            state: Some(ContainerState::Terminated(ContainerStateTerminated {
                exit_code,
                ..ContainerStateTerminated::default()
            })),
        }
    }

    #[test]
    fn states_are_told_in_few_words_and_not_without_end() {
        let other = ContainerStatus {
            name: Some("side".to_owned()),
            state: Some(ContainerState::Running(Default::default())),
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
    fn a_text_from_elsewhere_is_cut_between_characters() {
        assert_eq!(brief("ü"), "ü");
        assert_eq!(brief(&"ü".repeat(LONGEST)), "ü".repeat(LONGEST));
        assert_eq!(brief(&"ü".repeat(LONGEST + 1)), "ü".repeat(LONGEST) + "…");
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

    #[test]
    fn seconds_have_milliseconds() {
        assert_eq!(seconds(Duration::from_micros(1_234_999)), 1.234);
    }
}
