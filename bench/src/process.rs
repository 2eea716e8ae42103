//! A measured process: started in its own process group, sampled through /proc, and ended when its
//! owner is dropped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::control_group::ControlGroup;
use crate::{Error, io};

/// How much of a failed process's output is reported, in bytes.
const TAIL: usize = 2000;

/// A running process. When dropped, it is killed with its whole process group.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    pid: Pid,
    log: PathBuf,
}

/// The values in /proc of a process, or the sums for a process and its descendants. Sizes are in
/// bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Resident memory (`Rss` of smaps_rollup).
    pub rss: u64,
    /// Its proportional share of resident memory (`Pss`): shared pages count in parts.
    pub pss: u64,
    /// Private memory that differs from any file (`Private_Dirty`).
    pub private_dirty: u64,
    /// The peak of resident memory (`VmHWM`). For several processes, the sum of their peaks.
    pub peak: u64,
    /// Threads.
    pub threads: u64,
    /// Processor time: the larger of the sum of its threads' times in schedstat (in nanoseconds)
    /// and the process's time in stat, which includes ended threads.
    pub cpu: Duration,
    /// Context switches because a thread had to wait (`voluntary_ctxt_switches` of all its current
    /// threads).
    pub voluntary: u64,
    /// Context switches because a time slice was over.
    pub involuntary: u64,
    /// The number of summed processes.
    pub processes: u64,
}

impl Running {
    /// Starts a program with these arguments and only this environment. Its output is written to
    /// the file `log`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        environment: &BTreeMap<String, String>,
        log: &Path,
    ) -> Result<Self, Error> {
        let creating = || format!("creating {}", log.display());
        let out = fs::File::create(log).map_err(io(creating()))?;
        let err = out.try_clone().map_err(io(creating()))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io(format!(
                "starting {}; build it first",
                program.display()
            )))?;
        let program = program.display().to_string();
        let id = child.id().map_or(0, u32::cast_signed);
        let Some(pid) = Pid::from_raw(id) else {
            return Err(Error::Gone {
                program,
                id,
                log: tail(log),
            });
        };
        Ok(Self {
            program,
            child,
            pid,
            log: log.to_owned(),
        })
    }

    /// Starts a program in a control group, from its first instruction on.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_in(
        group: &ControlGroup,
        program: &Path,
        arguments: &[String],
        environment: &BTreeMap<String, String>,
        log: &Path,
    ) -> Result<Self, Error> {
        // The shell moves itself into the group, and then executes the program.
        const SHELL: &str = r#"echo $$ >"$0" && exec "$@""#;
        let processes = group.processes();
        let before: [&OsStr; 4] = [
            "-c".as_ref(),
            SHELL.as_ref(),
            processes.as_ref(),
            program.as_ref(),
        ];
        let arguments: Vec<&OsStr> = before
            .into_iter()
            .chain(arguments.iter().map(AsRef::as_ref))
            .collect();
        Self::start(Path::new("/bin/sh"), &arguments, environment, log)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The end of its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.log)
    }

    /// The values in /proc of this process only.
    ///
    /// # Errors
    /// It has ended, or /proc can't be read.
    pub fn sample(&self) -> Result<Sample, Error> {
        look(self.id()).map_err(|error| self.told(error))
    }

    /// The sums for this process and all its descendants. Ended children count only with their
    /// processor time. A process that ends during the call doesn't count.
    ///
    /// # Errors
    /// The process itself has ended, or /proc can't be read.
    pub fn sample_with_children(&self) -> Result<Sample, Error> {
        let mut sum = look(self.id()).map_err(|error| self.told(error))?;
        sum.cpu += cpu_of_ended_children(self.id()).unwrap_or_default();
        for id in descendants(self.id())? {
            if let Ok(mut child) = look(id) {
                child.cpu += cpu_of_ended_children(id).unwrap_or_default();
                sum.add(&child);
            }
        }
        Ok(sum)
    }

    /// The voluntary context switches of its threads, that is, its wake-ups. Cheaper than a whole
    /// sample.
    ///
    /// # Errors
    /// It has ended, or /proc can't be read.
    pub fn wake_ups(&self) -> Result<u64, Error> {
        let mut sample = Sample::default();
        look_at_threads(self.id(), &mut sample).map_err(|error| self.told(error))?;
        Ok(sample.voluntary)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM only to this process.
    ///
    /// # Errors
    /// It has already ended.
    pub fn terminate(&self) -> Result<(), Error> {
        kill_process(self.pid, Signal::TERM).map_err(|_| self.gone())
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// It doesn't end within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        ended
            .map_err(|_| Error::InVain {
                what: format!("the end of {}", self.program),
                waited: limit,
                seen: format!("it wrote:\n{}", tail(&self.log)),
            })?
            .map_err(io(format!("waiting for {}", self.program)))
    }

    /// Sends SIGTERM to its whole group; then SIGKILL, if it doesn't end within `limit`.
    ///
    /// # Errors
    /// It can't be waited for.
    pub async fn stop(mut self, limit: Duration) -> Result<(), Error> {
        // The signal fails if the process has already ended.
        let _ = kill_process_group(self.pid, Signal::TERM);
        if self.ended(limit).await.is_err() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let waiting = format!("waiting for {}, which was killed", self.program);
            self.child.wait().await.map_err(io(waiting))?;
        }
        Ok(())
    }

    fn told(&self, error: Error) -> Error {
        match error {
            Error::Io { ref source, .. }
                if matches!(source.kind(), std::io::ErrorKind::NotFound)
                    || source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                self.gone()
            }
            other => other,
        }
    }

    fn gone(&self) -> Error {
        Error::Gone {
            program: self.program.clone(),
            id: self.id(),
            log: tail(&self.log),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Until the child is waited for, no other process or group can get its id.
        if self.child.id().is_some() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Sample {
    /// Adds another process's values.
    pub fn add(&mut self, other: &Self) {
        self.rss += other.rss;
        self.pss += other.pss;
        self.private_dirty += other.private_dirty;
        self.peak += other.peak;
        self.threads += other.threads;
        self.cpu += other.cpu;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
        self.processes += other.processes;
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))
}

/// The number in a line `Name:   123 kB` of a file in /proc. The unit is optional.
fn line(path: &Path, text: &str, name: &'static str) -> Result<u64, Error> {
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::Proc {
            path: path.to_owned(),
            what: name,
        })
}

