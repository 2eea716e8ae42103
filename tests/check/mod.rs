//! `podbeat check` as a process, against the stand-ins: without a fault, with one fault each, and
//! with hostile services.

mod certificates;
mod faults;
mod hostile;
mod kubernetes;
mod proxies;
mod well;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use podbeat_lab::pod::{Pod, running};
use podbeat_lab::service::{Options, Service};
use podbeat_lab::world::{KUBE_TOKEN, RUN, TOKEN, World};
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::binary::{Ended, ended, podbeat};
use crate::harness::{knowing, plain_service, text, world_with};

const POD: &str = "my-task";
const UID: &str = "uid-of-my-task";

/// The checks that pass without a fault, in the order of the output.
const ALL: [&str; 25] = [
    "settings",
    "settings.files",
    "token.source",
    "token.expiry",
    "service.dns",
    "service.tcp",
    "service.tls",
    "service.run",
    "clock.service",
    "kubernetes.access",
    "kubernetes.api",
    "clock.kubernetes",
    "kubernetes.get",
    "kubernetes.list",
    "kubernetes.watch",
    "kubernetes.pod",
    "kubernetes.uid",
    "pod.container",
    "pod.sidecar",
    "pod.grace",
    "pod.restart",
    "pod.tasks",
    "pod.retries",
    "files.state",
    "files.markers",
];

type Settings = BTreeMap<String, String>;

/// The settings of a world without a fault: those of the agent in its pod, with every directory.
fn settings(world: &World) -> Settings {
    let mut settings = world.settings(POD, UID);
    for (variable, name) in [
        ("PODBEAT_STATE_DIR", "state"),
        ("PODBEAT_MARKER_DIR", "markers"),
        ("PODBEAT_RENEWED_TOKEN_FILE", "renewed/token"),
    ] {
        let path = world.path(name);
        let directory = if name.contains('/') {
            path.parent().expect("a directory")
        } else {
            &path
        };
        std::fs::create_dir_all(directory).expect("made");
        set_path(&mut settings, variable, &path);
    }
    world.kube.apply(pod());
    settings
}

fn set(settings: &mut Settings, variable: &str, value: impl Into<String>) {
    settings.insert(variable.to_owned(), value.into());
}

fn set_path(settings: &mut Settings, variable: &str, path: &Path) {
    set(settings, variable, text(path));
}

/// A service without TLS that knows the run.
async fn plain() -> Service {
    plain_service(Options {
        runs: knowing([RUN]).runs,
        ..Options::with_token(TOKEN)
    })
    .await
}

fn pod() -> Value {
    let mut pod = Pod::new(POD, UID).showing(&running("2026-11-25T00:00:00Z"));
    pod["status"]["phase"] = "Running".into();
    pod
}

/// A world whose service knows the run.
async fn world() -> World {
    with_options(Options::default()).await
}

/// The same with other options for the service. It knows the run unless the options name others.
async fn with_options(service: Options) -> World {
    let runs = service.runs.or(knowing([RUN]).runs);
    world_with(Options { runs, ..service }).await
}

/// The result of a process.
#[derive(Debug)]
struct Checked {
    code: i32,
    out: String,
    notes: String,
    took: Duration,
}

impl Checked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn check(&self, id: &str) -> Value {
        let json = self.json();
        let checks = json["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["id"] == id);
        found
            .unwrap_or_else(|| panic!("no check {id} in {:#?}", self.json()))
            .clone()
    }

    fn seen(&self, id: &str) -> String {
        self.check(id)["seen"].as_str().expect("a text").to_owned()
    }

    fn remedy(&self, id: &str) -> String {
        let remedy = self.check(id)["remedy"].clone();
        remedy
            .as_str()
            .unwrap_or_else(|| panic!("no remedy of {id}"))
            .to_owned()
    }

    /// The checks that are not ok, with their states.
    fn others(&self) -> BTreeMap<String, String> {
        let json = self.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let checks = json["checks"].as_array().expect("checks").iter();
        checks
            .map(|check| (text(&check["id"]), text(&check["state"])))
            .filter(|(_, state)| state != "ok")
            .collect()
    }

    /// Checks that exactly these are not ok, that the exit code and `ok` show whether one of them
    /// failed, and that exactly the failed checks and warnings have a remedy.
    #[track_caller]
    fn differs_by(&self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(id, state)| ((*id).to_owned(), (*state).to_owned()))
            .collect();
        assert_eq!(self.others(), expected, "{:#?}", self.json());
        let failed = expected.values().any(|state| state == "failed");
        assert_eq!(self.code, i32::from(failed), "{self:?}");
        let json = self.json();
        assert_eq!(json["ok"], !failed);
        for check in json["checks"].as_array().expect("checks") {
            let calls_for_one = matches!(check["state"].as_str(), Some("failed" | "warning"));
            assert_eq!(check["remedy"].is_string(), calls_for_one, "{check}");
        }
        assert_eq!(self.notes, "");
    }
}

/// Runs `podbeat check` with these settings alone.
async fn run(settings: &Settings, arguments: &[&str]) -> Checked {
    let begun = Instant::now();
    let Ended { code, out, notes } =
        ended(podbeat().arg("check").args(arguments).envs(settings)).await;
    let checked = Checked {
        code,
        out,
        notes,
        took: begun.elapsed(),
    };
    for secret in [TOKEN, KUBE_TOKEN, "hunter2"] {
        let shown = checked.out.contains(secret) || checked.notes.contains(secret);
        assert!(!shown, "a secret is shown: {checked:?}");
    }
    checked
}

async fn check(settings: &Settings) -> Checked {
    run(settings, &["-o", "json"]).await
}
