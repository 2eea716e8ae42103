//! Tasks that end by themselves, or never start.

use std::time::Duration;

use serde_json::{Value, json};

use super::play::{Play, Pod, expect, seconds};
use super::pods::{Container, Kind, Plan};
use super::recording::{exit_code, state, status};
use crate::Error;
use crate::node::images::PODBEAT_AGAIN;

/// The limit from the event with the task's end to the last heartbeat at the service, in seconds.
/// It covers a native sidecar's wait of one second for news, a look at the pod, and a busy machine.
pub(super) const PROMPT: f64 = 5.0;

/// Plays a Job to its end. Checks that the last heartbeat has main's exit code and comes promptly,
/// that podbeat exits with 0, and that the Job is over.
async fn to_the_end(play: &Play, plan: &Plan, code: i64, over: &str) -> Result<Pod, Error> {
    play.job("task", plan, json!({"backoffLimit": 6})).await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    ended(play, &pod, code).await?;
    play.until_job_is("task", over).await?;
    Ok(pod)
}

/// Checks a pod after its last heartbeat, if its task ended with this code.
pub(super) async fn ended(play: &Play, pod: &Pod, code: i64) -> Result<(), Error> {
    ended_within(play, pod, code, PROMPT).await
}

/// The same check, with this many seconds from the event of main's end to the last heartbeat.
pub(super) async fn ended_within(
    play: &Play,
    pod: &Pod,
    code: i64,
    prompt: f64,
) -> Result<(), Error> {
    let own = play.until_podbeat_ended(pod).await?;
    expect(own == 0, || format!("podbeat ended with {own}"))?;
    let last = play.check(pod)?;
    expect(last.exit_code("main") == Some(code), || {
        format!("expected main's exit code {code}: {last:?}")
    })?;
    let of_pod = |seen: &super::recording::Seen| seen.uid() == pod.uid;
    let seen = play.recording.seen();
    let shown = seen
        .iter()
        .rev()
        .filter(|seen| of_pod(seen))
        .take_while(|seen| exit_code(seen.pod(), "main") == Some(code))
        .last();
    let Some(shown) = shown else {
        return Err(Error::Unexpected(format!(
            "the API never showed main's exit code {code}"
        )));
    };
    let late = seconds(shown.at, play.heard_at(&last));
    play.say(&format!(
        "the last heartbeat arrived {late:+.3} s after the event of main's end"
    ));
    expect(late < prompt, || {
        format!("the last heartbeat arrived {late:.1} s after the event of main's end")
    })?;
    // Equal to the API's state, member for member: nothing is derived.
    let told = last
        .state("main")
        .map(|(_, members)| members.clone())
        .unwrap_or_default();
    let api = state(shown.pod(), "main")
        .map(|(_, members)| members.clone())
        .unwrap_or_default();
    expect(told == api, || {
        format!("the API shows {api}, but the service received {told}")
    })
}

pub(super) async fn complete(play: &Play, kind: Kind) -> Result<(), Error> {
    to_the_end(play, &Plan::new(kind, "sleep 2"), 0, "Complete").await?;
    Ok(())
}

pub(super) async fn fail(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = Plan::new(kind, "sleep 2; exit 3");
    play.job("task", &plan, json!({})).await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    ended(play, &pod, 3).await?;
    play.until_job_is("task", "Failed").await
}

pub(super) async fn oom_main(play: &Play, kind: Kind) -> Result<(), Error> {
    let main = Container::new("main", "sleep 1; exec tail /dev/zero")
        .with(json!({"resources": {"limits": {"memory": "48Mi"}}}));
    play.job("task", &Plan::of(kind, vec![main]), json!({}))
        .await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    ended(play, &pod, 137).await?;
    let last = play.check(&pod)?;
    let reason = last
        .state("main")
        .and_then(|(_, members)| members.get("reason"))
        .cloned();
    expect(reason == Some(json!("OOMKilled")), || {
        format!("the reason is {reason:?}")
    })?;
    play.until_job_is("task", "Failed").await
}

