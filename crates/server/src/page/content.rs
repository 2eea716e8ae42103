//! From the service's answers to the content of a page.

use podbeat_task_runs::model::PageSize;

use super::html::{self, Picture};
use super::json;
use super::refusal::Refusal;
use super::view::{Overview, Pages, Run, Wanted};
use crate::api::query::Asked;
use crate::service::{Caller, Problem, Service};
use crate::store::{Cursor, Filter, Place};

/// The number of runs on one page of the list.
const SIZE: u16 = 50;

/// The number of bytes that are shown of what a run executes.
const EXECUTION: usize = 64 << 10;

/// The content of a page that is updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The first page of these runs.
    Runs(Wanted),
    /// One run.
    Run(String),
}

/// What a run executes, indented and without secrets. `None` if it has no execution.
pub(super) async fn execution(
    service: &Service,
    caller: &Caller,
    id: &str,
) -> Result<Option<String>, Problem> {
    let execution = service.execution(caller, id).await?;
    Ok(execution.map(|execution| {
        let bytes = execution.as_bytes();
        match bytes.get(..EXECUTION) {
            None => json::readable(bytes),
            Some(beginning) => json::readable(beginning) + "\n… the rest is not shown",
        }
    }))
}

/// A run with its past.
pub(super) async fn run(service: &Service, caller: &Caller, id: &str) -> Result<Run, Problem> {
    let detail = service.detail(caller, id).await?;
    Ok(Run::of(&detail, service.heartbeat_timeout()))
}

/// A page of the list: that with this token, or the first one.
pub(super) async fn overview(
    service: &Service,
    caller: &Caller,
    wanted: Wanted,
    token: Option<&str>,
) -> Result<Overview, Refusal> {
    let filter = Filter {
        search: Some(wanted.search.clone()).filter(|search| !search.is_empty()),
        statuses: wanted.statuses.clone(),
        ..Filter::default()
    };
    // The store's indexes have the runs of each filter in the order of creation. The newest come
    // first here, so the list is read from its end.
    let list = Asked::new(filter, PageSize::new(SIZE).unwrap_or(PageSize::DEFAULT));
    let end = Cursor {
        keys: Vec::new(),
        number: i64::MAX.unsigned_abs(),
    };
    let asked = match token {
        None => list.at(Place::Before(end)),
        Some(token) => Asked::of_token(token)
            .filter(|asked| asked.is_of_the_same_list(&list))
            .ok_or(Refusal::Address)?,
    };
    let (query, page) = service.list(caller, |viewer| asked.query(viewer)).await?;
    let cursor = |run: Option<_>| run.map(|run| query.cursor(run));
    let (oldest, newest) = (cursor(page.runs.first()), cursor(page.runs.last()));
    let older = oldest.filter(|_| page.has_previous);
    let newer = newest.filter(|_| page.has_next && token.is_some());
    let pages = Pages {
        oldest: older.is_some().then(|| list.token(Place::First)),
        older: older.map(|cursor| list.token(Place::Before(cursor))),
        newer: newer.map(|cursor| list.token(Place::After(cursor))),
        has_newest: token.is_some(),
    };
    let counts = service.counts(caller).await?;
    Ok(Overview::of(wanted, pages, counts, &page))
}

/// The newest content of an open page.
pub(super) async fn picture(
    service: &Service,
    caller: &Caller,
    subject: &Subject,
) -> Result<Picture, Refusal> {
    match subject {
        Subject::Runs(wanted) => {
            let overview = overview(service, caller, wanted.clone(), None).await?;
            Ok(html::runs_picture(&overview))
        }
        Subject::Run(id) => match run(service, caller, id).await {
            Ok(run) => Ok(html::run_picture(Some(&run))),
            Err(Problem::NotFound) => Ok(html::run_picture(None)),
            Err(problem) => Err(problem.into()),
        },
    }
}
