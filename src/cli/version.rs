//! `podbeat version`: prints the version.

use clap::{ArgMatches, Command};
use serde::Serialize;

use podbeat_interface::arguments::{OUTPUT, output};

pub(super) const VERSION: &str = "version";

/// The output format of the version for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    const ALL: [(&'static str, Self); 2] = [("json", Self::Json), ("yaml", Self::Yaml)];
}

/// What a build knows about itself.
#[derive(Debug, Serialize)]
struct Build {
    version: &'static str,
    /// The value of `PODBEAT_COMMIT` at build time.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
}

const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: option_env!("PODBEAT_COMMIT"),
};

pub(super) fn command() -> Command {
    Command::new(VERSION)
        .about("Print the version, and the commit if the build has it")
        .after_help(
            "The commit is the value of PODBEAT_COMMIT at build time.\n\n\
             Examples:\n  \
             podbeat version\n  \
             podbeat version -o json | jq -r .version",
        )
        .arg(output(
            Format::ALL.map(|(word, _)| word),
            "Output format: json or yaml",
        ))
}

pub(super) fn parse(matches: &ArgMatches) -> Option<Format> {
    let output = matches.get_one::<String>(OUTPUT)?;
    Format::ALL
        .into_iter()
        .find_map(|(word, format)| (output == word).then_some(format))
}

/// The text to print.
#[must_use]
pub fn text(format: Option<Format>) -> String {
    match format {
        Some(Format::Json) => serde_json::to_string(&BUILD).unwrap_or_default() + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(&BUILD).unwrap_or_default(),
        None => {
            let commit = BUILD.commit.map(|commit| format!(" (commit {commit})"));
            format!("podbeat {}{}\n", BUILD.version, commit.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_the_version_of_the_flag() {
        let exit = crate::cli::parse(["podbeat", "--version"].map(Into::into))
            .err()
            .expect("it is printed");
        assert!(
            text(None).starts_with(exit.text.trim_end()),
            "{}",
            exit.text
        );
        let json: serde_json::Value =
            serde_json::from_str(&text(Some(Format::Json))).expect("JSON");
        let yaml: serde_json::Value =
            serde_saphyr::from_str(&text(Some(Format::Yaml))).expect("YAML");
        assert_eq!(json, yaml);
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    }
}
