//! Open watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::answer::{candidates, refusal, status};
use super::objects::{Key, Kind};
use super::request::Asked;
use crate::fault::What;
use crate::serve::{self, Body};

impl Shared {
    pub(super) fn watch(
        self: &Arc<Self>,
        asked: &Asked,
        selects: impl Fn(&Value) -> bool,
    ) -> Response<Body> {
        let state = self.state();
        let asked_version = asked.get("resourceVersion");
        let initial = asked.is_true("sendInitialEvents");
        if initial && asked.get("resourceVersionMatch") != "NotOlderThan" {
            drop(state);
            return refusal(
                422,
                "Invalid",
                "sendInitialEvents requires resourceVersionMatch NotOlderThan",
            );
        }
        let mut first = Vec::new();
        let mut cursor = state.version;
        if initial || matches!(asked_version, "" | "0") {
            first.extend(
                candidates(&state, asked)
                    .filter(|object| selects(object))
                    .map(|object| line("ADDED", object)),
            );
            if initial {
                first.push(bookmark(asked.kind, cursor, true));
            }
        } else {
            match asked_version.parse::<u64>() {
                Ok(version) if version < state.forgotten => {
                    let message =
                        format!("too old resource version: {version} ({})", state.forgotten);
                    first.push(line("ERROR", &status(410, "Expired", &message)));
                    drop(state);
                    return self.stream(asked, first, cursor, Some(What::End));
                }
                Ok(version) => cursor = version,
                Err(_) => {
                    drop(state);
                    return refusal(400, "BadRequest", "invalid resource version");
                }
            }
        }
        drop(state);
        self.stream(asked, first, cursor, None)
    }

    pub(super) fn stream(
        self: &Arc<Self>,
        asked: &Asked,
        first: Vec<String>,
        cursor: u64,
        then: Option<What>,
    ) -> Response<Body> {
        let timeout = asked.get("timeoutSeconds").parse().unwrap_or(1800);
        let now = Instant::now();
        let one = asked.one();
        let changes = {
            let mut state = self.state();
            state.open_watches += 1;
            match &one {
                Some(key) => state
                    .wakes
                    .entry(key.clone())
                    .or_insert_with(|| watch::Sender::new(0))
                    .subscribe(),
                None => self.changes.subscribe(),
            }
        };
        // For callers that wait for an open watch.
        self.changed();
        let watch = OpenWatch {
            kind: asked.kind,
            one,
            selects: asked
                .selector()
                .ok()
                .map(|selects| Box::new(selects) as Selector),
            ready: first.into(),
            cursor,
            sent: 0,
            then,
            ends: now + Duration::from_secs(timeout),
            bookmarks: asked.is_true("allowWatchBookmarks"),
            next_bookmark: now + self.state().options.bookmarks,
            changes,
            faults: self.faults.changes(),
            shared: Arc::clone(self),
        };
        let lines = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Next::Line(line) => Some((Ok(Bytes::from(line)), Some(watch))),
                Next::Break => Some((
                    Err(std::io::Error::other(
                        "connection closed by a scripted fault",
                    )),
                    None,
                )),
                Next::End => None,
            }
        });
        serve::stream("application/json", lines)
    }
}

enum Next {
    Line(String),
    Break,
    End,
}

/// Whether an object is selected.
type Selector = Box<dyn Fn(&Value) -> bool + Send>;

/// One open watch. It is counted while it exists.
struct OpenWatch {
    kind: Kind,
    /// The object, if the watch is for one object.
    one: Option<Key>,
    selects: Option<Selector>,
    ready: VecDeque<String>,
    cursor: u64,
    sent: usize,
    then: Option<What>,
    ends: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    changes: watch::Receiver<u64>,
    faults: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.shared.state().open_watches -= 1;
        self.shared.changed();
    }
}

impl OpenWatch {
    async fn next(&mut self) -> Next {
        loop {
            self.changes.borrow_and_update();
            self.faults.borrow_and_update();
            if let Some(line) = self.ready.pop_front() {
                self.sent += 1;
                return Next::Line(line);
            }
            match self
                .then
                .take()
                .or_else(|| self.shared.faults.strike_watch(self.sent))
            {
                Some(What::Cut) => {
                    // Pending once, so that hyper flushes the sent data before the connection
                    // breaks.
                    tokio::task::yield_now().await;
                    return Next::Break;
                }
                Some(What::End) => return Next::End,
                Some(What::Silent) => std::future::pending().await,
                Some(What::Garbage) => return Next::Line("{\"type\": oops\n".to_owned()),
                Some(What::Flood) => {
                    self.then = Some(What::Flood);
                    return Next::Line("x".repeat(64 << 10));
                }
                Some(What::Gone) => {
                    self.then = Some(What::End);
                    return Next::Line(line(
                        "ERROR",
                        &status(410, "Expired", "too old resource version"),
                    ));
                }
                // These faults are not for open watches.
                Some(_) | None => {}
            }
            self.collect();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.faults.changed() => {}
                () = tokio::time::sleep_until(self.ends) => return Next::End,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    // First, so that the bookmark comes after all earlier events.
                    self.collect();
                    self.ready.push_back(bookmark(self.kind, self.cursor, false));
                    self.next_bookmark = Instant::now() + self.shared.state().options.bookmarks;
                }
            }
        }
    }

    /// Takes the events since the cursor.
    fn collect(&mut self) {
        let state = self.shared.state();
        let Some(selects) = &self.selects else { return };
        let trimmed = match &self.one {
            Some(key) => state.trimmed_of.get(key).copied().unwrap_or(0),
            None => state.trimmed,
        };
        if self.cursor < trimmed {
            // The client is too slow: the history no longer has the next event.
            let message = format!("too old resource version: {} ({trimmed})", self.cursor);
            self.ready
                .push_back(line("ERROR", &status(410, "Expired", &message)));
            self.then = Some(What::End);
            self.cursor = state.version;
            return;
        }
        let none = VecDeque::new();
        let events = match &self.one {
            Some(key) => state.of_objects.get(key).unwrap_or(&none),
            None => &state.history,
        };
        // Versions only increase.
        let told = events.partition_point(|event| event.version <= self.cursor);
        for event in events.range(told..) {
            if event.kind == self.kind && selects(&event.object) {
                self.ready.push_back(line(event.change, &event.object));
            }
        }
        self.cursor = self.cursor.max(state.version);
    }
}

fn line(kind: &str, object: &Value) -> String {
    // Formatted by hand, so that `type` comes first, as in kube-apiserver's output.
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut()
        && kind != "ERROR"
    {
        members.entry("kind").or_insert(json!("Pod"));
        members.entry("apiVersion").or_insert(json!("v1"));
    }
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(kind: Kind, version: u64, initial_events_end: bool) -> String {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial_events_end && let Some(members) = metadata.as_object_mut() {
        members.insert(
            "annotations".to_owned(),
            json!({"k8s.io/initial-events-end": "true"}),
        );
    }
    line(
        "BOOKMARK",
        &json!({"kind": kind.name(), "apiVersion": kind.api_version(), "metadata": metadata}),
    )
}
