//! Ctrl-C and SIGTERM for the programs that start others: the work is dropped, and so all that it started is ended.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// The work's outcome; or 130 or 143, once the program is interrupted or told to terminate. If signal handlers can't be set, `say` is
/// told so, and the work isn't begun.
pub async fn or_interrupted(work: impl Future<Output = ExitCode>, say: impl FnOnce(&str)) -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        say("signal handlers can't be set");
        return ExitCode::FAILURE;
    };
    tokio::select! {
        code = work => code,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    }
}
