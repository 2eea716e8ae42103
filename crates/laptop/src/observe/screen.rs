//! The terminal: its other screen, its size, its keys, and how it is left as it was found.
//!
//! Written by hand, since a view that is drawn whole needs no more than a dozen sequences that
//! every terminal of today knows (ECMA-48 and xterm's ctlseqs), and rustix is in the tree for the
//! rest.

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

/// The other screen, so that what stood on this one stands there again; no cursor; what is too long
/// isn't wrapped.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";

/// All that undone, and no colours.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Around a frame, so that a terminal shows it whole; one that doesn't know this passes over it.
const FRAME: (&str, &str) = ("\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l");

/// Where a terminal doesn't tell its size.
const USUAL: (u16, u16) = (80, 24);

/// What must be undone, also by a panic, which runs no destructor where it aborts. There is one
/// terminal.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    terminal: File,
    before: Termios,
}

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Redraw,
}

/// The terminal, taken. Dropped, it is as it was.
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
    /// It is none, or is gone.
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

    /// Takes it again, as after a stop: whoever was in front meanwhile may have changed everything.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        give_back();
        let before = tcgetattr(&self.terminal)?;
        let taken = Taken {
            terminal: self.terminal.try_clone()?,
            before: before.clone(),
        };
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        let mut modes = before;
        // Keys come at once and leave no trace; Ctrl-C and Ctrl-Z stay signals.
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.terminal, OptionalActions::Now, &modes)?;
        self.drawn.clear();
        self.terminal.write_all(ENTER.as_bytes())
    }

    /// Gives it back until it is taken again.
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

    /// Draws a view, if it differs from the one that is there.
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

    /// Has the next view drawn on an empty screen: the window was changed, or somebody wrote into
    /// it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.drawn.clear();
        self.terminal.write_all(b"\x1b[2J")
    }

    /// The next key that means something.
    ///
    /// # Cancel safety
    /// A key that was not yet read stays in the terminal.
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
                // Not yet after all.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                // In the background nothing can be read, and a terminal that hung up has no keys.
                Err(_) => 0,
            };
            if count == 0 {
                return std::future::pending().await;
            }
            let pressed = pressed.iter().take(count);
            for key in pressed {
                match key {
                    b'q' | b'Q' => return Key::Quit,
                    // Ctrl-L, as everywhere.
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

/// The terminal once more, as a file of our own: that it doesn't block must not be so for whoever
/// shares the first one. Tokio has no type for a terminal that is read so; as a pipe's end it does
/// the very same.
fn keys(terminal: &File) -> Option<Receiver> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let named = ttyname(terminal, Vec::new()).ok();
    let opened = named.and_then(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
    let opened = opened.or_else(|| rustix::fs::open("/dev/tty", flags, Mode::empty()).ok())?;
    Receiver::from_owned_fd_unchecked(opened).ok()
}

/// Puts the terminal back as it was found, if it is taken.
fn give_back() {
    let taken = match TAKEN.try_lock() {
        Ok(mut taken) => taken.take(),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
        // Held by this very thread, which panics in the middle of taking it.
        Err(TryLockError::WouldBlock) => None,
    };
    if let Some(mut taken) = taken {
        // A terminal that is gone needs nothing more.
        let _ = taken.terminal.write_all(LEAVE.as_bytes());
        let _ = tcsetattr(taken.terminal.as_fd(), OptionalActions::Now, &taken.before);
    }
}

/// What a panic has to say is to be read on the screen that stays.
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

/// A line as a terminal takes it.
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
    async fn a_panic_gives_the_terminal_back_before_it_speaks() {
        let (mut pty, pts) = pty_process::blocking::open().expect("a pty");
        let before = modes(&pts);
        let terminal = File::from(pts.as_fd().try_clone_to_owned().expect("a file"));
        // It lives on, so that it can't be its end that does it: where a panic aborts, nothing
        // comes to an end.
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
