//! The commands of podbeat-server and their flags.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgMatches, Command};
use podbeat_interface::arguments::{OUTPUT, Wrong, duration, flag, flags, json_output};
use podbeat_interface::command_line::{Exit, asked, refusal, usage, with_exit_codes};
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::{Ending, Endings, NO_OUTPUT, NOT_STARTED};

use crate::settings;
use crate::store::Role;
use crate::token_command::{self, NewToken};

/// The program's name.
pub const PROGRAM: &str = "podbeat-server";

const TOKEN: &str = "token";
const CREATE: &str = "create";
const LIST: &str = "list";
const REVOKE: &str = "revoke";
const CHECK: &str = "check";
const BACKUP: &str = "backup";

/// The parsed command line.
pub enum Cli {
    /// Serve.
    Serve(Flags),
    /// Create, list or revoke tokens.
    Token {
        /// The settings of the data file.
        flags: Flags,
        /// What to do.
        action: token_command::Action,
    },
    /// Check the server's prerequisites.
    Check {
        /// The settings.
        flags: Flags,
        /// Whether to print JSON.
        json: bool,
    },
    /// Copy the data file.
    Backup {
        /// The settings of the data file.
        flags: Flags,
        /// The new file.
        to: PathBuf,
    },
}

const NO_DATA: (Ending, &str) = (Ending::Unread, "the data file cannot be used");
const WRONG: (Ending, &str) = (
    Ending::Usage,
    "the command line or a setting is invalid; nothing was changed",
);

