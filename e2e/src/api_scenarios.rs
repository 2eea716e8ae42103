//! The scenarios. Each prints its observations, and fails with a description of the expected ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podbeat_lab::capture::Capture;
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::kube_api::KubeApi;
use podbeat_lab::service::{Heartbeat, Options, Service};
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;
use tokio::time::Instant;

use crate::api::{Namespace, apply_flow_schema, flow_schema_of, pod_like};
use crate::cluster::{Cluster, get, kube_error};
use crate::process::Agent;
use crate::runner::{repository, say};
use crate::{Error, io};

/// The time limit for anything that works.
const LIMIT: Duration = Duration::from_secs(60);

const TOKEN: &str = "e2e-service-token";

const RUN: &str = "trn.e2e";

/// Each scenario's name and description.
pub const ALL: &[(&str, &str)] = &[
    (
        "complete",
        "a native sidecar, from a real kubelet's stream: main exits 3",
    ),
    (
        "in-cluster",
        "the same; podbeat reaches the API server as in a pod, by address, token and CA",
    ),
    (
        "plain",
        "a plain sidecar ends by itself after the last heartbeat",
    ),
    (
        "delete",
        "a deleted pod shows `running` until its end, then all states at once",
    ),
    (
        "forbidden",
        "without its Role podbeat sends heartbeats without states, and detects when the Role is created",
    ),
    (
        "api-restart",
        "the API server is killed and restarted; no change is lost",
    ),
    (
        "recreated",
        "another pod with the same name is never reported",
    ),
    (
        "observe",
        "`podbeat observe` shows and records the life of a pod; without its Role, it names the missing Role",
    ),
    (
        "check",
        "podbeat check finds a missing verb of a Role, and the UID of another pod; its YAML is the fix",
    ),
    (
        "flow-schema",
        "podbeat's requests, and no others, use their own priority level",
    ),
];

/// The scenarios' environment.
pub struct Stage {
    /// The control plane.
    pub cluster: Cluster,
    /// podbeat's binary, as in its image.
    pub podbeat: PathBuf,
    /// podbeat's binary for a laptop, for scenarios with a kubeconfig.
    pub laptop: PathBuf,
    /// The directory of the captures.
    pub captures: PathBuf,
}

