//! Generates docs/configuration.md from the table of settings and the table of endings. `just docs`
//! writes it.

use std::fmt::Write;

use podbeat::cli::endings;
use podbeat::config::{EXEC_SETTINGS, REAP_SETTINGS, SETTINGS};
use podbeat_interface::exit::Ending;
use podbeat_interface::setting::SERVICE_SETTINGS;
use podbeat_laptop::observe::config::OBSERVE_SETTINGS;
use podbeat_laptop::profiles::PROFILE_SETTINGS;

use crate::harness::reference::settings;
use crate::harness::repository::is_up_to_date;

fn document() -> String {
    let mut text = String::from(
        "# Settings and exit codes\n\n\
         This page is generated from the tables of settings and exit codes by `just docs`; a test compares.\n\n\
         Each setting is an environment variable and a flag of `podbeat agent`. The flag takes precedence. podbeat treats \
         an empty value, or a value of only white space, as unset. Write durations as `500ms`, `30s` or `2m`. podbeat \
         reports all missing and invalid settings at once, by name, with exit code 64. It warns about \
         unknown variables that begin with `PODBEAT_`. It never shows the value of a \
         secret. A boolean is `true` or `false`.\n\n\
         In a cluster, put shared settings into the ConfigMap `podbeat` (chart: `settings.*`). Every installation method \
         sets the rest; you provide `PODBEAT_SERVICE_URL`, the token and the run ID. podbeat reads its settings when it \
         starts, and the token file again when it changes.\n\n\
         ",
    );
    settings(&mut text, SETTINGS);
    text.push_str(
        "\n\"In a pod\" means that `KUBERNETES_SERVICE_HOST` is set. The kubelet sets it in every container. podbeat then \
         connects to the Kubernetes API at that address, with the service account's token and CA, unless `KUBECONFIG` or \
         `PODBEAT_KUBE_CONTEXT` is set. For the service and for the Kubernetes API, podbeat uses the proxies of \
         `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`: see [operations.md](operations.md#proxies).\n\n\
         ## Settings of `podbeat exec`\n\n",
    );
    settings(&mut text, EXEC_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat runs`\n\n\
         They have the same names as the agent's settings, so you can use one environment for both. [runs.md](runs.md) \
         lists the other flags.\n\n\
         ",
    );
    settings(&mut text, SERVICE_SETTINGS);
    text.push_str(
        "\nThese settings are for `podbeat runs`, `reap` and `check`, in the build for a laptop. [runs.md](runs.md#profiles) \
         describes the file.\n\n\
         ",
    );
    settings(&mut text, PROFILE_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat reap`\n\nThe settings of `podbeat runs`, and these:\n\n\
         ",
    );
    settings(&mut text, REAP_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat observe`\n\n\
         The variables are the same as the agent's. `-n` is short for `--namespace`. podbeat also respects `TERM` and \
         `NO_COLOR`. [observe.md](observe.md) lists the other flags.\n\n\
         ",
    );
    settings(&mut text, OBSERVE_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat check`\n\nThe settings of the agent, because `podbeat check` checks the agent's \
         prerequisites. `--timeout` is the limit for one check, so the flag of `PODBEAT_TIMEOUT` is `--request-timeout`. \
         [check.md](check.md) lists the other flags.\n",
    );
    text.push_str(
        "\n## Exit codes\n\n`--help` and [commands.md](commands.md) explain the codes for each command.\n\n\
         | code | name | meaning | commands |\n|---|---|---|---|\n",
    );
    for ending in Ending::ALL {
        let with_it = endings::all()
            .filter(|(_, endings)| endings.iter().any(|(listed, _)| *listed == ending));
        let commands: Vec<&str> = with_it
            .filter_map(|(called, _)| called.strip_prefix("podbeat "))
            .collect();
        let commands = commands.join(", ");
        writeln!(
            text,
            "| {} | {ending:?} | {ending} | {commands} |",
            ending.code()
        )
        .expect("a String takes all");
    }
    text.push_str(
        "\nSIGTERM is not an error: podbeat sends the last heartbeat, and exits with 0 if the service accepts it, otherwise with \
         75.\n\n\
         `podbeat exec` exits with the exit code of its command, or with 128 plus the signal's number if a signal ended the \
         command. It exits with 127 if the command does not exist, with 126 if the command cannot be run, with 64 for its own \
         command line and settings, and with 73 if `--install` fails.\n",
    );
    text
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/configuration.md", &document());
}
