//! Connections whose client must read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection that ends with an error if the client reads nothing for too long.
#[derive(Debug)]
pub struct Impatient<S> {
    stream: S,
    unread: Duration,
    /// The deadline for unread data; `None` while the client reads everything.
    ends: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    /// Wraps a connection. `unread` is how long a client may leave sent data unread.
    #[must_use]
    pub fn new(stream: S, unread: Duration) -> Self {
        Self {
            stream,
            unread,
            ends: None,
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        taken: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.ends = None;
            return taken;
        }
        let unread = self.unread;
        let ends = self
            .ends
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
        ready!(ends.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, taken)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    const UNREAD: Duration = Duration::from_secs(30);

    /// The pipe is in memory, so paused time only advances when nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected_and_a_slow_one_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Impatient::new(near, UNREAD);
        let reading = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(UNREAD - Duration::from_millis(1)).await;
                far.read_exact(&mut [0; 16]).await.expect("bytes");
            }
            far
        });
        near.write_all(&[0; 80])
            .await
            .expect("all is taken, slowly");
        let far = reading.await.expect("read");
        let before = Instant::now();
        let error = near.write_all(&[0; 1]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), UNREAD);
        drop(far);
    }
}
