//! `podbeat exec`: the task's command inside the task's container, and the exit marker that it
//! leaves. Here lives the wrapper: it starts the command, passes signals on, reaps orphans, and
//! ends as the command ended. Never here: tokio, a heartbeat, the Kubernetes API. In the task's
//! container podbeat is a guest, and costs next to nothing.

mod inherited;
mod install;
mod leave;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use inherited::Inherited;
use jiff::Timestamp;
use leave::Place;
use podbeat_heartbeat::marker::{Marker, whole_seconds};
use podbeat_interface::terminal::one_line;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use signal_hook::iterator::Signals;

use crate::config::ExecConfig;

pub use install::{Error as InstallError, install};

/// What is passed on to the command: every signal that somebody else may send and that can be
/// caught.
///
/// Not in it: KILL and STOP, which can't be caught; CHLD, which is the wrapper's own; ILL, TRAP,
/// ABRT, BUS, FPE, SEGV, SYS and STKFLT, by which a process tells of its own faults; PIPE, which is
/// the writer's own; TTIN and TTOU, which the terminal sends to whoever disturbs it, and the
/// wrapper doesn't; real-time signals, which no safe interface sends.
const PASSED_ON: [Signal; 17] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::TERM,
    Signal::CONT,
    Signal::TSTP,
    Signal::URG,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::VTALARM,
    Signal::PROF,
    Signal::WINCH,
    Signal::IO,
    Signal::POWER,
];

/// As a shell says it: there is no such command.
const NOT_FOUND: u8 = 127;

/// As a shell says it: there is one, and it can't be run.
const NOT_EXECUTABLE: u8 = 126;

/// As a shell and every container runtime say it: this, and the signal's number.
const BY_SIGNAL: u8 = 128;

/// How long a warning may take: nobody may read standard error, and the task must not wait for
/// that.
const WARNING: Duration = Duration::from_millis(100);

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    code: u8,
    signal: Option<i32>,
}

/// Runs the command and returns the exit code to end with: its own; 128 and the signal's number if
/// one ended it; 127 if there is no such command, 126 if it can't be run. Each is left as an exit
/// marker, too, where that can be written.
///
/// The command starts with the environment, the working directory, the open files, the umask, and
/// the ignored and blocked signals that this process was started with, in a process group of its
/// own. Only PIPE and CHLD are always at their defaults there: Rust ignores the one before `main`,
/// and the other must not be ignored if children are to be waited for. (glibc's `posix_spawn`
/// leaves its two internal signals, 32 and 33, ignored; no program has a use for them.)
#[must_use]
pub fn run(config: &ExecConfig, command: &[OsString]) -> u8 {
    // Signals first: what comes from here on is passed on as soon as there is somebody to pass it
    // on to.
    let inherited = Inherited::read();
    let signals = catch(&inherited);
    let started_at = Timestamp::now();
    let place = Place::prepare(config);
    let outcome = match signals {
        Some(mut signals) => spawn(command)
            .map(|child| {
                hand_over_terminal(child);
                attend(child, &mut signals)
            })
            .unwrap_or_else(|error| not_run(command, &error)),
        None => {
            warn(
                "cannot watch signals; running the command without podbeat, so there will be no exit marker",
            );
            not_run(command, &direct(command).exec())
        }
    };
    place.leave(&Marker {
        exit_code: outcome.code.into(),
        signal: outcome.signal,
        started_at: Some(whole_seconds(started_at)),
        finished_at: Some(whole_seconds(Timestamp::now())),
    });
    outcome.code
}

/// Sets the handlers. What was ignored at the start stays so, and is inherited so (as under
/// `nohup`). `None` if the end of a child can't be noticed.
fn catch(inherited: &Inherited) -> Option<Signals> {
    if inherited.blocks(Signal::CHILD) {
        return None;
    }
    let passed_on = PASSED_ON
        .into_iter()
        .filter(|signal| !inherited.ignores(*signal))
        .map(Signal::as_raw);
    Signals::new(passed_on.chain([Signal::CHILD.as_raw()])).ok()
}

