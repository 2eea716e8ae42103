//! Text that does harm if it is shown unchanged.

/// A regular expression from which proptest draws texts. Half of the characters are ones that a
/// terminal or an editor acts on: all control characters, marks that change the direction of
/// writing, line separators, invisible ones. The others are any printable ones. `any::<String>()`
/// draws no control character.
pub const TEXT: &str = concat!(
    r"(\PC|[\x00-\x1f\x7f\u{80}-\u{9f}]",
    r"|[\u{200b}-\u{200f}\u{2028}\u{2029}\u{202a}-\u{202e}\u{2060}-\u{206f}\u{061c}\u{feff}]){0,40}"
);

/// A text with one of each kind, for tests that need only one. It clears the screen, sets the
/// window's title, fills the clipboard, and changes the direction of writing.
pub const SAMPLE: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;aGk=\u{7}b\u{9b}31mc\u{7f}d\u{202e}e\u{2066}f\u{200f}g\u{2028}h\ri";
