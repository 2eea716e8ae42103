//! A text that never appears in logs, errors, metrics or Debug output.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A token, password or key. [`Secret::expose`] is the only way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for the Authorization header, the body of a request, the journal and the
    /// renewed-token file only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Serializes secrets with their text, for the bodies and files that must contain them. [`Secret`]
/// itself does not implement Serialize, so that no secret is written by accident.
pub(super) mod exposed {
    use std::collections::BTreeMap;

    use serde::{Serialize, Serializer};

    use super::Secret;

    pub(crate) fn text<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(crate) fn values<S: Serializer>(
        secrets: &Option<BTreeMap<String, Secret>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let secrets = secrets.iter().flatten();
        serializer.collect_map(secrets.map(|(name, secret)| (name, secret.expose())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "[redacted] [redacted] Some([redacted])"
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_panic_message_does_not_show_it_either() {
        let secret = Secret::new("hunter2");
        let panic = std::panic::catch_unwind(|| panic!("with {secret} and {secret:?}"));
        let payload = panic.expect_err("a panic");
        let message = payload.downcast_ref::<String>().expect("a text");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
