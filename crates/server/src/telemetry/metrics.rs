//! The metrics, in one table. /metrics and docs/server-reference.md are generated from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use podbeat_interface::metrics::{self, Label, Metric, Samples, Type};
use podbeat_interface::own_process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::readings::{Readings, STATUSES};
use crate::api::head;
use podbeat_runs::Status;

/// The values of one scrape.
#[derive(Debug, Default)]
pub struct Reading {
    /// What is counted as it happens.
    pub readings: Arc<Readings>,
    /// Whether the server answers requests.
    pub is_ready: bool,
    /// The number of runs with each status. `None` if the store did not answer.
    pub runs: Option<Vec<(Status, u64)>>,
    /// The number of runs in memory. `None` while the server is starting.
    pub live_runs: Option<usize>,
    /// The time since the last heartbeat of the running run that was silent for longest. `None` if
    /// no run is running.
    pub heartbeat_lag: Option<Duration>,
    /// A running run without a heartbeat for this long is timed out.
    pub heartbeat_timeout: Duration,
    /// Free space on the disk of the data file, in bytes. `None` if the file system does not say it.
    pub disk_free: Option<u64>,
    /// The number of open connections.
    pub connections: usize,
    /// When the process started, in seconds since 1970.
    pub process_started: Option<f64>,
}

/// How a metric is read.
pub type Read = fn(&Reading) -> Samples;

const NO_LAUNCH: &str = "the server launches no runs";

const NO_PROC: &str = "the server cannot read /proc";

/// The statuses of runs.
const RUN_STATUSES: Label = Label {
    name: "status",
    values: &[
        "Pending",
        "CheckedOut",
        "Runnable",
        "Running",
        "Finalizing",
        "Completed",
        "FailedRestartable",
        "Failed",
        "Aborted",
        "TimedOut",
    ],
};

/// Every metric, in the order of the output.
pub const METRICS: &[Metric<Read>] = &[
    Metric {
        name: "podbeat_server_build_info",
        kind: Type::Info,
        labels: &[Label {
            name: "version",
            values: &[],
        }],
        meaning: "podbeat-server's version",
        absent: None,
        read: |_| Samples::Info("version", env!("CARGO_PKG_VERSION").into()),
    },
    Metric {
        name: "podbeat_server_ready",
        kind: Type::Gauge,
        labels: &[],
        meaning: "1 while the server answers requests, otherwise 0; as /readyz",
        absent: None,
        read: |reading| Samples::flag(reading.is_ready),
    },
    Metric {
        name: "podbeat_server_requests_total",
        kind: Type::Counter,
        labels: &[
            Label {
                name: "operation",
                values: head::NAMES,
            },
            Label {
                name: "status",
                values: STATUSES,
            },
        ],
        meaning: "requests to the API by operation and status of the answer; other: the path or the method is no operation",
        absent: None,
        read: |reading| {
            let requests = reading.readings.requests();
            let samples = requests.into_iter().map(|((operation, status), count)| {
                (vec![("operation", operation), ("status", status)], count)
            });
            Samples::Counters(samples.collect())
        },
    },
    Metric {
        name: "podbeat_server_request_duration_seconds",
        kind: Type::Histogram,
        labels: &[],
        meaning: "duration of requests to the API, from the end of the head to the answer",
        absent: None,
        read: |reading| Samples::Histogram(reading.readings.request_durations()),
    },
    Metric {
        name: "podbeat_server_runs",
        kind: Type::Gauge,
        labels: &[RUN_STATUSES],
        meaning: "runs in the store by status",
        absent: Some("the server is starting, or the store does not answer"),
        read: |reading| {
            let Some(runs) = &reading.runs else {
                return Samples::Absent;
            };
            let samples = runs
                .iter()
                .map(|(status, runs)| (vec![("status", status.name())], *runs));
            Samples::Gauges(samples.collect())
        },
    },
    Metric {
        name: "podbeat_server_live_runs",
        kind: Type::Gauge,
        labels: &[],
        meaning: "runs in memory: those that have not ended",
        absent: Some("the server is starting"),
        read: |reading| reading.live_runs.map_or(Samples::Absent, Samples::count),
    },
    Metric {
        name: "podbeat_server_heartbeat_lag_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "seconds since the last heartbeat of the running run that was silent for longest; 0 if no run is running",
        absent: None,
        read: |reading| Samples::age(reading.heartbeat_lag.unwrap_or_default()),
    },
    Metric {
        name: "podbeat_server_heartbeat_timeout_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "PODBEAT_SERVER_HEARTBEAT_TIMEOUT in seconds; a run with a longer lag is TimedOut",
        absent: None,
        read: |reading| Samples::age(reading.heartbeat_timeout),
    },
    Metric {
        name: "podbeat_server_store_duration_seconds",
        kind: Type::Histogram,
        labels: &[],
        meaning: "duration of the store's operations, including the wait for their turn and the commit",
        absent: None,
        read: |reading| Samples::Histogram(reading.readings.store_durations()),
    },
    Metric {
        name: "podbeat_server_store_failures_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "operations of the store that failed, such as with a full disk",
        absent: None,
        read: |reading| Samples::Counters(vec![(Vec::new(), reading.readings.store_failures())]),
    },
    Metric {
        name: "podbeat_server_store_queue",
        kind: Type::Gauge,
        labels: &[],
        meaning: "operations of the store that wait or are in progress",
        absent: None,
        read: |reading| Samples::count(reading.readings.store_operations()),
    },
    Metric {
        name: "podbeat_server_jobs_total",
        kind: Type::Counter,
        labels: &[Label {
            name: "deed",
            values: &["created", "found", "deleted"],
        }],
        meaning: "Jobs that the server created, found after a crash, or deleted",
        absent: Some(NO_LAUNCH),
        read: |reading| {
            if reading.readings.launch_queue().is_none() {
                return Samples::Absent;
            }
            let jobs = reading.readings.jobs().into_iter();
            Samples::Counters(
                jobs.map(|(deed, count)| (vec![("deed", deed)], count))
                    .collect(),
            )
        },
    },
    Metric {
        name: "podbeat_server_launch_queue",
        kind: Type::Gauge,
        labels: &[],
        meaning: "runs that the launcher looks at now, or at a later time that it knows",
        absent: Some(NO_LAUNCH),
        read: |reading| {
            let queue = reading.readings.launch_queue();
            queue.map_or(Samples::Absent, Samples::count)
        },
    },
    Metric {
        name: "podbeat_server_cluster_failures_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "requests to the Kubernetes API that failed and are repeated",
        absent: Some(NO_LAUNCH),
        read: |reading| match reading.readings.launch_queue() {
            Some(_) => Samples::Counters(vec![(Vec::new(), reading.readings.cluster_failures())]),
            None => Samples::Absent,
        },
    },
    Metric {
        name: "podbeat_server_disk_free_bytes",
        kind: Type::Gauge,
        labels: &[],
        meaning: "free space on the disk of the data file",
        absent: Some("the file system does not report its free space"),
        read: |reading| reading.disk_free.map_or(Samples::Absent, Samples::count),
    },
    Metric {
        name: "podbeat_server_connections",
        kind: Type::Gauge,
        labels: &[],
        meaning: "open connections to the API",
        absent: None,
        read: |reading| Samples::count(reading.connections),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Type::Counter,
        labels: &[],
        meaning: "CPU time of the process, user and system, in seconds",
        absent: Some(NO_PROC),
        read: |_| own_process::cpu_seconds().map_or(Samples::Absent, Samples::Seconds),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        meaning: "resident memory of the process",
        absent: Some(NO_PROC),
        read: |_| own_process::resident_bytes().map_or(Samples::Absent, Samples::count),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Type::Gauge,
        labels: &[],
        meaning: "start time of the process, in seconds since 1970",
        absent: Some(NO_PROC),
        read: |reading| {
            reading
                .process_started
                .map_or(Samples::Absent, Samples::Gauge)
        },
    },
];