fn look(id: i32) -> Result<Sample, Error> {
    let proc = PathBuf::from(format!("/proc/{id}"));
    let rollup = proc.join("smaps_rollup");
    let text = read(&rollup)?;
    let kib = |name| Ok::<u64, Error>(line(&rollup, &text, name)? << 10);
    let status = proc.join("status");
    let peak = line(&status, &read(&status)?, "VmHWM")? << 10;
    let mut sample = Sample {
        rss: kib("Rss")?,
        pss: kib("Pss")?,
        private_dirty: kib("Private_Dirty")?,
        peak,
        processes: 1,
        ..Sample::default()
    };
    look_at_threads(id, &mut sample)?;
    sample.cpu = sample.cpu.max(cpu_by_stat(id, Stat::Own)?);
    Ok(sample)
}

/// Adds the values of each thread. A thread that ends during the call doesn't count.
fn look_at_threads(id: i32, sample: &mut Sample) -> Result<(), Error> {
    let tasks = PathBuf::from(format!("/proc/{id}/task"));
    let entries = fs::read_dir(&tasks).map_err(io(format!("reading {}", tasks.display())))?;
    for task in entries.flatten() {
        let status = task.path().join("status");
        let schedstat = task.path().join("schedstat");
        let (Ok(text), Ok(times)) = (read(&status), read(&schedstat)) else {
            continue;
        };
        sample.threads += 1;
        sample.voluntary += line(&status, &text, "voluntary_ctxt_switches")?;
        sample.involuntary += line(&status, &text, "nonvoluntary_ctxt_switches")?;
        let nanoseconds = times
            .split_whitespace()
            .next()
            .and_then(|first| first.parse().ok());
        sample.cpu += Duration::from_nanos(nanoseconds.ok_or_else(|| Error::Proc {
            path: schedstat,
            what: "time on a CPU",
        })?);
    }
    Ok(())
}

