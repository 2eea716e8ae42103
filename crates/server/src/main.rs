//! The process: command line, runtime, exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use futures_util::StreamExt;
use jiff::Timestamp;
use podbeat_interface::environment::{Flags, ProcessEnvironment};
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::reader::Errors;
use podbeat_interface::terminal::Inert;
use podbeat_interface::{log, undumpable};
use podbeat_server::cli::{self, Cli, PROGRAM};
use podbeat_server::settings::{self, Config};
use podbeat_server::store::Sqlite;
use podbeat_server::token_command::{self, Action};
use podbeat_server::{check, server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook_tokio::Signals;

/// SIGTERM from the kubelet, SIGINT from a terminal.
const SIGNALS: [i32; 2] = [15, 2];

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => {
            match exit.failure {
                None => print(&mut stdout(), &exit.text),
                Some(_) => print(&mut stderr(), &exit.text),
            };
            return exit.failure.unwrap_or(Ending::Done).into();
        }
    };
    undumpable::protect();
    let ending = match cli {
        Cli::Serve(flags) => serve(&flags),
        Cli::Token { flags, action } => tokens(&flags, &action),
        Cli::Check { flags, json } => {
            let config = Config::load(&flags, &ProcessEnvironment);
            check(&config, json)
        }
        Cli::Backup { flags, to } => backup(&flags, &to),
    };
    ending.into()
}

fn check(config: &Result<Config, Errors>, json: bool) -> Ending {
    let runtime = match small_runtime() {
        Ok(runtime) => runtime,
        Err(ending) => return ending,
    };
    let findings = runtime.block_on(check::run(config, Timestamp::now()));
    let text = match json {
        true => findings.json(),
        false => findings.table(),
    };
    match (print(&mut stdout(), &text), findings.ok) {
        (false, _) => Ending::Unwritten,
        (true, true) => Ending::Done,
        (true, false) => Ending::Unmet,
    }
}

/// The runtime of commands that end soon.
fn small_runtime() -> Result<tokio::runtime::Runtime, Ending> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| failed(Ending::Internal, &error))
}

fn serve(flags: &Flags) -> Ending {
    allow_many_connections();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(Ending::Internal, &error),
    };
    let ending = runtime.block_on(async {
        // Before anything else: if the server is process 1 of its container, a SIGTERM without a
        // handler would not end it.
        let mut signals = match Signals::new(SIGNALS) {
            Ok(signals) => signals,
            Err(error) => return failed(Ending::Internal, &error),
        };
        let config = match Config::load(flags, &ProcessEnvironment) {
            Ok(config) => config,
            Err(errors) => return failed(Ending::Usage, &errors),
        };
        if let Err(error) = log::install(&config.log) {
            return failed(Ending::Internal, &error);
        }
        let stopped = async {
            signals.next().await;
        };
        match Box::pin(server::run(&config, stopped, &mut stdout())).await {
            Ok(()) => Ending::Done,
            Err(error) => failed(error.ending(), &error),
        }
    });
    // Do not wait for a disk that hangs.
    runtime.shutdown_background();
    ending
}

/// Each connection is a file descriptor, and the usual soft limit of 1024 is for old programs that
/// cannot handle more (<https://0pointer.net/blog/file-descriptor-limits.html>).
fn allow_many_connections() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: hard,
        maximum: hard,
    };
    // With the earlier limit, connections wait for a free descriptor.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn tokens(flags: &Flags, action: &Action) -> Ending {
    let path = match settings::data_file(flags, &ProcessEnvironment) {
        Ok(path) => path,
        Err(errors) => return failed(Ending::Usage, &errors),
    };
    let runtime = match small_runtime() {
        Ok(runtime) => runtime,
        Err(ending) => return ending,
    };
    let done = runtime.block_on(async {
        // Only a new token may be the first entry of a new file. Elsewhere, a wrong path is an error.
        let store = match action {
            Action::Create(_) => Sqlite::open(&path)?,
            Action::List { .. } | Action::Revoke(_) => Sqlite::open_existing(&path)?,
        };
        token_command::run(action, &store, Timestamp::now()).await
    });
    match done {
        Ok(text) if print(&mut stdout(), &text) => Ending::Done,
        Ok(_) => Ending::Unwritten,
        Err(error @ token_command::Error::NoSuchToken(_)) => failed(Ending::Unmet, &error),
        Err(error) => failed(Ending::Unread, &error),
    }
}

fn backup(flags: &Flags, to: &Path) -> Ending {
    let from = match settings::data_file(flags, &ProcessEnvironment) {
        Ok(from) => from,
        Err(errors) => return failed(Ending::Usage, &errors),
    };
    if let Err(error) = Sqlite::inspect(&from) {
        return failed(Ending::Unread, &error);
    }
    match Sqlite::backup(&from, to) {
        Ok(()) => Ending::Done,
        Err(error) => failed(Ending::Unwritten, &error),
    }
}

fn failed(ending: Ending, error: &dyn std::error::Error) -> Ending {
    print(
        &mut stderr(),
        &format!("{PROGRAM}: {}\n", with_causes(error)),
    );
    ending
}

/// The output of commands. [`Inert`] removes everything that would control a terminal.
fn stdout() -> Inert<std::io::Stdout> {
    Inert::new(std::io::stdout())
}

/// Errors of commands.
fn stderr() -> Inert<std::io::Stderr> {
    Inert::new(std::io::stderr())
}

/// Prints. Returns whether it worked. A reader that is gone has seen enough.
fn print(to: &mut dyn Write, text: &str) -> bool {
    let printed = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    match printed {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::BrokenPipe,
    }
}