const ENDINGS: &[(&str, Endings)] = &[
    (
        "podbeat-server",
        &[
            (Ending::Done, "the server was stopped by SIGTERM or SIGINT"),
            (
                Ending::Usage,
                "the command line or a setting is invalid; the server did not start",
            ),
            (
                Ending::Unread,
                "the data file, the key file or the certificate cannot be used",
            ),
            (Ending::Unavailable, "the address is not available"),
            (Ending::Internal, "a part of the server failed"),
        ],
    ),
    (
        "podbeat-server token create",
        &[
            (Ending::Done, "the token was created"),
            WRONG,
            NO_DATA,
            NOT_STARTED,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat-server token list",
        &[
            (Ending::Done, "the tokens were printed"),
            WRONG,
            NO_DATA,
            NOT_STARTED,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat-server token revoke",
        &[
            (Ending::Done, "the token is revoked"),
            (Ending::Unmet, "no token has this ID"),
            WRONG,
            NO_DATA,
            NOT_STARTED,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat-server check",
        &[
            (Ending::Done, "no check failed"),
            (
                Ending::Unmet,
                "a check failed; an invalid setting is a failed check",
            ),
            (Ending::Usage, "the command line is invalid"),
            NOT_STARTED,
            NO_OUTPUT,
        ],
    ),
    (
        "podbeat-server backup",
        &[
            (Ending::Done, "the copy is complete"),
            WRONG,
            NO_DATA,
            NOT_STARTED,
            (Ending::Unwritten, "the copy cannot be written"),
        ],
    ),
];

/// How a command can end. `called` is the command as a user types it.
#[must_use]
pub fn endings(called: &str) -> Endings {
    let known = ENDINGS.iter().find(|(command, _)| *command == called);
    known.map_or(&[], |(_, endings)| endings)
}

/// Every command, with how it can end.
#[must_use]
pub fn all_endings() -> &'static [(&'static str, Endings)] {
    ENDINGS
}

/// The whole command line, as clap describes it.
#[must_use]
pub fn command() -> Command {
    let command = Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serve the Task Runs API, with storage in one SQLite file and a web page")
        .after_help(
            "Examples:\n  \
             podbeat-server                                     on a laptop: serve on 127.0.0.1:8080, with the data in ./podbeat.db\n  \
             podbeat-server check                               check store, key, certificate and clock\n  \
             podbeat-server token create --tenant t --user u    create a token for a user\n  \
             podbeat-server backup /backup/podbeat.db           copy the data file while the server runs\n\n\
             SIGTERM and SIGINT stop the server. It finishes the requests in progress, for at most 20 seconds.",
        )
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .args(settings::all().iter().map(flag))
        .subcommand(token())
        .subcommand(
            Command::new(CHECK)
                .about("Check store, key, certificate and clock, and suggest fixes")
                .after_help(
                    "Changes nothing. The settings are those of the server.\n\n\
                     Examples:\n  \
                     podbeat-server check\n  \
                     podbeat-server check -o json | jq '.checks[] | select(.state == \"failed\")'",
                )
                .arg(json_output("Output format; json: one object with all checks"))
                .args(settings::all().iter().map(flag)),
        )
        .subcommand(
            Command::new(BACKUP)
                .about("Copy the data file, also while the server runs")
                .after_help(
                    "The copy is consistent, and contains everything that was committed before. Copy the key file, too: without it\n\
                     the secrets of runs are unreadable. To restore, stop the server, remove the data file and its -wal and -shm files,\n\
                     and put both copies where the originals were.\n\n\
                     Examples:\n  \
                     podbeat-server backup /backup/podbeat.db\n  \
                     podbeat-server backup --data /var/lib/podbeat/podbeat.db podbeat-$(date +%F).db",
                )
                .arg(
                    Arg::new("to")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("The copy; it must not exist"),
                )
                .args(settings::of_data().iter().map(flag)),
        );
    with_exit_codes(command, PROGRAM, endings)
}

fn token() -> Command {
    let text = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NAME")
            .required(true)
            .value_parser(ValueParser::from(token_command::name))
            .help(help)
    };
    Command::new(TOKEN)
        .about("Create, list and revoke the tokens of users")
        .after_help(
            "The commands use the data file, also while the server runs. They need no token.\n\n\
             Examples:\n  \
             podbeat-server token create --tenant genomics --user alice\n  \
             podbeat-server token list",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new(CREATE)
                .about("Create a token, and print it; it is not shown again")
                .after_help(
                    "The server stores only a hash of the token. It accepts the token at once, also while it runs.\n\n\
                     Examples:\n  \
                     podbeat-server token create --tenant genomics --user alice --expires 90d\n  \
                     podbeat-server token create --tenant genomics --user grafana --role read -o json | jq -r .token",
                )
                .arg(text("tenant", "Tenant, to which the runs of the user belong"))
                .arg(text("user", "User, shown as createdBy of runs"))
                .arg(
                    Arg::new("role")
                        .long("role")
                        .value_name("ROLE")
                        .value_parser(PossibleValuesParser::new(Role::ALL.map(Role::name)))
                        .default_value(Role::User.name())
                        .help(
                            "admin: everything, for the runs of all tenants; user: everything, for the runs of the tenant; \
                             read: only get and list",
                        ),
                )
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_name("DURATION")
                        .value_parser(ValueParser::from(lifetime))
                        .help("How long the token is valid, such as 90d; without it, until it is revoked"),
                )
                .arg(json_output("Output format; json: one object"))
                .args(settings::of_data().iter().map(flag)),
        )
        .subcommand(
            Command::new(LIST)
                .about("List all tokens, without their texts")
                .after_help(
                    "Examples:\n  \
                     podbeat-server token list\n  \
                     podbeat-server token list -o json | jq -r '.[] | select(.state == \"expired\") | .id'",
                )
                .arg(json_output("Output format; json: one array"))
                .args(settings::of_data().iter().map(flag)),
        )
        .subcommand(
            Command::new(REVOKE)
                .about("Revoke a token")
                .after_help(
                    "The server refuses the token within five seconds.\n\n\
                     Examples:\n  podbeat-server token revoke 49a4c0bb1edd",
                )
                .arg(
                    Arg::new("id")
                        .value_name("ID")
                        .required(true)
                        .value_parser(ValueParser::from(token_command::name))
                        .help("ID of the token, from podbeat-server token list"),
                )
                .args(settings::of_data().iter().map(flag)),
        )
}

fn lifetime(text: &str) -> Result<Duration, Wrong> {
    duration(text).and_then(|lifetime| match lifetime.is_zero() {
        true => Err(Wrong("must be longer than 0s")),
        false => Ok(lifetime),
    })
}

