//! The proxy on the way to the service, if the environment names one: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use rustls::pki_types::InvalidDnsNameError;
use tokio::net::TcpStream;

use super::heads::{self, Head};

/// A proxy, and what opens it.
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether it is spoken to in plain HTTP, and not over TLS or as SOCKS.
    pub(super) is_plain_http: bool,
    /// Holds a password.
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// The proxy that the service's client would take.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let intercept = Matcher::from_env().intercept(&url.as_str().parse::<Uri>().ok()?)?;
        let uri = intercept.uri();
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        };
        Some(Self {
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(port),
            is_plain_http: scheme == "http",
            authorization: intercept.basic_auth().cloned(),
        })
    }

    /// Asks for a tunnel to a host, over a connection to the proxy.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, host: &str, port: u16) -> Result<(), Refused> {
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        self.authorize(&mut request);
        request.extend_from_slice(b"\r\n");
        let answer = Head::ask(stream, &request).await?;
        match answer.status {
            200..=299 => Ok(()),
            status => Err(Refused::Status(status)),
        }
    }

    /// Adds to a request's head what opens the proxy.
    pub(super) fn authorize(&self, request: &mut Vec<u8>) {
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the proxy answered {0}")]
    Status(u16),
    #[error("asking the proxy for it")]
    NoAnswer(#[from] heads::Error),
    #[error("no TLS is possible with that name")]
    Name(#[from] InvalidDnsNameError),
}
