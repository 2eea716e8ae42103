//! The bearer token: its source, and renewed tokens that replace it.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use podbeat_files::regular_file::{self, LINE};
use serde::Deserialize;

use super::{Renewed, Secret};

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file. It is read for each request, because a projected token changes while podbeat runs.
    File(PathBuf),
    /// A fixed token.
    Inline(Secret),
}

/// Why there is no token to send. No message contains a part of the token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read the bearer token from {}; check that the volume is mounted and readable for this user", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file contains no valid header value.
    #[error(
        "the bearer token in {} is {problem}; it must be one line of visible ASCII characters without spaces",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A token, from any source, that is not a valid header value.
    #[error(
        "the bearer token is {problem}; it must be one line of visible ASCII characters without spaces"
    )]
    Unfit {
        /// What is wrong.
        problem: &'static str,
    },
    /// A renewed token that is not a valid header value.
    #[error("the service's renewed token is {problem}; podbeat keeps the current one")]
    Renewed {
        /// What is wrong.
        problem: &'static str,
    },
}

/// Keeps the current token.
#[derive(Debug)]
pub struct Credentials {
    source: Source,
    renewed: Option<Renewed>,
    /// Whether the source's token has precedence over the renewed one. Each refusal toggles this,
    /// because a token that was refused once may still be the right one.
    prefers_source: bool,
}

impl Credentials {
    /// Reads nothing yet. `renewed` is the token that an earlier process kept.
    #[must_use]
    pub fn new(source: Source, renewed: Option<Renewed>) -> Self {
        Self {
            source,
            renewed: renewed.filter(|renewed| check(renewed.token.expose()).is_ok()),
            prefers_source: false,
        }
    }

    /// Returns the token for the next request: the renewed one, unless the source has changed since
    /// it arrived or the service refused it.
    ///
    /// # Errors
    /// The file can't be read or contains no token, and there is no renewed token.
    pub fn token(&mut self) -> Result<Secret, Error> {
        let given = self.given();
        match (&self.renewed, given) {
            (Some(renewed), Ok(given)) if renewed.instead_of.as_ref() != Some(&given) => {
                self.renewed = None;
                Ok(given)
            }
            (Some(_), Ok(given)) if self.prefers_source => Ok(given),
            (Some(renewed), Ok(_) | Err(_)) => Ok(renewed.token.clone()),
            (None, given) => given,
        }
    }

    /// The renewed token, for the journal.
    #[must_use]
    pub fn renewed(&self) -> Option<&Renewed> {
        self.renewed.as_ref()
    }

    /// Uses a renewed token from the next request on.
    ///
    /// # Errors
    /// The token is not a valid header value. The current token stays in use.
    pub fn renew(&mut self, token: Secret) -> Result<(), Error> {
        check(token.expose()).map_err(|problem| Error::Renewed { problem })?;
        let instead_of = self.given().ok();
        self.renewed = Some(Renewed { token, instead_of });
        self.prefers_source = false;
        Ok(())
    }

    /// Reports that the service refused the token. If there are two, the renewed one and the
    /// source's, the next request uses the other.
    pub fn refused(&mut self) {
        self.prefers_source = !self.prefers_source;
    }

    fn given(&self) -> Result<Secret, Error> {
        match &self.source {
            Source::Inline(token) => Ok(token.clone()),
            Source::File(path) => {
                // A blocking read, because the file is on a tmpfs (Secret or projected volume), and
                // a thread pool for it would cost a thread's stack in each of ten thousand copies.
                let text = regular_file::read_text(path, LINE).map_err(|source| Error::Read {
                    path: path.clone(),
                    source,
                })?;
                check(&text).map_err(|problem| Error::Unusable {
                    path: path.clone(),
                    problem,
                })?;
                Ok(Secret::new(text))
            }
        }
    }
}

/// The validity period of a JWT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The `exp` claim (RFC 7519, 4.1.4), if it exists and is a time.
    pub expires_at: Option<Timestamp>,
    /// The `nbf` claim (RFC 7519, 4.1.5), if it exists and is a time.
    pub not_before: Option<Timestamp>,
}

