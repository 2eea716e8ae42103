//! Keeps one small file up to date. The file is complete at any moment and durable, and writing it
//! never delays a heartbeat.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podbeat_files::regular_file::{Durable, replace};
use podbeat_heartbeat::backoff::Backoff;
use podbeat_task_runs::Secret;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::telemetry::instruments::Instruments;
use podbeat_interface::messages::Message;
use podbeat_interface::throttle::{Chain, Throttle};

/// Why the file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} to {}; check that its directory exists, is writable for this user, and is not full", path.display())]
pub(super) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Writes the latest content in its own task. Dropping this value ends the task. A failed write is
/// logged and retried.
pub(super) struct DurableFile {
    contents: watch::Sender<Latest>,
    written: watch::Receiver<u64>,
    count: u64,
    task: JoinHandle<()>,
}

/// The content of a file. It is written directly to the file, without a copy in memory.
pub(super) trait Content: Send + Sync {
    /// Writes the whole content.
    fn write(&self, to: &mut dyn Write) -> io::Result<()>;
}

/// A renewed token, for other containers of the pod.
impl Content for Secret {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(self.expose().as_bytes())
    }
}

#[derive(Clone)]
struct Latest {
    number: u64,
    content: Arc<dyn Content>,
}

/// Waits until this content or a later one was written, or its write failed.
pub(super) struct Written {
    number: u64,
    written: watch::Receiver<u64>,
}

impl DurableFile {
    /// Starts the task. It writes nothing before the first `put`. `what` names the content in
    /// messages.
    pub(super) fn new(
        what: &'static str,
        path: PathBuf,
        mode: u32,
        rng: fastrand::Rng,
        instruments: &Instruments,
    ) -> Self {
        let (contents, latest) = watch::channel(Latest {
            number: 0,
            content: Arc::new(Secret::new("")),
        });
        let (done, written) = watch::channel(0);
        let task = tokio::spawn(keep(
            what,
            path,
            mode,
            latest,
            done,
            rng,
            instruments.clone(),
        ));
        Self {
            contents,
            written,
            count: 0,
            task,
        }
    }

    /// Replaces the previous content, even if that was not written yet.
    pub(super) fn put(&mut self, content: impl Content + 'static) {
        self.count += 1;
        self.contents.send_replace(Latest {
            number: self.count,
            content: Arc::new(content),
        });
    }

    /// For callers that must wait until the last content is on the disk.
    pub(super) fn written(&self) -> Written {
        Written {
            number: self.count,
            written: self.written.clone(),
        }
    }
}

impl Drop for DurableFile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Written {
    /// Waits until the write finished or failed, for at most `limit`.
    pub(super) async fn within(mut self, limit: Duration) {
        let number = self.number;
        let waited = self.written.wait_for(|written| *written >= number);
        let _ = tokio::time::timeout(limit, waited).await;
    }
}

async fn keep(
    what: &'static str,
    path: PathBuf,
    mode: u32,
    mut latest: watch::Receiver<Latest>,
    done: watch::Sender<u64>,
    mut rng: fastrand::Rng,
    instruments: Instruments,
) {
    let mut throttle = Throttle::default();
    let mut backoff = Backoff::default();
    while latest.changed().await.is_ok() {
        loop {
            let Latest { number, content } = latest.borrow_and_update().clone();
            let to = path.clone();
            // On its own thread: a disk that hangs must not delay a heartbeat.
            let write = tokio::task::spawn_blocking(move || {
                replace(&to, mode, Durable::First, &|file| content.write(file))
            });
            let result = match write.await {
                Ok(result) => result,
                Err(stopped) => Err(io::Error::other(stopped)),
            };
            // Also after a failure, because waiting longer for a failed write helps nobody.
            done.send_replace(number);
            let Err(source) = result else {
                backoff.reset();
                if let Some(over) = throttle.over() {
                    Message::WritingAgain { what, over }.emit();
                }
                break;
            };
            instruments.write_failed();
            let error = Error {
                what,
                path: path.clone(),
                source,
            };
            let chain = Chain(&error).to_string();
            if let Some(outage) = throttle.failed(&chain, &chain) {
                Message::CannotWrite { what, outage }.emit();
            }
            let wait = tokio::time::sleep(backoff.after_failure(&mut rng));
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return },
                () = wait => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn keeper(path: PathBuf) -> DurableFile {
        DurableFile::new(
            "a test",
            path,
            0o640,
            fastrand::Rng::with_seed(1),
            &Instruments::off(),
        )
    }

    #[tokio::test]
    async fn the_file_is_whole_and_closed_to_others_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(dir.path().join(".token.new"), "left by a crash").expect("written");
        let mut keeper = keeper(path.clone());
        for content in ["first", "2nd"] {
            keeper.put(Secret::new(content));
            keeper.written().within(LIMIT).await;
            assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o640);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[tokio::test]
    async fn of_many_contents_the_last_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let mut keeper = keeper(path.clone());
        for content in 0..1000 {
            keeper.put(Secret::new(format!("{content}")));
        }
        keeper.written().within(LIMIT).await;
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "999");
    }

    #[tokio::test]
    async fn a_write_that_fails_holds_nobody_up_and_is_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("not yet/f");
        let mut keeper = keeper(path.clone());
        keeper.put(Secret::new("x"));
        keeper.written().within(LIMIT).await;
        assert!(!path.exists());
        std::fs::create_dir(dir.path().join("not yet")).expect("made");
        let mut written = keeper.written.clone();
        while !path.exists() {
            tokio::time::timeout(LIMIT, written.changed())
                .await
                .expect("tried again")
                .expect("the keeper lives");
        }
    }
}
