//! Checks deploy/: each way to deploy puts the same container into the same kind of pod, with
//! settings that podbeat reads. `just e2e-deploy` tests what only Kubernetes can check.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use podbeat::cli::{self, Cli};
use podbeat::config::{Config, ExecConfig, ReapConfig, SETTINGS};
use podbeat::reap::Target;
use podbeat_heartbeat::observation::{Role, Sidecar};
use podbeat_interface::environment::Flags;
use podbeat_kubernetes::retries::COMPLETION_INDEX;
use podbeat_kubernetes::status;
use podbeat_kubernetes::tasks::{IGNORED_CONTAINERS, TASK_CONTAINERS};
use serde_json::{Value, json};

use crate::harness::repository;

const SHARED: &str = "manifests/podbeat.yaml";
const NATIVE: &str = "manifests/job-native-sidecar.yaml";
const PLAIN: &str = "manifests/job-plain-sidecar.yaml";
const MARKERS: &str = "manifests/job-with-exit-markers.yaml";
const REAP: &str = "manifests/reap.yaml";
const FLOW_SCHEMA: &str = "manifests/flowschema.yaml";
const COMPONENT: &str = "kustomize/component/sidecar.yaml";
const OVERLAY: &str = "kustomize/example/rendered.yaml";
const CHART: &str = "helm/podbeat/ci/example.rendered.yaml";
const CHART_PLAIN: &str = "helm/podbeat/ci/plain.rendered.yaml";
const CHART_EVERYTHING: &str = "helm/podbeat/ci/everything.rendered.yaml";

/// The variables that the library for connections reads.
const PROXIES: &[&str] = &["HTTPS_PROXY", "NO_PROXY"];

fn read(file: &str) -> String {
    repository::read(&format!("deploy/{file}"))
}

pub(crate) fn documents(file: &str) -> Vec<Value> {
    read(file)
        .split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{file}: {error}"))
        })
        .filter(|document: &Value| !document.is_null())
        .collect()
}

pub(crate) fn of_kind<'all>(all: &'all [Value], kind: &str) -> &'all Value {
    all.iter()
        .find(|document| document["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

/// The pod spec of a file's first Job.
fn pod_spec(file: &str) -> Value {
    of_kind(&documents(file), "Job")["spec"]["template"]["spec"].clone()
}

/// Every pod, or pod template of a Job, that contains podbeat.
fn pods(file: &str) -> Vec<Value> {
    let documents = documents(file);
    let pods = documents
        .iter()
        .filter_map(|document| match document["kind"].as_str() {
            Some("Job") => Some(&document["spec"]["template"]),
            Some("Pod") => Some(document),
            _ => None,
        });
    pods.filter(|pod| containers(&pod["spec"]).any(|container| container["name"] == "podbeat"))
        .cloned()
        .collect()
}

const WITH_PODS: &[&str] = &[
    NATIVE,
    PLAIN,
    MARKERS,
    OVERLAY,
    CHART,
    CHART_PLAIN,
    CHART_EVERYTHING,
];

pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(crate) fn named<'all>(list: &'all Value, name: &str) -> &'all Value {
    items(list)
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn words(list: &Value) -> Vec<OsString> {
    items(list)
        .map(|word| word.as_str().expect("text").into())
        .collect()
}

pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    items(&spec["initContainers"]).chain(items(&spec["containers"]))
}

fn podbeat(spec: &Value) -> &Value {
    containers(spec)
        .find(|container| container["name"] == "podbeat")
        .expect("podbeat's container")
}

