//! One line on a terminal that says what is waited for, written anew as it changes, and taken off
//! at the end.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};
use tokio::time::{MissedTickBehavior, interval};
use unicode_width::UnicodeWidthChar;

use podbeat_interface::terminal::inert;

/// Between two looks at the clock: elapsed times are shown in seconds.
const TICK: Duration = Duration::from_secs(1);

/// To the line's beginning, and what stands there removed.
const CLEAR: &str = "\r\x1b[K";

/// Where a terminal doesn't tell its width.
const USUAL: usize = 80;

/// The line, if there is a terminal for it. Dropped, it is gone.
#[derive(Debug, Default)]
pub struct StatusLine {
    terminal: Option<File>,
    shown: String,
}

impl StatusLine {
    /// A line on this terminal, or none.
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

    /// Shows a text in place of the one before. It is cut to the width of the terminal, since a
    /// wrapped line can't be removed.
    fn show(&mut self, text: &str) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        // Stopped and let go on in the background, it would write into what the shell shows.
        let in_front = tcgetpgrp(&*terminal).is_ok_and(|in_front| in_front == getpgrp());
        if !in_front {
            return;
        }
        let width = tcgetwinsize(&*terminal).map_or(0, |size| usize::from(size.ws_col));
        let text = cut(text, if width == 0 { USUAL } else { width });
        if text != self.shown {
            // A terminal that is gone is no reason to stop.
            let _ = terminal.write_all(format!("{CLEAR}{text}").as_bytes());
            self.shown = text;
        }
    }

    /// Takes the line off, so that other text can stand there.
    pub(crate) fn clear(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && !std::mem::take(&mut self.shown).is_empty()
        {
            let _ = terminal.write_all(CLEAR.as_bytes());
        }
    }

    /// Waits for `done`, and shows meanwhile what `text` says.
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

/// A text, inert, that leaves the last column free: there some terminals go to the next line.
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
