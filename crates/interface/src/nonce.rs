//! The nonce that the service issued for a run: its source, and how podbeat reads its file.

use std::io;
use std::path::{Path, PathBuf};

use podbeat_files::regular_file;
use podbeat_task_runs::Secret;

use crate::environment::Environment;
use crate::reader::Reader;
use crate::setting::{NONCE, NONCE_FILE};

/// Where the nonce comes from.
#[derive(Clone, Debug)]
pub enum NonceSource {
    /// A file.
    File(PathBuf),
    /// The value of the setting itself.
    Inline(Secret),
}

impl NonceSource {
    /// Returns the nonce.
    ///
    /// # Errors
    /// The file cannot be read, or has no valid nonce.
    pub fn nonce(&self) -> Result<String, Unusable> {
        match self {
            Self::Inline(nonce) => Ok(nonce.expose().to_owned()),
            Self::File(path) => read(path).map_err(Unusable),
        }
    }
}

impl<E: Environment> Reader<'_, E> {
    /// Where the nonce comes from. `None` if no setting has one.
    pub fn nonce(&mut self) -> Option<NonceSource> {
        let file = self.optional(&NONCE_FILE);
        let inline = self.optional(&NONCE);
        if file.is_some() && self.is_set(&NONCE) {
            self.fault(
                &NONCE,
                "conflicts with PODBEAT_NONCE_FILE; unset one of them",
            );
        }
        file.map(NonceSource::File)
            .or_else(|| inline.map(NonceSource::Inline))
    }
}

/// The file in `PODBEAT_NONCE_FILE` has no valid nonce.
#[derive(Debug, thiserror::Error)]
#[error("cannot use PODBEAT_NONCE_FILE")]
pub struct Unusable(#[source] Error);

/// Why there is no nonce. No message contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "cannot read the nonce from {}; use a file that this user can read, with the nonce on one \
         line",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file has no valid nonce.
    #[error("the nonce in {} {problem}; a nonce must be one line of text", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Reads the nonce from a file.
///
/// # Errors
/// The file cannot be read, or has no valid nonce.
pub fn read(path: &Path) -> Result<String, Error> {
    let nonce =
        regular_file::read_text(path, regular_file::LINE).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
    let problem = if nonce.is_empty() {
        "is empty"
    } else if nonce.chars().any(char::is_control) {
        "has more than one line, or control characters"
    } else {
        return Ok(nonce);
    };
    Err(Error::Unfit {
        path: path.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_one_line_without_marks_and_line_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nonce");
        let nonce = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read(&path)
        };
        for text in ["issued-7", "issued-7\n", "\u{feff}issued-7\r\n"] {
            assert_eq!(nonce(text).expect("a nonce"), "issued-7");
        }
        for text in ["", "\n", "\u{feff}", "secret\nsecret", "secret\0"] {
            let error = nonce(text).expect_err("none");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        assert!(matches!(read(dir.path()), Err(Error::Read { .. })));
    }
}
