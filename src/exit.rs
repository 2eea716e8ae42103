//! The endings of podbeat and their exit codes, one table.
//!
//! The numbers are those of sysexits.h where it has one, so that they are told apart from a shell's (126 and up) and
//! from a panic's (101).

use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The last heartbeat was accepted, or a command did what it was asked.
    Delivered,
    /// The service said that the run isn't this pod's; nothing was left to send. Not a failure of the pod.
    Orphaned,
    /// Settings are missing or malformed (EX_USAGE). Nothing was sent.
    Usage,
    /// podbeat itself failed before its first heartbeat (EX_SOFTWARE).
    Internal,
    /// A file could not be written where that was all there was to do (EX_CANTCREAT).
    Unwritten,
    /// The last heartbeat was not accepted in time (EX_TEMPFAIL): the service doesn't know how the run ended.
    Undelivered,
}

impl Ending {
    /// Every ending, for documents and tests.
    pub const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Orphaned,
        Self::Usage,
        Self::Internal,
        Self::Unwritten,
        Self::Undelivered,
    ];

    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Delivered | Self::Orphaned => 0,
            Self::Usage => 64,
            Self::Internal => 70,
            Self::Unwritten => 73,
            Self::Undelivered => 75,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "the last heartbeat was accepted",
            Self::Orphaned => "the service disowned the run",
            Self::Usage => "settings are missing or malformed",
            Self::Internal => "podbeat could not begin",
            Self::Unwritten => "a file could not be written",
            Self::Undelivered => "the last heartbeat was not accepted in time",
        })
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_design() {
        let codes: Vec<u8> = Ending::ALL.iter().map(|ending| ending.code()).collect();
        assert_eq!(codes, [0, 0, 64, 70, 73, 75]);
    }
}