/// The settings in podbeat's container: its variables, and those of the ConfigMap.
fn settings(container: &Value, config_map: &Value) -> BTreeMap<String, String> {
    assert_eq!(
        container["envFrom"][0]["configMapRef"]["name"],
        config_map["metadata"]["name"]
    );
    let shared = config_map["data"].as_object().expect("data");
    let mut settings: BTreeMap<_, _> = shared
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    settings.extend(items(&container["env"]).map(|variable| {
        let name = variable["name"].as_str().expect("a name").to_owned();
        let value = match variable["value"].as_str() {
            Some(value) => value,
            None if name == "JOB_COMPLETION_INDEX" => "3",
            None => "downward",
        };
        (name, value.to_owned())
    }));
    for name in settings.keys() {
        let is_setting = SETTINGS.iter().any(|setting| setting.variable == name);
        assert!(
            is_setting || PROXIES.contains(&name.as_str()),
            "{name} is a setting"
        );
    }
    settings.insert("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned());
    settings
}

#[test]
fn every_method_creates_the_same_container() {
    let native = pod_spec(NATIVE);
    let want = podbeat(&native);
    let overlay = documents(OVERLAY);
    let job = |name: &str| {
        let job = overlay
            .iter()
            .find(|document| document["kind"] == "Job" && document["metadata"]["name"] == name);
        job.expect("a Job")["spec"]["template"]["spec"].clone()
    };
    assert_eq!(
        items(&job("cleanup")["initContainers"]).count(),
        0,
        "left alone"
    );
    for (file, spec) in [
        (COMPONENT, pod_spec(COMPONENT)),
        (OVERLAY, job("report")),
        (OVERLAY, job("train")),
        (CHART, pod_spec(CHART)),
    ] {
        let mut container = podbeat(&spec).clone();
        assert_eq!(spec["initContainers"][0]["name"], "podbeat", "{file}");
        if let Some(policy) = container
            .as_object_mut()
            .and_then(|fields| fields.remove("imagePullPolicy"))
        {
            assert_eq!(policy, "IfNotPresent", "{file}: the default for a tag");
        }
        assert_eq!(&container, want, "{file}");
    }

    // A plain sidecar lacks the fields that regular containers do not have or need.
    let plain = pod_spec(PLAIN);
    assert_eq!(plain["containers"][0]["name"], "podbeat");
    let mut without = want.clone();
    let fields = without.as_object_mut().expect("a container");
    fields.remove("restartPolicy");
    fields.remove("startupProbe");
    assert_eq!(podbeat(&plain), &without);

    // Exit markers add a variable and a mount, and nothing else.
    let markers = pod_spec(MARKERS);
    let mut less = podbeat(&markers).clone();
    for (list, name) in [
        ("env", "PODBEAT_MARKER_DIR"),
        ("volumeMounts", "podbeat-markers"),
    ] {
        let list = less[list].as_array_mut().expect("a list");
        let before = list.len();
        list.retain(|item| item["name"] != name);
        assert_eq!(list.len(), before - 1);
    }
    assert_eq!(&less, want);
}

/// podbeat-server puts the same containers and volumes into the pods of runs.
#[test]
fn the_launchers_template_is_that_of_the_manifest() {
    let template = repository::read("crates/launch/src/podbeat.json");
    let template: Value = serde_json::from_str(&template).expect("JSON");
    let manifest = pod_spec(MARKERS);
    let want = json!({
        "initContainers": manifest["initContainers"],
        "volumes": manifest["volumes"],
    });
    assert_eq!(template, want);
}

/// The Job controller adds the index to podbeat's container itself, but not if podbeat is injected
/// into the Job's pods.
#[test]
fn every_podbeat_gets_the_index_of_its_pod() {
    let variable = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef":
        {"fieldPath": format!("metadata.annotations['{COMPLETION_INDEX}']")}}});
    for file in WITH_PODS {
        for pod in pods(file) {
            let env = &podbeat(&pod["spec"])["env"];
            assert_eq!(named(env, "JOB_COMPLETION_INDEX"), &variable, "{file}");
        }
    }
    let injected = read("admission/mutating.yaml");
    assert!(injected.contains(&format!(
        "fieldPath: \"metadata.annotations['{COMPLETION_INDEX}']\""
    )));
}

/// The chart's NetworkPolicy applies to podbeat, whichever way it came into a pod.
#[test]
fn every_pod_with_podbeat_is_selected_by_the_network_policy() {
    let everything = documents(CHART_EVERYTHING);
    let selector = &of_kind(&everything, "NetworkPolicy")["spec"]["podSelector"];
    let wanted = selector["matchLabels"].as_object().expect("labels");
    assert!(
        !wanted.is_empty()
            && selector
                .as_object()
                .is_some_and(|selector| selector.len() == 1)
    );
    let mut found = 0;
    for file in WITH_PODS {
        for pod in pods(file) {
            for (label, value) in wanted {
                assert_eq!(
                    &pod["metadata"]["labels"][label], value,
                    "{file}: {}",
                    pod["metadata"]
                );
            }
            found += 1;
        }
    }
    assert_eq!(found, 11);
    // A pod asks for injection with the same label.
    let policies = documents("admission/mutating.yaml");
    let policy = of_kind(&policies, "MutatingAdmissionPolicy");
    assert_eq!(
        &policy["spec"]["matchConstraints"]["objectSelector"],
        selector
    );
}

