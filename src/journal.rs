//! The journal's file, within bounds. Its form is in `podbeat_heartbeat::saved`.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use podbeat_files::regular_file::{self, Bounded};
use podbeat_heartbeat::saved::{Contents, Entry, LARGEST, Malformed, parse};

/// Its name in PODBEAT_STATE_DIR.
pub const FILE: &str = "journal.json";

/// Bytes that are written at once.
const AT_ONCE: usize = 8 << 10;

/// Writes a journal, part by part: it is never whole in memory.
///
/// # Errors
/// It can't be written, or takes more than [`LARGEST`].
pub fn write(entry: &Entry<'_>, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(AT_ONCE, Bounded::new(to, LARGEST));
    serde_json::to_writer(&mut to, entry)?;
    to.flush()
}

/// Reads a journal, part by part; `None` if there is no such file.
///
/// # Errors
/// It can't be read, or is none that this version knows.
pub fn read(path: &Path) -> Result<Option<Contents>, Malformed> {
    read_counting(path, &AtomicU64::new(0))
}

/// The same; `count` shows from another thread how many bytes came so far, so that a disk that
/// hangs is told from a processor that is busy.
///
/// # Errors
/// Those of [`read`].
pub fn read_counting(path: &Path, count: &AtomicU64) -> Result<Option<Contents>, Malformed> {
    let file = match regular_file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Malformed::Unreadable(error)),
    };
    if file.metadata().map_err(Malformed::Unreadable)?.len() > LARGEST {
        return Err(Malformed::TooLarge);
    }
    parse(&mut Counted { file, count }).map(Some)
}

/// A file of which the bytes that are read are counted.
struct Counted<'count> {
    file: std::fs::File,
    count: &'count AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.count
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
