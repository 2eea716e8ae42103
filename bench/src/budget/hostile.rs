//! Memory under hostile input from the pod, its files, the service and the API server, in a control
//! group like a container's.
//!
//! The kernel kills a process that exceeds the group's limit, and then there is no figure. The
//! measured value is how close the process came to the limit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use podbeat_lab::pod::{Pod, exit, restarted, running, terminated, waiting};
use podbeat_lab::world::{self, TOKEN};
use podbeat_lab::{kube_api, service};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use super::{END, Measured, PATIENCE, Subject};
use crate::control_group::ControlGroup;
use crate::process::Running;
use crate::{Error, io};

/// The memory limit of podbeat's container in the manifests, in bytes.
const CONTAINER: u64 = 32 << 20;

/// The memory limit in deploy/manifests/reap.yaml, in bytes.
const REAPER: u64 = 128 << 20;

/// The number of ended pods. Each has about 1.4 MB, which is the largest size that etcd accepts.
const PODS: usize = 100;

/// The time between two looks for an expected state.
const PAUSE: Duration = Duration::from_millis(10);

/// The number of pod entries that are short as text: together 4 MB of JSON.
const MANY: usize = 1_000_000;

/// The number of exits in one outage of the service.
const EXITS: i32 = 300;

const STARTED: &str = "2026-01-01T00:00:01Z";

/// A podbeat in its control group, and its environment.
struct Victim {
    world: world::World,
    running: Running,
    log: std::path::PathBuf,
    /// How far the log was read.
    read: usize,
}

/// The agent's peak memory with all hostile input, or the limit if the kernel killed the agent.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
pub(super) async fn agent(subject: &Subject, tell: &impl Fn(&str)) -> Result<Vec<Measured>, Error> {
    let group = ControlGroup::with_memory("agent", CONTAINER)?;
    let world = world::World::start().await?;
    let path = |name: &str| world.path(name).display().to_string();
    for name in ["state", "markers"] {
        fs::create_dir(world.path(name)).map_err(io(format!("creating {name}")))?;
    }
    // A journal of an earlier process that is short as text, but would be large in memory.
    let objects = vec!["{}"; 2_000_000].join(",");
    let journal = format!(
        r#"{{"version":1,"taskRunId":"{}","machine":{{"statuses":[{objects}]}}}}"#,
        world::RUN
    );
    write(&world.path("state/journal.json"), journal.as_bytes())?;
    let mut settings = world.settings("p", "u");
    for (name, value) in [
        ("PODBEAT_INTERVAL", "100ms".to_owned()),
        ("PODBEAT_STATE_DIR", path("state")),
        ("PODBEAT_MARKER_DIR", path("markers")),
        ("PODBEAT_MAX_STATUS_AGE", "1h".to_owned()),
    ] {
        settings.insert(name.to_owned(), value);
    }
    let log = world.path("log");
    let running = Running::start_in(
        &group,
        &subject.program,
        &subject.arguments,
        &settings,
        &log,
    )?;
    let mut victim = Victim {
        world,
        running,
        log,
        read: 0,
    };
    let measured = victim.endure(tell).await;
    let killed = group.killed()?;
    if killed > 0 {
        tell(&format!(
            "hostile: the kernel killed podbeat because it used more than {} MiB",
            CONTAINER >> 20
        ));
        return Ok(vec![("hostile", CONTAINER as f64)]);
    }
    Ok(vec![("hostile", measured?)])
}