/// The policy volumes.podbeat.dev requires the same of other pods.
#[test]
fn podbeats_volumes_are_mounted_by_podbeat_alone() {
    for file in WITH_PODS {
        for pod in pods(file) {
            for container in containers(&pod["spec"]) {
                let of = format!("{file}: {}", container["name"]);
                for mount in items(&container["volumeMounts"]) {
                    let by = container["name"].as_str().expect("a name");
                    match mount["name"].as_str().expect("a name") {
                        "podbeat" | "podbeat-state" => assert_eq!(by, "podbeat", "{of}"),
                        "podbeat-bin" => {
                            assert_eq!(mount["readOnly"] == true, by != "podbeat-install", "{of}")
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

#[test]
fn every_method_creates_the_same_volumes() {
    let want = pod_spec(NATIVE)["volumes"].clone();
    assert_eq!(pod_spec(PLAIN)["volumes"], want);
    assert_eq!(pod_spec(COMPONENT)["volumes"], want);
    for volume in items(&want) {
        assert_eq!(
            named(
                &pod_spec(MARKERS)["volumes"],
                volume["name"].as_str().expect("a name")
            ),
            volume
        );
    }
    // The chart knows whether there is a CA; the others make it optional.
    let mut chart = pod_spec(CHART)["volumes"].clone();
    let sources = |volumes: &Value| {
        volumes[0]["projected"]["sources"]
            .as_array()
            .expect("sources")
            .len()
    };
    assert_eq!(sources(&chart), sources(&want) - 1);
    chart[0]["projected"]["sources"]
        .as_array_mut()
        .expect("sources")
        .push(
            json!({"configMap": {"name": "podbeat-ca", "optional": true, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        );
    assert_eq!(chart, want);
}

#[test]
fn the_settings_are_right_and_their_directories_are_mounted() {
    let shared = documents(SHARED);
    for (file, config_map) in [
        (NATIVE, of_kind(&shared, "ConfigMap").clone()),
        (PLAIN, of_kind(&shared, "ConfigMap").clone()),
        (MARKERS, of_kind(&shared, "ConfigMap").clone()),
        (CHART, of_kind(&documents(CHART), "ConfigMap").clone()),
        (
            CHART_PLAIN,
            of_kind(&documents(CHART_PLAIN), "ConfigMap").clone(),
        ),
        (
            CHART_EVERYTHING,
            documents(CHART_EVERYTHING)
                .into_iter()
                .find(|document| {
                    document["kind"] == "ConfigMap" && document["metadata"]["name"] == "podbeat"
                })
                .expect("settings"),
        ),
    ] {
        let spec = pod_spec(file);
        let container = podbeat(&spec);
        let settings = settings(container, &config_map);
        let config = Config::load(&Flags::default(), &settings)
            .unwrap_or_else(|errors| panic!("{file}: the settings are wrong: {errors}"));
        let mounted = |path: &Path| {
            items(&container["volumeMounts"])
                .find(|mount| path.starts_with(mount["mountPath"].as_str().expect("a path")))
        };
        for path in [
            &config.ca_file,
            &config.client_cert_file,
            &config.client_key_file,
        ]
        .into_iter()
        .flatten()
        {
            assert_eq!(
                mounted(path).expect("mounted")["readOnly"],
                true,
                "{file}: {}",
                path.display()
            );
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a name");
            assert!(
                items(&named(&spec["volumes"], "podbeat")["projected"]["sources"])
                    .flat_map(|source| [&source["secret"]["items"], &source["configMap"]["items"]])
                    .flat_map(items)
                    .any(|item| item["path"] == name),
                "{file}: {name} is in the volume"
            );
        }
        let state = config.state_dir.expect("set");
        assert_eq!(
            mounted(&state).expect("mounted")["name"],
            "podbeat-state",
            "{file}"
        );
        // In podbeat's own image, /podbeat is the binary, so nothing may be mounted there.
        assert!(items(&container["volumeMounts"]).all(|mount| mount["mountPath"] != "/podbeat"));
    }
}

#[test]
fn podbeat_recognizes_the_kind_of_each_pod() {
    for (file, sidecar, tasks) in [
        (NATIVE, Sidecar::Native, [("main", Role::Task)].as_slice()),
        (PLAIN, Sidecar::Plain, &[("main", Role::Task)]),
        (
            MARKERS,
            Sidecar::Native,
            &[("podbeat-install", Role::Init), ("main", Role::Task)],
        ),
        (CHART, Sidecar::Native, &[("main", Role::Task)]),
        (
            CHART_PLAIN,
            Sidecar::Plain,
            &[("podbeat-install", Role::Init), ("main", Role::Task)],
        ),
    ] {
        let pod =
            serde_json::from_value(json!({"metadata": {"uid": "u1"}, "spec": pod_spec(file)}));
        let seen = status::observe(&pod.expect("a pod"), "podbeat");
        assert_eq!(seen.sidecar, sidecar, "{file}");
        let roles: Vec<_> = seen
            .containers
            .iter()
            .map(|container| (container.name.as_str(), container.role))
            .collect();
        assert_eq!(roles, tasks, "{file}");
    }
}

#[test]
fn the_cron_job_reaps_with_the_pods_own_settings_and_volume() {
    let documents_of_reap = documents(REAP);
    let pod =
        of_kind(&documents_of_reap, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            .clone();
    let native = pod_spec(NATIVE);
    let container = named(&pod["containers"], "reap");
    let arguments = [vec!["podbeat".into()], words(&container["args"])].concat();
    let Ok(Cli::Reap { flags, invocation }) = cli::parse(arguments) else {
        panic!("it reaps");
    };
    let all = Target::Pods {
        everywhere: false,
        labels: None,
    };
    assert!(invocation.target == all && !invocation.dry_run);
    let settings = settings(container, of_kind(&documents(SHARED), "ConfigMap"));
    ReapConfig::load(&flags, &settings)
        .unwrap_or_else(|errors| panic!("the settings are wrong: {errors}"));

    // The same files in the same places, with the same restrictions.
    assert_eq!(
        named(&pod["volumes"], "podbeat"),
        named(&native["volumes"], "podbeat")
    );
    let mount = named(&podbeat(&native)["volumeMounts"], "podbeat");
    assert_eq!(&container["volumeMounts"], &json!([mount]));
    assert_eq!(
        container["securityContext"],
        podbeat(&native)["securityContext"]
    );
    assert_eq!(container["image"], podbeat(&native)["image"]);

    // The Role allows exactly what podbeat needs.
    let role = of_kind(&documents_of_reap, "Role");
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    );
    assert_eq!(
        pod["serviceAccountName"],
        of_kind(&documents_of_reap, "ServiceAccount")["metadata"]["name"]
    );
}

/// The object without the labels that Helm and the chart's values add.
fn without_labels(object: &Value) -> Value {
    let mut object = object.clone();
    for path in ["/metadata", "/spec/jobTemplate/spec/template/metadata"] {
        if let Some(metadata) = object.pointer_mut(path).and_then(Value::as_object_mut) {
            metadata.remove("labels");
        }
    }
    object
}

#[test]
fn the_charts_cron_job_is_that_of_the_manifest() {
    let (chart, manifest) = (documents(CHART_EVERYTHING), documents(REAP));
    for object in &manifest {
        let is = |other: &&Value| {
            other["kind"] == object["kind"]
                && other["metadata"]["name"] == object["metadata"]["name"]
        };
        let mut made = without_labels(chart.iter().find(is).expect("the chart makes it"));
        let mut want = without_labels(object);
        if let Some(fields) = made.as_object_mut() {
            fields.remove("imagePullSecrets");
        }
        let spec = "/spec/jobTemplate/spec/template/spec";
        if let Some(pod) = made.pointer_mut(spec) {
            let container = &mut pod["containers"][0];
            container
                .as_object_mut()
                .expect("a container")
                .remove("imagePullPolicy");
            let env = container["env"].as_array_mut().expect("a list");
            assert_eq!(env.pop().expect("one more")["name"], "NO_PROXY");
            // The values name another CA.
            pod["volumes"][0]["projected"]["sources"]
                .as_array_mut()
                .expect("a list")
                .pop();
            let want = want.pointer_mut(spec).expect("a pod");
            want["volumes"][0]["projected"]["sources"]
                .as_array_mut()
                .expect("a list")
                .pop();
        }
        assert_eq!(made, want);
    }
}

#[test]
fn the_charts_flow_schema_is_that_of_the_manifest() {
    let (chart, manifest) = (documents(CHART_EVERYTHING), documents(FLOW_SCHEMA));
    let level = |all: &[Value]| without_labels(of_kind(all, "PriorityLevelConfiguration"));
    assert_eq!(level(&chart), level(&manifest));
    let (mut made, mut want) = (
        without_labels(of_kind(&chart, "FlowSchema")),
        without_labels(of_kind(&manifest, "FlowSchema")),
    );
    let subjects = made["spec"]["rules"][0]["subjects"].take();
    want["spec"]["rules"][0]["subjects"].take();
    assert_eq!(made, want);
    // The values name all accounts of one namespace, and an account of another one.
    let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
    assert_eq!(
        subjects,
        json!([account("tasks", "*"), account("other-tasks", "podbeat")])
    );
}

/// The schema of the chart's values accepts exactly the log filters that podbeat accepts.
#[test]
fn the_schema_and_podbeat_accept_the_same_log_filters() {
    let schema: Value =
        serde_json::from_str(&read("helm/podbeat/values.schema.json")).expect("JSON");
    let schema = &schema["properties"]["settings"]["properties"]["log"];
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let is_taken = |filter: &str| {
        let settings: BTreeMap<String, String> = [
            ("TASK_RUN_ID", "r"),
            ("POD_NAME", "p"),
            ("PODBEAT_DRY_RUN", "true"),
            ("PODBEAT_LOG", filter),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        Config::load(&Flags::default(), &settings).is_ok()
    };
    let parts = [
        "",
        " ",
        "error",
        "warn",
        "info",
        "debug",
        "trace",
        "off",
        "INFO",
        "Off",
        "loud",
        "warning",
        "err",
        "3",
        "info ",
        " info",
        "i nfo",
        "podbeat::agent=debug",
        "podbeat=",
        "=info",
        "a=b=info",
        "podbeat=5",
        "hyper-util=off",
        "a.b_c=TRACE",
        "podbeat[{x}]=info",
        "podbeat =info",
        "podbeat= info",
        "p\u{f6}=info",
        "info\n",
        "\tinfo",
    ];
    let mut taken = 0;
    for one in parts {
        for other in parts {
            for filter in [
                one.to_owned(),
                format!("{one},{other}"),
                format!("{one} , {other},info"),
            ] {
                let by_schema = validator.is_valid(&json!(filter));
                assert_eq!(by_schema, is_taken(&filter), "{filter:?}");
                taken += usize::from(by_schema);
            }
        }
    }
    assert!(taken > 100, "{taken}");
}

#[test]
fn the_exit_markers_fit_together() {
    let shared = documents(SHARED);
    for file in [MARKERS, CHART_EVERYTHING] {
        let spec = pod_spec(file);
        let config_map = match file {
            MARKERS => of_kind(&shared, "ConfigMap").clone(),
            _ => documents(file)
                .into_iter()
                .find(|document| {
                    document["kind"] == "ConfigMap" && document["metadata"]["name"] == "podbeat"
                })
                .expect("settings"),
        };
        let settings = settings(podbeat(&spec), &config_map);
        let config = Config::load(&Flags::default(), &settings).expect("right settings");
        let markers = config.marker_dir.expect("set");
        let mount = named(&podbeat(&spec)["volumeMounts"], "podbeat-markers");
        assert_eq!(mount["mountPath"].as_str(), markers.to_str());
        assert_eq!(mount["readOnly"], true, "podbeat only reads them");

        // The init container after podbeat copies the binary to where the task runs it.
        let install = &spec["initContainers"][1];
        let arguments = [vec!["podbeat".into()], words(&install["args"])].concat();
        let Ok(Cli::Install(to)) = cli::parse(arguments) else {
            panic!("it installs");
        };
        let mount = named(&install["volumeMounts"], "podbeat-bin");
        assert_eq!(mount["mountPath"].as_str(), to.to_str());
        assert_ne!(
            mount["mountPath"], "/podbeat",
            "there the image has its binary"
        );
        let main = named(&spec["containers"], "main");
        let mut command = [words(&main["command"]), words(&main["args"])].concat();
        let mount = named(&main["volumeMounts"], "podbeat-bin");
        let run = Path::new(mount["mountPath"].as_str().expect("a path")).join("podbeat");
        assert_eq!(command[0], run.as_os_str());

        // The wrapper names its container, and writes its marker where podbeat reads it.
        command[0] = "podbeat".into();
        let Ok(Cli::Exec { flags, command }) = cli::parse(command) else {
            panic!("it wraps");
        };
        let exec = ExecConfig::load(&flags, &BTreeMap::new()).expect("right settings");
        assert_eq!(
            (Some(exec.container_name.as_str()), &exec.marker_dir),
            (main["name"].as_str(), &markers)
        );
        let mount = named(&main["volumeMounts"], "podbeat-markers");
        assert_eq!(
            (mount["mountPath"].as_str(), &mount["readOnly"]),
            (markers.to_str(), &Value::Null)
        );
        assert_eq!(command[0], "sh");
    }
}

/// Each container itself meets the restricted profile of Kubernetes' pod security standards, and
/// each mount has its volume.
#[test]
fn every_pod_is_restricted_and_complete() {
    for file in WITH_PODS {
        for document in documents(file) {
            let spec = match document["kind"].as_str() {
                Some("Job") => &document["spec"]["template"]["spec"],
                Some("Pod") => &document["spec"],
                _ => continue,
            };
            for container in containers(spec) {
                let of = format!("{file}: {}", container["name"]);
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{of}");
                assert_eq!(context["runAsNonRoot"], true, "{of}");
                assert!(context["runAsUser"].as_u64().expect("a number") > 0, "{of}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{of}");
                assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{of}");
                for mount in items(&container["volumeMounts"]) {
                    assert!(
                        items(&spec["volumes"]).any(|volume| volume["name"] == mount["name"]),
                        "{of}: {mount}"
                    );
                }
            }
            let own = containers(spec).filter(|container| {
                container["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("podbeat"))
            });
            for container in own {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{file}"
                );
            }
        }
    }
}

#[test]
fn the_rights_are_the_least_and_the_same() {
    for file in [
        SHARED,
        "kustomize/component/rbac.yaml",
        CHART,
        CHART_EVERYTHING,
    ] {
        let all = documents(file);
        assert_eq!(
            of_kind(&all, "Role")["rules"],
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]),
            "{file}"
        );
        assert_eq!(
            of_kind(&all, "RoleBinding")["roleRef"]["name"],
            of_kind(&all, "Role")["metadata"]["name"]
        );
        assert!(
            all.iter().all(|document| document["kind"] != "ClusterRole"),
            "{file}"
        );
    }
    let shared = documents(SHARED);
    for file in [NATIVE, PLAIN, MARKERS] {
        let spec = pod_spec(file);
        assert_eq!(
            of_kind(&shared, "ServiceAccount")["metadata"]["name"],
            spec["serviceAccountName"]
        );
        let token =
            &named(&spec["volumes"], "podbeat")["projected"]["sources"][0]["secret"]["name"];
        assert_eq!(&of_kind(&shared, "Secret")["metadata"]["name"], token);
    }
}

/// podbeat's priority level in the API server is for exactly the requests that its Role allows,
/// from its service account.
#[test]
fn the_flow_schema_matches_the_requests_of_the_role() {
    let (all, shared) = (documents(FLOW_SCHEMA), documents(SHARED));
    assert_eq!(all.len(), 2);
    let level = of_kind(&all, "PriorityLevelConfiguration");
    let schema = of_kind(&all, "FlowSchema");
    for object in [level, schema] {
        assert_eq!(object["apiVersion"], "flowcontrol.apiserver.k8s.io/v1");
    }
    let spec = &schema["spec"];
    assert_eq!(
        spec["priorityLevelConfiguration"]["name"],
        level["metadata"]["name"]
    );
    assert_eq!(spec["distinguisherMethod"]["type"], "ByUser");
    // Built in: kube-system-service-accounts has 900, service-accounts 9000. The lower number has
    // priority.
    let precedence = spec["matchingPrecedence"].as_u64().expect("a number");
    assert!((901..9000).contains(&precedence));

    let account = &of_kind(&shared, "ServiceAccount")["metadata"];
    let subject = json!({"kind": "ServiceAccount",
        "serviceAccount": {"namespace": account["namespace"], "name": account["name"]}});
    let mut rule = of_kind(&shared, "Role")["rules"][0].clone();
    rule["namespaces"] = json!(["*"]);
    assert_eq!(
        spec["rules"],
        json!([{"subjects": [subject], "resourceRules": [rule]}])
    );

    let limited = &level["spec"]["limited"];
    assert_eq!(level["spec"]["type"], "Limited");
    let queuing = &limited["limitResponse"]["queuing"];
    assert_eq!(limited["limitResponse"]["type"], "Queue");
    let number = |value: &Value| value.as_u64().expect("a number");
    let (queues, worker) = (number(&queuing["queues"]), number(&queuing["handSize"]));
    assert!(worker < queues, "flows are dealt hands of queues");
    // The figures in the manifest's comment.
    assert_eq!(worker * number(&queuing["queueLengthLimit"]), 800);
    let text = read(FLOW_SCHEMA);
    let shares = number(&limited["nominalConcurrencyShares"]);
    let seats = 600 * shares / (245 + shares);
    assert!(
        text.contains(&format!("{seats} of the 600")),
        "{seats} seats"
    );
}

/// The annotations that the policies know are settings, and docs/operations.md lists them. The
/// mutating policy turns them into variables, except those that podbeat reads from its pod.
#[test]
fn the_annotations_are_settings() {
    let policy = read("admission/validating.yaml");
    let known = policy
        .split_once("- name: known")
        .and_then(|(_, rest)| rest.split_once('['))
        .and_then(|(_, rest)| rest.split_once(']'))
        .expect("the list")
        .0;
    let known: BTreeSet<&str> = known
        .split(',')
        .map(|word| word.trim().trim_matches('"'))
        .collect();
    let page = include_str!("../docs/operations.md");
    for name in &known {
        assert!(
            page.contains(&format!("`podbeat.dev/{name}`")),
            "docs/operations.md describes {name}"
        );
        let variable = match *name {
            "task-run-id" | "job-retry-count" => name.to_uppercase().replace('-', "_"),
            "token-secret" => "PODBEAT_TOKEN_FILE".to_owned(),
            "nonce-secret" => "PODBEAT_NONCE_FILE".to_owned(),
            "exit-markers" => "PODBEAT_MARKER_DIR".to_owned(),
            other => format!("PODBEAT_{}", other.to_uppercase().replace('-', "_")),
        };
        assert!(
            SETTINGS.iter().any(|setting| setting.variable == variable),
            "{variable} is a setting"
        );
        let read_from_the_pod =
            [TASK_CONTAINERS, IGNORED_CONTAINERS].contains(&format!("podbeat.dev/{name}").as_str());
        let mutating = read("admission/mutating.yaml");
        assert!(
            read_from_the_pod
                || mutating.contains(&format!("\"{name}\""))
                || mutating.contains(&format!("podbeat.dev/{name}")),
            "the policy reads {name}"
        );
    }
}

#[test]
fn the_chart_has_the_version_of_the_package() {
    let chart: Value = serde_saphyr::from_str(&read("helm/podbeat/Chart.yaml")).expect("YAML");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    let of_server: Value =
        serde_saphyr::from_str(&read("helm/podbeat-server/Chart.yaml")).expect("YAML");
    for member in ["version", "appVersion"] {
        assert_eq!(of_server[member], chart[member], "both have one version");
    }
}
