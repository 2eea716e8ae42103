//! Writes a log that perhaps nobody reads. If a container runtime hangs or a reader is stopped, the
//! pipe is full, and a write would block forever. Heartbeats and signals must not wait for that, so
//! podbeat drops and counts the lines that it cannot write.

use std::borrow::Cow;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The number of bytes that a pipe accepts at once if it is writable (PIPE_BUF, pipe(7)).
const AT_ONCE: usize = 4096;

/// How long to wait for a full pipe before dropping lines, because its reader may only be slow.
const PATIENCE: Duration = Duration::from_millis(50);

/// A log, and the number of lines that were dropped.
pub(super) struct Unread<W> {
    to: W,
    /// Lines dropped since the last written one.
    dropped: AtomicU64,
    /// Whether the last written line is incomplete.
    is_torn: AtomicBool,
}

impl<W> Unread<W>
where
    for<'log> &'log W: AsFd + Write,
{
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            dropped: AtomicU64::new(0),
            is_torn: AtomicBool::new(false),
        }
    }

    /// If another line can be written now, returns the number of dropped lines and resets it.
    pub(super) fn left_out(&self) -> Option<u64> {
        if self.dropped.load(Ordering::Relaxed) == 0 || !self.takes_more(Duration::ZERO) {
            return None;
        }
        Some(self.dropped.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }

    /// Writes a line, or drops it.
    pub(super) fn write(&self, line: &str) {
        // After a dropped line, do not wait for the next ones.
        let patience = if self.dropped.load(Ordering::Relaxed) == 0 {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let mut begun = false;
        let line = match self.is_torn.load(Ordering::Relaxed) {
            true => Cow::Owned(format!("\n{line}")),
            false => Cow::Borrowed(line),
        };
        for part in line.as_bytes().chunks(AT_ONCE) {
            if !self.takes_more(patience) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                self.is_torn.fetch_or(begun, Ordering::Relaxed);
                return;
            }
            // Nobody reads a closed log either.
            if (&self.to).write_all(part).is_err() {
                return;
            }
            begun = true;
        }
        self.is_torn.store(false, Ordering::Relaxed);
    }

    /// Whether [`AT_ONCE`] bytes can be written without waiting. Always true for files.
    fn takes_more(&self, patience: Duration) -> bool {
        let to = &self.to;
        let mut asked = [PollFd::new(&to, PollFlags::OUT)];
        let patience = Timespec::try_from(patience).ok();
        match poll(&mut asked, patience.as_ref()) {
            Ok(ready) => ready > 0,
            // Perhaps a signal arrived. It is better to drop a line than to wait.
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn pipe() -> (File, Unread<File>) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (reader, writer): (std::os::fd::OwnedFd, std::os::fd::OwnedFd) =
            (reader.into(), writer.into());
        (reader.into(), Unread::new(writer.into()))
    }

    #[test]
    fn a_full_pipe_is_not_waited_for_and_what_is_left_out_is_counted() {
        let (mut reader, log) = pipe();
        let line = format!("{}\n", "x".repeat(10_000));
        let mut left_out = 0;
        // The capacity of a pipe is 64 KiB (pipe(7)).
        for _ in 0..50 {
            log.write(&line);
        }
        assert_eq!(log.left_out(), None, "it is full");
        let mut read = vec![0; 40_000];
        reader.read_exact(&mut read).expect("read");
        left_out += log.left_out().expect("some");
        log.write("behind\n");
        assert_eq!(log.left_out(), None, "they are told once");
        drop(log);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        read.extend(rest.into_bytes());
        let all = String::from_utf8(read).expect("text");
        let whole = all.lines().filter(|text| text.len() == 10_000).count();
        assert!((4..7).contains(&whole), "{whole}");
        assert_eq!(u64::try_from(whole).expect("few") + left_out, 50);
        // The incomplete line ends before the next one begins.
        assert!(all.ends_with("x\nbehind\n"));
        assert!(all.lines().count() - whole <= 2);
    }

    #[test]
    fn a_closed_pipe_does_no_harm() {
        let (reader, log) = pipe();
        drop(reader);
        log.write("x\n");
        assert_eq!(log.left_out(), None);
    }
}
