//! podbeat-server launches runs on a real node: runs of all kinds at once, while the server is
//! killed again and again.
//! Contains the server as a process, its namespaces, the table of runs, and the check of what is
//! left.
//! Never here: a Job, Secret or pod that podbeat-server did not create itself.

pub mod crowd;
pub mod ground;
pub mod jobs;
pub mod server;
pub mod table;
pub mod up;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podbeat_task_runs::model::TaskRun;
use serde_json::Value;
use tokio::time::Instant;

use crate::runner::{Outcome, Played, chain, say};
use crate::{Error, network};
use ground::{Ground, NAMESPACE, QUOTA};
use jobs::Known;
use server::Server;
use table::{Act, CASES, Case};

/// The time limit for one run, from its creation until nothing is left of it.
const LONGEST: Duration = Duration::from_secs(150);

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often the server is killed while the runs live.
const KILLS: u32 = 12;

/// How long the node is cut off.
const CUT: Duration = Duration::from_secs(8);

/// The Jobs that there ever were.
type Jobs = Arc<Mutex<Known>>;

/// Creates all runs at once, kills the server meanwhile, and checks each run's end.
///
/// # Errors
/// The server can't be started, or the API server refuses what an administrator does.
pub async fn play(ground: &Arc<Ground>, names: &[String]) -> Result<Outcome, Error> {
    let server = Server::start(ground.site.clone(), &[NAMESPACE, QUOTA]).await?;
    let jobs = Jobs::default();
    let watching = tokio::spawn(jobs::watch(ground.stage.admin.clone(), Arc::clone(&jobs)));
    let cases = CASES
        .iter()
        .filter(|case| names.is_empty() || names.iter().any(|name| name == case.name));
    let all = cases.map(|case| one(ground, &server, &jobs, case));
    let trouble = trouble(&server, names.is_empty());
    let (mut played, killed) = tokio::join!(futures_util::future::join_all(all), trouble);
    killed?;
    played.push(nothing_is_left(ground).await);
    watching.abort();
    say(&format!(
        "podbeat-server was killed {} times",
        server.kills()
    ));
    Ok(played.into_iter().collect())
}

/// Kills the server, and cuts the node off for a while.
async fn trouble(server: &Server, is_whole: bool) -> Result<(), Error> {
    // All runs are created first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The same in each run.
    let mut random = fastrand::Rng::with_seed(7);
    for kill in 0..if is_whole { KILLS } else { 2 } {
        tokio::time::sleep(Duration::from_millis(random.u64(300..2800))).await;
        server.kill_and_restart().await?;
        if is_whole && kill == KILLS / 2 {
            network::partition()?;
            tokio::time::sleep(CUT).await;
            network::heal()?;
        }
    }
    Ok(())
}

async fn one(ground: &Ground, server: &Server, jobs: &Jobs, case: &'static Case) -> Played {
    let begun = Instant::now();
    let mut story = Vec::new();
    let live = live(ground, server, jobs, case, &mut story);
    let result = match tokio::time::timeout(LONGEST, live).await {
        Ok(result) => result,
        Err(_) => Err(Error::Unexpected(format!("not over after {LONGEST:?}"))),
    };
    let took = begun.elapsed();
    let verdict = match &result {
        Ok(()) => format!("  PASS in {:.1} s", took.as_secs_f64()),
        Err(error) => format!("  FAIL in {:.1} s: {}", took.as_secs_f64(), chain(error)),
    };
    let heading = format!("{}: {}", case.name, case.shows);
    let lines = std::iter::once(heading).chain(story).chain([verdict]);
    say(&lines.collect::<Vec<_>>().join("\n"));
    Played {
        name: case.name.to_owned(),
        took,
        passed: result.is_ok(),
    }
}

async fn live(
    ground: &Ground,
    server: &Server,
    jobs: &Jobs,
    case: &'static Case,
    story: &mut Vec<String>,
) -> Result<(), Error> {
    let begun = Instant::now();
    let created = server.create(case).await;
    if let Some(refusal) = case.refused {
        return match created {
            Err(error) if chain(&error).contains(refusal) => Ok(()),
            Err(error) => Err(error),
            Ok(run) => Err(Error::Unexpected(format!(
                "expected a refusal with {refusal:?}, and it was created: {run:?}"
            ))),
        };
    }
    let run = created?;
    let id = run.id.unwrap_or_default();
    let mut seen = String::new();
    let mut acted = false;
    loop {
        let run = server.get(case, &id).await?;
        let now = shown(&run);
        if now != seen {
            story.push(format!("  {:6.1} s  {now}", begun.elapsed().as_secs_f64()));
            seen.clone_from(&now);
        }
        if !acted && now.contains(case.when) {
            acted = act(ground, server, case, &id, story).await?;
        }
        let status = run.status.as_ref().map(|status| status.as_str());
        if matches!(
            status,
            Some("Completed" | "Failed" | "Aborted" | "TimedOut")
        ) {
            break check(case, &run)?;
        }
        tokio::time::sleep(LOOK).await;
    }
    gone(ground, case, &id).await?;
    let prefix = format!("{}-", id.replace('.', "-"));
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let own: Vec<_> = jobs
        .uids
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect();
    let twice = own.iter().find(|(_, uids)| uids.len() > 1);
    if let Some((name, uids)) = twice {
        return Err(Error::Unexpected(format!(
            "{name} was created {} times",
            uids.len()
        )));
    }
    story.push(format!("  Jobs: {}", own.len()));
    Ok(())
}

