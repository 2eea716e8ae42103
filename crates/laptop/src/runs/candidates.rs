//! The runs that a shell offers to complete a run's ID.

use std::time::Duration;

use podbeat_task_runs::model::{ListTaskRunsQuery, PageSize, SortField};

use podbeat_interface::service::Service;
use podbeat_interface::service::ServiceConfig;

/// How many runs to request. It is one page, and more than anyone reads.
const MOST: u16 = 200;

/// A run that completion offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The run's ID. It needs no quotes in any shell.
    pub id: String,
    /// The run's name and status, on one line.
    pub about: String,
}

/// The most recently modified runs, newest first. Empty if the service does not answer within
/// `limit` or answers with an error, because completion must not show errors.
pub async fn candidates(config: &ServiceConfig, limit: Duration) -> Vec<Candidate> {
    let asked = async {
        let mut service = Service::new(config).ok()?;
        let token = service.token().ok()?;
        let query = ListTaskRunsQuery {
            page_size: PageSize::new(MOST),
            sort: Some(SortField::TimeModified.descending().into()),
            ..ListTaskRunsQuery::default()
        };
        let page = service.client().list(&query, &token, limit).await.ok()?;
        page.items
    };
    let found = tokio::time::timeout(limit, asked).await.ok().flatten();
    let candidate = |run: podbeat_task_runs::model::TaskRunSummary| {
        let id = run.id.filter(|id| is_plain(id))?;
        let about = [
            run.name.as_deref(),
            run.status.as_ref().map(|status| status.as_str()),
        ];
        let about = about.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let about = podbeat_interface::terminal::one_line(&about);
        Some(Candidate { id, about })
    };
    found
        .into_iter()
        .flatten()
        .take(MOST.into())
        .filter_map(candidate)
        .collect()
}

/// Whether a shell reads the text as one plain word. A shell inserts a completion unchanged, so it
/// would execute a `$(…)` in it.
#[must_use]
pub fn is_plain(word: &str) -> bool {
    let is_plain = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | ':' | '/' | '@')
    };
    !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_a_shell_interprets_are_no_candidates() {
        for plain in ["trn.1", "a/b:c@d_e-f", "7"] {
            assert!(is_plain(plain), "{plain}");
        }
        for odd in [
            "",
            "-x",
            "a b",
            "$(id)",
            "`id`",
            "a;b",
            "a|b",
            "a&b",
            "a>b",
            "a\nb",
            "a\u{1b}[2J",
            "a'b",
            "a\"b",
            "~",
            "a*",
            "é",
            "!1",
            "a\\b",
        ] {
            assert!(!is_plain(odd), "{odd:?}");
        }
    }
}
