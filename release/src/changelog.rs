//! CHANGELOG.md: the changes of each version. Pure.

use jiff::civil::Date;

/// The heading of what is not released yet.
const UNRELEASED: &str = "## Unreleased";

/// Why a changelog can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The heading is missing.
    #[error("CHANGELOG.md has no heading {0:?}")]
    Heading(String),
    /// There is nothing to release.
    #[error("CHANGELOG.md has no changes under {UNRELEASED:?}: write down what changed")]
    Nothing,
}

/// The changes of a version, without its heading.
///
/// # Errors
/// The version has no heading.
pub fn changes<'text>(text: &'text str, version: &str) -> Result<&'text str, Error> {
    let is_heading = |line: &str| {
        line.strip_prefix("## ")
            .and_then(|rest| rest.split(' ').next())
            .is_some_and(|first| first == version)
    };
    section(text, is_heading).ok_or_else(|| Error::Heading(format!("## {version}")))
}

/// The text after what is not released became a version.
///
/// # Errors
/// Nothing is unreleased.
pub fn released(text: &str, version: &str, date: Date) -> Result<String, Error> {
    let changes = section(text, |line| line == UNRELEASED)
        .ok_or_else(|| Error::Heading(UNRELEASED.to_owned()))?;
    if !changes.lines().any(|line| line.starts_with("- ")) {
        return Err(Error::Nothing);
    }
    let heading = format!("{UNRELEASED}\n\n## {version} - {date}");
    Ok(text.replacen(UNRELEASED, &heading, 1))
}

fn section(text: &str, is_heading: impl Fn(&str) -> bool) -> Option<&str> {
    let mut at = 0;
    let mut begin = None;
    for line in text.split_inclusive('\n') {
        if line.starts_with("## ") {
            if let Some(begin) = begin {
                return text.get(begin..at).map(str::trim);
            }
            if is_heading(line.trim_end()) {
                begin = Some(at + line.len());
            }
        }
        at += line.len();
    }
    begin.and_then(|begin| text.get(begin..)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# Changelog\n\n## Unreleased\n\n### Added\n- New.\n\n## 1.0.0 - 2026-01-02\n\n- First.\n";

    #[test]
    fn what_is_unreleased_becomes_a_version() {
        let text = released(TEXT, "1.1.0", jiff::civil::date(2026, 12, 1)).unwrap();
        assert_eq!(changes(&text, "1.1.0"), Ok("### Added\n- New."));
        assert_eq!(changes(&text, "Unreleased"), Ok(""));
        assert_eq!(changes(&text, "1.0.0"), Ok("- First."));
        assert!(text.contains("\n## 1.1.0 - 2026-12-01\n"));
        let again = released(&text, "1.2.0", jiff::civil::date(2026, 12, 2));
        assert_eq!(again, Err(Error::Nothing));
    }

    #[test]
    fn a_version_without_changes_is_refused() {
        assert_eq!(
            changes(TEXT, "1.0"),
            Err(Error::Heading("## 1.0".to_owned()))
        );
        assert_eq!(
            released("# Changelog\n", "1.0.0", jiff::civil::date(2026, 12, 2)),
            Err(Error::Heading(UNRELEASED.to_owned()))
        );
    }
}
