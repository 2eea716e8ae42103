//! Tells of a trouble that goes on: at once, then at a growing interval with a count.

use std::error::Error;
use std::fmt;

/// Counts a trouble's repetitions.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<String>,
    failures: u64,
    told_at: u64,
}

impl Repeats {
    /// Counts one more failure. Says how many there were in a row if this one is worth a line: the first, any that
    /// differs from the one before, and each time their number has doubled.
    pub(super) fn worth_telling(&mut self, message: &str) -> Option<u64> {
        self.failures += 1;
        let new = self.last.as_deref() != Some(message);
        if new {
            self.last = Some(message.to_owned());
        }
        if new || self.failures >= self.told_at.saturating_mul(2) {
            self.told_at = self.failures;
            return Some(self.failures);
        }
        None
    }

    /// Ends the row. Says how many there were, if any.
    pub(super) fn over(&mut self) -> Option<u64> {
        let ended = std::mem::take(self);
        (ended.failures > 0).then_some(ended.failures)
    }
}

/// An error with all its sources, outermost first. Each Display tells its own part only.
pub(super) struct Chain<'error>(pub(super) &'error dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_outage_is_told_in_few_lines() {
        let mut repeats = Repeats::default();
        let told = (0..1000)
            .filter(|_| repeats.worth_telling("503").is_some())
            .count();
        assert_eq!(told, 10);
        assert!(
            repeats.worth_telling("refused").is_some(),
            "another trouble is told at once"
        );
        assert_eq!(repeats.over(), Some(1001));
        assert_eq!(repeats.over(), None);
    }
}
