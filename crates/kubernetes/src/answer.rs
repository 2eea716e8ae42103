//! Reads responses of the API server within bounds: one object, a list item by item, a watch line
//! by line.
//!
//! kube's client reads whole responses, and lines of a watch of any length. A container has 32 MiB,
//! and the length of a response depends on anyone who can create objects, and on any proxy between
//! podbeat and the API server. So this module reads an object up to [`LARGEST`], and keeps one item
//! of a list in memory at a time.

use std::io;

use futures_util::{Stream, stream};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use kube::core::response::StatusDetails;
use podbeat_files::trimmed;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::resource::{Pod, or_default};

/// Limit for an object that the agent reads, in bytes of JSON. etcd accepts 1.5 MiB of the same
/// object in its shorter form.
pub(super) const LARGEST: usize = 4 << 20;

/// Limit for responses that are not objects of the cluster, in bytes: a refusal, a list without its
/// items, the response to a review.
pub(super) const SMALL: usize = 64 << 10;

/// Why there is no response, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refused the request.
    #[error("the API server refused the request")]
    Refused(Box<Status>),
    /// The response is not one of the Kubernetes API.
    #[error("the response is unreadable")]
    Unreadable(#[from] serde_json::Error),
    /// The request could not be created.
    #[error("cannot create the request")]
    Request(#[source] Cause),
    /// There was no connection, or it closed early.
    #[error("the connection failed")]
    Broken(#[source] Cause),
    /// There are no new credentials.
    #[cfg(feature = "kubeconfig")]
    #[error("cannot renew the credentials")]
    Credentials(#[source] kube::Error),
    /// The response exceeds a limit, in bytes.
    #[error("it exceeds {} KiB", .0 >> 10)]
    TooLarge(usize),
}

/// An error of the client or of the connection.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// kube's error is never the source of another error: its texts would be 90 KB of the image,
/// because it also reports wrong YAML.
impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            kube::Error::SerdeError(error) => Self::Unreadable(error),
            kube::Error::BuildRequest(error) => error.into(),
            kube::Error::HttpError(error) => Self::Request(error.into()),
            kube::Error::HyperError(error) => Self::Broken(error.into()),
            kube::Error::Service(error) => Self::Broken(error),
            kube::Error::ReadEvents(error) => Self::Broken(error.into()),
            #[cfg(feature = "kubeconfig")]
            kube::Error::Auth(_) => Self::Credentials(error),
            #[cfg(feature = "kubeconfig")]
            other => Self::Request(other.into()),
            // All others are about settings of kube that the image does not use.
            #[cfg(not(feature = "kubeconfig"))]
            _ => Self::Request("kube reports an unexpected error".into()),
        }
    }
}

impl From<kube::core::request::Error> for Error {
    fn from(error: kube::core::request::Error) -> Self {
        Self::Request(error.into())
    }
}

/// Sends a request and reads the object in the response.
pub(super) async fn object<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<T, Error> {
    let mut body = send(client, request).await?.into_body();
    let bytes = whole(&mut body, LARGEST).await?;
    serde_json::from_slice(trimmed::bytes(&bytes)).map_err(Error::from)
}

/// The parts of a list other than its items.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    /// The resourceVersion from which a watch can start.
    #[serde(deserialize_with = "or_default")]
    pub(super) resource_version: String,
    /// The token of the next page. Empty on the last page.
    #[serde(rename = "continue", deserialize_with = "or_default")]
    pub(super) continues: String,
}

/// Sends a request and passes the items of the list in the response to `each`, one by one, as JSON.
/// An item may have at most `most` bytes.
pub(super) async fn list(
    client: &Client,
    request: Request<Vec<u8>>,
    most: usize,
    each: &mut (dyn FnMut(&[u8]) -> serde_json::Result<()> + Send),
) -> Result<ListMeta, Error> {
    #[derive(Deserialize)]
    struct Around {
        #[serde(default, deserialize_with = "or_default")]
        metadata: ListMeta,
        // A response without items is not a list.
        #[serde(rename = "items")]
        _items: serde::de::IgnoredAny,
    }

    let mut body = send(client, request).await?.into_body();
    let mut items = Items::default();
    while let Some(bytes) = next(&mut body).await? {
        items.feed(&bytes, most, each)?;
    }
    let around: Around =
        serde_json::from_slice(trimmed::bytes(&items.around)).map_err(Error::from)?;
    Ok(around.metadata)
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// The current pod.
    Shown(Box<Pod>),
    /// The last state of a deleted pod.
    Deleted(Box<Pod>),
    /// A bookmark with the resourceVersion that the watch has reached.
    Bookmark(String),
    /// The API server ended the watch with an error.
    Refused(Box<Status>),
}

