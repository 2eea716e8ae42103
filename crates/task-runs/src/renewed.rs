//! A token that the service renewed, as a journal keeps it.

use serde::{Deserialize, Serialize};

use super::Secret;

/// A token that the service handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewed {
    #[serde(serialize_with = "exposed")]
    pub(super) token: Secret,
    /// What the source held when the renewed token came: once it holds something else, that is
    /// newer.
    #[serde(default, serialize_with = "super::secret::exposed::text")]
    pub(super) instead_of: Option<Secret>,
}

impl Renewed {
    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }
}

/// For the journal alone, which keeps a renewed token over a restart.
fn exposed<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
