//! The status that a command waits for, and whether a run can still reach it.

use std::fmt;

use podbeat_task_runs::model::TaskRunStatus;

/// The word for any final status.
pub const END: &str = "end";

/// The status to wait for: one of a list, or any final status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitCondition {
    statuses: Vec<TaskRunStatus>,
    end: bool,
}

/// What a run's status means for the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The run has a status of the condition.
    Met,
    /// The run can still reach such a status.
    Open,
    /// The run has ended in another status.
    Vain,
}

impl WaitCondition {
    /// Parses `STATUS[,STATUS…]`. The statuses are not case-sensitive, and `end` means any final
    /// status. Also returns the unknown statuses; the caller decides whether to accept them.
    ///
    /// # Errors
    /// The text has no status.
    pub fn parse(text: &str) -> Result<(Self, Vec<TaskRunStatus>), &'static str> {
        let mut condition = Self {
            statuses: Vec::new(),
            end: false,
        };
        let mut unknown = Vec::new();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            if word.eq_ignore_ascii_case(END) {
                condition.end = true;
                continue;
            }
            let status = status(word);
            if matches!(status, TaskRunStatus::Unknown(_)) {
                unknown.push(status.clone());
            }
            condition.statuses.push(status);
        }
        if condition.statuses.is_empty() && !condition.end {
            return Err(
                "missing status: use a status such as Completed, several comma-separated statuses, or end",
            );
        }
        Ok((condition, unknown))
    }

    pub(super) fn judge(&self, status: Option<&TaskRunStatus>) -> Verdict {
        let Some(status) = status else {
            return Verdict::Open;
        };
        let is_over = status.is_over();
        if self.statuses.contains(status) || (self.end && is_over) {
            Verdict::Met
        } else if is_over {
            Verdict::Vain
        } else {
            Verdict::Open
        }
    }
}

impl fmt::Display for WaitCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.statuses.iter().map(TaskRunStatus::as_str).collect();
        match (names.is_empty(), self.end) {
            (true, _) => f.write_str("in a final status"),
            (false, true) => write!(f, "{}, or in a final status", names.join(" or ")),
            (false, false) => f.write_str(&names.join(" or ")),
        }
    }
}

/// Parses a status. It is not case-sensitive.
#[must_use]
pub fn status(word: &str) -> TaskRunStatus {
    let known = TaskRunStatus::KNOWN
        .into_iter()
        .find(|known| known.as_str().eq_ignore_ascii_case(word));
    known.unwrap_or_else(|| TaskRunStatus::from(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_otherwise_is_waited_for_in_vain() {
        let verdicts = |text: &str| {
            let (condition, _) = WaitCondition::parse(text).expect("right");
            TaskRunStatus::KNOWN.map(|status| condition.judge(Some(&status)))
        };
        use Verdict::{Met, Open, Vain};
        assert_eq!(
            verdicts("completed"),
            [Open, Open, Open, Open, Open, Met, Open, Vain, Vain, Vain]
        );
        assert_eq!(
            verdicts("RUNNING, Failed"),
            [Open, Open, Open, Met, Open, Vain, Open, Met, Vain, Vain]
        );
        assert_eq!(
            verdicts("end"),
            [Open, Open, Open, Open, Open, Met, Open, Met, Met, Met]
        );
        let (condition, unknown) = WaitCondition::parse("Hibernating,end").expect("right");
        assert_eq!(unknown, [TaskRunStatus::from("Hibernating")]);
        assert_eq!(condition.judge(Some(&"Hibernating".into())), Met);
        assert_eq!(condition.judge(Some(&"hibernating".into())), Open);
        assert_eq!(condition.judge(None), Open);
        assert_eq!(condition.to_string(), "Hibernating, or in a final status");
        assert!(WaitCondition::parse(" , ").is_err());
    }
}
