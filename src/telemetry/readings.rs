//! What the instruments have counted and seen. Metrics, probes and status show it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, DropCause, Note, Snapshot};
use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::saved::LastHeartbeat;
use podbeat_task_runs::model::ContainerStatus;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

/// The upper bounds of `podbeat_attempt_duration_seconds`: from a round trip within a zone to more
/// than the default timeout.
pub(super) const DURATIONS: [f64; 6] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0];

/// The states of a container.
pub(super) const STATES: [&str; 3] = ["waiting", "running", "terminated"];

/// The combinations that exist from the start, with the value 0: what can be accepted, and the
/// possible losses of heartbeats with news. Prometheus cannot detect the increase of a counter that
/// appears with its first event. Other combinations appear when they first happen, because each
/// series exists ten thousand times.
const SHOWN_FROM_THE_START: [(Kind, Fate); 18] = [
    (Kind::First, Fate::Accepted),
    (Kind::Periodic, Fate::Accepted),
    (Kind::Change, Fate::Accepted),
    (Kind::LostExit, Fate::Accepted),
    (Kind::Final, Fate::Accepted),
    (Kind::Change, Fate::Overflow),
    (Kind::LostExit, Fate::Overflow),
    (Kind::Change, Fate::Expired),
    (Kind::LostExit, Fate::Expired),
    (Kind::Change, Fate::Refused),
    (Kind::LostExit, Fate::Refused),
    (Kind::Final, Fate::Refused),
    (Kind::Change, Fate::TooLate),
    (Kind::LostExit, Fate::TooLate),
    (Kind::Final, Fate::TooLate),
    (Kind::Change, Fate::Orphaned),
    (Kind::LostExit, Fate::Orphaned),
    (Kind::Final, Fate::Orphaned),
];

/// The outcome of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Overflow,
    Expired,
    Refused,
    TooLate,
    Superseded,
    Orphaned,
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Overflow => "overflow",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::TooLate => "too_late",
            Self::Superseded => "superseded",
            Self::Orphaned => "orphaned",
        }
    }

    fn of(cause: DropCause) -> Self {
        match cause {
            DropCause::Overflow => Self::Overflow,
            DropCause::Expired => Self::Expired,
            DropCause::Refused => Self::Refused,
            DropCause::Deadline => Self::TooLate,
            DropCause::Superseded => Self::Superseded,
            DropCause::Orphaned => Self::Orphaned,
        }
    }
}

/// The outcome of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 2xx.
    Success,
    /// 3xx.
    Redirect,
    /// 4xx.
    ClientError,
    /// 5xx, and any other status that does not end an exchange.
    ServerError,
    /// Broke off or timed out. The request may have arrived.
    Ambiguous,
    /// No connection, or no token.
    NotSent,
}

impl Reply {
    /// All variants.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::Ambiguous,
        Self::NotSent,
    ];

    /// The class of an HTTP status.
    #[must_use]
    pub fn from_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            0..=199 | 500.. => Self::ServerError,
        }
    }

    /// The value of the label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Ambiguous => "ambiguous",
            Self::NotSent => "not_sent",
        }
    }
}

/// The values that change.
#[derive(Debug)]
pub(super) struct Readings {
    /// By kind and fate.
    pub(super) heartbeats: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) attempts: BTreeMap<&'static str, u64>,
    pub(super) durations: Histogram,
    pub(super) transitions: BTreeMap<&'static str, u64>,
    pub(super) resyncs: u64,
    pub(super) watch_restarts: u64,
    pub(super) watch_errors: u64,
    pub(super) journal_errors: u64,
    pub(super) reopened: u64,
    pub(super) token_expires: Option<Timestamp>,
    /// When the service last accepted a heartbeat.
    pub(super) accepted: Option<Instant>,
    /// The highest number of an accepted heartbeat. A repeated last heartbeat does not count twice.
    highest_accepted: u64,
    /// Whether the refusal of the last heartbeat was counted, by this process or an earlier one.
    refusal_counted: bool,
    /// Whether an earlier process counted the last heartbeat as accepted.
    final_counted: bool,
    pub(super) snapshot: Option<(Snapshot, Instant)>,
    pub(super) turns_again: Option<Instant>,
    pub(super) watch_ended: bool,
    pub(super) pod_uid: Option<String>,
    pub(super) containers: Vec<Container>,
    pub(super) begun: bool,
    pub(super) sent: Option<Sent>,
    pub(super) replied: Option<(Reply, Timestamp)>,
}

/// The last known state of a container.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) state: Option<&'static str>,
    pub(super) reason: Option<String>,
    pub(super) exit_code: Option<i32>,
}

/// The last attempt.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) heartbeat: u64,
    pub(super) kind: Kind,
    pub(super) attempt: u64,
    pub(super) retries: u32,
    pub(super) at: Timestamp,
    since: Instant,
}

