use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// A server that treats all connections alike and counts them.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Server {
    async fn start<Done: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> Done + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                served.spawn(serve(stream));
            }
        });
        Self {
            port,
            connections,
            _accepting: accepting,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Returns the head of a request, or `None` at the end of the connection.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn settings(route: Route) -> Settings {
    Settings {
        route,
        tls: tls::Encryption::default(),
        idle: LIMIT,
        silent: None,
        unacknowledged: None,
    }
}

fn client(server: &Server) -> Client {
    Client::new(settings(
        format!("http://127.0.0.1:{}/base", server.port)
            .parse()
            .expect("a route"),
    ))
}

async fn get(client: &Client) -> Result<Vec<u8>, Error> {
    let request = Request::get("/path?query")
        .body(Full::default())
        .expect("a request");
    let response = timeout(LIMIT, client.send(request, &Seen::default())).await;
    let body = response.expect("an end")?.into_body();
    let body = timeout(LIMIT, body.collect())
        .await
        .expect("an end of the body");
    Ok(body.expect("a whole body").to_bytes().to_vec())
}

/// `localhost` may resolve to other machines. Unencrypted requests must not leave this machine.
#[tokio::test]
async fn plain_http_to_localhost_connects_to_loopback_alone() {
    let server = Server::start(|mut stream| async move {
        while head(&mut stream).await.is_some() && stream.write_all(OK).await.is_ok() {}
    })
    .await;
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let to = |addresses: &[&str]| {
        let route = format!("http://localhost:{}", server.port)
            .parse()
            .expect("a route");
        let addresses = addresses.iter().map(|text| address(text)).collect();
        Client::with_resolver(settings(route), Resolver::Fixed(addresses))
    };
    for elsewhere in [
        &["192.0.2.1"][..],
        &["0.0.0.0"],
        &["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"],
    ] {
        let error = get(&to(elsewhere)).await.expect_err("not loopback");
        assert!(
            matches!(&error, Error::Connect(connect::Error::NotLoopback { host }) if host == "localhost"),
            "{error:?}"
        );
    }
    assert_eq!(server.connections(), 0);
    // Its other addresses are ignored.
    assert_eq!(
        get(&to(&["192.0.2.1", "127.0.0.1"]))
            .await
            .expect("an answer"),
        b"{}"
    );
    let nothing = get(&to(&[])).await.expect_err("no address");
    assert!(
        matches!(&nothing, Error::Connect(connect::Error::NoAddress { .. })),
        "{nothing:?}"
    );
}

#[tokio::test]
async fn an_address_without_a_listener_is_skipped() {
    let server = Server::start(|mut stream| async move {
        let _ = head(&mut stream).await;
        let _ = stream.write_all(OK).await;
    })
    .await;
    let route = format!("http://localhost:{}", server.port)
        .parse()
        .expect("a route");
    let addresses =
        ["127.0.0.2", "127.0.0.3", "127.0.0.1"].map(|text| text.parse().expect("an address"));
    let client = Client::with_resolver(settings(route), Resolver::Fixed(addresses.to_vec()));
    assert_eq!(get(&client).await.expect("an answer"), b"{}");
}

#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let server = Server::start(|mut stream| async move {
        while let Some(head) = head(&mut stream).await {
            assert!(head.starts_with("GET /path?query HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("\r\nhost: 127.0.0.1:"), "{head}");
            assert!(head.contains("\r\nuser-agent: podbeat/"), "{head}");
            let _ = stream.write_all(OK).await;
        }
    })
    .await;
    let client = client(&server);
    for _ in 0..3 {
        assert_eq!(get(&client).await.expect("an answer"), b"{}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    for goodbye in [
        &b""[..],
        b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (closed, mut was_closed) = tokio::sync::mpsc::channel(4);
        let server = Server::start(move |mut stream| {
            let closed = closed.clone();
            async move {
                let _ = head(&mut stream).await;
                let _ = stream.write_all(&[OK, goodbye].concat()).await;
                drop(stream);
                let _ = closed.send(()).await;
            }
        })
        .await;
        let client = client(&server);
        for expected in 1..4 {
            assert_eq!(get(&client).await.expect("an answer"), b"{}");
            timeout(LIMIT, was_closed.recv())
                .await
                .expect("the server closes");
            assert_eq!(server.connections(), expected);
        }
    }
}

/// A request that may have arrived is not repeated.
#[tokio::test]
async fn a_request_that_breaks_off_on_a_kept_connection_is_not_repeated() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heard);
    let server = Server::start(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            let _ = head(&mut stream).await;
            let _ = stream.write_all(OK).await;
            let _ = head(&mut stream).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let client = client(&server);
    get(&client).await.expect("an answer");
    let error = get(&client).await.expect_err("no answer");
    assert!(matches!(error, Error::Broken(_)), "{error:?}");
    assert_eq!(
        (heard.load(Ordering::Relaxed), server.connections()),
        (1, 1)
    );
}

