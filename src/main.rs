//! The process: command line, runtime, exit code.

#[cfg(feature = "laptop")]
mod laptop;

#[cfg(feature = "laptop")]
use laptop::environment;

use std::io::Write;
use std::process::ExitCode;

use futures_util::StreamExt;
use podbeat::cli::endings;
use podbeat::cli::{self, Cli};
use podbeat::config::{Config, ExecConfig, Partial, ReapConfig};
use podbeat::{agent, check, exec, reap};
use podbeat_interface::environment::{Flags, ProcessEnvironment};
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::log;
use podbeat_interface::reader::Errors;
use podbeat_interface::terminal::Inert;
use podbeat_interface::undumpable;
use podbeat_interface::unknown::Unknown;
#[cfg(feature = "laptop")]
use podbeat_laptop::observe::Ended;
use signal_hook_tokio::Signals;

/// SIGTERM from the kubelet, SIGINT from a terminal.
const SIGNALS: [i32; 2] = [15, 2];

fn main() -> ExitCode {
    #[cfg(feature = "laptop")]
    if let Some(ending) = laptop::completed() {
        return ending.into();
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => {
            match exit.failure {
                None => print(&mut stdout(), exit.text.as_bytes()),
                Some(_) => print(&mut stderr(), exit.text.as_bytes()),
            }
            return exit.failure.unwrap_or(Ending::Done).into();
        }
    };
    // The task's command belongs to the user, and would inherit the limits.
    if !matches!(cli, Cli::Exec { .. }) {
        undumpable::protect();
    }
    // The agent logs it, and `podbeat check` has a check. All settings of `podbeat exec` are
    // required, so a misspelt one is an error.
    let warns = !matches!(cli, Cli::Agent(_) | Cli::Check { .. } | Cli::Exec { .. });
    if warns {
        warn_of_unknown();
    }
    let called = cli.called();
    let ending = match cli {
        Cli::Agent(flags) => run_agent(&flags),
        Cli::Exec { flags, command } => match ExecConfig::load(&flags, &ProcessEnvironment) {
            // The exit code of the task's command.
            Ok(config) => return exec::run(&config, &command).into(),
            Err(errors) => invalid(&errors),
        },
        Cli::Install(path) => match exec::install(&path) {
            // Like a command that succeeded.
            Ok(_) => return ExitCode::SUCCESS,
            Err(error) => failed(Ending::Unwritten, &error),
        },
        Cli::Check { flags, invocation } => run_check(&flags, &invocation),
        Cli::Reap { flags, invocation } => run_reap(&flags, &invocation),
        #[cfg(feature = "laptop")]
        Cli::Observe { flags, invocation } => match laptop::observe(&flags, &invocation) {
            Ended::With(ending) => ending,
            Ended::BySignal(signal) => return laptop::by_signal(signal),
        },
        #[cfg(feature = "laptop")]
        Cli::Runs { flags, invocation } => match laptop::runs(&flags, &invocation) {
            Ended::With(ending) => ending,
            Ended::BySignal(signal) => return laptop::by_signal(signal),
        },
        #[cfg(feature = "laptop")]
        Cli::Explain(invocation) => laptop::explain(&invocation),
        #[cfg(feature = "laptop")]
        Cli::Completion(shell) => laptop::completion(shell),
        #[cfg(feature = "laptop")]
        Cli::Manual(dir) => laptop::manual(&dir),
        #[cfg(feature = "laptop")]
        Cli::Version(format) => laptop::version(format),
    };
    endings::code(called, ending)
}

fn run_agent(flags: &Flags) -> Ending {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let ending = runtime.block_on(async {
        // Before anything else: if podbeat is process 1 of its container, a SIGTERM without a
        // handler would not end it.
        let signals = match Signals::new(SIGNALS) {
            Ok(signals) => signals.map(|_| ()),
            Err(error) => return failed(Ending::Internal, &error),
        };
        let config = match Config::load(flags, &ProcessEnvironment) {
            Ok(config) => config,
            Err(errors) => return invalid(&errors),
        };
        if let Err(error) = log::install(&config.log) {
            return failed(Ending::Internal, &error);
        }
        // Spawn a task, although there is only one thread. A wakeup of the runtime's outermost
        // future writes to an eventfd each time, so that the thread wakes itself. A wakeup of a
        // task only adds it to a queue.
        match tokio::spawn(async move { agent::run(&config, signals, ()).await }).await {
            Ok(Ok(ending)) => ending,
            Ok(Err(error)) => failed(error.ending(), &error),
            Err(error) => failed(Ending::Internal, &error),
        }
    });
    // Do not wait for a write or a name lookup that hangs.
    runtime.shutdown_background();
    ending
}

fn run_check(flags: &Flags, invocation: &check::Invocation) -> Ending {
    let partial = match environment(flags) {
        Ok(environment) => Partial::load(flags, &environment),
        Err(ending) => return ending,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let (mut out, mut notes) = (stdout(), stderr());
    let ending = runtime.block_on(check::run(&partial, invocation, &mut out, &mut notes));
    // Do not wait for a disk or a name lookup that hangs.
    runtime.shutdown_background();
    ending
}

fn run_reap(flags: &Flags, invocation: &reap::Invocation) -> Ending {
    let config = match environment(flags).map(|environment| ReapConfig::load(flags, &environment)) {
        Ok(Ok(config)) => config,
        Ok(Err(errors)) => return failed(Ending::Usage, &errors),
        Err(ending) => return ending,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let (mut out, mut notes) = (stdout(), stderr());
    let ending = runtime.block_on(reap::run(&config, invocation, &mut out, &mut notes));
    runtime.shutdown_background();
    ending
}

/// The image has no profiles.
#[cfg(not(feature = "laptop"))]
fn environment(_flags: &Flags) -> Result<ProcessEnvironment, Ending> {
    Ok(ProcessEnvironment)
}

/// Uses one thread: podbeat computes little, and with ten thousand copies each additional thread
/// would cost ten thousand stacks.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
}

/// Prints everything that is wrong with the settings of the agent or of `podbeat exec`.
fn invalid(errors: &Errors) -> Ending {
    // The user may have misspelt the name of a required setting.
    warn_of_unknown();
    failed(Ending::Usage, errors)
}

/// Warns about variables with podbeat's prefix that are not settings.
fn warn_of_unknown() {
    if let Some(unknown) = Unknown::load(&ProcessEnvironment) {
        let text = format!("podbeat: ignoring unknown environment variables: {unknown}\n");
        print(&mut stderr(), text.as_bytes());
    }
}

fn failed(ending: Ending, error: &dyn std::error::Error) -> Ending {
    let text = format!("podbeat: {}\n", with_causes(error));
    print(&mut stderr(), text.as_bytes());
    ending
}

/// The output of commands. [`Inert`] removes everything that would control a terminal.
fn stdout() -> Inert<std::io::Stdout> {
    Inert::new(std::io::stdout())
}

/// Errors and notes of commands.
fn stderr() -> Inert<std::io::Stderr> {
    Inert::new(std::io::stderr())
}

/// Prints, and ignores errors such as a reader that is gone.
fn print(to: &mut dyn Write, text: &[u8]) {
    let _ = to.write_all(text).and_then(|()| to.flush());
}
