//! A control group with a memory limit, like a container's. The kernel kills a process that exceeds
//! it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, io};

/// The mount point of control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// The time between two attempts to remove a group. The kernel frees it a moment after its last
/// process has ended.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A control group that is removed on drop, once no process runs in it.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
    /// The file with the kernel's count of killed processes.
    events: PathBuf,
}

impl ControlGroup {
    /// Creates a group in which all processes together can use this many bytes of memory, and no
    /// swap.
    ///
    /// # Errors
    /// The group can't be created: the user is not root, or the machine's control groups can't be
    /// changed from here.
    pub fn with_memory(name: &str, bytes: u64) -> Result<Self, Error> {
        let root = Path::new(ROOT);
        let name = format!("podbeat-{name}-{}", std::process::id());
        let is_version_2 = root.join("cgroup.controllers").exists();
        let (path, limit, swap, events) = if is_version_2 {
            // If there are processes in the root itself, as in a container, the kernel refuses
            // this. The error is reported below.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (
                root.join(name),
                "memory.max",
                "memory.swap.max",
                "memory.events",
            )
        } else {
            let path = root.join("memory").join(name);
            (
                path,
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "memory.oom_control",
            )
        };
        let cant = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::NoControlGroup { path, source }
        };
        fs::create_dir(&path).map_err(cant(&path))?;
        let group = Self {
            events: path.join(events),
            path,
        };
        let file = group.path.join(limit);
        fs::write(&file, bytes.to_string()).map_err(cant(&file))?;
        // A kernel without swap accounting has no such file.
        let (none, all) = ("0".to_owned(), bytes.to_string());
        let _ = fs::write(group.path.join(swap), if is_version_2 { none } else { all });
        Ok(group)
    }

    /// The file that moves a process into the group.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// How many of its processes the kernel killed for lack of memory.
    ///
    /// # Errors
    /// The kernel's file can't be read.
    pub fn killed(&self) -> Result<u64, Error> {
        let text = fs::read_to_string(&self.events)
            .map_err(io(format!("reading {}", self.events.display())))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        killed
            .and_then(|killed| killed.trim().parse().ok())
            .ok_or_else(|| Error::Proc {
                path: self.events.clone(),
                what: "oom_kill",
            })
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(PAUSE)
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}
