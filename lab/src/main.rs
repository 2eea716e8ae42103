//! `podbeat-lab service`: the stand-in of the task-run service on its own, for the development of
//! clients. `podbeat-lab fleet`: thousands of agents with podbeat-server.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use futures_util::StreamExt;
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::{Faults, Place};
use podbeat_lab::fleet::{agents, kubernetes, measure};
use podbeat_lab::service::{self, Limits, Options, Service};
use signal_hook_tokio::Signals;

/// SIGINT from a terminal, and SIGTERM from the parent.
const SIGNALS: [i32; 2] = [2, 15];

const ABOUT: &str = "\
The task-run service, for development. It has the five operations of the contract, over plain HTTP. It listens on loopback
unless you set --listen. Do not expose it: it has no TLS, and one token gives access to all of it.

It prints its URL and its token. It ends on SIGINT or SIGTERM.";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    // A fleet is a measurement, so it uses the same number of threads on every machine.
    let threads = if matches.subcommand_name() == Some("service") {
        None
    } else {
        Some(2)
    };
    let failure = match runtime(threads) {
        Ok(runtime) => match runtime.block_on(run(&matches)) {
            Ok(code) => {
                // A thread may still be waiting for standard input.
                runtime.shutdown_background();
                return code;
            }
            Err(failure) => {
                runtime.shutdown_background();
                failure
            }
        },
        Err(error) => error.into(),
    };
    let _ = writeln!(
        std::io::stderr(),
        "podbeat-lab: {}",
        podbeat_lab::chain(failure.as_ref())
    );
    ExitCode::FAILURE
}

fn runtime(threads: Option<usize>) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

async fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    match matches.subcommand() {
        Some(("service", matches)) => {
            serve(matches).await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(("fleet", matches)) => fleet(matches).await,
        Some(("fleet-agents", _)) => {
            agents::work().await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(("fleet-kubernetes", _)) => {
            kubernetes::serve().await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::from(64)),
    }
}

/// Runs the fleet. Prints its figures as a table and writes them as JSON to a
/// file.
async fn fleet(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new(SIGNALS)?;
    let number = |name: &str| matches.get_one::<usize>(name).copied();
    let time = |name: &str| {
        matches
            .get_one::<Duration>(name)
            .copied()
            .unwrap_or_default()
    };
    let server = matches.get_one::<PathBuf>("server");
    let options = measure::Options {
        server: server.ok_or("no server")?.clone(),
        agents: number("agents").unwrap_or(1000),
        interval: time("interval"),
        start_over: time("start-over"),
        outage: time("outage"),
        processes: number("processes").unwrap_or(2),
        drift: number("drift"),
    };
    let output = matches.get_one::<PathBuf>("output").ok_or("no file")?;
    // Beside the figures, because a directory for temporary files may be in memory.
    let parent = output.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let dir = tempfile::tempdir_in(parent)?;
    let begun = tokio::time::Instant::now();
    let say = |text: &str| {
        let _ = writeln!(
            std::io::stdout(),
            "{:6.1}s  {text}",
            begun.elapsed().as_secs_f64()
        );
    };
    let program = std::env::current_exe()?;
    // Dropping the work ends everything that it started.
    let figures = tokio::select! {
        figures = measure::run(&program, dir.path(), &options, say) => figures?,
        _ = signals.next() => return Ok(ExitCode::from(130)),
    };
    figures.write(output)?;
    let (limits, kept) = figures.kept();
    let mut out = std::io::stdout();
    write!(out, "\n{}", figures.table())?;
    writeln!(
        out,
        "\nwritten to {}\n{kept} passed, {} failed",
        output.display(),
        limits - kept
    )?;
    Ok(if kept == limits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn command() -> Command {
    let duration = || ValueParser::from(|text: &str| humantime::parse_duration(text));
    let setting = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let service = Command::new("service")
        .about("The task-run service, for development")
        .long_about(ABOUT)
        .arg(
            setting("listen", "ADDR", "Address to listen on; port 0 selects a free port")
                .default_value("127.0.0.1:8080")
                .value_parser(value_parser!(SocketAddr)),
        )
        .arg(setting(
            "token",
            "TOKEN",
            "Bearer token to accept; by default a random one",
        ))
        .arg(
            setting(
                "data",
                "FILE",
                "SQLite file that keeps the runs, with the service's key in FILE.key; by default they are in memory and end with the process",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            setting(
                "heartbeat-timeout",
                "DURATION",
                "Time without a heartbeat after which a running run is TimedOut, such as 2m; by default never",
            )
            .value_parser(duration()),
        )
        .arg(
            setting(
                "renew-tokens",
                "DURATION",
                "Answer heartbeats with a jwt for their run, valid for this time and renewed after half of it",
            )
            .value_parser(duration()),
        )
        .arg(
            Arg::new("any-run")
                .long("any-run")
                .action(ArgAction::SetTrue)
                .help("Create a run that a heartbeat names, instead of answering 404"),
        )
        .arg(setting(
            "faults",
            "RULES",
            "Faults to inject from the start, such as `heartbeat 503 retry-after=2s x3` (see CONTRIBUTING.md)",
        ));
    Command::new("podbeat-lab")
        .about("Run podbeat's stand-ins, for development")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(service)
        .subcommand(fleet_command())
        .subcommand(Command::new("fleet-agents").hide(true))
        .subcommand(Command::new("fleet-kubernetes").hide(true))
}

fn fleet_command() -> Command {
    let duration = || ValueParser::from(|text: &str| humantime::parse_duration(text));
    let time = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DURATION")
            .default_value(default)
            .value_parser(duration())
            .help(help)
    };
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NUMBER")
            .value_parser(value_parser!(usize))
            .help(help)
    };
    Command::new("fleet")
        .about("Run thousands of agents with podbeat-server and print figures; exit with 1 if a figure misses its limit")
        .arg(
            Arg::new("server")
                .long("server")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("podbeat-server; build it for speed (`just server-program`)"),
        )
        .arg(number("agents", "Number of agents").short('n').default_value("1000"))
        .arg(time("interval", "30s", "Time between two heartbeats of one agent"))
        .arg(time(
            "start-over",
            "30s",
            "Time over which the agents start, one after another",
        ))
        .arg(time("outage", "1m", "Time for which the service is unavailable; less than its heartbeat timeout of 10m"))
        .arg(number("processes", "Number of processes that run the agents").default_value("2"))
        .arg(number(
            "drift",
            "Measure only how evenly heartbeats arrive, for this number of intervals, from agents that start together (--start-over 0s)",
        ))
        .arg(
            Arg::new("output")
                .long("output")
                .value_name("FILE")
                .default_value("target/fleet/server.json")
                .value_parser(value_parser!(PathBuf))
                .help("File for the figures, as JSON"),
        )
}

async fn serve(matches: &ArgMatches) -> Result<(), Failure> {
    // Set before the URL is printed, so that no signal is missed.
    let mut signals = Signals::new(SIGNALS)?;
    let token = match matches.get_one::<String>("token") {
        Some(token) => token.clone(),
        None => service::made_up_token()?,
    };
    let faults = Faults::default();
    if let Some(rules) = matches.get_one::<String>("faults") {
        faults.script(rules)?;
        if !faults.lie_in(&[Place::Heartbeat, Place::Any]) {
            return Err("--faults: this stand-in has no Kubernetes API, so get, list and watch are invalid; use heartbeat or any"
                .into());
        }
    }
    let listen = *matches
        .get_one::<SocketAddr>("listen")
        .ok_or("no address")?;
    let options = Options {
        runs: (!matches.get_flag("any-run")).then(BTreeSet::new),
        data: matches.get_one::<PathBuf>("data").cloned(),
        heartbeat_timeout: matches.get_one::<Duration>("heartbeat-timeout").copied(),
        renew_tokens: matches.get_one::<Duration>("renew-tokens").copied(),
        // Nobody reads the record.
        limits: Limits {
            heartbeats: 0,
            ..Limits::default()
        },
        ..Options::with_token(&token)
    };
    let service = Service::start_plain(listen, Contract::load()?, faults, options).await?;
    if !listen.ip().is_loopback() {
        let warning = "other hosts can reach this address, and there is no TLS: anyone on the network path can read the token";
        writeln!(std::io::stderr(), "podbeat-lab: {warning}")?;
    }
    let mut out = std::io::stdout();
    let told = format!(
        "the task-run service, for development\nurl    {}\ntoken  {token}\n",
        service.url()
    );
    // In one write, because a program that started us may stop reading after the line that it
    // needs.
    out.write_all(told.as_bytes())?;
    out.flush()?;
    signals.next().await;
    Ok(())
}
