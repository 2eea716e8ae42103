//! Text from outside, made safe to show, and ages. Pure.

use jiff::Timestamp;

/// The text, limited to this many characters. Characters that are invisible, or that would change
/// the direction of the text around them, are written as `\u{202e}`.
pub(super) fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (nth, character) in text.chars().enumerate() {
        if nth == most {
            shown.push('…');
            break;
        }
        if is_odd(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, and Unicode's format characters that hide, join or redirect text.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// An age in the largest whole unit. page.js formats it in the same way.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now
        .as_millisecond()
        .saturating_sub(then.as_millisecond())
        .max(0)
        / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count} {unit} ago")
}

/// The date and time, with milliseconds.
pub(super) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(
            shown("a\u{202e}b\0\n\u{200b}é日👍", 100),
            "a\\u{202e}b\\u{0}\\u{a}\\u{200b}é日👍"
        );
        assert_eq!(
            shown("<script>&\"'", 100),
            "<script>&\"'",
            "HTML is escaped elsewhere"
        );
        assert_eq!(
            (shown("日本語", 3), shown("日本語", 2)),
            ("日本語".to_owned(), "日本…".to_owned())
        );
    }

    #[test]
    fn ages_are_in_the_largest_whole_unit() {
        let then: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (seconds, expected) in [
            (0, "0 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3_599, "59 min ago"),
            (3_600, "1 h ago"),
            (86_399, "23 h ago"),
            (86_400, "1 d ago"),
            (900_000, "10 d ago"),
        ] {
            assert_eq!(age(then, then + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(
            age(then, then - Duration::from_secs(5)),
            "0 s ago",
            "a clock that was set back"
        );
    }
}
