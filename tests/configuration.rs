//! docs/configuration.md is made from the table of settings and the table of endings. `just docs` writes it anew.

use std::fmt::Write;

use podbeat::config::{
    EXEC_SETTINGS, OBSERVE_SETTINGS, PROFILE_SETTINGS, REAP_SETTINGS, SERVICE_SETTINGS, SETTINGS, Setting,
};
use podbeat::exit::{ENDINGS, Ending};

use crate::harness::repository::is_up_to_date;

fn document() -> String {
    let mut text = String::from(
        "# Settings and exit codes\n\n\
         This page is generated from `src/config.rs` and `src/exit.rs` by `just docs`; a test compares.\n\n\
         Each setting is an environment variable and a flag of `podbeat agent`. The flag wins, and a value that is \
         empty or white space counts \
         as unset. Durations are written as `500ms`, `30s` or `2m`. All settings that are missing or malformed are \
         reported at once, by name, with exit code 64; the value of a secret is never shown.\n\n\
         | variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, SETTINGS);
    text.push_str(
        "\nIn a pod means that `KUBERNETES_SERVICE_HOST` is set, as the kubelet does in every container. There the \
         Kubernetes API is reached at that address with the service account's token and CA, unless `KUBECONFIG` or \
         `PODBEAT_KUBE_CONTEXT` is set. Proxies are read from `HTTPS_PROXY`, \
         `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, for the service and for the Kubernetes API: see \
         [operations.md](operations.md#proxies).\n\n\
         ## Settings of `podbeat exec`\n\n| variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, EXEC_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat runs`\n\n\
         They have the agent's names, so that one environment does for both. [runs.md](runs.md) has its other flags.\n\n\
         | variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, SERVICE_SETTINGS);
    text.push_str(
        "\nOf `podbeat runs`, `reap` and `check`, in the build for a laptop. [runs.md](runs.md#profiles) says what the file holds.\n\n\
         | variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, PROFILE_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat reap`\n\nThose of `podbeat runs`, and these:\n\n\
         | variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, REAP_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat observe`\n\n\
         The variables are the agent's; `-n` is short for `--namespace`. `TERM` and `NO_COLOR` are heeded, too. \
         [observe.md](observe.md) has its other flags.\n\n\
         | variable | flag | default | meaning |\n|---|---|---|---|\n",
    );
    rows(&mut text, OBSERVE_SETTINGS);
    text.push_str(
        "\n## Settings of `podbeat check`\n\nThose of the agent, since it is the agent's ground that is checked. `--timeout` is how long one \
         check may take; the flag of `PODBEAT_TIMEOUT` is therefore `--request-timeout`. [check.md](check.md) has its other flags.\n",
    );
    text.push_str(
        "\n## Exit codes\n\n`--help` and [commands.md](commands.md) say what a code means for each command.\n\n\
         | code | name | meaning | commands |\n|---|---|---|---|\n",
    );
    for ending in Ending::ALL {
        let with_it = ENDINGS
            .iter()
            .filter(|(_, endings)| endings.iter().any(|(listed, _)| *listed == ending));
        let commands: Vec<&str> = with_it
            .filter_map(|(called, _)| called.strip_prefix("podbeat "))
            .collect();
        let commands = commands.join(", ");
        writeln!(text, "| {} | {ending:?} | {ending} | {commands} |", ending.code())
            .expect("a String takes all");
    }
    text.push_str(
        "\nSIGTERM is never an error: after it podbeat sends the last heartbeat and ends with 0.\n\n\
         `podbeat exec` ends as its command ends: with its exit code, or with 128 and the signal's number if one ended it; \
         with 127 if there is no such command, and 126 if it can't be run. 64 is its own, too, and with `--install` 73.\n",
    );
    text
}

fn rows(text: &mut String, settings: &[Setting]) {
    for setting in settings {
        let secret = if setting.secret { " **Secret.**" } else { "" };
        writeln!(
            text,
            "| `{}` | `--{}` | {} | {}.{secret} |",
            setting.variable, setting.flag, setting.default, setting.meaning
        )
        .expect("a String takes all");
    }
}

#[test]
fn the_document_is_up_to_date() {
    is_up_to_date("docs/configuration.md", &document());
}
