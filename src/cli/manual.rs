//! Generates shell scripts and manual pages from the description of the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use podbeat_files::regular_file::{self, Durable};

use super::Cli;

const COMPLETION: &str = "completion";
const MANUAL: &str = "man";

/// Everybody may read a page.
const MODE: u32 = 0o644;

pub(super) fn commands() -> [Command; 2] {
    let completion = Command::new(COMPLETION)
        .about("Print a script for shell completion")
        .after_help(
            "The script completes commands, flags and fixed values. With PODBEAT_COMPLETE=SHELL instead, the shell asks podbeat each time\n\
             you press Tab, and podbeat also offers the IDs of runs.\n\n\
             Examples:\n  \
             source <(PODBEAT_COMPLETE=bash podbeat)                            for this shell, with the IDs of runs\n  \
             source <(podbeat completion bash)                                  for this shell\n  \
             podbeat completion bash > /etc/bash_completion.d/podbeat           for all new shells\n  \
             podbeat completion zsh > \"${fpath[1]}/_podbeat\"\n  \
             podbeat completion fish > ~/.config/fish/completions/podbeat.fish",
        )
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("bash, zsh, fish, elvish or powershell"),
        );
    let manual = Command::new(MANUAL)
        .about("Write podbeat's manual pages to a directory")
        .after_help(
            "Examples:\n  \
             podbeat man /usr/local/share/man/man1 && man podbeat-runs-list",
        )
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath)
                .help("The directory; podbeat creates it if it does not exist"),
        );
    [completion, manual]
}

pub(super) fn parse(name: &str, matches: &ArgMatches) -> Option<Cli> {
    match name {
        COMPLETION => matches
            .get_one::<Shell>("shell")
            .copied()
            .map(Cli::Completion),
        MANUAL => matches.get_one::<PathBuf>("dir").cloned().map(Cli::Manual),
        _ => None,
    }
}

/// The completion script for a shell.
#[must_use]
pub fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "podbeat", &mut script);
    script
}

/// Writes a page for podbeat and one for each command, such as `podbeat-runs-list.1`.
///
/// # Errors
/// The directory or a page cannot be written, or a file that exists under a page's name is not a
/// regular file.
pub fn write_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, dir)
}

fn write_page(command: &Command, dir: &Path) -> io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let man = Man::new(command.clone())
        .title(name.clone())
        .source(concat!("podbeat ", env!("CARGO_PKG_VERSION")))
        .manual("podbeat");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(help) = command.get_after_help() {
        render_after_help(&help.to_string(), &mut page)?;
    }
    let path = dir.join(format!("{name}.1"));
    replace(&path, &page).map_err(|error| named(&path, &error))?;
    command
        .get_subcommands()
        .try_for_each(|subcommand| write_page(subcommand, dir))
}

/// Root may write a page into a directory where other users can write. So this function does not
/// write through a link or another special file.
fn replace(path: &Path, page: &[u8]) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            return Err(io::Error::other(
                "it is a symbolic link, which podbeat does not follow; remove it",
            ));
        }
        Ok(found) if !found.is_file() => {
            return Err(io::Error::other("it is not a regular file; remove it"));
        }
        Ok(_) | Err(_) => {}
    }
    regular_file::replace(path, MODE, Durable::First, &|file| file.write_all(page))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Renders the text below the flags of a help text, under the usual headings of manual pages.
fn render_after_help(help: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::default();
    for paragraph in help.split("\n\n") {
        let (heading, text) = ["Examples:", "Exit codes:"]
            .into_iter()
            .zip(["EXAMPLES", "EXIT STATUS"])
            .find_map(|(begins, heading)| Some((heading, paragraph.strip_prefix(begins)?)))
            .unwrap_or(("NOTES", paragraph));
        roff.control("SH", [heading]);
        // Text that begins on its own line is a list and keeps its lines.
        let is_list = text.starts_with('\n');
        if is_list {
            roff.control("nf", []);
        }
        for line in text.trim_start().lines() {
            roff.text([roman(line.trim_start())]);
        }
        if is_list {
            roff.control("fi", []);
        }
    }
    roff.to_writer(page)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pages_are_written_and_written_anew_and_never_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (pages, dear) = (dir.path().join("man1"), dir.path().join("dear"));
        std::fs::write(&dear, "dear").expect("written");
        for _ in 0..2 {
            write_pages(&pages).expect("written");
        }
        let page = pages.join("podbeat-runs-list.1");
        let text = std::fs::read_to_string(&page).expect("a page");
        assert!(text.contains("podbeat"), "{text}");
        let count = std::fs::read_dir(&pages).expect("listed").count();
        std::fs::remove_file(&page).expect("removed");
        symlink(&dear, &page).expect("a link");
        let error = write_pages(&pages).expect_err("a link").to_string();
        assert!(
            error.contains("podbeat-runs-list.1: it is a symbolic link"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&dear).expect("read"), "dear");
        assert_eq!(
            std::fs::read_dir(&pages).expect("listed").count(),
            count,
            "nothing is left beside"
        );
    }
}
