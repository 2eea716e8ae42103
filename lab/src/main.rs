//! `podbeat-lab service`: the stand-in of the task-run service on its own, for those who develop against it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use futures_util::StreamExt;
use podbeat_lab::contract::Contract;
use podbeat_lab::fault::Faults;
use podbeat_lab::page;
use podbeat_lab::service::{self, Limits, Options, Service};
use signal_hook_tokio::Signals;

/// SIGINT from a terminal, SIGTERM from whoever started it.
const SIGNALS: [i32; 2] = [2, 15];

const ABOUT: &str = "\
The task-run service, for development: the five operations of the contract, over plain HTTP, on loopback unless --listen says
otherwise. Never let others reach it: there is no TLS, and one token opens all of it.

It prints its URL, its token, and the link to a web page of its runs and their heartbeats, live; it ends on SIGINT or SIGTERM.";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let Some(("service", matches)) = matches.subcommand() else {
        return ExitCode::from(64);
    };
    let failure = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(serve(matches)) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
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

fn command() -> Command {
    let duration = || ValueParser::from(|text: &str| humantime::parse_duration(text));
    let setting = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let service = Command::new("service")
        .about("The task-run service, for development")
        .long_about(ABOUT)
        .arg(
            setting("listen", "ADDR", "Where it listens; port 0 is any free one")
                .default_value("127.0.0.1:8080")
                .value_parser(value_parser!(SocketAddr)),
        )
        .arg(setting(
            "token",
            "TOKEN",
            "The bearer token that it accepts; without it one is made up",
        ))
        .arg(
            setting(
                "data",
                "FILE",
                "Keeps runs in this file (SQLite), so that they outlive it; without it, in memory",
            )
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            setting(
                "heartbeat-timeout",
                "DURATION",
                "A running run that is silent for longer, such as 2m, is TimedOut; without it, never",
            )
            .value_parser(duration()),
        )
        .arg(
            setting(
                "renew-tokens",
                "DURATION",
                "Answers each heartbeat with a fresh jwt for its run, good for so long",
            )
            .value_parser(duration()),
        )
        .arg(
            Arg::new("check-nonces")
                .long("check-nonces")
                .action(ArgAction::SetTrue)
                .help("All heartbeats of an attempt must have the nonce of its first one"),
        )
        .arg(
            Arg::new("any-run")
                .long("any-run")
                .action(ArgAction::SetTrue)
                .help("A heartbeat of an unknown run makes the run, instead of being answered with 404"),
        )
        .arg(
            setting(
                "page-host",
                "NAME",
                "A name that the page may be asked for by, beside localhost and addresses; as often as need be",
            )
            .action(ArgAction::Append),
        )
        .arg(setting(
            "faults",
            "RULES",
            "Faults from the start, such as `heartbeat 503 retry-after=2s x3` (see CONTRIBUTING.md)",
        ));
    Command::new("podbeat-lab")
        .about("podbeat's stand-ins, for development")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(service)
}

async fn serve(matches: &ArgMatches) -> Result<(), Failure> {
    // Before it says that it is there, so that no signal is missed.
    let mut signals = Signals::new(SIGNALS)?;
    let token = match matches.get_one::<String>("token") {
        Some(token) => token.clone(),
        None => service::made_up_token()?,
    };
    let faults = Faults::default();
    if let Some(rules) = matches.get_one::<String>("faults") {
        faults.script(rules)?;
    }
    let listen = *matches.get_one::<SocketAddr>("listen").ok_or("no address")?;
    let options = Options {
        runs: (!matches.get_flag("any-run")).then(BTreeSet::new),
        data: matches.get_one::<PathBuf>("data").cloned(),
        heartbeat_timeout: matches.get_one::<Duration>("heartbeat-timeout").copied(),
        renew_tokens: matches.get_one::<Duration>("renew-tokens").copied(),
        check_nonces: matches.get_flag("check-nonces"),
        // The page keeps what it shows by itself.
        limits: Limits {
            heartbeats: 0,
            ..Limits::default()
        },
        page: Some(page::Options {
            hosts: matches
                .get_many::<String>("page-host")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            ..page::Options::default()
        }),
        ..Options::with_token(&token)
    };
    let service = Service::start_plain(listen, Contract::load()?, faults, options).await?;
    if !listen.ip().is_loopback() {
        let warning =
            "others can reach this address, and there is no TLS: anyone on the way can read the token";
        writeln!(std::io::stderr(), "podbeat-lab: {warning}")?;
    }
    let mut out = std::io::stdout();
    let told = format!(
        "the task-run service, for development\nurl    {}\ntoken  {token}\npage   {}\n",
        service.url(),
        service.page_url().unwrap_or_default()
    );
    // All at once: whoever started it may read no further than the line that it wants.
    out.write_all(told.as_bytes())?;
    out.flush()?;
    signals.next().await;
    Ok(())
}