/// Runs the scenario with this name.
///
/// # Errors
/// An observation differs from the expectation.
pub async fn run(stage: &mut Stage, name: &str) -> Result<(), Error> {
    match name {
        "complete" => complete(stage, Access::Kubeconfig).await,
        "in-cluster" => complete(stage, Access::InCluster).await,
        "plain" => plain(stage).await,
        "delete" => delete(stage).await,
        "forbidden" => forbidden(stage).await,
        "api-restart" => api_restart(stage).await,
        "recreated" => recreated(stage).await,
        "observe" => observe(stage).await,
        "check" => check(stage).await,
        "flow-schema" => flow_schema(stage).await,
        _ => Err(Error::Unexpected(format!("there is no scenario {name}"))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Kubeconfig,
    InCluster,
}

/// One scenario's pod, service and agent.
struct Play {
    namespace: Namespace,
    service: Service,
    capture: Capture,
    pod: String,
    uid: String,
    dir: PathBuf,
    begun: Instant,
}

impl Play {
    /// Creates a namespace, a service, and a pod like that of a capture.
    async fn new(stage: &Stage, name: &str, capture: &str) -> Result<Self, Error> {
        let capture = Capture::load(&stage.captures.join(format!("watch-{capture}.jsonl")))?;
        let namespace =
            Namespace::create(stage.cluster.admin().await?, &format!("e2e-{name}")).await?;
        let authority = &stage.cluster.authority;
        let service = Service::start(
            authority,
            Contract::load()?,
            Faults::default(),
            Options {
                runs: Some(BTreeSet::from([RUN.to_owned()])),
                ..Options::with_token(TOKEN)
            },
        )
        .await?;
        let dir = stage.cluster.path(name);
        std::fs::create_dir_all(&dir).map_err(io("creating the scenario's directory"))?;
        authority.write_to(&dir.join("ca.crt"))?;
        let pod = capture.name().to_owned();
        let mut play = Self {
            namespace,
            service,
            capture,
            pod,
            uid: String::new(),
            dir,
            begun: Instant::now(),
        };
        play.uid = play.create_pod().await?;
        Ok(play)
    }

    async fn create_pod(&self) -> Result<String, Error> {
        let first = self
            .capture
            .steps
            .first()
            .and_then(|step| step.event.get("object"))
            .cloned()
            .unwrap_or_default();
        self.namespace
            .create_pod(&pod_like(&first, &self.pod))
            .await
    }

    async fn agent(&self, stage: &Stage, access: Access) -> Result<Agent, Error> {
        let settings = self.settings(stage, access).await?;
        let podbeat = match access {
            Access::InCluster => &stage.podbeat,
            Access::Kubeconfig => &stage.laptop,
        };
        Agent::start(podbeat, &settings, self.dir.join("podbeat.log"))
    }

    async fn settings(
        &self,
        stage: &Stage,
        access: Access,
    ) -> Result<BTreeMap<String, String>, Error> {
        let token = self.namespace.token().await?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut settings: BTreeMap<String, String> = [
            ("TASK_RUN_ID", RUN.to_owned()),
            ("POD_NAME", self.pod.clone()),
            ("POD_NAMESPACE", self.namespace.name.clone()),
            ("POD_UID", self.uid.clone()),
            ("PODBEAT_SERVICE_URL", self.service.url()),
            ("PODBEAT_TOKEN", TOKEN.to_owned()),
            ("PODBEAT_CA_FILE", text(&self.dir.join("ca.crt"))),
            ("PODBEAT_CONTAINER_NAME", "hb".to_owned()),
            ("PODBEAT_INTERVAL", "1s".to_owned()),
            ("PODBEAT_LOG_FORMAT", "json".to_owned()),
        ]
        .into_iter()
        .map(|(variable, value)| (variable.to_owned(), value))
        .collect();
        match access {
            Access::InCluster => {
                KubeApi::write_service_account(&stage.cluster.authority, &token, &self.dir)?;
                settings.insert("PODBEAT_SERVICE_ACCOUNT_DIR".to_owned(), text(&self.dir));
                settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), "127.0.0.1".to_owned());
                settings.insert(
                    "KUBERNETES_SERVICE_PORT".to_owned(),
                    stage.cluster.port.to_string(),
                );
            }
            Access::Kubeconfig => {
                let path = self.kubeconfig(stage, &token)?;
                settings.insert("KUBECONFIG".to_owned(), text(&path));
            }
        }
        Ok(settings)
    }

    /// Writes a kubeconfig of the service account, and returns its path.
    fn kubeconfig(&self, stage: &Stage, token: &str) -> Result<PathBuf, Error> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let token_file = self.dir.join("kube-token");
        std::fs::write(&token_file, token).map_err(io("writing the token"))?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{"name": "e2e", "cluster": {
                "server": stage.cluster.url, "certificate-authority": text(&stage.cluster.path("ca.crt"))}}],
            "users": [{"name": "podbeat", "user": {"tokenFile": text(&token_file)}}],
            "contexts": [{"name": "e2e", "context": {
                "cluster": "e2e", "user": "podbeat", "namespace": self.namespace.name}}],
        });
        let path = self.dir.join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).map_err(io("writing the kubeconfig"))?;
        Ok(path)
    }

    /// Sets the statuses of a step on the real pod.
    async fn status(&self, step: usize) -> Result<(), Error> {
        let event = self.capture.steps.get(step).map(|step| &step.event);
        let status = event
            .and_then(|event| event.pointer("/object/status"))
            .cloned()
            .unwrap_or_default();
        self.say(&format!("the pod's status becomes: {}", told(&status)));
        self.namespace.set_status(&self.pod, &status).await
    }

    /// The steps whose pod satisfies a condition.
    fn steps(&self, wanted: impl Fn(&Value) -> bool) -> Vec<usize> {
        let object = |step: &podbeat_lab::capture::Step| {
            step.event.get("object").cloned().unwrap_or_default()
        };
        let all = self.capture.steps.iter().enumerate();
        all.filter(|(_, step)| wanted(&object(step)))
            .map(|(at, _)| at)
            .collect()
    }

    async fn until(
        &self,
        what: &str,
        reached: impl Fn(&[Heartbeat]) -> bool,
    ) -> Result<Vec<Heartbeat>, Error> {
        let heartbeats = self.service.wait_for(what, LIMIT, reached).await?;
        self.say(&format!("the service received {what}"));
        Ok(heartbeats)
    }

    async fn until_main_is(&self, state: &str) -> Result<(), Error> {
        let is = |heartbeat: &Heartbeat| {
            heartbeat
                .state("main")
                .is_some_and(|(name, _)| name == state)
        };
        self.until(&format!("main {state}"), |heartbeats| {
            heartbeats.iter().any(is)
        })
        .await?;
        Ok(())
    }

    async fn until_final(&self) -> Result<Heartbeat, Error> {
        let heartbeats = self
            .until("the last heartbeat", |all| {
                all.iter().any(Heartbeat::is_final)
            })
            .await?;
        heartbeats
            .into_iter()
            .find(Heartbeat::is_final)
            .ok_or_else(|| Error::Unexpected("no last heartbeat".to_owned()))
    }

    fn say(&self, text: &str) {
        say(&format!(
            "  {:6.2}s  {text}",
            self.begun.elapsed().as_secs_f64()
        ));
    }

    /// Checks that apply to every scenario: the contract, the UID, and one last heartbeat with none
    /// after it.
    fn check(&self) -> Result<(), Error> {
        let violations = self.service.violations();
        expect(violations.is_empty(), || {
            format!("heartbeats violate the contract: {violations:?}")
        })?;
        let accepted = self.service.accepted();
        let uids = accepted
            .iter()
            .all(|heartbeat| heartbeat.body.get("podUID") == Some(&json!(self.uid)));
        expect(uids, || {
            format!(
                "a heartbeat has another UID than {}: {accepted:#?}",
                self.uid
            )
        })?;
        let finals = accepted
            .iter()
            .filter(|heartbeat| heartbeat.is_final())
            .count();
        let last = accepted.last().is_some_and(Heartbeat::is_final);
        expect(finals == 1 && last, || {
            format!(
                "{finals} last heartbeats; expected exactly one, after all others: {accepted:#?}"
            )
        })?;
        expect(self.service.most_in_flight() == 1, || {
            "more than one request at once".to_owned()
        })?;
        self.say(&format!(
            "{} heartbeats, all valid by the contract",
            accepted.len()
        ));
        Ok(())
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::Unexpected(otherwise()))
    }
}

