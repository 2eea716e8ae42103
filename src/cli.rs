//! The commands and their flags. `config` validates the values of settings, for flags and variables
//! alike.

mod check;
#[cfg(feature = "laptop")]
pub mod complete;
pub mod endings;
#[cfg(feature = "laptop")]
pub mod manual;
mod reap;
#[cfg(feature = "laptop")]
pub mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::OsStringValueParser;
use clap::{Arg, Command};
use podbeat_interface::arguments::{Wrong, flag, flags};
#[cfg(feature = "laptop")]
use podbeat_interface::command_line::asked;
use podbeat_interface::command_line::{Exit, refusal, usage, with_exit_codes};
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use podbeat_interface::setting::Row;
#[cfg(feature = "laptop")]
use podbeat_laptop::cli::{explain, observe, runs};

use crate::config::{EXEC_SETTINGS, SETTINGS};

/// The parsed command line.
pub enum Cli {
    /// Run the sidecar.
    Agent(Flags),
    /// Run the task's command, and write an exit marker.
    Exec {
        /// The settings of the command.
        flags: Flags,
        /// The program and its arguments; never empty.
        command: Vec<OsString>,
    },
    /// Copy the binary to where a task's container can run it.
    Install(PathBuf),
    /// Check the agent's prerequisites.
    Check {
        /// The agent's settings.
        flags: Flags,
        /// The options of the command.
        invocation: crate::check::Invocation,
    },
    /// Send the missing last heartbeat of pods that ended without one.
    Reap {
        /// The settings for the service and the Kubernetes API.
        flags: Flags,
        /// The options of the command.
        invocation: crate::reap::Invocation,
    },
    /// Show what the agent of a pod would send.
    #[cfg(feature = "laptop")]
    Observe {
        /// The settings for the cluster and for the agent.
        flags: Flags,
        /// The options of the command.
        invocation: podbeat_laptop::observe::command::Invocation,
    },
    /// Use the API of the task-run service from a terminal.
    #[cfg(feature = "laptop")]
    Runs {
        /// The settings for the service.
        flags: Flags,
        /// The options of the command.
        invocation: Box<podbeat_laptop::runs::command::Invocation>,
    },
    /// Explain what happened to a run.
    #[cfg(feature = "laptop")]
    Explain(podbeat_laptop::explain::Invocation),
    /// Print a script for shell completion.
    #[cfg(feature = "laptop")]
    Completion(clap_complete::Shell),
    /// Write the manual pages.
    #[cfg(feature = "laptop")]
    Manual(PathBuf),
    /// Print the version.
    #[cfg(feature = "laptop")]
    Version(Option<version::Format>),
}

impl Cli {
    /// The command as a user types it, without flags.
    #[must_use]
    pub fn called(&self) -> &'static str {
        match self {
            Self::Agent(_) => "podbeat agent",
            Self::Exec { .. } | Self::Install(_) => "podbeat exec",
            Self::Check { .. } => "podbeat check",
            Self::Reap { .. } => "podbeat reap",
            #[cfg(feature = "laptop")]
            Self::Observe { .. } => "podbeat observe",
            #[cfg(feature = "laptop")]
            Self::Runs { invocation, .. } => invocation.command.called(),
            #[cfg(feature = "laptop")]
            Self::Explain(_) => "podbeat explain",
            #[cfg(feature = "laptop")]
            Self::Completion(_) => "podbeat completion",
            #[cfg(feature = "laptop")]
            Self::Manual(_) => "podbeat man",
            #[cfg(feature = "laptop")]
            Self::Version(_) => "podbeat version",
        }
    }
}

const PODBEAT: &str = "podbeat";

/// The command that runs if none is named.
const DEFAULT_COMMAND: &str = "agent";

/// The exit codes of `podbeat exec` that are not in the table of endings.
const EXEC_ENDINGS: &str = "\n  126 the command cannot be run\n  127 the command does not exist\n  else the command's own exit code, or 128 \
                            plus the number of the signal that ended it";

const EXEC: &str = "exec";
const INSTALL: &str = "install";
const COMMAND: &str = "command";

