//! Hands a renewed token on to the task's containers, through a file that is always whole.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::task_runs::Secret;

/// Readable for the pod's group (`fsGroup`), for nobody else.
const MODE: u32 = 0o640;

/// Why the token could not be handed on.
#[derive(Debug, thiserror::Error)]
#[error("writing the renewed token to {}: is the directory there, and writable for this user?", path.display())]
pub(super) struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// Writes beside the file and renames over it, so that a reader sees the old token or the new one, never a part.
pub(super) fn hand_on(path: &Path, token: &Secret) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&beside)?;
        file.write_all(token.expose().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
            Some(_) | None => Ok(()),
        }
    };
    written().map_err(|source| Error {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_whole_and_closed_to_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        for token in ["first", "2nd"] {
            hand_on(&path, &Secret::new(token)).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), token);
            let mode = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777 & !MODE, 0);
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn an_error_names_the_file_and_not_the_token() {
        let error =
            hand_on(Path::new("/nowhere/token"), &Secret::new("hunter2")).expect_err("no such directory");
        let text = format!("{error} {error:?}");
        assert!(text.contains("/nowhere/token") && !text.contains("hunter2"));
    }
}
