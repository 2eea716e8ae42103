//! Removes the byte order marks and white space that editors and tools put around the text of a
//! file or a response.

/// U+FEFF in UTF-8. Editors on Windows write it at the start of a file.
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Removes byte order marks and white space from both ends of a text.
pub fn text(text: &str) -> &str {
    text.trim_matches(|character: char| character == '\u{feff}' || character.is_whitespace())
}

/// Removes byte order marks from the start of a text, but no white space, because it has a meaning
/// in YAML.
pub fn unmarked(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

/// As [`text`], for bytes that may not be UTF-8, for example JSON. Removes only ASCII white space.
pub fn bytes(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = bytes.trim_ascii();
        let Some(rest) = bytes
            .strip_prefix(MARK)
            .or_else(|| bytes.strip_suffix(MARK))
        else {
            return bytes;
        };
        bytes = rest;
    }
}

/// Removes all byte order marks from certificates and keys in PEM form. A mark before a certificate
/// hides that certificate from the parser, without an error. If files were joined, there can be
/// marks in the middle.
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
    fn only_marks_and_white_space_are_trimmed_in_any_order() {
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
    fn a_byte_order_mark_hides_no_certificate_of_a_file() {
        let joined = "\u{feff}-----BEGIN A-----\n\u{feff}-----BEGIN B-----\n".as_bytes();
        assert_eq!(pem(joined), b"-----BEGIN A-----\n-----BEGIN B-----\n");
    }
}
