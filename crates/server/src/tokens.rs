//! Bearer tokens: those of users, of which only a hash is stored, and those of runs, which are
//! signed.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest;
use serde::{Deserialize, Serialize};

use podbeat_task_runs::Secret;

use crate::keys::{self, Keys, random, random_hex};
use crate::store::{Role, Token};

/// The beginning of a user's token, so that scanners find leaked ones.
const PREFIX: &str = "pbt_";

/// The header of a run's token (RFC 7519).
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A new token of a user.
#[derive(Debug)]
pub struct Created {
    /// The text. It is shown once, and not stored.
    pub text: Secret,
    /// The token to store.
    pub token: Token,
}

/// Creates a token of a user.
///
/// # Errors
/// The system has no random bytes.
pub fn create(
    tenant: &str,
    user: &str,
    role: Role,
    now: Timestamp,
    lifetime: Option<Duration>,
) -> Result<Created, keys::Error> {
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random::<32>()?));
    let token = Token {
        id: random_hex::<6>()?,
        hash: hash(&text),
        tenant: tenant.to_owned(),
        user: user.to_owned(),
        role,
        created: now,
        expires: lifetime.map(|lifetime| later(now, lifetime)),
        revoked: None,
    };
    Ok(Created {
        text: Secret::new(text),
        token,
    })
}

/// The hash of a user's token. The token is random, so the hash needs no salt.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().try_into().unwrap_or_default()
}

/// Whether a text may be a user's token.
#[must_use]
pub fn is_of_a_user(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// A time later.
#[must_use]
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// What a run's token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfRun {
    /// The run's ID.
    pub run: String,
    /// The serial of the attempt.
    pub attempt: u32,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it expires. As long as its attempt lives, it is accepted even after that, because a
    /// restarted agent may have no newer one.
    pub expires: Timestamp,
}

impl OfRun {
    /// Whether the agent should get a new token: half of the lifetime has passed.
    #[must_use]
    pub fn is_old(&self, now: Timestamp) -> bool {
        let half = self.expires.duration_since(self.issued) / 2;
        now.duration_since(self.issued) >= half
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    attempt: u32,
    iat: i64,
    exp: i64,
    /// Makes two tokens of the same second differ.
    jti: String,
}

/// Issues a token for the heartbeats of an attempt.
///
/// # Errors
/// The system has no random bytes.
pub fn issue(
    keys: &Keys,
    run: &str,
    attempt: u32,
    now: Timestamp,
    lifetime: Duration,
) -> Result<String, keys::Error> {
    let claims = Claims {
        sub: run.to_owned(),
        attempt,
        iat: now.as_second(),
        exp: later(now, lifetime).as_second(),
        jti: URL_SAFE_NO_PAD.encode(random::<8>()?),
    };
    // Every value in it can be written as JSON.
    let claims = serde_json::to_vec(&claims).unwrap_or_default();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(HEADER),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = URL_SAFE_NO_PAD.encode(keys.sign(signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

/// What a run's token says. `None` if this service did not issue it.
#[must_use]
pub fn of_run(keys: &Keys, token: &str) -> Option<OfRun> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if !keys.signed(signed.as_bytes(), &signature) {
        return None;
    }
    let (_, claims) = signed.split_once('.')?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(OfRun {
        run: claims.sub,
        attempt: claims.attempt,
        issued: Timestamp::from_second(claims.iat).ok()?,
        expires: Timestamp::from_second(claims.exp).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn a_users_token_is_random_and_only_its_hash_is_stored() {
        let one = create("t", "u", Role::User, now(), Some(HOUR)).expect("a token");
        let other = create("t", "u", Role::User, now(), None).expect("a token");
        assert_ne!(one.text.expose(), other.text.expose());
        assert_ne!(one.token.id, other.token.id);
        let text = one.text.expose();
        assert!(is_of_a_user(text) && text.len() > 40);
        assert_eq!(hash(text), one.token.hash);
        assert!(!format!("{one:?}").contains(text));
        assert_eq!(one.token.expires, Some(later(now(), HOUR)));
        assert_eq!(other.token.expires, None);
    }

    #[test]
    fn a_runs_token_is_its_own_and_becomes_old() {
        let keys = Keys::temporary().expect("keys");
        let token = issue(&keys, "trn.1", 2, now(), HOUR).expect("a token");
        assert_ne!(
            token,
            issue(&keys, "trn.1", 2, now(), HOUR).expect("another")
        );
        let read = of_run(&keys, &token).expect("ours");
        assert_eq!((read.run.as_str(), read.attempt), ("trn.1", 2));
        assert_eq!((read.issued, read.expires), (now(), later(now(), HOUR)));
        assert!(!read.is_old(later(now(), HOUR / 2 - Duration::from_secs(1))));
        assert!(read.is_old(later(now(), HOUR / 2)));
        assert_eq!(of_run(&Keys::temporary().expect("keys"), &token), None);
        let (head, signature) = token.rsplit_once('.').expect("a signature");
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [
            "",
            ".",
            "..",
            head,
            &format!("{head}."),
            &format!("{head}.{signature}x"),
            &format!("x{token}"),
            &format!("{unsigned}.{}.", head.split_once('.').expect("claims").1),
        ] {
            assert_eq!(of_run(&keys, forged), None, "{forged}");
        }
    }
}
