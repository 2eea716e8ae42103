//! The key file: it encrypts secrets at rest and signs the tokens of runs.
//!
//! Each line of the file is one key: 32 random bytes in base64. The first key encrypts and signs.
//! All of them decrypt and verify, so that a key can be replaced: add a new one as the first line,
//! and remove the old one when no run needs it any more.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{self, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};

/// The length of a key, in bytes.
const LENGTH: usize = 32;

/// The length of a key's identifier in an encrypted text, in bytes.
const ID: usize = 8;

/// The maximum size of the file, in bytes.
const LARGEST: u64 = 64 << 10;

/// The form of encrypted texts.
const FORM: u8 = 1;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read or created.
    #[error("cannot {doing} the key file {}; check its directory and permissions", path.display())]
    File {
        /// `read` or `create`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file contains something else.
    #[error(
        "line {line} of the key file {} is not a key; each line must be 32 bytes in base64, as `openssl rand -base64 32` prints",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The file contains no key.
    #[error("the key file {} has no key; remove it to get a new one, or restore it from a backup", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file does not exist, although there are runs.
    #[error(
        "the key file {} does not exist, but the data file has runs whose secrets and tokens need it; restore it from a backup, or create a new one with `openssl rand -base64 32`: then the agents of live runs need new tokens",
        path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes.
    #[error("the system has no random bytes")]
    NoRandom,
    /// The key of an encrypted text is not in the file.
    #[error("the key file does not have the key with which this was encrypted; add that key to it")]
    UnknownKey,
    /// An encrypted text was changed, or belongs to something else.
    #[error("an encrypted text is damaged")]
    Damaged,
}

struct Key {
    id: [u8; ID],
    secrets: LessSafeKey,
    tokens: hmac::Key,
    sessions: hmac::Key,
}

/// The keys of the file.
pub struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads the file. If there is none, creates it with a random key, readable only for its owner.
    ///
    /// # Errors
    /// The file can't be read or created, or contains something else than keys.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let failed = |doing| {
            move |source| Error::File {
                doing,
                path: path.to_owned(),
                source,
            }
        };
        let text = match podbeat_files::regular_file::read_text(path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = STANDARD.encode(random::<LENGTH>()?) + "\n";
                create(path, &text).map_err(failed("create"))?;
                text
            }
            read => read.map_err(failed("read"))?,
        };
        let mut keys = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() {
                continue;
            }
            let key = STANDARD.decode(line.trim()).ok();
            let key = key.and_then(|key| <[u8; LENGTH]>::try_from(key).ok());
            let key = key.and_then(|key| Key::new(&key));
            keys.push(key.ok_or_else(|| Error::Malformed {
                path: path.to_owned(),
                line: number,
            })?);
        }
        if keys.is_empty() {
            return Err(Error::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self(keys))
    }

    /// The identifiers of the keys, in hexadecimal digits. They are no secrets.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| hex(&key.id)).collect()
    }

    /// The number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A key that is in no file, for tests and for a service that stores nothing.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn temporary() -> Result<Self, Error> {
        let key = Key::new(&random::<LENGTH>()?);
        Ok(Self(key.into_iter().collect()))
    }

    /// Encrypts a text that belongs to `context`, such as the ID of a run.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn seal(&self, context: &str, text: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.0.first().ok_or(Error::UnknownKey)?;
        let nonce = random::<NONCE_LEN>()?;
        let mut sealed = vec![FORM];
        sealed.extend(key.id);
        sealed.extend(nonce);
        let mut encrypted = text.to_vec();
        key.secrets
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut encrypted,
            )
            .map_err(|_| Error::Damaged)?;
        sealed.extend(encrypted);
        Ok(sealed)
    }

    /// Decrypts a text that belongs to `context`.
    ///
    /// # Errors
    /// The key is not in the file, or the text was changed or belongs to something else.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (form, rest) = sealed.split_first().ok_or(Error::Damaged)?;
        let (id, rest) = rest.split_first_chunk::<ID>().ok_or(Error::Damaged)?;
        let (nonce, encrypted) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(Error::Damaged)?;
        if *form != FORM {
            return Err(Error::Damaged);
        }
        let key = self.0.iter().find(|key| key.id == *id);
        let mut text = encrypted.to_vec();
        let length = key
            .ok_or(Error::UnknownKey)?
            .secrets
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context.as_bytes()),
                &mut text,
            )
            .map_err(|_| Error::Damaged)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// Signs a text with the first key.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.sign_with(|key| &key.tokens, text)
    }

    /// Whether one of the keys signed this text.
    #[must_use]
    pub fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        self.signed_with(|key| &key.tokens, text, signature)
    }

    /// Signs a text of a session of the web page. It has a key of its own, so such a text is never a
    /// run's token, nor the other way round.
    #[must_use]
    pub fn sign_session(&self, text: &[u8]) -> Vec<u8> {
        self.sign_with(|key| &key.sessions, text)
    }

    /// Whether one of the keys signed this text of a session.
    #[must_use]
    pub fn signed_session(&self, text: &[u8], signature: &[u8]) -> bool {
        self.signed_with(|key| &key.sessions, text, signature)
    }

    fn sign_with(&self, purpose: impl Fn(&Key) -> &hmac::Key, text: &[u8]) -> Vec<u8> {
        let key = self.0.first();
        key.map(|key| hmac::sign(purpose(key), text).as_ref().to_vec())
            .unwrap_or_default()
    }

    fn signed_with(
        &self,
        purpose: impl Fn(&Key) -> &hmac::Key,
        text: &[u8],
        signature: &[u8],
    ) -> bool {
        let mut keys = self.0.iter();
        keys.any(|key| hmac::verify(purpose(key), text, signature).is_ok())
    }
}

