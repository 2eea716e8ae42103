//! An HTTP/1.1 client with one destination. The clients for the service and for the Kubernetes API
//! share this code.
//!
//! The client keeps one connection and reuses it. It sends a request at most once, and does not
//! follow redirects, because a redirect would send the token elsewhere.
//!
//! This crate knows no tokens and does not interpret responses. [`route`] decides the way to the
//! destination.

mod connect;
pub mod head;
pub mod rejected;
pub mod route;
mod status_line;
pub mod tls;

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};

pub use self::connect::{Resolver, Stream, addresses, authorize, through};
pub use self::status_line::Seen;
use self::status_line::Tap;
use crate::route::{Route, authority};

/// The User-Agent of all requests to the Kubernetes API and to the service.
pub const USER_AGENT: &str = concat!("podbeat/", env!("CARGO_PKG_VERSION"));

/// Limit for the header fields of a response. hyper's default is 100, and proxies that add fields
/// exceed it. hyper reserves memory for this many fields while it reads a head: with 2000, each
/// copy of podbeat used 0.2 MiB more.
const MOST_FIELDS: usize = 512;

/// Limit for opening a connection, including the proxy's tunnel and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// Settings of a client.
pub struct Settings {
    /// The destination, and the proxy on the way.
    pub route: Route,
    /// How connections are encrypted.
    pub tls: tls::Encryption,
    /// How long an idle connection is kept.
    pub idle: Duration,
    /// A body without a new byte for longer than this ends with an error.
    pub silent: Option<Duration>,
    /// TCP_USER_TIMEOUT: if the peer does not acknowledge data within this time, Linux gives up the
    /// connection, also after the client closed it. Other systems ignore this setting.
    pub unacknowledged: Option<Duration>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened, so nothing was sent.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The request may have been sent.
    #[error("the connection closed early, or the response is not HTTP")]
    Broken(#[source] hyper::Error),
}

/// A client with one destination. It is cheap to clone, and clones share the connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

struct Shared {
    settings: Settings,
    host: HeaderValue,
    resolver: Resolver,
    kept: Mutex<Option<Kept>>,
}

/// An idle connection.
struct Kept {
    link: Link,
    since: Instant,
    /// The task that closes the connection when the peer closes it or after the idle time.
    _keeper: Owned,
}

/// A task that is aborted when its owner is dropped.
struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Creates a client without opening a connection.
    pub fn new(settings: Settings) -> Self {
        Self::with_resolver(settings, Resolver::System)
    }

    /// As [`new`](Self::new), with another resolver.
    pub fn with_resolver(settings: Settings, resolver: Resolver) -> Self {
        let url = settings.route.url();
        let host = match url.port() {
            Some(port) => authority(settings.route.host(), port),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        Self {
            shared: Arc::new(Shared {
                // The host of a URL is always a valid header value.
                host: HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("")),
                settings,
                resolver,
                kept: Mutex::new(None),
            }),
        }
    }

    /// Sends one request. Only the path and the query of its URI are used. `seen` records the
    /// status of the response, also if this function fails.
    ///
    /// # Errors
    /// No connection could be opened, or it broke off before the head of the response was complete.
    ///
    /// # Cancel safety
    /// If the future or the body is dropped, the connection is closed. The request may have
    /// arrived.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        seen: &Seen,
    ) -> Result<Response<Answer>, Error> {
        let mut request = self.shared.addressed(request);
        let answered = loop {
            let kept = self.shared.take();
            let (link, is_new) = match kept {
                Some(link) => (link, false),
                None => (self.shared.connect().await?, true),
            };
            match link.exchange(request, seen).await {
                Ok(answered) => break answered,
                // The peer closed the kept connection before any byte of the request was sent, so
                // the request can use a new connection.
                Err(Unsent {
                    request: Some(unsent),
                    ..
                }) if !is_new => request = *unsent,
                Err(Unsent { error, .. }) => return Err(Error::Broken(error)),
            }
        };
        let (response, link) = answered;
        let silent = self.shared.settings.silent;
        Ok(response.map(|incoming| Answer {
            incoming,
            link: Some(link),
            home: Arc::downgrade(&self.shared),
            silence: silent.map(|silent| (silent, Box::pin(sleep(silent)))),
        }))
    }
}

