//! Data files with many runs, made through the server's own store and kept between measurements.
//! A run's ID and heartbeats follow from its number, so a measurement needs no list of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderValue;
use jiff::Timestamp;
use podbeat_runs::{Event, Heartbeat, Moment, Pod, Rules, Run};
use podbeat_server::keys::Keys;
use podbeat_server::store::{
    Created, Execution, Facts, Limits, NewRun, Role, Sqlite, Store, Token,
};
use podbeat_server::tokens;
use podbeat_task_runs::model::{
    ContainerStateRunning, ContainerStateTerminated, ContainerStatus, HeartbeatTaskRunRequest,
};

use crate::{Error, io};

/// The form of the files. A change of their content needs another number, so that none of an
/// earlier form is used.
const FORM: u32 = 1;

/// The tokens in each file.
pub const ADMIN: User = User {
    token: "pbt_bench-admin",
    tenant: "operations",
    user: "root",
    role: Role::Admin,
};
/// See [`ADMIN`].
pub const USER: User = User {
    token: "pbt_bench-user",
    tenant: TENANTS[0],
    user: "alice",
    role: Role::User,
};

/// The tenants of the runs. The first has every second run.
const TENANTS: [&str; 8] = [
    "genomics",
    "imaging",
    "proteomics",
    "pathology",
    "oncology",
    "screening",
    "training",
    "archive",
];

/// A run of another tenant is shared with the first one if its number is a multiple of this.
const SHARED_EVERY: u64 = 1001;

/// The number of creates that wait for the store at the same time, less than its queue.
const TOGETHER: usize = 2048;

/// A user with a token.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// The token's text.
    pub token: &'static str,
    tenant: &'static str,
    user: &'static str,
    role: Role,
}

/// The content of a data file: runs in the order of their creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Runs that have ended.
    pub ended: u64,
    /// Running runs.
    pub running: u64,
    /// Runs whose agents have not sent a heartbeat.
    pub pending: u64,
}

/// A data file and its key file.
#[derive(Debug)]
pub struct DataFile {
    /// The data file.
    pub path: PathBuf,
    /// The key file.
    pub key: PathBuf,
    /// The keys in it.
    pub keys: Keys,
}

impl Content {
    /// The numbers of the running runs.
    #[must_use]
    pub fn running(&self) -> std::ops::Range<u64> {
        self.ended + 1..self.ended + self.running + 1
    }

    /// The numbers of the runs without heartbeats.
    #[must_use]
    pub fn pending(&self) -> std::ops::Range<u64> {
        self.running().end..self.all() + 1
    }

