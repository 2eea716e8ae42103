//! Removes secrets from the service's error responses, because the service may repeat a request.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::model::{ErrorResponse, REDACTED};

impl ErrorResponse {
    /// Replaces secrets, because a service may repeat what it received, literally or encoded.
    /// Secrets of fewer than four characters stay, because they occur in any text by chance.
    pub(crate) fn without(mut self, secrets: &[&str]) -> Self {
        // If one form contains another, the longer one is replaced first.
        let mut all = BTreeSet::new();
        all.extend(
            secrets
                .iter()
                .flat_map(|secret| forms(secret))
                .map(|form| (form.len(), form)),
        );
        for (_, secret) in all.iter().rev() {
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
    if text.contains(secret) {
        *text = text.replace(secret, REDACTED);
    }
}

/// All forms in which a secret may appear in a text: the secret and each of its lines, literally,
/// escaped for JSON or a URL, or in base64, where the secret may be a part of the encoded data.
fn forms(secret: &str) -> Vec<String> {
    /// Shorter lines and shorter base64 pieces may occur in any text by chance.
    const LEAST: usize = 8;
    /// Leaves the characters that a URL need not escape (RFC 3986).
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');

    if secret.chars().count() < 4 {
        return Vec::new();
    }
    let lines = secret
        .lines()
        .map(str::trim)
        .filter(|line| line.len() >= LEAST);
    let mut forms = vec![secret.to_owned()];
    forms.extend(lines.map(str::to_owned));
    for form in forms.clone() {
        let json = serde_json::to_string(&form).unwrap_or_default();
        if let Some(json) = json
            .strip_prefix('"')
            .and_then(|json| json.strip_suffix('"'))
        {
            // JSON may also escape `/`.
            forms.push(json.replace('/', "\\/"));
            forms.push(json.to_owned());
        }
        for set in [NON_ALPHANUMERIC, RESERVED] {
            let encoded = utf8_percent_encode(&form, set).to_string();
            for encoded in [lower_case_hex(&encoded), encoded] {
                forms.push(encoded.replace("%20", "+"));
                forms.push(encoded);
            }
        }
        if form.len() < LEAST {
            continue;
        }
        for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
            forms.push(engine.encode(&form));
            // After one or two other bytes, the same bytes have other base64 characters. Characters
            // that also encode neighboring bits are left out.
            for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
                let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(form.bytes()).collect();
                let whole = bytes.len() / 3 * 4 + bytes.len() % 3;
                let encoded = engine.encode(&bytes);
                forms.extend(encoded.get(shared..whole).map(str::to_owned));
            }
        }
    }
    forms
}

fn lower_case_hex(encoded: &str) -> String {
    let mut digits = 0;
    let lowered = encoded.chars().map(|character| {
        if character == '%' {
            digits = 2;
        } else if digits > 0 {
            digits -= 1;
            return character.to_ascii_lowercase();
        }
        character
    });
    lowered.collect()
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
    fn secrets_are_redacted_at_every_position() {
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

    #[test]
    fn a_secret_is_recognised_in_the_forms_in_which_services_write_it() {
        let secret = "p\u{e4}ss \"word\"/\\+~.-_7";
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n";
        let json = |text: &str| serde_json::to_string(text).expect("JSON");
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        for (secret, said) in [
            (secret, json(secret)),
            (secret, json(secret).replace('/', "\\/")),
            (secret, "p%C3%A4ss%20%22word%22%2F%5C%2B~.-_7".to_owned()),
            (
                secret,
                "p%c3%a4ss+%22word%22%2f%5c%2b%7e%2e%2d%5f7".to_owned(),
            ),
            (secret, base64(secret)),
            (secret, BASE64_URL_SAFE.encode(secret)),
            (pem, json(pem)),
            (pem, "key MIIEvQIBADANBgkq is no key".to_owned()),
            (pem, "hkiG9w0BAQEFAASC".to_owned()),
        ] {
            let message = format!("refused: {said}");
            let error = ErrorResponse {
                message: Some(message),
                ..ErrorResponse::default()
            };
            let clean = error.without(&[secret]).message.expect("a message");
            assert!(clean.contains("[redacted]"), "{said}: {clean}");
            for piece in ["word", "MIIEvQ", "hkiG9w", "cOkc3", "w6Rzcy"] {
                assert!(!clean.contains(piece), "{said}: {clean}");
            }
        }
        // In base64 of a longer text, at any offset.
        for before in ["", "a", "ab", "Bearer ", "user:"] {
            let said = base64(&format!("{before}correct-horse-battery{before}"));
            let error = ErrorResponse {
                message: Some(said.clone()),
                ..ErrorResponse::default()
            };
            let clean = error
                .without(&["correct-horse-battery"])
                .message
                .expect("a message");
            let left = clean.replace("[redacted]", "");
            assert!(left.len() + 24 <= said.len(), "{before}: {said}: {clean}");
        }
        // Other text stays.
        let error = ErrorResponse {
            message: Some("a line of text".to_owned()),
            ..ErrorResponse::default()
        };
        assert_eq!(error.clone().without(&[secret, pem, "abc"]), error);
    }
}
