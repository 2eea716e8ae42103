//! What the agent logs of its start and of the core's decisions. One line for each thing that matters, at info.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::config::Config;
use crate::heartbeat::machine::{Cause, DropCause, Losses, Note};
use crate::heartbeat::outbox::Kind;
use crate::heartbeat::saved::LastHeartbeat;
use crate::task_runs::model::{ContainerState, ContainerStatus};

/// The start, with the settings that shape it. Secrets print as `[redacted]`.
pub(super) fn started(config: &Config) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        run = config.task_run_id,
        pod = config.pod_name,
        namespace = config.pod_namespace.as_deref(),
        service = config.service_url.as_ref().map(tracing::field::display),
        interval = %humantime::format_duration(config.interval),
        dry_run = config.dry_run,
        "podbeat begins"
    );
}

/// One decision of the core.
pub(super) fn note(note: &Note, now: Duration) {
    match note {
        Note::Transition { container, from, to } => transition(container, *from, to),
        Note::OtherPod(uid) => {
            warn!(
                uid = uid.as_deref(),
                "another pod bears our pod's name; its states are not reported"
            );
        }
        Note::NeverSeen => {
            warn!(
                "no such pod; are POD_NAME, POD_NAMESPACE and POD_UID right? Heartbeats go on without states"
            );
        }
        Note::Accepted(number, Kind::Final) => info!(heartbeat = number, "the last heartbeat was accepted"),
        Note::Accepted(number, Kind::First) => {
            info!(heartbeat = number, "first contact with the task-run service")
        }
        Note::Accepted(number, kind @ (Kind::Periodic | Kind::Change | Kind::LostExit)) => {
            debug!(heartbeat = number, kind = kind.name(), "accepted");
        }
        Note::Failed {
            beat: (number, kind),
            answer,
            retry_at,
        } => match retry_at {
            Some(at) => {
                let retry_in = at.saturating_sub(now);
                debug!(
                    heartbeat = number,
                    kind = kind.name(),
                    ?answer,
                    ?retry_in,
                    "not accepted; trying again"
                );
            }
            None => warn!(
                heartbeat = number,
                kind = kind.name(),
                ?answer,
                "not accepted; this body is not sent again"
            ),
        },
        Note::Dropped(number, kind, DropCause::Superseded) => {
            debug!(
                heartbeat = number,
                kind = kind.name(),
                "dropped: a newer heartbeat says all that it says"
            );
        }
        Note::Dropped(number, kind, cause) => {
            let cause = match cause {
                DropCause::Overflow => "the outbox is full",
                DropCause::Expired => "what it tells was observed too long ago (PODBEAT_MAX_STATUS_AGE)",
                DropCause::Refused => "the service refused it",
                DropCause::Deadline => "the deadline came first",
                DropCause::Superseded => "a newer one says all that it says",
                DropCause::Orphaned => "the run isn't ours",
            };
            warn!(
                heartbeat = number,
                kind = kind.name(),
                cause,
                "a heartbeat was dropped"
            );
        }
        Note::Signal { again: false } => info!("a signal to end came; watching on for the last states"),
        Note::Signal { again: true } => info!("another signal to end came; not waiting any longer"),
        Note::Final(cause) => {
            let cause = match cause {
                Cause::Completed => "the task's containers are finished",
                Cause::Gone => "the pod is gone",
                Cause::Signal => "a signal to end came, and the API shows no end of the task",
                Cause::Marked => "a signal to end came, and exit markers tell the end of the task",
            };
            info!(cause, "the last heartbeat is due");
        }
        Note::Marked { container, exit_code } => info!(
            container,
            exit_code, "an exit marker tells what the Kubernetes API withholds"
        ),
        Note::UnknownMarker(container) => warn!(
            container,
            "an exit marker names a container that the pod doesn't have; it is ignored"
        ),
        Note::Barrier { until } => info!(
            again_in = ?until.saturating_sub(now),
            "an earlier request got no answer and may still arrive; the last heartbeat goes once more after it"
        ),
        Note::BarrierFailed => warn!(
            "the last heartbeat was accepted; its repetition behind an earlier request that may arrive late was not"
        ),
        Note::Resumed {
            waiting,
            last_heartbeat,
        } => info!(
            waiting,
            last_heartbeat = match last_heartbeat {
                LastHeartbeat::Open => "open",
                LastHeartbeat::Accepted => "accepted",
                LastHeartbeat::Refused => "refused",
                LastHeartbeat::Orphaned => "orphaned",
            },
            "going on from the journal"
        ),
        Note::Orphaned => warn!("the service says that this run isn't ours; nothing more is sent"),
    }
}

/// What was never accepted, at the end. Nothing if there is none.
pub(super) fn losses(losses: Losses) {
    if losses == Losses::default() {
        return;
    }
    let Losses {
        overflowed,
        expired,
        refused,
        too_late,
        orphaned,
    } = losses;
    warn!(
        overflowed,
        expired, refused, too_late, orphaned, "some heartbeats with news were never accepted"
    );
}

fn transition(container: &str, from: Option<&str>, to: &ContainerStatus) {
    match &to.state {
        Some(ContainerState::Terminated(exit)) => info!(
            container,
            from,
            to = "terminated",
            exit_code = exit.exit_code,
            reason = exit.reason.as_deref(),
            "container changed"
        ),
        Some(ContainerState::Waiting(waiting)) => {
            info!(
                container,
                from,
                to = "waiting",
                reason = waiting.reason.as_deref(),
                "container changed"
            );
        }
        Some(ContainerState::Running(_)) => info!(container, from, to = "running", "container changed"),
        None => {}
    }
}
