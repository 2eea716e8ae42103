//! `podbeat exec` as a process: what the task sees, and what is left.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::binary::{PODBEAT, send};
use crate::harness::is_alone;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// `podbeat exec` of a shell script in the container `main`. Signals that are ignored at the start
/// stay ignored, and SIGINT is ignored if these tests run in the background. So the command starts
/// with all signals at their defaults.
fn exec(markers: &Path, script: &str) -> Command {
    let mut command = Command::new("env");
    command
        .args([
            "--default-signal",
            PODBEAT,
            "exec",
            "--container-name",
            "main",
        ])
        .arg("--marker-dir")
        .arg(markers)
        .args(["--", "sh", "-c", script]);
    piped(&mut command);
    command
}

fn piped(command: &mut Command) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it runs")
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("no exit code: {output:?}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn marker(markers: &Path) -> Value {
    let text = std::fs::read_to_string(markers.join("main.json")).expect("a marker");
    serde_json::from_str(&text).expect("JSON")
}

/// The next line of the command's output. The command prints it to show how far it is.
fn line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().expect("piped");
    // Byte by byte, because the text after the line is for the next reader.
    let (mut line, mut byte) = (vec![], [0]);
    loop {
        stdout.read_exact(&mut byte).expect("a whole line");
        if byte == *b"\n" {
            return text(&line).to_owned();
        }
        line.extend(byte);
    }
}

#[test]
fn the_exit_code_is_the_commands_and_the_marker_has_it() {
    for expected in [0, 3, 255] {
        let markers = directory();
        let output = output(&mut exec(
            markers.path(),
            &format!("echo out; echo err >&2; exit {expected}"),
        ));
        assert_eq!(code(&output), expected);
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("out\n", "err\n")
        );
        let marker = marker(markers.path());
        assert_eq!(marker["exitCode"], expected);
        assert_eq!(marker.get("signal"), None);
        let time = |name: &str| -> jiff::Timestamp {
            let time = marker[name].as_str().expect("a time");
            assert!(
                time.ends_with('Z') && time.len() == "2026-01-01T00:00:00Z".len(),
                "{time}"
            );
            time.parse().expect("RFC 3339")
        };
        assert!(time("startedAt") <= time("finishedAt"));
        assert!(time("finishedAt") <= jiff::Timestamp::now());
    }
}

#[test]
fn a_death_by_signal_is_128_and_its_number() {
    for number in [9, 15, 6, 11] {
        let markers = directory();
        let output = output(&mut exec(
            markers.path(),
            &format!("ulimit -c 0; kill -{number} $$"),
        ));
        assert_eq!(code(&output), 128 + number);
        let marker = marker(markers.path());
        assert_eq!(
            (&marker["exitCode"], &marker["signal"]),
            (&(128 + number).into(), &number.into())
        );
    }
}

#[test]
fn a_marker_is_readable_for_everybody_with_any_umask_and_is_the_only_file() {
    let markers = directory();
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 0077; exec \"$@\"", "sh", PODBEAT, "exec"])
        .args(["--container-name", "main", "--marker-dir"])
        .arg(markers.path())
        .args(["--", "sh", "-c", "umask"]);
    assert_eq!(text(&output(&mut command).stdout).trim(), "0077");
    let mode = std::fs::metadata(markers.path().join("main.json"))
        .expect("a marker")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(
        std::fs::read_dir(markers.path()).expect("listed").count(),
        1
    );
}

#[test]
fn every_signal_is_passed_on_and_reaches_the_command_once() {
    for (signal_sent, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::WINCH, "WINCH"),
        (Signal::CONT, "CONT"),
        (Signal::TSTP, "TSTP"),
        (Signal::URG, "URG"),
        (Signal::IO, "IO"),
        (Signal::POWER, "PWR"),
        (Signal::XCPU, "XCPU"),
        (Signal::XFSZ, "XFSZ"),
        (Signal::VTALARM, "VTALRM"),
        (Signal::PROF, "PROF"),
    ] {
        let markers = directory();
        // The script ends only after it reads a line, so that a signal that came twice would show.
        let script = format!(
            "trap 'echo {name}' {name}; echo ready; while ! read -r line; do :; done; exit 7"
        );
        let mut child = exec(markers.path(), &script).spawn().expect("started");
        assert_eq!(line(&mut child), "ready", "{name}");
        send(child.id(), signal_sent);
        assert_eq!(line(&mut child), name);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"go\n").expect("written");
        let output = child.wait_with_output().expect("waited for");
        assert_eq!(code(&output), 7, "{name}");
        assert_eq!(text(&output.stdout), "", "{name} came once");
    }
}

