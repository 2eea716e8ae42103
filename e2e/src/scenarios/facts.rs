//! Pins the facts about Kubernetes that podbeat relies on (docs/kubernetes-facts.md). A failure
//! says which fact changed and what depends on it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::play::{Play, expect, seconds};
use super::pods::{Container, Kind, Plan};
use super::recording::{exit_code, state, status};
use crate::Error;

/// Fails with a message about a fact.
fn fact(number: u8, holds: bool, rests: &str, seen: impl FnOnce() -> String) -> Result<(), Error> {
    expect(holds, || {
        format!(
            "fact {number} of the design is no longer true on this Kubernetes: {}. It affects: {rests}",
            seen()
        )
    })
}

fn has_ended(pod: &Value, container: &str) -> bool {
    exit_code(pod, container).is_some()
}

/// When a container wrote this line, by the runtime's clock.
fn wrote(play: &Play, uid: &str, container: &str, text: &str) -> Result<Timestamp, Error> {
    let log = play.recording.log(uid, container);
    log.iter()
        .find(|(_, line)| line == text)
        .map(|(at, _)| *at)
        .ok_or_else(|| Error::Unexpected(format!("{container} didn't write {text:?}: {log:?}")))
}

/// Fact 1, for a deletion and for a deadline.
pub(super) async fn withheld(play: &Play, _: Kind) -> Result<(), Error> {
    const RESTS: &str = "podbeat sends the last states it knows (crates/heartbeat/src/machine/mod.rs), and exit markers exist";
    let containers = || {
        vec![
            Container::new("main", "trap 'echo ends; exit 5' TERM; sleep 1000 & wait"),
            Container::new("slow", "trap 'sleep 5; exit 6' TERM; sleep 1000 & wait"),
        ]
    };
    let deleted = play
        .pod("deleted", &Plan::of(Kind::Native, containers()))
        .await?;
    play.until_told(&deleted, "slow", "running").await?;
    play.namespace.delete_pod("deleted", 30).await?;
    play.say("the pod is deleted, with 30 s of grace; main ends at once, slow 5 s later");
    play.until_gone(&deleted).await?;
    let late = Plan::of(Kind::Native, containers()).with(json!({"activeDeadlineSeconds": 15}));
    let late = play.pod("late", &late).await?;
    play.recording
        .until("the pod failed", super::play::LIMIT, |seen| {
            seen.uid() == late.uid && seen.pod().pointer("/status/phase") == Some(&json!("Failed"))
        })
        .await?;
    for pod in [&deleted, &late] {
        let of_pod: Vec<_> = play
            .recording
            .seen()
            .into_iter()
            .filter(|seen| seen.uid() == pod.uid)
            .collect();
        let published = of_pod.iter().find(|seen| has_ended(seen.pod(), "main"));
        let ended = wrote(play, &pod.uid, "main", "ends")?;
        match published {
            Some(seen) => {
                let after = seconds(ended, seen.at);
                let all = ["main", "slow", "podbeat"]
                    .iter()
                    .all(|name| has_ended(seen.pod(), name));
                play.say(&format!(
                    "{}: main's end was published {after:.3} s after it, together with all others",
                    pod.name
                ));
                fact(1, all && after > 4.0, RESTS, || {
                    format!(
                        "main's exit was published {after:.1} s after it, before every container was dead: {}",
                        super::recording::told(seen.pod())
                    )
                })?;
            }
            None => play.say(&format!("{}: main's end was never published", pod.name)),
        }
        let phase = |seen: &super::recording::Seen| {
            matches!(
                seen.pod().pointer("/status/phase").and_then(Value::as_str),
                Some("Failed" | "Succeeded")
            )
        };
        let early = of_pod
            .iter()
            .find(|seen| phase(seen) && !has_ended(seen.pod(), "podbeat"));
        // Some versions set a deadline's phase at once. The pinned fact is that no exit comes with
        // it.
        if let Some(early) = early {
            let none = !has_ended(early.pod(), "main");
            play.say(&format!(
                "{}: the phase was terminal before podbeat ended; no exit with it: {none}",
                pod.name
            ));
        }
    }
    Ok(())
}

