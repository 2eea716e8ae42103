//! The rules that apply to all runs, and the time.

use std::time::Duration;

use jiff::Timestamp;

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The date and time, for people. Nothing waits by it, because it can jump.
    pub wall: Timestamp,
    /// The time since the start of the process. All waits use it, so none continues over a restart:
    /// after any downtime, each starts again.
    pub elapsed: Duration,
}

/// The rules for all runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A running run without a heartbeat for this long is TimedOut.
    pub heartbeat_timeout: Duration,
    /// How long a run waits for the rest of the evidence after its attempt ended.
    pub evidence_wait: Duration,
    /// How long a run waits for its next attempt after one failed, if the service does not launch
    /// the attempts.
    pub retry_wait: Duration,
    /// How many disrupted attempts of a run do not count toward its retry limit.
    pub disruptions: u32,
    /// After these exit codes, a run that the service launches is not retried.
    pub final_exit_codes: ExitCodes,
}

impl Rules {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        heartbeat_timeout: Duration::from_secs(600),
        evidence_wait: Duration::from_secs(60),
        retry_wait: Duration::from_secs(900),
        disruptions: 10,
        final_exit_codes: ExitCodes::NONE,
    };
}

/// A set of exit codes, from 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCodes([u128; 2]);

impl ExitCodes {
    /// No exit codes.
    pub const NONE: Self = Self([0; 2]);

    /// With another one.
    #[must_use]
    pub const fn with(self, code: u8) -> Self {
        let Self([low, high]) = self;
        match code {
            0..128 => Self([low | 1 << code, high]),
            128.. => Self([low, high | 1 << (code - 128)]),
        }
    }

    /// Whether the set contains it.
    #[must_use]
    pub fn contains(&self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.with(code) == *self)
    }
}
