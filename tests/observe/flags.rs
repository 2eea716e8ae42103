//! The flags of `podbeat observe`, and what they come to.

use std::ffi::OsString;

use podbeat::cli::Cli;
use podbeat_interface::command_line::Exit;
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use podbeat_laptop::observe::command::{Format, Invocation, Record};

fn parse(arguments: &[&str]) -> Result<(Flags, Invocation), Exit> {
    let all = ["podbeat", "observe"].iter().chain(arguments);
    podbeat::cli::parse(all.map(OsString::from)).map(|cli| match cli {
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
