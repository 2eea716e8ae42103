//! Opens connections for a route: name resolution, TCP, the proxy's tunnel, TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Settings;
use super::head::{self, Head};
use super::rejected::Rejected;
use crate::route::{Proxy, Route, Way, authority};

/// How many addresses of one name are tried.
const ADDRESSES: usize = 8;

/// How long an address is tried alone before the next one is tried in parallel (RFC 8305, 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// TCP keepalive: after this idle time, the kernel sends the first probe.
const QUIET: Duration = Duration::from_secs(60);
/// The time between two keepalive probes.
const BETWEEN_PROBES: Duration = Duration::from_secs(15);
/// After this number of unanswered probes, the kernel closes the connection.
const PROBES: u32 = 3;

/// A connection over any transport: TCP, a tunnel or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("resolving {host}")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{host} has no address")]
    NoAddress { host: String },
    /// Plain HTTP that would leave this machine.
    #[error(
        "{host} does not resolve to a loopback address, and plain HTTP stays on this machine: use https, correct /etc/hosts, or set \
         PODBEAT_ALLOW_HTTP=true"
    )]
    NotLoopback { host: String },
    #[error("connecting to {to}")]
    Tcp {
        to: String,
        #[source]
        source: io::Error,
    },
    #[error("TLS with {host}")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("opening a tunnel to {to} through the proxy {proxy}")]
    Tunnel {
        to: String,
        proxy: String,
        #[source]
        source: Refused,
    },
    #[error("no connection within {}", humantime::format_duration(super::CONNECT))]
    TimedOut,
}

/// Why a proxy did not open a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the proxy answered {0}; check that it allows this host, and its user and password")]
    Status(u16),
    #[error("sending CONNECT to the proxy")]
    NoAnswer(#[from] head::Error),
}

/// Resolves host names.
pub enum Resolver {
    /// The C library.
    System,
    #[cfg(test)]
    /// These addresses, for every name.
    Fixed(Vec<std::net::IpAddr>),
}

impl Resolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            // The C library resolves on its own thread. If it hangs, that thread is abandoned.
            Self::System => Ok(lookup_host((host, port)).await?.collect()),
            #[cfg(test)]
            Self::Fixed(addresses) => Ok(addresses
                .iter()
                .map(|&address| (address, port).into())
                .collect()),
        }
    }
}

/// Resolves the addresses to which a connection may be opened: those of the next hop, without
/// duplicates. If the way is [`Way::Loopback`], addresses of other machines are left out.
///
/// # Errors
/// The name can't be resolved, or has no address that may be used.
pub async fn addresses(route: &Route, resolver: &Resolver) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = route.next_hop();
    let resolved = resolver.resolve(host, port).await;
    let resolved = resolved.map_err(|source| Error::Resolve {
        host: host.to_owned(),
        source,
    })?;
    if resolved.is_empty() {
        return Err(Error::NoAddress {
            host: host.to_owned(),
        });
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in resolved {
        let may_be_used = match route.way() {
            Way::Loopback => address.ip().to_canonical().is_loopback(),
            Way::Direct | Way::Proxy(_) => true,
        };
        if may_be_used && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Error::NotLoopback {
            host: host.to_owned(),
        });
    }
    Ok(addresses)
}

/// Opens a connection for requests to the route's destination. The caller sets the deadline.
pub(super) async fn connect(
    settings: &Settings,
    resolver: &Resolver,
) -> Result<Box<dyn Stream>, Error> {
    let route = &settings.route;
    let addresses = addresses(route, resolver).await?;
    let stream = tcp(addresses, settings.unacknowledged).await?;
    stream.set_nodelay(true).ok();
    let mut stream: Box<dyn Stream> = Box::new(stream);
    if let Some(proxy) = route.proxy() {
        stream = through(proxy, route, settings.tls.to_proxy.as_ref(), stream).await?;
    }
    match &settings.tls.to_destination {
        Some(config) if route.is_encrypted() => {
            let name = settings.tls.server_name.as_deref().unwrap_or(route.host());
            encrypt(config, name, stream).await
        }
        _ => Ok(stream),
    }
}

