//! Renewed tokens: a JWT for one run, signed by this service (HS256, RFC 7515 and 7519).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::clock::later;
use crate::Error;

/// The size of SHA-256's output, as RFC 7518 requires.
pub(crate) const KEY_BYTES: usize = 32;

/// Signs tokens, and verifies them.
pub(crate) struct Issuer(hmac::Key);

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The run's id.
    sub: String,
    iat: i64,
    exp: i64,
    /// Makes two tokens of the same second differ.
    jti: String,
}

impl Issuer {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Issues a token for a run's heartbeats.
    pub(crate) fn issue(
        &self,
        run: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let claims = Claims {
            sub: run.to_owned(),
            iat: now.as_second(),
            exp: later(now, lifetime).as_second(),
            jti: random_hex(8)?,
        };
        let encode = |json: &[u8]| URL_SAFE_NO_PAD.encode(json);
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!(
            "{}.{}",
            encode(br#"{"alg":"HS256","typ":"JWT"}"#),
            encode(&claims)
        );
        let signature = hmac::sign(&self.0, signed.as_bytes());
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// The run that a token is for; `None` if the token isn't ours or has expired.
    pub(crate) fn run(&self, token: &str, now: Timestamp) -> Option<String> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (now.as_second() < claims.exp).then_some(claims.sub)
    }
}

/// Random bytes from the system.
pub(crate) fn random(bytes: usize) -> Result<Vec<u8>, Error> {
    let mut random = vec![0; bytes];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Error::NoRandom)?;
    Ok(random)
}

/// Random bytes from the system, in hexadecimal digits.
pub(crate) fn random_hex(bytes: usize) -> Result<String, Error> {
    Ok(random(bytes)?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_only_for_its_run_until_it_expires() {
        let issuer = Issuer::new(&[7; KEY_BYTES]);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let hour = Duration::from_secs(3600);
        let token = issuer.issue("trn.1", now, hour).expect("a token");
        assert_ne!(
            token,
            issuer.issue("trn.1", now, hour).expect("a fresh one")
        );
        assert_eq!(issuer.run(&token, now).as_deref(), Some("trn.1"));
        assert_eq!(issuer.run(&token, later(now, hour)), None, "expired");
        assert_eq!(Issuer::new(&[8; KEY_BYTES]).run(&token, now), None);
        let (head, _) = token.rsplit_once('.').expect("a signature");
        for forged in [
            "",
            ".",
            "..",
            head,
            &format!("{head}."),
            &format!("x{token}"),
        ] {
            assert_eq!(issuer.run(forged, now), None, "{forged}");
        }
    }
}