pub(super) async fn oom_sidecar(play: &Play, kind: Kind) -> Result<(), Error> {
    // OnFailure, so that a plain sidecar is also restarted.
    let plan = Plan::new(
        kind,
        "while [ ! -e /scratch/go ]; do sleep 0.1; done; exit 0",
    )
    .restart("OnFailure")
    .own(json!({"resources": {"limits": {"memory": "64Mi"}}}));
    let pod = play.pod("task", &plan).await?;
    play.until_told(&pod, "main", "running").await?;
    let seen = play.until_state("podbeat", "running").await?;
    let id = status(seen.pod(), "podbeat")
        .and_then(|status| {
            status
                .get("containerID")?
                .as_str()?
                .strip_prefix("containerd://")
        })
        .unwrap_or_default()
        .to_owned();
    let limit = play.stage.node.lock().await.squeeze(&id)?;
    play.say(&format!(
        "podbeat's memory is limited to its present {limit} bytes, and its pod grows"
    ));
    // podbeat needs memory to read its own pod, so a growing pod exceeds the limit.
    for nth in 0..40 {
        let text = format!("{nth}-{}", "x".repeat(200_000));
        play.namespace
            .patch_pod(
                "task",
                &json!({"metadata": {"annotations": {"e2e/ballast": text}}}),
            )
            .await?;
        let shows = |pod: &Value| {
            status(pod, "podbeat").and_then(|status| status.get("restartCount")?.as_i64()) > Some(0)
        };
        if play.last_seen(&pod).is_some_and(|seen| shows(seen.pod())) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let restarted = play
        .until("podbeat's restart", |pod| {
            status(pod, "podbeat").and_then(|status| status.get("restartCount")?.as_i64()) > Some(0)
        })
        .await?;
    let last = status(restarted.pod(), "podbeat")
        .and_then(|status| status.pointer("/lastState/terminated"));
    let reason = last.and_then(|last| last.get("reason")).cloned();
    expect(reason == Some(json!("OOMKilled")), || {
        format!("expected OOMKilled for podbeat: {last:?}")
    })?;
    play.until_logged(&pod, "resumed from the journal").await?;
    play.namespace
        .patch_pod(
            "task",
            &json!({"metadata": {"annotations": {"e2e/ballast": null}}}),
        )
        .await?;
    play.let_main_end(&pod).await?;
    play.say("main gets the signal to end");
    play.until_final(&pod).await?;
    ended(play, &pod, 0).await
}

pub(super) async fn restarts(play: &Play, kind: Kind) -> Result<(), Error> {
    let script = "n=$(cat /scratch/n 2>/dev/null || echo 4); echo $((n+1)) > /scratch/n; sleep 1; \
                  [ $n -ge 7 ] && exit 0; exit $n";
    let plan = Plan::new(kind, script).restart("OnFailure");
    let pod = to_the_end(play, &plan, 0, "Complete").await?;
    let accepted = play.service.accepted();
    let mut exits: Vec<i64> = accepted
        .iter()
        .filter_map(|heartbeat| heartbeat.exit_code("main"))
        .collect();
    exits.dedup();
    expect(exits == [4, 5, 6, 0], || {
        format!(
            "the service received the exit codes {exits:?} of pod {}",
            pod.name
        )
    })
}

/// main's first run exits with a code whose rule restarts all containers (KEP-5532). Its second run
/// succeeds.
pub(super) async fn restart_all(play: &Play, kind: Kind) -> Result<(), Error> {
    let script =
        "[ -e /scratch/second ] && { sleep 3; exit 0; }; echo > /scratch/second; sleep 2; exit 42";
    let rule =
        json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let main = Container::new("main", script)
        .with(json!({"restartPolicy": "Never", "restartPolicyRules": [rule]}));
    let pod = play.pod("task", &Plan::of(kind, vec![main])).await?;
    play.until_heard(&pod, "the exit code 42", |heartbeat| {
        heartbeat.exit_code("main") == Some(42)
    })
    .await?;
    play.until_final(&pod).await?;
    ended(play, &pod, 0).await
}

/// A pod with resources of its own (KEP-2837). The pod and its main get other ones while they run
/// (KEP-5419, KEP-1287).
pub(super) async fn resize(play: &Play, kind: Kind) -> Result<(), Error> {
    let script = "while [ ! -e /scratch/go ]; do sleep 0.1; done; exit 0";
    // A pod's own request must cover those of its containers.
    let whole = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": "512Mi"}});
    let part = |cpu: &str| {
        let quantities = json!({"cpu": cpu, "memory": "64Mi"});
        json!({"requests": quantities, "limits": quantities})
    };
    let main = Container::new("main", script).with(json!({"resources": part("100m")}));
    let plan = Plan::of(kind, vec![main]).with(json!({"resources": whole("200m")}));
    let pod = play.pod("task", &plan).await?;
    play.until_told(&pod, "main", "running").await?;
    let seen = play.until_state("main", "running").await?;
    let containers = seen.pod().pointer("/spec/containers").cloned();
    let mut containers = containers.unwrap_or_default();
    for container in containers.as_array_mut().into_iter().flatten() {
        if container.get("name") == Some(&json!("main")) {
            container["resources"] = part("150m");
        }
    }
    let patch = json!({"spec": {"containers": containers, "resources": whole("300m")}});
    play.namespace.patch_pod("task/resize", &patch).await?;
    play.say("the pod and main get more CPU");
    let has_more = |pod: &Value| {
        let limit = status(pod, "main").and_then(|main| main.pointer("/resources/limits/cpu"));
        let request = pod.pointer("/status/resources/requests/cpu");
        limit == Some(&json!("150m")) && request == Some(&json!("300m"))
    };
    let seen = play.until("the new resources", has_more).await?;
    for container in ["main", "podbeat"] {
        let restarts = status(seen.pod(), container).and_then(|status| status.get("restartCount"));
        expect(restarts == Some(&json!(0)), || {
            format!("{container} restarted: {restarts:?}")
        })?;
    }
    play.let_main_end(&pod).await?;
    play.say("main gets the signal to end");
    play.until_final(&pod).await?;
    ended(play, &pod, 0).await
}

/// Another image is set for podbeat's container, so the kubelet stops and restarts only this
/// container. The last heartbeat for that signal isn't accepted, and the next process withdraws it.
pub(super) async fn stopped_alone(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = Plan::new(
        kind,
        "while [ ! -e /scratch/go ]; do sleep 0.1; done; exit 0",
    )
    .grace(5);
    let pod = play.pod("task", &plan).await?;
    play.until_told(&pod, "main", "running").await?;
    play.faults
        .script("heartbeat final 503 until-lifted")
        .map_err(|error| Error::Unexpected(error.to_string()))?;
    let member = match kind {
        Kind::Native => "initContainers",
        Kind::Plain => "containers",
    };
    let seen = play.until_state("podbeat", "running").await?;
    let mut containers = seen
        .pod()
        .pointer(&format!("/spec/{member}"))
        .cloned()
        .unwrap_or_default();
    for container in containers.as_array_mut().into_iter().flatten() {
        if container.get("name") == Some(&json!("podbeat")) {
            container["image"] = json!(PODBEAT_AGAIN);
        }
    }
    play.namespace
        .patch_pod("task", &json!({"spec": {member: containers}}))
        .await?;
    play.say("podbeat's container gets another image");
    play.until_logged(&pod, "only podbeat's container was stopped")
        .await?;
    play.faults.lift_all();
    play.let_main_end(&pod).await?;
    play.say("main gets the signal to end");
    play.until_final(&pod).await?;
    ended(play, &pod, 0).await
}

/// Deletes a pod whose main waits, and expects `waiting` in the last heartbeat.
async fn never_started(play: &Play, plan: &Plan, reasons: &[&str]) -> Result<(), Error> {
    let pod = play.pod("task", plan).await?;
    let waits = |heartbeat: &podbeat_lab::service::Heartbeat| {
        heartbeat.state("main").is_some_and(|(state, members)| {
            let reason = members
                .get("reason")
                .and_then(Value::as_str)
                .unwrap_or_default();
            state == "waiting" && reasons.contains(&reason)
        })
    };
    play.until_heard(
        &pod,
        &format!("main waiting, {}", reasons.join(" or ")),
        waits,
    )
    .await?;
    play.namespace.delete_pod("task", 10).await?;
    play.say("the pod is deleted, with 10 s of grace");
    let last = play.until_final(&pod).await?;
    expect(last.exit_code("main").is_none(), || {
        format!("main must not have run: {last:?}")
    })?;
    expect(
        last.state("main")
            .is_some_and(|(state, _)| state == "waiting"),
        || format!("main waits: {last:?}"),
    )?;
    play.until_gone(&pod).await?;
    play.check(&pod)?;
    Ok(())
}

pub(super) async fn no_image(play: &Play, kind: Kind) -> Result<(), Error> {
    let main = Container::new("main", "true").with(json!({"image": "registry.invalid/none:1"}));
    never_started(play, &Plan::of(kind, vec![main]), &["ImagePullBackOff"]).await
}

pub(super) async fn config_error(play: &Play, kind: Kind) -> Result<(), Error> {
    let missing =
        json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "missing", "key": "x"}}}]);
    let main = Container::new("main", "true").with(json!({"env": missing}));
    never_started(
        play,
        &Plan::of(kind, vec![main]),
        &["CreateContainerConfigError"],
    )
    .await
}

