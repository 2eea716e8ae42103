//! Outages of what podbeat needs.

use std::time::Duration;

use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};

use super::endings::PROMPT;
use super::play::{Play, Pod, expect, seconds};
use super::pods::{Kind, Plan};
use crate::Error;
use crate::cluster::get;
use crate::network;

/// The length of an outage: longer than an attempt, shorter than the grace period.
const OUTAGE: Duration = Duration::from_secs(20);

/// The longest wait between two attempts to reach the API server, in seconds: 35 s, so that
/// thousands of copies don't reconnect together, plus some time for the reconnect itself.
const BACK_OFF: f64 = 40.0;

/// Waits for a file, then exits with 3.
const WAITS_FOR_GO: &str = "while [ ! -e /scratch/go ]; do sleep 0.1; done; exit 3";

/// Pods in the same outage.
struct Pods(Vec<(&'static str, Pod)>);

impl Pods {
    /// Creates the pods, and waits until the service knows that each runs.
    async fn running(play: &Play, plans: Vec<(&'static str, Plan)>) -> Result<Self, Error> {
        let mut pods = Vec::new();
        for (name, plan) in plans {
            pods.push((name, play.pod(name, &plan).await?));
        }
        for (_, pod) in &pods {
            play.until_told(pod, "main", "running").await?;
        }
        Ok(Self(pods))
    }

    fn of_both_kinds() -> Vec<(&'static str, Plan)> {
        vec![
            ("native", Plan::new(Kind::Native, WAITS_FOR_GO)),
            ("plain", Plan::new(Kind::Plain, WAITS_FOR_GO)),
        ]
    }

    fn with_markers_too() -> Vec<(&'static str, Plan)> {
        let mut plans = Self::of_both_kinds();
        plans.push((
            "native-markers",
            Plan::new(Kind::Native, WAITS_FOR_GO).markers(),
        ));
        plans.push((
            "plain-markers",
            Plan::new(Kind::Plain, WAITS_FOR_GO).markers(),
        ));
        plans
    }

    /// Makes every main exit with 3.
    async fn end_mains(&self, play: &Play) -> Result<(), Error> {
        let node = play.stage.node.lock().await;
        for (_, pod) in &self.0 {
            node.write_into(&pod.uid, "scratch", "go", "")?;
        }
        play.say("the mains get the signal to end with 3");
        Ok(())
    }

    /// Waits for each last heartbeat, which reports 3, and for podbeat's end.
    async fn ended(&self, play: &Play, prompt: f64) -> Result<(), Error> {
        for (_, pod) in &self.0 {
            play.until_final(pod).await?;
            super::endings::ended_within(play, pod, 3, prompt).await?;
        }
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &(&'static str, Pod)> {
        self.0.iter()
    }
}

fn received(play: &Play, pod: &Pod) -> usize {
    let of_pod = |heartbeat: &&Heartbeat| heartbeat.body.get("podUID") == Some(&json!(pod.uid));
    play.service.accepted().iter().filter(of_pod).count()
}

pub(super) async fn service_down(play: &Play, kind: Kind) -> Result<(), Error> {
    play.job("task", &Plan::new(kind, WAITS_FOR_GO), json!({}))
        .await?;
    let pod = play.pod_of_job(0).await?;
    play.until_told(&pod, "main", "running").await?;
    play.faults
        .script("any refuse until-lifted")
        .map_err(crate::ours("scripting the outage"))?;
    play.say("the service refuses every connection");
    play.let_main_end(&pod).await?;
    let shown = play.until_state("main", "terminated").await?;
    if kind == Kind::Native {
        play.signalled(&pod).await?;
    }
    // An outage that is longer than several attempts. The test needs this length.
    tokio::time::sleep(Duration::from_secs(8)).await;
    play.faults.lift_all();
    play.say("the service is back");
    let last = play.until_final(&pod).await?;
    let late = seconds(shown.at, play.heard_at(&last));
    expect(late >= 8.0, || {
        format!("the last heartbeat arrived during the outage, after {late:.1} s")
    })?;
    expect(last.exit_code("main") == Some(3), || {
        format!("expected main's exit code 3: {last:?}")
    })?;
    let own = play.until_podbeat_ended(&pod).await?;
    expect(own == 0, || format!("podbeat ended with {own}"))?;
    play.until_job_is("task", "Failed").await?;
    play.check(&pod)?;
    Ok(())
}

pub(super) async fn api_down(play: &Play, _: Kind) -> Result<(), Error> {
    let pods = Pods::running(play, Pods::of_both_kinds()).await?;
    play.stage.cluster.lock().await.kill_apiserver().await?;
    play.say("the API server is killed");
    let before: Vec<usize> = pods.iter().map(|(_, pod)| received(play, pod)).collect();
    tokio::time::sleep(OUTAGE).await;
    for ((name, pod), before) in pods.iter().zip(before) {
        let meanwhile = received(play, pod) - before;
        play.say(&format!("{meanwhile} heartbeats of {name} meanwhile"));
        // The interval is two seconds ±10 %.
        expect(meanwhile >= 8, || {
            format!("only {meanwhile} heartbeats of {name} in {OUTAGE:?}")
        })?;
    }
    play.stage.cluster.lock().await.start_apiserver().await?;
    play.say("the API server is back");
    pods.end_mains(play).await?;
    pods.ended(play, BACK_OFF).await
}

pub(super) async fn api_down_at_the_end(play: &Play, _: Kind) -> Result<(), Error> {
    let pods = Pods::running(play, Pods::with_markers_too()).await?;
    play.stage.cluster.lock().await.kill_apiserver().await?;
    play.say("the API server is killed");
    let down = jiff::Timestamp::now();
    pods.end_mains(play).await?;
    // Native sidecars get SIGTERM at the end, because kubelet needs no API server for it.
    for (name, pod) in pods.iter().filter(|(name, _)| name.starts_with("native")) {
        let last = play.until_final(pod).await?;
        let code = last.exit_code("main");
        play.say(&format!(
            "the last heartbeat of {name} reports {code:?} for main"
        ));
        let expected = name.ends_with("markers").then_some(3);
        expect(code == expected, || {
            format!("expected {expected:?} for {name}: {last:?}")
        })?;
    }
    let left = OUTAGE.saturating_sub(Duration::from_secs_f64(
        seconds(down, jiff::Timestamp::now()).max(0.0),
    ));
    tokio::time::sleep(left).await;
    play.stage.cluster.lock().await.start_apiserver().await?;
    play.say("the API server is back");
    for (name, pod) in pods.iter() {
        let last = play.until_final(pod).await?;
        if name.starts_with("plain") {
            expect(last.exit_code("main") == Some(3), || {
                format!("expected 3 for {name}: {last:?}")
            })?;
        }
        let own = play.until_podbeat_ended(pod).await?;
        expect(own == 0, || format!("podbeat of {name} ended with {own}"))?;
        play.check(pod)?;
    }
    Ok(())
}

pub(super) async fn partition(play: &Play, _: Kind) -> Result<(), Error> {
    let pods = Pods::running(play, Pods::of_both_kinds()).await?;
    network::partition()?;
    play.say("the node is disconnected");
    tokio::time::sleep(OUTAGE).await;
    let before: Vec<usize> = pods.iter().map(|(_, pod)| received(play, pod)).collect();
    network::heal()?;
    play.say("the node is connected again");
    for ((name, pod), before) in pods.iter().zip(before) {
        play.service
            .wait_for("heartbeats after the partition", super::play::LIMIT, |_| {
                received(play, pod) > before + 1
            })
            .await?;
        play.say(&format!("heartbeats of {name} arrive again"));
    }
    pods.end_mains(play).await?;
    pods.ended(play, PROMPT).await
}

pub(super) async fn partition_at_the_end(play: &Play, _: Kind) -> Result<(), Error> {
    let pods = Pods::running(play, Pods::with_markers_too()).await?;
    network::partition()?;
    play.say("the node is disconnected");
    pods.end_mains(play).await?;
    for (_, pod) in pods.iter().filter(|(name, _)| name.starts_with("native")) {
        play.signalled(pod).await?;
    }
    // Less than the native sidecars' remaining grace period.
    tokio::time::sleep(Duration::from_secs(12)).await;
    network::heal()?;
    play.say("the node is connected again, within the grace");
    for (name, pod) in pods.iter() {
        let last = play.until_final(pod).await?;
        let code = last.exit_code("main");
        play.say(&format!(
            "the last heartbeat of {name} reports {code:?} for main"
        ));
        // A native sidecar may send before it reaches the API server again. Then it knows only a
        // marker's exit code.
        let known = code == Some(3) || (*name == "native" && code.is_none());
        expect(known, || format!("expected 3 for {name}: {last:?}"))?;
        let own = play.until_podbeat_ended(pod).await?;
        expect(own == 0, || format!("podbeat of {name} ended with {own}"))?;
        play.check(pod)?;
    }
    Ok(())
}

pub(super) async fn kubelet_restart(play: &Play, _: Kind) -> Result<(), Error> {
    let pods = Pods::running(play, Pods::of_both_kinds()).await?;
    play.stage.node.lock().await.kill_kubelet().await?;
    play.say("kubelet is killed");
    pods.end_mains(play).await?;
    let before: Vec<usize> = pods.iter().map(|(_, pod)| received(play, pod)).collect();
    for ((_, pod), before) in pods.iter().zip(before) {
        play.service
            .wait_for("heartbeats without kubelet", super::play::LIMIT, |_| {
                received(play, pod) > before + 2
            })
            .await?;
        let told = play
            .service
            .accepted()
            .into_iter()
            .any(|heartbeat| heartbeat.is_final());
        expect(!told, || {
            "only the kubelet could have reported an end".to_owned()
        })?;
    }
    play.stage.node.lock().await.start_kubelet()?;
    play.say("kubelet is back");
    pods.ended(play, PROMPT).await
}

/// The shortest lifetime that Kubernetes allows for a projected token, in seconds. kubelet replaces
/// the token after four fifths of it.
const TOKEN_LIFE: u32 = 600;

pub(super) async fn token_rotation(play: &Play, _: Kind) -> Result<(), Error> {
    let access = json!({"name": "kube-api-access", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_LIFE}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}});
    let mount = json!({"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                       "readOnly": true});
    let plans = Pods::of_both_kinds()
        .into_iter()
        .map(|(name, plan)| {
            (
                name,
                plan.with(json!({"automountServiceAccountToken": false}))
                    .volume(&access, &mount),
            )
        })
        .collect();
    let pods = Pods::running(play, plans).await?;
    let Some((_, first)) = pods.iter().next() else {
        return Ok(());
    };
    let token = || async {
        let node = play.stage.node.lock().await;
        node.read_from(&first.uid, "projected", "kube-api-access", "token")
    };
    let old = token().await?;
    let who = |token: String| async move {
        let cluster = play.stage.cluster.lock().await;
        cluster.client_of(&token).await
    };
    let begun = tokio::time::Instant::now();
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}",
        play.namespace.name, first.name
    );
    // A missing answer is no refusal: another scenario may cause an outage.
    let answer = |client: kube::Client| {
        let path = path.clone();
        async move {
            match client.request::<Value>(get(&path)).await {
                Ok(_) => Some(true),
                Err(kube::Error::Api(status)) if status.code == 401 => Some(false),
                Err(_) => None,
            }
        }
    };
    expect(answer(who(old.clone()).await?).await == Some(true), || {
        "the token is valid at first".to_owned()
    })?;
    let patience = Duration::from_secs(u64::from(TOKEN_LIFE) + 180);
    while token().await? == old {
        expect(begun.elapsed() < patience, || {
            "kubelet did not replace the token".to_owned()
        })?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    play.say(&format!(
        "kubelet replaced the token after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    let client = who(old).await?;
    while answer(client.clone()).await != Some(false) {
        expect(begun.elapsed() < patience, || {
            "the old token was not refused".to_owned()
        })?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    play.say(&format!(
        "the old token is refused after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    // Not during an outage of another scenario.
    let _calm = play.stage.calm.read().await;
    // A watch ends after at most 290 s. So each current watch was opened with the new token, or
    // soon will be. News must still arrive.
    pods.end_mains(play).await?;
    pods.ended(play, PROMPT).await
}
