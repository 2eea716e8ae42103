//! The life of a release: installed, tested, upgraded, rolled back, uninstalled, and nothing of it
//! left.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::site::{CA_CONFIG_MAP, Site};
use super::statics::copy_parent;
use crate::Error;
use crate::node::images::{PODBEAT, TASK};
use crate::runner::repository;
use crate::scenarios::play::expect;

/// Kinds whose objects Kubernetes itself creates over time, and one that is only a view.
const NOBODYS: &[&str] = &[
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "componentstatuses",
];

/// Objects that Kubernetes creates in every namespace, at some time.
const OF_EVERY_NAMESPACE: &[&str] = &["configmap/kube-root-ca.crt", "serviceaccount/default"];

/// Cluster-scoped kinds whose objects others create and delete. Other sites have their own
/// namespaces, and the API server creates an APIService for each defined kind, a moment later.
const OF_OTHERS: &[&str] = &["namespaces", "apiservices.apiregistration.k8s.io"];

/// The API group of the policies, which only one site creates.
pub(super) const POLICIES: &str = "admissionregistration.k8s.io";

/// The chart's path.
pub(super) fn chart() -> String {
    repository()
        .join("deploy/helm/podbeat")
        .display()
        .to_string()
}

/// podbeat's image as values.
pub(super) fn image() -> String {
    let (repository, tag) = PODBEAT.rsplit_once(':').unwrap_or((PODBEAT, "latest"));
    format!("image.repository={repository},image.tag={tag}")
}

fn values(site: &Site) -> Value {
    let (repository, tag) = PODBEAT.rsplit_once(':').unwrap_or((PODBEAT, "latest"));
    json!({
        "image": {"repository": repository, "tag": tag},
        "service": {"url": site.play.service.url(), "ca": {"configMap": CA_CONFIG_MAP}},
        "settings": {"interval": "2s"},
        "sidecar": {"livenessProbe": true},
        "rbac": {"allServiceAccounts": true},
        "example": {"enabled": true, "taskRunId": "trn.example-1", "image": TASK,
                    "command": ["sh", "-c", "echo working; sleep 15; exit 0"]},
        "networkPolicy": {"enabled": true, "egress": {"enabled": true}},
        "podMonitor": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "dashboard": {"enabled": true},
        "test": {"taskRunId": "trn.test"},
        "commonLabels": {"team": "platform"},
    })
}

/// The names of all objects in the namespace and of all cluster-scoped objects, except those that
/// others create meanwhile.
pub(super) async fn objects(site: &Site, but: &[&str]) -> Result<BTreeSet<String>, Error> {
    let mut all = BTreeSet::new();
    for namespaced in ["--namespaced=true", "--namespaced=false"] {
        let kinds = site
            .quietly(&["api-resources", "--verbs=list", "--output=name", namespaced])
            .await?;
        let skipped = |kind: &&str| {
            !NOBODYS.contains(kind)
                && !OF_OTHERS.contains(kind)
                && !but.iter().any(|other| kind.ends_with(other))
        };
        let kinds: Vec<&str> = kinds.lines().filter(skipped).collect();
        expect(kinds.len() > 10, || format!("few kinds: {kinds:?}"))?;
        let found = site
            .quietly(&["get", &kinds.join(","), "--output=name"])
            .await?;
        all.extend(found.lines().map(str::to_owned));
    }
    for name in OF_EVERY_NAMESPACE {
        all.remove(*name);
    }
    Ok(all)
}

/// Waits until the objects are the same as before.
pub(super) async fn nothing_is_left(
    site: &Site,
    but: &[&str],
    before: &BTreeSet<String>,
) -> Result<(), Error> {
    site.until(
        "the same objects as before",
        async || {
            let now = objects(site, but).await?;
            Ok(now
                .symmetric_difference(before)
                .cloned()
                .collect::<Vec<String>>())
        },
        Vec::is_empty,
    )
    .await?;
    site.say(&format!(
        "nothing remains: the same {} objects as before, of all kinds that the API server lists",
        before.len()
    ));
    Ok(())
}

async fn interval(site: &Site) -> Result<String, Error> {
    let path = "jsonpath={.data.PODBEAT_INTERVAL}";
    site.quietly(&["get", "configmap", "podbeat", "--output", path])
        .await
}

