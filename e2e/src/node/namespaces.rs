//! The namespaces in which a node lives. They end with everything in them.
//!
//! The program runs itself again as the first process of a new PID namespace, with its own mounts
//! and network. When that process ends, for any reason, the kernel ends all its descendants and
//! removes the mounts and interfaces. The process outside removes the rest: control groups and
//! files.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::network::DNS_SERVICE;
use crate::{Error, io};

/// Identifies which of the three processes this is: unset outside, then [`INIT`], then
/// [`RESIDENT`].
const STAGE: &str = "PODBEAT_E2E_STAGE";
/// The first process of the PID namespace. It reaps orphans, and ends with the resident.
const INIT: &str = "init";
/// The process that starts the node and plays the scenarios.
const RESIDENT: &str = "resident";
/// The directory of all files.
const ROOT: &str = "PODBEAT_E2E_ROOT";

/// The prefix of the names of temporary roots and control groups.
pub const PREFIX: &str = "podbeat-e2e-";

const CGROUPS: &str = "/sys/fs/cgroup";

/// The file in a root that contains the id of the process outside.
const OWNER: &str = "owner.pid";

/// The settings of the whole machine that kubelet changes (kubelet's `setupKernelTunables`). They
/// are restored afterwards.
const TUNABLES: &[&str] = &[
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

/// The file in a root that contains their earlier values.
const TUNABLES_BEFORE: &str = "tunables";

/// Which process this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The one that the user started.
    Outside,
    /// Process 1 of the namespace.
    Init,
    /// The one that does the work, in this directory.
    Resident(PathBuf),
}

impl Stage {
    /// Reads the stage from the environment.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "a process tells its own child which one it is"
    )]
    pub fn read() -> Self {
        match std::env::var(STAGE).as_deref() {
            Ok(INIT) => Self::Init,
            Ok(RESIDENT) => {
                Self::Resident(PathBuf::from(std::env::var_os(ROOT).unwrap_or_default()))
            }
            Ok(_) | Err(_) => Self::Outside,
        }
    }
}