fn told(status: &Value) -> String {
    let all = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|member| status.get(member));
    let told: Vec<String> = all
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|status| {
            let state = status.get("state")?.as_object()?.keys().next()?;
            Some(format!("{} {state}", status.get("name")?.as_str()?))
        })
        .collect();
    if told.is_empty() {
        "nothing yet".to_owned()
    } else {
        told.join(", ")
    }
}

fn has_statuses(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses").is_some()
}

fn main_runs(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses")
        .and_then(Value::as_array)
        .is_some_and(|statuses| {
            statuses.iter().any(|status| {
                status.get("name") == Some(&json!("main"))
                    && status.pointer("/state/running").is_some()
            })
        })
}

fn is_deleted(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

async fn complete(stage: &Stage, access: Access) -> Result<(), Error> {
    let name = if access == Access::Kubeconfig {
        "complete"
    } else {
        "in-cluster"
    };
    let play = Play::new(stage, name, "a-complete").await?;
    play.namespace.grant(&play.pod).await?;
    let mut agent = play.agent(stage, access).await?;
    play.until("the first heartbeat", |heartbeats| !heartbeats.is_empty())
        .await?;
    let steps = play.steps(has_statuses);
    for step in steps {
        play.status(step).await?;
        let pod = play.namespace.pod(&play.pod).await?;
        if main_runs(&pod) {
            play.until_main_is("running").await?;
        } else if pod.pointer("/status/phase") == Some(&json!("Pending")) {
            play.until_main_is("waiting").await?;
        } else {
            break;
        }
    }
    let last = play.until_final().await?;
    let state = last
        .state("main")
        .map(|(_, members)| members.clone())
        .unwrap_or_default();
    play.say(&format!("its state of main: {state}"));
    expect(last.exit_code("main") == Some(3), || {
        format!("expected exit code 3: {last:?}")
    })?;
    let id = state
        .get("containerID")
        .and_then(Value::as_str)
        .unwrap_or_default();
    expect(id.starts_with("containerd://"), || {
        format!("no containerID: {last:?}")
    })?;
    expect(agent.runs(), || {
        "a native sidecar waits for SIGTERM".to_owned()
    })?;
    agent.terminate()?;
    let code = agent.end(LIMIT).await?;
    play.say(&format!("after SIGTERM podbeat ends with {code}"));
    expect(code == 0, || format!("exit code {code}"))?;
    play.check()
}

async fn plain(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "plain", "d-classic").await?;
    play.namespace.grant(&play.pod).await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    for step in play.steps(has_statuses) {
        play.status(step).await?;
        if play
            .namespace
            .pod(&play.pod)
            .await
            .is_ok_and(|pod| main_runs(&pod))
        {
            play.until_main_is("running").await?;
        }
    }
    let code = agent.end(LIMIT).await?;
    play.say(&format!("podbeat ends by itself with {code}"));
    expect(code == 0, || format!("exit code {code}"))?;
    let last = play.until_final().await?;
    expect(last.exit_code("main") == Some(0), || {
        format!("expected exit code 0: {last:?}")
    })?;
    play.check()
}

