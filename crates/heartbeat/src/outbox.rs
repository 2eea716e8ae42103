//! The heartbeats that wait for acceptance, in order and bounded. The head is sent next.

use std::collections::VecDeque;
use std::time::Duration;

use podbeat_task_runs::model::{ContainerStatus, HeartbeatTaskRunRequest};
use serde::{Deserialize, Serialize};

use super::report::texts;

/// The most heartbeats that wait. One with a `terminated` counts only if [`EXITS`] of those wait,
/// too.
pub const CAPACITY: usize = 64;

/// The most heartbeats with a `terminated` that wait. A container that crashes as fast as
/// Kubernetes restarts it (every five minutes after the backoff) reaches this in an outage of a
/// day.
pub const EXITS: usize = 256;

/// The most bytes of waiting heartbeats, as the journal writes them. They take about as much
/// memory, and twice that while the journal is written. The container has 32 MiB.
pub const LARGEST: usize = 2 << 20;

/// How much of a shortened message remains, in characters.
const KEPT: usize = 256;

/// Why a heartbeat exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The first of this process.
    First,
    /// The interval passed.
    Periodic,
    /// A reported state changed.
    Change,
    /// An exit that only `lastState` still shows.
    LostExit,
    /// The last one.
    Final,
}

impl Kind {
    /// The name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Periodic => "periodic",
            Self::Change => "change",
            Self::LostExit => "lost_exit",
            Self::Final => "final",
        }
    }

    /// Whether a heartbeat of this kind has news. One without news is not kept over a crash: the
    /// first heartbeat of the next process contains everything in it.
    #[must_use]
    pub fn brings_news(self) -> bool {
        match self {
            Self::Change | Self::LostExit | Self::Final => true,
            Self::First | Self::Periodic => false,
        }
    }
}

/// One heartbeat. All its attempts have the same nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts the heartbeats of this pod, from 1. A journal keeps the count over a restart.
    pub number: u64,
    /// Why it exists.
    pub kind: Kind,
    /// The body.
    pub request: HeartbeatTaskRunRequest,
    /// Whether it is the first with an exit. Such a heartbeat never waits for more changes, and is
    /// dropped last.
    pub tells_exit: bool,
    /// When it was queued.
    pub queued_at: Duration,
    /// How old it was when this process began, if an earlier one queued it.
    pub older_by: Duration,
    /// The earliest time to send it. Until then it collects further changes.
    pub hold_until: Duration,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether an attempt without an answer may have arrived.
    pub may_have_arrived: bool,
    /// Whether the service refused it once, so that it now goes without containerStatus. Only the
    /// last heartbeat does.
    pub stripped: bool,
}

impl Beat {
    /// How long ago it was queued.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.queued_at)
            .saturating_add(self.older_by)
    }

    /// How many bytes it takes in the journal or in memory, whichever is more.
    fn size(&self) -> usize {
        /// Numbers, times, member names, and the memory of a status without its texts.
        const FORM: usize = 512;
        let statuses = self.request.container_status.as_ref().map_or(0, Vec::len);
        FORM * (1 + statuses)
            + texts(&self.request)
                .map(|text| written(text))
                .sum::<usize>()
    }

    /// Shortens each long message to its beginning and an ellipsis. Returns whether there were any.
    fn shorten(&mut self) -> bool {
        let mut any = false;
        let statuses = self.request.container_status.iter_mut().flatten();
        let messages = statuses
            .filter_map(|status| status.state.as_mut())
            .flat_map(|state| {
                let of_exit = state
                    .terminated
                    .iter_mut()
                    .flat_map(|exit| &mut exit.message);
                let of_wait = state
                    .waiting
                    .iter_mut()
                    .flat_map(|waiting| &mut waiting.message);
                of_exit.chain(of_wait)
            });
        for text in messages {
            if let Some((end, _)) = text.char_indices().nth(KEPT) {
                text.truncate(end);
                text.push('…');
                text.shrink_to_fit();
                any = true;
            }
        }
        any
    }

    /// Removes the states of containers that have not ended: they become outdated, and an exit does
    /// not. Returns whether there were any.
    pub fn keep_exits_only(&mut self) -> bool {
        let Some(all) = self.request.container_status.take() else {
            return false;
        };
        let before = all.len();
        self.request.container_status = exits_only(all);
        self.request.container_status.as_ref().map_or(0, Vec::len) < before
    }
}

/// How many bytes JSON needs for a text.
fn written(text: &str) -> usize {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(byte).sum::<usize>()
}

/// The containers that ended; `None` if there are none.
#[must_use]
pub fn exits_only(statuses: Vec<ContainerStatus>) -> Option<Vec<ContainerStatus>> {
    let ended: Vec<_> = statuses
        .into_iter()
        .filter(|status| status.terminated().is_some())
        .collect();
    (!ended.is_empty()).then_some(ended)
}

/// The waiting heartbeats, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    beats: VecDeque<Waiting>,
}

