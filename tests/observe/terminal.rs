//! The view on a terminal for a test: a pty, and an emulator that shows what a person would see.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use podbeat_lab::pod::{Pod, running, terminated, waiting};
use podbeat_lab::world::World;
use pty_process::Pty;
use rustix::process::Signal;
use rustix::termios::tcgetattr;
use serde_json::{Value, json};

use super::sent_nothing;
use crate::harness::terminal::Terminal;
use crate::harness::{LIMIT, is_alone};

/// A terminal with `podbeat observe` on it.
struct View {
    terminal: Terminal,
    /// The terminal's settings before.
    modes: String,
}

impl Deref for View {
    type Target = Terminal;

    fn deref(&self) -> &Terminal {
        &self.terminal
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut Terminal {
        &mut self.terminal
    }
}

impl View {
    fn start(world: &World, arguments: &[&str], columns: u16, rows: u16) -> Self {
        Self::with(
            world,
            arguments,
            columns,
            rows,
            &[("TERM", "xterm-256color")],
        )
    }

    fn with(
        world: &World,
        arguments: &[&str],
        columns: u16,
        rows: u16,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut before = String::new();
        let terminal = Terminal::start(columns, rows, |command, pty| {
            before = modes(pty);
            command
                .env("KUBECONFIG", world.path("kubeconfig"))
                .envs(environment.iter().copied())
                .arg("observe")
                .args(arguments)
        });
        Self {
            terminal,
            modes: before,
        }
    }

    /// Reads to the end, and checks that the terminal is as it was before.
    async fn end(&mut self) -> ExitStatus {
        let status = self.terminal.end().await;
        self.is_as_it_was();
        status
    }

    #[track_caller]
    fn is_as_it_was(&self) {
        let screen = self.screen();
        assert!(!screen.alternate_screen(), "the other screen is left");
        assert!(!screen.hide_cursor(), "the cursor is shown");
        assert_eq!(screen.attributes_formatted(), "\u{1b}[m", "no color is on");
        let wraps = self.raw.rfind("\x1b[?7h") >= self.raw.rfind("\x1b[?7l");
        assert!(wraps, "long lines are wrapped again");
        assert_eq!(modes(&self.pty), self.modes, "keys are echoed again");
    }
}

fn modes(pty: &Pty) -> String {
    format!("{:?}", tcgetattr(pty.as_fd()).expect("a terminal"))
}

/// A view that can be compared: ages are replaced by their width, and times are removed.
fn still(view: &str) -> String {
    let times = view
        .split("At\": \"")
        .map(|part| match part.split_once("Z\"") {
            Some((time, rest)) if time.parse::<jiff::civil::DateTime>().is_ok() => {
                format!("TIME\"{rest}")
            }
            Some(_) | None => part.to_owned(),
        });
    let view = times.collect::<Vec<_>>().join("At\": \"");
    let mut text = String::new();
    let mut chars = view.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() && !before.is_alphanumeric() {
            let mut number = String::from(c);
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                number.push(digit);
            }
            match chars.next_if_eq(&'s') {
                Some(_) => text += if number.len() == 1 { "0s" } else { "00s" },
                None => text += &number,
            }
            before = '0';
            continue;
        }
        text.push(c);
        before = c;
    }
    text
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// A pod whose containers have just started, so that their ages are short.
fn young(pod: &Pod, main: &Value) -> Value {
    let mut pod = pod.showing(main);
    pod["status"]["phase"] = json!("Running");
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "helper", "image": "helper:lab"}));
    pod["status"]["initContainerStatuses"] = json!([{"name": "podbeat", "restartCount": 0, "ready": true,
        "state": {"running": {"startedAt": now()}}, "lastState": {}}]);
    pod["status"]["containerStatuses"].as_array_mut().expect("a list").push(json!({"name": "helper", "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=helper"}},
        "lastState": {}}));
    pod
}

#[tokio::test]
async fn a_life_in_a_window_of_80_by_24() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("my-task", "0e8e7c4e-6f0e-4e43-9a39-5c6b2d1f8a11");
    world.kube.apply(young(&pod, &waiting("ContainerCreating")));
    let mut terminal = View::start(&world, &["my-task"], 80, 24);
    terminal.shows("Heartbeat 2: change").await;
    assert!(terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    world.kube.apply(young(&pod, &running(&now())));
    terminal.shows("Heartbeat 3: change").await;
    terminal.shows("Next heartbeat: periodic").await;
    insta::assert_snapshot!("running_80_by_24", still(&terminal.shown()));
}

