//! Operations with a store in memory and a clock of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use podbeat_task_runs::model::{ContainerStateTerminated, ContainerStatus, Image, TaskRunStatus};
use serde_json::json;

use super::*;
use crate::store::{Change, Entry, Filter, Future, Memory, Place};
use podbeat_runs::{Moment, Status};

/// A clock that only tests move.
struct Manual(Mutex<Moment>);

impl Manual {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Moment {
            wall: "2026-01-01T00:00:00Z".parse().expect("a time"),
            elapsed: Duration::ZERO,
        })))
    }

    fn pass(&self, by: Duration) {
        let mut moment = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moment.wall += by;
        moment.elapsed += by;
    }
}

impl Clock for Manual {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that can fail.
#[derive(Default)]
struct Failing {
    memory: Memory,
    fails: AtomicBool,
    /// Makes a change, and fails nevertheless, as if the disk failed after the commit.
    forgets: AtomicBool,
}

impl Failing {
    fn error<T>(&self) -> Option<Result<T, crate::store::Error>> {
        self.fails
            .load(Ordering::SeqCst)
            .then(|| Err(crate::store::Error::Busy))
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        $(
            fn $name(&self, $($argument: $type),*) -> Future<'_, $result> {
                match self.error() {
                    Some(error) => Box::pin(std::future::ready(error)),
                    None => self.memory.$name($($argument),*),
                }
            }
        )+
    };
}

impl Store for Failing {
    forward! {
        create(run: NewRun) -> Created;
        seen(runs: Vec<(u64, Timestamp)>) -> ();
        run(id: String) -> Option<StoredRun>;
        live() -> Vec<StoredRun>;
        execution(number: u64) -> Option<Execution>;
        list(query: Query) -> Page;
        counts() -> Vec<(Status, u64)>;
        timeline(number: u64) -> Vec<Entry>;
        forget(ended_before: Timestamp, most: u64, batch: u32) -> Vec<String>;
        add_token(token: Token) -> ();
        token(hash: [u8; 32]) -> Option<Token>;
        tokens() -> Vec<Token>;
        revoke(id: String, at: Timestamp) -> bool;
        check() -> ();
    }

    fn change(&self, change: Change) -> Future<'_, ()> {
        if let Some(error) = self.error() {
            return Box::pin(std::future::ready(error));
        }
        let forgets = self.forgets.load(Ordering::SeqCst);
        Box::pin(async move {
            self.memory.change(change).await?;
            // Time for the caller to give up.
            tokio::task::yield_now().await;
            match forgets {
                true => Err(crate::store::Error::Busy),
                false => Ok(()),
            }
        })
    }
}

const OPTIONS: Options = Options {
    rules: Rules {
        heartbeat_timeout: Duration::from_secs(600),
        evidence_wait: Duration::from_secs(60),
        retry_wait: Duration::from_secs(900),
        ..Rules::DEFAULT
    },
    url: String::new(),
    token_lifetime: Duration::from_secs(3600),
    live_runs: 1000,
    creates_per_minute: 1000,
    retention: Duration::from_secs(1000),
    retained_runs: 4,
    launch: None,
};

struct Played {
    service: Service,
    store: Arc<Failing>,
    clock: Arc<Manual>,
}

async fn played() -> Played {
    let (store, clock) = (Arc::new(Failing::default()), Manual::new());
    restarted(store, clock).await
}

async fn restarted(store: Arc<Failing>, clock: Arc<Manual>) -> Played {
    let keys = Keys::temporary().expect("keys");
    let service = Service::start(store.clone(), keys, clock.clone(), OPTIONS);
    Played {
        service: service.await.expect("a service"),
        store,
        clock,
    }
}

fn user(tenant: &str, user: &str, role: Role) -> Caller {
    Caller::User {
        tenant: tenant.to_owned(),
        user: user.to_owned(),
        role,
    }
}

pub(super) fn alice() -> Caller {
    user("a", "alice", Role::User)
}

