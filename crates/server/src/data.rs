//! The data file, which only one server uses at a time.
//!
//! Beside it is a lock file. It also has the identifiers of the keys with which the server used the
//! data file, one a line. So a data file that became empty is no new one, and a foreign key file is
//! noticed: otherwise the server would refuse all agents.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podbeat_files::regular_file;
use rustix::fs::statvfs;

use crate::keys::Keys;
use crate::store::{self, Sqlite, Store};

/// How often the server tries to lock a file that another one uses.
const AGAIN: Duration = Duration::from_millis(500);

/// The maximum size of a lock file that is read, in bytes: hundreds of keys.
const LARGEST: u64 = 16 << 10;

/// Why the data file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data file is empty or missing, but it was used before.
    #[error(
        "the data file {} is empty or does not exist, but was used before; restore it from a backup, or, to \
         begin without its runs and tokens, remove {}",
        path.display(), lock.display()
    )]
    Emptied {
        /// The data file.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The data file was used with other keys.
    #[error(
        "the data file was used with another key than those in {}; add the earlier key to that file, or, to \
         continue without it, remove {}: then the agents of live runs need new tokens, and the secrets of \
         runs are lost",
        keys.display(), lock.display()
    )]
    OtherKeys {
        /// The key file.
        keys: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock.
    #[error("cannot lock {}; check that its directory exists and can be written", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A task of the runtime failed.
    #[error("cannot open the data file; this is a bug, please report it")]
    Task(#[source] tokio::task::JoinError),
}

/// The directory of a data file.
#[must_use]
pub fn directory(path: &Path) -> &Path {
    let parent = path.parent();
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Free space on the disk of a data file, in bytes. `None` if the file system does not say it.
#[must_use]
pub fn disk_free(path: &Path) -> Option<u64> {
    let found = statvfs(directory(path)).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn lock_beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    beside.into()
}

fn ids(lock: &str) -> Vec<String> {
    lock.lines().map(str::to_owned).collect()
}

/// The identifiers of the keys with which a data file was used, without its lock. Empty if it was
/// not used, or if that can't be read.
#[must_use]
pub fn known_keys(path: &Path) -> Vec<String> {
    let text = regular_file::read_text(&lock_beside(path), LARGEST);
    ids(&text.unwrap_or_default())
}

/// Whether a data file is empty or missing, although it was used with these keys.
pub(crate) fn was_emptied(path: &Path, known: &[String]) -> bool {
    let is_empty = std::fs::metadata(path).map_or(true, |found| found.len() == 0);
    is_empty && !known.is_empty()
}

/// Whether a data file was used with keys, but with none of these.
pub(crate) fn has_only_others(ids: &[String], known: &[String]) -> bool {
    !known.is_empty() && !ids.iter().any(|id| known.contains(id))
}

/// An open data file. No other server uses it until this is dropped.
#[derive(Debug)]
pub struct Data {
    store: Arc<Sqlite>,
    /// The kernel removes the lock when the process ends.
    lock: File,
    lock_path: PathBuf,
    /// The identifiers of the keys with which the file was used.
    known_keys: Vec<String>,
}

impl Data {
    /// Opens or creates the file. Waits while another server uses it, after a call of `waits`.
    ///
    /// The lock is on a file beside it, because SQLite locks the data file itself.
    ///
    /// # Errors
    /// The file can't be used.
    pub async fn open_alone(path: &Path, waits: impl FnOnce()) -> Result<Self, Error> {
        let beside = lock_beside(path);
        let failed = |source| Error::Lock {
            path: beside.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true);
        let mut lock = options.open(&beside).map_err(failed)?;
        let mut waits = Some(waits);
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            if let Some(waits) = waits.take() {
                waits();
            }
            tokio::time::sleep(AGAIN).await;
        }
        let mut text = String::new();
        let read = (&mut lock).take(LARGEST).read_to_string(&mut text);
        read.map_err(failed)?;
        let known_keys = ids(&text);
        if was_emptied(path, &known_keys) {
            return Err(Error::Emptied {
                path: path.to_owned(),
                lock: beside,
            });
        }
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await;
        let store = opened.map_err(Error::Task)??;
        Ok(Self {
            store: Arc::new(store),
            lock,
            lock_path: beside,
            known_keys,
        })
    }

    /// Whether the file was used with a key.
    #[must_use]
    pub fn has_known_keys(&self) -> bool {
        !self.known_keys.is_empty()
    }

    /// Remembers that the file is used with these keys. `path` is their file.
    ///
    /// # Errors
    /// The file was used with other keys only, or the lock file can't be written.
    pub fn use_with(&mut self, keys: &Keys, path: &Path) -> Result<(), Error> {
        let ids = keys.ids();
        if has_only_others(&ids, &self.known_keys) {
            return Err(Error::OtherKeys {
                keys: path.to_owned(),
                lock: self.lock_path.clone(),
            });
        }
        if ids != self.known_keys {
            let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
            let mut lock = &self.lock;
            let written = lock
                .set_len(0)
                .and_then(|()| lock.write_all(lines.as_bytes()))
                .and_then(|()| lock.sync_all());
            written.map_err(|source| Error::Lock {
                path: self.lock_path.clone(),
                source,
            })?;
            self.known_keys = ids;
        }
        Ok(())
    }

    /// The store in it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}
