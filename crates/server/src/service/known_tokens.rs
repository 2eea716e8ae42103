//! The users' tokens that were read from the store a moment ago, so that not every request reads
//! its token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::Token;

/// How long a token is known. Another process may revoke it meanwhile, so this is the time after
/// which a revocation has an effect.
pub(super) const KNOWN: Duration = Duration::from_secs(5);

/// The maximum number of tokens, each of at most a kilobyte.
const MOST: usize = 4096;

/// Tokens by their hashes, with the time since the start of the process when they were read.
#[derive(Default)]
pub(super) struct KnownTokens(Mutex<HashMap<[u8; 32], (Duration, Token)>>);

impl KnownTokens {
    /// The token with this hash, if it was read a moment ago.
    pub(super) fn get(&self, hash: &[u8; 32], now: Duration) -> Option<Token> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, token) = tokens.get(hash)?;
        (now.saturating_sub(*read) < KNOWN).then(|| token.clone())
    }

    /// Adds a token that was just read.
    pub(super) fn add(&self, token: &Token, now: Duration) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MOST {
            tokens.retain(|_, (read, _)| now.saturating_sub(*read) < KNOWN);
        }
        if tokens.len() < MOST {
            tokens.insert(token.hash, (now, token.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::Role;

    fn token(number: usize) -> Token {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        Token {
            id: number.to_string(),
            hash,
            tenant: "t".to_owned(),
            user: "u".to_owned(),
            role: Role::User,
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            revoked: None,
        }
    }

    #[test]
    fn a_token_is_known_for_five_seconds_and_their_number_is_bounded() {
        let known = KnownTokens::default();
        let at = Duration::from_secs;
        known.add(&token(0), at(100));
        assert_eq!(known.get(&token(0).hash, at(104)), Some(token(0)));
        assert_eq!(known.get(&token(0).hash, at(105)), None);
        assert_eq!(known.get(&token(1).hash, at(100)), None);
        for number in 0..2 * MOST {
            known.add(&token(number), at(200));
        }
        assert_eq!(known.0.lock().expect("not poisoned").len(), MOST);
        known.add(&token(9 * MOST), at(205));
        assert_eq!(
            known.get(&token(9 * MOST).hash, at(205)),
            Some(token(9 * MOST))
        );
        assert_eq!(known.0.lock().expect("not poisoned").len(), 1);
    }
}