#[test]
fn a_signal_that_ends_the_command_is_reported_with_its_number() {
    for (sent, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::USR1, 10)] {
        let markers = directory();
        let mut child = exec(markers.path(), "echo ready; exec sleep 600")
            .spawn()
            .expect("started");
        assert_eq!(line(&mut child), "ready");
        send(child.id(), sent);
        assert_eq!(
            code(&child.wait_with_output().expect("waited for")),
            128 + number
        );
        assert_eq!(marker(markers.path())["signal"], number);
    }
}

/// SIGTERM is never lost: it ends the command, which would otherwise sleep for a long time. (Before
/// podbeat sets its handlers, SIGTERM ends podbeat itself, like any program. As process 1, podbeat
/// would not even notice it.)
#[test]
fn a_signal_between_the_start_and_the_spawn_is_not_lost() {
    let mut rng = fastrand::Rng::new();
    for _ in 0..30 {
        let markers = directory();
        let child = exec(markers.path(), "exec sleep 600")
            .spawn()
            .expect("started");
        std::thread::sleep(std::time::Duration::from_micros(rng.u64(0..6000)));
        send(child.id(), Signal::TERM);
        let status = child.wait_with_output().expect("it ends").status;
        assert!(
            status.code() == Some(143) || status.signal() == Some(15),
            "{status:?}"
        );
    }
}

#[test]
fn a_signal_to_the_commands_group_spares_the_wrapper() {
    let markers = directory();
    let output = output(&mut exec(markers.path(), "kill -TERM 0; sleep 600"));
    assert_eq!(code(&output), 143);
    assert_eq!(marker(markers.path())["exitCode"], 143);
}

#[test]
fn a_stale_marker_is_removed_before_the_command_starts() {
    let markers = directory();
    std::fs::write(markers.path().join("main.json"), "{\"exitCode\":9}").expect("written");
    let script = format!("ls -A {}; exit 0", markers.path().display());
    let output = output(&mut exec(markers.path(), &script));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(marker(markers.path())["exitCode"], 0);
}

#[test]
fn a_directory_that_isnt_there_or_writable_doesnt_stop_the_command() {
    for directory in ["/nowhere/at/all", "/proc/self", "/dev/null"] {
        let output = output(&mut exec(Path::new(directory), "echo done; exit 5"));
        assert_eq!(code(&output), 5);
        assert_eq!(text(&output.stdout), "done\n");
        let warned = text(&output.stderr);
        assert!(
            warned.contains("podbeat exec:") && warned.contains(directory),
            "{warned}"
        );
    }
}

#[test]
fn a_command_that_cannot_run_is_127_or_126_with_a_marker() {
    let markers = directory();
    let script = markers.path().join("script");
    std::fs::write(&script, "not executable").expect("written");
    for (program, expected) in [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        (script.to_str().expect("text"), 126),
        ("/", 126),
    ] {
        let mut command = Command::new(PODBEAT);
        command
            .args(["exec", "--container-name", "main", "--marker-dir"])
            .arg(markers.path())
            .args(["--", program]);
        let output = output(&mut command);
        assert_eq!(code(&output), expected, "{program}");
        assert!(text(&output.stderr).contains(program), "{output:?}");
        assert_eq!(marker(markers.path())["exitCode"], expected);
    }
}

#[test]
fn invalid_settings_are_64_all_together_and_nothing_is_run() {
    let markers = directory();
    let touched = markers.path().join("touched");
    let mut command = Command::new(PODBEAT);
    command
        .env_clear()
        .args(["exec", "--container-name", "../main", "--", "/bin/touch"])
        .arg(&touched);
    let output = output(&mut command);
    assert_eq!(code(&output), 64);
    let said = text(&output.stderr);
    assert!(
        said.contains("PODBEAT_CONTAINER_NAME") && said.contains("PODBEAT_MARKER_DIR"),
        "{said}"
    );
    assert!(!touched.exists());
}

