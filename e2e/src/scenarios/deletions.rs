//! Pods that are ended from outside. For them the API withholds how their tasks ended (fact 1 in
//! docs/kubernetes-facts.md).

use serde_json::json;

use super::play::{Play, Pod, expect, seconds};
use super::pods::{Kind, Plan};
use super::recording::exit_code;
use crate::Error;

/// Exits with 5, two seconds after SIGTERM.
pub(super) const ENDS_WITH_5: &str = "trap 'sleep 2; exit 5' TERM; sleep 1000 & wait";

/// Creates a pod, and waits until the service knows that it runs.
pub(super) async fn running(play: &Play, plan: &Plan) -> Result<Pod, Error> {
    let pod = play.pod("task", plan).await?;
    play.until_told(&pod, "main", "running").await?;
    Ok(pod)
}

/// Checks a life in which nothing shows how main ended: the last heartbeat says `running`, without
/// an invented exit code.
async fn ended_untold(play: &Play, pod: &Pod) -> Result<(), Error> {
    let last = play.until_final(pod).await?;
    play.until_gone(pod).await?;
    let last = play.check(pod).map(|_| last)?;
    expect(last.exit_code("main").is_none(), || {
        format!("expected no exit code: {last:?}")
    })?;
    expect(
        last.state("main")
            .is_some_and(|(state, _)| state == "running"),
        || format!("expected `running`, as in the API: {last:?}"),
    )
}

/// Checks when the last heartbeat arrived after the signal; and podbeat's exit code, if the pod
/// showed it.
pub(super) async fn in_time(play: &Play, pod: &Pod, within: f64) -> Result<(), Error> {
    let last = play.check(pod)?;
    let signalled = play.signalled(pod).await?;
    let late = seconds(signalled, play.heard_at(&last));
    play.say(&format!(
        "the last heartbeat arrived {late:.3} s after SIGTERM"
    ));
    expect(late < within, || {
        format!("the last heartbeat arrived {late:.1} s after SIGTERM; the limit is {within} s")
    })?;
    play.until_logged(pod, "podbeat is exiting").await?;
    let own = play
        .last_seen(pod)
        .and_then(|seen| exit_code(seen.pod(), "podbeat"));
    expect(own.is_none_or(|own| own == 0), || {
        format!("podbeat ended with {own:?}")
    })
}

pub(super) async fn delete(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, ENDS_WITH_5)).await?;
    play.namespace.delete_pod("task", 30).await?;
    play.say("the pod is deleted, with 30 s of grace");
    ended_untold(play, &pod).await?;
    in_time(play, &pod, 30.0).await
}

pub(super) async fn delete_grace_1(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, "sleep 1000")).await?;
    play.namespace.delete_pod("task", 1).await?;
    play.say("the pod is deleted, with 1 s of grace; main ignores SIGTERM");
    ended_untold(play, &pod).await?;
    in_time(play, &pod, 2.0).await
}

pub(super) async fn delete_force(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, ENDS_WITH_5)).await?;
    play.namespace.delete_pod("task", 0).await?;
    play.say("the pod is deleted by force");
    ended_untold(play, &pod).await?;
    play.until_logged(&pod, "podbeat is exiting").await?;
    Ok(())
}

pub(super) async fn evict(play: &Play, kind: Kind) -> Result<(), Error> {
    let pod = running(play, &Plan::new(kind, ENDS_WITH_5).grace(10)).await?;
    play.namespace.evict("task").await?;
    play.say("the pod is evicted; its grace is 10 s");
    ended_untold(play, &pod).await?;
    in_time(play, &pod, 10.0).await
}

pub(super) async fn deadline(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = Plan::new(kind, ENDS_WITH_5)
        .grace(10)
        .with(json!({"activeDeadlineSeconds": 15}));
    let pod = running(play, &plan).await?;
    let last = play.until_final(&pod).await?;
    expect(last.exit_code("main").is_none(), || {
        format!("expected no exit code yet: {last:?}")
    })?;
    let over = play
        .until("the pod failed", |pod| {
            pod.pointer("/status/phase") == Some(&json!("Failed"))
        })
        .await?;
    let reason = over.pod().pointer("/status/reason").cloned();
    expect(reason == Some(json!("DeadlineExceeded")), || {
        format!("the pod's reason is {reason:?}")
    })?;
    in_time(play, &pod, 10.0).await
}

pub(super) async fn recreated(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = |run: &str, script: &str| Plan::new(kind, script).setting("TASK_RUN_ID", run);
    let pod = running(play, &plan("first", "sleep 1000")).await?;
    play.namespace.delete_pod("task", 3).await?;
    play.say("the pod is deleted, with 3 s of grace");
    play.until_gone(&pod).await?;
    play.check(&pod)?;
    let other = play
        .pod_again("task", &plan("second", "sleep 2; exit 9"))
        .await?;
    expect(other.uid != pod.uid, || {
        "another pod has another UID".to_owned()
    })?;
    play.until_final(&other).await?;
    super::endings::ended(play, &other, 9).await?;
    let last = play.check(&pod)?;
    expect(last.exit_code("main").is_none(), || {
        format!("the exit code belongs to the other pod: {last:?}")
    })
}
