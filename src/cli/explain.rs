//! The flags of `podbeat explain`, and what they come to.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};

use super::{OUTPUT, json_output};
use crate::explain::Invocation;

pub(super) const EXPLAIN: &str = "explain";

pub(super) fn command() -> Command {
    let after = "It reads podbeat's log, a watch that podbeat observe recorded, or a journal, and finds out by itself which it is. It asks nobody.\n\
         A log may be in JSON or text, as kubectl prints it (also with --prefix or --timestamps) or as Docker or the CRI keeps it on a\n\
         node; lines of others are left out.\n\n\
         Examples:\n  \
         kubectl logs my-task -c podbeat | podbeat explain\n  \
         kubectl logs -l app=task -c podbeat --prefix --tail=-1 | podbeat explain\n  \
         podbeat explain record.jsonl\n  \
         podbeat explain journal.json -o json | jq -r .verdict.text";
    Command::new(EXPLAIN)
        .about("Tell the story of a run, by podbeat's log, a recorded watch or a journal")
        .after_help(after)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .default_value("-")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("What is read; - is standard input"),
        )
        .arg(
            Arg::new("container-name")
                .long("container-name")
                .value_name("NAME")
                .default_value("podbeat")
                .help("Name of podbeat's container, which is told apart in a recorded watch"),
        )
        .arg(json_output("json: one object a story, with events and verdict"))
}

pub(super) fn parse(matches: &ArgMatches) -> Invocation {
    Invocation {
        file: matches.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
        container_name: matches
            .get_one::<String>("container-name")
            .cloned()
            .unwrap_or_default(),
        json: matches.contains_id(OUTPUT),
    }
}
