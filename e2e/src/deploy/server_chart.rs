//! Checks of the chart podbeat-server that need no cluster.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::statics::{CHARTS, Desk, deploy, objects, refuses, values_of};
use crate::scenarios::play::expect;
use crate::{Error, ours};

/// The required values only.
const LEAST: &str = "tls.secretName=podbeat-server-tls";

/// Values that the chart must refuse, as helm's flags, and what the refusal must name.
const REFUSED: &[(&[&str], &str)] = &[
    (&[], "tls.secretName is missing"),
    (
        &["--set", LEAST, "--set", "image.repository="],
        "'/image/repository'",
    ),
    (
        &["--set", LEAST, "--set", "launch.podbeat.image.repository="],
        "'/launch/podbeat/image/repository'",
    ),
    (
        &["--set", LEAST, "--set", "url=http://podbeat.example.com"],
        "url is http",
    ),
    (
        &["--set", LEAST, "--set", "url=podbeat.example.com"],
        "'/url'",
    ),
    (
        &["--set", LEAST, "--kube-version", "1.28"],
        "has no native sidecars",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "launch.enabled=false,test.tokenSecret.name=token",
        ],
        "the test needs launch.enabled",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "extraEnv[0].name=PODBEAT_SERVER_DATA,extraEnv[0].value=x",
        ],
        "extraEnv names PODBEAT_SERVER_DATA",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "launch.retries.maxBackoffSeconds=1",
        ],
        "launch.retries.maxBackoffSeconds is less",
    ),
    (
        &["--set", LEAST, "--set", "launch.namespace=Tasks"],
        "'/launch/namespace'",
    ),
    (
        &["--set", LEAST, "--set", "launch.tenants.a.namespce=b"],
        "'namespce' not allowed",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "launch.resources.sizes.large.resources.cpu=4",
        ],
        "'/launch/resources/sizes/large/resources/cpu'",
    ),
    (
        &["--set", LEAST, "--set", "launch.ttlSecondsAfterFinished=60"],
        "'/launch/ttlSecondsAfterFinished'",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "launch.retries.finalExitCodes={256}",
        ],
        "'/launch/retries/finalExitCodes/0'",
    ),
    (
        &["--set", LEAST, "--set", "launch.limits.createBurst=0"],
        "'/launch/limits/createBurst'",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "persistence.accessModes={ReadWriteMany}",
        ],
        "'/persistence/accessModes/0'",
    ),
    (
        &["--set", LEAST, "--set", "settings.retention=soon"],
        "'/settings/retention'",
    ),
    (
        &["--set", LEAST, "--set", "settings.liveRuns=0"],
        "'/settings/liveRuns'",
    ),
    (
        &["--set", LEAST, "--set", "service.type=ExternalName"],
        "'/service/type'",
    ),
    // The port of the API.
    (
        &["--set", LEAST, "--set", "admin.port=8443"],
        "'/admin/port'",
    ),
    (
        &["--set", LEAST, "--set", "image.digest=sha256:12"],
        "'/image/digest'",
    ),
    (
        &["--set", LEAST, "--set", "replicas=2"],
        "'replicas' not allowed",
    ),
];

/// Values that the chart must accept.
const TAKEN: &[&[&str]] = &[
    &[],
    &["--kube-version", "1.29.0-gke.1"],
    &["--kube-version", "1.28", "--set", "launch.enabled=false"],
    &[
        "--set",
        "tls.secretName=,allowHttp=true,url=http://podbeat.example.com",
    ],
    &["--set", "url=https://podbeat.example.com/ica/"],
    &["--set", "launch.tenants.a.queue=b"],
    &[
        "--set-string",
        "launch.resources.sizes.large.resources.cpu=4",
    ],
    &["--set", "launch.pending.unschedulableSeconds=60"],
];

fn chart() -> String {
    deploy("helm/podbeat-server").display().to_string()
}

/// The chart refuses wrong values, and names them.
pub(super) async fn schema(desk: &Desk) -> Result<Vec<String>, Error> {
    refuses(desk, &chart(), LEAST, TAKEN, REFUSED).await
}