/// Prints all metrics in the text format of OpenMetrics 1.0.
///
/// # Errors
/// The text can't be written.
pub fn text(reading: Reading) -> Result<String, fmt::Error> {
    metrics::text(Table(reading))
}

#[derive(Debug)]
struct Table(Reading);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            metric.encode((metric.read)(&self.0), &mut encoder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Answered, Observer as _};

    #[test]
    fn names_follow_their_types() {
        for metric in METRICS {
            let suffix = metric.kind.suffix();
            assert_eq!(metric.name, format!("{}{suffix}", metric.family()));
            assert!(
                !metric.meaning.contains(['\n', '\\', '|']),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn the_label_has_every_status() {
        assert_eq!(Status::ALL.map(Status::name), RUN_STATUSES.values);
    }

    #[test]
    fn the_text_has_every_metric_with_its_labels() {
        let readings = Arc::new(Readings::default());
        readings.answered(&Answered {
            operation: "heartbeat",
            run: None,
            method: "POST",
            status: 200,
            took: Duration::from_millis(7),
            parent: None,
        });
        let text = text(Reading {
            readings,
            is_ready: true,
            runs: Some(vec![(Status::Running, 3), (Status::Failed, 1)]),
            live_runs: Some(3),
            heartbeat_lag: Some(Duration::from_millis(1500)),
            heartbeat_timeout: Duration::from_secs(600),
            disk_free: Some(7),
            connections: 9,
            process_started: Some(1.5),
        })
        .expect("text");
        // The server of this test launches no runs.
        for metric in METRICS
            .iter()
            .filter(|metric| metric.absent != Some(NO_LAUNCH))
        {
            assert!(
                text.contains(&format!(
                    "# TYPE {} {}\n",
                    metric.family(),
                    metric.kind.name()
                )),
                "{}: {text}",
                metric.name
            );
        }
        for line in [
            "podbeat_server_requests_total{operation=\"heartbeat\",status=\"200\"} 1\n",
            "podbeat_server_request_duration_seconds_bucket{le=\"0.01\"} 1\n",
            "podbeat_server_request_duration_seconds_bucket{le=\"0.005\"} 0\n",
            "podbeat_server_runs{status=\"Running\"} 3\n",
            "podbeat_server_live_runs 3\n",
            "podbeat_server_heartbeat_lag_seconds 1.5\n",
            "podbeat_server_heartbeat_timeout_seconds 600.0\n",
            "podbeat_server_store_failures_total 0\n",
            "podbeat_server_disk_free_bytes 7\n",
            "podbeat_server_ready 1\n",
            "podbeat_server_connections 9\n",
            "# EOF\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
