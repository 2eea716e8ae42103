//! Inspects the bytes that a connection reads, to find the status line of the response. If the head
//! of a response breaks off after that line, the service still responded.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// The status of the response to one request.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<AtomicU16>);

impl Seen {
    /// The status, after its whole line has arrived.
    pub fn status(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|status| *status > 0)
    }
}

/// A connection whose responses are inspected.
pub(super) struct Tap {
    stream: Box<dyn Stream>,
    watched: Watched,
}

/// The request whose response is inspected.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<Option<(Seen, StatusLine)>>>);

impl Tap {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            watched: Watched::default(),
        }
    }

    pub(super) fn watched(&self) -> Watched {
        self.watched.clone()
    }
}

impl Watched {
    /// The following bytes are the response to another request.
    pub(super) fn begin(&self, seen: &Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((seen.clone(), StatusLine::default()));
    }

    fn look(&self, bytes: &[u8]) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((seen, line)) = &mut *watched else {
            return;
        };
        match line.read(bytes) {
            Looked::Nothing => {}
            Looked::Status(status) => {
                seen.0.store(status, Ordering::Relaxed);
                *watched = None;
            }
            Looked::NotHttp => *watched = None,
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(read) = buffer.filled().get(before..) {
            self.watched.look(read);
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Length of `HTTP/1.1 200` and the next byte. The rest of the line is free text.
const LENGTH: usize = 13;

/// Finds the status line, however the bytes are split. Skips informational responses (1xx).
#[derive(Default)]
struct StatusLine {
    /// The first bytes of the line.
    begun: [u8; LENGTH],
    /// Bytes of the line so far.
    length: usize,
    /// Whether the current bytes are the head of an informational response.
    announces: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Looked {
    Nothing,
    Status(u16),
    NotHttp,
}

impl StatusLine {
    fn read(&mut self, bytes: &[u8]) -> Looked {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let length = std::mem::take(&mut self.length);
                    if length == 0 {
                        // The end of an informational response, or an empty line before the first
                        // response.
                        self.announces = false;
                    } else if !self.announces {
                        match self.status(length) {
                            // After 101, another protocol follows instead of another response (RFC
                            // 9110, 15.2.2).
                            Some(100 | 102..=199) => self.announces = true,
                            Some(status) => return Looked::Status(status),
                            None => return Looked::NotHttp,
                        }
                    }
                }
                b'\r' if self.length == 0 => {}
                byte => {
                    if let Some(place) = self.begun.get_mut(self.length) {
                        *place = *byte;
                    }
                    // The line may have any length.
                    self.length = self.length.saturating_add(1);
                }
            }
        }
        Looked::Nothing
    }

    /// Returns the status of a complete line.
    fn status(&self, length: usize) -> Option<u16> {
        let line = self.begun.get(..length.min(LENGTH))?;
        let (version, rest) = line.split_at_checked(9)?;
        let (status, behind) = rest.split_at_checked(3)?;
        let is_http =
            matches!(version, b"HTTP/1.0 " | b"HTTP/1.1 ") && matches!(behind, b"" | b" " | b"\r");
        let digits = status.iter().all(u8::is_ascii_digit);
        str::from_utf8(status)
            .ok()
            .filter(|_| is_http && digits)?
            .parse()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looked(whole: &[u8], cuts: usize) -> Looked {
        let mut line = StatusLine::default();
        whole
            .chunks(cuts)
            .map(|part| line.read(part))
            .find(|looked| *looked != Looked::Nothing)
            .unwrap_or(Looked::Nothing)
    }

    #[test]
    fn a_status_line_counts_only_when_complete() {
        for (came, expected) in [
            ("HTTP/1.1 200 OK\r\n", Looked::Status(200)),
            ("HTTP/1.0 503\n", Looked::Status(503)),
            ("\r\n\r\nHTTP/1.1 204 \r\n", Looked::Status(204)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n",
                Looked::Status(201),
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nHTTP/1.1 200: x\r\n\r\nHTTP/1.1 404 \r\n",
                Looked::Status(404),
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n",
                Looked::Status(101),
            ),
            ("HTTP/1.1 200 OK", Looked::Nothing),
            ("HTTP/1.1 200 OK\r", Looked::Nothing),
            ("HTTP/1.1 20", Looked::Nothing),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", Looked::Nothing),
            ("", Looked::Nothing),
            ("HTTP/1.1 20\r\n", Looked::NotHttp),
            ("HTTP/1.1 2OO OK\r\n", Looked::NotHttp),
            ("HTTP/1.1 2000\r\n", Looked::NotHttp),
            ("HTTP/2 200 OK\r\n", Looked::NotHttp),
            ("SSH-2.0-OpenSSH_9.2 200\r\n", Looked::NotHttp),
            ("<html>\nHTTP/1.1 200 OK\r\n", Looked::NotHttp),
        ] {
            for cuts in 1..20 {
                assert_eq!(
                    looked(came.as_bytes(), cuts),
                    expected,
                    "{came:?} by {cuts}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_parts_of_a_response_do_not_affect_its_parsing(bytes: Vec<u8>, cuts in 1_usize..9) {
            prop_assert_eq!(looked(&bytes, cuts), looked(&bytes, usize::MAX));
            let begun = [b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat();
            prop_assert_eq!(looked(&begun, cuts), Looked::Status(200));
        }
    }
}