/// A counter for each key.
fn zeros<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u64> {
    let mut counters = BTreeMap::new();
    counters.extend(keys.map(|key| (key, 0)));
    counters
}

impl Readings {
    /// The readings at the start. `pod_uid` is the pod's UID according to the settings.
    pub(super) fn new(pod_uid: Option<String>) -> Self {
        Self {
            heartbeats: zeros(
                SHOWN_FROM_THE_START
                    .iter()
                    .map(|(kind, fate)| (kind.name(), fate.name())),
            ),
            attempts: zeros(Reply::ALL.iter().map(|reply| reply.name())),
            durations: Histogram::new(DURATIONS),
            transitions: zeros(STATES.iter().copied()),
            resyncs: 0,
            watch_restarts: 0,
            watch_errors: 0,
            journal_errors: 0,
            reopened: 0,
            token_expires: None,
            accepted: None,
            highest_accepted: 0,
            refusal_counted: false,
            final_counted: false,
            snapshot: None,
            turns_again: None,
            watch_ended: false,
            pod_uid,
            containers: Vec::new(),
            begun: false,
            sent: None,
            replied: None,
        }
    }

    /// Records a message of the core.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Transition { to, .. } => {
                if let Some(state) = to.state_name() {
                    *self.transitions.entry(state).or_default() += 1;
                }
                self.seen(to);
            }
            Note::Accepted(number, kind) => {
                self.accepted = Some(Instant::now());
                let told_before = *kind == Kind::Final && self.final_counted;
                if *number > self.highest_accepted && !told_before {
                    self.highest_accepted = *number;
                    self.count(*kind, Fate::Accepted);
                }
            }
            // Count the refusal now, because a native sidecar continues after it, and drops the
            // heartbeat only at the very end.
            Note::Failed {
                beat: (_, Kind::Final),
                answer: Answer::Refused { .. },
                retry_at: None,
            } => {
                if !std::mem::replace(&mut self.refusal_counted, true) {
                    self.count(Kind::Final, Fate::Refused);
                }
            }
            Note::Dropped(_, Kind::Final, DropCause::Refused, _) if self.refusal_counted => {}
            Note::Dropped(_, kind, cause, _) => self.count(*kind, Fate::of(*cause)),
            Note::Resumed { last_heartbeat, .. } => match last_heartbeat {
                LastHeartbeat::Accepted => self.final_counted = true,
                LastHeartbeat::Refused => self.refusal_counted = true,
                LastHeartbeat::Open | LastHeartbeat::Orphaned => {}
            },
            Note::Reopened(_) => {
                self.reopened += 1;
                self.final_counted = false;
                self.refusal_counted = false;
            }
            Note::Deletion(_)
            | Note::Why(_)
            | Note::OtherPod(_)
            | Note::NeverSeen
            | Note::Failed { .. }
            | Note::Signal { .. }
            | Note::Final(_)
            | Note::Marked { .. }
            | Note::UnknownMarker(_)
            | Note::Barrier { .. }
            | Note::BarrierFailed
            | Note::Orphaned => {}
        }
    }

    /// Keeps an attempt as the last one.
    pub(super) fn sending(&mut self, attempt: &Attempt) {
        let (heartbeat, kind) = attempt.beat;
        self.sent = Some(Sent {
            heartbeat,
            kind,
            attempt: attempt.number,
            retries: attempt.retries,
            at: Timestamp::now(),
            since: Instant::now(),
        });
    }

    /// Counts the last attempt as one without an answer.
    pub(super) fn gave_up(&mut self) {
        let took = self.sent.as_ref().map(|sent| sent.since.elapsed());
        self.replied(Reply::Ambiguous, took.unwrap_or_default());
    }

    fn count(&mut self, kind: Kind, fate: Fate) {
        *self
            .heartbeats
            .entry((kind.name(), fate.name()))
            .or_default() += 1;
    }

    /// Records the outcome of an attempt.
    pub(super) fn replied(&mut self, reply: Reply, took: Duration) {
        *self.attempts.entry(reply.name()).or_default() += 1;
        self.durations.observe(took.as_secs_f64());
        self.replied = Some((reply, Timestamp::now()));
    }

    /// Records the last known state of a container.
    pub(super) fn seen(&mut self, status: &ContainerStatus) {
        let exit = status.terminated();
        let waiting = status
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref());
        let reason = match (exit, waiting) {
            (Some(exit), _) => exit.reason.clone(),
            (None, Some(waiting)) => waiting.reason.clone(),
            (None, None) => None,
        };
        let now = Container {
            name: status.name.clone().unwrap_or_default(),
            state: status.state_name(),
            reason,
            exit_code: exit.and_then(|exit| exit.exit_code),
        };
        match self
            .containers
            .iter_mut()
            .find(|container| container.name == now.name)
        {
            Some(container) => *container = now,
            None => self.containers.push(now),
        }
    }

    /// How long ago the API last confirmed the pod's states, perhaps to an earlier process. `None`
    /// if it never did.
    pub(super) fn status_age(&self) -> Option<Duration> {
        let (snapshot, then) = self.snapshot.as_ref()?;
        Some(snapshot.status_age?.saturating_add(then.elapsed()))
    }

    /// Whether podbeat no longer needs to watch the pod.
    pub(super) fn is_watch_over(&self) -> bool {
        self.watch_ended || self.snapshot().is_some_and(|snapshot| snapshot.gone)
    }

    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().map(|(snapshot, _)| snapshot)
    }

    pub(super) fn last_heartbeat(&self) -> LastHeartbeat {
        self.snapshot()
            .map_or(LastHeartbeat::Open, |snapshot| snapshot.last_heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use podbeat_heartbeat::machine::Cause;
    use podbeat_task_runs::model::{
        ContainerState, ContainerStateTerminated, ContainerStateWaiting,
    };

    use super::*;

    fn counted(readings: &Readings, kind: Kind, fate: Fate) -> u64 {
        let key = (kind.name(), fate.name());
        readings.heartbeats.get(&key).copied().unwrap_or_default()
    }

    #[test]
    fn a_last_heartbeat_that_goes_once_more_is_one() {
        let mut readings = Readings::new(None);
        for note in [
            Note::Accepted(1, Kind::First),
            Note::Final(Cause::Completed),
            Note::Accepted(2, Kind::Final),
            Note::Barrier {
                until: Duration::from_secs(1),
            },
            Note::Accepted(2, Kind::Final),
        ] {
            readings.note(&note);
        }
        assert_eq!(counted(&readings, Kind::Final, Fate::Accepted), 1);
        assert_eq!(counted(&readings, Kind::First, Fate::Accepted), 1);
    }

    #[test]
    fn what_an_earlier_process_counted_is_not_counted_again() {
        let mut readings = Readings::new(None);
        readings.note(&Note::Resumed {
            waiting: 1,
            last_heartbeat: LastHeartbeat::Accepted,
        });
        readings.note(&Note::Accepted(7, Kind::Final));
        assert_eq!(counted(&readings, Kind::Final, Fate::Accepted), 0);
        assert!(readings.accepted.is_some());
    }

    #[test]
    fn a_refused_last_heartbeat_is_counted_when_it_is_refused_and_not_again_at_the_end() {
        let mut readings = Readings::new(None);
        let failed = |retry_at| Note::Failed {
            beat: (3, Kind::Final),
            answer: Answer::Refused { status: 400 },
            retry_at,
        };
        readings.note(&failed(Some(Duration::ZERO)));
        assert_eq!(
            counted(&readings, Kind::Final, Fate::Refused),
            0,
            "once more without states"
        );
        readings.note(&failed(None));
        assert_eq!(counted(&readings, Kind::Final, Fate::Refused), 1);
        readings.note(&Note::Dropped(3, Kind::Final, DropCause::Refused, vec![]));
        assert_eq!(counted(&readings, Kind::Final, Fate::Refused), 1);
        readings.note(&Note::Dropped(2, Kind::Change, DropCause::Refused, vec![]));
        assert_eq!(counted(&readings, Kind::Change, Fate::Refused), 1);
    }

    #[test]
    fn a_container_shows_its_latest_state() {
        let mut readings = Readings::new(None);
        let to = |state| {
            Box::new(ContainerStatus {
                name: Some("main".to_owned()),
                state: Some(state),
            })
        };
        for state in [
            ContainerState::from(ContainerStateWaiting {
                reason: Some("ImagePullBackOff".to_owned()),
                message: Some("not shown".to_owned()),
            }),
            ContainerState::from(ContainerStateTerminated {
                exit_code: Some(3),
                reason: Some("Error".to_owned()),
                message: Some("not shown".to_owned()),
                ..ContainerStateTerminated::default()
            }),
        ] {
            readings.note(&Note::Transition {
                container: "main".to_owned(),
                from: None,
                to: to(state),
                restart_count: 0,
            });
        }
        assert_eq!(
            readings.containers,
            [Container {
                name: "main".to_owned(),
                state: Some("terminated"),
                reason: Some("Error".to_owned()),
                exit_code: Some(3),
            }]
        );
        assert_eq!(readings.transitions.get("terminated"), Some(&1));
        assert_eq!(readings.transitions.get("running"), Some(&0));
    }

    #[test]
    fn every_reply_has_its_class() {
        for (status, name) in [
            (200, "2xx"),
            (307, "3xx"),
            (404, "4xx"),
            (503, "5xx"),
            (101, "5xx"),
            (700, "5xx"),
        ] {
            assert_eq!(Reply::from_status(status).name(), name);
        }
    }
}
