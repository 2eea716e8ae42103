//! Whole pod lives on the real node, each a test: podbeat in its own image, next to a task, under
//! kubelet.
//! Contains the list of scenarios, and their actions and observations.
//! Never here: the start of the node, or a wait for time instead of a state.

mod deletions;
mod endings;
mod facts;
mod jobs;
pub(crate) mod markers;
mod outages;
pub mod play;
pub mod pods;
pub mod recording;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use crate::Error;
use crate::runner::{Outcome, Played, chain, say};
use play::{Play, Stage};
use pods::Kind::{self, Native, Plain};

/// How many lives run concurrently. The node has two cores, and most of each life is waiting.
const AT_ONCE: usize = 6;

/// The time limit for one life.
const LONGEST: Duration = Duration::from_secs(15 * 60);

type Life =
    for<'a> fn(&'a Play, Kind) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Whether other scenarios may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// It takes so long that it starts first and continues next to all others.
    Long,
    /// With others.
    Any,
    /// It stops something that all need, so only the long ones run next to it.
    Alone,
}

/// One entry of the list.
pub struct Scenario {
    name: &'static str,
    kinds: &'static [Kind],
    company: Company,
    shows: &'static str,
    life: Life,
}

macro_rules! scenario {
    ($name:literal, $kinds:expr, $company:ident, $life:path, $shows:literal) => {
        Scenario {
            name: $name,
            kinds: $kinds,
            company: Company::$company,
            shows: $shows,
            life: |play, kind| Box::pin($life(play, kind)),
        }
    };
}

const BOTH: &[Kind] = &[Native, Plain];
/// One scenario with pods of both kinds, or one about native sidecars only.
const ONE: &[Kind] = &[Native];

