//! Whole lives of runs against a modelled API server, with crashes of the server at every step.
//!
//! The model has Jobs, pods, Secrets, watches that lag, requests that fail before or after their
//! effect, and agents that send heartbeats. A crash drops the launcher in the middle of a request and
//! starts another one from the rows. A judge checks what must always be true, and how each run ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use podbeat_runs::{Event, Exit, Heartbeat, Moment, Pod, PodEnd, Rules, Run, Status};
use podbeat_task_runs::model::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Execution,
    Image,
};

use crate::cluster::{Answer, Change, Cluster, Failure, Found, SecretSeen};
use crate::launcher::{Deed, Launcher, Observer, Row, Runs, Unchanged};
use crate::manifests::{MAIN, name};
use crate::order::Order;
use crate::seen::{JobEnd, JobSeen, Kind, PodSeen, Waiting};
use crate::settings::Settings;

/// What happens to the attempts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Succeeds,
    /// Every attempt ends with this exit code.
    Fails(i32),
    /// The first attempt fails.
    FailsOnce,
    /// The first attempts are evicted.
    Evicted(u32),
    /// The image's name is wrong.
    Hopeless,
    /// The image can't be pulled.
    NoImage,
    /// There is no node for an hour.
    NoNode,
    /// A quota refuses the Job a few times.
    Quota,
    /// Kueue resumes the Job after two hours, suspends it while it runs, and resumes it.
    Queued,
    /// The last heartbeat is lost.
    Unheard(i32),
    /// The heartbeats stop, and the pod goes on.
    Silent,
    /// A foreign Job has the name.
    Foreign,
    /// Somebody deletes the Job of the first attempt while it runs.
    JobDeleted,
    /// The API server will never accept the Job.
    Invalid,
}

const FATES: [Fate; 17] = [
    Fate::Succeeds,
    Fate::Fails(3),
    Fate::Fails(99),
    Fate::FailsOnce,
    Fate::Evicted(1),
    Fate::Evicted(9),
    Fate::Hopeless,
    Fate::NoImage,
    Fate::NoNode,
    Fate::Quota,
    Fate::Queued,
    Fate::Unheard(0),
    Fate::Unheard(4),
    Fate::Silent,
    Fate::Foreign,
    Fate::JobDeleted,
    Fate::Invalid,
];

/// A flaw that the judge must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// A commit is answered and lost.
    LostCommit,
    /// A second create of the same name succeeds.
    TwoJobs,
    /// A foreign Job looks like one of this server.
    ForeignLooksOwn,
    /// Every Job is reported as absent.
    Blind,
    /// Deletes are answered and do nothing.
    NeverDeletes,
}

const RULES: Rules = Rules {
    heartbeat_timeout: Duration::from_secs(600),
    evidence_wait: Duration::from_secs(60),
    disruptions: 3,
    final_exit_codes: podbeat_runs::ExitCodes::NONE.with(99),
    ..Rules::DEFAULT
};

const LIMIT: u32 = 1;

const NAMESPACE: &str = "tasks";

struct ModelPod {
    uid: String,
    /// When it begins, and when it ends.
    begins: Duration,
    ends: Duration,
    end: Option<PodEnd>,
    is_said: bool,
}

struct ModelJob {
    seen: JobSeen,
    nonce: String,
    created: Duration,
    pod: Option<ModelPod>,
    /// How many pods it had.
    pods: u32,
    is_foreign: bool,
}

struct ModelSecret {
    seen: SecretSeen,
}

