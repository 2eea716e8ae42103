//! The process's edge of the commands that nobody runs in a pod.

use std::io::{stderr, stdin, stdout};
use std::path::Path;

use podbeat::cli::manual;
use podbeat::config::{Flags, ProcessEnvironment, ServiceConfig};
use podbeat::exit::Ending;
use podbeat::explain;
use podbeat::runs::command::Invocation;
use podbeat::runs::{self, Streams};

use super::{failed, print, runtime};

pub(super) fn runs(flags: &Flags, invocation: &Invocation) -> Ending {
    let config = match invocation.needs_service() {
        true => match ServiceConfig::load(flags, &ProcessEnvironment) {
            Ok(config) => Some(config),
            Err(errors) => return failed(Ending::Usage, &errors),
        },
        false => None,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let (mut input, mut out, mut notes) = (stdin(), stdout(), stderr());
    let streams = Streams {
        input: &mut input,
        out: &mut out,
        notes: &mut notes,
    };
    // Seeded from the system's entropy: a nonce that two heartbeats share would make one of them look like a repetition.
    let seed = fastrand::u64(..);
    let ending = runtime.block_on(runs::run(config.as_ref(), invocation, streams, seed));
    runtime.shutdown_background();
    ending
}

pub(super) fn explain(invocation: &explain::Invocation) -> Ending {
    explain::run(invocation, &mut stdin(), &mut stdout(), &mut stderr())
}

pub(super) fn completion(shell: clap_complete::Shell) -> Ending {
    print(&mut stdout(), &manual::completion(shell));
    Ending::Delivered
}

pub(super) fn manual(dir: &Path) -> Ending {
    match manual::write_pages(dir) {
        Ok(()) => Ending::Delivered,
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
#[error("writing manual pages into {dir}: is it a directory that you may write to?")]
struct PagesError {
    dir: String,
    source: std::io::Error,
}
