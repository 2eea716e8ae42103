//! Connections to the measured server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Error, io};

/// A request to the API.
pub type Call = Request<Full<Bytes>>;

/// The addresses and certificates of the measured server.
#[derive(Clone)]
pub struct Target {
    /// The address of the API.
    pub api: SocketAddr,
    /// The address of the probes.
    pub admin: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    /// A server whose certificate this authority issued. Each connection makes a full handshake of
    /// TLS 1.3.
    ///
    /// # Errors
    /// The certificate can't be used.
    pub fn new(api: SocketAddr, admin: SocketAddr, authority: &str) -> Result<Self, Error> {
        let failed = |problem: &str| io(problem.to_owned())(std::io::ErrorKind::InvalidData.into());
        let certificate = CertificateDer::from_pem_slice(authority.as_bytes())
            .map_err(|_| failed("reading the authority's certificate"))?;
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate)
            .map_err(|_| failed("using the authority's certificate"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| failed("choosing TLS 1.3"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self {
            api,
            admin,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A TLS connection.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, Error> {
        let stream = plain(self.api).await?;
        let name = ServerName::from(self.api.ip());
        let connecting = self.tls.connect(name, stream);
        connecting.await.map_err(io("a TLS handshake"))
    }

    /// A keep-alive connection over TLS.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn client(&self) -> Result<Client, Error> {
        Client::over(self.connect().await?).await
    }

    /// A keep-alive connection to the probes, without TLS.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn probe(&self) -> Result<Client, Error> {
        Client::over(plain(self.admin).await?).await
    }
}

async fn plain(address: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(io("connecting"))?;
    stream.set_nodelay(true).map_err(io("connecting"))?;
    Ok(stream)
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, Error> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends when the client is dropped. Its errors are also those of the requests.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// The connection broke off.
    pub async fn send(&mut self, call: Call) -> Result<(StatusCode, Bytes), Error> {
        self.0.ready().await?;
        let (head, body) = self.0.send_request(call).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, body))
    }

    /// Sends a request, and returns the answer's body.
    ///
    /// # Errors
    /// The connection broke off, or the answer has another status than `wanted`.
    pub async fn expect(
        &mut self,
        what: &'static str,
        call: Call,
        wanted: StatusCode,
    ) -> Result<Bytes, Error> {
        let (status, body) = self.send(call).await?;
        match status == wanted {
            true => Ok(body),
            false => Err(Error::Answer {
                what,
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            }),
        }
    }
}

/// A request with a token. A request with a body has JSON.
#[must_use]
pub fn call(method: Method, path: &str, authorization: HeaderValue, body: Bytes) -> Call {
    let has_body = !body.is_empty();
    let mut call = Request::new(Full::new(body));
    *call.method_mut() = method;
    // The paths are those of this program, and valid.
    *call.uri_mut() = path.parse().unwrap_or_default();
    let headers = call.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("127.0.0.1"));
    headers.insert(AUTHORIZATION, authorization);
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    call
}

/// A request for a probe.
#[must_use]
pub fn probe(path: &'static str) -> Call {
    let mut call = Request::new(Full::default());
    *call.uri_mut() = http::Uri::from_static(path);
    call.headers_mut()
        .insert(HOST, HeaderValue::from_static("127.0.0.1"));
    call
}
