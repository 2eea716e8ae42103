//! `podbeat-server token`: creates, lists and revokes the tokens of users, in the data file.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_interface::arguments::Wrong;
use podbeat_interface::terminal::{escaped, one_line};
use serde_json::{Map, Value, json};

use crate::keys;
use crate::store::{self, Role, Store, Token};
use crate::tokens;

/// The maximum length of a tenant's or a user's name, in characters (`maxLength` of the names in
/// the contract).
const LONGEST: usize = 255;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create a token.
    Create(NewToken),
    /// List the tokens.
    List {
        /// As JSON.
        json: bool,
    },
    /// Revoke the token with this ID.
    Revoke(String),
}

/// A token to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user: String,
    /// The role.
    pub role: Role,
    /// How long it is valid. `None`: until it is revoked.
    pub lifetime: Option<Duration>,
    /// Print JSON.
    pub json: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The token.
    #[error(transparent)]
    Token(#[from] keys::Error),
    /// There is no such token.
    #[error("no token has the ID {0}; podbeat-server token list shows all of them")]
    NoSuchToken(String),
}

/// The name of a tenant or a user: not empty, and without a slash, a colon or control characters,
/// because entries of an access control list are `tid:TENANT` and `uid:TENANT/USER`.
///
/// # Errors
/// The text is something else.
pub fn name(text: &str) -> Result<String, Wrong> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | ':');
    match text {
        "" => Err(Wrong("must not be empty")),
        text if text.chars().any(is_odd) => Err(Wrong(
            "must have no white space, no control characters, and neither / nor :",
        )),
        text if text.chars().count() > LONGEST => Err(Wrong("must have at most 255 characters")),
        text => Ok(text.to_owned()),
    }
}

/// Does it, and returns what to print.
///
/// # Errors
/// The store can't be used, or there is no such token.
pub async fn run(action: &Action, store: &dyn Store, now: Timestamp) -> Result<String, Error> {
    match action {
        Action::Create(new) => {
            let created = tokens::create(&new.tenant, &new.user, new.role, now, new.lifetime)?;
            let token = created.token;
            store.add_token(token.clone()).await?;
            let text = created.text.expose();
            Ok(match new.json {
                true => {
                    let mut object = object(&token, now);
                    object.insert("token".to_owned(), json!(text));
                    escaped(&json!(object).to_string()) + "\n"
                }
                false => format!("{text}\n"),
            })
        }
        Action::List { json } => {
            let tokens = store.tokens().await?;
            Ok(match json {
                true => {
                    let objects: Vec<_> = tokens.iter().map(|token| object(token, now)).collect();
                    escaped(&json!(objects).to_string()) + "\n"
                }
                false => table(&tokens, now),
            })
        }
        Action::Revoke(id) => match store.revoke(id.clone(), now).await? {
            true => Ok(format!("revoked {id}\n")),
            false => Err(Error::NoSuchToken(one_line(id))),
        },
    }
}

/// Whether the token is accepted, in one word.
fn state(token: &Token, now: Timestamp) -> &'static str {
    match (token.revoked, token.expires) {
        (Some(_), _) => "revoked",
        (None, Some(expires)) if expires <= now => "expired",
        (None, _) => "valid",
    }
}

fn object(token: &Token, now: Timestamp) -> Map<String, Value> {
    let members = [
        ("id", json!(token.id)),
        ("tenant", json!(token.tenant)),
        ("user", json!(token.user)),
        ("role", json!(token.role.name())),
        ("created", json!(token.created)),
        ("expires", json!(token.expires)),
        ("revoked", json!(token.revoked)),
        ("state", json!(state(token, now))),
    ];
    let named = members.into_iter();
    named
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn table(tokens: &[Token], now: Timestamp) -> String {
    let moment = |time: Timestamp| format!("{time:.0}");
    let header = [
        "ID", "TENANT", "USER", "ROLE", "CREATED", "EXPIRES", "STATE",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        [
            token.id.clone(),
            one_line(&token.tenant),
            one_line(&token.user),
            token.role.name().to_owned(),
            moment(token.created),
            token.expires.map_or_else(|| "never".to_owned(), moment),
            state(token, now).to_owned(),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    fn new(json: bool) -> Action {
        Action::Create(NewToken {
            tenant: "genomics".to_owned(),
            user: "alice".to_owned(),
            role: Role::Read,
            lifetime: Some(Duration::from_secs(3600)),
            json,
        })
    }

    #[tokio::test]
    async fn a_token_is_created_listed_and_revoked() {
        let store = Memory::default();
        let run = async |action: &Action, at| run(action, &store, at).await;
        let text = run(&new(false), now()).await.expect("created");
        let text = text.trim();
        assert!(tokens::is_of_a_user(text), "{text}");
        let token = store
            .token(tokens::hash(text))
            .await
            .expect("read")
            .expect("stored");
        let list = Action::List { json: false };
        let listed = run(&list, now()).await.expect("listed");
        assert!(!listed.contains(text));
        assert_eq!(
            listed,
            format!(
                "ID             TENANT     USER    ROLE   CREATED                EXPIRES                STATE\n\
                 {}   genomics   alice   read   2026-01-01T00:00:00Z   2026-01-01T01:00:00Z   valid\n",
                token.id
            )
        );
        let later = now() + Duration::from_secs(3600);
        assert!(run(&list, later).await.expect("listed").contains("expired"));
        let revoke = Action::Revoke(token.id.clone());
        assert_eq!(
            run(&revoke, now()).await.expect("revoked"),
            format!("revoked {}\n", token.id)
        );
        assert!(run(&list, now()).await.expect("listed").contains("revoked"));
        let unknown = run(&Action::Revoke("x".to_owned()), now()).await;
        assert!(matches!(unknown, Err(Error::NoSuchToken(_))));
        let created = run(&new(true), now()).await.expect("created");
        let object: serde_json::Value = serde_json::from_str(&created).expect("JSON");
        assert!(tokens::is_of_a_user(
            object["token"].as_str().expect("text")
        ));
        let all = run(&Action::List { json: true }, now())
            .await
            .expect("listed");
        let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
        assert_eq!(all.as_array().map(Vec::len), Some(2));
        assert!(all[0].get("token").is_none() && all[0].get("hash").is_none());
    }

    #[test]
    fn names_are_printable_and_no_part_of_an_acl_entry() {
        for good in ["t", "a.b-c_d", "alice@example.com", "日本"] {
            assert_eq!(name(good).expect("good"), good);
        }
        let long = "x".repeat(256);
        for wrong in [
            "",
            " ",
            "a b",
            "a/b",
            "a:b",
            "a\u{1b}",
            "a\u{85}",
            long.as_str(),
        ] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
