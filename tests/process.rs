//! The binary as a process: its environment, signals, output and exit codes.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use podbeat_lab::kube_api::KubeApi;
use podbeat_lab::pki::Authority;
use podbeat_lab::pod::{Pod, Sidecar, running, terminated};
use podbeat_lab::service::Heartbeat;
use podbeat_lab::world::{KUBE_TOKEN, TOKEN, World};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::harness::binary::{PODBEAT, Podbeat, ended, lines, podbeat, podbeat_at, send};
use crate::harness::received::{until, until_asked, until_final, until_main_is};
use crate::harness::{LIMIT, STARTED, jwt, settings, text, unused_port};

/// Runs podbeat, and returns its exit code and the text of both outputs.
async fn run(settings: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let ended = ended(podbeat().envs(settings.iter().copied()).args(arguments)).await;
    (ended.code, ended.out + &ended.notes)
}

#[tokio::test]
async fn with_nothing_set_every_missing_setting_is_named_at_once() {
    let (code, text) = run(&[], &[]).await;
    assert_eq!(code, 64);
    for variable in [
        "TASK_RUN_ID",
        "POD_NAME",
        "PODBEAT_SERVICE_URL",
        "PODBEAT_TOKEN_FILE",
    ] {
        assert!(text.contains(variable), "{variable}: {text}");
    }
    let (code, text) = run(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")], &["agent"]).await;
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

/// `podbeat agent` logs them, and `podbeat check` has a check (`logged`, `check::faults`).
#[tokio::test]
async fn unknown_variables_are_named_where_a_setting_is_missing_and_before_other_commands() {
    let unknown = [(
        "PODBEAT_SERVICE_URI",
        "https://user:hunter2@ica.example\u{1b}[2J",
    )];
    let warning = "podbeat: ignoring unknown environment variables: PODBEAT_SERVICE_URI (did you mean PODBEAT_SERVICE_URL?)\n";
    for arguments in [
        &[][..],
        &["exec", "--", "true"],
        &["reap", "--selector", "a=b"],
        #[cfg(feature = "laptop")]
        &["runs", "list"],
        #[cfg(feature = "laptop")]
        &["observe", "p", "--interval", "never"],
    ] {
        let (code, text) = run(&unknown, arguments).await;
        assert_eq!(
            (code, text.matches(warning).count()),
            (64, 1),
            "{arguments:?}: {text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn every_malformed_setting_is_named_at_once_and_no_secret_is_shown() {
    let settings = [
        ("TASK_RUN_ID", "r"),
        ("POD_NAME", "Not A Name"),
        ("PODBEAT_SERVICE_URL", "https://user:hunter2@ica.example"),
        ("PODBEAT_TOKEN", "hunter2 hunter2"),
        ("PODBEAT_NONCE", "hunter2\u{1b}[2J"),
        ("PODBEAT_INTERVAL", "often"),
    ];
    let (code, text) = run(&settings, &["--timeout", "never", "--report", "everything"]).await;
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
    assert!(
        !text.contains("hunter2") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_command_line_is_64_and_help_is_0() {
    assert_eq!(run(&[], &["--no-such-flag"]).await.0, 64);
    assert_eq!(run(&[], &["dance"]).await.0, 64);
    let (code, help) = run(&[], &["--help"]).await;
    assert!(code == 0 && help.contains("agent"), "{help}");
    assert_eq!(
        run(&[], &["--version"]).await,
        (0, format!("podbeat {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn unusable_files_are_invalid_settings() {
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
        let (code, text) = run(&[&settings[..], &[(variable, path)]].concat(), &[]).await;
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(path) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_native_sidecar_with_0_after_the_last_heartbeat() {
    for ending in [Signal::TERM, Signal::INT] {
        let world = World::start().await.expect("a world");
        world
            .kube
            .apply(Pod::new("p", "u1").showing(&running(STARTED)));
        let podbeat = Podbeat::start(&world, "log", &[]);
        until_main_is(&world, "running").await;
        podbeat.signal(ending);
        let (code, log) = podbeat.end().await;
        assert_eq!(code, 0, "{log}");
        assert!(
            world
                .service
                .accepted()
                .last()
                .expect("heartbeats")
                .is_final(),
            "{ending:?}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undelivered_final_is_75_and_its_body_is_in_the_log() {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "u1").showing(&running(STARTED));
    pod["spec"]["terminationGracePeriodSeconds"] = 3.into();
    world.kube.apply(pod);
    let podbeat = Podbeat::start(&world, "log", &[]);
    until_main_is(&world, "running").await;
    world
        .service_faults
        .script("any refuse until-lifted")
        .expect("a rule");
    podbeat.signal(Signal::TERM);
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 75, "{log}");
    let error = lines(&log)
        .into_iter()
        .find(|line| line["level"] == "ERROR")
        .expect("an error line");
    let request: Value =
        serde_json::from_str(error["request"].as_str().expect("the request")).expect("JSON");
    assert_eq!(request["lastHeartbeat"], true);
    assert_eq!(request["containerStatus"][0]["name"], "main");
}

/// G6: during a full life at trace level, with faults, a crash, a renewed token and a refused one,
/// no log line contains a token, and no file does except those made for it.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_appears_in_the_log_or_in_another_file() {
    let world = World::start().await.expect("a world");
    world.service.set_tokens(&[TOKEN, "renewed-hunter2"]);
    let faults = "heartbeat 401; heartbeat jwt=renewed-hunter2; heartbeat 503; heartbeat garbage; heartbeat drop";
    world.service_faults.script(faults).expect("rules");
    world
        .kube_faults
        .script("list 403; list garbage; watch cut")
        .expect("rules");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    for directory in ["state", "shared"] {
        std::fs::create_dir(world.path(directory)).expect("made");
    }
    let renewed_file = world.path("shared").join("token");
    let settings = [
        ("PODBEAT_LOG", "trace"),
        ("PODBEAT_INTERVAL", "100ms"),
        ("PODBEAT_STATE_DIR", &*text(world.path("state"))),
        ("PODBEAT_RENEWED_TOKEN_FILE", &text(&renewed_file)),
    ];
    let struck = |heartbeats: &[Heartbeat]| {
        heartbeats
            .iter()
            .filter(|heartbeat| {
                heartbeat.accepted && heartbeat.token.as_deref() == Some("renewed-hunter2")
            })
            .count()
            >= 5
    };
    let mut first = Podbeat::start(&world, "log-1", &settings);
    until(&world, "five with the renewed token", struck).await;
    first.kill();
    let before = world.service.accepted().len();

    // Only the renewed token is still valid, so the next process must have it from the journal.
    world.service.set_tokens(&["renewed-hunter2"]);
    let second = Podbeat::start(&world, "log-2", &settings);
    let more = |heartbeats: &[Heartbeat]| {
        let accepted = heartbeats.iter().filter(|heartbeat| heartbeat.accepted);
        accepted.count() > before + 2
    };
    until(&world, "more after the restart", more).await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = second.end().await;
    assert_eq!(code, 0);
    assert!(log.contains("\"level\":\"TRACE\""), "it is a full log");

    // Exactly the files that are made for a token contain one.
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
    for (file, expected) in [
        (renewed_file, 0o640),
        (world.path("state/journal.json"), 0o600),
    ] {
        let mode = std::fs::metadata(file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_near_its_end_is_a_warning_once() {
    let world = World::start().await.expect("a world");
    let soon = jiff::Timestamp::now().as_second() + 300;
    let token = jwt(&format!(r#"{{"exp":{soon}}}"#));
    world.service.set_tokens(&[&token]);
    world.write_token(&token).expect("written");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let podbeat = Podbeat::start(&world, "log", &[]);
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(
        log.matches("the bearer token expires soon").count(),
        1,
        "{log}"
    );
    assert!(!log.contains(&token) && !log.contains("hunter2"));
}

/// G8: a directory that cannot be written causes a warning.
#[tokio::test(flavor = "multi_thread")]
async fn unwritable_directories_do_not_end_the_agent() {
    let world = World::start().await.expect("a world");
    world
        .service_faults
        .script("heartbeat jwt=token")
        .expect("a rule");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    // No user can create a file there, not even root.
    let settings = [
        ("PODBEAT_STATE_DIR", "/proc/self"),
        ("PODBEAT_RENEWED_TOKEN_FILE", "/proc/self/token"),
    ];
    let podbeat = Podbeat::start(&world, "log", &settings);
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    for what in [
        "cannot write the journal to /proc/self",
        "cannot write the renewed token to /proc/self",
    ] {
        assert!(log.contains(what), "{what}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_journal_is_renamed_and_the_agent_continues() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    let state = world.path("state");
    std::fs::create_dir(&state).expect("made");
    let mut settings = settings(&world, &[("PODBEAT_STATE_DIR", &text(&state))]);
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
        world
            .kube
            .apply(pod.showing(&terminated(0, "Completed", "c1")));
        let podbeat = Podbeat::with(&world, &format!("log-{nth}"), &settings, &[]);
        let (code, log) = podbeat.end().await;
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("cannot resume from the journal"), "{log}");
        let kept = std::fs::read_to_string(state.join(format!("journal.json.{aside}")))
            .expect("set aside");
        assert_eq!(kept, content);
    }
}

/// The wrapper in the task's container and the sidecar share only the directory of markers.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_of_podbeat_exec_reaches_the_service_if_the_api_shows_no_exit() {
    let world = World::start().await.expect("a world");
    let markers = world.path("markers");
    std::fs::create_dir(&markers).expect("made");
    let mut task = Command::new(PODBEAT);
    task.args(["exec", "--container-name", "main", "--marker-dir"])
        .arg(&markers)
        .args(["--", "sleep", "600"]);
    let mut task = task.stdin(Stdio::null()).spawn().expect("started");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let settings = settings(&world, &[("PODBEAT_MARKER_DIR", &text(markers))]);
    let podbeat = Podbeat::with(&world, "log", &settings, &[]);
    until_main_is(&world, "running").await;
    // In a pod that is being deleted, the kubelet stops the task first, then the native sidecar.
    send(task.id(), Signal::TERM);
    assert_eq!(task.wait().expect("waited for").code(), Some(143));
    podbeat.signal(Signal::TERM);
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    let last = world.service.accepted().pop().expect("heartbeats");
    assert!(last.is_final());
    assert_eq!(last.exit_code("main"), Some(143), "{log}");
    let filled = lines(&log)
        .into_iter()
        .find(|line| {
            line["message"]
                == "using an exit code from an exit marker; the Kubernetes API does not show it"
        })
        .expect("a line of the log");
    assert_eq!(
        (&filled["container"], &filled["exit_code"]),
        (&"main".into(), &143.into())
    );
    assert!(!log.contains("no effect"), "{log}");
}

/// The task can write anything there: nothing of it blocks or ends podbeat, or makes it reveal a
/// secret.
#[tokio::test(flavor = "multi_thread")]
async fn any_file_among_the_markers_is_harmless() {
    let world = World::start().await.expect("a world");
    let markers = world.path("markers");
    std::fs::create_dir(&markers).expect("made");
    let at = |name: &str| markers.join(name);
    std::fs::write(
        at("main.json"),
        "{\"exitCode\":5,\"finishedAt\":\"2026-01-01T00:00:09Z\"}",
    )
    .expect("written");
    // A pipe without a writer; links to the token and to an endless device; a directory; a sparse
    // file of 1 GiB; a file without read permission; a file that is not a marker; a marker of a
    // container that does not exist; and other names.
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, 0o644.into(), 0).expect("a pipe");
    symlink(world.path("token"), at("linked")).expect("linked");
    symlink("/dev/zero", at("endless.json")).expect("linked");
    std::fs::create_dir(at("directory")).expect("made");
    std::fs::File::create(at("sparse"))
        .and_then(|file| file.set_len(1 << 30))
        .expect("made");
    std::fs::write(at("locked.json"), "neither readable nor JSON").expect("written");
    std::fs::set_permissions(at("locked.json"), PermissionsExt::from_mode(0o000)).expect("locked");
    std::fs::write(at("torn.json"), "{\"exitCode\":").expect("written");
    std::fs::write(at("stranger"), "7").expect("written");
    std::fs::write(at("notyet"), "").expect("written");
    std::fs::write(at("evil\u{1b}[2J\nname"), "7").expect("written");
    std::fs::write(
        markers.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")),
        "7",
    )
    .expect("written");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let settings = settings(&world, &[("PODBEAT_MARKER_DIR", &text(markers))]);
    let podbeat = Podbeat::with(&world, "log", &settings, &[]);
    until_main_is(&world, "running").await;
    podbeat.signal(Signal::TERM);
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    let last = world.service.accepted().pop().expect("heartbeats");
    assert!(last.is_final());
    assert_eq!(last.exit_code("main"), Some(5), "{log}");
    let told: Vec<String> = lines(&log)
        .into_iter()
        .filter(|line| line["level"] == "WARN")
        .filter_map(|line| {
            Some(
                line["file"]
                    .as_str()
                    .or(line["container"].as_str())?
                    .to_owned(),
            )
        })
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
        assert_eq!(count, 1, "{name} is logged once: {log}");
    }
    assert!(
        !log.contains(TOKEN) && !log.contains('\u{1b}') && !log.contains("notyet"),
        "{log}"
    );
}

/// If a right is missing, the log contains the Role, ready to apply.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_role_is_printed_ready_to_apply() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    world.kube.deny(true);
    let podbeat = Podbeat::start(&world, "log", &[]);
    let refused = |kube: &podbeat_lab::kube_api::KubeApi| {
        kube.seen()
            .iter()
            .filter(|seen| seen.status == Some(403))
            .count()
            >= 2
    };
    until_asked(&world, "two refusals", refused).await;
    podbeat.signal(Signal::TERM);
    let (_, log) = podbeat.end().await;
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
    let podbeat = Podbeat::start(&world, "log", &[]);
    let (code, log) = podbeat.end().await;
    assert_eq!(code, 0, "{log}");
    let lines = lines(&log);
    let messages: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["message"].as_str())
        .collect();
    assert_eq!(messages.first(), Some(&"podbeat started"), "{log}");
    assert!(messages.contains(&"container state changed"), "{log}");
    assert_eq!(messages.last(), Some(&"podbeat is exiting"), "{log}");
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
async fn a_closed_log_does_not_end_the_agent() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let mut child = podbeat()
        .envs(world.settings("p", "u1"))
        .spawn()
        .expect("started");
    drop((child.stderr.take(), child.stdout.take()));
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let status = timeout(LIMIT, child.wait()).await.expect("podbeat ends");
    assert_eq!(status.expect("waited for").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_delays_nothing() {
    use std::io::{BufRead, Read, Write};
    use std::os::fd::OwnedFd;

    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&running(STARTED)));
    // The pipe is full from the start.
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("set");
    let mut full = 0;
    while let Ok(more) = writer.write(&[b'.'; 4096]) {
        full += more;
    }
    rustix::fs::fcntl_setfl(&writer, flags).expect("set");
    let mut child = podbeat()
        .envs(world.settings("p", "u1"))
        .stderr(OwnedFd::from(writer))
        .spawn()
        .expect("started");
    until_main_is(&world, "running").await;
    let mut filler = vec![0; full];
    reader.read_exact(&mut filler).expect("read");
    assert!(
        filler.iter().all(|byte| *byte == b'.'),
        "nothing was written"
    );
    let reading = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufReader::new(reader).lines();
        let lines = lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"));
        lines.collect::<Vec<Value>>()
    });
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    until_final(&world).await;
    send(child.id().expect("it runs"), Signal::TERM);
    let status = timeout(LIMIT, child.wait()).await.expect("podbeat ends");
    assert_eq!(status.expect("waited for").code(), Some(0));
    let lines = timeout(LIMIT, reading)
        .await
        .expect("the pipe ends")
        .expect("read");
    assert_eq!(
        lines[0]["message"],
        "log lines were dropped because nothing read the log"
    );
    assert!(
        lines[0]["lines"].as_u64().is_some_and(|lines| lines > 1),
        "{:?}",
        lines[0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_handled_while_the_log_is_not_read() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = world.settings("p", "u1");
    // So much output that the pipe is full within the first second.
    settings.insert("PODBEAT_LOG".to_owned(), "trace".to_owned());
    settings.insert("PODBEAT_INTERVAL".to_owned(), "1s".to_owned());
    let mut child = podbeat().envs(settings).spawn().expect("started");
    let kept = (child.stderr.take(), child.stdout.take());
    until(&world, "ten heartbeats", |heartbeats| {
        heartbeats.len() >= 10
    })
    .await;
    send(child.id().expect("it runs"), Signal::TERM);
    until_final(&world).await;
    let status = timeout(LIMIT, child.wait()).await.expect("podbeat ends");
    assert_eq!(status.expect("waited for").code(), Some(0));
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_processes_cannot_read_tokens_from_memory() {
    use std::os::unix::fs::MetadataExt;

    let (port, _held) = unused_port();
    // A place where every user may run it.
    let dir = tempfile::tempdir().expect("a directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("set");
    let program = dir.path().join("podbeat");
    // By another process. If this one wrote the file, a program that another test starts meanwhile
    // would inherit the open file for a moment, and the kernel runs no file that is open for writing.
    let copied = std::process::Command::new("cp")
        .arg(PODBEAT)
        .arg(&program)
        .status();
    assert!(copied.expect("cp runs").success());
    let mut command = podbeat_at(&program);
    command.envs([
        ("TASK_RUN_ID", "r"),
        ("POD_NAME", "p"),
        ("PODBEAT_SERVICE_URL", &format!("http://127.0.0.1:{port}")),
        ("PODBEAT_TOKEN", "hunter22"),
    ]);
    // Not as root, which owns everything in /proc.
    if rustix::process::geteuid().is_root() {
        command.uid(65534);
    }
    let mut child = command.spawn().expect("started");
    let process = child.id().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let line = timeout(LIMIT, log.next_line())
        .await
        .expect("a line")
        .expect("read");
    assert!(line.expect("text").contains("podbeat"));
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("read");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    // In /proc, root owns a process that cannot be dumped, whoever runs it (proc(5)).
    let memory = std::fs::metadata(format!("/proc/{process}/mem")).expect("there");
    assert_eq!(memory.uid(), 0);
    send(process, Signal::KILL);
    let _ = timeout(LIMIT, child.wait()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_replaces_the_systems_roots() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "u1").showing(&running(STARTED)));
    let mut settings = settings(&world, &[("PODBEAT_INTERVAL", "200ms")]);
    let ours = settings.remove("PODBEAT_CA_FILE").expect("set");
    // The "system" knows the service's CA.
    settings.insert("SSL_CERT_FILE".to_owned(), ours);
    let mut first = Podbeat::with(&world, "log-1", &settings, &[]);
    until_main_is(&world, "running").await;
    first.kill();
    let received = world.service.heartbeats().len();

    let other = world.path("other-ca.crt");
    Authority::new()
        .and_then(|authority| authority.write_to(&other))
        .expect("another authority");
    settings.insert(
        "PODBEAT_CA_FILE".to_owned(),
        other.to_string_lossy().into_owned(),
    );
    let mut second = Podbeat::with(&world, "log-2", &settings, &[]);
    let watched_again = |kube: &KubeApi| {
        kube.seen()
            .iter()
            .filter(|seen| seen.verb == "watch")
            .count()
            >= 2
    };
    until_asked(&world, "another watch", watched_again).await;
    second
        .until("the refusal", |line| {
            line.to_string()
                .contains("not signed with the key of the CA of that name")
        })
        .await;
    second.kill();
    assert_eq!(world.service.heartbeats().len(), received);
}
