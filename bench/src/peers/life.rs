//! Checks that a subject does the work: one scripted life of a pod, which each subject must report
//! in the same way.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_lab::pod::{Pod, exit, restarted, running, terminated, waiting};
use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::measure::wrote;
use super::subject::{JOB_RETRY_COUNT, Prepared, Subject};
use super::{END, INTERVAL, PATIENCE};
use crate::Error;
use crate::process::Running;
use crate::world::{Member, World};

/// How long to listen after a subject's last heartbeat. A subject that continues sends again within
/// this time.
const SILENCE: Duration = Duration::from_millis(2500);

/// The end of the stand-in's message about a time whose offset isn't written as Z.
const NOT_IN_UTC: &str = "is not in UTC (no Z at its end)";

/// A state of `main`, in the pod and on the wire.
struct Step {
    /// The faults just before the step, in the fault language: of the Kubernetes API, and of the
    /// service.
    faults: (&'static str, &'static str),
    /// The status in the pod.
    shown: Value,
    /// The state in the heartbeat.
    told: Value,
}

impl Step {
    fn new(faults: (&'static str, &'static str), shown: Value) -> Self {
        let told = shown.get("state").cloned().unwrap_or_default();
        Self {
            faults,
            shown,
            told,
        }
    }
}

/// The life: a task fails, waits, is restarted, and succeeds. Meanwhile the service refuses once,
/// the API server loses its history, and the watch breaks. The pod restarts only failed containers.
fn script() -> Vec<Step> {
    let first = exit(3, "Error", "first");
    let again = |status: Value| restarted(status, 1, &first);
    vec![
        Step::new(("", ""), waiting("ContainerCreating")),
        Step::new(("", ""), running("2026-01-01T00:00:01Z")),
        Step::new(("", "heartbeat 503 x1"), terminated(3, "Error", "first")),
        Step::new(("watch gone", ""), again(waiting("CrashLoopBackOff"))),
        Step::new(("watch cut", ""), again(running("2026-01-01T00:01:02Z"))),
        Step::new(("", ""), again(terminated(0, "Completed", "second"))),
    ]
}

