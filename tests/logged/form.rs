//! The form of a line: JSON stays JSON, text stays on one line, and only terminals get colors.

use std::process::{Command, Stdio};

use podbeat::config::Config;
use podbeat_interface::environment::Flags;
use podbeat_lab::pod::{Pod, Sidecar, terminated};
use podbeat_lab::world::World;
use serde_json::json;

use super::table;
use crate::harness::binary::{PODBEAT, Podbeat, lines};
use crate::harness::settings;

const EVIL: &str = "one\ntwo\r\u{1b}[2J\u{9b}31m\u{202e}three \"four\" \\five";

fn evil_pod() -> serde_json::Value {
    let mut status = terminated(3, "Err\nor", "c1");
    status["state"]["terminated"]["message"] = json!(format!("{EVIL}{}", "x".repeat(5000)));
    Pod::new("p", "u1").sidecar(Sidecar::Plain).showing(&status)
}

fn is_harmless(text: &str) -> bool {
    !text.contains(|c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}')
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_is_one_line_with_any_text_of_a_container() {
    for format in ["json", "text"] {
        let world = World::start().await.expect("a world");
        world.kube.apply(evil_pod());
        let mut podbeat = Podbeat::start(&world, "log", &[("PODBEAT_LOG_FORMAT", format)]);
        assert!(podbeat.ended().await.success());
        let text = podbeat.text();
        assert!(is_harmless(&text), "{text:?}");
        if format == "json" {
            let lines = lines(&text);
            table::check(&lines);
            let changed = lines
                .iter()
                .find(|line| line["message"] == "container state changed")
                .expect("a line");
            let message = changed["container_message"].as_str().expect("a text");
            assert!(
                message.starts_with(EVIL) && message.ends_with("x…"),
                "{message}"
            );
            assert!(message.chars().count() == 257 && changed["reason"] == "Err\nor");
        } else {
            let changed: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("container state changed"))
                .collect();
            assert_eq!(changed.len(), 1, "{text}");
            assert!(changed[0].contains(r#" reason="Err\nor" container_message="one\ntwo\r\u{1b}[2J\u{9b}31m\u{202e}three \"four\" \\fivex"#), "{text}");
            // Each line has a time, a level, a message, and fields in a column.
            for line in text.lines() {
                let (time, rest) = line.split_once(' ').expect("a time");
                assert!(time.len() == 13 && time.ends_with('Z'), "{line}");
                assert!(
                    rest.starts_with("INFO  ") || rest.starts_with("WARN  "),
                    "{line}"
                );
            }
        }
    }
}

/// Runs podbeat on a terminal, with `script` from util-linux.
#[tokio::test(flavor = "multi_thread")]
async fn colors_are_for_terminals_and_not_with_no_color() {
    let world = World::start().await.expect("a world");
    world.kube.apply(evil_pod());
    for (no_color, colored) in [("", true), ("1", false)] {
        let settings = settings(
            &world,
            &[
                ("PODBEAT_DRY_RUN", "true"),
                ("PODBEAT_LOG_FORMAT", "text"),
                ("NO_COLOR", no_color),
            ],
        );
        let path = std::env::split_paths("/usr/bin:/bin")
            .map(|directory| directory.join("script"))
            .find(|path| path.exists());
        let mut script = Command::new(path.expect("util-linux' script"));
        script
            .args(["--quiet", "--return", "--command", PODBEAT, "/dev/null"])
            .env_clear()
            .envs(&settings)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || script.output().expect("script runs"))
            .await
            .expect("joined");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success() && text.contains("podbeat started"),
            "{text}"
        );
        assert_eq!(text.contains("\u{1b}[32mINFO"), colored, "{text:?}");
        // Without podbeat's colors, the text does not act on a terminal.
        let without_colors = text
            .replace("\u{1b}[2m", "")
            .replace("\u{1b}[0m", "")
            .replace("\u{1b}[32m", "");
        assert!(
            is_harmless(&without_colors.replace("\r\n", "\n")),
            "{without_colors:?}"
        );
    }
}

const CHILD: &str = "PODBEAT_TEST_PANICS";

/// The process for `a_panic_is_a_line_of_json`. It does nothing unless that test starts it.
#[test]
#[allow(clippy::disallowed_methods, reason = "the environment makes it panic")]
fn panics_if_asked_to() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let settings = [
        ("TASK_RUN_ID", "r"),
        ("POD_NAME", "p"),
        ("PODBEAT_DRY_RUN", "true"),
        ("PODBEAT_LOG_FORMAT", "json"),
    ];
    let settings: std::collections::BTreeMap<String, String> = settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let config = Config::load(&Flags::default(), &settings).expect("right");
    podbeat_interface::log::install(&config.log).expect("the first log of this process");
    panic!("two\nlines");
}

#[test]
fn a_panic_is_a_line_of_json() {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "logged::form::panics_if_asked_to", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let lines = lines(std::str::from_utf8(&output.stderr).expect("text"));
    table::check(&lines);
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(
        line["message"],
        "podbeat panicked; this is a bug, please report it"
    );
    assert_eq!(line["panic"], "two\nlines");
    assert!(
        line["location"]
            .as_str()
            .is_some_and(|at| at.contains("form.rs:")),
        "{line}"
    );
}