/// The objects with the required values and these ones.
async fn made(desk: &Desk, set: &str) -> Result<Vec<Value>, Error> {
    let flags = ["--set", LEAST, "--set", set];
    objects(&desk.rendered(&chart(), &flags).await?)
}

/// The texts at a place in all objects of a kind.
fn texts(objects: &[Value], kind: &str, pointer: &str) -> Vec<String> {
    objects
        .iter()
        .filter(|object| object.get("kind") == Some(&json!(kind)))
        .filter_map(|object| Some(object.pointer(pointer)?.as_str()?.to_owned()))
        .collect()
}

fn server_url(objects: &[Value]) -> Option<&str> {
    let deployment = objects
        .iter()
        .find(|object| object.get("kind") == Some(&json!("Deployment")))?;
    let env = deployment.pointer("/spec/template/spec/containers/0/env")?;
    let url = env
        .as_array()?
        .iter()
        .find(|variable| variable.get("name") == Some(&json!("PODBEAT_SERVER_URL")))?;
    url.get("value")?.as_str()
}

const CHECKSUM: &str = "/spec/template/metadata/annotations/checksum~1launch";

/// What follows from the values: where the Roles are, the URL, when the pod is replaced, and where
/// the alerts link to.
pub(super) async fn values(desk: &Desk) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    let set = "launch.namespace=shared,launch.tenants.a.namespace=own,\
               launch.tenants.b.namespace=own,launch.tenants.c.namespace=shared";
    let roles = texts(&made(desk, set).await?, "Role", "/metadata/namespace");
    expect(roles == ["shared", "own"], || {
        format!("expected one Role in each namespace of {set}: {roles:?}")
    })?;
    said.push(format!("Roles in {roles:?}"));

    for (set, expected) in [
        ("url=", "https://podbeat-podbeat-server.tasks.svc"),
        (
            "service.port=8443",
            "https://podbeat-podbeat-server.tasks.svc:8443",
        ),
        (
            "tls.secretName=,allowHttp=true",
            "http://podbeat-podbeat-server.tasks.svc",
        ),
        ("fullnameOverride=runs", "https://runs.tasks.svc"),
        (
            "url=https://podbeat.example.com",
            "https://podbeat.example.com",
        ),
    ] {
        let objects = made(desk, set).await?;
        expect(server_url(&objects) == Some(expected), || {
            format!("expected {expected} with {set}: {:?}", server_url(&objects))
        })?;
        said.push(format!("{set}: the server's URL is {expected}"));
    }
    // The path of the URL is also below the address in the cluster.
    let objects = made(desk, "url=https://podbeat.example.com/ica/").await?;
    let launch = texts(&objects, "ConfigMap", "/data/launch.json").join("");
    let launch: Value = serde_json::from_str(&launch).map_err(ours("reading the launch file"))?;
    let expected = json!("https://podbeat-podbeat-server.tasks.svc/ica");
    expect(launch.get("serviceUrl") == Some(&expected), || {
        format!("expected {expected} as serviceUrl: {launch}")
    })?;
    said.push(format!("podbeat reaches the server at {expected}"));

    let sum = async |set: &str| -> Result<Vec<String>, Error> {
        Ok(texts(&made(desk, set).await?, "Deployment", CHECKSUM))
    };
    let (usual, same) = (sum("url=").await?, sum("commonLabels.a=b").await?);
    let changed = sum("launch.limits.attempts=9").await?;
    expect(
        usual.len() == 1 && usual == same && usual != changed,
        || {
            format!(
                "expected a new checksum only with a new launch file: {usual:?}, {same:?}, {changed:?}"
            )
        },
    )?;
    said.push("another launch file makes a new pod".to_owned());

    let admin = |objects: &[Value]| {
        let ports = objects
            .iter()
            .find(|object| object.get("kind") == Some(&json!("Service")));
        ports.is_some_and(|service| service.to_string().contains("\"admin\""))
    };
    let inside = admin(&made(desk, "service.type=ClusterIP").await?);
    let outside = admin(&made(desk, "service.type=LoadBalancer").await?);
    expect(inside && !outside, || {
        "expected the admin port only inside the cluster".to_owned()
    })?;
    said.push("a load balancer has no admin port".to_owned());

    let url = "https://wiki.example.com/server";
    let set = format!("prometheusRule.enabled=true,prometheusRule.runbookUrl={url}");
    let rules = desk
        .rendered(&chart(), &["--set", LEAST, "--set", &set])
        .await?;
    let urls: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .collect();
    let is_right = |found: &&str| found.starts_with(&format!("{url}#podbeatserver"));
    expect(urls.len() > 5 && urls.iter().all(is_right), || {
        format!("expected links of the alerts to {url}: {urls:?}")
    })?;
    said.push(format!("{} alerts link to {url}", urls.len()));
    Ok(said)
}

