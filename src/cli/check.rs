//! The flags of `podbeat check`, and how they are parsed.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use podbeat_interface::arguments::{OUTPUT, Wrong, duration, flag, flags, output};
use podbeat_interface::environment::Flags;

use super::with_profiles;
use crate::check::{Format, Invocation};
use crate::config::check_settings;

pub(super) const CHECK: &str = "check";

pub(super) fn command() -> Command {
    let after = "Checks the settings, the token, the connection to the service, the run, the Kubernetes API, the permissions there, the pod's\n\
         deployment, the clock, and the directories. For each check, podbeat prints the result, the details, and what to do. It\n\
         changes nothing: it sends no heartbeat, and leaves no file behind. It ends within five times --timeout. The settings are\n\
         those of the agent. In podbeat's container they are already set, except those that the manifest passes as flags.\n\n\
         Examples:\n  \
         kubectl exec my-task --container podbeat -- /podbeat check\n  \
         podbeat check --task-run-id trn.1234 --pod-name my-task --pod-namespace tasks   from a laptop, with a kubeconfig\n  \
         podbeat check -o json | jq '.checks[] | select(.state == \"failed\")'";
    Command::new(CHECK)
        .about("Check the agent's prerequisites and suggest fixes")
        .after_help(after)
        .arg(
            Arg::new("check-timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("10s")
                .value_parser(ValueParser::from(timeout))
                .help("Timeout of one check; 100ms to 5m"),
        )
        .arg(output(
            Format::ALL.map(|(word, _)| word),
            "Output format; json or yaml: one object with all checks",
        ))
        .args(with_profiles(check_settings()).iter().map(flag))
}

fn timeout(text: &str) -> Result<Duration, Wrong> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(100) || duration > Duration::from_secs(300) {
        return Err(Wrong("must be from 100ms to 5m"));
    }
    Ok(duration)
}

pub(super) fn parse(matches: &ArgMatches) -> (Flags, Invocation) {
    let output = matches.get_one::<String>(OUTPUT).map(String::as_str);
    let invocation = Invocation {
        timeout: matches
            .get_one::<Duration>("check-timeout")
            .copied()
            .unwrap_or_default(),
        format: Format::ALL
            .into_iter()
            .find_map(|(word, format)| (output == Some(word)).then_some(format)),
    };
    (flags(matches, &with_profiles(check_settings())), invocation)
}
