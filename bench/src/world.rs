//! The environment of measured processes: TLS stand-ins for the Kubernetes API and the task-run
//! service, pods of a common size, and changes whose arrival is awaited.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_lab::fault::Faults;
use podbeat_lab::pod::{Pod, exit, restarted, running, terminated, waiting};
use podbeat_lab::service::{Count, Heartbeat};
use podbeat_lab::{kube_api, service, world};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Error;

/// The approximate size of a pod's JSON, in bytes: 16 KB, typical of pods with injected sidecars
/// and applied configuration.
const POD: usize = 16_384;

/// The size without the annotation that fills up the pod.
const REST: usize = 900;

const STARTED: &str = "2026-01-01T00:00:01Z";

/// Both stand-ins, over TLS. They end when this is dropped.
#[derive(Debug)]
pub struct World {
    lab: world::World,
    filling: String,
}

/// One pod and its run.
#[derive(Clone, Debug)]
pub struct Member {
    pod: String,
    uid: String,
    run: String,
    changes: u64,
    exits: u64,
}

/// A change that a heartbeat must show.
#[derive(Clone, Debug)]
pub struct Change {
    run: String,
    /// Identifies the change in a container state of the body.
    mark: String,
    /// When it began, since the start of the service's stand-in. No earlier heartbeat shows it.
    since: Duration,
    /// When it was available to watchers, on the same clock.
    at: Duration,
}

impl World {
    /// Starts both stand-ins, without a pod.
    ///
    /// # Errors
    /// There is no free port, no certificate, or no temporary directory.
    pub async fn start() -> Result<Self, Error> {
        let kube = kube_api::Options {
            // Enough for a concurrent change of each of many pods, so that no watch is too late.
            history: 2000,
            ..kube_api::Options::default()
        };
        Self::with(kube).await
    }

    /// Starts both stand-ins with other options for the Kubernetes API.
    ///
    /// # Errors
    /// There is no free port, no certificate, or no temporary directory.
    pub async fn with(kube: kube_api::Options) -> Result<Self, Error> {
        let mut service = service::Options::default();
        // The counts have no limit. Only the newest heartbeats themselves are needed.
        service.limits.heartbeats_of_run = 1000;
        let lab = world::World::with(kube, service).await?;
        Ok(Self {
            lab,
            filling: "0123456789abcdef".repeat((POD - REST) / 16),
        })
    }

    /// The stand-ins.
    #[must_use]
    pub fn lab(&self) -> &world::World {
        &self.lab
    }

    /// Faults of the Kubernetes API.
    #[must_use]
    pub fn kube_faults(&self) -> &Faults {
        &self.lab.kube_faults
    }

    /// Faults of the task-run service.
    #[must_use]
    pub fn service_faults(&self) -> &Faults {
        &self.lab.service_faults
    }

    /// The path of a file or directory of this world. It is removed with the world.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    /// Adds a pod whose container `main` runs, and is restarted whenever it ends.
    #[must_use]
    pub fn add(&self, name: &str) -> Member {
        let member = Member {
            pod: name.to_owned(),
            uid: format!("uid-{name}"),
            run: format!("trn.{name}"),
            changes: 0,
            exits: 0,
        };
        self.show(&member, &running(STARTED));
        member
    }

    /// The environment of podbeat in this pod. It also contains what other clients need.
    #[must_use]
    pub fn settings(&self, member: &Member, interval: Duration) -> BTreeMap<String, String> {
        let mut settings = self.lab.settings(&member.pod, &member.uid);
        settings.insert("TASK_RUN_ID".to_owned(), member.run.clone());
        let interval = format!("{}ms", interval.as_millis());
        settings.insert("PODBEAT_INTERVAL".to_owned(), interval);
        settings
    }

    /// Sets `main` to waiting, with a reason that no earlier heartbeat reported.
    pub fn change(&self, member: &mut Member) -> Change {
        member.changes += 1;
        let mark = format!("Change{}", member.changes);
        self.make(member, mark.clone(), &waiting(&mark))
    }

    /// Ends a run of `main` that no earlier heartbeat reported. podbeat sends an exit without
    /// delay, even right after another heartbeat.
    pub fn exit(&self, member: &mut Member) -> Change {
        member.exits += 1;
        let id = format!("exit-{}", member.exits);
        let count = i32::try_from(member.exits).unwrap_or(i32::MAX) - 1;
        let last = exit(1, "Error", &format!("exit-{count}"));
        let status = restarted(terminated(1, "Error", &id), count, &last);
        self.make(member, format!("containerd://{id}"), &status)
    }

