//! The status: what podbeat last saw, sent and received, as JSON for people and scripts. It
//! contains no secrets: no bodies, nonces or tokens, and no free text from containers or the
//! service.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::machine::Losses;
use podbeat_heartbeat::saved::LastHeartbeat;
use podbeat_interface::terminal::escaped;
use serde::Serialize;

use super::instruments::Panel;
use super::readings::{Container, Readings, Reply};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'panel> {
    version: &'static str,
    task_run_id: &'panel str,
    pod: Pod<'panel>,
    running_since: Timestamp,
    interval_seconds: f64,
    dry_run: bool,
    journal: bool,
    seen: Seen<'panel>,
    sent: Option<Sent>,
    answered: Option<Answered>,
    outbox_depth: usize,
    losses: Lost,
    token_expires_at: Option<Timestamp>,
    last_heartbeat: &'static str,
}

#[derive(Serialize)]
struct Pod<'panel> {
    name: &'panel str,
    namespace: Option<&'panel str>,
    uid: Option<&'panel str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen<'panel> {
    containers: &'panel [Container],
    /// With a precision of one millisecond.
    confirmed_seconds_ago: Option<f64>,
    /// Whether podbeat still watches the pod.
    watching: bool,
}

#[derive(Serialize)]
struct Sent {
    heartbeat: u64,
    kind: &'static str,
    attempt: u64,
    retries: u32,
    at: Timestamp,
}

#[derive(Serialize)]
struct Answered {
    outcome: &'static str,
    at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lost {
    overflowed: u64,
    expired: u64,
    refused: u64,
    too_late: u64,
    orphaned: u64,
}

/// Prints the status.
pub(super) fn json(panel: &Panel) -> Result<String, serde_json::Error> {
    let readings = panel.readings();
    let about = &panel.about;
    let snapshot = readings.snapshot();
    let losses = snapshot.map(|snapshot| snapshot.losses).unwrap_or_default();
    let json = serde_json::to_string_pretty(&Status {
        version: env!("CARGO_PKG_VERSION"),
        task_run_id: &about.task_run_id,
        pod: Pod {
            name: &about.pod_name,
            namespace: about.pod_namespace.as_deref(),
            uid: readings.pod_uid.as_deref(),
        },
        running_since: panel.started_at,
        interval_seconds: about.interval.as_secs_f64(),
        dry_run: about.dry_run,
        journal: snapshot.is_some_and(|snapshot| snapshot.journaled),
        seen: Seen {
            containers: &readings.containers,
            confirmed_seconds_ago: readings.status_age().map(seconds),
            watching: !readings.is_watch_over(),
        },
        sent: readings.sent.as_ref().map(|sent| Sent {
            heartbeat: sent.heartbeat,
            kind: sent.kind.name(),
            attempt: sent.attempt,
            retries: sent.retries,
            at: sent.at,
        }),
        answered: readings.replied.map(|(reply, at)| Answered {
            outcome: match reply {
                Reply::Success => "accepted",
                Reply::Redirect
                | Reply::ClientError
                | Reply::ServerError
                | Reply::Ambiguous
                | Reply::NotSent => reply.name(),
            },
            at,
        }),
        outbox_depth: snapshot.map_or(0, |snapshot| snapshot.backlog),
        losses: lost(losses),
        token_expires_at: readings.token_expires,
        last_heartbeat: last_heartbeat(&readings),
    })?;
    Ok(escaped(&json) + "\n")
}

fn seconds(age: Duration) -> f64 {
    Duration::new(age.as_secs(), age.subsec_millis() * 1_000_000).as_secs_f64()
}

fn lost(losses: Losses) -> Lost {
    let Losses {
        overflowed,
        expired,
        refused,
        too_late,
        orphaned,
    } = losses;
    Lost {
        overflowed,
        expired,
        refused,
        too_late,
        orphaned,
    }
}

fn last_heartbeat(readings: &Readings) -> &'static str {
    let due = readings
        .snapshot()
        .is_some_and(|snapshot| snapshot.final_is_due);
    match readings.last_heartbeat() {
        LastHeartbeat::Open if due => "due",
        LastHeartbeat::Open => "not due",
        LastHeartbeat::Accepted => "accepted",
        LastHeartbeat::Refused => "refused",
        LastHeartbeat::Orphaned => "orphaned",
    }
}
