//! Memory at rest: of one copy, and of each of many copies.

use std::time::Duration;

use super::{Measured, PATIENCE, Subject, median};
use crate::Error;
use crate::process::Sample;
use crate::world::World;

/// The time between heartbeats of a single copy: the shortest allowed interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// The number of heartbeats after which a copy is at rest.
const HEARTBEATS: u64 = 60;

/// The number of changes among them.
const CHANGES: usize = 5;

/// The number of copies. The median counts.
const COPIES: usize = 3;

/// The number of copies on one machine.
const CROWD: usize = 200;

/// The time between heartbeats of each of many copies, long enough that the machine isn't at its
/// limit.
const INTERVAL_IN_CROWD: Duration = Duration::from_secs(4);

pub(super) async fn measure(subject: &Subject) -> Result<Vec<Measured>, Error> {
    let (first, second, third) = tokio::try_join!(rest(subject), rest(subject), rest(subject))?;
    let samples: [Sample; COPIES] = [first, second, third];
    let middle = |size: fn(&Sample) -> u64| median(samples.iter().map(size).collect());
    Ok(vec![
        ("rss", middle(|sample| sample.rss)),
        ("peak", middle(|sample| sample.peak)),
    ])
}

async fn rest(subject: &Subject) -> Result<Sample, Error> {
    let world = World::start().await?;
    let mut member = world.add("alone");
    let running = subject.start(&world, &member, INTERVAL)?;
    for _ in 0..CHANGES {
        world
            .until_accepted(&member, world.count(&member).accepted + 5, PATIENCE)
            .await?;
        let change = world.change(&mut member);
        world.until_shown(&change, PATIENCE).await?;
    }
    let accepted = world.count(&member).accepted.max(HEARTBEATS) + 10;
    world.until_accepted(&member, accepted, PATIENCE).await?;
    running.sample()
}

/// The memory of each of many copies. Shared pages count once.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
pub(super) async fn crowd(subject: &Subject) -> Result<Vec<Measured>, Error> {
    let world = World::start().await?;
    let mut members = Vec::new();
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let member = world.add(&format!("one-of-many-{number}"));
        crowd.push(subject.start(&world, &member, INTERVAL_IN_CROWD)?);
        members.push(member);
    }
    world.until_all_accepted(&members, 2, 2 * PATIENCE).await?;
    let mut changes = Vec::new();
    for member in &mut members {
        changes.push(world.change(member));
    }
    for change in &changes {
        world.until_shown(change, PATIENCE).await?;
    }
    let all: Vec<u64> = members
        .iter()
        .map(|member| world.count(member).accepted)
        .collect();
    for (member, accepted) in members.iter().zip(all) {
        world.until_accepted(member, accepted + 1, PATIENCE).await?;
    }
    let mut pss = 0;
    for running in &crowd {
        pss += running.sample()?.pss;
    }
    Ok(vec![("crowd", pss as f64 / CROWD as f64)])
}
