//! The streams that update open pages (server-sent events). Each sends states, never steps: first
//! everything, then the current state of each part that changed. So a reconnected stream has missed
//! nothing, and a slow reader gets the newest state next.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::html::{self, Picture};
use super::{Source, Subject};
use crate::serve::{self, Body};

const EVENTS: &str = "text/event-stream";

/// The time between two looks, and so the shortest time between two events.
const TICK: Duration = Duration::from_millis(250);

/// The longest time without data, so that no proxy considers the connection dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser reconnects after a stream broke off, in milliseconds.
const RETRY: u64 = 1000;

/// The state that a stream has sent.
#[derive(Debug, Default)]
struct Told {
    regions: BTreeMap<&'static str, String>,
    rows: BTreeMap<u64, String>,
    order: Option<Vec<u64>>,
}

impl Told {
    /// The changes that make the page show this picture; `None` if it shows it already.
    fn tell(&mut self, picture: Picture) -> Option<serde_json::Value> {
        let Picture { regions, rows } = picture;
        let regions: BTreeMap<&str, String> = regions
            .into_iter()
            .filter(|(name, html)| self.regions.get(name) != Some(html))
            .collect();
        let order: Vec<u64> = rows.iter().map(|(key, _)| *key).collect();
        let is_ordered = self.order.as_ref() == Some(&order);
        let known = &self.rows;
        let changed: Vec<(u64, String)> = rows
            .iter()
            .filter(|(key, html)| known.get(key) != Some(html))
            .cloned()
            .collect();
        if regions.is_empty() && changed.is_empty() && is_ordered {
            return None;
        }
        let told = json!({"regions": regions, "order": order, "rows": changed});
        self.regions.extend(regions);
        self.rows = rows.into_iter().collect();
        self.order = Some(order);
        Some(told)
    }
}

