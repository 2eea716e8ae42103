//! The metrics, in one table. /metrics and docs/metrics.md are generated from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::saved::LastHeartbeat;
use podbeat_interface::metrics::{self, Label, Metric, Samples, Type};
use podbeat_interface::own_process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::instruments::Panel;
use super::readings::{self, Readings};

/// How a metric is read.
pub type Read = fn(&Reading<'_>) -> Samples;

const KINDS: Label = Label {
    name: "kind",
    values: &["first", "periodic", "change", "lost_exit", "final"],
};

const FATES: Label = Label {
    name: "outcome",
    values: &[
        "accepted",
        "overflow",
        "expired",
        "refused",
        "too_late",
        "superseded",
        "orphaned",
    ],
};

const REPLIES: Label = Label {
    name: "status",
    values: &["2xx", "3xx", "4xx", "5xx", "ambiguous", "not_sent"],
};

const STATES: Label = Label {
    name: "state",
    values: &readings::STATES,
};

/// Every metric, in the order of the output.
pub const METRICS: &[Metric<Read>] = &[
    Metric {
        name: "podbeat_build_info",
        kind: Type::Info,
        labels: &[Label {
            name: "version",
            values: &[],
        }],
        meaning: "podbeat's version",
        absent: None,
        read: |_| Samples::Info("version", env!("CARGO_PKG_VERSION").into()),
    },
    Metric {
        name: "podbeat_run_info",
        kind: Type::Info,
        labels: &[Label {
            name: "task_run_id",
            values: &[],
        }],
        meaning: "the run of this pod",
        absent: None,
        read: |reading| {
            Samples::Info(
                "task_run_id",
                reading.panel.about.task_run_id.clone().into(),
            )
        },
    },
    Metric {
        name: "podbeat_heartbeats_total",
        kind: Type::Counter,
        labels: &[KINDS, FATES],
        meaning: "heartbeats by kind and outcome",
        absent: None,
        read: |reading| {
            let by_fate = &reading.readings.heartbeats;
            Samples::Counters(
                by_fate
                    .iter()
                    .map(|((kind, fate), count)| {
                        (vec![("kind", *kind), ("outcome", *fate)], *count)
                    })
                    .collect(),
            )
        },
    },
    Metric {
        name: "podbeat_attempts_total",
        kind: Type::Counter,
        labels: &[REPLIES],
        meaning: "requests to the service; ambiguous: the request broke off or timed out, and may have arrived; not_sent: \
                  there was no connection or no token",
        absent: None,
        read: |reading| {
            let by_reply = &reading.readings.attempts;
            Samples::Counters(
                by_reply
                    .iter()
                    .map(|(reply, count)| (vec![("status", *reply)], *count))
                    .collect(),
            )
        },
    },
    Metric {
        name: "podbeat_attempt_duration_seconds",
        kind: Type::Histogram,
        labels: &[],
        meaning: "duration of attempts",
        absent: None,
        read: |reading| Samples::Histogram(reading.readings.durations.clone()),
    },
    Metric {
        name: "podbeat_heartbeat_accepted_age_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "seconds since the service last accepted a heartbeat, or since the start if it has not accepted one",
        absent: None,
        read: |reading| {
            let since = reading.readings.accepted.unwrap_or(reading.panel.started);
            Samples::age(since.elapsed())
        },
    },
    Metric {
        name: "podbeat_interval_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "PODBEAT_INTERVAL",
        absent: None,
        read: |reading| Samples::age(reading.panel.about.interval),
    },
    Metric {
        name: "podbeat_outbox_depth",
        kind: Type::Gauge,
        labels: &[],
        meaning: "heartbeats that the service has not accepted yet",
        absent: None,
        read: |reading| {
            Samples::count(
                reading
                    .readings
                    .snapshot()
                    .map_or(0, |snapshot| snapshot.backlog),
            )
        },
    },
    Metric {
        name: "podbeat_transitions_total",
        kind: Type::Counter,
        labels: &[STATES],
        meaning: "observed changes of container states",
        absent: None,
        read: |reading| {
            let by_state = &reading.readings.transitions;
            Samples::Counters(
                by_state
                    .iter()
                    .map(|(state, count)| (vec![("state", *state)], *count))
                    .collect(),
            )
        },
    },
    Metric {
        name: "podbeat_watch_age_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "seconds since the Kubernetes API last confirmed the pod's states (by an event, a bookmark or a list), also to an \
                  earlier process; seconds since the start if it has not; 0 after podbeat has ended the watch",
        absent: None,
        read: |reading| {
            let age = if reading.readings.is_watch_over() {
                Duration::ZERO
            } else {
                let never = || reading.panel.started.elapsed();
                reading.readings.status_age().unwrap_or_else(never)
            };
            Samples::age(age)
        },
    },
    Metric {
        name: "podbeat_max_status_age_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "PODBEAT_MAX_STATUS_AGE",
        absent: None,
        read: |reading| Samples::age(reading.panel.about.max_status_age),
    },
    Metric {
        name: "podbeat_watch_restarts_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "restarts of the watch after it ended or failed",
        absent: None,
        read: |reading| Samples::Counters(vec![(vec![], reading.readings.watch_restarts)]),
    },
    Metric {
        name: "podbeat_watch_resyncs_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "lists of the pod, including the first",
        absent: None,
        read: |reading| Samples::Counters(vec![(vec![], reading.readings.resyncs)]),
    },
    Metric {
        name: "podbeat_watch_errors_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "requests to the Kubernetes API that were rejected, failed or got no answer",
        absent: None,
        read: |reading| Samples::Counters(vec![(vec![], reading.readings.watch_errors)]),
    },
    Metric {
        name: "podbeat_token_expiry_timestamp_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "expiry time of the bearer token, in seconds since 1970",
        absent: Some(
            "the token is not a JWT with an `exp` claim, or podbeat has not sent a token yet",
        ),
        read: |reading| match reading.readings.token_expires {
            Some(at) => Samples::Gauge(since_1970(at)),
            None => Samples::Absent,
        },
    },
    Metric {
        name: "podbeat_journal_errors_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "failed writes of the journal or the renewed token",
        absent: None,
        read: |reading| Samples::Counters(vec![(vec![], reading.readings.journal_errors)]),
    },
    Metric {
        name: "podbeat_final_pending",
        kind: Type::Gauge,
        labels: &[],
        meaning: "1 while the last heartbeat is due but not accepted, otherwise 0",
        absent: None,
        read: |reading| {
            let snapshot = reading.readings.snapshot();
            Samples::flag(snapshot.is_some_and(|snapshot| snapshot.final_is_due))
        },
    },
    Metric {
        name: "podbeat_final_accepted",
        kind: Type::Gauge,
        labels: &[],
        meaning: "1 after the service accepted the last heartbeat, also from an earlier process of the pod, otherwise 0",
        absent: None,
        read: |reading| Samples::flag(reading.readings.last_heartbeat() == LastHeartbeat::Accepted),
    },
    Metric {
        name: "podbeat_reopened_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "last heartbeats of an earlier process that no longer count, because only podbeat's container was stopped and the task \
                  continues",
        absent: None,
        read: |reading| Samples::Counters(vec![(vec![], reading.readings.reopened)]),
    },
    Metric {
        name: "podbeat_orphaned",
        kind: Type::Gauge,
        labels: &[],
        meaning: "1 after the service said that the run does not belong to this pod, otherwise 0",
        absent: None,
        read: |reading| Samples::flag(reading.readings.last_heartbeat() == LastHeartbeat::Orphaned),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "CPU time of podbeat's process, user and system, in seconds",
        absent: Some(NO_PROC),
        read: |_| own_process::cpu_seconds().map_or(Samples::Absent, Samples::Seconds),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        meaning: "resident memory of podbeat's process",
        absent: Some(NO_PROC),
        read: |_| own_process::resident_bytes().map_or(Samples::Absent, Samples::count),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "start time of podbeat's process, in seconds since 1970",
        absent: Some(NO_PROC),
        read: |reading| {
            reading
                .panel
                .process_started
                .map_or(Samples::Absent, Samples::Gauge)
        },
    },
];

const NO_PROC: &str = "podbeat cannot read /proc";

/// The source of the values for one scrape.
#[derive(Debug)]
pub struct Reading<'panel> {
    panel: &'panel Panel,
    readings: &'panel Readings,
}

