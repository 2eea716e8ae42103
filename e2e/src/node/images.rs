//! The images that pods on the node are made of, and their way into containerd. No registry is asked.

use std::path::Path;

use podbeat_image::elf::check_static;
use podbeat_image::{Entry, Image};

use super::CONTAINERD;
use super::house::run;
use crate::{Error, io, ours};

/// Holds a pod's namespaces open.
pub const PAUSE: &str = "localhost/pause:e2e";
/// podbeat's own image.
pub const PODBEAT: &str = "localhost/podbeat:e2e";

/// The same image under another name, for a pod whose podbeat is given another image.
pub const PODBEAT_AGAIN: &str = "localhost/podbeat:e2e-again";
/// A shell: what the tasks of the scenarios are.
pub const TASK: &str = "localhost/task:e2e";

/// Debian's busybox-static: one static program.
pub const BUSYBOX: &str = "/usr/bin/busybox";
/// What the scenarios' scripts use.
const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "tail", "kill", "ps", "mkdir", "rm", "true", "false",
];

/// Runs containerd's own client.
///
/// # Errors
/// It fails; the error holds what it said.
pub fn ctr(arguments: &[&str]) -> Result<(), Error> {
    let all: Vec<&str> = ["--address", CONTAINERD, "--namespace", "k8s.io"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    run("ctr", &all)
}

/// Takes an image from an archive.
///
/// # Errors
/// containerd refuses it.
pub fn import(archive: &Path) -> Result<(), Error> {
    ctr(&["images", "import", &archive.display().to_string()])
}

/// Makes the pause image and the tasks' image of one static program, and takes both in.
///
/// # Errors
/// The program is missing or isn't static, or containerd refuses an image.
pub fn import_small(root: &Path) -> Result<(), Error> {
    let busybox =
        std::fs::read(BUSYBOX).map_err(io(format!("reading {BUSYBOX} (Debian: busybox-static)")))?;
    let architecture = check_static(&busybox).map_err(ours(format!("making images of {BUSYBOX}")))?;
    let program = Entry::file("/bin/busybox", 0o755, busybox);
    let links = APPLETS
        .iter()
        .map(|applet| Entry::link(format!("/bin/{applet}"), "busybox"));
    let entries = [program, Entry::directory("/tmp", 0o1777)]
        .into_iter()
        .chain(links)
        .collect();
    let mut task = Image::new(TASK, architecture, entries);
    task.environment.insert("PATH".to_owned(), "/bin".to_owned());
    task.entrypoint = vec!["/bin/sh".to_owned()];
    let mut pause = task.clone();
    PAUSE.clone_into(&mut pause.tag);
    // containerd ends it with SIGKILL: it need not hear anything.
    pause.entrypoint = ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec();
    for image in [task, pause] {
        let archive = root.join("image.tar");
        image
            .write_archive(&archive, None)
            .map_err(ours(format!("making the image {}", image.tag)))?;
        import(&archive)?;
    }
    Ok(())
}

/// Takes podbeat's image from its archive, and calls it [`PODBEAT`], a name that no version changes.
///
/// # Errors
/// There is none, or containerd refuses it.
pub fn import_podbeat(archive: &Path) -> Result<(), Error> {
    if !archive.exists() {
        return Err(Error::Unexpected(format!(
            "there is no {}: make it with `just image`",
            archive.display()
        )));
    }
    import(archive)?;
    let own = format!("localhost/podbeat:{}", env!("CARGO_PKG_VERSION"));
    ctr(&["images", "tag", "--force", &own, PODBEAT])?;
    ctr(&["images", "tag", "--force", &own, PODBEAT_AGAIN])
}
