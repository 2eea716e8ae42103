//! Makes text from other sources inert: a terminal shows it and never acts on it.
//!
//! Names, termination messages and answers of the service can contain escape sequences that move
//! the cursor, rename the window or fill the clipboard. They can also contain characters that make
//! text appear in another place. In text for people, podbeat replaces them with U+FFFD:
//! [`one_line`] for one text, [`Inert`] for everything that a command writes. JSON and YAML have
//! their own escapes, so that a program reads the original value ([`escaped`]).

use std::io::{self, Write};

use crate::environment::Environment;

/// What the environment says about the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether the terminal can position text: `TERM` is set, and is not `dumb`.
    pub draws: bool,
    /// Whether to use colors: `NO_COLOR` is unset or empty (no-color.org).
    pub colours: bool,
}

impl Terminal {
    /// Reads it from the environment.
    #[must_use]
    pub fn load(environment: &impl Environment) -> Self {
        let set = |variable| environment.get(variable).filter(|value| !value.is_empty());
        Self {
            draws: set("TERM").is_some_and(|term| term != "dumb"),
            colours: set("NO_COLOR").is_none(),
        }
    }
}

/// The characters of a text. U+FFFD replaces each one that a terminal would act on.
pub fn inert(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| {
        if acts(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    })
}

/// Whether a terminal acts on a character: a control character, a line separator, or a character
/// that changes the direction of writing. The last makes other text appear in the wrong place
/// (Unicode Technical Report 36, 2.2).
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// The inert text on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    inert(text).collect()
}

/// JSON without characters that a terminal acts on. JSON itself escapes only the first 32 control
/// characters. The others can occur only in strings, where `\u` is an equivalent escape.
#[must_use]
pub fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if acts(c) && c != '\n' {
            text += &format!("\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// Standard output or standard error of a command. Everything that is written becomes inert; line
/// feeds and tabs stay.
///
/// All output passes through it, whatever its source. To keep text on one line or in one table
/// cell, convert it before it gets here.
#[derive(Debug)]
pub struct Inert<W> {
    to: W,
    /// The first bytes of a character whose other bytes have not been written yet.
    begun: Vec<u8>,
}

impl<W: Write> Inert<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self {
            to,
            begun: Vec::new(),
        }
    }
}

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.is_empty()
            && let Ok(text) = str::from_utf8(bytes)
            && !text.contains(acts_on_lines)
        {
            self.to.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let shown = |c| {
                if acts_on_lines(c) {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            };
            text.extend(chunk.valid().chars().map(shown));
            let broken = chunk.invalid();
            if chunks.peek().is_none() && is_begun(broken) {
                self.begun = broken.to_vec();
            } else if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.to.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether a terminal acts on a character in text of several lines.
fn acts_on_lines(c: char) -> bool {
    acts(c) && c != '\n' && c != '\t'
}

/// Whether these bytes are the beginning of an incomplete character.
fn is_begun(bytes: &[u8]) -> bool {
    matches!(str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::*;

    /// The output after these parts were written one after the other.
    fn written<'bytes>(parts: impl IntoIterator<Item = &'bytes [u8]>) -> String {
        let mut out = Vec::new();
        let mut inert = Inert::new(&mut out);
        for part in parts {
            inert.write_all(part).expect("written");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn control_characters_are_shown_as_text() {
        assert_eq!(
            written([&b"a\x1b[2Jb\r\n\tc\x9bd"[..]]),
            "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}d"
        );
        // In two writes, as formatting can split it.
        assert_eq!(written(["ü€".as_bytes()]), "ü€");
        assert_eq!(written([&b"\xe2\x82"[..], b"\xac!"]), "€!");
        assert_eq!(written([&b"\xe2\x80"[..], b"\xae!"]), "\u{fffd}!");
        assert_eq!(written([&b"\xe2\x82"[..], b"!"]), "\u{fffd}!");
        assert_eq!(one_line("a\nb\u{2067}c"), "a\u{fffd}b\u{fffd}c");
    }

    proptest! {
        #[test]
        fn control_characters_are_inert_in_any_split(text in hostile::TEXT, at in any::<prop::sample::Index>()) {
            let (first, rest) = text.as_bytes().split_at(at.index(text.len() + 1));
            let shown = written([first, rest]);
            prop_assert!(!shown.contains(acts_on_lines), "{shown:?}");
            prop_assert_eq!(&shown, &written([text.as_bytes()]));
            prop_assert_eq!(one_line(&shown), one_line(&text));
        }

        #[test]
        fn escaped_json_has_the_same_value(text in hostile::TEXT) {
            let json = escaped(&serde_json::to_string(&text).expect("JSON"));
            prop_assert!(!json.contains(acts), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }
    }
}
