//! The manifests under deploy/: what they set is what podbeat reads.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use podbeat::cli::{self, Cli};
use podbeat::config::{Config, ExecConfig, Flags};
use podbeat::pod::status::{Observation, Role, Sidecar};
use serde_json::{Value, json};

const JOB: &str = include_str!("../deploy/manifests/job-with-exit-markers.yaml");

fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).expect("YAML"))
        .collect()
}

fn of_kind<'all>(all: &'all [Value], kind: &str) -> &'all Value {
    all.iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

fn named<'all>(list: &'all Value, name: &str) -> &'all Value {
    list.as_array()
        .into_iter()
        .flatten()
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn words(list: &Value) -> Vec<OsString> {
    let words = list.as_array().into_iter().flatten();
    words.map(|word| word.as_str().expect("text").into()).collect()
}

#[test]
fn the_job_with_exit_markers_fits_together() {
    let all = documents(JOB);
    let spec = &of_kind(&all, "Job")["spec"]["template"]["spec"];

    // podbeat, declared first, is a native sidecar, and the task is its container main.
    assert_eq!(spec["initContainers"][0]["name"], "podbeat");
    let pod = serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": spec})).expect("a pod");
    let seen = Observation::of(&pod, "podbeat");
    assert_eq!(seen.sidecar, Sidecar::Native);
    let roles: Vec<_> = seen
        .containers
        .iter()
        .map(|container| (container.name.as_str(), container.role))
        .collect();
    assert_eq!(roles, [("podbeat-install", Role::Init), ("main", Role::Task)]);

    // Its settings are right, and its directories are mounted: the markers only to be read.
    let podbeat = &spec["initContainers"][0];
    let mut settings: BTreeMap<String, String> = podbeat["env"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| {
            let value = variable["value"].as_str().unwrap_or("downward");
            (
                variable["name"].as_str().expect("a name").to_owned(),
                value.to_owned(),
            )
        })
        .collect();
    settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
    let config = Config::load(&Flags::default(), &settings).expect("right settings");
    let markers = config.marker_dir.expect("set");
    let mount = named(&podbeat["volumeMounts"], "markers");
    assert_eq!(mount["mountPath"].as_str(), markers.to_str());
    assert_eq!(mount["readOnly"], true);
    let state = named(&podbeat["volumeMounts"], "state");
    assert_eq!(
        state["mountPath"].as_str(),
        config.state_dir.expect("set").to_str()
    );

    // The copy is made where the task runs it.
    let install = named(&spec["initContainers"], "podbeat-install");
    let arguments = [vec!["podbeat".into()], words(&install["args"])].concat();
    let Ok(Cli::Install(to)) = cli::parse(arguments) else {
        panic!("it installs");
    };
    let mount = named(&install["volumeMounts"], "podbeat");
    assert_eq!(mount["mountPath"].as_str(), to.to_str());
    let main = &spec["containers"][0];
    let mut command = [words(&main["command"]), words(&main["args"])].concat();
    let mount = named(&main["volumeMounts"], "podbeat");
    let run = Path::new(mount["mountPath"].as_str().expect("a path")).join("podbeat");
    assert_eq!(command[0], run.as_os_str());
    // In podbeat's own image /podbeat is the binary: nothing may be mounted over it.
    for mount in [podbeat, install]
        .iter()
        .flat_map(|own| own["volumeMounts"].as_array())
        .flatten()
    {
        assert_ne!(mount["mountPath"], "/podbeat");
    }

    // The wrapper names its container and leaves its marker where podbeat reads it.
    command[0] = "podbeat".into();
    let Ok(Cli::Exec { flags, command }) = cli::parse(command) else {
        panic!("it wraps");
    };
    let exec = ExecConfig::load(&flags, &BTreeMap::new()).expect("right settings");
    assert_eq!(
        (Some(exec.container_name.as_str()), &exec.marker_dir),
        (main["name"].as_str(), &markers)
    );
    let mount = named(&main["volumeMounts"], "markers");
    assert_eq!(
        (mount["mountPath"].as_str(), &mount["readOnly"]),
        (markers.to_str(), &Value::Null)
    );
    assert_eq!(command[0], "sh");

    // The restricted profile of Kubernetes' pod security standards.
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let containers = [&spec["initContainers"], &spec["containers"]];
    for container in containers.iter().flat_map(|list| list.as_array()).flatten() {
        let context = &container["securityContext"];
        assert_eq!(
            context["allowPrivilegeEscalation"], false,
            "{}",
            container["name"]
        );
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    }

    // Every volume is there, and the account and its rights are.
    let volumes = spec["volumes"].as_array().expect("volumes");
    for container in containers.iter().flat_map(|list| list.as_array()).flatten() {
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            assert!(
                volumes.iter().any(|volume| volume["name"] == mount["name"]),
                "{mount}"
            );
        }
    }
    assert_eq!(
        of_kind(&all, "ServiceAccount")["metadata"]["name"],
        spec["serviceAccountName"]
    );
    assert_eq!(
        of_kind(&all, "Role")["rules"][0]["verbs"],
        json!(["get", "list", "watch"])
    );
    let secret = &of_kind(&all, "Secret")["metadata"]["name"];
    assert_eq!(&named(&spec["volumes"], "token")["secret"]["secretName"], secret);
}
