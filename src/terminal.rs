//! Anybody's text on a terminal: what would act there is shown, and does nothing.

/// The characters of a text, and U+FFFD in the place of each that a terminal would act on.
pub fn inert(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .map(|c| if acts(c) { char::REPLACEMENT_CHARACTER } else { c })
}

/// Whether a character is one that a terminal acts on: a control character, a separator of lines, or one that changes the
/// direction of writing, so that other text seems to stand where it doesn't (Unicode Technical Report 36, 2.2).
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    inert(text).collect()
}

/// JSON in which a terminal finds nothing to act on. JSON itself escapes no more than the first 32 control characters; what
/// else there is can only stand in texts, where `\u` says the same.
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
