//! Hostile inputs: files, pods and responses that would use up podbeat's memory or block its
//! thread.
//!
//! In each case heartbeats continue, the log names the cause, and memory stays low.
//! `just budget-short` runs the image's binary in a control group of 32 MiB, like its container.

use std::os::unix::fs::symlink;
use std::path::Path;

use podbeat_lab::fault::{Extent, Place, Rule, What};
use podbeat_lab::pod::{Pod, Sidecar, running, terminated, waiting};
use podbeat_lab::world::{KUBE_TOKEN, TOKEN, World};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::binary::{Podbeat, ended, podbeat};
use crate::harness::received::{until, until_final, until_main_is};
use crate::harness::{STARTED, settings, text};

/// The most memory that the process may have in RAM, in bytes: the container's 32 MiB, and 16 MiB
/// more because the binary is not optimized.
const MOST: u64 = 48 << 20;

const MARK: &str = "\u{feff}";

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
}

/// Waits until two more heartbeats are accepted.
async fn until_it_beats_on(world: &World) {
    let accepted = world.service.accepted().len();
    until(world, "two more heartbeats", |heartbeats| {
        heartbeats
            .iter()
            .filter(|heartbeat| heartbeat.accepted)
            .count()
            >= accepted + 2
    })
    .await;
}

async fn until_told(podbeat: &Podbeat, message: &str, of: &str) -> Value {
    podbeat
        .until(&format!("{message}: {of}"), |line| {
            line["message"] == message
                && line["error"]
                    .as_str()
                    .is_some_and(|error| error.contains(of))
        })
        .await
}

#[track_caller]
fn is_small(podbeat: &Podbeat) {
    let peak = podbeat.peak();
    assert!(peak < MOST, "{} KiB\n{}", peak >> 10, podbeat.text());
}