/// Sends a request and reads the watch in the response. The stream ends after an error.
pub(super) async fn watch(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<impl Stream<Item = Result<Event, Error>> + use<>, Error> {
    let body = send(client, request).await?.into_body();
    let lines = Lines {
        body,
        line: Vec::new(),
        rest: Bytes::new(),
    };
    Ok(stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        let event = match lines.next().await {
            Ok(None) => return None,
            Ok(Some(line)) => event(&line),
            Err(error) => Err(error),
        };
        let go_on = event.is_ok().then_some(lines);
        Some((event, go_on))
    }))
}

fn event(line: &[u8]) -> Result<Event, Error> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Of<T> {
        object: T,
    }
    #[derive(Deserialize)]
    struct Marked {
        metadata: Version,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        resource_version: String,
    }
    fn of<T: DeserializeOwned>(line: &[u8]) -> Result<T, Error> {
        let Of { object } = serde_json::from_slice(line).map_err(Error::from)?;
        Ok(object)
    }

    let line = trimmed::bytes(line);
    // Parses the type first, because the kind of object depends on it.
    let Ok(Kind { kind }) = serde_json::from_slice(line) else {
        // A failing API server may send a bare Status.
        return match serde_json::from_slice::<Refusal>(line) {
            Ok(refusal) if refusal.code != 0 => Ok(Event::Refused(refusal.status(0))),
            Ok(_) => Err(Error::Unreadable(serde::de::Error::missing_field("type"))),
            Err(error) => Err(Error::Unreadable(error)),
        };
    };
    Ok(match kind.as_str() {
        "ADDED" | "MODIFIED" => Event::Shown(of(line)?),
        "DELETED" => Event::Deleted(of(line)?),
        "BOOKMARK" => Event::Bookmark(of::<Marked>(line)?.metadata.resource_version),
        "ERROR" => Event::Refused(of::<Refusal>(line)?.status(0)),
        _ => {
            return Err(Error::Unreadable(serde::de::Error::unknown_variant(
                "another",
                &["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"],
            )));
        }
    })
}

/// Splits a watch into lines.
struct Lines {
    body: Body,
    /// The incomplete line.
    line: Vec<u8>,
    /// The bytes after it.
    rest: Bytes,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            let part = self
                .rest
                .split_to(end.map_or(self.rest.len(), |end| end + 1));
            if self.line.len() + part.len() > LARGEST {
                return Err(Error::TooLarge(LARGEST));
            }
            self.line.extend_from_slice(&part);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            } else {
                self.rest = match next(&mut self.body).await {
                    Ok(Some(bytes)) => bytes,
                    // Ignores a line without its end.
                    Ok(None) => return Ok(None),
                    Err(error) if is_end(&error) => return Ok(None),
                    Err(error) => return Err(error),
                };
            }
        }
    }
}

/// Whether a watch ended in an expected way: the connection was closed in the middle of a chunk, as
/// many load balancers do, or was silent for too long.
fn is_end(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut)
        ) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Splits a list into its items while it arrives.
#[derive(Default)]
struct Items {
    /// Everything outside the items.
    around: Vec<u8>,
    /// The incomplete item.
    item: Vec<u8>,
    /// The number of open brackets and braces.
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    /// The last string of the list itself. If a colon follows, it is the name of a member.
    name: Vec<u8>,
    /// Whether the next member is `items`.
    is_named: bool,
    /// Whether the brackets of `items` are open.
    is_inside: bool,
}

const ITEMS: &[u8] = b"items";

/// The depth inside the braces of the list.
const LIST: usize = 1;