/// Reads the times of a JWT. Returns `None` for any other token.
#[must_use]
pub fn times(token: &Secret) -> Option<Times> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(default)]
        exp: Option<serde_json::Value>,
        #[serde(default)]
        nbf: Option<serde_json::Value>,
    }
    let payload = token.expose().split('.').nth(1)?;
    let payload = BASE64_URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let time = |claim: Option<serde_json::Value>| {
        let after = SignedDuration::try_from_secs_f64(claim?.as_f64()?).ok()?;
        Timestamp::UNIX_EPOCH.checked_add(after).ok()
    };
    Some(Times {
        expires_at: time(claims.exp),
        not_before: time(claims.nbf),
    })
}

/// When a JWT expires, from its `exp` claim. `None` for any other token.
#[must_use]
pub fn expires_at(token: &Secret) -> Option<Timestamp> {
    times(token)?.expires_at
}

fn check(token: &str) -> Result<(), &'static str> {
    if token.is_empty() {
        Err("empty")
    } else if u64::try_from(token.len()).is_ok_and(|length| length > LINE) {
        Err("longer than 64 KiB")
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("not valid in a header")
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
        let mut credentials = Credentials::new(Source::File(path.clone()), None);
        assert_eq!(credentials.token().expect("a token").expose(), "one");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(credentials.token().expect("a token").expose(), "two");
    }

    #[test]
    fn a_renewed_token_holds_until_the_file_changes() {
        let (_dir, path) = file("one");
        let mut credentials = Credentials::new(Source::File(path.clone()), None);
        credentials.renew(Secret::new("renewed")).expect("usable");
        assert_eq!(credentials.token().expect("a token").expose(), "renewed");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(credentials.token().expect("a token").expose(), "two");
        assert_eq!(credentials.renewed(), None);
    }

    #[test]
    fn of_two_tokens_the_other_is_tried_after_each_refusal() {
        let (_dir, path) = file("one");
        let mut credentials = Credentials::new(Source::File(path), None);
        credentials.renew(Secret::new("renewed")).expect("usable");
        for expected in ["one", "renewed", "one"] {
            credentials.refused();
            assert_eq!(credentials.token().expect("a token").expose(), expected);
        }
        credentials.renew(Secret::new("again")).expect("usable");
        assert_eq!(credentials.token().expect("a token").expose(), "again");
    }

    #[test]
    fn a_renewed_token_is_kept_over_a_restart() {
        let (_dir, path) = file("one");
        let source = Source::File(path.clone());
        let mut before = Credentials::new(source.clone(), None);
        before.renew(Secret::new("renewed")).expect("usable");
        let kept = serde_json::to_string(&before.renewed()).expect("JSON");
        let kept: Option<Renewed> = serde_json::from_str(&kept).expect("read back");
        let mut after = Credentials::new(source, kept);
        assert_eq!(after.token().expect("a token").expose(), "renewed");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(
            after.token().expect("a token").expose(),
            "two",
            "the file is newer"
        );
    }

    #[test]
    fn expiry_is_read_from_a_jwt_and_from_nothing_else() {
        let jwt = |claims: &str| {
            let payload = BASE64_URL_SAFE_NO_PAD.encode(claims);
            expires_at(&Secret::new(format!("e30.{payload}.sig"))).map(|at| at.as_second())
        };
        assert_eq!(jwt(r#"{"exp":1800000000,"iat":1}"#), Some(1_800_000_000));
        assert_eq!(jwt(r#"{"exp":1.8e9}"#), Some(1_800_000_000));
        for odd in [r#"{"exp":1e300}"#, r#"{"exp":"soon"}"#, "{}", "[", ""] {
            assert_eq!(jwt(odd), None, "{odd}");
        }
        for opaque in ["", "abc", "a.b.c", "..", "a.%%%.c"] {
            assert_eq!(expires_at(&Secret::new(opaque)), None, "{opaque}");
        }
    }

    #[test]
    fn a_renewed_token_outlives_the_file() {
        let (_dir, path) = file("one");
        let mut credentials = Credentials::new(Source::File(path.clone()), None);
        credentials.renew(Secret::new("renewed")).expect("usable");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(credentials.token().expect("a token").expose(), "renewed");
    }

    #[test]
    fn what_no_header_can_carry_is_refused_and_never_shown() {
        let (_dir, path) = file("line one-secret\nline two");
        let mut credentials = Credentials::new(Source::File(path), None);
        let error = credentials.token().expect_err("unusable");
        assert!(!format!("{error} {error:?}").contains("secret"));
        let error = credentials
            .renew(Secret::new("a\nb-secret"))
            .expect_err("unusable");
        assert!(!format!("{error} {error:?} {credentials:?}").contains("secret"));
    }
}