impl Key {
    /// Derives one key for each purpose.
    fn new(key: &[u8; LENGTH]) -> Option<Self> {
        let id = digest::digest(&digest::SHA256, key);
        let master = hkdf::Salt::new(hkdf::HKDF_SHA256, b"podbeat-server").extract(key);
        let secrets = UnboundKey::from(
            master
                .expand(&[b"secrets at rest"], &CHACHA20_POLY1305)
                .ok()?,
        );
        let signer = |purpose: &[u8]| {
            let key = master
                .expand(&[purpose], hmac::HMAC_SHA256)
                .map(hmac::Key::from);
            key.ok()
        };
        Some(Self {
            id: *id.as_ref().first_chunk::<ID>()?,
            secrets: aead::LessSafeKey::new(secrets),
            tokens: signer(b"tokens of runs")?,
            sessions: signer(b"sessions of the web page")?,
        })
    }
}

fn create(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Random bytes from the system.
///
/// # Errors
/// The system has none.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES], Error> {
    let mut bytes = [0; BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::NoRandom)?;
    Ok(bytes)
}

/// Random bytes from the system, in hexadecimal digits.
///
/// # Errors
/// The system has none.
pub fn random_hex<const BYTES: usize>() -> Result<String, Error> {
    Ok(hex(&random::<BYTES>()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> String {
        STANDARD.encode(random::<LENGTH>().expect("bytes")) + "\n"
    }

    #[test]
    fn a_missing_file_is_created_for_its_owner_only_and_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let sealed = Keys::load(&path)
            .expect("keys")
            .seal("r", b"secret")
            .expect("sealed");
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Keys::load(&path).expect("keys");
        assert_eq!(again.open("r", &sealed).expect("opened"), b"secret");
        assert!(matches!(
            again.open("other run", &sealed),
            Err(Error::Damaged)
        ));
    }

    #[test]
    fn a_key_can_be_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let (old, new) = (line(), line());
        let with = |text: &str| {
            std::fs::write(&path, text).expect("written");
            Keys::load(&path).expect("keys")
        };
        let before = with(&old);
        let (sealed, signature) = (before.seal("r", b"x").expect("sealed"), before.sign(b"t"));
        let both = with(&format!("{new}\n{old}"));
        assert_eq!(both.open("r", &sealed).expect("opened"), b"x");
        assert!(both.signed(b"t", &signature));
        assert!(!both.signed_session(b"t", &signature));
        let session = both.sign_session(b"t");
        assert!(both.signed_session(b"t", &session) && !both.signed(b"t", &session));
        let sealed_by_new = both.seal("r", b"y").expect("sealed");
        let after = with(&new);
        assert!(matches!(after.open("r", &sealed), Err(Error::UnknownKey)));
        assert!(!after.signed(b"t", &signature));
        assert_eq!(after.open("r", &sealed_by_new).expect("opened"), b"y");
    }

    #[test]
    fn other_files_are_refused_without_their_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        for (text, expected) in [
            ("", "has no key"),
            ("\n \n", "has no key"),
            ("hunter2", "line 1"),
            (&format!("{}hunter2\n", line()), "line 2"),
            (&STANDARD.encode([1; 31]), "line 1"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = Keys::load(&path).expect_err("refused").to_string();
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(Keys::load(&dir.path().join("no/key")).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_text_is_never_opened(text in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let keys = Keys::temporary().expect("keys");
            let mut sealed = keys.seal("r", &text).expect("sealed");
            prop_assert_eq!(keys.open("r", &sealed).expect("opened"), text);
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            prop_assert!(keys.open("r", &sealed).is_err());
            sealed.truncate(at);
            prop_assert!(keys.open("r", &sealed).is_err());
        }
    }
}