#[tokio::test]
async fn a_connection_ends_with_its_body_its_idleness_and_its_client() {
    let (ended, mut ends) = tokio::sync::mpsc::channel(4);
    let server = Server::start(move |mut stream| {
        let ended = ended.clone();
        async move {
            while head(&mut stream).await.is_some() {
                let _ = stream.write_all(OK).await;
            }
            let _ = ended.send(()).await;
        }
    })
    .await;
    let mut end = async |what: &str| {
        timeout(LIMIT, ends.recv())
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    };
    // The body is dropped before its end.
    let dropped = client(&server);
    let request = Request::get("/").body(Full::default()).expect("a request");
    drop(
        dropped
            .send(request, &Seen::default())
            .await
            .expect("an answer"),
    );
    end("the body is dropped").await;
    // The connection is idle for too long, and the client exists.
    let route: Route = format!("http://127.0.0.1:{}", server.port)
        .parse()
        .expect("a route");
    let idle = Client::new(Settings {
        idle: Duration::from_millis(20),
        ..settings(route)
    });
    get(&idle).await.expect("an answer");
    end("the connection is idle").await;
    get(&idle).await.expect("an answer on another one");
    // The client is dropped.
    let gone = client(&server);
    get(&gone).await.expect("an answer");
    end("the connection is idle").await;
    drop(gone);
    end("the client is gone").await;
}

#[tokio::test]
async fn an_endless_body_without_bytes_times_out() {
    let server = Server::start(|mut stream| async move {
        let _ = head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await;
        std::future::pending::<()>().await;
    })
    .await;
    let route: Route = format!("http://127.0.0.1:{}", server.port)
        .parse()
        .expect("a route");
    let client = Client::new(Settings {
        silent: Some(Duration::from_millis(50)),
        ..settings(route)
    });
    let request = Request::get("/").body(Full::default()).expect("a request");
    let response = client
        .send(request, &Seen::default())
        .await
        .expect("an answer");
    let body = timeout(LIMIT, response.into_body().collect())
        .await
        .expect("an end");
    assert!(matches!(body, Err(BodyError::Silent(_))), "{body:?}");
}

#[tokio::test]
async fn the_status_of_an_incomplete_answer_is_kept() {
    for (came, expected) in [
        (&b"HTTP/1.1 200 OK\r\nX: "[..], Some(200)),
        (b"HTTP/1.1 200 OK\r\n\0\0\0\r\n\r\n", Some(200)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 \r\n", Some(503)),
        (b"HTTP/1.1 200 OK", None),
        (b"", None),
    ] {
        let server = Server::start(move |mut stream| async move {
            let _ = head(&mut stream).await;
            let _ = stream.write_all(came).await;
        })
        .await;
        let seen = Seen::default();
        let request = Request::get("/").body(Full::default()).expect("a request");
        let _ = timeout(LIMIT, client(&server).send(request, &seen))
            .await
            .expect("an end");
        assert_eq!(
            seen.status(),
            expected,
            "{:?}",
            String::from_utf8_lossy(came)
        );
    }
}
