//! The process's edge: command line, runtime, exit code.

use std::io::Write;
use std::process::ExitCode;

use futures_util::StreamExt;
use podbeat::cli::{self, Cli};
use podbeat::config::{Config, ExecConfig, Flags, ProcessEnvironment};
use podbeat::exit::Ending;
use podbeat::{agent, exec, telemetry};
use signal_hook_tokio::Signals;

/// SIGTERM from the kubelet, SIGINT from a terminal.
const SIGNALS: [i32; 2] = [15, 2];

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Cli::Agent(flags)) => run_agent(&flags).into(),
        Ok(Cli::Exec { flags, command }) => match ExecConfig::load(&flags, &ProcessEnvironment) {
            Ok(config) => exec::run(&config, &command).into(),
            Err(errors) => failed(Ending::Usage, &errors).into(),
        },
        Ok(Cli::Install(path)) => match exec::install(&path) {
            Ok(_) => Ending::Delivered.into(),
            Err(error) => failed(Ending::Unwritten, &error).into(),
        },
        Err(exit) => {
            match exit.failure {
                None => print(&mut std::io::stdout(), &exit.text),
                Some(_) => print(&mut std::io::stderr(), &exit.text),
            }
            exit.failure.unwrap_or(Ending::Delivered).into()
        }
    }
}

fn run_agent(flags: &Flags) -> Ending {
    // One thread: nothing here computes, and each thread more costs its stack ten thousand times.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let ending = runtime.block_on(async {
        // First of all: as process 1 of its container, podbeat would not even be ended by a SIGTERM without a handler.
        let signals = match Signals::new(SIGNALS) {
            Ok(signals) => signals.map(|_| ()),
            Err(error) => return failed(Ending::Internal, &error),
        };
        let config = match Config::load(flags, &ProcessEnvironment) {
            Ok(config) => config,
            Err(errors) => return failed(Ending::Usage, &errors),
        };
        if let Err(error) = telemetry::log::install(&config.log, config.log_format) {
            return failed(Ending::Internal, &error);
        }
        match agent::run(&config, signals, ()).await {
            Ok(ending) => ending,
            Err(error) => failed(error.ending(), &error),
        }
    });
    // Not waiting for a write or a name lookup that hangs.
    runtime.shutdown_background();
    ending
}

fn failed(ending: Ending, error: &dyn std::error::Error) -> Ending {
    let mut text = format!("podbeat: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text.push('\n');
    print(&mut std::io::stderr(), &text);
    ending
}

/// Prints, and does not mind if nobody reads it.
fn print(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