/// Every scenario.
pub const ALL: &[Scenario] = &[
    scenario!(
        "token-rotation",
        ONE,
        Long,
        outages::token_rotation,
        "the service account's token is replaced and the old one refused; the watch continues (both kinds; over ten minutes)"
    ),
    scenario!("complete", BOTH, Any, endings::complete, "main exits 0"),
    scenario!("fail", BOTH, Any, endings::fail, "main exits 3"),
    scenario!(
        "oom-main",
        BOTH,
        Any,
        endings::oom_main,
        "main is OOM-killed"
    ),
    scenario!(
        "oom-sidecar",
        BOTH,
        Any,
        endings::oom_sidecar,
        "podbeat is OOM-killed, restarts, and continues from its journal"
    ),
    scenario!(
        "restarts",
        BOTH,
        Any,
        endings::restarts,
        "OnFailure: main fails three times, then succeeds"
    ),
    scenario!(
        "restart-all",
        BOTH,
        Any,
        endings::restart_all,
        "main's rule restarts all containers; its second run succeeds"
    ),
    scenario!(
        "resize",
        BOTH,
        Any,
        endings::resize,
        "the pod and main get more CPU while main runs; nothing restarts, and main succeeds"
    ),
    scenario!(
        "stopped-alone",
        BOTH,
        Any,
        endings::stopped_alone,
        "only podbeat's container gets another image and restarts; main continues and succeeds"
    ),
    scenario!(
        "no-image",
        BOTH,
        Any,
        endings::no_image,
        "main's image can't be pulled; the pod is deleted"
    ),
    scenario!(
        "config-error",
        BOTH,
        Any,
        endings::config_error,
        "main can't be created because a ConfigMap is missing; the pod is deleted"
    ),
    scenario!(
        "failed-init",
        ONE,
        Any,
        endings::failed_init,
        "an init container fails; main never starts"
    ),
    scenario!(
        "early-main",
        ONE,
        Any,
        endings::early_main,
        "main ends before a plain sidecar has started"
    ),
    scenario!(
        "two-mains",
        BOTH,
        Any,
        endings::two_mains,
        "two task containers end at different times"
    ),
    scenario!(
        "delete",
        BOTH,
        Any,
        deletions::delete,
        "deleted with a grace of 30 s: the API shows `running` until the end"
    ),
    scenario!(
        "delete-grace-1",
        BOTH,
        Any,
        deletions::delete_grace_1,
        "deleted with a grace of 1 s"
    ),
    scenario!(
        "delete-force",
        BOTH,
        Any,
        deletions::delete_force,
        "deleted by force: the object is gone at once"
    ),
    scenario!(
        "evict",
        BOTH,
        Any,
        deletions::evict,
        "evicted through the API"
    ),
    scenario!(
        "deadline",
        BOTH,
        Any,
        deletions::deadline,
        "activeDeadlineSeconds passes"
    ),
    scenario!(
        "recreated",
        BOTH,
        Any,
        deletions::recreated,
        "another pod with the same name is another pod"
    ),
    scenario!(
        "job-retries",
        BOTH,
        Any,
        jobs::retries,
        "a Job with backoffLimit: the first pod fails and the second succeeds, with retry counts 0 and 1, and so does the run"
    ),
    scenario!(
        "job-indexed",
        BOTH,
        Any,
        jobs::indexed,
        "an indexed Job's failure count is sent as jobRetryCount"
    ),
    scenario!(
        "service-down",
        BOTH,
        Any,
        outages::service_down,
        "the service is down when the pod ends, and back within the grace"
    ),
    scenario!(
        "markers-complete",
        BOTH,
        Any,
        markers::complete,
        "podbeat exec passes on signals, the exit code and orphans; an exit code in the API takes precedence"
    ),
    scenario!(
        "markers-delete",
        BOTH,
        Any,
        markers::delete,
        "deleted: the exit marker has the exit code that the API does not show"
    ),
    scenario!(
        "markers-deadline",
        BOTH,
        Any,
        markers::deadline,
        "activeDeadlineSeconds: likewise"
    ),
    scenario!(
        "fact-1",
        ONE,
        Any,
        facts::withheld,
        "pins fact 1: no exit is published before every container has ended"
    ),
    scenario!(
        "fact-2",
        ONE,
        Any,
        facts::sigterm_and_event,
        "pins fact 2: SIGTERM arrives at about the time of the event of main's end"
    ),
    scenario!(
        "fact-3",
        ONE,
        Any,
        facts::order_of_the_end,
        "pins fact 3: the order of SIGTERM, the last 2 s, restarts"
    ),
    scenario!(
        "fact-5",
        ONE,
        Any,
        facts::last_state,
        "pins fact 5: lastState has the exit that state no longer shows"
    ),
    scenario!(
        "kubelet-restart",
        ONE,
        Alone,
        outages::kubelet_restart,
        "main ends while kubelet is down (both kinds)"
    ),
    scenario!(
        "partition",
        ONE,
        Alone,
        outages::partition,
        "the node loses the API server and the service silently for 20 s (both kinds)"
    ),
    scenario!(
        "partition-at-the-end",
        ONE,
        Alone,
        outages::partition_at_the_end,
        "main ends while the node is disconnected (both kinds, with markers and without)"
    ),
    // These come last, because kubelet takes up to half a minute to recover.
    scenario!(
        "api-down",
        ONE,
        Alone,
        outages::api_down,
        "the API server is down for 20 s while main runs (both kinds)"
    ),
    scenario!(
        "api-down-at-the-end",
        ONE,
        Alone,
        outages::api_down_at_the_end,
        "the API server is down when main ends (both kinds, with markers and without)"
    ),
];

/// The lives that CI plays for each change. They show every fact of docs/kubernetes-facts.md.
/// `just nightly` plays all lives.
pub const FACTS: [&str; 16] = [
    "fact-1",
    "no-image/native",
    "markers-deadline/plain",
    "fact-2",
    "fact-3",
    "restarts/plain",
    "fact-5",
    "partition-at-the-end",
    "kubelet-restart",
    "api-down",
    "recreated/plain",
    "oom-main/native",
    "oom-sidecar/plain",
    "failed-init",
    "job-retries/native",
    "job-indexed/plain",
];

/// One life to play.
struct Turn {
    scenario: &'static Scenario,
    kind: Kind,
}

impl Turn {
    fn name(&self) -> String {
        match self.scenario.kinds {
            [_] => self.scenario.name.to_owned(),
            _ => format!("{}/{}", self.scenario.name, self.kind.name()),
        }
    }
}

/// Whether this is the name of a scenario, or of one of its kinds as `NAME/native` or `NAME/plain`.
#[must_use]
pub fn is_known(name: &str) -> bool {
    !turns(&[name.to_owned()]).is_empty()
}

/// All names, each with a description.
#[must_use]
pub fn list() -> Vec<(String, &'static str)> {
    turns(&[])
        .iter()
        .map(|turn| (turn.name(), turn.scenario.shows))
        .collect()
}

