//! The rounds, and the measurement at rest. In a round, each subject has its own stand-ins and the
//! machine to itself. At rest all subjects run concurrently, because only their own processor time
//! and wake-ups are counted.

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

/// The default interval of podbeat and its peers.
const RESTING: Duration = Duration::from_secs(30);

/// The heartbeats in an hour at that interval.
const BEATS_AN_HOUR: f64 = 120.0;

/// The wait after a change. It is longer than 250 ms, in which podbeat collects what follows a
/// heartbeat, because each change should be reported alone. It is shorter than the smallest
/// interval between periodic heartbeats, so that no change meets one.
const BETWEEN_CHANGES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(337),
    Duration::from_millis(374),
    Duration::from_millis(411),
];

/// By then a heartbeat's answer is read and its memory is freed, and the next one isn't due yet.
const SETTLED: Duration = Duration::from_millis(200);

/// The size of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of rounds. Each subject has a turn in each round.
    pub rounds: usize,
    /// Starts of each subject in a round.
    pub starts: usize,
    /// Unmeasured changes in a round, because the first ones run with cold caches.
    pub warm_up: usize,
    /// Measured changes in a round.
    pub changes: usize,
    /// Heartbeats without a change in a round, whose processor time is measured. 0 to skip.
    pub beats: u64,
    /// Copies of each subject at rest. 0 to skip.
    pub resting: usize,
    /// Heartbeats of each copy at rest, whose processor time and wake-ups are measured.
    pub resting_beats: u64,
}

impl Plan {
    /// The size for the published figures.
    pub const FULL: Self = Self {
        rounds: 3,
        starts: 5,
        warm_up: 5,
        changes: 100,
        beats: 20,
        resting: 3,
        resting_beats: 6,
    };

    /// For development of the benchmark. Its figures mean nothing.
    pub const QUICK: Self = Self {
        rounds: 1,
        starts: 2,
        warm_up: 2,
        changes: 10,
        beats: 5,
        resting: 0,
        resting_beats: 0,
    };

    /// The size for the ratios that CI checks.
    pub const RATIOS: Self = Self {
        rounds: 5,
        starts: 5,
        warm_up: 5,
        changes: 20,
        beats: 0,
        resting: 0,
        resting_beats: 0,
    };

    /// The plan for the JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "rounds": self.rounds, "startsARound": self.starts, "changesARound": self.changes,
            "heartbeatsARound": self.beats, "copiesAtRest": self.resting, "heartbeatsAtRest": self.resting_beats,
            "intervalSeconds": INTERVAL.as_secs(), "intervalAtRestSeconds": RESTING.as_secs(),
        })
    }
}

/// Measures the subjects. `tell` receives progress messages.
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
        if let Some(size) = prepared
            .image_size()
            .filter(|_| *subject == Subject::Podbeat)
        {
            results.add(*subject, Metric::Image, figure(size));
        }
    }
    for round in 0..plan.rounds {
        let mut order = subjects.to_vec();
        // Rotated, so that no subject is always first, or always after the same one.
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
        // The first start is not measured, because the stand-ins are cold.
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
            .until_accepted(
                &member,
                from + plan.beats,
                patience_for(plan.beats, INTERVAL),
            )
            .await?;
        let to = settled(&world, &member, 0).await?;
        let after = look(subject, &running)?;
        let cpu = milliseconds(after.cpu.saturating_sub(before.cpu));
        results.add(
            subject,
            Metric::CpuThousand,
            cpu / figure(to - from) * 1000.0,
        );
    }

    let mut took = Vec::new();
    for number in 0..plan.changes {
        took.push(milliseconds(change(&world, &mut member).await?));
        let pause = BETWEEN_CHANGES.get(number % BETWEEN_CHANGES.len());
        sleep(pause.copied().unwrap_or(SETTLED)).await;
    }
    for (metric, percent) in [(Metric::ChangeP50, 50), (Metric::ChangeP99, 99)] {
        // With fewer than a hundred changes, the 99th percentile is the slowest one, which says
        // nothing.
        if let Some(figure) =
            percentile(&took, percent).filter(|_| percent == 50 || took.len() >= 100)
        {
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

/// Measures all subjects at rest, with the default interval.
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

/// Starts a subject, and returns the time to its first accepted heartbeat.
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
    let came = world
        .lab()
        .service
        .first_accepted(member.run(), at, |_| true);
    Ok((running, came.unwrap_or_default().saturating_sub(at)))
}

/// Makes a change, and returns the time to an accepted heartbeat that shows it.
async fn change(world: &World, member: &mut Member) -> Result<Duration, Error> {
    let change = world.change(member);
    world.until_shown(&change, PATIENCE).await
}

/// Waits for this many more heartbeats, and until the work of the last one is over. Returns their
/// total number.
async fn settled(world: &World, member: &Member, more: u64) -> Result<u64, Error> {
    let wanted = world.count(member).accepted + more;
    world
        .until_accepted(member, wanted, patience_for(more, INTERVAL))
        .await?;
    sleep(SETTLED).await;
    Ok(world.count(member).accepted)
}

/// Ends a subject as the kubelet does, and checks that exactly one last heartbeat was accepted.
async fn end(
    mut running: Running,
    subject: Subject,
    world: &World,
    member: &Member,
) -> Result<(), Error> {
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
            "after SIGTERM, {finals} last heartbeats were accepted; expected one; its output:\n{}",
            running.log()
        )],
    })
}

/// Adds the subject's output to an error.
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

/// The time limit for this many heartbeats on a busy machine.
fn patience_for(beats: u64, interval: Duration) -> Duration {
    let beats = u32::try_from(beats).unwrap_or(u32::MAX);
    interval.saturating_mul(beats).saturating_mul(2) + PATIENCE
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A count or size as a figure; exact up to 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "no process and no file here is that large"
)]
fn figure(count: u64) -> f64 {
    count as f64
}

/// The file to which `bench/prepare.sh` writes the programs' paths.
#[must_use]
pub fn prepared_file(repository: &Path) -> std::path::PathBuf {
    repository.join("target/bench/prepared")
}
