//! One running scenario: a namespace, a task-run service, pods, and all observations of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::service::{Heartbeat, Options, Service};
use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLock};

use super::pods::Plan;
use super::recording::{self, Lines, Recording, Seen, by_pod, exit_code, told};
use crate::api::Namespace;
use crate::cluster::Cluster;
use crate::network::{TASK_RUNS_HOST, TASK_RUNS_SERVICE};
use crate::node::{Node, raise};
use crate::{Error, io};

/// The time limit for anything that works. After an outage of the API server, kubelet's own
/// backoffs (to read a pod, then to mount its volumes) can take a minute and a half.
pub const LIMIT: Duration = Duration::from_secs(240);

/// The bearer token that the scenarios' services accept.
pub const TOKEN: &str = "e2e-service-token";

/// The environment of the scenarios.
pub struct Stage {
    /// The control plane.
    pub cluster: Mutex<Cluster>,
    /// The node.
    pub node: Mutex<Node>,
    /// An administrator's client.
    pub admin: kube::Client,
    /// The directory of all files.
    pub root: PathBuf,
    /// A scenario locks it for writing during an outage that affects all scenarios.
    pub calm: RwLock<()>,
    /// The directory to which watch streams are written as captures.
    pub record: Option<PathBuf>,
}

impl Stage {
    /// Starts the control plane and the node: see [`raise`].
    ///
    /// # Errors
    /// Something doesn't start, or isn't ready in time.
    pub async fn raise(
        root: &Path,
        programs: &Path,
        image: &Path,
        record: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let (cluster, node) = raise(root, programs, image).await?;
        Ok(Self {
            admin: cluster.admin().await?,
            cluster: Mutex::new(cluster),
            node: Mutex::new(node),
            calm: RwLock::new(()),
            root: root.to_owned(),
            record,
        })
    }
}

/// One running scenario.
pub struct Play {
    /// The environment.
    pub stage: Arc<Stage>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its task-run service.
    pub service: Service,
    /// The faults of that service.
    pub faults: Faults,
    /// The observations of its pods.
    pub recording: Recording,
    /// The authority of its task-run service, PEM.
    pub ca: String,
    name: String,
    lines: Lines,
    begun: Timestamp,
}

/// A scenario's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl Pod {
    /// The pod of an event.
    #[must_use]
    pub fn of(seen: &Seen) -> Self {
        let name = seen.pod().pointer("/metadata/name").and_then(Value::as_str);
        Self {
            name: name.unwrap_or_default().to_owned(),
            uid: seen.uid().to_owned(),
        }
    }
}

impl Play {
    /// Creates a namespace with everything that a pod with podbeat needs, and a service.
    ///
    /// # Errors
    /// The API server refuses, or there is no free port.
    pub async fn begin(stage: &Arc<Stage>, name: &str) -> Result<Self, Error> {
        let name = name.replace('/', "-");
        let namespace = Namespace::create(stage.admin.clone(), &name).await?;
        let play = Self::on(stage, namespace).await?;
        let token = json!({"metadata": {"name": "task-runs"}, "stringData": {"token": TOKEN}});
        play.namespace.create_in("secrets", &token).await?;
        let of_ca = json!({"metadata": {"name": "task-runs-ca"}, "data": {"ca.crt": play.ca}});
        play.namespace.create_in("configmaps", &of_ca).await?;
        Ok(play)
    }

