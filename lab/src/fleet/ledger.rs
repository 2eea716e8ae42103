//! Compares the heartbeats of each run with the changes of its pod. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::scenario::{Member, STEPS, mark};
use crate::service::Heartbeat;

/// One received heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived, since the service's start.
    pub at: Duration,
    /// The number of its pod in the fleet.
    pub nth: usize,
    /// Whether the service accepted it.
    pub accepted: bool,
}

/// All heartbeats of a fleet.
#[derive(Debug, Default)]
pub struct Ledger {
    nth_of: HashMap<String, usize>,
    runs: Vec<OfRun>,
    /// The marks of each run's steps. They are computed once, because thousands are looked up many
    /// times.
    marks: Vec<Vec<Option<String>>>,
    arrivals: Vec<Arrival>,
    violations: Vec<String>,
    too_early: usize,
    refused: usize,
    repeated: usize,
    strangers: usize,
}

#[derive(Clone, Debug, Default)]
struct OfRun {
    /// The accepted states of `main` without repetitions, and when they arrived.
    told: Vec<(String, Duration)>,
    finals: usize,
    /// The nonce of the last heartbeat.
    final_nonce: Option<String>,
    after_final: usize,
    /// The earliest time for the next heartbeat, from Retry-After.
    not_before: Option<Duration>,
}

impl Ledger {
    /// Creates a ledger for the runs of a fleet: their IDs, by the number of the pod.
    #[must_use]
    pub fn new(runs: &[String]) -> Self {
        let size = runs.len();
        Self {
            nth_of: runs.iter().cloned().zip(0..).collect(),
            runs: vec![OfRun::default(); size],
            marks: (0..size)
                .map(|nth| (0..STEPS).map(|step| mark_at(nth, step)).collect())
                .collect(),
            ..Self::default()
        }
    }

    /// Records a heartbeat. Call it in the order of arrival.
    pub fn hear(&mut self, heartbeat: &Heartbeat) {
        const MOST_VIOLATIONS: usize = 20;
        let room = MOST_VIOLATIONS.saturating_sub(self.violations.len());
        self.violations
            .extend(heartbeat.violations.iter().take(room).cloned());
        let Some(&nth) = self.nth_of.get(&heartbeat.run_id) else {
            self.strangers += 1;
            return;
        };
        let Some(run) = self.runs.get_mut(nth) else {
            return;
        };
        let at = heartbeat.at;
        self.arrivals.push(Arrival {
            at,
            nth,
            accepted: heartbeat.accepted,
        });
        if run.not_before.is_some_and(|not_before| at < not_before) {
            self.too_early += 1;
        }
        run.not_before = heartbeat.retry_after.map(|wait| at + wait);
        if heartbeat.status == Some(503) {
            self.refused += 1;
        }
        if !heartbeat.accepted {
            return;
        }
        if heartbeat.is_final() && !heartbeat.nonce().is_empty() {
            // podbeat sends its last heartbeat again if an earlier request had no answer, because
            // that request may arrive late.
            let nonce = heartbeat.nonce();
            if run.final_nonce.as_deref() == Some(nonce) {
                self.repeated += 1;
                return;
            }
            run.final_nonce = Some(nonce.to_owned());
        }
        if run.finals > 0 {
            run.after_final += 1;
        }
        run.finals += usize::from(heartbeat.is_final());
        let statuses = heartbeat
            .body
            .get("containerStatus")
            .and_then(|all| all.as_array());
        let main = statuses
            .into_iter()
            .flatten()
            .find(|status| status.get("name").and_then(|name| name.as_str()) == Some("main"));
        if let Some(told) = main.and_then(|main| mark(main.get("state")?))
            && run.told.last().map(|(last, _)| last) != Some(&told)
        {
            run.told.push((told, at));
        }
    }

    /// Every received heartbeat, in order.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// When each run's first heartbeat after `from` was accepted.
    #[must_use]
    pub fn first_accepted_since(&self, from: Duration) -> Vec<Duration> {
        let mut seen = vec![false; self.runs.len()];
        let accepted = self
            .arrivals
            .iter()
            .filter(|arrival| arrival.accepted && arrival.at >= from);
        accepted
            .filter(|arrival| {
                seen.get_mut(arrival.nth)
                    .is_some_and(|seen| !std::mem::replace(seen, true))
            })
            .map(|arrival| arrival.at)
            .collect()
    }

    /// How many runs reported a step of their life.
    #[must_use]
    pub fn told_of(&self, step: usize) -> usize {
        let told = self.runs.iter().enumerate().filter(|(nth, run)| {
            let wanted = self.mark(*nth, step);
            run.told.iter().rev().any(|(told, _)| Some(told) == wanted)
        });
        told.count()
    }

    /// When a run's heartbeat with this step was first accepted.
    #[must_use]
    pub fn accepted_at(&self, nth: usize, step: usize) -> Option<Duration> {
        let wanted = self.mark(nth, step)?;
        let mut told = self.runs.get(nth)?.told.iter();
        told.find(|(told, _)| told == wanted).map(|(_, at)| *at)
    }

