//! Ctrl-C and SIGTERM for programs that start others. Dropping the work ends everything that it
//! started.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Returns the work's exit code; or 130 or 143 after SIGINT or SIGTERM. If signal handlers can't be
/// set, it calls `say` and doesn't start the work.
pub async fn or_interrupted(
    work: impl Future<Output = ExitCode>,
    say: impl FnOnce(&str),
) -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        say("signal handlers can't be set");
        return ExitCode::FAILURE;
    };
    tokio::select! {
        code = work => code,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    }
}
