//! `podbeat runs wait` on a terminal: what a person sees while it waits, and that nothing of it stays.

use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use pty_process::{Pty, Size};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

use super::operations::{run, with_runs};
use crate::harness::LIMIT;
use crate::harness::binary::{PODBEAT, ended, send};
use crate::harness::server::TOKEN;

struct Terminal {
    pty: Pty,
    child: Child,
    parser: vt100::Parser,
    raw: String,
}

fn size(of: u16) -> NonZeroU16 {
    NonZeroU16::new(of).expect("a size")
}

impl Terminal {
    fn start(url: &str, arguments: &[&str], columns: u16) -> Self {
        let (pty, pts) = pty_process::open().expect("a pty");
        pty.resize(Size::new(24, columns)).expect("resized");
        let child = pty_process::Command::new(PODBEAT)
            .env_clear()
            .env("TERM", "xterm-256color")
            .env("PODBEAT_SERVICE_URL", url)
            .env("PODBEAT_TOKEN", TOKEN)
            .args(["runs", "wait"])
            .args(arguments)
            .kill_on_drop(true)
            .spawn(pts)
            .expect("the binary runs");
        Self {
            pty,
            child,
            parser: vt100::Parser::new(size(24), size(columns), 0),
            raw: String::new(),
        }
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(LIMIT, self.pty.read(&mut bytes))
            .await
            .unwrap_or_else(|_| panic!("nothing more comes:\n{}", self.shown()));
        // Where nobody has the terminal open any more, Linux gives EIO.
        let count = read.unwrap_or(0);
        self.parser.process(&bytes[..count]);
        self.raw += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    fn shown(&self) -> String {
        self.parser.screen().contents()
    }

    async fn until(&mut self, text: &str) {
        while !self.shown().contains(text) {
            assert!(self.read().await, "it ended without {text}:\n{}", self.shown());
        }
    }

    async fn end(&mut self) -> ExitStatus {
        while self.read().await {}
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        status.expect("it ends").expect("waited for")
    }
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
    let mut terminal = Terminal::start(&service.url(), &arguments, 80);
    terminal
        .until("waiting for task run trn.1 to be Completed: Pending for ")
        .await;
    terminal.until(" of 1h").await;
    run(&service, "heartbeat trn.1 --container main=running")
        .await
        .done();
    terminal
        .until("waiting for task run trn.1 to be Completed: Running for ")
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
        let mut terminal = Terminal::start(&service.url(), &["trn.1", "--for", "end", "--timeout", "1h"], 30);
        // What is too long for the line is cut, since it could not be removed otherwise.
        terminal.until("waiting for task run trn.1 to").await;
        assert_eq!(terminal.shown().lines().count(), 1, "{}", terminal.shown());
        send(terminal.child.id().expect("it runs"), signal);
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
    let mut terminal = Terminal::start(&service.url(), &quiet, 200);
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
