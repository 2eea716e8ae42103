//! What the service says of a request that it refuses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the service says of a request that it refuses (`ErrorResponse`).
///
/// ```
/// use podbeat::task_runs::model::ErrorResponse;
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

impl ErrorResponse {
    /// Takes secrets out of it: a service may repeat what it was sent. None that is shorter than four characters, of which
    /// every text is full.
    pub(in crate::task_runs) fn without(mut self, secrets: &[&str]) -> Self {
        for secret in secrets.iter().filter(|secret| secret.chars().count() >= 4) {
            for text in [&mut self.code, &mut self.message].into_iter().flatten() {
                cut(text, secret);
            }
            for detail in self.details.iter_mut().flatten() {
                cut_value(detail, secret);
            }
        }
        self
    }
}

fn cut(text: &mut String, secret: &str) {
    *text = text.replace(secret, super::execution::REDACTED);
}

fn cut_value(value: &mut Value, secret: &str) {
    match value {
        Value::String(text) => cut(text, secret),
        Value::Array(items) => items.iter_mut().for_each(|item| cut_value(item, secret)),
        Value::Object(members) => {
            let taken = std::mem::take(members);
            members.extend(taken.into_iter().map(|(mut name, mut member)| {
                cut(&mut name, secret);
                cut_value(&mut member, secret);
                (name, member)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        let error = ErrorResponse {
            code: Some("hunter2".to_owned()),
            message: Some("no hunter2 and no hunter2, a".to_owned()),
            details: Some(vec![json!({"hunter2": [1, "xhunter2x"]}), json!(null)]),
        };
        let clean = error.without(&["hunter2", "a", ""]);
        assert_eq!(clean.code.as_deref(), Some("[redacted]"));
        assert_eq!(
            clean.message.as_deref(),
            Some("no [redacted] and no [redacted], a")
        );
        let details = vec![json!({"[redacted]": [1, "x[redacted]x"]}), json!(null)];
        assert_eq!(clean.details, Some(details));
    }
}
