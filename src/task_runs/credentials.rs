//! The bearer token: where it comes from, and how a renewed one takes its place.

use std::path::PathBuf;

use super::Secret;

/// The most that is read of a token file: more than any JWT, less than a mistake such as a log file.
const LARGEST_TOKEN: usize = 64 * 1024;

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again for each request: a projected token is replaced while podbeat runs.
    File(PathBuf),
    /// Given once and for all.
    Inline(Secret),
}

/// Why there is no token to send. No message carries any of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("reading the bearer token from {}: is the volume mounted, and readable for this user?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds nothing that a header can carry.
    #[error(
        "the bearer token in {} is {problem}: a token is one line of visible ASCII characters without spaces",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A renewed token that no header can carry.
    #[error("the renewed token that the service sent is {problem}; the old one stays in use")]
    Renewed {
        /// What is wrong.
        problem: &'static str,
    },
}

/// Holds the token of the moment.
#[derive(Debug)]
pub struct Credentials {
    source: Source,
    renewed: Option<Renewed>,
}

#[derive(Debug)]
struct Renewed {
    token: Secret,
    /// What the file held when the renewed token came: once it holds something else, that is newer.
    instead_of: Option<Secret>,
}

impl Credentials {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self {
            source,
            renewed: None,
        }
    }

    /// The token for the next request: the renewed one, unless the file has changed since it came.
    ///
    /// # Errors
    /// The file is unreadable or holds no token, and no renewed token is at hand.
    pub fn token(&mut self) -> Result<Secret, Error> {
        let given = self.given();
        match (&self.renewed, given) {
            (Some(renewed), Ok(given)) if renewed.instead_of.as_ref() != Some(&given) => {
                self.renewed = None;
                Ok(given)
            }
            (Some(renewed), Ok(_) | Err(_)) => Ok(renewed.token.clone()),
            (None, given) => given,
        }
    }

    /// Uses a token that the service handed out, from the next request on.
    ///
    /// # Errors
    /// The token can't be carried by a header; the one in use stays.
    pub fn renew(&mut self, token: Secret) -> Result<(), Error> {
        check(token.expose()).map_err(|problem| Error::Renewed { problem })?;
        let instead_of = self.given().ok();
        self.renewed = Some(Renewed { token, instead_of });
        Ok(())
    }

    /// Goes back to the source, after the service refused the renewed token.
    pub fn reread(&mut self) {
        self.renewed = None;
    }

    fn given(&self) -> Result<Secret, Error> {
        match &self.source {
            Source::Inline(token) => Ok(token.clone()),
            Source::File(path) => {
                // A plain read: the file lies on a tmpfs (Secret or projected volume), and a blocking pool for it
                // would cost a thread's stack in each of ten thousand copies.
                let bytes = std::fs::read(path).map_err(|source| Error::Read {
                    path: path.clone(),
                    source,
                })?;
                let unusable = |problem| Error::Unusable {
                    path: path.clone(),
                    problem,
                };
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| unusable("not text"))?
                    .trim();
                check(text).map_err(unusable)?;
                Ok(Secret::new(text))
            }
        }
    }
}

fn check(token: &str) -> Result<(), &'static str> {
    if token.is_empty() {
        Err("empty")
    } else if token.len() > LARGEST_TOKEN {
        Err("longer than 64 KiB")
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("not fit for a header")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let (_dir, path) = file("one\n");
        let mut credentials = Credentials::new(Source::File(path.clone()));
        assert_eq!(credentials.token().expect("a token").expose(), "one");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(credentials.token().expect("a token").expose(), "two");
    }

    #[test]
    fn a_renewed_token_holds_until_the_file_changes_or_the_service_refuses_it() {
        let (_dir, path) = file("one");
        let mut credentials = Credentials::new(Source::File(path.clone()));
        credentials.renew(Secret::new("renewed")).expect("usable");
        assert_eq!(credentials.token().expect("a token").expose(), "renewed");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(credentials.token().expect("a token").expose(), "two");
        credentials.renew(Secret::new("again")).expect("usable");
        credentials.reread();
        assert_eq!(credentials.token().expect("a token").expose(), "two");
    }

    #[test]
    fn a_renewed_token_outlives_the_file() {
        let (_dir, path) = file("one");
        let mut credentials = Credentials::new(Source::File(path.clone()));
        credentials.renew(Secret::new("renewed")).expect("usable");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(credentials.token().expect("a token").expose(), "renewed");
    }

    #[test]
    fn what_no_header_can_carry_is_refused_and_never_shown() {
        let (_dir, path) = file("line one-secret\nline two");
        let mut credentials = Credentials::new(Source::File(path));
        let error = credentials.token().expect_err("unusable");
        assert!(!format!("{error} {error:?}").contains("secret"));
        let error = credentials
            .renew(Secret::new("a\nb-secret"))
            .expect_err("unusable");
        assert!(!format!("{error} {error:?} {credentials:?}").contains("secret"));
    }
}