/// Everything that survives a crash of the server, and the judge.
struct World {
    now: Duration,
    /// When the process started.
    started: Duration,
    random: fastrand::Rng,
    rows: BTreeMap<String, (Row, Fate)>,
    jobs: BTreeMap<String, ModelJob>,
    secrets: BTreeMap<String, ModelSecret>,
    /// Changes that the watches have not delivered yet.
    lagging: VecDeque<Change>,
    /// How often a Job of this name was created.
    created: BTreeMap<String, u32>,
    uids: u64,
    /// Steps until the next crash. A step is a request, or a commit.
    crash_in: Option<u32>,
    /// How often requests fail, of 100.
    failing: u32,
    quota: BTreeMap<String, u32>,
    /// The most attempts at the same time.
    most: usize,
    /// Until when the API server answers creates with 429, and the times of the creates.
    throttled: Duration,
    tries: Vec<Duration>,
    flaw: Option<Flaw>,
    violations: Vec<String>,
    requests: u64,
    crashes: u32,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

/// What happens to a request.
enum Lot {
    Works,
    /// It fails before its effect.
    Fails,
    /// It has its effect, and then fails.
    Late,
    /// The server crashes before its effect, or after it.
    Crash(bool),
}

impl World {
    fn draw(&mut self) -> Lot {
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crash_in = None;
                return Lot::Crash(self.random.bool());
            }
            *left -= 1;
        }
        match self.random.u32(0..100) {
            drawn if drawn < self.failing => Lot::Fails,
            drawn if drawn < 2 * self.failing => Lot::Late,
            _ => Lot::Works,
        }
    }

    fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: jiff::Timestamp::UNIX_EPOCH + self.now,
            elapsed: self.now.saturating_sub(self.started),
        }
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn job_changed(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name).filter(|job| !job.is_foreign) else {
            return;
        };
        let change = Change::Job(job.seen.clone());
        let pod = job.pod.as_ref().map(|pod| Change::Pod(self.pod(name, pod)));
        self.lagging.push_back(change);
        self.lagging.extend(pod);
    }

    fn pod(&self, job: &str, pod: &ModelPod) -> PodSeen {
        let of = &self.jobs[job].seen;
        let fate = self.rows[&of.run].1;
        let begun = self.now >= pod.begins;
        let waiting = match fate {
            _ if begun || pod.end.is_some() => None,
            Fate::Hopeless => Some((Kind::Hopeless, "main: InvalidImageName")),
            Fate::NoImage => Some((Kind::Image, "main: ImagePullBackOff")),
            Fate::NoNode => Some((Kind::Node, "Unschedulable")),
            _ => Some((Kind::Ordinary, "the pod starts")),
        };
        PodSeen {
            namespace: NAMESPACE.to_owned(),
            name: format!("{job}-{}", pod.uid),
            uid: pod.uid.clone(),
            run: of.run.clone(),
            attempt: of.attempt,
            created: None,
            waiting: waiting.map(|(kind, reason)| Waiting {
                kind,
                reason: reason.to_owned(),
            }),
            disruption: None,
            end: pod.end.clone(),
            containers: Vec::new(),
        }
    }

    /// Deletes a Job, its pods, and later its Secret.
    fn delete_job(&mut self, name: &str) {
        let Some(job) = self.jobs.get(name) else {
            return;
        };
        let pod = job.pod.as_ref().map(|pod| self.pod(name, pod));
        let Some(job) = self.jobs.remove(name) else {
            return;
        };
        if job.is_foreign {
            self.violation(format!("the foreign Job {name} was deleted"));
            return;
        }
        self.lagging.push_back(Change::JobGone(job.seen.clone()));
        self.lagging.extend(pod.map(Change::PodGone));
        if self.random.bool() {
            self.secrets
                .retain(|_, secret| secret.seen.owner.as_deref() != Some(&job.seen.uid));
        }
    }

    /// One step of Kubernetes and the agents: what is due for each Job.
    fn step(&mut self) {
        for run in self.rows.keys().cloned().collect::<Vec<_>>() {
            let _ = self.apply(&run, &Event::Tick);
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.step_job(&name);
        }
    }

    fn step_job(&mut self, name: &str) {
        let now = self.now;
        let uid = self.uid();
        let (pause, length) = (self.random.u64(1..20), self.random.u64(5..900));
        let Some(job) = self.jobs.get_mut(name).filter(|job| !job.is_foreign) else {
            return;
        };
        let run = job.seen.run.clone();
        let fate = self.rows[&run].1;
        let age = now.saturating_sub(job.created);
        let seconds = Duration::from_secs;
        if fate == Fate::Queued && job.seen.end.is_none() {
            let suspended = match age {
                age if age < seconds(7200) => true,
                age if age < seconds(7500) => false,
                age if age < seconds(9000) => true,
                _ => false,
            };
            if job.seen.is_suspended != suspended {
                job.seen.is_suspended = suspended;
                if suspended {
                    // The agent sees how its task is stopped, and says so.
                    let stopped = job.pod.take();
                    let nonce = job.nonce.clone();
                    self.lagging
                        .push_back(Change::Job(self.jobs[name].seen.clone()));
                    if let Some(pod) = stopped.filter(|pod| now >= pod.begins) {
                        self.beat(&run, &nonce, &pod.uid, Some(143));
                    }
                    return;
                }
                self.job_changed(name);
                return;
            }
            if suspended {
                return;
            }
        }
        if job.pod.is_none() && job.seen.end.is_none() {
            let begins = match fate {
                Fate::Hopeless | Fate::NoImage => Duration::MAX,
                Fate::NoNode => now + seconds(3600),
                _ => now + seconds(pause),
            };
            let ends = match fate {
                Fate::Silent => Duration::MAX,
                // Longer than until it is suspended.
                Fate::Queued if job.pods == 0 => Duration::MAX,
                _ => begins.saturating_add(seconds(length)),
            };
            job.pods += 1;
            job.pod = Some(ModelPod {
                uid,
                begins,
                ends,
                end: None,
                is_said: false,
            });
            self.job_changed(name);
            return;
        }
        let attempt = job.seen.attempt;
        let nonce = job.nonce.clone();
        let Some(pod) = &mut job.pod else { return };
        if pod.end.is_none() && now >= pod.begins && now < pod.ends {
            let uid = pod.uid.clone();
            let is_silent = fate == Fate::Silent && now >= pod.begins + seconds(60);
            if fate == Fate::JobDeleted && attempt == 0 && self.random.u8(0..4) == 0 {
                self.delete_job(name);
                return;
            }
            if !is_silent && self.beat(&run, &nonce, &uid, None) == Some(false) {
                // The agent was told to stop.
                if let Some(job) = self.jobs.get_mut(name)
                    && let Some(pod) = &mut job.pod
                {
                    pod.ends = now;
                    pod.is_said = true;
                }
            }
            self.job_changed(name);
            return;
        }
        if pod.end.is_none() && now >= pod.ends {
            let code = match fate {
                Fate::Fails(code) | Fate::Unheard(code) => code,
                Fate::FailsOnce if attempt == 0 => 1,
                Fate::Evicted(times) if attempt < times => 137,
                _ => 0,
            };
            let evicted = matches!(fate, Fate::Evicted(times) if attempt < times);
            pod.end = Some(PodEnd {
                uid: Some(pod.uid.clone()),
                exits: vec![Exit {
                    container: MAIN.to_owned(),
                    code,
                    reason: None,
                }],
                reason: evicted.then(|| "Evicted".to_owned()),
                disrupted: evicted,
            });
            let (uid, is_said) = (pod.uid.clone(), pod.is_said);
            pod.is_said = true;
            job.seen.end = Some(match code {
                0 => JobEnd::Complete,
                _ => JobEnd::Failed {
                    reason: "BackoffLimitExceeded".to_owned(),
                },
            });
            if !is_said && !matches!(fate, Fate::Unheard(_)) {
                self.beat(&run, &nonce, &uid, Some(code));
            }
            self.job_changed(name);
        }
    }

    /// A heartbeat. Returns whether the run accepts it; `None` if it did not arrive.
    fn beat(&mut self, run: &str, nonce: &str, uid: &str, last: Option<i32>) -> Option<bool> {
        if last.is_none() && self.random.u32(0..100) < self.failing {
            return None;
        }
        let state = match last {
            Some(code) => ContainerState::from(ContainerStateTerminated {
                exit_code: Some(code),
                ..ContainerStateTerminated::default()
            }),
            None => ContainerStateRunning::default().into(),
        };
        let heartbeat = Heartbeat {
            nonce: Some(nonce.to_owned()),
            last: last.is_some(),
            pod: Pod {
                name: Some("pod".to_owned()),
                uid: Some(uid.to_owned()),
                hardware: None,
            },
            containers: vec![ContainerStatus {
                name: Some(MAIN.to_owned()),
                state: Some(state),
            }],
            ..Heartbeat::default()
        };
        Some(
            self.apply(run, &Event::Heartbeat(Box::new(heartbeat)))
                .is_ok(),
        )
    }

    /// Applies an event to a row, and checks what must always be true.
    fn apply(&mut self, run: &str, event: &Event) -> Result<Row, Unchanged> {
        let moment = self.moment();
        let before = self.rows[run].0.clone();
        let mut row = before.clone();
        let applied = row.run.apply(event, moment, &RULES);
        applied.map_err(|_| Unchanged::Refused)?;
        let (old, new) = (before.run.status(), row.run.status());
        if old.is_final() && old != new {
            self.violation(format!("{run} was {old} and became {new}"));
        }
        if let Some((stored, _)) = self.rows.get_mut(run)
            && self.flaw != Some(Flaw::LostCommit)
        {
            stored.clone_from(&row);
        }
        Ok(row)
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panicked")
    }

    /// A request with an effect.
    fn request<'a, T: Send + 'a>(
        &self,
        effect: impl FnOnce(&mut World) -> Result<T, Failure>,
    ) -> Answer<'a, T> {
        let mut world = self.world();
        world.requests += 1;
        let lost = Failure::Unavailable {
            why: "the model lost it".to_owned(),
            after: None,
        };
        let answer = match world.draw() {
            Lot::Works => effect(&mut world),
            Lot::Fails => Err(lost),
            Lot::Late => {
                let _ = effect(&mut world);
                Err(lost)
            }
            Lot::Crash(has_effect) => {
                if has_effect {
                    let _ = effect(&mut world);
                }
                // Nobody will poll it again.
                return std::future::pending().boxed();
            }
        };
        std::future::ready(answer).boxed()
    }
}

