//! Where a client goes, and by which proxy: each client has one destination, and this is decided once for it, here. Pure.
//!
//! The rules are curl's, as far as it has one: see docs/operations.md. Never here: the environment, sockets.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Why there is no way to a destination. No value of a variable is part of it: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The proxy on the way can't be used.
    #[error("{named_by}: {problem}")]
    Proxy {
        /// What names it: a variable, or a kubeconfig.
        named_by: &'static str,
        /// Why not.
        problem: Unusable,
    },
    /// No destination.
    #[error("not a URL such as https://ica.example.com")]
    NotAUrl,
}

/// Why a proxy can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It has no URL.
    #[error("not the URL of a proxy, such as http://proxy.example.com:3128 (its value is not shown)")]
    NotAUrl,
    /// It is spoken to in another way.
    #[error(
        "podbeat uses http:// and https:// proxies only; name one of these, or unset it (its value is not shown)"
    )]
    Kind,
    /// What is sent could be read on the way.
    #[error("plain HTTP goes through no proxy, because it would carry the token unencrypted; use https")]
    PlainHttp,
}

/// How far plain HTTP may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// To addresses of loopback, whatever the host's name resolves to.
    Loopback,
    /// To its host, but through no proxy. `localhost` means this machine, whatever the name resolves to.
    Direct,
    /// Wherever its host is, through a proxy, too.
    Anywhere,
}

/// The proxies that the environment names, and the destinations that are reached without one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    /// `NO_PROXY`.
    exceptions: String,
}

/// A variable with a value that may hold a password.
#[derive(Clone, PartialEq, Eq)]
struct Named {
    variable: &'static str,
    value: OsString,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = |named: &Option<Named>| named.as_ref().map(|named| named.variable);
        f.debug_struct("Proxies")
            .field("http", &variable(&self.http))
            .field("https", &variable(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Proxies {
    /// Reads the variables. Those in lower case come first, as with curl; an empty one is unset.
    #[must_use]
    pub fn read(get: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let first = |variables: &[&'static str]| {
            variables.iter().find_map(|&variable| {
                let value = get(variable).filter(|value| !value.to_string_lossy().trim().is_empty())?;
                Some(Named { variable, value })
            })
        };
        let all = || first(&["all_proxy", "ALL_PROXY"]);
        // Under CGI, HTTP_PROXY is the header `Proxy:` of whoever asks.
        let http: &[_] = match get("REQUEST_METHOD") {
            Some(_) => &["http_proxy"],
            None => &["http_proxy", "HTTP_PROXY"],
        };
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map(|named| named.value);
        Self {
            http: first(http).or_else(all),
            https: first(&["https_proxy", "HTTPS_PROXY"]).or_else(all),
            // What is not UTF-8 names no host.
            exceptions: exceptions.map_or_else(String::new, |value| value.to_string_lossy().into_owned()),
        }
    }

    /// The way to a destination.
    ///
    /// # Errors
    /// The proxy that would be used can't be.
    pub fn route(&self, url: Url, plain_http: PlainHttp) -> Result<Route, Error> {
        let is_plain = url.scheme() == "http";
        let way = if is_plain
            && (plain_http == PlainHttp::Loopback || plain_http == PlainHttp::Direct && is_loopback(&url))
        {
            Way::Loopback
        } else {
            Way::Direct
        };
        let direct = |passed_over| {
            Ok(Route {
                url: url.clone(),
                way,
                passed_over,
            })
        };
        let Some(named) = (if is_plain { &self.http } else { &self.https }) else {
            return direct(None);
        };
        let why = if is_loopback(&url) {
            Some("the host is this machine itself".to_owned())
        } else if let Some(entry) = self.exception(&url) {
            Some(format!("NO_PROXY has {entry}"))
        } else if is_plain && plain_http != PlainHttp::Anywhere {
            Some("plain HTTP goes through no proxy".to_owned())
        } else {
            None
        };
        match why {
            Some(why) => direct(Some(format!("{} is not used, since {why}", named.variable))),
            None => Ok(Route {
                way: Way::Proxy(Proxy::parse(
                    named.variable,
                    named.value.to_str().unwrap_or_default(),
                )?),
                url,
                passed_over: None,
            }),
        }
    }

    /// The entry of `NO_PROXY` that a destination falls under.
    fn exception(&self, url: &Url) -> Option<&str> {
        let (host, port) = (host(url)?, url.port_or_known_default());
        self.exceptions
            .split(|c: char| c == ',' || c.is_whitespace())
            .find(|entry| !entry.is_empty() && excepts(entry, &host, port))
    }
}

/// Whether an entry of `NO_PROXY` names this destination: `*`, a name (and all below it, with a leading dot or without), an address,
/// a network such as 10.0.0.0/8; name or address with a port, too. What is none of these names nothing.
fn excepts(entry: &str, host: &Host<String>, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        let (Some(network), Ok(length)) = (address(network), length.parse()) else {
            return false;
        };
        return address_of(host).is_some_and(|address| is_within(address, network, length));
    }
    // The last colon is a port's, unless the entry is an IPv6 address without brackets.
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, port)) if entry.parse::<Ipv6Addr>().is_err() && !entry.ends_with(']') => {
            match port.parse::<u16>() {
                Ok(port) => (name, Some(port)),
                Err(_) => return false,
            }
        }
        _ => (entry, None),
    };
    if wanted.is_some() && wanted != port {
        return false;
    }
    if let Some(excepted) = address(name) {
        return address_of(host) == Some(excepted);
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.strip_prefix('.').unwrap_or(name).trim_end_matches('.');
    // As URLs have it: in lower case, and international names in ASCII. What a URL takes for an address beyond those above, such as
    // `10.1` for 10.0.0.1, names nothing, as with curl.
    match (Host::parse(name), host) {
        (Ok(Host::Domain(excepted)), Host::Domain(host)) => host
            .strip_suffix(&excepted)
            .is_some_and(|below| below.is_empty() || below.ends_with('.')),
        _ => false,
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').unwrap_or(text);
    let text = text.strip_suffix(']').unwrap_or(text);
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

fn address_of(host: &Host<String>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some(IpAddr::from(*address).to_canonical()),
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    // A network of length 0 is everything.
    length <= bits && (address ^ network).checked_shr(bits - length).unwrap_or(0) == 0
}

/// The host of a URL, a name without the dot of the root at its end.
fn host(url: &Url) -> Option<Host<String>> {
    Some(match url.host()? {
        Host::Domain(name) => Host::Domain(name.trim_end_matches('.').to_ascii_lowercase()),
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => Host::Ipv6(address),
    })
}

/// Whether a URL's host is this machine itself. A name that should be, `localhost`, may resolve to anything: clients of
/// [`Way::Loopback`] look at the addresses, too.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match host(url) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(address) => address_of(&address).is_some_and(|address| address.is_loopback()),
        None => false,
    }
}