async fn delete(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "delete", "b-delete").await?;
    play.namespace.grant(&play.pod).await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    for step in play.steps(|pod| has_statuses(pod) && !is_deleted(pod)) {
        play.status(step).await?;
    }
    play.until_main_is("running").await?;
    play.namespace.delete_pod(&play.pod, 30).await?;
    play.say("the pod is deleted, with 30 s of grace");
    let deleted = play.namespace.pod(&play.pod).await?;
    expect(is_deleted(&deleted) && main_runs(&deleted), || {
        format!("fact 1: still running: {deleted}")
    })?;
    agent.terminate()?;
    let signalled = Instant::now();
    let last = play.until_final().await?;
    let took = signalled.elapsed();
    play.say(&format!(
        "the last heartbeat came {:.2} s after SIGTERM",
        took.as_secs_f64()
    ));
    expect(took < Duration::from_secs(10), || {
        format!("it took {took:?}")
    })?;
    let state = last.state("main").map(|(state, _)| state.to_owned());
    expect(state.as_deref() == Some("running"), || {
        format!("the last heartbeat reports an end that the API server did not show: {last:?}")
    })?;
    let code = agent.end(LIMIT).await?;
    expect(code == 0, || format!("exit code {code}"))?;
    // The kubelet shows this when every container has ended, including ours: too late for any
    // sidecar.
    for step in play
        .steps(|pod| is_deleted(pod) && !main_runs(pod))
        .into_iter()
        .take(1)
    {
        play.status(step).await?;
    }
    play.namespace.delete_pod(&play.pod, 0).await?;
    play.check()
}

