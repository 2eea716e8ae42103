//! The journal: the state that a restarted podbeat container needs to continue where it stopped.
//!
//! It is one file, `journal.json` in PODBEAT_STATE_DIR. Only its owner can read it (0600), because
//! it contains the renewed token. podbeat renames an unusable journal (damaged, of another pod, of
//! a newer version), logs it, and continues. It also logs a disk that hangs, and leaves that file
//! in place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use podbeat_heartbeat::saved::{Contents, Entry, Malformed, Saved};
use podbeat_task_runs::Renewed;
use tokio::time::Instant;

use super::durable_file::{Content, DurableFile, Written};
use crate::config::Config;
use crate::journal;
use crate::telemetry::instruments::Instruments;
use podbeat_interface::messages::Message;
use podbeat_interface::throttle::Chain;

/// Only the owner can read it.
const MODE: u32 = 0o600;

/// How long the start waits for a disk that returns no data. Signals and probes wait as long.
const READING: Duration = Duration::from_secs(2);

/// How long the start waits while the disk returns data.
const LONGEST: Duration = Duration::from_secs(20);

/// Why a journal is unusable.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the file belongs to another pod or run")]
    Foreign,
    #[error(
        "nothing more of it came within {}: does its disk hang?",
        humantime::format_duration(READING)
    )]
    Hangs,
}

impl Unusable {
    /// The suffix for a journal that is renamed, if it is. podbeat keeps one file per suffix.
    fn suffix(&self) -> Option<&'static str> {
        Some(match self {
            Self::Malformed(Malformed::Unreadable(_)) => "unreadable",
            Self::Malformed(Malformed::TooLarge | Malformed::TooMany | Malformed::Torn(_)) => {
                "torn"
            }
            Self::Malformed(Malformed::Newer(_)) => "newer",
            Self::Foreign => "foreign",
            // The content is unknown, so the file stays in place.
            Self::Hangs => return None,
        })
    }
}

/// State from an earlier process.
#[derive(Default)]
pub(super) struct Left {
    /// For the core.
    pub(super) machine: Option<Saved>,
    /// For the credentials.
    pub(super) renewed_token: Option<Renewed>,
}

/// Writes the journal, if one is configured.
pub(super) struct Journal(Option<Kept>);

struct Kept {
    latest: Latest,
    file: DurableFile,
}

/// The content of the file.
#[derive(Clone)]
struct Latest {
    task_run_id: String,
    pod_uid: Option<String>,
    renewed_token: Option<Renewed>,
    machine: Arc<Saved>,
}

impl Content for Latest {
    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let (uid, token) = (self.pod_uid.as_deref(), self.renewed_token.as_ref());
        journal::write(
            &Entry::new(&self.task_run_id, uid, token, &self.machine),
            to,
        )
    }
}

impl Journal {
    /// Reads the state that an earlier process of this pod and run left. Writes nothing yet.
    pub(super) async fn open(
        config: &Config,
        rng: fastrand::Rng,
        instruments: &Instruments,
    ) -> (Self, Left) {
        let directory = config.state_dir.as_ref().filter(|_| !config.dry_run);
        let Some(directory) = directory else {
            return (Self(None), Left::default());
        };
        let path = directory.join(journal::FILE);
        let found = take_up(&path, &config.task_run_id, config.pod_uid.as_deref()).await;
        let left = found.map_or_else(Left::default, |found| Left {
            machine: Some(found.machine),
            renewed_token: found.renewed_token,
        });
        let latest = Latest {
            task_run_id: config.task_run_id.clone(),
            pod_uid: config.pod_uid.clone(),
            renewed_token: left.renewed_token.clone(),
            machine: Arc::new(left.machine.clone().unwrap_or_default()),
        };
        let file = DurableFile::new("the journal", path, MODE, rng, instruments);
        (Self(Some(Kept { latest, file })), left)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the core's state.
    pub(super) fn persist(&mut self, machine: Saved) {
        if let Some(kept) = &mut self.0 {
            if kept.latest.pod_uid.is_none() {
                kept.latest.pod_uid.clone_from(&machine.identity.pod_uid);
            }
            kept.latest.machine = Arc::new(machine);
            kept.write();
        }
    }

    /// Writes the current renewed token, if it changed.
    pub(super) fn keep_token(&mut self, renewed: Option<&Renewed>) {
        if let Some(kept) = &mut self.0
            && kept.latest.renewed_token.as_ref() != renewed
        {
            kept.latest.renewed_token = renewed.cloned();
            kept.write();
        }
    }

    /// For callers that must wait until everything persisted is on the disk.
    pub(super) fn written(&self) -> Option<Written> {
        self.0.as_ref().map(|kept| kept.file.written())
    }
}

impl Kept {
    fn write(&mut self) {
        self.file.put(self.latest.clone());
    }
}

async fn take_up(path: &Path, run: &str, pod_uid: Option<&str>) -> Option<Contents> {
    let from = path.to_owned();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let read = move || journal::read_counting(&from, &counted);
    let unusable = match while_it_comes(READING, &count, read).await {
        Some(Ok(None)) => return None,
        Some(Ok(Some(contents))) => match ours(contents, run, pod_uid) {
            Ok(contents) => return Some(contents),
            Err(unusable) => unusable,
        },
        Some(Err(malformed)) => malformed.into(),
        None => Unusable::Hangs,
    };
    let aside = unusable.suffix().map(|suffix| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".");
        aside.push(suffix);
        PathBuf::from(aside)
    });
    let moved = match aside {
        Some(aside) => {
            let (from, to) = (path.to_owned(), aside.clone());
            let rename = move || std::fs::rename(from, to);
            let moved = while_it_comes(READING, &AtomicU64::new(0), rename).await;
            moved.and_then(Result::ok).map(|()| aside)
        }
        None => None,
    };
    Message::CannotResume {
        journal: path,
        set_aside_as: moved.as_deref(),
        error: &Chain(&unusable),
    }
    .emit();
    None
}

