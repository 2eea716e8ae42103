//! Completion with lookups: IDs of runs from the service, and names of profiles from their file.
//! Each time the user presses the completion key, the shell runs podbeat with `PODBEAT_COMPLETE`
//! set to the shell's name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::service::ServiceConfig;
use podbeat_interface::setting::{COMPLETE, Kind, PROFILE};
use podbeat_laptop::cli::runs;
use podbeat_laptop::cli::runs::mapping::{self, Keys};
use podbeat_laptop::profiles::{self, Profiled};
use podbeat_laptop::runs::candidates::{candidates, is_plain};
use tokio::runtime::Runtime;

/// How long somebody who presses a key waits at most.
const LIMIT: Duration = Duration::from_secs(2);

/// Builds the runtime of the process. Only a lookup at the service needs one.
pub type NewRuntime = fn() -> io::Result<Runtime>;

/// Answers a shell that asks, on standard output. False if none does, and podbeat is to do what it
/// always does.
///
/// # Errors
/// The shell is unknown, or does not read the answer.
pub fn answer<E>(
    arguments: &[OsString],
    dir: Option<&Path>,
    environment: &E,
    runtime: NewRuntime,
) -> Result<bool, clap::Error>
where
    E: Environment + Clone + Send + Sync + 'static,
{
    // `CompleteEnv` requires the program's name.
    if arguments.is_empty() {
        return Ok(false);
    }
    let flags = typed(arguments);
    let command = || with_lookups(super::command(), &flags, environment, runtime);
    CompleteEnv::with_factory(command)
        .var(COMPLETE.row.variable)
        .try_complete(arguments.iter().cloned(), dir)
}

fn with_lookups<E>(command: Command, flags: &Flags, environment: &E, runtime: NewRuntime) -> Command
where
    E: Environment + Clone + Send + Sync + 'static,
{
    let profiles = {
        let (flags, environment) = (flags.clone(), environment.clone());
        ArgValueCompleter::new(move |begun: &OsStr| {
            let names = profiles::names(&flags, &environment);
            begun_so(begun, names.into_iter().map(|name| (name, String::new())))
        })
    };
    let ids = {
        let (flags, environment) = (flags.clone(), environment.clone());
        ArgValueCompleter::new(move |begun: &OsStr| {
            let found = ids(&flags, environment.clone(), runtime);
            begun_so(begun, found)
        })
    };
    let with_profiles = |command: Command| {
        let profile = PROFILE.row.variable;
        let has = command.get_arguments().any(|arg| arg.get_id() == profile);
        match has {
            true => command.mut_arg(profile, |arg| arg.add(profiles.clone())),
            false => command,
        }
    };
    command.mut_subcommands(|command| {
        with_profiles(command).mut_subcommands(|command| {
            let has =
                |command: &Command, id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
            let command = match has(&command, runs::RUN) {
                true => command.mut_arg(runs::RUN, |arg| arg.add(ids.clone())),
                false => command,
            };
            mapping::ALL
                .iter()
                .fold(command, |command, flag| match has(&command, flag.flag) {
                    true => command.mut_arg(flag.flag, |arg| arg.add(keys_of(flag))),
                    false => command,
                })
        })
    })
}

/// Completes the keys of a value such as `path=/data/a,url=s3://bucket/a`.
fn keys_of(flag: &'static Keys) -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let Some(begun) = begun.to_str() else {
            return Vec::new();
        };
        let candidate = |(nth, word)| CompletionCandidate::new(word).display_order(Some(nth));
        let words = with_next_key(begun, flag.keys).into_iter();
        words.enumerate().map(candidate).collect()
    })
}

/// The text with each key that can come next. Empty if the text needs quotes in a shell, because
/// the shell uses the inserted text as it is.
fn with_next_key(begun: &str, keys: &[&str]) -> Vec<String> {
    let letters = begun.replace(['=', ','], "");
    if !letters.is_empty() && !is_plain(&letters) {
        return Vec::new();
    }
    let (before, typed) = match begun.rsplit_once(',') {
        Some((before, typed)) => (format!("{before},"), typed),
        None => (String::new(), begun),
    };
    let is_used = |key: &str| {
        let mut pairs = before.split(',').filter_map(|pair| pair.split_once('='));
        pairs.any(|(used, _)| used == key)
    };
    let next = keys
        .iter()
        .filter(|key| key.starts_with(typed) && !is_used(key));
    next.map(|key| format!("{before}{key}=")).collect()
}

