//! The signal settings and the process group that this process inherited, from `/proc/self`. The
//! command must inherit the same.

use std::path::Path;

use podbeat_files::regular_file::{KERNEL, read_text};
use rustix::process::Signal;

/// The ignored and the blocked signals: bit N-1 is signal N. Both are empty if the file is
/// unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inherited {
    ignored: u64,
    blocked: u64,
}

impl Inherited {
    pub(super) fn read() -> Self {
        read_text(Path::new("/proc/self/status"), KERNEL)
            .map_or_else(|_| Self::default(), |status| Self::parse(&status))
    }

    fn parse(status: &str) -> Self {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .unwrap_or(0)
        };
        Self {
            ignored: mask("SigIgn:"),
            blocked: mask("SigBlk:"),
        }
    }

    pub(super) fn ignores(self, signal: Signal) -> bool {
        has(self.ignored, signal)
    }

    pub(super) fn blocks(self, signal: Signal) -> bool {
        has(self.blocked, signal)
    }
}

/// Returns the process group of this process. `None` if the group's leader is in another process
/// namespace, or the file is unreadable. (`getpgrp` returns 0 in the first case, which is not a
/// valid `Pid`.)
pub(super) fn process_group() -> Option<i32> {
    group_in(&read_text(Path::new("/proc/self/stat"), KERNEL).ok()?)
}

/// Parses the fifth field. The second is the program's name in parentheses, which may contain
/// anything.
fn group_in(stat: &str) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let group: i32 = fields.split_ascii_whitespace().nth(2)?.parse().ok()?;
    (group > 0).then_some(group)
}

fn has(mask: u64, signal: Signal) -> bool {
    let bit = u32::try_from(signal.as_raw() - 1).ok();
    bit.and_then(|bit| mask.checked_shr(bit))
        .is_some_and(|rest| rest & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_masks_are_read() {
        let inherited = Inherited::parse(
            "Name:\tpodbeat\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001001\n",
        );
        assert!(inherited.ignores(Signal::HUP) && inherited.ignores(Signal::PIPE));
        assert!(!inherited.ignores(Signal::INT) && !inherited.ignores(Signal::CHILD));
        assert!(inherited.blocks(Signal::CHILD) && !inherited.blocks(Signal::HUP));
        assert_eq!(Inherited::parse("SigIgn: nonsense"), Inherited::default());
    }

    #[test]
    fn the_process_group_is_read_whatever_the_program_is_called() {
        assert_eq!(group_in("12 (a) b) c)) S 1 7 7 0 -1"), Some(7));
        assert_eq!(group_in("1 (podbeat) S 0 0 0 0 -1"), None);
        assert_eq!(group_in("nonsense"), None);
    }
}
