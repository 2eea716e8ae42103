//! `podbeat runs wait` on a terminal: what a person sees while it waits, and that nothing of it stays.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use super::operations::{run, with_runs};
use crate::harness::binary::ended;
use crate::harness::server::TOKEN;
use crate::harness::terminal::Terminal;

fn wait(url: &str, arguments: &[&str], columns: u16) -> Terminal {
    Terminal::start(columns, 24, |command, _| {
        command
            .env("TERM", "xterm-256color")
            .env("PODBEAT_SERVICE_URL", url)
            .env("PODBEAT_TOKEN", TOKEN)
            .args(["runs", "wait"])
            .args(arguments)
    })
}

#[tokio::test]
async fn a_terminal_shows_what_is_waited_for_and_only_the_outcome_stays() {
    let service = with_runs(["trn.1".to_owned()]).await;
    let arguments = [
        "trn.1",
        "--for",
        "Completed",
        "--timeout",
        "1h",
        "--interval",
        "100ms",
    ];
    let mut terminal = wait(&service.url(), &arguments, 80);
    terminal
        .shows("waiting for task run trn.1 to be Completed: Pending for ")
        .await;
    terminal.shows(" of 1h").await;
    run(&service, "heartbeat trn.1 --container main=running")
        .await
        .done();
    terminal
        .shows("waiting for task run trn.1 to be Completed: Running for ")
        .await;
    assert_eq!(terminal.shown().lines().count(), 1, "{}", terminal.shown());
    run(&service, "heartbeat trn.1 --container main=terminated:0 --last")
        .await
        .done();
    assert!(terminal.end().await.success());
    assert_eq!(terminal.shown(), "task run trn.1 is Completed");
}

#[tokio::test]
async fn a_signal_ends_it_and_leaves_a_clean_line() {
    let service = with_runs(["trn.1".to_owned()]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut terminal = wait(&service.url(), &["trn.1", "--for", "end", "--timeout", "1h"], 30);
        // What is too long for the line is cut, since it could not be removed otherwise.
        terminal.shows("waiting for task run trn.1 to").await;
        assert_eq!(terminal.shown().lines().count(), 1, "{}", terminal.shown());
        terminal.signal(signal);
        assert_eq!(terminal.end().await.signal(), Some(signal.as_raw()));
        assert_eq!(terminal.shown(), "");
    }
}

#[tokio::test]
async fn nothing_is_shown_where_it_is_not_wanted() {
    let service = with_runs(["trn.1".to_owned()]).await;
    let arguments = [
        "trn.1",
        "--for",
        "Completed",
        "--timeout",
        "1s",
        "--interval",
        "100ms",
    ];
    let quiet = [&arguments[..], &["--quiet"]].concat();
    let mut terminal = wait(&service.url(), &quiet, 200);
    assert_eq!(terminal.end().await.code(), Some(75));
    assert!(!terminal.raw.contains('\u{1b}'), "{}", terminal.raw);
    assert!(
        terminal.shown().starts_with("podbeat: timed out after 1s"),
        "{}",
        terminal.shown()
    );
    let line = [&["wait"], &arguments[..]].concat();
    let piped = ended(super::runs(&service.url(), &line).env("TERM", "xterm")).await;
    assert_eq!(piped.code, 75);
    assert!(
        piped.notes.starts_with("podbeat: timed out after 1s"),
        "{piped:?}"
    );
}
