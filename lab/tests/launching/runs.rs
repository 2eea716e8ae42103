//! Runs that complete, fail, are retried, are aborted, or can't start.

use std::time::Duration;

use podbeat_lab::kube_api::Kind;
use podbeat_lab::node::Program;
use podbeat_launch::manifests;
use serde_json::{Value, json};

use super::{FAILS, LIMIT, NAMESPACE, SUCCEEDS, Site};

#[tokio::test]
async fn a_run_completes_and_nothing_is_left() {
    let site = Site::start(|_, _| SUCCEEDS).await;
    let id = site.create().await;
    let run = site.until_status(&id, "Completed").await;
    assert_eq!(run["execution"]["retryCount"], 0);
    site.until_nothing_is_left().await;
    assert_eq!(site.jobs_of(&id, 0), 1);
    // The agent had the nonce, the token and the pod's facts from the Secret and the spec.
    let heartbeats = site.world.service.accepted();
    let nonces = heartbeats.iter().map(|heartbeat| heartbeat.nonce());
    let secret = secret_data(&site, &id, 0, "nonce");
    assert!(
        nonces.into_iter().all(|nonce| nonce == secret),
        "{heartbeats:#?}"
    );
    let last = heartbeats.last().expect("heartbeats");
    assert!(
        last.is_final() && last.exit_code("main") == Some(0),
        "{last:?}"
    );
    assert_eq!(last.body["jobRetryCount"], 0);
    assert_eq!(last.token, Some(secret_data(&site, &id, 0, "token")));
    site.check();
}

/// A value of the Secret of an attempt, from the history.
fn secret_data(site: &Site, id: &str, attempt: u32, key: &str) -> String {
    use base64::Engine;
    let name = manifests::name(id, attempt);
    let changes = site.world.kube.changes_since(0);
    let secret = changes
        .iter()
        .find(|event| {
            event.kind == Kind::Secret && event.object["metadata"]["name"] == name.as_str()
        })
        .expect("a Secret");
    let data = secret.object["data"][key].as_str().expect("a value");
    let data = base64::prelude::BASE64_STANDARD
        .decode(data)
        .expect("base64");
    String::from_utf8(data).expect("text")
}

#[tokio::test]
async fn a_failed_attempt_is_retried() {
    let site = Site::start(|_, attempt| if attempt == 0 { FAILS } else { SUCCEEDS }).await;
    let id = site.create().await;
    let run = site.until_status(&id, "Completed").await;
    assert_eq!(run["execution"]["retryCount"], 1);
    let error = run["logs"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("exit code 3"), "{run}");
    site.until_nothing_is_left().await;
    assert_eq!(
        [0, 1, 2].map(|attempt| site.jobs_of(&id, attempt)),
        [1, 1, 0]
    );
    let heartbeats = site.world.service.accepted();
    let ends = heartbeats
        .iter()
        .filter(|heartbeat| heartbeat.is_final())
        .map(|heartbeat| {
            (
                heartbeat.body["jobRetryCount"].as_i64(),
                heartbeat.exit_code("main"),
            )
        });
    let mut ends: Vec<_> = ends.collect();
    ends.dedup();
    assert_eq!(ends, [(Some(0), Some(3)), (Some(1), Some(0))]);
    site.check();
}

#[tokio::test]
async fn a_run_that_always_fails_ends_as_failed() {
    let site = Site::start(|_, _| FAILS).await;
    let execution = json!({"image": {"name": "busybox"}, "retryLimit": 1});
    let request = json!({"name": "fails", "execution": execution});
    let (_, run) = site.ask("POST", "", request).await;
    let id = run["id"].as_str().expect("an ID").to_owned();
    let run = site.until_status(&id, "Failed").await;
    let details = run["statusDetails"].as_str().unwrap_or_default();
    assert!(details.contains("exit code 3"), "{run}");
    site.until_nothing_is_left().await;
    assert_eq!(
        [0, 1, 2].map(|attempt| site.jobs_of(&id, attempt)),
        [1, 1, 0]
    );
    site.check();
}

#[tokio::test]
async fn an_abort_while_pending_leaves_nothing() {
    let site = Site::start(|_, _| Program::HasNoNode).await;
    let id = site.create().await;
    let waits = |run: &Value| {
        let details = run["statusDetails"].as_str().unwrap_or_default();
        run["status"] == "Runnable" && details.contains("Insufficient cpu")
    };
    site.until(&id, "the reason of the scheduler", waits).await;
    site.abort(&id).await;
    site.until_nothing_is_left().await;
    assert_eq!(site.get(&id).await["status"], "Aborted");
    site.check();
}

#[tokio::test]
async fn an_abort_while_running_leaves_nothing() {
    let site = Site::start(|_, _| Program::Runs).await;
    let id = site.create().await;
    site.until_status(&id, "Running").await;
    let has_begun = |heartbeats: &[podbeat_lab::service::Heartbeat]| {
        let mut states = heartbeats
            .iter()
            .filter_map(|heartbeat| heartbeat.state("main"));
        states.any(|(state, _)| state == "running")
    };
    let received = site
        .world
        .service
        .wait_for("a task that runs", LIMIT, has_begun);
    received.await.expect("heartbeats");
    site.abort(&id).await;
    site.until_nothing_is_left().await;
    assert_eq!(site.get(&id).await["status"], "Aborted");
    assert_eq!(site.jobs_of(&id, 0), 1);
    site.check();
}