impl Cluster for Shared {
    fn job<'a>(&'a self, _: &'a str, name: &'a str) -> Answer<'a, Found> {
        self.request(|world| {
            if world.flaw == Some(Flaw::Blind) {
                return Ok(Found::Nothing);
            }
            Ok(match world.jobs.get(name) {
                None => Found::Nothing,
                Some(job) if job.is_foreign && world.flaw == Some(Flaw::ForeignLooksOwn) => {
                    let run = name.trim_start_matches("trn-").trim_end_matches("-0");
                    Found::Ours(JobSeen {
                        run: format!("trn.{run}"),
                        ..job.seen.clone()
                    })
                }
                Some(job) if job.is_foreign => Found::Foreign,
                Some(job) => Found::Ours(job.seen.clone()),
            })
        })
    }

    fn pods<'a>(&'a self, _: &'a str, job_uid: &'a str) -> Answer<'a, Vec<PodSeen>> {
        self.request(|world| {
            let job = world.jobs.iter().find(|(_, job)| job.seen.uid == job_uid);
            let pods = job.and_then(|(name, job)| Some(world.pod(name, job.pod.as_ref()?)));
            Ok(pods.into_iter().collect())
        })
    }

    fn complaint<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, Option<String>> {
        self.request(|_| Ok(None))
    }

    fn create_job<'a>(&'a self, job: &'a Job) -> Answer<'a, JobSeen> {
        self.request(|world| {
            let name = job.metadata.name.clone().expect("a name");
            let seen = JobSeen::of(
                &Job {
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        uid: Some(world.uid()),
                        ..job.metadata.clone()
                    },
                    ..job.clone()
                },
                &Settings::default(),
            )
            .expect("ours");
            let (row, fate) = world.rows[&seen.run].clone();
            world.tries.push(world.now);
            if world.now < world.throttled {
                return Err(Failure::Unavailable {
                    why: "429".to_owned(),
                    after: Some(world.throttled - world.now),
                });
            }
            if world.jobs.contains_key(&name) && world.flaw != Some(Flaw::TwoJobs) {
                return Err(Failure::Exists);
            }
            if fate == Fate::Invalid {
                return Err(Failure::Invalid("no".to_owned()));
            }
            let left = world.quota.entry(seen.run.clone()).or_insert(match fate {
                Fate::Quota => 3,
                _ => 0,
            });
            if *left > 0 {
                *left -= 1;
                return Err(Failure::Refused("exceeded quota".to_owned()));
            }
            let current = row.run.attempts().last();
            if current.map(|attempt| attempt.number) != Some(seen.attempt) {
                world.violation(format!("{name} was created before its row says so"));
            }
            let times = world.created.entry(name.clone()).or_default();
            *times += 1;
            if *times > 1 && fate != Fate::JobDeleted {
                let text = format!("{name} was created {times} times");
                world.violation(text);
            }
            let nonce = current.and_then(|attempt| attempt.nonce.clone());
            let last = |row: &Row| row.run.attempts().last().cloned();
            let attempts = world.rows.values().filter_map(|(row, _)| last(row));
            let attempts = attempts.filter(|attempt| attempt.ended.is_none()).count();
            if attempts > world.most {
                world.violation(format!("{attempts} attempts at once"));
            }
            let created = world.now;
            world.jobs.insert(
                name.clone(),
                ModelJob {
                    seen: seen.clone(),
                    nonce: nonce.unwrap_or_default(),
                    created,
                    pod: None,
                    pods: 0,
                    is_foreign: false,
                },
            );
            world.job_changed(&name);
            Ok(seen)
        })
    }

    fn create_secret<'a>(&'a self, secret: &'a Secret) -> Answer<'a, String> {
        self.request(|world| {
            let name = secret.metadata.name.clone().expect("a name");
            if world.secrets.contains_key(&name) {
                return Err(Failure::Exists);
            }
            let uid = world.uid();
            let (run, attempt) =
                crate::seen::owned(&secret.metadata, &Settings::default()).expect("ours");
            let owner = secret.metadata.owner_references.as_ref().expect("an owner");
            let seen = SecretSeen {
                namespace: NAMESPACE.to_owned(),
                name: name.clone(),
                uid: uid.clone(),
                run,
                attempt,
                owner: owner.first().map(|owner| owner.uid.clone()),
            };
            world.secrets.insert(name, ModelSecret { seen });
            Ok(uid)
        })
    }

    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> Answer<'a, Option<SecretSeen>> {
        self.request(|world| Ok(world.secrets.get(name).map(|secret| secret.seen.clone())))
    }

    fn secrets<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<SecretSeen>> {
        self.request(|world| {
            let all = world.secrets.values();
            Ok(all.map(|secret| secret.seen.clone()).collect())
        })
    }

    fn delete_job<'a>(&'a self, _: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()> {
        self.request(|world| {
            let Some(job) = world.jobs.get(name) else {
                return Ok(());
            };
            match world.flaw {
                Some(Flaw::NeverDeletes) => return Ok(()),
                _ if job.seen.uid != uid => return Err(Failure::Changed),
                _ => {}
            }
            if job.is_foreign {
                world.delete_job(name);
                return Ok(());
            }
            let (run, attempt) = (job.seen.run.clone(), job.seen.attempt);
            let row = &world.rows[&run].0.run;
            let current = row.attempts().last();
            if current.is_some_and(|it| it.number == attempt && it.ended.is_none()) {
                world.violation(format!("{name} was deleted before its row says so"));
            }
            world.delete_job(name);
            Ok(())
        })
    }

    fn delete_secret<'a>(&'a self, _: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()> {
        self.request(|world| {
            let is_it = world.secrets.get(name).is_some_and(|it| it.seen.uid == uid);
            if is_it && world.flaw != Some(Flaw::NeverDeletes) {
                world.secrets.remove(name);
            }
            Ok(())
        })
    }

    fn log_tail<'a>(&'a self, _: &'a str, _: &'a str, _: usize) -> Answer<'a, Option<String>> {
        self.request(|_| Ok(None))
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        Box::pin(stream::pending())
    }
}

