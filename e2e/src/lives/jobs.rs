//! Jobs that try again.

use serde_json::{Value, json};

use super::play::{Play, expect};
use super::pods::{Container, Kind, Plan};
use crate::Error;

pub(super) async fn retries(play: &Play, kind: Kind) -> Result<(), Error> {
    play.job(
        "task",
        &Plan::new(kind, "sleep 1; exit 3"),
        json!({"backoffLimit": 1}),
    )
    .await?;
    for nth in 0..2 {
        let pod = play.pod_of_job(nth).await?;
        play.until_final(&pod).await?;
        super::endings::ended(play, &pod, 3).await?;
        // Such a Job tells its pods nothing of earlier ones, and nothing is made up.
        let last = play.check(&pod)?;
        let count = last.body.get("jobRetryCount");
        expect(count.is_none(), || format!("nobody told a retry count: {last:?}"))?;
    }
    play.until_job_is("task", "Failed").await
}

pub(super) async fn indexed(play: &Play, kind: Kind) -> Result<(), Error> {
    let count = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']";
    let main = Container::new("main", "sleep 1; [ $FAILURES = 1 ] || exit 3")
        .with(json!({"env": [{"name": "FAILURES", "valueFrom": {"fieldRef": {"fieldPath": count}}}]}));
    let plan = Plan::of(kind, vec![main]);
    let job = json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimitPerIndex": 1,
                     "backoffLimit": 10});
    play.job("task", &plan, job).await?;
    for (nth, code) in [(0, 3), (1, 0)] {
        let pod = play.pod_of_job(nth).await?;
        play.until_final(&pod).await?;
        super::endings::ended(play, &pod, code).await?;
        let last = play.check(&pod)?;
        let told = last.body.get("jobRetryCount").and_then(Value::as_u64);
        let expected = u64::try_from(nth).ok();
        expect(told == expected, || {
            format!("jobRetryCount {expected:?} was expected: {last:?}")
        })?;
    }
    play.until_job_is("task", "Complete").await
}
