//! The streams that update open pages (server-sent events). Each sends states, never steps: first
//! everything, then the current state of each part that changed. So a reconnected stream has missed
//! nothing, and a slow reader gets the newest state next.
//!
//! Pages with the same content and reader share their looks at the store. There is at most one look a
//! second, and none if nothing has changed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::access::Session;
use super::content::{Subject, picture};
use super::html::Picture;
use crate::service::{Caller, Problem, Service};

/// The maximum number of open pages that are updated.
const STREAMS: usize = 32;

/// The time between two checks for changes.
const TICK: Duration = Duration::from_millis(250);

/// The shortest time between two looks at the store for the same page.
const LOOK: Duration = Duration::from_secs(1);

/// How often the session is checked while a page is open. After this time there is a look even if no
/// change was noted, because the note is missing if a request was given up during its commit.
const CHECK: Duration = Duration::from_secs(30);

/// The limit for a look, and for a check of the session.
const ANSWER: Duration = Duration::from_secs(10);

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
    fn tell(&mut self, picture: &Picture) -> Option<serde_json::Value> {
        let Picture { regions, rows } = picture;
        let regions: BTreeMap<&str, String> = regions
            .iter()
            .filter(|(name, html)| self.regions.get(name) != Some(html))
            .cloned()
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
        self.rows = rows.iter().cloned().collect();
        self.order = Some(order);
        Some(told)
    }
}

/// The newest picture of a page, for all its streams.
#[derive(Debug, Default)]
struct Look {
    /// When the store was read.
    at: Option<Instant>,
    /// The version of what was read.
    version: Option<Version>,
    picture: Option<Arc<Picture>>,
}

/// The number of changes of runs, and the newest heartbeat of the page's run.
type Version = (u64, Option<u64>);

type Shared = Arc<tokio::sync::Mutex<Look>>;

impl Look {
    /// The newest picture. Reads the store only if something has changed. `None` if it can't be read
    /// now, and there is no earlier picture.
    async fn newest(
        &mut self,
        service: &Service,
        caller: &Caller,
        subject: &Subject,
    ) -> Option<Arc<Picture>> {
        let age = self.at.map(|at| at.elapsed());
        // Before the look: a change during it is seen by the next one.
        let version = version(service, subject);
        let is_due = match age {
            None => true,
            Some(age) => age >= CHECK || (age >= LOOK && self.version != Some(version)),
        };
        if is_due {
            self.at = Some(Instant::now());
            let looked = tokio::time::timeout(ANSWER, picture(service, caller, subject));
            if let Ok(Ok(picture)) = looked.await {
                self.version = Some(version);
                // The same picture stays the same object, so that no stream compares it again.
                if self.picture.as_deref() != Some(&picture) {
                    self.picture = Some(Arc::new(picture));
                }
            }
        }
        self.picture.clone()
    }
}

fn version(service: &Service, subject: &Subject) -> Version {
    let newest = match subject {
        Subject::Runs(_) => None,
        Subject::Run(id) => service.newest_heartbeat(id),
    };
    (service.changes(), newest)
}

/// A page that somebody looks at: who, what, and the newest picture of it.
type Watched = (Caller, Subject, Weak<tokio::sync::Mutex<Look>>);

/// The open streams.
#[derive(Debug)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    watched: Mutex<Vec<Watched>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(STREAMS)),
            watched: Mutex::default(),
        }
    }
}

impl Streams {
    /// A place for a stream. `None` if there are too many.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    fn look(&self, caller: &Caller, subject: &Subject) -> Shared {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(_, _, look)| look.strong_count() > 0);
        let found = watched.iter().find(|(other, same, look)| {
            other == caller && same == subject && look.strong_count() > 0
        });
        if let Some(look) = found.and_then(|(_, _, look)| look.upgrade()) {
            return look;
        }
        let look = Shared::default();
        watched.push((caller.clone(), subject.clone(), Arc::downgrade(&look)));
        look
    }

    /// The stream. It ends with its connection, with its session, or with the service.
    pub(super) fn open(
        &self,
        service: Arc<Service>,
        (session, caller): (Session, Caller),
        subject: Subject,
        place: OwnedSemaphorePermit,
        ending: watch::Receiver<bool>,
    ) -> Response<Body> {
        let now = Instant::now();
        let live = Live {
            look: self.look(&caller, &subject),
            service,
            session,
            caller,
            subject,
            told: Told::default(),
            shown: None,
            events: 0,
            next_tick: now,
            next_check: now + CHECK,
            last_part: now,
            ending,
            _place: place,
        };
        let parts = stream::unfold(live, |mut live| async move {
            let part: io::Result<Bytes> = Ok(live.next().await?.into());
            Some((part, live))
        });
        response(parts)
    }
}

