//! The flags of `podbeat reap`, and what they come to.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint, value_parser};

use super::{OUTPUT, duration, flag, flags, json_output, with_profiles};
use crate::config::{Flags, REAP_SETTINGS, SERVICE_SETTINGS, Setting};
use crate::reap::{Invocation, Target};

pub(super) const REAP: &str = "reap";

pub(super) fn settings() -> Vec<Setting> {
    with_profiles([SERVICE_SETTINGS, REAP_SETTINGS].concat())
}

pub(super) fn command() -> Command {
    let after = "A pod that has ended lacks its last heartbeat unless podbeat ended with 0, once, and after the task. The service is asked\n\
         where the run stands; if it still waits, it gets what the API server shows of the containers, with lastHeartbeat: true.\n\
         Nothing is sent while another pod of the run has not ended, and the latest pod decides. If pods with different owners or in\n\
         different namespaces claim a run, they are reported as unclear. Nothing is sent twice: run it as often as you like.\n\n\
         Examples:\n  \
         podbeat reap --selector app.kubernetes.io/name=my-task --dry-run\n  \
         podbeat reap --all --namespace tasks                 what the CronJob of deploy/manifests/reap.yaml does\n  \
         podbeat reap my-task-x7k2p -n tasks\n  \
         podbeat reap --journal journal.json";
    let target = |arg: Arg| arg.help_heading("Whose");
    Command::new(REAP)
        .about("Send the missing last heartbeat of pods that ended without one")
        .after_help(after)
        .arg(target(Arg::new("pod").value_name("POD").help("One pod")))
        .arg(target(
            Arg::new("selector")
                .long("selector")
                .short('l')
                .value_name("LABELS")
                .help("The pods that this label selector chooses, such as app=task,tier!=test"),
        ))
        .arg(target(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("All pods that have a container of podbeat's"),
        ))
        .arg(target(
            Arg::new("journal")
                .long("journal")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("A pod that is gone, by the journal.json that was saved of it"),
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
                .help("In every namespace"),
        ))
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Say what would be sent, and send nothing"),
        )
        .arg(
            Arg::new("older-than")
                .long("older-than")
                .value_name("DURATION")
                .default_value("2m")
                .value_parser(ValueParser::from(duration))
                .help(
                    "Leave pods alone that ended later than that long ago: a Job may be about to try again",
                ),
        )
        .arg(json_output("json: one object a pod"))
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
