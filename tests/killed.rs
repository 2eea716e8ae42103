//! kill -9 at random times: with a journal, podbeat loses no last heartbeat, sends no second one,
//! and forgets no exit.
//!
//! Variables: `PODBEAT_KILLS` is the number of kills (20), `PODBEAT_BINARY` the binary (by default
//! the one that cargo built), `PODBEAT_SEED` the seed (by default a random one, which is printed).

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the environment sets how long this test runs, and the test prints its seed"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use podbeat_lab::pod::{self, Pod, Sidecar, restarted, running, terminated, waiting};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::World;
use rustix::process::Signal;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::harness::binary::{PODBEAT, send};
use crate::harness::received::until_final;
use crate::harness::{LIMIT, STARTED, settings, text};

/// The number of lives that run at the same time.
const AT_ONCE: usize = 3;

/// How often podbeat is killed in one life.
const KILLS_A_LIFE: u32 = 4;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn spawn(world: &World) -> Child {
    let binary: String = setting("PODBEAT_BINARY").unwrap_or_else(|| PODBEAT.to_owned());
    let state = text(world.path("state"));
    let settings = settings(
        world,
        &[
            ("PODBEAT_STATE_DIR", &state),
            ("PODBEAT_INTERVAL", "200ms"),
            ("PODBEAT_TIMEOUT", "2s"),
        ],
    );
    Command::new(binary)
        .env_clear()
        .envs(&settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("podbeat starts")
}

fn millis(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// Main waits, runs, fails, runs again and succeeds, while podbeat is killed and restarted.
async fn live(seed: u64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start().await.expect("a world");
    std::fs::create_dir(world.path("state")).expect("a state directory");
    let native = rng.bool();
    let sidecar = if native {
        Sidecar::Native
    } else {
        Sidecar::Plain
    };
    let pod = Pod::new("p", "u1").policy("OnFailure").sidecar(sidecar);
    // Answers take some time, so that a kill meets requests in flight. Some answers are lost.
    world
        .service_faults
        .script("heartbeat drop; heartbeat delay=40ms until-lifted")
        .expect("rules");
    let first_exit = pod::exit(1, "Error", "c1");
    let steps = [
        waiting("PodInitializing"),
        running(STARTED),
        terminated(1, "Error", "c1"),
        restarted(running(STARTED), 1, &first_exit),
        restarted(terminated(0, "Completed", "c2"), 1, &first_exit),
    ];
    let pauses: Vec<Duration> = steps.iter().map(|_| millis(&mut rng, 10, 400)).collect();
    let drive = async {
        for (step, pause) in steps.iter().zip(pauses) {
            world.kube.apply(pod.showing(step));
            tokio::time::sleep(pause).await;
        }
    };
    let mut kills = 0;
    let kubelet = async {
        loop {
            let mut child = spawn(&world);
            let may_live = if kills < KILLS_A_LIFE {
                millis(&mut rng, 1, 900)
            } else {
                LIMIT
            };
            let ended = tokio::select! {
                status = child.wait() => Some(status.expect("waited for")),
                () = tokio::time::sleep(may_live) => None,
                // The kubelet stops a native sidecar after the task is over; here only after the
                // last kill.
                _ = until_final(&world), if native && kills == KILLS_A_LIFE => {
                    send(child.id().expect("it runs"), Signal::TERM);
                    Some(child.wait().await.expect("waited for"))
                }
            };
            match ended {
                // As OnFailure and a native sidecar's own policy require.
                Some(status) if status.success() => return,
                // SIGTERM came before podbeat set its handler, and everything was already sent.
                Some(status) if status.signal() == Some(15) => return,
                Some(status) => panic!("seed {seed}: podbeat ended with {status}"),
                None => {
                    child.kill().await.expect("killed");
                    kills += 1;
                }
            }
        }
    };
    let both = async { tokio::join!(drive, kubelet) };
    if tokio::time::timeout(LIMIT, both).await.is_err() {
        panic!(
            "seed {seed}: no end; received {:#?}",
            world.service.heartbeats()
        );
    }
    check(seed, &world);
    kills
}

fn check(seed: u64, world: &World) {
    assert_eq!(
        world.service.violations(),
        Vec::<String>::new(),
        "seed {seed}"
    );
    let all = world.service.heartbeats();
    let accepted = world.service.accepted();
    let first = accepted.iter().position(Heartbeat::is_final);
    let Some(first) = first else {
        panic!("seed {seed}: the final is lost: {all:#?}");
    };
    let last = &accepted[first];
    assert_eq!(last.exit_code("main"), Some(0), "seed {seed}");
    // Every later heartbeat, accepted or refused, must repeat the last one.
    for after in all.iter().filter(|heartbeat| heartbeat.at >= last.at) {
        assert_eq!(
            after.nonce(),
            last.nonce(),
            "seed {seed}: a heartbeat after the final: {all:#?}"
        );
        assert!(after.is_final(), "seed {seed}");
    }
    let failure = accepted[..first].iter().any(|heartbeat| {
        heartbeat.state("main").is_some_and(|(_, members)| {
            members.get("containerID") == Some(&json!("containerd://c1"))
        })
    });
    assert!(
        failure,
        "seed {seed}: the first exit never arrived: {all:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_final_is_lost_or_repeated_if_podbeat_is_killed_often() {
    let wanted: u32 = setting("PODBEAT_KILLS").unwrap_or(20);
    let seed = setting("PODBEAT_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("PODBEAT_SEED={seed}");
    let mut seeds = seed..;
    let mut lives = JoinSet::new();
    let (mut kills, mut lived) = (0, 0_u32);
    while kills < wanted || !lives.is_empty() {
        while kills < wanted && lives.len() < AT_ONCE {
            let seed = seeds.next().expect("endless");
            lives.spawn(live(seed));
        }
        if let Some(outcome) = lives.join_next().await {
            kills += outcome.unwrap_or_else(|failure| panic!("{failure}"));
            lived += 1;
        }
    }
    println!("{kills} kills in {lived} lives: no final was lost or repeated");
}
