//! A process with a service on a file is killed with SIGKILL at a random moment under load, again
//! and again. Whatever it answered is in the file: nothing is lost, and nothing happened twice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::{alice, beat};
use super::*;
use crate::runs::{Moment, Status};
use crate::store::Sqlite;

/// The number of clients that the process has at once.
const CLIENTS: usize = 8;

/// The process's clock.
struct Real(tokio::time::Instant);

impl Clock for Real {
    fn now(&self) -> Moment {
        Moment {
            wall: Timestamp::now(),
            elapsed: self.0.elapsed(),
        }
    }
}

fn options() -> Options {
    let day = Duration::from_secs(24 * 3600);
    Options {
        rules: Rules {
            heartbeat_timeout: day,
            evidence_wait: day,
            retry_wait: day,
            watches_pods: false,
        },
        url: String::new(),
        token_lifetime: day,
        live_runs: u64::MAX,
        creates_per_minute: u64::MAX,
        retention: day,
        retained_runs: u64::MAX,
    }
}

async fn service(directory: &Path) -> Service {
    let store = Sqlite::open(&directory.join("d")).expect("a store");
    let keys = Keys::load(&directory.join("key")).expect("keys");
    let clock = Arc::new(Real(tokio::time::Instant::now()));
    let service = Service::start(Arc::new(store), keys, clock, options());
    service.await.expect("a service")
}

/// Plays lives of runs, and prints each answer: the ID and the status that the run must have.
async fn play(service: &Service, client: usize) {
    let tell = |id: &str, status: Status| println!("answered {id} {status}");
    for number in 0.. {
        let (request, uid) = (
            CreateTaskRunRequest::default(),
            format!("{client}-{number}"),
        );
        let run = service
            .create(&alice(), request, None)
            .await
            .expect("created");
        let id = run.id.expect("an ID");
        tell(&id, Status::Pending);
        if number % 5 == 0 {
            continue;
        }
        service
            .heartbeat(&alice(), &id, beat(&uid, None), None)
            .await
            .expect("accepted");
        tell(&id, Status::Running);
        match number % 5 {
            1 => {
                service.abort(&alice(), &id).await.expect("aborted");
                tell(&id, Status::Aborted);
            }
            2 => {}
            code => {
                let code = i32::from(code == 3);
                let last = beat(&uid, Some(code));
                service
                    .heartbeat(&alice(), &id, last, None)
                    .await
                    .expect("accepted");
                tell(
                    &id,
                    if code == 0 {
                        Status::Completed
                    } else {
                        Status::FailedRestartable
                    },
                );
            }
        }
    }
}

/// The process that is killed. Its input is the directory of the file.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "only another test starts it"]
async fn process() {
    let directory = std::io::read_to_string(std::io::stdin()).expect("a directory");
    if directory.is_empty() {
        return;
    }
    let service = service(Path::new(&directory)).await;
    let clients = (0..CLIENTS).map(|client| play(&service, client));
    futures_util::future::join_all(clients).await;
}

/// Whether a run that was answered to have one status may have another one: the next answer was
/// lost.
fn may_have_become(answered: Status, stored: Status) -> bool {
    use Status::{Aborted, Completed, FailedRestartable, Pending, Running};
    answered == stored
        || match answered {
            Pending => stored == Running,
            Running => matches!(stored, Completed | FailedRestartable | Aborted),
            _ => false,
        }
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_or_happens_twice_if_the_process_is_killed() {
    kill(20).await;
}

#[tokio::test]
#[ignore = "takes a minute: cargo test -p podbeat-server -- --ignored two_hundred_kills"]
async fn two_hundred_kills() {
    kill(200).await;
}

/// Kills the process so often, each time after a random number of answers.
async fn kill(kills: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let mut answered: BTreeMap<String, Status> = BTreeMap::new();
    for _ in 0..kills {
        let mut child = Command::new(&program)
            .args([
                "service::killed::process",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let path = directory.path().as_os_str().as_encoded_bytes();
        let mut input = child.stdin.take().expect("its input");
        input.write_all(path).expect("written");
        drop(input);
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut left = random.usize(1..400);
        for line in output.lines() {
            let line = line.expect("a line");
            // The test program prints lines of its own.
            let Some((_, answer)) = line.split_once("answered ") else {
                continue;
            };
            if left == 1 {
                child.kill().expect("killed");
            }
            // What it wrote before the kill counts, too. The last line may be torn.
            left = left.saturating_sub(1);
            let parsed = answer.split_once(' ').and_then(|(id, word)| {
                let status = Status::named(word);
                Some((id.to_owned(), status?))
            });
            answered.extend(parsed);
        }
        let status = child.wait().expect("ended");
        assert!(
            !status.success() && left == 0,
            "it was not killed: {status}"
        );
    }

    let service = service(directory.path()).await;
    for (id, expected) in &answered {
        let run = service.store().run(id.clone()).await.expect("read");
        let run = run.unwrap_or_else(|| panic!("{id} is lost: it was {expected}"));
        let stored = run.run.status();
        assert!(
            may_have_become(*expected, stored),
            "{id}: answered {expected}, stored {stored}"
        );
        let timeline = service.store().timeline(run.number).await.expect("read");
        let mut texts: Vec<String> = timeline.into_iter().map(|entry| entry.text).collect();
        let all = texts.len();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(
            texts.len(),
            all,
            "{id}: something happened twice: {texts:?}"
        );
    }
    let counts = service.store().counts().await.expect("read");
    let total: u64 = counts.iter().map(|(_, runs)| runs).sum();
    assert!(total >= answered.len() as u64);
    println!(
        "{kills} kills, {} runs answered, {total} stored",
        answered.len()
    );
}
