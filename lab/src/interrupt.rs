//! Ctrl-C and SIGTERM for the programs that start others: the work is dropped, and so all that it started is ended.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// The work's outcome; or 130 or 143, once the program is interrupted or told to terminate. `None` if signal handlers can't be set.
pub async fn or_interrupted(work: impl Future<Output = ExitCode>) -> Option<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).ok()?;
    let mut terminate = signal(SignalKind::terminate()).ok()?;
    Some(tokio::select! {
        code = work => code,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    })
}
