//! Reads and writes the journal's file, within bounds. `podbeat_heartbeat::saved` defines its
//! format.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use podbeat_files::regular_file::{self, Bounded};
use podbeat_heartbeat::saved::{Contents, Entry, LARGEST, Malformed, parse};

/// The file's name in PODBEAT_STATE_DIR.
pub const FILE: &str = "journal.json";

/// The size of the write buffer, in bytes.
const AT_ONCE: usize = 8 << 10;

/// Writes a journal in parts, so that it is never in memory as a whole.
///
/// # Errors
/// The file cannot be written, or is larger than [`LARGEST`].
pub fn write(entry: &Entry<'_>, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(AT_ONCE, Bounded::new(to, LARGEST));
    serde_json::to_writer(&mut to, entry)?;
    to.flush()
}

/// Reads a journal in parts. Returns `None` if the file does not exist.
///
/// # Errors
/// The file cannot be read, or this version does not know its format.
pub fn read(path: &Path) -> Result<Option<Contents>, Malformed> {
    read_counting(path, &AtomicU64::new(0))
}

/// Like [`read`]. `count` shows to another thread how many bytes were read so far, so that it can
/// distinguish a disk that hangs from a busy processor.
///
/// # Errors
/// The same as those of [`read`].
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

/// A file that counts the bytes read from it.
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
