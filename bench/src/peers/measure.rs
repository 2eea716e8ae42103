//! The rounds, and the rest. Each subject of a round has stand-ins of its own and the machine for itself; at rest all of them are
//! there at once, since only their own time and wake-ups are counted.

use std::path::Path;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::results::{Metric, Results, percentile};
use super::subject::{Prepared, Subject, look};
use super::{END, INTERVAL, PATIENCE};
use crate::Error;
use crate::process::Running;
use crate::world::{Member, World};

/// podbeat's default interval, and that of its peers.
const RESTING: Duration = Duration::from_secs(30);

/// How many heartbeats an hour has at that interval.
const BEATS_AN_HOUR: f64 = 120.0;

/// After a change, before the next one. podbeat collects what follows a heartbeat within 250 ms, and these are to be lone changes;
/// below the shortest time between two heartbeats without a change, so that none of those meets one.
const BETWEEN_CHANGES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(337),
    Duration::from_millis(374),
    Duration::from_millis(411),
];

/// A heartbeat's answer is read and its garbage is gone by then; the next one isn't due yet.
const SETTLED: Duration = Duration::from_millis(200);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds: in each, every subject has its turn.
    pub rounds: usize,
    /// Starts of each subject in a round.
    pub starts: usize,
    /// Changes in a round that aren't measured, since the first ones find everything cold.
    pub warm_up: usize,
    /// Changes in a round.
    pub changes: usize,
    /// Heartbeats without a change in a round, whose CPU time is measured. None for not at all.
    pub beats: u64,
    /// Copies of each subject at rest. None for not at all.
    pub resting: usize,
    /// Heartbeats of each of them, whose CPU time and wake-ups are measured.
    pub resting_beats: u64,
}

impl Plan {
    /// What the published figures are made with.
    pub const FULL: Self = Self {
        rounds: 3,
        starts: 5,
        warm_up: 5,
        changes: 100,
        beats: 20,
        resting: 3,
        resting_beats: 6,
    };

    /// For whoever changes the benchmark: no figure of it is worth telling.
    pub const QUICK: Self = Self {
        rounds: 1,
        starts: 2,
        warm_up: 2,
        changes: 10,
        beats: 5,
        resting: 0,
        resting_beats: 0,
    };

    /// What the ratios need that CI holds.
    pub const RATIOS: Self = Self {
        rounds: 5,
        starts: 5,
        warm_up: 5,
        changes: 20,
        beats: 0,
        resting: 0,
        resting_beats: 0,
    };

    /// For the JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "rounds": self.rounds, "startsARound": self.starts, "changesARound": self.changes,
            "heartbeatsARound": self.beats, "copiesAtRest": self.resting, "heartbeatsAtRest": self.resting_beats,
            "intervalSeconds": INTERVAL.as_secs(), "intervalAtRestSeconds": RESTING.as_secs(),
        })
    }
}

/// Measures the subjects. `tell` hears what is being done.
///
/// # Errors
/// A subject doesn't do its work.
pub async fn measure(
    prepared: &Prepared,
    subjects: &[Subject],
    plan: &Plan,
    tell: impl Fn(&str),
) -> Result<Results, Error> {
    let mut results = Results::default();
    for subject in subjects {
        results.add(*subject, Metric::Files, figure(prepared.size(*subject)?));
        if let Some(size) = prepared.image_size().filter(|_| *subject == Subject::Podbeat) {
            results.add(*subject, Metric::Image, figure(size));
        }
    }
    for round in 0..plan.rounds {
        let mut order = subjects.to_vec();
        // Rotated, so that nobody is always the first or always behind the same one.
        order.rotate_left(round % subjects.len().max(1));
        for subject in order {
            tell(&format!(
                "round {} of {}: {}",
                round + 1,
                plan.rounds,
                subject.title()
            ));
            results.extend(turn(prepared, subject, plan).await?);
        }
    }
    if plan.resting > 0 {
        tell(&format!(
            "at rest: {} copies of each, {} heartbeats at an interval of {} s",
            plan.resting,
            plan.resting_beats,
            RESTING.as_secs()
        ));
        results.extend(rest(prepared, subjects, plan).await?);
    }
    Ok(results)
}

/// One subject's turn in a round.
async fn turn(prepared: &Prepared, subject: Subject, plan: &Plan) -> Result<Results, Error> {
    let mut results = Results::default();
    let world = World::start().await?;
    for start in 0..=plan.starts {
        let member = world.add(&format!("start-{start}"));
        let (_running, took) = begin(prepared, subject, &world, &member, INTERVAL).await?;
        // The first one finds the stand-ins cold.
        if start > 0 {
            results.add(subject, Metric::FirstBeat, milliseconds(took));
        }
    }
    let mut member = world.add("steady");
    let (running, _) = begin(prepared, subject, &world, &member, INTERVAL).await?;
    let until_watched = world
        .lab()
        .kube
        .wait_for("an open watch", PATIENCE, |kube| kube.open_watches() > 0);
    until_watched.await?;

    for _ in 0..plan.warm_up {
        change(&world, &mut member).await?;
    }
    if plan.beats > 0 {
        let from = settled(&world, &member, 1).await?;
        let before = look(subject, &running)?;
        world
            .until_accepted(&member, from + plan.beats, patience_for(plan.beats, INTERVAL))
            .await?;
        let to = settled(&world, &member, 0).await?;
        let after = look(subject, &running)?;
        let cpu = milliseconds(after.cpu.saturating_sub(before.cpu));
        results.add(subject, Metric::CpuThousand, cpu / figure(to - from) * 1000.0);
    }

    let mut took = Vec::new();
    for number in 0..plan.changes {
        took.push(milliseconds(change(&world, &mut member).await?));
        let pause = BETWEEN_CHANGES.get(number % BETWEEN_CHANGES.len());
        sleep(pause.copied().unwrap_or(SETTLED)).await;
    }
    for (metric, percent) in [(Metric::ChangeP50, 50), (Metric::ChangeP99, 99)] {
        // Of fewer than a hundred changes the 99th percentile is the slowest one, and says nothing.
        if let Some(figure) = percentile(&took, percent).filter(|_| percent == 50 || took.len() >= 100) {
            results.add(subject, metric, figure);
        }
    }

    settled(&world, &member, 2).await?;
    let sample = look(subject, &running)?;
    results.add(subject, Metric::Rss, figure(sample.rss));
    results.add(subject, Metric::Pss, figure(sample.pss));
    results.add(subject, Metric::PrivateDirty, figure(sample.private_dirty));
    results.add(subject, Metric::Peak, figure(sample.peak));
    results.add(subject, Metric::Threads, figure(sample.threads));
    end(running, subject, &world, &member).await?;
    Ok(results)
}

