//! Who looks at the page: sessions, and which requests come from our own pages.
//!
//! A user signs in with a token. The browser gets a cookie that has the token's hash and an end, both
//! signed. Each request looks the token up by that hash, so a session ends at once if its token is
//! revoked or expires. The cookie is bound to the host name, so a foreign name that points here (DNS
//! rebinding) has none. A form that changes something has a token of its session, and the browser
//! must not say that the form is another site's.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use crate::service::{Caller, Problem, Service};
use crate::tokens::later;

/// The name of the field with a form's token.
pub(super) const FORM_TOKEN: &str = "form";

/// How long a session lasts: a working day with a margin.
const LASTS: Duration = Duration::from_secs(12 * 3600);

/// The length of a token's hash, in bytes.
const HASH: usize = 32;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The cookie of a session. Its name and attributes depend on the service's address.
#[derive(Clone, Debug)]
pub(super) struct Cookie {
    name: String,
    attributes: String,
}

impl Cookie {
    /// `url` is the service's address, and `base` the part of its path before the page.
    pub(super) fn new(url: &str, base: &str) -> Self {
        let is_secure = url.starts_with("https://");
        // Browsers accept these names only from HTTPS. With the first, the cookie belongs to exactly
        // this host and all its paths.
        let prefix = match (is_secure, base) {
            (true, "") => "__Host-",
            (true, _) => "__Secure-",
            (false, _) => "",
        };
        let secure = if is_secure { "; Secure" } else { "" };
        Self {
            name: format!("{prefix}podbeat-session"),
            attributes: format!("; Path={base}/; HttpOnly; SameSite=Strict{secure}"),
        }
    }

    /// The cookie of a new session.
    pub(super) fn of(&self, session: &Session) -> Option<HeaderValue> {
        let (payload, signature) = (&session.payload, &session.signature);
        self.header(&format!("{payload}.{signature}"), LASTS)
    }

    /// Removes the cookie.
    pub(super) fn removal(&self) -> Option<HeaderValue> {
        self.header("", Duration::ZERO)
    }

    fn header(&self, value: &str, age: Duration) -> Option<HeaderValue> {
        let (name, attributes) = (&self.name, &self.attributes);
        let seconds = age.as_secs();
        HeaderValue::from_str(&format!("{name}={value}; Max-Age={seconds}{attributes}")).ok()
    }

    /// The values of the cookie in a request: more than one if another server of this host sets one
    /// with the same name.
    fn values<'head>(&self, headers: &'head HeaderMap) -> impl Iterator<Item = &'head str> {
        let lines = headers.get_all(header::COOKIE).into_iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(name, _)| *name == self.name)
            .map(|(_, value)| value)
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The hash of the user's token.
    hash: [u8; HASH],
    until: Timestamp,
    payload: String,
    signature: String,
}

impl Session {
    /// A new session with a token.
    pub(super) fn new(service: &Service, token: &str) -> Self {
        let hash = crate::tokens::hash(token);
        // Whole seconds, because the cookie has no others.
        let until = later(service.now(), LASTS).as_second();
        let payload = URL_SAFE_NO_PAD.encode([&hash[..], &until.to_be_bytes()].concat());
        let signature = service.keys().sign_session(signed(&payload).as_bytes());
        Self {
            hash,
            until: Timestamp::from_second(until).unwrap_or(Timestamp::MIN),
            signature: URL_SAFE_NO_PAD.encode(signature),
            payload,
        }
    }

    /// The valid session of a request, if there is one.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn of(
        service: &Service,
        cookie: &Cookie,
        headers: &HeaderMap,
    ) -> Result<Option<(Self, Caller)>, Problem> {
        let mut values = cookie.values(headers);
        let Some(session) = values.find_map(|value| Self::parse(service, value)) else {
            return Ok(None);
        };
        let caller = session.caller(service).await?;
        Ok(caller.map(|caller| (session, caller)))
    }

    /// The session in a cookie that this service signed.
    fn parse(service: &Service, value: &str) -> Option<Self> {
        let (payload, signature) = value.split_once('.')?;
        let bytes = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !service
            .keys()
            .signed_session(signed(payload).as_bytes(), &bytes)
        {
            return None;
        }
        let decoded = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let (hash, until) = decoded.split_first_chunk::<HASH>()?;
        let until = i64::from_be_bytes(until.try_into().ok()?);
        Some(Self {
            hash: *hash,
            until: Timestamp::from_second(until).ok()?,
            payload: payload.to_owned(),
            signature: signature.to_owned(),
        })
    }

    /// Whose session it is. `None` if it has ended.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn caller(&self, service: &Service) -> Result<Option<Caller>, Problem> {
        if service.now() >= self.until {
            return Ok(None);
        }
        match service.caller_with(self.hash).await {
            Ok(caller) => Ok(Some(caller)),
            Err(Problem::Unauthorized) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// The token of the session's forms.
    pub(super) fn form_token(&self, service: &Service) -> String {
        let text = form(&self.payload);
        URL_SAFE_NO_PAD.encode(service.keys().sign_session(text.as_bytes()))
    }

    /// Whether a form comes from this session.
    pub(super) fn has_form(&self, service: &Service, token: &str) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        let text = form(&self.payload);
        service.keys().signed_session(text.as_bytes(), &signature)
    }
}