fn direct(command: &[OsString]) -> Command {
    let (program, arguments) = command
        .split_first()
        .map_or_else(Default::default, |(program, rest)| {
            (program.clone(), rest.to_vec())
        });
    let mut direct = Command::new(program);
    direct.args(arguments);
    direct
}

/// Starts the command in a process group of its own, so that a script's `kill 0` doesn't reach the
/// wrapper.
fn spawn(command: &[OsString]) -> io::Result<Pid> {
    match direct(command).process_group(0).spawn() {
        Ok(child) => Ok(Pid::from_child(&child)),
        // No second process is to be had (a limit on processes, no memory): a task must not be lost
        // for a marker.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
            ) =>
        {
            warn(&format!(
                "cannot create a process for the command ({error}); running the command without podbeat, so there will be no \
                 exit marker"
            ));
            Err(direct(command).exec())
        }
        Err(error) => Err(error),
    }
}

/// Waits for the command's end. Passes signals on meanwhile, to the command alone as the kubelet
/// would, and reaps what others left behind, as process 1 must.
fn attend(child: Pid, signals: &mut Signals) -> Outcome {
    loop {
        for signal in signals.wait() {
            if signal == Signal::CHILD.as_raw() {
                if let Some(outcome) = reap(child) {
                    return outcome;
                }
            } else if let Some(signal) = PASSED_ON.iter().find(|known| known.as_raw() == signal) {
                if *signal == Signal::CONT {
                    // The shell may have brought podbeat back to the foreground.
                    hand_over_terminal(child);
                }
                // It isn't reaped yet, so that nobody else can bear its number.
                let _ = kill_process(child, *signal);
            }
        }
    }
}

/// Takes the status of every process that has ended and is ours to wait for; tells of the command's
/// own.
fn reap(child: Pid) -> Option<Outcome> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let signal = status.terminating_signal();
                let low = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
                return Some(match (signal, status.exit_status()) {
                    (Some(number), _) => Outcome {
                        code: BY_SIGNAL.saturating_add(low(number)),
                        signal,
                    },
                    (None, code) => Outcome {
                        code: code.map_or(u8::MAX, low),
                        signal: None,
                    },
                });
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Makes the command's group the foreground one of the terminal, if podbeat's own is: so Ctrl-C
/// reaches the task, and once.
fn hand_over_terminal(group: Pid) {
    let terminal = io::stdin();
    let is_ours =
        |foreground: Pid| inherited::process_group() == Some(foreground.as_raw_nonzero().get());
    if tcgetpgrp(&terminal).is_ok_and(is_ours) && tcsetpgrp(&terminal, group).is_ok() {
        // It may have asked the terminal for something before it was allowed to, and been stopped
        // for it.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

fn not_run(command: &[OsString], error: &io::Error) -> Outcome {
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    let program = command.first().map(OsString::as_os_str).unwrap_or_default();
    warn(&format!(
        "cannot run {}: {error}; check that it exists in this container's image, and is executable",
        program.display()
    ));
    Outcome { code, signal: None }
}

/// Does something that may hang, such as a write, on a thread of its own, and waits no longer than
/// that.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    /// Ample for a write of a file or a line.
    const STACK: usize = 128 * 1024;
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let _ = sender.send(work());
        })
        .ok()?;
    receiver.recv_timeout(limit).ok()
}

/// A line on standard error, which is the task's.
fn warn(text: &str) {
    let line = format!("podbeat exec: {}\n", one_line(text));
    let _ = within(WARNING, move || io::stderr().write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_waited_for_no_longer_than_that() {
        let (_open, never) = std::sync::mpsc::channel::<()>();
        assert_eq!(
            within(Duration::from_millis(5), move || never.recv().is_ok()),
            None
        );
        assert_eq!(within(Duration::from_secs(30), || 7), Some(7));
    }

    #[test]
    fn what_is_passed_on_is_neither_a_fault_nor_the_wrappers_own() {
        let numbers: Vec<i32> = PASSED_ON.into_iter().map(Signal::as_raw).collect();
        assert_eq!(
            numbers,
            [
                1, 2, 3, 10, 12, 14, 15, 18, 20, 23, 24, 25, 26, 27, 28, 29, 30
            ]
        );
    }
}
