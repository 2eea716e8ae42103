//! What the service says of a request that it refuses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the service says of a request that it refuses (`ErrorResponse`).
///
/// ```
/// use podbeat_task_runs::model::ErrorResponse;
///
/// let error: ErrorResponse = serde_json::from_str(r#"{"code": "NotFound", "message": "no such run", "details": []}"#)?;
/// assert_eq!(error.code.as_deref(), Some("NotFound"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// A word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whatever more there is to say; the contract leaves its form open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<Value>>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