fn turns(chosen: &[String]) -> Vec<Turn> {
    let all = ALL.iter().flat_map(|scenario| {
        scenario.kinds.iter().map(move |kind| Turn {
            scenario,
            kind: *kind,
        })
    });
    all.filter(|turn| {
        chosen.is_empty()
            || chosen
                .iter()
                .any(|name| *name == turn.name() || name == turn.scenario.name)
    })
    .collect()
}

/// Plays the chosen lives, or all of them.
pub async fn play(stage: &Arc<Stage>, chosen: &[String]) -> Outcome {
    let of = |company: Company| {
        turns(chosen)
            .into_iter()
            .filter(move |turn| turn.scenario.company == company)
            .map(|turn| one(stage, turn))
    };
    let long = futures_util::future::join_all(of(Company::Long));
    let others = async {
        let mut done: Vec<_> = futures_util::stream::iter(of(Company::Any))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for alone in of(Company::Alone) {
            done.push(alone.await);
        }
        done
    };
    let (long, others) = tokio::join!(long, others);
    others.into_iter().chain(long).collect()
}

async fn one(stage: &Arc<Stage>, turn: Turn) -> Played {
    let name = turn.name();
    let begun = Instant::now();
    let _outage = match turn.scenario.company {
        Company::Alone => Some(stage.calm.write().await),
        Company::Any | Company::Long => None,
    };
    let (story, result) = match Play::begin(stage, &name).await {
        Ok(play) => {
            let life = tokio::time::timeout(LONGEST, (turn.scenario.life)(&play, turn.kind));
            let result = life.await.unwrap_or_else(|_| {
                Err(Error::Unexpected(format!("not finished after {LONGEST:?}")))
            });
            let story = play.story();
            let ended = play.end().await;
            (story, result.and(ended))
        }
        Err(error) => (Vec::new(), Err(error)),
    };
    let took = begun.elapsed();
    let verdict = match &result {
        Ok(()) => format!("  PASS in {:.1} s", took.as_secs_f64()),
        Err(error) => format!("  FAIL in {:.1} s: {}", took.as_secs_f64(), chain(error)),
    };
    // In one piece, so that the output of concurrent lives doesn't mix.
    let heading = format!("{name}: {}", turn.scenario.shows);
    let all: Vec<String> = std::iter::once(heading)
        .chain(story)
        .chain([verdict])
        .collect();
    say(&all.join("\n"));
    Played {
        name,
        took,
        passed: result.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_valid_for_a_namespace() {
        let names: Vec<String> = list().into_iter().map(|(name, _)| name).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for name in names {
            let namespace = name.replace('/', "-");
            assert!(namespace.len() <= 63, "{name}");
            assert!(
                namespace
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{name}"
            );
        }
    }

    /// If no life of [`FACTS`] shows a fact, only `just nightly` would notice that the fact
    /// changed.
    #[test]
    fn the_scenarios_of_each_change_cover_every_fact() {
        let names: Vec<String> = list().into_iter().map(|(name, _)| name).collect();
        for life in FACTS {
            assert!(names.iter().any(|name| name == life), "{life} is one life");
        }
        let page = include_str!("../../../docs/kubernetes-facts.md");
        let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
        let numbered = |section: &&&str| section.starts_with(|first: char| first.is_ascii_digit());
        assert_eq!(
            sections.iter().filter(numbered).count(),
            8,
            "all facts are read"
        );
        for section in sections.iter().filter(numbered) {
            let shown = FACTS.iter().any(|life| {
                let scenario = life.split('/').next().expect("a name");
                section.contains(&format!("`{life}`")) || section.contains(&format!("`{scenario}`"))
            });
            assert!(shown, "this section names no scenario of FACTS: {section}");
        }
    }

    #[test]
    fn a_scenario_is_selected_as_a_whole_or_by_kind() {
        let names = |chosen: &str| -> Vec<String> {
            turns(&[chosen.to_owned()]).iter().map(Turn::name).collect()
        };
        assert_eq!(names("complete"), ["complete/native", "complete/plain"]);
        assert_eq!(names("complete/plain"), ["complete/plain"]);
        assert_eq!(names("partition"), ["partition"]);
        assert!(!is_known("partition/plain") && !is_known("nothing"));
        assert_eq!(turns(&[]).len(), list().len());
    }
}