    /// The number of runs.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.ended + self.running + self.pending
    }

    /// The file with this content in a directory. Makes it, if it does not exist.
    ///
    /// # Errors
    /// The file can't be written.
    pub async fn file(self, directory: &Path, say: impl Fn(&str)) -> Result<DataFile, Error> {
        let Self {
            ended,
            running,
            pending,
        } = self;
        let name = format!("v{FORM}-{ended}-{running}-{pending}.db");
        let (path, key) = (directory.join(&name), directory.join("key"));
        std::fs::create_dir_all(directory)
            .map_err(io(format!("creating {}", directory.display())))?;
        let keys = Keys::load(&key)?;
        if !path.exists() {
            say(&format!(
                "making {} with {} runs, once",
                path.display(),
                self.all()
            ));
            let new = directory.join("new.db");
            remove(&new)?;
            self.make(&new).await?;
            std::fs::rename(&new, &path).map_err(io(format!("renaming {}", new.display())))?;
        }
        Ok(DataFile { path, key, keys })
    }

    async fn make(self, path: &Path) -> Result<(), Error> {
        let store = Sqlite::open(path)?;
        let now = Timestamp::now();
        for user in [ADMIN, USER] {
            let token = Token {
                id: user.user.to_owned(),
                hash: tokens::hash(user.token),
                tenant: user.tenant.to_owned(),
                user: user.user.to_owned(),
                role: user.role,
                created: now,
                expires: None,
                revoked: None,
            };
            store.add_token(token).await?;
        }
        // The store queues each create at once, so the order is that of the numbers.
        let mut created = stream::iter(1..=self.all())
            .map(|number| store.create(self.new_run(number, now)))
            .buffer_unordered(TOGETHER);
        while let Some(result) = created.next().await {
            match result? {
                Created::New(_) => {}
                other => {
                    return Err(io(format!("creating a run: {other:?}"))(
                        std::io::ErrorKind::Other.into(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn new_run(self, number: u64, now: Timestamp) -> NewRun {
        // One run a second, up to now.
        let age = Duration::from_secs(self.all() - number);
        let created = now.checked_sub(age).unwrap_or(now);
        let is_of_first = number.is_multiple_of(2);
        let tenant = match is_of_first {
            true => TENANTS[0],
            false => TENANTS
                .get(1 + usize::try_from(number / 2 % 7).unwrap_or(0))
                .unwrap_or(&TENANTS[1]),
        };
        let is_shared = number.is_multiple_of(SHARED_EVERY) && !is_of_first;
        NewRun {
            facts: Facts {
                id: id(number),
                tenant: tenant.to_owned(),
                created_by: "alice".to_owned(),
                // In another order than the numbers. Several runs have the same name.
                name: Some(format!("sample-{:06}", scattered(number) % 300_000)),
                description: Some("Alignment and variant calling of one sample".to_owned()),
                acl: is_shared.then(|| vec![format!("tid:{}", TENANTS[0])]),
                resource_type: Some("standard".to_owned()),
                resource_size: Some("medium".to_owned()),
                resource_tier: Some("standard".to_owned()),
                created,
            },
            run: self.life(number, created),
            execution: Some(Execution {
                public: EXECUTION.to_owned(),
                sealed: None,
            }),
            idempotency: None,
            limits: Limits {
                live: u64::MAX,
                creates: u64::MAX,
                since: Timestamp::MAX,
            },
        }
    }

    fn life(self, number: u64, created: Timestamp) -> Run {
        let mut run = Run::new(0);
        let rules = Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(900),
            ..Rules::DEFAULT
        };
        let at = Moment {
            wall: created,
            elapsed: Duration::ZERO,
        };
        let mut apply = |event| {
            // A new run refuses none of these.
            let _ = run.apply(&event, at, &rules);
        };
        if self.pending().contains(&number) {
            return run;
        }
        apply(event(number, running(number)));
        if number <= self.ended {
            match number % 50 {
                0 => apply(Event::Abort {
                    by: "alice".to_owned(),
                }),
                1..=5 => apply(event(number, ended(number, 1))),
                _ => apply(event(number, ended(number, 0))),
            }
        }
        run
    }
}

impl DataFile {
    /// A copy for a measurement that changes it. Only one exists at a time.
    ///
    /// # Errors
    /// The file can't be copied.
    pub fn copy(&self) -> Result<PathBuf, Error> {
        let copy = self.path.with_extension("copy");
        remove(&copy)?;
        std::fs::copy(&self.path, &copy).map_err(io(format!("copying {}", self.path.display())))?;
        Ok(copy)
    }

    /// The authorization of the run's agent.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn agent(&self, number: u64) -> Result<HeaderValue, Error> {
        let token = tokens::issue(
            &self.keys,
            &id(number),
            0,
            Timestamp::now(),
            Duration::from_secs(24 * 3600),
        )?;
        Ok(bearer(&token))
    }
}

impl User {
    /// The user's authorization.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        bearer(self.token)
    }
}

fn bearer(token: &str) -> HeaderValue {
    // A token has only characters that a header can have.
    HeaderValue::from_str(&format!("Bearer {token}")).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// Removes a data file, its write-ahead log and its lock.
///
/// # Errors
/// A file can't be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    for end in ["", "-wal", "-shm", ".lock"] {
        let mut file = path.as_os_str().to_owned();
        file.push(end);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io(format!("removing {}", file.display()))(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The ID of a run.
#[must_use]
pub fn id(number: u64) -> String {
    format!("trn.{:032x}", scattered(number))
}

/// A number in another order, without two equal ones.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn trace_id(number: u64) -> String {
    format!("{:032x}", scattered(number))
}

/// The trace of a run's agent, as the header `traceparent`.
#[must_use]
pub fn trace_parent(number: u64) -> HeaderValue {
    let text = format!("00-{}-00f067aa0ba902b7-00", trace_id(number));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// A heartbeat as JSON.
#[must_use]
pub fn json(heartbeat: &HeartbeatTaskRunRequest) -> Bytes {
    serde_json::to_vec(heartbeat).unwrap_or_default().into()
}

/// What every heartbeat of a run says.
fn heartbeat(number: u64) -> HeartbeatTaskRunRequest {
    HeartbeatTaskRunRequest {
        job_retry_count: Some(0),
        nonce: Some(format!("{:016x}", scattered(number ^ 1))),
        pod_hardware_details: Some("node pool-a-7f9c, cpu 4, memory 16Gi".to_owned()),
        pod_name: Some(format!("sample-{number}-0-x7k2p")),
        pod_uid: Some(format!("6f1d2c9a-0000-4000-8000-{number:012x}")),
        ..HeartbeatTaskRunRequest::default()
    }
}

/// The first heartbeat, before a container has a state.
#[must_use]
pub fn first(number: u64) -> HeartbeatTaskRunRequest {
    heartbeat(number)
}

/// A heartbeat of a running pod.
#[must_use]
pub fn running(number: u64) -> HeartbeatTaskRunRequest {
    let started_at = "2026-01-01T00:00:00Z".parse().ok();
    of_container(number, ContainerStateRunning { started_at }.into())
}

/// The last heartbeat.
#[must_use]
pub fn ended(number: u64, exit_code: i32) -> HeartbeatTaskRunRequest {
    let end = ContainerStateTerminated {
        container_id: Some(format!("containerd://{:064x}", scattered(number))),
        exit_code: Some(exit_code),
        finished_at: "2026-01-01T01:00:00Z".parse().ok(),
        reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
        started_at: "2026-01-01T00:00:00Z".parse().ok(),
        ..ContainerStateTerminated::default()
    };
    HeartbeatTaskRunRequest {
        last_heartbeat: Some(true),
        ..of_container(number, end.into())
    }
}

fn of_container(
    number: u64,
    state: podbeat_task_runs::model::ContainerState,
) -> HeartbeatTaskRunRequest {
    let status = ContainerStatus {
        name: Some("main".to_owned()),
        state: Some(state),
    };
    HeartbeatTaskRunRequest {
        container_status: Some(vec![status]),
        ..heartbeat(number)
    }
}

/// The event of a heartbeat. It is what the server makes of the request, so that a heartbeat with
/// the same content changes nothing.
fn event(number: u64, request: HeartbeatTaskRunRequest) -> Event {
    Event::Heartbeat(Box::new(Heartbeat {
        token_of: None,
        retry_count: request
            .job_retry_count
            .and_then(|count| count.try_into().ok()),
        nonce: request.nonce,
        last: request.last_heartbeat.unwrap_or_default(),
        pod: Pod {
            name: request.pod_name,
            uid: request.pod_uid,
            hardware: request.pod_hardware_details,
        },
        containers: request.container_status.unwrap_or_default(),
        trace_id: Some(trace_id(number)),
    }))
}

/// The execution of a run without its secrets, as JSON.
const EXECUTION: &str = r#"{"command":"bash","args":["-c","bwa mem -t 4 reference.fa reads_1.fq reads_2.fq | samtools sort -o sample.bam"],"environment":{"resources":{"type":"standard","size":"medium","tier":"standard"},"variables":{"SAMPLE":"********"}},"image":{"name":"biocontainers/bwa","tag":"0.7.17"},"retryLimit":0,"workingDirectory":"/data"}"#;

/// A request to create a run, with a secret.
pub const CREATE: &str = r#"{"name":"sample-000001","description":"Alignment and variant calling of one sample","execution":{"command":"bash","args":["-c","bwa mem -t 4 reference.fa reads_1.fq reads_2.fq | samtools sort -o sample.bam"],"environment":{"resources":{"type":"standard","size":"medium","tier":"standard"},"variables":{"SAMPLE":"NA12878"}},"image":{"name":"biocontainers/bwa","tag":"0.7.17"},"retryLimit":0,"workingDirectory":"/data"}}"#;
