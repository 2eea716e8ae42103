//! The flags of `podbeat check`, and what they come to.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};

use super::{OUTPUT, Wrong, duration, flag, flags, output, with_profiles};
use crate::check::{Format, Invocation};
use crate::config::{Flags, check_settings};

pub(super) const CHECK: &str = "check";

pub(super) fn command() -> Command {
    let after = "Looks at the settings, the token, the way to the service and the run, the Kubernetes API, what may be done there, the pod as it\n\
         is deployed, the clock, and the directories; says of each whether it holds, what was seen, and what to do. Nothing is changed:\n\
         no heartbeat is sent, and no file is left behind. It ends within five times --timeout. Settings are the agent's: in its\n\
         container they are there already, but for those that the manifest gives as flags.\n\n\
         Examples:\n  \
         kubectl exec my-task --container podbeat -- /podbeat check\n  \
         podbeat check --task-run-id trn.1234 --pod-name my-task --pod-namespace tasks   from a laptop, with a kubeconfig\n  \
         podbeat check -o json | jq '.checks[] | select(.state == \"failed\")'";
    Command::new(CHECK)
        .about("Whether all holds that the agent needs, and what to do where it doesn't")
        .after_help(after)
        .arg(
            Arg::new("check-timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("10s")
                .value_parser(ValueParser::from(timeout))
                .help("The longest that one check may take; 100ms to 5m"),
        )
        .arg(output(
            Format::ALL.map(|(word, _)| word),
            "json or yaml: one object with all checks",
        ))
        .args(with_profiles(check_settings()).iter().map(flag))
}

fn timeout(text: &str) -> Result<Duration, Wrong> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(100) || duration > Duration::from_secs(300) {
        return Err(Wrong("less than 100ms or more than 5m"));
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