/// A heartbeat of the pod with this UID. The last one has the exit code.
pub(super) fn beat(uid: &str, last: Option<i32>) -> HeartbeatTaskRunRequest {
    let ended = |code| ContainerStatus {
        name: Some("main".to_owned()),
        state: Some(
            ContainerStateTerminated {
                exit_code: Some(code),
                ..ContainerStateTerminated::default()
            }
            .into(),
        ),
    };
    HeartbeatTaskRunRequest {
        container_status: last.map(|code| vec![ended(code)]),
        last_heartbeat: last.map(|_| true),
        nonce: Some(format!("{uid} {last:?}")),
        pod_name: Some("p".to_owned()),
        pod_uid: Some(uid.to_owned()),
        ..HeartbeatTaskRunRequest::default()
    }
}

impl Played {
    async fn create(&self, caller: &Caller, request: CreateTaskRunRequest) -> String {
        let run = self
            .service
            .create(caller, request, None)
            .await
            .expect("created");
        run.id.expect("an ID")
    }

    async fn status(&self, id: &str) -> TaskRunStatus {
        let admin = user("x", "root", Role::Admin);
        let run = self.service.get(&admin, id).await.expect("the run");
        run.status.expect("a status")
    }

    async fn beat(
        &self,
        caller: &Caller,
        id: &str,
        last: Option<i32>,
    ) -> Result<TaskRunHeartbeat, Problem> {
        self.service
            .heartbeat(caller, id, beat("u", last), None)
            .await
    }
}

fn without_retries() -> CreateTaskRunRequest {
    serde_json::from_value(json!({"execution": {"retryLimit": 0}})).expect("a request")
}

#[tokio::test]
async fn a_run_is_created_reported_and_completed() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    assert_eq!(played.status(&id).await, TaskRunStatus::Pending);
    played.beat(&alice(), &id, None).await.expect("accepted");
    assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    played.beat(&alice(), &id, Some(0)).await.expect("accepted");
    played
        .beat(&alice(), &id, Some(0))
        .await
        .expect("accepted again");
    assert_eq!(played.status(&id).await, TaskRunStatus::Completed);
    let late = played.beat(&alice(), &id, None).await;
    assert!(matches!(late, Err(Problem::Conflict(_))), "{late:?}");
    let abort = played.service.abort(&alice(), &id).await;
    assert!(matches!(abort, Err(Problem::Conflict(_))), "{abort:?}");
    assert_eq!(played.service.live.len(), 0, "an ended run needs no memory");
    let timeline = played.store.timeline(1).await.expect("read");
    let texts: Vec<&str> = timeline.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "attempt 0 began",
            "pod p reports, UID u",
            "Running",
            "container main terminated with exit code 0",
            "Completed"
        ]
    );
}