/// Runs work that a disk may delay, on another thread. Abandons the thread if `count` does not
/// change within `limit`, or after `LONGEST`.
async fn while_it_comes<T: Send + 'static>(
    limit: Duration,
    count: &AtomicU64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let begun = Instant::now();
    let mut working = tokio::task::spawn_blocking(work);
    let mut before = 0;
    loop {
        if let Ok(done) = tokio::time::timeout(limit, &mut working).await {
            return done.ok();
        }
        let now = count.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) == now || begun.elapsed() > LONGEST {
            return None;
        }
    }
}

fn ours(contents: Contents, run: &str, pod_uid: Option<&str>) -> Result<Contents, Unusable> {
    if !contents.is_of(run, pod_uid) {
        return Err(Unusable::Foreign);
    }
    Ok(contents)
}

/// Reads bytes as a journal, for the fuzzer. No input may cause a panic.
#[cfg(fuzzing)]
#[must_use]
pub fn fuzz(bytes: &[u8]) -> Option<Saved> {
    podbeat_heartbeat::saved::parse(&mut io::Cursor::new(bytes))
        .ok()
        .and_then(|contents| ours(contents, "run", Some("uid")).ok())
        .map(|contents| contents.machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_heartbeat::outbox::Kind;
    use podbeat_heartbeat::saved::{LARGEST, LastHeartbeat, SavedBeat};
    use podbeat_interface::environment::Flags;
    use podbeat_task_runs::model::{
        ContainerState, ContainerStateTerminated, ContainerStatus, HeartbeatTaskRunRequest,
    };
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(30);

    fn config(directory: &Path, run: &str, uid: &str) -> Config {
        let settings: BTreeMap<String, String> = [
            ("TASK_RUN_ID", run),
            ("POD_NAME", "p"),
            ("POD_UID", uid),
            ("PODBEAT_SERVICE_URL", "https://h"),
            ("PODBEAT_TOKEN", "t"),
            ("PODBEAT_STATE_DIR", directory.to_str().expect("text")),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Config::load(&Flags::default(), &settings).expect("right settings")
    }

    async fn open(config: &Config) -> (Journal, Left) {
        Journal::open(config, fastrand::Rng::with_seed(1), &Instruments::off()).await
    }

    fn some() -> Saved {
        Saved {
            beats: 7,
            last_heartbeat: LastHeartbeat::Accepted,
            ..Saved::default()
        }
    }

    async fn written(directory: &Path) -> PathBuf {
        let (mut journal, _) = open(&config(directory, "r", "u")).await;
        journal.persist(some());
        journal.written().expect("a journal").within(LIMIT).await;
        directory.join(journal::FILE)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .expect("listed")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn what_is_persisted_is_taken_up_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(
            open(&config(dir.path(), "r", "u")).await.1.machine,
            None,
            "nothing yet"
        );
        let path = written(dir.path()).await;
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, left) = open(&config(dir.path(), "r", "u")).await;
        assert_eq!(left.machine, Some(some()));
        assert_eq!(names(dir.path()), [journal::FILE]);
    }

    #[tokio::test]
    async fn a_journal_of_another_pod_or_run_is_set_aside() {
        for (run, uid) in [("r", "u2"), ("r2", "u")] {
            let dir = tempfile::tempdir().expect("a directory");
            written(dir.path()).await;
            let (_, left) = open(&config(dir.path(), run, uid)).await;
            assert_eq!(left.machine, None);
            assert_eq!(names(dir.path()), ["journal.json.foreign"]);
        }
    }

    #[tokio::test]
    async fn a_torn_journal_is_set_aside_wherever_it_was_torn() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = written(dir.path()).await;
        let whole = std::fs::read(&path).expect("read");
        for length in 0..whole.len() {
            std::fs::write(&path, whole.get(..length).expect("in range")).expect("written");
            let (_, left) = open(&config(dir.path(), "r", "u")).await;
            assert_eq!(left.machine, None, "{length} bytes of {}", whole.len());
            assert_eq!(names(dir.path()), ["journal.json.torn"]);
        }
    }

    #[tokio::test]
    async fn a_newer_versions_journal_is_set_aside_whatever_it_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(
            dir.path().join(journal::FILE),
            r#"{"version":2,"machine":[]}"#,
        )
        .expect("written");
        let (mut journal, left) = open(&config(dir.path(), "r", "u")).await;
        assert_eq!(left.machine, None);
        journal.persist(some());
        journal.written().expect("a journal").within(LIMIT).await;
        assert_eq!(names(dir.path()), [journal::FILE, "journal.json.newer"]);
    }

    /// The outbox after a long outage: exits with messages of the maximum length, in characters
    /// that JSON escapes with six bytes.
    fn full(beats: u64) -> Saved {
        let state = ContainerState::from(ContainerStateTerminated {
            exit_code: Some(1),
            message: Some("\u{1}".repeat(4096)),
            ..ContainerStateTerminated::default()
        });
        let status = ContainerStatus {
            name: Some("main".to_owned()),
            state: Some(state),
        };
        let beat = |number| SavedBeat {
            number,
            kind: Kind::Change,
            request: HeartbeatTaskRunRequest {
                container_status: Some(vec![status.clone(); 3]),
                ..HeartbeatTaskRunRequest::default()
            },
            tells_exit: true,
            queued_at: "2026-01-01T00:00:00Z".parse().expect("a time"),
            may_have_arrived: false,
            stripped: false,
        };
        Saved {
            outbox: (0..beats).map(beat).collect(),
            ..some()
        }
    }

    #[tokio::test]
    async fn whatever_is_written_is_read_again_and_what_would_not_be_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path(), "r", "u");
        let (mut journal, _) = open(&config).await;
        let fits = full(60);
        journal.persist(fits.clone());
        journal.written().expect("a journal").within(LIMIT).await;
        let size = std::fs::metadata(dir.path().join(journal::FILE))
            .expect("there")
            .len();
        assert!((4 << 20..LARGEST).contains(&size), "{size}");
        assert_eq!(open(&config).await.1.machine.as_ref(), Some(&fits));
        // 19 MB. The journal on the disk is worth more than a file that is too large to read.
        journal.persist(full(256));
        journal.written().expect("a journal").within(LIMIT).await;
        assert_eq!(open(&config).await.1.machine, Some(fits));
        // The write is retried repeatedly, on a thread that is not stopped in the middle of a
        // write.
        drop(journal);
        let begun = Instant::now();
        while names(dir.path()) != [journal::FILE] {
            assert!(begun.elapsed() < LIMIT, "{:?}", names(dir.path()));
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_set_aside_and_a_disk_that_hangs_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(journal::FILE);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        let (_, left) = open(&config(dir.path(), "r", "u")).await;
        assert_eq!(left.machine, None);
        assert_eq!(names(dir.path()), ["journal.json.unreadable"]);
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(50);
        let nothing = AtomicU64::new(0);
        let hung = while_it_comes(limit, &nothing, move || hangs.recv().is_ok()).await;
        assert_eq!(hung, None);
        // Slow work may take longer than the limit while it makes progress.
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let slow = move || {
            let begun = Instant::now();
            while begun.elapsed() < 4 * limit {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(while_it_comes(limit, &count, slow).await, Some(()));
        drop(release);
        assert_eq!(Unusable::Hangs.suffix(), None);
    }

    #[tokio::test]
    async fn without_a_directory_or_in_a_dry_run_nothing_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(dir.path(), "r", "u");
        config.dry_run = true;
        assert!(!open(&config).await.0.is_kept());
        config.dry_run = false;
        config.state_dir = None;
        assert!(!open(&config).await.0.is_kept());
    }
}