/// Parses the command line. The first item is the program's name.
///
/// # Errors
/// The user asked for help or the version, or the command line is invalid. The error never repeats
/// a value, because a secret may be in the wrong place.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if names_no_command(arguments.get(1)) {
        arguments.insert(arguments.len().min(1), DEFAULT_COMMAND.into());
    }
    let matches = command()
        .try_get_matches_from(&arguments)
        .map_err(|error| refused(&error, &arguments))?;
    match matches.subcommand() {
        Some((DEFAULT_COMMAND, agent)) => Ok(Cli::Agent(flags(agent, SETTINGS))),
        Some((EXEC, exec)) => Ok(match exec.get_one::<PathBuf>(INSTALL) {
            Some(path) => Cli::Install(path.clone()),
            None => Cli::Exec {
                flags: flags(exec, EXEC_SETTINGS),
                command: exec
                    .get_many(COMMAND)
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            },
        }),
        Some((check::CHECK, matches)) => {
            let (flags, invocation) = check::parse(matches);
            Ok(Cli::Check { flags, invocation })
        }
        Some((reap::REAP, matches)) => {
            let (flags, invocation) = reap::parse(matches);
            Ok(Cli::Reap { flags, invocation })
        }
        #[cfg(feature = "laptop")]
        Some((observe::OBSERVE, matches)) => match observe::parse(matches) {
            Ok((flags, invocation)) => Ok(Cli::Observe { flags, invocation }),
            Err(problem) => Err(usage(&problem, &asked(&arguments, &command()))),
        },
        #[cfg(feature = "laptop")]
        Some((runs::RUNS, matches)) => match runs::parse(matches) {
            Ok((flags, invocation)) => Ok(Cli::Runs {
                flags,
                invocation: Box::new(invocation),
            }),
            Err(problem) => Err(usage(&problem, &asked(&arguments, &command()))),
        },
        #[cfg(feature = "laptop")]
        Some((explain::EXPLAIN, matches)) => Ok(Cli::Explain(explain::parse(matches))),
        #[cfg(feature = "laptop")]
        Some((version::VERSION, matches)) => Ok(Cli::Version(version::parse(matches))),
        #[cfg(feature = "laptop")]
        Some((name, matches)) => {
            manual::parse(name, matches).ok_or_else(|| usage("missing command", "podbeat"))
        }
        _ => Err(Exit {
            text: command().render_help().to_string(),
            failure: Some(Ending::Usage),
        }),
    }
}

/// The whole command line, as clap describes it.
#[must_use]
pub fn command() -> Command {
    let command = Command::new(PODBEAT)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Report the containers of a Kubernetes pod, and how they end, to the task-run service")
        .long_about(
            "Report the containers of a Kubernetes pod, and how they end, to the task-run service.\n\n\
             podbeat runs as a sidecar in the task's pod. It watches the pod and sends heartbeats with the states of its \
             containers. The last heartbeat reports how the run ended. Without a command, podbeat runs the agent.",
        )
        .after_help(
            "Examples:\n  \
             podbeat                 in a pod: run the agent, with the settings of the pod's manifest\n  \
             podbeat check           in podbeat's container: check the agent's prerequisites\n  \
             podbeat agent --help    list all settings, with variable and flag",
        )
        .disable_help_subcommand(true)
        .subcommand(agent())
        .subcommand(exec())
        .subcommand(check::command())
        .subcommand(reap::command());
    #[cfg(feature = "laptop")]
    let command = command
        .subcommand(observe::command())
        .subcommand(runs::command())
        .subcommand(explain::command())
        .subcommands(manual::commands())
        .subcommand(version::command());
    with_exit_codes(command, PODBEAT, endings::endings).mut_subcommands(|below| {
        if below.get_name() != EXEC {
            return below;
        }
        let codes = below.get_after_help().map(ToString::to_string);
        below.after_help(codes.unwrap_or_default() + EXEC_ENDINGS)
    })
}

fn agent() -> Command {
    Command::new(DEFAULT_COMMAND)
        .about("Run the sidecar: watch the pod, send heartbeats and the last heartbeat")
        .after_help(
            "Examples:\n  \
             podbeat                                    in a pod, with the settings of its manifest\n  \
             podbeat --dry-run --task-run-id r --pod-name p\n                                             \
             from a laptop: log the heartbeats of pod p, send nothing",
        )
        .args(SETTINGS.iter().map(flag))
}

