//! Wake-ups: a waiting process only has a reason to run for an answer, an event, or a due
//! heartbeat.

use std::time::Duration;

use podbeat_lab::kube_api;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Measured, PATIENCE, Subject};
use crate::Error;
use crate::world::World;

/// The time between heartbeats, ±10 %.
const INTERVAL: Duration = Duration::from_millis(2500);

/// The number of measured heartbeats.
const HEARTBEATS: u32 = 12;

/// The time after an accepted heartbeat within which all its work ends.
const SETTLED: Duration = Duration::from_millis(300);

/// The time until shortly before the next heartbeat, whose time has a jitter of 10 %.
const BEFORE: Duration = Duration::from_millis(2100);

/// The slot length of tokio's timer wheel for a timer that is more than 64 slots of 64 ms ahead.
/// Slots are counted from the runtime's start. tokio wakes at a slot's start to sort its timers
/// again. (tokio 1.x, runtime/time/wheel: 64 slots per level, 1 ms in the finest.)
const STEP: Duration = Duration::from_millis(64 * 64);

/// The delay from a process's start until its runtime starts, plus the delay until a wake-up is
/// visible.
const LATE: Duration = Duration::from_millis(150);

/// The time between looks at a process that should sleep.
const LOOK: Duration = Duration::from_millis(5);

/// The time between bookmarks in the measurement of bookmarks.
const BOOKMARKS: Duration = Duration::from_millis(500);

/// The number of measured bookmarks.
const MARKED: u32 = 16;

pub(super) async fn measure(subject: &Subject) -> Result<Vec<Measured>, Error> {
    let (heartbeats, bookmark) = tokio::try_join!(heartbeats(subject), bookmarks(subject))?;
    Ok(vec![
        ("wake-ups", heartbeats.each),
        ("bookmark", bookmark),
        ("idle", heartbeats.unexplained),
        ("steps", heartbeats.steps),
    ])
}

/// Wake-ups of a copy whose pod doesn't change.
struct AtRest {
    /// For each heartbeat.
    each: f64,
    /// Of the timer wheel between heartbeats, for each interval.
    steps: f64,
    /// All wake-ups between heartbeats without a known reason.
    unexplained: f64,
}

async fn heartbeats(subject: &Subject) -> Result<AtRest, Error> {
    let world = World::start().await?;
    let member = world.add("at-rest");
    let started = Instant::now();
    let running = subject.start(&world, &member, INTERVAL)?;
    world.until_accepted(&member, 3, PATIENCE).await?;
    let requests = || world.lab().kube.seen().len();
    let (mut around, mut steps, mut unexplained) = (0, 0, 0);
    let (mut heartbeats, mut intervals) = (0_u32, 0_u32);
    while heartbeats < HEARTBEATS || intervals < HEARTBEATS {
        let accepted = world.count(&member).accepted;
        let (woken, asked) = (running.wake_ups()?, requests());
        let at = world
            .until_accepted(&member, accepted + 1, PATIENCE)
            .await?;
        sleep_until(at + SETTLED).await;
        let (mut settled, asked_then) = (running.wake_ups()?, requests());
        // A request to the Kubernetes API, for example after a long silence of the watch, is
        // another reason to wake up.
        if asked == asked_then {
            around += settled.saturating_sub(woken);
            heartbeats += 1;
        }
        let (mut step, mut unknown) = (0, 0);
        while at.elapsed() < BEFORE {
            sleep(LOOK).await;
            let now = running.wake_ups()?;
            let since = into_step(started.elapsed());
            if since <= LATE {
                step += now.saturating_sub(settled);
            } else {
                unknown += now.saturating_sub(settled);
            }
            settled = now;
        }
        if asked_then == requests() && world.count(&member).accepted == accepted + 1 {
            steps += step;
            unexplained += unknown;
            intervals += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let at_rest = AtRest {
        each: around as f64 / f64::from(heartbeats),
        steps: steps as f64 / f64::from(intervals),
        unexplained: unexplained as f64,
    };
    Ok(at_rest)
}

/// The time since the start of the current slot.
fn into_step(since: Duration) -> Duration {
    let steps = since.as_nanos() / STEP.as_nanos();
    since.saturating_sub(STEP * u32::try_from(steps).unwrap_or(u32::MAX))
}

/// Wake-ups for each bookmark, while nothing else happens.
async fn bookmarks(subject: &Subject) -> Result<f64, Error> {
    let world = World::with(kube_api::Options {
        bookmarks: BOOKMARKS,
        ..kube_api::Options::default()
    })
    .await?;
    let member = world.add("watching");
    let running = subject.start(&world, &member, Duration::from_secs(600))?;
    world.until_accepted(&member, 2, PATIENCE).await?;
    // The work of the start is over.
    sleep(Duration::from_secs(2)).await;
    // From just after a bookmark to just before one.
    let woken = running.wake_ups()?;
    let begun = Instant::now();
    while running.wake_ups()? == woken {
        if begun.elapsed() > PATIENCE {
            return Err(Error::InVain {
                what: "a wake-up for a bookmark".to_owned(),
                waited: PATIENCE,
                seen: format!("it wrote:\n{}", running.log()),
            });
        }
        sleep(Duration::from_millis(2)).await;
    }
    let woken = running.wake_ups()?;
    sleep(BOOKMARKS * MARKED + BOOKMARKS / 2).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let wake_ups = running.wake_ups()?.saturating_sub(woken) as f64;
    Ok(wake_ups / f64::from(MARKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_from_the_start() {
        for (since, into) in [(0, 0), (4095, 4095), (4096, 0), (9000, 808)] {
            assert_eq!(
                into_step(Duration::from_millis(since)),
                Duration::from_millis(into)
            );
        }
    }
}
