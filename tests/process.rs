//! The binary as a process: its environment, its signals, its output and its exit codes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use podbeat_lab::kube_api::KubeApi;
use podbeat_lab::pki::Authority;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{KUBE_TOKEN, TOKEN, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(30);
const STARTED: &str = "2026-01-01T00:00:01Z";

fn podbeat(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podbeat"));
    command
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(settings: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    told(
        &podbeat(&settings)
            .args(arguments)
            .output()
            .expect("the binary runs"),
    )
}

fn told(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.code().expect("an exit code"),
        String::from_utf8(text).expect("text"),
    )
}

/// Waits for the end without holding up the stand-ins, which run on this test's runtime.
async fn end(child: Child) -> (i32, String) {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().expect("waited for"));
    told(
        &tokio::time::timeout(LIMIT, output)
            .await
            .expect("podbeat ends")
            .expect("joined"),
    )
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}

async fn until_running_is_heard(world: &World) {
    let is_running =
        |heartbeat: &Heartbeat| heartbeat.state("main").is_some_and(|(name, _)| name == "running");
    world
        .service
        .wait_for("main running", LIMIT, |heartbeats| {
            heartbeats.iter().any(is_running)
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn with_nothing_set_every_missing_setting_is_named_at_once() {
    let (code, text) = run(&[], &[]);
    assert_eq!(code, 64);
    for variable in [
        "TASK_RUN_ID",
        "POD_NAME",
        "PODBEAT_SERVICE_URL",
        "PODBEAT_TOKEN_FILE",
    ] {
        assert!(text.contains(variable), "{variable}: {text}");
    }
    let (code, text) = run(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")], &["agent"]);
    assert_eq!(code, 64);
    for variable in [
        "TASK_RUN_ID",
        "POD_NAME",
        "POD_NAMESPACE",
        "POD_UID",
        "PODBEAT_SERVICE_URL",
        "PODBEAT_TOKEN_FILE",
    ] {
        assert!(text.contains(variable), "{variable}: {text}");
    }
}

#[test]
fn every_malformed_setting_is_named_at_once_and_no_secret_is_shown() {
    let settings = [
        ("TASK_RUN_ID", "r"),
        ("POD_NAME", "Not A Name"),
        ("PODBEAT_SERVICE_URL", "https://user:hunter2@ica.example"),
        ("PODBEAT_TOKEN", "hunter2 hunter2"),
        ("PODBEAT_NONCE", "hunter2\u{1b}[2J"),
        ("PODBEAT_INTERVAL", "often"),
    ];
    let (code, text) = run(&settings, &["--timeout", "never", "--report", "everything"]);
    assert_eq!(code, 64);
    for variable in [
        "POD_NAME",
        "PODBEAT_SERVICE_URL",
        "PODBEAT_TOKEN",
        "PODBEAT_NONCE",
        "PODBEAT_INTERVAL",
        "PODBEAT_TIMEOUT",
        "PODBEAT_REPORT",
    ] {
        assert!(text.contains(variable), "{variable}: {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    assert_eq!(run(&[], &["--no-such-flag"]).0, 64);
    assert_eq!(run(&[], &["dance"]).0, 64);
    let (code, help) = run(&[], &["--help"]);
    assert!(code == 0 && help.contains("agent"), "{help}");
    assert_eq!(
        run(&[], &["--version"]),
        (0, format!("podbeat {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn files_that_cant_be_used_are_a_setting_gone_wrong() {
    let settings = [
        ("TASK_RUN_ID", "r"),
        ("POD_NAME", "p"),
        ("PODBEAT_SERVICE_URL", "https://localhost:1"),
        ("PODBEAT_TOKEN", "hunter2"),
    ];
    for (variable, path) in [
        ("PODBEAT_CA_FILE", "/nowhere/ca.crt"),
        ("PODBEAT_CA_FILE", "/dev/null"),
        ("PODBEAT_NONCE_FILE", "/nowhere/nonce"),
    ] {
        let (code, text) = run(&[&settings[..], &[(variable, path)]].concat(), &[]);
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(path) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_native_sidecar_with_0_after_the_last_heartbeat() {
    for ending in [Signal::TERM, Signal::INT] {
        let world = World::start().await.expect("a world");
        world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
        let child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
        until_running_is_heard(&world).await;
        signal(&child, ending);
        let (code, log) = end(child).await;
        assert_eq!(code, 0, "{log}");
        assert!(
            world.service.accepted().last().expect("heartbeats").is_final(),
            "{ending:?}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_that_cant_be_delivered_is_75_and_its_body_is_in_the_log() {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
    pod["spec"]["terminationGracePeriodSeconds"] = 3.into();
    world.kube.apply(pod);
    let child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
    until_running_is_heard(&world).await;
    world
        .service_faults
        .script("any refuse until-lifted")
        .expect("a rule");
    signal(&child, Signal::TERM);
    let (code, log) = end(child).await;
    assert_eq!(code, 75, "{log}");
    let error = lines(&log)
        .into_iter()
        .find(|line| line["level"] == "ERROR")
        .expect("an error line");
    let request: Value = serde_json::from_str(error["request"].as_str().expect("the request")).expect("JSON");
    assert_eq!(request["lastHeartbeat"], true);
    assert_eq!(request["containerStatus"][0]["name"], "main");
}

/// G6: over a full life at trace level, with faults, a crash, a renewed token and a refused one, no token is in any line
/// of the log, nor in any file but those that are there to hold one.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_anywhere_but_where_it_belongs() {
    let world = World::start().await.expect("a world");
    world.service.set_tokens(&[TOKEN, "renewed-hunter2"]);
    let faults =
        "heartbeat 401; heartbeat jwt=renewed-hunter2; heartbeat 503; heartbeat garbage; heartbeat drop";
    world.service_faults.script(faults).expect("rules");
    world
        .kube_faults
        .script("list 403; list garbage; watch cut")
        .expect("rules");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    for directory in ["state", "shared"] {
        std::fs::create_dir(world.path(directory)).expect("made");
    }
    let renewed_file = world.path("shared").join("token");
    for (variable, value) in [
        ("PODBEAT_LOG", "trace".to_owned()),
        ("PODBEAT_INTERVAL", "100ms".to_owned()),
        ("PODBEAT_STATE_DIR", world.path("state").display().to_string()),
        ("PODBEAT_RENEWED_TOKEN_FILE", renewed_file.display().to_string()),
    ] {
        settings.insert(variable.to_owned(), value);
    }
    let struck = |heartbeats: &[Heartbeat]| {
        heartbeats
            .iter()
            .filter(|heartbeat| heartbeat.accepted && heartbeat.token.as_deref() == Some("renewed-hunter2"))
            .count()
            >= 5
    };
    // A file, not a pipe: a pipe that is read only at the end would fill up and stop the writer.
    let logs = ["log-1", "log-2"].map(|name| world.path(name));
    let log_to = |path: &std::path::Path| std::fs::File::create(path).expect("a file");
    let mut child = podbeat(&settings)
        .stderr(log_to(&logs[0]))
        .spawn()
        .expect("started");
    world
        .service
        .wait_for("five with the renewed token", LIMIT, struck)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    child.kill().expect("killed");
    child.wait().expect("ended");
    let before = world.service.accepted().len();

    // The renewed token is the only one that is still good: the next process must have it from the journal.
    world.service.set_tokens(&["renewed-hunter2"]);
    let child = podbeat(&settings)
        .stderr(log_to(&logs[1]))
        .spawn()
        .expect("started");
    let more = |heartbeats: &[Heartbeat]| {
        let accepted = heartbeats.iter().filter(|heartbeat| heartbeat.accepted);
        accepted.count() > before + 2
    };
    world
        .service
        .wait_for("more after the restart", LIMIT, more)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    world.kube.apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, _) = end(child).await;
    assert_eq!(code, 0);
    assert!(
        std::fs::read_to_string(&logs[1])
            .expect("the log")
            .contains("\"level\":\"TRACE\""),
        "it is a full log"
    );

    // Exactly the files that are there to hold a token do.
    let mut holders = vec![];
    let mut directories = vec![world.path("")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let content = std::fs::read(&path).expect("read");
            let text = String::from_utf8_lossy(&content);
            if [TOKEN, KUBE_TOKEN, "renewed-hunter2"]
                .iter()
                .any(|token| text.contains(token))
            {
                let name = path.strip_prefix(world.path("")).expect("inside");
                holders.push(name.display().to_string());
            }
        }
    }
    holders.sort_unstable();
    assert_eq!(
        holders,
        [
            "kubeconfig",
            "serviceaccount/token",
            "shared/token",
            "state/journal.json",
            "token"
        ]
    );
    for (file, expected) in [(renewed_file, 0o640), (world.path("state/journal.json"), 0o600)] {
        let mode = std::fs::metadata(file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_near_its_end_is_a_warning_once() {
    let world = World::start().await.expect("a world");
    let soon = jiff::Timestamp::now().as_second() + 300;
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{soon}}}"#));
    let token = format!("e30.{claims}.hunter2");
    world.service.set_tokens(&[&token]);
    world.write_token(&token).expect("written");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
    until_running_is_heard(&world).await;
    world.kube.apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = end(child).await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(
        log.matches("the bearer token will expire soon").count(),
        1,
        "{log}"
    );
    assert!(!log.contains(&token) && !log.contains("hunter2"));
}

/// G8: what can't be written is a warning.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_cant_be_written_end_nothing() {
    let world = World::start().await.expect("a world");
    world
        .service_faults
        .script("heartbeat jwt=token")
        .expect("a rule");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    // Nobody, root included, can make a file there.
    settings.insert("PODBEAT_STATE_DIR".to_owned(), "/proc/self".to_owned());
    settings.insert(
        "PODBEAT_RENEWED_TOKEN_FILE".to_owned(),
        "/proc/self/token".to_owned(),
    );
    let child = podbeat(&settings).spawn().expect("started");
    until_running_is_heard(&world).await;
    world.kube.apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = end(child).await;
    assert_eq!(code, 0, "{log}");
    for what in [
        "writing the journal to /proc/self",
        "writing the renewed token to /proc/self",
    ] {
        assert!(log.contains(what), "{what}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cant_be_taken_up_is_set_aside_and_ends_nothing() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let mut settings = world.settings("p", "u1");
    settings.insert("PODBEAT_STATE_DIR".to_owned(), state.display().to_string());
    for (nth, (content, aside)) in [
        ("{\"version\":1,\"task", "torn"),
        ("{\"version\":99}", "newer"),
        ("{\"version\":1,\"taskRunId\":\"another\"}", "foreign"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(state.join("journal.json"), content).expect("written");
        settings.insert("TASK_RUN_ID".to_owned(), format!("run-{nth}"));
        world.kube.apply(pod.showing(&terminated(0, "Completed", "c1")));
        let child = podbeat(&settings).spawn().expect("started");
        let (code, log) = end(child).await;
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("beginning afresh"), "{log}");
        let kept = std::fs::read_to_string(state.join(format!("journal.json.{aside}"))).expect("set aside");
        assert_eq!(kept, content);
    }
}

/// The wrapper in the task's container and the sidecar, with the directory between them and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_of_podbeat_exec_reaches_the_service_where_the_api_tells_no_exit() {
    let world = World::start().await.expect("a world");
    let markers = world.path("markers");
    std::fs::create_dir(&markers).expect("made");
    let mut task = Command::new(env!("CARGO_BIN_EXE_podbeat"));
    task.args(["exec", "--container-name", "main", "--marker-dir"])
        .arg(&markers)
        .args(["--", "sleep", "600"]);
    let mut task = task.stdin(Stdio::null()).spawn().expect("started");
    world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    settings.insert("PODBEAT_MARKER_DIR".to_owned(), markers.display().to_string());
    let child = podbeat(&settings).spawn().expect("started");
    until_running_is_heard(&world).await;
    // What the kubelet does in a pod that is being deleted: the task first, then the native sidecar.
    signal(&task, Signal::TERM);
    assert_eq!(task.wait().expect("waited for").code(), Some(143));
    signal(&child, Signal::TERM);
    let (code, log) = end(child).await;
    assert_eq!(code, 0, "{log}");
    let last = world.service.accepted().pop().expect("heartbeats");
    assert!(last.is_final());
    assert_eq!(last.exit_code("main"), Some(143), "{log}");
    let filled = lines(&log)
        .into_iter()
        .find(|line| line["message"] == "an exit marker tells what the Kubernetes API withholds")
        .expect("a line of the log");
    assert_eq!(
        (&filled["container"], &filled["exit_code"]),
        (&"main".into(), &143.into())
    );
    assert!(!log.contains("no effect"), "{log}");
}

/// The task can write there whatever it likes: nothing of it hangs podbeat, kills it, or makes it tell what it shouldn't.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_lies_among_the_markers_does_no_harm() {
    let world = World::start().await.expect("a world");
    let markers = world.path("markers");
    std::fs::create_dir(&markers).expect("made");
    let at = |name: &str| markers.join(name);
    std::fs::write(
        at("main.json"),
        "{\"exitCode\":5,\"finishedAt\":\"2026-01-01T00:00:09Z\"}",
    )
    .expect("written");
    // A pipe that nobody writes to, links to the token and to a device without end, a directory, 1 GiB of nothing, a file
    // that may not be read, one that is no marker, one for a container that there isn't, and names of all kinds.
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, 0o644.into(), 0).expect("a pipe");
    symlink(world.path("token"), at("linked")).expect("linked");
    symlink("/dev/zero", at("endless.json")).expect("linked");
    std::fs::create_dir(at("directory")).expect("made");
    std::fs::File::create(at("sparse"))
        .and_then(|file| file.set_len(1 << 30))
        .expect("made");
    std::fs::write(at("locked.json"), "neither read nor JSON").expect("written");
    std::fs::set_permissions(at("locked.json"), PermissionsExt::from_mode(0o000)).expect("locked");
    std::fs::write(at("torn.json"), "{\"exitCode\":").expect("written");
    std::fs::write(at("stranger"), "7").expect("written");
    std::fs::write(at("notyet"), "").expect("written");
    std::fs::write(at("evil\u{1b}[2J\nname"), "7").expect("written");
    std::fs::write(markers.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "7").expect("written");
    world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    settings.insert("PODBEAT_MARKER_DIR".to_owned(), markers.display().to_string());
    let child = podbeat(&settings).spawn().expect("started");
    until_running_is_heard(&world).await;
    signal(&child, Signal::TERM);
    let (code, log) = end(child).await;
    assert_eq!(code, 0, "{log}");
    let last = world.service.accepted().pop().expect("heartbeats");
    assert!(last.is_final());
    assert_eq!(last.exit_code("main"), Some(5), "{log}");
    let told: Vec<String> = lines(&log)
        .into_iter()
        .filter(|line| line["level"] == "WARN")
        .filter_map(|line| Some(line["file"].as_str().or(line["container"].as_str())?.to_owned()))
        .collect();
    for name in [
        "pipe",
        "linked",
        "endless.json",
        "directory",
        "sparse",
        "locked.json",
        "torn.json",
        "stranger",
        "evil",
    ] {
        let count = told.iter().filter(|told| told.contains(name)).count();
        assert_eq!(count, 1, "{name} is told of once: {log}");
    }
    assert!(
        !log.contains(TOKEN) && !log.contains('\u{1b}') && !log.contains("notyet"),
        "{log}"
    );
}

/// The log of a missing right names the Role, ready to apply.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_is_printed_ready_to_apply() {
    let world = World::start().await.expect("a world");
    world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world.kube.deny(true);
    let child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
    let refused = |kube: &podbeat_lab::kube_api::KubeApi| {
        kube.seen().iter().filter(|seen| seen.status == Some(403)).count() >= 2
    };
    world
        .kube
        .wait_for("two refusals", LIMIT, refused)
        .await
        .expect("refused");
    signal(&child, Signal::TERM);
    let (_, log) = end(child).await;
    let role = lines(&log)
        .into_iter()
        .find_map(|line| Some(line["kubectl_apply"].as_str()?.to_owned()))
        .expect("a role");
    for part in [
        "kind: Role\n",
        "kind: RoleBinding\n",
        "verbs: [get, list, watch]",
        "{kind: ServiceAccount, name: podbeat, namespace: lab}",
    ] {
        assert!(role.contains(part), "{part}: {role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_each_log_line_is_one_json_object() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&terminated(4, "Error", "c1")));
    let child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
    let (code, log) = end(child).await;
    assert_eq!(code, 0, "{log}");
    let lines = lines(&log);
    let messages: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages.first(), Some(&"podbeat begins"), "{log}");
    assert!(messages.contains(&"container changed"), "{log}");
    assert_eq!(messages.last(), Some(&"podbeat ends"), "{log}");
    let exit = lines
        .iter()
        .find(|line| line["exit_code"] == 4)
        .expect("the exit code");
    assert_eq!(
        (&exit["container"], &exit["to"]),
        (&"main".into(), &"terminated".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_ends_nothing() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut child = podbeat(&world.settings("p", "u1")).spawn().expect("started");
    drop((child.stderr.take(), child.stdout.take()));
    until_running_is_heard(&world).await;
    world.kube.apply(pod.showing(&terminated(0, "Completed", "c1")));
    assert_eq!(end(child).await.0, 0);
}

/// A proxy that tunnels (CONNECT) and remembers where to.
async fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let remembered = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let remembered = Arc::clone(&remembered);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(head).expect("text");
                let destination = head.split(' ').nth(1).expect("a destination").to_owned();
                remembered.lock().expect("not poisoned").push(destination.clone());
                let mut server = TcpStream::connect(&destination).await.expect("connected");
                client
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                    .await
                    .expect("answered");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_used_for_both_and_left_out_where_no_proxy_says_so() {
    let world = World::start().await.expect("a world");
    world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let service = world.service.url().replace("https://", "");
    let kube = format!("127.0.0.1:{}", world.kube.port());
    for (no_proxy, expected) in [
        ("", vec![&kube, &service]),
        ("127.0.0.1", vec![&service]),
        ("127.0.0.1,localhost", vec![]),
    ] {
        let (port, asked) = proxy().await;
        let mut settings = world.settings("p", "u1");
        settings.insert("TASK_RUN_ID".to_owned(), format!("run-{}", expected.len()));
        settings.insert("HTTPS_PROXY".to_owned(), format!("http://127.0.0.1:{port}"));
        settings.insert("NO_PROXY".to_owned(), no_proxy.to_owned());
        let mut child = podbeat(&settings).stderr(Stdio::null()).spawn().expect("started");
        let run = format!("run-{}", expected.len());
        let heard = |heartbeat: &Heartbeat| heartbeat.run_id == run && heartbeat.state("main").is_some();
        let heard = world
            .service
            .wait_for("main's state", LIMIT, |heartbeats| heartbeats.iter().any(heard))
            .await;
        child.kill().expect("killed");
        child.wait().expect("ended");
        heard.unwrap_or_else(|error| panic!("{error}"));
        let mut asked = asked.lock().expect("not poisoned").clone();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.iter().collect::<Vec<_>>(), expected, "NO_PROXY={no_proxy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_stands_in_place_of_the_systems_roots() {
    let world = World::start().await.expect("a world");
    world.kube.apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    let ours = settings.remove("PODBEAT_CA_FILE").expect("set");
    // The "system" knows the service's CA.
    settings.insert("SSL_CERT_FILE".to_owned(), ours);
    settings.insert("PODBEAT_INTERVAL".to_owned(), "200ms".to_owned());
    let mut child = podbeat(&settings).stderr(Stdio::null()).spawn().expect("started");
    until_running_is_heard(&world).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    let heard = world.service.heartbeats().len();

    let other = world.path("other-ca.crt");
    Authority::new()
        .and_then(|authority| authority.write_to(&other))
        .expect("another authority");
    settings.insert("PODBEAT_CA_FILE".to_owned(), other.to_string_lossy().into_owned());
    let mut child = podbeat(&settings).spawn().expect("started");
    let watched_again = |kube: &KubeApi| kube.seen().iter().filter(|seen| seen.verb == "watch").count() >= 2;
    world
        .kube
        .wait_for("another watch", LIMIT, watched_again)
        .await
        .expect("the API server's roots are its own");
    let (tell, mut told) = tokio::sync::mpsc::channel(64);
    let log = BufReader::new(child.stderr.take().expect("a pipe"));
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let _ = tell.blocking_send(line);
        }
    });
    let mut log = Vec::new();
    let refused = async {
        while let Some(line) = told.recv().await {
            let refused = line.contains("invalid peer certificate");
            log.push(line);
            if refused {
                return true;
            }
        }
        false
    };
    let refused = tokio::time::timeout(LIMIT, refused).await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(matches!(refused, Ok(true)), "{log:#?}");
    assert_eq!(world.service.heartbeats().len(), heard);
}

fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}
