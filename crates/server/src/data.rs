//! The data file, which only one server uses at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;

use crate::store::{self, Sqlite, Store};

/// How often the server tries to lock a file that another one uses.
const AGAIN: Duration = Duration::from_millis(500);

/// Why the data file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

/// An open data file. No other server uses it until this is dropped.
#[derive(Debug)]
pub struct Data {
    store: Arc<Sqlite>,
    /// The kernel removes the lock when the process ends.
    _lock: File,
}

impl Data {
    /// Opens or creates the file. Waits while another server uses it, after a call of `waits`.
    ///
    /// The lock is on a file beside it, because SQLite locks the data file itself.
    ///
    /// # Errors
    /// The file can't be used.
    pub async fn open_alone(path: &Path, waits: impl FnOnce()) -> Result<Self, Error> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = PathBuf::from(beside);
        let failed = |source| Error::Lock {
            path: beside.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        let lock = options.open(&beside).map_err(failed)?;
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
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await;
        let store = opened.map_err(Error::Task)??;
        Ok(Self {
            store: Arc::new(store),
            _lock: lock,
        })
    }

    /// The store in it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}
