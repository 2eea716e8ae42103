//! A stand-in for the Job controller and for a node with its kubelet. It creates the pod of each
//! Job, moves it through its phases, and starts podbeat's real agent with what the pod's spec says.
//! It runs no images: a test says what the task does.

mod kubelet;
mod volumes;

use std::collections::{BTreeMap, HashSet};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podbeat::agent::Onlooker;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use self::kubelet::{Life, live};
use crate::kube_api::{Kind, KubeApi, now};
use crate::{Error, io};

/// What the task of a pod does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// It ends with this exit code after this time.
    Exits(i32, Duration),
    /// It runs until it is stopped.
    Runs,
    /// Its container waits for this reason, with this message.
    Waits(&'static str, &'static str),
    /// There is no node for it.
    HasNoNode,
}

/// The node's options.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The time between two steps of a pod.
    pub pace: Duration,
    /// The token of the pods' service account.
    pub token: String,
    /// The ConfigMaps in the namespaces of the pods.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the task of each attempt does, from the run's ID and the number of the attempt.
type Programs = dyn Fn(&str, u32) -> Program + Send + Sync;

/// A Job controller and a node. Both end when dropped, with all pods and their agents.
#[derive(Debug)]
pub struct Node {
    problems: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

/// What all pods share.
struct Shared {
    kube: Arc<KubeApi>,
    options: Options,
    programs: Box<Programs>,
    problems: Arc<Mutex<Vec<String>>>,
    /// The volumes of all pods.
    dir: TempDir,
}

impl Shared {
    /// Something that a test does not expect.
    fn problem(&self, problem: String) {
        let problems = self.problems.lock();
        problems
            .unwrap_or_else(PoisonError::into_inner)
            .push(problem);
    }
}

impl Node {
    /// Starts both.
    ///
    /// # Errors
    /// There is no temporary directory.
    pub fn start(
        kube: Arc<KubeApi>,
        options: Options,
        programs: impl Fn(&str, u32) -> Program + Send + Sync + 'static,
        onlooker: impl Onlooker + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        let problems = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::new(Shared {
            kube,
            options,
            programs: Box::new(programs),
            problems: Arc::clone(&problems),
            dir: tempfile::tempdir().map_err(io("creating a temporary directory"))?,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(control(shared, onlooker));
        Ok(Self {
            problems,
            _tasks: tasks,
        })
    }

    /// What went wrong in the node, such as settings that an agent rejects.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock();
        problems.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The Job controller: creates one pod for each Job that is not suspended.
async fn control(shared: Arc<Shared>, onlooker: impl Onlooker + Clone + Send + 'static) {
    let mut changes = shared.kube.changes();
    // The Jobs that have, or had, a pod.
    let mut begun: HashSet<String> = HashSet::new();
    let mut count = 0_u32;
    let mut pods = JoinSet::new();
    loop {
        changes.borrow_and_update();
        let jobs = shared.kube.all(Kind::Job);
        begun.retain(|known| jobs.iter().any(|job| text(job, "/metadata/uid") == known));
        for job in jobs {
            let is_suspended = job.pointer("/spec/suspend") == Some(&json!(true));
            if is_suspended || !begun.insert(text(&job, "/metadata/uid").to_owned()) {
                continue;
            }
            count += 1;
            let life = begin(&shared, &job, count);
            pods.spawn(Box::pin(live(life, onlooker.clone())));
        }
        tokio::select! {
            // The stand-in of the Kubernetes API lives as long as this.
            _ = changes.changed() => {}
            Some(ended) = pods.join_next() => {
                if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    shared.problem("the life of a pod panicked".to_owned());
                    resume_unwind(panic);
                }
            }
        }
    }
}

/// Creates the pod of a Job.
fn begin(shared: &Arc<Shared>, job: &Value, count: u32) -> Life {
    let (job_name, job_uid) = (text(job, "/metadata/name"), text(job, "/metadata/uid"));
    let (namespace, name) = (
        text(job, "/metadata/namespace"),
        format!("{job_name}-{count:05}"),
    );
    let label = |label| {
        let labels = job.pointer("/metadata/labels");
        let label = labels.and_then(|labels| labels.get(label)?.as_str());
        label.unwrap_or_default()
    };
    let attempt = label("podbeat.dev/attempt").parse().unwrap_or(0);
    let program = (shared.programs)(label("podbeat.dev/run"), attempt);
    let mut pod = job.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("kind".to_owned(), json!("Pod"));
        pod.insert("apiVersion".to_owned(), json!("v1"));
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".to_owned(), json!(name));
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("creationTimestamp".to_owned(), json!(now()));
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job_name, "uid": job_uid,
                           "controller": true, "blockOwnerDeletion": true});
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
        let labels = metadata.entry("labels").or_insert(json!({}));
        for (label, value) in [
            ("batch.kubernetes.io/controller-uid", job_uid),
            ("batch.kubernetes.io/job-name", job_name),
            ("controller-uid", job_uid),
            ("job-name", job_name),
        ] {
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(label.to_owned(), json!(value));
            }
        }
    }
    if program != Program::HasNoNode
        && let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.insert("nodeName".to_owned(), json!("node-1"));
    }
    shared.kube.apply(pod);
    let pod = shared.kube.get(Kind::Pod, namespace, &name);
    let status = json!({"active": 1, "ready": 0, "terminating": 0, "startTime": now()});
    let life = Life {
        shared: Arc::clone(shared),
        namespace: namespace.to_owned(),
        job: (job_name.to_owned(), job_uid.to_owned()),
        uid: pod
            .as_ref()
            .map(|pod| text(pod, "/metadata/uid").to_owned()),
        name,
        program,
    };
    life.set_job(&status);
    life
}

/// A text in an object. Empty if there is none.
fn text<'object>(object: &'object Value, path: &str) -> &'object str {
    let found = object.pointer(path);
    found.and_then(Value::as_str).unwrap_or_default()
}