/// Turns a connection to a proxy into one to the route's destination. Plain HTTP needs no tunnel.
///
/// # Errors
/// TLS with the proxy fails, or the proxy does not open a tunnel.
pub async fn through(
    proxy: &Proxy,
    route: &Route,
    encryption: Option<&Arc<ClientConfig>>,
    mut stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, Error> {
    if let Some(config) = encryption.filter(|_| proxy.is_encrypted()) {
        stream = encrypt(config, proxy.host(), stream).await?;
    }
    if !route.is_encrypted() {
        return Ok(stream);
    }
    let to = authority(route.host(), route.port());
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    authorize(proxy, &mut request);
    request.extend_from_slice(b"\r\n");
    let answer = Head::ask(&mut *stream, &request).await;
    let refused = match answer {
        Ok(answer) if (200..300).contains(&answer.status) => return Ok(stream),
        Ok(answer) => Refused::Status(answer.status),
        Err(error) => Refused::NoAnswer(error),
    };
    Err(Error::Tunnel {
        to,
        proxy: proxy.to_string(),
        source: refused,
    })
}

/// Adds the proxy's credentials, if it has any, to the head of a request.
pub fn authorize(proxy: &Proxy, request: &mut Vec<u8>) {
    if let Some(authorization) = proxy.authorization() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
}

async fn encrypt(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, Error> {
    let failed = |source| Error::Tls {
        host: host.to_owned(),
        source,
    };
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await;
    let stream = stream.map_err(|error| {
        let rejected = error
            .get_ref()
            .and_then(|error| error.downcast_ref())
            .and_then(Rejected::new);
        failed(match rejected {
            Some(rejected) => io::Error::new(error.kind(), rejected),
            None => error,
        })
    })?;
    Ok(Box::new(stream))
}

/// Returns the first connection that succeeds. Tries the next address when one fails or takes
/// longer than [`HEAD_START`].
async fn tcp(
    addresses: Vec<SocketAddr>,
    unacknowledged: Option<Duration>,
) -> Result<TcpStream, Error> {
    let mut waiting = in_turns(addresses).into_iter();
    let mut tries = FuturesUnordered::new();
    let mut last = None;
    loop {
        match waiting.next() {
            Some(address) => tries.push(async move {
                let tried = one(address, unacknowledged).await;
                tried.map_err(|source| Error::Tcp {
                    to: address.to_string(),
                    source,
                })
            }),
            None if tries.is_empty() => break,
            None => {}
        }
        // The last address may use all the remaining time.
        let tried = match waiting.len() {
            0 => tries.next().await,
            _ => timeout(HEAD_START, tries.next()).await.unwrap_or(None),
        };
        match tried {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last = Some(error),
            None => {}
        }
    }
    Err(last.unwrap_or(Error::TimedOut))
}

/// Alternates IPv4 and IPv6, so that a network with only one of them costs one head start.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv4);
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv4()) == first);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    std::iter::from_fn(|| Some((same.next(), other.next())).filter(|pair| *pair != (None, None)))
        .flat_map(|(one, another)| [one, another])
        .flatten()
        .take(ADDRESSES)
        .collect()
}

async fn one(address: SocketAddr, unacknowledged: Option<Duration>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, QUIET)?;
    sockopt::set_tcp_keepintvl(&socket, BETWEEN_PROBES)?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    #[cfg(target_os = "linux")]
    if let Some(limit) = unacknowledged {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let turns = |addresses: &[&str]| {
            let addresses = addresses
                .iter()
                .map(|address| address.parse().expect("an address"));
            let turns = in_turns(addresses.collect());
            turns.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            turns(&["[::1]:1", "[::2]:1", "1.0.0.1:1", "[::3]:1", "1.0.0.2:1"]),
            ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]
        );
        assert_eq!(turns(&["1.0.0.1:1"]), ["1.0.0.1:1"]);
        assert_eq!(turns(&[]), Vec::<String>::new());
        let many: Vec<String> = (0..20).map(|nth| format!("1.0.0.{nth}:1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(turns(&many), many[..ADDRESSES]);
    }
}
