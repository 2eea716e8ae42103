//! Wake-ups: a process that waits has no reason to run but an answer, an event, or a heartbeat that is due.

use std::time::Duration;

use podbeat_lab::kube_api;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Measured, PATIENCE, Subject};
use crate::Error;
use crate::world::World;

/// Between heartbeats, ±10 %.
const INTERVAL: Duration = Duration::from_millis(2500);

/// Heartbeats that are looked at.
const HEARTBEATS: u32 = 12;

/// After an accepted heartbeat all that it brings is over by then.
const SETTLED: Duration = Duration::from_millis(300);

/// Before the next heartbeat, whose time has a jitter of 10 %.
const BEFORE: Duration = Duration::from_millis(2100);

/// tokio keeps a timer that is more than 64 slots of 64 ms ahead in slots of this length, counted from the runtime's start, and
/// wakes at the slot's start to sort it anew. (tokio 1.x, runtime/time/wheel: 64 slots a level, 1 ms the finest.)
const STEP: Duration = Duration::from_millis(64 * 64);

/// How long after its start a process has a runtime, and is seen to have woken up.
const LATE: Duration = Duration::from_millis(150);

/// Between looks at a process that should sleep.
const LOOK: Duration = Duration::from_millis(5);

/// Between bookmarks where they are looked at.
const BOOKMARKS: Duration = Duration::from_millis(500);

/// Bookmarks that are looked at.
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
    /// Around a heartbeat.
    each: f64,
    /// Between heartbeats, of the timer wheel, an interval.
    steps: f64,
    /// Between heartbeats, for no reason that is known, all.
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
        let at = world.until_accepted(&member, accepted + 1, PATIENCE).await?;
        sleep_until(at + SETTLED).await;
        let (mut settled, asked_then) = (running.wake_ups()?, requests());
        // A question to the Kubernetes API, such as that of a watch that was silent for long, is a reason of its own.
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

/// How much of the step that is under way has passed.
fn into_step(since: Duration) -> Duration {
    let steps = since.as_nanos() / STEP.as_nanos();
    since.saturating_sub(STEP * u32::try_from(steps).unwrap_or(u32::MAX))
}

/// Wake-ups a bookmark, where nothing else happens.
async fn bookmarks(subject: &Subject) -> Result<f64, Error> {
    let world = World::with(kube_api::Options {
        bookmarks: BOOKMARKS,
        ..kube_api::Options::default()
    })
    .await?;
    let member = world.add("watching");
    let running = subject.start(&world, &member, Duration::from_secs(600))?;
    world.until_accepted(&member, 2, PATIENCE).await?;
    // Whatever the start brings is over.
    sleep(Duration::from_secs(2)).await;
    // From just behind a bookmark to just before one.
    let woken = running.wake_ups()?;
    let begun = Instant::now();
    while running.wake_ups()? == woken {
        if begun.elapsed() > PATIENCE {
            return Err(Error::InVain {
                what: "podbeat to wake up for a bookmark".to_owned(),
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
