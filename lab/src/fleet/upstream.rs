//! Connections to podbeat-server: one for each run, as its agent would have without the layer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use podbeat_server::api::head::Operation;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;
use crate::pki::Authority;
use crate::serve::{CutOff, Outcome};
use crate::service::layer::{Asked, Behind};

/// How long an answer may take, with its connection: longer than an agent waits.
const ANSWER: Duration = Duration::from_secs(30);

/// The maximum size of an answer, in bytes: a page of a thousand runs.
const LARGEST_ANSWER: usize = 8 << 20;

/// The maximum number of idle connections, whatever the limit of open files is: as many as
/// podbeat-server accepts.
const MOST_IDLE: usize = 16_384;

/// The key of connections that belong to no run.
const NO_RUN: &str = "";

type Client = SendRequest<axum::body::Body>;

/// The way to podbeat-server.
pub(crate) struct Upstream {
    address: SocketAddr,
    tls: TlsConnector,
    authorization: HeaderValue,
    /// By run.
    idle: Mutex<HashMap<String, Client>>,
    /// The maximum number of idle connections. A run above it has a new one for each request.
    most_idle: usize,
}

fn failed(what: &str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    let what = what.to_owned();
    move |source| crate::io(what)(io::Error::other(source))
}

impl Upstream {
    /// The server at this address, whose certificate the authority issued. `token` is for our own
    /// calls; agents have theirs. `files` is the limit of open files: a bit less than half of them
    /// are for idle connections, and the others for agents.
    pub(super) fn new(
        address: SocketAddr,
        authority: &Authority,
        token: &str,
        files: u64,
    ) -> Result<Self, Error> {
        let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes())
            .map_err(|error| failed("reading the authority's certificate")(error.into()))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Agents in their pods share no sessions, so each handshake is a full one.
        config.resumption = Resumption::disabled();
        let authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| failed("using the token of podbeat-server")(error.into()))?;
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
            authorization,
            idle: Mutex::default(),
            most_idle: usize::try_from(files / 2 - files / 50)
                .unwrap_or(MOST_IDLE)
                .min(MOST_IDLE),
        })
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<String, Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all connections that are not in use.
    pub(super) fn close(&self) {
        self.idle().clear();
    }

    async fn connect(&self) -> Result<Client, io::Error> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        client(self.tls.connect(name, stream).await?).await
    }

    /// Sends a request on the connection of `run`. Each caller has the connection for itself, so
    /// two callers of one run have two.
    async fn send(
        &self,
        run: &str,
        request: Request<axum::body::Body>,
    ) -> Result<Response<Bytes>, io::Error> {
        let known = self.idle().remove(run).filter(|client| !client.is_closed());
        let mut client = match known {
            Some(client) => client,
            None => self.connect().await?,
        };
        let answer = answer(&mut client, request).await?;
        let mut idle = self.idle();
        if !client.is_closed() && idle.len() < self.most_idle {
            idle.insert(run.to_owned(), client);
        }
        drop(idle);
        Ok(answer)
    }

    /// Sends a request of our own. `key` separates the connections of calls at the same time.
    pub(super) async fn call(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Error> {
        let what = format!("sending {method} {path} to podbeat-server");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .map_err(|error| failed(&what)(error.into()))?;
        let sent = tokio::time::timeout(ANSWER, self.send(key, request)).await;
        let answer = sent.map_err(io::Error::from).flatten();
        let answer = answer.map_err(crate::io(what))?;
        Ok((answer.status(), answer.into_body()))
    }

    /// Passes a request on. podbeat-server's failure is a closed connection.
    async fn pass(&self, run: &str, head: &Parts, body: axum::body::Body) -> Outcome {
        let request = Request::from_parts(head.clone(), body);
        let answer = tokio::time::timeout(ANSWER, self.send(run, request)).await;
        let (head, body) = answer
            .map_err(|_| CutOff)?
            .map_err(|_| CutOff)?
            .into_parts();
        let body = Full::new(body).map_err(|never| match never {});
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }
}

impl Behind for Upstream {
    async fn act(&self, asked: &Asked) -> Outcome {
        let run = match &asked.operation {
            Operation::Heartbeat(run) | Operation::Get(run) | Operation::Abort(run) => run,
            Operation::Create | Operation::List => NO_RUN,
        };
        self.pass(run, &asked.head, asked.raw.clone().into()).await
    }

    async fn ask(&self, head: &Parts, body: axum::body::Body) -> Outcome {
        self.pass(NO_RUN, head, body).await
    }
}

/// An HTTP connection.
async fn client(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Client, io::Error> {
    let (client, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the client. Its errors are also those of the requests.
    tokio::spawn(connection);
    Ok(client)
}

async fn answer(
    client: &mut Client,
    request: Request<axum::body::Body>,
) -> Result<Response<Bytes>, io::Error> {
    client.ready().await.map_err(io::Error::other)?;
    let answer = client.send_request(request).await;
    let (head, body) = answer.map_err(io::Error::other)?.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Gets a path from an address without TLS.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), io::Error> {
    let asking = async {
        let mut client = client(TcpStream::connect(address).await?).await?;
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, address.to_string())
            .body(axum::body::Body::empty())
            .map_err(io::Error::other)?;
        answer(&mut client, request).await
    };
    let answer = tokio::time::timeout(ANSWER, asking).await??;
    Ok((answer.status(), answer.into_body()))
}