impl Shared {
    /// Sets the URI and the headers that the route requires.
    fn addressed(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        let route = &self.settings.route;
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().path_and_query(path.clone());
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(crate::USER_AGENT),
        );
        // For an unencrypted request, a proxy needs the whole URL (RFC 9112, 3.2.2), and its
        // password with each request.
        let proxy = route.proxy().filter(|_| !route.is_encrypted());
        let uri = match proxy {
            Some(_) => uri.scheme("http").authority(self.host.as_bytes()),
            None => uri,
        };
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization()) {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        *request.uri_mut() = uri.build().unwrap_or_else(|_| path.into());
        request
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the kept connection, unless the peer closed it or it was idle for too long.
    fn take(&self) -> Option<Link> {
        let kept = self.kept().take()?;
        let is_fresh = kept.since.elapsed() < self.settings.idle;
        let mut link = kept.link;
        // Processes what arrived since then, such as the peer's close.
        let waker = futures_util::task::noop_waker();
        let is_open = link.drive(&mut Context::from_waker(&waker)).is_pending();
        (is_fresh && is_open && link.sender.is_ready()).then_some(link)
    }

    fn keep(self: Arc<Self>, mut link: Link, context: &mut Context<'_>) {
        // Lets hyper process the end of the response.
        if link.drive(context).is_ready() || link.sender.is_closed() {
            return;
        }
        let (home, idle) = (Arc::downgrade(&self), self.settings.idle);
        let closed = move |context: &mut Context<'_>| {
            let Some(home) = home.upgrade() else {
                return Poll::Ready(());
            };
            let mut kept = home.kept();
            let closed = match kept.as_mut() {
                Some(kept) => kept.link.drive(context).is_ready(),
                None => true,
            };
            if closed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        let home = Arc::downgrade(&self);
        let keeper = tokio::spawn(async move {
            let _ = timeout(idle, std::future::poll_fn(closed)).await;
            if let Some(home) = home.upgrade() {
                // This also aborts the current task, which awaits nothing after this line.
                *home.kept() = None;
            }
        });
        *self.kept() = Some(Kept {
            link,
            since: Instant::now(),
            _keeper: Owned(keeper),
        });
    }

    async fn connect(&self) -> Result<Link, Error> {
        let connecting = connect::connect(&self.settings, &self.resolver);
        let stream = timeout(CONNECT, connecting)
            .await
            .unwrap_or(Err(connect::Error::TimedOut))?;
        let tap = Tap::new(stream);
        let watched = tap.watched();
        let (sender, connection) = http1::Builder::new()
            // A response with an unusual head is still a response, as for curl. Otherwise podbeat
            // would repeat an accepted heartbeat until its deadline, and then report that it was
            // not delivered.
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .max_headers(MOST_FIELDS)
            .handshake(TokioIo::new(tap))
            .await
            .map_err(Error::Broken)?;
        Ok(Link {
            sender,
            connection: Some(connection),
            watched,
        })
    }
}

/// One connection. Its owner drives it, so a request needs no task of its own.
struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` after the connection ended.
    connection: Option<http1::Connection<TokioIo<Tap>, Full<Bytes>>>,
    watched: status_line::Watched,
}

/// A request that got no response.
struct Unsent {
    error: hyper::Error,
    /// The request, if none of it was sent.
    request: Option<Box<Request<Full<Bytes>>>>,
}

impl Link {
    /// Ready when the connection has ended.
    fn drive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(connection) = &mut self.connection {
            // The response reports why it ended.
            std::task::ready!(connection.poll_unpin(context)).ok();
            self.connection = None;
        }
        Poll::Ready(())
    }

    async fn exchange(
        mut self,
        request: Request<Full<Bytes>>,
        seen: &Seen,
    ) -> Result<(Response<Incoming>, Self), Unsent> {
        self.watched.begin(seen);
        let mut answer = pin!(self.sender.try_send_request(request));
        let answered = std::future::poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(answered);
            }
            // Driving the connection wakes the response future, or resolves it at once.
            let _ = self.drive(context);
            answer.as_mut().poll(context)
        });
        match answered.await {
            Ok(response) => Ok((response, self)),
            Err(mut failed) => Err(Unsent {
                request: failed.take_message().map(Box::new),
                error: failed.into_error(),
            }),
        }
    }
}

/// The body of a response. After its last byte is read, the connection is kept for the next
/// request.
pub struct Answer {
    incoming: Incoming,
    link: Option<Link>,
    home: Weak<Shared>,
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// Why a body is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke off.
    #[error("the response ended early")]
    Broken(#[from] hyper::Error),
    /// No byte arrived for this long.
    #[error("the response stalled for {}", humantime::format_duration(*.0))]
    Silent(Duration),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(context);
        if polled.is_pending()
            && let Some(link) = &mut self.link
        {
            // The next frame of the body shows whether the connection ended.
            let _ = link.drive(context);
            polled = Pin::new(&mut self.incoming).poll_frame(context);
        }
        match polled {
            Poll::Ready(None) => {
                if let (Some(link), Some(home)) = (self.link.take(), self.home.upgrade()) {
                    home.keep(link, context);
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(frame)) => {
                if let Some((silent, silence)) = &mut self.silence {
                    silence.as_mut().reset(Instant::now() + *silent);
                }
                Poll::Ready(Some(frame.map_err(BodyError::Broken)))
            }
            Poll::Pending => {
                let Some((silent, silence)) = &mut self.silence else {
                    return Poll::Pending;
                };
                std::task::ready!(silence.poll_unpin(context));
                Poll::Ready(Some(Err(BodyError::Silent(*silent))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // Not before the connection is available to the next request.
        self.incoming.is_end_stream() && self.link.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests;
