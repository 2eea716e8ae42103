//! A terminal for a test: a pty with podbeat on it, and an emulator that shows what a person would
//! see.

use std::num::NonZeroU16;
use std::process::ExitStatus;

use pty_process::{Command, Pty, Size};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use super::LIMIT;
use super::binary::{PODBEAT, send};

/// A terminal with podbeat on it.
pub(crate) struct Terminal {
    pub(crate) pty: Pty,
    pub(crate) child: Child,
    parser: vt100::Parser,
    /// All output, unchanged.
    pub(crate) raw: String,
}

fn size(of: u16) -> NonZeroU16 {
    NonZeroU16::new(of).expect("a size")
}

impl Terminal {
    /// Starts podbeat, without any variable of this process, on a terminal of this size. `arranged`
    /// sets up the command, and gets the terminal in its state before.
    pub(crate) fn start(
        columns: u16,
        rows: u16,
        arranged: impl FnOnce(Command, &Pty) -> Command,
    ) -> Self {
        Self::with(Command::new(PODBEAT).env_clear(), columns, rows, arranged)
    }

    /// Starts another program.
    pub(crate) fn with(
        command: Command,
        columns: u16,
        rows: u16,
        arranged: impl FnOnce(Command, &Pty) -> Command,
    ) -> Self {
        let (pty, pts) = pty_process::open().expect("a pty");
        pty.resize(Size::new(rows, columns)).expect("resized");
        let command = arranged(command, &pty);
        let child = command
            .kill_on_drop(true)
            .spawn(pts)
            .expect("the binary runs");
        Self {
            pty,
            child,
            parser: vt100::Parser::new(size(rows), size(columns), 0),
            raw: String::new(),
        }
    }

    pub(crate) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    pub(crate) fn shown(&self) -> String {
        self.screen().contents()
    }

    /// Reads the next output. Returns whether there was any.
    pub(crate) async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(LIMIT, self.pty.read(&mut bytes))
            .await
            .unwrap_or_else(|_| panic!("nothing more comes:\n{}", self.shown()));
        // Linux returns EIO if no process has the terminal open.
        let count = read.unwrap_or(0);
        self.parser.process(&bytes[..count]);
        self.raw += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    pub(crate) async fn until(&mut self, what: &str, reached: impl Fn(&vt100::Screen) -> bool) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while !reached(self.screen()) {
            assert!(
                self.read().await,
                "it ended without {what}:\n{}",
                self.shown()
            );
            assert!(
                tokio::time::Instant::now() < deadline,
                "no {what}:\n{}",
                self.shown()
            );
        }
    }

    /// Waits until the screen shows a text.
    pub(crate) async fn shows(&mut self, text: &str) {
        self.until(text, |screen| screen.contents().contains(text))
            .await;
    }

    pub(crate) async fn types(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.expect("written");
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.parser.screen_mut().set_size(size(rows), size(columns));
        self.pty.resize(Size::new(rows, columns)).expect("resized");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id().expect("it runs"), signal);
    }

    /// Reads to the end.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        while self.read().await {}
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        status.expect("it ends").expect("waited for")
    }
}
