//! `podbeat runs wait` on a terminal: what a person sees while it waits, and that nothing of it
//! stays on the screen.

use std::os::unix::process::ExitStatusExt;

use pty_process::Command;
use rustix::process::Signal;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::operations::{run, with_runs};
use crate::harness::LIMIT;
use crate::harness::binary::{PODBEAT, ended};
use crate::harness::listener::Listener;
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
async fn a_terminal_shows_the_wait_and_keeps_only_the_result() {
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
    run(
        &service,
        "heartbeat trn.1 --container main=terminated:0 --last",
    )
    .await
    .done();
    assert!(terminal.end().await.success());
    assert_eq!(terminal.shown(), "task run trn.1 is Completed");
}

#[tokio::test]
async fn a_signal_ends_it_and_leaves_a_clean_line() {
    let service = with_runs(["trn.1".to_owned()]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut terminal = wait(
            &service.url(),
            &["trn.1", "--for", "end", "--timeout", "1h"],
            30,
        );
        // Text that is too long for the line is cut, because it could not be removed otherwise.
        terminal.shows("waiting for task run trn.1 to").await;
        assert_eq!(terminal.shown().lines().count(), 1, "{}", terminal.shown());
        terminal.signal(signal);
        assert_eq!(terminal.end().await.signal(), Some(signal.as_raw()));
        assert_eq!(terminal.shown(), "");
    }
}

/// A shell with job control puts the command into the background, as `bg` does after Ctrl-Z.
#[tokio::test]
async fn in_the_background_nothing_is_shown() {
    let service = with_runs(["trn.1".to_owned()]).await;
    let url = service.url();
    let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let (asked, mut asks) = tokio::sync::mpsc::channel(100);
    let before = Listener::start(move |mut client| {
        let (address, asked) = (address.clone(), asked.clone());
        async move {
            let mut server = TcpStream::connect(address).await.expect("the service");
            asked.send(()).await.ok();
            copy_bidirectional(&mut client, &mut server).await.ok();
        }
    })
    .await;
    let script = r#"set -m; "$PODBEAT" runs wait trn.1 --for Completed --timeout 1h --interval 100ms & read -r; fg >/dev/null"#;
    let mut terminal = Terminal::with(Command::new("bash"), 80, 24, |command, _| {
        command
            .env("TERM", "xterm-256color")
            .env("PODBEAT", PODBEAT)
            .env(
                "PODBEAT_SERVICE_URL",
                format!("http://127.0.0.1:{}", before.port),
            )
            .env("PODBEAT_TOKEN", TOKEN)
            .args(["-c", script])
    });
    timeout(LIMIT, asks.recv())
        .await
        .expect("it asks")
        .expect("once");
    terminal.types("\r").await;
    terminal
        .shows("waiting for task run trn.1 to be Completed: Pending for ")
        .await;
    // The terminal echoes the typed line before anything else appears.
    assert!(terminal.raw.starts_with("\r\n"), "{:?}", terminal.raw);
    run(
        &service,
        "heartbeat trn.1 --container main=terminated:0 --last",
    )
    .await
    .done();
    assert!(terminal.end().await.success());
    assert_eq!(terminal.shown().trim(), "task run trn.1 is Completed");
}

#[tokio::test]
async fn no_status_line_if_it_is_not_wanted() {
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