struct Live<S> {
    source: Arc<S>,
    subject: Subject,
    told: Told,
    /// The version of the last look.
    seen: Option<u64>,
    events: u64,
    next_look: Instant,
    last_part: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<S: Source> Live<S> {
    /// Waits for the next part of the stream.
    async fn next(&mut self) -> String {
        loop {
            tokio::time::sleep_until(self.next_look).await;
            self.next_look = Instant::now() + TICK;
            if let Some(event) = self.look() {
                self.last_part = Instant::now();
                return event;
            }
            if self.last_part.elapsed() >= KEEP_ALIVE {
                self.last_part = Instant::now();
                return ":\n\n".to_owned();
            }
        }
    }

    fn look(&mut self) -> Option<String> {
        let version = self.source.version();
        if self.seen == Some(version) {
            return None;
        }
        self.seen = Some(version);
        let picture = match &self.subject {
            Subject::Runs(status) => html::runs_picture(&self.source.overview(*status)),
            Subject::Run(id) => html::run_picture(self.source.detail(id).as_ref()),
        };
        let mut told = self.told.tell(picture)?;
        if let Some(members) = told.as_object_mut() {
            members.insert("now".to_owned(), json!(self.source.now().as_millisecond()));
        }
        let retry = if self.events == 0 {
            format!("retry: {RETRY}\n")
        } else {
            String::new()
        };
        self.events += 1;
        // JSON escapes line breaks, so the data is one line.
        Some(format!(
            "{retry}id: {}\nevent: state\ndata: {told}\n\n",
            self.events
        ))
    }
}

/// The stream. It ends with its connection, or with the service.
pub(super) fn answer(
    source: Arc<impl Source>,
    subject: Subject,
    permit: OwnedSemaphorePermit,
) -> Response<Body> {
    let now = Instant::now();
    let live = Live {
        source,
        subject,
        told: Told::default(),
        seen: None,
        events: 0,
        next_look: now,
        last_part: now,
        _permit: permit,
    };
    let parts = stream::unfold(live, |mut live| async move {
        let part: io::Result<Bytes> = Ok(live.next().await.into());
        Some((part, live))
    });
    serve::stream(EVENTS, parts)
}

/// The headers of a stream without its content, for HEAD.
pub(super) fn none() -> Response<Body> {
    serve::stream(EVENTS, stream::empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::StreamExt;
    use http::Request;
    use http_body_util::BodyExt;
    use hyper::body::Incoming;
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::page::view::{Detail, Overview};
    use crate::serve::{Handler, Outcome, Server};
    use crate::task_runs::run::{Status, Wanted};
    use crate::task_runs::store::{Beat, Rules, Store};

    /// A service with runs that a test creates.
    struct Runs(Mutex<Store>);

    impl Runs {
        fn new() -> Arc<Self> {
            let rules = Rules {
                adopts: false,
                heartbeat_timeout: None,
                checks_nonces: false,
                most_runs: 10_000,
                most_bytes: 1 << 30,
            };
            Arc::new(Self(Mutex::new(Store::new(
                rules,
                Vec::new(),
                Timestamp::UNIX_EPOCH,
            ))))
        }

        fn create(&self, id: &str) {
            let mut store = self.0.lock().expect("not poisoned");
            store
                .create(id, Wanted::default(), 0, Timestamp::UNIX_EPOCH)
                .expect("a run");
        }
    }

    impl Runs {
        /// Changes every run at once.
        fn beat(&self, ids: &[String], retry_count: i32) {
            let mut store = self.0.lock().expect("not poisoned");
            let beat = Beat {
                retry_count: Some(retry_count),
                ..Beat::default()
            };
            for id in ids {
                store
                    .heartbeat(id, &beat, Timestamp::UNIX_EPOCH)
                    .expect("accepted");
            }
        }
    }

    impl Handler for Runs {
        fn refuses(&self) -> bool {
            false
        }

        async fn handle(self: Arc<Self>, _request: Request<Incoming>) -> Outcome {
            Ok(answer(self, Subject::Runs(None), place().await))
        }
    }

    async fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1))
            .acquire_owned()
            .await
            .expect("a place")
    }

    impl Source for Runs {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn version(&self) -> u64 {
            self.0.lock().expect("not poisoned").version()
        }

        fn overview(&self, status: Option<Status>) -> Overview {
            Overview::of(&self.0.lock().expect("not poisoned"), status)
        }

        fn detail(&self, _id: &str) -> Option<Detail> {
            None
        }
    }

    async fn stream_of(runs: &Arc<Runs>) -> impl StreamExt<Item = String> + Unpin {
        let response = answer(Arc::clone(runs), Subject::Runs(None), place().await);
        let parts = response.into_body().into_data_stream();
        parts.map(|part| String::from_utf8(part.expect("a part").into()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn many_changes_cause_few_events_and_the_last_has_the_newest_state() {
        let runs = Runs::new();
        let mut stream = stream_of(&runs).await;
        assert!(stream.next().await.expect("all").contains("No run yet"));
        let began = Instant::now();
        let changing = tokio::spawn({
            let runs = Arc::clone(&runs);
            async move {
                for nth in 0..300 {
                    runs.create(&format!("run-{nth}-"));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        let mut events = 0;
        while !stream.next().await.expect("an event").contains("run-299-") {
            events += 1;
        }
        let elapsed = began.elapsed();
        changing.await.expect("joined");
        assert!(elapsed <= Duration::from_millis(3_250), "{elapsed:?}");
        assert!((10..=12).contains(&events), "{events} in three seconds");
    }

    /// A slow reader gets fewer events, and the newest state in the end. Nothing accumulates beyond
    /// what the connection buffers: about 16 parts in the server, and the system's buffers.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_gets_the_newest_state_and_no_queue() {
        const ROUNDS: i32 = 32;
        const LIMIT: Duration = Duration::from_secs(60);
        let runs = Runs::new();
        let ids: Vec<String> = (0..200).map(|nth| format!("{nth:->200}")).collect();
        for id in &ids {
            runs.create(id);
        }
        let server = Server::start(None, Arc::clone(&runs), ([127, 0, 0, 1], 0).into());
        let server = server.await.expect("a server");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small window");
        let mut slow = socket.connect(server.address()).await.expect("connected");
        slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("sent");
        slow.read_exact(&mut [0; 1]).await.expect("it begins");
        // A second reader that keeps up.
        let mut quick = stream_of(&runs).await;
        let mut told = 0;
        for round in 1..=ROUNDS {
            runs.beat(&ids, round);
            let newest = format!("data-label=\\\"Retry\\\">{round}<");
            let wait = async {
                while !quick.next().await.expect("an event").contains(&newest) {
                    told += 1;
                }
                told += 1;
            };
            tokio::time::timeout(LIMIT, wait).await.expect("this round");
        }
        let newest = format!("data-label=\\\"Retry\\\">{ROUNDS}<");
        let read = async {
            let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                let count = slow.read(&mut buffer).await.expect("bytes");
                assert_ne!(count, 0, "the stream goes on");
                text.extend_from_slice(&buffer[..count]);
                if buffer[..count].ends_with(b"\n\n\r\n") {
                    let text = String::from_utf8_lossy(&text);
                    if text
                        .rsplit("event: state")
                        .next()
                        .is_some_and(|last| last.contains(&newest))
                    {
                        return text.matches("event: state").count();
                    }
                }
            }
        };
        let slowly = tokio::time::timeout(LIMIT, read)
            .await
            .expect("the newest state");
        assert!(
            slowly < told,
            "{slowly} events for the slow one, {told} for the quick one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_is_kept_alive() {
        let runs = Runs::new();
        let mut stream = stream_of(&runs).await;
        stream.next().await.expect("all");
        for _ in 0..3 {
            let before = Instant::now();
            assert_eq!(stream.next().await.as_deref(), Some(":\n\n"));
            let waited = before.elapsed();
            assert!(
                waited >= KEEP_ALIVE && waited <= KEEP_ALIVE + TICK,
                "{waited:?}"
            );
        }
    }

    fn picture(count: &str, rows: &[(u64, &str)]) -> Picture {
        let rows = rows.iter().map(|(key, html)| (*key, (*html).to_owned()));
        Picture {
            regions: vec![("count", count.to_owned())],
            rows: rows.collect(),
        }
    }

    #[test]
    fn the_first_event_has_everything_and_later_events_only_changes() {
        let mut told = Told::default();
        assert_eq!(
            told.tell(picture("2", &[(2, "b"), (1, "a")])),
            Some(json!({"regions": {"count": "2"}, "order": [2, 1], "rows": [[2, "b"], [1, "a"]]}))
        );
        assert_eq!(told.tell(picture("2", &[(2, "b"), (1, "a")])), None);
        assert_eq!(
            told.tell(picture("2", &[(2, "b"), (1, "c")])),
            Some(json!({"regions": {}, "order": [2, 1], "rows": [[1, "c"]]}))
        );
        assert_eq!(
            told.tell(picture("3", &[(3, "d"), (2, "b")])),
            Some(json!({"regions": {"count": "3"}, "order": [3, 2], "rows": [[3, "d"]]}))
        );
        assert_eq!(
            told.tell(picture("3", &[(2, "b"), (1, "c")])),
            Some(json!({"regions": {}, "order": [2, 1], "rows": [[1, "c"]]})),
            "a row that disappeared and returned is sent again"
        );
        assert_eq!(told.rows.len(), 2, "removed rows are not kept");
        let mut told = Told::default();
        assert!(
            told.tell(picture("0", &[])).is_some(),
            "an empty picture is a state, too"
        );
    }
}