fn since_1970(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// Prints all metrics in the text format of OpenMetrics 1.0.
pub(super) fn text(panel: &Arc<Panel>) -> Result<String, fmt::Error> {
    metrics::text(Table(Arc::clone(panel)))
}

#[derive(Debug)]
struct Table(Arc<Panel>);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let readings = &*self.0.readings();
        let reading = Reading {
            panel: &self.0,
            readings,
        };
        for metric in METRICS {
            metric.encode((metric.read)(&reading), &mut encoder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::instruments::tests::{instruments, snapshot};
    use super::super::readings::{Fate, Reply};
    use super::*;
    use podbeat_heartbeat::machine::{DropCause, Note, Snapshot};
    use podbeat_heartbeat::outbox::Kind;

    fn value(text: &str, sample: &str) -> Option<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn the_labels_are_the_closed_enums() {
        let kinds = [
            Kind::First,
            Kind::Periodic,
            Kind::Change,
            Kind::LostExit,
            Kind::Final,
        ];
        assert_eq!(kinds.map(Kind::name), KINDS.values);
        let fates = [
            Fate::Accepted,
            Fate::Overflow,
            Fate::Expired,
            Fate::Refused,
            Fate::TooLate,
            Fate::Superseded,
            Fate::Orphaned,
        ];
        assert_eq!(fates.map(Fate::name), FATES.values);
        assert_eq!(Reply::ALL.map(Reply::name), REPLIES.values);
    }

    #[test]
    fn names_follow_their_types() {
        for metric in METRICS {
            assert_eq!(
                metric.name,
                format!("{}{}", metric.family(), metric.kind.suffix()),
                "{}",
                metric.kind.name()
            );
            assert!(
                !metric.meaning.contains(['\n', '\\', '|']),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn a_text_in_a_label_is_escaped() {
        let (_, panel) = instruments();
        let text = text(&panel).expect("text");
        assert!(
            text.contains(r#"podbeat_run_info{task_run_id="trn.\"1\"\\"} 1"#),
            "{text}"
        );
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn ages_grow_while_nothing_happens_and_end_with_the_watch() {
        let (instruments, panel) = instruments();
        let age = |name: &str| value(&text(&panel).expect("text"), name).expect("a sample");
        let (accepted, watched) = (
            "podbeat_heartbeat_accepted_age_seconds",
            "podbeat_watch_age_seconds",
        );
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!((age(accepted), age(watched)), (7.0, 7.0));
        instruments.note(&Note::Accepted(1, Kind::First));
        let seen = Snapshot {
            status_age: Some(Duration::from_secs(2)),
            ..snapshot()
        };
        instruments.turned(seen, None);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((age(accepted), age(watched)), (3.0, 5.0));
        instruments.watch_ended();
        assert_eq!(age(watched), 0.0);
    }

    #[test]
    fn counters_and_flags_are_what_was_told() {
        let (instruments, panel) = instruments();
        instruments.note(&Note::Dropped(3, Kind::Change, DropCause::Overflow, vec![]));
        instruments.replied(Reply::ServerError, Duration::from_millis(700));
        instruments.replied(Reply::Ambiguous, Duration::from_secs(20));
        instruments.token_expires(Some("2026-11-24T12:00:00Z".parse().expect("a time")));
        let disowned = Snapshot {
            backlog: 3,
            final_is_due: true,
            last_heartbeat: LastHeartbeat::Orphaned,
            ..snapshot()
        };
        instruments.turned(disowned, None);
        let text = text(&panel).expect("text");
        for (sample, expected) in [
            (
                r#"podbeat_heartbeats_total{kind="change",outcome="overflow"}"#,
                1.0,
            ),
            (
                r#"podbeat_heartbeats_total{kind="final",outcome="accepted"}"#,
                0.0,
            ),
            (r#"podbeat_attempts_total{status="5xx"}"#, 1.0),
            (r#"podbeat_attempts_total{status="2xx"}"#, 0.0),
            (r#"podbeat_attempt_duration_seconds_bucket{le="0.25"}"#, 0.0),
            (r#"podbeat_attempt_duration_seconds_bucket{le="1.0"}"#, 1.0),
            (r#"podbeat_attempt_duration_seconds_bucket{le="+Inf"}"#, 2.0),
            ("podbeat_attempt_duration_seconds_count", 2.0),
            ("podbeat_attempt_duration_seconds_sum", 20.7),
            ("podbeat_outbox_depth", 3.0),
            ("podbeat_final_pending", 1.0),
            ("podbeat_final_accepted", 0.0),
            ("podbeat_orphaned", 1.0),
            ("podbeat_token_expiry_timestamp_seconds", 1_795_521_600.0),
            ("podbeat_interval_seconds", 30.0),
        ] {
            assert_eq!(value(&text, sample), Some(expected), "{sample}\n{text}");
        }
    }

    #[test]
    fn an_accepted_end_is_told_by_the_process_that_comes_after_it_too() {
        let (instruments, panel) = instruments();
        instruments.note(&Note::Resumed {
            waiting: 0,
            last_heartbeat: LastHeartbeat::Accepted,
        });
        instruments.turned(
            Snapshot {
                last_heartbeat: LastHeartbeat::Accepted,
                ..snapshot()
            },
            None,
        );
        let text = text(&panel).expect("text");
        assert_eq!(value(&text, "podbeat_final_accepted"), Some(1.0));
        assert_eq!(value(&text, "podbeat_final_pending"), Some(0.0));
        let counted = r#"podbeat_heartbeats_total{kind="final",outcome="accepted"}"#;
        assert_eq!(
            value(&text, counted),
            Some(0.0),
            "counted by the earlier one"
        );
    }
}
