//! Whole pod lives in virtual time: the machine with a pod, an API server, a service and a kubelet,
//! all drawn from a seed. This module drives the machine and judges it by the guarantees G1 to G8
//! (docs/protocol.md). It has no clock, no socket and no sleep, and is not part of the production
//! build.

mod check;
mod digest;
mod flaw;
mod life;
mod run;

use std::fmt::Write;
use std::time::Instant;

use flaw::{FLAWS, Flaw};
use run::Record;

/// The results of several lives.
#[derive(Default)]
struct Sum {
    lives: u64,
    events: u64,
    faults: u64,
    violations: Vec<(u64, String)>,
    /// Of all lives, in order.
    digest: u64,
}

impl Sum {
    fn live(&mut self, seed: u64, flaw: Option<Flaw>, record: Record) {
        let outcome = run::live(seed, flaw, record);
        self.digest = self.digest.rotate_left(5).wrapping_add(outcome.digest);
        self.lives += 1;
        self.events += outcome.events;
        self.faults += outcome.faults;
        self.violations.extend(
            outcome
                .violations
                .into_iter()
                .map(|violation| (seed, violation)),
        );
    }

    /// The first violations, each with the command that replays it.
    fn complaint(&self) -> String {
        let mut text = String::new();
        for (seed, violation) in self.violations.iter().take(10) {
            let _ = writeln!(
                text,
                "seed {seed}: {violation}\n  replay: just simulate --seed {seed}"
            );
        }
        text
    }
}

fn lives(seeds: impl IntoIterator<Item = u64>, flaw: Option<Flaw>) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        sum.live(seed, flaw, Record::Nothing);
    }
    sum
}

#[test]
fn a_thousand_lives_violate_no_guarantee() {
    let sum = lives(0..1000, None);
    assert!(sum.violations.is_empty(), "{}", sum.complaint());
    assert!(
        sum.faults > 1000 && sum.events > 10_000,
        "lives with events"
    );
}

/// The simulation finds each flaw, and names the guarantee that it breaks.
#[test]
fn every_flawed_machine_is_detected() {
    for (name, flaw) in FLAWS {
        let guarantee = name.split('-').next().expect("a name");
        let mut sum = Sum::default();
        let noticed = (0..3000).any(|seed| {
            sum.live(seed, Some(flaw), Record::Nothing);
            sum.violations
                .iter()
                .any(|(_, violation)| violation.starts_with(guarantee))
        });
        assert!(
            noticed,
            "the flaw {name} is not detected in {} lives",
            sum.lives
        );
    }
}

#[test]
fn a_life_is_the_same_each_time() {
    for seed in 0..20 {
        let one = run::live(seed, None, Record::Story);
        let two = run::live(seed, None, Record::Story);
        assert_eq!(one.story, two.story, "seed {seed}");
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name}={text} can't be read"),
    }
}

/// `just simulate` and `just soak`. Settings: SIMULATE_LIVES, SIMULATE_SECONDS, SIMULATE_SEED
/// (prints one life, event by event), SIMULATE_FIRST (the first seed), SIMULATE_BROKEN (a flaw, by
/// its guarantee), SIMULATE_DIGEST (prints a number for everything that happens).
#[test]
#[ignore = "run by `just simulate`"]
fn simulate() {
    let flaw = setting::<String>("SIMULATE_BROKEN").map(|name| {
        let known = FLAWS.iter().find(|(guarantee, _)| *guarantee == name);
        known
            .unwrap_or_else(|| {
                panic!(
                    "unknown flaw {name}; the flaws are {:?}",
                    FLAWS.map(|(name, _)| name)
                )
            })
            .1
    });
    if let Some(seed) = setting("SIMULATE_SEED") {
        let outcome = run::live(seed, flaw, Record::Story);
        println!("{}", outcome.story.join("\n"));
        assert!(
            outcome.violations.is_empty(),
            "{}",
            outcome.violations.join("\n")
        );
        return;
    }
    let most = setting("SIMULATE_LIVES").unwrap_or(u64::MAX);
    let seconds: Option<u64> = setting("SIMULATE_SECONDS");
    let first = setting("SIMULATE_FIRST").unwrap_or(1);
    let record = match std::env::var_os("SIMULATE_DIGEST") {
        Some(_) => Record::Digest,
        None => Record::Nothing,
    };
    let begun = Instant::now();
    let mut sum = Sum::default();
    for seed in first.. {
        let over = seconds.is_some_and(|seconds| begun.elapsed().as_secs() >= seconds);
        if sum.lives >= most || over || sum.violations.len() >= 100 {
            break;
        }
        sum.live(seed, flaw, record);
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{} lives, {} events, {} faults injected, {} violations, {:.0} lives/s on one core",
        sum.lives,
        sum.events,
        sum.faults,
        sum.violations.len(),
        lives_a_second(sum.lives, took)
    );
    if record == Record::Digest {
        println!("digest {:016x}", sum.digest);
    }
    assert!(sum.violations.is_empty(), "{}", sum.complaint());
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn lives_a_second(lives: u64, took: f64) -> f64 {
    lives as f64 / took
}