/// Runs this program again with these arguments, in new namespaces, and cleans up afterwards.
///
/// # Errors
/// The namespaces can't be created (this needs root), or something can't be removed.
pub async fn live(arguments: &[OsString]) -> Result<ExitCode, Error> {
    sweep();
    let root = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir()
        .map_err(io("creating a temporary root"))?;
    let cgroup = root.path().file_name().unwrap_or_default().to_owned();
    let owner = root.path().join(OWNER);
    std::fs::write(&owner, std::process::id().to_string())
        .map_err(io("writing the owner of the root"))?;
    keep_tunables(root.path())?;
    let this = std::env::current_exe().map_err(io("looking for this program"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("handling SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("handling SIGINT"))?;
    // Each of the two helpers is killed if its parent ends. With the last one, the kernel ends the
    // namespace and everything in it.
    let mut child = tokio::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args([
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--mount-proc",
        ])
        .args(["--kill-child=KILL", "--"])
        .arg(&this)
        .args(arguments)
        .env(STAGE, INIT)
        .env(ROOT, root.path())
        .stdin(Stdio::null())
        // A separate process group: Ctrl-C reaches only this process, which ends the others.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(io("starting setpriv and unshare (Debian: util-linux)"))?;
    let code = tokio::select! {
        status = child.wait() => {
            let status = status.map_err(io("waiting for the node's namespaces"))?;
            narrow(status.code().or_else(|| status.signal().map(|signal| 128 + signal)))
        }
        _ = terminate.recv() => 143,
        _ = interrupt.recv() => 130,
    };
    child
        .kill()
        .await
        .map_err(io("ending the node's namespaces"))?;
    restore_tunables(root.path());
    remove_cgroups(&Path::new(CGROUPS).join(&cgroup));
    remove(root).await?;
    Ok(ExitCode::from(code))
}

/// The work of process 1 of a PID namespace: starts the resident, reaps every orphan, and ends with
/// the resident.
///
/// # Errors
/// The resident can't be started.
pub fn init(arguments: &[OsString]) -> Result<ExitCode, Error> {
    let this = std::env::current_exe().map_err(io("looking for this program"))?;
    let resident = Command::new(this)
        .args(arguments)
        .env(STAGE, RESIDENT)
        .spawn()
        .map_err(io("starting the resident"))?;
    let resident = i32::try_from(resident.id()).unwrap_or_default();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == resident => {
                let signalled = || status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or_else(signalled);
                return Ok(ExitCode::from(narrow(code)));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io("waiting for the resident")(error.into())),
        }
    }
}

fn narrow(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Creates the namespace's mounts. They redirect a node's writes outside its own directory to
/// `root`.
///
/// # Errors
/// A mount fails.
pub fn furnish(root: &Path) -> Result<(), Error> {
    for (at, target) in [
        ("run", "/run"),
        ("var-lib", "/var/lib"),
        ("var-log", "/var/log"),
    ] {
        let from = root.join(at);
        std::fs::create_dir_all(&from).map_err(io(format!("creating {}", from.display())))?;
        run("mount", &["--bind", &from.display().to_string(), target])?;
    }
    // The machine's name servers can't be reached from here, and each query to them would wait.
    let resolver = root.join("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {DNS_SERVICE}\n"))
        .map_err(io("writing the node's resolv.conf"))?;
    run(
        "mount",
        &[
            "--bind",
            &resolver.display().to_string(),
            "/etc/resolv.conf",
        ],
    )
}

/// Creates the control group for kubelet's pods, and returns its name for kubelet.
///
/// # Errors
/// It can't be created.
pub fn make_cgroup(root: &Path) -> Result<String, Error> {
    let name = root.file_name().unwrap_or_default();
    let make = |parent: &Path| {
        let path = parent.join(name);
        std::fs::create_dir_all(&path)
            .map_err(io(format!("creating the control group {}", path.display())))
    };
    if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        make(Path::new(CGROUPS))?;
        let controllers = std::fs::read_to_string(Path::new(CGROUPS).join("cgroup.controllers"))
            .map_err(io("reading the control groups' controllers"))?;
        let enabled: Vec<String> = controllers
            .split_whitespace()
            .map(|one| format!("+{one}"))
            .collect();
        for group in [PathBuf::from(CGROUPS), Path::new(CGROUPS).join(name)] {
            std::fs::write(group.join("cgroup.subtree_control"), enabled.join(" "))
                .map_err(io(format!("enabling controllers in {}", group.display())))?;
        }
    } else {
        let of_version_1 = |path: &PathBuf| !path.join("cgroup.controllers").exists();
        for controller in hierarchies()?.into_iter().filter(of_version_1) {
            make(&controller)?;
            // A new cpuset is empty, and no process can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let of_parent = std::fs::read(controller.join(file));
                if let Ok(values) = of_parent {
                    let path = controller.join(name).join(file);
                    std::fs::write(&path, values)
                        .map_err(io(format!("writing {}", path.display())))?;
                }
            }
        }
    }
    Ok(format!("/{}", name.to_string_lossy()))
}

/// The mounted hierarchies of version 1. On a machine with both versions, also that of version 2,
/// because runc uses it, too.
fn hierarchies() -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(CGROUPS).map_err(io(format!("listing {CGROUPS}")))?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect())
}

/// Removes a control group with that name from every hierarchy, unless it is in use.
fn remove_cgroups(cgroup: &Path) {
    let name = cgroup.file_name().unwrap_or_default();
    let all = hierarchies().unwrap_or_default();
    for hierarchy in all.iter().map(PathBuf::as_path).chain([Path::new(CGROUPS)]) {
        // The kernel frees a group a moment after its last process is reaped.
        for _ in 0..50 {
            let group = hierarchy.join(name);
            if !group.exists() || remove_cgroup(&group).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn remove_cgroup(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// Removes the control groups and files of killed runs.
fn sweep() {
    let ours = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(PREFIX))
    };
    let in_directory = |directory: PathBuf| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| ours(path))
            .collect::<Vec<_>>()
    };
    let all = hierarchies().unwrap_or_default();
    for group in all
        .into_iter()
        .chain([PathBuf::from(CGROUPS)])
        .flat_map(in_directory)
    {
        // Fails if the group has a process, because then it is in use.
        let _ = remove_cgroup(&group);
    }
    for root in in_directory(std::env::temp_dir()) {
        let owner = std::fs::read_to_string(root.join(OWNER));
        let is_dead = |pid: String| !Path::new("/proc").join(pid.trim()).exists();
        if owner.is_ok_and(is_dead) {
            restore_tunables(&root);
            // Remaining files do no harm.
            let _ = std::fs::remove_dir_all(&root);
        }
    }
}

