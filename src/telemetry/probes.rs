//! The three probes. Each answers a different question, so that no external problem makes the
//! kubelet kill podbeat.

use std::fmt::Write;
use std::time::Duration;

use podbeat_heartbeat::saved::LastHeartbeat;
use tokio::time::Instant;

use super::instruments::Panel;

/// The main loop is stuck if it is late by more than this. It needs microseconds for an event, and
/// waits only for events, so it is late only if the node is overloaded.
const STUCK: Duration = Duration::from_secs(60);

/// A heartbeat may fail and be retried before podbeat is not ready.
const INTERVALS: u32 = 3;

/// Why a probe fails, with one line for each reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reasons(Vec<String>);

impl Reasons {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, reason| {
            let _ = writeln!(text, "{reason}");
            text
        })
    }

    fn add(&mut self, reason: impl Into<String>) {
        self.0.push(reason.into());
    }
}

/// Whether the main loop runs. The service and the Kubernetes API do not affect this probe.
pub(super) fn live(panel: &Panel) -> Reasons {
    let mut reasons = Reasons::default();
    let due = panel.readings().turns_again;
    if due.is_some_and(|due| Instant::now().saturating_duration_since(due) > STUCK) {
        reasons.add("podbeat's main loop is stuck");
    }
    reasons
}

/// Whether the first attempt began, with any outcome. After a restart, also if there is nothing
/// left to send.
pub(super) fn started(panel: &Panel) -> Reasons {
    let mut reasons = Reasons::default();
    let readings = panel.readings();
    if !readings.begun && readings.last_heartbeat() == LastHeartbeat::Open {
        reasons.add("podbeat has not started a heartbeat yet");
    }
    reasons
}

/// Whether podbeat reports the run: it sees the pod, and the service accepts heartbeats. After an
/// accepted last heartbeat there is nothing more to report, and podbeat stays ready.
pub(super) fn ready(panel: &Panel) -> Reasons {
    let mut reasons = Reasons::default();
    let readings = panel.readings();
    match readings.last_heartbeat() {
        LastHeartbeat::Accepted => return reasons,
        LastHeartbeat::Orphaned => {
            reasons.add(
                "the service says that the run does not belong to this pod; sending nothing more",
            );
            return reasons;
        }
        LastHeartbeat::Refused => {
            reasons.add("the service permanently rejected the last heartbeat");
            return reasons;
        }
        LastHeartbeat::Open => {}
    }
    if !readings.is_watch_over() {
        let most = panel.about.max_status_age;
        match readings.status_age() {
            None => reasons.add("the Kubernetes API has not shown the pod yet"),
            Some(age) if age > most => reasons.add(format!(
                "the Kubernetes API last confirmed the pod's states {} ago, longer than {} (PODBEAT_MAX_STATUS_AGE)",
                rounded(age),
                humantime::format_duration(most)
            )),
            Some(_) => {}
        }
    }
    let most = panel.about.interval.saturating_mul(INTERVALS);
    match readings.accepted.map(|at| at.elapsed()) {
        None => reasons.add("the service has not accepted a heartbeat yet"),
        Some(age) if age > most => reasons.add(format!(
            "the service last accepted a heartbeat {} ago, longer than {INTERVALS} intervals",
            rounded(age)
        )),
        Some(_) => {}
    }
    reasons
}

/// Rounds down to tenths of a second.
fn rounded(age: Duration) -> humantime::FormattedDuration {
    let tenths = u64::try_from(age.as_millis() / 100).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(tenths.saturating_mul(100)))
}

#[cfg(test)]
mod tests {
    use super::super::instruments::tests::{instruments, snapshot};
    use super::*;
    use podbeat_heartbeat::machine::{Note, Snapshot};
    use podbeat_heartbeat::outbox::Kind;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn lines(reasons: &Reasons) -> usize {
        reasons.text().lines().count()
    }

    #[tokio::test(start_paused = true)]
    async fn ready_once_the_pod_is_seen_and_a_heartbeat_accepted() {
        let (instruments, panel) = instruments();
        assert_eq!(lines(&ready(&panel)), 2, "{:?}", ready(&panel));
        instruments.turned(snapshot(), None);
        assert_eq!(
            ready(&panel).text(),
            "the service has not accepted a heartbeat yet\n"
        );
        instruments.note(&Note::Accepted(1, Kind::First));
        assert!(ready(&panel).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_away_for_three_intervals_is_a_reason() {
        let (instruments, panel) = instruments();
        instruments.turned(snapshot(), None);
        instruments.note(&Note::Accepted(1, Kind::First));
        tokio::time::advance(INTERVAL * 3).await;
        assert!(ready(&panel).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            ready(&panel).text(),
            "the service last accepted a heartbeat 1m 31s ago, longer than 3 intervals\n"
        );
        assert!(live(&panel).is_empty(), "and none to be killed for");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_confirms_nothing_for_too_long_is_a_reason() {
        let (instruments, panel) = instruments();
        instruments.turned(snapshot(), None);
        tokio::time::advance(Duration::from_secs(301)).await;
        instruments.note(&Note::Accepted(1, Kind::First));
        assert_eq!(
            ready(&panel).text(),
            "the Kubernetes API last confirmed the pod's states 5m 1s ago, longer than 5m (PODBEAT_MAX_STATUS_AGE)\n"
        );
        let gone = Snapshot {
            gone: true,
            ..snapshot()
        };
        instruments.turned(gone, None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(
            ready(&panel).is_empty(),
            "a pod that is gone need not be watched"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_only_an_accepted_last_heartbeat_is_ready() {
        let (instruments, panel) = instruments();
        for (last_heartbeat, is_ready) in [
            (LastHeartbeat::Accepted, true),
            (LastHeartbeat::Orphaned, false),
            (LastHeartbeat::Refused, false),
        ] {
            let snapshot = Snapshot {
                last_heartbeat,
                ..snapshot()
            };
            instruments.turned(snapshot, None);
            tokio::time::advance(Duration::from_secs(3600)).await;
            assert_eq!(ready(&panel).is_empty(), is_ready, "{last_heartbeat:?}");
            assert!(live(&panel).is_empty());
        }
    }

    #[test]
    fn started_once_an_attempt_was_begun_or_none_will_be() {
        let (begun, panel) = instruments();
        assert_eq!(
            started(&panel).text(),
            "podbeat has not started a heartbeat yet\n"
        );
        begun.turned(snapshot(), None);
        assert!(!started(&panel).is_empty());
        begun.begun();
        assert!(started(&panel).is_empty());
        // After an accepted last heartbeat, a restarted podbeat never sends anything.
        let (resumed, panel) = instruments();
        let snapshot = Snapshot {
            last_heartbeat: LastHeartbeat::Accepted,
            ..snapshot()
        };
        resumed.turned(snapshot, None);
        assert!(started(&panel).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_doesnt_turn_is_not_alive() {
        let (instruments, panel) = instruments();
        assert!(live(&panel).is_empty());
        instruments.turned(snapshot(), Some(Instant::now() + INTERVAL));
        tokio::time::advance(INTERVAL + STUCK).await;
        assert!(live(&panel).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!live(&panel).is_empty());
        instruments.turned(snapshot(), None);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(live(&panel).is_empty(), "it waits for an event");
    }
}