    /// Starts a service and a recording for a namespace that somebody else fills.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn on(stage: &Arc<Stage>, namespace: Namespace) -> Result<Self, Error> {
        let name = namespace.name.clone();
        let faults = Faults::default();
        let options = Options {
            place: Some((TASK_RUNS_SERVICE.into(), TASK_RUNS_HOST.to_owned())),
            ..Options::with_token(TOKEN)
        };
        let (service, ca, begun) = {
            let cluster = stage.cluster.lock().await;
            let service = Service::start(
                &cluster.authority,
                Contract::load()?,
                faults.clone(),
                options,
            )
            .await?;
            // The time base of the service's heartbeats.
            (
                service,
                cluster.authority.pem().to_owned(),
                Timestamp::now(),
            )
        };
        let logs = stage.root.join("logs").join(&name);
        let recording = Recording::begin(
            stage.admin.clone(),
            &name,
            stage.root.join("var-log/pods"),
            logs,
        )?;
        Ok(Self {
            stage: Arc::clone(stage),
            namespace,
            service,
            faults,
            recording,
            ca,
            name,
            lines: Lines::default(),
            begun,
        })
    }

    /// Prints a line with the time.
    pub fn say(&self, text: &str) {
        self.lines.push(text);
    }

    /// Creates a pod with this name, which has the right to watch itself.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn pod(&self, name: &str, plan: &Plan) -> Result<Pod, Error> {
        self.namespace.grant(name).await?;
        self.pod_again(name, plan).await
    }

    /// Creates a pod with this name, which already has its rights.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn pod_again(&self, name: &str, plan: &Plan) -> Result<Pod, Error> {
        let pod = json!({"metadata": {"name": name}, "spec": plan.spec(&self.service.url())});
        let uid = self.namespace.create_pod(&pod).await?;
        self.say(&format!("pod {name} is created"));
        let name = name.to_owned();
        Ok(Pod { name, uid })
    }

    /// Creates a Job with this name. podbeat has the right to watch its pods.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn job(&self, name: &str, plan: &Plan, more: Value) -> Result<(), Error> {
        self.namespace.grant_all().await?;
        let mut spec = json!({
            "backoffLimit": 0,
            "template": {"spec": plan.spec(&self.service.url())},
        });
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        self.namespace
            .create_job(&json!({"metadata": {"name": name}, "spec": spec}))
            .await?;
        self.say(&format!("job {name} is created"));
        Ok(())
    }

    /// Waits for an event of a pod that is as wanted.
    ///
    /// # Errors
    /// It doesn't come in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Seen, Error> {
        self.recording
            .until(what, LIMIT, |seen| wanted(seen.pod()))
            .await
    }

    /// Waits until a pod shows a container in a state.
    ///
    /// # Errors
    /// The state isn't reached in time.
    pub async fn until_state(&self, container: &str, state: &str) -> Result<Seen, Error> {
        let is =
            |pod: &Value| recording::state(pod, container).is_some_and(|(name, _)| name == state);
        self.until(&format!("{container} {state}"), is).await
    }

    /// Waits until the pod's object is deleted.
    ///
    /// # Errors
    /// It isn't deleted in time.
    pub async fn until_gone(&self, pod: &Pod) -> Result<Seen, Error> {
        let gone = |seen: &Seen| seen.is_deleted() && seen.uid() == pod.uid;
        self.recording
            .until(&format!("the end of pod {}", pod.name), LIMIT, gone)
            .await
    }

    /// Waits until podbeat's container has finally ended, and returns its exit code.
    ///
    /// # Errors
    /// It doesn't end in time.
    pub async fn until_podbeat_ended(&self, pod: &Pod) -> Result<i64, Error> {
        let code = |seen: &[Seen]| {
            let last = seen.iter().rev().find(|seen| seen.uid() == pod.uid)?;
            exit_code(last.pod(), "podbeat")
        };
        let all = self
            .recording
            .until_all("podbeat's end", LIMIT, |seen| code(seen).is_some())
            .await?;
        code(&all).ok_or_else(|| Error::Unexpected("podbeat's container runs again".to_owned()))
    }

    /// The last event of a pod.
    #[must_use]
    pub fn last_seen(&self, pod: &Pod) -> Option<Seen> {
        self.recording
            .seen()
            .into_iter()
            .rev()
            .find(|seen| seen.uid() == pod.uid)
    }

    /// Waits until the service accepted a wanted heartbeat of a pod.
    ///
    /// # Errors
    /// It doesn't arrive in time.
    pub async fn until_heard(
        &self,
        pod: &Pod,
        what: &str,
        wanted: impl Fn(&Heartbeat) -> bool,
    ) -> Result<Heartbeat, Error> {
        let is =
            |heartbeat: &&Heartbeat| heartbeat.accepted && of(heartbeat, pod) && wanted(heartbeat);
        let all = self
            .service
            .wait_for(what, LIMIT, |all| all.iter().any(|one| is(&one)))
            .await?;
        all.iter()
            .find(is)
            .cloned()
            .ok_or_else(|| Error::Unexpected(format!("{what} is gone again")))
    }

    /// Waits until the service accepted a heartbeat that shows a container in a state.
    ///
    /// # Errors
    /// It doesn't arrive in time.
    pub async fn until_told(
        &self,
        pod: &Pod,
        container: &str,
        state: &str,
    ) -> Result<Heartbeat, Error> {
        let is = |heartbeat: &Heartbeat| {
            heartbeat
                .state(container)
                .is_some_and(|(name, _)| name == state)
        };
        self.until_heard(pod, &format!("{container} {state}"), is)
            .await
    }

    /// Waits for the last heartbeat.
    ///
    /// # Errors
    /// It doesn't arrive in time.
    pub async fn until_final(&self, pod: &Pod) -> Result<Heartbeat, Error> {
        self.until_heard(pod, "the last heartbeat", Heartbeat::is_final)
            .await
    }

    /// Creates the file that main of a pod waits for.
    ///
    /// # Errors
    /// The pod has no such volume.
    pub async fn let_main_end(&self, pod: &Pod) -> Result<(), Error> {
        let node = self.stage.node.lock().await;
        node.write_into(&pod.uid, "scratch", "go", "")
    }

    /// Waits for a Job's pod with the index `nth`, from 0, in the order of creation.
    ///
    /// # Errors
    /// It doesn't appear in time.
    pub async fn pod_of_job(&self, nth: usize) -> Result<Pod, Error> {
        let nth_of = |seen: &[Seen]| by_pod(seen).into_iter().nth(nth);
        let what = format!("pod {nth} of the Job");
        let seen = self
            .recording
            .until_all(&what, LIMIT, |seen| nth_of(seen).is_some())
            .await?;
        nth_of(&seen)
            .and_then(|(_, events)| events.first().map(Pod::of))
            .ok_or_else(|| Error::Unexpected(format!("{what} is gone again")))
    }

    /// Waits until a Job ends as expected: `Complete` or `Failed`.
    ///
    /// # Errors
    /// It ends in the other way, or not in time, for example because a sidecar continues.
    pub async fn until_job_is(&self, name: &str, expected: &str) -> Result<(), Error> {
        let begun = tokio::time::Instant::now();
        loop {
            let job = self.namespace.job(name).await?;
            let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
            let over = conditions.into_iter().flatten().find_map(|condition| {
                let kind = condition.get("type")?.as_str()?;
                let holds = condition.get("status") == Some(&json!("True"));
                (holds && matches!(kind, "Complete" | "Failed")).then(|| kind.to_owned())
            });
            if let Some(over) = over {
                self.say(&format!("job {name}: {over}"));
                return expect(over == expected, || {
                    format!("the Job is {over}, not {expected}")
                });
            }
            if begun.elapsed() > LIMIT {
                return Err(Error::Unexpected(format!("job {name} did not end: {job}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// podbeat's log in a pod: times by podbeat's clock, and lines.
    #[must_use]
    pub fn podbeat_log(&self, pod: &Pod) -> Vec<(Timestamp, Value)> {
        let lines = self.recording.log(&pod.uid, "podbeat").into_iter();
        lines
            .filter_map(|(at, line)| {
                let line: Value = serde_json::from_str(&line).ok()?;
                let own = line.get("timestamp").and_then(Value::as_str);
                Some((own.and_then(|own| own.parse().ok()).unwrap_or(at), line))
            })
            .collect()
    }

    /// When podbeat first logged a text.
    ///
    /// # Errors
    /// It doesn't log it in time.
    pub async fn until_logged(&self, pod: &Pod, text: &str) -> Result<Timestamp, Error> {
        let begun = tokio::time::Instant::now();
        loop {
            let log = self.podbeat_log(pod);
            let found = log.iter().find(|(_, line)| line.to_string().contains(text));
            if let Some((at, _)) = found {
                return Ok(*at);
            }
            if begun.elapsed() > LIMIT {
                return Err(Error::Unexpected(format!(
                    "podbeat did not log {text:?}: {log:#?}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// When podbeat received SIGTERM.
    ///
    /// # Errors
    /// It doesn't receive it in time.
    pub async fn signalled(&self, pod: &Pod) -> Result<Timestamp, Error> {
        self.until_logged(pod, "received SIGTERM").await
    }

    /// When the service received a heartbeat, by the wall clock.
    #[must_use]
    pub fn heard_at(&self, heartbeat: &Heartbeat) -> Timestamp {
        self.begun.checked_add(heartbeat.at).unwrap_or(self.begun)
    }

    /// Checks a pod at its end: the contract, its UID, and one last heartbeat with none after it.
    /// Returns the last heartbeat.
    ///
    /// # Errors
    /// A check fails.
    pub fn check(&self, pod: &Pod) -> Result<Heartbeat, Error> {
        let violations = self.service.violations();
        expect(violations.is_empty(), || {
            format!("heartbeats violate the contract: {violations:?}")
        })?;
        let all = self.service.accepted();
        let accepted: Vec<&Heartbeat> = all.iter().filter(|heartbeat| of(heartbeat, pod)).collect();
        let nameless = all
            .iter()
            .filter(|heartbeat| heartbeat.body.get("podUID").is_none())
            .count();
        expect(nameless == 0, || {
            format!("{nameless} heartbeats have no pod name")
        })?;
        let mut nonces: Vec<&str> = accepted
            .iter()
            .filter(|heartbeat| heartbeat.is_final())
            .map(|heartbeat| heartbeat.nonce())
            .collect();
        nonces.dedup();
        let last = accepted.last().filter(|heartbeat| heartbeat.is_final());
        let (1, Some(last)) = (nonces.len(), last) else {
            let finals = nonces.len();
            return Err(Error::Unexpected(format!(
                "{finals} last heartbeats; expected exactly one, after all others: {accepted:#?}"
            )));
        };
        expect(self.service.most_in_flight() == 1, || {
            "more than one request at once".to_owned()
        })?;
        Ok((*last).clone())
    }

    /// The story of the scenario in the order of time: the printed lines, the API server's events,
    /// the received heartbeats, and podbeat's signal and end.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        let mut lines = self.lines.all();
        let several = by_pod(&self.recording.seen()).len() > 1;
        for (_, events) in by_pod(&self.recording.seen()) {
            let Some(pod) = events.first().map(Pod::of) else {
                continue;
            };
            let of = if several {
                format!(" {}", pod.name)
            } else {
                String::new()
            };
            let mut before = String::new();
            for seen in events {
                let mut now = told(seen.pod());
                if seen.is_deleted() {
                    now.push_str("; DELETED");
                }
                if now != before {
                    lines.push((seen.at, format!("API{of}: {now}")));
                }
                before = now;
            }
            for (at, line) in self.recording.log(&pod.uid, "main") {
                lines.push((at, format!("main{of} writes: {line}")));
            }
            for (at, line) in self.podbeat_log(&pod) {
                let message = line
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let level = line
                    .get("level")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if NOTEWORTHY.iter().any(|text| message.contains(text)) || level != "INFO" {
                    let error = line
                        .get("error")
                        .and_then(Value::as_str)
                        .map(|error| format!(": {error}"));
                    lines.push((
                        at,
                        format!("podbeat{of}: {message}{}", error.unwrap_or_default()),
                    ));
                }
            }
        }
        let mut before = (String::new(), String::new());
        for heartbeat in self.service.heartbeats() {
            let at = self.heard_at(&heartbeat);
            let now = (heartbeat.run_id.clone(), received(&heartbeat));
            if now != before || heartbeat.is_final() {
                let of = if several {
                    format!(" of {}", now.0)
                } else {
                    String::new()
                };
                lines.push((at, format!("service receives{of}: {}", now.1)));
            }
            before = now;
        }
        lines.sort_by_key(|(at, _)| *at);
        let begun = self.begun;
        lines
            .into_iter()
            .map(|(at, text)| {
                let after = at.duration_since(begun).as_secs_f64();
                format!("  {after:7.3}s  {text}")
            })
            .collect()
    }

    /// Writes the watch streams of the scenario's pods, if requested, and requests the deletion of
    /// the namespace.
    ///
    /// # Errors
    /// A file can't be written, or the API server refuses.
    pub async fn end(&self) -> Result<(), Error> {
        if let Some(directory) = &self.stage.record {
            std::fs::create_dir_all(directory)
                .map_err(io(format!("creating {}", directory.display())))?;
            for (nth, (_, events)) in by_pod(&self.recording.seen()).into_iter().enumerate() {
                let name = if nth == 0 {
                    self.name.clone()
                } else {
                    format!("{}-{nth}", self.name)
                };
                let path = directory.join(format!("watch-{name}.jsonl"));
                let stream: String = events
                    .iter()
                    .map(|seen| format!("{}\n", slim(&seen.event)))
                    .collect();
                std::fs::write(&path, stream).map_err(io(format!("writing {}", path.display())))?;
                let path = directory.join(format!("watch-{name}.times.txt"));
                let times: String = events
                    .iter()
                    .map(|seen| {
                        let kind = seen
                            .event
                            .get("type")
                            .and_then(Value::as_str)
                            .unwrap_or_default();
                        format!(
                            "{} {kind} {}\n",
                            seen.at.strftime("%H:%M:%S%.3f"),
                            told(seen.pod())
                        )
                    })
                    .collect();
                std::fs::write(&path, times).map_err(io(format!("writing {}", path.display())))?;
            }
        }
        self.namespace.delete().await
    }
}

/// An event without `managedFields`, which is half of the event and of no use to a reader.
fn slim(event: &Value) -> Value {
    let mut event = event.clone();
    if let Some(metadata) = event
        .pointer_mut("/object/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
    event
}

/// The lines of podbeat's log about its own life.
const NOTEWORTHY: &[&str] = &[
    "received SIGTERM",
    "podbeat is exiting",
    "resumed from the journal",
    "the last heartbeat is due",
    "exit marker",
    "watching the pod again",
];

fn of(heartbeat: &Heartbeat, pod: &Pod) -> bool {
    heartbeat.body.get("podUID") == Some(&json!(pod.uid))
}

/// A heartbeat on one line.
#[must_use]
pub fn received(heartbeat: &Heartbeat) -> String {
    let statuses = heartbeat
        .body
        .get("containerStatus")
        .and_then(Value::as_array);
    let states: Vec<String> = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| {
            let name = status.get("name")?.as_str()?;
            let (state, members) = status.get("state")?.as_object()?.iter().next()?;
            let detail = members.get("exitCode").or(members.get("reason"));
            Some(format!(
                "{name} {state}{}",
                detail
                    .map(|detail| format!(" {detail}"))
                    .unwrap_or_default()
            ))
        })
        .collect();
    let states = if states.is_empty() {
        "no states".to_owned()
    } else {
        states.join(", ")
    };
    let last = if heartbeat.is_final() {
        "LAST HEARTBEAT, "
    } else {
        ""
    };
    let retries = heartbeat
        .body
        .get("jobRetryCount")
        .map(|count| format!(", jobRetryCount {count}"))
        .unwrap_or_default();
    let answer = match heartbeat.status {
        Some(200) => String::new(),
        Some(status) => format!(" → {status}"),
        None => " → no answer".to_owned(),
    };
    format!("{last}{states}{retries}{answer}")
}

/// Fails with a description of the observation.
///
/// # Errors
/// The condition is false.
pub fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::Unexpected(otherwise()))
    }
}

/// The time between two moments in seconds; negative if `to` is earlier.
#[must_use]
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}
