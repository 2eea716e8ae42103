//! The cost of a steady heartbeat in instructions and allocations, counted by callgrind. The result
//! is the difference between two runs of different length, so the start and the end, which are the
//! same in both, don't count.
//!
//! valgrind's other tools can't count the allocations of a static binary, because they replace the
//! allocator through the dynamic linker.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use podbeat_interface::environment::{Environment, ProcessEnvironment};
use podbeat_lab::kube_api;

use super::{END, Measured, PATIENCE, Subject, median};
use crate::process::Running;
use crate::world::World;
use crate::{Error, io};

/// The time between heartbeats: the shortest allowed interval.
const INTERVAL: Duration = Duration::from_millis(100);

/// The heartbeats of the shorter run, and the additional ones of the longer run.
const SHORT: u64 = 20;
const MORE: u64 = 150;

/// The time between bookmarks of the watch. If a watch is silent for 75 s, podbeat makes a request
/// on a separate connection. On a busy machine the longer run can last that long, and the handshake
/// would count as part of a heartbeat.
const BOOKMARKS: Duration = Duration::from_secs(15);

/// The number of pairs of runs. The median counts.
const PAIRS: usize = 3;

/// Functions that allocate, by their C names. podbeat uses the C library's allocator.
const ALLOCATE: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
];

/// The counts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Heartbeats that the service received.
    heartbeats: u64,
    /// Instructions.
    total: u64,
    /// Calls of functions that allocate.
    allocations: u64,
}

pub(super) async fn measure(
    subject: &Subject,
    tell: impl Fn(&str),
) -> Result<Vec<Measured>, Error> {
    // They run concurrently, because they mostly wait for the next heartbeat.
    let (first, second, third) = tokio::try_join!(pair(subject), pair(subject), pair(subject))?;
    let pairs: [_; PAIRS] = [first, second, third];
    let instructions = pairs.map(|(short, long)| each(&short, &long, |counts| counts.total));
    let allocations = pairs.map(|(short, long)| each(&short, &long, |counts| counts.allocations));
    tell(&format!(
        "instructions a heartbeat {:.0} {:.0} {:.0}, allocations {:.2} {:.2} {:.2}",
        instructions[0],
        instructions[1],
        instructions[2],
        allocations[0],
        allocations[1],
        allocations[2]
    ));
    let middle = |figures: [f64; PAIRS]| {
        let hundredths = figures.map(|figure| (figure * 100.0).round());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts, and at least 0"
        )]
        let whole = hundredths.map(|figure| figure.max(0.0) as u64);
        median(whole.to_vec()) / 100.0
    };
    Ok(vec![
        ("instructions", middle(instructions)),
        ("allocations", middle(allocations)),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn each(short: &Counts, long: &Counts, figure: impl Fn(&Counts) -> u64) -> f64 {
    let heartbeats = long.heartbeats.saturating_sub(short.heartbeats).max(1);
    (figure(long) as f64 - figure(short) as f64) / heartbeats as f64
}

async fn pair(subject: &Subject) -> Result<(Counts, Counts), Error> {
    tokio::try_join!(run(subject, SHORT), run(subject, SHORT + MORE))
}

/// Runs a life with this many heartbeats.
async fn run(subject: &Subject, heartbeats: u64) -> Result<Counts, Error> {
    let world = World::with(kube_api::Options {
        bookmarks: BOOKMARKS,
        ..kube_api::Options::default()
    })
    .await?;
    let member = world.add("counted");
    let mut settings = world.settings(&member, INTERVAL);
    let path = ProcessEnvironment.get("PATH").unwrap_or_default();
    settings.insert("PATH".to_owned(), path.to_string_lossy().into_owned());
    let (out, log) = (world.path("counts"), world.path("counted.log"));
    let mut arguments = vec![
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", out.display()),
        "--compress-strings=no".to_owned(),
        "--compress-pos=no".to_owned(),
    ];
    let symbols = subject.symbols.as_ref().ok_or(Error::NoSymbols)?;
    arguments.push(symbols.display().to_string());
    arguments.extend(subject.arguments.iter().cloned());
    let mut running = Running::start(Path::new("valgrind"), &arguments, &settings, &log)?;
    world
        .until_accepted(&member, heartbeats, 2 * PATIENCE)
        .await?;
    running.terminate()?;
    running.ended(END).await?;
    let received = world.count(&member).received;
    let text = std::fs::read_to_string(&out).map_err(io(format!(
        "reading callgrind's counts in {}",
        out.display()
    )))?;
    let counts = counted(&text).ok_or_else(|| Error::Valgrind { log: running.log() })?;
    Ok(Counts {
        heartbeats: received,
        ..counts
    })
}

/// Reads the number of instructions, and of calls of functions that allocate, from callgrind's
/// output.
fn counted(text: &str) -> Option<Counts> {
    let total = text.lines().find_map(|line| {
        line.strip_prefix("summary: ")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })?;
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    let mut called = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name;
        } else if let Some(rest) = line.strip_prefix("calls=") {
            let count: u64 = rest.split_whitespace().next()?.parse().ok()?;
            *calls.entry(called).or_default() += count;
        }
    }
    let allocations = ALLOCATE.iter().filter_map(|name| calls.get(name)).sum();
    // Without function names it finds no allocation, which doesn't mean that there was none.
    (allocations > 0).then_some(Counts {
        heartbeats: 0,
        total,
        allocations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_callgrind_are_added_up() {
        let text = "events: Ir\nfn=main\n1 5\ncfn=malloc\ncalls=3 0x1\n1 90\nfn=other\ncfn=realloc\ncalls=2 0\n1 1\n\
                    cfn=free\ncalls=9 0\n1 1\ncfn=malloc\ncalls=1 0\n1 1\nsummary: 1234\ntotals: 1234\n";
        let counts = counted(text).expect("counts");
        assert_eq!((counts.total, counts.allocations), (1234, 6));
        assert_eq!(counted("fn=0x1\n1 5\nsummary: 5\n"), None, "no names");
    }

    #[test]
    fn start_and_end_dont_count() {
        let short = Counts {
            heartbeats: 20,
            total: 5_000,
            allocations: 500,
        };
        let long = Counts {
            heartbeats: 120,
            total: 15_000,
            allocations: 700,
        };
        assert_eq!(each(&short, &long, |counts| counts.total), 100.0);
        assert_eq!(each(&short, &long, |counts| counts.allocations), 2.0);
    }
}
