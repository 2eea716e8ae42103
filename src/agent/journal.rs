//! The journal: what a restart of podbeat's container needs to go on where it was.
//!
//! One file, `journal.json` in PODBEAT_STATE_DIR, for its owner only (0600): it holds the renewed token. What can't be
//! taken up (torn, another pod's, a newer version's) is set aside under another name and told; it ends nothing.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::keeper::{Keeper, Written};
use super::trouble::Chain;
use crate::config::Config;
use crate::heartbeat::saved::Saved;
use crate::journal::{self, Contents, Malformed};
use crate::task_runs::credentials::Renewed;
use crate::telemetry::instruments::Instruments;

/// For its owner only.
const MODE: u32 = 0o600;

/// Why what is there can't be taken up.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it is of another pod or run")]
    Foreign,
}

impl Unusable {
    /// What is added to the name of a file that is set aside. One of each kind is kept.
    fn suffix(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Unreadable(_)) => "unreadable",
            Self::Malformed(Malformed::TooLarge | Malformed::Torn(_)) => "torn",
            Self::Malformed(Malformed::Newer(_)) => "newer",
            Self::Foreign => "foreign",
        }
    }
}

/// What an earlier process left.
#[derive(Default)]
pub(super) struct Left {
    /// For the core.
    pub(super) machine: Option<Saved>,
    /// For the credentials.
    pub(super) renewed_token: Option<Renewed>,
}

/// Keeps the journal, if there is to be one.
pub(super) struct Journal(Option<Kept>);

struct Kept {
    contents: Contents,
    keeper: Keeper,
}

impl Journal {
    /// Takes up what an earlier process of this pod and run left. Writes nothing yet.
    pub(super) fn open(config: &Config, rng: fastrand::Rng, instruments: &Instruments) -> (Self, Left) {
        let directory = config.state_dir.as_ref().filter(|_| !config.dry_run);
        let Some(directory) = directory else {
            return (Self(None), Left::default());
        };
        let path = directory.join(journal::FILE);
        let mut contents = take_up(&path, &config.task_run_id, config.pod_uid.as_deref());
        let left = Left {
            machine: contents.as_mut().map(|found| std::mem::take(&mut found.machine)),
            renewed_token: contents.as_ref().and_then(|found| found.renewed_token.clone()),
        };
        let contents = Contents {
            version: journal::VERSION,
            task_run_id: config.task_run_id.clone(),
            pod_uid: config.pod_uid.clone(),
            renewed_token: left.renewed_token.clone(),
            machine: left.machine.clone().unwrap_or_default(),
        };
        let keeper = Keeper::new("the journal", path, MODE, rng, instruments);
        (Self(Some(Kept { contents, keeper })), left)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes down where the core is.
    pub(super) fn persist(&mut self, machine: Saved) {
        if let Some(kept) = &mut self.0 {
            if kept.contents.pod_uid.is_none() {
                kept.contents.pod_uid.clone_from(&machine.identity.pod_uid);
            }
            kept.contents.machine = machine;
            kept.write();
        }
    }

    /// Writes down which renewed token is in use, if any.
    pub(super) fn keep_token(&mut self, renewed: Option<&Renewed>) {
        if let Some(kept) = &mut self.0
            && kept.contents.renewed_token.as_ref() != renewed
        {
            kept.contents.renewed_token = renewed.cloned();
            kept.write();
        }
    }

    /// For whoever must not go on before all that was persisted is on the disk.
    pub(super) fn written(&self) -> Option<Written> {
        self.0.as_ref().map(|kept| kept.keeper.written())
    }
}

impl Kept {
    fn write(&mut self) {
        match serde_json::to_vec(&self.contents) {
            Ok(bytes) => self.keeper.put(bytes),
            // Plain data with text keys: there is nothing in it that JSON can't say.
            Err(error) => {
                warn!(%error, "the journal could not be put into words; heartbeats go on without it")
            }
        }
    }
}

fn take_up(path: &Path, run: &str, pod_uid: Option<&str>) -> Option<Contents> {
    let unusable = match read(path, run, pod_uid) {
        Ok(found) => return found,
        Err(unusable) => unusable,
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".");
    aside.push(unusable.suffix());
    let aside = PathBuf::from(aside);
    let moved = std::fs::rename(path, &aside);
    warn!(
        journal = %path.display(),
        set_aside_as = moved.is_ok().then(|| aside.display().to_string()),
        error = %Chain(&unusable),
        "the journal can't be taken up; beginning afresh"
    );
    None
}

fn read(path: &Path, run: &str, pod_uid: Option<&str>) -> Result<Option<Contents>, Unusable> {
    journal::read(path)?
        .map(|contents| ours(contents, run, pod_uid))
        .transpose()
}

fn ours(contents: Contents, run: &str, pod_uid: Option<&str>) -> Result<Contents, Unusable> {
    if !contents.is_of(run, pod_uid) {
        return Err(Unusable::Foreign);
    }
    Ok(contents)
}

/// Reads bytes as a journal would be read, for the fuzzer: they must never do harm.
#[cfg(fuzzing)]
#[must_use]
pub fn fuzz(bytes: &[u8]) -> Option<Saved> {
    journal::parse(bytes)
        .ok()
        .and_then(|contents| ours(contents, "run", Some("uid")).ok())
        .map(|contents| contents.machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::heartbeat::saved::LastHeartbeat;
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

    fn open(config: &Config) -> (Journal, Left) {
        Journal::open(config, fastrand::Rng::with_seed(1), &Instruments::off())
    }

    fn some() -> Saved {
        Saved {
            beats: 7,
            last_heartbeat: LastHeartbeat::Accepted,
            ..Saved::default()
        }
    }

    async fn written(directory: &Path) -> PathBuf {
        let (mut journal, _) = open(&config(directory, "r", "u"));
        journal.persist(some());
        journal.written().expect("a journal").within(LIMIT).await;
        directory.join(journal::FILE)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn what_is_persisted_is_taken_up_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(open(&config(dir.path(), "r", "u")).1.machine, None, "nothing yet");
        let path = written(dir.path()).await;
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, left) = open(&config(dir.path(), "r", "u"));
        assert_eq!(left.machine, Some(some()));
        assert_eq!(names(dir.path()), [journal::FILE]);
    }

    #[tokio::test]
    async fn a_journal_of_another_pod_or_run_is_set_aside() {
        for (run, uid) in [("r", "u2"), ("r2", "u")] {
            let dir = tempfile::tempdir().expect("a directory");
            written(dir.path()).await;
            let (_, left) = open(&config(dir.path(), run, uid));
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
            let (_, left) = open(&config(dir.path(), "r", "u"));
            assert_eq!(left.machine, None, "{length} bytes of {}", whole.len());
            assert_eq!(names(dir.path()), ["journal.json.torn"]);
        }
    }

    #[tokio::test]
    async fn a_newer_versions_journal_is_set_aside_whatever_it_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(journal::FILE), r#"{"version":2,"machine":[]}"#).expect("written");
        let (mut journal, left) = open(&config(dir.path(), "r", "u"));
        assert_eq!(left.machine, None);
        journal.persist(some());
        journal.written().expect("a journal").within(LIMIT).await;
        assert_eq!(names(dir.path()), [journal::FILE, "journal.json.newer"]);
    }

    #[tokio::test]
    async fn without_a_directory_or_in_a_dry_run_nothing_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(dir.path(), "r", "u");
        config.dry_run = true;
        assert!(!open(&config).0.is_kept());
        config.dry_run = false;
        config.state_dir = None;
        assert!(!open(&config).0.is_kept());
    }
}