#[tokio::test]
async fn a_run_shows_no_secret_and_keeps_them_encrypted() {
    let played = played().await;
    let request = json!({
        "name": "n", "acl": ["tid:b"],
        "execution": {
            "image": {"name": "i", "credentials": {"username": "u", "password": "hunter2"}},
            "environment": {"variables": {"KEY": "hunter2"}, "resources": {"type": "t", "size": "s", "tier": "r"}},
            "inputs": [{"url": "https://store/x?signature=hunter2", "credentials": {"k": "hunter2"}}],
            "retryLimit": 7
        }
    });
    let request = serde_json::from_value(request).expect("a request");
    let run = played
        .service
        .create(&alice(), request, None)
        .await
        .expect("created");
    let id = run.id.clone().expect("an ID");
    let again = played.service.get(&alice(), &id).await.expect("the run");
    for shown in [&run, &again] {
        let text = serde_json::to_string(shown).expect("JSON");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains(r#""KEY":"[redacted]""#), "{text}");
        assert_eq!(shown.type_of_resource.as_deref(), Some("t"));
        assert_eq!(shown.size_of_resource.as_deref(), Some("s"));
        assert_eq!(shown.tier_of_resource.as_deref(), Some("r"));
        assert_eq!(shown.tenant_id.as_deref(), Some("a"));
        assert_eq!(shown.created_by.as_deref(), Some("alice"));
        let raw = shown.execution_raw_json.as_ref().expect("a text").expose();
        assert!(
            raw.contains("retryLimit\":7") && !raw.contains("hunter2"),
            "{raw}"
        );
    }
    let execution = played
        .store
        .execution(1)
        .await
        .expect("read")
        .expect("an execution");
    assert!(!execution.public.contains("hunter2"));
    let sealed = execution.sealed.expect("secrets");
    assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
    let opened = played.service.keys.open(&id, &sealed).expect("opened");
    assert!(String::from_utf8_lossy(&opened).contains("hunter2"));
}

#[tokio::test]
async fn wrong_requests_are_named_completely() {
    let played = played().await;
    let request = CreateTaskRunRequest {
        name: Some("x".repeat(256)),
        acl: Some(vec!["a\nb".to_owned()]),
        execution: Some(podbeat_task_runs::model::Execution {
            image: Some(Image::default()),
            ..Default::default()
        }),
        ..CreateTaskRunRequest::default()
    };
    let refused = played.service.create(&alice(), request, None).await;
    let Err(Problem::BadRequest { details, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(details.len(), 3, "{details:?}");
}

#[tokio::test]
async fn a_repeated_request_returns_the_same_run() {
    let played = played().await;
    let create = async |request: CreateTaskRunRequest, key: &str| {
        let created = played.service.create(&alice(), request, Some(key)).await;
        created.map(|run| run.id.expect("an ID"))
    };
    let first = create(without_retries(), "k").await.expect("created");
    assert_eq!(create(without_retries(), "k").await, Ok(first.clone()));
    assert_ne!(create(without_retries(), "other").await, Ok(first));
    let conflict = create(CreateTaskRunRequest::default(), "k").await;
    assert!(
        matches!(conflict, Err(Problem::Conflict(_))),
        "{conflict:?}"
    );
    for key in ["", &"x".repeat(256)] {
        let refused = create(without_retries(), key).await;
        assert!(
            matches!(refused, Err(Problem::BadRequest { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn roles_and_tenants_are_kept_apart() {
    let played = played().await;
    let shared = CreateTaskRunRequest {
        acl: Some(vec!["tid:c".to_owned()]),
        ..CreateTaskRunRequest::default()
    };
    let id = played.create(&alice(), shared).await;
    let may = async |caller: &Caller| {
        let listed = played.service.list(caller, |viewer| Query {
            viewer,
            filter: Filter::default(),
            sort: Vec::new(),
            place: Place::First,
            size: 10,
        });
        let listed = listed.await.map(|(_, page)| page.runs.len());
        let get = played.service.get(caller, &id).await.map(|_| ());
        let heartbeat = played.beat(caller, &id, None).await.map(|_| ());
        (listed, get, heartbeat)
    };
    use Problem::{Forbidden, NotFound};
    for (caller, expected) in [
        (alice(), (Ok(1), Ok(()), Ok(()))),
        (user("a", "bob", Role::User), (Ok(1), Ok(()), Ok(()))),
        (
            user("a", "bob", Role::Read),
            (Ok(1), Ok(()), Err(Forbidden(READ_ONLY))),
        ),
        (
            user("b", "alice", Role::User),
            (Ok(0), Err(NotFound), Err(NotFound)),
        ),
        (
            user("b", "alice", Role::Read),
            (Ok(0), Err(NotFound), Err(NotFound)),
        ),
        (
            user("c", "carol", Role::User),
            (Ok(1), Ok(()), Err(Forbidden(SHARED))),
        ),
        (user("x", "root", Role::Admin), (Ok(1), Ok(()), Ok(()))),
    ] {
        assert_eq!(may(&caller).await, expected, "{caller:?}");
    }
    for (caller, expected) in [
        (user("b", "alice", Role::User), NotFound),
        (user("c", "carol", Role::User), Forbidden(SHARED)),
        (user("a", "bob", Role::Read), Forbidden(READ_ONLY)),
    ] {
        let refused = played.service.abort(&caller, &id).await;
        assert_eq!(refused.map(|_| ()), Err(expected));
    }
    let bob = user("a", "bob", Role::Read);
    let created = played.service.create(&bob, without_retries(), None);
    assert_eq!(created.await.map(|_| ()), Err(Forbidden(READ_ONLY)));
}

#[tokio::test]
async fn an_agent_gets_tokens_of_its_attempt_in_time() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    let other = played.create(&alice(), without_retries()).await;
    let first = played
        .beat(&alice(), &id, None)
        .await
        .expect("accepted")
        .jwt
        .expect("a token");
    let agent = played.service.caller(first.expose()).await.expect("ours");
    assert!(matches!(&agent, Caller::Agent(token) if token.run == id && token.attempt == 0));
    let renewed = played.beat(&agent, &id, None).await.expect("accepted");
    assert_eq!(renewed.jwt, None, "the token is new");
    played.clock.pass(Duration::from_secs(599));
    played.beat(&agent, &id, None).await.expect("accepted");
    for _ in 0..3 {
        played.clock.pass(Duration::from_secs(599));
        played.beat(&agent, &id, None).await.expect("accepted");
    }
    let renewed = played.beat(&agent, &id, None).await.expect("accepted");
    assert!(renewed.jwt.is_some(), "half of the hour has passed");
    // A restarted agent may have only the first one.
    for _ in 0..20 {
        played.clock.pass(Duration::from_secs(599));
        played.beat(&agent, &id, None).await.expect("accepted");
    }
    played.service.get(&agent, &id).await.expect("its run");
    let forbidden = Err(Problem::Forbidden(AGENT_ONLY));
    assert_eq!(
        played.beat(&agent, &other, None).await,
        forbidden.clone().map(|()| TaskRunHeartbeat::default())
    );
    assert_eq!(
        played.service.get(&agent, &other).await.map(|_| ()),
        forbidden
    );
    assert_eq!(
        played.service.abort(&agent, &id).await.map(|_| ()),
        forbidden
    );
    let last = played.beat(&agent, &id, Some(0)).await.expect("accepted");
    assert_eq!(last.jwt, None, "nothing follows");
    assert_eq!(
        played.service.get(&agent, &id).await.map(|_| ()),
        Err(Problem::Unauthorized)
    );
}

#[tokio::test]
async fn tokens_of_users_are_checked() {
    let played = played().await;
    let now = played.clock.now().wall;
    let hour = Duration::from_secs(3600);
    let token = tokens::create("a", "alice", Role::User, now, Some(hour)).expect("a token");
    let text = token.text.expose();
    assert_eq!(
        played.service.caller(text).await,
        Err(Problem::Unauthorized)
    );
    played
        .store
        .add_token(token.token.clone())
        .await
        .expect("stored");
    assert_eq!(played.service.caller(text).await, Ok(alice()));
    for wrong in ["", "pbt_", "a.b.c", &format!("{text}x")] {
        assert_eq!(
            played.service.caller(wrong).await,
            Err(Problem::Unauthorized)
        );
    }
    played.clock.pass(hour);
    assert_eq!(
        played.service.caller(text).await,
        Err(Problem::Unauthorized),
        "expired"
    );
    let token = tokens::create("a", "alice", Role::User, now, None).expect("a token");
    played
        .store
        .add_token(token.token.clone())
        .await
        .expect("stored");
    assert_eq!(
        played.service.caller(token.text.expose()).await,
        Ok(alice())
    );
    played
        .store
        .revoke(token.token.id, now)
        .await
        .expect("revoked");
    played.clock.pass(super::known_tokens::KNOWN);
    assert_eq!(
        played.service.caller(token.text.expose()).await,
        Err(Problem::Unauthorized)
    );
}

#[tokio::test]
async fn while_the_store_fails_the_service_is_unavailable_and_loses_nothing() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    let unavailable = |problem: &Problem| matches!(problem, Problem::Unavailable { .. });
    played.store.fails.store(true, Ordering::SeqCst);
    let refused = played.beat(&alice(), &id, None).await.expect_err("refused");
    assert!(unavailable(&refused), "{refused:?}");
    let refused = played
        .beat(&alice(), "trn.unknown", None)
        .await
        .expect_err("refused");
    assert!(unavailable(&refused), "never NotFound: {refused:?}");
    let refused = played
        .service
        .get(&alice(), &id)
        .await
        .expect_err("refused");
    assert!(unavailable(&refused), "{refused:?}");
    played.store.fails.store(false, Ordering::SeqCst);
    let missing = played.beat(&alice(), "trn.unknown", None).await;
    assert_eq!(missing, Err(Problem::NotFound));
    assert_eq!(
        played.service.live.len(),
        1,
        "runs that do not exist take no memory"
    );

    // The commit happened, but the service does not know it.
    played.store.forgets.store(true, Ordering::SeqCst);
    let refused = played
        .beat(&alice(), &id, Some(3))
        .await
        .expect_err("refused");
    assert!(unavailable(&refused), "{refused:?}");
    played.store.forgets.store(false, Ordering::SeqCst);
    assert_eq!(
        played.beat(&alice(), &id, Some(3)).await,
        Ok(TaskRunHeartbeat::default())
    );
    assert_eq!(played.status(&id).await, TaskRunStatus::Failed);
    let versions = played
        .store
        .run(id)
        .await
        .expect("read")
        .expect("the run")
        .version;
    assert_eq!(versions, 1, "nothing was applied twice");
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_the_run_as_it_is_stored() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    let answer = played.beat(&alice(), &id, Some(3)).now_or_never();
    assert_eq!(answer, None, "it takes two turns");
    assert_eq!(played.status(&id).await, TaskRunStatus::Failed);
    let abort = played.service.abort(&alice(), &id).await;
    assert!(matches!(abort, Err(Problem::Conflict(_))), "{abort:?}");
    played
        .beat(&alice(), &id, Some(3))
        .await
        .expect("accepted again");

    // Nobody asks again, and the run times out nevertheless.
    let id = played.create(&alice(), without_retries()).await;
    let answer = played.beat(&alice(), &id, None).now_or_never();
    assert_eq!(answer, None);
    played.clock.pass(Duration::from_secs(10));
    played.service.live.tick_due().await;
    played.clock.pass(Duration::from_secs(600));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::TimedOut);
}

#[tokio::test]
async fn silent_runs_time_out_but_not_before_a_full_timeout_after_a_restart() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    let pending = played.create(&alice(), without_retries()).await;
    played.beat(&alice(), &id, None).await.expect("accepted");
    played.clock.pass(Duration::from_secs(599));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    // The service is away for days, and another process has waited for the data file as long.
    let clock = Manual::new();
    clock.pass(Duration::from_secs(1_000_000));
    let played = restarted(played.store, clock).await;
    played.service.live.tick_due().await;
    played.clock.pass(Duration::from_secs(599));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    // The store fails at the time of the timeout.
    played.store.fails.store(true, Ordering::SeqCst);
    played.clock.pass(Duration::from_secs(1));
    played.service.live.tick_due().await;
    played.store.fails.store(false, Ordering::SeqCst);
    assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    played.clock.pass(Duration::from_secs(10));
    played.service.live.tick_due().await;
    // It may have refused heartbeats meanwhile.
    assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    played.clock.pass(Duration::from_secs(600));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::TimedOut);
    assert_eq!(played.status(&pending).await, TaskRunStatus::Pending);
    assert_eq!(played.service.live.len(), 1);
}

#[test]
fn the_processs_time_is_in_whole_microseconds_as_stored() {
    let clock = ProcessClock::since(tokio::time::Instant::now());
    // A machine's clock can have whole microseconds by chance.
    for _ in 0..100 {
        assert_eq!(clock.now().wall.as_nanosecond() % 1000, 0);
    }
}

#[tokio::test]
async fn a_run_whose_heartbeat_the_store_did_not_take_has_a_full_timeout_again() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    // The service runs for longer than the timeout.
    for _ in 0..3 {
        played.beat(&alice(), &id, None).await.expect("accepted");
        played.clock.pass(Duration::from_secs(590));
    }
    played.store.fails.store(true, Ordering::SeqCst);
    let refused = played.beat(&alice(), &id, Some(0)).await;
    assert!(matches!(refused, Err(Problem::Unavailable { .. })));
    played.store.fails.store(false, Ordering::SeqCst);
    for wait in [10, 589] {
        played.clock.pass(Duration::from_secs(wait));
        played.service.live.tick_due().await;
        assert_eq!(played.status(&id).await, TaskRunStatus::Running);
    }
    played.beat(&alice(), &id, Some(0)).await.expect("accepted");
    assert_eq!(played.status(&id).await, TaskRunStatus::Completed);
}

#[tokio::test]
async fn a_launched_attempt_accepts_only_heartbeats_with_its_nonce() {
    let played = played().await;
    let id = played
        .create(&alice(), CreateTaskRunRequest::default())
        .await;
    let with = async |nonce: &str| {
        let request = HeartbeatTaskRunRequest {
            nonce: Some(nonce.to_owned()),
            ..beat("u", None)
        };
        let answer = played.service.heartbeat(&alice(), &id, request, None).await;
        answer.map(|_| ())
    };
    let launched = played.service.launched(&id, 0, "issued").await;
    launched.expect("launched");
    assert_eq!(played.status(&id).await, TaskRunStatus::CheckedOut);
    let refused = with("other").await;
    assert!(matches!(refused, Err(Problem::Conflict(_))), "{refused:?}");
    with("issued").await.expect("accepted");
    let again = played.service.launched(&id, 0, "issued").await;
    again.expect("the same launch");
    let other = played.service.launched(&id, 0, "another").await;
    assert!(matches!(other, Err(Problem::Conflict(_))), "{other:?}");
    let missing = played.service.launched("trn.0", 0, "n").await;
    assert_eq!(missing, Err(Problem::NotFound));
}

#[tokio::test]
async fn a_failed_attempt_waits_for_the_next_one_and_then_fails() {
    let played = played().await;
    let id = played
        .create(&alice(), CreateTaskRunRequest::default())
        .await;
    played.beat(&alice(), &id, Some(3)).await.expect("accepted");
    assert_eq!(played.status(&id).await, TaskRunStatus::FailedRestartable);
    played.clock.pass(Duration::from_secs(899));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::FailedRestartable);
    played.clock.pass(Duration::from_secs(1));
    played.service.live.tick_due().await;
    assert_eq!(played.status(&id).await, TaskRunStatus::Failed);
}

#[tokio::test]
async fn times_of_heartbeats_are_stored_in_batches() {
    let played = played().await;
    let id = played.create(&alice(), without_retries()).await;
    played.beat(&alice(), &id, None).await.expect("accepted");
    let stored = async || {
        played
            .store
            .run(id.clone())
            .await
            .expect("read")
            .expect("the run")
    };
    let first = stored().await;
    played.clock.pass(Duration::from_secs(30));
    played.beat(&alice(), &id, None).await.expect("accepted");
    assert_eq!(
        stored().await,
        first,
        "a periodic heartbeat is not stored at once"
    );
    played.store.fails.store(true, Ordering::SeqCst);
    played.service.flush().await;
    played.store.fails.store(false, Ordering::SeqCst);
    assert_eq!(stored().await, first);
    played.service.flush().await;
    let second = stored().await;
    assert_eq!(second.seen, Some(played.clock.now().wall));
    assert_eq!(
        (second.version, second.modified),
        (first.version, first.modified)
    );
}

#[tokio::test]
async fn old_and_surplus_runs_are_removed_once_they_have_ended() {
    let played = played().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(played.create(&alice(), without_retries()).await);
    }
    let left = async || {
        let mut left = String::new();
        for id in &ids {
            let run = played.store.run(id.clone()).await.expect("read");
            left.push(if run.is_some() { 'x' } else { '-' });
        }
        left
    };
    assert_eq!(
        played.service.forget(true).await.expect("a store"),
        0,
        "none has ended"
    );
    for id in &ids[1..5] {
        played.service.abort(&alice(), id).await.expect("aborted");
        played.clock.pass(Duration::from_secs(1));
    }
    assert_eq!(played.service.forget(true).await.expect("a store"), 2);
    assert_eq!(left().await, "x--xxx");
    played.clock.pass(Duration::from_secs(998));
    assert_eq!(played.service.forget(true).await.expect("a store"), 0);
    played.clock.pass(Duration::from_secs(1));
    assert_eq!(played.service.forget(true).await.expect("a store"), 1);
    assert_eq!(left().await, "x---xx");
    played.clock.pass(Duration::from_secs(1_000_000));
    assert_eq!(played.service.forget(false).await.expect("a store"), 0);
    played.service.forget(true).await.expect("a store");
    assert_eq!(left().await, "x----x", "live runs stay");
}

#[tokio::test]
async fn limits_of_a_tenant_are_answered_with_a_wait() {
    let played = played().await;
    let limited = Options {
        live_runs: 1,
        ..OPTIONS
    };
    let keys = Keys::temporary().expect("keys");
    let service = Service::start(played.store.clone(), keys, played.clock.clone(), limited);
    let service = service.await.expect("a service");
    service
        .create(&alice(), without_retries(), None)
        .await
        .expect("created");
    let refused = service.create(&alice(), without_retries(), None).await;
    let refused = refused.map(|_| ());
    assert!(
        matches!(refused, Err(Problem::TooMany { .. })),
        "{refused:?}"
    );
    let other = service
        .create(&user("b", "bob", Role::User), without_retries(), None)
        .await;
    assert!(other.is_ok());
}
