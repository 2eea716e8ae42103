//! Reads a list of task runs page by page.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use std::vec;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::Client;
use crate::Secret;
use crate::error::Error;
use crate::model::{ListTaskRunsQuery, PageSize, TaskRunSummary, TaskRunSummaryPagedItems};

/// Limit for the pages of a list: a hundred million runs with the largest page size.
const MOST_PAGES: u32 = 100_000;

/// Limit for consecutive pages without runs. A service that filters after paging may have some.
const MOST_EMPTY_PAGES: u32 = 1000;

pub(super) fn all(
    client: Client,
    mut query: ListTaskRunsQuery,
    token: Secret,
    timeout: Duration,
) -> BoxStream<'static, Result<TaskRunSummary, Error>> {
    query.page_size.get_or_insert(PageSize::LARGEST);
    let pages = Pages::from(query);
    stream::try_unfold(
        (pages, client, token),
        move |(mut pages, client, token)| async move {
            loop {
                if let Some(run) = pages.runs.next() {
                    return Ok(Some((run, (pages, client, token))));
                }
                match &pages.next {
                    Next::Page => {
                        let page = client.list(&pages.query, &token, timeout).await?;
                        pages.take(page);
                    }
                    Next::End => return Ok(None),
                    Next::Never(problem) => {
                        return Err(Error::Endless {
                            pages: pages.read,
                            problem,
                        });
                    }
                }
            }
        },
    )
    .boxed()
}

/// The position in a list.
struct Pages {
    /// The query for the next page.
    query: ListTaskRunsQuery,
    /// The remaining runs of the current page.
    runs: vec::IntoIter<TaskRunSummary>,
    next: Next,
    read: u32,
    empty_in_a_row: u32,
    /// Hashes of the page tokens so far, because a token may have any length.
    followed: HashSet<u64>,
    hasher: RandomState,
}

enum Next {
    Page,
    End,
    Never(&'static str),
}

impl From<ListTaskRunsQuery> for Pages {
    fn from(query: ListTaskRunsQuery) -> Self {
        let mut pages = Self {
            query,
            runs: Vec::new().into_iter(),
            next: Next::Page,
            read: 0,
            empty_in_a_row: 0,
            followed: HashSet::new(),
            hasher: RandomState::new(),
        };
        if let Some(token) = &pages.query.page_token {
            pages.followed.insert(pages.hasher.hash_one(token));
        }
        pages
    }
}

impl Pages {
    fn take(&mut self, page: TaskRunSummaryPagedItems) {
        let runs = page.items.unwrap_or_default();
        self.read += 1;
        self.empty_in_a_row = if runs.is_empty() {
            self.empty_in_a_row + 1
        } else {
            0
        };
        self.runs = runs.into_iter();
        self.next = match page.next_page_token.filter(|token| !token.is_empty()) {
            None => Next::End,
            Some(token) if !self.followed.insert(self.hasher.hash_one(&token)) => {
                Next::Never("the service repeats a page token")
            }
            Some(_) if self.read >= MOST_PAGES => Next::Never("the service has ever another page"),
            Some(_) if self.empty_in_a_row >= MOST_EMPTY_PAGES => {
                Next::Never("the service has ever another page, and no run on any of the last 1000")
            }
            Some(token) => {
                self.query.page_token = Some(token);
                Next::Page
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(runs: usize, next: &str) -> TaskRunSummaryPagedItems {
        TaskRunSummaryPagedItems {
            items: Some(vec![TaskRunSummary::default(); runs]),
            next_page_token: Some(next.to_owned()),
            ..TaskRunSummaryPagedItems::default()
        }
    }

    /// Returns how many pages are read from a service that always has another one.
    fn read(runs: usize) -> u32 {
        let mut pages = Pages::from(ListTaskRunsQuery::default());
        while matches!(pages.next, Next::Page) {
            pages.take(page(runs, &pages.read.to_string()));
        }
        assert!(matches!(pages.next, Next::Never(_)));
        pages.read
    }

    #[test]
    fn an_endless_list_is_refused() {
        assert_eq!(read(1), MOST_PAGES);
        assert_eq!(read(0), MOST_EMPTY_PAGES);
    }

    #[test]
    fn a_cycle_of_pages_is_detected() {
        let query = ListTaskRunsQuery {
            page_token: Some("2".to_owned()),
            ..ListTaskRunsQuery::default()
        };
        for (query, pages_read) in [(query, 3), (ListTaskRunsQuery::default(), 4)] {
            let mut pages = Pages::from(query);
            for next in ["0", "1", "2", "0", "1"] {
                if matches!(pages.next, Next::Page) {
                    pages.take(page(1, next));
                }
            }
            assert!(matches!(pages.next, Next::Never(_)));
            assert_eq!(pages.read, pages_read);
        }
    }
}
