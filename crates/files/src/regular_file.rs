//! Reads and replaces regular files. All code that reads a file uses this module.
//!
//! Anyone may have created a file. A pipe in place of a token would block the only thread until
//! somebody writes to it, and a huge file would use up the container's memory. For this reason,
//! opening a file never waits, and this module reads only regular files, up to a limit. A hanging
//! disk still blocks the reader, so callers that may read from one use a separate thread and a
//! deadline.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Limit for a token or a nonce, in bytes: larger than any JWT, smaller than a file that was
/// configured by mistake, such as a log.
pub const LINE: u64 = 64 << 10;

/// Limit for certificates and keys, in bytes: four times the size of an operating system's trusted
/// roots.
pub const PEM: u64 = 1 << 20;

/// Limit for a file of the kernel in /proc, in bytes.
pub const KERNEL: u64 = 64 << 10;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is a directory, a pipe, a device or a socket.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// It is larger than the caller's limit.
    #[error("it is larger than {0}")]
    TooLarge(Size),
}

/// A number of bytes. `Display` shows it in MiB, KiB or bytes, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// Returns the content of a file of at most `most` bytes. Follows links, because the files of a
/// Secret volume are links.
///
/// # Errors
/// The file can't be opened or read. [`Refused`] if it is not a regular file or is larger than
/// `most`.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_from(&open(path)?, most)
}

/// As [`read`], but returns UTF-8 text without a byte order mark and white space around it.
///
/// # Errors
/// Those of [`read`], and text that is not UTF-8. The error does not contain any of the text.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))?;
    match crate::trimmed::text(&text) {
        trimmed if trimmed.len() < text.len() => Ok(trimmed.to_owned()),
        _ => Ok(text),
    }
}

/// Returns the first `bytes` bytes of an open file, or fewer if the file is shorter.
///
/// # Errors
/// The file can't be read.
pub fn read_start(from: impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    from.take(u64::try_from(bytes).unwrap_or(u64::MAX))
        .read_to_end(&mut start)?;
    Ok(start)
}

/// Reads an open file, a pipe or any other source to its end.
///
/// # Errors
/// The source can't be read, or is larger than `most` bytes.
pub fn read_from(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    // Enough for most files, such as the token that is read for each heartbeat.
    let mut bytes = Vec::with_capacity(2 << 10);
    from.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        return Ok(bytes);
    }
    Err(too_large(most))
}

/// Opens a file for reading. Follows links.
///
/// # Errors
/// The file can't be opened. [`Refused`] if it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::empty())
}

/// As [`open`], but does not follow a link.
///
/// # Errors
/// Those of [`open`], and if the path is a link.
pub fn open_no_link(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::NOFOLLOW)
}

/// Reads a file that a person named on the command line. It may be a pipe, such as the shell's
/// `<(…)`, so this function waits for it.
///
/// # Errors
/// The file can't be opened or read, or is larger than `most` bytes.
pub fn read_or_wait(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_from(File::open(path)?, most)
}

/// The error for a source of more than `most` bytes.
pub fn too_large(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Refused::TooLarge(Size(most)))
}

fn open_with(path: &Path, more: OFlags) -> io::Result<File> {
    // NONBLOCK: opening a pipe would otherwise wait for a writer. NOCTTY: a terminal must not
    // become this process's controlling terminal.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    // Checks the open file: the path may lead to another file by now.
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let kind = match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ => "a device or a socket",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        Refused::NotRegular(kind),
    ))
}

/// When a file that replaces another is flushed to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// Before the rename: after a crash, the path has the complete old or the complete new content.
    First,
    /// After the rename: readers see the new content as early as possible.
    Afterwards,
}

