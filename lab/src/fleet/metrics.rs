//! podbeat-server's metrics. Pure.

use std::collections::BTreeMap;

/// Answers by operation and status.
pub(super) type Requests = BTreeMap<(String, String), u64>;

/// The metrics that a fleet needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metrics {
    /// `podbeat_server_requests_total`.
    pub(super) requests: Requests,
    /// `podbeat_server_runs`: the number of runs by status.
    pub(super) runs: BTreeMap<String, u64>,
    /// `podbeat_server_live_runs`.
    pub(super) live_runs: Option<u64>,
}

impl Metrics {
    /// Reads the text of /metrics.
    pub(super) fn read(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<u64>() else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = |name: &str| {
                let mut labels = labels.trim_end_matches('}').split(',');
                let found = labels.find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
                found.unwrap_or_default().trim_end_matches('"').to_owned()
            };
            match name {
                "podbeat_server_requests_total" => {
                    let of = (label("operation"), label("status"));
                    metrics.requests.insert(of, value);
                }
                "podbeat_server_runs" => {
                    metrics.runs.insert(label("status"), value);
                }
                "podbeat_server_live_runs" => metrics.live_runs = Some(value),
                _ => {}
            }
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_metrics_are_read() {
        let metrics = Metrics::read(
            "# TYPE podbeat_server_requests counter\n\
             podbeat_server_requests_total{operation=\"heartbeat\",status=\"200\"} 12\n\
             podbeat_server_requests_total{operation=\"heartbeat\",status=\"503\"} 2\n\
             podbeat_server_runs{status=\"Completed\"} 3\n\
             podbeat_server_live_runs 0\n\
             podbeat_server_heartbeat_lag_seconds 1.5\n\
             # EOF\n",
        );
        let of = |status: &str| ("heartbeat".to_owned(), status.to_owned());
        assert_eq!(
            metrics,
            Metrics {
                requests: Requests::from([(of("200"), 12), (of("503"), 2)]),
                runs: BTreeMap::from([("Completed".to_owned(), 3)]),
                live_runs: Some(0),
            }
        );
        assert_eq!(Metrics::read("").live_runs, None);
    }
}
