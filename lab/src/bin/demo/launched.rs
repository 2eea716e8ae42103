//! The second act: podbeat-server launches two runs on Kubernetes. The first one succeeds. The second
//! one fails once, and its second attempt succeeds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use podbeat_lab::kube_api::{self, Event, Kind, KubeApi};
use podbeat_lab::node::Program;
use podbeat_lab::service::{self, Heartbeat, Launch};
use podbeat_lab::world::{TOKEN, World};
use podbeat_launch::launcher::{Deed, Observer};
use podbeat_launch::settings::Settings;
use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::model::{CreateTaskRunRequest, Execution, Image, TaskRun};
use serde_json::Value;

use super::timeline::{Side, Timeline};
use super::{Failure, LIMIT};

/// The limit for one request to the service.
const REQUEST: Duration = Duration::from_secs(5);

/// How often the status of the run is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The time between two steps of a pod, for the reader.
const PACE: Duration = Duration::from_millis(200);

/// How long the task runs, for the reader.
const TASK: Duration = Duration::from_millis(800);

/// The settings for launching: one retry comes soon, and pods stop soon.
const SETTINGS: &[u8] =
    br#"{"retries": {"backoffSeconds": 1}, "terminationGracePeriodSeconds": 5}"#;

/// Plays the act, and returns the body of the last heartbeat.
pub(crate) async fn run(timeline: &Timeline) -> Result<Value, Failure> {
    timeline.heading("podbeat-server launches a run, which succeeds");
    let launch = Launch {
        settings: Settings::read(SETTINGS)?,
        kubeconfig: PathBuf::new(),
        observer: Arc::new(Troubles(timeline.clone())),
    };
    let options = service::Options {
        launch: Some(launch),
        ..service::Options::default()
    };
    let world = World::with(kube_api::Options::default(), options).await?;
    let fails_once = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&fails_once);
    let program = move |_: &str, attempt: u32| match attempt {
        0 if fails.load(Ordering::Relaxed) => Program::Exits(3, TASK),
        _ => Program::Exits(0, TASK),
    };
    let node = world.node(PACE, program, timeline.clone())?;
    let mut printed = Printed::default();

    let run = play(&world, timeline, &mut printed).await?;
    ends(&world, &run, &[(0, 0)])?;
    timeline.heading("podbeat-server launches a run that fails once, and retries it");
    fails_once.store(true, Ordering::Relaxed);
    let run = play(&world, timeline, &mut printed).await?;
    ends(&world, &run, &[(0, 3), (1, 0)])?;

    for problems in [node.problems(), world.service.violations()] {
        if !problems.is_empty() {
            return Err(format!("unexpected: {problems:?}").into());
        }
    }
    let accepted = world.service.accepted();
    let last = accepted.last().ok_or("the service received no heartbeat")?;
    Ok(last.body.clone())
}

/// Creates a run, shows what happens until it is completed and its objects are gone, and returns it.
async fn play(
    world: &World,
    timeline: &Timeline,
    printed: &mut Printed,
) -> Result<TaskRun, Failure> {
    let tls = Tls {
        ca_file: Some(world.path("ca.crt")),
        identity: None,
    };
    let client = Client::new(world.service.url().parse()?, &tls, REQUEST)?;
    let token = Secret::new(TOKEN);
    let request = CreateTaskRunRequest {
        name: Some("align-reads".to_owned()),
        execution: Some(Execution {
            image: Some(Image::new("registry.example/align:1.4")),
            command: Some("align".to_owned()),
            args: Some(vec!["reads.fq".to_owned()]),
            retry_limit: Some(1),
            ..Execution::default()
        }),
        ..CreateTaskRunRequest::default()
    };
    let created = client.create(&request, &token, REQUEST).await?;
    let id = created.id.ok_or("the run has no ID")?;
    timeline.line(
        Side::Service,
        &format!(
            "POST /v1/tasks/runs (image registry.example/align:1.4, command align): creates run {}",
            short(&id)
        ),
    );
    printed.status = None;
    let story = async {
        let (mut objects, mut heartbeats) = (world.kube.changes(), world.service.changes());
        loop {
            objects.borrow_and_update();
            heartbeats.borrow_and_update();
            let is_completed = printed.print_new(world, timeline, &id).await?;
            if is_completed && is_empty(&world.kube) {
                return Ok::<(), Failure>(());
            }
            tokio::select! {
                _ = objects.changed() => {}
                _ = heartbeats.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, story)
        .await
        .map_err(|_| "the run did not complete in time")??;
    timeline.line(Side::Kubernetes, "no Job, pod or Secret of the run is left");
    Ok(client.get(&id, &token, REQUEST).await?)
}

fn is_empty(kube: &KubeApi) -> bool {
    let kinds = [Kind::Job, Kind::Pod, Kind::Secret];
    kinds.into_iter().all(|kind| kube.all(kind).is_empty())
}

/// What was printed already.
#[derive(Default)]
struct Printed {
    version: u64,
    heartbeats: usize,
    status: Option<String>,
    /// The last line about a pod's containers.
    pod: String,
}

impl Printed {
    /// Prints everything that is new. Returns whether the run is completed.
    async fn print_new(
        &mut self,
        world: &World,
        timeline: &Timeline,
        id: &str,
    ) -> Result<bool, Failure> {
        for event in world.kube.changes_since(self.version) {
            self.version = event.version;
            self.event(timeline, &event);
        }
        let heartbeats = world.service.heartbeats();
        for heartbeat in heartbeats.iter().skip(self.heartbeats) {
            timeline.heartbeat(heartbeat);
        }
        self.heartbeats = heartbeats.len();
        let status = world.service.status(id).await?.unwrap_or_default();
        let details = world.service.details(id).await?;
        let details = details.map(|details| format!(" ({details})"));
        let text = format!("the run is {status}{}", details.unwrap_or_default());
        if self.status.as_ref() != Some(&text) {
            timeline.line(Side::Service, &text);
            self.status = Some(text);
        }
        match status {
            "Completed" => Ok(true),
            "Failed" | "Aborted" | "TimedOut" => Err(format!("the run is {status}").into()),
            _ => Ok(false),
        }
    }

    fn event(&mut self, timeline: &Timeline, event: &Event) {
        let object = &event.object;
        let name = short(text(object, "/metadata/name"));
        let line = match (event.kind, event.change) {
            (Kind::Job, "ADDED") => (Side::Launcher, format!("creates Job {name}")),
            (Kind::Job, "DELETED") => (Side::Launcher, format!("deletes Job {name}")),
            (Kind::Job, _) => match end_of_job(object) {
                Some(end) => (Side::Kubernetes, format!("Job {name}: {end}")),
                None => return,
            },
            (Kind::Secret, "ADDED") => {
                let data = object.get("data").and_then(Value::as_object);
                let keys = data.into_iter().flat_map(|data| data.keys());
                let keys: Vec<&str> = keys.map(String::as_str).collect();
                let text = format!(
                    "creates Secret {name} with {}; its owner is the Job",
                    keys.join(", ")
                );
                (Side::Launcher, text)
            }
            (Kind::Secret, "DELETED") => (
                Side::Kubernetes,
                format!("deletes Secret {name}, because its Job is gone"),
            ),
            (Kind::Pod, "ADDED") => {
                let text = format!("the Job controller creates pod {name}: podbeat and main");
                (Side::Kubernetes, text)
            }
            (Kind::Pod, "MODIFIED") => {
                let text = format!("pod {}", pod_status(object));
                if self.pod == text {
                    return;
                }
                self.pod.clone_from(&text);
                (Side::Kubernetes, text)
            }
            (Kind::Pod, _) => (Side::Kubernetes, format!("removes pod {name}")),
            (Kind::Secret | Kind::Event, _) => return,
        };
        timeline.line(line.0, &line.1);
    }
}

fn text<'object>(object: &'object Value, path: &str) -> &'object str {
    let found = object.pointer(path);
    found.and_then(Value::as_str).unwrap_or_default()
}

