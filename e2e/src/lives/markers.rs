//! Exit markers: the second witness, where fact 1 of the design hides the first.

use serde_json::{Value, json};

use super::deletions::{ENDS_WITH_5, in_time, running};
use super::play::{Play, Pod, TOKEN, expect};
use super::pods::{Kind, PODBEAT, Plan};
use crate::Error;
use crate::node::images::TASK;
use crate::runner::repository;

pub(super) async fn complete(play: &Play, kind: Kind) -> Result<(), Error> {
    // Orphans that end are reaped: none may be left as a zombie (state Z). As the wrapper is process 1 of the container,
    // they are its children then.
    let script = "for n in 1 2 3; do (sleep 0.2 &); done; sleep 2; \
                  for stat in /proc/[0-9]*/stat; do read pid name state rest < $stat; \
                  [ $state = Z ] && exit 20; done; \
                  [ $PPID = 1 ] || exit 21; \
                  trap 'exit 6' USR1; kill -USR1 1; sleep 1000 & wait";
    let plan = Plan::new(kind, script).markers();
    play.job("task", &plan, json!({})).await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    // The API's own words, with a containerID: a marker only fills in what is withheld.
    super::endings::ended(play, &pod, 6).await?;
    play.until_job_is("task", "Failed").await
}

/// What holds where a marker tells the exit that the API withholds.
async fn told_by_marker(play: &Play, pod: &Pod, code: i64) -> Result<(), Error> {
    let last = play.check(pod)?;
    expect(last.exit_code("main") == Some(code), || {
        format!("the marker tells {code}: {last:?}")
    })?;
    let members = last
        .state("main")
        .map(|(_, members)| members.clone())
        .unwrap_or_default();
    play.say(&format!("main's state in the last heartbeat: {members}"));
    let withheld = members.get("containerID").is_none() && members.get("finishedAt").is_some();
    expect(withheld, || {
        format!("the marker was to be the witness: {members}")
    })
}

pub(super) async fn delete(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, ENDS_WITH_5).markers()).await?;
    play.namespace.delete_pod("task", 30).await?;
    play.say("the pod is deleted, with 30 s of grace");
    play.until_final(&pod).await?;
    play.until_gone(&pod).await?;
    told_by_marker(play, &pod, 5).await?;
    // main ends two seconds after its SIGTERM; a plain sidecar has its own with it, and needs no more than that.
    in_time(play, &pod, 6.0).await
}

pub(super) async fn deadline(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = Plan::new(kind, ENDS_WITH_5)
        .markers()
        .grace(20)
        .with(json!({"activeDeadlineSeconds": 15}));
    let pod = running(play, &plan).await?;
    play.until_final(&pod).await?;
    play.until("the pod failed", |pod| {
        pod.pointer("/status/phase") == Some(&json!("Failed"))
    })
    .await?;
    told_by_marker(play, &pod, 5).await?;
    in_time(play, &pod, 8.0).await
}

/// The manifest that users copy, applied as it stands but for what it says is theirs to set: the namespace, the service
/// with its token and CA, the images, and the task's command.
pub(super) async fn manifest(play: &Play, _: Kind) -> Result<(), Error> {
    let path = repository().join("deploy/manifests/job-with-exit-markers.yaml");
    let manifest =
        std::fs::read_to_string(&path).map_err(crate::io(format!("reading {}", path.display())))?;
    let manifest = manifest
        .replace(
            "namespace: tasks\n",
            &format!("namespace: {}\n", play.namespace.name),
        )
        .replace("https://ica.example.com", &play.service.url())
        .replace("image: podbeat:0.1.0\n", &format!("image: {PODBEAT}\n"))
        .replace("image: busybox:1.37\n", &format!("image: {TASK}\n"));
    let script = json!(["/bin/sh", "-c", ENDS_WITH_5]);
    for document in manifest.split("\n---\n") {
        let mut object: Value =
            serde_saphyr::from_str(document).map_err(crate::ours(format!("reading {}", path.display())))?;
        match object.get("kind").and_then(Value::as_str) {
            Some("Secret") => {
                set(&mut object, "/stringData/token", json!(TOKEN))?;
                set(&mut object, "/stringData/ca.crt", json!(play.ca))?;
            }
            Some("Job") => {
                let podbeat = "/spec/template/spec/initContainers/0";
                let ca = json!({"name": "PODBEAT_CA_FILE", "value": "/var/run/podbeat/ca.crt"});
                let env = object
                    .pointer_mut(&format!("{podbeat}/env"))
                    .and_then(Value::as_array_mut);
                env.ok_or_else(|| Error::Unexpected("podbeat is the first init container".to_owned()))?
                    .push(ca);
                set(
                    &mut object,
                    "/spec/template/spec/containers/0/args",
                    script.clone(),
                )?;
            }
            Some(_) | None => {}
        }
        play.namespace.apply_object(&object).await?;
    }
    let pod = play.pod_of_job(0).await?;
    play.until_told(&pod, "main", "running").await?;
    play.namespace.delete_pod(&pod.name, 30).await?;
    play.say("the pod is deleted, with 30 s of grace");
    play.until_final(&pod).await?;
    play.until_gone(&pod).await?;
    told_by_marker(play, &pod, 5).await
}

/// Sets a member of an object that is there.
fn set(object: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    let (parent, member) = path.rsplit_once('/').unwrap_or_default();
    let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
    let parent = parent.ok_or_else(|| Error::Unexpected(format!("the manifest has no {path}")))?;
    parent.insert(member.to_owned(), value);
    Ok(())
}
