//! Translates events of the pod watch for the core, and owns the watch's task.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use podbeat_heartbeat::backoff::Backoff;
use podbeat_heartbeat::machine::{Event, Look};
use podbeat_heartbeat::marker::ContainerName;
use podbeat_heartbeat::observation::JobPod;
use podbeat_heartbeat::observation::Sidecar;
use podbeat_kubernetes::access::Access;
use podbeat_kubernetes::error::Error;
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::status;
use podbeat_kubernetes::tasks::Tasks;
use podbeat_kubernetes::watch::{PodEvent, PodWatch, Step};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::report::brief;
use crate::config::Config;
use crate::telemetry::instruments::Instruments;
use podbeat_interface::messages::Message;
use podbeat_interface::throttle::{Chain, Throttle};

/// How many pod events may wait for the core, which takes microseconds for each.
pub(super) const WAITING: usize = 16;

/// How often podbeat retries to count a Job's failed pods.
const COUNTS: u32 = 5;

/// The pod to watch, and how.
struct Target {
    access: Access,
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    own_container: ContainerName,
    tasks: Tasks,
    /// The time over which reconnects are spread.
    spread: Duration,
    instruments: Instruments,
}

/// Owns the task that watches the pod. Dropping it ends the task.
pub(super) struct Watcher {
    task: JoinHandle<()>,
    /// Set when the client exists.
    pod: Arc<OnceLock<PodWatch>>,
    hurry: watch::Sender<bool>,
    target: Arc<Target>,
    seed: u64,
}

impl Watcher {
    pub(super) fn spawn(
        config: &Config,
        events: mpsc::Sender<Event>,
        seed: u64,
        instruments: &Instruments,
    ) -> Self {
        let pod = Arc::new(OnceLock::new());
        let target = Arc::new(Target {
            access: config.kubernetes.clone(),
            namespace: config.pod_namespace.clone(),
            name: config.pod_name.clone(),
            uid: config.pod_uid.clone(),
            own_container: config.reporting.container_name.clone(),
            tasks: config.reporting.tasks(),
            spread: config.reconnect_spread,
            instruments: instruments.clone(),
        });
        let (hurry, hurried) = watch::channel(false);
        let rng = fastrand::Rng::with_seed(seed);
        let watched = watch_pod(Arc::clone(&target), hurried, events, rng, Arc::clone(&pod));
        Self {
            task: tokio::spawn(watched),
            pod,
            hurry,
            target,
            seed,
        }
    }

    /// From now on, the watch skips all waits that only reduce the API server's load.
    pub(super) fn hurry(&self) {
        self.hurry.send_replace(true);
    }

    /// This watcher and its client, once the client exists.
    fn with_client(&self) -> Option<(&Self, PodWatch)> {
        Some((self, self.pod.get()?.clone()))
    }