/// Replaces the token file with something else while podbeat runs, and then restores it.
async fn with_token_file(put: impl Fn(&Path), said: &str) {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
    until_main_is(&world, "running").await;
    let beside = world.path("token.beside");
    put(&beside);
    std::fs::rename(&beside, world.path("token")).expect("renamed");
    until_told(&podbeat, "a heartbeat was not accepted", said).await;
    world.write_token(TOKEN).expect("written");
    until_it_beats_on(&world).await;
    is_small(&podbeat);
    podbeat.signal(Signal::TERM);
    assert_eq!(podbeat.end().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_as_a_token_file_blocks_nothing() {
    with_token_file(fifo, "it is a pipe, not a regular file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_token_file_uses_no_memory() {
    let sparse = |path: &Path| {
        let file = std::fs::File::create(path).expect("made");
        file.set_len(256 << 20).expect("256 MiB");
    };
    with_token_file(sparse, "it is larger than 64 KiB").await;
    let device = |path: &Path| symlink("/dev/zero", path).expect("a link");
    with_token_file(device, "it is a device or a socket, not a regular file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_at_the_start_end_with_64_or_block_nothing() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let pipe = world.path("pipe");
    fifo(&pipe);
    for variable in ["PODBEAT_CA_FILE", "PODBEAT_NONCE_FILE"] {
        let settings = settings(&world, &[(variable, &text(&pipe))]);
        let ended = ended(podbeat().envs(settings)).await;
        assert_eq!(ended.code, 64, "{variable}: {}", ended.notes);
        assert!(
            ended.notes.contains("it is a pipe"),
            "{variable}: {}",
            ended.notes
        );
    }
    // podbeat renames a journal that is a pipe. If the service account's token is a pipe,
    // heartbeats have no container states.
    std::fs::create_dir(world.path("state")).expect("made");
    fifo(&world.path("state/journal.json"));
    let account = world.path("serviceaccount/token");
    std::fs::remove_file(&account).expect("removed");
    fifo(&account);
    let state = text(world.path("state"));
    let podbeat = Podbeat::start(
        &world,
        "log",
        &[("PODBEAT_STATE_DIR", &state), ("PODBEAT_INTERVAL", "100ms")],
    );
    until_told(
        &podbeat,
        "cannot resume from the journal; starting with an empty one",
        "it is a pipe",
    )
    .await;
    until_told(
        &podbeat,
        "cannot watch the pod; heartbeats continue without new container states",
        "it is a pipe",
    )
    .await;
    until_it_beats_on(&world).await;
    std::fs::remove_file(&account).expect("removed");
    std::fs::write(&account, format!("{MARK}{KUBE_TOKEN}\r\n")).expect("written");
    until_main_is(&world, "running").await;
    podbeat.signal(Signal::TERM);
    assert_eq!(podbeat.end().await.0, 0);
    assert!(
        world
            .path("state/journal.json")
            .metadata()
            .expect("there")
            .is_file()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_of_an_api_server_use_no_memory() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    // The pod does not exist yet, so podbeat also requests it directly.
    world.kube_faults.script("get flood").expect("a rule");
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
    let message = "cannot watch the pod; heartbeats continue without new container states";
    let until_flooded = async |verb: &str| {
        let error = format!("{verb} pod lab/p: the API server sent more than 4 MiB");
        until_told(&podbeat, message, &error).await;
        until_it_beats_on(&world).await;
    };
    until_flooded("getting").await;
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    until_main_is(&world, "waiting").await;
    // In an open watch, and in the list after it.
    world
        .kube_faults
        .script("watch flood; list flood")
        .expect("rules");
    until_flooded("watching").await;
    until_flooded("listing").await;
    world.kube.apply(pod.showing(&running(STARTED)));
    until_main_is(&world, "running").await;
    // The look before the last heartbeat.
    world
        .kube_faults
        .script("any flood until-lifted; watch cut")
        .expect("rules");
    is_small(&podbeat);
    podbeat.signal(Signal::TERM);
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
}

/// A pod whose JSON is short, but whose containers or states would take hundreds of megabytes.
fn swollen(path: &str) -> Value {
    let mut pod = Pod::new("p", "u1").showing(&waiting("ContainerCreating"));
    let (parent, member) = path.rsplit_once('/').expect("a path");
    let parent = pod.pointer_mut(parent).expect(path);
    parent[member] = Value::Array(vec![json!({}); 700_000]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_many_small_parts_uses_no_memory() {
    for path in [
        "/spec/containers",
        "/status/containerStatuses",
        "/status/conditions",
    ] {
        let world = World::start().await.expect("a world");
        let pod = Pod::new("p", "u1");
        world.kube.apply(pod.showing(&waiting("ContainerCreating")));
        let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
        until_main_is(&world, "waiting").await;
        world.kube.apply(swollen(path));
        until_told(
            &podbeat,
            "cannot watch the pod; heartbeats continue without new container states",
            "expected a list of at most",
        )
        .await;
        until_it_beats_on(&world).await;
        let mut labeled = pod.showing(&running(STARTED));
        let labels = (0..100_000).map(|nth| (format!("l{nth}"), json!("")));
        labeled["metadata"]["labels"] = Value::Object(labels.collect());
        world.kube.apply(labeled);
        until_main_is(&world, "running").await;
        is_small(&podbeat);
        podbeat.signal(Signal::TERM);
        assert_eq!(podbeat.end().await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_of_a_service_use_no_memory() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world
        .service_faults
        .script("heartbeat flood until-lifted")
        .expect("a rule");
    let podbeat = Podbeat::start(&world, "log", &[("PODBEAT_INTERVAL", "100ms")]);
    until_it_beats_on(&world).await;
    let message = "a heartbeat was accepted, but the response body is unreadable; a new token in it would be lost";
    until_told(&podbeat, message, "larger than 64 KiB").await;
    is_small(&podbeat);
    podbeat.signal(Signal::TERM);
    assert_eq!(podbeat.end().await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_order_marks_and_white_space_around_what_is_read_change_nothing() {
    let options = podbeat_lab::service::Options {
        mutual_tls: true,
        ..podbeat_lab::service::Options::default()
    };
    let world = crate::harness::world_with(options).await;
    world.service.set_tokens(&[TOKEN, "renewed"]);
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Native);
    world.kube.apply(pod.showing(&waiting("ContainerCreating")));
    let marked = |name: &str| {
        let path = world.path(name);
        let whole = std::fs::read_to_string(&path).expect("read");
        std::fs::write(&path, format!("{MARK}{whole}\r\n\r\n")).expect("written");
    };
    std::fs::write(world.path("nonce"), "issued-7").expect("written");
    for name in [
        "token",
        "nonce",
        "ca.crt",
        "client.crt",
        "client.key",
        "serviceaccount/token",
        "serviceaccount/ca.crt",
    ] {
        marked(name);
    }
    let path = |name: &str| text(world.path(name));
    let podbeat = Podbeat::start(
        &world,
        "log",
        &[
            ("PODBEAT_NONCE_FILE", &path("nonce")),
            ("PODBEAT_CLIENT_CERT_FILE", &path("client.crt")),
            ("PODBEAT_CLIENT_KEY_FILE", &path("client.key")),
            ("PODBEAT_RENEWED_TOKEN_FILE", &path("renewed")),
            ("PODBEAT_INTERVAL", "100ms"),
        ],
    );
    until_main_is(&world, "waiting").await;
    let accepted = world.service.accepted();
    assert!(
        accepted
            .iter()
            .all(|heartbeat| heartbeat.token.as_deref() == Some(TOKEN)
                && heartbeat.nonce() == "issued-7"),
        "{accepted:?}"
    );
    let renew = |jwt: &str| {
        world.service_faults.inject(Rule {
            place: Place::Heartbeat,
            only_final: false,
            what: What::Jwt(jwt.to_owned()),
            after: None,
            extent: Extent::Times(1),
        });
    };
    // An empty token is unusable, and does not replace a valid one.
    renew("\u{feff}\r\n");
    until_told(
        &podbeat,
        "the service sent an unusable token; keeping the current one",
        "empty",
    )
    .await;
    until_it_beats_on(&world).await;
    let last = |world: &World| {
        world
            .service
            .accepted()
            .last()
            .and_then(|last| last.token.clone())
    };
    assert_eq!(last(&world).as_deref(), Some(TOKEN));
    renew("\u{feff}renewed \r\n");
    until(&world, "the renewed token", |heartbeats| {
        heartbeats
            .iter()
            .any(|heartbeat| heartbeat.accepted && heartbeat.token.as_deref() == Some("renewed"))
    })
    .await;
    assert_eq!(
        std::fs::read_to_string(world.path("renewed")).expect("handed on"),
        "renewed"
    );
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    podbeat.signal(Signal::TERM);
    assert_eq!(podbeat.end().await.0, 0);
    assert_eq!(until_final(&world).await.exit_code("main"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn reap_uses_the_same_memory_for_many_large_pods_as_for_few_small_ones() {
    let runs: Vec<String> = (0..40).map(|nth| format!("trn.{nth}")).collect();
    let world =
        crate::harness::world_with(crate::harness::knowing(runs.iter().map(String::as_str))).await;
    // About 1.4 MB each, which etcd accepts.
    let variables: Vec<Value> = (0..14_000)
        .map(|nth| json!({"name": format!("VARIABLE_NUMBER_{nth}"), "value": "x".repeat(60)}))
        .collect();
    for (nth, run) in runs.iter().enumerate() {
        let mut pod =
            Pod::new(&format!("p{nth}"), &format!("u{nth}")).showing(&terminated(3, "Error", "1"));
        pod["metadata"]["annotations"] = json!({"podbeat.dev/task-run-id": run});
        pod["status"]["phase"] = json!("Failed");
        pod["spec"]["containers"][0]["env"] = Value::Array(variables.clone());
        world.kube.apply(pod);
    }
    let mut settings = world.settings("reaper", "u");
    settings
        .retain(|variable, _| !["TASK_RUN_ID", "POD_NAME", "POD_UID"].contains(&variable.as_str()));
    let mut podbeat = Podbeat::with(&world, "log", &settings, &["reap", "--all"]);
    let (status, peak) = podbeat.ended_with_peak().await;
    assert!(status.success(), "{}", podbeat.text());
    let told = podbeat.text();
    assert!(told.ends_with("40 pods with podbeat: 40 sent\n"), "{told}");
    assert_eq!(world.service.accepted().len(), 40);
    assert!(peak < MOST, "{} KiB", peak >> 10);
}