#[tokio::test]
async fn a_wrong_image_name_fails_at_once() {
    let message = "couldn't parse image name \"Busy Box\": invalid reference format";
    let site = Site::start(move |_, _| Program::Waits("InvalidImageName", message)).await;
    let id = site.create().await;
    let run = site.until_status(&id, "Failed").await;
    let details = run["statusDetails"].as_str().unwrap_or_default();
    assert_eq!(details, format!("main: InvalidImageName: {message}"));
    site.until_nothing_is_left().await;
    // It is not tried again.
    assert_eq!([0, 1].map(|attempt| site.jobs_of(&id, attempt)), [1, 0]);
    site.check();
}

/// The run's Job can't be created at first, so that another Job gets its name.
#[tokio::test]
async fn a_job_of_another_owner_is_not_touched() {
    let site = Site::start(|_, _| Program::Runs).await;
    let kube = &site.world.kube;
    let faults = &site.world.kube_faults;
    faults.script("create 503 until-lifted").expect("a rule");
    let id = site.create().await;
    let name = manifests::name(&id, 0);
    // Another podbeat-server may have the same run. Suspended, so that the node leaves it alone.
    let labels = json!({
        "app.kubernetes.io/managed-by": "podbeat-server",
        "podbeat.dev/server": "another",
        "podbeat.dev/run": id,
        "podbeat.dev/attempt": "0",
    });
    let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": labels});
    let spec = json!({"suspend": true});
    kube.apply(
        json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": metadata, "spec": spec}),
    );
    let other = kube
        .get(Kind::Job, NAMESPACE, &name)
        .expect("the other Job");
    faults.lift_all();
    let reason =
        format!("a Job {name} that is not of this attempt exists in namespace {NAMESPACE}");
    let says = |run: &Value| run["statusDetails"] == reason.as_str();
    let run = site.until(&id, "the reason", says).await;
    assert_eq!(run["status"], "CheckedOut");
    site.abort(&id).await;
    // The launcher looks for objects of the run, and finds only the other Job.
    let looked = |kube: &podbeat_lab::kube_api::KubeApi| {
        let seen = kube.seen();
        seen.iter()
            .any(|seen| (seen.resource, seen.verb) == ("secrets", "get"))
    };
    kube.wait_for("the end of the run", LIMIT, looked)
        .await
        .expect("in time");
    assert_eq!(kube.get(Kind::Job, NAMESPACE, &name), Some(other));
    let seen = kube.seen();
    assert!(seen.iter().all(|seen| seen.verb != "delete"), "{seen:?}");
    assert!(kube.all(Kind::Secret).is_empty());
    site.check();
}

#[tokio::test]
async fn an_unknown_size_is_refused_with_the_known_ones() {
    let site = Site::start(|_, _| SUCCEEDS).await;
    let request = |size: &str| {
        let environment = json!({"resources": {"size": size}});
        let execution = json!({"image": {"name": "busybox"}, "environment": environment});
        json!({"name": "sized", "execution": execution})
    };
    let (status, answer) = site.ask("POST", "", request("huge")).await;
    assert_eq!(status, 400, "{answer}");
    let details = answer["details"].to_string();
    assert!(
        details.contains("size") && details.contains("small") && details.contains("large"),
        "{answer}"
    );
    assert!(site.world.kube.all(Kind::Job).is_empty());
    let (status, run) = site.ask("POST", "", request("large")).await;
    assert_eq!(status, 201, "{run}");
    let id = run["id"].as_str().expect("an ID").to_owned();
    site.until_status(&id, "Completed").await;
    let changes = site.world.kube.changes_since(0);
    let job = changes
        .iter()
        .find(|event| event.kind == Kind::Job)
        .expect("a Job");
    let main = &job.object["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(main["resources"]["limits"]["cpu"], "16");
    site.until_nothing_is_left().await;
    site.check();
}

/// Broken watches, failed lists and a compacted history cost time and nothing else.
#[tokio::test]
async fn an_outage_of_the_api_server_ends_no_run() {
    let site = Site::start(|_, _| Program::Exits(0, Duration::from_secs(1))).await;
    let id = site.create().await;
    site.until_status(&id, "Running").await;
    let faults = &site.world.kube_faults;
    faults
        .script("watch cut x8; list 503 x2; watch gone x2")
        .expect("rules");
    assert_eq!(site.jobs_of(&id, 0), 1);
    // It also forgets the Job that was counted.
    site.world.kube.compact();
    site.until_status(&id, "Completed").await;
    site.until_nothing_is_left().await;
    assert_eq!([0, 1].map(|attempt| site.jobs_of(&id, attempt)), [0, 0]);
    site.check();
}
