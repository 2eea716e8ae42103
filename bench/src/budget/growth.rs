//! Memory growth over many heartbeats with outages in between.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Measured, PATIENCE, Subject, median};
use crate::Error;
use crate::process::Running;
use crate::world::{Member, World};

/// The time between periodic heartbeats. In between, each change is made as soon as the previous
/// one was accepted.
const INTERVAL: Duration = Duration::from_millis(100);

/// The limit for one attempt: short, so that podbeat soon gives up a hanging one.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The shortest length of an outage.
const OUTAGE: Duration = Duration::from_millis(1200);

/// The smallest number of changes in one outage: more than the outbox's limit of 64.
const CHANGES: u32 = 80;

/// The time between changes in an outage.
const PAUSE: Duration = Duration::from_millis(15);

/// The number of heartbeats between looks at the process.
const LOOK: u64 = 100;

/// The faults of the outages: first of the service, then of the Kubernetes API.
const OUTAGES: [&str; 10] = [
    "heartbeat 503 until-lifted",
    "heartbeat hang until-lifted",
    "heartbeat hang-lost until-lifted",
    "heartbeat refuse until-lifted",
    "heartbeat drop until-lifted",
    "heartbeat 429 retry-after=1s until-lifted",
    "any 503 until-lifted; watch cut x1",
    "any refuse until-lifted; watch cut x1",
    "watch gone x3",
    "watch garbage x2",
];

/// The index of the first of [`OUTAGES`] that affects the Kubernetes API.
const KUBERNETES: usize = 6;

/// The length of the measurement, in heartbeats.
struct Length {
    /// All heartbeats.
    heartbeats: u64,
    /// The first look that counts. Until then, every situation occurred once, and everything has
    /// its full size.
    warm: u64,
    /// The number of heartbeats that are measured after `warm`, and before the end.
    span: u64,
}

const WHOLE: Length = Length {
    heartbeats: 20_000,
    warm: 2_000,
    span: 2_000,
};
const QUICK: Length = Length {
    heartbeats: 5_000,
    warm: 1_000,
    span: 500,
};

pub(super) async fn measure(
    subject: &Subject,
    quick: bool,
    tell: impl Fn(&str),
) -> Result<Vec<Measured>, Error> {
    let length = if quick { QUICK } else { WHOLE };
    let world = World::start().await?;
    let mut member = world.add("long");
    let mut settings = world.settings(&member, INTERVAL);
    settings.insert(
        "PODBEAT_TIMEOUT".to_owned(),
        format!("{}ms", TIMEOUT.as_millis()),
    );
    let log = world.path("long.log");
    let running = Running::start(&subject.program, &subject.arguments, &settings, &log)?;
    world.until_accepted(&member, 1, PATIENCE).await?;
    let mut stretches = Vec::new();
    let begun = Instant::now();
    // Each outage occurs once during the warm-up, and once more before the final measurement.
    let outages = outages_at(100, length.warm).chain(outages_at(
        length.warm + length.span,
        length.heartbeats - length.span,
    ));
    for (at, outage, script) in outages {
        stretches.push(stretch(&world, &mut member, &running, at).await?);
        endure(&world, &mut member, outage, script).await?;
    }
    stretches.push(stretch(&world, &mut member, &running, length.heartbeats).await?);
    let within = |from: u64, to: u64| {
        let inside = stretches
            .iter()
            .flatten()
            .filter(|look| (from..=to).contains(&look.at));
        median(inside.map(|look| look.dirty).collect())
    };
    let first = within(length.warm, length.warm + length.span);
    let last = within(length.heartbeats - length.span, length.heartbeats);
    let between: f64 = stretches
        .iter()
        .map(|looks| growth(looks, length.warm))
        .sum();
    let course: Vec<String> = (0..length.heartbeats / length.span)
        .map(|part| within(part * length.span, (part + 1) * length.span))
        .map(|dirty| format!("{:.0}", dirty / 1024.0))
        .collect();
    tell(&format!(
        "growth: private dirty memory in KiB, every {} heartbeats: {}; {} heartbeats received in {:.0} s",
        length.span,
        course.join(" "),
        world.count(&member).received,
        begun.elapsed().as_secs_f64()
    ));
    Ok(vec![("growth", between), ("outages", last - first)])
}

/// One look at the process.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The number of accepted heartbeats.
    at: u64,
    /// Private dirty memory, in bytes.
    dirty: u64,
}

/// The growth of a process over one stretch without an outage, in bytes, from `warm` heartbeats on.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
fn growth(looks: &[Look], warm: u64) -> f64 {
    let mut warm = looks.iter().filter(|look| look.at >= warm);
    let first = warm.next();
    first
        .zip(warm.next_back())
        .map_or(0.0, |(first, last)| last.dirty as f64 - first.dirty as f64)
}

/// The outages, spread evenly over these heartbeats.
fn outages_at(from: u64, to: u64) -> impl Iterator<Item = (u64, usize, &'static str)> {
    let between = (to - from) / OUTAGES.len() as u64;
    let at = (0..).map(move |number| from + number * between);
    at.zip(OUTAGES.iter().enumerate())
        .map(|(at, (outage, script))| (at, outage, *script))
}

/// Makes one change after the other, until this many heartbeats were accepted. At the first look,
/// the effects of an earlier outage are over.
async fn stretch(
    world: &World,
    member: &mut Member,
    running: &Running,
    until: u64,
) -> Result<Vec<Look>, Error> {
    let mut looks = Vec::new();
    let mut next_look = world.count(member).accepted + LOOK;
    loop {
        let accepted = world.count(member).accepted;
        if accepted >= next_look {
            looks.push(Look {
                at: accepted,
                dirty: running.sample()?.private_dirty,
            });
            next_look = accepted + LOOK;
        }
        if accepted >= until {
            return Ok(looks);
        }
        world.exit(member);
        world.until_accepted(member, accepted + 1, PATIENCE).await?;
    }
}

/// Plays an outage, and waits until a heartbeat shows a change that was made after it.
async fn endure(
    world: &World,
    member: &mut Member,
    outage: usize,
    script: &str,
) -> Result<(), Error> {
    let faults = if outage < KUBERNETES {
        world.service_faults()
    } else {
        world.kube_faults()
    };
    faults.script(script)?;
    let begun = Instant::now();
    let mut changes = 0;
    while changes < CHANGES || begun.elapsed() < OUTAGE {
        world.exit(member);
        changes += 1;
        sleep(PAUSE).await;
    }
    faults.lift_all();
    let change = world.exit(member);
    world.until_shown(&change, 2 * PATIENCE).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_grows_from_its_first_warm_sample_to_its_last() {
        let looks =
            [(100, 50), (200, 60), (300, 90), (400, 75)].map(|(at, dirty)| Look { at, dirty });
        assert_eq!(growth(&looks, 0), 25.0);
        assert_eq!(growth(&looks, 150), 15.0);
        assert_eq!(growth(&looks, 400), 0.0);
        assert_eq!(growth(&[], 0), 0.0);
    }

    #[test]
    fn outages_are_spread_over_the_heartbeats() {
        let at: Vec<u64> = outages_at(100, 2_000).map(|(at, ..)| at).collect();
        assert_eq!(at.len(), OUTAGES.len());
        assert!(at.iter().all(|at| (100..2_000).contains(at)), "{at:?}");
    }
}
