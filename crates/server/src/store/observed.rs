//! A store that reports how long its operations take, and how they fail.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Change, Created, Entry, Error, Execution, Future, NewRun, Page, Query, Store, StoredRun, Token,
};
use podbeat_runs::Status;

/// What kind of operation this is. Operations of one kind usually fail together, and the others may
/// still succeed: with a full disk, nothing is written, but everything can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It needs the right to write, but may have nothing to write.
    Maintain,
}

impl Kind {
    /// The number of kinds.
    pub const COUNT: usize = 3;
}

/// Learns about the operations of a store.
pub trait Observer: Send + Sync + 'static {
    /// An operation began.
    fn begun(&self);

    /// An operation that began is over: it ended, or its caller gave it up.
    fn left(&self);

    /// An operation ended after this time. `failure` is why the store could not do its work; a
    /// refusal such as [`Error::Exists`] is no failure.
    fn ended(&self, operation: &'static str, kind: Kind, took: Duration, failure: Option<&Error>);
}

/// A store whose operations are observed.
pub struct Observed<O> {
    store: Arc<dyn Store>,
    observer: Arc<O>,
}

impl<O> std::fmt::Debug for Observed<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl<O: Observer> Observed<O> {
    /// Observes a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, observer: Arc<O>) -> Self {
        Self { store, observer }
    }

    fn observe<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        kind: Kind,
        work: Future<'a, T>,
    ) -> Future<'a, T> {
        let begun = Instant::now();
        let going = Going::new(&*self.observer);
        Box::pin(async move {
            let _going = going;
            let result = work.await;
            let failure = result
                .as_ref()
                .err()
                .filter(|error| !matches!(error, Error::Exists(_) | Error::Stale(_)));
            let took = begun.elapsed();
            self.observer.ended(operation, kind, took, failure);
            result
        })
    }
}

/// An operation in progress.
struct Going<'observer, O: Observer>(&'observer O);

impl<'observer, O: Observer> Going<'observer, O> {
    fn new(observer: &'observer O) -> Self {
        observer.begun();
        Self(observer)
    }
}

impl<O: Observer> Drop for Going<'_, O> {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// Passes each operation on.
macro_rules! operations {
    ($($kind:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        impl<O: Observer> Store for Observed<O> {
            $(
                fn $name(&self, $($argument: $type),*) -> Future<'_, $result> {
                    let work = self.store.$name($($argument),*);
                    self.observe(stringify!($name), Kind::$kind, work)
                }
            )+
        }
    };
}

operations! {
    Write create(run: NewRun) -> Created;
    Write change(change: Change) -> ();
    Write seen(runs: Vec<(u64, Timestamp)>) -> ();
    Read run(id: String) -> Option<StoredRun>;
    Read live() -> Vec<StoredRun>;
    Read execution(number: u64) -> Option<Execution>;
    Read list(query: Query) -> Page;
    Read counts() -> Vec<(Status, u64)>;
    Read timeline(number: u64) -> Vec<Entry>;
    Maintain forget(ended_before: Timestamp, most: u64, batch: u32) -> Vec<String>;
    Write add_token(token: Token) -> ();
    Read token(hash: [u8; 32]) -> Option<Token>;
    Read tokens() -> Vec<Token>;
    Write revoke(id: String, at: Timestamp) -> bool;
    Maintain check() -> ();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::Memory;
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Log {
        fn add(&self, text: String) {
            self.0.lock().expect("not poisoned").push(text);
        }
    }

    impl Observer for Log {
        fn begun(&self) {
            self.add("begun".to_owned());
        }

        fn left(&self) {
            self.add("left".to_owned());
        }

        fn ended(&self, operation: &'static str, kind: Kind, _: Duration, failure: Option<&Error>) {
            self.add(format!("{operation} {kind:?} {}", failure.is_some()));
        }
    }

    fn change() -> Change {
        Change {
            number: 7,
            id: "r".to_owned(),
            version: 0,
            run: podbeat_runs::Run::new(0),
            by: String::new(),
            at: Timestamp::UNIX_EPOCH,
            seen: None,
            timeline: Vec::new(),
        }
    }

    #[tokio::test]
    async fn every_end_is_observed_and_a_refusal_is_no_failure() {
        let log = Arc::new(Log::default());
        let store = Observed::new(Arc::new(Memory::default()), Arc::clone(&log));
        store.check().await.expect("it works");
        // There is no such run.
        assert!(matches!(store.change(change()).await, Err(Error::Stale(_))));
        // Given up.
        drop(store.tokens());
        let seen = log.0.lock().expect("not poisoned").join(", ");
        assert_eq!(
            seen,
            "begun, check Maintain false, left, begun, change Write false, left, begun, left"
        );
    }
}