async fn forbidden(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "forbidden", "a-complete").await?;
    for step in play.steps(main_runs).into_iter().take(1) {
        play.status(step).await?;
    }
    play.namespace.grant("another-pod").await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    let heartbeats = play
        .until("three heartbeats", |heartbeats| heartbeats.len() >= 3)
        .await?;
    let silent = heartbeats
        .iter()
        .all(|heartbeat| heartbeat.body.get("containerStatus").is_none());
    expect(silent, || format!("states without rights: {heartbeats:#?}"))?;
    agent
        .until_logged("needs a Role with get, list and watch", LIMIT)
        .await?;
    agent.until_logged("403", LIMIT).await?;
    let log = agent.log();
    let role = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| Some(line.get("kubectl_apply")?.as_str()?.to_owned()));
    let Some(role) = role else {
        return Err(Error::Unexpected(format!("no Role in the log: {log}")));
    };
    play.say("podbeat logged the 403 and the missing Role");
    play.namespace.apply(&role).await?;
    play.say("applied this Role");
    play.until_main_is("running").await?;
    for step in play
        .steps(|pod| has_statuses(pod) && !main_runs(pod))
        .into_iter()
        .rev()
        .take(1)
    {
        play.status(step).await?;
    }
    let last = play.until_final().await?;
    expect(last.exit_code("main") == Some(3), || {
        format!("expected exit code 3: {last:?}")
    })?;
    agent.terminate()?;
    expect(agent.end(LIMIT).await? == 0, || {
        "expected exit code 0".to_owned()
    })?;
    play.check()
}

async fn api_restart(stage: &mut Stage) -> Result<(), Error> {
    let play = Play::new(stage, "api-restart", "a-complete").await?;
    play.namespace.grant(&play.pod).await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    for step in play.steps(main_runs).into_iter().take(1) {
        play.status(step).await?;
    }
    play.until_main_is("running").await?;
    stage.cluster.kill_apiserver().await?;
    let down = play.service.heartbeats().len();
    play.say("kube-apiserver is killed");
    play.until("three heartbeats meanwhile", |heartbeats| {
        heartbeats.len() >= down + 3
    })
    .await?;
    stage.cluster.start_apiserver().await?;
    play.say("kube-apiserver is back");
    for step in play
        .steps(|pod| has_statuses(pod) && !main_runs(pod))
        .into_iter()
        .rev()
        .take(1)
    {
        play.status(step).await?;
    }
    let last = play.until_final().await?;
    expect(last.exit_code("main") == Some(3), || {
        format!("expected exit code 3: {last:?}")
    })?;
    agent.terminate()?;
    expect(agent.end(LIMIT).await? == 0, || {
        "expected exit code 0".to_owned()
    })?;
    play.check()
}

async fn recreated(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "recreated", "a-complete").await?;
    play.namespace.grant(&play.pod).await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    for step in play.steps(main_runs).into_iter().take(1) {
        play.status(step).await?;
    }
    play.until_main_is("running").await?;
    play.namespace.delete_pod(&play.pod, 0).await?;
    let other = play.create_pod().await?;
    play.say(&format!(
        "the pod is removed, and another pod has its name: {other}"
    ));
    for step in play
        .steps(|pod| has_statuses(pod) && !main_runs(pod))
        .into_iter()
        .rev()
        .take(1)
    {
        play.status(step).await?;
    }
    let last = play.until_final().await?;
    expect(last.exit_code("main").is_none(), || {
        format!("the exit code belongs to the other pod: {last:?}")
    })?;
    let code = agent.end(LIMIT).await?;
    expect(code == 0, || format!("exit code {code}"))?;
    play.check()
}

/// `podbeat observe -o json`, and its events so far.
struct Observer {
    child: tokio::process::Child,
    out: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
    told: Vec<Value>,
}

impl Observer {
    fn start(stage: &Stage, play: &Play, kubeconfig: &Path, record: &Path) -> Result<Self, Error> {
        let mut child = tokio::process::Command::new(&stage.laptop)
            .env_clear()
            .args([
                "observe",
                &play.pod,
                "-o",
                "json",
                "--container-name",
                "hb",
                "--interval",
                "1s",
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--record")
            .arg(record)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("starting podbeat observe"))?;
        let Some(out) = child.stdout.take() else {
            return Err(Error::Unexpected("no pipe to podbeat observe".to_owned()));
        };
        Ok(Self {
            child,
            out: tokio::io::BufReader::new(out).lines(),
            told: Vec::new(),
        })
    }

    /// Reads until an event is as wanted, or to the end.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let read = async {
            while let Some(line) = self
                .out
                .next_line()
                .await
                .map_err(io("reading from podbeat observe"))?
            {
                let event: Value = serde_json::from_str(&line)
                    .map_err(|_| Error::Unexpected(format!("not JSON: {line}")))?;
                let reached = wanted(&event);
                self.told.push(event);
                if reached {
                    return Ok(());
                }
            }
            Err(Error::Unexpected(format!(
                "podbeat observe ended without {what}: {:#?}",
                self.told
            )))
        };
        match tokio::time::timeout(LIMIT, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::Unexpected(format!(
                "podbeat observe did not show {what}"
            ))),
        }
    }

    /// Waits for its end, and returns its exit code and its standard error.
    async fn end(self) -> Result<(Option<i32>, String), Error> {
        let output = tokio::time::timeout(LIMIT, self.child.wait_with_output()).await;
        let output = output
            .map_err(|_| Error::Unexpected("podbeat observe doesn't end".to_owned()))?
            .map_err(io("waiting for podbeat observe"))?;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }
}

