//! The flags of `podbeat reap`, and how they are parsed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint, value_parser};
use podbeat_interface::arguments::{OUTPUT, duration, flag, flags, json_output};
use podbeat_interface::environment::Flags;
use podbeat_interface::setting::{Row, SERVICE_SETTINGS};

use super::with_profiles;
use crate::config::REAP_SETTINGS;
use crate::reap::{Invocation, Target};

pub(super) const REAP: &str = "reap";

pub(super) fn settings() -> Vec<Row> {
    with_profiles([SERVICE_SETTINGS, REAP_SETTINGS].concat())
}

pub(super) fn command() -> Command {
    let after = "The last heartbeat of an ended pod is missing unless podbeat ended once, with 0, after the task. podbeat asks the service for\n\
         the status of the run. If the run has not ended, podbeat sends the container states from the API server, with\n\
         lastHeartbeat: true. While another pod of the run has not ended, it sends nothing; then the latest pod decides. If pods\n\
         with different owners or in different namespaces claim a run, it reports them as unclear. It never sends a last\n\
         heartbeat twice, so you can run it as often as you like.\n\n\
         Examples:\n  \
         podbeat reap --selector app.kubernetes.io/name=my-task --dry-run\n  \
         podbeat reap --all --namespace tasks                 as the CronJob of deploy/manifests/reap.yaml\n  \
         podbeat reap my-task-x7k2p -n tasks\n  \
         podbeat reap --journal journal.json";
    let target = |arg: Arg| arg.help_heading("Pods");
    Command::new(REAP)
        .about("Send the missing last heartbeats of ended pods")
        .after_help(after)
        .arg(target(Arg::new("pod").value_name("POD").help("One pod")))
        .arg(target(
            Arg::new("selector")
                .long("selector")
                .short('l')
                .value_name("LABELS")
                .help("All pods that match this label selector, such as app=task,tier!=test"),
        ))
        .arg(target(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("All pods with a podbeat container"),
        ))
        .arg(target(
            Arg::new("journal")
                .long("journal")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("A deleted pod, from its saved journal.json"),
        ))
        .group(
            ArgGroup::new("whose")
                .args(["pod", "selector", "all", "journal"])
                .required(true),
        )
        .arg(target(
            Arg::new("all-namespaces")
                .long("all-namespaces")
                .short('A')
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["pod", "journal"])
                .help("In all namespaces"),
        ))
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print what podbeat would send, and send nothing"),
        )
        .arg(
            Arg::new("older-than")
                .long("older-than")
                .value_name("DURATION")
                .default_value("2m")
                .value_parser(ValueParser::from(duration))
                .help("Ignore pods that ended more recently than this, because a Job may be about to retry"),
        )
        .arg(json_output("Output format; json: one object for each pod"))
        .args(settings().iter().map(|setting| {
            let flag = flag(setting);
            if setting.flag == "namespace" {
                flag.short('n')
            } else {
                flag
            }
        }))
}

pub(super) fn parse(matches: &ArgMatches) -> (Flags, Invocation) {
    let one = |name| matches.get_one::<String>(name).cloned();
    let target = match (one("pod"), matches.get_one::<PathBuf>("journal")) {
        (Some(pod), _) => Target::Pod(pod),
        (None, Some(path)) => Target::Journal(path.clone()),
        (None, None) => Target::Pods {
            everywhere: matches.get_flag("all-namespaces"),
            labels: one("selector"),
        },
    };
    let invocation = Invocation {
        target,
        dry_run: matches.get_flag("dry-run"),
        json: one(OUTPUT).is_some(),
        older_than: matches
            .get_one::<Duration>("older-than")
            .copied()
            .unwrap_or_default(),
    };
    (flags(matches, &settings()), invocation)
}
