//! What a command prints instead of running: its help, or why its command line is invalid.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::{Ending, Endings};
use crate::setting::{Kind, Row};

/// Why there is no command to run: the user asked for help, or the command line is invalid.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// The text to print.
    pub text: String,
    /// `None` for help and version, which are successful and go to standard output.
    pub failure: Option<Ending>,
}

/// Appends the exit codes to the help text of a command and of its subcommands. `called` is the
/// command as a user types it.
pub fn with_exit_codes(
    command: Command,
    called: &str,
    endings: impl Fn(&str) -> Endings + Copy,
) -> Command {
    let mut after = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let own = endings(called);
    if !own.is_empty() {
        if !after.is_empty() {
            after += "\n\n";
        }
        after += "Exit codes:";
        for (ending, meaning) in own {
            after += &format!("\n  {:<4}{meaning}", ending.code());
        }
    }
    command.after_help(after).mut_subcommands(|below| {
        let called = format!("{called} {}", below.get_name());
        with_exit_codes(below, &called, endings)
    })
}

/// The command that the arguments name, with its subcommands, as a user types it.
#[must_use]
pub fn asked(arguments: &[OsString], command: &Command) -> String {
    let (mut command, mut typed) = (command, command.get_name().to_owned());
    for word in arguments.iter().skip(1) {
        let named = word.to_str().and_then(|word| command.find_subcommand(word));
        let Some(named) = named else { continue };
        typed = format!("{typed} {}", named.get_name());
        command = named;
    }
    typed
}

/// Why a command line is invalid. `asked` is the command as a user types it.
#[must_use]
pub fn usage(problem: &str, asked: &str) -> Exit {
    let program = asked.split(' ').next().unwrap_or_default();
    Exit {
        text: format!("{program}: {problem}; see {asked} --help\n"),
        failure: Some(Ending::Usage),
    }
}

/// Why clap accepts no command line, or what it prints instead of running a command. Repeats the
/// names of flags and arguments, but never a value, because a secret may be in the wrong place.
///
/// `settings` has the flags whose values are secret. `wrong` is the text of an error of a value
/// parser, if that never contains the value.
pub fn refusal(
    error: &clap::Error,
    arguments: &[OsString],
    command: &Command,
    settings: &[Row],
    wrong: impl Fn(&(dyn std::error::Error + 'static)) -> Option<String>,
) -> Exit {
    let asked = &asked(arguments, command);
    let is_help = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Some(None),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(Some(Ending::Usage)),
        _ => None,
    };
    if let Some(failure) = is_help {
        return Exit {
            text: error.render().to_string(),
            failure,
        };
    }
    // Repeat only the names of flags and arguments, never a value.
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(named)) if named.starts_with("--") => {
            named.split([' ', '=']).next()
        }
        Some(ContextValue::String(named)) if named.starts_with('<') => Some(named.as_str()),
        _ => None,
    };
    let strings = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let problem = match (error.kind(), named) {
        (ErrorKind::UnknownArgument, _) => {
            match unknown_flag(&strings(ContextKind::InvalidArg), arguments, settings) {
                Some(flag) => match strings(ContextKind::SuggestedArg).as_str() {
                    "" => format!("unknown flag {flag}"),
                    similar => format!("unknown flag {flag}; did you mean {similar}?"),
                },
                None => "unexpected argument (not shown: it may be a secret)".to_owned(),
            }
        }
        (ErrorKind::InvalidSubcommand, _) => {
            match strings(ContextKind::SuggestedSubcommand).as_str() {
                "" => "unknown command".to_owned(),
                similar => format!("unknown command; did you mean {similar}?"),
            }
        }
        (ErrorKind::MissingRequiredArgument, _) => {
            match strings(ContextKind::InvalidArg).as_str() {
                // Clap names the positional argument as the usage shows it.
                "" | "<CMD>..." => "missing: the command to run, after --".to_owned(),
                missing => format!("missing: {missing}"),
            }
        }
        (ErrorKind::InvalidValue, Some(named)) => match strings(ContextKind::ValidValue).as_str() {
            "" => format!("{named}: missing value"),
            valid => format!("{named}: must be one of {valid}"),
        },
        // Clap's own message would repeat the value.
        (ErrorKind::ValueValidation, Some(named)) => {
            let problem = std::error::Error::source(error).and_then(&wrong);
            format!(
                "{named}: {}",
                problem.unwrap_or_else(|| "invalid value".to_owned())
            )
        }
        (ErrorKind::ArgumentConflict, Some(named)) => match strings(ContextKind::PriorArg).as_str()
        {
            "" => format!("{named} is not allowed here"),
            other => format!("{named} cannot be used with {other}"),
        },
        (_, Some(named)) => format!("{named}: {}", error.kind()),
        (_, None) => error.kind().to_string(),
    };
    usage(&problem, asked)
}

/// Returns the name of an unknown flag, without a value. Returns `None` if the text may be a value:
/// it comes after `--` or after a flag that takes a secret, or no flag can have such a name.
fn unknown_flag(typed: &str, arguments: &[OsString], settings: &[Row]) -> Option<String> {
    /// Longer than any flag, but shorter than most tokens.
    const LONGEST: usize = 32;
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let flag: String = match typed.strip_prefix("--") {
        Some(long) => {
            let name = long.split('=').next().unwrap_or_default();
            let is_name = name.len() <= LONGEST
                && name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.chars().all(is_letter);
            is_name.then(|| format!("--{name}"))?
        }
        // The text after the first letter may be a value.
        None => {
            let letter = typed.strip_prefix('-')?.chars().next()?;
            letter
                .is_ascii_alphanumeric()
                .then(|| format!("-{letter}"))?
        }
    };
    let mut before: &str = "";
    for argument in arguments.iter().skip(1) {
        let argument = argument.to_str().unwrap_or_default();
        if argument == "--" {
            return None;
        }
        let is_it = match argument.strip_prefix("--") {
            Some(_) => argument.split('=').next() == Some(&flag),
            None => flag.strip_prefix('-').is_some_and(|letter| {
                argument
                    .strip_prefix('-')
                    .is_some_and(|letters| letters.contains(letter))
            }),
        };
        if is_it {
            let wants_secret = settings.iter().any(|setting| {
                setting.kind == Kind::Secret && before.strip_prefix("--") == Some(setting.flag)
            });
            return (!wants_secret).then_some(flag);
        }
        before = argument;
    }
    None
}
