//! The location of data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The location of data, usually a URL. A presigned URL gives access to the data, so Debug omits
/// the part before an `@` and the part after a `?` or `#`. [`Location::expose`] returns the whole
/// text.
///
/// ```
/// use podbeat_task_runs::model::Location;
///
/// let location = Location::new("https://store.example/sample?signature=hunter2");
/// assert_eq!(format!("{location:?}"), r#""https://store.example/sample?[redacted]""#);
/// assert!(location.expose().ends_with("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Location(String);

/// The parts of a URL. For any other text, `shown` is the whole text.
struct Parts<'text> {
    scheme: &'text str,
    user: Option<&'text str>,
    shown: &'text str,
    mark: &'text str,
    behind: &'text str,
}

impl Location {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the location without the parts that may give access.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let parts = self.parts();
        let mut text = parts.scheme.to_owned();
        if parts.user.is_some() {
            text += "[redacted]@";
        }
        text += parts.shown;
        text += parts.mark;
        if !parts.behind.is_empty() {
            text += super::execution::REDACTED;
        }
        Self(text)
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let parts = self.parts();
        // A server may repeat a part or the whole.
        let password = parts.user.and_then(|user| user.split_once(':'));
        let values = parts
            .behind
            .split(['&', '#'])
            .map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        parts
            .user
            .into_iter()
            .chain(password.map(|(_, password)| password))
            .chain(Some(parts.behind))
            .chain(values)
    }

    fn parts(&self) -> Parts<'_> {
        let whole = Parts {
            scheme: "",
            user: None,
            shown: &self.0,
            mark: "",
            behind: "",
        };
        let Some((name, rest)) = self.0.split_once("://") else {
            return whole;
        };
        let scheme = self.0.get(..name.len() + 3).unwrap_or_default();
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (before, mark_and_behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (mark, behind) = mark_and_behind.split_at_checked(1).unwrap_or_default();
        let authority = before.split('/').next().unwrap_or_default();
        let (user, shown) = match authority.rsplit_once('@') {
            Some((user, _)) => (Some(user), before.get(user.len() + 1..).unwrap_or_default()),
            None => (None, before),
        };
        Parts {
            scheme,
            user,
            shown,
            mark,
            behind,
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_location_are_omitted() {
        for (text, shown) in [
            ("gds://volume/path", "gds://volume/path"),
            ("s3://u:p@h/x@y?a=b#c", "s3://[redacted]@h/x@y?[redacted]"),
            ("https://h?sig=1", "https://h?[redacted]"),
            ("https://h/#token", "https://h/#[redacted]"),
            ("https://h/?", "https://h/?"),
            ("https://@h/", "https://[redacted]@h/"),
            ("ü://ü@ü/ü?ü", "ü://[redacted]@ü/ü?[redacted]"),
            ("a plain text? yes", "a plain text? yes"),
            ("", ""),
        ] {
            let location = Location::new(text);
            assert_eq!(location.redacted().expose(), shown);
            assert_eq!(format!("{location:?}"), format!("{shown:?}"));
        }
        let location = Location::new("https://user:word@h/?signature=one&x=two#three");
        let secrets: Vec<_> = location.secrets().collect();
        assert_eq!(
            secrets,
            [
                "user:word",
                "word",
                "signature=one&x=two#three",
                "one",
                "two",
                "three"
            ]
        );
    }
}