/// A heartbeat, and an upper bound of its bytes.
#[derive(Clone, Debug)]
struct Waiting {
    beat: Beat,
    size: usize,
}

impl Outbox {
    /// Adds a heartbeat at the end and returns those that it displaced.
    ///
    /// The oldest heartbeat without an exit is displaced, but never the first, the newest, or one
    /// that was attempted (it may be in flight). If the outbox has too many bytes, long messages of
    /// older heartbeats are shortened first.
    #[must_use = "what was dropped must be counted"]
    pub fn push(&mut self, beat: Beat) -> Vec<Beat> {
        // Only the newest grows.
        if let Some(newest) = self.beats.back_mut() {
            newest.size = newest.beat.size();
        }
        let size = beat.size();
        self.beats.push_back(Waiting { beat, size });
        let exits = self.iter().filter(|beat| beat.tells_exit).count();
        let mut dropped = Vec::new();
        if self.beats.len() - exits > CAPACITY {
            dropped.extend(self.drop_oldest(|beat| !beat.tells_exit));
        } else if exits > EXITS {
            dropped.extend(self.drop_oldest(|beat| beat.tells_exit));
        }
        let mut size = self.size();
        let newest = self.beats.len().saturating_sub(1);
        for (at, waiting) in self.beats.iter_mut().enumerate() {
            if size <= LARGEST {
                break;
            }
            if may_go(&waiting.beat, at, newest) && waiting.beat.shorten() {
                let before = std::mem::replace(&mut waiting.size, waiting.beat.size());
                size = size.saturating_sub(before).saturating_add(waiting.size);
            }
        }
        while self.size() > LARGEST {
            let oldest = self.drop_oldest(|beat| !beat.tells_exit);
            let Some(beat) = oldest.or_else(|| self.drop_oldest(|_| true)) else {
                break;
            };
            dropped.push(beat);
        }
        dropped
    }

    fn size(&self) -> usize {
        self.beats.iter().map(|waiting| waiting.size).sum()
    }

    fn drop_oldest(&mut self, over: impl Fn(&Beat) -> bool) -> Option<Beat> {
        let newest = self.beats.len().saturating_sub(1);
        let victim = self
            .iter()
            .enumerate()
            .position(|(at, beat)| over(beat) && may_go(beat, at, newest))?;
        self.beats.remove(victim).map(|waiting| waiting.beat)
    }

    /// All waiting heartbeats, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Beat> {
        self.beats.iter().map(|waiting| &waiting.beat)
    }

    /// The next one to send.
    #[must_use]
    pub fn head(&self) -> Option<&Beat> {
        self.beats.front().map(|waiting| &waiting.beat)
    }

    /// The next one to send. Changes must not enlarge it.
    pub fn head_mut(&mut self) -> Option<&mut Beat> {
        self.beats.front_mut().map(|waiting| &mut waiting.beat)
    }

    /// The newest one.
    pub fn tail_mut(&mut self) -> Option<&mut Beat> {
        self.beats.back_mut().map(|waiting| &mut waiting.beat)
    }

    /// Delays the last heartbeat, if it waits, until then.
    pub fn hold_final(&mut self, until: Duration) {
        let beats = self.beats.iter_mut().map(|waiting| &mut waiting.beat);
        for beat in beats.filter(|beat| beat.kind == Kind::Final) {
            beat.hold_until = until;
        }
    }

    /// Removes and returns the head.
    pub fn pop(&mut self) -> Option<Beat> {
        self.beats.pop_front().map(|waiting| waiting.beat)
    }

    /// Removes and returns all that match, oldest first.
    pub fn take_if(&mut self, gone: impl Fn(&Beat) -> bool) -> Vec<Beat> {
        let all = std::mem::take(&mut self.beats).into_iter();
        let (taken, kept): (Vec<_>, _) = all.partition(|waiting| gone(&waiting.beat));
        self.beats = kept.into();
        taken.into_iter().map(|waiting| waiting.beat).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.beats.len()
    }

    /// Whether none is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.beats.is_empty()
    }

    /// Whether any heartbeat other than the last one waits.
    #[must_use]
    pub fn holds_transitions(&self) -> bool {
        self.iter().any(|beat| beat.kind != Kind::Final)
    }
}

/// Whether a heartbeat may be changed or dropped: neither the pod's first nor the newest, and never
/// attempted.
fn may_go(beat: &Beat, at: usize, newest: usize) -> bool {
    at != newest && beat.attempts == 0 && !matches!(beat.kind, Kind::First | Kind::Final)
}

