//! `podbeat explain` as a process: over the logs and journals of real agents, and over watches of a real cluster.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use podbeat_lab::pod::{Pod, running, terminated, waiting};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{RUN, World};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// What a process left.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    notes: String,
}

fn explain(arguments: &[&str], input: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_podbeat"))
        .arg("explain")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It may end before it has read all.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("waited for");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        notes: text(output.stderr),
    }
}

/// A story as JSON.
fn told(input: &str) -> Value {
    let ended = explain(&["-o", "json"], input);
    assert_eq!((ended.code, ended.notes.as_str()), (0, ""), "{}", ended.out);
    serde_json::from_str(&ended.out).expect("one story")
}

fn outcome(story: &Value) -> &str {
    story["verdict"]["outcome"].as_str().expect("an outcome")
}

fn verdict(story: &Value) -> &str {
    story["verdict"]["text"].as_str().expect("a text")
}

fn texts(story: &Value) -> Vec<&str> {
    let events = story["events"].as_array().expect("events");
    events
        .iter()
        .map(|event| event["text"].as_str().expect("a text"))
        .collect()
}

/// Whether these stand among the texts, in this order.
#[track_caller]
fn in_order(texts: &[&str], expected: &[&str]) {
    let mut rest = texts.iter();
    for part in expected {
        assert!(
            rest.any(|text| text.contains(part)),
            "{part:?} is missing, or out of order: {texts:#?}"
        );
    }
}

struct Agent {
    child: Child,
    log: std::path::PathBuf,
}

impl Agent {
    fn start(world: &World, more: &[(&str, &str)]) -> Self {
        let log = world.path("log");
        let mut settings: BTreeMap<String, String> = world.settings("p", "u");
        for (variable, value) in more {
            settings.insert((*variable).to_owned(), (*value).to_owned());
        }
        // Behind what an earlier process wrote, as in a container's log.
        let stderr = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_podbeat"))
            .env_clear()
            .envs(settings)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the agent runs");
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }

