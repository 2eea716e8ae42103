//! Which runs of a list were already shown, and with which state.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use podbeat_task_runs::model::TaskRunSummary;

/// More runs match than podbeat can watch.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "more than {} task runs match; narrow the list, for example with --status",
    Known::MOST
)]
pub(super) struct TooMany;

/// The runs of a list that were already shown, at 16 bytes each.
#[derive(Debug, Default)]
pub(super) struct Known {
    shown: HashMap<u64, u64>,
    hashes: RandomState,
}

impl Known {
    /// The maximum number of runs to watch for changes. They take about 4 MiB.
    const MOST: usize = 100_000;

    /// Whether the run is new or changed since it was last shown.
    pub(super) fn is_news(&mut self, run: &TaskRunSummary) -> Result<bool, TooMany> {
        let whole = serde_json::to_string(run).unwrap_or_default();
        let (id, state) = (self.hashes.hash_one(&run.id), self.hashes.hash_one(whole));
        if self.shown.len() >= Self::MOST && !self.shown.contains_key(&id) {
            return Err(TooMany);
        }
        Ok(self.shown.insert(id, state) != Some(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_news_when_it_comes_and_when_it_changes() {
        let run = |status: &str| -> TaskRunSummary {
            serde_json::from_value(serde_json::json!({"id": "trn.1", "status": status}))
                .expect("a run")
        };
        let mut known = Known::default();
        let mut is_news = |status| known.is_news(&run(status)).expect("room");
        assert_eq!(
            ["Pending", "Pending", "Running", "Running", "Pending"].map(&mut is_news),
            [true, false, true, false, true]
        );
    }
}
