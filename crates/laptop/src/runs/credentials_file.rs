//! Files with credentials for a new run. Credentials on a command line would be visible to every
//! user of the machine, and stay in the shell's history.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use podbeat_files::regular_file;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::Credentials;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::manifest;

/// The maximum size of a file, in bytes: larger than the keys of any service, but small enough to
/// reject a wrong file.
const LARGEST: u64 = 64 << 10;

/// What the credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The registry of the image.
    Registry,
    /// The storage of an input, of an output or of the system files.
    Storage,
}

/// Why a file has no valid credentials. No message contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the {} from {}", purpose.what(), path.display())]
    Read {
        /// What the credentials are for.
        purpose: Purpose,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The content is not credentials.
    #[error(
        "{}: invalid {}: {}; use {}",
        path.display(),
        purpose.what(),
        problems.join("; "),
        purpose.form()
    )]
    Invalid {
        /// What the credentials are for.
        purpose: Purpose,
        /// The file.
        path: PathBuf,
        /// What is wrong, each with its place.
        problems: Vec<String>,
    },
}

impl Purpose {
    fn what(self) -> &'static str {
        match self {
            Self::Registry => "registry credentials",
            Self::Storage => "storage credentials",
        }
    }

    fn form(self) -> &'static str {
        match self {
            Self::Registry => "{\"username\": \"…\", \"password\": \"…\"}, as JSON or YAML",
            Self::Storage => {
                "one object whose values are texts, such as {\"accessKey\": \"…\"}, as JSON or YAML"
            }
        }
    }
}

/// Reads the credentials for an image's registry.
///
/// # Errors
/// The file cannot be read, or does not contain them.
pub fn registry(path: &Path) -> Result<Credentials, Error> {
    let credentials: Credentials = read(Purpose::Registry, path)?;
    if credentials == Credentials::default() {
        return Err(Error::Invalid {
            purpose: Purpose::Registry,
            path: path.to_owned(),
            problems: vec!["no username and no password".to_owned()],
        });
    }
    Ok(credentials)
}

/// Reads the credentials for a storage. The storage provider defines their names.
///
/// # Errors
/// The file cannot be read, or does not contain them.
pub fn storage(path: &Path) -> Result<BTreeMap<String, Secret>, Error> {
    let credentials: BTreeMap<String, String> = read(Purpose::Storage, path)?;
    let secret = |(name, value): (String, String)| (name, Secret::new(value));
    Ok(credentials.into_iter().map(secret).collect())
}

fn read<T: DeserializeOwned + Serialize>(purpose: Purpose, path: &Path) -> Result<T, Error> {
    let text = regular_file::read_or_wait(path, LARGEST).and_then(manifest::text);
    let text = text.map_err(|source| Error::Read {
        purpose,
        path: path.to_owned(),
        source,
    })?;
    let invalid = |problems| Error::Invalid {
        purpose,
        path: path.to_owned(),
        problems,
    };
    let documents = manifest::documents(&text).map_err(|problem| invalid(vec![problem]))?;
    match documents.as_slice() {
        [] => Err(invalid(vec!["it is empty".to_owned()])),
        [document] => manifest::request(document).map_err(invalid),
        _ => Err(invalid(vec!["more than one document".to_owned()])),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use podbeat_interface::exit::with_causes;

    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials");
        fs::write(&path, content).expect("written");
        (dir, path)
    }

    #[test]
    fn json_and_yaml_are_read() {
        for content in [
            r#"{"username": "u", "password": "hunter2"}"#,
            "username: u\npassword: hunter2\n",
        ] {
            let (_dir, path) = file(content);
            let credentials = registry(&path).expect(content);
            assert_eq!(credentials.username.as_deref(), Some("u"));
            let password = credentials.password.expect("a password");
            assert_eq!(password.expose(), "hunter2");
        }
        let (_dir, path) = file(r#"{"accessKey": "a", "secretKey": "hunter2"}"#);
        let credentials = storage(&path).expect("credentials");
        let names: Vec<&String> = credentials.keys().collect();
        assert_eq!(names, ["accessKey", "secretKey"]);
        assert_eq!(credentials["secretKey"].expose(), "hunter2");
    }

    #[test]
    fn an_error_names_the_file_and_the_form_and_no_content() {
        for (content, expected) in [
            ("", "it is empty"),
            ("{}", "no username and no password"),
            ("hunter2", "expected an object, not a text"),
            (r#"{"pasword": "hunter2"}"#, "pasword: unknown member"),
            (r#"{"password": 1234567}"#, "password: expected a string"),
            (r#"{"password": "hunter2""#, "not valid JSON"),
            (
                "password: hunter2\n---\npassword: hunter2\n",
                "more than one document",
            ),
        ] {
            let (_dir, path) = file(content);
            let error = with_causes(&registry(&path).expect_err(content));
            assert!(error.contains(expected), "{content}: {error}");
            assert!(error.contains(r#"{"username": "…", "password": "…"}"#));
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("1234567"));
        }
        let (_dir, path) = file(r#"{"key": {"hunter2": "hunter2"}}"#);
        let error = with_causes(&storage(&path).expect_err("nested"));
        assert!(error.contains("key: expected a string"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        let missing = with_causes(&registry(Path::new("/nowhere/c")).expect_err("no file"));
        assert!(
            missing.starts_with("cannot read the registry credentials from /nowhere/c: "),
            "{missing}"
        );
    }
}