    /// What the service has heard, the agent learns, and writes, a moment later.
    async fn until_logged(&self, text: &str) {
        let logged = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, logged).await.expect(text);
    }

    async fn end(&mut self) -> i32 {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("waited for") {
                    return status.code().expect("a code");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, ended).await.expect("it ends")
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is there");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn until(world: &World, what: &str, is: impl Fn(&Heartbeat) -> bool) {
    world
        .service
        .wait_for(what, LIMIT, |heard| heard.iter().any(&is))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

fn tells(heartbeat: &Heartbeat, state: &str) -> bool {
    heartbeat.accepted && heartbeat.state("main").is_some_and(|(name, _)| name == state)
}

async fn world() -> World {
    World::start().await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_life_with_an_outage_a_crash_and_a_good_end() {
    let world = world().await;
    let directory = world.path("state");
    std::fs::create_dir(&directory).expect("made");
    let state = [
        ("PODBEAT_STATE_DIR", directory.to_str().expect("text")),
        // For so long the last heartbeat of the second process may wait for what the first one sent.
        ("PODBEAT_TIMEOUT", "1s"),
    ];
    world
        .kube
        .apply(Pod::new("p", "u").showing(&waiting("ContainerCreating")));
    let mut agent = Agent::start(&world, &state);
    until(&world, "waiting", |heartbeat| tells(heartbeat, "waiting")).await;
    world.service_faults.script("heartbeat 503 x2").expect("a fault");
    world
        .kube
        .apply(Pod::new("p", "u").showing(&running("2026-01-01T00:00:01Z")));
    until(&world, "running", |heartbeat| tells(heartbeat, "running")).await;
    agent.until_logged("the service accepts heartbeats again").await;
    agent.kill();
    let mut agent = Agent::start(&world, &state);
    world
        .kube
        .apply(Pod::new("p", "u").showing(&terminated(3, "Error", "1")));
    until(&world, "the end", |heartbeat| {
        heartbeat.is_final() && heartbeat.accepted
    })
    .await;
    agent.terminate();
    assert_eq!(agent.end().await, 0);

    let log = agent.log();
    let story = told(&log);
    assert_eq!((&story["taskRun"], &story["pod"]), (&RUN.into(), &"lab/p".into()));
    in_order(
        &texts(&story),
        &[
            "begins",
            "main: waiting, ContainerCreating",
            "main: running",
            "the service did not accept a heartbeat: sending a heartbeat of task run trn.42: the task-run service answered 503",
            "the service accepts heartbeats again, after",
            "begins again: the process before it was killed",
            "it goes on from its journal",
            "main: terminated with exit code 3, Error",
            "the last heartbeat is due: the task's containers are finished",
            "THE LAST HEARTBEAT WAS ACCEPTED; it told: main terminated 3",
            "podbeat ends with exit code 0",
        ],
    );
    assert_eq!(outcome(&story), "delivered");
    for part in [
        "The service knows how task run trn.42 ended: at 20",
        "which told: main terminated 3.",
        "The service was away once, for",
        "podbeat's container was started again once.",
        "Everything that podbeat saw before was accepted, too.",
    ] {
        assert!(verdict(&story).contains(part), "{part}: {}", verdict(&story));
    }

    // The same as text, from a file, with what kubectl may put before each line and with lines of others between.
    let prefixed: String = log
        .lines()
        .map(|line| format!("[pod/p/podbeat] {line}\nepoch 1 of 3\n"))
        .collect();
    let path = world.path("prefixed");
    std::fs::write(&path, prefixed).expect("written");
    let text = explain(&[path.to_str().expect("text")], "");
    assert_eq!(text.code, 0);
    assert!(
        text.out
            .starts_with("The story of task run trn.42, pod lab/p, by its log:\n\n20"),
        "{}",
        text.out
    );
    let one_paragraph = text.out.replace('\n', " ");
    assert!(one_paragraph.contains(verdict(&story)), "{}", text.out);
    assert!(
        text.notes.ends_with(" lines not podbeat's, left out\n"),
        "{}",
        text.notes
    );
}

#[tokio::test]
async fn an_end_in_vain_says_what_stood_in_its_way_and_what_to_do() {
    let world = world().await;
    world
        .kube
        .apply(Pod::new("p", "u").showing(&running("2026-01-01T00:00:01Z")));
    let mut agent = Agent::start(&world, &[]);
    until(&world, "running", |heartbeat| tells(heartbeat, "running")).await;
    world
        .service_faults
        .script("heartbeat 403 until-lifted")
        .expect("a fault");
    let mut deleted = Pod::new("p", "u").showing(&terminated(9, "Error", "1"));
    deleted["spec"]["terminationGracePeriodSeconds"] = 3.into();
    world.kube.apply(deleted);
    until(&world, "a last heartbeat", Heartbeat::is_final).await;
    agent.terminate();
    assert_eq!(agent.end().await, 75);
    let story = told(&agent.log());
    assert_eq!(outcome(&story), "undelivered");
    in_order(
        &texts(&story),
        &[
            "the last heartbeat is due",
            "SIGTERM",
            "COULD NOT BE DELIVERED",
            "ends with exit code 75",
        ],
    );
    for part in [
        "does not know how task run trn.42 ended",
        "the task-run service answered 403",
        "podbeat reap sends it",
    ] {
        assert!(verdict(&story).contains(part), "{part}: {}", verdict(&story));
    }
}

#[tokio::test]
async fn a_run_that_hangs_for_want_of_its_role_is_told_so_while_it_hangs() {
    let world = world().await;
    world.kube.deny(true);
    let mut agent = Agent::start(&world, &[("PODBEAT_INTERVAL", "200ms")]);
    until(&world, "a heartbeat", |heartbeat| heartbeat.accepted).await;
    agent.until_logged("gives no news").await;
    agent.kill();
    let story = told(&agent.log());
    assert_eq!(outcome(&story), "open");
    for part in [
        "podbeat still runs, or was killed",
        "The Kubernetes API gives no news of the pod since 20",
        "is forbidden",
    ] {
        assert!(verdict(&story).contains(part), "{part}: {}", verdict(&story));
    }
}

#[tokio::test]
async fn a_journal_tells_what_waits() {
    let world = world().await;
    let directory = world.path("state");
    std::fs::create_dir(&directory).expect("made");
    world
        .kube
        .apply(Pod::new("p", "u").showing(&running("2026-01-01T00:00:01Z")));
    let mut agent = Agent::start(
        &world,
        &[("PODBEAT_STATE_DIR", directory.to_str().expect("text"))],
    );
    until(&world, "running", |heartbeat| tells(heartbeat, "running")).await;
    world
        .service_faults
        .script("heartbeat final 503 until-lifted")
        .expect("a fault");
    world
        .kube
        .apply(Pod::new("p", "u").showing(&terminated(5, "Error", "1")));
    until(&world, "a last heartbeat", Heartbeat::is_final).await;
    agent.kill();
    let journal = std::fs::read_to_string(directory.join("journal.json")).expect("a journal");
    let story = told(&journal);
    assert_eq!((outcome(&story), &story["taskRun"]), ("due", &RUN.into()));
    in_order(&texts(&story), &["(final) was decided, and waits"]);
    for part in [
        "is not known to be accepted",
        "podbeat reap --journal sends it, with the same nonce",
    ] {
        assert!(verdict(&story).contains(part), "{part}: {}", verdict(&story));
    }
    let newer = explain(&[], &journal.replace(r#""version":1"#, r#""version":9"#));
    assert_eq!(newer.code, 65);
    assert!(
        newer.notes.contains("newer version of podbeat (form 9"),
        "{newer:?}"
    );
}

fn capture(name: &str) -> String {
    let path = format!(
        "{}/tests/captures/e2e/watch-{name}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).expect("a capture")
}

#[test]
fn watches_of_a_real_cluster() {
    for (name, expected, outcome_expected, told_in_verdict) in [
        (
            "fail-plain",
            &[
                "main: running",
                "main: terminated with exit code 3, Error",
                "here the last heartbeat is due",
            ][..],
            "due",
            "The task of pod fail-plain/",
        ),
        (
            "restarts-native",
            &[
                "main: terminated with exit code 4",
                "main: waiting, CrashLoopBackOff",
                "main: terminated with exit code 0",
            ],
            "due",
            "A container was restarted 3 times.",
        ),
        (
            "delete-force-native",
            &[
                "main: running",
                "the pod is being deleted",
                "the pod object is gone",
            ],
            "due",
            "to the end the API showed main as running",
        ),
        (
            "failed-init",
            &["setup (init): terminated with exit code 5", "finished"],
            "due",
            "The task of pod",
        ),
    ] {
        let story = told(&capture(name));
        in_order(&texts(&story), expected);
        assert_eq!(outcome(&story), outcome_expected, "{name}");
        assert!(
            verdict(&story).contains(told_in_verdict),
            "{name}: {}",
            verdict(&story)
        );
    }
    // Broken off in the middle of a life.
    let begun: String = capture("fail-plain")
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    let story = told(&begun);
    assert_eq!(outcome(&story), "open");
    assert!(
        verdict(&story).contains("Here the record ends"),
        "{}",
        verdict(&story)
    );
}

#[test]
fn what_is_nothing_of_podbeats_is_told_with_what_would_do() {
    for (input, code, said) in [
        ("", 65, "it is empty"),
        ("epoch 1\nepoch 2\n", 65, "neither podbeat's log in JSON"),
        ("{\"a\": 1}\n", 65, "neither podbeat's log in JSON"),
        (
            "01:02:03.004Z INFO  podbeat begins    version=1\n",
            65,
            "in its text form",
        ),
    ] {
        let ended = explain(&[], input);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{input:?}");
        assert!(ended.notes.contains(said), "{}", ended.notes);
    }
    let missing = explain(&["/nowhere/log"], "");
    assert_eq!(missing.code, 66);
    assert!(
        missing.notes.starts_with("podbeat: reading /nowhere/log: "),
        "{missing:?}"
    );
}
