//! Exit markers provide an exit that the API withholds (fact 1 in docs/kubernetes-facts.md).

use serde_json::json;

use super::deletions::{ENDS_WITH_5, in_time, running};
use super::play::{Play, Pod, expect};
use super::pods::{Kind, Plan};
use crate::Error;

pub(super) async fn complete(play: &Play, kind: Kind) -> Result<(), Error> {
    // Ended orphans are reaped: none remains a zombie (state Z). The wrapper is process 1 of the
    // container, so they become its children.
    let script = "for n in 1 2 3; do (sleep 0.2 &); done; sleep 2; \
                  for stat in /proc/[0-9]*/stat; do read pid name state rest < $stat; \
                  [ $state = Z ] && exit 20; done; \
                  [ $PPID = 1 ] || exit 21; \
                  trap 'exit 6' USR1; kill -USR1 1; sleep 1000 & wait";
    let plan = Plan::new(kind, script).markers();
    play.job("task", &plan, json!({})).await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    // The API's own state, with a containerID: a marker only adds what the API withholds.
    super::endings::ended(play, &pod, 6).await?;
    play.until_job_is("task", "Failed").await
}

/// Checks a life in which a marker provides the exit that the API withholds.
pub(crate) async fn told_by_marker(play: &Play, pod: &Pod, code: i64) -> Result<(), Error> {
    let last = play.check(pod)?;
    expect(last.exit_code("main") == Some(code), || {
        format!("expected the marker's {code}: {last:?}")
    })?;
    let members = last
        .state("main")
        .map(|(_, members)| members.clone())
        .unwrap_or_default();
    play.say(&format!("main's state in the last heartbeat: {members}"));
    let withheld = members.get("containerID").is_none() && members.get("finishedAt").is_some();
    expect(withheld, || {
        format!("expected the state from the marker: {members}")
    })
}

pub(super) async fn delete(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, ENDS_WITH_5).markers()).await?;
    play.namespace.delete_pod("task", 30).await?;
    play.say("the pod is deleted, with 30 s of grace");
    play.until_final(&pod).await?;
    play.until_gone(&pod).await?;
    told_by_marker(play, &pod, 5).await?;
    // main ends two seconds after its SIGTERM. A plain sidecar gets its own SIGTERM at the same
    // time, and needs no longer than main.
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