/// Writes a temporary file beside `path` and renames it over `path`, so that readers see the old
/// content or the new one, never a part. The new file has this mode, whatever the umask. If there
/// is a file or link at either name, it is not opened or followed.
///
/// # Errors
/// The file can't be written. The temporary file is then removed.
pub fn replace(
    path: &Path,
    mode: u32,
    durable: Durable,
    write: &dyn Fn(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let beside = beside(path)?;
    remove(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    let written = write(&mut file)
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| match durable {
            Durable::First => file.sync_all(),
            Durable::Afterwards => Ok(()),
        });
    // With `Durable::First`, the file is closed before the rename, because a program that is open
    // for writing can't be executed.
    let file = (durable == Durable::Afterwards).then_some(file);
    if let Err(error) = written.and_then(|()| std::fs::rename(&beside, path)) {
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    if let Some(file) = file {
        file.sync_all()?;
    }
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

/// Removes a file, if it exists.
///
/// # Errors
/// The file exists and can't be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The path of the temporary file. Its name begins with a dot, so it is not an exit marker, and `*`
/// in a shell does not match it.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    Ok(path.with_file_name(beside))
}

/// Forwards writes, up to a limit.
pub struct Bounded<W> {
    to: W,
    most: u64,
    left: u64,
}

impl<W: Write> Bounded<W> {
    /// Forwards at most `most` bytes.
    pub fn new(to: W, most: u64) -> Self {
        Self {
            to,
            most,
            left: most,
        }
    }
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        let length = u64::try_from(written).unwrap_or(u64::MAX);
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| too_large(self.most))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    }

    #[test]
    fn other_than_regular_files_are_refused_without_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        fifo(&path("fifo"));
        let _listener = UnixListener::bind(path("socket")).expect("a socket");
        symlink(path("fifo"), path("link-to-fifo")).expect("a link");
        for (name, said) in [
            ("fifo", "it is a pipe, not a regular file"),
            ("link-to-fifo", "it is a pipe, not a regular file"),
            ("", "it is a directory, not a regular file"),
            ("socket", ""),
            ("nothing", "No such file"),
        ] {
            let error = read(&path(name), LINE).expect_err(name).to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
        let error = read(Path::new("/dev/zero"), LINE).expect_err("a device");
        assert!(error.to_string().contains("device"), "{error}");
    }

    #[test]
    fn a_file_is_read_completely_up_to_its_limit_and_through_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        symlink(&path, &link).expect("a link");
        std::fs::write(&path, b"12345678").expect("written");
        assert_eq!(read(&link, 8).expect("read"), b"12345678");
        assert!(open_no_link(&link).is_err());
        let error = read(&path, 7).expect_err("too large");
        assert_eq!(error.to_string(), "it is larger than 7 bytes");
        let error = read_from(io::repeat(b' '), LINE).expect_err("endless");
        assert_eq!(error.to_string(), "it is larger than 64 KiB");
        // A sparse file of 1 TiB: memory use depends on the limit and not on the file's size.
        File::create(&path)
            .expect("made")
            .set_len(1 << 40)
            .expect("set");
        let error = read(&path, PEM).expect_err("too large");
        assert_eq!(error.to_string(), "it is larger than 1 MiB");
    }

    #[test]
    fn a_replaced_file_is_complete_has_its_mode_and_follows_no_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        std::fs::write(&other, "dear").expect("written");
        symlink(&other, &path).expect("a link");
        symlink(&other, dir.path().join(".file.new")).expect("a link");
        for durable in [Durable::First, Durable::Afterwards] {
            replace(&path, 0o640, durable, &|file| file.write_all(b"new")).expect("replaced");
            assert_eq!(std::fs::read(&path).expect("read"), b"new");
        }
        assert_eq!(std::fs::read(&other).expect("read"), b"dear");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let broken = replace(&path, 0o640, Durable::First, &|file| {
            file.write_all(b"half")?;
            Err(io::Error::other("broken"))
        });
        assert!(broken.is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2);
    }

    #[test]
    fn no_more_is_written_than_the_limit() {
        let mut written = Vec::new();
        let mut bounded = Bounded::new(&mut written, 4);
        bounded.write_all(b"1234").expect("it fits");
        let error = bounded.write_all(b"5").expect_err("one too many");
        assert_eq!(error.to_string(), "it is larger than 4 bytes");
    }
}