    /// Gets the pod directly. Fails without a watcher, or before its client exists.
    pub(super) fn look(
        watcher: Option<&Self>,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = Look> + Send>> {
        let Some((watcher, pod)) = watcher.and_then(Self::with_client) else {
            return Box::pin(async { Look::Failed });
        };
        let target = Arc::clone(&watcher.target);
        Box::pin(async move {
            match pod.look(limit).await {
                Ok(Some(pod)) if target.uid.is_none() || pod.metadata.uid == target.uid => {
                    Look::Found(status::observe_with(
                        &pod,
                        &target.own_container,
                        &target.tasks,
                    ))
                }
                Ok(Some(_) | None) => Look::Gone,
                Err(error) => {
                    target.instruments.kubernetes_failed();
                    Message::CannotLook {
                        error: &Chain(&error),
                    }
                    .emit();
                    Look::Failed
                }
            }
        })
    }

    /// Counts the pods of the Job that failed before this one. `None` if podbeat cannot know the
    /// count.
    pub(super) fn count(
        watcher: Option<&Self>,
        job: Box<JobPod>,
    ) -> Pin<Box<dyn Future<Output = Option<i32>> + Send>> {
        let Some((watcher, pod)) = watcher.and_then(Self::with_client) else {
            return Box::pin(async { None });
        };
        let mut rng = fastrand::Rng::with_seed(watcher.seed);
        Box::pin(async move {
            let mut backoff = Backoff::default();
            let mut failures = 0;
            loop {
                match pod.retries(&job).await {
                    Ok(Some(job_retry_count)) => {
                        Message::RetriesCounted { job_retry_count }.emit();
                        return Some(job_retry_count);
                    }
                    Ok(None) => {
                        Message::RetriesUncountable.emit();
                        return None;
                    }
                    Err(error) if error.status() == Some(403) || failures == COUNTS => {
                        Message::CannotCountRetries {
                            error: &Chain(&error),
                            kubectl_apply: error.missing_role().as_deref(),
                        }
                        .emit();
                        return None;
                    }
                    Err(_) => failures += 1,
                }
                tokio::time::sleep(backoff.after_failure(&mut rng)).await;
            }
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch_pod(
    target: Arc<Target>,
    hurried: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
    mut rng: fastrand::Rng,
    shared: Arc<OnceLock<PodWatch>>,
) {
    let Target {
        access,
        namespace,
        name,
        uid,
        own_container,
        tasks,
        spread,
        instruments,
    } = &*target;
    let throttle = std::sync::Mutex::new(Throttle::default());
    let tell = |error: &Error| {
        let Ok(mut throttle) = throttle.lock() else {
            return;
        };
        if let Some(outage) = throttle.failed(&error.to_string(), &Chain(error)) {
            Message::CannotWatch {
                status: error.status(),
                outage,
                kubectl_apply: error.missing_role().as_deref(),
            }
            .emit();
        }
    };
    let in_pod = matches!(access, Access::InCluster { .. });
    let mut backoff = Backoff::default();
    let pod = loop {
        match PodWatch::new(access, namespace.as_deref(), name).await {
            Ok(pod) => break pod.with_spread(*spread).with_hurry(hurried),
            Err(error) => tell(&error),
        }
        tokio::time::sleep(backoff.after_failure(&mut rng)).await;
    };
    let _ = shared.set(pod.clone());
    let (sender, mut pod_events) = mpsc::channel::<PodEvent>(1);
    let mut first = true;
    let mut told_of_name = false;
    let translate = async {
        while let Some(pod_event) = pod_events.recv().await {
            if let Some(over) = throttle
                .lock()
                .ok()
                .and_then(|mut throttle| throttle.over())
            {
                Message::WatchingAgain { over }.emit();
            }
            if let PodEvent::Seen(pod) = &pod_event
                && std::mem::take(&mut first)
            {
                first_contact(pod, tasks);
            }
            let event = pod_event.event(own_container, tasks);
            // Free the memory of the pod before waiting for the core.
            drop(pod_event);
            if let Event::Observed(pod) = &event
                && in_pod
                && pod.sidecar == Sidecar::Elsewhere
                && !std::mem::replace(&mut told_of_name, true)
            {
                Message::OwnContainerMissing {
                    container: own_container,
                }
                .emit();
            }
            if events.send(event).await.is_err() {
                return;
            }
        }
    };
    let on_step = |step: Step<'_>| match step {
        Step::Listed => instruments.listed(),
        Step::Restarted => instruments.watch_restarted(),
        Step::Opened => {}
        Step::Failed(error) => {
            if error.is_of_a_request() {
                instruments.kubernetes_failed();
            }
            tell(error);
        }
    };
    // The watch ends when the pod is gone. `translate` then still forwards the last events.
    tokio::join!(pod.run(uid.clone(), sender, rng, on_step), translate);
}

/// Logs the pod when podbeat first sees it.
fn first_contact(pod: &Pod, tasks: &Tasks) {
    let names: Vec<&str> = pod
        .spec
        .init_containers
        .iter()
        .chain(&pod.spec.containers)
        .map(|container| container.name.as_str())
        .collect();
    Message::PodFound {
        pod_uid: pod.metadata.uid.as_deref(),
        node: pod.spec.node_name.as_deref().map(brief),
        containers: &names.join(", "),
        deleted: pod.metadata.deletion_timestamp.is_some(),
    }
    .emit();
    let strangers = tasks.strangers(pod);
    if !strangers.is_empty() {
        Message::UnknownContainers {
            containers: brief(&strangers.join(", ")),
        }
        .emit();
    }
}
