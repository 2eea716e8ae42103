//! docs/commands.md is generated from the help texts, and the table of commands in the README from
//! their first lines; `just docs` writes both. Every example in a help text is valid.

use std::fmt::Write;

use crate::harness::reference::podbeat;
use crate::harness::repository::is_up_to_date;

#[test]
fn the_page_of_commands_is_up_to_date() {
    let mut text = String::from(
        "# Commands\n\n\
         This page shows the `--help` text of every command. It is generated from `src/cli.rs` and the tables of settings and \
         exit codes by `just docs`; a test compares. The image has `agent`, `exec`, `check` and `reap`. The other commands are \
         in the build for a laptop.\n",
    );
    podbeat().helps(&mut text, "##");
    is_up_to_date("docs/commands.md", &text);
}

#[test]
fn the_readmes_table_of_commands_is_up_to_date() {
    const BEGINS: &str = "<!-- The commands: written by `just docs` -->\n";
    const ENDS: &str = "<!-- The end of the commands -->\n";
    let mut table = String::from("| command | purpose |\n|---|---|\n");
    for (called, command) in podbeat()
        .commands()
        .iter()
        .filter(|(called, _)| called.split(' ').count() == 2)
    {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        writeln!(table, "| `{called}` | {about} |").expect("a String takes all");
    }
    let readme = include_str!("../README.md");
    let (before, rest) = readme.split_once(BEGINS).expect("the beginning's mark");
    let (_, behind) = rest.split_once(ENDS).expect("the end's mark");
    is_up_to_date(
        "README.md",
        &format!("{before}{BEGINS}{table}{ENDS}{behind}"),
    );
}

#[test]
fn every_command_has_valid_examples() {
    // `podbeat` without a command runs the agent, so the agent's examples may omit it.
    podbeat()
        .examples_are_valid(|called, typed| typed.starts_with(called) || called == "podbeat agent");
}