    /// How many runs had their last heartbeat accepted.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.runs.iter().filter(|run| run.finals > 0).count()
    }

    fn mark(&self, nth: usize, step: usize) -> Option<&String> {
        self.marks.get(nth)?.get(step)?.as_ref()
    }

    /// The lost changes: how many of the changes up to a step were never accepted, or were reported
    /// out of order.
    #[must_use]
    pub fn lost(&self, steps: usize) -> usize {
        let lost = self.runs.iter().enumerate().map(|(nth, run)| {
            let mut told = run.told.iter();
            (0..=steps)
                .filter(|&step| {
                    let wanted = self.mark(nth, step);
                    let mut rest = told.clone();
                    let found = rest.any(|(told, _)| Some(told) == wanted);
                    if found {
                        told = rest;
                    }
                    !found
                })
                .count()
        });
        lost.sum()
    }

    /// How many reported states match no change up to a step, or repeat one.
    #[must_use]
    pub fn invented(&self, steps: usize) -> usize {
        let told: usize = self.runs.iter().map(|run| run.told.len()).sum();
        (told + self.lost(steps)).saturating_sub(self.runs.len() * (steps + 1))
    }

    /// How many runs didn't end with exactly one accepted last heartbeat.
    #[must_use]
    pub fn without_one_final(&self) -> usize {
        let wrong = |run: &&OfRun| run.finals != 1 || run.after_final > 0;
        self.runs.iter().filter(wrong).count()
    }

    /// Heartbeats that arrived before the end of their Retry-After.
    #[must_use]
    pub fn too_early(&self) -> usize {
        self.too_early
    }

    /// Answers with 503.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Accepted repetitions of last heartbeats.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// Heartbeats of runs outside the fleet.
    #[must_use]
    pub fn strangers(&self) -> usize {
        self.strangers
    }

    /// The first violations of the contract.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

fn mark_at(nth: usize, step: usize) -> Option<String> {
    mark(Member { nth }.status(step).get("state")?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scenario::LAST;
    use super::*;

    const RETRY: Duration = Duration::from_secs(10);

    fn heartbeat(seconds: u64, nth: usize, step: usize, is_final: bool) -> Heartbeat {
        let member = Member { nth };
        let state = member.status(step).get("state").cloned();
        Heartbeat {
            at: Duration::from_secs(seconds),
            run_id: format!("trn.{nth}"),
            path: String::new(),
            body: json!({"lastHeartbeat": is_final, "containerStatus": [{"name": "main", "state": state}]}),
            token: None,
            content_type: None,
            user_agent: None,
            traceparent: None,
            status: Some(200),
            retry_after: None,
            accepted: true,
            violations: Vec::new(),
        }
    }

    fn refused(heartbeat: Heartbeat) -> Heartbeat {
        Heartbeat {
            status: Some(503),
            retry_after: Some(RETRY),
            accepted: false,
            ..heartbeat
        }
    }

    fn received(all: &[Heartbeat]) -> Ledger {
        let mut ledger = Ledger::new(&["trn.0".to_owned()]);
        all.iter().for_each(|heartbeat| ledger.hear(heartbeat));
        ledger
    }

    #[test]
    fn a_whole_life_loses_nothing() {
        let life: Vec<Heartbeat> = (0..STEPS)
            .map(|step| heartbeat(0, 0, step, step == LAST))
            .collect();
        let ledger = received(&life);
        assert_eq!((ledger.lost(LAST), ledger.invented(LAST)), (0, 0));
        assert_eq!((ledger.without_one_final(), ledger.ended()), (0, 1));
        assert_eq!(ledger.told_of(LAST), 1);
        assert_eq!(
            received(&[
                heartbeat(3, 0, 0, false),
                heartbeat(5, 0, 1, false),
                heartbeat(9, 0, 1, false)
            ])
            .accepted_at(0, 1),
            Some(Duration::from_secs(5))
        );
    }

    #[test]
    fn lost_and_repeated_changes_are_found() {
        let beat = |step| heartbeat(0, 0, step, false);
        assert_eq!(received(&[beat(0), beat(2)]).lost(2), 1);
        assert_eq!(received(&[beat(0), refused(beat(1)), beat(2)]).lost(2), 1);
        assert_eq!(
            received(&[beat(1), beat(0), beat(2)]).lost(2),
            1,
            "in another order"
        );
        let again = received(&[beat(0), beat(1), beat(0), beat(2)]);
        assert_eq!((again.lost(2), again.invented(2)), (0, 1));
        assert_eq!(
            received(&[beat(0), beat(0), beat(1)]).invented(1),
            0,
            "only repeated"
        );
        assert_eq!(received(&[heartbeat(0, 1, 0, false)]).strangers(), 1);
    }

    #[test]
    fn exactly_one_final_comes_last() {
        let end = || heartbeat(0, 0, LAST, true);
        assert_eq!(received(&[end()]).without_one_final(), 0);
        assert_eq!(received(&[end(), end()]).without_one_final(), 1);
        let with_nonce = |nonce: &str| {
            let mut heartbeat = end();
            heartbeat.body["nonce"] = json!(nonce);
            heartbeat
        };
        let again = received(&[with_nonce("a"), with_nonce("a")]);
        assert_eq!((again.without_one_final(), again.repeated()), (0, 1));
        let another = received(&[with_nonce("a"), with_nonce("b")]);
        assert_eq!((another.without_one_final(), another.repeated()), (1, 0));
        assert_eq!(
            received(&[heartbeat(0, 0, LAST, false)]).without_one_final(),
            1
        );
        assert_eq!(
            received(&[end(), heartbeat(1, 0, LAST, false)]).without_one_final(),
            1
        );
    }

    #[test]
    fn agents_that_ignore_retry_after_are_found() {
        let beat = |seconds| heartbeat(seconds, 0, 0, false);
        assert_eq!(
            received(&[refused(beat(0)), beat(10), beat(11)]).too_early(),
            0
        );
        let early = received(&[refused(beat(0)), refused(beat(9)), beat(18)]);
        assert_eq!((early.too_early(), early.refused()), (2, 2));
        assert_eq!(
            early.first_accepted_since(Duration::from_secs(1)),
            [Duration::from_secs(18)]
        );
    }
}
