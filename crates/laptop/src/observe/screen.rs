//! The terminal: its alternate screen, its size and its keys. At the end, it is restored.
//!
//! The code is written by hand, because a view that is always drawn completely needs only a dozen
//! sequences that every current terminal knows (ECMA-48 and xterm's ctlseqs). rustix is already a
//! dependency and does the rest.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, Once, PoisonError, TryLockError};

use rustix::fs::{Mode, OFlags};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
    ttyname,
};
use tokio::net::unix::pipe::Receiver;

use super::view::{Line, Size, Style};

/// Switches to the alternate screen, so that the content of the main screen stays. Hides the
/// cursor, and disables the wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";

/// Reverts [`ENTER`] and resets colors.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Begin and end of a frame, so that a terminal shows it at once. Other terminals ignore these
/// sequences.
const FRAME: (&str, &str) = ("\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l");

/// The size if the terminal does not report one, in columns and rows.
const USUAL: (u16, u16) = (80, 24);

/// What to restore at the end, also after a panic, because a panic that aborts runs no destructor.
/// There is only one terminal.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    terminal: File,
    before: Termios,
}

/// A key with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Redraw,
}

/// The terminal in use. Dropping it restores the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: File,
    keys: Option<Receiver>,
    colours: bool,
    drawn: String,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// The file is not a terminal, or the terminal was closed.
    pub(super) fn take(terminal: File, colours: bool) -> io::Result<Self> {
        give_back_on_panic();
        let keys = keys(&terminal);
        let mut screen = Self {
            terminal,
            keys,
            colours,
            drawn: String::new(),
        };
        screen.enter()?;
        Ok(screen)
    }

    /// Takes the terminal again, for example after a stop. Another process may have changed all of
    /// its settings.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        give_back();
        let before = tcgetattr(&self.terminal)?;
        let taken = Taken {
            terminal: self.terminal.try_clone()?,
            before: before.clone(),
        };
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        let mut modes = before;
        // Keys arrive at once and are not echoed. Ctrl-C and Ctrl-Z remain signals.
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.terminal, OptionalActions::Now, &modes)?;
        self.drawn.clear();
        self.terminal.write_all(ENTER.as_bytes())
    }

    /// Restores the terminal, until [`Screen::enter`].
    pub(super) fn leave(&mut self) {
        give_back();
    }

    pub(super) fn size(&self) -> Size {
        let (columns, rows) = tcgetwinsize(&self.terminal)
            .map(|size| (size.ws_col, size.ws_row))
            .ok()
            .filter(|(columns, rows)| *columns > 0 && *rows > 0)
            .unwrap_or(USUAL);
        Size {
            columns: columns.into(),
            rows: Some(rows.into()),
        }
    }

    /// Draws a view, unless it is already shown.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut frame = FRAME.0.to_owned();
        for (nth, line) in lines.iter().enumerate() {
            if nth > 0 {
                frame += "\r\n";
            }
            paint(line, self.colours, &mut frame);
            frame += "\x1b[K";
        }
        frame += FRAME.1;
        if frame == self.drawn {
            return Ok(());
        }
        self.terminal.write_all(frame.as_bytes())?;
        self.drawn = frame;
        Ok(())
    }

    /// Draws the next view on an empty screen, because the window's size changed or another program
    /// wrote to it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.drawn.clear();
        self.terminal.write_all(b"\x1b[2J")
    }

    /// The next key with a meaning.
    ///
    /// # Cancel safety
    /// A key that was not read yet stays in the terminal.
    pub(super) async fn key(&mut self) -> Key {
        let Some(keys) = &self.keys else {
            return std::future::pending().await;
        };
        loop {
            if keys.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut pressed = [0; 64];
            let count = match keys.try_read(&mut pressed) {
                Ok(count) => count,
                // The terminal was not ready, so wait again.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                // A background process cannot read keys, and a closed terminal has none.
                Err(_) => 0,
            };
            if count == 0 {
                return std::future::pending().await;
            }
            let pressed = pressed.iter().take(count);
            for key in pressed {
                match key {
                    b'q' | b'Q' => return Key::Quit,
                    // Ctrl-L, as in other programs.
                    0x0c => return Key::Redraw,
                    _ => {}
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Opens the terminal again, because the non-blocking mode must not affect other users of the first
/// file. Tokio has no type for reading a terminal in this mode. The type of a pipe's end does the
/// same.
fn keys(terminal: &File) -> Option<Receiver> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let named = ttyname(terminal, Vec::new()).ok();
    let opened = named.and_then(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
    let opened = opened.or_else(|| rustix::fs::open("/dev/tty", flags, Mode::empty()).ok())?;
    Receiver::from_owned_fd_unchecked(opened).ok()
}

/// Restores the terminal, if it is taken.
fn give_back() {
    let taken = match TAKEN.try_lock() {
        Ok(mut taken) => taken.take(),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
        // This thread has the lock: it panicked while it took the terminal.
        Err(TryLockError::WouldBlock) => None,
    };
    if let Some(mut taken) = taken {
        // A closed terminal needs nothing else.
        let _ = taken.terminal.write_all(LEAVE.as_bytes());
        let _ = tcsetattr(taken.terminal.as_fd(), OptionalActions::Now, &taken.before);
    }
}

/// Restores the terminal before a panic prints its message, so that the message is on the main
/// screen.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

/// Appends a line with its escape sequences.
pub(super) fn paint(line: &Line, colours: bool, to: &mut String) {
    for (style, text) in line.texts() {
        let (begin, end) = match style {
            _ if !colours || text.is_empty() => ("", ""),
            Style::Plain => ("", ""),
            Style::Strong => ("\x1b[1m", "\x1b[0m"),
            Style::Good => ("\x1b[32m", "\x1b[0m"),
            Style::Open => ("\x1b[33m", "\x1b[0m"),
            Style::Bad => ("\x1b[31m", "\x1b[0m"),
        };
        *to += begin;
        *to += text;
        *to += end;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn modes(of: impl AsFd) -> String {
        format!("{:?}", tcgetattr(of).expect("a terminal"))
    }

    #[tokio::test]
    async fn a_panic_restores_the_terminal_before_its_message() {
        let (mut pty, pts) = pty_process::blocking::open().expect("a pty");
        let before = modes(&pts);
        let terminal = File::from(pts.as_fd().try_clone_to_owned().expect("a file"));
        // The screen is not dropped here, so that its destructor cannot restore the terminal. If a
        // panic aborts, no destructor runs.
        let screen = Screen::take(terminal, true).expect("taken");
        assert_ne!(modes(&pts), before);
        std::panic::catch_unwind(|| panic!("planted")).expect_err("a panic");
        assert_eq!(modes(&pts), before);
        let mut said = Vec::new();
        while !said.ends_with(LEAVE.as_bytes()) {
            let mut bytes = [0; 256];
            let count = pty.read(&mut bytes).expect("readable");
            said.extend_from_slice(&bytes[..count]);
        }
        drop(screen);
    }
}
