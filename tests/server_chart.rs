//! Checks the chart deploy/helm/podbeat-server, by what it makes of the files in its ci/: settings
//! and a launch file that podbeat-server reads, and no right that it does not use.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use podbeat_interface::environment::Flags;
use podbeat_lab::service::Options;
use podbeat_lab::world::TOKEN;
use podbeat_launch::settings::Settings;
use podbeat_server::settings::Config;
use podbeat_task_runs::model::{CreateTaskRunRequest, Resources};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::deploy::{containers, documents, items, named, of_kind};
use crate::harness::{LIMIT, repository, text, world_with};

/// Only the required values.
const MINIMAL: &str = "helm/podbeat-server/ci/minimal.rendered.yaml";

/// Every object.
const EVERYTHING: &str = "helm/podbeat-server/ci/everything.rendered.yaml";

/// A server that launches no runs, without a certificate.
const WAITING: &str = "helm/podbeat-server/ci/waiting.rendered.yaml";

const ALL: &[&str] = &[MINIMAL, EVERYTHING, WAITING];

fn kinds<'all>(all: &'all [Value], kind: &str) -> Vec<&'all Value> {
    all.iter()
        .filter(|document| document["kind"] == kind)
        .collect()
}

/// The template of the server's pod.
fn pod(all: &[Value]) -> &Value {
    &of_kind(all, "Deployment")["spec"]["template"]
}

fn server(all: &[Value]) -> &Value {
    &pod(all)["spec"]["containers"][0]
}

/// The server's settings, as it reads them in its pod.
fn config(all: &[Value]) -> Config {
    let env = items(&server(all)["env"]);
    let mut settings: BTreeMap<String, String> = env
        .map(|variable| {
            let text = |member: &str| variable[member].as_str().expect("text").to_owned();
            (text("name"), text("value"))
        })
        .collect();
    settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
    Config::load(&Flags::default(), &settings)
        .unwrap_or_else(|errors| panic!("the settings are wrong: {errors}"))
}

fn launch_file(all: &[Value]) -> Settings {
    let maps = kinds(all, "ConfigMap");
    let json = maps
        .iter()
        .find_map(|map| map["data"]["launch.json"].as_str())
        .expect("a launch file");
    Settings::read(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// The name of the volume that is mounted at a directory of the path.
fn volume_of<'all>(all: &'all [Value], path: &Path) -> &'all Value {
    let mounts = items(&server(all)["volumeMounts"]);
    let mount = mounts
        .into_iter()
        .find(|mount| path.starts_with(mount["mountPath"].as_str().expect("a path")))
        .unwrap_or_else(|| panic!("{} is not mounted", path.display()));
    let volume = mount["name"].as_str().expect("a name");
    assert_eq!(
        mount["readOnly"] == true,
        volume != "data",
        "{}",
        path.display()
    );
    named(&pod(all)["spec"]["volumes"], volume)
}

#[test]
fn the_defaults_of_the_values_are_those_of_the_launch_file() {
    let want = Settings {
        instance: "podbeat-server".to_owned(),
        service_url: Some("https://podbeat-server.podbeat.svc".to_owned()),
        ..Settings::default()
    };
    assert_eq!(launch_file(&documents(MINIMAL)), want);
}

