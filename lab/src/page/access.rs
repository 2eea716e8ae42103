//! Access to the page: by the printed link, and then by the browser's cookie.
//!
//! The link's key is not a token of the service, and is new at each start. The answer to it sets a
//! cookie and redirects to the page without the key, so the key stays out of the address bar and
//! the Referer. The cookie that a browser sends by itself is not enough: the page refuses names
//! that were made to point here (DNS rebinding), and no other origin can read its answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, header};
use jiff::Timestamp;
use ring::hmac;

use crate::Error;
use crate::task_runs::clock::later;
use crate::task_runs::jwt;

/// How long a browser's cookie is valid.
const ADMITTED: Duration = Duration::from_secs(7 * 24 * 3600);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) struct Access {
    key: String,
    signer: hmac::Key,
    hosts: BTreeSet<String>,
    path: String,
    address: OnceLock<SocketAddr>,
}

impl Access {
    pub(super) fn new(hosts: BTreeSet<String>, base: &str, secret: &[u8]) -> Result<Self, Error> {
        // A different key than that of renewed tokens, which come from the same secret. So neither
        // is accepted as the other.
        let secret = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            b"the page's cookies",
        );
        Ok(Self {
            key: jwt::random_hex(16)?,
            signer: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()),
            hosts,
            path: format!("{base}/"),
            address: OnceLock::new(),
        })
    }

    pub(super) fn served_at(&self, address: SocketAddr) {
        let _ = self.address.set(address);
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The cookie, if the key is right.
    pub(super) fn admit(&self, key: &str, now: Timestamp) -> Option<HeaderValue> {
        // Compares signatures, so the time of the comparison reveals nothing.
        let own = hmac::sign(&self.signer, self.key.as_bytes());
        hmac::verify(&self.signer, key.as_bytes(), own.as_ref()).ok()?;
        let until = later(now, ADMITTED).as_second();
        let cookie = format!(
            "{}={until}.{}; Max-Age={}; Path={}; HttpOnly; SameSite=Strict",
            self.cookie()?,
            self.signature(until),
            ADMITTED.as_secs(),
            self.path
        );
        HeaderValue::from_str(&cookie).ok()
    }

    /// Whether a request has a valid cookie.
    pub(super) fn knows(&self, head: &Parts, now: Timestamp) -> bool {
        let Some(name) = self.cookie() else {
            return false;
        };
        let lines = head.headers.get_all(header::COOKIE).into_iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(other, _)| *other == name)
            .any(|(_, value)| self.is_own(value, now))
    }

    /// Whether a request uses one of the service's own names. Checked only if it listens on
    /// loopback.
    pub(super) fn is_asked_by_own_name(&self, head: &Parts) -> bool {
        let Some(address) = self.address.get() else {
            return false;
        };
        let mut named = head.headers.get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return false;
        };
        let Some(host) = host.to_str().ok().and_then(|host| host.parse().ok()) else {
            return false;
        };
        !address.ip().is_loopback()
            || (self.is_own_name(&host)
                && head
                    .uri
                    .authority()
                    .is_none_or(|authority| self.is_own_name(authority)))
    }

    fn is_own_name(&self, authority: &Authority) -> bool {
        let host = authority.host().to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(&host))
    }

    /// The cookie's name. Cookies belong to a host with all its ports, so the port in the name
    /// distinguishes the services of one machine.
    fn cookie(&self) -> Option<String> {
        Some(format!("podbeat-lab-{}", self.address.get()?.port()))
    }

    fn signature(&self, until: i64) -> String {
        let signature = hmac::sign(&self.signer, format!("until {until}").as_bytes());
        signature
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn is_own(&self, value: &str, now: Timestamp) -> bool {
        let Some((until, signature)) = value.split_once('.') else {
            return false;
        };
        let Ok(until) = until.parse::<i64>() else {
            return false;
        };
        let own = hmac::sign(&self.signer, self.signature(until).as_bytes());
        hmac::verify(&self.signer, signature.as_bytes(), own.as_ref()).is_ok()
            && now.as_second() < until
    }
}

