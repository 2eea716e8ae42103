//! Text from elsewhere, made inert: a terminal shows it and never acts on it.
//!
//! Names, termination messages and answers of the service may hold escape sequences that move the
//! cursor, rename the window or fill the clipboard, and characters that make text seem to stand
//! where it doesn't. Text for people has U+FFFD in their place ([`one_line`], and [`Inert`] for all
//! that a command writes); JSON and YAML have their own escapes, so that a program reads the
//! original value ([`escaped`]).

use std::io::{self, Write};

use crate::environment::Environment;

/// What the environment says of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether it can place text where it wants: `TERM` names a terminal, and not `dumb`.
    pub draws: bool,
    /// Whether colours are wanted: `NO_COLOR` is unset or empty (no-color.org).
    pub colours: bool,
}

impl Terminal {
    /// Reads what the environment says.
    #[must_use]
    pub fn load(environment: &impl Environment) -> Self {
        let set = |variable| environment.get(variable).filter(|value| !value.is_empty());
        Self {
            draws: set("TERM").is_some_and(|term| term != "dumb"),
            colours: set("NO_COLOR").is_none(),
        }
    }
}

/// The characters of a text, and U+FFFD in the place of each that a terminal would act on.
pub fn inert(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| {
        if acts(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    })
}

/// Whether a character is one that a terminal acts on: a control character, a separator of lines,
/// or one that changes the direction of writing, so that other text seems to stand where it doesn't
/// (Unicode Technical Report 36, 2.2).
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// A text on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    inert(text).collect()
}

/// JSON in which a terminal finds nothing to act on. JSON itself escapes no more than the first 32
/// control characters; what else there is can only stand in texts, where `\u` says the same.
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

/// Standard output or standard error of a command: whatever is written comes out inert. Lines and
/// tabs stay.
///
/// This is where no text gets past, whoever wrote it. What is to stay on one line, or in a cell of
/// a table, is made so before.
#[derive(Debug)]
pub struct Inert<W> {
    to: W,
    /// The beginning of a character whose other bytes are still to come.
    begun: Vec<u8>,
}

impl<W: Write> Inert<W> {
    /// Writes to this from now on.
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

/// Whether a terminal acts on it where text has several lines.
fn acts_on_lines(c: char) -> bool {
    acts(c) && c != '\n' && c != '\t'
}

/// Whether these bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    matches!(str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use podbeat_lab::hostile;
    use proptest::prelude::*;

    use super::*;

    /// What comes out if these are written one after the other.
    fn written<'bytes>(parts: impl IntoIterator<Item = &'bytes [u8]>) -> String {
        let mut out = Vec::new();
        let mut inert = Inert::new(&mut out);
        for part in parts {
            inert.write_all(part).expect("written");
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_acts_is_shown_in_its_place() {
        assert_eq!(
            written([&b"a\x1b[2Jb\r\n\tc\x9bd"[..]]),
            "a\u{fffd}[2Jb\u{fffd}\n\tc\u{fffd}d"
        );
        // In two writes, as formatting does it.
        assert_eq!(written(["ü€".as_bytes()]), "ü€");
        assert_eq!(written([&b"\xe2\x82"[..], b"\xac!"]), "€!");
        assert_eq!(written([&b"\xe2\x80"[..], b"\xae!"]), "\u{fffd}!");
        assert_eq!(written([&b"\xe2\x82"[..], b"!"]), "\u{fffd}!");
        assert_eq!(one_line("a\nb\u{2067}c"), "a\u{fffd}b\u{fffd}c");
    }

    proptest! {
        #[test]
        fn nothing_acts_however_it_is_cut(text in hostile::TEXT, at in any::<prop::sample::Index>()) {
            let (first, rest) = text.as_bytes().split_at(at.index(text.len() + 1));
            let shown = written([first, rest]);
            prop_assert!(!shown.contains(acts_on_lines), "{shown:?}");
            prop_assert_eq!(&shown, &written([text.as_bytes()]));
            prop_assert_eq!(one_line(&shown), one_line(&text));
        }

        #[test]
        fn escaped_json_says_the_same(text in hostile::TEXT) {
            let json = escaped(&serde_json::to_string(&text).expect("JSON"));
            prop_assert!(!json.contains(acts), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }
    }
}