#[test]
fn the_values_become_the_launch_file() {
    let settings = launch_file(&documents(EVERYTHING));
    assert_eq!(settings.namespaces(), ["tasks", "genomics", "imaging"]);
    let of = |tenant| (settings.namespace_of(tenant), settings.queue_of(tenant));
    assert_eq!(of("genomics"), ("genomics", Some("genomics")));
    assert_eq!(of("imaging"), ("imaging", Some("all")));
    assert_eq!(of("trials"), ("tasks", Some("trials")));
    assert_eq!(
        settings.service_url.as_deref(),
        Some("https://podbeat-server.podbeat.svc:8443")
    );
    assert_eq!(settings.podbeat.image, "registry.example.com/podbeat:1.2.3");
    assert_eq!(settings.pending.unschedulable_seconds, Some(3600));
    let wanted = json!({"type": "gpu", "size": "large", "tier": "economy"});
    let wanted: Resources = serde_json::from_value(wanted).expect("resources");
    let placement = settings.resources.placement(&wanted).expect("known");
    let entry = placement.entry();
    assert_eq!(
        json!(entry.resources),
        json!({"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "1"})
    );
    assert_eq!(entry.runtime_class_name.as_deref(), Some("nvidia"));
    assert_eq!(entry.priority_class_name.as_deref(), Some("low"));
}

#[test]
fn the_settings_are_right_and_their_files_are_mounted() {
    for file in ALL {
        let all = documents(file);
        let config = config(&all);
        assert_eq!(config.unknown, None, "{file}");
        let claim = &volume_of(&all, &config.data)["persistentVolumeClaim"]["claimName"];
        let ours = kinds(&all, "PersistentVolumeClaim");
        assert_eq!(ours.is_empty(), claim == "data-of-podbeat", "{file}");
        for made in ours {
            assert_eq!(&made["metadata"]["name"], claim, "{file}");
        }
        if let Some((certificate, key)) = &config.identity {
            for path in [certificate, key] {
                let volume = volume_of(&all, path);
                assert_eq!(
                    volume["secret"]["secretName"], "podbeat-server-tls",
                    "{file}"
                );
                let name = path.file_name().and_then(|name| name.to_str());
                assert!(
                    items(&volume["secret"]["items"]).any(|item| item["path"].as_str() == name),
                    "{file}: {}",
                    path.display()
                );
            }
        }
        assert_eq!(config.identity.is_none(), *file == WAITING, "{file}");
        let key = volume_of(&all, &config.secrets_key_file);
        assert_eq!(key["name"] == "key", *file == EVERYTHING, "{file}");
        if let Some(path) = &config.launch_file {
            let name = &volume_of(&all, path)["configMap"]["name"];
            let maps = kinds(&all, "ConfigMap");
            assert!(
                maps.iter().any(|map| &map["metadata"]["name"] == name),
                "{file}"
            );
        }
        assert_eq!(config.launch_file.is_none(), *file == WAITING, "{file}");
        assert_eq!(config.kubeconfig, None, "{file}: the service account");
    }
    let config = config(&documents(EVERYTHING));
    assert_eq!(config.retained_runs, 2_000_000);
    assert_eq!(config.live_runs, 20_000);
    assert_eq!(config.rules.heartbeat_timeout.as_secs(), 300);
    let url = config.url.expect("set");
    assert_eq!(url.url, "https://podbeat.example.com");
}

#[test]
fn the_ports_lead_to_the_server() {
    for file in ALL {
        let all = documents(file);
        let config = config(&all);
        let container = server(&all);
        let scheme = match config.identity {
            Some(_) => "https",
            None => "http",
        };
        let admin = config.admin_listen.expect("set").port();
        for (name, port) in [(scheme, config.listen.port()), ("admin", admin)] {
            assert_eq!(
                named(&container["ports"], name)["containerPort"],
                port,
                "{file}"
            );
            let service = of_kind(&all, "Service");
            let of_service = named(&service["spec"]["ports"], name);
            assert_eq!(of_service["targetPort"], name, "{file}");
            if *file == EVERYTHING {
                let policy = of_kind(&all, "NetworkPolicy");
                let opened =
                    items(&policy["spec"]["ingress"]).any(|rule| rule["ports"][0]["port"] == port);
                assert!(opened, "{file}: {name}");
            }
        }
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(asked, &json!({"path": path, "port": "admin"}), "{file}");
        }
        let spec = &of_kind(&all, "Deployment")["spec"];
        assert_eq!(spec["replicas"], 1, "{file}");
        assert_eq!(spec["strategy"], json!({"type": "Recreate"}), "{file}");
    }
}

/// Everything that selects the server's pod does, and nothing selects the pod of the test.
#[test]
fn selectors_select_the_server_and_nothing_else() {
    for file in ALL {
        let all = documents(file);
        let mut selectors = vec![
            &of_kind(&all, "Deployment")["spec"]["selector"]["matchLabels"],
            &of_kind(&all, "Service")["spec"]["selector"],
        ];
        if *file == EVERYTHING {
            let policy = of_kind(&all, "NetworkPolicy");
            let monitor = of_kind(&all, "PodMonitor");
            selectors.push(&policy["spec"]["podSelector"]["matchLabels"]);
            selectors.push(&monitor["spec"]["selector"]["matchLabels"]);
        }
        for selector in selectors {
            let selects = |pod: &Value| {
                let wanted = selector.as_object().expect("labels");
                let labels = &pod["metadata"]["labels"];
                !wanted.is_empty() && wanted.iter().all(|(label, value)| &labels[label] == value)
            };
            assert!(selects(pod(&all)), "{file}: {selector}");
            for other in kinds(&all, "Pod") {
                assert!(!selects(other), "{file}: {selector}");
            }
        }
    }
}

/// The launcher's requests are all in crates/launch/src/cluster/kubernetes.rs.
#[test]
fn each_namespace_of_runs_grants_exactly_the_requests_of_the_launcher() {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let want = json!([
        rule(
            "batch",
            "jobs",
            &["create", "get", "list", "watch", "delete"]
        ),
        rule("", "secrets", &["create", "get", "list", "delete"]),
        rule("", "pods", &["list", "watch"]),
        rule("", "pods/log", &["get"]),
        rule("", "events", &["list"]),
    ]);
    for file in [MINIMAL, EVERYTHING] {
        let all = documents(file);
        let settings = launch_file(&all);
        let (roles, bindings) = (kinds(&all, "Role"), kinds(&all, "RoleBinding"));
        let namespaces = |all: &[&Value]| -> Vec<String> {
            let names = all.iter().map(|it| &it["metadata"]["namespace"]);
            names
                .map(|name| name.as_str().expect("a name").to_owned())
                .collect()
        };
        assert_eq!(namespaces(&roles), settings.namespaces(), "{file}");
        assert_eq!(namespaces(&bindings), settings.namespaces(), "{file}");
        let account = of_kind(&all, "ServiceAccount");
        assert_eq!(account["automountServiceAccountToken"], false, "{file}");
        let spec = &pod(&all)["spec"];
        assert_eq!(spec["automountServiceAccountToken"], true, "{file}");
        assert_eq!(spec["serviceAccountName"], account["metadata"]["name"]);
        for (role, binding) in roles.iter().zip(bindings) {
            assert_eq!(role["rules"], want, "{file}");
            assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
            let metadata = &account["metadata"];
            let subject = json!([{"kind": "ServiceAccount", "name": metadata["name"],
                "namespace": metadata["namespace"]}]);
            assert_eq!(binding["subjects"], subject, "{file}");
        }
        assert!(kinds(&all, "ClusterRole").is_empty(), "{file}");
    }
    let requests = repository::read("crates/launch/src/cluster/kubernetes.rs");
    for other in [
        ".patch",
        ".replace",
        ".delete_collection",
        ".evict",
        ".entry(",
    ] {
        assert!(!requests.contains(other), "no Role grants {other}");
    }
}

#[test]
fn a_server_that_launches_nothing_has_no_rights() {
    let all = documents(WAITING);
    for kind in ["Role", "RoleBinding", "ServiceAccount", "ConfigMap", "Pod"] {
        assert!(kinds(&all, kind).is_empty(), "{kind}");
    }
    let spec = &pod(&all)["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(pod(&all)["metadata"]["annotations"], Value::Null);
}

/// The pods meet the restricted profile of the Pod Security Standards, and each mount has its
/// volume.
#[test]
fn every_pod_is_restricted_and_complete() {
    let mut found = 0;
    for file in ALL {
        let all = documents(file);
        let pods = kinds(&all, "Pod").into_iter().chain([pod(&all)]);
        for spec in pods.map(|pod| &pod["spec"]) {
            let of_pod = &spec["securityContext"];
            assert_eq!(of_pod["runAsNonRoot"], true, "{file}");
            assert!(of_pod["runAsUser"].as_u64() > Some(0), "{file}");
            assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault", "{file}");
            // The volume belongs to the user of the process.
            assert_eq!(of_pod["fsGroup"], of_pod["runAsGroup"], "{file}");
            for container in containers(spec) {
                assert_eq!(
                    container["securityContext"],
                    json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]}}),
                    "{file}"
                );
                assert!(container["resources"]["limits"]["memory"].is_string());
                for mount in items(&container["volumeMounts"]) {
                    named(
                        &spec["volumes"],
                        mount["name"].as_str().expect("a volume of the pod"),
                    );
                }
                found += 1;
            }
        }
    }
    assert_eq!(found, 4);
}

