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

/// Between bookmarks where they are looked at.
const BOOKMARKS: Duration = Duration::from_millis(500);

/// Bookmarks that are looked at.
const MARKED: u32 = 16;

pub(super) async fn measure(subject: &Subject) -> Result<Vec<Measured>, Error> {
    let (heartbeats, bookmark) = tokio::try_join!(heartbeats(subject), bookmarks(subject))?;
    let (a_heartbeat, idle) = heartbeats;
    Ok(vec![
        ("wake-ups", a_heartbeat),
        ("bookmark", bookmark),
        ("idle", idle),
    ])
}

/// Wake-ups a heartbeat, and those between heartbeats that nothing explains.
async fn heartbeats(subject: &Subject) -> Result<(f64, f64), Error> {
    let world = World::start().await?;
    let member = world.add("at-rest");
    let running = subject.start(&world, &member, INTERVAL)?;
    world.until_accepted(&member, 3, PATIENCE).await?;
    let requests = || world.lab().kube.seen().len();
    let (mut around, mut unexplained) = (0, 0);
    let mut counted = 0;
    while counted < HEARTBEATS {
        let accepted = world.count(&member).accepted;
        let (woken, asked) = (running.wake_ups()?, requests());
        let at = world.until_accepted(&member, accepted + 1, PATIENCE).await?;
        sleep_until(at + SETTLED).await;
        let (settled, asked_then) = (running.wake_ups()?, requests());
        sleep_until(at + BEFORE).await;
        // A question to the Kubernetes API, such as that of a watch that was silent for long, is a reason of its own.
        if asked == asked_then {
            around += settled.saturating_sub(woken);
            counted += 1;
        }
        if asked_then == requests() && world.count(&member).accepted == accepted + 1 {
            unexplained += running.wake_ups()?.saturating_sub(settled);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let figures = (around as f64 / f64::from(HEARTBEATS), unexplained as f64);
    Ok(figures)
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
