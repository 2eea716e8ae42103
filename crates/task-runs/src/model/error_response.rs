//! The service's explanation of a refused request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The service's explanation of a refused request (`ErrorResponse`).
///
/// ```
/// use podbeat_task_runs::model::ErrorResponse;
///
/// let text = r#"{"code": "NotFound", "message": "no such run", "details": []}"#;
/// let error: ErrorResponse = serde_json::from_str(text)?;
/// assert_eq!(error.code.as_deref(), Some("NotFound"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// A short code, such as `NotFound`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Details. The contract leaves their form open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<Value>>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
