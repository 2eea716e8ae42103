//! Many runs on a real kube-apiserver, without a node: how fast they are launched, how many requests
//! one costs, and how soon a server that starts again has caught up.
//!
//! This program is the Job controller, the kubelet and the agents: it creates the pods of the Jobs,
//! and sends the heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{TryStreamExt, stream};
use podbeat_lab::fleet::figures::{Figures, Limit};
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    ContainerState, ContainerStateTerminated, ContainerStatus, HeartbeatTaskRunRequest,
    ListTaskRunsQuery,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ground::{USER, rights};
use super::jobs::{self, Known};
use super::server::{Server, Site};
use super::table::{Act, Case};
use super::text_at;
use crate::api::Namespace;
use crate::cluster::Cluster;
use crate::runner::say;
use crate::{Error, io};

const NAMESPACE: &str = "crowd";

/// The default rate of the launch file, and its burst.
const RATE: f64 = 20.0;
const BURST: f64 = 40.0;

/// How many requests this program makes at the same time.
const AT_ONCE: usize = 16;

/// The limit for each stage.
const LIMIT: Duration = Duration::from_secs(600);

/// A run of the crowd.
const ONE: Case = Case {
    name: "crowd",
    shows: "",
    tenant: NAMESPACE,
    execution: r#"{"image":{"name":"none"},"command":"true","retryLimit":0}"#,
    refused: None,
    act: Act::Nothing,
    when: "",
    status: "",
    attempts: 1..=1,
    details: "",
};

/// Flags of an API server that logs each request of podbeat-server.
///
/// # Errors
/// The policy can't be written.
pub fn audited(dir: &Path) -> Result<Vec<String>, Error> {
    let omitted = ["RequestReceived", "ResponseStarted", "Panic"];
    crate::cluster::audited(dir, &omitted, ("users", USER))
}

struct Crowd {
    cluster: Cluster,
    site: Site,
    namespace: Namespace,
    known: Arc<Mutex<Known>>,
}