#[tokio::test]
async fn the_end_stays_on_the_terminal() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("p", "uid-p");
    world.kube.apply(pod.showing(&running(&now())));
    let mut terminal = View::start(&world, &["p"], 80, 30);
    terminal.shows("Heartbeat 2: change").await;
    assert!(terminal.raw.contains("\x1b[32mrunning\x1b[0m"), "green");
    let mut over = terminated(3, "Error", "one");
    over["state"]["terminated"]["finishedAt"] = json!(now());
    over["state"]["terminated"]["startedAt"] = json!("2026-01-01T00:00:01Z");
    world.kube.apply(pod.showing(&over));
    let status = terminal.end().await;
    assert_eq!(status.code(), Some(0));
    assert!(terminal.raw.contains("\x1b[31mterminated\x1b[0m"), "red");
    let shown = terminal.shown();
    for text in [
        "End: the task has ended; the agent would have sent the last heartbeat",
        "Heartbeat 3: the last one",
        "\"lastHeartbeat\": true",
        "\"exitCode\": 3",
    ] {
        assert!(shown.contains(text), "{text}:\n{shown}");
    }
    sent_nothing(&world);
}

#[tokio::test]
async fn every_exit_restores_the_terminal() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(&now())));
    for (leave, code, signal) in [
        ("q", Some(0), None),
        ("Q", Some(0), None),
        ("\x03", None, Some(2)),
        ("\x1c", None, Some(3)),
        ("TERM", None, Some(15)),
        ("HUP", None, Some(1)),
    ] {
        let mut terminal = View::start(&world, &["p"], 80, 24);
        terminal.shows("Next heartbeat: periodic").await;
        // Typed keys are not shown. Ctrl-L shows that they were read.
        terminal.raw.clear();
        terminal.types("zzz\r\x0c").await;
        while !terminal.raw.contains("\x1b[2J") {
            assert!(terminal.read().await);
        }
        match leave {
            "TERM" => terminal.signal(Signal::TERM),
            "HUP" => terminal.signal(Signal::HUP),
            keys => terminal.types(keys).await,
        }
        let status = terminal.end().await;
        assert_eq!(
            (status.code(), status.signal()),
            (code, signal),
            "{leave:?}"
        );
        let shown = terminal.shown();
        assert!(
            !shown.contains("zzz") && shown.contains("main        running"),
            "{leave:?}:\n{shown}"
        );
    }
}

#[tokio::test]
async fn a_window_may_be_of_any_size_and_change_it() {
    let world = World::start().await.expect("a world");
    let pod = Pod::new("a-task-with-quite-a-long-name-for-a-narrow-window", "uid-p");
    let mut shown = young(&pod, &running(&now()));
    shown["spec"]["containers"][1]["name"] = json!("helper-with-a-long-name-as-well-表表表表");
    shown["status"]["containerStatuses"][1]["name"] =
        json!("helper-with-a-long-name-as-well-表表表表");
    world.kube.apply(shown);
    let mut terminal = View::start(
        &world,
        &["a-task-with-quite-a-long-name-for-a-narrow-window"],
        80,
        24,
    );
    terminal.shows("Next heartbeat: periodic").await;
    for (columns, rows) in [(40, 12), (200, 50), (20, 5), (7, 3), (1, 1), (60, 16)] {
        terminal.raw.clear();
        terminal.resize(columns, rows);
        terminal.until("a new frame", |_| true).await;
        while !terminal.raw.contains("\x1b[2J") || !terminal.raw.ends_with("\x1b[?2026l") {
            assert!(terminal.read().await);
        }
        let frame = terminal
            .raw
            .rsplit("\x1b[H")
            .next()
            .expect("a frame")
            .to_owned();
        let lines = frame.split("\r\n").count();
        assert!(
            lines <= usize::from(rows),
            "{columns}×{rows}: {lines} lines"
        );
        for row in 0..rows {
            assert!(
                !terminal.screen().row_wrapped(row),
                "{columns}×{rows}, row {row}"
            );
        }
        if (columns, rows) == (40, 12) {
            insta::assert_snapshot!("resized_to_40_by_12", still(&terminal.shown()));
        }
    }
    terminal.shows("Next heartbeat: periodic").await;
    terminal.types("q").await;
    terminal.end().await;
}

#[tokio::test]
async fn an_outage_and_its_end_are_shown() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(&now())));
    let mut terminal = View::start(&world, &["p"], 80, 24);
    terminal.shows("API up to date, confirmed").await;
    terminal.shows("Next heartbeat: periodic").await;
    world
        .kube_faults
        .script("watch cut; any refuse until-lifted")
        .expect("a fault");
    terminal.shows("API unavailable, states are ").await;
    terminal.shows("check the cluster").await;
    world.kube_faults.lift_all();
    terminal.shows("API up to date, confirmed").await;
    terminal.types("q").await;
    terminal.end().await;
}

