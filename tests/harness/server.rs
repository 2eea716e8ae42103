//! A small server: it records its requests, and a function decides its answers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use serde_json::{Value, json};

use super::LIMIT;
use super::listener::Listener;

/// The token of all tests.
pub(crate) const TOKEN: &str = "a-token-that-nobody-may-see";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path_and_query: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What the server answers.
pub(crate) enum Answer {
    Whole(Response<Full<Bytes>>),
    /// The connection ends without an answer.
    Cut,
    /// No answer ever comes.
    Hang,
}

pub(crate) fn raw(status: u16, body: impl Into<Bytes>) -> Answer {
    let response = Response::builder()
        .status(status)
        .body(Full::new(body.into()))
        .expect("an answer");
    Answer::Whole(response)
}

pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
    raw(status, body.to_string())
}

pub(crate) fn error(status: u16) -> Answer {
    json_answer(
        status,
        &json!({"code": "TheCode", "message": "the message", "details": [{"a": 1}, "b"]}),
    )
}

pub(crate) fn with_header(answer: Answer, name: &'static str, value: &str) -> Answer {
    let Answer::Whole(mut response) = answer else {
        panic!("no answer, no header");
    };
    response
        .headers_mut()
        .insert(name, value.parse().expect("a header"));
    Answer::Whole(response)
}

/// It ends when dropped, with its connections.
pub(crate) struct Server {
    listener: Listener,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers each request with this function.
    pub(crate) async fn start(
        answers: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let (shared, answers) = (Arc::clone(&received), Arc::new(answers));
        let listener = Listener::start(move |stream| {
            let (received, answers) = (Arc::clone(&shared), Arc::clone(&answers));
            async move {
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&received), Arc::clone(&answers))
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A client that disconnects does not affect the others.
                let _ = serving.await;
            }
        });
        Self {
            listener: listener.await,
            received,
        }
    }

    /// Its base URL, with a path.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/ica", self.listener.port)
    }

    /// A client for it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.url().parse().expect("a URL"), &Tls::default(), LIMIT).expect("a client")
    }

    /// All requests, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("not poisoned").clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<impl Fn(&Received) -> Answer>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let request = Received {
        method: head.method.to_string(),
        path_and_query: head.uri.to_string(),
        headers: head.headers,
        body: body.collect().await?.to_bytes().to_vec(),
    };
    let answer = answers(&request);
    received.lock().expect("not poisoned").push(request);
    match answer {
        Answer::Whole(response) => Ok(response),
        Answer::Cut => Err("cut".into()),
        Answer::Hang => std::future::pending::<Result<_, Infallible>>()
            .await
            .map_err(Into::into),
    }
}

pub(crate) fn token() -> Secret {
    Secret::new(TOKEN)
}

/// An error with all its sources, as a log would show it. Neither this text nor Debug may contain
/// the token.
pub(crate) fn told(error: &podbeat_task_runs::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    assert!(!text.contains(TOKEN), "{text}");
    assert!(!format!("{error:?}").contains(TOKEN), "{error:?}");
    text
}
