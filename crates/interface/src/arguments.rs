//! Parts that all command lines share: flags of settings, output formats, and parsers of values.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches};

use crate::environment::Flags;
use crate::setting::{Kind, Row};

/// The ID and the long form of `-o`.
pub const OUTPUT: &str = "output";

/// The flag of a setting, with its help text.
#[must_use]
pub fn flag(setting: &Row) -> Arg {
    let help = format!(
        "{} [{}; default: {}]",
        setting.meaning(),
        setting.variable,
        setting.default()
    );
    let arg = Arg::new(setting.variable).long(setting.flag).help(help);
    if setting.kind == Kind::Switch {
        arg.action(ArgAction::SetTrue)
    } else {
        arg.value_name("VALUE")
            .value_parser(OsStringValueParser::new())
    }
}

/// The values of the flags of these settings.
#[must_use]
pub fn flags(matches: &ArgMatches, settings: &[Row]) -> Flags {
    let mut flags = Flags::default();
    for setting in settings {
        let value = if setting.kind == Kind::Switch {
            matches.get_flag(setting.variable).then(|| "true".into())
        } else {
            matches.get_one::<OsString>(setting.variable).cloned()
        };
        if let Some(value) = value {
            flags.0.insert(setting.variable, value);
        }
    }
    flags
}

/// `-o json`, for a command with one other format: text for people.
#[must_use]
pub fn json_output(help: &'static str) -> Arg {
    output(["json"], help)
}

/// `-o FORMAT`.
#[must_use]
pub fn output<const FORMATS: usize>(formats: [&'static str; FORMATS], help: &'static str) -> Arg {
    Arg::new(OUTPUT)
        .short('o')
        .long(OUTPUT)
        .value_name("FORMAT")
        .value_parser(PossibleValuesParser::new(formats))
        .help(help)
}

/// Parses a duration, such as `30s`.
///
/// # Errors
/// The text is not a duration.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    humantime::parse_duration(text).map_err(|_| Wrong("must be a duration such as 30s or 2m"))
}

/// Why a flag's value is invalid. It never contains the value.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub &'static str);
