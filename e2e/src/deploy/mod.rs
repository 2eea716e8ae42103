//! Tests the content of deploy/ on a real node, with the programs that users have: helm and
//! kubectl.
//! Contains the list of tests, their sites, and the hold, where a developer can experiment.
//! Never here: an object of deploy/ that is created by other means than those programs.

mod admission;
mod examples;
mod helm;
pub mod hold;
mod kustomize;
mod manifests;
mod platforms;
mod server_chart;
pub mod site;
pub mod statics;
pub mod tools;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::runner::{Outcome, Played, chain, say};
use site::{Ground, Site};
use statics::Desk;

/// The time limit for one scenario.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// A check that needs no cluster. It returns the lines to print.
type Check = for<'a> fn(&'a Desk) -> Pin<Box<dyn Future<Output = Result<Vec<String>, Error>> + 'a>>;

/// A test on the node.
type Proof = for<'a> fn(&'a Site) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

/// How a scenario runs.
enum Way {
    /// Without a cluster.
    Static(Check),
    /// In a namespace with this name.
    Live(&'static str, Proof),
}

/// One entry of the list.
pub struct Scenario {
    name: &'static str,
    shows: &'static str,
    way: Way,
}

macro_rules! check {
    ($name:literal, $check:path, $shows:literal) => {
        Scenario {
            name: $name,
            shows: $shows,
            way: Way::Static(|desk| Box::pin($check(desk))),
        }
    };
}

macro_rules! proof {
    ($name:literal, $namespace:literal, $proof:path, $shows:literal) => {
        Scenario {
            name: $name,
            shows: $shows,
            way: Way::Live($namespace, |site| Box::pin($proof(site))),
        }
    };
}

/// Every scenario. Those on the node run concurrently in their own namespaces. None changes
/// another's pods.
pub const ALL: &[Scenario] = &[
    check!(
        "lint",
        statics::lint,
        "helm lint --strict for each chart with each file of values"
    ),
    check!(
        "schema",
        statics::schema,
        "the chart refuses invalid values and names them"
    ),
    check!(
        "server-schema",
        server_chart::schema,
        "the chart podbeat-server refuses invalid values and names them"
    ),
    check!(
        "server-values",
        server_chart::values,
        "Roles, URL, pod and alerts of the chart podbeat-server follow the values"
    ),
    check!(
        "objects",
        server_chart::objects_of_charts,
        "every object of both charts has only members that Kubernetes knows"
    ),
    check!(
        "values",
        statics::values,
        "dashboard and alerts follow the values"
    ),
    check!(
        "rendered",
        statics::rendered,
        "the committed files equal the generated ones"
    ),
    check!(
        "same",
        statics::same,
        "podbeat's container is the same in manifests, chart, parent chart, kustomize and launched pods"
    ),
    check!(
        "package",
        statics::package,
        "helm package creates an archive of each chart that renders the same as the chart"
    ),
    check!(
        "monitoring",
        statics::monitoring,
        "the alerts' tests, and the dashboard's expressions"
    ),
    check!(
        "example-annotations",
        examples::annotations,
        "each file of deploy/examples asks for podbeat, names its run, and has only annotations that exist"
    ),
    proof!(
        "helm",
        "helm",
        helm::release,
        "a release: install, test, upgrade, rollback, uninstall; nothing remains"
    ),
    proof!(
        "admission",
        "admission",
        admission::injection,
        "injection: pods with the label get podbeat, invalid requests are refused, other pods are not changed"
    ),
    proof!(
        "examples",
        "examples",
        examples::played,
        "the examples of other controllers: their runs, retries and task containers"
    ),
    proof!(
        "manifests",
        "manifests",
        manifests::jobs,
        "the Jobs with a native and a plain sidecar, to their end"
    ),
    proof!(
        "manifest-with-markers",
        "markers",
        manifests::markers,
        "the Job with exit markers, deleted"
    ),
    proof!(
        "reap",
        "reap",
        manifests::reap,
        "the CronJob sends the missing last heartbeat, once"
    ),
    proof!(
        "kustomize",
        "kustomize",
        kustomize::overlay,
        "kubectl apply --kustomize of the example overlay"
    ),
    proof!(
        "parent-chart",
        "parent",
        helm::parent,
        "a chart that depends on podbeat's, with its template in one line"
    ),
    // The namespace that all manifests use.
    proof!(
        "dry-run",
        "tasks",
        manifests::dry_run,
        "the API server accepts every file without a warning"
    ),
];

/// Whether there is a scenario with this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|scenario| scenario.name == name)
}

