//! What a steady heartbeat takes, in instructions and allocations, as callgrind counts them. Of two runs of different length the
//! difference is taken, so that start and end, which are the same in both, don't count.
//!
//! valgrind's other tools see nothing of a static binary's allocations: they put functions of their own in the allocator's place by
//! the dynamic linker.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use podbeat_interface::environment::{Environment, ProcessEnvironment};
use podbeat_lab::kube_api;

use super::{END, Measured, PATIENCE, Subject, median};
use crate::process::Running;
use crate::world::World;
use crate::{Error, io};

/// Between heartbeats: the shortest interval there is.
const INTERVAL: Duration = Duration::from_millis(100);

/// Heartbeats of the shorter run, and how many more the longer one has.
const SHORT: u64 = 20;
const MORE: u64 = 150;

/// Between bookmarks of the watch. podbeat asks after a watch that was silent for 45 s, by a connection of its own, whose handshake would
/// count as a heartbeat's where a busy machine makes the longer run last that long.
const BOOKMARKS: Duration = Duration::from_secs(15);

/// How many pairs of runs there are with callgrind; the middle one counts.
const PAIRS: usize = 3;

/// Functions that allocate, as C names them. podbeat's allocator is the C library's.
const ALLOCATE: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
];

/// What was counted in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Heartbeats that the service heard.
    heartbeats: u64,
    /// Instructions.
    total: u64,
    /// Calls that allocate.
    allocations: u64,
}

pub(super) async fn measure(subject: &Subject, tell: impl Fn(&str)) -> Result<Vec<Measured>, Error> {
    // They wait for the next heartbeat most of the time, and so can run beside each other.
    let (first, second, third) = tokio::try_join!(pair(subject), pair(subject), pair(subject))?;
    let pairs: [_; PAIRS] = [first, second, third];
    let instructions = pairs.map(|(short, long)| each(&short, &long, |counts| counts.total));
    let allocations = pairs.map(|(short, long)| each(&short, &long, |counts| counts.allocations));
    tell(&format!(
        "instructions a heartbeat {:.0} {:.0} {:.0}, allocations {:.2} {:.2} {:.2}",
        instructions[0], instructions[1], instructions[2], allocations[0], allocations[1], allocations[2]
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

/// One life of so many heartbeats.
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
    world.until_accepted(&member, heartbeats, 2 * PATIENCE).await?;
    running.terminate()?;
    running.ended(END).await?;
    let heard = world.count(&member).heard;
    let text = std::fs::read_to_string(&out)
        .map_err(io(format!("reading what callgrind counted in {}", out.display())))?;
    let counts = counted(&text).ok_or_else(|| Error::Valgrind { log: running.log() })?;
    Ok(Counts {
        heartbeats: heard,
        ..counts
    })
}

/// Instructions, and calls of functions that allocate, in what callgrind wrote.
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
    // Without names nothing is found, and nothing is not what there was.
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
    fn callgrinds_calls_are_added_up() {
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
