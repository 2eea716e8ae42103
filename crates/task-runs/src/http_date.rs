//! Parses HTTP dates (RFC 9110, 5.6.7) and `Retry-After`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Parses a date in any of the three forms that a recipient must accept.
///
/// ```text
/// Sun, 06 Nov 1994 08:49:37 GMT
/// Sunday, 06-Nov-94 08:49:37 GMT
/// Sun Nov  6 08:49:37 1994
/// ```
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let parser = DateTimeParser::new();
    if let Ok(date) = parser.parse_timestamp(text.trim()) {
        return Some(date);
    }
    // Reorders the two older forms into the first one, in which the day of the week is optional.
    let separates = |c: char| c.is_ascii_whitespace() || matches!(c, '-' | ',');
    let parts: Vec<&str> = text
        .split(separates)
        .filter(|part| !part.is_empty())
        .collect();
    let ([_, day, month, year, time, "GMT"] | [_, month, day, time, year]) = parts[..] else {
        return None;
    };
    parser
        .parse_timestamp(format!("{day} {month} {year} {time} GMT"))
        .ok()
}

/// Returns the wait that a `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3).
///
/// A date is compared with the response's own `Date`, because both come from the service's clock,
/// which may differ from ours. Without a readable `Date`, it is compared with `now`. A date in the
/// past means no wait.
pub(super) fn retry_after(asked: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let asked = asked.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = parse(asked)?;
    let sent = date.and_then(parse).unwrap_or(now);
    Some(until.duration_since(sent).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn all_three_forms_are_one_date() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse(text), Some(time("1994-11-06T08:49:37Z")), "{text}");
        }
        assert_eq!(
            parse("Saturday, 28-Nov-26 10:00:00 GMT"),
            Some(time("2026-11-28T10:00:00Z"))
        );
        for text in [
            "",
            "soon",
            "-1",
            "Sun Nov 6 1994",
            "Sunday, 06-Nov-94 08:49:37 CET",
            "a b c d e",
            "a, b-c-d e GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_compared_with_the_services_own_clock() {
        let now = time("2026-11-28T10:00:00Z");
        let asked = |asked, date| retry_after(asked, date, now);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked("120", None), seconds(120));
        // The service's clock is an hour ahead.
        let (date, later) = (
            "Sat, 28 Nov 2026 11:00:00 GMT",
            "Sat, 28 Nov 2026 11:00:02 GMT",
        );
        assert_eq!(asked(later, Some(date)), seconds(2));
        assert_eq!(asked(later, Some("never")), seconds(3602));
        assert_eq!(asked(later, None), seconds(3602));
        assert_eq!(asked("Saturday, 28-Nov-26 10:00:05 GMT", None), seconds(5));
        assert_eq!(
            asked(date, Some(later)),
            seconds(0),
            "a date in the past is no wait"
        );
        for text in ["soon", "-1", "", "1.5"] {
            assert_eq!(asked(text, Some(date)), None, "{text}");
        }
    }
}