#[test]
fn settings_can_be_variables_and_the_environment_is_passed_on_unchanged() {
    let markers = directory();
    let mut command = Command::new(PODBEAT);
    command
        .env_clear()
        .env("PODBEAT_CONTAINER_NAME", "main")
        .env("PODBEAT_MARKER_DIR", markers.path())
        .env("ODD", "a=b\nc")
        .args(["exec", "--", "/usr/bin/env", "-0"]);
    let output = output(&mut command);
    let mut variables: Vec<&str> = text(&output.stdout).split_terminator('\0').collect();
    variables.sort_unstable();
    let directory = format!("PODBEAT_MARKER_DIR={}", markers.path().display());
    assert_eq!(
        variables,
        ["ODD=a=b\nc", "PODBEAT_CONTAINER_NAME=main", &directory]
    );
    assert_eq!(marker(markers.path())["exitCode"], 0);
}

/// The task runs even without a marker: if podbeat could not notice the end of a child, the command
/// replaces podbeat.
#[test]
fn with_sigchld_blocked_the_command_runs_without_a_wrapper() {
    let markers = directory();
    let mut command = Command::new("env");
    command
        .args([
            "--block-signal=CHLD",
            PODBEAT,
            "exec",
            "--container-name",
            "main",
        ])
        .arg("--marker-dir")
        .arg(markers.path())
        .args(["--", "sh", "-c", "echo $PPID; exit 8"]);
    let output = output(&mut command);
    assert_eq!(code(&output), 8, "{output:?}");
    assert_eq!(text(&output.stdout).trim(), std::process::id().to_string());
    assert!(
        text(&output.stderr).contains("there will be no exit marker"),
        "{output:?}"
    );
    assert!(!markers.path().join("main.json").exists());
}

/// The signal masks in /proc/self/status, without the two signals of glibc itself (32 and 33).
fn signal_masks(status: &str) -> Vec<(String, u64)> {
    status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(name, _)| ["SigBlk", "SigIgn", "SigCgt"].contains(name))
        .map(|(name, mask)| {
            let mask = u64::from_str_radix(mask, 16).expect("a mask");
            (name.to_owned(), mask & !(0b11 << 31))
        })
        .collect()
}

#[test]
fn the_command_starts_as_if_without_a_wrapper() {
    if !is_alone("exec::the_command_starts_as_if_without_a_wrapper") {
        return;
    }
    let markers = directory();
    let look = "cat /proc/self/status; echo; ls /proc/self/fd; pwd; cat /proc/self/limits /proc/self/oom_score_adj";
    // With no ignored signals, and under a shell that ignores signals that a wrapper might change.
    for trap in ["", "trap '' HUP INT USR1 TERM QUIT TSTP TTIN TTOU;"] {
        let run = |wrapper: &[&str]| {
            let mut command = Command::new("sh");
            command
                .args(["-c", &format!("{trap} exec \"$@\""), "sh"])
                .args(wrapper)
                .args(["sh", "-c", look])
                .current_dir("/usr");
            let output = output(&mut command);
            assert_eq!(code(&output), 0, "{output:?}");
            text(&output.stdout).to_owned()
        };
        let directory = markers.path().to_str().expect("text");
        let with = run(&[
            PODBEAT,
            "exec",
            "--container-name",
            "main",
            "--marker-dir",
            directory,
            "--",
        ]);
        let without = run(&[]);
        assert_eq!(signal_masks(&with), signal_masks(&without), "{trap}");
        assert_eq!(signal_masks(&with).len(), 3);
        let rest = |text: &str| text.split_once("\n\n").expect("two parts").1.to_owned();
        assert_eq!(rest(&with), rest(&without));
    }
}