    fn make(&self, member: &Member, mark: String, main: &Value) -> Change {
        let pod = self.pod(member, main);
        let now = || self.lab.service.started().elapsed();
        let since = now();
        self.lab.kube.apply(pod);
        Change {
            run: member.run.clone(),
            mark,
            since,
            // Taken after the stand-in's own work. In the single-threaded comparison, no watcher
            // has received the change yet.
            at: now(),
        }
    }

    fn show(&self, member: &Member, main: &Value) {
        self.lab.kube.apply(self.pod(member, main));
    }

    fn pod(&self, member: &Member, main: &Value) -> Value {
        let pod = Pod::new(&member.pod, &member.uid).policy("Always");
        let mut pod = pod.showing(main);
        if let Some(metadata) = pod.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            let annotations = json!({"example.org/configuration": self.filling});
            metadata.insert("annotations".to_owned(), annotations);
        }
        pod
    }

    /// How many heartbeats of this pod arrived and were accepted. The cost is constant.
    #[must_use]
    pub fn count(&self, member: &Member) -> Count {
        self.lab.service.count(&member.run)
    }

    /// Waits until this many heartbeats of this pod were accepted, and returns when that was seen.
    ///
    /// # Errors
    /// They were not accepted within `limit`.
    pub async fn until_accepted(
        &self,
        member: &Member,
        accepted: u64,
        limit: Duration,
    ) -> Result<Instant, Error> {
        let what = format!("{accepted} accepted heartbeats of {}", member.run);
        let reached = || (self.count(member).accepted >= accepted).then(Instant::now);
        let told = self.until(&what, limit, reached).await;
        told.map_err(|error| error.seen(format!("received {}", self.count(member).accepted)))
    }

    /// Waits until each of these pods has this many accepted heartbeats.
    ///
    /// # Errors
    /// A pod doesn't have them within `limit`.
    pub async fn until_all_accepted(
        &self,
        members: &[Member],
        accepted: u64,
        limit: Duration,
    ) -> Result<(), Error> {
        let end = Instant::now() + limit;
        for member in members {
            let left = end.saturating_duration_since(Instant::now());
            self.until_accepted(member, accepted, left).await?;
        }
        Ok(())
    }

    /// Waits until a heartbeat with the change was accepted. Returns the time from the change to
    /// the first such heartbeat.
    ///
    /// # Errors
    /// No such heartbeat was accepted within `limit`.
    pub async fn until_shown(&self, change: &Change, limit: Duration) -> Result<Duration, Error> {
        let what = format!("a heartbeat of {} that shows {}", change.run, change.mark);
        let reached = || {
            let shows = |heartbeat: &Heartbeat| shows(&heartbeat.body, &change.mark);
            self.lab
                .service
                .first_accepted(&change.run, change.since, shows)
        };
        let told = self.until(&what, limit, reached).await;
        let at = told.map_err(|error| {
            error.seen(format!(
                "received {:?}",
                self.lab.service.count(&change.run)
            ))
        })?;
        Ok(at.saturating_sub(change.at))
    }

    async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        reached: impl Fn() -> Option<T>,
    ) -> Result<T, Error> {
        let mut changes = self.lab.service.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(reached) = reached() {
                    return reached;
                }
                // The sender exists as long as the stand-in.
                let _ = changes.changed().await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_| Error::InVain {
                what: what.to_owned(),
                waited: limit,
                seen: String::new(),
            })
    }
}

impl Member {
    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }
}

impl Error {
    fn seen(self, seen: String) -> Self {
        match self {
            Self::InVain { what, waited, .. } => Self::InVain { what, waited, seen },
            other => other,
        }
    }
}

/// Whether a container state contains exactly this mark.
fn shows(body: &Value, mark: &str) -> bool {
    let statuses = body.get("containerStatus").and_then(Value::as_array);
    let states = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status.get("state"));
    let members = states
        .filter_map(Value::as_object)
        .flat_map(|state| state.values());
    members
        .filter_map(Value::as_object)
        .flat_map(|members| members.values())
        .any(|value| value.as_str() == Some(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pod_has_the_requested_size() {
        let world = World::start().await.expect("a world");
        let weight = world
            .pod(&world.add("a"), &running(STARTED))
            .to_string()
            .len();
        assert!(weight.abs_diff(POD) < 400, "{weight}");
    }

    #[test]
    fn only_a_complete_mark_is_found() {
        let body = json!({"containerStatus": [{"name": "main", "state": {"waiting": {"reason": "Change12"}}}]});
        assert!(shows(&body, "Change12"));
        assert!(!shows(&body, "Change1"));
        assert!(!shows(&json!({}), "Change1"));
    }
}