/// The fields of stat to read.
#[derive(Clone, Copy)]
enum Stat {
    /// utime and stime, including ended threads.
    Own,
    /// cutime and cstime: of children that ended and were waited for, and of their children.
    EndedChildren,
}

fn cpu_by_stat(id: i32, whose: Stat) -> Result<Duration, Error> {
    let path = PathBuf::from(format!("/proc/{id}/stat"));
    let text = read(&path)?;
    // The second field is a name that may contain any character. All others follow its closing
    // parenthesis, from the third on.
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let (first, second) = match whose {
        Stat::Own => (14, 15),
        Stat::EndedChildren => (16, 17),
    };
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(first)
        .zip(field(second))
        .map(|(user, system)| user + system);
    let a_second = rustix::param::clock_ticks_per_second();
    ticks
        .map(|ticks| Duration::from_millis(ticks * 1000 / a_second))
        .ok_or(Error::Proc {
            path,
            what: "time on a CPU",
        })
}

fn cpu_of_ended_children(id: i32) -> Result<Duration, Error> {
    cpu_by_stat(id, Stat::EndedChildren)
}

/// The process's children and their descendants.
fn descendants(id: i32) -> Result<Vec<i32>, Error> {
    let mut found = Vec::new();
    let mut to_ask = vec![id];
    while let Some(parent) = to_ask.pop() {
        let tasks = PathBuf::from(format!("/proc/{parent}/task"));
        let entries = match fs::read_dir(&tasks) {
            Ok(entries) => entries,
            Err(_) if parent != id => continue,
            Err(error) => return Err(io(format!("reading {}", tasks.display()))(error)),
        };
        for task in entries.flatten() {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in text
                .split_whitespace()
                .filter_map(|child| child.parse().ok())
            {
                found.push(child);
                to_ask.push(child);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Running, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let log = dir.path().join("log");
        let running = Running::start(Path::new("/bin/sh"), &["-c", script], &environment, &log)
            .expect("a shell");
        (running, dir)
    }

    async fn until(mut reached: impl FnMut() -> bool) {
        let wait = async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("in time");
    }

    #[tokio::test]
    async fn children_are_added_if_requested_and_end_with_their_parent() {
        let (shell, _dir) = shell("sleep 600 & sleep 600 & wait");
        until(|| {
            shell
                .sample_with_children()
                .is_ok_and(|sum| sum.processes == 3)
        })
        .await;
        let (alone, sum) = (
            shell.sample().expect("a sample"),
            shell.sample_with_children().expect("a sample"),
        );
        assert_eq!((alone.processes, alone.threads), (1, 1));
        assert!(alone.rss > 0 && alone.peak >= alone.rss && alone.pss <= alone.rss);
        assert!(sum.rss > alone.rss && sum.pss > alone.pss);
        assert_eq!(sum.threads, 3);
        let children = descendants(shell.id()).expect("children");
        drop(shell);
        until(|| children.iter().all(|id| look(*id).is_err())).await;
    }

    #[tokio::test]
    async fn cpu_of_ended_children_counts() {
        let (shell, _dir) = shell("i=0; (while [ $i -lt 200000 ]; do i=$((i+1)); done); sleep 600");
        until(|| {
            let own = shell.sample().map(|own| own.cpu).unwrap_or_default();
            let all = shell
                .sample_with_children()
                .map(|all| all.cpu)
                .unwrap_or_default();
            all > own + Duration::from_millis(20)
                && descendants(shell.id()).is_ok_and(|now| now.len() == 1)
        })
        .await;
        assert!(shell.wake_ups().expect("counted") > 0);
    }

    #[tokio::test]
    async fn an_ended_process_is_reported_with_its_output() {
        let (mut shell, _dir) = shell("echo it broke >&2; exit 3");
        let status = shell.ended(Duration::from_secs(20)).await.expect("an end");
        assert_eq!(status.code(), Some(3));
        assert!(!shell.runs());
        let error = shell.sample().expect_err("gone").to_string();
        assert!(error.contains("it broke"), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let (shell, _dir) = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
        until(|| shell.log().contains("ready")).await;
        let id = shell.id();
        shell
            .stop(Duration::from_millis(100))
            .await
            .expect("killed");
        assert!(look(id).is_err());
    }
}