/// The text that is signed for a cookie. It differs from that of a form, so that neither is accepted
/// as the other.
fn signed(payload: &str) -> String {
    format!("cookie {payload}")
}

/// The text that is signed for a form.
fn form(payload: &str) -> String {
    format!("form {payload}")
}

/// Whether a browser says that the request is another site's. Browsers send `Sec-Fetch-Site` only
/// over HTTPS and to localhost, but `Origin` with every form. `url` is the service's address, because
/// a proxy may have changed `Host`.
pub(super) fn is_from_elsewhere(headers: &HeaderMap, url: &str) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let Some(origin) = origin.to_str().ok().and_then(authority) else {
        return true;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut own = host.into_iter().chain(authority(url));
    !own.any(|own| own.eq_ignore_ascii_case(origin))
}

/// The host and port of an address.
fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next()
}

/// Whether the browser follows a link on another site. It sends no cookie then.
pub(super) fn is_link_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE);
    let is_other = site.is_some_and(|site| site == "cross-site" || site == "same-site");
    is_other
        && headers
            .get(SEC_FETCH_MODE)
            .is_some_and(|mode| mode == "navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = all
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")));
        pairs.collect()
    }

    #[test]
    fn another_sites_form_is_recognized_by_the_browsers_headers() {
        const URL: &str = "https://public.example/ica";
        for (expected, all) in [
            (false, &[][..]),
            (false, &[(SEC_FETCH_SITE, "same-origin")]),
            (false, &[(SEC_FETCH_SITE, "none")]),
            (true, &[(SEC_FETCH_SITE, "same-site")]),
            (true, &[(SEC_FETCH_SITE, "cross-site")]),
            (true, &[(SEC_FETCH_SITE, "")]),
            (
                true,
                &[
                    (SEC_FETCH_SITE, "cross-site"),
                    (header::ORIGIN, "https://h:1"),
                ],
            ),
            (false, &[(header::ORIGIN, "http://H:1")]),
            (false, &[(header::ORIGIN, "https://public.example")]),
            (true, &[(header::ORIGIN, "https://public.example.evil")]),
            (true, &[(header::ORIGIN, "https://h")]),
            (true, &[(header::ORIGIN, "https://evil.example")]),
            (true, &[(header::ORIGIN, "null")]),
            (true, &[(header::ORIGIN, "")]),
        ] {
            let mut all = headers(all);
            all.insert(header::HOST, HeaderValue::from_static("h:1"));
            assert_eq!(is_from_elsewhere(&all, URL), expected, "{all:?}");
        }
        let without_host = headers(&[(header::ORIGIN, "https://h:1")]);
        assert!(is_from_elsewhere(&without_host, ""));
    }

    #[test]
    fn the_cookie_is_bound_as_closely_as_the_address_allows() {
        for (url, base, expected) in [
            (
                "https://h",
                "",
                "__Host-podbeat-session=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict; Secure",
            ),
            (
                "https://h/ica",
                "/ica",
                "__Secure-podbeat-session=; Max-Age=0; Path=/ica/; HttpOnly; SameSite=Strict; Secure",
            ),
            (
                "http://h:1",
                "",
                "podbeat-session=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict",
            ),
        ] {
            let cookie = Cookie::new(url, base);
            assert_eq!(cookie.removal().expect("a value"), expected);
            let name = cookie.name.clone();
            let lines = headers(&[
                (
                    header::COOKIE,
                    &format!("a=b; {name}=one;{name}2=no; {name}=two=2"),
                ),
                (header::COOKIE, &format!("x{name}=no; {name}")),
            ]);
            assert_eq!(cookie.values(&lines).collect::<Vec<_>>(), ["one", "two=2"]);
        }
    }
}
