//! The resources that a process uses according to Linux, and this process's limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Error, io};

/// The resources that a process used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Open files, including connections.
    pub files: usize,
}

/// The resources that a process used so far.
///
/// # Errors
/// There is no such process.
pub fn usage(pid: u32) -> Result<Usage, Error> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).map_err(io(format!("reading {path}")))
    };
    let (status, stat) = (read("status")?, read("stat")?);
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Ok(Usage {
        rss_kib: kib(&status, "VmRSS:").unwrap_or(0),
        cpu_seconds: ticks(&stat).unwrap_or(0) as f64
            / rustix::param::clock_ticks_per_second() as f64,
        files,
    })
}

/// The resources that this process used so far.
///
/// # Errors
/// Its files in /proc can't be read.
pub fn own_usage() -> Result<Usage, Error> {
    usage(std::process::id())
}

/// The largest resident memory that a process had so far, in KiB.
///
/// # Errors
/// There is no such process.
pub fn peak_rss_kib(pid: u32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
    Ok(kib(&status, "VmHWM:").unwrap_or(0))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The ticks in user mode and in the kernel: fields 14 and 15 of proc(5). They are counted after
/// the name, which may contain any character.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Raises the limit of open files to the system's maximum, for this process and its children.
/// Returns the new limit.
///
/// # Errors
/// The system refuses.
pub fn raise_file_limit() -> Result<u64, Error> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| io("raising the limit of open files (RLIMIT_NOFILE)")(error.into()))?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let usage = own_usage().expect("this process");
        assert!(usage.rss_kib > 100 && usage.files > 2, "{usage:?}");
        let peak = peak_rss_kib(std::process::id()).expect("this process");
        assert!(peak >= usage.rss_kib, "{peak} {usage:?}");
        let status = "Name:\tx\nVmRSS:\t    1234 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(1234));
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0";
        assert_eq!(ticks(stat), Some(123));
        assert!(raise_file_limit().expect("raised") >= 256);
    }
}
