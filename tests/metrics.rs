//! Generates docs/metrics.md from the table of metrics. `just docs` writes it.

use podbeat::telemetry::metrics::METRICS;

use crate::harness::reference::metrics;
use crate::harness::repository::is_up_to_date;

const BEGINNING: &str = "\
# Metrics, probes and status

This page is generated from `src/telemetry/metrics.rs` by `just docs`. A test compares, and another test compares what `/metrics`
prints with the same table.

Every installation method turns the admin endpoint on. [operations.md](operations.md#monitor) says how to scrape it,
[which alerts](operations.md#alerts) exist, and [what it costs](operations.md#size).

With PODBEAT_LISTEN, such as `0.0.0.0:9808`, or `[::]:9808` for IPv6 and IPv4, podbeat answers HTTP/1.1 requests there. There is
no TLS, no password, and no secret in any answer. Everyone who can reach the port can read the names of the run, the pod and its
containers. podbeat accepts 16 connections at the same time, with one request each, of at most 8 KiB, within 10 s. Another
connection replaces the oldest.

## Metrics

`/metrics` is OpenMetrics 1.0 text. One process serves one pod; the scraper adds namespace, pod and container. To see the run in
an alert, join `* on (namespace, pod) group_left (task_run_id) podbeat_run_info`.

";

const END: &str = "
- Counters start when the process starts. After a restart of podbeat's container they start at 0.
- `podbeat_heartbeats_total` counts each heartbeat once, when its outcome is certain, however many attempts it took. If
  podbeat repeats the last heartbeat because an earlier request may arrive late, both count as one. From the start, the metric shows 0 for accepted heartbeats of
  each kind, and for the losses of the kinds with container changes (change, lost_exit, final). Other series appear when they
  happen. `superseded`, and the losses of first and periodic heartbeats, lose no container changes.
- `podbeat_attempts_total` and `podbeat_attempt_duration_seconds` count an attempt when it has ended. The duration includes the
  wait for the journal, at most half a second. With `--dry-run` there are no attempts.
- `podbeat_heartbeat_accepted_age_seconds` continues to grow after the last heartbeat was accepted, while a native sidecar waits
  for SIGTERM. `podbeat_final_accepted` is then 1.
- `podbeat_watch_errors_total` does not count 410 Gone, which is normal. It counts a watch that breaks off.
- `podbeat_final_pending` stays 1 if the service permanently rejected the last heartbeat.

## Probes

| path | 200 | 503 |
|---|---|---|
| `/livez` | podbeat's main loop runs. The service and the Kubernetes API do not matter | the loop is more than a minute late |
| `/startupz` | podbeat started the first attempt, whatever its result; or, after a restart, there is nothing left to send | before that |
| `/readyz` | the Kubernetes API confirmed the pod's states within PODBEAT_MAX_STATUS_AGE (or the pod was deleted), and the service accepted a heartbeat within three intervals. Always after the last heartbeat was accepted | one line for each reason. Permanently, if the run is orphaned or the service rejected the last heartbeat |

The kubelet starts the task's containers only after the startup probe of a native sidecar has succeeded. Use `/startupz` for this
probe, not `/readyz`. A readiness probe on podbeat's container makes the pod unready while the service or the API is unavailable.

## Status

`/status` is JSON with these members. Unknown values are null.

- `version`, `taskRunId`, `pod`, `runningSince`, `intervalSeconds`, `dryRun`, `journal` (whether there is a journal).
- `seen`: each reported container with its state, reason and exit code; `confirmedSecondsAgo`; whether podbeat still watches the
  pod.
- `sent`: the last attempt, with the number and kind of its heartbeat, its own number, the number of earlier attempts, and the
  time.
- `answered`: the last answer (`accepted`, or a status as in `podbeat_attempts_total`), and the time.
- `outboxDepth`: the number of waiting heartbeats.
- `losses`: heartbeats with container changes that this process dropped, by cause. A heartbeat whose exit was reported without the
  other states, because they were too old, counts as expired.
- `tokenExpiresAt`.
- `lastHeartbeat`: `not due`, `due`, `accepted`, `refused` or `orphaned`.
";

fn document() -> String {
    let mut text = String::from(BEGINNING);
    metrics(&mut text, METRICS);
    text.push_str(END);
    text
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/metrics.md", &document());
}