/// The depth inside the brackets of its items.
const INSIDE: usize = 2;

impl Items {
    fn feed(
        &mut self,
        bytes: &[u8],
        most: usize,
        each: &mut dyn FnMut(&[u8]) -> serde_json::Result<()>,
    ) -> Result<(), Error> {
        for &byte in bytes {
            let is_open = self.is_inside;
            let ends_item = self.read(byte);
            if !(is_open && self.is_inside) {
                if self.around.len() == SMALL {
                    return Err(Error::TooLarge(SMALL));
                }
                self.around.push(byte);
            } else if !ends_item {
                if self.item.len() == most {
                    return Err(Error::TooLarge(most));
                }
                self.item.push(byte);
            }
            if ends_item {
                let item = std::mem::take(&mut self.item);
                if !item.trim_ascii().is_empty() {
                    each(&item).map_err(Error::from)?;
                }
            }
        }
        Ok(())
    }

    /// Returns whether an item ended before this byte.
    fn read(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            if self.in_text && self.depth == LIST && self.name.len() <= ITEMS.len() {
                self.name.push(byte);
            }
            return false;
        }
        match byte {
            b'"' => {
                self.in_text = true;
                self.name.clear();
            }
            b':' if self.depth == LIST => self.is_named = self.name == ITEMS,
            b',' if self.depth == LIST => self.is_named = false,
            b',' => return self.is_inside && self.depth == INSIDE,
            b'[' | b'{' => {
                self.is_inside |= byte == b'[' && self.depth == LIST && self.is_named;
                self.depth += 1;
            }
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                if self.is_inside && self.depth < INSIDE {
                    self.is_inside = false;
                    return true;
                }
            }
            _ => {}
        }
        false
    }
}

/// A refusal, without the members that podbeat does not read, such as causes, of which there may be
/// any number.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(deserialize_with = "or_default")]
    code: u16,
    #[serde(deserialize_with = "or_default")]
    message: String,
    #[serde(deserialize_with = "or_default")]
    reason: String,
    #[serde(deserialize_with = "or_default")]
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    #[serde(deserialize_with = "or_default")]
    retry_after_seconds: u32,
}

impl Refusal {
    /// Converts the refusal into a status of kube. Uses the response's own code if the body has
    /// none.
    fn status(self, code: u16) -> Box<Status> {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: self.details.retry_after_seconds,
        };
        let code = if self.code == 0 { code } else { self.code };
        let mut status = Status::failure(&self.message, &self.reason).with_code(code);
        status.details = Some(details);
        status.boxed()
    }
}

/// Sends a request. Returns the response, or an error if it is a refusal.
async fn send(client: &Client, request: Request<Vec<u8>>) -> Result<Response<Body>, Error> {
    let mut response = client.send(request.map(Body::from)).await?;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    // The status decides, even if the body can't be read. A proxy's body may have any form.
    let body = whole(response.body_mut(), SMALL).await.unwrap_or_default();
    let refusal = serde_json::from_slice(trimmed::bytes(&body)).unwrap_or_else(|_| Refusal {
        message: String::from_utf8_lossy(trimmed::bytes(&body)).into_owned(),
        reason: "Failed to parse error data".to_owned(),
        ..Refusal::default()
    });
    Err(Error::Refused(refusal.status(status.as_u16())))
}

