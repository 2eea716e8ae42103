//! `cargo demo`: runs the agent's real code with the stand-ins through a scripted pod life, and
//! prints a timeline.
//!
//! The last line is the body of the last heartbeat. The exit code is 0 only if the service recorded
//! exactly what the script implies. `--record FILE` writes the body of every sent heartbeat, one
//! per line.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, Command, value_parser};
use futures_util::stream;
use podbeat::agent::{self, Onlooker};
use podbeat::config::Config;
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, Cause, DropCause, Note};
use podbeat_interface::environment::{Environment, Flags, ProcessEnvironment};
use podbeat_interface::exit::Ending;
use podbeat_lab::pod::{Pod, exit, restarted, running, terminated, waiting};
use podbeat_lab::service::{Heartbeat, Service};
use podbeat_lab::world::World;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The demo fails if it takes longer.
const LIMIT: Duration = Duration::from_secs(18);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let record = Arg::new("record")
        .long("record")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Write the body of every sent heartbeat to FILE, one per line");
    let about = "Run podbeat's agent with the stand-ins, and print a timeline";
    let matches = match Command::new("demo")
        .about(about)
        .arg(record)
        .try_get_matches()
    {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let record = matches.get_one::<PathBuf>("record").map(PathBuf::as_path);
    let story = tokio::time::timeout(LIMIT, run(record));
    let failure: Failure = match story.await {
        Ok(Ok(last)) => {
            let _ = writeln!(std::io::stdout(), "{last}");
            return ExitCode::SUCCESS;
        }
        Ok(Err(failure)) => failure,
        Err(_) => format!(
            "did not finish within {}",
            humantime::format_duration(LIMIT)
        )
        .into(),
    };
    let _ = writeln!(
        std::io::stderr(),
        "demo: {}",
        podbeat_lab::chain(failure.as_ref())
    );
    ExitCode::FAILURE
}

