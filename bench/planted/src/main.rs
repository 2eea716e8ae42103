//! podbeat's agent, run as in its own `main`, with one planted flaw: a leak, or an allocation in
//! each heartbeat. `podbeat-planted leak|allocation|nothing`. If the budgets don't detect such a
//! flaw, they are useless.

use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use podbeat::agent;
use podbeat::config::Config;
use podbeat_heartbeat::machine::{Attempt, Note};
use podbeat_interface::environment::{Flags, ProcessEnvironment};
use podbeat_interface::exit::with_causes;
use signal_hook_tokio::Signals;

/// The size of each leak in bytes, and the time between leaks.
const LEAK: usize = 256;
const TICK: Duration = Duration::from_millis(2);

/// What each heartbeat allocates and frees at once: 64 pieces of 1 KiB.
const PIECES: usize = 64;
const PIECE: usize = 1024;

/// Allocates when a heartbeat's attempt begins.
struct Wasteful;

impl agent::Onlooker for Wasteful {
    fn note(&mut self, _: &Note) {}

    fn attempt(&mut self, _: &Attempt) {
        // All pieces exist at the same time, and black_box prevents optimization.
        let pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| black_box(vec![1; PIECE])).collect();
        black_box(&pieces);
    }
}

fn main() -> ExitCode {
    let flaw = std::env::args().nth(1).unwrap_or_default();
    if !matches!(flaw.as_str(), "leak" | "allocation" | "nothing") {
        return failed(
            "usage: podbeat-planted leak|allocation|nothing",
            ExitCode::from(64),
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&with_causes(&error), ExitCode::FAILURE),
    };
    let code = runtime.block_on(live(&flaw));
    runtime.shutdown_background();
    code
}

async fn live(flaw: &str) -> ExitCode {
    let signals = match Signals::new([15, 2]) {
        Ok(signals) => signals.map(|_| ()),
        Err(error) => return failed(&with_causes(&error), ExitCode::FAILURE),
    };
    let config = match Config::load(&Flags::default(), &ProcessEnvironment) {
        Ok(config) => config,
        Err(error) => return failed(&with_causes(&error), ExitCode::from(64)),
    };
    if let Err(error) = podbeat_interface::log::install(&config.log) {
        return failed(&with_causes(&error), ExitCode::FAILURE);
    }
    let ended = match flaw {
        "allocation" => agent::run(&config, signals, Wasteful).await,
        "leak" => tokio::select! {
            ended = agent::run(&config, signals, ()) => ended,
            () = leak() => return ExitCode::FAILURE,
        },
        _ => agent::run(&config, signals, ()).await,
    };
    match ended {
        Ok(ending) => ending.into(),
        Err(error) => failed(&with_causes(&error), error.ending().into()),
    }
}

/// Leaks memory at each tick, forever.
async fn leak() {
    loop {
        tokio::time::sleep(TICK).await;
        black_box(Box::leak(vec![1_u8; LEAK].into_boxed_slice()));
    }
}

fn failed(why: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "podbeat-planted: {why}");
    code
}
