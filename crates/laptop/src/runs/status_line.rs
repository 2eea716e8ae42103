//! One line on a terminal that shows what podbeat waits for. podbeat redraws it when it changes,
//! and removes it at the end.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use tokio::time::{MissedTickBehavior, interval};
use unicode_width::UnicodeWidthChar;

use podbeat_interface::terminal::inert;

/// The time between two updates. Elapsed times are shown in seconds.
const TICK: Duration = Duration::from_secs(1);

/// Moves to the beginning of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// The width if the terminal does not report one.
const USUAL: usize = 80;

/// The line, if there is a terminal for it. Dropping it removes the line.
#[derive(Debug, Default)]
pub struct StatusLine {
    terminal: Option<File>,
    shown: String,
}

impl StatusLine {
    /// A line on this terminal, or no line without a terminal.
    #[must_use]
    pub fn new(terminal: Option<File>) -> Self {
        Self {
            terminal,
            shown: String::new(),
        }
    }

    /// Whether there is a terminal.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.terminal.is_some()
    }

    /// Replaces the shown text. The text is cut to the terminal's width, because a wrapped line
    /// cannot be removed.
    fn show(&mut self, text: &str) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        // After a stop, the process can continue in the background. There it must not write between
        // the shell's output.
        let in_front = tcgetpgrp(&*terminal).is_ok_and(|in_front| in_front == getpgrp());
        if !in_front {
            return;
        }
        let width = tcgetwinsize(&*terminal).map_or(0, |size| usize::from(size.ws_col));
        let text = cut(text, if width == 0 { USUAL } else { width });
        if text != self.shown {
            // A closed terminal does not stop the command.
            let _ = terminal.write_all(format!("{CLEAR}{text}").as_bytes());
            self.shown = text;
        }
    }

    /// Removes the line, so that other text can be written there.
    pub(crate) fn clear(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && !std::mem::take(&mut self.shown).is_empty()
        {
            let _ = terminal.write_all(CLEAR.as_bytes());
        }
    }

    /// Waits for `done`, and meanwhile shows the result of `text`.
    pub(crate) async fn while_waiting<T>(
        &mut self,
        text: impl Fn() -> String,
        done: impl Future<Output = T>,
    ) -> T {
        if !self.is_shown() {
            return done.await;
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                _ = ticks.tick() => self.show(&text()),
            }
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The inert text, cut to one column less than the terminal has. In the last column, some terminals
/// go to the next line.
fn cut(text: &str, columns: usize) -> String {
    let mut left = columns.saturating_sub(1);
    let mut shown = String::new();
    for letter in inert(text) {
        let Some(rest) = left.checked_sub(letter.width().unwrap_or_default()) else {
            break;
        };
        left = rest;
        shown.push(letter);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_its_line_and_does_nothing_there() {
        assert_eq!(cut("waiting", 80), "waiting");
        assert_eq!(cut("waiting", 5), "wait");
        assert_eq!(cut("日本語", 6), "日本");
        assert_eq!(cut("a\x1b[2J\n", 80), "a\u{fffd}[2J\u{fffd}");
        assert_eq!(cut("waiting", 0), "");
    }
}
