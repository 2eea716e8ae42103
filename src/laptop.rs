//! The process side of the commands that nobody runs in a pod.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write, stdin};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt;
use podbeat::cli::{complete, manual, version};
use podbeat_interface::environment::{Flags, ProcessEnvironment};
use podbeat_interface::exit::Ending;
use podbeat_interface::service::ServiceConfig;
use podbeat_interface::terminal::Terminal;
use podbeat_laptop::explain;
use podbeat_laptop::observe::config::ObserveConfig;
use podbeat_laptop::observe::{self, Ended, Stage, signals};
use podbeat_laptop::profiles::Profiled;
use podbeat_laptop::runs::command::Invocation;
use podbeat_laptop::runs::{self, StatusLine, Streams};
use signal_hook::{flag, low_level};
use signal_hook_tokio::Signals;

use super::{failed, runtime, stderr, stdout};

/// The environment of a command for people: the variables of the process, then those of the
/// profile.
pub(super) fn environment(flags: &Flags) -> Result<Profiled<ProcessEnvironment>, Ending> {
    Profiled::load(flags, ProcessEnvironment).map_err(|error| failed(Ending::Usage, &error))
}

pub(super) fn runs(flags: &Flags, invocation: &Invocation) -> Ended {
    let config = match invocation.needs_service() {
        true => {
            match environment(flags).map(|environment| ServiceConfig::load(flags, &environment)) {
                Ok(Ok(config)) => Some(config),
                Ok(Err(errors)) => return Ended::With(failed(Ending::Usage, &errors)),
                Err(ending) => return Ended::With(ending),
            }
        }
        false => None,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Ended::With(failed(Ending::Internal, &error)),
    };
    let (mut input, mut out, mut notes) = (stdin(), stdout(), stderr());
    // Only a terminal gets a status line. If it cannot be set up, the command works without it.
    let shows_progress = invocation.shows_progress() && Terminal::load(&ProcessEnvironment).draws;
    let terminal = std::io::stderr();
    let terminal = match shows_progress && terminal.is_terminal() {
        true => terminal.as_fd().try_clone_to_owned().ok().map(File::from),
        false => None,
    };
    let status = StatusLine::new(terminal);
    let draws = status.is_shown();
    let streams = Streams {
        input: &mut input,
        out: &mut out,
        notes: &mut notes,
        status,
    };
    // Seeded from the system's entropy. If two heartbeats had the same nonce, one would look like a
    // repetition of the other.
    let seed = fastrand::u64(..);
    let ended = runtime.block_on(async {
        let run = runs::run(config.as_ref(), invocation, streams, seed);
        if !draws {
            return Ended::With(run.await);
        }
        let mut signals = match heard(&signals::ENDING, &[]) {
            Ok(signals) => signals,
            Err(error) => return Ended::With(failed(Ending::Internal, &error)),
        };
        // Dropping the run removes its status line from the terminal.
        tokio::select! {
            ending = run => Ended::With(ending),
            Some(signal) = signals.next() => Ended::BySignal(signal),
        }
    });
    runtime.shutdown_background();
    ended
}

pub(super) fn explain(invocation: &explain::Invocation) -> Ending {
    explain::run(invocation, &mut stdin(), &mut stdout(), &mut stderr())
}

pub(super) fn observe(flags: &Flags, invocation: &observe::command::Invocation) -> Ended {
    let config = match ObserveConfig::load(flags, &ProcessEnvironment) {
        Ok(config) => config,
        Err(errors) => return Ended::With(failed(Ending::Usage, &errors)),
    };
    let (mut out, terminal) = (stdout(), std::io::stdout());
    let draws = terminal.is_terminal() && config.terminal.draws && invocation.format.is_none();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Ended::With(failed(Ending::Internal, &error)),
    };
    let terminal = match draws {
        true => match terminal.as_fd().try_clone_to_owned() {
            Ok(terminal) => Some(File::from(terminal)),
            Err(error) => return Ended::With(failed(Ending::Internal, &error)),
        },
        false => None,
    };
    let ended = runtime.block_on(async {
        // Without a view, keep what a shell or nohup set for the other signals.
        let (ending, others): (&[i32], &[i32]) = match draws {
            true => (&signals::ENDING, &signals::OF_A_VIEW),
            false => (&[signals::INT, signals::TERM], &[]),
        };
        let signals = match heard(ending, others) {
            Ok(signals) => signals,
            Err(error) => return Ended::With(failed(Ending::Internal, &error)),
        };
        let stage = match terminal {
            Some(terminal) => Stage::Terminal(terminal),
            None => Stage::Lines(&mut out),
        };
        let suspend = |signal| drop(low_level::emulate_default_handler(signal));
        observe::run(
            &config,
            invocation,
            stage,
            &mut stderr(),
            signals,
            suspend,
            fastrand::u64(..),
        )
        .await
    });
    runtime.shutdown_background();
    ended
}

/// Ends the process as if the signal had not been caught. Otherwise a shell that runs a loop would
/// not end the loop on Ctrl-C.
pub(super) fn by_signal(signal: i32) -> ExitCode {
    let _ = low_level::emulate_default_handler(signal);
    u8::try_from(128 + signal).unwrap_or(u8::MAX).into()
}

/// Listens for signals. The second of the `ending` signals ends the process at once, even if
/// podbeat is waiting for a reader that does not read or for a stopped terminal.
fn heard(ending: &[i32], others: &[i32]) -> std::io::Result<Signals> {
    let came = Arc::new(AtomicBool::new(false));
    for signal in ending {
        flag::register_conditional_default(*signal, Arc::clone(&came))?;
        flag::register(*signal, Arc::clone(&came))?;
    }
    Signals::new(ending.iter().chain(others))
}

/// Answers a shell's completion request. Returns `None` if there is none.
pub(super) fn completed() -> Option<Ending> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let dir = std::env::current_dir().ok();
    match complete::answer(&arguments, dir.as_deref(), &ProcessEnvironment, runtime) {
        Ok(false) => None,
        Ok(true) => Some(Ending::Done),
        Err(error) => Some(failed(Ending::Usage, &error)),
    }
}

pub(super) fn completion(shell: clap_complete::Shell) -> Ending {
    show(&manual::completion(shell))
}

pub(super) fn version(format: Option<version::Format>) -> Ending {
    show(version::text(format).as_bytes())
}

/// Writes the output of a command.
fn show(text: &[u8]) -> Ending {
    let mut out = stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            failed(Ending::Unwritten, &OutputError(error))
        }
        Ok(()) | Err(_) => Ending::Done,
    }
}

pub(super) fn manual(dir: &Path) -> Ending {
    match manual::write_pages(dir) {
        Ok(()) => Ending::Done,
        Err(error) => {
            let error = PagesError {
                dir: dir.display().to_string(),
                source: error,
            };
            failed(Ending::Unwritten, &error)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct OutputError(#[source] std::io::Error);

#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages to {dir}; check that it is a writable directory")]
struct PagesError {
    dir: String,
    source: std::io::Error,
}