async fn observe(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "observe", "a-complete").await?;
    let token = play.namespace.token().await?;
    let kubeconfig = play.kubeconfig(stage, &token)?;
    let (nothing, record) = (
        play.dir.join("nothing.jsonl"),
        play.dir.join("record.jsonl"),
    );
    let (code, notes) = Observer::start(stage, &play, &kubeconfig, &nothing)?
        .end()
        .await?;
    expect(
        code == Some(77) && notes.contains("Error from server (Forbidden): "),
        || format!("expected 77 and the API server's message: {code:?}, {notes}"),
    )?;
    let Some((_, role)) = notes.split_once("`kubectl apply -f -`:\n") else {
        return Err(Error::Unexpected(format!("no Role: {notes}")));
    };
    play.say("without rights podbeat observe ends with 77 and shows the Role");
    play.namespace.apply(role).await?;
    play.say("applied this Role");

    let mut observer = Observer::start(stage, &play, &kubeconfig, &record)?;
    let is_first = |event: &Value| event.get("event") == Some(&json!("heartbeat"));
    observer.until("the first heartbeat", is_first).await?;
    let (mut shown, mut told) = (vec![play.namespace.pod(&play.pod).await?], Vec::new());
    for step in play.steps(has_statuses) {
        play.status(step).await?;
        let pod = play.namespace.pod(&play.pod).await?;
        let of_main = pod
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|status| status.get("name") == Some(&json!("main")));
        let state = of_main
            .and_then(|status| status.get("state")?.as_object()?.keys().next().cloned())
            .unwrap_or_default();
        if shown
            .last()
            .and_then(|pod| pod.pointer("/metadata/resourceVersion"))
            != pod.pointer("/metadata/resourceVersion")
        {
            shown.push(pod);
        }
        if told.last() == Some(&state) {
            continue;
        }
        // The same bodies that a service would receive.
        let tells = |event: &Value| {
            let statuses = event
                .pointer("/body/containerStatus")
                .and_then(Value::as_array);
            statuses.into_iter().flatten().any(|status| {
                status.get("name") == Some(&json!("main"))
                    && status
                        .get("state")
                        .is_some_and(|told| told.get(&state).is_some())
            })
        };
        observer.until(&format!("main {state}"), tells).await?;
        play.say(&format!("podbeat observe shows main {state}"));
        let over = state == "terminated";
        told.push(state);
        if over {
            break;
        }
    }
    observer
        .until("the end", |event| event.get("event") == Some(&json!("end")))
        .await?;
    let last = observer
        .told
        .iter()
        .rev()
        .find(|event| is_first(event))
        .cloned();
    let (code, notes) = observer.end().await?;
    expect(code == Some(0) && notes.is_empty(), || {
        format!("expected 0 and no message: {code:?}, {notes}")
    })?;
    let last = last.unwrap_or_default();
    expect(
        last.pointer("/body/lastHeartbeat") == Some(&json!(true))
            && last.to_string().contains("\"exitCode\":3"),
        || format!("expected the last heartbeat with exit code 3: {last}"),
    )?;
    expect(play.service.heartbeats().is_empty(), || {
        "a heartbeat was sent".to_owned()
    })?;

    // The record contains the same states as the API server showed.
    let record = Capture::load(&record)?;
    let observed = |pod: &Value| {
        let states: Vec<(Value, Value)> = ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|list| pod.get("status")?.get(list)?.as_array())
            .flatten()
            .map(|status| {
                let member = |name: &str| status.get(name).cloned().unwrap_or_default();
                (member("name"), member("state"))
            })
            .collect();
        let version = pod.pointer("/metadata/resourceVersion").cloned();
        (version, states)
    };
    let recorded: Vec<_> = record.pods().map(observed).collect();
    let shown: Vec<_> = shown.iter().map(observed).collect();
    expect(recorded == shown, || {
        format!("the record differs from what was shown: {recorded:#?}\n{shown:#?}")
    })?;
    play.say(&format!(
        "the record contains the {} states that the API server showed",
        recorded.len()
    ));
    Ok(())
}

