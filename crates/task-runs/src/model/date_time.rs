//! A time in a response.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A time from the service. According to the contract it is a date-time (RFC 3339). Any other value
/// is kept unchanged, also when it is written again, so that one unusual time does not make a whole
/// response unreadable.
///
/// ```
/// use podbeat_task_runs::model::DateTime;
///
/// let time: DateTime = serde_json::from_str(r#""2026-11-24T02:52:44.5+01:00""#)?;
/// assert_eq!(time.timestamp(), Some("2026-11-24T01:52:44.5Z".parse()?));
///
/// let time: DateTime = serde_json::from_str(r#""yesterday""#)?;
/// assert_eq!((time.timestamp(), time.to_string().as_str()), (None, "yesterday"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DateTime(Value);

impl DateTime {
    /// Returns the time, or `None` if it can't be parsed. A time without a UTC offset can't be
    /// parsed either, because it is ambiguous.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.0.as_str()?.parse().ok()
    }

    /// The original text, or JSON if the value is not a string.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Value::String(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        }
    }
}

impl From<Timestamp> for DateTime {
    fn from(at: Timestamp) -> Self {
        Self(Value::String(at.to_string()))
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_kept_unchanged() {
        for (text, readable) in [
            (r#""2026-11-24T01:52:44Z""#, true),
            (r#""2026-11-24T01:52:44.1234567Z""#, true),
            (r#""0001-01-01T00:00:00Z""#, true),
            (r#""2026-11-24T01:52:44-05:00""#, true),
            (r#""2026-11-24T01:52:44""#, false),
            (r#""""#, false),
            ("1764035564", false),
            (r#"{"seconds":1}"#, false),
        ] {
            let time: DateTime = serde_json::from_str(text).expect(text);
            assert_eq!(time.timestamp().is_some(), readable, "{text}");
            assert_eq!(serde_json::to_string(&time).expect(text), text);
        }
    }
}
