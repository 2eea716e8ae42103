//! A heartbeat's body for people: indented, and without nonces. Pure.
//!
//! It works on the text and not on parsed values, so that the rest is shown as it arrived, and a body
//! of which only the beginning was kept, too.

use super::text::shown;

/// The indentation of a level.
const INDENT: &str = "  ";

/// The deepest level that is indented further, so that a small body never becomes a large page.
const DEEPEST: usize = 16;

/// A member with this name is a secret, at every level.
const SECRET: &str = "nonce";

/// What is shown instead of a secret.
const REDACTED: &str = "\"[redacted]\"";

/// A part of a JSON text. Text that is not JSON also has such parts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'text> {
    Open(char),
    Close(char),
    Comma,
    Colon,
    /// With its quotes. The last one may have no end.
    Text(&'text str),
    /// A number, a word, or anything else.
    Word(&'text str),
}

/// Splits a text into its parts, without the white space between them.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\n', '\r', '\t']);
        let Some(first) = rest.chars().next() else {
            return tokens;
        };
        let length = match first {
            '"' => length_of_text(rest),
            '{' | '}' | '[' | ']' | ',' | ':' => first.len_utf8(),
            _ => {
                let ends = |letter: char| "{}[],:\" \n\r\t".contains(letter);
                rest.find(ends).unwrap_or(rest.len())
            }
        };
        let (token, behind) = rest.split_at(length);
        rest = behind;
        tokens.push(match first {
            '"' => Token::Text(token),
            '{' | '[' => Token::Open(first),
            '}' | ']' => Token::Close(first),
            ',' => Token::Comma,
            ':' => Token::Colon,
            _ => Token::Word(token),
        });
    }
}

/// The length of the text with quotes at the beginning, in bytes.
fn length_of_text(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    rest.len()
}

/// Whether a text with quotes is the name of a secret, however it is escaped.
fn is_secret(token: &str) -> bool {
    serde_json::from_str::<String>(token).is_ok_and(|name| name == SECRET)
}

/// Replaces the values of secrets.
fn redacted(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut shown = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        shown.push(token);
        let is_name = matches!(token, Token::Text(text) if is_secret(text));
        if !is_name || rest.peek() != Some(&Token::Colon) {
            continue;
        }
        shown.extend(rest.next());
        // The value: one part, or all up to the bracket that closes it.
        let mut depth = 0_usize;
        for token in rest.by_ref() {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth = depth.saturating_sub(1),
                Token::Comma | Token::Colon | Token::Text(_) | Token::Word(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
        shown.push(Token::Text(REDACTED));
    }
    shown
}

/// The body, indented, without the values of nonces, and made safe to show.
pub(super) fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut readable = String::new();
    let mut depth = 0_usize;
    let mut tokens = redacted(tokens(&text)).into_iter().peekable();
    while let Some(token) = tokens.next() {
        let line = |readable: &mut String, depth: usize| {
            readable.push('\n');
            readable.push_str(&INDENT.repeat(depth.min(DEEPEST)));
        };
        match token {
            Token::Open(bracket) => {
                readable.push(bracket);
                // An empty object or array stays on its line.
                if let Some(Token::Close(close)) = tokens.peek().copied() {
                    readable.push(close);
                    tokens.next();
                } else {
                    depth += 1;
                    line(&mut readable, depth);
                }
            }
            Token::Close(bracket) => {
                depth = depth.saturating_sub(1);
                line(&mut readable, depth);
                readable.push(bracket);
            }
            Token::Comma => {
                readable.push(',');
                line(&mut readable, depth);
            }
            Token::Colon => readable.push_str(": "),
            Token::Text(text) | Token::Word(text) => readable.push_str(&shown(text, usize::MAX)),
        }
    }
    readable
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Replaces the values of nonces in a parsed value.
    fn without_nonces(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        SECRET => *value = json!("[redacted]"),
                        _ => without_nonces(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(without_nonces),
            _ => {}
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~]{0,6}", Just("nonce".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    #[test]
    fn a_body_is_indented_and_has_no_nonce() {
        let body = br#"{"podUID":"u","nonce":"secret-1","a":{"n\u006fnce" : {"b":["secret-2"]},"c":[]},"d":["nonce","x",1.50,{}]}"#;
        let expected = "{\n  \"podUID\": \"u\",\n  \"nonce\": \"[redacted]\",\n  \"a\": {\n    \"n\\u006fnce\": \"[redacted]\",\n    \"c\": []\n  },\n  \"d\": [\n    \"nonce\",\n    \"x\",\n    1.50,\n    {}\n  ]\n}";
        assert_eq!(readable(body), expected);
        assert_eq!(readable(b""), "");
        assert_eq!(
            readable("[\"a\u{202e}\"]".as_bytes()),
            "[\n  \"a\\u{202e}\"\n]"
        );
        assert_eq!(readable(b"[\"\xff"), "[\n  \"\u{fffd}");
    }

    #[test]
    fn a_body_of_brackets_becomes_no_large_page() {
        let body = format!("{}{}", "[".repeat(120), "1,".repeat(32_000));
        assert!(readable(body.as_bytes()).len() < 40 * body.len());
    }

    proptest! {
        #[test]
        fn it_means_the_same_without_nonces(value in any_json()) {
            let shown: Value = serde_json::from_str(&readable(value.to_string().as_bytes())).expect("JSON");
            let mut expected = value;
            without_nonces(&mut expected);
            prop_assert_eq!(shown, expected);
        }

        #[test]
        fn a_cut_body_has_no_nonce_either(before in any_json(), cut in any::<prop::sample::Index>()) {
            let body = json!({"a": before, "b": [{"nonce": "hunter2"}], "nonce": ["hunter2"]}).to_string();
            prop_assert!(!readable(&body.as_bytes()[..cut.index(body.len() + 1)]).contains("hunter2"));
        }

        #[test]
        fn any_bytes_are_shown(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let shown = readable(&body);
            prop_assert!(!shown.contains(['\0', '\u{202e}', '\u{1b}']), "{:?}", shown);
        }
    }
}
