//! Jobs with retries.

use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};

use super::play::{Play, expect};
use super::pods::{Container, Kind, Plan};
use crate::Error;

pub(super) async fn retries(play: &Play, kind: Kind) -> Result<(), Error> {
    let main = "until [ -s /scratch/code ]; do sleep 0.1; done; exit $(cat /scratch/code)";
    let plan = Plan::new(kind, main).setting("TASK_RUN_ID", "trn.retried");
    play.job("task", &plan, json!({"backoffLimit": 1})).await?;
    for (nth, code) in [(0, 3), (1, 0)] {
        let pod = play.pod_of_job(nth).await?;
        play.until_told(&pod, "main", "running").await?;
        let node = play.stage.node.lock().await;
        node.write_into(&pod.uid, "scratch", "code", &code.to_string())?;
        drop(node);
        play.until_final(&pod).await?;
        super::endings::ended(play, &pod, code).await?;
        is_retry(&play.check(&pod)?, nth)?;
    }
    play.until_job_is("task", "Complete").await?;
    // Both pods belong to the same run.
    let status = play.service.status("trn.retried").await?;
    expect(status == Some("Completed"), || {
        format!("the run is {status:?}")
    })
}

/// Checks that a heartbeat reports this number of failed earlier pods.
fn is_retry(heartbeat: &Heartbeat, failed: usize) -> Result<(), Error> {
    let told = heartbeat.body.get("jobRetryCount").and_then(Value::as_u64);
    let expected = u64::try_from(failed).ok();
    expect(told == expected, || {
        format!("expected jobRetryCount {expected:?}: {heartbeat:?}")
    })
}

pub(super) async fn indexed(play: &Play, kind: Kind) -> Result<(), Error> {
    let count = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']";
    let main = Container::new("main", "sleep 1; [ $FAILURES = 1 ] || exit 3").with(
        json!({"env": [{"name": "FAILURES", "valueFrom": {"fieldRef": {"fieldPath": count}}}]}),
    );
    let plan = Plan::of(kind, vec![main]);
    let job = json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimitPerIndex": 1,
                     "backoffLimit": 10});
    play.job("task", &plan, job).await?;
    for (nth, code) in [(0, 3), (1, 0)] {
        let pod = play.pod_of_job(nth).await?;
        play.until_final(&pod).await?;
        super::endings::ended(play, &pod, code).await?;
        is_retry(&play.check(&pod)?, nth)?;
    }
    play.until_job_is("task", "Complete").await
}
