//! Sends one request without a body and reads the head of the response. The rest of the response
//! stays on the connection.
//!
//! There are two uses: opening a proxy's tunnel, and reading the date of a response in `podbeat
//! check`.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;

/// Limit for the head of a response, in bytes.
const LONGEST: usize = 16 * 1024;

/// Why the head of a response could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke off.
    #[error("the connection closed early")]
    Broken(#[from] io::Error),
    /// The response is not HTTP, or its head is longer than 16 KiB.
    #[error("the response is not HTTP")]
    NotHttp,
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    lines: Vec<String>,
}

impl Head {
    /// Sends the head of a request and reads the head of the response. Reads nothing after it.
    ///
    /// # Errors
    /// The connection broke off, or the response is not HTTP.
    pub async fn ask(stream: &mut (dyn Stream + '_), request: &[u8]) -> Result<Self, Error> {
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Byte by byte, because the bytes after a proxy's response belong to the service. The
        // kernel or TLS has a buffer.
        while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
            if answer.len() == LONGEST {
                return Err(Error::NotHttp);
            }
            answer.push(stream.read_u8().await?);
            // Fail at the first wrong byte instead of waiting for 16 KiB of it.
            if !b"HTTP/1.".starts_with(answer.get(..7).unwrap_or(&answer)) {
                return Err(Error::NotHttp);
            }
        }
        Self::read(&answer).ok_or(Error::NotHttp)
    }

    fn read(answer: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(answer);
        let mut lines = text.lines().map(str::to_owned);
        let first = lines.next()?;
        let mut words = first.split(' ');
        words
            .next()
            .filter(|version| version.starts_with("HTTP/1."))?;
        let status = words
            .next()
            .filter(|status| status.len() == 3)?
            .parse()
            .ok()?;
        Some(Self {
            status,
            lines: lines.collect(),
        })
    }

    /// Returns the value of a header. Case does not matter in its name.
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_headers() {
        let head =
            Head::read(b"HTTP/1.1 200 Connection established\r\nDATE:  now \r\nX: a: b\r\n\r\n")
                .expect("a head");
        assert_eq!(
            (head.status, head.header("date"), head.header("x")),
            (200, Some("now"), Some("a: b"))
        );
        assert_eq!(head.header("host"), None);
        assert_eq!(
            Head::read(b"HTTP/1.0 407\r\n\r\n").map(|head| head.status),
            Some(407)
        );
        for odd in [
            &b""[..],
            b"HTTP/1.1",
            b"SSH-2.0 200\r\n",
            b"HTTP/1.1 2000000\r\n",
            b"\xff 200\r\n",
            b"HTTP/1.1 +20\r\n",
        ] {
            assert!(
                Head::read(odd).is_none_or(|head| head.status == 20),
                "{odd:?}"
            );
        }
    }

    #[tokio::test]
    async fn other_than_http_is_reported_at_once_and_an_endless_head_is_refused() {
        for (answer, whole) in [
            (b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\nbehind".to_vec(), true),
            (b"SSH-2.0-OpenSSH\r\n".to_vec(), false),
            (
                [&b"HTTP/1.1 200 OK\r\n"[..], &[b'x'; 20_000]].concat(),
                false,
            ),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
            theirs.write_all(&answer).await.expect("written");
            let asked = Head::ask(&mut ours, b"HEAD / HTTP/1.1\r\n\r\n").await;
            assert_eq!(asked.is_ok(), whole, "{asked:?}");
        }
    }
}