/// Whether a browser reports that the request comes from another origin's page. A page on another
/// port of this host still gets the cookie sent. It can't read the answer, but it could occupy a
/// stream.
pub(super) fn is_from_elsewhere(head: &Parts) -> bool {
    let site = head.headers.get(SEC_FETCH_SITE);
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = &[7; 32];

    fn access(address: &str, secret: &[u8]) -> Access {
        let hosts = BTreeSet::from(["lab.example".to_owned()]);
        let access = Access::new(hosts, "/ica", secret).expect("random bytes");
        access.served_at(address.parse().expect("an address"));
        access
    }

    fn head(headers: &[(HeaderName, &str)]) -> Parts {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn the_key_gives_a_cookie_that_is_valid_for_its_time_and_service() {
        let access_here = access("127.0.0.1:8080", SECRET);
        for wrong in ["", "x", &access("127.0.0.1:8080", SECRET).key] {
            assert_eq!(access_here.admit(wrong, now()), None, "{wrong}");
        }
        let cookie = access_here.admit(access_here.key(), now()).expect("let in");
        let text = cookie.to_str().expect("text");
        let (pair, attributes) = text.split_once("; ").expect("attributes");
        assert_eq!(
            attributes,
            "Max-Age=604800; Path=/ica/; HttpOnly; SameSite=Strict"
        );
        assert!(!text.contains(access_here.key()), "the key is not in it");
        let knows = |access: &Access, cookies: &str, now| {
            access.knows(&head(&[(header::COOKIE, cookies)]), now)
        };
        assert!(knows(&access_here, &format!("a=b; {pair};c=d"), now()));
        let again = access("127.0.0.1:8080", SECRET);
        assert!(
            knows(&again, pair, now()),
            "after a start with the same data"
        );
        let last = later(now(), ADMITTED - Duration::from_secs(1));
        assert!(knows(&access_here, pair, last));
        assert!(!knows(&access_here, pair, later(now(), ADMITTED)), "over");
        assert!(
            !knows(&access("127.0.0.1:8080", &[8; 32]), pair, now()),
            "another's"
        );
        assert!(
            !knows(&access("127.0.0.1:8081", SECRET), pair, now()),
            "another port"
        );
        let longer = pair.replacen("=17", "=18", 1);
        assert_ne!(longer, pair);
        for forged in [
            "",
            "podbeat-lab-8080=",
            "podbeat-lab-8080=.",
            "podbeat-lab-8080=9999999999.",
            &longer,
        ] {
            assert!(!knows(&access_here, forged, now()), "{forged}");
        }
        assert!(!access_here.knows(&head(&[]), now()));
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        let here = access("127.0.0.1:8080", SECRET);
        let asked = |access: &Access, host: &str| {
            access.is_asked_by_own_name(&head(&[(header::HOST, host)]))
        };
        for own in [
            "localhost",
            "LocalHost:1",
            "a.localhost:8080",
            "127.0.0.1:8080",
            "10.0.0.7",
            "[::1]:8080",
            "lab.example:9",
        ] {
            assert!(asked(&here, own), "{own}");
        }
        for other in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "lab.example.",
            "user@",
        ] {
            assert!(!asked(&here, other), "{other}");
        }
        assert!(!here.is_asked_by_own_name(&head(&[])));
        let two = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        assert!(!here.is_asked_by_own_name(&head(&two)));
        let mut absolute = head(&[(header::HOST, "localhost")]);
        absolute.uri = "http://evil.example/".parse().expect("a URI");
        assert!(!here.is_asked_by_own_name(&absolute));
        assert!(
            asked(&access("0.0.0.0:8080", SECRET), "anything.example"),
            "others reach it anyway"
        );
    }

    #[test]
    fn another_origins_page_is_recognized_by_the_browsers_headers() {
        for (site, elsewhere) in [
            ("same-origin", false),
            ("none", false),
            ("same-site", true),
            ("cross-site", true),
        ] {
            assert_eq!(
                is_from_elsewhere(&head(&[(SEC_FETCH_SITE, site)])),
                elsewhere,
                "{site}"
            );
        }
        assert!(!is_from_elsewhere(&head(&[])));
    }
}
