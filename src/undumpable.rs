//! Keeps the process's memory, which holds tokens, from whoever shares its user: another container
//! of the pod that runs as the same user and shares its processes could read it, and a core file
//! would hold it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// From now on no core file is written, and the process can't be attached to (PR_SET_DUMPABLE,
/// prctl(2)), but by a user who may do everything.
///
/// A kernel that knows no such thing costs nothing else, so that failures are left alone.
pub fn protect() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