#[tokio::test]
async fn text_of_the_cluster_does_not_control_the_terminal() {
    let world = World::start().await.expect("a world");
    let mut pod = Pod::new("p", "uid-p").showing(&running(&now()));
    pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "\u{1b}[?1049l\u{9b}2J", "message": "a\r\nb\u{1b}]0;title\u{7}\u{202e}c"}});
    pod["spec"]["nodeName"] = json!("node\u{1b}[2J");
    pod["status"]["phase"] = json!("\u{1b}cRunning");
    world.kube.apply(pod);
    let mut terminal = View::start(&world, &["p"], 100, 30);
    terminal.shows("Heartbeat 2: change").await;
    assert!(terminal.screen().alternate_screen());
    // The emulator omits U+FFFD, which replaces characters that are not text.
    let shown = &terminal.raw;
    assert!(
        shown.contains("main: a\u{fffd}\u{fffd}b\u{fffd}]0;title\u{fffd}\u{fffd}c"),
        "{shown}"
    );
    assert!(
        shown.contains("\\u001b[?1049l\\u009b2J"),
        "as JSON has it: {shown}"
    );
    assert!(shown.contains("on node\u{fffd}[2J"), "{shown}");
    terminal.types("q").await;
    terminal.end().await;
    assert!(!terminal.raw.contains('\u{9b}') && !terminal.raw.contains('\u{202e}'));
    assert_eq!(terminal.raw.matches("\x1b[?1049l").count(), 1);
}

#[tokio::test]
async fn no_color_is_respected() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(&now())));
    let environment = [("TERM", "xterm"), ("NO_COLOR", "1")];
    let mut terminal = View::with(&world, &["p"], 80, 24, &environment);
    terminal.shows("main        running").await;
    terminal.types("q").await;
    assert_eq!(terminal.end().await.code(), Some(0));
    for color in ["\x1b[3", "\x1b[4", "\x1b[1m"] {
        assert!(!terminal.raw.contains(color), "{color:?}");
    }
}

#[tokio::test]
async fn a_terminal_without_cursor_control_gets_lines() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&terminated(0, "Completed", "one")));
    for environment in [&[("TERM", "dumb")][..], &[]] {
        let mut terminal = View::with(&world, &["p"], 200, 24, environment);
        assert_eq!(terminal.end().await.code(), Some(0));
        assert!(
            terminal.shown().contains(" end: the task has ended"),
            "{}",
            terminal.shown()
        );
        assert!(!terminal.raw.contains('\x1b'), "{}", terminal.raw);
    }
}

#[tokio::test]
async fn an_error_is_shown_on_the_main_screen() {
    let world = World::start().await.expect("a world");
    let mut terminal = View::start(&world, &["nobody"], 120, 24);
    assert_eq!(terminal.end().await.code(), Some(67));
    let shown = terminal.shown();
    assert!(
        shown.starts_with("podbeat: Error from server (NotFound): pods \"nobody\" not found"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_stop_restores_the_terminal_until_it_continues() {
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(&now())));
    let mut terminal = View::start(&world, &["p"], 80, 24);
    terminal.shows("Next heartbeat: periodic").await;
    terminal.types("\x1a").await;
    terminal
        .until("the other screen to be left", |screen| {
            !screen.alternate_screen()
        })
        .await;
    // It stops only after that. Until then, SIGCONT would have no effect.
    let stat = format!("/proc/{}/stat", terminal.child.id().expect("it runs"));
    let stopped = async {
        while !std::fs::read_to_string(&stat)
            .expect("it is there")
            .contains(") T ")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, stopped)
        .await
        .expect("it stops");
    terminal.is_as_it_was();
    terminal.signal(Signal::CONT);
    terminal
        .until("the other screen again", vt100::Screen::alternate_screen)
        .await;
    terminal.shows("Next heartbeat: periodic").await;
    terminal.types("q").await;
    assert_eq!(terminal.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_closed_terminal_ends_it() {
    // The terminal goes away with the last process that has it open.
    if !is_alone("observe::terminal::a_closed_terminal_ends_it") {
        return;
    }
    let world = World::start().await.expect("a world");
    world
        .kube
        .apply(Pod::new("p", "uid-p").showing(&running(&now())));
    let mut terminal = View::start(&world, &["p"], 80, 24);
    terminal.shows("Next heartbeat: periodic").await;
    let Terminal { pty, mut child, .. } = terminal.terminal;
    drop(pty);
    let status = tokio::time::timeout(LIMIT, child.wait())
        .await
        .expect("it ends")
        .expect("waited for");
    assert!(
        status.signal() == Some(1) || status.code() == Some(73),
        "{status:?}"
    );
}
