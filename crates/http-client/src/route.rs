//! Decides for a client, once, where it connects and through which proxy. Pure: this module does
//! not read the environment or use sockets.
//!
//! The rules are those of curl where curl has one: see docs/operations.md.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Why there is no route to a destination. The error contains no value of a variable, because it
/// may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The proxy can't be used.
    #[error("{named_by}: {problem}")]
    Proxy {
        /// The variable or kubeconfig field that names the proxy.
        named_by: &'static str,
        /// Why it can't be used.
        problem: Unusable,
    },
    /// The destination is not a URL.
    #[error("not a URL such as https://ica.example.com")]
    NotAUrl,
}

/// Why a proxy can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its value is not a URL.
    #[error("not the URL of a proxy, such as http://proxy.example.com:3128 (value not shown)")]
    NotAUrl,
    /// Its protocol is not supported.
    #[error(
        "podbeat supports only http:// and https:// proxies; use one of these, or unset it (value not shown)"
    )]
    Kind,
    /// The request would not be encrypted on the way.
    #[error(
        "podbeat does not send plain HTTP through a proxy, because the token would be unencrypted; use https"
    )]
    PlainHttp,
}

/// Where plain HTTP may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to loopback addresses, whatever the host's name resolves to.
    Loopback,
    /// To its host, but not through a proxy. `localhost` means this machine, whatever the name
    /// resolves to.
    Direct,
    /// To any host, also through a proxy.
    Anywhere,
}

/// The proxies of the environment, and the destinations that need none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    /// `NO_PROXY`.
    exceptions: String,
}

/// A variable with a value that may contain a password.
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
    /// Reads the variables. As with curl, lower case has precedence, and an empty variable counts
    /// as unset.
    #[must_use]
    pub fn read(get: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let first = |variables: &[&'static str]| {
            variables.iter().find_map(|&variable| {
                let value =
                    get(variable).filter(|value| !value.to_string_lossy().trim().is_empty())?;
                Some(Named { variable, value })
            })
        };
        let all = || first(&["all_proxy", "ALL_PROXY"]);
        // Under CGI, HTTP_PROXY is the client's request header `Proxy:`, so a client could set it.
        let http: &[_] = match get("REQUEST_METHOD") {
            Some(_) => &["http_proxy"],
            None => &["http_proxy", "HTTP_PROXY"],
        };
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map(|named| named.value);
        Self {
            http: first(http).or_else(all),
            https: first(&["https_proxy", "HTTPS_PROXY"]).or_else(all),
            // A value that is not UTF-8 names no host.
            exceptions: exceptions
                .map_or_else(String::new, |value| value.to_string_lossy().into_owned()),
        }
    }

    /// Returns the route to a destination.
    ///
    /// # Errors
    /// The route needs a proxy that can't be used.
    pub fn route(&self, url: Url, plain_http: PlainHttp) -> Result<Route, Error> {
        let is_plain = url.scheme() == "http";
        let way = if is_plain
            && (plain_http == PlainHttp::Loopback
                || plain_http == PlainHttp::Direct && is_loopback(&url))
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

    /// Returns the entry of `NO_PROXY` that matches a destination.
    fn exception(&self, url: &Url) -> Option<&str> {
        let (host, port) = (host(url)?, url.port_or_known_default());
        self.exceptions
            .split(|c: char| c == ',' || c.is_whitespace())
            .find(|entry| !entry.is_empty() && excepts(entry, &host, port))
    }
}

/// Whether an entry of `NO_PROXY` matches this destination. An entry is `*`, a name (with or
/// without a leading dot; it matches all names below it, too), an address, or a network such as
/// 10.0.0.0/8. A name or address may have a port. Any other entry matches nothing.
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
    // The last colon precedes a port, unless the entry is an IPv6 address without brackets.
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
    // Compares names as URLs have them: in lower case, with international names in ASCII. Other
    // spellings of an address that a URL accepts, such as `10.1` for 10.0.0.1, match nothing, as
    // with curl.
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
    text.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
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
        (IpAddr::V4(address), IpAddr::V4(network)) => (
            u128::from(address.to_bits()),
            u128::from(network.to_bits()),
            32,
        ),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    // A network of length 0 contains all addresses.
    length <= bits && (address ^ network).checked_shr(bits - length).unwrap_or(0) == 0
}

/// Returns the host of a URL. A name is in lower case and without a final dot.
fn host(url: &Url) -> Option<Host<String>> {
    Some(match url.host()? {
        Host::Domain(name) => Host::Domain(name.trim_end_matches('.').to_ascii_lowercase()),
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => Host::Ipv6(address),
    })
}

/// Whether a URL's host is this machine. `localhost` may resolve to any address, so clients of
/// [`Way::Loopback`] also check the addresses.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match host(url) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(address) => address_of(&address).is_some_and(|address| address.is_loopback()),
        None => false,
    }
}

/// Returns a URL for messages: without user, password, query and fragment.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails if there is a host.
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
    /// Through no proxy, and only to loopback addresses.
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

    /// The proxy on the way, if there is one.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        match &self.way {
            Way::Proxy(proxy) => Some(proxy),
            Way::Direct | Way::Loopback => None,
        }
    }

    /// Why the environment's proxy is not used, if the environment names one.
    #[must_use]
    pub fn passed_over(&self) -> Option<&str> {
        self.passed_over.as_deref()
    }

    /// The destination's host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
    }

    /// The destination's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Host and port of the next connection: the proxy's, or the destination's.
    #[must_use]
    pub fn next_hop(&self) -> (&str, u16) {
        match self.proxy() {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (self.host(), self.port()),
        }
    }

    /// Whether requests are encrypted up to the destination.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns a route through a proxy that is named elsewhere than in the environment, for this
    /// destination only. Plain HTTP never uses such a proxy, because it is not encrypted.
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

/// A route without a proxy. Plain HTTP may go only to loopback addresses.
impl FromStr for Route {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let url: Url = text.parse().map_err(|_| Error::NotAUrl)?;
        Proxies::default().route(url, PlainHttp::Loopback)
    }
}

/// A proxy, and its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    named_by: &'static str,
    host: String,
    port: u16,
    is_encrypted: bool,
    /// Contains a password.
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
        // The parser rejects such URLs without a host.
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
        // base64 is always a valid header value.
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

    /// The variable or kubeconfig field that names the proxy.
    #[must_use]
    pub fn named_by(&self) -> &'static str {
        self.named_by
    }

    /// Its host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the connection to the proxy uses TLS.
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

/// Host and port, without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

/// `host:port`, with brackets around an IPv6 address.
#[must_use]
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests;