/// The result of `podbeat check`: its exit code, and the state and remedy of each check that isn't
/// ok.
struct Checked {
    code: Option<i32>,
    others: BTreeMap<String, (String, String)>,
}

impl Checked {
    fn is(&self, code: i32, expected: &[(&str, &str)]) -> Result<(), Error> {
        let told: Vec<(&str, &str)> = self
            .others
            .iter()
            .map(|(id, (state, _))| (id.as_str(), state.as_str()))
            .collect();
        expect(self.code == Some(code) && told == expected, || {
            format!(
                "expected exit code {code} and {expected:?}: {:?}, {:?}",
                self.code, self.others
            )
        })
    }
}

async fn run_check(stage: &Stage, settings: &BTreeMap<String, String>) -> Result<Checked, Error> {
    let output = tokio::process::Command::new(&stage.podbeat)
        .args(["check", "-o", "json"])
        .env_clear()
        .envs(settings)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .map_err(|_| Error::Unexpected("podbeat check doesn't end".to_owned()))?
        .map_err(io("running podbeat check"))?;
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        Error::Unexpected(format!(
            "not JSON: {}",
            String::from_utf8_lossy(&output.stdout)
        ))
    })?;
    let text = |check: &Value, member: &str| {
        check
            .get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let checks = told
        .get("checks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let others = checks
        .filter(|check| check.get("state") != Some(&json!("ok")))
        // Directories are not set here.
        .filter(|check| !text(check, "id").starts_with("files."))
        .map(|check| {
            (
                text(check, "id"),
                (text(check, "state"), text(check, "remedy")),
            )
        });
    Ok(Checked {
        code: output.status.code(),
        others: others.collect(),
    })
}

async fn check(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "check", "a-complete").await?;
    for step in play.steps(main_runs).into_iter().take(1) {
        play.status(step).await?;
    }
    let mut settings = play.settings(stage, Access::InCluster).await?;
    play.namespace
        .grant_only(&["get", "list"], &play.pod)
        .await?;
    let found = run_check(stage, &settings).await?;
    found.is(1, &[("kubernetes.watch", "failed")])?;
    play.say("a Role for this one pod, without watch: found, and nothing else");
    let remedy = found
        .others
        .get("kubernetes.watch")
        .map(|(_, remedy)| remedy.as_str());
    let (_, role) = remedy
        .and_then(|remedy| remedy.split_once('\n'))
        .unwrap_or_default();
    play.namespace.apply(role).await?;
    run_check(stage, &settings).await?.is(0, &[])?;
    play.say("after the suggested Role is applied, all checks pass");
    settings.insert(
        "POD_UID".to_owned(),
        "00000000-0000-0000-0000-000000000000".to_owned(),
    );
    run_check(stage, &settings)
        .await?
        .is(1, &[("kubernetes.uid", "failed")])?;
    play.say("another pod's UID: found, and nothing else");

    let restricted = Play::new(stage, "check-restricted", "a-complete").await?;
    for step in restricted.steps(main_runs).into_iter().take(1) {
        restricted.status(step).await?;
    }
    let settings = restricted.settings(stage, Access::InCluster).await?;
    run_check(stage, &settings).await?.is(
        1,
        &[
            ("kubernetes.get", "failed"),
            ("kubernetes.list", "failed"),
            ("kubernetes.pod", "skipped"),
            ("kubernetes.uid", "skipped"),
            ("kubernetes.watch", "failed"),
            ("pod.container", "skipped"),
            ("pod.grace", "skipped"),
            ("pod.restart", "skipped"),
            ("pod.retries", "skipped"),
            ("pod.sidecar", "skipped"),
            ("pod.tasks", "skipped"),
        ],
    )?;
    restricted.namespace.grant(&restricted.pod).await?;
    run_check(stage, &settings).await?.is(0, &[])?;
    restricted
        .say("no rights at all: found; get, list and watch only by resourceNames: all checks pass");
    let received = play.service.heartbeats().len() + restricted.service.heartbeats().len();
    expect(received == 0, || format!("{received} heartbeats were sent"))
}

