//! Checks the configured directories: podbeat must be able to write to some of them and to read
//! others.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podbeat_interface::setting::{MARKER_DIR, RENEWED_TOKEN_FILE, Row, STATE_DIR};

use super::{blocking, in_words};
use crate::config::Config;
use podbeat_interface::finding::Finding;

const STATE: &str = "files.state";
const MARKERS: &str = "files.markers";
const RENEWED: &str = "files.renewed-token";

/// How many bytes the test writes: one block, because an empty file fits on a full disk.
const BLOCK: usize = 4096;

/// The maximum number of directory entries to look at.
const NAMES: usize = 1024;

/// Checks all three, each on its own thread, because a disk may hang.
pub(super) async fn check(config: &Config, limit: Duration) -> Vec<Finding> {
    let state = tried(
        STATE,
        &STATE_DIR.row,
        config.state_dir.clone(),
        limit,
        |id, path| {
            written(
                id,
                &path,
                "podbeat continues without its journal, and cannot resume after a restart of its container. Mount a separate emptyDir \
                 there, writable for podbeat's user, as in deploy/manifests/job-native-sidecar.yaml.",
            )
        },
    );
    let markers = tried(
        MARKERS,
        &MARKER_DIR.row,
        config.marker_dir.clone(),
        limit,
        |id, path| readable(id, &path),
    );
    let renewed = tried(
        RENEWED,
        &RENEWED_TOKEN_FILE.row,
        config.renewed_token_file.clone(),
        limit,
        |id, path| {
            let directory = path.parent().unwrap_or(Path::new("/"));
            let directory = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            };
            written(
                id,
                directory,
                "The task does not receive the tokens that the service renews. Mount an emptyDir there, writable for podbeat's user, and \
                 mount it read-only into the task's containers.",
            )
        },
    );
    let (state, markers, renewed) = tokio::join!(state, markers, renewed);
    vec![state, markers, renewed]
}

async fn tried(
    id: &'static str,
    setting: &Row,
    path: Option<PathBuf>,
    limit: Duration,
    trial: impl FnOnce(&'static str, PathBuf) -> Finding + Send + 'static,
) -> Finding {
    let Some(path) = path else {
        return Finding::skipped(id, format!("{} is not set", setting.variable));
    };
    let shown = path.display().to_string();
    blocking(limit, move || trial(id, path)).await.unwrap_or_else(|| {
        Finding::failed(
            id,
            format!("{shown} does not respond within {}", in_words(limit)),
            "podbeat's heartbeats continue, but reads and writes there never finish. Check on the node whether the volume responds.",
        )
    })
}

/// Writes a new file, flushes it to the disk as the agent does, and removes it.
fn written(id: &str, directory: &Path, remedy: &str) -> Finding {
    let path = directory.join(format!(".podbeat-check-{:016x}", fastrand::u64(..)));
    let tried = trial(&path);
    let removed = match &tried {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Ok(()),
        Ok(()) | Err(_) => fs::remove_file(&path),
    };
    let shown = directory.display();
    match tried.and(removed) {
        Ok(()) => Finding::ok(id, format!("{shown} is writable")),
        Err(error) => Finding::failed(id, format!("cannot write to {shown}: {error}"), remedy),
    }
}

fn trial(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all(&[b'.'; BLOCK])
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn readable(id: &str, directory: &Path) -> Finding {
    let remedy = "Exit codes that the Kubernetes API does not show stay unknown. Mount the emptyDir to which `podbeat exec` writes in \
                  the task's container there, read-only, as in deploy/manifests/job-with-exit-markers.yaml. podbeat's user must \
                  be able to read it.";
    let names = fs::read_dir(directory).and_then(|entries| {
        let names = entries
            .take(NAMES + 1)
            .map(|entry| entry.map(|entry| entry.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    });
    let shown = directory.display();
    match names {
        Ok(names) if names.len() > NAMES => Finding::warning(
            id,
            format!("{shown} is readable, but has more than {NAMES} entries"),
            "podbeat finds the exit markers by the names of the pod's containers. Keep other files out of this directory.",
        ),
        Ok(names) => {
            let shown_ones = names
                .iter()
                .filter(|name| !name.as_encoded_bytes().starts_with(b"."));
            let files = match shown_ones.count() {
                0 => "no exit marker yet".to_owned(),
                1 => "one file".to_owned(),
                count => format!("{count} files"),
            };
            Finding::ok(id, format!("{shown} is readable: {files}"))
        }
        Err(error) => Finding::failed(id, format!("cannot read {shown}: {error}"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_interface::finding::State;

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(written(STATE, dir.path(), "remedy").state, State::Ok);
        assert_eq!(readable(MARKERS, dir.path()).state, State::Ok);
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
    }

    #[test]
    fn too_many_files_among_the_markers_are_a_warning() {
        let dir = tempfile::tempdir().expect("a directory");
        for nth in 0..=NAMES {
            fs::write(dir.path().join(format!(".{nth}")), "").expect("written");
        }
        assert_eq!(readable(MARKERS, dir.path()).state, State::Warning);
    }

    #[test]
    fn what_is_no_directory_is_told_with_its_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file, dir.path().join("nowhere")] {
            for found in [written(STATE, &path, "remedy"), readable(MARKERS, &path)] {
                assert_eq!(found.state, State::Failed, "{found:?}");
                assert!(found.remedy.is_some(), "{found:?}");
            }
        }
    }
}