impl Runs for Shared {
    fn now(&self) -> Moment {
        self.world().moment()
    }

    fn row<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Row>, Unchanged>> {
        let row = self.world().rows.get(id).map(|(row, _)| row.clone());
        std::future::ready(Ok(row)).boxed()
    }

    fn apply<'a>(&'a self, id: &'a str, event: Event) -> BoxFuture<'a, Result<Row, Unchanged>> {
        let mut world = self.world();
        let answer = match world.draw() {
            Lot::Works => world.apply(id, &event),
            Lot::Fails => Err(Unchanged::Unavailable),
            Lot::Late => {
                let _ = world.apply(id, &event);
                Err(Unchanged::Unavailable)
            }
            Lot::Crash(has_effect) => {
                if has_effect {
                    let _ = world.apply(id, &event);
                }
                return std::future::pending().boxed();
            }
        };
        std::future::ready(answer).boxed()
    }

    fn order<'a>(
        &'a self,
        row: &'a Row,
    ) -> BoxFuture<'a, Result<Result<Order, String>, Unchanged>> {
        let attempt = row.run.attempts().last().expect("an attempt");
        let order = Order {
            run: row.id.clone(),
            tenant: row.tenant.clone(),
            attempt: attempt.number,
            nonce: podbeat_task_runs::Secret::new(attempt.nonce.clone().unwrap_or_default()),
            token: podbeat_task_runs::Secret::new("token"),
            execution: Execution {
                image: Some(Image::new("busybox")),
                ..Execution::default()
            },
        };
        std::future::ready(Ok(Ok(order))).boxed()
    }

    fn nonce(&self) -> Option<String> {
        Some(self.world().uid())
    }

    fn unfinished(&self) -> Vec<String> {
        let world = self.world();
        let live = world
            .rows
            .values()
            .filter(|(row, _)| !row.run.status().is_final());
        live.map(|(row, _)| row.id.clone()).collect()
    }

    fn attempts(&self) -> usize {
        let world = self.world();
        let last = |row: &Row| row.run.attempts().last().cloned();
        let rows = world.rows.values().filter_map(|(row, _)| last(row));
        rows.filter(|attempt| attempt.ended.is_none()).count()
    }
}