/// Launches `ends` runs to their end, and then `stays` runs whose pods wait while the server starts
/// again.
///
/// # Errors
/// Something can't be started, or a state is not reached in time.
pub async fn run(
    cluster: Cluster,
    server: PathBuf,
    (ends, stays): (usize, usize),
) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let crowd = Crowd::prepare(cluster, server).await?;
    let kube = crowd.cluster.admin().await?;
    let watching = tokio::spawn(jobs::watch(kube, Arc::clone(&crowd.known)));

    // Runs that end.
    crowd.launch_file(&json!({}))?;
    let server = Server::start(crowd.site.clone(), &[NAMESPACE]).await?;
    create(&server, ends).await?;
    let begun = Instant::now();
    let mut served = BTreeSet::new();
    while begun.elapsed() < LIMIT {
        let new: Vec<(String, String)> = {
            let known = crowd.known();
            let live = known
                .live
                .iter()
                .map(|(job, run)| (job.clone(), run.clone()));
            live.filter(|(job, _)| !served.contains(job)).collect()
        };
        served.extend(new.iter().map(|(job, _)| job.clone()));
        stream::iter(new.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |(job, run)| crowd.finish(&server, job, run))
            .await?;
        if served.len() >= ends && crowd.known().live.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let completed = count(&server, "Completed").await?;
    figures.exactly("runs that are Completed", completed, ends);
    let (created, twice, over) = {
        let known = crowd.known();
        let over = known
            .first
            .zip(known.last)
            .map(|(first, last)| last - first);
        let twice = known.uids.values().filter(|uids| uids.len() != 1).count();
        (known.uids.len(), twice, over.unwrap_or_default())
    };
    figures.exactly("Jobs that were created", created, ends);
    figures.exactly("Jobs that were created twice", twice, 0);
    let rate = (ends as f64 - BURST).max(1.0) / over.as_secs_f64().max(0.001);
    let most = Limit::AtMost(RATE * 1.1);
    figures.add("Jobs a second, after the burst", rate, "/s", most);
    let least = Limit::AtLeast(RATE * 0.7);
    figures.add(
        "Jobs a second, after the burst, at least",
        rate,
        "/s",
        least,
    );
    figures.exactly("Jobs that are left", crowd.first("jobs").await?, 0);
    figures.exactly("Secrets that are left", crowd.first("secrets").await?, 0);
    let requests = requests(&crowd.cluster.path("audit.jsonl"))?;
    let total: usize = requests.values().sum();
    figures.attach("requests", json!(requests));
    let each = total as f64 / ends as f64;
    figures.add("requests for a run", each, "", Limit::AtMost(10.0));
    for (what, count) in &requests {
        say(&format!("  {what}: {count}"));
    }

    // Runs that wait, while the server starts again.
    server.kill().await?;
    let fast =
        json!({"limits": {"createsPerSecond": 1000, "createBurst": 1000, "attempts": 100_000}});
    crowd.launch_file(&fast)?;
    server.restart().await?;
    server.until_ready().await?;
    create(&server, stays).await?;
    let begun = Instant::now();
    while crowd.known().live.len() < stays {
        if begun.elapsed() > LIMIT {
            return Err(Error::Unexpected(
                "not all Jobs were created in time".to_owned(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    say(&format!(
        "{stays} Jobs after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    crowd.start_pods().await?;
    until(&server, "Runnable", stays).await?;
    server.kill().await?;
    // What happens while the server is away.
    const CHANGED: usize = 100;
    let jobs: Vec<String> = crowd.known().live.keys().take(CHANGED).cloned().collect();
    for job in &jobs {
        crowd.namespace.delete_pod(&format!("{job}-x"), 0).await?;
        crowd.namespace.delete_job(job).await?;
    }
    let begun = Instant::now();
    server.restart().await?;
    server.until_ready().await?;
    until(&server, "Runnable", stays - jobs.len()).await?;
    let caught_up = begun.elapsed().as_secs_f64();
    let limit = Limit::AtMost(10.0);
    figures.add("start until all Jobs are reconciled", caught_up, "s", limit);
    watching.abort();
    Ok(figures)
}

impl Crowd {
    async fn prepare(cluster: Cluster, program: PathBuf) -> Result<Self, Error> {
        let directory = cluster.path("launch");
        std::fs::create_dir_all(&directory)
            .map_err(io(format!("creating {}", directory.display())))?;
        let namespace = Namespace::create(cluster.admin().await?, NAMESPACE).await?;
        namespace.apply(&rights(NAMESPACE)).await?;
        let identity = cluster.authority.issue(&["127.0.0.1"])?;
        for (name, text) in [
            ("server.crt", identity.certificate.as_str()),
            ("server.key", identity.key.as_str()),
            ("ca.crt", cluster.authority.pem()),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        }
        let user = cluster.authority.issue_client(USER, &[])?;
        cluster.write_kubeconfig("launch/server", &user, &cluster.url)?;
        let address = format!("127.0.0.1:{}", crate::cluster::free_port()?);
        let site = Site {
            program,
            directory,
            url: format!("https://{address}"),
            address,
            heartbeat_timeout: "30m",
        };
        Ok(Self {
            cluster,
            site,
            namespace,
            known: Arc::default(),
        })
    }

    fn launch_file(&self, more: &Value) -> Result<(), Error> {
        let mut file = json!({"instance": "crowd", "namespace": NAMESPACE});
        if let (Some(file), Some(more)) = (file.as_object_mut(), more.as_object()) {
            file.extend(more.clone());
        }
        let path = self.site.file("launch.json");
        std::fs::write(&path, file.to_string()).map_err(io(format!("writing {}", path.display())))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of objects of the server, up to one.
    async fn first(&self, kind: &str) -> Result<usize, Error> {
        let labels = "app.kubernetes.io/managed-by=podbeat-server";
        Ok(self.namespace.first(kind, labels).await?.iter().len())
    }

    /// Reports the end of a Job's pod, as its agent.
    async fn finish(&self, server: &Server, job: String, run: String) -> Result<(), Error> {
        let begun = Instant::now();
        let secret = loop {
            match self.namespace.object(&format!("secrets/{job}")).await {
                Ok(secret) => break secret,
                Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let part = |key: &str| {
            let encoded = text_at(&secret, &format!("/data/{key}")).unwrap_or_default();
            let bytes = BASE64_STANDARD.decode(encoded).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let token = Secret::new(part("token"));
        let end = ContainerStateTerminated {
            exit_code: Some(0),
            ..ContainerStateTerminated::default()
        };
        let request = HeartbeatTaskRunRequest {
            nonce: Some(part("nonce")),
            pod_name: Some(format!("{job}-x")),
            pod_uid: Some(format!("uid-of-{job}")),
            last_heartbeat: Some(true),
            container_status: Some(vec![ContainerStatus {
                name: Some("main".to_owned()),
                state: Some(ContainerState::from(end)),
            }]),
            ..HeartbeatTaskRunRequest::default()
        };
        let timeout = Duration::from_secs(10);
        let sent = server
            .client()
            .heartbeat(&run, &request, &token, timeout)
            .await;
        sent.map(drop)
            .map_err(crate::ours(format!("sending the last heartbeat of {run}")))
    }

    /// Creates a pod for each Job. None of them has a node.
    async fn start_pods(&self) -> Result<(), Error> {
        let jobs: Vec<String> = self.known().live.keys().cloned().collect();
        stream::iter(jobs.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, async |job| {
                let found = self.namespace.job(&job).await?;
                let template = found.pointer("/spec/template").cloned().unwrap_or_default();
                let mut labels = template
                    .pointer("/metadata/labels")
                    .cloned()
                    .unwrap_or_default();
                let uid = found.pointer("/metadata/uid").cloned().unwrap_or_default();
                if let Some(labels) = labels.as_object_mut() {
                    labels.insert("batch.kubernetes.io/controller-uid".to_owned(), uid);
                }
                let pod = json!({"metadata": {"name": format!("{job}-x"), "labels": labels},
                    "spec": {"serviceAccountName": "podbeat", "containers": [{"name": "main", "image": "none"}]}});
                self.namespace.create_pod(&pod).await?;
                Ok(())
            })
            .await
    }
}

/// Creates runs.
async fn create(server: &Server, runs: usize) -> Result<(), Error> {
    stream::iter((0..runs).map(Ok))
        .try_for_each_concurrent(AT_ONCE, async |_| server.create(&ONE).await.map(drop))
        .await
}

/// The number of runs with a status.
async fn count(server: &Server, status: &str) -> Result<usize, Error> {
    let query = ListTaskRunsQuery {
        status: Some(status.into()),
        ..ListTaskRunsQuery::default()
    };
    let timeout = Duration::from_secs(10);
    let page = server
        .client()
        .list(&query, server.token(""), timeout)
        .await;
    let page = page.map_err(crate::ours(format!("counting runs that are {status}")))?;
    let total = page.total_item_count.unwrap_or_default();
    Ok(usize::try_from(total).unwrap_or_default())
}

async fn until(server: &Server, status: &str, runs: usize) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let found = count(server, status).await?;
        if found == runs {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            return Err(Error::Unexpected(format!(
                "{found} runs are {status}, and not {runs}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The requests of podbeat-server by verb and resource. Watches and lists do not depend on the
/// number of runs.
fn requests(path: &Path) -> Result<BTreeMap<String, usize>, Error> {
    let text = std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))?;
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let verb = text_at(&event, "/verb").unwrap_or_default();
        let resource = text_at(&event, "/objectRef/resource").unwrap_or_default();
        *counts.entry(format!("{verb} {resource}")).or_default() += 1;
    }
    Ok(counts)
}