fn exec() -> Command {
    Command::new(EXEC)
        .about("Run the task's command in its container, and write an exit marker for podbeat")
        .override_usage("podbeat exec --container-name NAME --marker-dir DIR -- CMD [ARGS]...\n       podbeat exec --install PATH")
        .after_help(
            "The command runs in its own process group. podbeat forwards every signal to it, and reaps orphaned processes. The\n\
             exit marker, DIR/NAME.json, gives podbeat's sidecar the command's exit code. The sidecar needs it when the pod is\n\
             being stopped, because the Kubernetes API then does not show the exit code. If podbeat cannot write the marker,\n\
             it prints a warning and runs the command anyway.\n\n\
             Examples:\n  \
             podbeat exec --install /opt/podbeat                        in an init container: copy podbeat to an emptyDir\n  \
             /opt/podbeat/podbeat exec --container-name main --marker-dir /markers -- python train.py\n                                                             \
             in the task's container",
        )
        .args(EXEC_SETTINGS.iter().map(flag))
        .arg(
            Arg::new(INSTALL)
                .long(INSTALL)
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .conflicts_with(COMMAND)
                .help("Copy podbeat to PATH, or to PATH/podbeat if PATH is a directory, and exit"),
        )
        .arg(
            Arg::new(COMMAND)
                .value_name("CMD")
                .last(true)
                .num_args(1..)
                .required_unless_present(INSTALL)
                .value_parser(OsStringValueParser::new())
                .help("The task's command and its arguments"),
        )
}

/// Adds the settings that choose a profile, in the build for a laptop.
#[cfg_attr(
    not(feature = "laptop"),
    expect(unused_mut, reason = "only a laptop has profiles")
)]
fn with_profiles(mut settings: Vec<Row>) -> Vec<Row> {
    #[cfg(feature = "laptop")]
    settings.extend_from_slice(podbeat_laptop::profiles::PROFILE_SETTINGS);
    settings
}

/// Whether the first argument is a flag of the agent, or is missing, instead of a command or a
/// request for help.
fn names_no_command(first: Option<&OsString>) -> bool {
    match first.and_then(|first| first.to_str()) {
        Some("-h" | "--help" | "-V" | "--version") => false,
        Some(first) => first.starts_with('-'),
        None => first.is_none(),
    }
}

fn refused(error: &clap::Error, arguments: &[OsString]) -> Exit {
    #[cfg(not(feature = "laptop"))]
    if is_for_a_laptop(error) {
        const PROBLEM: &str = "this build lacks that command, because it contains only what a pod needs; use the build for a laptop (see the README)";
        return usage(PROBLEM, PODBEAT);
    }
    refusal(error, arguments, &command(), SETTINGS, wrong)
}

/// The error text of podbeat's own validation, which never repeats the value.
fn wrong(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let problem = error.downcast_ref::<Wrong>().map(ToString::to_string);
    #[cfg(feature = "laptop")]
    let problem = problem.or_else(|| podbeat_laptop::cli::wrong(error));
    problem
}