struct Nobody;

impl Observer for Nobody {
    fn done(&self, _: Deed<'_>) {}
}

/// A launcher in a new process: it knows nothing, and its watches list everything.
fn start(shared: &Shared, seed: u64) -> Launcher {
    {
        let mut world = shared.world();
        world.started = world.now;
        world.lagging.clear();
        let moment = world.moment();
        for (row, _) in world.rows.values_mut() {
            row.run.waits_from(moment);
        }
        let ours = |job: &&ModelJob| !job.is_foreign;
        let jobs = world.jobs.values().filter(ours);
        let jobs = jobs.map(|job| job.seen.clone()).collect();
        let pods = world.jobs.iter().filter_map(|(name, job)| {
            let pod = job.pod.as_ref()?;
            Some(world.pod(name, pod))
        });
        let pods = pods.collect();
        let listed = |jobs, pods| Change::Listed {
            namespace: NAMESPACE.to_owned(),
            jobs,
            pods,
        };
        let lists = [listed(Some(jobs), None), listed(None, Some(pods))];
        world.lagging.extend(lists);
    }
    let cluster: Arc<dyn Cluster> = Arc::new(shared.clone());
    let runs: Arc<dyn Runs> = Arc::new(shared.clone());
    let mut settings = Settings::default();
    settings.limits.attempts = shared.world().most;
    let launcher = Launcher::new(cluster, runs, Arc::new(Nobody), (settings, RULES), seed);
    for id in shared.unfinished() {
        launcher.changed(&id);
    }
    launcher
}

/// How a run may end.
fn expected(fate: Fate, is_aborted: bool, status: Status) -> bool {
    if is_aborted && status == Status::Aborted {
        return true;
    }
    match fate {
        Fate::Succeeds
        | Fate::FailsOnce
        | Fate::Evicted(1)
        | Fate::NoNode
        | Fate::Quota
        | Fate::Queued
        | Fate::Unheard(0)
        | Fate::JobDeleted => status == Status::Completed,
        Fate::Fails(_)
        | Fate::Evicted(_)
        | Fate::Hopeless
        | Fate::NoImage
        | Fate::Unheard(_)
        | Fate::Invalid => status == Status::Failed,
        Fate::Silent => status == Status::TimedOut,
        Fate::Foreign => status == Status::CheckedOut,
    }
}

/// Plays one life of several runs. Returns what went wrong, and how many requests there were.
fn play(seed: u64, flaw: Option<Flaw>) -> (Vec<String>, u64, u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let shared = Shared(Arc::new(Mutex::new(World {
        now: Duration::from_secs(1),
        started: Duration::ZERO,
        random: random.fork(),
        rows: BTreeMap::new(),
        jobs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        lagging: VecDeque::new(),
        created: BTreeMap::new(),
        uids: 0,
        crash_in: None,
        failing: random.choice([0, 0, 3, 15]).unwrap_or(0),
        quota: BTreeMap::new(),
        most: random.choice([1, 2, 10_000]).unwrap_or(1),
        throttled: Duration::ZERO,
        tries: Vec::new(),
        flaw,
        violations: Vec::new(),
        requests: 0,
        crashes: 0,
    })));
    let mut aborts = BTreeMap::new();
    for number in 0..random.usize(1..4) {
        let fate = random.choice(FATES).unwrap_or(Fate::Succeeds);
        let id = format!("trn.{number}");
        let row = Row {
            id: id.clone(),
            tenant: "t".to_owned(),
            place: number as u64,
            run: Run::to_launch(LIMIT),
        };
        let mut world = shared.world();
        if fate == Fate::Foreign {
            let job = name(&id, 0);
            let uid = world.uid();
            let seen = JobSeen {
                namespace: NAMESPACE.to_owned(),
                name: job.clone(),
                uid,
                run: "other".to_owned(),
                attempt: 0,
                spec_hash: None,
                is_suspended: false,
                is_deleted: false,
                end: None,
            };
            let foreign = ModelJob {
                seen,
                nonce: String::new(),
                created: Duration::ZERO,
                pod: None,
                pods: 0,
                is_foreign: true,
            };
            world.jobs.insert(job, foreign);
        }
        world.rows.insert(id.clone(), (row, fate));
        if fate == Fate::Foreign || random.u8(0..4) == 0 {
            aborts.insert(id, Duration::from_secs(random.u64(1..1500)));
        }
    }
    let aborted: Vec<String> = aborts.keys().cloned().collect();
    let mut launcher = start(&shared, seed);
    let mut told = BTreeMap::new();
    for round in 0..4_000 {
        // Crashes come at any step, but not for ever.
        if round < 1_000 && random.u8(0..20) == 0 {
            let steps = random.u32(0..12);
            shared.world().crash_in.get_or_insert(steps);
        }
        if round == 1_500 {
            let mut world = shared.world();
            (world.failing, world.crash_in) = (0, None);
        }
        shared.world().step();
        let due: Vec<String> = aborts
            .iter()
            .filter(|(_, at)| **at <= shared.world().now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            aborts.remove(&id);
            let abort = Event::Abort {
                by: "alice".to_owned(),
            };
            let _ = shared.world().apply(&id, &abort);
            launcher.changed(&id);
        }
        for _ in 0..random.usize(0..4) {
            let change = shared.world().lagging.pop_front();
            if let Some(change) = change {
                launcher.take(change);
            }
        }
        if random.u8(0..50) == 0 && launcher.sweep().now_or_never().is_none() {
            shared.world().crashes += 1;
            launcher = start(&shared, seed + round);
        }
        launcher.unpark();
        // The service tells the launcher about each row that changed.
        let rows: Vec<Row> = {
            let world = shared.world();
            world.rows.values().map(|(row, _)| row.clone()).collect()
        };
        for row in rows {
            let known = told.insert(row.id.clone(), row.run.clone());
            if known.is_none_or(|known| known.differs(&row.run)) {
                launcher.changed(&row.id);
            }
        }
        while let Some(id) = launcher.due() {
            if launcher.work(&id).now_or_never().is_none() {
                shared.world().crashes += 1;
                launcher = start(&shared, seed + round);
            }
            if random.u8(0..8) == 0 {
                break;
            }
        }
        let mut world = shared.world();
        world.now += Duration::from_secs(random.choice([1, 1, 5, 30]).unwrap_or(1));
        let is_over = |(row, fate): &(Row, Fate)| {
            row.run.status().is_final() || (*fate == Fate::Foreign && !aborted.contains(&row.id))
        };
        let own = world.jobs.values().filter(|job| !job.is_foreign).count();
        if world.rows.values().all(is_over)
            && own == 0
            && world.secrets.is_empty()
            && world.lagging.is_empty()
        {
            break;
        }
    }
    let mut world = shared.world();
    let mut violations = std::mem::take(&mut world.violations);
    for (id, (row, fate)) in &world.rows {
        let status = row.run.status();
        if !expected(*fate, aborted.contains(id), status) {
            let details = row.run.details().unwrap_or_default();
            violations.push(format!("{id} with {fate:?} ended as {status} {details:?}"));
        }
        if *fate == Fate::Foreign && !world.jobs.contains_key(&name(id, 0)) {
            violations.push(format!("the foreign Job of {id} is gone"));
        }
    }
    let left = world.jobs.iter().filter(|(_, job)| !job.is_foreign);
    violations.extend(left.map(|(name, _)| format!("Job {name} is left")));
    violations.extend(
        world
            .secrets
            .keys()
            .map(|name| format!("Secret {name} is left")),
    );
    (violations, world.requests, world.crashes)
}

/// A world with runs that succeed, and without failures.
fn calm(runs: usize) -> Shared {
    let rows = (0..runs).map(|number| {
        let id = format!("trn.{number}");
        let row = Row {
            id: id.clone(),
            tenant: "t".to_owned(),
            place: number as u64,
            run: Run::to_launch(LIMIT),
        };
        (id, (row, Fate::Succeeds))
    });
    Shared(Arc::new(Mutex::new(World {
        now: Duration::from_secs(1),
        started: Duration::ZERO,
        random: fastrand::Rng::with_seed(1),
        rows: rows.collect(),
        jobs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        lagging: VecDeque::new(),
        created: BTreeMap::new(),
        uids: 0,
        crash_in: None,
        failing: 0,
        quota: BTreeMap::new(),
        most: 10_000,
        throttled: Duration::ZERO,
        tries: Vec::new(),
        flaw: None,
        violations: Vec::new(),
        requests: 0,
        crashes: 0,
    })))
}

#[test]
fn the_rate_and_the_wait_that_the_api_server_asks_for_are_kept() {
    let shared = calm(200);
    let launcher = start(&shared, 1);
    shared.world().throttled = Duration::from_secs(31);
    let second = Duration::from_secs(1);
    while shared.world().created.len() < 200 {
        while let Some(id) = launcher.due() {
            launcher.work(&id).now_or_never().expect("nothing crashes");
        }
        let mut world = shared.world();
        world.now += Duration::from_millis(50);
        assert!(world.now < 120 * second, "{} Jobs", world.created.len());
    }
    let world = shared.world();
    let early = world.tries.iter().filter(|at| **at < 31 * second).count();
    assert!(
        early <= 40,
        "{early} creates before the time that was asked for"
    );
    let later: Vec<&Duration> = world
        .tries
        .iter()
        .filter(|at| **at >= 31 * second)
        .collect();
    for begin in &later {
        let within = later
            .iter()
            .filter(|at| ***at >= **begin && ***at < **begin + second);
        let within = within.count();
        assert!(within <= 20 + 40, "{within} creates in a second");
    }
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

fn lives() -> u64 {
    std::option_env!("PODBEAT_LAUNCH_LIVES")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_500)
}

#[test]
fn runs_end_as_they_should_whatever_crashes() {
    let (mut requests, mut crashes) = (0, 0);
    for seed in 0..lives() {
        let (violations, made, crashed) = play(seed, None);
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        requests += made;
        crashes += crashed;
    }
    assert!(crashes > 0 && requests > 0);
    println!("{} lives, {requests} requests, {crashes} crashes", lives());
}

#[test]
fn the_judge_finds_planted_flaws() {
    for flaw in [
        Flaw::LostCommit,
        Flaw::TwoJobs,
        Flaw::ForeignLooksOwn,
        Flaw::Blind,
        Flaw::NeverDeletes,
    ] {
        let mut found = (0..300).flat_map(|seed| play(seed, Some(flaw)).0);
        let first = found.next();
        println!("{flaw:?}: {first:?}");
        assert!(first.is_some(), "{flaw:?} went unnoticed");
    }
}