async fn flow_schema(stage: &Stage) -> Result<(), Error> {
    let play = Play::new(stage, "flow-schema", "a-complete").await?;
    play.namespace.grant_all().await?;
    let admin = stage.cluster.admin().await?;
    let podbeat = stage
        .cluster
        .client_of(&play.namespace.token().await?)
        .await?;
    let pods = format!("/api/v1/namespaces/{}/pods", play.namespace.name);
    let before = flow_schema_of(&podbeat, &pods).await?;
    let other = Namespace::create(admin.clone(), "e2e-flow-schema-other").await?;
    let other = stage.cluster.client_of(&other.token().await?).await?;

    let manifest = repository().join("deploy/manifests/flowschema.yaml");
    let manifest = std::fs::read_to_string(&manifest)
        .map_err(io(format!("reading {}", manifest.display())))?;
    let ours = manifest.replace(
        "namespace: tasks",
        &format!("namespace: {}", play.namespace.name),
    );
    let uid = apply_flow_schema(&admin, &ours, &podbeat, &play.namespace.name).await?;
    play.say(
        "the flow schema of deploy/manifests is applied, and matches a list by podbeat's account",
    );
    let one = format!("{pods}/{}", play.pod);
    let services = format!("/api/v1/namespaces/{}/services", play.namespace.name);
    for (client, path, belongs, what) in [
        (&podbeat, &one, true, "a get of podbeat's account"),
        (
            &podbeat,
            &services,
            false,
            "that account's list of services",
        ),
        (
            &other,
            &pods,
            false,
            "a list of another namespace's account",
        ),
        (&admin, &pods, false, "an administrator's list"),
    ] {
        let found = flow_schema_of(client, path).await?;
        expect((found == uid) == belongs, || {
            format!("{what} belongs to the flow schema {found}; podbeat's is {uid}")
        })?;
    }
    expect(before != uid, || "it was there before".to_owned())?;
    play.say("it also matches a get; it does not match other resources, accounts and namespaces");

    // Also the agent's own list and watch.
    let dispatched = async || dispatched_by(&admin, "podbeat").await;
    let asked = dispatched().await?;
    let mut agent = play.agent(stage, Access::InCluster).await?;
    for step in play.steps(has_statuses) {
        play.status(step).await?;
    }
    play.until_final().await?;
    let taken = dispatched().await? - asked;
    expect(taken >= 2.0, || {
        format!(
            "expected the agent's list and watch in podbeat's priority level, which received {taken} requests"
        )
    })?;
    play.say(&format!("the agent's {taken} requests used it"));
    agent.terminate()?;
    expect(agent.end(LIMIT).await? == 0, || {
        "expected exit code 0".to_owned()
    })?;
    play.check()
}

/// How many requests of a flow schema the API server has dispatched.
async fn dispatched_by(admin: &kube::Client, flow_schema: &str) -> Result<f64, Error> {
    let metrics = admin
        .request_text(get("/metrics"))
        .await
        .map_err(|error| kube_error("asking for the API server's metrics", error))?;
    let wanted = format!("flow_schema=\"{flow_schema}\"");
    Ok(metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_flowcontrol_dispatched_requests_total{"))
        .filter(|line| line.contains(&wanted))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum())
}
