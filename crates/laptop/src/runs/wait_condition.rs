//! What is waited for, and whether it can still come.

use std::fmt;

use podbeat_task_runs::model::TaskRunStatus;
use strsim::osa_distance;

/// The word for any status in which a run has ended.
pub const END: &str = "end";

/// What is waited for: a status out of some, or any that ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitCondition {
    statuses: Vec<TaskRunStatus>,
    end: bool,
}

/// What a status means for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the one.
    Met,
    /// It may still come.
    Open,
    /// The run has ended otherwise.
    Vain,
}

impl WaitCondition {
    /// Reads `STATUS[,STATUS…]`, in which the statuses may be written in any case, and `end` stands
    /// for any that ends a run. Returns those that it doesn't know, too: whether they may be waited
    /// for is for the caller to say.
    ///
    /// # Errors
    /// There is none.
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

/// A status as people write it: in any case.
#[must_use]
pub fn status(word: &str) -> TaskRunStatus {
    let known = TaskRunStatus::KNOWN
        .into_iter()
        .find(|known| known.as_str().eq_ignore_ascii_case(word));
    known.unwrap_or_else(|| TaskRunStatus::from(word))
}

/// The word that was probably meant, if one is near enough: up to a third of its letters differ, in
/// any case of letters.
#[must_use]
pub fn nearest<'words>(word: &str, words: &[&'words str]) -> Option<&'words str> {
    /// Longer than any word: far from all of them, and not worth the square of its length.
    const LONGEST: usize = 32;
    let letters = |text: &str| -> String {
        let lower = text.chars().flat_map(char::to_lowercase);
        lower.filter(|letter| letter.is_alphanumeric()).collect()
    };
    let typed = letters(word);
    if typed.chars().count() > LONGEST {
        return None;
    }
    let distances = words.iter().map(|known| {
        let known_letters = letters(known);
        let most = (known_letters.chars().count() / 3).max(1);
        // Neighbours that were swapped count as one slip.
        (osa_distance(&typed, &known_letters), most, *known)
    });
    let near = distances.filter(|(distance, most, _)| distance <= most);
    near.min_by_key(|(distance, ..)| *distance)
        .map(|(.., known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_near_and_another_word_is_not() {
        let known = TaskRunStatus::KNOWN;
        let words: Vec<&str> = known.iter().map(TaskRunStatus::as_str).collect();
        for (typed, meant) in [
            ("Runing", Some("Running")),
            ("running", Some("Running")),
            ("rnuning", Some("Running")),
            ("COMPLETE", Some("Completed")),
            ("checked-out", Some("CheckedOut")),
            ("TIMED_OUT", Some("TimedOut")),
            ("time out", Some("TimedOut")),
            ("fail", Some("Failed")),
            ("failed-restartable", Some("FailedRestartable")),
            ("abort", Some("Aborted")),
            ("Hibernating", None),
            ("hunter2", None),
            ("", None),
            (&"x".repeat(1_000_000), None),
        ] {
            assert_eq!(nearest(typed, &words), meant, "{typed:.40}");
        }
        let distance = |a: &str, b: &str| (osa_distance(a, b), osa_distance(b, a));
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ] {
            assert_eq!(distance(a, b), (expected, expected), "{a} {b}");
        }
    }

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