/// podbeat runs as process 1 of its own PID namespace, as in a container.
#[test]
fn orphans_are_reaped_and_only_the_commands_own_end_counts() {
    let as_root = ["--pid", "--fork", "--mount-proc"];
    let as_anybody = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let permitted = |namespace: &&[&str]| {
        let mut attempt = Command::new("unshare");
        attempt.args(*namespace).arg("true").stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let namespace = [&as_root[..], &as_anybody[..]].into_iter().find(permitted).expect(
        "this test needs util-linux' unshare and the right to make a process namespace: run it as root, in a container with \
         CAP_SYS_ADMIN, or where user namespaces are permitted",
    );
    let markers = directory();
    // Ten orphans end. Then the command waits until none of them is a zombie.
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'exit 9' &) ; done; \
                  echo pid $$ parent $PPID; \
                  while [ \"$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ')\" != 0 ]; do :; done; \
                  echo clean; exit 4";
    let mut command = Command::new("unshare");
    command
        .args(namespace)
        .args([PODBEAT, "exec", "--container-name", "main", "--marker-dir"])
        .arg(markers.path())
        .args(["--", "sh", "-c", script]);
    let output = output(&mut command);
    assert_eq!(code(&output), 4, "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("parent 1\n") && said.ends_with("clean\n"),
        "it was process 1: {said}"
    );
    assert_eq!(marker(markers.path())["exitCode"], 4);
}

/// kill -9 at any time leaves a complete marker or none.
#[test]
fn a_marker_is_always_complete() {
    let mut rng = fastrand::Rng::new();
    let markers = directory();
    let (mut whole, mut none) = (0, 0);
    // As long as a complete run takes here, and a little longer.
    let begun = jiff::Timestamp::now();
    assert_eq!(code(&output(&mut exec(markers.path(), "exit 3"))), 3);
    let takes = jiff::Timestamp::now().duration_since(begun).as_micros();
    let longest = u64::try_from(takes).expect("a time") * 3 / 2 + 2;
    for _ in 0..60 {
        let mut child = exec(markers.path(), "exit 3").spawn().expect("started");
        std::thread::sleep(std::time::Duration::from_micros(rng.u64(1..longest)));
        child.kill().expect("killed");
        child.wait().expect("ended");
        match std::fs::read_to_string(markers.path().join("main.json")) {
            Ok(text) => {
                let marker: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert_eq!(marker["exitCode"], 3);
                whole += 1;
                std::fs::remove_file(markers.path().join("main.json")).expect("removed");
            }
            Err(_) => none += 1,
        }
    }
    assert_eq!(whole + none, 60);
}

#[test]
fn install_copies_the_complete_binary_and_makes_it_executable() {
    let to = directory();
    let named = to.path().join("wrapper");
    for (argument, installed) in [
        (to.path(), to.path().join("podbeat")),
        (&named, named.clone()),
    ] {
        // Twice: the second time replaces an existing file.
        for _ in 0..2 {
            let output = output(
                Command::new(PODBEAT)
                    .args(["exec", "--install"])
                    .arg(argument),
            );
            assert_eq!(code(&output), 0, "{output:?}");
        }
        let mode = std::fs::metadata(&installed)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        let version = output(Command::new(&installed).arg("--version"));
        assert_eq!(
            text(&version.stdout),
            format!("podbeat {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
    assert_eq!(std::fs::read_dir(to.path()).expect("listed").count(), 2);
    let output = output(Command::new(PODBEAT).args(["exec", "--install", "/nowhere/podbeat"]));
    assert_eq!(code(&output), 73);
    assert!(
        text(&output.stderr).contains("/nowhere/podbeat"),
        "{output:?}"
    );
}

/// On a terminal, the command's group is in the foreground: Ctrl-C reaches the task exactly once.
/// `script` of util-linux provides the terminal.
#[test]
fn on_a_terminal_the_command_is_in_the_foreground() {
    let markers = directory();
    let inner = format!(
        "{PODBEAT} exec --container-name main --marker-dir {} -- sh -c 'read -r line; echo got $line; \
         set -- $(cat /proc/self/stat); echo group $5 foreground $8; exit 6'",
        markers.path().display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &inner, "/dev/null"]);
    piped(&mut command);
    let mut child = command.spawn().expect("this test needs util-linux' script");
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"hello\n")
        .expect("written");
    let output = child.wait_with_output().expect("waited for");
    let said = text(&output.stdout).replace('\r', "");
    assert_eq!(code(&output), 6, "{said}");
    assert!(
        said.contains("got hello"),
        "it may read from the terminal: {said}"
    );
    let groups: Vec<&str> = said
        .lines()
        .find(|line| line.starts_with("group "))
        .unwrap_or_else(|| panic!("{said}"))
        .split(' ')
        .collect();
    assert_eq!(groups[1], groups[3], "{said}");
}
