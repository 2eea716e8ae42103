//! The stand-in Kubernetes API with Jobs, Secrets and events, as kube's client sees it.

use std::time::Duration;

use futures_util::StreamExt;
use podbeat_lab::kube_api::{Kind, KubeApi, Options};
use podbeat_lab::service;
use podbeat_lab::world::{KUBE_TOKEN, World};
use podbeat_launch::cluster::{Change, Cluster, Failure, Found, Kubernetes, Place};
use podbeat_launch::manifests::{Manifests, manifests};
use podbeat_launch::order::Order;
use podbeat_launch::settings::Settings;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{Execution, Image};
use reqwest::Certificate;
use serde_json::{Value, json};

use super::{LIMIT, NAMESPACE};
use crate::harness;

async fn cluster() -> (World, Kubernetes, Manifests) {
    let world = World::start().await.expect("a world");
    let settings = Settings::default();
    let place = Place::Kubeconfig(Some(world.path("kubeconfig")));
    let cluster = Kubernetes::new(&place, settings.clone()).await;
    let order = Order {
        run: "trn.1".to_owned(),
        tenant: "lab".to_owned(),
        attempt: 0,
        nonce: Secret::new("nonce"),
        token: Secret::new("token"),
        execution: Execution {
            image: Some(Image::new("busybox")),
            ..Execution::default()
        },
    };
    let manifests = manifests(&order, &settings).expect("manifests");
    (world, cluster.expect("a client"), manifests)
}

#[tokio::test]
async fn objects_are_created_once() {
    let (world, cluster, manifests) = cluster().await;
    assert_eq!(cluster.job(NAMESPACE, "trn-1-0").await, Ok(Found::Nothing));
    let job = cluster.create_job(&manifests.job).await.expect("a Job");
    assert_eq!((job.run.as_str(), job.attempt), ("trn.1", 0));
    let again = cluster.create_job(&manifests.job).await;
    assert_eq!(again, Err(Failure::Exists));
    let found = cluster.job(NAMESPACE, "trn-1-0").await;
    assert_eq!(found, Ok(Found::Ours(job.clone())));
    let secret = manifests.owned_secret(&job.uid);
    let uid = cluster.create_secret(&secret).await.expect("a Secret");
    assert_eq!(cluster.create_secret(&secret).await, Err(Failure::Exists));
    let seen = cluster
        .secret(NAMESPACE, "trn-1-0")
        .await
        .expect("an answer");
    let seen = seen.expect("a Secret");
    assert_eq!((seen.uid, seen.owner), (uid, Some(job.uid)));
    let all = cluster.secrets(NAMESPACE).await.expect("a list");
    assert_eq!(all.len(), 1);
    // Other namespaces, and other labels, have none.
    assert_eq!(cluster.secrets("other").await, Ok(Vec::new()));
    world
        .kube
        .change_object(Kind::Secret, NAMESPACE, "trn-1-0", |secret| {
            secret["metadata"]["labels"]["podbeat.dev/server"] = json!("another");
        });
    assert_eq!(cluster.secrets(NAMESPACE).await, Ok(Vec::new()));
}

#[tokio::test]
async fn only_the_object_with_the_uid_is_deleted_with_what_it_owns() {
    let (world, cluster, manifests) = cluster().await;
    let job = cluster.create_job(&manifests.job).await.expect("a Job");
    let secret = manifests.owned_secret(&job.uid);
    cluster.create_secret(&secret).await.expect("a Secret");
    world.kube.apply(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": NAMESPACE,
        "ownerReferences": [{"uid": job.uid}], "labels": {"batch.kubernetes.io/controller-uid": job.uid}}}));
    world.kube.apply(json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "q", "namespace": NAMESPACE}}));
    let deleted = cluster.delete_job(NAMESPACE, "trn-1-0", "other").await;
    assert_eq!(deleted, Err(Failure::Changed));
    assert_eq!(world.kube.all(Kind::Job).len(), 1);
    let deleted = cluster.delete_job(NAMESPACE, "trn-1-0", &job.uid).await;
    assert_eq!(deleted, Ok(()));
    assert!(world.kube.all(Kind::Job).is_empty() && world.kube.all(Kind::Secret).is_empty());
    let pods = world.kube.all(Kind::Pod);
    assert_eq!(pods.len(), 1, "{pods:?}");
    // It is gone, which is no error.
    let again = cluster.delete_job(NAMESPACE, "trn-1-0", &job.uid).await;
    assert_eq!(again, Ok(()));
}

