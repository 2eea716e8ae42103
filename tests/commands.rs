//! docs/commands.md is generated from the help texts, and the table of commands in the README from
//! their first lines; `just docs` writes both. Every example in a help text is valid.

use std::ffi::OsString;
use std::fmt::Write;

use clap::Command;
use podbeat::cli::{command, parse};
use podbeat_interface::command_line::Exit;

use crate::harness::repository::is_up_to_date;

/// Every command with the words that call it, each before its subcommands.
fn commands() -> Vec<(String, Command)> {
    fn with_those_below(called: String, command: Command) -> Vec<(String, Command)> {
        let below: Vec<_> = command
            .get_subcommands()
            .flat_map(|below| {
                with_those_below(format!("{called} {}", below.get_name()), below.clone())
            })
            .collect();
        std::iter::once((called, command)).chain(below).collect()
    }
    with_those_below("podbeat".to_owned(), command())
}

fn help(called: &str) -> String {
    let words = called.split(' ').chain(["--help"]).map(OsString::from);
    let exit = parse(words).err().expect("help is asked for");
    assert_eq!(exit.failure, None, "{called}: {}", exit.text);
    let lines = exit.text.trim().lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let mut text = String::from(
        "# Commands\n\n\
         This page shows the `--help` text of every command. It is generated from `src/cli.rs` and the tables of settings and \
         exit codes by `just docs`; a test compares. The image has `agent`, `exec`, `check` and `reap`. The other commands are \
         in the build for a laptop.\n",
    );
    for (called, _) in commands() {
        write!(text, "\n## {called}\n\n```text\n{}\n```\n", help(&called))
            .expect("a String takes all");
    }
    is_up_to_date("docs/commands.md", &text);
}

#[test]
fn the_readmes_table_of_commands_is_up_to_date() {
    const BEGINS: &str = "<!-- The commands: written by `just docs` -->\n";
    const ENDS: &str = "<!-- The end of the commands -->\n";
    let mut table = String::from("| command | purpose |\n|---|---|\n");
    for (called, command) in commands()
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

/// The podbeat commands in a line of a help text, without the program and without the part before
/// it that starts it.
fn examples_in(line: &str) -> impl Iterator<Item = Vec<&str>> {
    // After three spaces, the text explains the example.
    let typed = line.trim().split("   ").next().unwrap_or_default();
    typed
        .split(['|', '>', '(', ')', '&', ';'])
        .filter_map(|part| {
            let mut words = part
                .split_whitespace()
                .map(|word| word.trim_matches(['\'', '"']))
                .skip_while(|word| word.contains('='))
                .peekable();
            if words.peek() == Some(&"kubectl") {
                // `kubectl exec` runs podbeat; `kubectl logs` only names its container.
                words.find(|word| *word == "--")?;
            }
            words
                .next()
                .filter(|program| program.ends_with("podbeat"))
                .map(|_| words.collect())
        })
}

#[test]
fn every_command_has_valid_examples() {
    for (called, command) in commands() {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (_, examples) = help
            .split_once("Examples:\n")
            .unwrap_or_else(|| panic!("{called} has no examples: {help:?}"));
        let examples = examples.split("\n\n").next().unwrap_or_default();
        let mut of_its_own = 0;
        for arguments in examples.lines().flat_map(examples_in) {
            let words = std::iter::once("podbeat")
                .chain(arguments)
                .collect::<Vec<_>>();
            let typed = words.join(" ");
            // `podbeat` without a command runs the agent, so the agent's examples may omit it.
            of_its_own += usize::from(typed.starts_with(&called) || called == "podbeat agent");
            match parse(words.into_iter().map(OsString::from)) {
                Ok(_) | Err(Exit { failure: None, .. }) => {}
                // The files of an example do not exist here.
                Err(exit) if exit.text.contains("No such file") => {}
                Err(exit) => panic!("{called}: {typed}: {}", exit.text),
            }
        }
        assert!(of_its_own > 0, "{called}: no example of it: {examples}");
    }
}