/// Whether `now` shows an exit that `before` does not show.
#[must_use]
pub fn shows_new_exit(before: &[ContainerStatus], now: &[ContainerStatus]) -> bool {
    now.iter()
        .any(|status| status.terminated().is_some() && !before.contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat(number: u64, kind: Kind, tells_exit: bool) -> Beat {
        Beat {
            number,
            kind,
            request: HeartbeatTaskRunRequest::default(),
            tells_exit,
            queued_at: Duration::ZERO,
            older_by: Duration::ZERO,
            hold_until: Duration::ZERO,
            attempts: 0,
            may_have_arrived: false,
            stripped: false,
        }
    }

    proptest! {
        #[test]
        fn on_overflow_the_first_the_newest_and_every_exit_are_kept(exits in proptest::collection::vec(any::<bool>(), 1..400)) {
            let mut outbox = Outbox::default();
            prop_assert_eq!(outbox.push(beat(0, Kind::First, false)), vec![]);
            let mut number = 0;
            let mut told = vec![];
            for tells_exit in exits {
                number += 1;
                if tells_exit { told.push(number); }
                let dropped = outbox.push(beat(number, Kind::Change, tells_exit));
                if told.len() <= EXITS {
                    prop_assert!(dropped.iter().all(|beat| !beat.tells_exit));
                }
                prop_assert!(outbox.len() <= CAPACITY + EXITS);
            }
            let kept: Vec<u64> = outbox.iter().map(|beat| beat.number).collect();
            prop_assert_eq!(kept.first(), Some(&0));
            prop_assert_eq!(kept.last(), Some(&number));
            prop_assert!(kept.is_sorted());
            if told.len() <= EXITS {
                prop_assert!(told.iter().all(|number| kept.contains(number)));
            }
        }
    }

    fn exit(number: u64, containers: usize, message: &str) -> Beat {
        let exit = podbeat_task_runs::model::ContainerStateTerminated {
            exit_code: Some(1),
            message: Some(message.to_owned()),
            ..Default::default()
        };
        let status = ContainerStatus {
            name: Some("main".to_owned()),
            state: Some(exit.into()),
        };
        let mut beat = beat(number, Kind::Change, true);
        beat.request.container_status = Some(vec![status; containers]);
        beat
    }

    fn messages(beat: &Beat) -> Vec<&str> {
        let statuses = beat.request.container_status.iter().flatten();
        statuses
            .filter_map(|status| status.terminated()?.message.as_deref())
            .collect()
    }

    #[test]
    fn old_messages_are_shortened_before_any_exit_is_dropped() {
        // The longest messages of a pod, of characters that JSON writes in six bytes.
        let message = "\u{1}".repeat(12 << 10);
        let mut outbox = Outbox::default();
        for number in 0..EXITS as u64 {
            assert_eq!(outbox.push(exit(number, 1, &message)), vec![], "{number}");
        }
        let size: usize = outbox.iter().map(Beat::size).sum();
        assert!(size <= LARGEST && size > LARGEST / 2, "{size}");
        let lengths: Vec<usize> = outbox
            .iter()
            .map(|beat| messages(beat)[0].chars().count())
            .collect();
        assert_eq!((lengths[0], lengths[EXITS - 1]), (KEPT + 1, message.len()));
        assert!(lengths.is_sorted(), "the newest are whole");
        assert!(messages(outbox.head().expect("waiting"))[0].ends_with('…'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The bound in bytes always applies, and the protected heartbeats stay.
        #[test]
        fn what_waits_is_bounded_in_bytes(
            pushed in proptest::collection::vec((0..40usize, "[a\u{1}\"é]{0,40}", any::<bool>()), 1..100),
            attempted in any::<bool>(),
        ) {
            let mut outbox = Outbox::default();
            let mut first = exit(0, 1, "first");
            first.attempts = u32::from(attempted);
            let _ = outbox.push(first.clone());
            for (number, (containers, message, tells_exit)) in (1u64..).zip(&pushed) {
                let mut next = exit(number, *containers, &message.repeat(20));
                next.tells_exit = *tells_exit;
                let newest = next.clone();
                for dropped in outbox.push(next) {
                    prop_assert!(dropped.attempts == 0 && dropped.number != number);
                }
                prop_assert_eq!(outbox.tail_mut(), Some(&mut newest.clone()));
                let size: usize = outbox.iter().map(Beat::size).sum();
                prop_assert!(size <= LARGEST, "{}", size);
                prop_assert!(outbox.iter().map(|beat| beat.number).is_sorted());
            }
            prop_assert!(!attempted || outbox.head() == Some(&first));
        }
    }

    proptest! {

        #[test]
        fn no_written_heartbeat_is_larger_than_calculated(containers in 0..9usize, message in ".{0,300}\\PC*[\u{0}-\u{1f}\"\\\\]*") {
            let mut beat = exit(u64::MAX, containers, &message);
            beat.request.nonce = Some(message.clone());
            beat.request.pod_name = Some(message);
            let saved = crate::saved::SavedBeat::of(&beat, true, jiff::Timestamp::MAX);
            let written = serde_json::to_string(&saved).expect("JSON");
            prop_assert!(written.len() <= beat.size(), "{} {}", written.len(), beat.size());
        }
    }
}