/// Whether the user asked for a command that this build does not contain.
#[cfg(not(feature = "laptop"))]
fn is_for_a_laptop(error: &clap::Error) -> bool {
    use clap::error::{ContextKind, ContextValue};
    let asked = error.get(ContextKind::InvalidSubcommand);
    matches!(asked, Some(ContextValue::String(asked)) if matches!(asked.as_str(), "observe" | "runs" | "explain" | "completion" | "man" | "version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(arguments: &[&str]) -> Result<Flags, Exit> {
        let all = std::iter::once("podbeat").chain(arguments.iter().copied());
        parse(all.map(OsString::from)).map(|cli| match cli {
            Cli::Agent(flags) => flags,
            _ => panic!("not the agent"),
        })
    }

    #[test]
    fn clap_finds_no_fault_with_the_command_line() {
        command().debug_assert();
    }

    #[test]
    fn plain_podbeat_and_podbeat_agent_are_the_same() {
        for arguments in [
            &["--interval", "5s", "--dry-run"][..],
            &["agent", "--interval=5s", "--dry-run"][..],
        ] {
            let flags = parse_all(arguments).expect("right").0;
            assert_eq!(flags.get("PODBEAT_INTERVAL"), Some(&OsString::from("5s")));
            assert_eq!(flags.get("PODBEAT_DRY_RUN"), Some(&OsString::from("true")));
            assert_eq!(flags.len(), 2);
        }
        assert!(parse_all(&[]).expect("right").0.is_empty());
    }

    #[test]
    fn help_names_every_variable_and_is_a_success() {
        let exit = parse_all(&["agent", "--help"]).err().expect("help");
        assert_eq!(exit.failure, None);
        for setting in SETTINGS {
            assert!(
                exit.text.contains(setting.variable) && exit.text.contains(setting.flag),
                "{}",
                setting.variable
            );
        }
        assert_eq!(
            parse_all(&["--version"]).err().expect("version").failure,
            None
        );
    }

    #[test]
    fn exec_takes_a_command_behind_two_dashes_or_a_place_to_install_to() {
        let parse = |arguments: &[&str]| {
            let all = ["podbeat", "exec"].iter().chain(arguments);
            super::parse(all.map(OsString::from))
        };
        let Ok(Cli::Exec { flags, command }) =
            parse(&["--container-name", "main", "--", "sh", "-c", "--x", "--"])
        else {
            panic!("a command");
        };
        assert_eq!(command, ["sh", "-c", "--x", "--"]);
        assert_eq!(
            flags.0.get("PODBEAT_CONTAINER_NAME"),
            Some(&OsString::from("main"))
        );
        assert!(
            matches!(parse(&["--install", "/p"]), Ok(Cli::Install(path)) if path.as_os_str() == "/p")
        );
        for wrong in [
            &[][..],
            &["--container-name", "main"],
            &["--"],
            &["hunter2"],
            &["--install", "/p", "--", "hunter2"],
            &["--install"],
            &["--token", "hunter2", "--", "x"],
        ] {
            let exit = parse(wrong).err().expect("wrong");
            assert_eq!(exit.failure, Some(Ending::Usage), "{wrong:?}");
            assert!(!exit.text.contains("hunter2"), "{}", exit.text);
        }
    }

    #[test]
    fn a_wrong_command_line_is_usage_and_repeats_no_value() {
        for arguments in [
            &["--tokn=hunter2"][..],
            &["--token", "x", "hunter2"],
            &["hunter2"],
            &["agent", "--tokn", "hunter2"],
            &["--token=a", "--token=hunter2"],
            &["--token"],
        ] {
            let exit = parse_all(arguments).err().expect("wrong");
            assert_eq!(exit.failure, Some(Ending::Usage), "{arguments:?}");
            assert!(!exit.text.contains("hunter2"), "{}", exit.text);
        }
    }

    #[test]
    fn an_unknown_flag_is_named_and_never_what_may_be_a_value() {
        let told = |line: &str| {
            let arguments: Vec<&str> = line.split(' ').collect();
            parse_all(&arguments).err().expect("wrong").text
        };
        for (line, named) in [
            ("--tokn=hunter2", "unknown flag --tokn"),
            ("agent --tokn hunter2", "unknown flag --tokn"),
            ("agent -w", "unknown flag -w;"),
            ("agent -whunter2", "unknown flag -w;"),
            ("agent -w=hunter2", "unknown flag -w;"),
            ("agent --taskRunId r", "unknown flag --taskRunId"),
            ("check -x", "unknown flag -x;"),
        ] {
            let text = told(line);
            assert!(
                text.contains(named) && !text.contains("unter2"),
                "{line}: {text}"
            );
        }
        for line in [
            "agent hunter2",
            "agent --token --hunter2",
            "agent --nonce --hunter2",
            "agent --token x -- --hunter2",
            "agent --eyJhbGciOiJSUzI1NiIsImtpZCI6Imh1bnRlcjIifQ.hunter2",
            "agent --0hunter2",
            "agent --hunter2hunter2hunter2hunter2hunter2hunter2",
        ] {
            let text = told(line);
            assert!(
                text.contains("unexpected argument (not shown: it may be a secret)"),
                "{line}: {text}"
            );
            assert!(!text.contains("hunter2"), "{line}: {text}");
        }
    }

    #[test]
    fn every_command_lists_its_own_exit_codes_and_each_of_them_once() {
        fn walk(command: &Command, called: &str, seen: &mut Vec<String>) {
            seen.push(called.to_owned());
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let (_, codes) = help
                .split_once("Exit codes:\n")
                .unwrap_or_else(|| panic!("{called}: {help}"));
            let endings = endings::endings(called);
            let mut kinds: Vec<Ending> = Vec::new();
            for ((ending, meaning), line) in endings.iter().zip(codes.lines()) {
                assert_eq!(
                    line.trim(),
                    format!("{:<4}{meaning}", ending.code()),
                    "{called}"
                );
                assert!(!kinds.contains(ending), "{called}: {ending:?}");
                kinds.push(*ending);
            }
            assert!(
                endings.is_sorted_by_key(|(ending, _)| ending.code()),
                "{called}"
            );
            assert!(kinds.contains(&Ending::Usage), "{called}: clap ends so");
            for below in command.get_subcommands() {
                walk(below, &format!("{called} {}", below.get_name()), seen);
            }
        }
        let mut seen = Vec::new();
        walk(&command(), PODBEAT, &mut seen);
        let known: Vec<&str> = endings::all().map(|(called, _)| called).collect();
        for called in &known {
            assert!(
                seen.iter().any(|seen| seen == called),
                "{called} is no command"
            );
        }
        assert_eq!(seen.len(), known.len(), "{seen:?}");
    }
}
