//! The flags of `podbeat explain`, and how they are parsed.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use podbeat_interface::arguments::{OUTPUT, json_output};

use crate::explain::Invocation;

/// The command's name.
pub const EXPLAIN: &str = "explain";

/// The command `podbeat explain`, with its flags.
#[must_use]
pub fn command() -> Command {
    let after = "Reads podbeat's log, a watch recorded by podbeat observe, a journal, or a run as JSON, and detects which it is. It makes no\n\
         network requests.\n\
         A log can be JSON or text, as printed by kubectl (also with --prefix or --timestamps), or as stored by Docker or a CRI\n\
         runtime on a node. podbeat skips lines from other programs.\n\n\
         Examples:\n  \
         kubectl logs my-task -c podbeat | podbeat explain\n  \
         kubectl logs -l app=task -c podbeat --prefix --tail=-1 | podbeat explain\n  \
         podbeat explain record.jsonl\n  \
         podbeat runs get trn.42 -o json | podbeat explain\n  \
         podbeat explain journal.json -o json | jq -r .verdict.text";
    Command::new(EXPLAIN)
        .about("Explain what happened to a run, from podbeat's log, a recorded watch, a journal or the service's status")
        .after_help(after)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .default_value("-")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("File to read; - is standard input"),
        )
        .arg(
            Arg::new("container-name")
                .long("container-name")
                .value_name("NAME")
                .default_value("podbeat")
                .help("Name of podbeat's container in a recorded watch"),
        )
        .arg(json_output(
            "Output format; json: one object for each run, with events and verdict",
        ))
}

/// Parses the flags.
#[must_use]
pub fn parse(matches: &ArgMatches) -> Invocation {
    Invocation {
        file: matches
            .get_one::<PathBuf>("file")
            .cloned()
            .unwrap_or_default(),
        container_name: matches
            .get_one::<String>("container-name")
            .cloned()
            .unwrap_or_default(),
        json: matches.contains_id(OUTPUT),
    }
}