pub(super) async fn failed_init(play: &Play, kind: Kind) -> Result<(), Error> {
    let plan = Plan::new(kind, "exit 0")
        .init(Container::new("setup", "sleep 1; exit 5"))
        .setting("PODBEAT_REPORT", "all");
    play.job("task", &plan, json!({})).await?;
    let pod = play.pod_of_job(0).await?;
    let last = play.until_final(&pod).await?;
    expect(last.exit_code("setup") == Some(5), || {
        format!("expected setup's exit code 5: {last:?}")
    })?;
    expect(last.exit_code("main").is_none(), || {
        format!("main must not have run: {last:?}")
    })?;
    play.until_job_is("task", "Failed").await?;
    let own = play.until_podbeat_ended(&pod).await?;
    expect(own == 0, || format!("podbeat ended with {own}"))?;
    play.check(&pod)?;
    Ok(())
}

pub(super) async fn early_main(play: &Play, _: Kind) -> Result<(), Error> {
    // kubelet starts the next container only after this hook.
    let main = Container::new("main", "sleep 1; exit 7")
        .with(json!({"lifecycle": {"postStart": {"sleep": {"seconds": 3}}}}));
    play.job("task", &Plan::of(Kind::Plain, vec![main]), json!({}))
        .await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    let own = play.until_podbeat_ended(&pod).await?;
    expect(own == 0, || format!("podbeat ended with {own}"))?;
    let last = play.check(&pod)?;
    expect(last.exit_code("main") == Some(7), || {
        format!("expected main's exit code 7: {last:?}")
    })?;
    let seen = play.last_seen(&pod);
    let time = |container: &str, member: &str| {
        let (_, members) = state(seen.as_ref()?.pod(), container)?;
        members.get(member)?.as_str().map(str::to_owned)
    };
    let (finished, started) = (time("main", "finishedAt"), time("podbeat", "startedAt"));
    play.say(&format!(
        "main finished at {finished:?}, podbeat started at {started:?}"
    ));
    expect(finished.is_some() && finished < started, || {
        "expected main to end before podbeat started".to_owned()
    })?;
    play.until_job_is("task", "Failed").await
}

pub(super) async fn two_mains(play: &Play, kind: Kind) -> Result<(), Error> {
    let containers = vec![
        Container::new("first", "sleep 2"),
        Container::new("main", "sleep 6; exit 4"),
    ];
    play.job("task", &Plan::of(kind, containers), json!({}))
        .await?;
    let pod = play.pod_of_job(0).await?;
    play.until_final(&pod).await?;
    ended(play, &pod, 4).await?;
    let last = play.check(&pod)?;
    expect(last.exit_code("first") == Some(0), || {
        format!("expected first's exit code 0: {last:?}")
    })?;
    let accepted = play.service.accepted();
    let between = accepted
        .iter()
        .find(|heartbeat| heartbeat.exit_code("first") == Some(0));
    expect(between.is_some_and(|one| !one.is_final()), || {
        "expected the first exit in a heartbeat before the last one".to_owned()
    })?;
    play.until_job_is("task", "Failed").await
}
