//! `podbeat exec`: runs the task's command in the task's container, and writes its exit marker. The
//! wrapper starts the command, forwards signals, reaps orphans, and ends with the command's exit
//! code. It does not use tokio, heartbeats or the Kubernetes API. podbeat is a guest in the task's
//! container, so it must use almost no resources.

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

/// The signals that podbeat forwards to the command: all that another process may send and that can
/// be caught.
///
/// Not forwarded: KILL and STOP, which cannot be caught; CHLD, which belongs to the wrapper; ILL,
/// TRAP, ABRT, BUS, FPE, SEGV, SYS and STKFLT, which report a process's own faults; PIPE, which
/// belongs to the writer; TTIN and TTOU, which the terminal sends to background processes that use
/// it, unlike the wrapper; and real-time signals, for which there is no safe interface.
const PASSED_ON: &[Signal] = &[
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
    // Only Linux has it.
    #[cfg(target_os = "linux")]
    Signal::POWER,
];

/// The exit code of a shell for a command that does not exist.
const NOT_FOUND: u8 = 127;

/// The exit code of a shell for a command that exists but cannot be run.
const NOT_EXECUTABLE: u8 = 126;

/// The exit code of shells and container runtimes for a signal is this value plus the signal's
/// number.
const BY_SIGNAL: u8 = 128;

/// How long a warning may take. If nobody reads standard error, the task must not wait for it.
const WARNING: Duration = Duration::from_millis(100);

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    code: u8,
    signal: Option<i32>,
}

/// Runs the command, writes an exit marker if possible, and returns the exit code for this process:
/// the command's own; 128 plus the signal's number if a signal ended it; 127 if the command does
/// not exist; 126 if it cannot be run.
///
/// The command inherits this process's environment, working directory, open files, umask, and
/// ignored and blocked signals. It has its own process group. Only PIPE and CHLD always have their
/// defaults: Rust ignores PIPE before `main`, and CHLD must not be ignored, or podbeat could not
/// wait for children. (glibc's `posix_spawn` leaves its two internal signals, 32 and 33, ignored.
/// No program uses them.)
#[must_use]
pub fn run(config: &ExecConfig, command: &[OsString]) -> u8 {
    // Signals first: from here on, signals are kept until the command runs, then forwarded.
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

/// Installs the signal handlers. Signals that were ignored at the start stay ignored, also for the
/// command (as under `nohup`). Returns `None` if podbeat cannot notice the end of a child.
fn catch(inherited: &Inherited) -> Option<Signals> {
    if inherited.blocks(Signal::CHILD) {
        return None;
    }
    let passed_on = PASSED_ON
        .iter()
        .filter(|signal| !inherited.ignores(**signal))
        .map(|signal| signal.as_raw());
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

/// Starts the command in its own process group, so that a script's `kill 0` does not reach the
/// wrapper.
fn spawn(command: &[OsString]) -> io::Result<Pid> {
    match direct(command).process_group(0).spawn() {
        Ok(child) => Ok(Pid::from_child(&child)),
        // There is no second process (process limit, no memory). Run the command without a marker
        // rather than not at all.
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

/// Waits for the end of the command. Meanwhile it forwards signals to the command only, as the
/// kubelet would, and reaps orphans, as process 1 must.
fn attend(child: Pid, signals: &mut Signals) -> Outcome {
    loop {
        for signal in signals.wait() {
            if signal == Signal::CHILD.as_raw() {
                if let Some(outcome) = reap(child) {
                    return outcome;
                }
            } else if let Some(signal) = PASSED_ON.iter().find(|known| known.as_raw() == signal) {
                if *signal == Signal::CONT {
                    // The shell may have moved podbeat back to the foreground.
                    hand_over_terminal(child);
                }
                // The command is not reaped yet, so no other process can have its PID.
                let _ = kill_process(child, *signal);
            }
        }
    }
}

/// Reaps every child that has ended. Returns the outcome of the command, if it is among them.
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

/// Makes the command's process group the foreground group of the terminal, if podbeat's own group
/// is, so that Ctrl-C reaches the task, and only once.
fn hand_over_terminal(group: Pid) {
    let terminal = io::stdin();
    let is_ours =
        |foreground: Pid| inherited::process_group() == Some(foreground.as_raw_nonzero().get());
    if tcgetpgrp(&terminal).is_ok_and(is_ours) && tcsetpgrp(&terminal, group).is_ok() {
        // The command may have used the terminal before it was in the foreground. The kernel would
        // have stopped it.
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

/// Runs work that may hang, such as a write, on another thread, and waits for at most `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    /// Enough to write a file or a line.
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

/// Writes a line to standard error, which belongs to the task.
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
        let numbers: Vec<i32> = PASSED_ON.iter().map(|signal| signal.as_raw()).collect();
        assert_eq!(
            numbers,
            [
                1, 2, 3, 10, 12, 14, 15, 18, 20, 23, 24, 25, 26, 27, 28, 29, 30
            ]
        );
    }
}