/// `helm test` sends a request that the service accepts, to the server's own address.
#[test]
fn the_test_creates_a_run() {
    let all = documents(EVERYTHING);
    let test = &of_kind(&all, "Pod")["spec"];
    let container = &test["containers"][0];
    let of = |name: &str| {
        let value = &named(&container["env"], name)["value"];
        value.as_str().expect("text").to_owned()
    };
    let run: CreateTaskRunRequest = serde_json::from_str(&of("RUN")).expect("a request");
    assert_eq!(run.problems(), Vec::<String>::new());
    let execution = run.execution.expect("an execution");
    assert_eq!(execution.command.as_deref(), Some("true"));
    assert_eq!(
        execution.image.expect("an image").name.as_deref(),
        container["image"].as_str()
    );
    let settings = launch_file(&all);
    assert_eq!(Some(of("URL")), settings.service_url);
    let timeout: u64 = of("TIMEOUT").parse().expect("seconds");
    assert!(test["activeDeadlineSeconds"].as_u64() > Some(timeout));
    let script = container["args"][0].as_str().expect("a script");
    let file = repository::read("deploy/helm/podbeat-server/files/test.sh");
    assert_eq!(script, file);
}

/// Both charts accept the same log filters. tests/deploy.rs compares those with podbeat's own.
#[test]
fn the_schemas_of_both_charts_accept_the_same_log_filters() {
    let pattern = |chart: &str| {
        let schema = repository::read(&format!("deploy/helm/{chart}/values.schema.json"));
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        schema["properties"]["settings"]["properties"]["log"].clone()
    };
    assert_eq!(pattern("podbeat-server"), pattern("podbeat"));
    assert!(pattern("podbeat")["pattern"].is_string());
}