/// Parses the command line. The first item is the program's name.
///
/// # Errors
/// The user asked for help or the version, or the command line is invalid. The error never repeats
/// a value.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = command()
        .try_get_matches_from(&arguments)
        .map_err(|error| refusal(&error, &arguments, &command(), &settings::all(), wrong))?;
    let missing = || usage("missing command", &asked(&arguments, &command()));
    let is_json = |matches: &ArgMatches| matches.get_one::<String>(OUTPUT).is_some();
    let text = |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned();
    match matches.subcommand() {
        None => Ok(Cli::Serve(flags(&matches, &settings::all()))),
        Some((CHECK, matches)) => Ok(Cli::Check {
            flags: flags(matches, &settings::all()),
            json: is_json(matches),
        }),
        Some((BACKUP, matches)) => Ok(Cli::Backup {
            flags: flags(matches, &settings::of_data()),
            to: matches
                .get_one::<PathBuf>("to")
                .cloned()
                .ok_or_else(missing)?,
        }),
        Some((_, tokens)) => {
            let (name, matches) = tokens.subcommand().ok_or_else(missing)?;
            let action = match name {
                CREATE => token_command::Action::Create(NewToken {
                    tenant: text(matches, "tenant").ok_or_else(missing)?,
                    user: text(matches, "user").ok_or_else(missing)?,
                    role: Role::ALL
                        .into_iter()
                        .find(|role| text(matches, "role").as_deref() == Some(role.name()))
                        .ok_or_else(missing)?,
                    lifetime: matches.get_one::<Duration>("expires").copied(),
                    json: is_json(matches),
                }),
                LIST => token_command::Action::List {
                    json: is_json(matches),
                },
                _ => token_command::Action::Revoke(text(matches, "id").ok_or_else(missing)?),
            };
            Ok(Cli::Token {
                flags: flags(matches, &settings::of_data()),
                action,
            })
        }
    }
}

/// The text of an error of the own value parsers, which never contains the value.
fn wrong(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<Wrong>().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(line: &str) -> Result<Cli, Exit> {
        let words = std::iter::once(PROGRAM).chain(line.split_whitespace());
        parse(words.map(OsString::from))
    }

    #[test]
    fn clap_finds_no_fault_with_the_command_line() {
        command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        let Ok(Cli::Serve(flags)) = parse_all("--listen 127.0.0.1:1 --allow-http") else {
            panic!("it serves");
        };
        assert_eq!(flags.0.len(), 2);
        assert!(matches!(parse_all(""), Ok(Cli::Serve(flags)) if flags.0.is_empty()));
    }

    #[test]
    fn a_token_has_a_tenant_a_user_and_a_role() {
        let created = parse_all("token create --tenant t --user u --expires 2h --data d.db");
        let Ok(Cli::Token { flags, action }) = created else {
            panic!("a command");
        };
        assert_eq!(flags.0.len(), 1);
        let token_command::Action::Create(new) = action else {
            panic!("a create");
        };
        assert_eq!((new.role, new.json), (Role::User, false));
        assert_eq!(new.lifetime, Some(Duration::from_secs(7200)));
        for wrong in [
            "token",
            "token create --tenant t",
            "token create --tenant t --user u --role hunter2",
            "token create --tenant t --user u --expires 0s",
            "token create --tenant t --user hunter2\u{1b}",
            "token revoke",
            "token hunter2",
            "backup",
            "--listen 127.0.0.1:1 check",
            "hunter2",
            "--hunter2=hunter2",
        ] {
            let exit = parse_all(wrong).err().expect("wrong");
            assert_eq!(exit.failure, Some(Ending::Usage), "{wrong}");
            let text = exit.text.replace("--hunter2", "");
            assert!(!text.contains("hunter2"), "{wrong}: {text}");
        }
    }

    #[test]
    fn the_help_of_every_command_has_its_exit_codes() {
        fn walk(command: &Command, called: &str, seen: &mut Vec<String>) {
            if !endings(called).is_empty() {
                seen.push(called.to_owned());
                let help = command.get_after_help().map(ToString::to_string);
                assert!(
                    help.is_some_and(|help| help.contains("Exit codes:\n  0 ")),
                    "{called}"
                );
            }
            for below in command.get_subcommands() {
                walk(below, &format!("{called} {}", below.get_name()), seen);
            }
        }
        let mut seen = Vec::new();
        walk(&command(), PROGRAM, &mut seen);
        assert_eq!(seen.len(), ENDINGS.len(), "{seen:?}");
        for (called, endings) in ENDINGS {
            let codes = endings.iter().map(|(ending, _)| ending.code());
            assert!(codes.is_sorted(), "{called}");
        }
    }
}