fn begun_so(
    begun: &OsStr,
    found: impl IntoIterator<Item = (String, String)>,
) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else {
        return Vec::new();
    };
    let fits = found
        .into_iter()
        .filter(|(word, _)| word.starts_with(begun) && is_plain(word));
    let candidate = |(nth, (word, about)): (usize, (String, String))| {
        let help = (!about.is_empty()).then(|| about.into());
        // Keep the order: newest first.
        CompletionCandidate::new(word)
            .help(help)
            .display_order(Some(nth))
    };
    fits.enumerate().map(candidate).collect()
}

fn ids(flags: &Flags, environment: impl Environment, runtime: NewRuntime) -> Vec<(String, String)> {
    let found = || {
        let environment = Profiled::load(flags, environment).ok()?;
        let config = ServiceConfig::load(flags, &environment).ok()?;
        let runtime = runtime().ok()?;
        let found = runtime.block_on(candidates(&config, LIMIT));
        // Do not wait for a name lookup that hangs.
        runtime.shutdown_background();
        Some(found)
    };
    let found = found().unwrap_or_default();
    found
        .into_iter()
        .map(|candidate| (candidate.id, candidate.about))
        .collect()
}

/// The settings in the words typed so far. The shell puts `--` before these words.
fn typed(arguments: &[OsString]) -> Flags {
    let mut flags = Flags::default();
    let mut words = arguments.iter().skip_while(|word| *word != "--").skip(1);
    let settings = runs::settings();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str().and_then(|word| word.strip_prefix("--")) else {
            continue;
        };
        if text.is_empty() {
            break;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, None),
        };
        let Some(setting) = settings.iter().find(|setting| setting.flag == name) else {
            continue;
        };
        let value = match (setting.kind == Kind::Switch, value) {
            (true, _) => Some("true".into()),
            (false, Some(value)) => Some(value),
            (false, None) => words.next().cloned(),
        };
        if let Some(value) = value {
            flags.0.insert(setting.variable, value);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_can_come_next() {
        let keys = ["path", "url", "urn"];
        for (begun, expected) in [
            ("", &["path=", "url=", "urn="][..]),
            ("ur", &["url=", "urn="]),
            ("path=/a,", &["path=/a,url=", "path=/a,urn="]),
            ("url=s3://b/a,path=/a,u", &["url=s3://b/a,path=/a,urn="]),
            ("path=", &[]),
            ("path=/a", &[]),
            ("path=$(id),", &[]),
            ("path=a b,", &[]),
            ("x", &[]),
        ] {
            assert_eq!(with_next_key(begun, &keys), expected, "{begun:?}");
        }
    }

    #[test]
    fn the_settings_of_the_words_typed_so_far() {
        let line = "podbeat -- podbeat runs --service-url https://h --profile=p get --allow-http -o json --token";
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let Flags(flags) = typed(&arguments);
        let expected = [
            ("PODBEAT_ALLOW_HTTP", "true"),
            ("PODBEAT_PROFILE", "p"),
            ("PODBEAT_SERVICE_URL", "https://h"),
        ];
        assert!(
            flags
                .into_iter()
                .eq(expected.map(|(variable, value)| (variable, OsString::from(value))))
        );
        assert!(
            typed(&[
                "podbeat".into(),
                "--".into(),
                "podbeat".into(),
                "--".into(),
                "--profile".into(),
                "p".into()
            ])
            .0
            .is_empty()
        );
    }

    #[test]
    fn the_command_line_with_lookups_is_as_right_as_that_without() {
        let environment = std::collections::BTreeMap::<String, String>::new();
        let runtime = || Err(io::Error::other("nothing is looked up"));
        let command = super::super::command();
        with_lookups(command, &Flags::default(), &environment, runtime).debug_assert();
    }
}
