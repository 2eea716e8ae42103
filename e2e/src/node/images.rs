//! The images of the node's pods, and their import into containerd. No registry is used.

use std::path::Path;

use podbeat_image::elf::check_static;
use podbeat_image::{Entry, Image};

use super::CONTAINERD;
use super::namespaces::run;
use crate::{Error, io, ours};

/// Keeps a pod's namespaces open.
pub const PAUSE: &str = "localhost/pause:e2e";
/// podbeat's own image.
pub const PODBEAT: &str = "localhost/podbeat:e2e";

/// The same image under another name, for a scenario that changes podbeat's image.
pub const PODBEAT_AGAIN: &str = "localhost/podbeat:e2e-again";
/// A shell, for the scenarios' tasks.
pub const TASK: &str = "localhost/task:e2e";

/// curl and a shell.
pub const CURL_IMAGE: &str = "localhost/curl:e2e";

/// Debian's busybox-static: one static program.
pub const BUSYBOX: &str = "/usr/bin/busybox";
/// The programs that the scenarios' scripts use.
const APPLETS: &[&str] = &[
    "sh", "sleep", "cat", "echo", "tail", "kill", "ps", "mkdir", "rm", "true", "false",
];

/// Runs containerd's client.
///
/// # Errors
/// It fails. The error contains its output.
pub fn ctr(arguments: &[&str]) -> Result<(), Error> {
    let all: Vec<&str> = ["--address", CONTAINERD, "--namespace", "k8s.io"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    run("ctr", &all)
}

/// Imports an image from an archive.
///
/// # Errors
/// containerd refuses it.
pub fn import(archive: &Path) -> Result<(), Error> {
    ctr(&["images", "import", &archive.display().to_string()])
}

/// Builds the pause image and the tasks' image from one static program, and imports both.
///
/// # Errors
/// The program is missing or isn't static, or containerd refuses an image.
pub fn import_small(root: &Path) -> Result<(), Error> {
    let busybox = std::fs::read(BUSYBOX)
        .map_err(io(format!("reading {BUSYBOX} (Debian: busybox-static)")))?;
    let architecture =
        check_static(&busybox).map_err(ours(format!("creating images of {BUSYBOX}")))?;
    let program = Entry::file("/bin/busybox", 0o755, busybox);
    let links = APPLETS
        .iter()
        .map(|applet| Entry::link(format!("/bin/{applet}"), "busybox"));
    let entries = [program, Entry::directory("/tmp", 0o1777)]
        .into_iter()
        .chain(links)
        .collect();
    let mut task = Image::new(TASK, architecture, entries);
    task.environment
        .insert("PATH".to_owned(), "/bin".to_owned());
    task.entrypoint = vec!["/bin/sh".to_owned()];
    let mut pause = task.clone();
    PAUSE.clone_into(&mut pause.tag);
    // containerd ends it with SIGKILL, so it needs no signal handler.
    pause.entrypoint = ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec();
    for image in [task, pause] {
        let archive = root.join("image.tar");
        image
            .write_archive(&archive, None)
            .map_err(ours(format!("creating the image {}", image.tag)))?;
        import(&archive)?;
    }
    Ok(())
}

/// Builds an image with curl, its libraries and a shell, and imports it: for the test of the chart
/// podbeat-server.
///
/// # Errors
/// A program is missing, or containerd refuses the image.
pub fn import_curl(root: &Path) -> Result<(), Error> {
    const CURL: &str = "/usr/bin/curl";
    let read = |path: &str| std::fs::read(path).map_err(io(format!("reading {path}")));
    let busybox = read(BUSYBOX)?;
    let architecture =
        check_static(&busybox).map_err(ours(format!("creating images of {BUSYBOX}")))?;
    let output = std::process::Command::new("ldd")
        .arg(CURL)
        .output()
        .map_err(io(format!("listing the libraries of {CURL}")))?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    // NAME => PATH (ADDRESS), and the loader without a name.
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut entries = vec![
        Entry::file("/bin/busybox", 0o755, busybox),
        Entry::file("/bin/curl", 0o755, read(CURL)?),
        Entry::directory("/tmp", 0o1777),
    ];
    for applet in [
        "sh", "cat", "grep", "head", "cut", "date", "sleep", "timeout", "true",
    ] {
        entries.push(Entry::link(format!("/bin/{applet}"), "busybox"));
    }
    for library in libraries {
        entries.push(Entry::file(library, 0o755, read(library)?));
    }
    let mut image = Image::new(CURL_IMAGE, architecture, entries);
    image
        .environment
        .insert("PATH".to_owned(), "/bin".to_owned());
    let archive = root.join("curl.tar");
    image
        .write_archive(&archive, None)
        .map_err(ours(format!("creating the image {CURL_IMAGE}")))?;
    import(&archive)
}

/// Imports podbeat's image from its archive, and names it [`PODBEAT`], which is the same for all
/// versions.
///
/// # Errors
/// There is no archive, or containerd refuses it.
pub fn import_podbeat(archive: &Path) -> Result<(), Error> {
    if !archive.exists() {
        return Err(Error::Unexpected(format!(
            "{} is missing; create it with `just image`",
            archive.display()
        )));
    }
    import(archive)?;
    let own = format!("localhost/podbeat:{}", env!("CARGO_PKG_VERSION"));
    ctr(&["images", "tag", "--force", &own, PODBEAT])?;
    ctr(&["images", "tag", "--force", &own, PODBEAT_AGAIN])
}