/// All subjects at rest, with the default interval.
async fn rest(prepared: &Prepared, subjects: &[Subject], plan: &Plan) -> Result<Results, Error> {
    let world = World::start().await?;
    let copies = subjects
        .iter()
        .flat_map(|subject| (0..plan.resting).map(|copy| (*subject, copy)));
    let world = &world;
    let resting = copies.map(|(subject, copy)| async move {
        let member = world.add(&format!("rest-{}-{copy}", subject.name()));
        let (running, _) = begin(prepared, subject, world, &member, RESTING).await?;
        // The start is over with the second heartbeat.
        let limit = patience_for(1, RESTING);
        world
            .until_accepted(&member, world.count(&member).accepted + 1, limit)
            .await?;
        sleep(SETTLED).await;
        let from = world.count(&member).accepted;
        let before = look(subject, &running)?;
        let limit = patience_for(plan.resting_beats, RESTING);
        world
            .until_accepted(&member, from + plan.resting_beats, limit)
            .await?;
        sleep(SETTLED).await;
        let to = world.count(&member).accepted;
        let after = look(subject, &running)?;
        end(running, subject, world, &member).await?;
        let hours = figure(to - from) / BEATS_AN_HOUR;
        let cpu = milliseconds(after.cpu.saturating_sub(before.cpu)) / hours;
        let wake_ups = figure(after.voluntary.saturating_sub(before.voluntary)) / hours;
        Ok::<_, Error>((subject, cpu, wake_ups))
    });
    let mut results = Results::default();
    for (subject, cpu, wake_ups) in try_join_all(resting).await? {
        results.add(subject, Metric::CpuHour, cpu);
        results.add(subject, Metric::WakeUpsHour, wake_ups);
    }
    Ok(results)
}

/// Starts a subject, and tells how long it took to its first accepted heartbeat.
async fn begin(
    prepared: &Prepared,
    subject: Subject,
    world: &World,
    member: &Member,
    interval: Duration,
) -> Result<(Running, Duration), Error> {
    let at = world.lab().service.started().elapsed();
    let running = prepared.start(subject, world, member, interval)?;
    let came = world.until_accepted(member, 1, PATIENCE).await;
    came.map_err(|error| wrote(error, subject, &running))?;
    let came = world.lab().service.first_accepted(member.run(), at, |_| true);
    Ok((running, came.unwrap_or_default().saturating_sub(at)))
}

/// Makes a change, and tells how long it took to an accepted heartbeat that shows it.
async fn change(world: &World, member: &mut Member) -> Result<Duration, Error> {
    let change = world.change(member);
    world.until_shown(&change, PATIENCE).await
}

/// Waits for so many more heartbeats, and until the last of them is over. Tells how many there were so far.
async fn settled(world: &World, member: &Member, more: u64) -> Result<u64, Error> {
    let wanted = world.count(member).accepted + more;
    world
        .until_accepted(member, wanted, patience_for(more, INTERVAL))
        .await?;
    sleep(SETTLED).await;
    Ok(world.count(member).accepted)
}

/// Ends a subject as the kubelet does. Its last heartbeat must have been accepted, once.
async fn end(mut running: Running, subject: Subject, world: &World, member: &Member) -> Result<(), Error> {
    running.terminate()?;
    running.ended(END).await?;
    let finals = world
        .lab()
        .service
        .accepted()
        .iter()
        .filter(|heartbeat| heartbeat.run_id == member.run() && heartbeat.is_final())
        .count();
    if finals == 1 {
        return Ok(());
    }
    Err(Error::Unfair {
        subject: subject.name(),
        complaints: vec![format!(
            "at its end by SIGTERM {finals} last heartbeats were accepted, not one; it wrote:\n{}",
            running.log()
        )],
    })
}

/// An error with what the subject wrote.
pub(super) fn wrote(error: Error, subject: Subject, running: &Running) -> Error {
    match error {
        Error::InVain { what, waited, seen } => Error::InVain {
            what,
            waited,
            seen: format!("{seen}; {} wrote:\n{}", subject.name(), running.log()),
        },
        other => other,
    }
}

/// Enough for so many heartbeats on a machine that does something else, too.
fn patience_for(beats: u64, interval: Duration) -> Duration {
    let beats = u32::try_from(beats).unwrap_or(u32::MAX);
    interval.saturating_mul(beats).saturating_mul(2) + PATIENCE
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A count or a size as a figure; exact up to 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "no process and no file here is that large"
)]
fn figure(count: u64) -> f64 {
    count as f64
}

/// The file in which `bench/prepare.sh` leaves the programs' paths.
#[must_use]
pub fn prepared_file(repository: &Path) -> std::path::PathBuf {
    repository.join("target/bench/prepared")
}
