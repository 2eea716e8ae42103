//! The life of one pod, as the kubelet shows it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use podbeat::agent::{self, Onlooker};
use podbeat::config::Config;
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::volumes::Volumes;
use super::{Program, Shared, text};
use crate::kube_api::{Kind, now};

/// The exit code of a program that SIGTERM ends, and of one that SIGKILL ends.
const TERMINATED: i32 = 143;
const KILLED: i32 = 137;

/// The grace period of a pod without one of its own: Kubernetes' default.
const GRACE: u64 = 30;

/// A pod, and what it needs.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) namespace: String,
    /// The name and the UID of its Job.
    pub(super) job: (String, String),
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) program: Program,
}

/// The states of the pod's containers.
struct Shown {
    phase: &'static str,
    podbeat: Value,
    install: Value,
    main: Value,
}

/// Lives until the pod has ended or is deleted.
pub(super) async fn live(life: Life, onlooker: impl Onlooker + Send + 'static) {
    if life.program == Program::HasNoNode {
        let message = "0/1 nodes are available: 1 Insufficient cpu.";
        life.set_status(&json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}));
        return life.deleted().await;
    }
    let initializing = json!({"waiting": {"reason": "PodInitializing"}});
    let mut shown = Shown {
        phase: "Pending",
        podbeat: initializing.clone(),
        install: initializing.clone(),
        main: initializing,
    };
    life.show(&shown);
    life.pause().await;
    let volumes = tokio::select! {
        // The kubelet mounts a Secret only when it exists.
        volumes = life.mount() => volumes,
        () = life.deleted() => return life.end(shown, TERMINATED),
    };
    let agent = volumes.and_then(|volumes| life.agent(volumes, onlooker));
    let (signals, mut agent) = match agent {
        Ok(agent) => agent,
        Err(problem) => {
            life.shared.problem(problem);
            return life.end(shown, TERMINATED);
        }
    };
    shown.podbeat = json!({"running": {"startedAt": now()}});
    life.show(&shown);
    life.pause().await;
    shown.install = terminated(0, &now());
    let code = tokio::select! {
        code = life.task(&mut shown) => code,
        () = life.deleted() => TERMINATED,
    };
    if shown.phase == "Running" {
        let started = text(&shown.main, "/running/startedAt").to_owned();
        shown.main = terminated(code, &started);
        life.show(&shown);
        life.pause().await;
    }
    // The kubelet stops a native sidecar after all other containers.
    let _ = signals.send(()).await;
    let ended = tokio::time::timeout(life.grace(), agent.join_next()).await;
    let of_podbeat = match ended {
        Ok(Some(Ok(Ok(ending)))) => i32::from(ending.code()),
        Ok(Some(Ok(Err(error)))) => {
            life.shared.problem(crate::chain(&error));
            1
        }
        Ok(Some(Err(error))) => {
            life.shared.problem(format!("an agent panicked: {error}"));
            1
        }
        Ok(None) | Err(_) => KILLED,
    };
    let started = text(&shown.podbeat, "/running/startedAt").to_owned();
    shown.podbeat = terminated(of_podbeat, &started);
    life.end(shown, code);
}

/// The state of a container that ended now.
fn terminated(code: i32, started: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started,
                          "finishedAt": now(), "containerID": "containerd://lab"}})
}

type Agent = (mpsc::Sender<()>, JoinSet<Result<Ending, agent::Error>>);

impl Life {
    async fn pause(&self) {
        tokio::time::sleep(self.shared.options.pace).await;
    }

    fn grace(&self) -> Duration {
        let pod = self.pod().unwrap_or_default();
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds");
        Duration::from_secs(grace.and_then(Value::as_u64).unwrap_or(GRACE))
    }

    /// The pod, if it still exists.
    fn pod(&self) -> Option<Value> {
        let pod = self.shared.kube.get(Kind::Pod, &self.namespace, &self.name);
        pod.filter(|pod| Some(text(pod, "/metadata/uid")) == self.uid.as_deref())
    }

    fn is_deleted(&self) -> bool {
        let is_kept = |pod: Value| pod.pointer("/metadata/deletionTimestamp").is_none();
        !self.pod().is_some_and(is_kept)
    }

    /// Waits until somebody deletes the pod.
    async fn deleted(&self) {
        let mut changes = self.shared.kube.changes();
        while !self.is_deleted() {
            let _ = changes.changed().await;
        }
    }

