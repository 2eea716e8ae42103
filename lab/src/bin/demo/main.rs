//! `cargo demo`: prints a timeline in two acts. In the first one, the agent's real code goes through
//! a scripted pod life with the stand-ins. In the second one, podbeat-server's launcher launches two
//! runs on the stand-in Kubernetes API, with the real agent in their pods.
//!
//! The last line is the body of the last heartbeat. The exit code is 0 only if the service recorded
//! exactly what the scripts imply. `--record FILE` writes the body of every heartbeat that was sent
//! in the first act, one per line.

mod launched;
mod timeline;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command, value_parser};
use futures_util::stream;
use podbeat::agent;
use podbeat::config::Config;
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use podbeat_lab::pod::{Pod, exit, restarted, running, terminated, waiting};
use podbeat_lab::service::{Heartbeat, Service};
use podbeat_lab::world::World;
use serde_json::Value;
use tokio::sync::mpsc;

use self::timeline::{Side, Timeline};

/// The demo fails if it takes longer.
const LIMIT: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let record = Arg::new("record")
        .long("record")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Write the body of every heartbeat of the first act to FILE, one per line");
    let about =
        "Run podbeat and podbeat-server's launcher with the stand-ins, and print a timeline";
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
    let acts = async {
        let timeline = Timeline::new();
        run(record, &timeline).await?;
        launched::run(&timeline).await
    };
    let story = tokio::time::timeout(LIMIT, acts);
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

/// The first act: a pod's life, and an outage of the service.
async fn run(record: Option<&Path>, timeline: &Timeline) -> Result<(), Failure> {
    timeline.heading("podbeat reports a pod, through an outage of the service");
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
        let mut shown = 0;
        loop {
            for heartbeat in world.service.heartbeats().iter().skip(shown) {
                timeline.heartbeat(heartbeat);
                shown += 1;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let script = async {
        play(&world, &pod, timeline).await?;
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

    pause(500).await;
    kube(
        "main: waiting (ContainerCreating); pulling the image",
        waiting("ContainerCreating"),
    );
    pause(800).await;
    kube("main: running", running("2026-01-01T00:00:02Z"));
    pause(800).await;
    kube(
        "main: terminated (Error), exit code 3",
        terminated(3, "Error", "run-1"),
    );
    accepted(world, "the crash", |heartbeat| {
        heartbeat.exit_code("main") == Some(3)
    })
    .await?;
    pause(300).await;

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
        .wait_for("three refused heartbeats", LIMIT, |received| {
            received.len() >= before + 3
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
    pause(800).await;

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
fn judge(service: &Service, ending: Ending) -> Result<(), Failure> {
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
        Some(last) if last.is_final() && finals == 1 => Ok(()),
        Some(_) | None => Err(format!(
            "{finals} last heartbeats were accepted; expected exactly one, after all others"
        )
        .into()),
    }
}