/// Plays the life and returns the last heartbeat's body.
async fn run(record: Option<&Path>) -> Result<Value, Failure> {
    let timeline = Timeline::new();
    let world = World::start().await?;
    let pod = Pod::new("align-reads-0", "5e0c7a52-demo").policy("OnFailure");
    world.kube.apply(pod.showing(&Value::Null));
    timeline.line(
        Side::Kubernetes,
        "pod align-reads-0 is scheduled; restartPolicy OnFailure, podbeat a native sidecar",
    );

    let mut settings = world.settings("align-reads-0", "5e0c7a52-demo");
    settings.insert("PODBEAT_INTERVAL".to_owned(), "2s".to_owned());
    settings.insert("JOB_RETRY_COUNT".to_owned(), "1".to_owned());
    let config = Config::load(&Flags::default(), &settings)?;
    let (signals, mut receiver) = mpsc::channel(1);
    let signals_in = stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut changes = world.service.changes();
    let agent = agent::run(&config, signals_in, timeline.clone());
    let received = async {
        let mut told = 0;
        loop {
            for heartbeat in world.service.heartbeats().iter().skip(told) {
                timeline.heartbeat(heartbeat);
                told += 1;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let script = async {
        play(&world, &pod, &timeline).await?;
        timeline.line(
            Side::Kubernetes,
            "SIGTERM to podbeat: all other containers have ended",
        );
        signals.send(()).await?;
        Ok::<(), Failure>(())
    };
    let ending = tokio::select! {
        (ending, script) = async { tokio::join!(agent, script) } => {
            script?;
            ending?
        }
        () = received => return Err("the service stopped".into()),
    };
    timeline.line(
        Side::Podbeat,
        &format!("ends: {ending}; exit code {}", ending.code()),
    );
    if let Some(path) = record {
        let heartbeats = world.service.heartbeats();
        let lines: String = heartbeats
            .iter()
            .map(|heartbeat| format!("{}\n", heartbeat.body))
            .collect();
        std::fs::write(path, lines)?;
    }
    judge(&world.service, ending)
}

/// The script. The pauses are for the reader; the script waits for the states that it needs.
async fn play(world: &World, pod: &Pod, timeline: &Timeline) -> Result<(), Failure> {
    let kube = |text: &str, status: Value| {
        timeline.line(Side::Kubernetes, text);
        world.kube.apply(pod.showing(&status));
    };
    let pause = |milliseconds| tokio::time::sleep(Duration::from_millis(milliseconds));

    pause(700).await;
    kube(
        "main: waiting (ContainerCreating); pulling the image",
        waiting("ContainerCreating"),
    );
    pause(1300).await;
    kube("main: running", running("2026-01-01T00:00:02Z"));
    pause(1500).await;
    kube(
        "main: terminated (Error), exit code 3",
        terminated(3, "Error", "run-1"),
    );
    accepted(world, "the crash", |heartbeat| {
        heartbeat.exit_code("main") == Some(3)
    })
    .await?;
    pause(500).await;

    timeline.line(
        Side::Service,
        "an outage starts; answers 503 to every request",
    );
    let before = world.service.heartbeats().len();
    world.service_faults.script("heartbeat 503 until-lifted")?;
    let crash = exit(3, "Error", "run-1");
    kube(
        "main: waiting (CrashLoopBackOff)",
        restarted(waiting("CrashLoopBackOff"), 1, &crash),
    );
    // Counted instead of timed: the waits grow with each failure, and the demo must stay short.
    world
        .service
        .wait_for("two refused heartbeats", LIMIT, |received| {
            received.len() >= before + 2
        })
        .await?;
    kube(
        "main: running again, restart 1",
        restarted(running("2026-01-01T00:00:07Z"), 1, &crash),
    );
    world
        .service
        .wait_for("four refused heartbeats", LIMIT, |received| {
            received.len() >= before + 4
        })
        .await?;
    world.service_faults.lift_all();
    timeline.line(Side::Service, "the outage ends");
    accepted(world, "the restart", |heartbeat| {
        heartbeat
            .state("main")
            .and_then(|(_, state)| state.get("startedAt")?.as_str())
            == Some("2026-01-01T00:00:07Z")
    })
    .await?;
    timeline.line(Side::Service, "has received every change from the outage");
    pause(1500).await;

    kube(
        "main: terminated (Completed), exit code 0",
        restarted(terminated(0, "Completed", "run-2"), 1, &crash),
    );
    accepted(world, "the last heartbeat", Heartbeat::is_final).await?;
    pause(300).await;
    Ok(())
}

async fn accepted(
    world: &World,
    what: &str,
    wanted: impl Fn(&Heartbeat) -> bool,
) -> Result<(), Failure> {
    let reached = |heartbeats: &[Heartbeat]| {
        heartbeats
            .iter()
            .any(|heartbeat| heartbeat.accepted && wanted(heartbeat))
    };
    world.service.wait_for(what, LIMIT, reached).await?;
    Ok(())
}

/// Checks that the service heard exactly what the script implies.
fn judge(service: &Service, ending: Ending) -> Result<Value, Failure> {
    let violations = service.violations();
    if !violations.is_empty() {
        return Err(format!("heartbeats violate the contract: {violations:?}").into());
    }
    if ending != Ending::Done {
        return Err(format!("podbeat ended in an unexpected way: {ending}").into());
    }
    if !service
        .heartbeats()
        .iter()
        .any(|heartbeat| heartbeat.status == Some(503))
    {
        return Err("no heartbeat was refused during the outage".into());
    }
    let accepted = service.accepted();
    let mut states: Vec<(String, Option<i64>)> = accepted
        .iter()
        .filter_map(|heartbeat| {
            Some((
                heartbeat.state("main")?.0.to_owned(),
                heartbeat.exit_code("main"),
            ))
        })
        .collect();
    states.dedup();
    let implied = [
        ("waiting", None),
        ("running", None),
        ("terminated", Some(3)),
        ("waiting", None),
        ("running", None),
        ("terminated", Some(0)),
    ];
    if !states
        .iter()
        .map(|(state, code)| (state.as_str(), *code))
        .eq(implied)
    {
        return Err(format!("the service received {states:?}; expected {implied:?}").into());
    }
    let finals = accepted
        .iter()
        .filter(|heartbeat| heartbeat.is_final())
        .count();
    match accepted.last() {
        Some(last) if last.is_final() && finals == 1 => Ok(last.body.clone()),
        Some(_) | None => Err(format!(
            "{finals} last heartbeats were accepted; expected exactly one, after all others"
        )
        .into()),
    }
}

#[derive(Clone, Copy)]
enum Side {
    Kubernetes,
    Podbeat,
    Service,
}

/// Prints the events of each side, with the time since the start.
#[derive(Clone)]
struct Timeline {
    start: Instant,
    colors: bool,
    out: Arc<std::io::Stdout>,
}

impl Timeline {
    fn new() -> Self {
        let out = Arc::new(std::io::stdout());
        let colors = out.is_terminal() && ProcessEnvironment.get("NO_COLOR").is_none();
        Self {
            start: Instant::now(),
            colors,
            out,
        }
    }

    fn line(&self, side: Side, text: &str) {
        let (name, color) = match side {
            Side::Kubernetes => ("kubernetes", "34"),
            Side::Podbeat => ("podbeat", "33"),
            Side::Service => ("service", "32"),
        };
        let time = format!("{:6.2}s", self.start.elapsed().as_secs_f64());
        let mut out = self.out.lock();
        // A closed standard output doesn't stop the demo, because the exit code matters.
        let _ = if self.colors {
            writeln!(
                out,
                "\x1b[2m{time}\x1b[0m  \x1b[{color}m{name:<10}\x1b[0m  {text}"
            )
        } else {
            writeln!(out, "{time}  {name:<10}  {text}")
        };
    }

    fn heartbeat(&self, heartbeat: &Heartbeat) {
        let kind = if heartbeat.is_final() {
            "the last heartbeat"
        } else {
            "a heartbeat"
        };
        let state = match heartbeat.state("main") {
            None => "no states yet".to_owned(),
            Some((state, _)) => match heartbeat.exit_code("main") {
                Some(code) => format!("main {state}, exit code {code}"),
                None => format!("main {state}"),
            },
        };
        let nonce: String = heartbeat.nonce().chars().take(6).collect();
        let answer = heartbeat.status.map_or_else(
            || "no answer".to_owned(),
            |status| format!("answers {status}"),
        );
        self.line(
            Side::Service,
            &format!("receives {kind} (nonce {nonce}…): {state}; {answer}"),
        );
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Accepted => "accepted".to_owned(),
        Answer::Unauthorized => "401".to_owned(),
        Answer::Forbidden => "403".to_owned(),
        Answer::Refused { status }
        | Answer::Disowned { status }
        | Answer::Unavailable { status, .. } => status.to_string(),
        Answer::NotSent => "no connection".to_owned(),
        Answer::Ambiguous => "no answer".to_owned(),
    }
}

impl Onlooker for Timeline {
    fn note(&mut self, note: &Note) {
        let text = match note {
            Note::Transition {
                container,
                from,
                to,
                ..
            } => {
                let now = to.state_name().unwrap_or("unknown");
                format!("sees {container}: {} → {now}", from.unwrap_or("nothing"))
            }
            Note::Failed {
                beat,
                answer,
                retry_at: Some(at),
            } => {
                let wait = at.saturating_sub(self.start.elapsed()).as_secs_f64();
                format!(
                    "heartbeat {} was not accepted ({}); tries again in {wait:.1} s",
                    beat.0,
                    said(answer)
                )
            }
            Note::Failed {
                beat,
                answer,
                retry_at: None,
            } => {
                format!(
                    "heartbeat {} was not accepted ({}); not sent again",
                    beat.0,
                    said(answer)
                )
            }
            Note::Dropped(_, _, DropCause::Superseded, _) | Note::Accepted(..) => return,
            Note::Dropped(number, kind, cause, _) => {
                format!("drops heartbeat {number} ({}): {cause:?}", kind.name())
            }
            Note::Barrier { .. } => {
                "an earlier request may still arrive; will send the last heartbeat again after it"
                    .to_owned()
            }
            Note::Marked {
                container,
                exit_code,
            } => {
                format!("reads an exit marker: {container} ended with exit code {exit_code}")
            }
            Note::UnknownMarker(container) => {
                format!("ignores an exit marker: the pod has no container {container}")
            }
            Note::BarrierFailed => "the repeated last heartbeat was not accepted".to_owned(),
            Note::Resumed { waiting, .. } => {
                format!("continues from the journal; {waiting} heartbeats are waiting")
            }
            Note::Final(Cause::Completed) => {
                "the last heartbeat is due: the task's containers are finished".to_owned()
            }
            Note::Final(cause) => format!("the last heartbeat is due: {cause:?}"),
            Note::Reopened(_) => "cancels the last heartbeat: only podbeat was stopped".to_owned(),
            Note::Signal { .. } => "receives SIGTERM".to_owned(),
            Note::Deletion(_) => "sees that the pod is being deleted".to_owned(),
            Note::Why(why) => {
                let of = why
                    .condition
                    .as_deref()
                    .or(why.container.as_deref())
                    .unwrap_or("pod");
                format!(
                    "sees {of}: reason {}",
                    why.reason.as_deref().unwrap_or_default()
                )
            }
            Note::OtherPod(_) => "sees another pod with the same name".to_owned(),
            Note::NeverSeen => "does not find the pod".to_owned(),
            Note::Orphaned => "the run no longer belongs to this pod".to_owned(),
        };
        self.line(Side::Podbeat, &text);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let retry = if attempt.retries > 0 {
            format!(", try {}", attempt.retries + 1)
        } else {
            String::new()
        };
        let (number, kind) = attempt.beat;
        self.line(
            Side::Podbeat,
            &format!("sends heartbeat {number} ({}{retry})", kind.name()),
        );
    }
}