/// Reads a whole body, up to a limit in bytes.
pub(super) async fn whole(body: &mut Body, most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(part) = next(body).await? {
        if bytes.len() + part.len() > most {
            return Err(Error::TooLarge(most));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::StreamExt;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A client that sends this response to every request, in these parts.
    fn answering(status: u16, parts: Vec<Vec<u8>>) -> Client {
        let parts = Arc::new(parts);
        let service = tower_service_fn(move |_: Request<Body>| {
            let parts: Vec<_> = parts
                .iter()
                .cloned()
                .map(|part| Ok(Frame::data(part.into())))
                .collect();
            let body = StreamBody::new(stream::iter(parts));
            let response = Response::builder()
                .status(status)
                .body(body)
                .expect("an answer");
            ready(Ok::<Response<Parts>, Infallible>(response))
        });
        Client::new(service, "default")
    }

    type Parts = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

    #[derive(Clone)]
    struct ServiceFn<F>(F);

    fn tower_service_fn<F, R>(answer: F) -> ServiceFn<F>
    where
        F: Fn(Request<Body>) -> R,
    {
        ServiceFn(answer)
    }

    impl<F, R> tower_service::Service<Request<Body>> for ServiceFn<F>
    where
        F: Fn(Request<Body>) -> R,
        R: Future<Output = Result<Response<Parts>, Infallible>>,
    {
        type Response = Response<Parts>;
        type Error = Infallible;
        type Future = R;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> R {
            (self.0)(request)
        }
    }

    fn request() -> Request<Vec<u8>> {
        Request::get("/").body(Vec::new()).expect("a request")
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name, "annotations": {"a": "]}[{\",\\"}}, "spec": {}, "status": {}})
    }

    async fn listed(answer: &[u8], at_once: usize) -> Result<(Vec<Value>, ListMeta), Error> {
        let parts = answer.chunks(at_once.max(1)).map(<[u8]>::to_vec).collect();
        let mut items = Vec::new();
        let mut take = |item: &[u8]| {
            items.push(serde_json::from_slice(item)?);
            Ok(())
        };
        let meta = list(&answering(200, parts), request(), LARGEST, &mut take).await?;
        Ok((items, meta))
    }

    #[tokio::test]
    async fn a_list_is_parsed_in_any_split() {
        let pods = [pod("a"), json!({"items": [1, {"items": []}]}), pod("b")];
        let answer = json!({"kind": "items", "items": pods, "metadata": {"resourceVersion": "7", "continue": "more"}});
        for text in [
            answer.to_string(),
            format!("{answer:#}"),
            format!("\u{feff}{answer}\r\n"),
        ] {
            for at_once in [1, 2, 3, 7, 64, text.len()] {
                let (items, meta) = listed(text.as_bytes(), at_once).await.expect("a list");
                assert_eq!(items, pods, "{at_once}");
                assert_eq!(
                    (meta.resource_version.as_str(), meta.continues.as_str()),
                    ("7", "more")
                );
            }
        }
        for (text, count) in [
            (r#"{"items":null}"#, 0),
            (r#"{"items":[ ]}"#, 0),
            (r#"{"metadata":null,"items":[{},1,null]}"#, 3),
        ] {
            let (items, meta) = listed(text.as_bytes(), 5).await.expect(text);
            assert_eq!(
                (items.len(), meta.continues.as_str()),
                (count, ""),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn other_json_than_a_list_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            r#"{"items":[{}"#,
            r#"{"items":[{}}"#,
            r#"{"items":[{]}"#,
            r#"{"items":[}]}"#,
            r#"{"items":[]"#,
        ] {
            let error = listed(text.as_bytes(), 3).await.expect_err(text);
            assert!(matches!(error, Error::Unreadable(_)), "{text}: {error:?}");
        }
    }

    #[tokio::test]
    async fn every_read_has_a_limit() {
        let part = || vec![b' '; 1 << 20];
        let many = |first: &str| {
            let parts = std::iter::once(first.as_bytes().to_vec());
            parts.chain((0..100).map(|_| part())).collect::<Vec<_>>()
        };
        let is_too_large =
            |error: Error, most: usize| matches!(error, Error::TooLarge(found) if found == most);
        let client = answering(200, many("{"));
        let error = object::<Value>(&client, request())
            .await
            .expect_err("too large");
        assert!(is_too_large(error, LARGEST));
        let mut take = |_: &[u8]| Ok(());
        for (begins, most) in [("{", SMALL), (r#"{"items":[{"#, LARGEST)] {
            let client = answering(200, many(begins));
            let error = list(&client, request(), LARGEST, &mut take)
                .await
                .expect_err("too large");
            assert!(is_too_large(error, most), "{begins}");
        }
        let client = answering(200, many("{"));
        let mut lines = pin!(watch(&client, request()).await.expect("a watch"));
        let error = lines.next().await.expect("an item").expect_err("too large");
        assert!(is_too_large(error, LARGEST));
        assert!(
            lines.next().await.is_none(),
            "nothing comes behind an error"
        );
        // For a refusal, the status decides.
        let error = object::<Value>(&answering(503, many("{")), request())
            .await
            .expect_err("refused");
        assert!(matches!(error, Error::Refused(status) if status.code == 503));
    }

    #[tokio::test]
    async fn a_watch_is_read_line_by_line_in_any_split() {
        let lines = [
            json!({"type": "ADDED", "object": pod("a")}).to_string(),
            String::new(),
            json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}).to_string(),
            json!({"object": pod("a"), "type": "DELETED"}).to_string(),
            json!({"type": "ERROR", "object": {"code": 410, "message": "gone", "causes": [{}, {}]}})
                .to_string(),
            "{\"type\": \"MODIFIED\", \"obj".to_owned(),
        ];
        let text = format!("\u{feff}{}", lines.join("\r\n"));
        for at_once in [1, 5, 50, text.len()] {
            let parts = text
                .as_bytes()
                .chunks(at_once)
                .map(<[u8]>::to_vec)
                .collect();
            let client = answering(200, parts);
            let events = watch(&client, request()).await.expect("a watch");
            let events: Vec<_> = events.map(|event| event.expect("readable")).collect().await;
            let [
                Event::Shown(shown),
                Event::Bookmark(version),
                Event::Deleted(_),
                Event::Refused(status),
            ] = &events[..]
            else {
                panic!("{events:?}");
            };
            assert_eq!(shown.metadata.name.as_deref(), Some("a"));
            assert_eq!((version.as_str(), status.code), ("9", 410));
        }
    }

    #[tokio::test]
    async fn a_line_that_is_no_event_is_an_error() {
        for (line, code) in [
            ("{\"type\": oops\n", None),
            ("{\"type\":\"DANCED\",\"object\":{}}\n", None),
            ("{\"type\":\"ADDED\"}\n", None),
            ("{\"kind\":\"Status\",\"code\":410}\n", Some(410)),
        ] {
            let client = answering(200, vec![line.as_bytes().to_vec()]);
            let mut events = pin!(watch(&client, request()).await.expect("a watch"));
            match (events.next().await.expect("an item"), code) {
                (Ok(Event::Refused(status)), Some(code)) => assert_eq!(status.code, code),
                (Err(Error::Unreadable(_)), None) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_has_the_answers_code_whatever_its_body_is() {
        let refused = async |body: &str| {
            let client = answering(403, vec![body.as_bytes().to_vec()]);
            match object::<Value>(&client, request()).await {
                Err(Error::Refused(status)) => status,
                other => panic!("{other:?}"),
            }
        };
        let said = json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no", "details": {"retryAfterSeconds": 3}});
        let status = refused(&format!("\u{feff}{said}")).await;
        assert_eq!(
            (status.code, status.reason.as_str(), status.message.as_str()),
            (403, "Forbidden", "no")
        );
        assert_eq!(status.details.expect("details").retry_after_seconds, 3);
        assert_eq!(
            refused("<html>no</html>\n").await.message,
            "<html>no</html>"
        );
        assert_eq!(refused("{}").await.code, 403);
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}\",:items \\\\]{0,60}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = event(bytes);
                let _ = Items::default().feed(bytes, LARGEST, &mut |item| serde_json::from_slice::<Value>(item).map(drop));
            }
        }

        /// The items are those that a parser of the whole response finds.
        #[test]
        fn parsed_items_equal_those_of_the_whole_list(names in proptest::collection::vec("[\"\\\\\\[\\]{},:a]{0,8}", 0..6), at_once in 1_usize..40) {
            let pods: Vec<Value> = names.iter().map(|name| json!({"items": [name], name.as_str(): {"b": name}})).collect();
            let text = json!({"a": names, "items": pods, "z": {"items": names}}).to_string();
            let mut found = Vec::new();
            let mut items = Items::default();
            for part in text.as_bytes().chunks(at_once) {
                let fed = items.feed(part, LARGEST, &mut |item| {
                    found.push(serde_json::from_slice::<Value>(item)?);
                    Ok(())
                });
                prop_assert!(fed.is_ok());
            }
            prop_assert_eq!(found, pods);
        }
    }
}
