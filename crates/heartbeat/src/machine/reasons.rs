//! Why the pod ends or cannot start, as the API says it: for the log and the journal. No decision
//! depends on it, and no heartbeat contains it.

use jiff::Timestamp;

use super::{Action, Note};
use crate::observation::{Observation, Why};

/// The most reasons that are kept, the newest. A pod has one or two.
const REASONS: usize = 16;

/// The most characters of a message that are kept: enough for Kubernetes' messages about an
/// eviction or from its scheduler.
const LONGEST: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// What this process saw, and whether a journal keeps it.
    own: Vec<(Why, bool)>,
    /// What an earlier process saw and this one did not.
    pub(super) earlier: Vec<Why>,
    /// `metadata.deletionTimestamp`, as an earlier process saw it, too.
    pub(super) deletion_at: Option<Timestamp>,
}

impl Reasons {
    /// Notes a deletion that `begins`, and each reason once for each process: a message may change
    /// with every observation, and each process has a log of its own. After the last heartbeat is
    /// due (not `open`), a reason did not end the task and is not kept, except the pod's own, which
    /// the kubelet sets that late. Returns whether a journal must record a change.
    pub(super) fn observe(
        &mut self,
        pod: &Observation,
        begins: bool,
        open: bool,
        actions: &mut Vec<Action>,
    ) -> bool {
        let mut unsaved = false;
        let deletion = pod.deletion.map(|deletion| deletion.at);
        if let Some(at) = deletion.filter(|_| begins) {
            actions.push(Action::Note(Note::Deletion(at)));
        }
        if open {
            unsaved = std::mem::replace(&mut self.deletion_at, deletion) != deletion;
        }
        for why in &pod.why {
            if self.own.iter().any(|(known, _)| known.is_same_as(why)) {
                continue;
            }
            let is_kept = open || why.is_the_pods_own();
            let why = Why {
                message: why
                    .message
                    .as_ref()
                    .map(|text| text.chars().take(LONGEST).collect()),
                ..why.clone()
            };
            actions.push(Action::Note(Note::Why(Box::new(why.clone()))));
            unsaved |= is_kept;
            self.earlier.retain(|earlier| !earlier.is_same_as(&why));
            if self.own.len() == REASONS {
                self.own.remove(0);
            }
            self.own.push((why, is_kept));
        }
        unsaved
    }

    /// Every reason that is kept, those of an earlier process first.
    pub(super) fn kept(&self) -> Vec<Why> {
        let own = self.own.iter().filter(|(_, is_kept)| *is_kept);
        let all = self.earlier.iter().chain(own.map(|(why, _)| why));
        let excess = all.clone().count().saturating_sub(REASONS);
        all.skip(excess).cloned().collect()
    }
}
