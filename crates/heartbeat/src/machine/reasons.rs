//! What the API says of why the pod ends or can't begin: for the log and the journal. It decides nothing, and no heartbeat tells it.

use super::{Action, Machine, Note};
use crate::observation::Observation;
use crate::observation::Why;

/// Reasons that are remembered, the newest. A pod has one or two.
const REASONS: usize = 16;

/// Characters of a message that are remembered. What Kubernetes says of an eviction or of its scheduler has room in it.
const LONGEST: usize = 512;

impl Machine {
    /// Notes a deletion, and each reason once for each process: a message may change with every look, and each process has a log of
    /// its own. What came once the last heartbeat was due did not end the task, and is not kept; but for the pod's own reason, which
    /// the kubelet gives so late.
    pub(super) fn note_reasons(&mut self, pod: &Observation, open: bool, actions: &mut Vec<Action>) {
        let deletion = pod.deletion.map(|deletion| deletion.at);
        let begins = self.seen.as_ref().is_none_or(|seen| seen.deletion.is_none());
        if let Some(at) = deletion.filter(|_| begins) {
            actions.push(Action::Note(Note::Deletion(at)));
        }
        if open {
            self.unsaved |= std::mem::replace(&mut self.deletion_at, deletion) != deletion;
        }
        for why in &pod.why {
            if self.why.iter().any(|(known, _)| known.is_same_as(why)) {
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
            self.unsaved |= is_kept;
            self.earlier_why.retain(|earlier| !earlier.is_same_as(&why));
            if self.why.len() == REASONS {
                self.why.remove(0);
            }
            self.why.push((why, is_kept));
        }
    }

    /// Every reason that is kept, an earlier process's first.
    pub(super) fn reasons(&self) -> Vec<Why> {
        let own = self.why.iter().filter(|(_, is_kept)| *is_kept);
        let all = self.earlier_why.iter().chain(own.map(|(why, _)| why));
        let excess = all.clone().count().saturating_sub(REASONS);
        all.skip(excess).cloned().collect()
    }
}