/// A pod on a node is deleted by its kubelet, and one that has ended at once.
#[tokio::test]
async fn the_kubelet_removes_a_pod_that_runs() {
    let (world, cluster, manifests) = cluster().await;
    let job = cluster.create_job(&manifests.job).await.expect("a Job");
    for (name, phase) in [("runs", "Running"), ("ended", "Failed")] {
        world.kube.apply(json!({"kind": "Pod", "apiVersion": "v1", "status": {"phase": phase},
            "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [{"uid": job.uid}]},
            "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 5}}));
    }
    let deleted = cluster.delete_job(NAMESPACE, "trn-1-0", &job.uid).await;
    assert_eq!(deleted, Ok(()));
    let pods = world.kube.all(Kind::Pod);
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(pods[0]["metadata"]["name"], "runs");
    assert!(pods[0]["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(pods[0]["metadata"]["deletionGracePeriodSeconds"], 5);
}

#[tokio::test]
async fn the_newest_warning_about_a_job_is_found() {
    let (world, cluster, _) = cluster().await;
    for (name, uid, kind, time, message) in [
        (
            "a",
            "uid-j",
            "Warning",
            "2026-01-01T00:00:01Z",
            "exceeded quota: compute",
        ),
        ("b", "uid-j", "Warning", "2026-01-01T00:00:00Z", "earlier"),
        ("c", "uid-j", "Normal", "2026-01-01T00:00:09Z", "created"),
        (
            "d",
            "uid-k",
            "Warning",
            "2026-01-01T00:00:09Z",
            "of another Job",
        ),
    ] {
        world.kube.apply(json!({"kind": "Event", "apiVersion": "v1", "type": kind, "reason": "FailedCreate",
            "message": message, "lastTimestamp": time, "involvedObject": {"kind": "Job", "uid": uid},
            "metadata": {"name": name, "namespace": NAMESPACE}}));
    }
    let complaint = cluster
        .complaint(NAMESPACE, "uid-j")
        .await
        .expect("an answer");
    assert_eq!(
        complaint.as_deref(),
        Some("FailedCreate: exceeded quota: compute")
    );
    assert_eq!(cluster.complaint(NAMESPACE, "uid-x").await, Ok(None));
}

/// A watch of Jobs goes on after a break, and shows only those of the server.
#[tokio::test]
async fn a_watch_goes_on_after_a_break() {
    let (world, cluster, manifests) = cluster().await;
    let mut changes = cluster.watch();
    let mut next = async || {
        let next = tokio::time::timeout(LIMIT, changes.next()).await;
        next.expect("in time").expect("it does not end")
    };
    for _ in 0..2 {
        let listed = next().await;
        assert!(matches!(&listed, Change::Listed { .. }), "{listed:?}");
    }
    let job = cluster.create_job(&manifests.job).await.expect("a Job");
    assert_eq!(next().await, Change::Job(job.clone()));
    world.kube_faults.script("watch cut x2").expect("a rule");
    let is_cut = |kube: &KubeApi| kube.open_watches() < 2;
    let cut = world.kube.wait_for("no watch", LIMIT, is_cut);
    cut.await.expect("in time");
    world
        .kube
        .apply(json!({"kind": "Job", "apiVersion": "batch/v1",
        "metadata": {"name": "foreign", "namespace": NAMESPACE}}));
    let deleted = cluster.delete_job(NAMESPACE, "trn-1-0", &job.uid).await;
    assert_eq!(deleted, Ok(()));
    let mut seen = vec![next().await];
    // kube reports the break, and then nothing is missing.
    while let Some(Change::Failed(_)) = seen.last() {
        seen.push(next().await);
    }
    assert_eq!(seen.last(), Some(&Change::JobGone(job)), "{seen:?}");
}

/// A watch that asks for bookmarks gets them with the kind of its objects.
#[tokio::test]
async fn bookmarks_have_the_kind_of_the_watch() {
    let options = Options {
        bookmarks: Duration::from_millis(20),
        ..Options::default()
    };
    let world = World::with(options, service::Options::default());
    let world = world.await.expect("a world");
    let pem = std::fs::read(world.path("ca.crt")).expect("the CA");
    let client = harness::client()
        .tls_certs_only([Certificate::from_pem(&pem).expect("a certificate")])
        .timeout(LIMIT)
        .build()
        .expect("a client");
    let url = world.kube.url();
    let url =
        format!("{url}/apis/batch/v1/jobs?watch=true&allowWatchBookmarks=true&resourceVersion=100");
    let answer = client.get(url).bearer_auth(KUBE_TOKEN).send().await;
    let mut answer = answer.expect("an answer");
    let mut text = String::new();
    while !text.contains('\n') {
        let chunk = answer.chunk().await.expect("a chunk").expect("it goes on");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    let line = text.lines().next().unwrap_or_default();
    let bookmark: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Job");
    assert_eq!(bookmark["object"]["apiVersion"], "batch/v1");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], "100");
}

/// Without the Role, the API server says which right is missing.
#[tokio::test]
async fn a_missing_right_is_named() {
    let (world, cluster, manifests) = cluster().await;
    world.kube.deny_verbs(&["create"]);
    let refused = cluster.create_job(&manifests.job).await;
    let Err(Failure::Refused(message)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        message.contains("cannot create resource \"jobs\" in API group \"batch\""),
        "{message}"
    );
}
