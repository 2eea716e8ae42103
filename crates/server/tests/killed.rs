//! The server is killed with SIGKILL at a random moment under load, again and again. Whatever it
//! answered is in the data file: nothing is lost, and nothing happened twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use podbeat_runs::Status;
use podbeat_server::store::{Sqlite, Store};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{LIMIT, Place, User, last, running};

/// The number of clients at once.
const CLIENTS: usize = 8;

/// A run that was answered to have one status has another one if the next answer was lost.
fn may_have_become(answered: Status, stored: Status) -> bool {
    use Status::{Aborted, Completed, FailedRestartable, Pending, Running};
    answered == stored
        || match answered {
            Pending => stored == Running,
            Running => matches!(stored, Completed | FailedRestartable | Aborted),
            _ => false,
        }
}

/// What was answered.
#[derive(Default)]
struct Answered {
    /// The status of each run.
    runs: BTreeMap<String, Status>,
    /// The run of each idempotency key.
    keys: BTreeMap<String, String>,
    count: usize,
}

impl Answered {
    fn tell(&mut self, id: &str, status: Status) {
        self.runs.insert(id.to_owned(), status);
        self.count += 1;
    }
}

type Shared = Arc<Mutex<Answered>>;

async fn create(user: &User, key: &str) -> Option<String> {
    let request = user
        .request(Method::POST, "")
        .header("idempotency-key", key)
        .json(&json!({"name": key}));
    let response = request.send().await.ok()?;
    assert_eq!(response.status(), StatusCode::CREATED);
    let run: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    Some(run["id"].as_str().expect("an ID").to_owned())
}

/// Sends a request. `None` if the server was killed meanwhile.
async fn done(user: &User, method: Method, rest: &str, body: &Value) -> Option<()> {
    let request = user.request(method, rest).json(body);
    let response = request.send().await.ok()?;
    let status = response.status();
    let body = response.bytes().await.ok()?;
    assert_eq!(status, StatusCode::OK, "{rest}: {body:?}");
    Some(())
}

fn keep(answered: &Shared, key: String, id: &str) {
    let mut answered = answered.lock().expect("not poisoned");
    answered.keys.insert(key, id.to_owned());
}

/// Plays lives of runs until the server is gone.
async fn play(user: User, round: usize, client: usize, answered: Shared) -> Option<()> {
    let tell = |id: &str, status| answered.lock().expect("not poisoned").tell(id, status);
    for number in 0.. {
        let key = format!("{round}-{client}-{number}");
        let id = create(&user, &key).await?;
        keep(&answered, key, &id);
        tell(&id, Status::Pending);
        if number % 5 == 0 {
            continue;
        }
        let heartbeat = format!("/{id}:heartbeat");
        done(&user, Method::POST, &heartbeat, &running()).await?;
        tell(&id, Status::Running);
        match number % 5 {
            1 => {
                let abort = format!("/{id}:abort");
                done(&user, Method::PUT, &abort, &json!({})).await?;
                tell(&id, Status::Aborted);
            }
            2 => {}
            3 => {
                done(&user, Method::POST, &heartbeat, &last(1)).await?;
                tell(&id, Status::FailedRestartable);
            }
            _ => {
                done(&user, Method::POST, &heartbeat, &last(0)).await?;
                tell(&id, Status::Completed);
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_or_happens_twice_if_the_server_is_killed() {
    kill(5).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo test -p podbeat-server --test integration -- --ignored two_hundred"]
async fn two_hundred_kills_lose_nothing() {
    kill(200).await;
}

/// Kills the server so often.
async fn kill(kills: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let many = ["--live-runs", "1000000", "--creates-per-minute", "1000000"];
    let answered = Shared::default();
    for round in 0..kills {
        let server = place.serve(&many).await.ready().await;
        let user = server.user(&token);
        // A request whose answer was lost is repeated, and has the same run.
        let keys = answered.lock().expect("not poisoned").keys.clone();
        for (key, id) in keys.iter().rev().take(CLIENTS) {
            assert_eq!(create(&user, key).await.as_ref(), Some(id), "{key}");
        }
        let clients = (0..CLIENTS).map(|client| {
            let (user, answered) = (user.clone(), Arc::clone(&answered));
            tokio::spawn(play(user, round, client, answered))
        });
        let clients: Vec<_> = clients.collect();
        let before = answered.lock().expect("not poisoned").count;
        let wanted = before + random.usize(1..400);
        let reached = async {
            while answered.lock().expect("not poisoned").count < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(LIMIT, reached).await;
        reached.expect("the server answers");
        server.kill().await;
        for client in join_all(clients).await {
            client.expect("every answer was as expected");
        }
    }

    let store = Sqlite::open(&place.data()).expect("a store");
    let answered = std::mem::take(&mut *answered.lock().expect("not poisoned"));
    for (id, expected) in &answered.runs {
        let run = store.run(id.clone()).await.expect("read");
        let run = run.unwrap_or_else(|| panic!("{id} is lost: it was {expected}"));
        let stored = run.run.status();
        assert!(
            may_have_become(*expected, stored),
            "{id}: answered {expected}, stored {stored}"
        );
        let timeline = store.timeline(run.number).await.expect("read");
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
    let counts = store.counts().await.expect("read");
    let total: u64 = counts.iter().map(|(_, runs)| runs).sum();
    let known = answered.runs.len() as u64;
    // Of each client, at most one create was not answered before each kill.
    assert!((known..=known + (kills * CLIENTS) as u64).contains(&total));
    println!(
        "{kills} kills, {} answers, {known} runs answered, {total} stored",
        answered.count
    );
}