    fn set_status(&self, status: &Value) {
        let uid = self.uid.as_deref();
        let kube = &self.shared.kube;
        kube.change(&self.namespace, &self.name, |pod| {
            if Some(text(pod, "/metadata/uid")) == uid
                && let Some(pod) = pod.as_object_mut()
            {
                pod.insert("status".to_owned(), status.clone());
            }
        });
    }

    fn show(&self, shown: &Shown) {
        let status = |name: &str, state: &Value| {
            let runs = state.get("running").is_some();
            json!({"name": name, "image": "lab", "imageID": "", "ready": runs, "started": runs,
                   "restartCount": 0, "lastState": {}, "state": state})
        };
        let pod = self.pod().unwrap_or_default();
        let declared = |name: &str| {
            let containers = pod.pointer("/spec/initContainers");
            let mut containers = containers.and_then(Value::as_array).into_iter().flatten();
            containers.any(|container| text(container, "/name") == name)
        };
        let init = [
            ("podbeat", &shown.podbeat),
            ("podbeat-install", &shown.install),
        ];
        let init: Vec<Value> = init
            .into_iter()
            .filter(|(name, _)| declared(name))
            .map(|(name, state)| status(name, state))
            .collect();
        self.set_status(&json!({
            "phase": shown.phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "initContainerStatuses": init,
            "containerStatuses": [status("main", &shown.main)],
        }));
    }

    /// Writes the volumes, as soon as the Secret exists.
    async fn mount(&self) -> Result<Volumes, String> {
        let mut changes = self.shared.kube.changes();
        loop {
            changes.borrow_and_update();
            let pod = self.pod().unwrap_or_default();
            if let Some(volumes) = Volumes::of(&pod, &self.shared)? {
                return Ok(volumes);
            }
            let _ = changes.changed().await;
        }
    }

    /// Starts podbeat's agent with the settings of its container.
    fn agent(
        &self,
        volumes: Volumes,
        onlooker: impl Onlooker + Send + 'static,
    ) -> Result<Agent, String> {
        let pod = self.pod().unwrap_or_default();
        let settings = volumes.environment(&pod, &self.shared);
        let config = Config::load(&Flags::default(), &settings);
        let config = config.map_err(|error| crate::chain(&error))?;
        let (signals, mut receiver) = mpsc::channel(1);
        let signals_in = stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ending = agent::run(&config, signals_in, onlooker).await;
            drop(volumes);
            ending
        });
        Ok((signals, tasks))
    }

    /// The task's container. Returns its exit code.
    async fn task(&self, shown: &mut Shown) -> i32 {
        let (code, after) = match self.program {
            Program::Exits(code, after) => (code, Some(after)),
            Program::Runs => (0, None),
            Program::Waits(reason, message) => {
                shown.main = json!({"waiting": {"reason": reason, "message": message}});
                self.show(shown);
                return std::future::pending().await;
            }
            Program::HasNoNode => return std::future::pending().await,
        };
        shown.phase = "Running";
        shown.main = json!({"running": {"startedAt": now()}});
        self.show(shown);
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        code
    }

    /// The pod has ended. Shows it, and how its Job ended.
    fn end(&self, mut shown: Shown, code: i32) {
        let is_deleted = self.is_deleted();
        shown.phase = if code == 0 { "Succeeded" } else { "Failed" };
        self.show(&shown);
        if is_deleted {
            let is_ours = self.pod().is_some();
            if is_ours {
                self.shared.kube.delete(&self.namespace, &self.name);
            }
        }
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
                   "lastProbeTime": now(), "lastTransitionTime": now()})
        };
        let status = match code {
            0 => {
                let (reason, message) = (
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
                json!({"succeeded": 1, "startTime": now(), "completionTime": now(), "conditions": [
                    condition("SuccessCriteriaMet", reason, message),
                    condition("Complete", reason, message)]})
            }
            _ => {
                let (reason, message) = (
                    "BackoffLimitExceeded",
                    "Job has reached the specified backoff limit",
                );
                json!({"failed": 1, "startTime": now(), "conditions": [
                    condition("FailureTarget", reason, message),
                    condition("Failed", reason, message)]})
            }
        };
        self.set_job(&status);
    }

    /// Sets the status of the Job, if it still exists.
    pub(super) fn set_job(&self, status: &Value) {
        let (name, uid) = &self.job;
        let kube = &self.shared.kube;
        kube.change_object(Kind::Job, &self.namespace, name, |job| {
            if text(job, "/metadata/uid") == uid
                && let Some(job) = job.as_object_mut()
            {
                job.insert("status".to_owned(), status.clone());
            }
        });
    }
}