impl Victim {
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
    async fn endure(&mut self, tell: &impl Fn(&str)) -> Result<f64, Error> {
        let pod = Pod::new("p", "u").policy("Always");
        let said = "cannot watch the pod; heartbeats continue without new container states";
        self.until_told("cannot resume from the journal; starting with an empty one")
            .await?;
        self.so_far(tell, "a journal of two million objects")?;
        self.world.kube_faults.script("get flood")?;
        self.until_told(said).await?;
        self.world.kube.apply(pod.showing(&waiting("Begun")));
        self.until_shown("Begun").await?;
        self.so_far(tell, "an endless object as the answer to a get")?;
        self.world.kube_faults.script("watch flood; list flood")?;
        self.until_told(said).await?;
        self.until_told("listing pod").await?;
        self.world.kube.apply(pod.showing(&waiting("Flooded")));
        self.until_shown("Flooded").await?;
        self.so_far(
            tell,
            "an endless line of a watch, and an endless item of a list",
        )?;
        for (nth, hostile) in hostile(&pod).into_iter().enumerate() {
            self.world.kube.apply(hostile);
            // Each hostile pod causes its own error or none. podbeat must still see the pod after
            // it.
            let mark = format!("After{nth}");
            self.world.kube.apply(pod.showing(&waiting(&mark)));
            self.until_shown(&mark).await?;
        }
        self.so_far(tell, "pods that are small as JSON and large in memory")?;
        for put in [sparse, pipe, device] {
            let beside = self.world.path("token.hostile");
            put(&beside)?;
            fs::rename(&beside, self.world.path("token")).map_err(io("replacing the token"))?;
            self.until_told("a heartbeat was not accepted").await?;
            self.world.write_token(TOKEN)?;
            self.until_accepted(2).await?;
        }
        self.so_far(tell, "token files that are huge, a pipe or a device")?;
        self.world.service_faults.script("heartbeat flood x20")?;
        self.until_accepted(25).await?;
        self.so_far(tell, "endless answers of the service")?;
        // The longest messages, made of characters that take six bytes in JSON.
        self.world
            .service_faults
            .script("heartbeat 503 until-lifted")?;
        for count in 1..=EXITS {
            self.world.kube.apply(pod.showing(&crashed(count)));
            tokio::time::sleep(PAUSE).await;
        }
        self.world.service_faults.lift_all();
        self.world.kube.apply(pod.showing(&waiting("Lifted")));
        self.until_shown("Lifted").await?;
        self.so_far(
            tell,
            "an outage of the service, while a container crashes with the longest messages",
        )?;
        for nth in 0..30_000 {
            write(&self.world.path(&format!("markers/.{nth}")), b"")?;
        }
        write(&self.world.path("markers/main"), b"\xEF\xBB\xBF0\r\n")?;
        self.world.kube.apply(pod.showing(&running(STARTED)));
        self.until_accepted(2).await?;
        self.world
            .kube_faults
            .script("any flood until-lifted; watch cut")?;
        let peak = self.running.sample()?.peak;
        self.running.terminate()?;
        let status = self.running.ended(END).await?;
        if !status.success() {
            return Err(Error::InVain {
                what: "podbeat to exit with 0".to_owned(),
                waited: END,
                seen: format!("{status}; it wrote:\n{}", self.running.log()),
            });
        }
        Ok(peak as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
    fn so_far(&self, tell: &impl Fn(&str), what: &str) -> Result<(), Error> {
        let sample = self.running.sample()?;
        tell(&format!(
            "hostile: {:.2} MiB at most, {:.2} MiB now, after {what}",
            sample.peak as f64 / 1_048_576.0,
            sample.rss as f64 / 1_048_576.0
        ));
        Ok(())
    }

    /// Waits until the log contains this text after the previous match.
    async fn until_told(&mut self, what: &str) -> Result<(), Error> {
        let wait = async {
            loop {
                let text = fs::read(&self.log).unwrap_or_default();
                let text =
                    String::from_utf8_lossy(text.get(self.read..).unwrap_or_default()).into_owned();
                if let Some(at) = text.find(what) {
                    return self.read + at + what.len();
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        self.read = waited.map_err(|_| self.in_vain(format!("the log message {what:?}")))?;
        Ok(())
    }

    async fn until_shown(&self, reason: &str) -> Result<(), Error> {
        let shows = |heartbeat: &service::Heartbeat| {
            heartbeat.accepted && heartbeat.body.to_string().contains(reason)
        };
        let wait = self.world.service.wait_for(reason, PATIENCE, |heartbeats| {
            heartbeats.iter().rev().take(200).any(shows)
        });
        wait.await
            .map(drop)
            .map_err(|_| self.in_vain(format!("a heartbeat that shows {reason}")))
    }

    async fn until_accepted(&self, more: u64) -> Result<(), Error> {
        let accepted = || self.world.service.count(world::RUN).accepted;
        let before = accepted();
        let wait = async {
            while accepted() < before + more {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.map_err(|_| self.in_vain(format!("{more} more accepted heartbeats")))
    }

    fn in_vain(&self, what: String) -> Error {
        Error::InVain {
            what,
            waited: PATIENCE,
            seen: format!("it wrote:\n{}", self.running.log()),
        }
    }
}

/// Pods whose JSON has at most 4 MB.
fn hostile(pod: &Pod) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/spec/containers",
        "/spec/initContainers",
        "/status/containerStatuses",
        "/status/conditions",
        "/metadata/managedFields",
    ] {
        all.push(with(pod, path, Value::Array(vec![json!({}); MANY])));
    }
    let many: serde_json::Map<String, Value> = (0..200_000)
        .map(|nth| (format!("l{nth}"), json!("")))
        .collect();
    for path in [
        "/metadata/labels",
        "/metadata/annotations",
        "/spec/nodeSelector",
    ] {
        all.push(with(pod, path, Value::Object(many.clone())));
    }
    let devices = (0..150_000)
        .map(|nth| (format!("a.b/{nth}"), json!(1)))
        .collect();
    let resources = json!({"limits": Value::Object(devices)});
    all.push(with(pod, "/spec/containers/0/resources", resources));
    let rules = json!(vec![json!({}); MANY]);
    all.push(with(pod, "/spec/containers/0/restartPolicyRules", rules));
    // The same text short and long, made of characters that take six bytes in JSON.
    for length in [80_000, 600_000] {
        all.push(with(pod, "/status/message", json!("\u{1}".repeat(length))));
        let main =
            json!({"state": {"terminated": {"exitCode": 1, "message": "\u{1}".repeat(length)}}});
        all.push(pod.showing(&main));
    }
    all.push(with(pod, "/metadata/uid", json!("x".repeat(4 << 20))));
    all
}

fn with(pod: &Pod, path: &str, value: Value) -> Value {
    let mut pod = pod.showing(&waiting("Hostile"));
    let parent = path.rsplit_once('/').and_then(|(parent, member)| {
        let parent = pod.pointer_mut(parent)?.as_object_mut()?;
        Some((parent, member.to_owned()))
    });
    if let Some((parent, member)) = parent {
        parent.insert(member, value);
    }
    pod
}

fn crashed(count: i32) -> Value {
    let with_message = |count: i32| {
        let mut exit = exit(1, "Error", &format!("exit-{count}"));
        if let Some(members) = exit.as_object_mut() {
            members.insert("message".to_owned(), json!("\u{1}".repeat(12 << 10)));
        }
        exit
    };
    let now = json!({"state": {"terminated": with_message(count)}});
    restarted(now, count, &with_message(count - 1))
}

fn sparse(path: &Path) -> Result<(), Error> {
    let file = fs::File::create(path).and_then(|file| file.set_len(256 << 20));
    file.map_err(io(format!("creating {}", path.display())))
}

fn pipe(path: &Path) -> Result<(), Error> {
    let made = mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    made.map_err(|error| io(format!("creating {}", path.display()))(error.into()))
}

fn device(path: &Path) -> Result<(), Error> {
    let linked = std::os::unix::fs::symlink("/dev/zero", path);
    linked.map_err(io(format!("creating {}", path.display())))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(io(format!("writing {}", path.display())))
}

/// The peak memory of `podbeat reap` in a namespace full of large pods.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
pub(super) async fn reaper(subject: &Subject) -> Result<Vec<Measured>, Error> {
    let group = ControlGroup::with_memory("reap", REAPER)?;
    let run = |nth: usize| format!("trn.{nth}");
    let service = service::Options {
        runs: Some((0..PODS).map(run).collect()),
        ..service::Options::default()
    };
    let world = world::World::with(kube_api::Options::default(), service).await?;
    let value = "x".repeat(1_400_000);
    for nth in 0..PODS {
        let name = format!("p{nth}");
        let mut pod = Pod::new(&name, &format!("u{nth}")).showing(&terminated(3, "Error", "1"));
        for (path, value) in [
            (
                "/metadata/annotations",
                json!({"podbeat.dev/task-run-id": run(nth)}),
            ),
            ("/status/phase", json!("Failed")),
            (
                "/spec/containers/0/env",
                json!([{"name": "LARGE", "value": value}]),
            ),
        ] {
            let (parent, member) = path.rsplit_once('/').unwrap_or_default();
            if let Some(parent) = pod.pointer_mut(parent).and_then(Value::as_object_mut) {
                parent.insert(member.to_owned(), value);
            }
        }
        world.kube.apply(pod);
    }
    let settings: BTreeMap<String, String> = world
        .settings("reaper", "u")
        .into_iter()
        .filter(|(name, _)| !["TASK_RUN_ID", "POD_NAME", "POD_UID"].contains(&name.as_str()))
        .collect();
    let arguments: Vec<String> = ["reap", "--all"].map(str::to_owned).into();
    let log = world.path("reap.log");
    let mut running = Running::start_in(&group, &subject.program, &arguments, &settings, &log)?;
    let mut peak = 0;
    let wait = async {
        while running.runs() {
            // A process that has just ended can't be sampled.
            peak = running
                .sample()
                .map_or(peak, |sample| peak.max(sample.peak));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(2 * PATIENCE, wait).await;
    let status = running.ended(Duration::from_secs(1)).await;
    let sent = world.service.accepted().len();
    match (waited, status) {
        (Ok(()), Ok(status)) if status.success() && sent == PODS => Ok(vec![("reap", peak as f64)]),
        _ if group.killed()? > 0 => Ok(vec![("reap", REAPER as f64)]),
        (_, status) => Err(Error::InVain {
            what: format!("the last heartbeats of {PODS} pods; {sent} arrived"),
            waited: 2 * PATIENCE,
            seen: format!(
                "{status:?}; the kernel killed {}; it wrote:\n{}",
                group.killed()?,
                running.log()
            ),
        }),
    }
}
