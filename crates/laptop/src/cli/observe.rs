//! The flags of `podbeat observe`, and how they are parsed. They have kubectl's names where kubectl
//! has the same flag.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use podbeat_interface::arguments::{OUTPUT, Wrong, flag, flags};
use podbeat_interface::environment::Flags;
use podbeat_interface::parse::dns_name;
use podbeat_interface::setting::{KUBE_CONTEXT, KUBECONFIG, POD_NAMESPACE};

use crate::observe::command::{Format, Invocation, Record};
use crate::observe::config::OBSERVE_SETTINGS;

/// The command's name.
pub const OBSERVE: &str = "observe";

/// Settings of the cluster; the others are the agent's.
const CLUSTER: [&str; 3] = [
    NAMESPACE,
    KUBECONFIG.row.variable,
    KUBE_CONTEXT.row.variable,
];

const NAMESPACE: &str = POD_NAMESPACE.row.variable;

/// The command `podbeat observe`, with its flags.
#[must_use]
pub fn command() -> Command {
    let after = "On a terminal, podbeat shows a view that it updates in place (q or Ctrl-C quits). In a pipe, it prints a line for each\n\
         event. It sends nothing to the task-run service, and does not need one: it treats each heartbeat as accepted at once.\n\n\
         Examples:\n  \
         podbeat observe my-task\n  \
         podbeat observe pod/my-task --context staging -n tasks --report all\n  \
         podbeat observe my-task -o json | jq -c 'select(.event == \"heartbeat\") | .body'\n  \
         podbeat observe my-task --record my-task.jsonl | grep ' heartbeat '";
    Command::new(OBSERVE)
        .about("Show live what the agent of a pod would send, from a laptop; sends nothing")
        .after_help(after)
        .arg(
            Arg::new("pod")
                .value_name("POD")
                .required(true)
                .value_parser(ValueParser::from(pod))
                .help("The pod, as NAME or pod/NAME"),
        )
        .args(OBSERVE_SETTINGS.iter().map(|setting| {
            let arg = flag(setting);
            match setting.variable {
                NAMESPACE => arg.short('n').help_heading("Cluster"),
                variable if CLUSTER.contains(&variable) => arg.help_heading("Cluster"),
                _ => arg.help_heading("As for the agent"),
            }
        }))
        .arg(
            Arg::new(OUTPUT)
                .short('o')
                .long(OUTPUT)
                .value_name("FORMAT")
                .value_parser(PossibleValuesParser::new(Format::ALL.map(|(word, _)| word)))
                .help("Output format; json: one object for each event, one per line"),
        )
        .arg(
            Arg::new("record")
                .long("record")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("Also write the watch to FILE, one event per line, without the fields of the pod that podbeat does not read"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .requires("record")
                .help("Overwrite FILE if it exists"),
        )
}

/// Parses the flags.
///
/// # Errors
/// The pod is missing. clap already requires it.
pub fn parse(matches: &ArgMatches) -> Result<(Flags, Invocation), String> {
    let pod = matches.get_one::<String>("pod").cloned();
    let output = matches.get_one::<String>(OUTPUT);
    let invocation = Invocation {
        pod: pod.ok_or("missing pod")?,
        format: Format::ALL.into_iter().find_map(|(word, format)| {
            (output.map(String::as_str) == Some(word)).then_some(format)
        }),
        record: matches.get_one::<PathBuf>("record").map(|path| Record {
            path: path.clone(),
            force: matches.get_flag("force"),
        }),
    };
    Ok((flags(matches, OBSERVE_SETTINGS), invocation))
}

/// Parses the name of a pod, in the forms that kubectl accepts.
fn pod(text: &str) -> Result<String, Wrong> {
    let name = match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some(_) => return Err(Wrong("not a pod; name a pod as NAME or pod/NAME")),
        None => text,
    };
    dns_name(name).map_err(|_| {
        Wrong("not a pod name; use at most 253 lower-case letters, digits, '-' and '.'")
    })
}
