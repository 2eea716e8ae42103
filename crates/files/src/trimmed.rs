//! What a file or an answer says, without what editors and tools put around it: a byte order mark
//! and white space.

/// U+FEFF in UTF-8. Editors on Windows write it at the start of a file.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// A text without byte order marks and white space around it.
pub fn text(text: &str) -> &str {
    text.trim_matches(|character: char| character == '\u{feff}' || character.is_whitespace())
}

/// A text without the byte order marks at its start. In YAML, white space there has a meaning.
pub fn unmarked(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

/// The same as [`text`] of bytes that need not be text: JSON, for example. White space is that of
/// ASCII.
pub fn bytes(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = bytes.trim_ascii();
        let Some(rest) = bytes.strip_prefix(MARK).or_else(|| bytes.strip_suffix(MARK)) else {
            return bytes;
        };
        bytes = rest;
    }
}

/// Certificates and keys in PEM form, without any byte order mark: a mark in front of a
/// certificate, wherever in the file, hides that certificate from the parser without an error.
/// Files that were joined have one in the middle.
pub fn pem(pem: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(pem.len());
    let mut rest = pem;
    while let Some(&first) = rest.first() {
        if let Some(behind) = rest.strip_prefix(MARK) {
            rest = behind;
        } else {
            clean.push(first);
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_white_space_go_in_any_order_and_nothing_else_does() {
        for (given, expected) in [
            ("token", "token"),
            ("\u{feff}token\r\n", "token"),
            (" \n\u{feff} token \u{feff}\n", "token"),
            ("\u{feff}\u{feff}token", "token"),
            ("to\u{feff}ken", "to\u{feff}ken"),
            ("\u{feff}\r\n", ""),
            ("", ""),
        ] {
            assert_eq!(text(given), expected, "{given:?}");
            assert_eq!(bytes(given.as_bytes()), expected.as_bytes(), "{given:?}");
        }
        assert_eq!(text("\u{a0}token\u{2028}"), "token");
        assert_eq!(bytes(b"\xEF\xBB\xBF\xff\xfe "), b"\xff\xfe");
    }

    #[test]
    fn no_certificate_of_a_file_is_hidden_by_a_mark() {
        let joined = "\u{feff}-----BEGIN A-----\n\u{feff}-----BEGIN B-----\n".as_bytes();
        assert_eq!(pem(joined), b"-----BEGIN A-----\n-----BEGIN B-----\n");
    }
}
