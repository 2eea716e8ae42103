//! A node for a developer: scripts that run kubectl and helm in its network, and a log of all
//! heartbeats that the service receives.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::site::{CA_CONFIG_MAP, Ground, Site, TOKEN_SECRET};
use crate::node::images::{PODBEAT, TASK};
use crate::runner::say;
use crate::scenarios::play::{TOKEN, received};
use crate::{Error, io};

/// The existing namespace.
const NAMESPACE: &str = "tasks";

/// The directory with the scripts and files: a link into the root of the current node.
#[must_use]
pub fn place() -> PathBuf {
    std::env::temp_dir().join("podbeat-hold")
}

/// Removes the link of a node that has ended.
pub fn leave() {
    if !place().exists() {
        // Usually there is no link.
        let _ = std::fs::remove_file(place());
    }
}

/// Prints how to use the node, then shows the received heartbeats until the process ends.
///
/// # Errors
/// The namespace can't be created, or a file can't be written.
pub async fn hold(ground: &Arc<Ground>) -> Result<(), Error> {
    let site = Site::begin(ground, NAMESPACE).await?;
    let directory = ground.stage.root.join("hold");
    std::fs::create_dir_all(&directory).map_err(io(format!("creating {}", directory.display())))?;
    let tools = &ground.tools;
    script(
        &directory.join("kubectl"),
        ground,
        &tools.kubernetes.join("kubectl"),
    )?;
    script(&directory.join("helm"), ground, &tools.tools.join("helm"))?;
    let url = site.play.service.url();
    for (name, text) in [("token", TOKEN), ("ca.crt", &site.play.ca), ("url", &url)] {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
    }
    let place = place();
    // It may belong to an earlier node.
    let _ = std::fs::remove_file(&place);
    symlink(&directory, &place).map_err(io(format!("linking {}", place.display())))?;
    let at = place.display();
    say(&format!(
        "
The node runs until Ctrl-C or SIGTERM. In {at}:
  kubectl, helm  run in the node's network, from any directory; KUBECONFIG is {kubeconfig}
  url            the task-run service, as pods reach it: {url}
  token, ca.crt  the service's bearer token ({TOKEN}), and the CA of its certificate
  heard.jsonl    every heartbeat that the service receives, one per line; a short form follows below
The namespace {NAMESPACE} enforces Pod Security \"restricted\". It contains the Secret {TOKEN_SECRET} (token) and the ConfigMap
{CA_CONFIG_MAP} (ca.crt). Images: {PODBEAT} and, with a shell, {TASK}.
  {at}/kubectl -n {NAMESPACE} get pods
",
        kubeconfig = kubeconfig(ground),
    ));
    show(&site, &directory.join("heard.jsonl")).await
}

fn kubeconfig(ground: &Ground) -> String {
    let path = ground.tools.kubeconfig.clone().unwrap_or_default();
    path.display().to_string()
}

fn script(path: &Path, ground: &Ground, program: &Path) -> Result<(), Error> {
    write_script(path, &ground.stage.root, &kubeconfig(ground), program)
}

/// Writes a script that runs a program in the control plane's network. The process that the user
/// started has one child, which created that network.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write_script(
    path: &Path,
    root: &Path,
    kubeconfig: &str,
    program: &Path,
) -> Result<(), Error> {
    let text = format!(
        "#!/bin/sh
inside=$(pgrep -P \"$(cat {root}/owner.pid)\") || {{ echo 'the node has stopped' >&2; exit 69; }}
KUBECONFIG={kubeconfig} exec nsenter --target \"$inside\" --net {program} \"$@\"
",
        root = root.display(),
        program = program.display(),
    );
    let what = || format!("writing {}", path.display());
    std::fs::write(path, text).map_err(io(what()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(io(what()))
}

/// Writes every heartbeat to the file as it arrives.
async fn show(site: &Site, path: &Path) -> Result<(), Error> {
    let what = || format!("writing {}", path.display());
    let mut file = std::fs::File::create(path).map_err(io(what()))?;
    let mut changes = site.play.service.changes();
    let mut shown = 0;
    loop {
        changes.borrow_and_update();
        let all = site.play.service.heartbeats();
        let mut lines = String::new();
        for heartbeat in all.iter().skip(shown) {
            let at = heartbeat.at.as_secs_f64();
            say(&format!(
                "{at:9.3}s  {}: {}",
                heartbeat.run_id,
                received(heartbeat)
            ));
            let line = json!({"at": at, "run": heartbeat.run_id, "status": heartbeat.status,
                              "violations": heartbeat.violations, "body": heartbeat.body});
            // Writing to a String doesn't fail.
            let _ = writeln!(lines, "{line}");
        }
        shown = all.len();
        file.write_all(lines.as_bytes()).map_err(io(what()))?;
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}