/// Sends a run's last heartbeat with curl.
async fn end(url: &str, ca: &str, run: &str, exit_code: u8) {
    let body = json!({"lastHeartbeat": true, "containerStatus": [
        {"name": "main", "state": {"terminated": {"exitCode": exit_code}}}]});
    let sent = Command::new("curl")
        .args([
            "--silent",
            "--fail-with-body",
            "--max-time",
            "20",
            "--cacert",
            ca,
        ])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--header", "Content-Type: application/json"])
        .args(["--data", &body.to_string()])
        .arg(format!("{url}/v1/tasks/runs/{run}:heartbeat"))
        .output()
        .await
        .expect("curl is installed: see .ci/install packages");
    assert!(sent.status.success(), "{sent:?}");
}

/// The script passes if and only if its run completes, and says why it fails.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl: just proxy-test"]
async fn the_script_of_the_test_waits_for_its_run() {
    let world = world_with(Options::with_token(TOKEN)).await;
    let (url, ca) = (world.service.url(), text(world.path("ca.crt")));
    let all = documents(EVERYTHING);
    let container = &of_kind(&all, "Pod")["spec"]["containers"][0];
    let run = named(&container["env"], "RUN")["value"]
        .as_str()
        .expect("text");
    let script = container["args"][0].as_str().expect("a script");
    for (exit_code, token, seconds, reason) in [
        // The Secret was made from a file that ends with a newline.
        (Some(0), format!("{TOKEN}\n"), "60", None),
        (Some(3), TOKEN.to_owned(), "60", Some("the run is Failed")),
        (
            None,
            TOKEN.to_owned(),
            "0",
            Some("is not Completed after 0 s"),
        ),
        (
            None,
            "another".to_owned(),
            "60",
            Some("cannot create a run"),
        ),
    ] {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .envs([
                ("URL", &*url),
                ("RUN", run),
                ("TOKEN", &token),
                ("TIMEOUT", seconds),
            ])
            .env("CURL_CA_BUNDLE", &ca)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let ended = async {
            if let Some(exit_code) = exit_code {
                let line = lines.next_line().await.expect("output").expect("a line");
                let id = line.strip_prefix("created task run ").expect("an ID");
                end(&url, &ca, id, exit_code).await;
            }
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await.expect("output") {
                said.push(line);
            }
            (child.wait_with_output().await.expect("an end"), said)
        };
        let (ended, said) = timeout(LIMIT, ended).await.expect("in time");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.success(), reason.is_none(), "{said:?} {told}");
        assert!(told.contains(reason.unwrap_or_default()), "{told}");
        if exit_code == Some(0) {
            let last = said.last().expect("a line");
            assert!(last.ends_with(": Completed"), "{said:?}");
        }
    }
}
