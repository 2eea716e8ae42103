//! A number for everything that happened in a life, to compare two versions of the machine.
//!
//! Events and actions are hashed as their `Debug` text. Each name counts as the position at which
//! it first occurs in the life. So renaming a type or a member does not change the number; any
//! other change does.

use std::collections::HashMap;
use std::fmt::Debug;

/// FNV-1a, 64 bits.
#[derive(Debug)]
pub(super) struct Digest {
    hash: u64,
    names: HashMap<String, usize>,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            names: HashMap::new(),
        }
    }
}

impl Digest {
    pub(super) fn take(&mut self, what: &impl Debug) {
        let text = format!("{what:?}");
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let is_name = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
            let length = if first == '"' {
                quoted(rest)
            } else if is_name(first) {
                rest.find(|letter| !is_name(letter) && !letter.is_ascii_digit())
                    .unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            rest = after;
            if is_name(first) {
                let next = self.names.len();
                let nth = *self.names.entry(token.to_owned()).or_insert(next);
                self.bytes(&nth.to_le_bytes());
            } else {
                self.bytes(token.as_bytes());
            }
        }
        self.bytes(b"\n");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.hash
    }
}

/// The length of the quoted text at the start of `text`, with its quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[test]
fn only_names_may_change() {
    #[derive(Debug)]
    struct Before {
        _phase: Option<u32>,
        _text: &'static str,
    }
    #[derive(Debug)]
    struct After {
        _state: Option<u32>,
        _reason: &'static str,
    }
    let number = |what: &dyn Debug| {
        let mut digest = Digest::default();
        digest.take(&what);
        digest.number()
    };
    let before = |phase, text| {
        number(&Before {
            _phase: phase,
            _text: text,
        })
    };
    let after = number(&After {
        _state: Some(1),
        _reason: "a \"text\" \\",
    });
    assert_eq!(before(Some(1), "a \"text\" \\"), after);
    assert_ne!(before(Some(2), "a \"text\" \\"), after);
    assert_ne!(before(None, "a \"text\" \\"), after);
    assert_ne!(before(Some(1), "another \"text\" \\"), after);
}