/// All names, each with a description.
#[must_use]
pub fn list() -> Vec<(&'static str, &'static str)> {
    ALL.iter()
        .map(|scenario| (scenario.name, scenario.shows))
        .collect()
}

fn chosen(names: &[String]) -> impl Iterator<Item = &'static Scenario> {
    ALL.iter()
        .filter(move |scenario| names.is_empty() || names.iter().any(|name| name == scenario.name))
}

/// Runs the chosen checks that need no cluster, or all of them, one after the other.
pub async fn check(desk: &Desk, names: &[String]) -> Outcome {
    let mut outcome = Outcome::default();
    for scenario in chosen(names) {
        if let Way::Static(check) = scenario.way {
            let begun = Instant::now();
            let result = check(desk).await;
            let (lines, result) = match result {
                Ok(lines) => (lines, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
            let lines = lines.iter().map(|line| format!("  {line}")).collect();
            outcome.0.push(told(scenario, begun, lines, &result));
        }
    }
    outcome
}

/// Runs the chosen tests on the node, or all of them, concurrently.
pub async fn prove(ground: &Arc<Ground>, names: &[String]) -> Outcome {
    let all = chosen(names).filter_map(|scenario| match scenario.way {
        Way::Live(namespace, proof) => Some(one(ground, scenario, namespace, proof)),
        Way::Static(_) => None,
    });
    futures_util::future::join_all(all)
        .await
        .into_iter()
        .collect()
}

async fn one(
    ground: &Arc<Ground>,
    scenario: &'static Scenario,
    namespace: &str,
    proof: Proof,
) -> Played {
    let begun = Instant::now();
    let (story, result) = match Site::begin(ground, namespace).await {
        Ok(site) => {
            let result = tokio::time::timeout(LONGEST, proof(&site)).await;
            let result = result.unwrap_or_else(|_| {
                Err(Error::Unexpected(format!("not finished after {LONGEST:?}")))
            });
            let story = site.play.story();
            let ended = site.play.end().await;
            (story, result.and(ended))
        }
        Err(error) => (Vec::new(), Err(error)),
    };
    told(scenario, begun, story, &result)
}

/// Prints the whole report at once, so that the output of concurrent scenarios doesn't mix.
fn told(
    scenario: &Scenario,
    begun: Instant,
    story: Vec<String>,
    result: &Result<(), Error>,
) -> Played {
    let took = begun.elapsed();
    let verdict = match result {
        Ok(()) => format!("  PASS in {:.1} s", took.as_secs_f64()),
        Err(error) => format!("  FAIL in {:.1} s: {}", took.as_secs_f64(), chain(error)),
    };
    let heading = format!("{}: {}", scenario.name, scenario.shows);
    let all: Vec<String> = std::iter::once(heading)
        .chain(story)
        .chain([verdict])
        .collect();
    say(&all.join("\n"));
    Played {
        name: scenario.name.to_owned(),
        took,
        passed: result.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_have_a_name_or_a_namespace_in_common() {
        let names: BTreeSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        let of_live = |scenario: &Scenario| match scenario.way {
            Way::Live(namespace, _) => Some(namespace),
            Way::Static(_) => None,
        };
        let live: Vec<&str> = ALL.iter().filter_map(of_live).collect();
        assert_eq!(live.iter().collect::<BTreeSet<_>>().len(), live.len());
        assert!(!live.is_empty() && live.len() < ALL.len());
    }
}
