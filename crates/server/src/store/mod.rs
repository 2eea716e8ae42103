//! Where runs, executions and tokens are stored. No other module knows SQL.
//!
//! A method that changes something returns after the change is durable. Several changes of one call
//! are made completely or not at all. Every implementation passes the tests in `suite`.

mod list;
mod memory;
mod observed;
mod sqlite;
#[cfg(test)]
mod suite;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

pub use list::{COUNTED, Cursor, Filter, Key, Listed, Page, Place, Query, Viewer};
pub use memory::Memory;
pub use observed::{Kind, Observed, Observer};
pub use sqlite::{Inspection, Sqlite};

use podbeat_runs::{Run, Status};

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be used.
    #[error("cannot use the data file {path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and what to do about it.
        problem: &'static str,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A newer version of podbeat-server wrote the file.
    #[error(
        "the data file {path} has schema {found}, and this version of podbeat-server knows at most {known}; use a newer version (the file is unchanged)"
    )]
    Newer {
        /// The file.
        path: String,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// The database refused an operation.
    #[error("the store failed while {doing}")]
    Failed {
        /// The operation.
        doing: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored value is not readable.
    #[error("the stored run {run} is unreadable; restore the data file from a backup")]
    Unreadable {
        /// The run's ID.
        run: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is a run with this ID already.
    #[error("the run {0} exists already")]
    Exists(String),
    /// The run changed since it was read.
    #[error("the run {0} changed meanwhile")]
    Stale(String),
    /// The store has too much to do.
    #[error("the store is busy; try again later")]
    Busy,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// The result of an operation.
pub type Future<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A store.
pub trait Store: Send + Sync + 'static {
    /// Stores a new run, if the limits allow it.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a run with its ID.
    fn create(&self, run: NewRun) -> Future<'_, Created>;
    /// Stores a changed run. If it has ended, its secrets are not needed any more, and are removed.
    ///
    /// # Errors
    /// [`Error::Stale`] if the run is not in the version that the change is based on.
    fn change(&self, change: Change) -> Future<'_, ()>;
    /// Stores when the last heartbeats of runs arrived. Skips runs that do not exist.
    fn seen(&self, runs: Vec<(u64, Timestamp)>) -> Future<'_, ()>;
    /// A run by its ID.
    fn run(&self, id: String) -> Future<'_, Option<StoredRun>>;
    /// All runs that have not ended, in the order of their creation.
    fn live(&self) -> Future<'_, Vec<StoredRun>>;
    /// The execution of a run. `None` if it has none.
    fn execution(&self, number: u64) -> Future<'_, Option<Execution>>;
    /// A page of runs.
    fn list(&self, query: Query) -> Future<'_, Page>;
    /// The number of runs with each status, of all tenants.
    fn counts(&self) -> Future<'_, Vec<(Status, u64)>>;
    /// The timeline of a run, oldest first.
    fn timeline(&self, number: u64) -> Future<'_, Vec<Entry>>;
    /// Removes ended runs: those that ended before a time, and the oldest above a number. At most
    /// `batch` of them. Returns their IDs.
    fn forget(&self, ended_before: Timestamp, most: u64, batch: u32) -> Future<'_, Vec<String>>;
    /// Stores a token.
    fn add_token(&self, token: Token) -> Future<'_, ()>;
    /// The token with this hash.
    fn token(&self, hash: [u8; 32]) -> Future<'_, Option<Token>>;
    /// All tokens, oldest first.
    fn tokens(&self) -> Future<'_, Vec<Token>>;
    /// Revokes a token. Returns whether it exists.
    fn revoke(&self, id: String, at: Timestamp) -> Future<'_, bool>;
    /// Checks that the store answers, and that no other process blocks its changes.
    fn check(&self) -> Future<'_, ()>;
}

/// A run to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// The new run.
    pub facts: Facts,
    /// Its life.
    pub run: Run,
    /// What to run.
    pub execution: Option<Execution>,
    /// Makes the request repeatable.
    pub idempotency: Option<Idempotency>,
    /// The limits of the tenant.
    pub limits: Limits,
}

/// The part of a run that its creator determines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The ID.
    pub id: String,
    /// The tenant to which it belongs.
    pub tenant: String,
    /// Who created it.
    pub created_by: String,
    /// A display name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The access control list. Its entries contain no control characters.
    pub acl: Option<Vec<String>>,
    /// `environment.resources.type` of the execution.
    pub resource_type: Option<String>,
    /// `environment.resources.size` of the execution.
    pub resource_size: Option<String>,
    /// `environment.resources.tier` of the execution.
    pub resource_tier: Option<String>,
    /// When it was created, with microseconds.
    pub created: Timestamp,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The execution as JSON, without its secrets.
    pub public: String,
    /// The secrets, encrypted. `None` if there are none, or they are not needed any more.
    pub sealed: Option<Vec<u8>>,
}

/// The key of a request that the client may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key. Keys of other tenants do not matter.
    pub key: String,
    /// The hash of the request.
    pub request: [u8; 32],
    /// The key is forgotten at this time.
    pub until: Timestamp,
}

/// The limits of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of runs that have not ended.
    pub live: u64,
    /// The maximum number of runs that were created since `since`, up to the new one: those that
    /// seem to be later were created before the clock was set back.
    pub creates: u64,
    /// See `creates`.
    pub since: Timestamp,
}

/// The result of a request to create a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// The run was created, with this number.
    New(StoredRun),
    /// The same request created this run before.
    Before(StoredRun),
    /// Another request had the same idempotency key.
    OtherRequest,
    /// The tenant has too many runs that have not ended.
    TooManyLive,
    /// The tenant created too many runs since the time of the limits.
    TooManyCreates,
}

/// A stored run.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRun {
    /// The place in the order of creation, from 1.
    pub number: u64,
    /// How often the run changed.
    pub version: u64,
    /// What its creator determined.
    pub facts: Facts,
    /// Who changed it last.
    pub modified_by: String,
    /// When it changed last, with microseconds.
    pub modified: Timestamp,
    /// When its last heartbeat arrived, up to some seconds.
    pub seen: Option<Timestamp>,
    /// Its life.
    pub run: Run,
}

/// A change of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The run's number.
    pub number: u64,
    /// The run's ID, for errors.
    pub id: String,
    /// The version that the change is based on.
    pub version: u64,
    /// The new life.
    pub run: Run,
    /// Who changes it.
    pub by: String,
    /// When, with microseconds.
    pub at: Timestamp,
    /// When the last heartbeat arrived. `None` if the change is not from a heartbeat.
    pub seen: Option<Timestamp>,
    /// New entries of its timeline.
    pub timeline: Vec<Entry>,
}

/// An entry in the timeline of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, for people.
    pub text: String,
}

/// The maximum number of entries in a run's timeline. If there are more, the store forgets the
/// oldest ones after the first [`FIRST_ENTRIES`].
pub const ENTRIES: usize = 400;

/// See [`ENTRIES`].
pub const FIRST_ENTRIES: usize = 100;

/// A token of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The name for `token revoke`.
    pub id: String,
    /// The hash of its text.
    pub hash: [u8; 32],
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user: String,
    /// The role.
    pub role: Role,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, for the runs of all tenants.
    Admin,
    /// Everything, for the runs of its tenant.
    User,
    /// To get and list runs.
    Read,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Admin, Self::User, Self::Read];

    /// The role's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Read => "read",
        }
    }
}
