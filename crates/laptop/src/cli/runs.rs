//! The flags of `podbeat runs`, and how they are parsed. They have kubectl's names where kubectl
//! has the same flag.

mod invocation;
pub mod mapping;
mod subcommands;
mod values;

use clap::{ArgMatches, Command};
use podbeat_interface::arguments::{flag, flags, output};
use podbeat_interface::environment::Flags;
use podbeat_interface::setting::{Row, SERVICE_SETTINGS};

pub use self::subcommands::RUN;
use crate::profiles::PROFILE_SETTINGS;
use crate::runs::command::{Format, Invocation};

/// The command's name.
pub const RUNS: &str = "runs";

const CONNECTION: &str = "Connection";
const OUTPUT: &str = "Output";

/// The settings of `podbeat runs`, including those that choose a profile.
#[must_use]
pub fn settings() -> Vec<Row> {
    [SERVICE_SETTINGS, PROFILE_SETTINGS].concat()
}

/// The command `podbeat runs`, with its flags.
#[must_use]
pub fn command() -> Command {
    let after = "Examples:\n  \
         export PODBEAT_SERVICE_URL=https://ica.example.com PODBEAT_TOKEN_FILE=~/.config/podbeat/token\n  \
         podbeat runs list --status Running --sort timeCreated:desc -o wide\n  \
         run=$(podbeat runs create -f run.yaml -o name) && podbeat runs wait $run --for Completed --timeout 2h";
    Command::new(RUNS)
        .about("Create, get, list, abort, wait for and watch task runs, from a laptop")
        .after_help(after)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(settings().iter().map(|setting| flag(setting).global(true).help_heading(CONNECTION)))
        .arg(
            output(
                Format::ALL.map(|(word, _)| word),
                "Output format: json, yaml, name (only IDs) or wide (a table with more columns); none of them shows secrets",
            )
            .global(true)
            .help_heading(OUTPUT),
        )
        .arg(
            subcommands::switch("no-headers", "Print tables without headers")
                .global(true)
                .help_heading(OUTPUT),
        )
        .subcommands(subcommands::all())
}

/// Parses the flags.
///
/// # Errors
/// The command is missing, a status is unknown, or a file that a flag names cannot be read.
pub fn parse(matches: &ArgMatches) -> Result<(Flags, Invocation), String> {
    let (name, matches) = matches.subcommand().ok_or("missing command")?;
    let invocation = invocation::invocation(name, matches)?;
    Ok((flags(matches, &settings()), invocation))
}