/// Fact 2.
pub(super) async fn sigterm_and_event(play: &Play, _: Kind) -> Result<(), Error> {
    const RESTS: &str =
        "after SIGTERM a native sidecar waits at most a second for the event (NATIVE_SETTLE)";
    let mut lags = Vec::new();
    for nth in 0..3 {
        let name = format!("task{nth}");
        let pod = play
            .pod(
                &name,
                &Plan::new(Kind::Native, "sleep 2; echo ends; exit 3"),
            )
            .await?;
        let shown = play
            .recording
            .until("main's end", super::play::LIMIT, |seen| {
                seen.uid() == pod.uid && has_ended(seen.pod(), "main")
            })
            .await?;
        let signalled = play.signalled(&pod).await?;
        let lag = seconds(signalled, shown.at);
        play.say(&format!(
            "{name}: the event of main's end came {:+.1} ms after SIGTERM",
            lag * 1000.0
        ));
        fact(2, lag.abs() < 1.0, RESTS, || {
            format!("SIGTERM and the event are {lag:.3} s apart")
        })?;
        let last = play.until_final(&pod).await?;
        expect(last.exit_code("main") == Some(3), || {
            format!("SIGTERM never ends the watch: {last:?}")
        })?;
        lags.push(lag);
        play.until_podbeat_ended(&pod).await?;
    }
    let before = lags.iter().filter(|lag| **lag > 0.0).count();
    play.say(&format!("SIGTERM came first in {before} of {}", lags.len()));
    Ok(())
}

/// Fact 3.
pub(super) async fn order_of_the_end(play: &Play, _: Kind) -> Result<(), Error> {
    const RESTS: &str = "podbeat is the first of the initContainers, waits after the last heartbeat, and plans with the \
                         remaining 2 s (LATE_GRACE)";
    let ticks = "trap 'echo signalled' TERM; while :; do echo tick; sleep 0.1; done";
    let stubborn = Container::new("stubborn", ticks).with(json!({"restartPolicy": "Always"}));

    // A native sidecar gets SIGTERM after the task ended. The first declared one is stopped last.
    let other = Container::new(
        "other",
        "trap 'echo signalled; sleep 1; echo ends; exit 0' TERM; sleep 1000 & wait",
    )
    .with(json!({"restartPolicy": "Always"}));
    let plan = Plan::new(Kind::Native, "sleep 2; echo ends").init(other);
    let pod = play.pod("order", &plan).await?;
    let own = play.until_podbeat_ended(&pod).await?;
    let signalled = play.signalled(&pod).await?;
    let (main, other) = (
        wrote(play, &pod.uid, "main", "ends")?,
        wrote(play, &pod.uid, "other", "ends")?,
    );
    play.say(&format!(
        "podbeat got SIGTERM {:.3} s after main's end and {:.3} s after the end of the sidecar that is declared after it",
        seconds(main, signalled),
        seconds(other, signalled)
    ));
    fact(
        3,
        signalled > main && signalled > other && own == 0,
        RESTS,
        || {
            format!(
                "podbeat's SIGTERM came at {signalled}, main ended at {main}, the other sidecar at {other}"
            )
        },
    )?;

    // Once the grace period is used up, all sidecars get SIGTERM at once, and SIGKILL two seconds
    // later.
    let plan = Plan::new(
        Kind::Native,
        "trap '' TERM; echo runs; while :; do sleep 1; done",
    )
    .init(stubborn)
    .grace(4);
    let pod = play.pod("late", &plan).await?;
    play.until_told(&pod, "main", "running").await?;
    play.namespace.delete_pod("late", 4).await?;
    let deleted = Timestamp::now();
    play.until_gone(&pod).await?;
    let signalled = play.signalled(&pod).await?;
    let other = wrote(play, &pod.uid, "stubborn", "signalled")?;
    let log = play.recording.log(&pod.uid, "stubborn");
    let Some((killed, _)) = log.last() else {
        return Err(Error::Unexpected(
            "the stubborn sidecar wrote nothing".to_owned(),
        ));
    };
    let left = seconds(other, *killed);
    play.say(&format!(
        "grace 4 s: podbeat got SIGTERM {:.3} s after the deletion, the other sidecar {:+.3} s relative to it, and SIGKILL \
         {left:.3} s later",
        seconds(deleted, signalled),
        seconds(signalled, other),
    ));
    fact(
        3,
        seconds(deleted, signalled) > 3.0 && (1.5..4.0).contains(&left),
        RESTS,
        || {
            format!(
                "SIGTERM {:.1} s after the deletion, SIGKILL {left:.1} s later",
                seconds(deleted, signalled)
            )
        },
    )?;
    play.check(&pod)?;

    // The kubelet restarts a native sidecar that ends earlier.
    let short = Container::new("short", "sleep 1").with(json!({"restartPolicy": "Always"}));
    let pod = play
        .pod("restarted", &Plan::new(Kind::Native, "sleep 8").init(short))
        .await?;
    let again = play
        .recording
        .until(
            "a restart of the sidecar that ends",
            super::play::LIMIT,
            |seen| {
                seen.uid() == pod.uid
                    && status(seen.pod(), "short")
                        .and_then(|status| status.get("restartCount")?.as_i64())
                        > Some(0)
            },
        )
        .await;
    fact(3, again.is_ok(), RESTS, || {
        "a native sidecar that ended with 0 was not started again".to_owned()
    })?;
    play.say("a native sidecar that ends with 0 is started again");

    // A plain sidecar gets no signal when the task is done.
    let pod = play
        .pod("plain", &Plan::new(Kind::Plain, "sleep 2"))
        .await?;
    play.until_podbeat_ended(&pod).await?;
    let received = play
        .podbeat_log(&pod)
        .iter()
        .any(|(_, line)| line.to_string().contains("received SIGTERM"));
    fact(3, !received, RESTS, || {
        "a plain sidecar got SIGTERM on completion".to_owned()
    })?;
    play.say("a plain sidecar gets no SIGTERM on completion, and exits by itself");

    // On deletion it gets SIGTERM together with the task.
    let main = "trap 'echo signalled; sleep 3; exit 5' TERM; sleep 1000 & wait";
    let pod = play
        .pod("together", &Plan::new(Kind::Plain, main).grace(10))
        .await?;
    play.until_told(&pod, "main", "running").await?;
    play.namespace.delete_pod("together", 10).await?;
    let signalled = play.signalled(&pod).await?;
    play.until_gone(&pod).await?;
    let main = wrote(play, &pod.uid, "main", "signalled")?;
    play.say(&format!(
        "on deletion a plain sidecar got SIGTERM {:+.3} s after main",
        seconds(main, signalled)
    ));
    let together = seconds(main, signalled).abs() < 1.0;
    fact(3, together, RESTS, || {
        format!("podbeat at {signalled}, main at {main}")
    })
}