/// What a run shows, on one line.
fn shown(run: &TaskRun) -> String {
    let status = run.status.as_ref().map_or("?", |status| status.as_str());
    let details = run.status_details.as_deref().unwrap_or_default();
    let attempts = run.logs.as_ref().map_or(0, Vec::len);
    format!("{status} ({attempts}) {details}")
}

fn check(case: &Case, run: &TaskRun) -> Result<(), Error> {
    let now = shown(run);
    let status = run.status.as_ref().map_or("?", |status| status.as_str());
    let attempts = run.logs.as_ref().map_or(0, Vec::len);
    let details = run.status_details.as_deref().unwrap_or_default();
    let is_right = status == case.status
        && case.attempts.contains(&attempts)
        && details.contains(case.details);
    if is_right {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "expected {} after {:?} attempts with {:?}, and it is {now}",
        case.status, case.attempts, case.details
    )))
}

/// Does what the case is about. Returns whether it is done.
async fn act(
    ground: &Ground,
    server: &Server,
    case: &Case,
    id: &str,
    story: &mut Vec<String>,
) -> Result<bool, Error> {
    let namespace = ground.namespace(case.tenant);
    let labels = format!("podbeat.dev/run={id}");
    let done = match case.act {
        Act::Nothing => true,
        Act::Abort => server.abort(case, id).await?,
        Act::Evict => match namespace.first("pods", &labels).await? {
            Some(pod) => namespace.evict(&pod).await.is_ok(),
            None => false,
        },
        Act::DeleteJob => match namespace.first("jobs", &labels).await? {
            Some(job) => namespace.delete_job(&job).await.is_ok(),
            None => false,
        },
        Act::Suspend => match namespace.first("jobs", &labels).await? {
            Some(job) => {
                namespace.suspend_job(&job, true).await?;
                ground.no_pods(&namespace, &labels).await?;
                namespace.suspend_job(&job, false).await?;
                true
            }
            None => false,
        },
        Act::SuspendAndAbort => match namespace.first("jobs", &labels).await? {
            Some(job) => {
                namespace.suspend_job(&job, true).await?;
                abort_when(server, case, id, "suspended").await?;
                true
            }
            None => false,
        },
        Act::Freeze => ground.freeze(&namespace, &labels).await?,
        Act::FreezeAndAbort => match ground.freeze(&namespace, &labels).await? {
            true => {
                abort_when(server, case, id, "Finalizing").await?;
                true
            }
            false => false,
        },
        Act::LiftQuota => {
            ground.lift_quota().await?;
            true
        }
    };
    if done && case.act != Act::Nothing {
        story.push(format!("  -> {:?}", case.act));
    }
    Ok(done)
}

/// Aborts the run when it shows this, before its end.
async fn abort_when(server: &Server, case: &Case, id: &str, text: &str) -> Result<(), Error> {
    loop {
        let run = server.get(case, id).await?;
        let now = shown(&run);
        if now.contains(text) && server.abort(case, id).await? {
            return Ok(());
        }
        if run.status.is_some_and(|status| status.is_over()) {
            let what = format!("expected {text}, and it is {now}");
            return Err(Error::Unexpected(what));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until no object of the run is left.
async fn gone(ground: &Ground, case: &Case, id: &str) -> Result<(), Error> {
    let namespace = ground.namespace(case.tenant);
    let labels = format!("podbeat.dev/run={id}");
    let mut left = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        left.clear();
        for kind in ["jobs", "secrets", "pods"] {
            if let Some(name) = namespace.first(kind, &labels).await? {
                left.push(format!("{kind}/{name}"));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Error::Unexpected(format!(
        "left behind: {}",
        left.join(", ")
    )))
}

/// At the end, no object with the server's labels exists.
async fn nothing_is_left(ground: &Ground) -> Played {
    let begun = Instant::now();
    let check = async {
        for name in [NAMESPACE, QUOTA] {
            let namespace = ground.namespace(name);
            for kind in ["jobs", "secrets", "pods"] {
                let labels = "app.kubernetes.io/managed-by=podbeat-server";
                if let Some(found) = namespace.first(kind, labels).await? {
                    return Err(Error::Unexpected(format!(
                        "{kind}/{found} is left in {name}"
                    )));
                }
            }
        }
        Ok(())
    };
    let result = check.await;
    if let Err(error) = &result {
        say(&chain(error));
    }
    Played {
        name: "nothing-is-left".to_owned(),
        took: begun.elapsed(),
        passed: result.is_ok(),
    }
}

/// The value of a member that must be a text.
pub(crate) fn text_at<'value>(value: &'value Value, path: &str) -> Option<&'value str> {
    value.pointer(path).and_then(Value::as_str)
}