struct Live {
    service: Arc<Service>,
    session: Session,
    caller: Caller,
    subject: Subject,
    look: Shared,
    told: Told,
    /// The picture that the page shows.
    shown: Option<Arc<Picture>>,
    events: u64,
    next_tick: Instant,
    next_check: Instant,
    last_part: Instant,
    ending: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Waits for the next part of the stream. `None` at its end.
    async fn next(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                // An error means that the service is gone.
                _ = self.ending.wait_for(|ending| *ending) => return None,
                () = tokio::time::sleep_until(self.next_tick) => {}
            }
            let now = Instant::now();
            self.next_tick = now + TICK;
            if now >= self.next_check {
                self.next_check = now + CHECK;
                if !self.is_signed_in().await {
                    return None;
                }
            }
            if let Some(event) = self.event().await {
                self.last_part = Instant::now();
                return Some(event);
            }
            if self.last_part.elapsed() >= KEEP_ALIVE {
                self.last_part = Instant::now();
                return Some(":\n\n".to_owned());
            }
        }
    }

    /// Whether the session goes on, with the same rights. If the store does not answer, it does.
    async fn is_signed_in(&self) -> bool {
        let caller = tokio::time::timeout(ANSWER, self.session.caller(&self.service)).await;
        match caller {
            Ok(Ok(caller)) => caller.as_ref() == Some(&self.caller),
            Ok(Err(Problem::Unavailable { .. })) | Err(_) => true,
            Ok(Err(_)) => false,
        }
    }

    async fn event(&mut self) -> Option<String> {
        let mut look = self.look.lock().await;
        let newest = look
            .newest(&self.service, &self.caller, &self.subject)
            .await;
        drop(look);
        let newest = newest?;
        if self
            .shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(shown, &newest))
        {
            return None;
        }
        let told = self.told.tell(&newest);
        self.shown = Some(newest);
        let mut told = told?;
        if let Some(members) = told.as_object_mut() {
            let now = self.service.now().as_millisecond();
            members.insert("now".to_owned(), json!(now));
        }
        let retry = match self.events {
            0 => format!("retry: {RETRY}\n"),
            _ => String::new(),
        };
        self.events += 1;
        // JSON escapes line breaks, so the data is one line.
        Some(format!(
            "{retry}id: {}\nevent: state\ndata: {told}\n\n",
            self.events
        ))
    }
}

/// The headers of a stream without its content, for HEAD.
pub(super) fn none() -> Response<Body> {
    response(stream::empty::<io::Result<Bytes>>())
}

fn response(parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    // A proxy must not wait for the end.
    let at_once = HeaderValue::from_static("no");
    headers.insert("x-accel-buffering", at_once);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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
            told.tell(&picture("2", &[(2, "b"), (1, "a")])),
            Some(json!({"regions": {"count": "2"}, "order": [2, 1], "rows": [[2, "b"], [1, "a"]]}))
        );
        assert_eq!(told.tell(&picture("2", &[(2, "b"), (1, "a")])), None);
        assert_eq!(
            told.tell(&picture("2", &[(2, "b"), (1, "c")])),
            Some(json!({"regions": {}, "order": [2, 1], "rows": [[1, "c"]]}))
        );
        assert_eq!(
            told.tell(&picture("3", &[(3, "d"), (2, "b")])),
            Some(json!({"regions": {"count": "3"}, "order": [3, 2], "rows": [[3, "d"]]}))
        );
        assert_eq!(
            told.tell(&picture("3", &[(2, "b"), (1, "c")])),
            Some(json!({"regions": {}, "order": [2, 1], "rows": [[1, "c"]]})),
            "a row that disappeared and returned is sent again"
        );
        assert_eq!(told.rows.len(), 2, "removed rows are not kept");
        let mut told = Told::default();
        assert!(
            told.tell(&picture("0", &[])).is_some(),
            "an empty picture is a state, too"
        );
    }
}
