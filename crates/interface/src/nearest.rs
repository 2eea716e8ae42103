//! Finds the word that the user probably meant.

use strsim::osa_distance;

/// The word that was probably meant, if there is a similar one: at most a third of its letters may
/// differ. Not case-sensitive.
#[must_use]
pub fn nearest<'words>(word: &str, words: &[&'words str]) -> Option<&'words str> {
    /// A longer text is similar to no word, and comparing it would take time quadratic in its
    /// length.
    const LONGEST: usize = 32;
    let letters = |text: &str| -> String {
        let letters = text
            .chars()
            .filter(|letter| !matches!(letter, ' ' | '-' | '_'));
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let typed = letters(word);
    if typed.chars().count() > LONGEST {
        return None;
    }
    let distances = words.iter().map(|known| {
        let known_letters = letters(known);
        let most = (known_letters.chars().count() / 3).max(1);
        // Two swapped neighbors count as one typo.
        (osa_distance(&typed, &known_letters), most, *known)
    });
    let near = distances.filter(|(distance, most, _)| distance <= most);
    near.min_by_key(|(distance, ..)| *distance)
        .map(|(.., known)| known)
}

#[cfg(test)]
mod tests {
    use podbeat_task_runs::model::TaskRunStatus;

    use super::*;

    #[test]
    fn a_typo_is_near_and_another_word_is_not() {
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
}