/// Fact 5.
pub(super) async fn last_state(play: &Play, _: Kind) -> Result<(), Error> {
    const RESTS: &str =
        "podbeat reports an exit between two updates from lastState (queue_lost_exits)";
    let script =
        "[ -e /scratch/second ] && exec sleep 1000; echo > /scratch/second; sleep 1; exit 9";
    let pod = play
        .pod(
            "task",
            &Plan::new(Kind::Native, script).restart("OnFailure"),
        )
        .await?;
    let again = play
        .until("main's second run", |pod| {
            state(pod, "main").is_some_and(|(state, _)| state == "running")
                && status(pod, "main").and_then(|status| status.get("restartCount")?.as_i64())
                    == Some(1)
        })
        .await?;
    let last = status(again.pod(), "main")
        .and_then(|status| status.pointer("/lastState/terminated"))
        .cloned();
    play.say(&format!(
        "in its second run main's lastState.terminated is {}",
        last.clone().unwrap_or_default()
    ));
    let code = last
        .as_ref()
        .and_then(|last| last.get("exitCode"))
        .and_then(Value::as_i64);
    fact(5, code == Some(9), RESTS, || {
        format!("lastState is {last:?} while main runs again")
    })?;
    play.until_heard(&pod, "the exit code 9", |heartbeat| {
        heartbeat.exit_code("main") == Some(9)
    })
    .await?;
    play.namespace.delete_pod("task", 2).await?;
    play.until_final(&pod).await?;
    play.until_gone(&pod).await?;
    play.check(&pod)?;
    Ok(())
}