/// A release with everything except the policies.
pub(super) async fn release(site: &Site) -> Result<(), Error> {
    let (chart, but) = (chart(), [POLICIES]);
    let before = objects(site, &but).await?;
    let file = site.file("values.json", &values(site).to_string())?;
    let values = ["--values", file.as_str()];
    let wait = ["--wait", "--timeout", "90s"];
    let with = |first: &[&'static str], more: &[&'static str]| -> Vec<String> {
        let all = first
            .iter()
            .copied()
            .chain([chart.as_str()])
            .chain(values)
            .chain(wait);
        all.chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let helm = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        site.helm(&arguments).await?.well()
    };
    helm(with(&["install", "podbeat"], &[])).await?;
    let made = objects(site, &but).await?;
    let new: Vec<&String> = made.difference(&before).collect();
    site.say(&format!("the release created {new:?}"));
    expect(new.len() > 8, || {
        format!("expected all objects of the release: {new:?}")
    })?;
    let pod = site.pod_of("podbeat-example-1").await?;
    site.to_the_end(&pod, 0).await?;
    site.play
        .until_job_is("podbeat-example-1", "Complete")
        .await?;

    // Without its right podbeat can't see the end of its pod, so `helm test` must fail.
    site.kubectl(&["delete", "rolebinding", "podbeat"])
        .await?
        .well()?;
    let test = site.helm(&["test", "podbeat", "--timeout", "20s"]).await?;
    test.refused()?;
    let log = site
        .quietly(&["logs", "podbeat-test", "--container", "podbeat"])
        .await?;
    let forbidden = log
        .lines()
        .find(|line| line.contains("403") || line.contains("forbidden"));
    let forbidden = forbidden
        .ok_or_else(|| Error::Unexpected(format!("expected that podbeat is forbidden: {log}")))?;
    site.say(&format!(
        "helm test fails without the RoleBinding: {forbidden}"
    ));

    let news = [
        "--set",
        "settings.interval=7s",
        "--set",
        "example.taskRunId=trn.example-2",
        "--set",
        "test.taskRunId=trn.test-2",
    ];
    helm(with(&["upgrade", "podbeat"], &news)).await?;
    let now = interval(site).await?;
    expect(now == "7s", || {
        format!("expected the interval of the upgrade: {now:?}")
    })?;
    let pod = site.pod_of("podbeat-example-2").await?;
    site.to_the_end(&pod, 0).await?;
    site.helm(&["test", "podbeat", "--timeout", "60s", "--logs"])
        .await?
        .well()?;
    let accepted = site.play.service.accepted();
    let last = accepted
        .iter()
        .find(|one| one.run_id == "trn.test-2" && one.is_final());
    expect(
        last.and_then(|last| last.exit_code("main")) == Some(0),
        || format!("expected a last heartbeat of trn.test-2 from helm test: {last:?}"),
    )?;

    site.helm(&["rollback", "podbeat", "1", "--wait", "--timeout", "90s"])
        .await?
        .well()?;
    let now = interval(site).await?;
    expect(now == "2s", || {
        format!("expected the interval of the rollback: {now:?}")
    })?;

    site.helm(&["uninstall", "podbeat", "--wait", "--timeout", "90s"])
        .await?
        .well()?;
    nothing_is_left(site, &but, &before).await
}

/// A user's chart that depends on podbeat's.
pub(super) async fn parent(site: &Site) -> Result<(), Error> {
    copy_parent(&site.directory)?;
    let parent = site.directory.join("parent").display().to_string();
    let values = json!({"image": TASK, "podbeat": values(site)});
    let mut values = values;
    if let Some(example) = values.pointer_mut("/podbeat/example/enabled") {
        *example = json!(false);
    }
    let file = site.file("values.json", &values.to_string())?;
    site.helm(&["dependency", "update", &parent])
        .await?
        .well()?;
    site.helm(&[
        "install",
        "tasks",
        &parent,
        "--values",
        &file,
        "--wait",
        "--timeout",
        "90s",
    ])
    .await?
    .well()?;
    let pod = site.pod_of("parent-task").await?;
    site.to_the_end(&pod, 5).await?;
    site.play.until_job_is("parent-task", "Failed").await
}
