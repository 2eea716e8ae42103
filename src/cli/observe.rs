//! The flags of `podbeat observe`, kubectl's where it has them, and what they come to.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::{OUTPUT, Wrong, flag, flags};
use crate::config::{Flags, OBSERVE_SETTINGS, dns_name};
use crate::observe::command::{Format, Invocation, Record};

pub(super) const OBSERVE: &str = "observe";

/// Settings of the cluster; the others are the agent's.
const CLUSTER: [&str; 3] = ["POD_NAMESPACE", "KUBECONFIG", "PODBEAT_KUBE_CONTEXT"];

pub(super) fn command() -> Command {
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
                "POD_NAMESPACE" => arg.short('n').help_heading("Cluster"),
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

/// What the flags come to.
///
/// # Errors
/// None so far: clap has checked each of them.
pub(super) fn parse(matches: &ArgMatches) -> Result<(Flags, Invocation), String> {
    let pod = matches.get_one::<String>("pod").cloned();
    let output = matches.get_one::<String>(OUTPUT);
    let invocation = Invocation {
        pod: pod.ok_or("missing pod")?,
        format: Format::ALL
            .into_iter()
            .find_map(|(word, format)| (output.map(String::as_str) == Some(word)).then_some(format)),
        record: matches.get_one::<PathBuf>("record").map(|path| Record {
            path: path.clone(),
            force: matches.get_flag("force"),
        }),
    };
    Ok((flags(matches, OBSERVE_SETTINGS), invocation))
}

/// A pod as kubectl lets it be named.
fn pod(text: &str) -> Result<String, Wrong> {
    let name = match text.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some(_) => return Err(Wrong("not a pod; name a pod as NAME or pod/NAME")),
        None => text,
    };
    dns_name(name)
        .map_err(|_| Wrong("not a pod name; use at most 253 lower-case letters, digits, '-' and '.'"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Cli, Exit};
    use crate::exit::Ending;

    fn parse(arguments: &[&str]) -> Result<(Flags, Invocation), Exit> {
        let all = ["podbeat", OBSERVE].iter().chain(arguments);
        crate::cli::parse(all.map(OsString::from)).map(|cli| match cli {
            Cli::Observe { flags, invocation } => (flags, invocation),
            _ => panic!("another command"),
        })
    }

    #[test]
    fn a_pod_is_named_as_with_kubectl() {
        for named in ["p-1.x", "pod/p-1.x", "pods/p-1.x", "po/p-1.x"] {
            assert_eq!(parse(&[named]).expect("right").1.pod, "p-1.x", "{named}");
        }
        for wrong in ["deploy/hunter2", "Hunter2", "pod/", "pod/hunter2/x", ""] {
            let exit = parse(&[wrong]).err().expect("wrong");
            assert_eq!(exit.failure, Some(Ending::Usage));
            assert!(exit.text.contains("<POD>: not a pod"), "{}", exit.text);
            assert!(!exit.text.contains("unter2"), "{}", exit.text);
        }
        let none = parse(&[]).err().expect("wrong");
        assert!(none.text.contains("missing: <POD>"), "{}", none.text);
    }

    #[test]
    fn the_cluster_s_flags_are_kubectl_s() {
        let (flags, invocation) = parse(&[
            "p",
            "-n",
            "tasks",
            "--context",
            "staging",
            "--kubeconfig=/k",
            "-ojson",
            "--record",
            "r",
            "--force",
        ])
        .expect("right");
        let value = |variable| flags.0.get(variable).and_then(|value| value.to_str());
        assert_eq!(value("POD_NAMESPACE"), Some("tasks"));
        assert_eq!(value("PODBEAT_KUBE_CONTEXT"), Some("staging"));
        assert_eq!(value("KUBECONFIG"), Some("/k"));
        assert_eq!(invocation.format, Some(Format::Json));
        let record = Record {
            path: "r".into(),
            force: true,
        };
        assert_eq!(invocation.record, Some(record));
        assert_eq!(
            parse(&["p", "--force"]).err().expect("wrong").failure,
            Some(Ending::Usage)
        );
    }
}