/// Plays the life with a subject, and reports all differences.
///
/// # Errors
/// The subject reports something else, or not in time.
pub async fn live(prepared: &Prepared, subject: Subject) -> Result<(), Error> {
    let world = World::start().await?;
    let member = world.add("life");
    let pod = Pod::new(member.pod(), &format!("uid-{}", member.pod())).policy("OnFailure");
    world.lab().kube.apply(pod.showing(&Value::Null));
    let mut running = prepared.start(subject, &world, &member, INTERVAL)?;
    let lived = through(&world, &member, &pod, &mut running).await;
    let status = lived.map_err(|error| wrote(error, subject, &running))?;

    let mut complaints = judge(&world.lab().service.heartbeats(), &member, &script());
    if status != Some(0) {
        complaints.push(format!("its exit status was {status:?}; expected 0"));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    complaints.push(format!("it wrote:\n{}", running.log()));
    Err(Error::Unfair {
        subject: subject.name(),
        complaints,
    })
}

async fn through(
    world: &World,
    member: &Member,
    pod: &Pod,
    running: &mut Running,
) -> Result<Option<i32>, Error> {
    world.until_accepted(member, 1, PATIENCE).await?;
    let watched = world
        .lab()
        .kube
        .wait_for("an open watch", PATIENCE, |kube| kube.open_watches() > 0);
    watched.await?;
    for step in script() {
        let (kube, service) = step.faults;
        world.kube_faults().script(kube)?;
        world.service_faults().script(service)?;
        world.lab().kube.apply(pod.showing(&step.shown));
        let what = format!("an accepted heartbeat with {}", step.told);
        let told = plain(&step.told);
        let is_told = |heartbeats: &[Heartbeat]| {
            let mut accepted = heartbeats.iter().filter(|heartbeat| heartbeat.accepted);
            accepted.any(|heartbeat| main(&heartbeat.body).as_ref() == Some(&told))
        };
        world
            .lab()
            .service
            .wait_for(&what, PATIENCE, is_told)
            .await?;
    }
    let is_final = |heartbeats: &[Heartbeat]| {
        heartbeats
            .iter()
            .any(|beat| beat.accepted && beat.is_final())
    };
    let service = &world.lab().service;
    service
        .wait_for("the last heartbeat", PATIENCE, is_final)
        .await?;
    // A fixed wait, because the expected event is that nothing arrives.
    sleep(SILENCE).await;
    running.terminate()?;
    Ok(running.ended(END).await?.code())
}

/// The problems in a life's heartbeats.
fn judge(received: &[Heartbeat], member: &Member, script: &[Step]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut wrong = |is_wrong: bool, what: String| {
        if is_wrong {
            complaints.push(what);
        }
    };
    let accepted: Vec<&Heartbeat> = received
        .iter()
        .filter(|heartbeat| heartbeat.accepted)
        .collect();

    let mut told: Vec<Value> = accepted
        .iter()
        .filter_map(|heartbeat| main(&heartbeat.body))
        .collect();
    told.dedup();
    let expected: Vec<Value> = script.iter().map(|step| plain(&step.told)).collect();
    wrong(
        told != expected,
        format!(
            "the states of main were {}; expected {}",
            json!(told),
            json!(expected)
        ),
    );

    let finals = accepted
        .iter()
        .filter(|heartbeat| heartbeat.is_final())
        .count();
    wrong(
        finals != 1,
        format!("{finals} last heartbeats were accepted; expected one"),
    );
    let is_last = received.last().is_some_and(Heartbeat::is_final);
    wrong(
        !is_last,
        "a request arrived after the last heartbeat".to_owned(),
    );

    for heartbeat in received {
        let says = |name: &str, value: Value| heartbeat.body.get(name) == Some(&value);
        let is_whole = says("podName", json!(member.pod()))
            && says("podUID", json!(format!("uid-{}", member.pod())))
            && says("jobRetryCount", json!(JOB_RETRY_COUNT))
            && !heartbeat.nonce().is_empty();
        wrong(
            !is_whole,
            format!("a heartbeat is incomplete: {}", heartbeat.body),
        );
        // The contract accepts times with any offset. The stand-in requires Z only from podbeat.
        let broken: Vec<&String> = heartbeat
            .violations
            .iter()
            .filter(|violation| !violation.ends_with(NOT_IN_UTC))
            .collect();
        wrong(
            !broken.is_empty(),
            format!("a heartbeat violates the contract: {broken:?}"),
        );
    }
    for (at, heartbeat) in received.iter().enumerate() {
        let earlier = received
            .iter()
            .take(at)
            .any(|other| other.nonce() == heartbeat.nonce());
        let is_retry = at
            .checked_sub(1)
            .and_then(|before| received.get(before))
            .is_some_and(|before| !before.accepted);
        wrong(
            earlier && !is_retry,
            format!(
                "heartbeat {} repeats the nonce {:?} of an accepted heartbeat",
                at + 1,
                heartbeat.nonce()
            ),
        );
    }
    complaints
}

/// The state of `main` in a heartbeat, in comparable form.
fn main(body: &Value) -> Option<Value> {
    let statuses = body.get("containerStatus")?.as_array()?;
    let main = statuses
        .iter()
        .find(|status| status.get("name") == Some(&json!("main")));
    Some(plain(main?.get("state")?))
}

/// A state with its times in one form, because the contract allows several for the same moment.
fn plain(state: &Value) -> Value {
    match state {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) => json!(at.to_string()),
            Err(_) => state.clone(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(number: usize, state: Option<&Value>, members: &Value) -> Heartbeat {
        let mut body = json!({"podName": "life", "podUID": "uid-life", "jobRetryCount": 2, "nonce": format!("n{number}")});
        if let (Some(body), Some(members)) = (body.as_object_mut(), members.as_object()) {
            if let Some(state) = state {
                body.insert(
                    "containerStatus".to_owned(),
                    json!([{"name": "main", "state": state}]),
                );
            }
            body.extend(members.clone());
        }
        Heartbeat {
            at: Duration::ZERO,
            run_id: "trn.life".to_owned(),
            path: String::new(),
            body,
            token: None,
            content_type: None,
            user_agent: None,
            traceparent: None,
            status: Some(200),
            retry_after: None,
            accepted: true,
            violations: Vec::new(),
        }
    }

    /// A correct life: each state twice, one retry, times in another form.
    async fn good() -> (Vec<Heartbeat>, Member) {
        let world = World::start().await.expect("a world");
        let member = world.add("life");
        let mut all = vec![beat(0, None, &json!({}))];
        let states: Vec<Value> = script().into_iter().map(|step| step.told).collect();
        for (at, state) in states.iter().enumerate() {
            all.push(beat(2 * at + 1, Some(state), &json!({})));
            all.push(beat(2 * at + 2, Some(state), &json!({})));
        }
        let last = all.len() - 1;
        all[last].body["lastHeartbeat"] = json!(true);
        all[3].accepted = false;
        all[4].body["nonce"] = json!("n3");
        all[4].body["containerStatus"][0]["state"]["running"]["startedAt"] =
            json!("2026-01-01T01:00:01+01:00");
        (all, member)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_correct_life_has_no_complaint_and_each_fault_has_one() {
        let (good, member) = good().await;
        let judged = |received: &[Heartbeat]| judge(received, &member, &script());
        assert_eq!(judged(&good), Vec::<String>::new());

        let spoiled = |spoil: &dyn Fn(&mut Vec<Heartbeat>)| {
            let mut received = good.clone();
            spoil(&mut received);
            judged(&received).join("; ")
        };
        let last = good.len() - 1;
        // A missing state, a repeated one, and a different one.
        assert!(spoiled(&|received| drop(received.drain(5..7))).contains("states of main"));
        assert!(
            spoiled(&|received| received[7].body["containerStatus"] =
                received[1].body["containerStatus"].clone())
            .contains("states")
        );
        assert!(
            spoiled(
                &|received| received[5].body["containerStatus"][0]["state"]["terminated"]["exitCode"] =
                    json!(4)
            )
            .contains("states")
        );
        // No last heartbeat, two of them, and a heartbeat after the last one.
        assert!(spoiled(&|received| drop(received.pop())).contains("0 last heartbeats"));
        assert!(
            spoiled(&|received| received[last - 1].body["lastHeartbeat"] = json!(true))
                .contains("2 last")
        );
        assert!(
            spoiled(&|received| received.push(beat(99, None, &json!({}))))
                .contains("after the last")
        );
        // Identity, the contract, and nonces.
        assert!(
            spoiled(&|received| received[2].body["jobRetryCount"] = json!(0))
                .contains("incomplete")
        );
        assert!(
            spoiled(&|received| received[2].violations.push("no".to_owned())).contains("contract")
        );
        assert!(spoiled(&|received| received[6].body["nonce"] = json!("n5")).contains("nonce"));
    }
}