/// A name without most of the run's ID, which has 32 digits.
fn short(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let (begin, rest) = chars.split_at(chars.len().min(10));
    let rest: String = rest.iter().skip(26).collect();
    format!("{}…{rest}", begin.iter().collect::<String>())
}

fn end_of_job(job: &Value) -> Option<String> {
    let conditions = job.pointer("/status/conditions")?.as_array()?;
    let mut ends = conditions.iter().filter_map(|condition| {
        let kind = text(condition, "/type");
        match kind {
            "Complete" => Some(kind.to_owned()),
            "Failed" => Some(format!("{kind} ({})", text(condition, "/reason"))),
            _ => None,
        }
    });
    ends.next()
}

/// The phase of a pod, and the states of its containers.
fn pod_status(pod: &Value) -> String {
    let of = |path: &str, name: &str| {
        let statuses = pod.pointer(path)?.as_array()?;
        let status = statuses.iter().find(|it| text(it, "/name") == name)?;
        let (state, members) = status.get("state")?.as_object()?.iter().next()?;
        let code = members.get("exitCode").and_then(Value::as_i64);
        Some(match code {
            Some(code) => format!("{name} {state}, exit code {code}"),
            None => format!("{name} {state}"),
        })
    };
    let states = [
        of("/status/initContainerStatuses", "podbeat"),
        of("/status/containerStatuses", "main"),
    ];
    let states: Vec<String> = states.into_iter().flatten().collect();
    format!("{}: {}", text(pod, "/status/phase"), states.join("; "))
}

/// Checks how the attempts of a run ended: the numbers and exit codes of the last heartbeats.
fn ends(world: &World, run: &TaskRun, expected: &[(i64, i64)]) -> Result<(), Failure> {
    let id = run.id.as_deref().unwrap_or_default();
    let accepted = world.service.accepted();
    let finals = accepted
        .iter()
        .filter(|heartbeat| heartbeat.run_id == id && heartbeat.is_final());
    let end = |heartbeat: &Heartbeat| {
        let number = heartbeat.body.get("jobRetryCount")?.as_i64()?;
        Some((number, heartbeat.exit_code("main")?))
    };
    let mut found: Vec<(i64, i64)> = finals.filter_map(end).collect();
    found.dedup();
    let retries = run.execution.as_ref().and_then(|it| it.retry_count);
    let last = expected.last().map(|(number, _)| *number);
    if found != expected || retries.map(i64::from) != last {
        return Err(format!(
            "the attempts ended as {found:?}, retryCount {retries:?}; expected {expected:?}"
        )
        .into());
    }
    Ok(())
}

/// Prints the requests of the launcher that failed.
struct Troubles(Timeline);

impl Observer for Troubles {
    fn done(&self, deed: Deed<'_>) {
        if let Deed::Failed { doing, failure, .. } = deed {
            self.0
                .line(Side::Launcher, &format!("{doing} failed: {failure}"));
        }
    }
}