/// A URL as messages show it: without user, password, query and fragment.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails where there is a host.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// A destination, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    url: Url,
    way: Way,
    passed_over: Option<String>,
}

/// How a destination is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through no proxy.
    Direct,
    /// Through no proxy, and to no address but those of loopback.
    Loopback,
    /// Through a proxy.
    Proxy(Proxy),
}

impl Route {
    /// The destination.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// How it is reached.
    #[must_use]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// The proxy on the way.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        match &self.way {
            Way::Proxy(proxy) => Some(proxy),
            Way::Direct | Way::Loopback => None,
        }
    }

    /// Why the environment's proxy is not used, where it names one.
    #[must_use]
    pub fn passed_over(&self) -> Option<&str> {
        self.passed_over.as_deref()
    }

    /// The destination's host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The destination's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Host and port to which a connection is made: the proxy's, or the destination's.
    #[must_use]
    pub fn next_hop(&self) -> (&str, u16) {
        match self.proxy() {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (self.host(), self.port()),
        }
    }

    /// Whether what is sent is encrypted, from here to the destination.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Through a proxy that something else than the environment names, for this destination alone. Plain HTTP goes through no
    /// proxy, because what it carries is not encrypted.
    ///
    /// # Errors
    /// The proxy can't be used, or the destination is plain HTTP on another machine.
    pub fn by(url: Url, named_by: &'static str, proxy: &str) -> Result<Self, Error> {
        if url.scheme() != "http" {
            return Ok(Self {
                url,
                way: Way::Proxy(Proxy::parse(named_by, proxy)?),
                passed_over: None,
            });
        }
        if !is_loopback(&url) {
            let problem = Unusable::PlainHttp;
            return Err(Error::Proxy { named_by, problem });
        }
        Ok(Self {
            url,
            way: Way::Loopback,
            passed_over: Some(format!(
                "{named_by} is not used, since the host is this machine itself"
            )),
        })
    }
}

/// A way without a proxy; plain HTTP goes to loopback alone.
impl FromStr for Route {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let url: Url = text.parse().map_err(|_| Error::NotAUrl)?;
        Proxies::default().route(url, PlainHttp::Loopback)
    }
}

/// A proxy, and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    named_by: &'static str,
    host: String,
    port: u16,
    is_encrypted: bool,
    /// Holds a password.
    authorization: Option<HeaderValue>,
}

impl Proxy {
    fn parse(named_by: &'static str, text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let url = match text.contains("://") {
            true => text.parse(),
            false => format!("http://{text}").parse(),
        };
        let unusable = |problem| Error::Proxy { named_by, problem };
        let url: Url = url.map_err(|_| unusable(Unusable::NotAUrl))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unusable(Unusable::Kind));
        }
        // The parser lets none of these be without one.
        let host = url.host_str().ok_or(unusable(Unusable::NotAUrl))?;
        let (user, password) = (url.username(), url.password());
        let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
        let authorization = (!user.is_empty() || password.is_some()).then(|| {
            let secret = [
                decoded(user),
                b":".to_vec(),
                decoded(password.unwrap_or_default()),
            ]
            .concat();
            format!("Basic {}", BASE64_STANDARD.encode(secret))
        });
        // base64 is fit for a header.
        let mut authorization = authorization.and_then(|value| HeaderValue::try_from(value).ok());
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self {
            named_by,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            is_encrypted: url.scheme() == "https",
            authorization,
        })
    }

    /// The variable that names it.
    #[must_use]
    pub fn named_by(&self) -> &'static str {
        self.named_by
    }

    /// Its host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// The value of `Proxy-Authorization`.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// Host and port, without its password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

/// `host:port`, with the brackets that an IPv6 address needs.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests;
