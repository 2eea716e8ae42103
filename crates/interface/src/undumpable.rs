//! Protects the process's memory, which contains tokens. Another container of the pod that runs as
//! the same user and shares the process namespace could read it, and a core file would contain it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// From now on, the kernel writes no core file for this process, and only a privileged user can
/// attach to it (PR_SET_DUMPABLE, prctl(2)).
///
/// Failures are ignored: on a kernel without these features, nothing else is affected.
pub fn protect() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