/// Reads an object as its type and writes it again. Unknown members are missing then.
fn again<K: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<K>(object.clone())?)
}

/// The object as Kubernetes' types have it. `None` for a kind of another project, or a policy, which
/// only an API server can check.
fn typed(object: &Value) -> Option<Result<Value, serde_json::Error>> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
    Some(match kind {
        "ConfigMap" => again::<ConfigMap>(object),
        "CronJob" => again::<CronJob>(object),
        "Deployment" => again::<Deployment>(object),
        "FlowSchema" => again::<FlowSchema>(object),
        "Job" => again::<Job>(object),
        "NetworkPolicy" => again::<NetworkPolicy>(object),
        "PersistentVolumeClaim" => again::<PersistentVolumeClaim>(object),
        "Pod" => again::<Pod>(object),
        "PriorityLevelConfiguration" => again::<PriorityLevelConfiguration>(object),
        "Role" => again::<Role>(object),
        "RoleBinding" => again::<RoleBinding>(object),
        "Service" => again::<Service>(object),
        "ServiceAccount" => again::<ServiceAccount>(object),
        _ => return None,
    })
}

/// The places in an object that are not in another one, or differ there.
fn missing(object: &Value, other: &Value, at: &str) -> Vec<String> {
    match (object, other) {
        (Value::Object(members), Value::Object(others)) => members
            .iter()
            .flat_map(|(name, member)| {
                let other = others.get(name).unwrap_or(&Value::Null);
                missing(member, other, &format!("{at}/{name}"))
            })
            .collect(),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => items
            .iter()
            .zip(others)
            .enumerate()
            .flat_map(|(number, (item, other))| missing(item, other, &format!("{at}/{number}")))
            .collect(),
        _ if object == other => Vec::new(),
        _ => vec![at.to_owned()],
    }
}

/// Every object of both charts has only members of its type, with values of the right type.
pub(super) async fn objects_of_charts(desk: &Desk) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for name in CHARTS {
        let chart = deploy(&format!("helm/{name}")).display().to_string();
        for values in values_of(name)? {
            let path = values.display().to_string();
            let all = objects(&desk.rendered(&chart, &["--values", &path]).await?)?;
            let mut checked = 0;
            for object in &all {
                let Some(read) = typed(object) else { continue };
                let read = read.map_err(ours(format!("reading {object:#}")))?;
                let wrong = missing(object, &read, "");
                expect(wrong.is_empty(), || {
                    format!("Kubernetes does not know {wrong:?} of {object:#}")
                })?;
                checked += 1;
            }
            said.push(format!(
                "{name} with {}: {checked} of {} objects are right",
                values.file_name().unwrap_or_default().display(),
                all.len()
            ));
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_found() {
        let service = |member: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                "spec": {"ports": [{"port": 1, member: "b"}]}})
        };
        let wrong = |member: &str| {
            let service = service(member);
            let read = typed(&service).expect("known").expect("right");
            missing(&service, &read, "")
        };
        assert_eq!(wrong("name"), Vec::<String>::new());
        assert_eq!(wrong("nme"), ["/spec/ports/0/nme"]);
    }
}
