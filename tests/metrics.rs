//! docs/metrics.md is made from the table of metrics. `just docs` writes it anew.

use std::fmt::Write;

use podbeat::telemetry::metrics::{METRICS, Metric};

use crate::harness::repository::is_up_to_date;

const BEGINNING: &str = "\
# Metrics, probes and status

This page is generated from `src/telemetry/metrics.rs` by `just docs`; a test compares, and another holds what `/metrics` prints
against the same table.

With PODBEAT_LISTEN, such as `0.0.0.0:9808`, or `[::]:9808` for IPv6 and IPv4, podbeat answers there over HTTP/1.1. There is no
TLS and no password, and no secret in any answer; whoever reaches the port can read the names of the run, the pod and its
containers. It takes 16 connections at once and one request on each, of 8 KiB, within 10 s; one connection more takes the place
of the oldest.

## Metrics

`/metrics` is OpenMetrics 1.0 text. One process is one pod; the scraper adds namespace, pod and container. To see the run on an
alert, join `* on (namespace, pod) group_left (task_run_id) podbeat_run_info`.

| name | type | labels | meaning |
|---|---|---|---|
";

const END: &str = "
- All is counted from the start of the process: a restart of podbeat's container begins at 0.
- `podbeat_heartbeats_total` counts a heartbeat when its fate is settled, and once, whatever number of attempts it took; a last
  heartbeat that goes once more behind a late request is one. Shown as 0 from the start are the accepted ones of each kind, and of
  kinds that bring news (change, lost_exit, final) what can be lost; the rest appears as it happens. `superseded` and the losses of
  first and periodic heartbeats lose no news.
- `podbeat_attempts_total` and `podbeat_attempt_duration_seconds` have an attempt once it has ended. The time includes the wait for
  the journal, half a second at most. With `--dry-run` there are none.
- `podbeat_heartbeat_accepted_age_seconds` grows on after the last heartbeat was accepted, as long as a native sidecar idles until
  SIGTERM: then `podbeat_final_accepted` is 1.
- `podbeat_watch_errors_total` leaves out a 410 Gone, which is ordinary; a watch that breaks off is one.
- `podbeat_final_pending` stays 1 if the service refused the last heartbeat for good.

## Probes

| path | 200 | 503 |
|---|---|---|
| `/livez` | podbeat's loop runs. Neither the service nor the Kubernetes API has a part in it | the loop has not turned for a minute after it meant to |
| `/startupz` | the first attempt was begun, whatever becomes of it; or, after a restart, there is nothing left to be sent | before that |
| `/readyz` | the Kubernetes API confirmed the pod's states within PODBEAT_MAX_STATUS_AGE (or the pod is gone), and the service accepted a heartbeat within three intervals; or the last heartbeat was accepted, from then on | a line for each reason. For good: the run is orphaned, or the service refused the last heartbeat |

The kubelet starts the task's containers only when a native sidecar's startup probe has succeeded; `/startupz` is made for that, and
`/readyz` is not. A readiness probe on podbeat's container makes the pod unready while the service or the API is away.

## Status

`/status` is JSON: `version`, `taskRunId`, `pod`, `runningSince`, `intervalSeconds`, `dryRun`, `journal` (whether there is one),
`seen` (each reported container with its state, reason and exit code; `confirmedSecondsAgo`; whether the pod is still watched),
`sent` (the last attempt: number and kind of its heartbeat, its own number, how many went before it, when), `answered` (what came
back: `accepted`, or a status as in `podbeat_attempts_total`, and when), `outboxDepth`, `losses` (heartbeats with news that this
process gave up, by cause; one whose exit was told without the states beside it, because they had grown too old, counts as expired),
`tokenExpiresAt` and `lastHeartbeat` (`not due`, `due`, `accepted`, `refused`, `orphaned`). What is not known is null.
";

fn document() -> String {
    let mut text = String::from(BEGINNING);
    for metric in METRICS {
        writeln!(
            text,
            "| `{}` | {} | {} | {}{} |",
            metric.name,
            metric.kind.name(),
            labels(metric),
            metric.meaning,
            metric
                .absent
                .map_or(String::new(), |when| format!(". Absent if {when}"))
        )
        .expect("a String takes all");
    }
    text.push_str(END);
    text
}

fn labels(metric: &Metric) -> String {
    let described = metric.labels.iter().map(|label| match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}`: {}", label.name, values.join(", ")),
    });
    described.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/metrics.md", &document());
}