fn keep_tunables(root: &Path) -> Result<(), Error> {
    let read = |path: &&str| {
        Some(format!(
            "{path} {}\n",
            std::fs::read_to_string(path).ok()?.trim()
        ))
    };
    let all: String = TUNABLES.iter().filter_map(read).collect();
    std::fs::write(root.join(TUNABLES_BEFORE), all)
        .map_err(io("writing down what kubelet will set"))
}

fn restore_tunables(root: &Path) {
    let before = std::fs::read_to_string(root.join(TUNABLES_BEFORE)).unwrap_or_default();
    for (path, value) in before.lines().filter_map(|line| line.split_once(' ')) {
        // If a value can't be written, kubelet couldn't change it either.
        let _ = std::fs::write(path, value);
    }
}

async fn remove(root: tempfile::TempDir) -> Result<(), Error> {
    let path = root.keep();
    let mut last = Ok(());
    for _ in 0..50 {
        last = std::fs::remove_dir_all(&path);
        if last.is_ok() || !path.exists() {
            return Ok(());
        }
        // The namespace's mounts end with its last process.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last.map_err(io(format!("removing {}", path.display())))
}

/// The control group of a container under ours, in the hierarchy of the memory controller.
///
/// # Errors
/// There is no such control group.
pub fn find_memory_cgroup(cgroup: &str, container_id: &str) -> Result<PathBuf, Error> {
    fn find(directory: &Path, name: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut directories =
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.find_map(|entry| {
            if entry.file_name().to_string_lossy().contains(name) {
                return Some(entry.path());
            }
            find(&entry.path(), name)
        })
    }
    let v1 = Path::new(CGROUPS).join("memory");
    let hierarchy = if v1.exists() {
        v1
    } else {
        PathBuf::from(CGROUPS)
    };
    let ours = hierarchy.join(cgroup.trim_start_matches('/'));
    find(&ours, container_id).ok_or_else(|| {
        Error::Unexpected(format!(
            "no control group of {container_id} under {}",
            ours.display()
        ))
    })
}

/// Sets a group's limit to the memory that it uses and the kernel can't reclaim. Returns the limit.
///
/// # Errors
/// The kernel refuses.
pub fn squeeze(group: &Path) -> Result<u64, Error> {
    const STEP: u64 = 256 * 1024;
    const MOST: u64 = 32 * 1024 * 1024;
    // Version 1 refuses a limit below the current use. Version 2 would kill at once, so it starts
    // at the current use.
    let v2 = group.join("memory.max").exists();
    let limit = group.join(if v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    });
    let mut bytes = if v2 {
        let used = group.join("memory.current");
        let text =
            std::fs::read_to_string(&used).map_err(io(format!("reading {}", used.display())))?;
        text.trim().parse().unwrap_or(MOST)
    } else {
        STEP
    };
    loop {
        match std::fs::write(&limit, bytes.to_string()) {
            Ok(()) => return Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && bytes < MOST => {
                bytes += STEP
            }
            Err(error) => return Err(io(format!("writing {}", limit.display()))(error)),
        }
    }
}

/// The peak memory of a group, and the peak resident memory of its first process, in bytes.
///
/// # Errors
/// The group or its process has ended.
pub fn peak_memory(group: &Path) -> Result<(u64, u64), Error> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))
    };
    let v2 = group.join("memory.peak");
    let v1 = group.join("memory.max_usage_in_bytes");
    let peak = read(if v2.exists() { &v2 } else { &v1 })?;
    let processes = read(&group.join("cgroup.procs"))?;
    let process = processes.lines().next().unwrap_or_default();
    let status = read(&Path::new("/proc").join(process).join("status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match (peak.trim().parse(), kibibytes) {
        (Ok(peak), Some(kibibytes)) => Ok((peak, kibibytes * 1024)),
        (Ok(_) | Err(_), _) => Err(Error::Unexpected(format!(
            "{} has no figures of its memory: {peak:?}, {resident:?}",
            group.display()
        ))),
    }
}

/// Runs a program of the system to its end.
///
/// # Errors
/// The program is missing or fails. The error contains its output.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let told = || format!("running {program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(io(told()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        what: format!("{} ended with {}", told(), output.status),
        log: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    })
}
