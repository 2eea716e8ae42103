//! The thread that writes.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::super::{Error, Future};
use super::fault::{explained, not_committed};

/// The number of changes that wait. If there are more, the store is busy.
const WAITING: usize = 4096;

/// The number of changes in one transaction.
const TOGETHER: usize = 512;

/// Sends the result of a change to its caller, after the commit.
type Reply = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A change, made with a connection. Without one it is not made, because the database failed before.
/// Returns whether it succeeded.
type Job = Box<dyn FnOnce(Option<&Connection>) -> (bool, Reply) + Send>;

/// When it is dropped, it makes the waiting changes, closes the file, and waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    /// The data file, for errors.
    path: Arc<Path>,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, its panic was reported.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(path: &Path, connection: Connection) -> Self {
        let path: Arc<Path> = path.into();
        let (jobs, waiting) = mpsc::channel(WAITING);
        let of_thread = Arc::clone(&path);
        let thread = std::thread::spawn(move || work(&of_thread, connection, waiting));
        Self {
            path,
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Makes a change, and returns its result after the commit.
    pub(super) fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Future<'_, T> {
        let (done, result) = oneshot::channel();
        let path = Arc::clone(&self.path);
        let job: Job = Box::new(move |connection| {
            let changed = connection.map(change);
            let succeeded = matches!(changed, Some(Ok(_)));
            let reply = Box::new(move |committed: Result<(), Error>| {
                let result = match (changed, committed) {
                    (Some(changed), Ok(())) => changed,
                    (Some(Err(error)), Err(_)) | (_, Err(error)) => Err(error),
                    (None, Ok(())) => Err(Error::Closed),
                };
                // The caller may have gone.
                let _ = done.send(result.map_err(|error| explained(&path, error)));
            });
            (succeeded, reply)
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.try_send(job));
        Box::pin(async move {
            match sent {
                Some(Ok(())) => result.await.unwrap_or(Err(Error::Closed)),
                Some(Err(mpsc::error::TrySendError::Full(_))) => Err(Error::Busy),
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Err(Error::Closed),
            }
        })
    }
}

fn work(path: &Path, mut connection: Connection, mut waiting: mpsc::Receiver<Job>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < TOGETHER
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        let mut replies = Vec::with_capacity(jobs.len());
        let committed = commit(&mut connection, jobs, &mut replies).map_err(Arc::new);
        for reply in replies {
            let committed = committed.clone();
            reply(committed.map_err(|error| not_committed(path, error)));
        }
    }
}

/// Runs all changes in one transaction. A change that fails undoes only itself.
fn commit(
    connection: &mut Connection,
    jobs: Vec<Job>,
    replies: &mut Vec<Reply>,
) -> rusqlite::Result<()> {
    let mut jobs = jobs.into_iter();
    let changed = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in jobs.by_ref() {
            transaction.execute_batch("SAVEPOINT change")?;
            let (succeeded, reply) = job(Some(&transaction));
            replies.push(reply);
            end(&transaction, succeeded)?;
        }
        transaction.commit()
    })();
    replies.extend(jobs.map(|job| job(None).1));
    changed
}

fn end(transaction: &Transaction<'_>, succeeded: bool) -> rusqlite::Result<()> {
    match succeeded {
        true => transaction.execute_batch("RELEASE change"),
        false => transaction.execute_batch("ROLLBACK TO change; RELEASE change"),
    }
}
